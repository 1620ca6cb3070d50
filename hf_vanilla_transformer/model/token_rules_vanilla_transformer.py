# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Rules for the next token of a hypothesis: prefixes, minimum length, banned words, no repeated n-grams.

A rule sets the logits of tokens to −∞; it never changes the others, so log-probabilities stay the model's. A search
without such settings has no rules, and does nothing here.
"""

# Shapes: B unfinished sentences · W beam width · V vocabulary · T tokens chosen so far · P phrases
#         G windows of n tokens

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .beam_search_config_vanilla_transformer import BeamSearchConfig
from .special_tokens_vanilla_transformer import SpecialTokens

Phrase = Sequence[int]  # token ids


class _Rule(Protocol):
    def ban(self, logits: Tensor, tokens: Tensor, places: list[int], limits: list[int]) -> None:
        """Set the logits (B, W, V) of the banned tokens to −∞; see `TokenRules.ban`."""


class TokenRules:
    """The rules of one search."""

    def __init__(
        self, config: BeamSearchConfig, special: SpecialTokens, prefixes: list[list[int]] | None, device: torch.device
    ) -> None:
        """Collect the rules of the settings.

        Args:
            config: settings of the search.
            special: the special tokens.
            prefixes: first tokens of each sentence's target; None or [] where it has none.
            device: of the logits.
        """
        self.device = device
        self.prefixes = prefixes if prefixes is not None and any(prefixes) else None
        self._rules: list[_Rule] = []
        if config.min_length or config.min_new_tokens:
            self._rules.append(_MinimumLength(config, special, self.prefixes, device))
        if config.no_repeat_ngram_size:
            self._rules.append(_NoRepeatedNgrams(config.no_repeat_ngram_size))
        self._rules += _banned_words(config.bad_words_ids or (), special, device)

    def __bool__(self) -> bool:
        """Return whether there are any rules."""
        return self.prefixes is not None or bool(self._rules)

    def ban(self, logits: Tensor, tokens: Tensor, places: list[int], limits: list[int]) -> None:
        """Set the logits of banned tokens to −∞.

        Args:
            logits: (B, W, V), of the next token.
            tokens: (B, W, T), the tokens chosen so far, without the decoder start token.
            places: of each sentence, its place in the batch that is searched.
            limits: of each sentence, the most tokens of a hypothesis.
        """
        for rule in self._rules:
            rule.ban(logits, tokens, places, limits)

    def prefix_logits(self, logits: Tensor, places: list[int], length: int) -> "PrefixLogits | None":
        """Read the logits of the next prefix tokens, before any token is banned; None where there are none.

        Args:
            logits: (B, W, V), of the next token.
            places: as in `ban`.
            length: tokens of a hypothesis with the next one.
        """
        if self.prefixes is None:
            return None
        rows = [row for row, place in enumerate(places) if len(self.prefixes[place]) >= length]
        if not rows:
            return None
        index = torch.tensor(rows, device=self.device)
        tokens = torch.tensor([self.prefixes[places[row]][length - 1] for row in rows], device=self.device)
        return PrefixLogits(index, tokens, logits[index, :, tokens])


@dataclass(frozen=True)
class PrefixLogits:
    """The logits of the tokens by which prefixes continue.

    Attributes:
        rows: (R,), rows of the sentences whose prefix is longer than their hypotheses.
        tokens: (R,), the next token of each prefix.
        values: (R, W), its logits.
    """

    rows: Tensor
    tokens: Tensor
    values: Tensor

    def force(self, logits: Tensor) -> None:
        """Leave only the prefix's token to each of the rows of ``logits`` (B, W, V), even if a rule bans it."""
        logits[self.rows] = -math.inf
        logits[self.rows, :, self.tokens] = self.values


class _MinimumLength:
    """Ban EOS tokens in short hypotheses, unless they are at their limit."""

    def __init__(
        self, config: BeamSearchConfig, special: SpecialTokens, prefixes: list[list[int]] | None, device: torch.device
    ) -> None:
        self.eos_ids = torch.tensor(special.eos_token_id, device=device)
        self.config, self.prefixes = config, prefixes

    def minimum(self, place: int) -> int:
        """Return the fewest tokens of a target, with EOS."""
        prefix = 0 if self.prefixes is None else len(self.prefixes[place])
        new = self.config.min_new_tokens
        return max(self.config.min_length, prefix + new + 1 if new else 0)

    def ban(self, logits: Tensor, tokens: Tensor, places: list[int], limits: list[int]) -> None:
        """See `TokenRules.ban`."""
        length = tokens.shape[-1] + 1
        short = [length < min(self.minimum(place), limit) for place, limit in zip(places, limits, strict=True)]
        if all(short):
            logits.index_fill_(-1, self.eos_ids, -math.inf)
        elif any(short):
            rows = torch.tensor(short, device=logits.device)
            logits[rows] = logits[rows].index_fill(-1, self.eos_ids, -math.inf)


