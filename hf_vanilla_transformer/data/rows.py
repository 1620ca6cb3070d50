# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of two sides out of files: aligned text, tables (TSV, CSV, JSON lines, Parquet) and dictionaries.

A row comes as it stands in the file, undecoded where it can be: whether it is good text is for `corpora` to say. What
ends a line, and which encodings are read, `text_lines` says.
"""

import csv
import glob
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Translation

from .text_lines import read_lines

Files = str | Path | Sequence[str | Path]
Row = tuple[Any, Any, int, str | None]  # source, target, line from 1, what is wrong with the row or None
Column = tuple[str | None, str]  # the name asked for or None, the language of that side

UNREADABLE = "unreadable row"
NO_COLUMN = "column missing in the row"
EMPTY = "empty side"
SEVERAL_LINES = "row of several lines"  # counted; the pair is kept: a quoted field may hold line feeds

_BATCH_ROWS = 10_000
_CSV_ROW_LINES = 100  # a row of more lines is one with an unbalanced quotation mark
_MISSING = object()


def existing_files(files: Files) -> list[Path]:
    """Return the files that names or patterns mean, in order; refuse what isn't there."""
    paths: list[Path] = []
    for name in [files] if isinstance(files, str | Path) else files:
        path = Path(name).expanduser()
        if not path.exists() and any(sign in str(path) for sign in "*?["):
            found = sorted(glob.glob(str(path), recursive=True))
            if not found:
                raise ValueError(f"no file matches {name}")
            paths.extend(map(Path, found))
        elif path.is_dir():
            raise ValueError(f"{path} is a folder, not a file; it holds {_folder_listing(path)}")
        elif not path.exists():
            where = f"{path.parent} holds {_folder_listing(path.parent)}" if path.parent.is_dir() else (
                f"there is no folder {path.parent} either"
            )  # fmt: skip
            raise ValueError(f"there is no file {path}; {where}")
        else:
            paths.append(path)
    if not paths:
        raise ValueError("no file is named")
    return paths


def _folder_listing(folder: Path) -> str:
    names = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    return listed(names) if names else "nothing"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Join names for a message, the first few where there are many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def paired_files(source_files: Files, target_files: Files) -> list[tuple[Path, Path]]:
    """Return source files with their target files.

    Files that are named one by one are paired in the order given. Where a pattern stands on both sides, two files are
    a pair if the wildcards matched the same text, so that "t.{10}.en" never meets "t.{1}.ko".

    Raises:
        ValueError: If a file is missing or has no partner.
    """
    sides = [[files] if isinstance(files, str | Path) else list(files) for files in (source_files, target_files)]
    if len(sides[0]) == len(sides[1]):
        return [pair for names in zip(*sides, strict=True) for pair in _paired(*names)]
    sources, targets = existing_files(source_files), existing_files(target_files)
    if len(sources) != len(targets):
        raise ValueError(_unpaired(sources, targets))
    patterns = [name for name in (*sides[0], *sides[1]) if _is_pattern(name)]
    pairs = list(zip(sources, targets, strict=True))
    for source, target in pairs if patterns else ():
        # The order is the alphabet's on one side and the caller's on the other: hold the numbers in the names together.
        if _numbers(source) != _numbers(target):
            raise ValueError(
                f"{patterns[0]} is a pattern, and its files don't pair by name with those of the other side: {source} "
                f"would be paired with {target}; name the files of both sides one by one"
            )
    return pairs


