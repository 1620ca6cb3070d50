# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Constraints: phrases that a target must contain, by vectorized dynamic beam allocation.

Post & Vilar 2018 (NAACL) divide a beam into banks by the number of constraint tokens that a hypothesis has, so that
hypotheses with constraints are not displaced by likelier ones without. Hu et al. 2019 (NAACL) compute this for a whole
batch with tensor operations, and take the best hypothesis of each bank in turn, from the fullest bank down; so do we.

Which tokens of a phrase a hypothesis ends with is tracked as in the string search of Knuth, Morris & Pratt, so that
phrases may overlap, and repeat themselves. A hypothesis ends only when it has all phrases. It starts none of them too
late: at most as many tokens are missing as still fit before its limit.
"""

# Shapes: B unfinished sentences · W beam width · C candidates of a sentence · K phrases
#         M tokens of the longest phrase · V vocabulary

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .beam_search_config_vanilla_transformer import BeamSearchConfig
from .beam_search_state_vanilla_transformer import ChosenContinuations, Continuations
from .special_tokens_vanilla_transformer import SpecialTokens
from .token_rules_vanilla_transformer import Phrase, check_tokens

NO_CONSTRAINTS = (  # raised for exported models
    "constraints and terminology are supported by the torch engine only; translate with the checkpoint"
)
MBR_IS_UNRESTRICTED = (
    "mbr chooses among candidates that are drawn without prefixes, constraints and terminology; leave out one of them"
)


@dataclass(frozen=True)
class Progress:
    """How far hypotheses are.

    Attributes:
        met: (…, K), whether a hypothesis has the phrase; True for places without a phrase.
        matched: (…, K), the first tokens of the phrase that the hypothesis ends with; 0 where it is met.
    """

    met: Tensor
    matched: Tensor

    def gather(self, beams: Tensor) -> "Progress":
        """Gather (B, W, K) by ``beams`` (B, any) to (B, any, K)."""
        index = beams.unsqueeze(-1).expand(*beams.shape, self.met.shape[-1])
        return Progress(self.met.gather(1, index), self.matched.gather(1, index))


@dataclass(frozen=True)
class Constraints:
    """The constraints of a batch, and the progress of its open hypotheses. Row i is the i-th unfinished sentence.

    Attributes:
        phrases: (B, K, M) token ids, padded with −1.
        lengths: (B, K), 0 where a sentence has fewer phrases.
        fallback: (B, K, M), the tokens that still match when the token after the first m tokens doesn't.
        limits: (B,), the most tokens of a hypothesis.
        progress: (B, W, K), of the open hypotheses.
        eos_ids: the EOS tokens.
    """

    phrases: Tensor
    lengths: Tensor
    fallback: Tensor
    limits: Tensor
    progress: Progress
    eos_ids: Tensor

    @classmethod
    def of(
        cls,
        phrases: list[list[Phrase]],
        limits: list[int],
        num_beams: int,
        special: SpecialTokens,
        device: torch.device,
    ) -> "Constraints":
        """Build the state before the first step.

        Args:
            phrases: of each sentence, from `checked_constraints`.
            limits: of each sentence, the most tokens of a hypothesis.
            num_beams: W.
            special: the special tokens.
            device: of the logits.
        """
        most = max(map(len, phrases))
        longest = max(len(phrase) for of_sentence in phrases for phrase in of_sentence)
        padded = [[*of_sentence, *[()] * (most - len(of_sentence))] for of_sentence in phrases]
        ids = [[[*phrase, *[-1] * (longest - len(phrase))] for phrase in row] for row in padded]
        fallback = [[_fallbacks(phrase, longest) for phrase in row] for row in padded]
        lengths = torch.tensor([[len(phrase) for phrase in row] for row in padded], device=device)
        met = (lengths == 0).unsqueeze(1).expand(-1, num_beams, -1)
        return cls(
            phrases=torch.tensor(ids, device=device),
            lengths=lengths,
            fallback=torch.tensor(fallback, device=device),
            limits=torch.tensor(limits, device=device),
            progress=Progress(met, torch.zeros_like(met, dtype=torch.long)),
            eos_ids=torch.tensor(special.eos_token_id, device=device),
        )

    def select(self, rows: list[int]) -> "Constraints":
        """Return the state of these sentences, in this order."""
        return dataclasses.replace(
            self,
            phrases=self.phrases[rows],
            lengths=self.lengths[rows],
            fallback=self.fallback[rows],
            limits=self.limits[rows],
            progress=Progress(self.progress.met[rows], self.progress.matched[rows]),
        )

    def choose(
        self, logits: Tensor, normalizer: Tensor, totals: Tensor, length: int
    ) -> tuple[ChosenContinuations, "Constraints"]:
        """Choose the continuations of the open hypotheses by one token.

        Args:
            logits: (B, W, V); −∞ for tokens that may not follow.
            normalizer: (B, W), log Σ exp of the unrestricted logits.
            totals: (B, W), log-probability of each hypothesis so far, nats.
            length: tokens of a continuation.

        Returns:
            The continuations, and the state after this step. Hypotheses end as in a search without constraints, among
            the W best continuations of those that have all phrases.
        """
        candidates = self._candidates(logits, normalizer, totals)
        width = totals.shape[1]
        is_eos = torch.isin(candidates.tokens, self.eos_ids)  # (B, C)
        complete = (self._missing(self.progress) == 0).gather(1, candidates.beams)
        after = self._advance(self.progress.gather(candidates.beams), candidates.tokens)
        missing = self._missing(after)
        too_late = missing > (self.limits - length - 1).unsqueeze(-1)
        possible = candidates.totals.masked_fill(torch.where(is_eos, ~complete, too_late), -math.inf)

        ending = _take(candidates, *possible.masked_fill(~complete, -math.inf).topk(width))
        ended = torch.isin(ending.tokens, self.eos_ids) & (ending.totals > -math.inf)
        banks = self.lengths.sum(dim=-1, keepdim=True) - missing  # constraint tokens that a hypothesis has
        values, order = _best_of_banks(possible.masked_fill(is_eos, -math.inf), banks, width)
        kept = _take(candidates, values, order)
        return ChosenContinuations(ending, ended, kept), dataclasses.replace(self, progress=after.gather(order))

    def _candidates(self, logits: Tensor, normalizer: Tensor, totals: Tensor) -> Continuations:
        """List each hypothesis' most probable continuations and those by the next token of its phrases, unsorted."""
        batch, width, vocabulary = logits.shape
        number = min((1 + len(self.eos_ids)) * width, vocabulary)
        best, tokens = logits.topk(number)  # (B, W, number)
        # The next token of each phrase, unless it is met, is among the most probable, or is that of another phrase.
        following = self.phrases.unsqueeze(1).expand(-1, width, -1, -1)
        following = following.gather(-1, self.progress.matched.unsqueeze(-1)).squeeze(-1).clamp(min=0)  # (B, W, K)
        known = self.progress.met | (following.unsqueeze(-1) == tokens.unsqueeze(-2)).any(dim=-1)
        earlier = torch.ones(following.shape[-1], following.shape[-1], device=logits.device).tril(-1).bool()
        same = (following.unsqueeze(-1) == following.unsqueeze(-2)) & ~self.progress.met.unsqueeze(-2) & earlier
        known = known | same.any(dim=-1)
        added = logits.gather(-1, following).masked_fill(known, -math.inf)
        log_probs = torch.cat([best, added], dim=-1).to(totals.dtype) - normalizer.unsqueeze(-1)
        tokens = torch.cat([tokens, following], dim=-1)  # (B, W, number + K)
        beams = torch.arange(width, device=logits.device).view(1, width, 1).expand_as(tokens)
        return Continuations(
            beams.flatten(1), tokens.flatten(1), log_probs.flatten(1), (totals.unsqueeze(-1) + log_probs).flatten(1)
        )

    def _advance(self, progress: Progress, tokens: Tensor) -> Progress:
        """Return the progress after one more token each.

        Args:
            progress: (B, C, K).
            tokens: (B, C).
        """
        shape = (*tokens.shape, *self.phrases.shape[1:])  # (B, C, K, M)
        phrases, fallback = (values.unsqueeze(1).expand(shape) for values in (self.phrases, self.fallback))
        matched = progress.matched
        for _ in range(self.phrases.shape[-1] - 1):
            fits = phrases.gather(-1, matched.unsqueeze(-1)).squeeze(-1) == tokens.unsqueeze(-1)
            matched = torch.where(fits, matched, fallback.gather(-1, matched.unsqueeze(-1)).squeeze(-1))
        fits = phrases.gather(-1, matched.unsqueeze(-1)).squeeze(-1) == tokens.unsqueeze(-1)
        matched = torch.where(fits, matched + 1, 0)
        met = progress.met | (matched == self.lengths.unsqueeze(1))
        return Progress(met, matched.masked_fill(met, 0))

    def _missing(self, progress: Progress) -> Tensor:
        """Compute how many tokens are missing at most: (B, any, K) → (B, any).

        The phrase that is furthest is continued, then the others follow one by one.
        """
        lengths = self.lengths.unsqueeze(1).masked_fill(progress.met, 0).sum(dim=-1)
        return lengths - progress.matched.amax(dim=-1)


