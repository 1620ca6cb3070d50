# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Text that trains or scores a model wrongly gives a warning with numbers; sound text gives none."""

from pathlib import Path

import numpy as np
import pytest

from hf_vanilla_transformer.data.corpora import ParallelCorpus, load_embedded, load_pairs, load_text_files
from hf_vanilla_transformer.data.corpus_warnings import corpus_warnings, known_pairs, shifted_lines
from hf_vanilla_transformer.data.scripts import main_script, unexpected_script

ROWS = load_embedded("train", 2500, seed=1).dataset["translation"]
SOURCES, TARGETS = [row["en"] for row in ROWS], [row["ko"] for row in ROWS]


def corpus(sources: list[str], targets: list[str]) -> ParallelCorpus:
    pairs = list(zip(sources, targets, strict=True))
    return load_pairs(pairs, "list", source_lang="en", target_lang="ko", keep_all=True)


def only_warning(**corpora: ParallelCorpus) -> str:
    (warning,) = corpus_warnings(corpora)
    return warning


def test_sound_text_gives_no_warning() -> None:
    splits = {
        split: load_embedded(split, size) for split, size in (("train", 20_000), ("validation", 300), ("test", 9))
    }
    assert corpus_warnings(splits) == []
    assert corpus_warnings({"train": corpus(["a"], ["나"]), "test": corpus([""], [""])}) == []


def test_untranslated_lines_are_counted_from_a_twentieth_on() -> None:
    same = [f"only english here {number}" for number in range(50)]
    unique = [f"{text} {number}" for number, text in enumerate(SOURCES[:950])]
    found = only_warning(test=corpus([*unique, *same], [*TARGETS[:950], *same]))
    assert found.startswith(
        "test: 50 of 1,000 pairs (5.0%) have the same text as source and target, e.g. pair 951 ('only"
    )
    assert corpus_warnings({"test": corpus([*unique, *same[:49]], [*TARGETS[:950], *same[:49]])}) == []


def test_repeated_pairs_of_the_training_text_are_counted() -> None:
    pairs = [f"{text} {number}" for number, text in enumerate(SOURCES[:700])]
    twice = corpus([*pairs, *pairs[:300]], [*TARGETS[:700], *TARGETS[:300]])
    assert only_warning(train=twice).startswith(
        "train: 300 of 1,000 pairs (30.0%) repeat an earlier pair, e.g. pair 701 ("
    )
    assert corpus_warnings({"test": twice}) == []


@pytest.mark.parametrize(("missing", "offset"), [(0, "-1"), (1500, "-1")])
def test_a_missing_line_is_located(missing: int, offset: str) -> None:
    targets = TARGETS[:missing] + TARGETS[missing + 1 :]
    block = missing // 1000 * 1000 + (1000 if missing % 1000 > 100 else 0)
    found = only_warning(train=corpus(SOURCES[:-1], targets))
    assert f"not aligned from about pair {block + 1:,} on" in found and f"belongs to target n{offset} there" in found


def test_lines_in_another_order_are_reported() -> None:
    found = only_warning(train=corpus(SOURCES, list(np.random.default_rng(0).permutation(TARGETS))))
    assert "the lengths of source and target are unrelated (correlation " in found


def test_shifted_lines_are_found_from_200_pairs_on_and_lines_of_one_length_are_not_shifted() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 400).astype(float)
    assert shifted_lines(lengths[:-2], lengths[2:])[:2] == (1, -2)  # type: ignore[index]
    assert shifted_lines(lengths[:-2] * 2, lengths[:-2] + 3) is None
    assert shifted_lines(lengths[:150], lengths[1:151]) is None
    assert shifted_lines(np.ones(400), lengths) is None


def test_pairs_of_very_different_length_are_counted() -> None:
    targets = [text * 9 if place % 40 == 3 else text for place, text in enumerate(TARGETS)]
    found = only_warning(test=corpus(SOURCES, targets))
    assert "pairs (2." in found and "more than 4 times longer or shorter than usual here, e.g. pair 4 (" in found


def test_text_that_was_read_in_a_wrong_encoding_is_reported() -> None:
    damaged = [text.encode().decode("latin-1") for text in ("weiße Männer", "grün", "schön")]
    sources = [f"men {number} {text}" for number, text in enumerate(SOURCES[:1000])]
    found = only_warning(test=corpus(sources, [*damaged * 4, *TARGETS[12:1000]]))
    assert found.startswith("test: 12 of 1,000 pairs (1.2%) have damaged characters, e.g. pair 1 (")
    assert "damaged" in only_warning(test=corpus(sources, ["b\ufffdse", *TARGETS[1:990], *["a\ufffd"] * 10]))


def test_swapped_sides_are_reported() -> None:
    source, target = corpus_warnings({"test": corpus(TARGETS, SOURCES)})
    end = "; correct {}_lang, or swap source and target"
    assert source == "test: the source text is mostly Hangul, but source_lang is 'en'" + end.format("source")
    assert target == "test: the target text is mostly Latin, but target_lang is 'ko'" + end.format("target")


def test_a_script_belongs_to_a_language_only_where_that_is_certain() -> None:
    japanese = ["日本語の文章です。漢字とかなを使います。"] * 10
    assert main_script(japanese) == "Kana" and main_script(["中文文本"] * 40) == "Han" and main_script(["한"]) is None
    assert unexpected_script(japanese, "ja") is None and unexpected_script(japanese, "zh") == "Kana"
    assert unexpected_script(japanese, "sr") is None and unexpected_script(japanese, "question") is None
    assert unexpected_script(["привет"] * 40, "pt_BR") == "Cyrillic"


def test_evaluation_text_inside_the_training_text_is_counted() -> None:
    sources = [f"{text} {number}" for number, text in enumerate(SOURCES[:400])]
    training = corpus(sources[:200], TARGETS[:200])
    overlapping = corpus(sources[196:396], TARGETS[196:396])
    assert known_pairs(training, {"validation": overlapping})[0].startswith(
        "validation: 4 of 200 pairs (2.0%) are in the training text as well, e.g. pair 1 ("
    )
    other = corpus(sources[190:390], [*TARGETS[210:220], *TARGETS[200:390]])
    (found,) = known_pairs(training, {"test": other})
    assert found.startswith(
        "test: 10 of 200 pairs (5.0%) have a source that is in the training text with another trans"
    )
    assert known_pairs(training, {"test": corpus(sources[199:399], TARGETS[199:399])}) == []  # one pair may be chance


def test_of_a_stream_the_beginning_is_read(tmp_path: Path) -> None:
    for name, lines in (("a.en", SOURCES), ("a.ko", TARGETS)):
        (tmp_path / name).write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    files = (tmp_path / "a.en", tmp_path / "a.ko")
    stream = load_text_files(*files, source_lang="en", target_lang="ko", streaming=True)
    found = corpus_warnings({"train": stream, "test": corpus(SOURCES[:100], TARGETS[:100])})
    assert found and all(text.startswith(("test: 100 of 100 pairs (100.0%) are in the", "train: ")) for text in found)
