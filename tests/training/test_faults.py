"""Runs with faults (kills, full disks, signals, lost processes) keep every valid checkpoint and can be resumed.

The constants are quoted in the documented guarantees.
"""

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_runs import SAVE_STEPS, UPDATES, Fault, run
from platforms import posix_only

from hf_vanilla_transformer.checkpoints.manifest import MANIFEST_NAME, verify
from hf_vanilla_transformer.training.checkpointing import checkpoints, newest_valid

pytestmark = [pytest.mark.slow, posix_only]

KILLS_OF_ONE = 20  # of runs of one process: 3/4 at a change of its files, the others at any time
KILLS_OF_TWO = 10  # of runs of two processes: half of the time both are killed, else one
SECONDS_UNTIL_NOTICED = 60
# Files with times or paths; all others in a checkpoint must be byte-identical.
NOT_COMPARED = {"trainer_state.json", "training_args.bin", MANIFEST_NAME}

Start = Callable[..., multiprocessing.Process]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that starts a process of a run, forked from one that has imported everything."""
    here = Path(__file__).parent
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
    os.environ.update(PYTHONPATH=os.pathsep.join([str(here), str(here.parents[1])]), OMP_NUM_THREADS="1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fault_runs"])
    started = []

    def begin(folder: Path, *arguments, fault: Fault | None = None) -> multiprocessing.Process:
        process = context.Process(target=run, args=(folder, *arguments), kwargs={"fault": fault})
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def finish(process: multiprocessing.Process, seconds: float = 300) -> int:
    process.join(seconds)
    assert process.exitcode is not None, "the process is still running"
    return process.exitcode


def log(folder: Path, rank: int = 0) -> str:
    return folder.with_suffix(f".{rank}.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Uninterrupted runs, of one process and of two."""
    folders = {}
    for ranks in (1, 2):
        folders[ranks] = folder = tmp_path_factory.mktemp("undisturbed") / f"run{ranks}"
        port = free_port()
        processes = [start(folder, rank, ranks, port) for rank in range(ranks)]
        assert [finish(process) for process in processes] == [0] * ranks, log(folder)[-3000:]
    return folders


def assert_same_run(one: Path, two: Path) -> None:
    """Assert that two runs have the same checkpoints with byte-identical files."""
    names = [path.name for path in checkpoints(one)]
    assert names == [path.name for path in checkpoints(two)]
    assert names[-1] == f"checkpoint-{UPDATES}"
    assert not list(two.glob(".*")), "a temporary directory is left"
    for name in names:
        files = {path.name for path in (one / name).iterdir()}
        assert files == {path.name for path in (two / name).iterdir()}
        for file in files - NOT_COMPARED:
            assert (one / name / file).read_bytes() == (two / name / file).read_bytes(), f"{name}/{file}"


def run_with_kills(start: Start, reference: Path, folder: Path, ranks: int, kills: int, seed: int) -> int:
    """Start a run repeatedly, killing it until it has been killed ``kills`` times or is done; return the kills."""
    draw = random.Random(seed)
    survived = 0
    while True:
        valid = newest_valid(folder)  # raises if there are checkpoints and none is valid
        before = None if valid is None else int(valid.name.rpartition("-")[2])
        last = survived == kills
        port = free_port()
        at_change = not last and draw.random() < 0.75
        faults = [Fault(draw.randint(1, 200)) if at_change and rank == 0 else None for rank in range(ranks)]
        processes = [start(folder, rank, ranks, port, fault=faults[rank]) for rank in range(ranks)]
        if not last and not at_change:
            time.sleep(draw.uniform(0.3, 5.0))
            processes[draw.randrange(ranks)].kill()
            if draw.random() < 0.5:
                for process in processes:
                    process.kill()
        statuses = [finish(process) for process in processes]
        came_from = folder.with_suffix(".from")
        if came_from.exists():  # the run had started training
            assert came_from.read_text() == str(valid), "it was not resumed from the newest valid checkpoint"
            came_from.unlink()
        valid = newest_valid(folder)
        after = None if valid is None else int(valid.name.rpartition("-")[2])
        assert before is None or (after is not None and after >= before), "a valid checkpoint was lost"
        if set(statuses) == {0}:
            assert_same_run(reference, folder)
            return survived
        assert -signal.SIGKILL in statuses, log(folder)[-3000:]
        survived += 1


