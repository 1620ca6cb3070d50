# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Load parallel text as a dataset with a ``translation`` column, and report the problems found in it.

Text comes from two aligned files, from tables (TSV, CSV, JSON lines, Parquet), from a dataset's name, or from the
embedded corpus. All forms get the same checks and the same report.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets
from datasets import Dataset, Features, IterableDataset, Translation
from transformers.utils import logging

from ..hub_access import hub_or_cache
from .arrow_pairs import dataset_of_pairs
from .corpus_report import INVALID_UTF8, CorpusReport, check_encoding
from .embedded_corpus import draw_expressions
from .file_names import Files, existing_files, listed, paired_files
from .rows import choose_column, dictionary_rows, feature_names, nested_names, text_rows
from .tables import table_rows
from .text_checks import MAX_CHARACTERS, Part, checked_pairs, checked_text
from .text_lines import count_lines, read_lines

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class ParallelCorpus:
    """A dataset and its report.

    Attributes:
        dataset: one column, ``translation``, of dictionaries {source_lang: text, target_lang: text}.
        report: complete for a `Dataset`; for an `IterableDataset`, complete after the first iteration in this process.
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


def load_text_files(
    source_files: Files,
    target_files: Files,
    *,
    source_lang: str = "source",
    target_lang: str = "target",
    keep_all: bool = False,
    source_tags: Sequence[str] = (),
    streaming: bool = False,
    max_characters: int = MAX_CHARACTERS,
) -> ParallelCorpus:
    """Load aligned text files: line n of one is the translation of line n of the other. ``.gz`` is decompressed.

    Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark; `text_lines` defines line ends. Unicode spaces, such as
    U+00A0 between words, are replaced by ordinary ones.

    Args:
        source_files: a file, a pattern such as "data/train.*.en", or a list.
        target_files: the same number of files, in the same order; files that match two patterns are paired by the text
            that the wildcards match.
        source_lang, target_lang: names of the two sides in the ``translation`` column.
        keep_all: keep every pair, as evaluation must; problems are only counted.
        source_tags: one text per entry of ``source_files``, put before each of its lines, e.g. "<2de>"; "" adds
            nothing.
        streaming: read during training instead of before it.
        max_characters: pairs with this many characters or more on one side are left out.

    Raises:
        ValueError: If a file is missing or has no partner, a quarter or more of the text is not UTF-8, the files have
            different numbers of lines, the number of tags is not that of the source files, or no pair is left.
    """
    tagged = _tagged_files(source_files, target_files, source_tags)
    sources, targets, _ = zip(*tagged, strict=True)
    parts = []
    for source, target, tag in tagged:
        source_lines, target_lines = count_lines(source), count_lines(target)
        if source_lines != target_lines:
            raise ValueError(
                f"{source} has {source_lines:,} lines and {target} has {target_lines:,}; line n of one must be "
                "the translation of line n of the other; only a line feed ends a line (or, in a file without any, a "
                "carriage return)"
            )
        parts.append(Part(f"{source}:", f"{target}:", partial(text_rows, source, target, tag)))
    name = f"{listed(map(str, sources))} + {listed(map(str, targets))}"
    return _corpus(parts, name, source_lang, target_lang, keep_all, streaming, max_characters)


def _tagged_files(source_files: Files, target_files: Files, tags: Sequence[str]) -> list[tuple[Path, Path, str]]:
    """Return source file, target file and tag of each pair of files."""
    if not tags:
        return [(source, target, "") for source, target in paired_files(source_files, target_files)]
    sides = [[files] if isinstance(files, str | Path) else list(files) for files in (source_files, target_files)]
    if not len(sides[0]) == len(sides[1]) == len(tags):
        raise ValueError(
            f"there are {len(tags)} source tags for {len(sides[0])} source files and {len(sides[1])} target files; "
            'give one tag per file, in the same order ("" adds none)'
        )
    return [
        (source, target, tag)
        for names, tag in zip(zip(*sides, strict=True), tags, strict=True)
        for source, target in paired_files(*names)
    ]


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
    """Load two columns of TSV, CSV, JSON lines or Parquet files; the suffix, before an optional ``.gz``, is the format.

    TSV has no quoting: a tab ends a field, a line feed ends a row. CSV fields may be quoted.

    Args:
        files: a file, a pattern, or a list.
        source_column: name of the column; a dot selects a nested field, as in "translation.en". None takes the column
            named like the language. Two numbers, e.g. "1" and "2", are positions in a TSV or CSV file without a header.
        target_column: see ``source_column``.
        source_lang, target_lang, keep_all, streaming, max_characters: see `load_text_files`.

    Raises:
        ValueError: If a file or a column is missing, the format is unknown, or no pair is left.
    """
    paths = existing_files(files)
    parts = []
    for path in paths:
        wanted = ((source_column, source_lang), (target_column, target_lang))
        rows, place = table_rows(path, wanted)
        parts.append(Part(place, place, rows))
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
    """Load a dataset of the Hugging Face Hub, or any other that `datasets.load_dataset` takes by name.

    Args:
        name: e.g. "wmt14".
        config: configuration of the dataset, e.g. "de-en".
        split: e.g. "train" or "validation[:500]".
        source_column, target_column: see `load_table`; if ``source_lang`` is "en", None also finds "translation.en".
        source_lang, target_lang, keep_all, streaming, max_characters: see `load_text_files`.

    Raises:
        ValueError: If there is no such dataset, configuration, split or column, or no pair is left.
    """
    label = "/".join(filter(None, (name, config))) + f" [{split}]"
    with nullcontext() if Path(name).exists() else hub_or_cache() as unreachable:
        try:
            raw = datasets.load_dataset(name, config, split=split, streaming=streaming)
        except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error).split())
            if unreachable is not None:
                reason = f"it is not in the cache, and the Hub {unreachable}"
            raise ValueError(f"dataset {label} can't be loaded: {reason}") from error
    if raw.features is not None:
        available = feature_names(raw.features)
    else:  # a stream whose columns are unknown until it is read
        available = nested_names(next(iter(raw), {}))
    columns = [
        choose_column(column, language, available, label)
        for column, language in ((source_column, source_lang), (target_column, target_lang))
    ]
    part = Part(f"{label} row ", f"{label} row ", partial(dictionary_rows, raw, columns))
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
    """Generate a split of the embedded corpus of English and Korean.

    Args:
        split: "train", "validation" or "test".
        size: number of pairs.
        seed: of the random draw.
        source_lang, target_lang: "en" and "ko", in either order.
        keep_all: see `load_text_files`.

    Raises:
        ValueError: If a name is unknown, or a held-out split has fewer than ``size`` values.
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
    """Load pairs of strings, with the same checks as any other corpus.

    Args:
        pairs: of source and target.
        name: of the corpus, for messages.
        source_lang, target_lang, keep_all, max_characters: see `load_text_files`.

    Raises:
        ValueError: If no pair is left.
    """
    rows = ((source, target, number, None) for number, (source, target) in enumerate(pairs, start=1))
    part = Part(f"{name} pair ", f"{name} pair ", lambda: rows)
    return _corpus([part], name, source_lang, target_lang, keep_all, False, max_characters)


