# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The state of the beam search: inputs still being searched, with their open and finished hypotheses.

Row i of every tensor belongs to the i-th unfinished sentence. Each object has one `select(rows)`, which drops finished
sentences.
"""

# Shapes: B unfinished sentences · S source length · W beam width · C candidates · N hypotheses returned per sentence
#         L longest hypothesis allowed, in tokens

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from .beam_search_config_vanilla_transformer import BeamSearchConfig
from .special_tokens_vanilla_transformer import SpecialTokens


@dataclass(frozen=True)
class _TensorState:
    """Tensors that have one row per unfinished sentence."""

    def select(self, rows: list[int] | slice) -> Self:
        """Return the state of these rows, in this order."""
        fields = {field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **fields)


@dataclass(frozen=True)
class Sentences:
    """The unfinished sentences.

    Attributes:
        places: of each, its row in the batch that is searched.
        limits: of each, the most tokens of a hypothesis.
        source_mask: (B, S), 1 keeps, 0 is padding.
        largest_divisor: (B, L), at place n − 1 the largest length divisor that an open hypothesis of n tokens can end
            with.
    """

    places: list[int]
    limits: list[int]
    source_mask: Tensor
    largest_divisor: Tensor

    @classmethod
    def of(cls, config: BeamSearchConfig, limits: list[int], source_mask: Tensor, dtype: torch.dtype) -> "Sentences":
        """Build the state of a batch (B, S) whose hypotheses have ``limits`` tokens at most; nothing is finished."""
        longest = max(limits)
        divisors = torch.tensor([config.length_divisor(n) for n in range(1, longest + 1)], dtype=torch.float64)
        # The divisor rises or falls with the length, so the largest is that of the next token or that of the last.
        last = torch.tensor(limits).unsqueeze(-1)
        following = torch.minimum(torch.arange(2, longest + 2), last)
        largest = torch.maximum(divisors[following - 1], divisors[last - 1]).to(dtype).to(source_mask.device)
        return cls(list(range(len(limits))), limits, source_mask, largest)

    def select(self, rows: list[int]) -> "Sentences":
        """Return these sentences, in this order."""
        return Sentences(
            [self.places[row] for row in rows],
            [self.limits[row] for row in rows],
            self.source_mask[rows],
            self.largest_divisor[rows],
        )


@dataclass(frozen=True)
class Continuations:
    """The best continuations of the open hypotheses by one token, best first.

    Attributes:
        beams: (B, C), the open hypothesis that each continues.
        tokens: (B, C), the token that it adds.
        log_probs: (B, C), the log-probability of that token, nats.
        totals: (B, C), the log-probability of the hypothesis with that token, nats.
    """

    beams: Tensor
    tokens: Tensor
    log_probs: Tensor
    totals: Tensor

    def first(self, number: int) -> "Continuations":
        """Return the best ``number`` of each sentence."""
        beams, tokens, log_probs, totals = self.beams, self.tokens, self.log_probs, self.totals
        return Continuations(beams[:, :number], tokens[:, :number], log_probs[:, :number], totals[:, :number])


@dataclass(frozen=True)
class ChosenContinuations:
    """The continuations that a step chooses.

    Attributes:
        ending: (B, W), the best ones, of which those that ended are finished hypotheses.
        ended: (B, W), whether one of them ended.
        kept: (B, W), the best ones that don't end; they stay open.
    """

    ending: Continuations
    ended: Tensor
    kept: Continuations


@dataclass(frozen=True)
class OpenHypotheses(_TensorState):
    """The hypotheses that have no EOS token yet, best first.

    Attributes:
        totals: (B, W), log-probability so far, nats.
        last_tokens: (B, W), the next decoder input.
        tokens: (B, W, L), padded.
        log_probs: (B, W, L), of each token, nats.
        coverage: (B, W, S), attention that each source token has received.
    """

    totals: Tensor
    last_tokens: Tensor
    tokens: Tensor
    log_probs: Tensor
    coverage: Tensor

    @classmethod
    def start(cls, sentences: Sentences, width: int, special: SpecialTokens, dtype: torch.dtype) -> "OpenHypotheses":
        """Build the hypotheses before the first step: empty ones, of which the first counts.

        Args:
            sentences: all of them.
            width: hypotheses of each sentence; the first step can do with one.
            special: the special tokens.
            dtype: of log-probabilities.
        """
        (batch, source_length), device = sentences.source_mask.shape, sentences.source_mask.device
        longest = max(sentences.limits)
        # Beams are equal at first: counting all of them would find everything W times.
        totals = torch.full((batch, width), -math.inf, dtype=dtype, device=device)
        totals[:, 0] = 0.0
        return cls(
            totals=totals,
            last_tokens=torch.full((batch, width), special.decoder_start_token_id, device=device),
            tokens=torch.full((batch, width, longest), special.pad_token_id, device=device),
            log_probs=torch.zeros((batch, width, longest), dtype=dtype, device=device),
            coverage=torch.zeros((batch, width, source_length), dtype=dtype, device=device),
        )

    def add_attention(self, attention: Tensor) -> "OpenHypotheses":
        """Add a step's attention over the source (B, W, S) to the coverage."""
        return dataclasses.replace(self, coverage=self.coverage + attention)

    def log_coverage(self, source_mask: Tensor) -> Tensor:
        """Compute Σ_source log(min(Σ_target p, 1)) of every hypothesis (B, W), where p is the attention."""
        smallest = torch.finfo(self.coverage.dtype).tiny  # attention can underflow to 0, whose logarithm is −inf
        terms = self.coverage.clamp(min=smallest, max=1.0).log()
        return terms.masked_fill((source_mask == 0).unsqueeze(1), 0.0).sum(dim=-1)

    def extended(self, continuations: Continuations, length: int) -> tuple[Tensor, Tensor]:
        """Return tokens and log-probabilities (B, C, L) of the continuations, which are ``length`` tokens long."""
        tokens = gather_beams(self.tokens, continuations.beams)
        log_probs = gather_beams(self.log_probs, continuations.beams)
        tokens[:, :, length - 1] = continuations.tokens
        log_probs[:, :, length - 1] = continuations.log_probs
        return tokens, log_probs


