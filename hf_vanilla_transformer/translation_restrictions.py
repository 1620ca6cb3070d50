# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read the files that restrict translations: prefixes and banned words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .data.file_names import existing_files
from .data.text_lines import count_lines, decode_line, read_lines
from .translation_input import count_all_lines


@dataclass(frozen=True)
class RestrictionFiles:
    """Text files, or None.

    Attributes:
        prefixes: how each translation begins, one line per line of input.
        banned: words and phrases that no translation contains, one per line.
    """

    prefixes: str | Path | None = None
    banned: str | Path | None = None

    def paths(self) -> list[Path]:
        """Return the files that are given.

        Raises:
            ValueError: If one is missing.
        """
        names = [name for name in (self.prefixes, self.banned) if name is not None]
        return [path for name in names for path in existing_files(name)]

    def check(self, files: Sequence[str | Path]) -> None:
        """Check the files before a model is loaded.

        Args:
            files: the input, from `input_files`.

        Raises:
            ValueError: If one is missing or not text, or does not have as many lines as the input.
        """
        for path in self.paths():
            next(read_lines(path), None)
        lines = count_all_lines(files)
        for name in () if lines is None else (self.prefixes,):
            if name is not None and (found := count_lines(Path(name))) != lines:
                raise ValueError(
                    f"{name} has {found:,} lines, but the input has {lines:,}; give one line per line of input, empty "
                    "where a translation is free"
                )

    def arguments(self, in_parts: bool = False) -> dict[str, Any]:
        """Return the arguments of `translate`.

        Args:
            in_parts: the lines are not translated from the first to the last; then the prefixes are read into memory.
        """
        given: dict[str, Any] = {}
        if self.prefixes is not None:
            given["prefixes"] = list(_texts(self.prefixes)) if in_parts else _texts(self.prefixes)
        if self.banned is not None:
            given["banned"] = list(_texts(self.banned))
        return given


def _texts(file: str | Path) -> Iterator[str]:
    for line in read_lines(Path(file)):
        yield decode_line(line)[0]


__all__ = ["RestrictionFiles"]
