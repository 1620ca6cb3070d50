"""Pharaoh form and the alignment error rate, against numbers worked out by hand."""

import pytest

from hf_vanilla_transformer import alignment_error_rate
from hf_vanilla_transformer.alignment.pharaoh import GoldAlignment, format_alignment, parse_alignment


def test_an_alignment_is_written_sorted_and_read_back() -> None:
    links = [(2, 0), (0, 10), (0, 2)]
    assert format_alignment(links) == "0-2 0-10 2-0"
    assert parse_alignment(" 2-0  0-10 0-2\n") == [(0, 2), (0, 10), (2, 0)]
    assert format_alignment([]) == "" and parse_alignment("") == []


def test_possible_links_of_a_gold_alignment_include_the_sure_ones() -> None:
    gold = GoldAlignment.parse("0-0 1p2 3-1")
    assert gold.sure == {(0, 0), (3, 1)}
    assert gold.possible == {(0, 0), (3, 1), (1, 2)}


def test_alignment_error_rate_equals_a_hand_computation() -> None:
    # A = {0-0, 1-1, 2-2}, S = {0-0, 2-1}, P = S ∪ {1-1}: |A∩S| = 1, |A∩P| = 2, so 1 − 3 / (3 + 2).
    assert alignment_error_rate(["0-0 1-1 2-2"], ["0-0 1p1 2-1"]) == pytest.approx(1 - 3 / 5)
    # A second pair, counted together with the first: A = S = {0-0}. 1 − (3 + 2) / (5 + 2).
    assert alignment_error_rate(["0-0 1-1 2-2", [(0, 0)]], ["0-0 1p1 2-1", "0-0"]) == pytest.approx(1 - 5 / 7)


def test_alignment_error_rate_is_0_for_the_sure_links_with_any_possible_ones_and_1_for_none() -> None:
    assert alignment_error_rate(["0-0 1-1"], ["0-0 1p1"]) == 0.0
    assert alignment_error_rate(["0-0"], ["0-0 1p1"]) == 0.0
    assert alignment_error_rate([""], ["0-0 1p1"]) == 1.0


def test_a_pair_without_gold_links_is_not_counted() -> None:
    assert alignment_error_rate(["0-0", "5-5"], ["0-0", ""]) == 0.0


@pytest.mark.parametrize(
    ("alignments", "gold", "message"),
    [
        (["0-0"], ["0-0", "1-1"], "1 alignments but 2 gold alignments"),
        (["0 0"], ["0-0"], "'0' is not a link"),
        (["0-0"], ["0:0"], "'0:0' is not a link; write the words' positions from 0"),
        (["0-0"], [""], "no gold alignment has a link"),
    ],
)
def test_bad_alignments_are_explained(alignments: list[str], gold: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alignment_error_rate(alignments, gold)
