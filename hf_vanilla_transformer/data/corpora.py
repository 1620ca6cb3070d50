# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Parallel text in, a `datasets` data set with a `translation` column out, and a report of what was wrong with it.

Text comes from two aligned files, from tables (TSV, CSV, JSON lines, Parquet), from a data set's name, or from the
embedded corpus. Whatever the form, the same checks run and the same report comes back.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, Translation
from transformers.utils import logging

from .embedded_corpus import draw_expressions
from .rows import (
    EMPTY,
    SEVERAL_LINES,
    Files,
    Row,
    choose_column,
    dictionary_rows,
    existing_files,
    feature_names,
    listed,
    nested_names,
    paired_files,
    table_rows,
    text_rows,
)
from .text_lines import count_lines, plain_spaces, read_lines

logger = logging.get_logger(__name__)

MAX_CHARACTERS = 100_000  # a training sentence this long on one side is a broken file, not a sentence

NOT_TEXT = "neither text nor empty"
INVALID_UTF8 = "invalid UTF-8"
TOO_LONG = "too long a side"
NUL = "NUL character"
CONTROL = "control characters"
CARRIAGE_RETURN = "carriage return inside a line"  # counted; the pair is kept
IDENTICAL = "identical source and target"  # counted; the pair is kept, for names and numbers are rightly the same

_HARMLESS = {CARRIAGE_RETURN, IDENTICAL, SEVERAL_LINES}  # kinds whose pairs are kept
_JUDGED_EARLY = 1000  # pairs after which text in another encoding is refused without reading on
_LEAST_BAD = 10  # lines that are not UTF-8; fewer don't speak for another encoding
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # not the white space \t \n \v \f \r
_EXAMPLES_PER_KIND = 3
_BATCH_PAIRS = 10_000
_IN_MEMORY_BYTES = 256 * 2**20  # of text; beyond it the pairs lie in a temporary file that is mapped, not loaded
_TEMPORARY_FOLDERS: list[tempfile.TemporaryDirectory] = []  # kept until the process ends, then deleted


