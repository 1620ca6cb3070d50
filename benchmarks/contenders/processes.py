"""Start programs that end when the one that started them ends."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_PATIENCE = 30.0  # seconds that a program has to end


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a program for a ``with`` block, at whose end it is terminated if it still runs."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def call(command: Sequence[str], **options: Any) -> int:
    """Run a program to its end and return its status."""
    with started(command, **options) as process:
        return process.wait()


__all__ = ["call", "started"]
