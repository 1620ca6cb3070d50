# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Does a head of the encoder-decoder attention look at the word that is being translated? Measured, not looked at.

In the embedded corpus it is known by rule which English digit word (one … nine) a Korean digit (일 … 구) comes from, so
a head can be judged on thousands of them. A Korean digit that comes from another word (thirteen, forty, third, or the
hour of a clock time, which is counted in native Korean) is left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.embedded_corpus import Expression
from ..model.tokenizers_vanilla_transformer import Span, TranslationTokenizers
from .maps import weights_kept

_ENGLISH_DIGITS = "one two three four five six seven eight nine".split()
_ENGLISH_DIGIT = re.compile(rf"\b(?:{'|'.join(_ENGLISH_DIGITS)})\b")
_KOREAN_DIGITS = "일이삼사오육칠팔구"
_KOREAN_DIGIT = re.compile(f"[{_KOREAN_DIGITS}]")
_MINUTE_AND_SECOND = re.compile(
    r"^\w+ (?:o'clock|(?:oh )?(?P<minute>[\w-]+))(?: and (?P<second>[\w-]+) seconds?)? [ap]\.m\.$"
)


# --------------------------------------------------------------------------- which digit comes from which word


@dataclass(frozen=True)
class DigitPair:
    """A digit in both languages, as characters of the English and of the Korean text."""

    english: Span
    korean: Span


def digit_pairs(expression: Expression) -> list[DigitPair]:
    """Find the Korean digits 일 … 구 that come from one of the words one … nine, with that word.

    "two hundred and thirteen" → "이백십삼" has one pair, two and 이: 삼 comes from thirteen.
    """
    pairs = []
    for digits, english, korean in _numbers(expression):
        # Both languages write large places first, so a digit is known by its place in the number.
        in_english = dict(zip(_english_places(digits), _spans(_ENGLISH_DIGIT, expression.en, english), strict=True))
        in_korean = dict(zip(_korean_places(digits), _spans(_KOREAN_DIGIT, expression.ko, korean), strict=True))
        pairs += [DigitPair(in_english[place], in_korean[place]) for place in in_english if place in in_korean]
    return pairs


def _numbers(expression: Expression) -> Iterator[tuple["_Digits", Span, Span]]:
    """Yield the numbers of an expression that are read as cardinals on both sides, with where they stand."""
    en, ko, value = expression.en, expression.ko, expression.value
    if expression.kind == "number":
        yield _Digits(int(value)), (0, len(en)), (0, len(ko))
    elif expression.kind == "date":  # of a day English has the ordinal
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
    """A number by its digits; the place of a digit is its power of ten."""

    number: int
    is_year: bool = False

    def at(self, place: int) -> int:
        return self.number // 10**place % 10

    def places(self) -> range:
        return range(len(str(self.number)) - 1, -1, -1)


def _english_places(digits: _Digits) -> list[int]:
    """List the places whose digit English writes as one … nine: units and hundreds of every group of three."""
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
    """List the places whose digit Korean writes: all but zeros, and but a 1 before 십, 백, 천 and a leading 만."""
    leading_man = digits.number // 10**4 == 1
    places = []
    for place in digits.places():
        unwritten = digits.at(place) == 1 and (place % 4 or (place == 4 and leading_man))
        if digits.at(place) and not unwritten:
            places.append(place)
    return places


def _spans(pattern: re.Pattern[str], text: str, within: Span) -> list[Span]:
    return [found.span() for found in pattern.finditer(text, *within)]


# --------------------------------------------------------------------------- how often a head looks there


@dataclass(frozen=True)
class DigitAlignment:
    """How often each head's largest weight is on the matching word.

    Every digit counts, also one inside a token such as 십육년 (sixteen, year): the token is written by one look at the
    source, which can't be on all the words that it comes from, so a vocabulary of long tokens lowers the share.

    Attributes:
        accuracy: (L, H) share of the digits, 0 to 1.
        digits: how many were judged.
        chance: the same share for a head that picks a source token at random.
    """

    accuracy: NDArray[np.float64]
    digits: int
    chance: float

    def best(self) -> tuple[int, int]:
        """Name the layer and the head with the largest share, counted from 0."""
        layer, head = np.unravel_index(self.accuracy.argmax(), self.accuracy.shape)
        return int(layer), int(head)


def digit_alignment(
    model: Any, tokenizer: Any, expressions: Sequence[Expression], *, batch_size: int = 50
) -> DigitAlignment:
    """Judge every head of the encoder-decoder attention on the digit words of the embedded corpus.

    The decoder reads the reference; the row that writes the token with a Korean digit is looked at. It counts if the
    row's largest weight is on a token with characters of the matching English word.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, English to Korean.
        tokenizer: the model's own, or both of them as one `TranslationTokenizers`; fast ones, since they have to say
            where in the text a token stands.
        expressions: of the embedded corpus.
        batch_size: expressions a batch.

    Raises:
        ValueError: If the expressions have no such digit, or the tokenizer is not a fast one.
    """
    tokenizers = TranslationTokenizers.of(model, tokenizer)
    judged = [(row, pairs) for row in expressions if (pairs := digit_pairs(row))]
    judged.sort(key=lambda item: len(item[0].en))  # like lengths together: less padding
    hits: list[torch.Tensor] = []  # (L, H) of each digit
    chances: list[float] = []
    with weights_kept(model), torch.no_grad():
        for start in range(0, len(judged), batch_size):
            batch = judged[start : start + batch_size]
            cross, sources, targets = _cross_attention(model, tokenizers, [row for row, _ in batch])
            for index, (_, pairs) in enumerate(batch):
                for pair in pairs:
                    row = _tokens_over(pair.korean, targets[index])[0]
                    wanted = _tokens_over(pair.english, sources[index])
                    looked_at = cross[:, index, :, row].argmax(dim=-1)  # (L, H)
                    hits.append(torch.isin(looked_at, torch.tensor(wanted)))
                    chances.append(len(wanted) / len(sources[index]))
    if not hits:
        raise ValueError("no Korean digit 일 … 구 comes from a word one … nine here; give more expressions")
    return DigitAlignment(
        accuracy=torch.stack(hits).double().mean(dim=0).numpy(), digits=len(hits), chance=sum(chances) / len(chances)
    )


def _cross_attention(
    model: Any, tokenizers: TranslationTokenizers, rows: list[Expression]
) -> tuple[torch.Tensor, list[list[Span]], list[list[Span]]]:
    """Return the weights (L, B, H, T, S), and where each token of the sources and of the targets stands."""
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
    """List the tokens that have characters of a span."""
    return [index for index, (start, end) in enumerate(tokens) if start < span[1] and end > span[0]]