def _take(candidates: Continuations, values: Tensor, order: Tensor) -> Continuations:
    """Return candidates (B, C) in ``order`` (B, W), with the totals ``values``."""
    return Continuations(
        candidates.beams.gather(1, order),
        candidates.tokens.gather(1, order),
        candidates.log_probs.gather(1, order),
        values,
    )


def _best_of_banks(totals: Tensor, banks: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Find the best candidate of each bank, then the second best of each, and so on, from the fullest bank down.

    Args:
        totals: (B, C); −∞ for candidates that are not possible.
        banks: (B, C), the bank of each, 0 or more.
        number: W, how many to find.

    Returns:
        Totals and places (B, W) of those that were found, the highest total first.
    """
    banks = banks.masked_fill(totals == -math.inf, -1)
    by_total = totals.argsort(dim=-1, descending=True, stable=True)
    by_bank = banks.gather(1, by_total).argsort(dim=-1, descending=True, stable=True)
    order = by_total.gather(1, by_bank)  # the fullest bank first, within a bank the highest total
    sorted_banks = banks.gather(1, order)
    place = torch.arange(banks.shape[1], device=banks.device).expand_as(banks)
    is_first = torch.ones_like(sorted_banks, dtype=torch.bool)
    is_first[:, 1:] = sorted_banks[:, 1:] != sorted_banks[:, :-1]
    rank = place - place.masked_fill(~is_first, 0).cummax(dim=-1).values  # within its bank
    most = banks.amax() + 2
    turn = rank * most + (most - 1 - sorted_banks)
    turn = torch.where(sorted_banks < 0, turn.amax() + 1 + place, turn)
    found = order.gather(1, turn.topk(number, largest=False).indices)
    values, sorting = totals.gather(1, found).sort(dim=-1, descending=True, stable=True)
    return values, found.gather(1, sorting)


def _fallbacks(phrase: Phrase, size: int) -> list[int]:
    """For m = 0, …, ``size`` − 1: the longest beginning of a phrase that ends its first m tokens, shorter than m."""
    fallback = [0] * size
    for m in range(2, len(phrase)):
        matched = fallback[m - 1]
        while matched and phrase[matched] != phrase[m - 1]:
            matched = fallback[matched]
        fallback[m] = matched + 1 if phrase[matched] == phrase[m - 1] else 0
    return fallback


def checked_constraints(
    constraints: Any, batch: int, vocabulary: int, special: SpecialTokens, config: BeamSearchConfig
) -> list[list[Phrase]] | None:
    """Return the phrases of each target, without those that are part of another one; None where there are none.

    Args:
        constraints: for each sentence a sequence of phrases, each a sequence of token ids, or None; or None.
        batch: number of sentences.
        vocabulary: number of tokens that can be generated.
        special: the special tokens.
        config: settings of the search.

    Raises:
        ValueError: If there are constraints of more or fewer sentences, or a phrase is empty, has a token that cannot
            be in a target, or contains a banned word.
    """
    if constraints is None:
        return None
    if len(constraints) != batch:
        raise ValueError(
            f"there are constraints for {len(constraints)} of {batch} sentences; give a list of phrases for each, [] "
            "for none"
        )
    checked: list[list[Phrase]] = []
    for phrases in constraints:
        unique = dict.fromkeys(tuple(int(token) for token in phrase) for phrase in phrases or ())
        for phrase in unique:
            if not phrase:
                raise ValueError("a constraint is empty; leave it out")
            check_tokens("constraint", phrase, vocabulary, special)
            for word in config.bad_words_ids or ():
                if contains_phrase(phrase, word):
                    raise ValueError(f"the constraint {list(phrase)} contains the banned {list(word)}; allow it")
        checked.append(
            [
                phrase
                for phrase in unique
                if not any(contains_phrase(other, phrase) for other in unique if other != phrase)
            ]
        )
    return checked if any(checked) else None


def contains_phrase(phrase: Phrase, part: Phrase) -> bool:
    """Return whether token ids contain those of ``part`` in a row."""
    return any(tuple(phrase[start : start + len(part)]) == tuple(part) for start in range(len(phrase) - len(part) + 1))


__all__ = ["MBR_IS_UNRESTRICTED", "NO_CONSTRAINTS", "Constraints", "checked_constraints", "contains_phrase"]
