# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The word alignments of the embedded corpus, which are known by rule.

Words are separated by white space, so a Korean number has one word per group of four digits. A link between an English
digit word and the Korean word that has this digit is sure; so are months, days, hours, units of money and the like. The
words between them (hundred, thousand, and) can be aligned in several ways: their links are possible.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from .embedded_corpus import Expression

_BELOW_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {**{word: value for value, word in enumerate(_BELOW_TWENTY)}, **{w: 10 * v for v, w in enumerate(_TENS)}}
_SCALES = {"thousand": 1, "million": 2, "billion": 3}


@dataclass(frozen=True)
class _Links:
    """Links between words, as pairs (English word, Korean word)."""

    sure: set[tuple[int, int]]
    possible: set[tuple[int, int]]


def embedded_alignment(expression: Expression) -> str:
    """Return the correct alignment of an expression, English to Korean, in Pharaoh form with "p" in possible links.

    "March fifth, nineteen ninety-nine" → "천구백구십구년 삼월 오일" is "0-1 1-2 2-0 3-0".
    """
    links = _LINKS[expression.kind](expression)
    written = [(source, target, "-") for source, target in links.sure]
    written += [(source, target, "p") for source, target in links.possible - links.sure]
    return " ".join(f"{source}{kind}{target}" for source, target, kind in sorted(written))


def _number(english: list[str], first_english: int, korean: list[str], first_korean: int, value: int) -> _Links:
    """Align the words of one number.

    Args:
        english: its English words.
        first_english: position of the first of them in the text.
        korean: its Korean words, one per group of four digits that is not 0.
        first_korean: position of the first of them in the text.
        value: the number.
    """
    groups = [group for group in (2, 1, 0) if value // 10 ** (4 * group) % 10**4] or [0]
    assert len(groups) == len(korean), (english, korean)
    word_of_group = {group: first_korean + place for place, group in enumerate(groups)}
    all_english = range(first_english, first_english + len(english))
    all_korean = range(first_korean, first_korean + len(korean))
    links = _Links(set(), set(itertools.product(all_english, all_korean)))
    for place, places in enumerate(_places(english)):
        for power in places:
            if power // 4 in word_of_group:
                links.sure.add((first_english + place, word_of_group[power // 4]))
    return links


def _places(english: list[str]) -> Iterator[list[int]]:
    """Yield for each word of a number the powers of ten of its digits, without those that are 0."""
    scale_after = []  # for each word, the scale of its group of three digits
    scale = 0
    for word in reversed(english):
        scale = _SCALES.get(word, scale)
        scale_after.append(scale)
    for place, (word, scale) in enumerate(zip(english, reversed(scale_after), strict=True)):
        value = sum(_SMALL.get(part, 0) for part in word.split("-"))
        base = 3 * scale + (2 if english[place + 1 : place + 2] == ["hundred"] else 0)
        digits = reversed(str(value)) if value or word == "zero" else ()
        yield [base + power for power, digit in enumerate(digits) if digit != "0" or word == "zero"]


def _of_number(expression: Expression) -> _Links:
    return _number(expression.en.split(), 0, expression.ko.split(), 0, int(expression.value))


def _of_date(expression: Expression) -> _Links:
    # "March fifth, nineteen ninety-nine": the year is one Korean word, and all its English words belong to it.
    sure = {(0, 1), (1, 2)} | {(place, 0) for place in range(2, len(expression.en.split()))}
    return _Links(sure, sure)


def _of_time(expression: Expression) -> _Links:
    english, korean = expression.en.split(), expression.ko.split()
    sure = {(len(english) - 1, 0), (0, 1)}  # a.m. and the hour
    possible = {(0, 2)}  # 시, which English writes only in o'clock
    if "o'clock" in english:
        sure.add((1, 2))
    minute_ends = english.index("and") if "and" in english else len(english) - 1
    if "분" in korean:
        minute, unit = korean.index("분") - 1, korean.index("분")
        words = range(1, minute_ends)
        possible |= {(word, place) for word in words for place in (minute, unit)}
        sure.add((words[-1], minute))  # with "oh" before it, that is only possible
    if "초" in korean:
        second, unit = korean.index("초") - 1, korean.index("초")
        sure |= {(minute_ends + 1, second), (minute_ends + 2, unit)}
        possible |= {(minute_ends, second), (minute_ends, unit)}
    return _Links(sure, sure | possible)


def _of_money(expression: Expression) -> _Links:
    english, korean = expression.en.split(), expression.ko.split()
    currency, _, amount = expression.value.partition(" ")
    whole, _, cents = amount.partition(".")
    unit = next(place for place, word in enumerate(english) if word in ("won", "dollar", "dollars"))
    korean_unit = korean.index("원" if currency == "KRW" else "달러")
    links = _number(english[:unit], 0, korean[:korean_unit], 0, int(whole))
    links.sure.add((unit, korean_unit))
    if int(cents or 0):
        after, korean_after = unit + 2, korean_unit + 1  # without "and"
        number = _number(english[after:-1], after, korean[korean_after:-1], korean_after, int(cents))
        links.sure.update(number.sure, {(len(english) - 1, len(korean) - 1)})
        links.possible.update(number.possible)
        links.possible.update((unit + 1, place) for place in range(len(korean)))  # and
    return _Links(links.sure, links.possible | links.sure)


_LINKS = {"number": _of_number, "date": _of_date, "time": _of_time, "money": _of_money}

__all__ = ["embedded_alignment"]
