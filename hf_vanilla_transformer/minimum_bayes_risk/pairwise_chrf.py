# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""chrF of every text against every other one, fast enough for hundreds of candidates per sentence."""

# Shapes: N texts · C characters of all texts, without white space · G n-grams that are told apart

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

CHARACTER_ORDER = 6  # n-grams of 1 to 6 characters, the default of sacrebleu
BETA = 2  # weight of the recall, the default of sacrebleu
_COLUMNS = 2**14  # of the n-gram matrix at a time


def pairwise_chrf(texts: Sequence[str]) -> NDArray[np.float64]:
    """Compute sentence chrF for all pairs of texts: equal to ``sacrebleu.sentence_chrf`` with its default settings.

    Args:
        texts: N texts.

    Returns:
        (N, N) scores from 0 to 100; row h, column r is hypothesis h with reference r.
    """
    characters = _Characters.of(texts)
    precision_sum = np.zeros((len(texts), len(texts)))
    recall_sum, orders = np.zeros_like(precision_sum), np.zeros_like(precision_sum)
    for order in range(1, CHARACTER_ORDER + 1):
        lengths = np.maximum(characters.lengths - (order - 1), 0).astype(np.float64)  # n-grams of each text
        if not lengths.any():
            break
        matches = characters.matches(order)
        both = (lengths[:, None] > 0) & (lengths > 0)
        # Texts without an n-gram of this order are left out by `both`; the maximum avoids a division by 0.
        precision_sum += np.where(both, matches / np.maximum(lengths, 1)[:, None], 0.0)
        recall_sum += np.where(both, matches / np.maximum(lengths, 1), 0.0)
        orders += both
    precision, recall = precision_sum / np.maximum(orders, 1), recall_sum / np.maximum(orders, 1)
    factor = BETA**2
    scores = (1 + factor) * precision * recall
    total = factor * precision + recall
    return 100 * np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)


class _Characters:
    """The characters of all texts, one after the other, and their n-grams as numbers."""

    def __init__(self, codes: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self.lengths = lengths  # (N,)
        self._owner = np.repeat(np.arange(len(lengths)), lengths)  # (C,) the text of each character
        ends = np.repeat(np.cumsum(lengths), lengths)
        self._left = ends - np.arange(len(codes))  # (C,) characters to the end of the text, with this one
        self._codes = np.unique(codes, return_inverse=True)[1]
        self._ngrams = self._codes  # (C,) the n-gram that starts at each character, for the order that was last asked
        self._order = 1

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Characters":
        stripped = ["".join(text.split()) for text in texts]
        encoded = "".join(stripped).encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(encoded, dtype="<u4").astype(np.int64)
        return cls(codes, np.array([len(text) for text in stripped], dtype=np.int64))

    def matches(self, order: int) -> NDArray[np.float64]:
        """Return (N, N) how many n-grams two texts share, each as often as it is in both; orders in ascending order."""
        starts = np.flatnonzero(self._left >= order)
        if order > self._order:
            pairs = self._ngrams[starts] * (self._codes.max() + 1) + self._codes[starts + order - 1]
            self._ngrams = np.zeros_like(self._codes)
            self._ngrams[starts] = np.unique(pairs, return_inverse=True)[1]
            self._order = order
        return _shared(self._owner[starts], self._ngrams[starts], len(self.lengths))


def _shared(owner: NDArray[np.int64], ngrams: NDArray[np.int64], texts: int) -> NDArray[np.float64]:
    """Count for each pair of texts the n-grams that both have.

    The first occurrence of an n-gram in a text, its second occurrence and so on are features of their own, which a text
    has or has not. So the minimum of two counts is a sum of products, and all pairs are one product of matrices.

    Args:
        owner: the text of each n-gram, ascending.
        ngrams: the n-grams as numbers from 0.
        texts: number of texts.
    """
    by_text = np.lexsort((ngrams, owner))
    owner, ngrams = owner[by_text], ngrams[by_text]
    first = np.ones(len(ngrams), dtype=bool)
    first[1:] = (ngrams[1:] != ngrams[:-1]) | (owner[1:] != owner[:-1])
    place = np.arange(len(ngrams))
    occurrence = place - np.maximum.accumulate(np.where(first, place, 0))
    most = np.zeros(ngrams.max() + 1, dtype=np.int64)
    np.maximum.at(most, ngrams, occurrence + 1)
    columns = np.cumsum(most)[ngrams] - most[ngrams] + occurrence
    by_column = np.argsort(columns, kind="stable")
    owner, columns = owner[by_column], columns[by_column]
    shared = torch.zeros(texts, texts)
    width = int(columns[-1]) + 1
    for start in range(0, width, _COLUMNS):
        inside = slice(*np.searchsorted(columns, (start, start + _COLUMNS)))
        features = torch.zeros(texts, min(_COLUMNS, width - start))
        features[torch.from_numpy(owner[inside]), torch.from_numpy(columns[inside] - start)] = 1.0
        shared += features @ features.T  # integers, exact in fp32
    return shared.numpy().astype(np.float64)


__all__ = ["pairwise_chrf"]
