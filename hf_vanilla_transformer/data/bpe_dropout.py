# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""BPE-dropout (Provilkov et al. 2020): segment the training text anew for each pass, with some merges left out.

A word that byte-pair encoding always splits in the same way is then seen in many splits, so that rare subwords and the
letters inside of frequent words are learned too. Only training text is segmented so; the tokenizer is not changed.

A word has a number of segmentations drawn in advance, from which each of its occurrences takes one at random. This
needs one merge loop per drawn segmentation instead of one per occurrence, and is reproducible by the seed, which the
dropout of the tokenizers library is not.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from tokenizers import Tokenizer

from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .corpora import ParallelCorpus

_WORD_START = "▁"
_SEGMENTATIONS = 32  # drawn per word
_PASSES = 32
_MOST_TOKENS = 100_000_000  # of both sides over all passes: 400 MB

Word = tuple[int, ...]


class DroppedMerges:
    """Byte-pair encoding of words with each possible merge left out with a probability, at each step.

    Attributes:
        rate: the probability; 0 always gives the tokenizer's own segmentation.
    """

    def __init__(self, tokenizer: Any, rate: float, seed: int) -> None:
        """Read the merges of a tokenizer.

        Args:
            tokenizer: a fast tokenizer with a BPE model.
            rate: probability that a merge is left out, in [0, 1).
            seed: of the random numbers.

        Raises:
            ValueError: If the rate is out of range, or the tokenizer has no merges.
        """
        check_bpe_dropout(tokenizer, rate)
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        model = content["model"]
        vocabulary = model["vocab"]
        self.rate = rate
        self._random = random.Random(seed)
        self._merges: dict[tuple[int, int], tuple[int, int]] = {}  # pair of ids → rank, id of both together
        for rank, merge in enumerate(model["merges"]):
            left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
            self._merges[vocabulary[left], vocabulary[right]] = rank, vocabulary[left + right]
        # Without any merge, the library splits a word into its first symbols, with the suffixes and bytes of its model.
        model.update(dropout=1.0, ignore_merges=False)
        self._symbols = Tokenizer.from_str(json.dumps(content)).model
        unknown = model.get("unk_token")
        self._fixed = {token["id"] for token in content.get("added_tokens", ())}
        self._fixed |= {index for token, index in vocabulary.items() if token == unknown}
        if model.get("byte_fallback"):
            self._fixed |= {
                index for token, index in vocabulary.items() if token.startswith("<0x") and token[-1] == ">"
            }
        self._tokens = {index: token for token, index in vocabulary.items()}

    def begins_word(self, token_id: int) -> bool:
        """Return whether a token starts with the mark of a word's beginning, across which nothing is merged."""
        return self._tokens.get(token_id, "").startswith(_WORD_START)

    def first_symbols(self, word: Word) -> Word:
        """Return the symbols from which a word is merged; the word itself if its segmentation can't be changed.

        Args:
            word: its token ids.
        """
        if self._fixed.intersection(word):  # special tokens, unknown ones, and bytes: no merge makes them
            return word
        return tuple(token.id for token in self._symbols.tokenize("".join(self._tokens[index] for index in word)))

    def merge(self, symbols: Word) -> Word:
        """Merge the symbols of a word, leaving out merges at random."""
        word = list(symbols)
        rate, draw, merges = self.rate, self._random.random, self._merges
        while len(word) > 1:
            found = [
                (*merge, place)
                for place, pair in enumerate(zip(word, word[1:], strict=False))
                if (merge := merges.get(pair)) is not None and (not rate or draw() >= rate)
            ]
            if not found:
                break
            rank, merged, place = min(found, key=lambda merge: (merge[0], merge[2]))
            word[place : place + 2] = [merged]
        return tuple(word)


