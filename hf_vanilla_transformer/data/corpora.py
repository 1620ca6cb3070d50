# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Parallel text in, a `datasets` data set with a `translation` column out, and a report of what was wrong with it.

Text comes from two aligned files, from tables (TSV, CSV, JSON lines, Parquet), from a data set's name, or from the
embedded corpus. Whatever the form, the same checks run and the same report comes back. Only "\\n" ends a line: Python's
`str.splitlines` also splits at U+2028, U+0085 and others, and one such sign inside a sentence would shift every pair
after it.
"""

import csv
import glob
import gzip
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, IterableDataset, Translation
from transformers.utils import logging

from .embedded_corpus import draw_expressions

logger = logging.get_logger(__name__)

Files = str | Path | Sequence[str | Path]

MAX_CHARACTERS = 100_000  # a training sentence this long on one side is a broken file, not a sentence

UNREADABLE = "unreadable row"
NO_COLUMN = "column missing in the row"
NOT_TEXT = "neither text nor empty"
INVALID_UTF8 = "invalid UTF-8"
EMPTY = "empty side"
TOO_LONG = "too long a side"
NUL = "NUL character"
CONTROL = "control characters"
IDENTICAL = "identical source and target"  # counted; the pair is kept, for names and numbers are rightly the same

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # not the white space \t \n \v \f \r
_EXAMPLES_PER_KIND = 3
_BATCH_PAIRS = 10_000
_IN_MEMORY_BYTES = 256 * 2**20  # of text; beyond it the pairs lie in a temporary file that is mapped, not loaded
_TEMPORARY_FOLDERS: list[tempfile.TemporaryDirectory] = []  # kept until the process ends, then deleted
_MISSING = object()


@dataclass
class CorpusReport:
    """What a corpus held and what was wrong with it.

    Attributes:
        name: where the pairs came from.
        pairs_read: pairs found, good or bad.
        pairs_kept: pairs that the data set has.
        problems: pairs with a problem, by kind; a pair counts once, under the first problem found.
        examples: the places of the first few pairs of each kind.
        sha256: hash of the kept pairs in their order, each "source TAB target LF" in UTF-8. For two clean text files it
            is what `paste source.txt target.txt | sha256sum` prints.
        complete: False while a streamed corpus has not yet been read to its end.
    """

    name: str
    pairs_read: int = 0
    pairs_kept: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    sha256: str = ""
    complete: bool = False

    def count(self, kind: str, place: str) -> None:
        """Count one problem."""
        self.problems[kind] = self.problems.get(kind, 0) + 1
        places = self.examples.setdefault(kind, [])
        if len(places) < _EXAMPLES_PER_KIND:
            places.append(place)

    def __str__(self) -> str:
        if not self.complete:
            return f"{self.name}: streamed, {self.pairs_read:,} pairs read so far"
        text = f"{self.name}: {self.pairs_read:,} pairs read, {self.pairs_kept:,} kept"
        for kind, number in self.problems.items():
            places = ", ".join(self.examples[kind]) + (", …" if number > len(self.examples[kind]) else "")
            text += f"; {kind}: {number:,} ({places})"
        return text


@dataclass(frozen=True)
class ParallelCorpus:
    """A data set and its report.

    Attributes:
        dataset: one column, ``translation``, of dictionaries {source_lang: text, target_lang: text}.
        report: complete for a `Dataset`; for an `IterableDataset` after the first pass over it, in this process.
    """

    dataset: Dataset | IterableDataset
    report: CorpusReport


@dataclass(frozen=True)
class _Part:
    """One file, or two aligned ones. ``rows`` yields (source, target, line from 1, problem with the row or None)."""

    source_place: str  # what stands before the line number in a message
    target_place: str
    rows: Callable[[], Iterator[tuple[Any, Any, int, str | None]]]


# ---------------------------------------------------------------------------------------------- what users call


def load_text_files(
    source_files: Files,
    target_files: Files,
    *,
    source_lang: str = "source",
    target_lang: str = "target",
    keep_all: bool = False,
    streaming: bool = False,
    max_characters: int = MAX_CHARACTERS,
) -> ParallelCorpus:
    """Read aligned UTF-8 text files: line n of one translates line n of the other. ``.gz`` files are decompressed.

    Args:
        source_files: a file, a pattern such as "data/train.*.en", or a list.
        target_files: as many files, in the same order.
        source_lang, target_lang: names of the two sides in the ``translation`` column.
        keep_all: keep every pair in its place, as evaluation must; problems are only counted.
        streaming: read while training instead of before it.
        max_characters: a side with as many characters, or more, is left out.

    Raises:
        ValueError: If a file is missing, is not UTF-8 at all, the files differ in length, or no pair is left.
    """
    sources, targets = _existing_files(source_files), _existing_files(target_files)
    if len(sources) != len(targets):
        raise ValueError(
            f"there are {len(sources)} source files and {len(targets)} target files; name them in pairs: "
            f"{_listed(map(str, sources))} and {_listed(map(str, targets))}"
        )
    parts = []
    for source, target in zip(sources, targets, strict=True):
        source_lines, target_lines = _count_lines(source), _count_lines(target)
        if source_lines != target_lines:
            raise ValueError(
                f"{source} has {source_lines:,} lines and {target} has {target_lines:,}; line n of one must translate "
                "line n of the other, and only a line feed ends a line"
            )
        parts.append(_Part(f"{source}:", f"{target}:", partial(_text_rows, source, target)))
    name = f"{_listed(map(str, sources))} + {_listed(map(str, targets))}"
    return _corpus(parts, name, source_lang, target_lang, keep_all, streaming, max_characters)


def load_table(
    files: Files,
    source_column: str | None = None,
    target_column: str | None = None,
    *,
    source_lang: str = "source",
    target_lang: str = "target",
    keep_all: bool = False,
    streaming: bool = False,
    max_characters: int = MAX_CHARACTERS,
) -> ParallelCorpus:
    """Read two columns of TSV, CSV, JSON lines or Parquet files; the ending says which, before an optional ``.gz``.

    TSV has no quotation marks: a tab ends a field, a line feed a row. CSV has them.

    Args:
        files: a file, a pattern, or a list.
        source_column: the column's name; a dot reaches into nested fields, as in "translation.en". None looks for one
            named as the language. Two numbers, as "1" and "2", are positions in a TSV or CSV without a header.
        target_column: likewise.
        source_lang, target_lang, keep_all, streaming, max_characters: see `load_text_files`.

    Raises:
        ValueError: If a file or a column is missing, the form is unknown, or no pair is left.
    """
    paths = _existing_files(files)
    parts = []
    for path in paths:
        wanted = ((source_column, source_lang), (target_column, target_lang))
        ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        place = f"{path}:"
        if ending in (".tsv", ".tab", ".csv"):
            rows = _delimited_part(path, wanted, quoted=ending == ".csv")
        elif ending in (".jsonl", ".ndjson", ".json"):
            rows = _json_part(path, wanted)
        elif ending == ".parquet":
            rows, place = _parquet_part(path, wanted), f"{path} row "
        else:
            raise ValueError(
                f"{path} ends in {ending!r}, which says nothing about its form; tables end in .tsv, .csv, .jsonl or "
                ".parquet, and plain text comes as two aligned files"
            )
        parts.append(_Part(place, place, rows))
    return _corpus(parts, _listed(map(str, paths)), source_lang, target_lang, keep_all, streaming, max_characters)


def load_hub_dataset(
    name: str,
    config: str | None = None,
    split: str = "train",
    source_column: str | None = None,
    target_column: str | None = None,
    *,
    source_lang: str = "source",
    target_lang: str = "target",
    keep_all: bool = False,
    streaming: bool = False,
    max_characters: int = MAX_CHARACTERS,
) -> ParallelCorpus:
    """Read a data set of the Hugging Face Hub, or whatever else `datasets.load_dataset` knows by name.

    Args:
        name: as in "wmt14".
        config: the data set's configuration, as in "de-en".
        split: as in "train" or "validation[:500]".
        source_column, target_column: see `load_table`; None finds "translation.en" when ``source_lang`` is "en".
        source_lang, target_lang, keep_all, streaming, max_characters: see `load_text_files`.

    Raises:
        ValueError: If there is no such data set, configuration, split or column, or no pair is left.
    """
    label = "/".join(filter(None, (name, config))) + f" [{split}]"
    try:
        raw = datasets.load_dataset(name, config, split=split, streaming=streaming)
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"data set {label} can't be loaded: {' '.join(str(error).split())}") from error
    if raw.features is not None:
        available = _feature_names(raw.features)
    else:  # a stream that doesn't say what it holds until it is read
        available = _nested_names(next(iter(raw), {}))
    columns = [
        _choose_column(column, language, available, label)
        for column, language in ((source_column, source_lang), (target_column, target_lang))
    ]
    part = _Part(f"{label} row ", f"{label} row ", partial(_dictionary_rows, raw, columns))
    return _corpus([part], label, source_lang, target_lang, keep_all, streaming, max_characters)


def load_embedded(
    split: str,
    size: int,
    *,
    seed: int = 0,
    source_lang: str = "en",
    target_lang: str = "ko",
    keep_all: bool = False,
) -> ParallelCorpus:
    """Make a split of the embedded corpus, English and Korean by rule.

    Args:
        split: "train", "validation" or "test".
        size: pairs.
        seed: of the draw.
        source_lang, target_lang: "en" and "ko", or the other way round.
        keep_all: see `load_text_files`.

    Raises:
        ValueError: If a name is unknown or a held-out split hasn't so many values.
    """
    if {source_lang, target_lang} != {"en", "ko"}:
        raise ValueError(f"the embedded corpus has en and ko, not {source_lang} and {target_lang}")
    pairs = ((getattr(row, source_lang), getattr(row, target_lang)) for row in draw_expressions(split, size, seed))
    name = f"embedded corpus [{split}]"
    return load_pairs(pairs, name, source_lang=source_lang, target_lang=target_lang, keep_all=keep_all)


def load_pairs(
    pairs: Iterable[tuple[str, str]],
    name: str,
    *,
    source_lang: str = "source",
    target_lang: str = "target",
    keep_all: bool = False,
    max_characters: int = MAX_CHARACTERS,
) -> ParallelCorpus:
    """Take pairs from Python, through the same checks as any other corpus.

    Args:
        pairs: of source and target.
        name: what to call them in messages.
        source_lang, target_lang, keep_all, max_characters: see `load_text_files`.

    Raises:
        ValueError: If no pair is left.
    """
    rows = ((source, target, number, None) for number, (source, target) in enumerate(pairs, start=1))
    part = _Part(f"{name} pair ", f"{name} pair ", lambda: rows)
    return _corpus([part], name, source_lang, target_lang, keep_all, False, max_characters)


def read_sentences(files: Files, report: CorpusReport) -> Iterator[str]:
    """Read text of one language, or of several mixed, through the checks of parallel text.

    Args:
        files: UTF-8 text, a sentence a line; a file, a pattern, or a list. ``.gz`` files are decompressed.
        report: filled in while reading; its hash is that of the sentences, each with a line feed.

    Raises:
        ValueError: If a file is missing or no sentence is left.
    """
    digest = hashlib.sha256()
    for path in _existing_files(files):
        for line, raw in enumerate(_lines(path), start=1):
            report.pairs_read += 1
            text, problem = _checked_text(raw, MAX_CHARACTERS)
            if problem is not None:
                report.count(problem, f"{path}:{line}")
                continue
            report.pairs_kept += 1
            digest.update(f"{text}\n".encode())
            yield text
    report.sha256 = digest.hexdigest()
    report.complete = True
    if not report.pairs_kept:
        raise ValueError(f"no usable sentence is left: {report}")


# ---------------------------------------------------------------------------------------------- checks


def _corpus(
    parts: list[_Part],
    name: str,
    source_lang: str,
    target_lang: str,
    keep_all: bool,
    streaming: bool,
    max_characters: int,
) -> ParallelCorpus:
    if source_lang == target_lang:
        raise ValueError(f"both sides are called {source_lang!r}; give source_lang and target_lang different names")
    features = Features({"translation": Translation(languages=[source_lang, target_lang])})
    report = CorpusReport(name)
    if streaming:
        stream = partial(_stream, source_lang=source_lang, target_lang=target_lang, report=report)
        arguments = {"parts": parts, "keep_all": keep_all, "max_characters": max_characters}
        return ParallelCorpus(IterableDataset.from_generator(stream, features=features, gen_kwargs=arguments), report)
    checked = _checked_pairs(parts, report, keep_all, max_characters)
    dataset = _to_dataset(checked, features, (source_lang, target_lang))
    return ParallelCorpus(dataset, report)


def _checked_pairs(
    parts: Sequence[_Part], report: CorpusReport, keep_all: bool, max_characters: int
) -> Iterator[tuple[str, str]]:
    """Yield the good pairs, or all, and fill in the report; refuse a corpus of which nothing is left."""
    digest = hashlib.sha256()
    for part in parts:
        for raw_source, raw_target, line, problem in part.rows():
            report.pairs_read += 1
            source, source_problem = _checked_text(raw_source, max_characters)
            target, target_problem = _checked_text(raw_target, max_characters)
            if problem or source_problem or target_problem:
                place = part.source_place if problem or source_problem else part.target_place
                report.count(problem or source_problem or target_problem or "", f"{place}{line}")
                if not keep_all:
                    continue
            elif source == target:
                report.count(IDENTICAL, f"{part.source_place}{line}")
            report.pairs_kept += 1
            digest.update(f"{source}\t{target}\n".encode())
            yield source, target
    report.sha256 = digest.hexdigest()
    report.complete = True
    if not report.pairs_kept:
        raise ValueError(f"no usable pair is left: {report}")


def _checked_text(raw: Any, max_characters: int) -> tuple[str, str | None]:
    """Return a side as text that UTF-8 can hold, and what is wrong with it or None."""
    try:
        if type(raw) is bytes:
            text = raw.decode()
        elif isinstance(raw, str):
            raw.encode()  # fails for half a surrogate pair, which JSON and surrogateescape can bring
            text = raw
        elif raw is None:
            return "", EMPTY
        else:
            return str(raw), NOT_TEXT
    except UnicodeError:
        data = raw if isinstance(raw, bytes) else raw.encode(errors="surrogatepass")
        return data.decode(errors="replace"), INVALID_UTF8
    if not text or text.isspace():
        return text, EMPTY
    if len(text) >= max_characters:
        return text, TOO_LONG
    if not text.isprintable() and (found := _CONTROL_CHARACTERS.search(text)):
        return text, NUL if "\0" in text[found.start() :] else CONTROL
    return text, None


def _stream(
    parts: Sequence[_Part],
    keep_all: bool,
    max_characters: int,
    source_lang: str,
    target_lang: str,
    report: CorpusReport,
) -> Iterator[dict[str, dict[str, str]]]:
    """Yield examples; the first pass that ends fills in the report and says it."""
    own = CorpusReport(report.name)
    for source, target in _checked_pairs(parts, own, keep_all, max_characters):
        if not report.complete:
            report.pairs_read = own.pairs_read
        yield {"translation": {source_lang: source, target_lang: target}}
    if not report.complete:
        vars(report).update(vars(own))
        logger.info(str(report))


def _to_dataset(pairs: Iterable[tuple[str, str]], features: Features, languages: tuple[str, str]) -> Dataset:
    """Lay pairs down in Arrow; in memory, or in a temporary file once they are many.

    Not `Dataset.from_generator`: its cache would answer for a file that has changed since.
    """
    schema = features.arrow_schema
    batches: list[pa.RecordBatch] = []
    writer: pa.RecordBatchStreamWriter | None = None
    path, size = Path(), 0
    for batch in _batches(pairs, schema, languages):
        size += batch.nbytes
        if writer is None and size > _IN_MEMORY_BYTES:
            folder = tempfile.TemporaryDirectory(prefix="vanilla_transformer_", ignore_cleanup_errors=True)
            _TEMPORARY_FOLDERS.append(folder)
            path = Path(folder.name) / "pairs.arrow"
            writer = pa.ipc.new_stream(str(path), schema)
            for earlier in batches:
                writer.write_batch(earlier)
            batches.clear()
        if writer is None:
            batches.append(batch)
        else:
            writer.write_batch(batch)
    if writer is not None:
        writer.close()
        return Dataset.from_file(str(path))
    table = datasets.table.InMemoryTable(pa.Table.from_batches(batches, schema=schema))
    return Dataset(table, info=datasets.DatasetInfo(features=features))


def _batches(
    pairs: Iterable[tuple[str, str]], schema: pa.Schema, languages: tuple[str, str]
) -> Iterator[pa.RecordBatch]:
    fields = schema.field("translation").type
    columns: tuple[list[str], list[str]] = ([], [])

    def batch() -> pa.RecordBatch:
        sides = {language: pa.array(side, pa.string()) for language, side in zip(languages, columns, strict=True)}
        struct = pa.StructArray.from_arrays([sides[item.name] for item in fields], fields=list(fields))
        return pa.RecordBatch.from_arrays([struct], schema=schema)

    for source, target in pairs:
        columns[0].append(source)
        columns[1].append(target)
        if len(columns[0]) == _BATCH_PAIRS:
            yield batch()
            columns = ([], [])
    if columns[0]:
        yield batch()


# ---------------------------------------------------------------------------------------------- files and columns


def _existing_files(files: Files) -> list[Path]:
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
    return _listed(names) if names else "nothing"


def _listed(names: Iterable[str], most: int = 12) -> str:
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


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without their "\\n" or "\\r\\n"; no other sign ends a line."""
    with _open(path) as stream:
        try:
            for line in stream:
                yield line.removesuffix(b"\n").removesuffix(b"\r")
        except EOFError as error:
            raise ValueError(f"{path} is cut off: its compressed data end early") from error


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    with _open(path) as stream:
        try:
            while block := stream.read(1 << 20):
                count += block.count(b"\n")
                last = block
        except EOFError as error:
            raise ValueError(f"{path} is cut off: its compressed data end early") from error
    return count + (not last.endswith(b"\n"))


