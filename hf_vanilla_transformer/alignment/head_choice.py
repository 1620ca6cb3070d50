# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Choose the cross-attention heads that align words best, on held-out pairs of sentences."""

# Shapes: H heads · T target length · S source length

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .heads import AlignmentHeads
from .pharaoh import Alignment, GoldAlignment, alignment_error_rate
from .statistical import intersected_links
from .word_alignment import WordAligner, links_of, tokenize_pairs
from .words import TokenizedText


@dataclass(frozen=True)
class AlignmentHeadChoice:
    """The heads of a model, compared as word aligners.

    Attributes:
        best: those with the lowest error.
        errors: the error of each head and of the mean over each layer, with and without shift, best first. With gold
            alignments, it is the alignment error rate; without, the share of the statistical aligner's links that the
            heads miss. Both are from 0 to 1.
        pairs: number of sentence pairs that were compared.
        with_gold: whether there were gold alignments.
    """

    best: AlignmentHeads
    errors: dict[AlignmentHeads, float]
    pairs: int
    with_gold: bool


def choose_alignment_head(
    model: Any,
    tokenizer: Any,
    sources: Sequence[str],
    targets: Sequence[str],
    gold: Sequence[str | GoldAlignment] | None = None,
    *,
    batch_size: int = 64,
    source_tag: str = "",
    target_tokenizer: Any = None,
) -> AlignmentHeadChoice:
    """Find the cross-attention head, or the mean over a layer's heads, that aligns words best.

    With gold alignments of some sentences, it is the one with the lowest alignment error rate. Without, it is the one
    that finds most of the links on which a statistical aligner (IBM Model 1 on the tokens) agrees with itself in both
    directions. Such links are few but precise, and independent of the model. A thousand pairs are enough.

    Args:
        model, tokenizer, source_tag, target_tokenizer: see `align_words`.
        sources, targets: held-out texts and their translations.
        gold: gold alignments of the words, see `alignment_error_rate`.
        batch_size: most pairs per batch.

    Raises:
        ValueError: If the numbers of texts differ, or there is nothing to compare.
    """
    if len(sources) != len(targets):
        raise ValueError(f"there are {len(sources)} sources but {len(targets)} targets; give one of each")
    tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
    aligner = WordAligner(model, tokenizers, batch_size=batch_size, source_tag=source_tag)
    pairs = tokenize_pairs(model, tokenizers, sources, targets, source_tag)
    if not pairs:
        raise ValueError(
            "there are no sentence pairs to choose the alignment head on; give some with words on both sides"
        )
    layers, number = model.config.decoder_layers, model.config.num_heads
    if gold is None:
        errors = _errors_against_statistics(aligner, pairs, layers, number)
    else:
        if len(gold) != len(sources):
            raise ValueError(f"there are {len(gold)} gold alignments but {len(sources)} pairs; give one of each")
        errors = _errors_against_gold(aligner, pairs, gold, layers, number)
    ranked = dict(sorted(errors.items(), key=lambda item: item[1]))
    return AlignmentHeadChoice(next(iter(ranked)), ranked, len(pairs), gold is not None)


def _candidates(layers: int, number: int) -> list[AlignmentHeads]:
    """List what is compared. Of equal errors the first wins: without shift, the highest layer, the mean."""
    heads = [None, *range(number)]
    return [
        AlignmentHeads(layer, head, shift)
        for shift in (False, True)
        for layer in reversed(range(layers))
        for head in (heads if number > 1 else [0])
    ]


def _errors_against_gold(
    aligner: WordAligner,
    pairs: dict[int, tuple[TokenizedText, TokenizedText]],
    gold: Sequence[str | GoldAlignment],
    layers: int,
    number: int,
) -> dict[AlignmentHeads, float]:
    candidates = _candidates(layers, number)
    found: dict[AlignmentHeads, list[Alignment]] = {candidate: [] for candidate in candidates}
    correct = []
    for place, weights in aligner.weights(pairs, range(layers)):
        correct.append(gold[place])
        for candidate in candidates:
            of_layer = weights[candidate.layer]
            mean = of_layer.mean(dim=0) if candidate.head is None else of_layer[candidate.head]
            found[candidate].append(links_of(mean, *pairs[place], shift=candidate.shift))
    return {candidate: alignment_error_rate(links, correct) for candidate, links in found.items()}


def _errors_against_statistics(
    aligner: WordAligner, pairs: dict[int, tuple[TokenizedText, TokenizedText]], layers: int, number: int
) -> dict[AlignmentHeads, float]:
    """Return the share of the links missed, counted in tokens."""
    ordinary = {place: tuple(_ordinary(text) for text in pair) for place, pair in pairs.items()}
    places = [place for place, pair in ordinary.items() if all(pair)]
    token_ids = [
        [[pairs[place][side].ids[token] for token in ordinary[place][side]] for place in places] for side in (0, 1)
    ]
    links = dict(zip(places, intersected_links(*token_ids), strict=True)) if places else {}
    total = sum(map(len, links.values()))
    if not total:
        raise ValueError(
            "a statistical aligner finds no links in these pairs to choose the alignment head by; give more pairs, or "
            "gold alignments"
        )
    hits = dict.fromkeys(_candidates(layers, number), 0)
    for place, weights in aligner.weights(pairs, range(layers)):
        source_places, target_places = ordinary[place]
        for candidate in hits:
            of_layer = weights[candidate.layer]
            mean = of_layer.mean(dim=0) if candidate.head is None else of_layer[candidate.head]
            chosen = mean.argmax(dim=-1).tolist()
            hits[candidate] += sum(
                chosen[target_places[target] + candidate.shift] == source_places[source]
                for source, target in links.get(place, ())
            )
    return {candidate: 1.0 - found / total for candidate, found in hits.items()}


def _ordinary(text: TokenizedText) -> list[int]:
    """Return the places of the tokens that belong to words."""
    return [place for place, words in enumerate(text.words) if words]


__all__ = ["AlignmentHeadChoice", "choose_alignment_head"]
