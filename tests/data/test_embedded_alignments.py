"""Word alignments of the embedded corpus, against pairs written by hand."""

import datetime

import pytest

from hf_vanilla_transformer.alignment.pharaoh import GoldAlignment
from hf_vanilla_transformer.data.embedded_alignments import embedded_alignment
from hf_vanilla_transformer.data.embedded_corpus import (
    Expression,
    date_to_english,
    date_to_korean,
    dollars_to_english,
    dollars_to_korean,
    draw_expressions,
    embedded_corpus,
    number_to_english,
    number_to_korean,
    time_to_english,
    time_to_korean,
)


def sure_words(expression: Expression) -> set[tuple[str, str]]:
    gold = GoldAlignment.parse(embedded_alignment(expression))
    english, korean = expression.en.split(), expression.ko.split()
    return {(english[source], korean[target]) for source, target in gold.sure}


def number(value: int) -> Expression:
    return Expression("number", str(value), number_to_english(value), number_to_korean(value))


@pytest.mark.parametrize(
    ("value", "sure"),
    [
        (7, {("seven", "칠")}),
        (0, {("zero", "영")}),
        # 3,200,005: 320만 오; "hundred", "thousand" and "and" are only possible
        (3_200_005, {("three", "삼백이십만"), ("two", "삼백이십만"), ("five", "오")}),
        # 41,125: 4만 천백이십오: forty-one has digits of both groups
        (
            41_125,
            {("forty-one", "사만"), ("forty-one", "천백이십오"), ("one", "천백이십오"), ("twenty-five", "천백이십오")},
        ),
        (100_000_000, {("one", "일억")}),
    ],
)
def test_digits_of_numbers_belong_to_the_group_of_four_that_has_them(value: int, sure: set[tuple[str, str]]) -> None:
    assert sure_words(number(value)) == sure


def test_dates_times_and_amounts_are_aligned_word_by_word() -> None:
    date = datetime.date(1999, 3, 5)
    row = Expression("date", date.isoformat(), date_to_english(date), date_to_korean(date))
    assert embedded_alignment(row) == "0-1 1-2 2-0 3-0"
    time = datetime.time(15, 5, 10)
    row = Expression("time", time.isoformat(), time_to_english(time), time_to_korean(time))
    assert row.en == "three oh five and ten seconds p.m." and row.ko == "오후 세 시 오 분 십 초"
    assert sure_words(row) == {("three", "세"), ("five", "오"), ("ten", "십"), ("seconds", "초"), ("p.m.", "오후")}
    row = Expression("money", "USD 21.05", dollars_to_english(21, 5), dollars_to_korean(21, 5))
    assert sure_words(row) == {("twenty-one", "이십일"), ("dollars", "달러"), ("five", "오"), ("cents", "센트")}


def test_the_corpus_has_a_column_of_alignments_on_request() -> None:
    rows = embedded_corpus("test", 20, alignments=True)
    assert rows["alignment"] == [embedded_alignment(row) for row in draw_expressions("test", 20)]
    assert "alignment" not in embedded_corpus("test", 20).column_names


def test_every_expression_has_an_alignment_with_words_that_exist_and_covers_all_korean_words() -> None:
    for row in draw_expressions("validation", 400):
        gold = GoldAlignment.parse(embedded_alignment(row))
        english, korean = len(row.en.split()), len(row.ko.split())
        assert gold.sure and all(source < english and target < korean for source, target in gold.possible), row
        assert {target for _, target in gold.possible} == set(range(korean)), row
