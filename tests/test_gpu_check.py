"""`make gpu-check` on a pretended device: every part runs at tiny sizes, and whatever happens its results are JSON."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import psutil
import pytest
from platforms import posix_only

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks" / "gpu"
pytestmark = posix_only  # the parts are stopped by process group

ONE_TEST = "-k positions_are_as_exact"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's modules, importable as its scripts import them."""
    for folder in (FOLDER.parent, FOLDER):
        monkeypatch.syspath_prepend(str(folder))


def gpu_check(output: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(FOLDER / "check.py"), "--quick", "--output", str(output), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)  # the command finds everything itself
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def results(output: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("*.json"))}


def test_the_whole_command_runs_at_tiny_sizes_and_prints_a_line_a_part(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, "--speed", "first", "--pytest-args", ONE_TEST)
    logs = "".join(path.read_text(errors="replace")[-1500:] for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    lines = done.stdout.splitlines()
    assert lines[0].startswith("gpu-check: ")  # what was installed
    assert re.fullmatch(r"tests: 1 passed, 0 failed, 0 skipped in \d+ s", lines[1])
    assert re.fullmatch(r"speed-first: 3 rows, 0 left out; tiny sizes, whose figures mean nothing", lines[2])
    assert re.fullmatch(r"quality: seed 1 BLEU [\d.]+ at [\d.]+ M target tokens; mean BLEU [\d.]+", lines[3])
    assert re.match(r"gpu-check: 3 of 3 parts complete and well, in \d+ s, ", lines[4]) and len(lines) == 5
    assert len(list(tmp_path.iterdir())) <= 8
    found = results(tmp_path)
    assert set(found) == {"gpu-tests", "gpu-speed-first", "gpu-quality"}
    for facts in found.values():
        assert facts["complete"] and facts["ok"] and facts["stopped"] is None
        assert facts["device"] == "cpu" and facts["quick"] is True and 0 < facts["seconds"] < facts["limit"]
    (test,) = found["gpu-tests"]["tests"].values()
    assert test["outcome"] == "passed"
    speed = found["gpu-speed-first"]
    assert speed["profile"]["checks"]["gradient_cosine"] > 0.99 and speed["skipped"] == []
    assert [row["goal"] for row in speed["rows"]][:2] == ["≥ 2×", "≥ 1.3×"] and "≥ 0.45" in speed["rows"][2]["goal"]
    assert all(row["runs"]["ours"] for row in speed["rows"])
    assert speed["hardware"]["processor"] and speed["versions"]["torch"]
    quality = found["gpu-quality"]
    assert quality["seeds"]["1"]["updates"] == 6 and quality["cpu_recipe"]["mean_bleu"] > 39


@pytest.mark.slow
def test_every_row_of_the_speed_part_and_every_rehearsal_runs(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, "--part", "tests,speed")
    assert done.returncode == 0, done.stdout + done.stderr
    speed = results(tmp_path)["gpu-speed"]
    measures = " ".join(row["measure"] for row in speed["rows"])
    for what in ("preset big", "preset base", "loop", "batch 1,", "compiled"):
        assert what in measures, what
    assert speed["skipped"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "weather"], "there is no part weather"),
        (["--limit", "tests"], "--limit 'tests' is not PART=SECONDS"),
        (["--limit", "speed=0"], "--limit 'speed=0' is not PART=SECONDS"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    done = gpu_check(tmp_path, *words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


# --------------------------------------------------------------------------- limits and failures

HALF_DONE = """
import subprocess, sys, time
from pathlib import Path
from progress import Progress
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Progress(Path(sys.argv[1]), part="speed", summary="2 rows", child=child.pid)
time.sleep(600)
"""


def run_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, limit: float) -> tuple[bool, dict]:
    import check

    asked = Namespace(output=tmp_path, speed="all", device="cpu", quick=True)
    command = [sys.executable, "-c", code, str(tmp_path / "gpu-speed.json")]
    monkeypatch.setattr(check, "command_of", lambda *_: command)
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    good = check.run_part("speed", limit, asked, environment)
    return good, json.loads((tmp_path / "gpu-speed.json").read_text(encoding="utf-8"))


def ended(process: int) -> bool:
    """Return whether a process has ended; its parent may not have been told yet."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_part_that_is_stopped_at_its_limit_leaves_what_it_had(scripts, tmp_path, monkeypatch, capsys) -> None:
    good, facts = run_part(tmp_path, monkeypatch, HALF_DONE, limit=3.0)
    assert not good and facts["summary"] == "2 rows" and not facts["complete"]
    assert facts["stopped"] == "stopped at its limit of 3 s"
    assert capsys.readouterr().out == "speed: 2 rows; stopped at its limit of 3 s\n"
    until = time.monotonic() + 5
    while not ended(facts["child"]) and time.monotonic() < until:
        time.sleep(0.05)
    assert ended(facts["child"])  # and so is what it had started


def test_a_part_that_fails_says_so_and_stops_no_other(scripts, tmp_path, monkeypatch, capsys) -> None:
    good, facts = run_part(tmp_path, monkeypatch, "import sys; print('no such thing'); sys.exit(3)", limit=30.0)
    assert not good and not facts["ok"]
    assert capsys.readouterr().out == "speed: no results; its last line: no such thing; ended with status 3\n"


def test_results_are_complete_json_at_every_moment(scripts, tmp_path: Path) -> None:
    from progress import Progress

    path = tmp_path / "results.json"
    progress = Progress(path, rows=[])
    assert json.loads(path.read_text())["complete"] is False
    with pytest.raises(TypeError):
        progress.add(rows=[object()])  # what JSON can't hold
    assert json.loads(path.read_text())["rows"] == []


def test_rows_that_do_not_fit_the_time_say_so(scripts, tmp_path: Path) -> None:
    import torch
    from progress import Budget, Progress
    from speed import Speed

    speed = Speed(torch.device("cpu"), False, Budget(1.0), Progress(tmp_path / "speed.json"))
    speed.run("all")
    facts = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert facts["complete"] and facts["rows"] == []
    assert facts["skipped"][0] == "results are those of fp32: takes about 10 s, and 1 s were left"
    assert len(facts["skipped"]) == len(speed.plan())


def test_goals_of_the_quality_part_depend_on_the_tokens_seen(scripts) -> None:
    from quality import goals

    reference = {"mean_bleu": 40.0, "tokens_of_both_sides": [30_000_000]}

    def seed(bleu: float, tokens: int) -> dict:
        return {"complete": True, "bleu": bleu, "target_tokens": tokens}

    assert goals({"1": seed(39.0, 14_000_000)}, reference) == []  # fewer than the recipe's 15 million
    both = goals({"1": seed(41.0, 66_000_000), "2": seed(41.6, 65_000_000)}, reference)
    assert [goal["met"] for goal in both] == [True, False] and both[0]["found"] == pytest.approx(41.3)
    assert goals({"1": {"complete": False, "updates": 3}}, reference) == []


# --------------------------------------------------------------------------- the bundle


def test_only_packages_that_are_missing_are_installed_from_the_bundle(scripts, tmp_path: Path) -> None:
    from bundle import install, missing_wheels, pins

    wheels = tmp_path / "wheels"
    wheels.mkdir()
    version = importlib.metadata.version("torch")
    (wheels / f"torch-{version}-py3-none-any.whl").touch()
    assert missing_wheels(wheels) == [] and install(tmp_path) == (None, "nothing to install")
    (wheels / "no_such_package-1.0-py3-none-any.whl").touch()
    assert [path.name for path in missing_wheels(wheels)] == ["no_such_package-1.0-py3-none-any.whl"]
    site, sentence = install(tmp_path)  # it is no wheel
    assert site is None and sentence.startswith("could not install no_such_package: ")
    assert pins(["no-such-package", "pytest_xdist"])[0] == "no-such-package"
    assert re.fullmatch(r"datasets==\d+\.\d+\.\d+", pins(["datasets"])[0])
