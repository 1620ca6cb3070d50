# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Word alignments in Pharaoh form, "0-0 1-2": reading, writing, and the alignment error rate.

A link "i-j" joins word i of the source to word j of the target; words are separated by white space and counted from 0.
In a gold alignment, "i-j" is a sure link and "ipj" a possible one.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Link = tuple[int, int]  # word of the source, word of the target
Alignment = list[Link]  # of one sentence pair, sorted

_LINK = re.compile(r"(\d+)([-p])(\d+)")


@dataclass(frozen=True)
class GoldAlignment:
    """The correct alignment of one sentence pair.

    Attributes:
        sure: links that an alignment must have.
        possible: links that it may have; they include the sure ones.
    """

    sure: frozenset[Link]
    possible: frozenset[Link]

    @classmethod
    def parse(cls, text: str) -> "GoldAlignment":
        """Read one line, e.g. "0-0 1p0 2-1".

        Raises:
            ValueError: If it has another form.
        """
        links = _parse(text)
        return cls(
            sure=frozenset(link for link, kind in links if kind == "-"),
            possible=frozenset(link for link, _ in links),
        )


def format_alignment(links: Iterable[Link]) -> str:
    """Write an alignment in Pharaoh form."""
    return " ".join(f"{source}-{target}" for source, target in sorted(links))


def parse_alignment(text: str) -> Alignment:
    """Read an alignment in Pharaoh form; possible links ("0p1") are left out.

    Raises:
        ValueError: If the text has another form.
    """
    return sorted({link for link, kind in _parse(text) if kind == "-"})


def alignment_error_rate(alignments: Sequence[str | Iterable[Link]], gold: Sequence[str | GoldAlignment]) -> float:
    """Compute the alignment error rate of a corpus (Och and Ney 2003).

    With A the links found, S the sure and P the possible links of the gold alignments, it is
    1 − (|A ∩ S| + |A ∩ P|) / (|A| + |S|), counted over all sentence pairs. A sentence pair without gold links is not
    counted.

    Args:
        alignments: of each sentence pair, in Pharaoh form or as pairs (source word, target word).
        gold: of each sentence pair, in Pharaoh form with "p" in possible links ("0-0 1p0"), or as `GoldAlignment`.

    Returns:
        The error rate, 0 (every sure link found, only possible ones found) to 1.

    Raises:
        ValueError: If the numbers of alignments differ, an alignment has another form, or the gold has no links.
    """
    if len(alignments) != len(gold):
        raise ValueError(f"there are {len(alignments)} alignments but {len(gold)} gold alignments; give one of each")
    agreements = links_counted = 0
    for found, correct in zip(alignments, gold, strict=True):
        correct = GoldAlignment.parse(correct) if isinstance(correct, str) else correct
        if not correct.possible:
            continue
        links = set(parse_alignment(found) if isinstance(found, str) else found)
        agreements += len(links & correct.sure) + len(links & correct.possible)
        links_counted += len(links) + len(correct.sure)
    if not links_counted:
        raise ValueError("no gold alignment has a link; give gold alignments such as '0-0 1p0'")
    return 1.0 - agreements / links_counted


def _parse(text: str) -> list[tuple[Link, str]]:
    links = []
    for written in text.split():
        found = _LINK.fullmatch(written)
        if found is None:
            raise ValueError(
                f"{written!r} is not a link; write the words' positions from 0, as in 0-0 1-2 (possible: 1p2)"
            )
        links.append(((int(found[1]), int(found[3])), found[2]))
    return links


__all__ = ["Alignment", "GoldAlignment", "Link", "alignment_error_rate", "format_alignment", "parse_alignment"]
