"""Held-out pairs: chosen by the text alone, and no text of them stays in the training pairs."""

import hashlib
import random
from pathlib import Path

import pytest

from hf_vanilla_transformer.data.corpora import load_pairs, load_text_files
from hf_vanilla_transformer.data.held_out import hold_out
from hf_vanilla_transformer.data.splits import HoldOut, TextFiles, load_splits

PAIRS = [(f"source {number}", f"target {number}") for number in range(200)]


def test_held_out_and_remaining_pairs_are_disjoint_and_complete():
    rest, held = hold_out(load_pairs(PAIRS, "text"), 30)
    sides = [set(zip(*part.sides(), strict=True)) for part in (rest, held)]
    assert [len(side) for side in sides] == [170, 30]
    assert sides[0] | sides[1] == set(PAIRS) and not sides[0] & sides[1]
    assert rest.report.name == "text without 30 held-out pairs" and held.report.name == "30 held-out pairs of text"
    assert str(rest.report) == "text without 30 held-out pairs: 170 pairs read, 170 kept"
    text = "".join(f"{source}\t{target}\n" for source, target in zip(*held.sides(), strict=True))
    assert held.report.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_the_choice_does_not_depend_on_the_order_of_the_lines():
    shuffled = random.Random(1).sample(PAIRS, len(PAIRS))
    chosen = [sorted(hold_out(load_pairs(pairs, "text"), 30)[1].sides()[0]) for pairs in (PAIRS, shuffled)]
    assert chosen[0] == chosen[1]


def test_a_line_added_to_the_text_hardly_changes_the_choice():
    before, after = (
        set(hold_out(load_pairs(pairs, "text"), 30)[1].sides()[0]) for pairs in (PAIRS, [*PAIRS, ("a", "b")])
    )
    assert len(before & after) >= 29


def test_no_source_and_no_target_of_a_held_out_pair_is_trained_on():
    pairs = [*PAIRS, *((f"Source  {number}", f"other {number}") for number in range(0, 200, 2))]  # case and spaces
    pairs += [(f"else {number}", f"target {number}") for number in range(1, 200, 2)]
    rest, held = hold_out(load_pairs(pairs, "text"), 30)
    trained = [{" ".join(text.lower().split()) for text in side} for side in rest.sides()]
    for kept, side in zip(trained, held.sides(), strict=True):
        assert not kept & {" ".join(text.lower().split()) for text in side}


def test_pairs_whose_texts_occur_once_are_preferred():
    pairs = [*PAIRS[:50], *([("yes", "ja")] * 20), *([("no", "nein")] * 20)]
    rest, held = hold_out(load_pairs(pairs, "text"), 40)
    assert not {"yes", "no"} & set(held.sides()[0])
    assert len(rest.sides()[0]) == 10 + 40


@pytest.mark.parametrize("pairs", [4, 100])
def test_holding_out_everything_is_an_error(pairs):
    with pytest.raises(ValueError, match=f"held_out_pairs={pairs} leaves no training pair of the 4 pairs"):
        hold_out(load_pairs(PAIRS[:4], "text"), pairs)


def test_a_stream_has_no_held_out_pairs(tmp_path: Path):
    for side in ("en", "ko"):
        (tmp_path / f"a.{side}").write_text(f"{side} 1\n{side} 2\n")
    with pytest.raises(ValueError, match="streaming is set"):
        hold_out(load_text_files(tmp_path / "a.en", tmp_path / "a.ko", streaming=True), 1)


def test_both_splits_come_from_one_text(tmp_path: Path):
    for number, side in enumerate(("en", "ko")):
        (tmp_path / f"a.{side}").write_text("".join(f"{pair[number]}\n" for pair in PAIRS))
    source = HoldOut(TextFiles([str(tmp_path / "a.en")], [str(tmp_path / "a.ko")]), 20)
    splits = load_splits({"train": source, "validation": source}, source_lang="en", target_lang="ko")
    alone = load_splits({"validation": source}, source_lang="en", target_lang="ko")
    assert [len(splits[split].dataset) for split in ("train", "validation")] == [180, 20]
    assert alone["validation"].report.sha256 == splits["validation"].report.sha256