def _paired(source: str | Path, target: str | Path) -> list[tuple[Path, Path]]:
    sources, targets = existing_files(source), existing_files(target)
    if len(sources) != len(targets):
        raise ValueError(_unpaired(sources, targets))
    if not (_is_pattern(source) and _is_pattern(target)):
        return list(zip(sources, targets, strict=True))
    keys = [
        {_matched(str(name), path): path for path in paths} for name, paths in ((source, sources), (target, targets))
    ]
    alone = sorted((keys[0].keys() ^ keys[1].keys()), key=str)
    if alone or len(keys[0]) < len(sources) or len(keys[1]) < len(targets):
        lone = next((side[alone[0]] for side in keys if alone and alone[0] in side), sources[0])
        raise ValueError(
            f"{lone} has no partner: two files are a pair if the wildcards of {source} and {target} match the same "
            f"text; name the files of both sides one by one, in their order"
        )
    return [(keys[0][_matched(str(source), path)], keys[1][_matched(str(source), path)]) for path in sources]


def _unpaired(sources: Sequence[Path], targets: Sequence[Path]) -> str:
    return (
        f"there are {len(sources)} source files and {len(targets)} target files; name them in pairs: "
        f"{listed(map(str, sources))} and {listed(map(str, targets))}"
    )


def _is_pattern(name: str | Path) -> bool:
    return not Path(name).expanduser().exists() and any(sign in str(name) for sign in "*?[")


