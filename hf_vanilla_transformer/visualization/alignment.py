# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Measure how often a cross-attention head attends to the digit being translated, on the embedded corpus.

In the embedded corpus, the English digit word (one … nine) of a Korean digit (일 … 구) is known by rule, so that a
head can be evaluated on thousands of digits. A Korean digit that belongs to another word (thirteen, forty, third, or
the hour of a clock time, which is a native Korean number) is left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..alignment.cross_attention import eager_attention
from ..data.embedded_corpus import Expression
from ..model.tokenizers_vanilla_transformer import Span, TranslationTokenizers

_ENGLISH_DIGITS = "one two three four five six seven eight nine".split()
_ENGLISH_DIGIT = re.compile(rf"\b(?:{'|'.join(_ENGLISH_DIGITS)})\b")
_KOREAN_DIGITS = "일이삼사오육칠팔구"
_KOREAN_DIGIT = re.compile(f"[{_KOREAN_DIGITS}]")
_MINUTE_AND_SECOND = re.compile(
    r"^\w+ (?:o'clock|(?:oh )?(?P<minute>[\w-]+))(?: and (?P<second>[\w-]+) seconds?)? [ap]\.m\.$"
)


# --------------------------------------------------------------------------- pairs of digits


@dataclass(frozen=True)
class DigitPair:
    """An English digit word and its Korean translation, each as a character span in its text."""

    english: Span
    korean: Span


def digit_pairs(expression: Expression) -> list[DigitPair]:
    """Find the Korean digits 일 … 구 that translate one of the words one … nine.

    "two hundred and thirteen" → "이백십삼" has one pair, two and 이: 삼 is part of thirteen.
    """
    pairs = []
    for digits, english, korean in _numbers(expression):
        # Both languages write digits in order of their places, so a digit is identified by its place in the number.
        in_english = dict(zip(_english_places(digits), _spans(_ENGLISH_DIGIT, expression.en, english), strict=True))
        in_korean = dict(zip(_korean_places(digits), _spans(_KOREAN_DIGIT, expression.ko, korean), strict=True))
        pairs += [DigitPair(in_english[place], in_korean[place]) for place in in_english if place in in_korean]
    return pairs


def _numbers(expression: Expression) -> Iterator[tuple["_Digits", Span, Span]]:
    """Yield the numbers that are cardinals in both languages, with their spans in the English and the Korean text."""
    en, ko, value = expression.en, expression.ko, expression.value
    if expression.kind == "number":
        yield _Digits(int(value)), (0, len(en)), (0, len(ko))
    elif expression.kind == "date":  # without the day, which is an ordinal in English
        yield _Digits(int(value[:4]), is_year=True), (en.index(","), len(en)), (0, ko.index("년"))
    elif expression.kind == "time":
        found, after_hour = _MINUTE_AND_SECOND.match(en), ko.index(" 시") + 2
        assert found is not None, en
        minute_ends = ko.find(" 분", after_hour)
        for name, amount in (("minute", int(value[3:5])), ("second", int(value[6:8]))):
            if amount:
                start, end = (after_hour, minute_ends) if name == "minute" else (max(after_hour, minute_ends), len(ko))
                yield _Digits(amount), found.span(name), (start, end)
    elif expression.kind == "money":
        currency, _, amount_text = value.partition(" ")
        whole, _, cents = amount_text.partition(".")
        unit = " won" if currency == "KRW" else " dollar"
        korean_unit = " 원" if currency == "KRW" else " 달러"
        yield _Digits(int(whole)), (0, en.index(unit)), (0, ko.index(korean_unit))
        if int(cents or 0):
            yield _Digits(int(cents)), (en.index(unit) + len(unit), len(en)), (ko.index(korean_unit), len(ko))


@dataclass(frozen=True)
class _Digits:
    """The digits of a number by place; the place of a digit is its power of ten."""

    number: int
    is_year: bool = False

    def at(self, place: int) -> int:
        return self.number // 10**place % 10

    def places(self) -> range:
        return range(len(str(self.number)) - 1, -1, -1)


def _english_places(digits: _Digits) -> list[int]:
    """Return the places whose digits English writes as one … nine: units and hundreds of each group of three."""
    in_pairs = digits.is_year and digits.number // 10 != 200  # "nineteen ninety-nine", but "two thousand and five"
    places = []
    for place in digits.places():
        is_unit = place % 2 == 0 if in_pairs else place % 3 == 0
        is_teen = is_unit and digits.at(place + 1) == 1
        is_written = (is_unit and not is_teen) or (not in_pairs and place % 3 == 2)
        if digits.at(place) and is_written:
            places.append(place)
    return places