@pytest.mark.parametrize(("ranks", "kills"), [(1, KILLS_OF_ONE), (2, KILLS_OF_TWO)])
def test_a_killed_run_resumes_from_a_valid_checkpoint_and_ends_byte_identical(
    start: Start, undisturbed: dict[int, Path], tmp_path: Path, ranks: int, kills: int
) -> None:
    survived = runs = 0
    while survived < kills:
        folder = tmp_path / f"run{runs}"
        survived += run_with_kills(start, undisturbed[ranks], folder, ranks, kills - survived, seed=100 * ranks + runs)
        runs += 1
    assert survived == kills
    print(f"kills survived: {survived}, of runs of {ranks} process(es)")


@pytest.mark.parametrize("room", [200, 20_000, 60_000])  # too little for configuration, weights, optimizer
def test_a_full_disk_ends_the_run_and_older_checkpoints_stay_valid(
    start: Start, undisturbed: dict[int, Path], tmp_path: Path, room: int
) -> None:
    folder = tmp_path / "run"
    assert finish(start(folder, fault=Fault(signals=(signal.SIGTERM,)))) == 143  # leaves checkpoints 2 and 3
    assert finish(start(folder, fault=Fault(largest_file=room))) == 1
    for _ in range(100):  # another process writes the log
        text = log(folder)
        if "cannot be saved" in text:
            break
        time.sleep(0.05)
    assert "cannot be saved" in text and "older checkpoints are unchanged" in text, text[-3000:]
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-2", "checkpoint-3"]
    for checkpoint in checkpoints(folder):
        verify(checkpoint)
    assert finish(start(folder)) == 0, log(folder)[-3000:]
    assert_same_run(undisturbed[1], folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_a_second_one_ends_the_process_at_once(
    start: Start, undisturbed: dict[int, Path], tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "run"
    assert finish(start(folder, fault=Fault(signals=(number,)))) == 128 + number
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-2", "checkpoint-3"]
    assert f"stopped by {signal.Signals(number).name} after update 3 of {UPDATES}" in log(folder)
    assert finish(start(folder)) == 0, log(folder)[-3000:]
    assert_same_run(undisturbed[1], folder)
    twice = tmp_path / "twice"
    assert finish(start(twice, fault=Fault(signals=(number, number)))) == 128 + number
    assert [path.name for path in checkpoints(twice)] == ["checkpoint-2"]  # the second signal left no time for another


def test_a_signal_to_one_of_two_ranks_stops_both(start: Start, undisturbed: dict[int, Path], tmp_path: Path) -> None:
    folder, port = tmp_path / "run", free_port()
    faults = [None, Fault(signals=(signal.SIGTERM,))]
    processes = [start(folder, rank, 2, port, fault=faults[rank]) for rank in (0, 1)]
    assert [finish(process) for process in processes] == [143, 143], log(folder)[-3000:]
    port = free_port()
    processes = [start(folder, rank, 2, port) for rank in (0, 1)]
    assert [finish(process) for process in processes] == [0, 0], log(folder)[-3000:]
    assert_same_run(undisturbed[2], folder)


def test_the_death_of_a_rank_is_detected_within_a_minute(start: Start, tmp_path: Path) -> None:
    folder, port = tmp_path / "run", free_port()
    processes = [start(folder, rank, 2, port) for rank in (0, 1)]
    while not any(folder.glob("checkpoint-*")):
        assert all(process.exitcode is None for process in processes), log(folder)[-3000:]
        time.sleep(0.05)
    processes[1].kill()
    died = time.monotonic()
    assert finish(processes[0], SECONDS_UNTIL_NOTICED) not in (0, None)
    assert time.monotonic() - died < SECONDS_UNTIL_NOTICED
    assert "another of the 2 processes has died" in log(folder)
    assert int(newest_valid(folder).name.rpartition("-")[2]) >= SAVE_STEPS


def test_torchrun_ends_when_one_of_its_workers_dies(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fault_runs import Fault, run\n"
        "rank = int(os.environ['RANK'])\n"
        "fault = Fault(signals=(signal.SIGKILL,)) if rank else None\n"
        "run(Path(sys.argv[1]), rank, 2, os.environ['MASTER_PORT'], fault)\n"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
    folder = tmp_path / "run"
    done = subprocess.run([*map(str, command), str(folder)], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 1
    assert b"Signal 9 (SIGKILL)" in done.stderr
    assert newest_valid(folder) is not None
