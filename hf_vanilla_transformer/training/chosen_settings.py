# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Choose the settings of a training run from the amount of text, where the user has set none.

Every rule is a function of the counts in a `TextSize` and of the settings that were given. docs/training.md lists the
rules and the measurements behind them. The choice for small amounts follows two observations: what limits a small text
is overfitting, so the model and its vocabulary are small and dropout is high; and what limits a short run is the number
of updates, so batches are small and the learning rate falls to 0 at the end.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data.text_size import TextSize
from ..presets import preset
from .arguments import EQUATION_3

# Settings for texts of up to this many pairs, in order.
_VOCABULARIES = ((1_000, 1_000), (10_000, 2_000), (50_000, 6_000), (500_000, 8_000), (2_000_000, 16_000))
_RESERVED_TOKENS = 260  # special tokens and bytes
_LARGE_VOCABULARY = 37_000  # the paper's (§5.1)
_TINY, _SMALL = 50_000, 500_000  # pairs up to which the presets tiny and small are chosen; above: base
_FEW = 10_000  # pairs up to which batches are smallest and dropout is highest
_BATCHES = {"tiny": 1_024, "small": 1_024}  # tokens; for few pairs, and for other presets:
_SMALL_BATCH, _LARGE_BATCH = 512, 25_000
# A run sees the text `factor / √n` times, where n is the number of sentences of `_SENTENCE_TOKENS` tokens.
_EPOCH_FACTORS = {"tiny": 2_500, "small": 600}
_SENTENCE_TOKENS = 20
_LEAST_EPOCHS, _MOST_EPOCHS = 2, 100
_MOST_UPDATES = 6_000  # for few pairs: what two processor cores make in less than 15 minutes
_DEFAULT_EPOCHS = 3.0  # of Trainer, where max_steps is set to -1
_PAPER_UPDATES = 100_000  # §5.2
_FINE_TUNING_EPOCHS = 10
_FINE_TUNING_RATE = 0.0003
_PAPER_WARMUP = 4_000  # §5.3
_PEAK_TIMES_WIDTH = 0.384  # peak learning rate times d_model: 0.003 for tiny, 0.0015 for small
_COOLDOWN = 0.4  # of the updates
_CHECKPOINTS = 20
_AVERAGED = 5  # checkpoints (§6.1)
_MOST_SENTENCE_TOKENS = 256
_PADDING = 1.1  # tokens of a batch, padding included, per token of text
_VALIDATION_SHARE, _LEAST_VALIDATION, _MOST_VALIDATION = 20, 50, 1_000


@dataclass(frozen=True)
class Choice:
    """A chosen setting.

    Attributes:
        key: key of a recipe.
        value: its value, as text.
        reason: why, for the comment in the recipe.
    """

    key: str
    value: str
    reason: str