def _korean_places(digits: _Digits) -> list[int]:
    """Return the places whose digits Korean writes: all but 0, and but 1 before 십, 백, 천 and a leading 만."""
    leading_man = digits.number // 10**4 == 1
    places = []
    for place in digits.places():
        unwritten = digits.at(place) == 1 and (place % 4 or (place == 4 and leading_man))
        if digits.at(place) and not unwritten:
            places.append(place)
    return places


def _spans(pattern: re.Pattern[str], text: str, within: Span) -> list[Span]:
    return [found.span() for found in pattern.finditer(text, *within)]


# --------------------------------------------------------------------------- accuracy of heads


@dataclass(frozen=True)
class DigitAlignment:
    """How often the largest weight of each head is on the matching word.

    Every digit counts, including one inside a longer token such as 십육년 (sixteen, year). A head has one largest
    weight per token, which can't be on all words that the token translates, so long tokens lower the accuracy.

    Attributes:
        accuracy: (L, H) share of the digits, 0 to 1.
        digits: number of digits.
        chance: expected accuracy of a head that picks a source token at random.
    """

    accuracy: NDArray[np.float64]
    digits: int
    chance: float

    def best(self) -> tuple[int, int]:
        """Return the layer and the head with the largest accuracy, counted from 0."""
        layer, head = np.unravel_index(self.accuracy.argmax(), self.accuracy.shape)
        return int(layer), int(head)


def digit_alignment(
    model: Any, tokenizer: Any, expressions: Sequence[Expression], *, batch_size: int = 50
) -> DigitAlignment:
    """Measure the accuracy of every head of the encoder-decoder attention on the digit words of the embedded corpus.

    The decoder's input is the reference. A digit counts as correct if, in the row that predicts the token with the
    Korean digit, the largest weight is on a token with characters of the matching English word.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, English to Korean.
        tokenizer: of the model; two tokenizers as one `TranslationTokenizers`. They must be fast tokenizers, which
            return the offsets of tokens.
        expressions: of the embedded corpus.
        batch_size: expressions per batch.

    Raises:
        ValueError: If the expressions have no such digit, or the tokenizer is not a fast tokenizer.
    """
    tokenizers = TranslationTokenizers.of(model, tokenizer)
    pairs_of_rows = [(row, pairs) for row in expressions if (pairs := digit_pairs(row))]
    pairs_of_rows.sort(key=lambda item: len(item[0].en))  # similar lengths together: less padding
    hits: list[torch.Tensor] = []  # (L, H) of each digit
    chances: list[float] = []
    with eager_attention(model), torch.no_grad():
        for start in range(0, len(pairs_of_rows), batch_size):
            batch = pairs_of_rows[start : start + batch_size]
            cross, sources, targets = _cross_attention(model, tokenizers, [row for row, _ in batch])
            for index, (_, pairs) in enumerate(batch):
                for pair in pairs:
                    row = _tokens_over(pair.korean, targets[index])[0]
                    wanted = _tokens_over(pair.english, sources[index])
                    largest = cross[:, index, :, row].argmax(dim=-1)  # (L, H)
                    hits.append(torch.isin(largest, torch.tensor(wanted)))
                    chances.append(len(wanted) / len(sources[index]))
    if not hits:
        raise ValueError("no Korean digit 일 … 구 translates a word one … nine in these expressions; give more")
    return DigitAlignment(
        accuracy=torch.stack(hits).double().mean(dim=0).numpy(), digits=len(hits), chance=sum(chances) / len(chances)
    )


def _cross_attention(
    model: Any, tokenizers: TranslationTokenizers, rows: list[Expression]
) -> tuple[torch.Tensor, list[list[Span]], list[list[Span]]]:
    """Return the weights (L, B, H, T, S), and the spans of the tokens of each source and of each target."""
    source_ids, source_spans = tokenizers.encode_with_offsets("source", [row.en for row in rows])
    target_ids, target_spans = tokenizers.encode_with_offsets("target", [row.ko for row in rows])

    def padded(ids: list[list[int]], value: int) -> torch.Tensor:
        rows = [torch.tensor(row) for row in ids]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value).to(model.device)

    output = model(
        input_ids=padded(source_ids, tokenizers.pad_token_id or 0),
        attention_mask=padded([[1] * len(ids) for ids in source_ids], 0),
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(padded(target_ids, -100)),
        output_attentions=True,
        use_cache=False,
    )
    weights = torch.stack([layer.float().cpu() for layer in output.cross_attentions])
    return weights, source_spans, target_spans


def _tokens_over(span: Span, tokens: list[Span]) -> list[int]:
    """Return the indices of the tokens that overlap a span."""
    return [index for index, (start, end) in enumerate(tokens) if start < span[1] and end > span[0]]