@dataclass
class CorpusReport:
    """What a corpus held and what was wrong with it.

    Attributes:
        name: where the pairs came from.
        pairs_read: pairs found, good or bad.
        pairs_kept: pairs that the data set has.
        problems: pairs with a problem, by kind; a pair counts once, under the first problem found.
        examples: the places of the first few pairs of each kind.
        sha256: hash of the kept pairs in their order, each "source TAB target LF" in UTF-8, with ordinary spaces for
            those of Unicode (see `plain_spaces`). For two clean text files it is what
            `paste source.txt target.txt | sha256sum` prints.
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
        lost = self.pairs_read - self.pairs_kept
        return text + (
            f"; {lost / self.pairs_read:.0%} of the pairs are left out" if 10 * lost >= self.pairs_read > 0 else ""
        )


@dataclass(frozen=True)
class ParallelCorpus:
    """A data set and its report.

    Attributes:
        dataset: one column, ``translation``, of dictionaries {source_lang: text, target_lang: text}.
        report: complete for a `Dataset`; for an `IterableDataset` after the first pass over it, in this process.
    """

    dataset: Dataset | IterableDataset
    report: CorpusReport

    @property
    def languages(self) -> tuple[str, str]:
        """Names of the source and of the target in the ``translation`` column."""
        source_lang, target_lang = self.dataset.features["translation"].languages
        return source_lang, target_lang

    def sides(self) -> tuple[list[str], list[str]]:
        """Return all sources and all targets, in order."""
        rows = list(self.dataset["translation"])
        source_lang, target_lang = self.languages
        return [row[source_lang] for row in rows], [row[target_lang] for row in rows]

    def sentences(self) -> Iterator[str]:
        """Yield the source and the target of each pair in turn."""
        for row in self.dataset:
            yield from row["translation"].values()


@dataclass(frozen=True)
class _Part:
    """One file, or two aligned ones. ``rows`` yields (source, target, line from 1, problem with the row or None)."""

    source_place: str  # what stands before the line number in a message
    target_place: str
    rows: Callable[[], Iterator[Row]]


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
    """Read aligned text files: line n of one translates line n of the other. ``.gz`` files are decompressed.

    Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark; see `text_lines` for what ends a line. Spaces of Unicode,
    as U+00A0 between words, are read as the ordinary one.

    Args:
        source_files: a file, a pattern such as "data/train.*.en", or a list.
        target_files: as many files, in the same order; files that two patterns match are paired by what the wildcards
            stand for.
        source_lang, target_lang: names of the two sides in the ``translation`` column.
        keep_all: keep every pair in its place, as evaluation must; problems are only counted.
        streaming: read while training instead of before it.
        max_characters: a side with as many characters, or more, is left out.

    Raises:
        ValueError: If a file is missing or has no partner, a quarter or more of the text is in another encoding, the
            files differ in length, or no pair is left.
    """
    pairs = paired_files(source_files, target_files)
    sources, targets = zip(*pairs, strict=True)
    parts = []
    for source, target in pairs:
        source_lines, target_lines = count_lines(source), count_lines(target)
        if source_lines != target_lines:
            raise ValueError(
                f"{source} has {source_lines:,} lines and {target} has {target_lines:,}; line n of one must translate "
                "line n of the other, and only a line feed (or, where there is none, a carriage return) ends a line"
            )
        parts.append(_Part(f"{source}:", f"{target}:", partial(text_rows, source, target)))
    name = f"{listed(map(str, sources))} + {listed(map(str, targets))}"
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
    paths = existing_files(files)
    parts = []
    for path in paths:
        wanted = ((source_column, source_lang), (target_column, target_lang))
        rows, place = table_rows(path, wanted)
        parts.append(_Part(place, place, rows))
    return _corpus(parts, listed(map(str, paths)), source_lang, target_lang, keep_all, streaming, max_characters)


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
        available = feature_names(raw.features)
    else:  # a stream that doesn't say what it holds until it is read
        available = nested_names(next(iter(raw), {}))
    columns = [
        choose_column(column, language, available, label)
        for column, language in ((source_column, source_lang), (target_column, target_lang))
    ]
    part = _Part(f"{label} row ", f"{label} row ", partial(dictionary_rows, raw, columns))
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
    for path in existing_files(files):
        for line, raw in enumerate(read_lines(path), start=1):
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
    _refuse_other_encoding(report)


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
    _refuse_other_encoding(report)
    return ParallelCorpus(dataset, report)


def _checked_pairs(
    parts: Sequence[_Part], report: CorpusReport, keep_all: bool, max_characters: int
) -> Iterator[tuple[str, str]]:
    """Yield the good pairs, or all, and fill in the report; refuse a corpus of which nothing is left."""
    digest = hashlib.sha256()
    for part in parts:
        for raw_source, raw_target, line, problem in part.rows():
            if report.pairs_read == _JUDGED_EARLY:
                _refuse_other_encoding(report)
            report.pairs_read += 1
            source, source_problem = _checked_text(raw_source, max_characters)
            target, target_problem = _checked_text(raw_target, max_characters)
            note = problem if problem == SEVERAL_LINES else None
            problem = None if note else problem
            if problem or source_problem or target_problem:
                place = part.source_place if problem or source_problem else part.target_place
                report.count(problem or source_problem or target_problem or "", f"{place}{line}")
                if not keep_all:
                    continue
            elif note or source == target:
                report.count(note or IDENTICAL, f"{part.source_place}{line}")
            elif "\r" in source or "\r" in target:
                report.count(CARRIAGE_RETURN, f"{part.source_place if chr(13) in source else part.target_place}{line}")
            report.pairs_kept += 1
            digest.update(f"{source}\t{target}\n".encode())
            yield source, target
    report.sha256 = digest.hexdigest()
    report.complete = True
    if not report.pairs_kept:
        raise ValueError(f"no usable pair is left: {report}")
    if report.problems.keys() - _HARMLESS:
        logger.warning(str(report))


def _refuse_other_encoding(report: CorpusReport) -> None:
    """Refuse text of which so much is not UTF-8 that it is in another encoding; a few bad lines are only left out."""
    bad = report.problems.get(INVALID_UTF8, 0)
    if bad >= _LEAST_BAD and bad * 4 >= report.pairs_read:
        raise ValueError(
            f"{report.name}: {bad:,} of {report.pairs_read:,} lines ({bad / report.pairs_read:.0%}) are not UTF-8, the "
            f"first at {report.examples[INVALID_UTF8][0]}; the text is in another encoding or damaged: convert it, as "
            "with `iconv -f LATIN1 -t UTF-8`"
        )


def _checked_text(raw: Any, max_characters: int) -> tuple[str, str | None]:
    """Return a side as text that UTF-8 can hold, its spaces ordinary ones, and what is wrong with it or None."""
    try:
        if type(raw) is bytes:
            text = plain_spaces(raw.decode())
        elif isinstance(raw, str):
            raw.encode()  # fails for half a surrogate pair, which JSON and surrogateescape can bring
            text = plain_spaces(raw)
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


__all__ = [
    "CorpusReport",
    "ParallelCorpus",
    "load_embedded",
    "load_hub_dataset",
    "load_pairs",
    "load_table",
    "load_text_files",
]
