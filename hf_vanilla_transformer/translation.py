# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Translate texts with the paper's beam search (§6.1)."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from transformers.utils import logging

from .export.exported_model import ExportedModel
from .model.beam_search_config_vanilla_transformer import BeamSearchConfig
from .model.beam_search_vanilla_transformer import paper_beam_search
from .model.tokenizers_vanilla_transformer import TranslationTokenizers

logger = logging.get_logger(__name__)

_LINES_NAMED = 10  # in a warning; more are only counted


@dataclass(frozen=True)
class ScoredTranslation:
    """A translation with what the search thought of it.

    Attributes:
        text: the translation.
        score: log-probability in nats over the length penalty; 0 where nothing was translated.
    """

    text: str
    score: float


@dataclass
class _Skipped:
    """Texts that were left out, by line number from 1."""

    limit: int  # tokens
    count: int = 0
    lines: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        self.count += 1
        if len(self.lines) < _LINES_NAMED:
            self.lines.append(line)

    def report(self) -> None:
        if not self.count:
            return
        named = ", ".join(map(str, self.lines)) + (", …" if self.count > len(self.lines) else "")
        logger.warning(
            f"{self.count} text(s) of more than {self.limit} tokens became empty translations: line {named}; split "
            "them into sentences, or raise max_source_tokens"
        )


def translate(
    model: Any,
    tokenizer: Any,
    texts: str | Iterable[str],
    config: BeamSearchConfig | None = None,
    *,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    window: int = 1024,
    max_source_tokens: int = 1024,
    return_scores: bool = False,
    target_tokenizer: Any = None,
) -> Any:
    """Translate texts by the paper's beam search.

    Texts are translated in batches of like length and come back in their own order. An empty text, or one of white
    space, becomes an empty translation without the model; so does a text that is too long, with a warning that counts
    such texts and names their lines.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, on the device that is to work; or what `load_engine` gives
            for an exported checkpoint.
        tokenizer: the model's own, or both of them as one `TranslationTokenizers`.
        texts: one text, a list, or anything that yields texts, which is then read ``window`` texts at a time.
        config: settings of the search; None takes the paper's.
        batch_size: most texts per batch.
        batch_tokens: most source tokens a batch, padding included (a single longer text is a batch of its own).
        window: texts among which those of like length are put together.
        max_source_tokens: texts with more tokens, the end symbol included, are not translated.
        return_scores: give `ScoredTranslation` instead of strings.
        target_tokenizer: writes the translations where source and target have vocabularies of their own; None takes the
            folder target_tokenizer beside the weights.

    Returns:
        For one text its translation, for a list a list, for anything else an iterator. With ``num_return_sequences`` > 1 there is
        a list of translations, best first, for each text.

    Raises:
        ValueError: If the tokenizer doesn't fit the model, an argument is out of range, or a text is no string.
    """
    for name, value in {
        "batch_size": batch_size,
        "batch_tokens": batch_tokens,
        "window": window,
        "max_source_tokens": max_source_tokens,
    }.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r} is not a whole number ≥ 1")
    config = BeamSearchConfig() if config is None else config
    tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
    vocabulary = model.config.output_vocab_size
    if config.num_beams > vocabulary:
        raise ValueError(
            f"num_beams={config.num_beams} is more than the {vocabulary} tokens of the vocabulary; the paper's is 4, and wide "
            "beams translate worse"
        )
    if model.config.position_embedding_type == "learned":
        max_source_tokens = min(max_source_tokens, model.config.max_position_embeddings - model.config.position_offset)
    run_search: Any = paper_beam_search
    if isinstance(model, ExportedModel):
        model.check_search(config)
        max_source_tokens = min(max_source_tokens, model.positions or max_source_tokens)
        run_search = type(model).beam_search
    search = functools.partial(run_search, config=config)
    shape = _Shape(config.num_return_sequences, return_scores)
    batches = _Batches(batch_size, batch_tokens, window, max_source_tokens)
    if isinstance(texts, str):
        return next(_translate_all(model, tokenizers, [texts], search, batches, shape))
    translations = _translate_all(model, tokenizers, texts, search, batches, shape)
    return list(translations) if isinstance(texts, Sequence) else translations


