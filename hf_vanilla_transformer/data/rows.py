# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Source-target rows: lines of two aligned files, or two fields of dictionaries.

A row is yielded as it is in the file, as bytes if possible: `corpora` checks whether it is valid text. `text_lines`
defines line ends and encodings.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Translation

from .file_names import listed
from .text_lines import read_lines

Row: TypeAlias = tuple[Any, Any, int, str | None]  # source, target, line from 1, the problem of the row or None

# Problems of a row.
UNREADABLE = "unreadable row"
NO_COLUMN = "column missing in the row"
EMPTY = "empty side"
SEVERAL_LINES = "row of several lines"  # counted; the pair is kept, since a quoted field may contain line feeds

_MISSING = object()


def text_rows(source: Path, target: Path, source_tag: str = "") -> Iterator[Row]:
    """Yield line n of one file with line n of the other; both must have the same number of lines.

    Args:
        source, target: the files.
        source_tag: text that is put before each source line that is not blank, e.g. "<2de>".
    """
    prefix = f"{source_tag} ".encode() if source_tag else b""
    for number, (left, right) in enumerate(zip(read_lines(source), read_lines(target), strict=True), start=1):
        yield prefix + left if left.strip() else left, right, number, None


def choose_column(column: str | None, language: str, available: Sequence[str], where: str) -> str:
    """Return the name of a column that exists.

    Args:
        column: the requested name; None looks for one named like the language.
        language: of that side.
        available: names of the columns.
        where: the table, for the message.

    Raises:
        ValueError: If there is no such column.
    """
    wanted = [column] if column is not None else [language, f"translation.{language}"]
    for name in wanted:
        if name in available:
            return name
    raise ValueError(f"{where} has no column {' or '.join(map(repr, wanted))}; it has {listed(available)}")


def _lookup(row: Any, column: str) -> Any:
    """Return the value of a dotted name in nested dictionaries, or `_MISSING` if there is none."""
    if isinstance(row, dict):
        if column in row:
            return row[column]
        head, _, rest = column.partition(".")
        if rest and head in row:
            return _lookup(row[head], rest)
    return _MISSING


def nested_names(row: Any, prefix: str = "") -> list[str]:
    """Return the names of the fields of nested dictionaries, with dots: "translation.en"."""
    names = []
    for key, value in row.items():
        names += nested_names(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return names


def feature_names(features: Any, prefix: str = "") -> list[str]:
    """Return the names of the fields of a dataset's features, with dots."""
    names = []
    for key, value in features.items():
        if isinstance(value, Translation):
            names += [f"{prefix}{key}.{language}" for language in value.languages]
        elif isinstance(value, dict):
            names += feature_names(value, f"{prefix}{key}.")
        else:
            names.append(f"{prefix}{key}")
    return names


def two_columns(row: Any, columns: Sequence[str], line: int) -> Row:
    """Return two fields, by their dotted names, of a dictionary."""
    source, target = (_lookup(row, column) for column in columns)
    if source is _MISSING or target is _MISSING:
        return (None if source is _MISSING else source, None if target is _MISSING else target, line, NO_COLUMN)
    return source, target, line, None


def dictionary_rows(rows: Iterable[dict], columns: Sequence[str]) -> Iterator[Row]:
    """Yield two fields, by their dotted names, of each dictionary."""
    for number, row in enumerate(rows, start=1):
        yield two_columns(row, columns, number)


__all__ = [
    "EMPTY",
    "NO_COLUMN",
    "SEVERAL_LINES",
    "UNREADABLE",
    "Row",
    "choose_column",
    "dictionary_rows",
    "feature_names",
    "nested_names",
    "text_rows",
    "two_columns",
]
