"""Everything that has to be done when a GPU is at hand (`make gpu-check`): tests, speed, quality, one after another.

Each part is a process of its own with a time limit of its own. It writes gpu-<part>.json as it goes, which is complete
JSON at every moment, and all that it prints into gpu-<part>.log. What happens to one part stops no other. One line is
printed per part; the exit status is 0 if every part ran to its end and all was well.

What the machine lacks is taken from .gpu/, if that is there (`make gpu-bundle`). Nothing is fetched. `--quick` is the
rehearsal: tiny sizes, on the CPU.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle import BUNDLE, install
from progress import Budget, Progress

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMITS = {"tests": 150, "speed": 165, "quality": 195}  # seconds
SPEED_ROWS = ("all", "first", "rest")
_GRACE = 5.0  # seconds from the request to stop to the end
_MARGIN = 12.0  # seconds of a limit that a part keeps for its start and its end


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(LIMITS), help=f"of {', '.join(LIMITS)}; several by commas")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu-check"), help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="the rehearsal: tiny sizes, on the CPU")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda, cpu with --quick")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="PART=SECONDS", help=f"default: {_as_words(LIMITS)}"
    )
    parser.add_argument("--speed", choices=SPEED_ROWS, default="all", help="which rows; first fits into a minute")
    parser.add_argument("--data", type=Path, help="folder that holds multi30k/ (default: .gpu/data, else data)")
    parser.add_argument("--pytest-args", default="", help="further words for pytest")
    asked = parser.parse_args(arguments)
    parts = [part for part in asked.part.split(",") if part]
    if unknown := sorted(set(parts) - set(LIMITS)):
        parser.error(f"there is no part {', '.join(unknown)}; choose among {', '.join(LIMITS)}")
    limits = dict(LIMITS)
    for word in asked.limit:
        name, _, seconds = word.partition("=")
        if name not in LIMITS or not seconds.isdigit() or int(seconds) < 1:
            parser.error(f"--limit {word!r} is not PART=SECONDS with a part of {', '.join(LIMITS)}")
        limits[name] = int(seconds)
    asked.device = asked.device or ("cpu" if asked.quick else "cuda")
    asked.data = asked.data or next((path for path in (BUNDLE / "data", ROOT / "data") if path.is_dir()), Path("data"))
    asked.output.mkdir(parents=True, exist_ok=True)

    budget = Budget(0.0)
    site, sentence = install()
    print(f"gpu-check: {sentence}", flush=True)
    environment = _environment(site)
    good = [run_part(part, limits[part], asked, environment) for part in parts]
    print(f"gpu-check: {sum(good)} of {len(parts)} parts complete and well, in {budget.used:.0f} s, {asked.output}")
    return 0 if all(good) else 1


def run_part(part: str, limit: float, asked: argparse.Namespace, environment: dict[str, str]) -> bool:
    """Run one part within its limit, print its line, and say whether it is complete and well."""
    name = part if part != "speed" or asked.speed == "all" else f"speed-{asked.speed}"
    results, log = asked.output / f"gpu-{name}.json", asked.output / f"gpu-{name}.log"
    results.unlink(missing_ok=True)
    budget, stopped = Budget(limit), None
    with log.open("wb") as written:
        # A group of its own: the limit ends whatever the part has started as well.
        process = subprocess.Popen(
            command_of(part, results, limit, asked),
            cwd=ROOT,
            env={
                **environment,
                "GPU_CHECK_TEST_RESULTS": str(results.resolve()),
                "VANILLA_TRANSFORMER_TEST_DEVICE": asked.device,
            },
            stdout=written,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        try:
            status = process.wait(limit)
            if status not in (0, 1):
                stopped = f"ended with status {status}"
        except subprocess.TimeoutExpired:
            stopped = f"stopped at its limit of {limit:g} s"
        finally:
            _end(process)
    facts = _read(results)
    if facts is None:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        facts = {"part": part, "ok": False, "summary": f"no results; its last line: {last[-1] if last else 'none'}"}
    facts["complete"] = bool(facts.get("complete")) and stopped is None
    facts["ok"] = bool(facts.get("ok")) and facts["complete"]
    facts.update(seconds=round(budget.used, 1), limit=limit, device=asked.device, quick=asked.quick, stopped=stopped)
    Progress(results, **facts)
    print(f"{name}: {facts['summary']}{f'; {stopped}' if stopped else ''}", flush=True)
    return facts["ok"]


def command_of(part: str, results: Path, limit: float, asked: argparse.Namespace) -> list[str]:
    """Return the words that start a part."""
    if part == "tests":
        words = ["-m", "pytest", "tests/gpu", "-q", "-p", "pytest_results", "-p", "no:cacheprovider"]
        words += ["-m", "not slow" if asked.device == "cpu" else "gpu"]
        if asked.device == "cuda" and importlib.util.find_spec("xdist") is not None:
            words += ["-n", str(max(1, min(6, (os.cpu_count() or 1) // 2))), "--dist", "worksteal"]
        return [sys.executable, *words, *asked.pytest_args.split()]
    seconds = max(limit - _MARGIN, limit / 2)
    words = [str(HERE / f"{part}.py"), "--output", str(results.resolve()), "--seconds", f"{seconds:g}"]
    words += ["--device", asked.device, *(["--quick"] if asked.quick else [])]
    words += ["--rows", asked.speed] if part == "speed" else ["--data", str(asked.data.resolve())]
    return [sys.executable, *words]


def _environment(site: Path | None) -> dict[str, str]:
    folders = [ROOT, HERE, HERE.parent, *([] if site is None else [site])]
    before = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, folders), *([before] if before else [])]),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_EVALUATE_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "TORCHINDUCTOR_COMPILE_THREADS": os.environ.get("TORCHINDUCTOR_COMPILE_THREADS", "4"),
    }


def _end(process: subprocess.Popen) -> None:
    """End a part and all that it has started: by request, and by force where that is not enough."""
    for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):  # the process has already ended
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _as_words(limits: dict[str, int]) -> str:
    return " ".join(f"{part}={seconds}" for part, seconds in limits.items())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a part under way is ended as well
    sys.exit(main())
