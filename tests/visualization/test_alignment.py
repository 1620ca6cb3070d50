"""Which Korean digit comes from which English word, by rule, and how often a head looks there."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from hf_vanilla_transformer.data.embedded_corpus import (
    Expression,
    draw_expressions,
    number_to_english,
    number_to_korean,
)
from hf_vanilla_transformer.visualization import alignment
from hf_vanilla_transformer.visualization.alignment import digit_alignment, digit_pairs

VALUE_OF = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}


def words_of(expression: Expression) -> list[tuple[str, str]]:
    return [
        (expression.en[slice(*pair.english)], expression.ko[slice(*pair.korean)]) for pair in digit_pairs(expression)
    ]


@pytest.mark.parametrize(
    ("kind", "value", "en", "ko", "expected"),
    [
        # three and 삼, five and 오; 이 comes from two
        ("number", "3200005", "three million two hundred thousand and five", "삼백이십만 오",
         [("three", "삼"), ("two", "이"), ("five", "오")]),
        # thirteen is no digit word, and 천 has no 일
        ("number", "1013", "one thousand and thirteen", "천십삼", []),
        # the first 일 is written before 억, the second one (of a hundred) is not
        ("number", "100000100", "one hundred million one hundred", "일억 백", [("one", "일")]),
        # third and May are no digit words; 구 comes from the nine of ninety-nine, the 구 before it from ninety
        ("date", "1999-05-03", "May third, nineteen ninety-nine", "천구백구십구년 오월 삼일", [("nine", "구")]),
        ("date", "2005-01-02", "January second, two thousand and five", "이천오년 일월 이일",
         [("two", "이"), ("five", "오")]),
        # the hour is 한, a native word, and no 일
        ("time", "01:31:05", "one thirty-one and five seconds a.m.", "오전 한 시 삼십일 분 오 초",
         [("one", "일"), ("five", "오")]),
        ("time", "14:00:00", "two o'clock p.m.", "오후 두 시", []),
        ("time", "14:00:02", "two o'clock and two seconds p.m.", "오후 두 시 이 초", [("two", "이")]),
        ("money", "USD 1.07", "one dollar and seven cents", "일 달러 칠 센트", [("one", "일"), ("seven", "칠")]),
        ("money", "KRW 15000", "fifteen thousand won", "만 오천 원", []),
    ],
)  # fmt: skip
def test_digits_are_paired_by_their_place(kind: str, value: str, en: str, ko: str, expected: list) -> None:
    assert words_of(Expression(kind, value, en, ko)) == expected


def test_paired_digits_mean_the_same_in_thousands_of_expressions() -> None:
    pairs = [pair for row in draw_expressions("train", 2000) for pair in words_of(row)]
    assert len(pairs) > 3000
    assert all("일이삼사오육칠팔구"[VALUE_OF[english] - 1] == korean for english, korean in pairs)


@pytest.mark.parametrize("number", [0, 1, 10, 11, 10_000, 110_000, 10**8, 111_111_111_111, 999_999_999_999])
def test_edges_of_numbers_are_paired(number: int) -> None:
    row = Expression("number", str(number), number_to_english(number), number_to_korean(number))
    assert all("일이삼사오육칠팔구"[VALUE_OF[english] - 1] == korean for english, korean in words_of(row))


@pytest.fixture
def looking_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the weights by a head that looks at "three" (token 0) always, and one that looks at the last token."""
    original = alignment._cross_attention

    def made_up(model: Any, tokenizer: Any, rows: list[Expression]) -> Any:
        weights, sources, targets = original(model, tokenizer, rows)
        weights = torch.zeros_like(weights)
        weights[0, :, 0, :, 0] = 1.0
        for index, source in enumerate(sources):
            weights[0, index, 1, :, len(source) - 1] = 1.0
        return weights, sources, targets

    monkeypatch.setattr(alignment, "_cross_attention", made_up)


def test_a_head_is_judged_by_its_largest_weight(model: Any, tokenizer: Any, looking_right: None) -> None:
    rows = [Expression("number", "3", "three", "삼"), Expression("money", "KRW 5", "five won", "오 원")]
    found = digit_alignment(model, tokenizer, rows, batch_size=1)
    assert found.digits == 2 and found.best() == (0, 0)
    assert found.accuracy[0, 0] == 1.0 and found.accuracy[0, 1] == 0.0
    # Chance: the tokens of the word over the tokens of the sentence, with EOS.
    of_three, of_five = (len(tokenizer(text)["input_ids"]) for text in ("three", "five won"))
    wanted = len(tokenizer("three")["input_ids"]) - 1, len(tokenizer("five")["input_ids"]) - 1
    assert found.chance == pytest.approx((wanted[0] / of_three + wanted[1] / of_five) / 2)


def test_padding_changes_nothing(model: Any, tokenizer: Any) -> None:
    rows = draw_expressions("test", 12)
    together, alone = (digit_alignment(model, tokenizer, rows, batch_size=size) for size in (12, 1))
    np.testing.assert_array_equal(together.accuracy, alone.accuracy)
    assert together.digits == alone.digits > 0


def test_a_digit_counts_wherever_it_stands_in_its_token(model: Any, tokenizer: Any) -> None:
    row = Expression("number", "25", "twenty-five", "이십오")
    for tokens in (["이십", "오"], ["이십오"]):
        grown = copy.deepcopy(tokenizer)
        grown.add_tokens(tokens)
        assert digit_alignment_with(model, grown, [row]).digits == 1


def digit_alignment_with(model: Any, tokenizer: Any, rows: list[Expression]) -> Any:
    grown = copy.deepcopy(model)
    grown.resize_token_embeddings(len(tokenizer))
    return digit_alignment(grown, tokenizer, rows)


def test_nothing_to_measure_is_said(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="no Korean digit 일 … 구 translates a word one … nine"):
        digit_alignment(model, tokenizer, [Expression("time", "14:00:00", "two o'clock p.m.", "오후 두 시")])
