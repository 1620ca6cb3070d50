"""Measure the settings that `train` chooses for an amount of text: train on N pairs, score on others, keep the record.

You learn: what two files and no setting give, in minutes, BLEU and chrF, beside the chrF of copying the source, which
every translation should exceed. Training text is the first N pairs, or N pairs spread over the text (`--spread`), for a
text that is sorted. Test text is what `--test-source` and `--test-target` name; else other pairs of the same text, none
of whose sources or targets is in the training text.

    python examples/chosen_settings.py my.en my.ko --pairs 3000
    python examples/chosen_settings.py train.en train.de --pairs 3000 --name multi30k-3000
    python examples/chosen_settings.py train.en train.de --pairs 3000 --name multi30k-3000 --finished runs/mine
    python examples/chosen_settings.py --render docs/training.md  # the table, from the records in examples/results/

`--finished` scores a run that the command `train` has made of the same pairs, with the same test text.

Hardware: two CPU cores. Minutes: 3 for 300 pairs, 15 for 3,000. Further arguments are settings of `train`.
The last line is "chosen_settings: bleu=… chrf=… copied=… minutes=… model=runs/chosen/NAME".
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from records import add_record_options, between, read_records, render_page, write_record

from hf_vanilla_transformer import TranslationMetric, read_recipe, train

RECORDS = Path(__file__).resolve().parent / "results" / "chosen_settings"
MOST_TEST_PAIRS = 1000
OURS = "hf_vanilla_transformer"
START, END = "<!-- chosen:start -->", "<!-- chosen:end -->"
HEADINGS = (
    "text", "pairs", "updates", "epochs", "minutes", "of the processor", "BLEU", "chrF", "chrF of the copied source",
    "empty or repeating", "held-out chrF", "measured",
)  # fmt: skip

Pairs = list[tuple[str, str]]


def read_pairs(source: Path, target: Path, origin_file: Path | None = None, origins: Sequence[str] = ()) -> Pairs:
    """Read the pairs with text on both sides; of the given origins only, if a file names the origin of each line."""
    paths = [source, target] if origin_file is None else [source, target, origin_file]
    columns = [path.read_text(encoding="utf-8").removesuffix("\n").split("\n") for path in paths]
    if len(set(map(len, columns))) > 1:
        raise SystemExit(
            f"{', '.join(map(str, paths))} have {', '.join(f'{len(column):,}' for column in columns)} lines"
        )
    rows = [row for row in zip(*columns, strict=True) if row[0].strip() and row[1].strip()]
    return [(row[0], row[1]) for row in rows if origin_file is None or row[2] in origins]


def spread(pairs: Pairs, number: int) -> Pairs:
    """Return this number of pairs at equal distances."""
    return [pairs[place * len(pairs) // number] for place in range(min(number, len(pairs)))]


def unseen(pairs: Pairs, training: Pairs) -> Pairs:
    """Return test pairs whose source and target are not in the training text."""
    sources, targets = ({pair[side] for pair in training} for side in (0, 1))
    return spread([pair for pair in pairs if pair[0] not in sources and pair[1] not in targets], MOST_TEST_PAIRS)


def write_pairs(stem: Path, pairs: Pairs, languages: Sequence[str]) -> list[Path]:
    """Write the two sides of pairs as text files; return their paths."""
    paths = [stem.with_suffix(f".{language}") for language in languages]
    for side, path in enumerate(paths):
        path.write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
    return paths


def measure(options: argparse.Namespace, settings: Sequence[str]) -> dict[str, Any]:
    """Train with the chosen settings and return the run's record, with the text, the minutes and the copied source."""
    languages = [path.suffix.removeprefix(".") for path in (options.source, options.target)]
    pairs = read_pairs(options.source, options.target, options.origin_file, options.origins)
    training = spread(pairs, options.pairs) if options.spread else pairs[: options.pairs]
    test = read_pairs(options.test_source, options.test_target) if options.test_source else unseen(pairs, training)
    folder = options.runs / f"{options.name}-text"
    folder.mkdir(parents=True, exist_ok=True)
    files = write_pairs(folder / "train", training, languages) + write_pairs(folder / "test", test, languages)

    if options.finished is not None:
        record, minutes, threads = finished_run(options.finished, files[2:], len(training))
    else:
        started = time.perf_counter()
        keys = ("train_source", "train_target", "test_source", "test_target")
        words = [word for key, path in zip(keys, files, strict=True) for word in (f"--{key}", str(path))]
        record = train(read_recipe(None, [*words, "--output_dir", str(options.runs / options.name), *settings])).record
        trained = record["training"]["seconds"]  # of all parts, if the run was resumed
        minutes, threads = max(time.perf_counter() - started, trained) / 60, torch.get_num_threads()

    sources, references = map(list, zip(*test, strict=True))
    copied = TranslationMetric("char").compute(predictions=sources, references=references)  # chrF splits no words
    return {
        "text": options.text or options.name,
        "pairs": len(training),
        "minutes": round(minutes, 1),  # with evaluation; of a run made here also with vocabulary and translations
        "copied_source": {"chrf": copied["chrf"]},
        "date": time.strftime("%Y-%m-%d"),
        "threads": threads,
        **record,
    }


