# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""A statistical aligner of tokens: IBM Model 1 (Brown et al. 1993).

It needs no gold alignments and no model, only pairs of sentences, so that its links can tell which attention heads
align. Model 1 does not look at the order of the words, so it treats all pairs of languages alike.
"""

# Shapes: P co-occurrences of a source and a target token in a pair · N links

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ITERATIONS = 8
_NULL = -1  # the source token of target tokens that translate none

IntArray = NDArray[np.int64]


def intersected_links(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[list[tuple[int, int]]]:
    """Align tokens in both directions, and keep the links found in both.

    Args:
        sources, targets: token ids of each side of the pairs.

    Returns:
        For each pair, the links (source place, target place): few but precise.
    """
    forward = _best_links(sources, targets)
    backward = _best_links(targets, sources)
    return [
        sorted(links & {(source, target) for target, source in reverse})
        for links, reverse in zip(forward, backward, strict=True)
    ]


def _best_links(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[set[tuple[int, int]]]:
    """Train by expectation maximization, and link each target token with its likeliest source token, if it has one."""
    cells, source_places, source_tokens, target_tokens = _co_occurrences(sources, targets)
    _, pairs = np.unique(np.stack([source_tokens, target_tokens]), axis=1, return_inverse=True)
    pairs = pairs.reshape(-1)
    _, rows = np.unique(source_tokens, return_inverse=True)
    probability = np.ones(pairs.max() + 1)  # of the target token, given the source token
    row_of_pair = np.zeros(len(probability), dtype=np.int64)
    row_of_pair[pairs] = rows
    posterior = np.ones(len(cells))
    for _ in range(_ITERATIONS):
        joint = probability[pairs]
        posterior = joint / np.bincount(cells, joint)[cells]
        counts = np.bincount(pairs, posterior)
        probability = counts / np.bincount(row_of_pair, counts)[row_of_pair]
    best = np.lexsort((-posterior, cells))  # the first of each cell is its best
    first = np.ones(len(best), dtype=bool)
    first[1:] = cells[best][1:] != cells[best][:-1]
    chosen = source_places[best[first]].tolist()  # of each target token of all pairs, one after the other
    links, start = [], 0
    for target in targets:
        found = chosen[start : start + len(target)]
        links.append({(source, place) for place, source in enumerate(found) if source != _NULL})
        start += len(target)
    return links


def _co_occurrences(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Return all combinations of a target token with a source token of its pair, or with none.

    Returns:
        Four arrays (P,): the target token's number over all pairs, the source token's place, and both token ids.
    """
    columns: list[list[IntArray]] = [[], [], [], []]
    start = 0
    for source, target in zip(sources, targets, strict=True):
        width, target_length = len(source) + 1, len(target)
        columns[0].append(np.repeat(np.arange(start, start + target_length), width))
        columns[1].append(np.tile(np.arange(_NULL, len(source)), target_length))
        columns[2].append(np.tile(np.array([_NULL, *source], dtype=np.int64), target_length))
        columns[3].append(np.repeat(np.array(target, dtype=np.int64), width))
        start += target_length
    cells, places, source_tokens, target_tokens = (np.concatenate(column) for column in columns)
    return cells, places, source_tokens, target_tokens


__all__ = ["intersected_links"]
