# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check the text of pairs, and count the problems."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils import logging

from .corpus_report import (
    CARRIAGE_RETURN,
    CONTROL,
    IDENTICAL,
    INVALID_UTF8,
    NOT_TEXT,
    NUL,
    TOO_LONG,
    CorpusReport,
    check_encoding,
    encoding_problem,
)
from .rows import EMPTY, SEVERAL_LINES, Row
from .text_lines import plain_spaces

logger = logging.get_logger(__name__)

MAX_CHARACTERS = 100_000  # a longer side is a broken file, not a sentence

_KEPT = {CARRIAGE_RETURN, IDENTICAL, SEVERAL_LINES}  # kinds of problems whose pairs are kept
_PAIRS_BEFORE_ENCODING_CHECK = 1000  # read before the encoding is checked first
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # without the white space \t \n \v \f \r


@dataclass(frozen=True)
class Part:
    """One file, or two aligned ones.

    Attributes:
        source_place, target_place: text before the line number in messages.
        rows: yields the rows.
    """

    source_place: str
    target_place: str
    rows: Callable[[], Iterator[Row]]


def checked_pairs(
    parts: Sequence[Part], report: CorpusReport, keep_all: bool, max_characters: int
) -> Iterator[tuple[str, str]]:
    """Yield the pairs without problems, or all, and fill in the report.

    Args:
        parts: the files of the corpus.
        report: filled in while reading.
        keep_all: yield pairs with problems as well.
        max_characters: a side with this many characters or more is a problem.

    Raises:
        ValueError: If no pair is left, or the text has another encoding.
    """
    digest = hashlib.sha256()
    for part in parts:
        for raw_source, raw_target, line, problem in part.rows():
            if report.pairs_read == _PAIRS_BEFORE_ENCODING_CHECK:
                check_encoding(report)
            report.pairs_read += 1
            source, source_problem = checked_text(raw_source, max_characters)
            target, target_problem = checked_text(raw_target, max_characters)
            note = problem if problem == SEVERAL_LINES else None
            problem = None if note else problem
            if problem or source_problem or target_problem:
                place = part.source_place if problem or source_problem else part.target_place
                kind = problem or source_problem or target_problem or ""
                report.count(kind, f"{place}{line}")
                if kind == INVALID_UTF8:
                    report.keep_invalid(raw_source if source_problem == INVALID_UTF8 else raw_target)
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
    check_encoding(report)
    if not report.pairs_kept:
        raise ValueError(f"no usable pair is left: {report}")
    if report.problems.keys() - _KEPT - {INVALID_UTF8}:
        logger.warning(str(report))
    if INVALID_UTF8 in report.problems:
        lost = "invalid bytes are replaced by U+FFFD" if keep_all else "these pairs are left out"
        logger.warning(f"{encoding_problem(report)}; {lost}")


def checked_text(raw: Any, max_characters: int) -> tuple[str, str | None]:
    """Return a side as valid text with ordinary spaces, and its problem or None."""
    try:
        if type(raw) is bytes:
            text = plain_spaces(raw.decode())
        elif isinstance(raw, str):
            raw.encode()  # fails for a lone surrogate, which JSON and surrogateescape can produce
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


__all__ = ["MAX_CHARACTERS", "Part", "checked_pairs", "checked_text"]
