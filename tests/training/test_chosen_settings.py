"""Chosen settings: functions of the counts, given settings win, and the others adapt to them."""

import json
from typing import Any

import pytest

from hf_vanilla_transformer.data.text_size import TextSize
from hf_vanilla_transformer.presets import PRESETS
from hf_vanilla_transformer.training.chosen_settings import choose_settings, held_out_pairs

MULTI30K = TextSize(29_000, 1_800_000, 2_100_000)
KOREAN = TextSize(80_000, 8_700_000, 10_200_000, same_script=False, target_language="ko")


def part(size: TextSize, pairs: int) -> TextSize:
    """Return the size of the first pairs of a text."""
    share = pairs / size.pairs
    return TextSize(
        pairs, round(size.source_bytes * share), round(size.target_bytes * share), same_script=size.same_script
    )


def chosen(size: TextSize, **given: Any) -> dict[str, str]:
    choices = {choice.key: choice.value for choice in choose_settings(size, given)}
    assert not choices.keys() & given.keys()
    return choices


@pytest.mark.parametrize(
    ("pairs", "held_out"),
    [(1, 0), (4, 0), (10, 2), (250, 50), (300, 50), (3_000, 150), (19_000, 950), (29_000, 1_000), (5_000_000, 1_000)],
)
def test_a_twentieth_is_held_out_between_fifty_and_a_thousand(pairs: int, held_out: int) -> None:
    assert held_out_pairs(pairs) == held_out


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (part(MULTI30K, 300), ("tiny", "1000", "512", "100")),
        (part(MULTI30K, 3_000), ("tiny", "2000", "512", "45")),
        (MULTI30K, ("tiny", "6000", "1024", "16")),
        (part(KOREAN, 3_000), ("tiny", "3000", "512", "23")),
        (KOREAN, ("small", "8000", "1024", "2")),
        (TextSize(4_500_000, 500_000_000, 500_000_000), ("base", "37000", "25000", None)),
    ],
)
def test_model_vocabulary_batch_and_length_depend_on_the_amount(size: TextSize, expected: tuple) -> None:
    settings = chosen(size)
    preset, vocab_size, batch, epochs = expected
    assert (settings["preset"], settings["vocab_size"], settings["max_tokens_per_batch"]) == (preset, vocab_size, batch)
    if epochs is None:  # the paper's base model
        assert (settings["max_steps"], settings["warmup_steps"]) == ("100000", "4000")
        assert settings["learning_rate"] == "null" and not {"cooldown_steps", "config_overrides"} & settings.keys()
    else:
        per_epoch = max(size.tokens(int(vocab_size))) * 1.1 / int(batch)
        assert int(settings["max_steps"]) / per_epoch == pytest.approx(float(epochs), rel=0.1)


@pytest.mark.parametrize("pairs", [2, 10, 300, 1_000, 3_000, 29_000, 49_999, 50_000, 200_000, 499_999, 500_000, 10**7])
@pytest.mark.parametrize("whole", [MULTI30K, KOREAN])
def test_no_amount_of_text_ends_inside_the_warmup_or_at_an_odd_rate(whole: TextSize, pairs: int) -> None:
    settings = chosen(part(whole, pairs))
    updates, warmup = int(settings["max_steps"]), int(settings["warmup_steps"])
    cooldown = int(settings.get("cooldown_steps", 0))
    assert warmup + cooldown < updates or updates <= 2
    d_model = PRESETS[settings["preset"]].fields.get("d_model", 512)
    paper = (d_model * 4_000) ** -0.5
    rate = paper if settings["learning_rate"] == "null" else float(settings["learning_rate"])
    assert 0.3 <= rate / paper <= 3
    assert int(settings["save_total_limit"]) > int(settings["average_last"])


