# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Two columns of a table: TSV, CSV, JSON lines or Parquet."""

import csv
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .rows import EMPTY, NO_COLUMN, SEVERAL_LINES, UNREADABLE, Row, choose_column, nested_names, two_columns
from .text_lines import read_lines

Column: TypeAlias = tuple[str | None, str]  # the name requested or None, the language of that side

_BATCH_ROWS = 10_000
_CSV_ROW_LINES = 100  # a row with more lines has an unbalanced quotation mark


def table_rows(path: Path, wanted: Sequence[Column]) -> tuple[Callable[[], Iterator[Row]], str]:
    """Open a table, whose format is given by its suffix.

    Args:
        path: the table; its suffix may be followed by ``.gz``.
        wanted: for each side, the column requested or None, and the language.

    Returns:
        A function that yields the rows, and the text before a row's number in messages.

    Raises:
        ValueError: If the format is unknown, or the table or a column is missing.
    """
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending in (".tsv", ".tab", ".csv"):
        return _delimited_table(path, wanted, quoted=ending == ".csv"), f"{path}:"
    if ending in (".jsonl", ".ndjson", ".json"):
        return _json_table(path, wanted), f"{path}:"
    if ending == ".parquet":
        return _parquet_table(path, wanted), f"{path} row "
    raise ValueError(
        f"{path} has the suffix {ending!r}, which is not that of a table; use .tsv, .csv, .jsonl or .parquet, or give "
        "plain text as two aligned files"
    )


# Tab- and comma-separated values. They are decoded with surrogateescape, so that invalid bytes reach the checks.


def _delimited_table(path: Path, wanted: Sequence[Column], quoted: bool) -> Callable[[], Iterator[Row]]:
    positional = all(column is not None and column.isdecimal() and int(column) > 0 for column, _ in wanted)
    if positional:
        positions = [int(column or 0) - 1 for column, _ in wanted]
    else:
        header = next((row for row, _, _ in _delimited_rows(path, quoted)), None)
        if header is None:
            raise ValueError(
                f"{path} has no first row with the names of the columns; for a table without one, give their positions"
            )
        positions = [header.index(choose_column(column, language, header, str(path))) for column, language in wanted]
    return partial(_delimited_pairs, path, positions, quoted, skip_header=not positional)


def _delimited_rows(path: Path, quoted: bool) -> Iterator[tuple[list[str] | None, int, int]]:
    """Yield (fields, first line, number of lines) of each row; fields is None if the row can't be read."""
    lines = (line.decode(errors="surrogateescape") for line in read_lines(path))
    if quoted:
        yield from _csv_rows(lines)
    else:
        yield from ((line.split("\t"), number, 1) for number, line in enumerate(lines, start=1))


def _csv_rows(lines: Iterator[str]) -> Iterator[tuple[list[str] | None, int, int]]:
    """Read rows that may span several lines; an unbalanced quotation mark makes only its own line unreadable.

    The csv module would read on to the next quotation mark, or to the end of the file. Here, if a row is invalid or has
    too many lines, only its first line is unreadable, and the next line starts a new row.
    """
    returned: deque[str] = deque()  # lines of an unreadable row, to be read again
    number = 0

    def following() -> str | None:
        return returned.popleft() if returned else next(lines, None)

    while (line := following()) is not None:
        number += 1
        if '"' not in line and "\r" not in line:
            yield line.split(","), number, 1
            continue
        taken = [line]

        def row_lines(taken: list[str] = taken) -> Iterator[str]:
            yield taken[0] + "\n"
            while len(taken) < _CSV_ROW_LINES and (more := following()) is not None:
                taken.append(more)
                yield more + "\n"

        try:
            fields: list[str] | None = next(csv.reader(row_lines(), strict=True))
        except csv.Error:  # an unbalanced quotation mark, an unquoted carriage return, a field that is too long
            fields = None
            returned.extendleft(reversed(taken[1:]))
            del taken[1:]
        yield fields, number, len(taken)
        number += len(taken) - 1


def _delimited_pairs(path: Path, positions: Sequence[int], quoted: bool, skip_header: bool) -> Iterator[Row]:
    rows = _delimited_rows(path, quoted)
    if skip_header:
        next(rows, None)
    for fields, number, lines in rows:
        if fields is None:
            yield None, None, number, UNREADABLE
        elif not any(fields):  # a blank line, or only separators
            yield "", "", number, EMPTY
        elif max(positions) >= len(fields):
            sides = [fields[position] if position < len(fields) else None for position in positions]
            yield sides[0], sides[1], number, NO_COLUMN
        else:
            sides = [fields[position] for position in positions]
            yield sides[0], sides[1], number, None if lines == 1 else SEVERAL_LINES


# JSON lines.


def _json_table(path: Path, wanted: Sequence[Column]) -> Callable[[], Iterator[Row]]:
    first: Any = None
    for line in read_lines(path):
        if line.lstrip().startswith(b"["):
            raise ValueError(
                f"{path} is a JSON array; write JSON lines: one object per line, without brackets around them"
            )
        first = _json_object(line)
        if first is not None:
            break
    if first is None:
        raise ValueError(f"{path} has no line that is a JSON object")
    available = nested_names(first)
    columns = [choose_column(column, language, available, str(path)) for column, language in wanted]
    return partial(_json_pairs, path, columns)


def _json_object(line: bytes) -> dict | None:
    try:
        row = json.loads(line.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _json_pairs(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path), start=1):
        row = _json_object(line)
        yield (None, None, number, UNREADABLE) if row is None else two_columns(row, columns, number)


# Parquet.


def _parquet_table(path: Path, wanted: Sequence[Column]) -> Callable[[], Iterator[Row]]:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} can't be read as a Parquet file: {' '.join(str(error).split())}") from error
    fields = dict(chain.from_iterable(_arrow_fields(item) for item in schema))
    columns = [choose_column(column, language, list(fields), str(path)) for column, language in wanted]
    for column in columns:
        if not _is_text(fields[column]):
            raise ValueError(
                f"column {column!r} of {path} holds {fields[column]}, not text; choose a column of strings"
            )
    return partial(_parquet_pairs, path, columns)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # such as a "category" column of pandas
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _arrow_fields(item: pa.Field, prefix: str = "") -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_struct(item.type):
        for inner in item.type:
            yield from _arrow_fields(inner, f"{prefix}{item.name}.")
    else:
        yield f"{prefix}{item.name}", item.type


def _parquet_pairs(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
            # As bytes: converting a string array with invalid UTF-8 to text would fail.
            sides = [_as_bytes(_arrow_column(batch, column)).to_pylist() for column in columns]
            for source, target in zip(*sides, strict=True):
                number += 1
                yield source, target, number, None


def _as_bytes(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.binary_view() if pa.types.is_string_view(column.type) else pa.large_binary())


def _arrow_column(batch: pa.RecordBatch, column: str) -> pa.Array:
    if column in batch.schema.names:
        return batch.column(column)
    head, *inner = column.split(".")
    return pc.struct_field(batch.column(head), inner)


__all__ = ["table_rows"]