class SegmentedTexts:
    """The words of sentences, each with several segmentations."""

    def __init__(
        self, texts: Sequence[str], tokenizers: TranslationTokenizers, side: str, rate: float, seed: int
    ) -> None:
        """Split sentences into words, and draw segmentations of each word.

        Args:
            texts: sentences.
            tokenizers: of both sides.
            side: "source" or "target".
            rate: probability that a merge is left out.
            seed: of the random numbers.
        """
        dropped = DroppedMerges(getattr(tokenizers, side), rate, seed)
        sentences = [
            _words(ids, words, dropped) for ids, words in zip(*tokenizers.encode_with_words(side, texts), strict=True)
        ]
        counts = Counter(word for sentence in sentences for word in sentence)
        numbers = {word: number for number, word in enumerate(counts)}
        self._words_before = np.cumsum([0, *map(len, sentences)])
        self._words = np.array([numbers[word] for sentence in sentences for word in sentence], dtype=np.int64)
        pools = [_draw(word, count, dropped) for word, count in counts.items()]
        self._first = np.cumsum([0, *map(len, pools)])  # of each word, among all segmentations
        segmentations = [segmentation for pool in pools for segmentation in pool]
        self._tokens_before = np.cumsum([0, *map(len, segmentations)])
        self._tokens = np.array([token for segmentation in segmentations for token in segmentation], dtype=np.int32)
        self._generator = np.random.default_rng(seed)

    def segment(self) -> pa.ListArray:
        """Draw a segmentation of every word; return the token ids of each sentence."""
        first, number = self._first[self._words], np.diff(self._first)[self._words]
        chosen = first + (self._generator.random(len(self._words)) * number).astype(np.int64)
        start, length = self._tokens_before[chosen], np.diff(self._tokens_before)[chosen]
        before = np.concatenate([[0], np.cumsum(length)])
        places = np.arange(before[-1]) + np.repeat(start - before[:-1], length)
        offsets = before[self._words_before].astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self._tokens[places]))


def encode_with_bpe_dropout(
    corpus: ParallelCorpus, tokenizers: TranslationTokenizers, rate: float, seed: int, passes: int = _PASSES
) -> Dataset:
    """Encode the pairs of a corpus several times, each time with other segmentations of its words.

    Args:
        corpus: the pairs, not a stream; the first of its languages is the source.
        tokenizers: of both sides, with BPE models.
        rate: probability that a merge is left out; Provilkov et al. take 0.1, and 0.6 for Chinese and Japanese.
        seed: of the segmentations.
        passes: number of times; fewer if the text is too large to be held in memory that often.

    Returns:
        ``input_ids`` and ``labels`` of all pairs in their order, pass after pass.

    Raises:
        ValueError: If the corpus is a stream, the rate is out of range or a tokenizer has no merges.
    """
    if not isinstance(corpus.dataset, Dataset):
        raise ValueError("bpe_dropout needs text of known length; leave out streaming, or bpe_dropout")
    columns: dict[str, SegmentedTexts] = {}
    for number, (side, column) in enumerate((("source", "input_ids"), ("target", "labels"))):
        language = corpus.languages[number]
        texts = [pair[language] for pair in corpus.dataset["translation"]]
        columns[column] = SegmentedTexts(texts, tokenizers, side, rate, seed + number)
    tables = [pa.table({column: texts.segment() for column, texts in columns.items()})]
    tokens = sum(len(column.combine_chunks().flatten()) for column in tables[0].columns)
    for _ in range(min(passes, max(_MOST_TOKENS // max(tokens, 1), 1)) - 1):
        tables.append(pa.table({column: texts.segment() for column, texts in columns.items()}))
    return Dataset(pa.concat_tables(tables))


def check_rate(rate: float) -> None:
    """Raise ValueError if a rate is no probability below 1."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"bpe_dropout={rate} is no probability below 1; Provilkov et al. (2020) take 0.1, 0 is none")


def check_bpe_dropout(tokenizer: Any, rate: float) -> None:
    """Check that merges of a tokenizer can be left out.

    Raises:
        ValueError: If the rate is out of range, or the tokenizer has no merges.
    """
    check_rate(rate)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = {} if backend is None else json.loads(backend.to_str())["model"]
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix"):
        raise ValueError(
            "bpe_dropout leaves out merges of byte-pair encoding, and this tokenizer has none; leave bpe_dropout out, "
            "or train a tokenizer with tokenizer_model: bpe"
        )


def _words(ids: Sequence[int], words: Sequence[int | None], dropped: DroppedMerges) -> list[Word]:
    """Group the tokens of a sentence by word."""
    grouped: list[list[int]] = []
    before: int | None = None
    for token_id, word in zip(ids, words, strict=True):
        if word is None or word != before or dropped.begins_word(token_id):
            grouped.append([])
        grouped[-1].append(token_id)
        before = word
    return [tuple(word) for word in grouped]


def _draw(word: Word, count: int, dropped: DroppedMerges) -> list[Word]:
    """Draw the segmentations of a word."""
    symbols = dropped.first_symbols(word)
    if len(symbols) == 1 or not dropped.rate or symbols == word:
        return [word]
    return [dropped.merge(symbols) for _ in range(_SEGMENTATIONS)]


__all__ = ["DroppedMerges", "SegmentedTexts", "check_bpe_dropout", "check_rate", "encode_with_bpe_dropout"]