def _text_rows(source: Path, target: Path) -> Iterator[tuple[Any, Any, int, str | None]]:
    for number, (left, right) in enumerate(zip(_lines(source), _lines(target), strict=True), start=1):
        yield left, right, number, None


def _choose_column(column: str | None, language: str, available: Sequence[str], where: str) -> str:
    """Return the column asked for, or the one that is named as the language."""
    wanted = [column] if column is not None else [language, f"translation.{language}"]
    for name in wanted:
        if name in available:
            return name
    raise ValueError(f"{where} has no column {' or '.join(map(repr, wanted))}; it has {_listed(available)}")


def _lookup(row: Any, column: str) -> Any:
    """Follow a dotted name into nested dictionaries; `_MISSING` where it leads nowhere."""
    if isinstance(row, dict):
        if column in row:
            return row[column]
        head, _, rest = column.partition(".")
        if rest and head in row:
            return _lookup(row[head], rest)
    return _MISSING


def _nested_names(row: Any, prefix: str = "") -> list[str]:
    names = []
    for key, value in row.items():
        names += _nested_names(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return names


def _feature_names(features: Any, prefix: str = "") -> list[str]:
    names = []
    for key, value in features.items():
        if isinstance(value, Translation):
            names += [f"{prefix}{key}.{language}" for language in value.languages]
        elif isinstance(value, dict):
            names += _feature_names(value, f"{prefix}{key}.")
        else:
            names.append(f"{prefix}{key}")
    return names


def _two_columns(row: Any, columns: Sequence[str], line: int) -> tuple[Any, Any, int, str | None]:
    source, target = (_lookup(row, column) for column in columns)
    if source is _MISSING or target is _MISSING:
        return (None if source is _MISSING else source, None if target is _MISSING else target, line, NO_COLUMN)
    return source, target, line, None


def _dictionary_rows(rows: Iterable[dict], columns: Sequence[str]) -> Iterator[tuple[Any, Any, int, str | None]]:
    for number, row in enumerate(rows, start=1):
        yield _two_columns(row, columns, number)


# Tab- and comma-separated values, decoded with surrogateescape: a bad byte survives and is found by the checks.


def _delimited_part(path: Path, wanted: Sequence[tuple[str | None, str]], quoted: bool) -> Callable:
    positional = all(column is not None and column.isdecimal() and int(column) > 0 for column, _ in wanted)
    if positional:
        positions = [int(column or 0) - 1 for column, _ in wanted]
    else:
        header = next((row for row, _ in _delimited_rows(path, quoted)), None)
        if header is None:
            raise ValueError(f"{path} has no first row that names the columns; for one without, give their positions")
        positions = [header.index(_choose_column(column, language, header, str(path))) for column, language in wanted]
    return partial(_delimited_pairs, path, positions, quoted, skip_header=not positional)


def _delimited_rows(path: Path, quoted: bool) -> Iterator[tuple[list[str] | None, int]]:
    """Yield (fields, line on which the row ends), None for a row that can't be read."""
    lines = (line.decode(errors="surrogateescape") for line in _lines(path))
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


def _delimited_pairs(
    path: Path, positions: Sequence[int], quoted: bool, skip_header: bool
) -> Iterator[tuple[Any, Any, int, str | None]]:
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


def _json_part(path: Path, wanted: Sequence[tuple[str | None, str]]) -> Callable:
    first: Any = None
    for line in _lines(path):
        if line.lstrip().startswith(b"["):
            raise ValueError(f"{path} is a JSON array; write JSON lines: one object a line, nothing around them")
        first = _json_object(line)
        if first is not None:
            break
    if first is None:
        raise ValueError(f"{path} has no line that is a JSON object")
    available = _nested_names(first)
    columns = [_choose_column(column, language, available, str(path)) for column, language in wanted]
    return partial(_json_pairs, path, columns)


def _json_object(line: bytes) -> dict | None:
    try:
        row = json.loads(line.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _json_pairs(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, Any, int, str | None]]:
    for number, line in enumerate(_lines(path), start=1):
        row = _json_object(line)
        yield (None, None, number, UNREADABLE) if row is None else _two_columns(row, columns, number)


# Parquet.


def _parquet_part(path: Path, wanted: Sequence[tuple[str | None, str]]) -> Callable:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {' '.join(str(error).split())}") from error
    fields = dict(chain.from_iterable(_arrow_fields(item) for item in schema))
    columns = [_choose_column(column, language, list(fields), str(path)) for column, language in wanted]
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


def _parquet_pairs(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, Any, int, str | None]]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_PAIRS, columns=list(columns)):
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
    "CorpusReport",
    "ParallelCorpus",
    "load_embedded",
    "load_hub_dataset",
    "load_pairs",
    "load_table",
    "load_text_files",
]
