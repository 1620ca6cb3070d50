"""Useless results give a warning, useful ones none."""

import pytest

from hf_vanilla_transformer.data.embedded_corpus import draw_expressions
from hf_vanilla_transformer.plausibility import (
    USELESS,
    doubtful_translations,
    few_pairs,
    odd_peak_rate,
    poor_translations,
    repeats_itself,
    run_inside_warmup,
    tally_translations,
    validation_verdict,
)


def test_translations_of_which_a_tenth_are_empty_give_a_warning_with_their_number() -> None:
    sources = [f"source {number}" for number in range(200)]
    assert "200 of 200 translations are empty (100%), the first is line 1; usual causes: " in (
        doubtful_translations(sources, [""] * 200) or ""
    )
    good = [f"target {number}" for number in range(200)]
    assert "20 of 200 translations are empty (10%), the first is line 181; usual" in (
        doubtful_translations(sources, good[:180] + [""] * 20) or ""
    )
    assert doubtful_translations(sources, [*good[:181], *[" "] * 19]) is None
    assert doubtful_translations(sources[:4], [*good[:2], "", ""]) is None  # two of a few lines are no sign
    assert doubtful_translations(["", " "] * 100, [""] * 200) is None  # an empty source has an empty translation


def test_repeating_and_identical_translations_give_a_warning() -> None:
    sources = [f"source {number}" for number in range(20)]
    loop = "the house is the the the the the the the the the"
    assert "20 of 20 translations repeat themselves (100%), the first is line 1" in (
        doubtful_translations(sources, [loop] * 20) or ""
    )
    mixed = [f"target {number}" for number in range(17)] + [loop, "", ""]
    assert "2 of 20 translations are empty and 1 of 20 translations repeat themselves (15%), the first is line 18" in (
        doubtful_translations(sources, mixed) or ""
    )
    same = ["a man in a blue shirt"] * 12 + [f"target {number}" for number in range(8)]
    assert "12 of 20 sources, all different, have the same translation ('a man" in (
        doubtful_translations(sources, same) or ""
    )
    assert doubtful_translations(["yes"] * 20, ["ja"] * 20) is None  # one source has one translation


def test_a_translation_may_repeat_what_its_source_repeats() -> None:
    assert doubtful_translations(["ha ha ha ha ha ha ha ha"] * 5, ["haha haha haha haha haha"] * 5) is None


def test_the_shares_of_a_record_are_described_from_a_limit_on() -> None:
    scores = {"validation": {"empty": 0.05, "repeating": 0.05}, "test": {"empty": 0.5, "repeating": 0.4}}
    assert poor_translations(scores, USELESS) == "90% of the translations of test are empty or repeat themselves"
    assert poor_translations({"test": {"empty": 0.45, "repeating": 0.44}}, USELESS) is None
    assert "89% of the translations of test" in (poor_translations({"test": {"empty": 0.45, "repeating": 0.44}}) or "")
    assert poor_translations({"test": {"empty": 0.05, "repeating": 0.04}}) is None and poor_translations({}) is None
    assert poor_translations({"test": {"loss": 2.0}, "old": {"empty": "x", "repeating": None}}) is None
    assert tally_translations(["a", "b", "", "c"], ["x", "", "", ""]).shares == {"empty": 2 / 3, "repeating": 0.0}


@pytest.mark.parametrize(
    "text",
    ["네 " * 10 + "네", "a b " * 20, "ㅋ" * 30, "of the of the of the of the of the of the"]
    + ["a dog in the snow a dog in the snow a dog in the snow", "brot " * 4 + "kuh " * 5 + "x y z"],
)
def test_a_loop_repeats_itself(text: str) -> None:
    assert repeats_itself(text)


def test_numbers_in_words_do_not_repeat_themselves() -> None:
    rows = draw_expressions("test", 400, seed=0)
    assert not any(repeats_itself(text) for row in rows for text in (row.en, row.ko))
    assert not repeats_itself("1,000,000,000,000 won") and not repeats_itself("-" * 19)
    assert not repeats_itself("elem, elem, elem, ... without end, or at most n times")


def test_a_run_that_ends_during_the_warmup_gives_a_warning() -> None:
    # 300 pairs at the defaults: 6 updates of 4,000, and the rate reaches 6 / 4000 = 0.15% of its peak.
    assert "after 6 updates, during the warmup of 4,000: the learning rate only reaches 0.15%" in (
        run_inside_warmup(6, 4000) or ""
    )
    assert run_inside_warmup(4000, 4000) and run_inside_warmup(4001, 4000) is None


@pytest.mark.parametrize(
    ("peak", "d_model", "warmup_steps", "message"),
    [
        (512**-0.5 * 4000**-0.5, 512, 4000, None),  # the paper's base: 0.0007
        (0.004, 128, 400, None),  # tiny.yaml
        (0.005, 128, 1000, None),  # chat_ko.yaml
        (0.0007 * 12, 512, 4000, "12 times what Equation 3 gives"),
        (512**-0.5 * 50**-0.5, 512, 50, "9 times what"),  # √(4000 / 50) = 8.9
        (1e-6, 512, 4000, "1/699 of what"),  # 0.000699 / 1e-6
    ],
)
def test_a_peak_rate_far_from_the_papers_gives_a_warning(
    peak: float, d_model: int, warmup_steps: int, message: str | None
) -> None:
    found = odd_peak_rate(peak, d_model, warmup_steps)
    assert found is None if message is None else message in (found or "")


def test_a_few_hundred_pairs_give_a_warning() -> None:
    assert "only 300 training pairs" in (few_pairs(300) or "") and few_pairs(1000) is None


LEVEL = [(300, 4.8), (600, 3.0), (900, 2.75), (1200, 2.74)]


@pytest.mark.parametrize(
    ("losses", "taken", "verdict"),
    [
        (LEVEL, [1200], None),  # 3.0 is not of the last quarter, but 2.75 at update 900 is: a change of 0.01
        (LEVEL[:2], [600], None),  # two evaluations say nothing
        ([*LEVEL[:3], (1200, float("nan"))], [1200], None),  # as if there were three
        (
            [(300, 4.8), (600, 4.0), (900, 4.1), (1200, 4.2)], [900, 1050, 1200],
            "the model overfits: the validation loss was lowest at update 600 (4.000) and rose to 4.200 at update "
            "1,200; the final model averages 3 checkpoints, all from after that minimum; more text would help most",
        ),
        ([(300, 4.8), (600, 4.0), (900, 4.1), (1200, 4.2)], [300, 600, 900], "3 checkpoints, 1 of 3 from after that"),
        ([(300, 4.8), (600, 4.0), (900, 4.1), (1200, 4.2)], [300, 600], "2 checkpoints, none from after that minimum"),
        ([(300, 4.8), (600, 4.0), (900, 4.1), (1200, 4.2)], [600], "the final model is the checkpoint of update 600;"),
        (
            [(300, 4.8), (600, 4.0), (900, 3.8), (1200, 3.7)], [1200],
            "the validation loss was still falling: 3.800 at update 900, 3.700 at update 1,200; a longer run "
            "(a larger max_steps, in a new output_dir) may lower it further",
        ),
        ([(300, 4.8), (600, 4.0), (900, 3.7), (1200, 3.71)], [1200], None),  # 0.01 above the minimum is no rise
    ],
)  # fmt: skip
def test_a_validation_loss_that_rose_or_still_fell_gives_a_verdict(
    losses: list[tuple[int, float]], taken: list[int], verdict: str | None
) -> None:
    found = validation_verdict(losses, taken)
    assert found is None if verdict is None else verdict in (found or "")
