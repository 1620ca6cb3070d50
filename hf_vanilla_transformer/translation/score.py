# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Score given translations: the log-probability of each target given its source, e.g. to filter parallel text."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypedDict, Unpack, overload

import torch
from transformers.utils import logging

from ..model.beam_search_config_vanilla_transformer import check_integer
from ..model.beam_search_vanilla_transformer import score_targets
from ..model.ensemble_vanilla_transformer import Ensemble, unwrap_model
from ..model.loss_vanilla_transformer import IGNORE_INDEX
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .batches import Batches, Lines, number_of_workers, padded

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class PairScore:
    """The score of a target given its source.

    Attributes:
        log_prob: log-probability of the target in nats, with that of its EOS token; −∞ for a pair that is not scored.
        token_log_probs: the log-probability of each token, whose sum is ``log_prob``; empty for a pair that is not
            scored.
        token_ids: the tokens of the target, with the EOS token.
    """

    log_prob: float
    token_log_probs: tuple[float, ...]
    token_ids: tuple[int, ...]

    @property
    def mean_log_prob(self) -> float:
        """The log-probability per token, which makes targets of different lengths comparable."""
        return self.log_prob / len(self.token_ids) if self.token_ids else self.log_prob


_NOT_SCORED = PairScore(-math.inf, (), ())


class ScoreOptions(TypedDict, total=False):
    """The keyword arguments of `score`, for its overloads."""

    batch_size: int
    batch_tokens: int
    window: int
    max_source_tokens: int
    max_target_tokens: int
    target_tokenizer: Any
    workers: int | None
    on_batch: Callable[[int], None] | None


@overload
def score(  # type: ignore[overload-overlap]  # a string is a sequence of strings as well
    model: Any, tokenizer: Any, sources: str, targets: str, **options: Unpack[ScoreOptions]
) -> PairScore: ...
@overload
def score(  # type: ignore[overload-overlap]
    model: Any, tokenizer: Any, sources: Sequence[str], targets: Sequence[str], **options: Unpack[ScoreOptions]
) -> list[PairScore]: ...
@overload
def score(
    model: Any, tokenizer: Any, sources: Iterable[str], targets: Iterable[str], **options: Unpack[ScoreOptions]
) -> Iterator[PairScore]: ...
def score(
    model: Any,
    tokenizer: Any,
    sources: str | Iterable[str],
    targets: str | Iterable[str],
    *,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    window: int = 1024,
    max_source_tokens: int = 1024,
    max_target_tokens: int = 1024,
    target_tokenizer: Any = None,
    workers: int | None = 1,
    on_batch: Callable[[int], None] | None = None,
) -> Any:
    """Score targets given their sources, by teacher forcing.

    Pairs of similar length are scored in one batch; results are in the order of the pairs. A pair is not scored, and
    has a log-probability of −∞, if its source or target is empty or blank, or has too many tokens. A warning counts
    these pairs and lists their lines.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, on the device to use.
        tokenizer: the model's tokenizer, or `TranslationTokenizers` with both.
        sources: one text, a list, or any other iterable, which is read ``window`` texts at a time.
        targets: as many texts.
        batch_size: most pairs per batch.
        batch_tokens: most source and target tokens per batch, with padding; one pair with more is a batch by itself.
        window: pairs that are read, and sorted by length, at a time.
        max_source_tokens, max_target_tokens: most tokens per text, with the EOS token.
        target_tokenizer: encodes the targets where source and target have separate vocabularies; None loads the
            directory target_tokenizer beside the weights.
        workers: processes that score batches side by side on the CPU; see `translate`.
        on_batch: called after each batch with the number of its pairs.

    Returns:
        A `PairScore` for two strings, a list for two lists, and an iterator for other iterables.

    Raises:
        ValueError: If there are more sources than targets or the reverse, the tokenizer doesn't fit the model, the
            model is not supported, an argument is out of range, or a text is not a string.
        ChildProcessError: If a worker process was killed.
    """
    for name, value in (
        ("batch_size", batch_size),
        ("batch_tokens", batch_tokens),
        ("window", window),
        ("max_source_tokens", max_source_tokens),
        ("max_target_tokens", max_target_tokens),
    ):
        check_integer(name, value, minimum=1)
    if isinstance(model, (list, tuple, Ensemble)):
        raise ValueError("score takes one model; score_targets scores token ids with an ensemble")
    if not isinstance(model, torch.nn.Module):
        raise ValueError(
            f"an exported model ({type(model).__name__}) can only translate; score with the checkpoint it was exported "
            "from"
        )
    if isinstance(sources, str) != isinstance(targets, str):
        raise ValueError("sources and targets have to be two strings, or two lists or other iterables of strings")
    workers = number_of_workers(model, workers)
    tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
    limit = unwrap_model(model).max_sequence_length
    if limit is not None:
        max_source_tokens, max_target_tokens = min(max_source_tokens, limit), min(max_target_tokens, limit)
    limits = (max_source_tokens, max_target_tokens)
    scorer = _Scorer(model, tokenizers, window, batch_size, batch_tokens, limits, workers, on_batch)
    if isinstance(sources, str):
        (only,) = scorer.score([sources], [targets])  # type: ignore[list-item]
        return only
    scores = scorer.score(sources, targets)
    return list(scores) if isinstance(sources, Sequence) and isinstance(targets, Sequence) else scores


