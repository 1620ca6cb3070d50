# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""BPE-dropout: segmentations of the training text."""

import itertools
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from hf_vanilla_transformer.data.bpe_dropout import (
    DroppedMerges,
    SegmentedTexts,
    check_bpe_dropout,
    encode_with_bpe_dropout,
)
from hf_vanilla_transformer.data.corpora import load_text_files
from hf_vanilla_transformer.data.tokenization import train_tokenizer
from hf_vanilla_transformer.model.tokenizers_vanilla_transformer import TranslationTokenizers

SENTENCES = [
    "the newest widest house stands lower than the widest tower",
    "<2de> a lower and newer tower, the newest of the low towers",
    "</s> low lower lowest 🜚 new newer newest wide wider widest",
    "",
]


@pytest.fixture(scope="module")
def tokenizers():
    return TranslationTokenizers(train_tokenizer(SENTENCES * 4, 340, extra_tokens=["<2de>"]))


@pytest.fixture
def corpus(tmp_path):
    for language in ("en", "de"):
        (tmp_path / f"my.{language}").write_text("\n".join(SENTENCES[:3]) + "\n", encoding="utf-8")
    return load_text_files(tmp_path / "my.en", tmp_path / "my.de")


def test_without_dropout_the_segmentation_is_the_tokenizers_own(tokenizers):
    texts = SegmentedTexts(SENTENCES, tokenizers, "target", rate=0.0, seed=0)
    assert texts.segment().to_pylist() == tokenizers.encode_targets(SENTENCES)


def test_merging_all_symbols_gives_the_tokenizers_own_words(tokenizers):
    merges = DroppedMerges(tokenizers.source, 0.0, seed=0)
    for word in ("▁newest", "▁lower", "▁tower,"):
        own = tuple(token.id for token in tokenizers.source.backend_tokenizer.model.tokenize(word))
        symbols = merges.first_symbols(own)
        assert len(symbols) == len(word)
        assert merges.merge(symbols) == own


def test_every_segmentation_decodes_to_the_same_text(tokenizers):
    texts = SegmentedTexts(SENTENCES, tokenizers, "source", rate=0.5, seed=0)
    for _ in range(20):
        assert tokenizers.batch_decode(texts.segment().to_pylist()) == tokenizers.batch_decode(
            tokenizers.encode_sources(SENTENCES)
        )


def test_special_tokens_and_bytes_stay_whole(tokenizers):
    tag = tokenizers.source.convert_tokens_to_ids("<2de>")
    own = tokenizers.encode_sources(SENTENCES)
    as_bytes = [token for token in own[2] if tokenizers.source.convert_ids_to_tokens(token).startswith("<0x")]
    assert len(as_bytes) == 3  # of the "<" of "</s>", which is text here
    texts = SegmentedTexts(SENTENCES, tokenizers, "source", rate=0.9, seed=0)
    for row in texts.segment().to_pylist():
        assert row[-1] == tokenizers.eos_token_id
    rows = texts.segment().to_pylist()
    assert rows[1][0] == tag
    assert [token for token in rows[2] if token in as_bytes] == as_bytes


def test_a_word_is_segmented_as_often_in_each_way_as_the_algorithm_of_the_paper_would(tokenizers):
    """The word "▁low": the probabilities of its segmentations follow from its two merges."""
    merges = DroppedMerges(tokenizers.source, 0.3, seed=1)
    own = tuple(token.id for token in tokenizers.source.backend_tokenizer.model.tokenize("▁low"))
    symbols = merges.first_symbols(own)
    counts = Counter(merges.merge(symbols) for _ in range(20_000))

    def probabilities(word, probability, found):
        """All ways through the algorithm, with their probabilities."""
        pairs = [
            (*merges._merges[pair], place)
            for place, pair in enumerate(itertools.pairwise(word))
            if pair in merges._merges
        ]
        for kept in range(2 ** len(pairs)):
            chosen = [pair for bit, pair in enumerate(pairs) if kept >> bit & 1]
            share = probability * 0.7 ** len(chosen) * 0.3 ** (len(pairs) - len(chosen))
            if chosen:
                _, merged, place = min(chosen, key=lambda merge: (merge[0], merge[2]))
                probabilities((*word[:place], merged, *word[place + 2 :]), share, found)
            else:
                found[word] += share
        return found

    expected = probabilities(symbols, 1.0, Counter())
    assert len(expected) >= 3
    assert sum(expected.values()) == pytest.approx(1.0)
    for segmentation, probability in expected.items():
        error = 5 * np.sqrt(probability * (1 - probability) / 20_000)
        assert counts[segmentation] / 20_000 == pytest.approx(probability, abs=error)


def test_passes_differ_and_are_reproducible(tokenizers, corpus):
    first, again, other = (encode_with_bpe_dropout(corpus, tokenizers, 0.3, seed, passes=4) for seed in (1, 1, 2))
    assert isinstance(first, Dataset)
    assert len(first) == 4 * 3
    assert first["input_ids"][:] == again["input_ids"][:]
    assert first["labels"][:] != other["labels"][:]
    assert first["labels"][:3] != first["labels"][3:6]
    assert first["input_ids"][:3] != first["labels"][:3]  # the same text here, segmented independently


def test_the_number_of_passes_is_limited_by_the_memory_they_take(tokenizers, corpus, monkeypatch):
    monkeypatch.setattr("hf_vanilla_transformer.data.bpe_dropout._MOST_TOKENS", 300)
    encoded = encode_with_bpe_dropout(corpus, tokenizers, 0.3, 1, passes=1_000)
    assert 3 <= len(encoded) < 30


def test_a_tokenizer_without_merges_and_a_wrong_rate_are_rejected(tokenizers):
    unigram = train_tokenizer(SENTENCES * 4, 340, model="unigram")
    with pytest.raises(ValueError, match="has none; leave bpe_dropout out"):
        check_bpe_dropout(unigram, 0.1)
    with pytest.raises(ValueError, match="no probability below 1"):
        check_bpe_dropout(tokenizers.source, 1.0)