def held_out_pairs(pairs: int) -> int:
    """Return how many of the pairs to hold out for validation: a twentieth, 50 to 1,000, but at most a fifth.

    Args:
        pairs: number of pairs of the training text.
    """
    return min(_MOST_VALIDATION, max(pairs // _VALIDATION_SHARE, min(_LEAST_VALIDATION, pairs // 5)))


def choose_settings(size: TextSize, given: Mapping[str, Any]) -> list[Choice]:
    """Choose the settings that were not given.

    Args:
        size: amount of training text, before pairs are held out.
        given: settings of the user, with the types of their fields; they are kept, and the others adapt to them.

    Returns:
        The chosen settings, none of which is a key of ``given``.
    """
    choices: list[Choice] = []

    def choose(key: str, value: Any, reason: str) -> Any:
        """Return the given value; if there is none, record the choice and return it."""
        if key in given:
            return given[key]
        choices.append(Choice(key, value if isinstance(value, str) else f"{value}", reason))
        return value

    evaluates = _choose_validation(size, given, choose)
    d_model = _choose_model(size, given, choose)
    vocab_size = given.get("vocab_size", _vocab_size(size))
    if not (given.get("tokenizer") or given.get("model_name_or_path")):
        choose("vocab_size", vocab_size, "joint; the less text, the fewer tokens are frequent enough to be learned")
    batch = _batch(size, given)
    reason = "the paper's (section 5.1)" if batch == _LARGE_BATCH else "small, since the number of updates matters"
    batch = choose("max_tokens_per_batch", batch, f"per update; {reason}")
    choose("max_sentence_tokens", min(_MOST_SENTENCE_TOKENS, batch), "the few longer texts would mostly add padding")
    updates = _choose_length(size, given, choose, max(size.tokens(vocab_size)), batch)
    _choose_schedule(given, choose, updates, d_model)
    _choose_checkpoints(given, choose, updates, evaluates)
    if size.pairs < _TINY:
        choose("length_penalty", 1.0, "of the evaluation; the paper's 0.6 leaves short translations too short")
    return choices


def _choose_validation(size: TextSize, given: Mapping[str, Any], choose: Any) -> bool:
    """Choose the held-out pairs, and return whether there is validation text."""
    has_text = bool(given.get("validation_source") or given.get("validation_file"))
    if str(given.get("eval_strategy", "steps")) == "no":
        return bool(given.get("held_out_pairs"))
    held_out = 0 if has_text or given.get("streaming") else held_out_pairs(size.pairs)
    if held_out or "held_out_pairs" in given:
        held_out = choose("held_out_pairs", held_out, "for validation; training text has no line of them")
    evaluates = bool(has_text or held_out)
    if evaluates:
        choose("eval_strategy", "steps", "the validation loss shows whether the model overfits")
    return evaluates


def _choose_model(size: TextSize, given: Mapping[str, Any], choose: Any) -> int | None:
    """Choose the architecture, and return its width; None for a trained model."""
    if given.get("model_name_or_path"):
        return None
    name = choose("preset", _preset(size, given), "for this many pairs; a larger model would memorize them")
    if "preset" not in given:
        fields: dict[str, Any] = {}
        if name in ("tiny", "small"):
            fields = {"encoder_layers": 3, "decoder_layers": 3, "dropout": _dropout(size)}
        if fields:
            reason = "few layers learn more in few updates; the less text, the more dropout"
            choose("config_overrides", json.dumps(fields), reason)
    return preset(name, **json.loads(given.get("config_overrides") or "{}")).d_model


def _preset(size: TextSize, given: Mapping[str, Any]) -> str:
    if given.get("preset"):
        return str(given["preset"])
    return "tiny" if size.pairs < _TINY else "small" if size.pairs < _SMALL else "base"


def _dropout(size: TextSize) -> float:
    return 0.25 if size.pairs < _FEW else 0.15 if size.pairs < _TINY else 0.1


def _vocab_size(size: TextSize) -> int:
    number = next((number for pairs, number in _VOCABULARIES if size.pairs < pairs), _LARGE_VOCABULARY)
    if not size.same_script and size.pairs < _TINY:
        number = number * 3 // 2
    least = _RESERVED_TOKENS + 1.5 * size.characters  # each character is a token
    return max(number, math.ceil(least / 100) * 100)


def _batch(size: TextSize, given: Mapping[str, Any]) -> int:
    return _SMALL_BATCH if size.pairs < _FEW else _BATCHES.get(_preset(size, given), _LARGE_BATCH)


def _choose_length(size: TextSize, given: Mapping[str, Any], choose: Any, tokens: int, batch: int) -> int:
    """Choose the number of updates from the number of tokens, and return it."""
    updates_per_epoch = tokens * _PADDING / max(batch, 1)  # a batch of 0 is reported when the settings are checked
    epochs = given.get("num_train_epochs")
    if given.get("max_steps", -1) <= 0 and ("max_steps" in given or epochs is not None):
        return max(round((_DEFAULT_EPOCHS if epochs is None else epochs) * updates_per_epoch), 1)
    if given.get("model_name_or_path"):
        epochs = _FINE_TUNING_EPOCHS
    else:
        factor = _EPOCH_FACTORS.get(_preset(size, given), _EPOCH_FACTORS["small"] if size.pairs < _SMALL else None)
        sentences = tokens / _SENTENCE_TOKENS
        epochs = None if factor is None else min(max(factor / sentences**0.5, _LEAST_EPOCHS), _MOST_EPOCHS)
    if epochs is None:
        return max(choose("max_steps", _PAPER_UPDATES, "section 5.2"), 1)
    updates = _rounded(epochs * updates_per_epoch)
    if size.pairs < _FEW and batch <= _SMALL_BATCH:
        updates = min(updates, _MOST_UPDATES)
    return max(choose("max_steps", updates, "updates; the less text, the more epochs"), 1)


def _choose_schedule(given: Mapping[str, Any], choose: Any, updates: int, d_model: int | None) -> None:
    warmup = max(min(_rounded(updates / 10), _PAPER_WARMUP), 1)
    choose("warmup_steps", warmup, f"a tenth of the updates, at most the paper's {_PAPER_WARMUP:,}")
    if d_model is None:
        choose("learning_rate", _FINE_TUNING_RATE, "peak; low, since the model is trained already")
    elif d_model < 512 or updates < _PAPER_UPDATES:
        choose("learning_rate", f"{_PEAK_TIMES_WIDTH / d_model:.2g}", "peak; the narrower the model, the higher")
    else:
        choose("learning_rate", "null", "Equation 3 unchanged: 1 / √(d_model · warmup_steps)")
    if str(given.get("lr_scheduler_type", EQUATION_3)) == EQUATION_3 and updates < _PAPER_UPDATES:
        choose("cooldown_steps", int(_COOLDOWN * updates), "to 0: a short run ends at a high rate otherwise")


def _choose_checkpoints(given: Mapping[str, Any], choose: Any, updates: int, evaluates: bool) -> None:
    every = max(updates // _CHECKPOINTS, 1)
    if str(given.get("save_strategy", "steps")) != "steps":
        return
    every = choose("save_steps", every, f"{_CHECKPOINTS} checkpoints; a run that is killed resumes from the last")
    if evaluates and str(given.get("eval_strategy", "steps")) == "steps":
        if given.get("average_best"):
            choose("eval_steps", every, "at every checkpoint, to select the best")
        else:
            choose("eval_steps", 2 * every, "at every second checkpoint")
    averaged = given.get("average_last") or given.get("average_best") or 0
    if not ({"average_last", "average_best"} & given.keys()):
        averaged = choose("average_last", _AVERAGED, "section 6.1; the average is better than each")
    choose("save_total_limit", max(averaged + 1, 2), "those to average, and the best")


def _rounded(number: float) -> int:
    """Round to two digits, as a person would choose the number."""
    return int(float(f"{max(number, 1):.2g}"))


__all__ = ["Choice", "choose_settings", "held_out_pairs"]
