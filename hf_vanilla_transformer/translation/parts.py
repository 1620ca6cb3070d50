# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Translate long files in parts, so that an interrupted command resumes and several processes share the work."""

import fnmatch
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..checkpoints.download import CHECKPOINT_PATTERNS, local_directory
from ..checkpoints.manifest import file_sha256
from ..data.text_lines import read_lines
from ..version import __version__
from .line_sources import STANDARD_INPUT, LineSource
from .output_formats import Progress
from .parts_directory import LINES_PER_PART, PartsDirectory, parts_path

_POLL_SECONDS = 0.5  # between two looks at the parts that other processes are translating
_SECONDS_BETWEEN_COUNTS = 1.0  # of the lines that other processes have translated
_EXPORTS = ("*.bin", "*.onnx")
_NOT_OF_THE_MODEL = {  # files beside a model that do not change its translations
    "averaging.json", "checkpoint_manifest.json", "results.json", "trainer_state.json",
    "vanilla_transformer_output.json",
}  # fmt: skip


def are_long(files: Sequence[str | Path], output: str | Path) -> bool:
    """Return whether files are translated in parts when one process translates them: they have many lines.

    Args:
        files: from `input_files`.
        output: of the translation; parts that exist are resumed whatever the length.
    """
    if not can_be_parts(files):
        return False
    if parts_path(output).exists():
        return True
    lines = (line for file in files for line in read_lines(Path(file)))
    return next(islice(lines, LINES_PER_PART, None), None) is not None


def can_be_parts(files: Sequence[str | Path]) -> bool:
    """Return whether every input is a regular file, which can be read more than once."""
    return all(file != STANDARD_INPUT and Path(file).is_file() for file in files)


