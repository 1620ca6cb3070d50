# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of two sides out of files: aligned text, tables (TSV, CSV, JSON lines, Parquet) and dictionaries.

A row comes as it stands in the file, undecoded where it can be: whether it is good text is for `corpora` to say. Only
"\\n" ends a line: Python's `str.splitlines` also splits at U+2028, U+0085 and others, and one such sign inside a
sentence would shift every pair after it.
"""

import csv
import glob
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Translation

Files = str | Path | Sequence[str | Path]
Row = tuple[Any, Any, int, str | None]  # source, target, line from 1, what is wrong with the row or None
Column = tuple[str | None, str]  # the name asked for or None, the language of that side

UNREADABLE = "unreadable row"
NO_COLUMN = "column missing in the row"
EMPTY = "empty side"

_BATCH_ROWS = 10_000
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


def _open(path: Path) -> io.BufferedIOBase:
    """Open a file for its bytes, decompressed; refuse UTF-16, whose bytes would all be problems."""
    stream = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115 - the caller closes it
    try:
        head = stream.read(4)
    except gzip.BadGzipFile as error:
        raise ValueError(f"{path} ends in .gz but isn't compressed by gzip") from error
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is UTF-16; convert it to UTF-8 first, as with iconv -f UTF-16 -t UTF-8")
    stream.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)  # the UTF-8 signature that Windows programs write
    return stream  # type: ignore[return-value]


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without their "\\n" or "\\r\\n"; no other sign ends a line."""
    with _open(path) as stream:
        try:
            for line in stream:
                yield line.removesuffix(b"\n").removesuffix(b"\r")
        except EOFError as error:
            raise ValueError(f"{path} is cut off: its compressed data end early") from error


def count_lines(path: Path) -> int:
    """Count what `lines_of` yields, faster."""
    count, last = 0, b"\n"
    with _open(path) as stream:
        try:
            while block := stream.read(1 << 20):
                count += block.count(b"\n")
                last = block
        except EOFError as error:
            raise ValueError(f"{path} is cut off: its compressed data end early") from error
    return count + (not last.endswith(b"\n"))


def text_rows(source: Path, target: Path) -> Iterator[Row]:
    """Yield line n of one file with line n of the other; both have as many."""
    for number, (left, right) in enumerate(zip(lines_of(source), lines_of(target), strict=True), start=1):
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
        header = next((row for row, _ in _delimited_rows(path, quoted)), None)
        if header is None:
            raise ValueError(f"{path} has no first row that names the columns; for one without, give their positions")
        positions = [header.index(choose_column(column, language, header, str(path))) for column, language in wanted]
    return partial(_delimited_pairs, path, positions, quoted, skip_header=not positional)


def _delimited_rows(path: Path, quoted: bool) -> Iterator[tuple[list[str] | None, int]]:
    """Yield (fields, line on which the row ends), None for a row that can't be read."""
    lines = (line.decode(errors="surrogateescape") for line in lines_of(path))
    if not quoted:
        yield from ((line.split("\t"), number) for number, line in enumerate(lines, start=1))
        return
    reader = csv.reader(line + "\n" for line in lines)
    while True:
        try:
            yield next(reader), reader.line_num
        except StopIteration:
            return
        except csv.Error:  # a carriage return or a NUL outside quotation marks, a field beyond csv's limit
            yield None, reader.line_num


def _delimited_pairs(path: Path, positions: Sequence[int], quoted: bool, skip_header: bool) -> Iterator[Row]:
    rows = _delimited_rows(path, quoted)
    if skip_header:
        next(rows, None)
    for fields, number in rows:
        if fields is None:
            yield None, None, number, UNREADABLE
        elif not any(fields):  # a blank line, or one of separators only
            yield "", "", number, EMPTY
        else:
            sides = [fields[position] if position < len(fields) else None for position in positions]
            yield sides[0], sides[1], number, NO_COLUMN if max(positions) >= len(fields) else None


# JSON lines.


def _json_table(path: Path, wanted: Sequence[Column]) -> Callable[[], Iterator[Row]]:
    first: Any = None
    for line in lines_of(path):
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
    for number, line in enumerate(lines_of(path), start=1):
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
        if not (pa.types.is_string(fields[column]) or pa.types.is_large_string(fields[column])):
            raise ValueError(f"column {column!r} of {path} holds {fields[column]}, not text; name a column of strings")
    return partial(_parquet_pairs, path, columns)


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
            sides = [_arrow_column(batch, column).cast(pa.large_binary()).to_pylist() for column in columns]
            for source, target in zip(*sides, strict=True):
                number += 1
                yield source, target, number, None


def _arrow_column(batch: pa.RecordBatch, column: str) -> pa.Array:
    if column in batch.schema.names:
        return batch.column(column)
    head, *inner = column.split(".")
    return pc.struct_field(batch.column(head), inner)


__all__ = [
    "EMPTY",
    "NO_COLUMN",
    "UNREADABLE",
    "Files",
    "Row",
    "choose_column",
    "count_lines",
    "dictionary_rows",
    "existing_files",
    "feature_names",
    "lines_of",
    "listed",
    "nested_names",
    "table_rows",
    "text_rows",
]
