"""Locks of a file: held by one process, released when it ends, not inherited by its children."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hf_vanilla_transformer.file_locks import FileLocks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the processes of these tests are forked")


def holder(path: Path, numbers: list[int]) -> Any:
    """Start a process that holds locks, with a child of its own, until it is killed."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def run() -> None:
        locks = FileLocks(path)
        assert all(locks.take(number) for number in numbers)
        if os.fork():
            ready.set()
        time.sleep(10)
        os._exit(0)

    process = context.Process(target=run)
    process.start()
    assert ready.wait(30)
    return process


def test_a_lock_is_held_by_one_process_until_it_is_killed_even_if_its_child_lives_on(tmp_path: Path) -> None:
    process = holder(tmp_path / "locks", [3, 2**40 + 1])
    locks = FileLocks(tmp_path / "locks")
    assert not locks.take(3) and locks.take(2) and locks.take(4)
    assert locks.is_taken(3) and locks.is_taken(2**40 + 1) and not locks.is_taken(2**40)
    assert locks.any_taken_from(5) and not locks.any_taken_from(2**40 + 2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert locks.take(3, wait=True) and not locks.any_taken_from(5)
    locks.close()


def test_processes_that_look_at_a_free_lock_at_the_same_time_do_not_see_each_other(tmp_path: Path) -> None:
    locks, context = FileLocks(tmp_path / "locks"), multiprocessing.get_context("fork")

    def look() -> None:
        own = FileLocks(tmp_path / "locks")
        os._exit(sum(own.is_taken(7) for _ in range(3000)) > 0)

    processes = [context.Process(target=look) for _ in range(2)]
    for process in processes:
        process.start()
    assert not any(locks.is_taken(7) for _ in range(3000))
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_a_lock_waits_for_its_holder_to_release_it(tmp_path: Path) -> None:
    process = holder(tmp_path / "locks", [0])
    locks = FileLocks(tmp_path / "locks")
    assert not locks.take(0)
    began = time.monotonic()
    threading.Timer(0.3, process.kill).start()
    assert locks.take(0, wait=True) and time.monotonic() - began > 0.2
    process.join()


def test_a_new_file_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    locks = FileLocks(path)
    assert locks.is_file(path)
    path.unlink()
    assert not locks.is_file(path)
    FileLocks(path).close()
    assert not locks.is_file(path)
