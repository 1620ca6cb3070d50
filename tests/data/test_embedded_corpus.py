"""The embedded corpus, against cases checked by hand."""

import datetime

import pytest

from hf_vanilla_transformer import embedded_corpus
from hf_vanilla_transformer.data.embedded_corpus import (
    KINDS,
    date_to_english,
    date_to_korean,
    dollars_to_english,
    dollars_to_korean,
    draw_expressions,
    number_to_english,
    number_to_korean,
    ordinal_to_english,
    time_to_english,
    time_to_korean,
    won_to_english,
    won_to_korean,
    year_to_english,
)


@pytest.mark.parametrize(
    ("number", "english", "korean"),
    [
        (7, "seven", "칠"),
        (10, "ten", "십"),  # not 일십
        (12, "twelve", "십이"),
        (21, "twenty-one", "이십일"),
        (100, "one hundred", "백"),  # not 일백
        (115, "one hundred and fifteen", "백십오"),
        (1000, "one thousand", "천"),  # not 일천
        (1001, "one thousand and one", "천일"),
        (10_000, "ten thousand", "만"),  # not 일만 at the head
        (11_000, "eleven thousand", "만 천"),
        (12_345, "twelve thousand three hundred and forty-five", "만 이천삼백사십오"),
        (20_000, "twenty thousand", "이만"),
        (110_000, "one hundred and ten thousand", "십일만"),  # 일 stays inside a group
        (207_000, "two hundred and seven thousand", "이십만 칠천"),
        (3_200_005, "three million two hundred thousand and five", "삼백이십만 오"),  # the design's example
        (10_000_000, "ten million", "천만"),
        (100_000_000, "one hundred million", "일억"),  # 일 stays before 억
        (100_010_000, "one hundred million ten thousand", "일억 일만"),
        (100_000_000_000, "one hundred billion", "천억"),
        (
            999_999_999_999,
            "nine hundred and ninety-nine billion nine hundred and ninety-nine million nine hundred and ninety-nine "
            "thousand nine hundred and ninety-nine",
            "구천구백구십구억 구천구백구십구만 구천구백구십구",
        ),
    ],
)
def test_numbers(number, english, korean):
    assert number_to_english(number) == english
    assert number_to_korean(number) == korean


@pytest.mark.parametrize(
    ("number", "ordinal"),
    [(1, "first"), (2, "second"), (3, "third"), (5, "fifth"), (8, "eighth"), (9, "ninth"), (12, "twelfth")]
    + [(13, "thirteenth"), (20, "twentieth"), (21, "twenty-first"), (30, "thirtieth"), (31, "thirty-first")],
)
def test_ordinals(number, ordinal):
    assert ordinal_to_english(number) == ordinal


@pytest.mark.parametrize(
    ("year", "words"),
    [
        (1999, "nineteen ninety-nine"),
        (1905, "nineteen oh five"),
        (1900, "nineteen hundred"),
        (2000, "two thousand"),
        (2005, "two thousand and five"),
        (2010, "twenty ten"),
        (2026, "twenty twenty-six"),
    ],
)
def test_years(year, words):
    assert year_to_english(year) == words


@pytest.mark.parametrize(
    ("date", "english", "korean"),
    [
        # The year comes first in Korean; June and October lose their final consonant.
        ("1999-03-05", "March fifth, nineteen ninety-nine", "천구백구십구년 삼월 오일"),
        ("2005-06-10", "June tenth, two thousand and five", "이천오년 유월 십일"),
        ("1910-10-31", "October thirty-first, nineteen ten", "천구백십년 시월 삼십일일"),
        ("2000-12-25", "December twenty-fifth, two thousand", "이천년 십이월 이십오일"),
    ],
)
def test_dates(date, english, korean):
    assert date_to_english(datetime.date.fromisoformat(date)) == english
    assert date_to_korean(datetime.date.fromisoformat(date)) == korean


