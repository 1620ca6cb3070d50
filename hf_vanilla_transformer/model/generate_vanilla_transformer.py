# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's beam search (§6.1) as a ``custom_generate`` function of transformers' `generate`."""

# Shapes: B batch · S source length · T target length · N hypotheses returned per sentence · D d_model

from typing import Any

from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import LogitsProcessorList, StoppingCriteriaList

from .beam_search_config_vanilla_transformer import BeamSearchConfig
from .beam_search_vanilla_transformer import BeamSearchOutput, search_encoded, source_padding_mask
from .ensemble_vanilla_transformer import unwrap_model
from .special_tokens_vanilla_transformer import SpecialTokens

_NAME = "generate_with_paper_beam_search"
_UNSUPPORTED_OPTIONS = {  # option of generate() → its default
    "do_sample": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
}
_FROM_GENERATE = {  # what `generate` prepares for the model's forward
    "encoder_outputs",
    "attention_mask",
    "cache",
    "past_key_values",
    "use_cache",
    "logits_to_keep",
}


def generate_with_paper_beam_search(
    model: Any,
    input_ids: Tensor,
    *,
    num_beams: int | None = None,
    num_return_sequences: int | None = None,
    length_penalty: float | None = None,
    length_normalization: str | None = None,
    early_stopping: bool | str | None = None,
    coverage_penalty: float | None = None,
    max_extra_tokens: int | None = None,
    max_target_tokens: int | None = None,
    min_length: int | None = None,
    min_new_tokens: int | None = None,
    no_repeat_ngram_size: int | None = None,
    bad_words_ids: list[list[int]] | None = None,
    prefixes: list[list[int]] | None = None,
    constraints: list[list[list[int]]] | None = None,
    generation_config: GenerationConfig,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    inputs_tensor: Tensor,
    **from_generate: Any,
) -> BeamSearchOutput | Tensor:
    """Run `paper_beam_search` inside ``model.generate``.

    Use it as ``model.generate(**inputs, custom_generate=generate_with_paper_beam_search, num_beams=4)``. The keywords
    from ``num_beams`` to ``bad_words_ids`` are the fields of `BeamSearchConfig`. Where a keyword is not given to
    `generate`, the generation configuration is read, with the meaning that Hugging Face gives it:

    - ``num_beams`` and ``num_return_sequences``, unless they are 1, and ``early_stopping``.
    - ``min_length``, ``min_new_tokens``, ``no_repeat_ngram_size`` and ``bad_words_ids``.
    - ``length_penalty``, as the exponent of n^α: the search then uses ``length_normalization="power"``. It never
      becomes the α of the GNMT normalization. The *keyword* ``length_penalty`` replaces it, and is the α of the keyword
      ``length_normalization``, by default "gnmt".
    - ``max_length`` or ``max_new_tokens``, ``renormalize_logits``, ``return_dict_in_generate`` and the special tokens.

    What is set in neither place has the paper's value. A prefix of all targets is given as ``decoder_input_ids``,
    prefixes of different lengths as ``prefixes``.

    Args:
        model: `VanillaTransformerForConditionalGeneration`.
        input_ids: (B·k, 1 + P), the decoder start token and a prefix, k per sentence where the generation configuration
            has beams.
        num_beams: see `BeamSearchConfig`.
        num_return_sequences: see `BeamSearchConfig`.
        length_penalty: see `BeamSearchConfig`.
        length_normalization: see `BeamSearchConfig`.
        early_stopping: see `BeamSearchConfig`.
        coverage_penalty: see `BeamSearchConfig`.
        max_extra_tokens: see `BeamSearchConfig`.
        max_target_tokens: see `BeamSearchConfig`.
        min_length: see `BeamSearchConfig`.
        min_new_tokens: see `BeamSearchConfig`.
        no_repeat_ngram_size: see `BeamSearchConfig`.
        bad_words_ids: see `BeamSearchConfig`.
        prefixes: see `paper_beam_search`.
        constraints: see `paper_beam_search`.
        generation_config: prepared by `generate`.
        logits_processor: prepared by `generate`; a processor that would change the result is refused.
        stopping_criteria: prepared by `generate`; a criterion other than the length and EOS tokens is refused.
        inputs_tensor: prepared by `generate`: (B, S) source tokens or (B, S, D) source embeddings.
        **from_generate: what `generate` prepares for the model; an option that the search doesn't have is refused.

    Returns:
        The sequences (B·N, 1 + T), or the complete `BeamSearchOutput` with ``return_dict_in_generate=True``.

    Raises:
        ValueError: If an option of `generate` is not supported, a setting is out of range, or a source is empty.
    """
    model = unwrap_model(model)
    _check_options(generation_config, from_generate)
    special = SpecialTokens.of(model, generation_config)
    _check_processors(generation_config, special, logits_processor, stopping_criteria)
    keywords = {
        "num_beams": num_beams,
        "num_return_sequences": num_return_sequences,
        "length_penalty": length_penalty,
        "length_normalization": length_normalization,
        "early_stopping": early_stopping,
        "coverage_penalty": coverage_penalty,
        "max_extra_tokens": max_extra_tokens,
        "max_target_tokens": max_target_tokens,
        "min_length": min_length,
        "min_new_tokens": min_new_tokens,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "bad_words_ids": bad_words_ids,
    }
    given = {name: value for name, value in keywords.items() if value is not None}
    config = BeamSearchConfig(**(_read_settings(model, generation_config, given) | given))
    config = config.replace(max_target_tokens=_limit_target(model, generation_config, config.max_target_tokens))
    # For its own beam search, `generate` has repeated each row k times in a row.
    copies = input_ids.shape[0] // inputs_tensor.shape[0]
    if input_ids.shape[1] > 1:
        if prefixes is not None:
            raise ValueError(f"{_NAME} takes either decoder_input_ids or prefixes; leave one of them out")
        prefixes = input_ids[::copies, 1:].tolist()
    encoder_states = from_generate["encoder_outputs"][0][::copies]
    mask = from_generate.get("attention_mask")
    mask = source_padding_mask(inputs_tensor, None if mask is None else mask[::copies], model.config.pad_token_id)
    output = search_encoded(
        [model],
        [encoder_states],
        mask.to(encoder_states.device),
        config,
        special,
        renormalize_logits=bool(getattr(generation_config, "renormalize_logits", False)),
        prefixes=prefixes,
        constraints=constraints,
    )
    if getattr(generation_config, "return_dict_in_generate", False):
        return output
    assert output.sequences is not None
    return output.sequences