def read_sentences(files: Files, report: CorpusReport) -> Iterator[str]:
    """Yield the sentences of text files, of one or several languages, with the same checks as parallel text.

    Args:
        files: UTF-8 text, one sentence per line; a file, a pattern, or a list. ``.gz`` files are decompressed.
        report: filled in while reading; its hash is that of the sentences, each with a line feed.

    Raises:
        ValueError: If a file is missing or no sentence is left.
    """
    digest = hashlib.sha256()
    for path in existing_files(files):
        for line, raw in enumerate(read_lines(path), start=1):
            report.pairs_read += 1
            text, problem = checked_text(raw, MAX_CHARACTERS)
            if problem is not None:
                report.count(problem, f"{path}:{line}")
                if problem == INVALID_UTF8:
                    report.keep_invalid(raw)
                continue
            report.pairs_kept += 1
            digest.update(f"{text}\n".encode())
            yield text
    report.sha256 = digest.hexdigest()
    report.complete = True
    check_encoding(report)
    if not report.pairs_kept:
        raise ValueError(f"no usable sentence is left: {report}")


def _corpus(
    parts: list[Part],
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
    checked = checked_pairs(parts, report, keep_all, max_characters)
    dataset = dataset_of_pairs(checked, features, (source_lang, target_lang))
    return ParallelCorpus(dataset, report)


def _stream(
    parts: Sequence[Part],
    keep_all: bool,
    max_characters: int,
    source_lang: str,
    target_lang: str,
    report: CorpusReport,
) -> Iterator[dict[str, dict[str, str]]]:
    """Yield examples; the first complete iteration fills in the report and logs it."""
    own = CorpusReport(report.name)
    for source, target in checked_pairs(parts, own, keep_all, max_characters):
        if not report.complete:
            report.pairs_read = own.pairs_read
        yield {"translation": {source_lang: source, target_lang: target}}
    if not report.complete:
        vars(report).update(vars(own))
        logger.info(str(report))


__all__ = [
    "CorpusReport",
    "ParallelCorpus",
    "load_embedded",
    "load_hub_dataset",
    "load_pairs",
    "load_table",
    "load_text_files",
]