@dataclass(frozen=True)
class _Shape:
    """In what form translations are wanted."""

    num_return_sequences: int
    with_scores: bool

    def of(self, hypotheses: list[ScoredTranslation]) -> Any:
        wanted = [hypothesis if self.with_scores else hypothesis.text for hypothesis in hypotheses]
        return wanted if self.num_return_sequences > 1 else wanted[0]

    def empty(self) -> Any:
        return self.of([ScoredTranslation("", 0.0)] * self.num_return_sequences)


@dataclass(frozen=True)
class _Batches:
    """How texts are put together."""

    size: int
    tokens: int
    window: int
    max_source_tokens: int

    def of(self, lengths: dict[int, int]) -> Iterator[list[int]]:
        """Put texts, given as place → tokens, into batches of places; the longest first, so that memory peaks early."""
        batch: list[int] = []
        for place in sorted(lengths, key=lambda place: (-lengths[place], place)):
            if batch and (len(batch) == self.size or (len(batch) + 1) * lengths[batch[0]] > self.tokens):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch


def _translate_all(
    model: Any, tokenizers: TranslationTokenizers, texts: Iterable[str], search: Any, batches: _Batches, shape: _Shape
) -> Iterator[Any]:
    skipped = _Skipped(batches.max_source_tokens)
    iterator, line = iter(texts), 0
    try:
        while window := list(islice(iterator, batches.window)):
            yield from _translate_window(model, tokenizers, window, line, search, batches, shape, skipped)
            line += len(window)
    finally:  # also where the caller stops reading
        skipped.report()


def _translate_window(
    model: Any,
    tokenizers: TranslationTokenizers,
    texts: list[str],
    lines_before: int,
    search: Any,
    batches: _Batches,
    shape: _Shape,
    skipped: _Skipped,
) -> list[Any]:
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"line {lines_before + place + 1} is of type {type(text).__name__}, not a string")
    translations = [shape.empty() for _ in texts]
    written = {place: text for place, text in enumerate(texts) if text.strip()}
    if not written:
        return translations
    encoded = tokenizers.encode_sources(list(written.values()))
    sources: dict[int, list[int]] = {}
    special = {tokenizers.pad_token_id, tokenizers.source.bos_token_id, tokenizers.eos_token_id}
    for place, ids in zip(written, encoded, strict=True):
        if len(ids) > batches.max_source_tokens:
            skipped.add(lines_before + place + 1)
        elif set(ids) - special:  # else nothing is left after the tokenizer's normalisation
            sources[place] = ids
    for batch in batches.of({place: len(ids) for place, ids in sources.items()}):
        for place, hypotheses in zip(
            batch, _translate_batch(model, tokenizers, [sources[p] for p in batch], search), strict=True
        ):
            translations[place] = shape.of(hypotheses)
    return translations


def _translate_batch(
    model: Any, tokenizers: TranslationTokenizers, sources: list[list[int]], search: Any
) -> Iterator[list[ScoredTranslation]]:
    longest = max(map(len, sources))
    pad = tokenizers.pad_token_id if tokenizers.pad_token_id is not None else 0
    ids = torch.tensor([[*source, *[pad] * (longest - len(source))] for source in sources], device=model.device)
    mask = torch.tensor([[1] * len(source) + [0] * (longest - len(source)) for source in sources], device=model.device)
    output = search(model, ids, mask)
    scores = output.sequences_scores.view(len(sources), -1).tolist()
    for hypotheses, their_scores in zip(output.hypotheses(), scores, strict=True):
        texts = tokenizers.batch_decode(hypotheses)
        yield [ScoredTranslation(text, score) for text, score in zip(texts, their_scores, strict=True)]


__all__ = ["ScoredTranslation", "translate"]