class _NoRepeatedNgrams:
    """Ban tokens that would repeat an n-gram of the hypothesis."""

    def __init__(self, size: int) -> None:
        self.size = size

    def ban(self, logits: Tensor, tokens: Tensor, places: list[int], limits: list[int]) -> None:
        """See `TokenRules.ban`."""
        if tokens.shape[-1] < self.size:
            return
        windows = tokens.unfold(-1, self.size, 1)  # (B, W, G, n)
        last = tokens[..., tokens.shape[-1] - self.size + 1 :]  # (B, W, n − 1)
        repeated = (windows[..., :-1] == last.unsqueeze(2)).all(dim=-1)  # (B, W, G)
        _ban_where(repeated, windows[..., -1], logits)


class _BannedTokens:
    """Ban single tokens."""

    def __init__(self, ids: list[int], device: torch.device) -> None:
        self.ids = torch.tensor(ids, device=device)

    def ban(self, logits: Tensor, tokens: Tensor, places: list[int], limits: list[int]) -> None:
        """See `TokenRules.ban`."""
        logits.index_fill_(-1, self.ids, -math.inf)


class _BannedPhrases:
    """Ban the last token of phrases of the same length, where the tokens before it are the hypothesis' last ones."""

    def __init__(self, phrases: list[Phrase], device: torch.device) -> None:
        self.phrases = torch.tensor([list(phrase) for phrase in phrases], device=device)  # (P, n)

    def ban(self, logits: Tensor, tokens: Tensor, places: list[int], limits: list[int]) -> None:
        """See `TokenRules.ban`."""
        start = tokens.shape[-1] - self.phrases.shape[1] + 1
        if start < 0:
            return
        matches = (tokens[:, :, None, start:] == self.phrases[:, :-1]).all(dim=-1)  # (B, W, P)
        _ban_where(matches, self.phrases[:, -1].expand(matches.shape), logits)


def _ban_where(banned: Tensor, tokens: Tensor, logits: Tensor) -> None:
    """Set the logits (B, W, V) of ``tokens`` (B, W, any) to −∞ where ``banned`` (B, W, any)."""
    values = torch.full(tokens.shape, math.inf, dtype=logits.dtype, device=logits.device)
    logits.scatter_reduce_(-1, tokens, values.masked_fill(banned, -math.inf), "amin")


def _banned_words(words: Sequence[Phrase], special: SpecialTokens, device: torch.device) -> list[_Rule]:
    """Build the rules for banned words, one per length."""
    # As in transformers, an EOS token alone can't be banned. Other special tokens are never generated anyway.
    singles = {word[0] for word in words if len(word) == 1} - {*special.eos_token_id, *special.suppress_tokens}
    rules: list[_Rule] = [_BannedTokens(sorted(singles), device)] if singles else []
    for length in sorted({len(word) for word in words} - {1}):
        rules.append(_BannedPhrases([word for word in words if len(word) == length], device))
    return rules


def checked_prefixes(prefixes: Any, batch: int, vocabulary: int, special: SpecialTokens) -> list[list[int]] | None:
    """Return the prefixes of a batch as lists of token ids; None where no sentence has one.

    Args:
        prefixes: one sequence of token ids per sentence, None or empty where it has none; or None.
        batch: number of sentences.
        vocabulary: number of tokens that can be generated.
        special: the special tokens.

    Raises:
        ValueError: If there are more or fewer prefixes than sentences, or one has a token that cannot be in a target.
    """
    if prefixes is None:
        return None
    lists = [[] if prefix is None else [int(token) for token in prefix] for prefix in prefixes]
    if len(lists) != batch:
        raise ValueError(f"there are {len(lists)} prefixes for {batch} sentences; give one for each, [] for none")
    for prefix in lists:
        check_tokens("prefix", prefix, vocabulary, special)
    return lists if any(lists) else None


def check_tokens(name: str, tokens: Phrase, vocabulary: int, special: SpecialTokens) -> None:
    """Check that a target can have tokens before its end.

    Args:
        name: what they are, for messages.
        tokens: token ids.
        vocabulary: number of tokens that can be generated.
        special: the special tokens.

    Raises:
        ValueError: If one is no token of the vocabulary, is an EOS token, or is never generated.
    """
    for token in tokens:
        if not 0 <= token < vocabulary:
            raise ValueError(f"the {name} {list(tokens)} has the id {token}; the vocabulary has ids below {vocabulary}")
        if token in special.eos_token_id or token in special.suppress_tokens:
            raise ValueError(
                f"the {name} {list(tokens)} has the special token {token}; leave out EOS, BOS, padding and the decoder "
                "start token"
            )


def check_banned_words(config: BeamSearchConfig, vocabulary: int) -> None:
    """Raise ValueError if ``bad_words_ids`` has an id that is not in the vocabulary."""
    highest = max((token for word in config.bad_words_ids or () for token in word), default=0)
    if highest >= vocabulary:
        raise ValueError(f"bad_words_ids has the id {highest}; the vocabulary has ids below {vocabulary}")


__all__ = ["Phrase", "PrefixLogits", "TokenRules", "check_banned_words", "check_tokens", "checked_prefixes"]
