# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from hf_vanilla_transformer.data.corpora import load_pairs, load_table
from hf_vanilla_transformer.data.encoding import encode_corpus


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows two words."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "three": 4, "hundred": 5}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def test_many_unknown_ids_are_reported_with_their_number(caplog: Any) -> None:
    corpus = load_pairs([("three hundred", "삼 백")] * 3, "list", source_lang="en", target_lang="ko")
    logging.enable_propagation()
    try:
        encode_corpus(corpus, word_tokenizer())
    finally:
        logging.disable_propagation()
    # Each target is two unknown words and the end: 2 of 3 ids; of the source none.
    assert "list: 6 of 9 target tokens (66.7%) are unknown" in caplog.text
    assert "source tokens" not in caplog.text


def test_many_unknown_ids_of_a_stream_are_reported_before_training(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "t.csv").write_text("en,ko\n" + "three hundred,삼 백\n" * 3)
    corpus = load_table(tmp_path / "t.csv", source_lang="en", target_lang="ko", streaming=True)
    logging.enable_propagation()
    try:
        encoded = encode_corpus(corpus, word_tokenizer())
    finally:
        logging.disable_propagation()
    assert "the first 3 pairs of" in caplog.text and "6 of 9 target tokens (66.7%) are unknown" in caplog.text
    assert list(encoded) == [{"input_ids": [4, 5, 2], "labels": [3, 3, 2]}] * 3