def finished_run(run: Path, test: Sequence[Path], pairs: int) -> tuple[dict[str, Any], float, int]:
    """Return the record of a run with scores of the test text, its minutes, and the threads that were busy."""
    record = json.loads((run / "results.json").read_text(encoding="utf-8"))
    trained = sum(record["data"].get(split, {"pairs": 0})["pairs"] for split in ("train", "validation"))
    if trained != pairs:
        raise SystemExit(f"{run} was trained and validated on {trained:,} pairs, not on {pairs:,}; set --pairs")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "scores.json"
        files = ["--source", str(test[0]), "--reference", str(test[1]), "--output", str(output)]
        search = record["training"]["decoding"]
        beam = [word for key in ("num_beams", "length_penalty") for word in (f"--{key}", str(search[key]))]
        subprocess.run([sys.executable, "-m", OURS, "evaluate", str(run), *files, *beam], check=True)
        (scores,) = json.loads(output.read_text(encoding="utf-8"))["scores"].values()
    seconds, busy = record["training"]["seconds"], record["training"]["processor_seconds"]
    return {**record, "scores": {**record["scores"], "test": scores}}, seconds / 60, max(1, round(busy / seconds))


def table(folder: Path) -> str:
    """Return the table of all records in Markdown."""
    rows: list[tuple[str, ...]] = [HEADINGS, ("---",) * len(HEADINGS)]
    records = read_records(folder)
    for record in sorted(records, key=lambda record: (record["text"], record["pairs"])):
        training, threads = record["training"], record["threads"]
        test, held_out = record["scores"]["test"], record["scores"].get("validation")
        rows.append((
            record["text"], f"{record['pairs']:,}", f"{training['updates']:,}", f"{training['epochs']:.3g}",
            f"{record['minutes']:.1f}", f"{training['processor_seconds'] / 60:.1f}", f"{test['bleu']:.1f}",
            f"{test['chrf']:.1f}", f"{record['copied_source']['chrf']:.1f}",
            f"{100 * (test['empty'] + test['repeating']):.1f} %", f"{held_out['chrf']:.1f}" if held_out else "–",
            f"{record['date']}, {threads} {'thread' if threads == 1 else 'threads'}",
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def render(text: str, folder: Path = RECORDS) -> str:
    """Return a page with the table of the records between its markers."""
    return between(text, START, END, table(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", help="text file, named by its language, as train.en")
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--spread", action="store_true", help="pairs spread over the text, instead of the first ones")
    parser.add_argument("--origin-file", type=Path, help="file that names the origin of each pair, line by line")
    parser.add_argument("--origins", nargs="+", default=(), help="origins whose pairs are used")
    parser.add_argument("--test-source", type=Path)
    parser.add_argument("--test-target", type=Path)
    parser.add_argument("--finished", type=Path, metavar="RUN", help="directory of a run on these pairs, to be scored")
    parser.add_argument("--runs", type=Path, default=Path("runs/chosen"))
    add_record_options(parser, RECORDS)
    options, settings = parser.parse_known_args(arguments)
    if render_page(options, render):
        return
    if (
        options.source is None
        or options.target is None
        or (options.test_source is None) != (options.test_target is None)
    ):
        parser.error("give the source and the target of the text, and of the test text both or neither")

    record = measure(options, settings)
    write_record(options, record)
    test = record["scores"]["test"]
    copied = record["copied_source"]["chrf"]
    print(
        f"chosen_settings: bleu={test['bleu']:.1f} chrf={test['chrf']:.1f} copied={copied:.1f} "
        f"minutes={record['minutes']:.1f} model={options.finished or options.runs / options.name}"
    )


if __name__ == "__main__":
    main()
