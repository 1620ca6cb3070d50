# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read the files that restrict translations: prefixes, constraints, terminology and banned words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.file_names import existing_files
from ..data.text_lines import read_valid_lines
from ..model.terminology_vanilla_transformer import Terminology
from .line_sources import count_all_lines


@dataclass(frozen=True)
class RestrictionFiles:
    """Text files, or None.

    Attributes:
        prefixes: how each translation begins, one line per line of input.
        constraints: phrases that each translation contains, one line per line of input, separated by tabs.
        terminology: one term per line: the source term, a tab, and the phrase that translates it.
        banned: words and phrases that no translation contains, one per line.
    """

    prefixes: str | Path | None = None
    constraints: str | Path | None = None
    terminology: str | Path | None = None
    banned: str | Path | None = None

    def paths(self) -> list[Path]:
        """Return the files that are given.

        Raises:
            ValueError: If one is missing.
        """
        names = [name for name in (self.prefixes, self.constraints, self.terminology, self.banned) if name is not None]
        return [path for name in names for path in existing_files(name)]

    def check(self, files: Sequence[str | Path]) -> None:
        """Check the files before a model is loaded.

        Args:
            files: the input, from `input_files`.

        Raises:
            ValueError: If one is missing or not UTF-8 text, does not have as many lines as the input, or the
                terminology is invalid.
        """
        counts = {path: sum(1 for _ in read_valid_lines(path)) for path in self.paths()}
        if self.terminology is not None:
            read_terminology(self.terminology)
        by_line = [name for name in (self.prefixes, self.constraints) if name is not None]
        lines = count_all_lines(files) if by_line else None
        for name in () if lines is None else by_line:
            if (found := sum(counts[path] for path in existing_files(name))) != lines:
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
            given["prefixes"] = read_valid_lines(Path(self.prefixes))
        if self.constraints is not None:
            lines = read_valid_lines(Path(self.constraints))
            given["constraints"] = (line.split("\t") for line in lines)
        if in_parts:
            given = {name: list(values) for name, values in given.items()}
        if self.terminology is not None:
            given["terminology"] = read_terminology(self.terminology)
        if self.banned is not None:
            given["banned"] = list(read_valid_lines(Path(self.banned)))
        return given


def read_terminology(file: str | Path) -> Terminology:
    """Read a terminology file: on each line a source term, a tab and its translation. "#" begins a comment line.

    Raises:
        ValueError: If a line is not a pair, or a term has two translations.
    """
    entries: dict[str, str] = {}
    for number, line in enumerate(read_valid_lines(Path(file)), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            raise ValueError(f"{file}:{number} is not a source term, a tab and its translation: {line!r}")
        term, phrase = cells
        if entries.setdefault(term, phrase) != phrase:
            raise ValueError(
                f"{file}:{number}: the term {term!r} has two translations, {entries[term]!r} and {phrase!r}"
            )
    if not entries:
        raise ValueError(f"{file} has no terms; write a source term, a tab and its translation on each line")
    return Terminology(entries)


__all__ = ["RestrictionFiles", "read_terminology"]
