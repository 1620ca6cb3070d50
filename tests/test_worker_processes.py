"""Worker processes: results in order, errors, and no process that is left behind."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import torch

from hf_vanilla_transformer.worker_processes import WorkerProcesses, workers_are_supported

pytestmark = pytest.mark.skipif(not workers_are_supported(), reason="worker processes need Linux")


def test_results_come_in_the_order_of_the_arguments_from_processes_with_one_thread() -> None:
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))  # after the parent has started threads of its own

    def work(number: int) -> tuple[int, int, int, float]:
        time.sleep(0.05 if number == 0 else 0.0)
        return (
            number,
            os.getpid(),
            torch.get_num_threads(),
            float(torch.mm(torch.ones(64, 64), torch.ones(64, 64))[0, 0]),
        )

    with WorkerProcesses(work, 2) as workers:
        results = list(workers.map(range(6)))
    numbers, processes, threads, products = zip(*results, strict=True)
    assert numbers == tuple(range(6))
    assert len(set(processes)) == 2 and os.getpid() not in processes
    assert set(threads) == {1} and set(products) == {64.0}
    for process in set(processes):
        with pytest.raises(ProcessLookupError):  # they have ended
            os.kill(process, 0)


def test_an_error_of_the_function_is_raised_here() -> None:
    def work(number: int) -> int:
        raise ValueError(f"{number} is not a number that this function likes")

    with WorkerProcesses(work, 2) as workers, pytest.raises(ValueError, match="3 is not a number"):
        list(workers.map([3]))


def test_a_killed_worker_is_reported_in_a_sentence() -> None:
    def work(number: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    with WorkerProcesses(work, 2) as workers, pytest.raises(ChildProcessError, match="use fewer workers"):
        list(workers.map([1]))


def test_workers_end_when_their_parent_was_killed() -> None:
    script = (
        "import os, sys, time\n"
        "from hf_vanilla_transformer.worker_processes import WorkerProcesses\n"
        "def work(_):\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "with WorkerProcesses(work, 1) as workers:\n"
        "    list(workers.map([1]))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while _runs(worker):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.1)


def _runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
