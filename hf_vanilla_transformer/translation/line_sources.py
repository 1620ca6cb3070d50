# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read the lines to translate from files, from a pipe with a bounded wait, or from a terminal line by line."""

import io
import os
import queue
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

from ..data.file_names import existing_files
from ..data.text_lines import count_lines, decode_line, read_lines, stream_lines
from .output_formats import Progress
from .texts import TextSource

STANDARD_INPUT = "-"  # as the name of a file
PIPE_WAIT = 0.2  # seconds that a line from a pipe waits for others, which are translated in the same batch
_READ_AHEAD = 4096  # lines that are read from a pipe while others are translated


class LineDecoder:
    """Decodes lines of text, and counts those that are not UTF-8.

    Attributes:
        invalid: how many lines are not UTF-8.
        first_invalid: the place of the first of them, as "file:line".

    Args:
        results: what is unreliable where bytes were replaced, for the warning.
    """

    def __init__(self, results: str) -> None:
        self.invalid, self.first_invalid = 0, ""
        self._results = results

    def decode(self, line: bytes, place: Callable[[], str]) -> str:
        """Return the text of a line; ``place`` returns its file and number and is called for invalid lines only."""
        text, valid = decode_line(line)
        if not valid:
            self.invalid += 1
            self.first_invalid = self.first_invalid or place()
        return text

    def warning(self) -> str | None:
        """Return a warning if there were lines that are not UTF-8."""
        if not self.invalid:
            return None
        return (
            f"{self.invalid:,} line(s) are not UTF-8, the first is {self.first_invalid}; invalid bytes were replaced, "
            f"so these {self._results} are unreliable: convert the text, e.g. with iconv -f LATIN1 -t UTF-8"
        )


class LineSource(TextSource):
    """The lines of files and streams as texts for `translate`, one after the other.

    Args:
        files: from `input_files`; "-" is the stream.
        stream: standard input, from `standard_input`; None if it is not read.
        wait: seconds that a line waits for others, if it comes from a pipe or a terminal. None: the lines are those of
            files, which can be read at once.
        progress: counts the lines of each batch and is closed after the last one.

    Attributes:
        pending: lines that were read and whose translation is not written yet.
        decoder: decodes the lines, and knows which are not UTF-8.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        stream: IO[bytes] | None,
        wait: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.pending: deque[str] = deque()
        self.decoder = LineDecoder("translations")
        self._written = 0
        self._progress = Progress(None) if progress is None else progress
        self._files, self._stream = files, stream
        self._lines = self._read()
        self._reader = None if wait is None else _Reader(self._lines, wait)

    def take(self, most: int) -> list[str]:
        """See `TextSource.take`."""
        texts = list(islice(self._lines, most)) if self._reader is None else self._reader.take(most)
        self.pending.extend(texts)
        if not texts:
            self._progress.close()
        return texts

    def on_batch(self, texts: int) -> None:
        """See `TextSource.on_batch`."""
        self._progress.translated(texts)

    def next_written(self) -> tuple[str, int]:
        """Remove the first pending line, whose translation is written now; return it and its number, from 1."""
        self._written += 1
        return self.pending.popleft(), self._written

    def warning(self) -> str | None:
        """Return a warning if there were lines that are not UTF-8."""
        return self.decoder.warning()

    def _read(self) -> Iterator[str]:
        for file in self._files:
            if file == STANDARD_INPUT and self._stream is not None:
                name, lines = "standard input", stream_lines(self._stream, "standard input")
            else:
                name, lines = str(file), read_lines(Path(file))
            for number, line in enumerate(lines, start=1):
                yield self.decoder.decode(line, partial("{}:{}".format, name, number))


class _Reader:
    """Reads lines in a thread, so that they can be collected for a limited time.

    Args:
        lines: read until they end or raise an error, which `take` raises.
        wait: seconds that `take` collects lines for, from the arrival of the first one.
    """

    def __init__(self, lines: Iterator[str], wait: float) -> None:
        self._lines, self._wait = lines, wait
        self._arrived: queue.Queue[tuple[float, str | None]] = queue.Queue(_READ_AHEAD)  # None: there are no more
        self._ended = False
        self._error: Exception | None = None
        # The interpreter doesn't wait for a daemon thread, which may be blocked by a read from the terminal.
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            for line in self._lines:
                self._arrived.put((time.monotonic(), line))
        except Exception as error:
            self._error = error
        self._arrived.put((0.0, None))

    def take(self, most: int) -> list[str]:
        """Wait for a line; return it with those that arrive within the wait. [] after the last line."""
        lines: list[str] = []
        until = float("inf")
        while not self._ended and len(lines) < most:
            try:
                arrived, line = self._arrived.get(timeout=None if not lines else max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if line is None:
                self._ended = True
            else:
                until = min(until, arrived + self._wait)
                lines.append(line)
        if not lines and self._error is not None:
            raise self._error
        return lines


def input_files(names: Sequence[str]) -> list[str | Path]:
    """Return the files to translate, checked; without names, only standard input.

    Args:
        names: files or patterns; "-" is standard input.

    Raises:
        ValueError: If a file is missing, is not text, or is damaged at its start.
        OSError: If a file cannot be read.
    """
    files: list[str | Path] = []
    for name in names or [STANDARD_INPUT]:
        files += [name] if name == STANDARD_INPUT else existing_files(name)
    for file in files:
        if file != STANDARD_INPUT and Path(file).is_file():
            next(read_lines(Path(file)), None)  # raises errors before the model is loaded
    return files


def suggested_wait(files: Sequence[str | Path], stream: IO[bytes] | None) -> float | None:
    """Return the argument ``wait`` of `LineSource` for a kind of input: 0 for a terminal, None for regular files."""
    waits = []
    for file in files:
        if file != STANDARD_INPUT or stream is None:
            waits.append(None if Path(file).is_file() else PIPE_WAIT)
        elif stream.isatty():
            waits.append(0.0)
        else:
            waits.append(PIPE_WAIT if _is_pipe(stream) else None)
    return min((wait for wait in waits if wait is not None), default=None)


def _is_pipe(stream: IO[bytes]) -> bool:
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, io.UnsupportedOperation):  # an object in memory
        return False


def count_all_lines(files: Sequence[str | Path]) -> int | None:
    """Count the lines of files; None if one of them is a stream, which can be read only once."""
    if any(file == STANDARD_INPUT or not Path(file).is_file() for file in files):
        return None
    return sum(count_lines(Path(file)) for file in files)


def standard_input() -> IO[bytes]:
    """Return standard input for reading in a thread.

    The interpreter locks `sys.stdin` when it exits and fails if a thread is reading from it. So this is another object
    for the same file, which is left open.
    """
    if sys.stdin is None:
        raise ValueError("standard input is closed; name the files to translate")
    try:
        return open(sys.stdin.buffer.fileno(), "rb", closefd=False)
    except (OSError, io.UnsupportedOperation):  # replaced by an object in memory
        return sys.stdin.buffer


__all__ = [
    "PIPE_WAIT",
    "STANDARD_INPUT",
    "LineDecoder",
    "LineSource",
    "count_all_lines",
    "input_files",
    "standard_input",
    "suggested_wait",
]