def _check_options(generation_config: GenerationConfig, from_generate: dict[str, Any]) -> None:
    """Reject options of `generate` that beam search does not support."""
    for name, default in _UNSUPPORTED_OPTIONS.items():
        value = getattr(generation_config, name, None)
        if value is not None and value != default:
            raise ValueError(f"{_NAME} does not support {name}={value}; leave it out or use plain generate()")
    if unknown := sorted(set(from_generate) - _FROM_GENERATE):
        raise ValueError(f"{_NAME} has no argument {', '.join(unknown)}; leave it out or use plain generate()")


def _check_processors(
    generation_config: GenerationConfig,
    special: SpecialTokens,
    processors: LogitsProcessorList | None,
    criteria: StoppingCriteriaList | None,
) -> None:
    """Reject logits processors and stopping criteria, except those whose effect the search has by itself."""
    forced = getattr(generation_config, "forced_eos_token_id", None)
    has_effect = {
        "NoBadWordsLogitsProcessor": True,
        "NoRepeatNGramLogitsProcessor": True,
        "MinLengthLogitsProcessor": True,
        "MinNewTokensLengthLogitsProcessor": True,
        # Generation configurations of Marian models have this one.
        "ForcedEOSTokenLogitsProcessor": {*(forced if isinstance(forced, list) else [forced])}
        <= {*special.eos_token_id},
        "LogitNormalization": True,  # renormalize_logits
    }
    for processor in processors or []:
        if not has_effect.get(type(processor).__name__, False):
            raise ValueError(
                f"{_NAME} does not support {type(processor).__name__}; remove its option from the generation "
                "configuration or use plain generate()"
            )
    for criterion in criteria or []:
        if type(criterion).__name__ not in ("MaxLengthCriteria", "EosTokenCriteria"):
            raise ValueError(f"{_NAME} does not support {type(criterion).__name__}; leave it out")


def _read_settings(model: Any, generation_config: GenerationConfig, given: dict[str, Any]) -> dict[str, Any]:
    """Read what the generation configuration sets of `BeamSearchConfig`.

    Args:
        model: its own generation configuration shows what is set: `generate` fills the other one with defaults.
        generation_config: prepared by `generate`.
        given: the keywords that were given to `generate`.
    """
    settings: dict[str, Any] = {}
    for name in ("num_beams", "num_return_sequences"):
        if getattr(generation_config, name, None) not in (None, 1):
            settings[name] = getattr(generation_config, name)
    for name in ("min_length", "min_new_tokens", "no_repeat_ngram_size", "bad_words_ids"):
        if getattr(generation_config, name, None):
            settings[name] = getattr(generation_config, name)
    if generation_config.early_stopping is not None:
        settings["early_stopping"] = generation_config.early_stopping
    exponent = generation_config.length_penalty
    is_default = exponent is None or (exponent == 1.0 and model.generation_config.length_penalty is None)
    if not is_default and "length_penalty" not in given and given.get("length_normalization") != "gnmt":
        settings |= {"length_penalty": exponent, "length_normalization": "power"}
    return settings


def _limit_target(model: Any, generation_config: GenerationConfig, max_target_tokens: int | None) -> int | None:
    """Return the smaller of ``max_target_tokens`` and the limit given to `generate`; None where there is neither."""
    # The model's own max_length only replaces the 20 tokens of plain generate(); another one was given by the caller.
    if generation_config.max_length in (None, model.generation_config.max_length):
        return max_target_tokens
    limit = max(1, generation_config.max_length - 1)  # without the decoder start token
    return limit if max_target_tokens is None else min(limit, max_target_tokens)


__all__ = ["generate_with_paper_beam_search"]
