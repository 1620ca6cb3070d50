# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The settings of minimum Bayes risk decoding, validated once and passed as one object."""

import math
import numbers
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig, check_integer
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .decoding import check_minimum_bayes_risk, minimum_bayes_risk_search


@dataclass(frozen=True)
class MBRConfig:
    """Settings of minimum Bayes risk decoding: of many candidates, choose the one that is most like the others.

    The candidates are samples from the model (Eikema and Aziz 2020) or the n-best list of the beam search. The
    expected utility of a candidate is its mean sentence chrF with all candidates as references; the candidate with the
    largest is the translation. Names of sampling settings are those of transformers' `generate`.

    Attributes:
        num_samples: samples per source; None takes the n-best list instead.
        num_best: hypotheses of the beam search per source; the beam is at least as large. Set one of the two.
        temperature: logits are divided by it before sampling; 1 samples from the model.
        epsilon_cutoff: tokens of smaller probability are not sampled (epsilon sampling, Hewitt et al. 2022; 0.02 is the
            value of Freitag et al. 2023). 0 samples all tokens (ancestral sampling).
        top_p: sample the most probable tokens whose probabilities add up to it (nucleus sampling); 1 samples all.
        top_k: number of most probable tokens that are sampled; 0 samples all.
        seed: of the samples.

    Raises:
        ValueError: If a value is out of range, or not exactly one of num_samples and num_best is set.
    """

    num_samples: int | None = None
    num_best: int | None = None
    temperature: float = 1.0
    epsilon_cutoff: float = 0.02
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.num_samples is None) == (self.num_best is None):
            raise ValueError("set one of num_samples (samples) and num_best (n-best list of the beam search), not both")
        check_integer("num_samples" if self.num_best is None else "num_best", self.candidates, minimum=2)
        check_integer("top_k", self.top_k, minimum=0)
        check_integer("seed", self.seed, minimum=0)
        for name in ("temperature", "epsilon_cutoff", "top_p"):
            _check_real(name, getattr(self, name))
        for spec in fields(self) if self.num_samples is None else ():
            if spec.name != "num_best" and getattr(self, spec.name) != spec.default:
                raise ValueError(
                    f"{spec.name}={getattr(self, spec.name)!r} is for samples, and num_best takes the n-best list of "
                    "the beam search; leave one of them out"
                )
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature:g} must be more than 0; 1 samples from the model")
        if not 0 <= self.epsilon_cutoff < 1:
            raise ValueError(f"epsilon_cutoff={self.epsilon_cutoff:g} must be from 0 to less than 1, e.g. 0.02")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p:g} must be more than 0 and at most 1; 1 samples all tokens")

    @property
    def candidates(self) -> int:
        """Number of candidates per source."""
        number = self.num_samples if self.num_best is None else self.num_best
        assert number is not None
        return number

    def check(self, model: Any, search: BeamSearchConfig) -> None:
        """Check that a model can give the candidates; see `check_minimum_bayes_risk`."""
        check_minimum_bayes_risk(model, search, self)

    def search(
        self,
        model: Any,
        tokenizers: TranslationTokenizers,
        input_ids: Tensor,
        attention_mask: Tensor,
        search: BeamSearchConfig,
    ) -> tuple[list[list[list[int]]], list[list[float]]]:
        """Choose translations of a batch; see `minimum_bayes_risk_search`."""
        return minimum_bayes_risk_search(model, tokenizers, input_ids, attention_mask, search, self)

    def check_search(self, search: BeamSearchConfig) -> None:
        """Check that there are enough candidates for the translations wanted.

        Raises:
            ValueError: If there are not.
        """
        if search.num_return_sequences > self.candidates:
            name = "num_samples" if self.num_best is None else "num_best"
            raise ValueError(
                f"num_return_sequences={search.num_return_sequences} is more than the {name}={self.candidates} "
                "candidates; choose fewer, or more candidates"
            )


def _check_real(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} is not a finite number")


__all__ = ["MBRConfig"]
