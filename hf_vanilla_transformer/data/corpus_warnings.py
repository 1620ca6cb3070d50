# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Warnings about parallel text that trains or scores a model wrongly although every line can be read.

Untranslated, duplicate, misaligned and damaged lines, source and target swapped, and evaluation text inside the
training text. Each warning contains how many pairs of how many, an example and what to do. The limits are far above the
rates of clean text. A corpus is read in batches of Arrow; memory grows by 16 bytes per pair.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from .corpora import ParallelCorpus
from .scripts import unexpected_script

# Numbers of pairs, and shares of all pairs, from which on there is a warning.
_LEAST_PAIRS = 10
_IDENTICAL, _DUPLICATE, _ODD_LENGTHS, _DAMAGED = 0.05, 0.3, 0.02, 0.002
_LEAST_KNOWN_PAIRS, _KNOWN_PAIRS = 2, 0.01  # evaluation pairs that are in the training text
_LEAST_KNOWN_SOURCES, _KNOWN_SOURCES = 5, 0.05

_ODD_RATIO = 4  # times longer or shorter than usual, the lengths of source and target are odd
_ODD_CHARACTERS = 30  # minimum length of the longer side of a pair with odd lengths
_BLOCK = 1000  # neighbouring pairs whose lengths are correlated
_LEAST_CORRELATED = 200  # fewer pairs are not correlated
_SHIFTS = (1, -1, 2, -2, 3, -3)  # lines by which one side may be shifted
_BETTER = 0.4  # by which the correlation with a shifted side is higher, if lines are missing
_UNRELATED = 0.15  # correlation of all pairs below which source and target are unrelated

_BATCH_ROWS = 10_000
_PAIRS_OF_A_STREAM = 10_000  # of the beginning, which is read again by the training
_SAMPLED_ROWS = 200  # per batch, of which the script is determined
_QUOTED = 40  # characters of an example
_EMBEDDED = "embedded corpus"  # it repeats pairs by design, so that frequent forms are frequent
# UTF-8 that was read as Latin-1 or CP1252, and the character that replaces invalid bytes.
_DAMAGED_TEXT = "\ufffd|Ã[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œ]|â€|ì[\u0080-\u00bf–—˜][\u0080-\u00bf]"


def corpus_warnings(corpora: Mapping[str, ParallelCorpus]) -> list[str]:
    """Return the warnings about the splits of a corpus.

    Args:
        corpora: by name of the split; of "train", duplicates are counted, and the others are searched in it. Of a
            stream, only the first 10,000 pairs are read.
    """
    read = {name: _beginning(corpus) for name, corpus in corpora.items()}
    found = [f"{name}: {text}" for name, corpus in read.items() for text in _split_warnings(name, corpus)]
    if "train" in read:
        found += known_pairs(read.pop("train"), read)
    return found


def _beginning(corpus: ParallelCorpus) -> ParallelCorpus:
    """Return a corpus itself, or the first 10,000 pairs of a stream."""
    if isinstance(corpus.dataset, Dataset):
        return corpus
    rows = list(corpus.dataset.take(_PAIRS_OF_A_STREAM))
    return ParallelCorpus(Dataset.from_list(rows, features=corpus.dataset.features), corpus.report)


# --------------------------------------------------------------------------- one split


