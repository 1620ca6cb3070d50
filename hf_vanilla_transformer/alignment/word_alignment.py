# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Align the words of source and target texts by cross-attention."""

# Shapes: H heads · T target length · S source length

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from ..model.beam_search_config_vanilla_transformer import check_integer
from ..model.ensemble_vanilla_transformer import Ensemble, unwrap_model
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .cross_attention import cross_attention, eager_attention
from .heads import AlignmentHeads
from .pharaoh import Alignment, Link
from .words import TokenizedText, tokenize_words

logger = logging.get_logger(__name__)


def align_words(
    model: Any,
    tokenizer: Any,
    sources: Sequence[str],
    targets: Sequence[str],
    heads: AlignmentHeads | str | None = None,
    *,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    source_tag: str = "",
    target_tokenizer: Any = None,
) -> list[Alignment]:
    """Align the words of given translations.

    A target token is aligned with the source token that has its largest cross-attention weight, or with none if that is
    EOS. Two words are aligned if any of their tokens are (Zenkel et al. 2019). Words are separated by white space, and
    counted from 0.

    Args:
        model: `VanillaTransformerForConditionalGeneration`; of an ensemble, its first model aligns.
        tokenizer: the model's tokenizer, or `TranslationTokenizers` with both.
        sources, targets: texts and their translations.
        heads: whose weights are taken, e.g. "2.1" for layer 2, head 1, both from 0; see `AlignmentHeads`. None takes
            those stored with the checkpoint, else the mean over the heads of the last layer but one, or of the
            last where there are only one or two.
        batch_size: most pairs per batch.
        batch_tokens: most tokens of a side per batch, with padding; a longer pair is a batch by itself.
        source_tag, target_tokenizer: see `translate`. A tag is not one of the words.

    Returns:
        For each pair, the links (word of the source, word of the target), sorted; `format_alignment` writes them as
        "0-0 1-2". A pair with an empty side has none.

    Raises:
        ValueError: If the numbers of texts differ, the model is an export, or a tokenizer does not mark where words
            begin.
    """
    aligner = WordAligner(
        model,
        tokenizer,
        heads,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        source_tag=source_tag,
        target_tokenizer=target_tokenizer,
    )
    return aligner.align(sources, targets)


class WordAligner:
    """Aligns the words of sentence pairs with one model; the arguments are those of `align_words`.

    `TranslationPipeline` takes one as ``aligner``.

    Attributes:
        heads: the heads whose weights are taken.
        tokenizers: of the model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        heads: AlignmentHeads | str | None = None,
        *,
        batch_size: int = 64,
        batch_tokens: int = 4096,
        source_tag: str = "",
        target_tokenizer: Any = None,
    ) -> None:
        check_integer("batch_size", batch_size, minimum=1)
        check_integer("batch_tokens", batch_tokens, minimum=1)
        if isinstance(model, (list, tuple)):
            raise ValueError("words are aligned by one model; give one of them, or an Ensemble, whose first one aligns")
        if not isinstance(model, torch.nn.Module):
            raise ValueError("an exported model returns no attention weights, which align words; use the checkpoint")
        model = unwrap_model(model.models[0] if isinstance(model, Ensemble) else model)
        self.tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
        self.tokenizers.check_source_tag(source_tag)
        self._model, self._source_tag = model, source_tag
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self.heads = AlignmentHeads.of(model, heads)

    def align(self, sources: Sequence[str], targets: Sequence[str]) -> list[Alignment]:
        """Return the alignment of each pair, as `align_words` does."""
        if len(sources) != len(targets):
            raise ValueError(f"there are {len(sources)} sources but {len(targets)} targets; give one of each")
        pairs = tokenize_pairs(self._model, self.tokenizers, sources, targets, self._source_tag)
        alignments: list[Alignment] = [[] for _ in sources]
        head = self.heads.head
        for place, (weights,) in self.weights(pairs, [self.heads.layer]):
            mean = weights.mean(dim=0) if head is None else weights[head]
            alignments[place] = links_of(mean, *pairs[place], shift=self.heads.shift)
        return alignments

    def weights(
        self, pairs: dict[int, tuple[TokenizedText, TokenizedText]], layers: Sequence[int]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield each pair's place and its weights (H, T, S) in the wanted layers, batch by batch."""
        with eager_attention(self._model):
            for batch in self._batches(pairs):
                sources, targets = zip(*(pairs[place] for place in batch), strict=True)
                found = cross_attention(
                    self._model, [text.ids for text in sources], [text.ids for text in targets], layers
                )
                yield from zip(batch, found, strict=True)

    def _batches(self, pairs: dict[int, tuple[TokenizedText, TokenizedText]]) -> Iterator[list[int]]:
        """Yield batches of places, the longest pairs first."""
        batch: list[int] = []
        longest = 0

        def length(place: int) -> int:
            return max(len(text.ids) for text in pairs[place])

        for place in sorted(pairs, key=lambda place: (-length(place), place)):
            if batch and (len(batch) == self._batch_size or (len(batch) + 1) * longest > self._batch_tokens):
                yield batch
                batch = []
            longest = longest if batch else length(place)
            batch.append(place)
        if batch:
            yield batch


def tokenize_pairs(
    model: Any, tokenizers: TranslationTokenizers, sources: Sequence[str], targets: Sequence[str], source_tag: str = ""
) -> dict[int, tuple[TokenizedText, TokenizedText]]:
    """Tokenize the pairs that can be aligned, by place: both sides have words and few enough tokens."""
    places = [place for place, pair in enumerate(zip(sources, targets, strict=True)) if all(map(str.strip, pair))]
    tokenized = [
        tokenize_words(tokenizers, side, [texts[place] for place in places], tag)
        for side, texts, tag in (("source", sources, source_tag), ("target", targets, ""))
    ]
    limit = model.max_sequence_length
    pairs, too_long = {}, 0
    for place, source, target in zip(places, *tokenized, strict=True):
        if limit is not None and max(len(source.ids), len(target.ids)) > limit:
            too_long += 1
        else:
            pairs[place] = (source, target)
    if too_long:
        logger.warning(f"{too_long} sentence pair(s) of more than {limit} tokens, the model's limit, are not aligned")
    return pairs


def links_of(weights: Tensor, source: TokenizedText, target: TokenizedText, *, shift: bool) -> Alignment:
    """Return the links of one sentence pair.

    Args:
        weights: (T, S).
        source, target: the S and T tokens.
        shift: see `AlignmentHeads`.
    """
    links: set[Link] = set()
    chosen = weights.argmax(dim=-1).tolist()
    for place, words in enumerate(target.words):
        if words:  # not EOS, so that there is a next step
            links.update((source_word, word) for source_word in source.words[chosen[place + shift]] for word in words)
    return sorted(links)


__all__ = ["WordAligner", "align_words", "links_of", "tokenize_pairs"]