def translation_identity(
    files: Sequence[str | Path], models: Sequence[str | Path], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values by which parts of a translation are recognized; see `open_parts`.

    Args:
        files: the input.
        models: directories or Hub ids.
        settings: other values that decide about the translations, by name; None is left out, and the name of a file
            is replaced by the hash of its content.

    Raises:
        OSError: If a file cannot be read, or there is no such model.
    """
    identity: dict[str, Any] = {
        name: [file_sha256(Path(value))] if isinstance(value, str) and Path(value).is_file() else value
        for name, value in settings.items()
        if value is not None
    }
    return {
        **identity,
        "text": [file_sha256(Path(file)) for file in files],
        "model": {str(number): _model_hashes(local_directory(model)) for number, model in enumerate(models)},
        "version": __version__,
    }


def _model_hashes(directory: Path) -> dict[str, str]:
    """Return the hashes of the configuration, weights and tokenizers in a directory, and in those of its tokenizers."""
    folders = [directory, *(path for path in sorted(directory.glob("*tokenizer*")) if path.is_dir())]
    return {
        path.relative_to(directory).as_posix(): file_sha256(path)
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.name not in _NOT_OF_THE_MODEL
        and any(fnmatch.fnmatch(path.name, pattern) for pattern in (*CHECKPOINT_PATTERNS, *_EXPORTS))
    }


@dataclass
class _ClaimedPart:
    """A part that this process translates.

    Attributes:
        number: of the part.
        lines: lines whose translations are not written yet.
        written: the translations.
    """

    number: int
    lines: int
    written: list[bytes] = field(default_factory=list)


class PartsSource(LineSource):
    """The lines of those parts that this process claims; a part that no other process completes is claimed in the end.

    It is also the target of `translate_stream`: `write` takes the translations of one line, in order.

    Args:
        parts: from `open_parts`.
        files: regular files.
        progress: shows the lines of all processes.
    """

    def __init__(self, parts: PartsDirectory, files: Sequence[str | Path], progress: Progress | None = None) -> None:
        super().__init__(files, None, None, progress)
        self._parts = parts
        self._claimed: deque[_ClaimedPart] = deque()
        self._numbers: deque[int] = deque()  # of the pending lines, from 1
        self._own_parts: set[int] = set()
        self._complete = parts.complete_parts()
        self._counted = 0.0
        self._raw, self._position = self._read_raw(), 0  # the lines after the first `_position`
        self._left, self._next = 0, 0  # lines of the current part, and the first part of the rest

    def take(self, most: int) -> list[str]:
        """Return the next lines of the current part, else those of another part; [] when all parts are complete."""
        if self._left == 0 and not self._claim_next():
            self._count_elsewhere()
            self._progress.close()
            return []
        lines = list(islice(self._raw, min(most, self._left)))
        if not lines:
            raise ValueError(f"{', '.join(map(str, self._files))}: the text has changed since the command was started")
        self.lines_before = self._position
        texts = [self._decode(line, number) for number, line in enumerate(lines, start=self._position + 1)]
        self._numbers.extend(range(self._position + 1, self._position + 1 + len(lines)))
        self._position += len(lines)
        self._left -= len(lines)
        self.pending.extend(texts)
        return texts

    def on_batch(self, texts: int) -> None:
        """See `TextSource.on_batch`."""
        if time.monotonic() - self._counted > _SECONDS_BETWEEN_COUNTS:
            self._count_elsewhere()
        super().on_batch(texts)

    def next_written(self) -> tuple[str, int]:
        """See `LineSource.next_written`."""
        return self.pending.popleft(), self._numbers.popleft()

    def write(self, data: bytes) -> int:
        """Take the translations of the next line; a part is written to disk after its last one."""
        part = self._claimed[0]
        part.written.append(data)
        part.lines -= 1
        if part.lines == 0:
            self._parts.write(part.number, b"".join(part.written))
            self._claimed.popleft()
        return len(data)

    def flush(self) -> None:
        """Do nothing: an incomplete part is not written."""

    # ----------------------------------------------------------------------- parts

    def _claim_next(self) -> bool:
        """Claim a part and go to its first line; return False when all parts are complete."""
        for number in range(self._next, self._parts.parts):
            if number not in self._complete and self._parts.claim(number):
                self._start(number)
                return True
        self._next = self._parts.parts
        # Other processes have claimed the rest. If one of them ends early, its parts can be claimed.
        while missing := set(range(self._parts.parts)) - self._parts.complete_parts() - self._own_parts:
            for number in sorted(missing):
                if self._parts.claim(number):
                    self._start(number)
                    return True
            self._count_elsewhere()
            time.sleep(_POLL_SECONDS)
        return False

    def _start(self, number: int) -> None:
        first = number * self._parts.lines_per_part
        if first < self._position:  # a part that another process left
            self._raw, self._position = self._read_raw(), 0
        next(islice(self._raw, first - self._position, first - self._position), None)
        self._position, self._left, self._next = first, self._parts.lines_of(number), number + 1
        self._claimed.append(_ClaimedPart(number, self._left))
        self._own_parts.add(number)

    def _read_raw(self) -> Iterator[bytes]:
        self._starts: list[tuple[int, str]] = []  # first line of each file
        lines = 0
        for file in self._files:
            self._starts.append((lines, str(file)))
            for line in read_lines(Path(file)):
                lines += 1
                yield line

    def _decode(self, line: bytes, number: int) -> str:
        return self.decoder.decode(line, partial(self._place, number))

    def _place(self, number: int) -> str:
        """Return the file and the line in it of a line of the whole text."""
        start, name = max(item for item in self._starts if item[0] < number)
        return f"{name}:{number - start}"

    def _count_elsewhere(self) -> None:
        self._counted = time.monotonic()
        complete = self._parts.complete_parts()
        lines = sum(self._parts.lines_of(part) for part in complete - self._own_parts)
        self._progress.elsewhere(lines, self._parts.resumed_lines)


__all__ = ["PartsSource", "are_long", "can_be_parts", "translation_identity"]
