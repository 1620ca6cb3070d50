"""Train four contenders for the same minutes on the same cores and the same text, and plot BLEU against time.

    python benchmarks/equal_minutes.py --data DATA --joeynmt-python JOEYNMT/bin/python

Contenders, each run by its own code: recipe tiny of this package; MarianMT of the same size under transformers'
Seq2SeqTrainer; torch.nn.Transformer of the same size in a plain loop; JoeyNMT by its own command. All share text,
subword tokenizer and sizes; each runs alone, on all cores. Time in evaluation isn't counted. For the peers, the
settings that matter (precision and attention kernel, batch, schedule, then the peak learning rate) are chosen one
after the other in short runs on the validation text; ours is the recipe as it is.

Every run writes a file into the work folder, and a run that is there isn't repeated: an interrupted benchmark
continues, and `--only ours` adds a single contender, or repeats it once its files are deleted. After each contender,
the record examples/results/equal-minutes-<kind>.json and the picture docs/equal_minutes.png are written. They show all
contenders of the work folder, and those that the record had before, which must have run with the same settings on the
same processor. The last line is `equal_minutes: <n> contenders, <n> skipped`.
"""

import argparse
import importlib
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CONTENDERS = {"ours": "ours", "marian": "marian", "torch": "torch_loop", "joeynmt": "joeynmt"}  # name: module
ROOT = Path(__file__).resolve().parents[1]
RESULTS, PICTURE = ROOT / "examples" / "results", ROOT / "docs" / "equal_minutes.png"
WORK = ROOT / "runs" / "equal-minutes"
SHARE = 0.95  # of the time: the planned updates fill it, so that the schedule ends although speed varies a little
LEAST_BLEU = 5.0  # below it, runs are ranked by their training loss
MOST_RATES = 5  # learning rates to try: three, and more while the best is the highest or the lowest
QUICK = {"minutes": 0.05, "screen_minutes": 0.02, "point_minutes": 0.02, "probe_seconds": 1.0}
QUICK_SIZES = {"d_model": 16, "d_ff": 32, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
QUICK_VOCABULARY = 400


class Unusable(Exception):
    """An option, a work folder or a run that cannot be used; its message contains what to do."""


class Benchmark:
    """All runs of a work folder.

    Args:
        asked: the command line's options.
        sizes: of the model, by configuration name.
        task: folder of text and tokenizer.
    """

    def __init__(self, asked: argparse.Namespace, sizes: dict[str, Any], task: Path) -> None:
        self.asked, self.sizes, self.task = asked, sizes, task
        self.runs = asked.work / "runs"
        self.runs.mkdir(parents=True, exist_ok=True)

    def run(self, contender: Any, purpose: str, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the record of a run; if its file is missing, run it in a process of its own."""
        from contenders.job import Job, show

        name = "-".join(
            [contender.name, purpose, *(f"{key}={value}" for key, value in settings.items() if key in _SHORT)]
        )
        path = self.runs / f"{name}.json"
        if path.is_file():
            return _read(path)
        folder, job_path = self.runs / name, self.runs / f"{name}.job"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
        updates = None
        if purpose != "speed":
            updates = max(int(SHARE * seconds * self.pace(contender, settings)), 1)
        distance = 60 * self.asked.point_minutes
        points = [distance * number for number in range(1, 1000) if distance * number < seconds - distance / 2]
        Job(
            contender.name, purpose, seconds, updates, points if purpose == "final" else [], settings, self.sizes,
            str(self.task), str(folder), self.asked.seed, self.asked.joeynmt_python,
        ).write(job_path)  # fmt: skip
        planned = "" if updates is None else f", {updates:,} updates planned"
        show(f"  {name}: {seconds / 60:.2f} minutes{planned}")
        if self.asked.quick:  # in this process: the imports would take longer than the run
            with redirect_stdout(sys.stderr):
                run_job(job_path, path, self.asked.threads)
        else:
            self._run_process(name, job_path, path)
        shutil.rmtree(folder, ignore_errors=True)
        return _read(path)

    def _run_process(self, name: str, job_path: Path, path: Path) -> None:
        """Run a job in a process of its own, whose messages go to the run's log."""
        from contenders.processes import call

        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.asked.threads),
            "MKL_NUM_THREADS": str(self.asked.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        }
        log = self.runs / f"{name}.log"
        with log.open("w", encoding="utf-8") as messages:
            status = call(
                [sys.executable, __file__, "--job", str(job_path), str(path), str(self.asked.threads)],
                env=environment,
                stdout=sys.stderr,  # a line for each point
                stderr=messages,
            )
        if status:
            raise Unusable(f"the run {name} ended with status {status}; its log is {log}")

    def pace(self, contender: Any, settings: dict[str, Any]) -> float:
        """Return updates per second, from the screening runs with the same batches or from a short run."""
        same = {key: value for key, value in settings.items() if key not in ("schedule", "learning_rate")}
        screens = [_read(path) for path in self.runs.glob(f"{contender.name}-screen*.json")]
        alike = [run for run in screens if {key: run["settings"].get(key) for key in same} == same]
        if alike:
            return float(sum(run["updates"] for run in alike) / sum(run["seconds"] for run in alike))
        return float(self.run(contender, "speed", settings, self.asked.probe_seconds)["updates_per_second"])

    def screen(self, contender: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Choose the settings of a contender; return them and what was tried."""
        settings = dict(self.sizes_override)
        if not contender.rates:  # nothing to choose, but the pace of the long run comes from one of the same length
            self.run(contender, "screen", settings, 60 * self.asked.screen_minutes)
            return settings, []
        tried: list[dict[str, Any]] = []
        rates = list(contender.rates)
        settings |= {key: values[0] for key, values in contender.choices.items()}
        settings["learning_rate"] = rates[len(rates) // 2]
        choices, kernels = contender.choices, contender.kernels
        if self.asked.quick:
            choices, kernels = {key: values[:1] for key, values in choices.items()}, kernels[-1:]
        if kernels:
            probes = []
            for kernel in kernels:
                found = self.run(contender, "speed", {**settings, **kernel}, self.asked.probe_seconds)
                probes.append({"settings": found["settings"], "updates_per_second": found["updates_per_second"]})
            tried += probes
            settings = dict(max(probes, key=lambda probe: probe["updates_per_second"])["settings"])

        def quality(changed: dict[str, Any]) -> tuple[float, float]:
            found = self.run(contender, "screen", {**settings, **changed}, 60 * self.asked.screen_minutes)
            end = found["points"][-1]
            entry = {
                "settings": found["settings"],
                "bleu": end["bleu"],
                "loss": end["loss"],
                "updates_per_second": found["updates_per_second"],
            }
            if entry not in tried:
                tried.append(entry)
            return _quality(end)

        for key, values in choices.items():
            settings[key] = max(values, key=lambda value: quality({key: value}))  # noqa: B023 - used at once
        settings["learning_rate"] = best_rate(rates, lambda rate: quality({"learning_rate": rate}))
        return settings, tried

    @property
    def sizes_override(self) -> dict[str, Any]:
        """Settings that replace the recipe's architecture, where the sizes are tiny."""
        return {"config_overrides": QUICK_SIZES} if self.asked.quick else {}


_SHORT = ("sentences", "tokens", "layer_norm", "schedule", "precision", "attention", "learning_rate")  # in file names


def _quality(point: dict[str, Any]) -> tuple[float, float]:
    """Return what ranks runs: BLEU, and the training loss where BLEU is so low that it says nothing."""
    bleu = point["bleu"] if point["bleu"] >= LEAST_BLEU else 0.0
    return bleu, -math.inf if point["loss"] is None else -point["loss"]


def best_rate(rates: list[float], quality: Callable[[float], tuple[float, float]]) -> float:
    """Return the best learning rate of at least three; while the best is an end of the row, go on by factors of two.

    Args:
        rates: rising, to start with.
        quality: of a rate, the higher the better; see `_quality`.
    """
    found = {rate: quality(rate) for rate in rates}
    while True:
        best = max(found, key=lambda rate: found[rate])
        if len(found) >= MOST_RATES or min(found) < best < max(found):
            return best
        following = best * 2 if best == max(found) else best / 2
        found[following] = quality(following)


def run_job(job_path: Path, path: Path, threads: int) -> None:
    """Run a job in this process and write its record."""
    import machine
    import torch
    from contenders.job import Job
    from contenders.task import Task
    from transformers.utils import logging

    logging.disable_progress_bar()
    job = Job.read(job_path)
    torch.set_num_threads(threads)
    contender = _module(job.contender).CONTENDER
    record = contender.run(job, Task.load(Path(job.task)))
    record |= {"date": _today(), "versions": machine.versions(), "commit": machine.commit()}
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)  # a file is there only if the run is complete


def main() -> None:
    """Run the contenders and write record and picture."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run under way is ended as well
    if sys.argv[1:2] == ["--job"]:
        run_job(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
        return
    parser = _parser()
    asked = parser.parse_args()
    _check(parser, asked)
    try:
        _benchmark(asked)
    except Unusable as problem:
        parser.exit(2, f"{parser.prog}: error: {problem}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: interrupted; the same command continues with the run that was under way\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"contenders, separated by commas: {', '.join(CONTENDERS)}")
    parser.add_argument("--minutes", type=float, help="training time of each contender (default: 30)")
    parser.add_argument("--screen-minutes", type=float, help="training time of each run that compares settings (4)")
    parser.add_argument("--point-minutes", type=float, help="training time between translations of validation (2.5)")
    parser.add_argument("--probe-seconds", type=float, help="length of the runs that measure the speed (20)")
    parser.add_argument(
        "--data", type=Path, help="folder that holds multi30k/lc.norm.tok (or VANILLA_TRANSFORMER_DATA)"
    )
    parser.add_argument(
        "--joeynmt-python", type=Path, help="Python of an environment that has JoeyNMT; see docs/speed.md"
    )
    parser.add_argument("--threads", type=int, help="of each run (default: one for each core)")
    parser.add_argument("--seed", type=int, default=1, help="of weights and batches (default: 1)")
    parser.add_argument("--work", type=Path, help=f"folder for the runs (default: {WORK.relative_to(ROOT)})")
    parser.add_argument("--output", type=Path, help="folder for record and picture (default: examples/results, docs)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run? Needs --output")
    return parser


def _check(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    """Check the options and fill in defaults."""
    asked.names = asked.only.split(",") if asked.only else list(CONTENDERS)
    if unknown := sorted(set(asked.names) - set(CONTENDERS)):
        parser.error(f"there is no contender {', '.join(unknown)}; choose among {', '.join(CONTENDERS)}")
    if asked.quick and asked.output is None:
        parser.error("--quick makes figures that mean nothing; give --output, so that they replace no real ones")
    full = {"minutes": 30.0, "screen_minutes": 4.0, "point_minutes": 2.5, "probe_seconds": 20.0}
    for name, default in (QUICK if asked.quick else full).items():
        if getattr(asked, name) is None:
            setattr(asked, name, default)
        if getattr(asked, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(asked, name):g} trains nothing; give more than 0")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked.threads = asked.threads or cores
    if not 1 <= asked.threads <= cores:
        parser.error(f"--threads {asked.threads}: there are {cores} cores; give 1 to {cores}")
    if asked.work is None:
        asked.work = asked.output / "work" if asked.quick else WORK
    asked.work = asked.work.resolve()
    if asked.joeynmt_python is not None:
        asked.joeynmt_python = str(asked.joeynmt_python.absolute())  # resolve() would leave the virtual environment


def _benchmark(asked: argparse.Namespace) -> None:
    from contenders.task import DATA_VARIABLE, FILES, FOLDER, LANGUAGES, find_text, fingerprint, prepare

    text = find_text(asked.data, asked.quick)
    if text is None:
        raise Unusable(
            f"there is no {FOLDER} with {', '.join(FILES.values())} in .en and .de; give the folder that holds it with "
            f"--data or {DATA_VARIABLE}"
        )
    import machine
    from contenders import picture
    from contenders.job import show
    from contenders.ours import sizes, vocabulary_size
    from transformers.utils import logging

    logging.set_verbosity_error()
    architecture = sizes(QUICK_SIZES if asked.quick else {})
    vocabulary = QUICK_VOCABULARY if asked.quick else vocabulary_size()
    settings = {
        **{name: getattr(asked, name) for name in ("minutes", "screen_minutes", "point_minutes", "threads", "seed")},
        "architecture": architecture,
        "vocabulary": vocabulary,
        "text": fingerprint(text),
        "processor": machine.hardware()["processor"],  # runs of another one would not be comparable
    }
    _keep_settings(asked.work, settings)
    task = asked.work / "task"
    if not (task / "complete").is_file():
        prepare(task, text, ("en", "ko") if asked.quick else LANGUAGES, vocabulary)
        (task / "complete").touch()
    skipped = []
    if "joeynmt" in asked.names and (problem := _module("joeynmt").problem(asked.joeynmt_python)):
        asked.names.remove("joeynmt")
        skipped.append(problem)
    folder = asked.output or RESULTS
    path = folder / f"equal-minutes-{machine.hardware()['kind']}.json"
    earlier = _earlier(path, settings, asked.names)
    benchmark, contenders = Benchmark(asked, architecture, task), _all_contenders(asked.work, earlier)
    for name in asked.names:
        show(f"{name} …")
        _run_contender(benchmark, name)
        contenders = _all_contenders(asked.work, earlier)
        record = _record(asked, settings, contenders, skipped)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        picture.save(record, asked.output / PICTURE.name if asked.output else PICTURE)
    if contenders:
        print(_table(contenders))
    for problem in skipped:
        print(f"skipped: {problem}")
    print(f"equal_minutes: {len(contenders)} contenders, {len(skipped)} skipped")


def _module(name: str) -> Any:
    """Import the module of a contender."""
    return importlib.import_module(f"contenders.{CONTENDERS[name]}")


def _run_contender(benchmark: Benchmark, name: str) -> None:
    """Choose a contender's settings, train it for the full time, and write its summary into the work folder."""
    module, asked = _module(name), benchmark.asked
    chosen, tried = benchmark.screen(module.CONTENDER)
    final = benchmark.run(module.CONTENDER, "final", chosen, 60 * asked.minutes)
    summary = {
        "name": name,
        "label": module.CONTENDER.label,
        "fixed": module.CONTENDER.fixed,
        "tried": tried,
        **final,
    }
    if name == "joeynmt":
        summary["versions"] = module.versions(asked.joeynmt_python)
    (asked.work / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def _all_contenders(work: Path, earlier: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the summaries of the work folder, and those of an earlier record for contenders that aren't there."""
    found = {name: _read(path) for name in CONTENDERS if (path := work / f"{name}.json").is_file()}
    return [{**earlier, **found}[name] for name in CONTENDERS if name in earlier or name in found]


def _earlier(path: Path, settings: dict[str, Any], running: list[str]) -> dict[str, dict[str, Any]]:
    """Return the contenders of the record that is there, by name, without those that will run now.

    Raises:
        Unusable: If they had other settings, so that one record can't contain them and those that will run.
    """
    if not path.is_file():
        return {}
    try:
        record = _read(path)
        kept = {found["name"]: found for found in record["contenders"] if found["name"] not in running}
        before = {**record["settings"], "text": record["data"]["sha256"], "processor": record["hardware"]["processor"]}
    except (ValueError, LookupError, TypeError) as error:
        raise Unusable(f"{path} is not a record of this benchmark ({error!r}); move it away or delete it") from None
    if kept and (changed := sorted(key for key in settings if before.get(key) != settings[key])):
        raise Unusable(
            f"{path} has {', '.join(kept)} with another {', '.join(changed)}; run these as well, or give another "
            "folder with --output"
        )
    return kept


def _keep_settings(work: Path, settings: dict[str, Any]) -> None:
    """Write what all runs of a work folder share, or check that it is the same.

    Raises:
        Unusable: If it is not.
    """
    path = work / "settings.json"
    if path.is_file():
        before = _read(path)
        if changed := sorted(key for key in settings if before.get(key) != settings[key]):
            raise Unusable(
                f"{work} has runs with another {', '.join(changed)}; give another folder with --work, or delete it"
            )
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _record(
    asked: argparse.Namespace, settings: dict[str, Any], contenders: list[dict[str, Any]], skipped: list[str]
) -> dict[str, Any]:
    import machine
    from contenders.task import DATA_LICENSE, NAME

    return {
        "name": "equal_minutes",
        "what": "BLEU against training time of four contenders of the same size, on the same text and cores.",
        "quick": asked.quick,
        "date": _today(),
        "minutes": asked.minutes,
        "data": {
            "name": "embedded corpus, English-Korean" if asked.quick else NAME,
            "sha256": settings["text"],
            "license": None if asked.quick else DATA_LICENSE,
        },
        "settings": {key: value for key, value in settings.items() if key not in ("text", "processor")},
        "contenders": contenders,
        "skipped": skipped,
        "hardware": {**machine.hardware(), "threads": asked.threads},
        "versions": machine.versions(),
        "commit": machine.commit(),
    }


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _table(contenders: list[dict[str, Any]]) -> str:
    """Render the end of each contender as plain text."""
    lines = [("contender", "settings", "updates", "target tokens", "minutes", "validation", "test BLEU")]
    for found in contenders:
        settings = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                             for key, value in found["settings"].items() if key in _SHORT)  # fmt: skip
        end, final = found["points"][-1], found["final"]
        lines.append(
            (
                found["label"], settings or "the recipe's", f"{found['updates']:,}", f"{end['tokens']:,}",
                f"{end['minutes']:.1f}", f"{final['validation']['bleu']:.2f}", f"{final['test']['bleu']:.2f}",
            )
        )  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
