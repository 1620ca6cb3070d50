# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The report on a corpus: pairs read and kept, problems by kind, and the hash."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .text_encodings import likely_encoding

NOT_TEXT = "neither text nor empty"
INVALID_UTF8 = "invalid UTF-8"
TOO_LONG = "too long a side"
NUL = "NUL character"
CONTROL = "control characters"
CARRIAGE_RETURN = "carriage return inside a line"  # counted; the pair is kept
IDENTICAL = "identical source and target"  # counted; the pair is kept, for names and numbers are rightly the same

_MIN_INVALID_LINES = 10  # fewer are no sign of another encoding
_EXAMPLES_PER_KIND = 3
_LINES_FOR_GUESS = 200  # lines of invalid UTF-8 from which the encoding is guessed
_EASTERN = ("LATIN1", "CP1252")  # the same letters of other languages have other encodings


@dataclass
class CorpusReport:
    """How many pairs a corpus has, and the problems that were found.

    Attributes:
        name: origin of the pairs.
        pairs_read: number of pairs found, with and without problems.
        pairs_kept: number of pairs in the dataset.
        problems: number of pairs with a problem, by kind; a pair counts once, under the first problem found.
        examples: places of the first few pairs of each kind.
        sha256: hash of the kept pairs in order, each as "source TAB target LF" in UTF-8, with Unicode spaces replaced
            by ordinary ones (see `plain_spaces`). For two text files without problems, it is the output of
            `paste source.txt target.txt | sha256sum`.
        complete: whether the whole corpus has been read; a streamed corpus sets it at its end.
        invalid_lines: the first lines of invalid UTF-8, as they were read.
    """

    name: str
    pairs_read: int = 0
    pairs_kept: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    sha256: str = ""
    complete: bool = False
    invalid_lines: list[bytes] = field(default_factory=list, repr=False, compare=False)

    def count(self, kind: str, place: str) -> None:
        """Count one problem."""
        self.problems[kind] = self.problems.get(kind, 0) + 1
        places = self.examples.setdefault(kind, [])
        if len(places) < _EXAMPLES_PER_KIND:
            places.append(place)

    def keep_invalid(self, raw: Any) -> None:
        """Keep a line of invalid UTF-8, from which the encoding is guessed."""
        if len(self.invalid_lines) < _LINES_FOR_GUESS:
            with suppress(UnicodeEncodeError):  # half a surrogate pair in JSON is no byte of another encoding
                self.invalid_lines.append(raw if isinstance(raw, bytes) else raw.encode(errors="surrogateescape"))

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


def encoding_problem(report: CorpusReport) -> str | None:
    """Describe the lines that are not UTF-8, with the likely encoding and the command that converts it; None if none.

    Args:
        report: of the lines read so far.
    """
    bad = report.problems.get(INVALID_UTF8, 0)
    if not bad:
        return None
    place = report.examples[INVALID_UTF8][0]
    file = place.rpartition(":")[0] or "FILE"
    encoding = likely_encoding(report.invalid_lines)
    guess = "the text has another encoding or is damaged"
    if encoding is not None:
        other = " (languages of Eastern Europe: CP1250)" if encoding in _EASTERN else ""
        guess = f"the text looks like {encoding}{other}"
    return (
        f"{report.name}: {bad:,} of {report.pairs_read:,} lines ({bad / report.pairs_read:.0%}) are not UTF-8, the "
        f"first at {place}; {guess}: convert it, e.g. with `iconv -f {encoding or 'LATIN1'} -t UTF-8 {file} > NEW_FILE`"
    )


def check_encoding(report: CorpusReport) -> None:
    """Check that most of the text is UTF-8; a few invalid lines are only left out.

    Raises:
        ValueError: If a quarter or more of the lines are not UTF-8, so that the text must be in another encoding.
    """
    bad = report.problems.get(INVALID_UTF8, 0)
    if bad >= _MIN_INVALID_LINES and bad * 4 >= report.pairs_read:
        raise ValueError(encoding_problem(report))


__all__ = [
    "CARRIAGE_RETURN",
    "CONTROL",
    "IDENTICAL",
    "INVALID_UTF8",
    "NOT_TEXT",
    "NUL",
    "TOO_LONG",
    "CorpusReport",
    "check_encoding",
    "encoding_problem",
]