def _split_warnings(split: str, corpus: ParallelCorpus) -> Iterator[str]:
    """Yield the warnings about one split."""
    lengths: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    hashes: list[np.ndarray] = []
    samples: tuple[list[str], list[str]] = ([], [])
    identical, damaged = _Examples(), _Examples()
    counts_duplicates = split == "train" and not corpus.report.name.startswith(_EMBEDDED)
    start = 0
    for columns in _batches(corpus):
        for side, column in enumerate(columns):
            lengths[side].append(_numpy(pc.utf8_length(column)))
            samples[side].extend(column[:: max(1, len(column) // _SAMPLED_ROWS)].to_pylist())
        same = pc.and_(pc.equal(*columns), pc.greater(pc.utf8_length(columns[0]), 0))
        identical.add(_numpy(same), start, columns)
        is_damaged = pc.or_(*(pc.match_substring_regex(column, _DAMAGED_TEXT) for column in columns))
        damaged.add(_numpy(is_damaged), start, columns)
        if counts_duplicates:
            pairs = zip(*(column.to_pylist() for column in columns), strict=True)
            hashes.append(np.fromiter(map(hash, pairs), np.int64, len(columns[0])))
        start += len(columns[0])
    if not start:
        return
    for name, language, texts in zip(("source", "target"), corpus.languages, samples, strict=True):
        if script := unexpected_script(texts, language):
            yield (
                f"the {name} text is mostly {script}, but {name}_lang is {language!r}; correct {name}_lang, or swap "
                "source and target"
            )
    if identical.many(start, _IDENTICAL):
        yield (
            f"{identical.of(start)} have the same text as source and target, {identical.example}; a model trained on "
            "them copies: remove lines that are not translated, and check that source and target are not the same file"
        )
    if damaged.many(start, _DAMAGED):
        yield (
            f"{damaged.of(start)} have damaged characters, {damaged.example}: the text was read in a wrong encoding "
            "before it was saved; make it again from the original, or remove these lines"
        )
    if hashes:
        once = np.unique(np.concatenate(hashes), return_index=True)[1]
        repeated = np.setdiff1d(np.arange(start), once)
        duplicate = _Examples(len(repeated), int(repeated[0]) if len(repeated) else 0)
        if duplicate.many(start, _DUPLICATE):
            duplicate.quote(corpus)
            yield (
                f"{duplicate.of(start)} repeat an earlier pair, {duplicate.example}; the model sees them more often "
                "than the others: remove them, and check that no file is given twice"
            )
    source_sizes, target_sizes = (np.concatenate(side).astype(np.float64) for side in lengths)
    yield from _alignment_warnings(source_sizes, target_sizes, corpus)


def _alignment_warnings(source: np.ndarray, target: np.ndarray, corpus: ParallelCorpus) -> Iterator[str]:
    """Yield warnings if the lengths of source and target show that lines are not translations of each other."""
    if shift := shifted_lines(source, target):
        pair, offset, fitting, correlation = shift
        yield (
            f"the lines are not aligned from about pair {pair:,} on: by their lengths, source n belongs to target "
            f"n{offset:+d} there (correlation {fitting:.2f}, with target n {correlation:.2f}); a line is missing or "
            "added in one file before that pair"
        )
        return
    filled = (source > 0) & (target > 0)
    ratio = np.log(np.maximum(target, 1)) - np.log(np.maximum(source, 1))
    if filled.sum() >= _LEAST_CORRELATED and (related := _correlation(source[filled], target[filled])) < _UNRELATED:
        yield (
            f"the lengths of source and target are unrelated (correlation {related:.2f}; of translations, usually more "
            "than 0.7); check that line n of one file is the translation of line n of the other"
        )
        return
    usual = np.median(ratio[filled]) if filled.any() else 0.0
    long = np.maximum(source, target) >= _ODD_CHARACTERS
    found = np.flatnonzero(filled & long & (np.abs(ratio - usual) > np.log(_ODD_RATIO)))
    odd = _Examples(len(found), int(found[0]) if len(found) else 0)
    if odd.many(len(source), _ODD_LENGTHS):
        odd.quote(corpus)
        yield (
            f"{odd.of(len(source))} have a target more than {_ODD_RATIO} times longer or shorter than usual here, "
            f"{odd.example}; check that the lines are aligned, and remove those that are not translations"
        )


def shifted_lines(source: np.ndarray, target: np.ndarray) -> tuple[int, int, float, float] | None:
    """Find where one side of parallel text is shifted by a few lines.

    Args:
        source, target: lengths of the lines, in characters.

    Returns:
        The number of the first shifted pair, from 1, to the precision of a block of 1,000 pairs; the shift of the
        target, in lines; and the correlation of lengths with and without it. None if no block is shifted.
    """
    reach = max(map(abs, _SHIFTS))
    for start in range(0, len(source), _BLOCK):
        end = min(start + _BLOCK, len(source))
        inner = slice(start + reach, end - reach)
        if end - start - 2 * reach < _LEAST_CORRELATED:
            continue
        correlation = _correlation(source[inner], target[inner])
        if correlation > 1 - _BETTER:
            continue
        fits = {
            shift: _correlation(source[inner], target[start + reach + shift : end - reach + shift]) for shift in _SHIFTS
        }
        best = max(fits, key=lambda shift: fits[shift])
        if fits[best] > correlation + _BETTER:
            return start + 1, best, fits[best], correlation
    return None


def _correlation(source: np.ndarray, target: np.ndarray) -> float:
    """Return the correlation of the logarithms of lengths; 1 if one side has lines of one length only."""
    logarithms = [np.log(np.maximum(side, 1.0)) for side in (source, target)]
    if min(side.std() for side in logarithms) < 1e-9:
        return 1.0
    return float(np.corrcoef(*logarithms)[0, 1])


# --------------------------------------------------------------------------- evaluation text in the training text


def known_pairs(training: ParallelCorpus, held_out: Mapping[str, ParallelCorpus]) -> list[str]:
    """Return a warning for each evaluation split of which many pairs or sources are in the training text.

    Only the evaluation text is kept in memory.

    Args:
        training: the training text.
        held_out: the evaluation splits by name.
    """
    sides = {name: corpus.sides() for name, corpus in held_out.items()}
    wanted = {source for sources, _ in sides.values() for source in sources if source.strip()}
    if not wanted:
        return []
    known: dict[str, set[str]] = {}  # source → its translations in the training text
    for sources, targets in _batches(training):
        for place, source in enumerate(sources.to_pylist()):
            if source in wanted:
                known.setdefault(source, set()).add(targets[place].as_py())
    warnings = []
    for name, (sources, targets) in sides.items():
        total = len(sources)
        pairs, others = _Examples(), _Examples()
        for place, (source, target) in enumerate(zip(sources, targets, strict=True)):
            if source in known:
                (pairs if target in known[source] else others).add_pair(place, source, target)
        if pairs.many(total, _KNOWN_PAIRS, _LEAST_KNOWN_PAIRS):
            warnings.append(
                f"{name}: {pairs.of(total)} are in the training text as well, {pairs.example}; scores on them measure "
                "memory, not translation: remove them from the training text"
            )
        elif others.many(total, _KNOWN_SOURCES, _LEAST_KNOWN_SOURCES):
            warnings.append(
                f"{name}: {others.of(total)} have a source that is in the training text with another translation, "
                f"{others.example}; scores on them are too high: remove these sources from the training text"
            )
    return warnings


# --------------------------------------------------------------------------- reading and counting


class _Examples:
    """Counts pairs of one kind.

    Attributes:
        count: number of pairs.
        first: index of the first of them.
        example: the first of them, for a message.
    """

    def __init__(self, count: int = 0, first: int = 0) -> None:
        self.count, self.first, self.example = count, first, ""

    def add(self, found: np.ndarray, start: int, columns: tuple[Any, Any]) -> None:
        """Count the pairs of a batch for which ``found`` is true; the batch starts at pair ``start``."""
        places = np.flatnonzero(found)
        if len(places):
            place = int(places[0])
            self._remember(start + place, *(column[place].as_py() for column in columns))
        self.count += len(places)

    def add_pair(self, place: int, source: str, target: str) -> None:
        """Count one pair."""
        self._remember(place, source, target)
        self.count += 1

    def quote(self, corpus: ParallelCorpus) -> None:
        """Take the text of the first pair from a corpus."""
        for number, (sources, targets) in enumerate(_batches(corpus)):
            place = self.first - number * _BATCH_ROWS
            if place < len(sources):
                self._remember(self.first, sources[place].as_py(), targets[place].as_py(), replace=True)
                return

    def _remember(self, place: int, source: str, target: str, replace: bool = False) -> None:
        if not self.count or replace:
            shown = [text if len(text) <= _QUOTED else text[:_QUOTED] + "…" for text in (source, target)]
            self.first, self.example = place, f"e.g. pair {place + 1:,} ({shown[0]!r}, {shown[1]!r})"

    def many(self, total: int, share: float, least: int = _LEAST_PAIRS) -> bool:
        """Return whether there are at least ``least`` pairs and at least this share of all pairs."""
        return self.count >= max(least, share * total)

    def of(self, total: int) -> str:
        """Return the number, for a message."""
        return f"{self.count:,} of {total:,} pairs ({self.count / total:.1%})"


def _batches(corpus: ParallelCorpus) -> Iterator[tuple[Any, Any]]:
    """Yield the sources and targets of batches of 10,000 pairs as Arrow arrays."""
    source_lang, target_lang = corpus.languages
    for table in corpus.dataset.with_format("arrow").iter(_BATCH_ROWS):
        pairs = table["translation"].combine_chunks()
        yield pairs.field(source_lang), pairs.field(target_lang)


def _numpy(column: Any) -> np.ndarray:
    array: np.ndarray = column.to_numpy(zero_copy_only=False)
    return array


__all__ = ["corpus_warnings", "known_pairs", "shifted_lines"]