@dataclass
class _Scorer:
    """Score pairs, a window at a time. Attributes are the arguments of `score`; ``limits`` are both lengths."""

    model: Any
    tokenizers: TranslationTokenizers
    window: int
    batch_size: int
    batch_tokens: int
    limits: tuple[int, int]
    workers: int
    on_batch: Callable[[int], None] | None

    def score(self, sources: Iterable[str], targets: Iterable[str]) -> Iterator[PairScore]:
        """Yield the score of each pair."""
        empty, too_long = Lines(), Lines()
        pairs, lines_before = _zipped(sources, targets), 0
        with ExitStack() as stack:
            stack.callback(self._warn, empty, too_long)  # also where the caller stops reading
            batches = Batches(
                self._score, lambda pair: tuple(map(len, pair)), self.batch_size, self.batch_tokens, self.workers, stack
            )
            while window := list(islice(pairs, self.window)):
                encoded = self._encode(window, lines_before, empty, too_long)
                scores = [_NOT_SCORED] * len(window)
                for batch, rows in batches.results(encoded):
                    for place, row in zip(batch, rows, strict=True):
                        scores[place] = PairScore(math.fsum(row), tuple(row), tuple(encoded[place][1]))
                    if self.on_batch is not None:
                        self.on_batch(len(batch))
                yield from scores
                lines_before += len(window)

    def _encode(
        self, pairs: list[tuple[str, str]], lines_before: int, empty: Lines, too_long: Lines
    ) -> dict[int, tuple[list[int], list[int]]]:
        """Return the token ids of the pairs that can be scored, by their place in ``pairs``."""
        for line, pair in enumerate(pairs, start=lines_before + 1):
            for text in pair:
                if not isinstance(text, str):
                    raise ValueError(f"line {line} is of type {type(text).__name__}, not a string")
        places = [place for place, pair in enumerate(pairs) if all(map(str.strip, pair))]
        for place in sorted(set(range(len(pairs))) - set(places)):
            empty.add(lines_before + place + 1)
        sources = self.tokenizers.encode_sources([pairs[place][0] for place in places])
        targets = self.tokenizers.encode_targets([pairs[place][1] for place in places])
        encoded = {}
        for place, source, target in zip(places, sources, targets, strict=True):
            if len(source) > self.limits[0] or len(target) > self.limits[1]:
                too_long.add(lines_before + place + 1)
            else:
                encoded[place] = (source, target)
        return encoded

    def _score(self, pairs: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        """Return the log-probabilities of the target tokens of each pair."""
        pad, device = self.tokenizers.pad_token_id or 0, self.model.device
        sources, targets = zip(*pairs, strict=True)
        output = score_targets(
            self.model,
            padded(sources, pad, device),
            padded([[1] * len(ids) for ids in sources], 0, device),
            padded(targets, IGNORE_INDEX, device),
        )
        assert output.token_log_probs is not None
        rows = output.token_log_probs.tolist()
        return [row[: len(ids)] for row, ids in zip(rows, targets, strict=True)]

    def _warn(self, empty: Lines, too_long: Lines) -> None:
        if empty.count:
            logger.warning(
                f"{empty.count} pair(s) with an empty source or target are not scored and have −inf: {empty}"
            )
        if too_long.count:
            logger.warning(
                f"{too_long.count} pair(s) of more than {self.limits[0]} source or {self.limits[1]} target tokens are "
                f"not scored and have −inf: {too_long}; raise max_source_tokens or max_target_tokens"
            )


_MISSING: Any = object()


def _zipped(sources: Iterable[str], targets: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs.

    Raises:
        ValueError: If one side ends before the other.
    """
    targets = chain(targets, [_MISSING])
    count = 0
    for source in sources:
        target = next(targets)
        if target is _MISSING:
            raise ValueError(f"there are only {count} targets and more sources; line n of both has to be one pair")
        count += 1
        yield source, target
    if next(targets) is not _MISSING:
        raise ValueError(f"there are only {count} sources and more targets; line n of both has to be one pair")


__all__ = ["PairScore", "score"]
