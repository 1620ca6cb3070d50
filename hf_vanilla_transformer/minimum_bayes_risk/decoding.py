# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Minimum Bayes risk decoding: draw candidates from a model, and choose those with the largest expected utility."""

# Shapes: B batch · S source length

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.beam_search_vanilla_transformer import check_beam_search, paper_beam_search
from ..model.ensemble_vanilla_transformer import Ensemble
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .pairwise_chrf import pairwise_chrf
from .sampling import draw_samples

if TYPE_CHECKING:
    from .config import MBRConfig

# Settings of the search that samples follow or that only compare hypotheses of the search. The others restrict the
# tokens of a translation, which samples don't.
_SETTINGS_OF_SAMPLES = {
    "num_beams", "num_return_sequences", "length_penalty", "length_normalization", "early_stopping", "coverage_penalty",
    "max_extra_tokens", "max_target_tokens",
}  # fmt: skip


def minimum_bayes_risk_search(
    model: Any,
    tokenizers: TranslationTokenizers,
    input_ids: Tensor,
    attention_mask: Tensor,
    search: BeamSearchConfig,
    config: "MBRConfig",
) -> tuple[list[list[list[int]]], list[list[float]]]:
    """Choose translations of a batch by minimum Bayes risk.

    Args:
        model: `VanillaTransformerForConditionalGeneration`; with ``config.num_best`` also an exported model.
        tokenizers: of the model; the candidates are compared as text.
        input_ids: (B, S), padded on the right.
        attention_mask: (B, S), 1 keeps, 0 is padding.
        search: settings of the beam search; of samples, the limits of their length and ``num_return_sequences``.
        config: the candidates.

    Returns:
        For each source, ``search.num_return_sequences`` hypotheses as token ids, best first, and their expected
        utilities, which are chrF scores from 0 to 100.
    """
    if config.num_best is None:
        candidates = draw_samples(model, input_ids, attention_mask, search, config)
    else:
        candidates = paper_beam_search(model, input_ids, attention_mask, n_best_search(search, config)).hypotheses()
    chosen, utilities = [], []
    for of_source in candidates:
        best, expected = choose_by_utility(tokenizers.batch_decode(of_source), search.num_return_sequences)
        chosen.append([of_source[place] for place in best])
        utilities.append(expected)
    return chosen, utilities


def check_minimum_bayes_risk(model: Any, search: BeamSearchConfig, config: "MBRConfig") -> None:
    """Check that a model can give the candidates.

    Raises:
        ValueError: If it cannot, or there would be fewer candidates than translations wanted.
    """
    config.check_search(search)
    if config.num_best is not None:
        check_beam_search(model, n_best_search(search, config))
    elif not isinstance(model, nn.Module):
        raise ValueError(
            f"num_samples={config.num_samples} needs a checkpoint, because an exported model draws no samples; take "
            "the n-best list instead (num_best)"
        )
    elif isinstance(model, Ensemble):
        raise ValueError(
            f"num_samples={config.num_samples} is for one model, because an ensemble draws no samples; take the n-best "
            "list instead (num_best)"
        )
    else:
        for field in dataclasses.fields(search):
            if field.name not in _SETTINGS_OF_SAMPLES and getattr(search, field.name) != field.default:
                what = f"{field.name}={getattr(search, field.name)!r} is a setting"
                if field.name == "bad_words_ids":
                    what = "a list of banned words is a restriction"
                raise ValueError(
                    f"{what} of the beam search that samples don't "
                    "follow; leave it out, or take the n-best list instead (num_best)"
                )


def n_best_search(search: BeamSearchConfig, config: "MBRConfig") -> BeamSearchConfig:
    """Return the settings of the beam search that finds the candidates."""
    number = config.candidates
    return search.replace(num_return_sequences=number, num_beams=max(search.num_beams, number))


def choose_by_utility(candidates: Sequence[str], number: int = 1) -> tuple[list[int], list[float]]:
    """Choose the candidates with the largest expected utility: the mean chrF with all candidates as references.

    Args:
        candidates: texts; a text that occurs twice counts twice as a reference.
        number: how many to choose. Equal texts are chosen once, unless there are too few different ones.

    Returns:
        The places of the chosen candidates, best first; of equal ones, the first. And their expected utilities.
    """
    counts = Counter(candidates)
    texts = list(counts)
    weights = np.array(list(counts.values()), dtype=np.float64)
    expected = (pairwise_chrf(texts) * weights).sum(axis=1) / weights.sum()
    place_of: dict[str, int] = {}
    for place, text in enumerate(candidates):
        place_of.setdefault(text, place)
    order = np.argsort(-expected, kind="stable")[:number]
    places = [place_of[texts[index]] for index in order]
    utilities = [float(expected[index]) for index in order]
    while len(places) < number:
        places.append(places[-1])
        utilities.append(utilities[-1])
    return places, utilities


__all__ = ["check_minimum_bayes_risk", "choose_by_utility", "minimum_bayes_risk_search", "n_best_search"]