@pytest.mark.parametrize(
    ("time", "english", "korean"),
    [
        # Hours in native Korean, minutes and seconds in Sino-Korean; midnight and noon are twelve o'clock.
        ("00:00:00", "twelve o'clock a.m.", "오전 열두 시"),
        ("12:00:00", "twelve o'clock p.m.", "오후 열두 시"),
        ("01:20:00", "one twenty a.m.", "오전 한 시 이십 분"),
        ("15:05:00", "three oh five p.m.", "오후 세 시 오 분"),
        ("23:59:01", "eleven fifty-nine and one second p.m.", "오후 열한 시 오십구 분 일 초"),
        ("08:00:30", "eight o'clock and thirty seconds a.m.", "오전 여덟 시 삼십 초"),
    ],
)
def test_times(time, english, korean):
    assert time_to_english(datetime.time.fromisoformat(time)) == english
    assert time_to_korean(datetime.time.fromisoformat(time)) == korean


def test_money():
    assert (won_to_english(15_000), won_to_korean(15_000)) == ("fifteen thousand won", "만 오천 원")
    assert (dollars_to_english(1), dollars_to_korean(1)) == ("one dollar", "일 달러")
    assert (dollars_to_english(1, 5), dollars_to_korean(1, 5)) == ("one dollar and five cents", "일 달러 오 센트")
    assert (dollars_to_english(20, 1), dollars_to_korean(20, 1)) == ("twenty dollars and one cent", "이십 달러 일 센트")


def test_numbers_outside_the_range_are_refused():
    for number in (-1, 10**12):
        with pytest.raises(ValueError, match="choose 0 to 999,999,999,999"):
            number_to_korean(number)


def test_splits_are_disjoint_by_value_whatever_the_seed():
    values = {
        split: {(row.kind, row.value) for seed in (0, 1) for row in draw_expressions(split, 4000, seed)}
        for split in ("train", "validation", "test")
    }
    assert not values["train"] & values["test"]
    assert not values["train"] & values["validation"]
    assert not values["validation"] & values["test"]


def test_one_source_has_one_translation_and_no_value_two_sources():
    rows = draw_expressions("train", 20_000)
    by_source, by_value = {}, {}
    for row in rows:
        assert by_source.setdefault(row.en, row.ko) == row.ko
        assert by_value.setdefault((row.kind, row.value), row.en) == row.en


def test_held_out_values_are_distinct_and_in_equal_quarters():
    rows = draw_expressions("test", 1000)
    assert len({(row.kind, row.value) for row in rows}) == 1000
    assert {kind: sum(row.kind == kind for row in rows) for kind in KINDS} == dict.fromkeys(KINDS, 250)


def test_numbers_have_every_length_equally_often():
    lengths = [len(row.value) for row in draw_expressions("train", 12_000, kinds=("number",))]
    for digits in range(1, 13):
        # 1,000 expected; held-out values thin the shortest lengths.
        assert 700 <= lengths.count(digits) <= 1300, digits


@pytest.mark.parametrize("split", ["train", "test"])
def test_round_numbers_are_common(split):
    """By chance one long number in thousands has at most three digits other than 0, but people say such ones daily."""
    values = [row.value for row in draw_expressions(split, 3000, kinds=("number",))]
    long = [value for value in values if len(value) >= 8]
    round_ones = [value for value in long if len(value.replace("0", "")) <= 3]
    assert 0.25 <= len(round_ones) / len(long) <= 0.35
    # Zeros end some of them, and stand inside of others: 300,000 and 300,050.
    assert 0.2 <= sum(value.endswith("0000") for value in round_ones) / len(round_ones) <= 0.8


def test_data_set_looks_like_the_hubs_translation_sets():
    data = embedded_corpus("validation", 10, seed=3)
    assert data.features["translation"].languages == ["en", "ko"]
    assert set(data[0]["translation"]) == {"en", "ko"}
    assert data["kind"] and set(data["kind"]) <= set(KINDS)
    assert embedded_corpus("validation", 10, seed=3)[:] == data[:]
    assert embedded_corpus("validation", 10, seed=4)[:] != data[:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dev", 10), "no split 'dev'"),
        (("train", 0), "size=0"),
        (("train", 10, 0, ("poem",)), "must name some of number, date, time, money"),
        (("test", 60_000, 0, ("time",)), "the test split has only about"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_expressions(*arguments)
