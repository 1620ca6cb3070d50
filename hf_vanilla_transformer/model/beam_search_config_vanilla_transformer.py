# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The settings of the paper's beam search (§6.1), validated once and passed as one object."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

LENGTH_NORMALIZATIONS = ("gnmt", "power")


@dataclasses.dataclass(frozen=True)
class BeamSearchConfig:
    """Settings of `paper_beam_search`. The defaults are the paper's (§6.1): beam 4, α = 0.6, source + 50 tokens.

    Settings that share a name with transformers' `GenerationConfig` have the same meaning, with two exceptions:
    ``length_penalty`` under ``length_normalization="gnmt"`` is the exponent of another function of the length, and
    ``early_stopping=False`` is exact, while transformers' False is an estimate.

    Settings that are off by default add no work to a search. Restrictions of single sentences, their prefixes and
    constraints, are arguments of `paper_beam_search` and `translate`.

    Attributes:
        num_beams: beam size, the number of unfinished hypotheses kept per source sentence; 1 is greedy search. (§6.1:
            "beam size of 4"; transformers' name.)
        num_return_sequences: hypotheses to return per sentence, at most ``num_beams``. (transformers' name.)
        length_penalty: exponent α of the length normalization by which log-probabilities are divided; 0 means no
            normalization. (§6.1: α = 0.6. transformers' name; the same meaning only under "power".)
        length_normalization: the divisor, where n counts the generated tokens including EOS. "gnmt" is
            ((5 + n) / 6)^α, the paper's (§6.1, from Wu et al. 2016, Eq. 14); "power" is n^α, as in `generate`, Marian,
            fairseq and CTranslate2.
        early_stopping: when to stop the search for a sentence. False or "never": once no unfinished hypothesis can
            outscore the worst of the ``num_return_sequences`` best finished ones, which is exact. True: as soon as
            ``num_beams`` hypotheses are finished, which is faster and may miss a better hypothesis. (transformers'
            name. We read the paper's "terminate early when possible" as stopping when the result can no longer
            change, hence the default.)
        coverage_penalty: β ≥ 0 of Wu et al. 2016, Eq. 14: adds β Σ_source log(min(Σ_target p, 1)) to the score of a
            finished hypothesis, where p is the encoder-decoder attention of the last decoder layer, averaged over
            heads (our choice; Wu et al. have a single attention). 0 disables it; Vaswani et al. mention none.
        max_extra_tokens: how many tokens longer than its source a target may be; both lengths include EOS. (§6.1:
            "input length + 50".)
        max_target_tokens: maximum target length in tokens, including EOS; None means no maximum. With learned
            positions, their number is a limit too. (Not in the paper.)
        min_length: minimum target length in tokens, with its prefix and EOS; 0 sets no minimum. (transformers' name;
            its count has the decoder start token instead of EOS, which is the same number.)
        min_new_tokens: minimum number of tokens between prefix and EOS, neither included; 0 sets no minimum.
            (transformers' name and meaning.) Where a minimum exceeds the maximum length of a target, the maximum holds.
        no_repeat_ngram_size: n-grams of this many tokens occur at most once in a target; 0 allows repetitions.
            (transformers' name and meaning; proposed by Paulus et al. 2018, §2.5, with n = 3.)
        bad_words_ids: sequences of token ids that are never generated; None bans nothing. EOS alone cannot be banned.
            (transformers' name and meaning; the negative constraints of Hu et al. 2019.) `translate` takes them as
            text, by ``banned``.

    Raises:
        ValueError: If a value is out of range; the message names it and says what to choose.
    """

    num_beams: int = 4
    num_return_sequences: int = 1
    length_penalty: float = 0.6
    length_normalization: str = "gnmt"
    early_stopping: bool | str = False
    coverage_penalty: float = 0.0
    max_extra_tokens: int = 50
    max_target_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0
    bad_words_ids: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        check_integer("num_beams", self.num_beams, minimum=1)
        check_integer("num_return_sequences", self.num_return_sequences, minimum=1)
        check_integer("max_extra_tokens", self.max_extra_tokens, minimum=0)
        if self.max_target_tokens is not None:
            check_integer("max_target_tokens", self.max_target_tokens, minimum=1)
        for name in ("min_length", "min_new_tokens", "no_repeat_ngram_size"):
            check_integer(name, getattr(self, name), minimum=0)
        if self.max_target_tokens is not None:
            shortest = {
                "min_length": self.min_length,
                "min_new_tokens": self.min_new_tokens and self.min_new_tokens + 1,
            }
            for name, tokens in shortest.items():
                if tokens > self.max_target_tokens:
                    raise ValueError(
                        f"{name}={getattr(self, name)} needs {tokens} tokens with EOS, more than "
                        f"max_target_tokens={self.max_target_tokens}; choose a smaller minimum or a larger maximum"
                    )
        if self.bad_words_ids is not None:  # tuples, so that the settings stay hashable
            object.__setattr__(self, "bad_words_ids", _checked_words(self.bad_words_ids))
        if self.length_normalization not in LENGTH_NORMALIZATIONS:
            raise ValueError(
                f"length_normalization={self.length_normalization!r} is unknown; choose 'gnmt', which divides by "
                "((5 + n) / 6)^α, or 'power', which divides by n^α, and give the exponent α as length_penalty"
            )
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise ValueError(f"early_stopping={self.early_stopping!r} is unknown; choose True, False or 'never'")
        _check_finite("length_penalty", self.length_penalty)
        _check_finite("coverage_penalty", self.coverage_penalty)
        if self.coverage_penalty < 0:
            raise ValueError(
                f"coverage_penalty={self.coverage_penalty} would reward uncovered source words; choose ≥ 0"
            )
        if self.num_return_sequences > self.num_beams:
            raise ValueError(
                f"num_return_sequences={self.num_return_sequences} is more than num_beams={self.num_beams} can find; "
                "choose a wider beam"
            )

    def replace(self, **changes: Any) -> "BeamSearchConfig":
        """Return a copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def banning(self, sequences: Sequence[Sequence[int]]) -> "BeamSearchConfig":
        """Return a copy that also never generates these sequences of token ids."""
        return self.replace(bad_words_ids=[*(self.bad_words_ids or ()), *sequences]) if sequences else self

    @property
    def restricts_tokens(self) -> bool:
        """Return whether a setting bans tokens: minimum length, repeated n-grams or banned words."""
        return bool(self.min_length or self.min_new_tokens or self.no_repeat_ngram_size or self.bad_words_ids)

    def length_divisor(self, length: Any) -> Any:
        """Compute the divisor of a log-probability, which compensates for the length of a target (§6.1).

        Args:
            length: n, the number of generated tokens including EOS; a number or a tensor.
        """
        base = (5 + length) / 6 if self.length_normalization == "gnmt" else length
        return base**self.length_penalty


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Check that an argument is an integer of at least ``minimum``.

    Raises:
        ValueError: If it isn't; the message names the argument.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name}={value!r} is not an integer ≥ {minimum}")


def _checked_words(words: Any) -> tuple[tuple[int, ...], ...]:
    if isinstance(words, str) or not isinstance(words, Sequence) or not all(_is_token_list(word) for word in words):
        raise ValueError(
            f"bad_words_ids={words!r} is not a list of lists of token ids, e.g. [[5], [6, 7]]; `translate` takes "
            "text, as banned"
        )
    return tuple(tuple(int(token) for token in word) for word in words)


def _is_token_list(word: Any) -> bool:
    return (
        isinstance(word, Sequence)
        and len(word) > 0
        and all(
            isinstance(token, numbers.Integral) and not isinstance(token, bool) and int(token) >= 0 for token in word
        )
    )


def _check_finite(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} is not a finite number")


__all__ = ["LENGTH_NORMALIZATIONS", "BeamSearchConfig", "check_integer"]
