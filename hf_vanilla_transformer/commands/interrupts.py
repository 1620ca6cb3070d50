# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""End a command on Ctrl-C with one line and exit status 130 (not a command)."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

INTERRUPTED = 130  # the exit status that shells report for SIGINT
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"


@dataclass
class Program:
    """The program in the message of an interrupt.

    Attributes:
        name: name of the program, with that of the command once it is known.
    """

    name: str


@contextmanager
def one_line_interrupts(name: str) -> Iterator[Program]:
    """Handle SIGINT inside the ``with`` block; after an interrupt, a second one ends the process without a traceback.

    During an import the process ends at once, because libraries may catch a KeyboardInterrupt there, and nothing
    needs to be cleaned up. Otherwise the first SIGINT raises KeyboardInterrupt, so that locks and temporary files are
    removed.

    Args:
        name: name of the program in the message.

    Yields:
        The program, whose name may be changed.
    """
    program = Program(name)
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:  # a job in the background
        yield program
        return
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted or _is_importing(frame):
            end_at_once(program.name)
        interrupted = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield program
    finally:
        if interrupted:  # what is left is the end of the process, which may take a while
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        elif signal.getsignal(signal.SIGINT) is handle:  # not after an interrupt in a nested block
            signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def end_at_once(name: str) -> None:
    """End the process with one line and status 130; nothing is cleaned up."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError, RuntimeError):  # closed, or being written to when the signal arrived
                stream.flush()
    os.write(2, f"{name}: interrupted\n".encode())
    os._exit(INTERRUPTED)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False


__all__ = ["INTERRUPTED", "Program", "end_at_once", "one_line_interrupts"]