def _matched(pattern: str, path: Path) -> str:
    """Return what the wildcards of a pattern matched in a path."""
    pattern = str(Path(pattern).expanduser())
    parts = re.split(r"(\*+|\?|\[!?[^\]]*\])", pattern)  # every second one is a wildcard
    expression = "".join(
        f"({'.*' if part[0] == '*' else '.'})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    found = re.fullmatch(expression, str(path), re.DOTALL)
    return str(path) if found is None else "\0".join(found.groups())


def _numbers(path: Path) -> list[str]:
    return re.findall(r"\d+", path.name)


def text_rows(source: Path, target: Path) -> Iterator[Row]:
    """Yield line n of one file with line n of the other; both have as many."""
    for number, (left, right) in enumerate(zip(read_lines(source), read_lines(target), strict=True), start=1):
        yield left, right, number, None


def choose_column(column: str | None, language: str, available: Sequence[str], where: str) -> str:
    """Return the column asked for, or the one that is named as the language."""
    wanted = [column] if column is not None else [language, f"translation.{language}"]
    for name in wanted:
        if name in available:
            return name
    raise ValueError(f"{where} has no column {' or '.join(map(repr, wanted))}; it has {listed(available)}")


def _lookup(row: Any, column: str) -> Any:
    """Follow a dotted name into nested dictionaries; `_MISSING` where it leads nowhere."""
    if isinstance(row, dict):
        if column in row:
            return row[column]
        head, _, rest = column.partition(".")
        if rest and head in row:
            return _lookup(row[head], rest)
    return _MISSING


def nested_names(row: Any, prefix: str = "") -> list[str]:
    """Name the fields of nested dictionaries, with dots: "translation.en"."""
    names = []
    for key, value in row.items():
        names += nested_names(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return names


def feature_names(features: Any, prefix: str = "") -> list[str]:
    """Name the fields of a data set's features, with dots."""
    names = []
    for key, value in features.items():
        if isinstance(value, Translation):
            names += [f"{prefix}{key}.{language}" for language in value.languages]
        elif isinstance(value, dict):
            names += feature_names(value, f"{prefix}{key}.")
        else:
            names.append(f"{prefix}{key}")
    return names


def _two_columns(row: Any, columns: Sequence[str], line: int) -> Row:
    source, target = (_lookup(row, column) for column in columns)
    if source is _MISSING or target is _MISSING:
        return (None if source is _MISSING else source, None if target is _MISSING else target, line, NO_COLUMN)
    return source, target, line, None


def dictionary_rows(rows: Iterable[dict], columns: Sequence[str]) -> Iterator[Row]:
    """Yield two fields, named with dots, of each dictionary."""
    for number, row in enumerate(rows, start=1):
        yield _two_columns(row, columns, number)


def table_rows(path: Path, wanted: Sequence[Column]) -> tuple[Callable[[], Iterator[Row]], str]:
    """Return what yields the rows of a table, whose form its ending says, and what stands before a row's number."""
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending in (".tsv", ".tab", ".csv"):
        return _delimited_table(path, wanted, quoted=ending == ".csv"), f"{path}:"
    if ending in (".jsonl", ".ndjson", ".json"):
        return _json_table(path, wanted), f"{path}:"
    if ending == ".parquet":
        return _parquet_table(path, wanted), f"{path} row "
    raise ValueError(
        f"{path} ends in {ending!r}, which says nothing about its form; tables end in .tsv, .csv, .jsonl or "
        ".parquet, and plain text comes as two aligned files"
    )


# Tab- and comma-separated values, decoded with surrogateescape: a bad byte survives and is found by the checks.


def _delimited_table(path: Path, wanted: Sequence[Column], quoted: bool) -> Callable[[], Iterator[Row]]:
    positional = all(column is not None and column.isdecimal() and int(column) > 0 for column, _ in wanted)
    if positional:
        positions = [int(column or 0) - 1 for column, _ in wanted]
    else:
        header = next((row for row, _, _ in _delimited_rows(path, quoted)), None)
        if header is None:
            raise ValueError(f"{path} has no first row that names the columns; for one without, give their positions")
        positions = [header.index(choose_column(column, language, header, str(path))) for column, language in wanted]
    return partial(_delimited_pairs, path, positions, quoted, skip_header=not positional)


def _delimited_rows(path: Path, quoted: bool) -> Iterator[tuple[list[str] | None, int, int]]:
    """Yield (fields, first line, lines) of each row; None for a row that can't be read."""
    lines = (line.decode(errors="surrogateescape") for line in read_lines(path))
    if quoted:
        yield from _csv_rows(lines)
    else:
        yield from ((line.split("\t"), number, 1) for number, line in enumerate(lines, start=1))


def _csv_rows(lines: Iterator[str]) -> Iterator[tuple[list[str] | None, int, int]]:
    """Read rows of which some may span lines; an unbalanced quotation mark spoils the line it is on and no other.

    The csv module reads on to the next quotation mark, or to the end of the file. Here a row that is not valid, or
    spans more lines than text does, is given up: its first line is unreadable, and the next line begins a row.
    """
    ahead: deque[str] = deque()  # lines of a row that was given up
    number = 0

    def following() -> str | None:
        return ahead.popleft() if ahead else next(lines, None)

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
        except csv.Error:  # an unbalanced quotation mark, a carriage return outside of them, an endless field
            fields = None
            ahead.extendleft(reversed(taken[1:]))
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
        elif not any(fields):  # a blank line, or one of separators only
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
            raise ValueError(f"{path} is a JSON array; write JSON lines: one object a line, nothing around them")
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
        yield (None, None, number, UNREADABLE) if row is None else _two_columns(row, columns, number)


# Parquet.


def _parquet_table(path: Path, wanted: Sequence[Column]) -> Callable[[], Iterator[Row]]:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {' '.join(str(error).split())}") from error
    fields = dict(chain.from_iterable(_arrow_fields(item) for item in schema))
    columns = [choose_column(column, language, list(fields), str(path)) for column, language in wanted]
    for column in columns:
        if not _is_text(fields[column]):
            raise ValueError(f"column {column!r} of {path} holds {fields[column]}, not text; name a column of strings")
    return partial(_parquet_pairs, path, columns)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # a column of few values, as pandas' "category"
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
            # As bytes: a string array may hold invalid UTF-8, at which reading it as text would stop.
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


__all__ = [
    "EMPTY",
    "NO_COLUMN",
    "SEVERAL_LINES",
    "UNREADABLE",
    "Files",
    "Row",
    "choose_column",
    "dictionary_rows",
    "existing_files",
    "feature_names",
    "listed",
    "nested_names",
    "paired_files",
    "table_rows",
    "text_rows",
]