@dataclass(frozen=True)
class FinishedHypotheses(_TensorState):
    """The N best hypotheses with an EOS token, best first; −inf and 0 tokens where there are fewer.

    Attributes:
        scores: (B, N).
        lengths: (B, N), tokens with the EOS token.
        tokens: (B, N, L), padded.
        log_probs: (B, N, L), of each token, nats.
        counts: (B,), all that finished so far, also those that are not among the best.
    """

    scores: Tensor
    lengths: Tensor
    tokens: Tensor
    log_probs: Tensor
    counts: Tensor

    @classmethod
    def start(cls, open_hypotheses: OpenHypotheses, number: int, pad_token_id: int) -> "FinishedHypotheses":
        """Build the state before the first step: ``number`` = N empty places per sentence."""
        totals, (batch, _, longest) = open_hypotheses.totals, open_hypotheses.tokens.shape
        return cls(
            scores=totals.new_full((batch, number), -math.inf),
            lengths=totals.new_zeros((batch, number), dtype=torch.long),
            tokens=totals.new_full((batch, number, longest), pad_token_id, dtype=torch.long),
            log_probs=totals.new_zeros((batch, number, longest)),
            counts=totals.new_zeros(batch, dtype=torch.long),
        )

    def merge(
        self, scores: Tensor, origins: Tensor, lengths: Tensor, tokens: Tensor, log_probs: Tensor
    ) -> "FinishedHypotheses":
        """Merge W new hypotheses into these N and keep the N best of all.

        Args:
            scores: (B, N), the N best scores of old and new hypotheses.
            origins: (B, N), the place of each in the concatenation of old and new hypotheses.
            lengths: (B, W), of the new ones; 0 for those that have not ended.
            tokens: (B, W, L), of the new ones.
            log_probs: (B, W, L), of the new ones.
        """
        return FinishedHypotheses(
            scores=scores,
            lengths=torch.cat([self.lengths, lengths], dim=1).gather(1, origins),
            tokens=gather_beams(torch.cat([self.tokens, tokens], dim=1), origins),
            log_probs=gather_beams(torch.cat([self.log_probs, log_probs], dim=1), origins),
            counts=self.counts + (lengths > 0).sum(dim=1),
        )


def gather_beams(values: Tensor, beams: Tensor) -> Tensor:
    """Gather rows of (B, W, …) by ``beams`` (B, any) to (B, any, …)."""
    return values.gather(1, beams.unsqueeze(-1).expand(*beams.shape, values.shape[-1]))


__all__ = ["ChosenContinuations", "Continuations", "FinishedHypotheses", "OpenHypotheses", "Sentences", "gather_beams"]