def test_few_pairs_are_trained_for_a_quarter_of_an_hour_at_most() -> None:
    long_sentences = TextSize(3_000, 320_000, 420_000, same_script=False)
    assert chosen(long_sentences)["max_steps"] == "6000"
    assert int(chosen(TextSize(12_000, 1_280_000, 1_680_000, same_script=False))["max_steps"]) > 6_000
    assert int(chosen(long_sentences, max_tokens_per_batch=1_024)["max_steps"]) < 6_000


def test_less_text_has_a_smaller_vocabulary_and_more_dropout_and_passes() -> None:
    sizes = [chosen(part(MULTI30K, pairs)) for pairs in (300, 3_000, 29_000)]
    assert [int(settings["vocab_size"]) for settings in sizes] == [1_000, 2_000, 6_000]
    dropouts = [json.loads(settings["config_overrides"])["dropout"] for settings in sizes]
    assert dropouts == sorted(dropouts, reverse=True)


def test_the_vocabulary_has_room_for_every_character() -> None:
    # 260 special tokens and bytes, and 1.5 · 2,000
    assert chosen(TextSize(300, 9_000, 9_000, characters=2_000, same_script=False))["vocab_size"] == "3300"


def test_the_schedule_adapts_to_a_given_length() -> None:
    settings = chosen(MULTI30K, max_steps=1_000)
    assert (settings["warmup_steps"], settings["cooldown_steps"]) == ("100", "400")
    assert (settings["save_steps"], settings["eval_steps"]) == ("50", "100")
    assert chosen(MULTI30K, max_steps=-1)["warmup_steps"] == chosen(MULTI30K, num_train_epochs=3.0)["warmup_steps"]
    epochs = chosen(MULTI30K, num_train_epochs=1.0)
    assert "max_steps" not in epochs and 40 <= int(epochs["warmup_steps"]) <= 70


def test_the_learning_rate_adapts_to_a_given_model() -> None:
    assert chosen(MULTI30K, preset="small")["learning_rate"] == "0.0015"
    assert "config_overrides" not in chosen(MULTI30K, preset="small")
    narrow = chosen(MULTI30K, preset="small", config_overrides='{"d_model": 128}')
    assert narrow["learning_rate"] == "0.003"


def test_the_number_of_updates_adapts_to_a_given_batch() -> None:
    one, four = (int(chosen(MULTI30K, max_tokens_per_batch=size)["max_steps"]) for size in (1_024, 4_096))
    assert one / four == pytest.approx(4, rel=0.1)


def test_nothing_is_held_out_if_there_is_validation_text_or_no_evaluation() -> None:
    with_text = chosen(MULTI30K, validation_source=["a"], validation_target=["b"])
    assert "held_out_pairs" not in with_text and with_text["eval_strategy"] == "steps"
    without = chosen(MULTI30K, eval_strategy="no")
    assert not {"held_out_pairs", "eval_strategy", "eval_steps"} & without.keys()
    assert "held_out_pairs" not in chosen(MULTI30K, streaming=True)


def test_a_given_average_decides_how_many_checkpoints_are_kept() -> None:
    settings = chosen(MULTI30K, average_best=8)
    assert "average_last" not in settings and settings["save_total_limit"] == "9"
    assert settings["eval_steps"] == settings["save_steps"]  # each has the loss that selects it


def test_a_trained_model_keeps_its_architecture_and_tokenizer_and_gets_a_low_rate() -> None:
    settings = chosen(MULTI30K, model_name_or_path="x")
    assert not {"preset", "config_overrides", "vocab_size"} & settings.keys()
    assert settings["learning_rate"] == "0.0003"


def test_another_schedule_has_no_cooldown() -> None:
    assert "cooldown_steps" not in chosen(MULTI30K, lr_scheduler_type="cosine")


def test_every_choice_has_a_reason_and_none_estimates_the_epochs() -> None:
    choices = choose_settings(MULTI30K, {})
    assert all(choice.reason for choice in choices)
    reasons = {choice.key: choice.reason for choice in choices}
    assert reasons["max_steps"] == "updates; the less text, the more epochs"  # the run shows their exact number
