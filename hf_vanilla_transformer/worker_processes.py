# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Run a function in several worker processes, each of which computes with one thread.

Many small operations don't gain from a second thread: on two cores, two processes with a batch each do nearly twice the
work of one process with two threads. The processes are forked, so that they share the memory of a loaded model.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Self

import torch

from .freed_memory import keep_freed_memory

_SECONDS_BETWEEN_CHECKS = 2.0  # whether the process that started the workers still runs


def workers_are_supported() -> bool:
    """Return whether worker processes can be forked here; other systems' libraries don't survive a fork."""
    return sys.platform == "linux"


class WorkerProcesses:
    """Forked copies of this process that call one function; a context manager that ends them.

    The function is inherited, not pickled; its arguments and results are pickled.
    """

    def __init__(self, function: Callable[[Any], Any], workers: int) -> None:
        """Fork ``workers`` processes that call ``function``."""
        self._executor = ProcessPoolExecutor(
            workers, mp_context=get_context("fork"), initializer=_start, initargs=(function, os.getpid())
        )

    def map(self, arguments: Iterable[Any]) -> Iterator[Any]:
        """Yield the function's results in the order of the arguments.

        Raises:
            ChildProcessError: If a worker was killed.
            Exception: What the function raised.
        """
        try:
            yield from self._executor.map(_call, arguments)
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process was killed, perhaps because memory ran out; use fewer workers or smaller batches"
            ) from error

    def close(self) -> None:
        """End the processes; calls that have not started are dropped."""
        self._executor.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        """Return the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self.close()


_function: Callable[[Any], Any]  # of this worker


def _start(function: Callable[[Any], Any], parent: int) -> None:
    """Prepare a worker process."""
    global _function
    _function = function
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches all processes: workers end without a message
        signal.signal(number, signal.SIG_DFL)
    torch.set_num_threads(1)
    keep_freed_memory()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has ended without a word, e.g. by SIGKILL."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_CHECKS)
    os._exit(1)


def _call(argument: Any) -> Any:
    return _function(argument)


__all__ = ["WorkerProcesses", "workers_are_supported"]
