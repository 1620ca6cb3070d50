"""Batches for translation."""

import pytest
import torch

from hf_vanilla_transformer import DataCollatorForTranslation, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["one two three", "하나 둘 셋"], 290)


def features(*pairs):
    return [{"input_ids": source, "labels": target} for source, target in pairs]


def test_batch_is_padded_and_shifted_right(tokenizer):
    batch = DataCollatorForTranslation(tokenizer)(features(([5, 6, 2], [7, 2]), ([8, 2], [9, 10, 11, 2])))
    assert batch["input_ids"].tolist() == [[5, 6, 2], [8, 2, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[7, 2, -100, -100], [9, 10, 11, 2]]
    assert batch["decoder_input_ids"].tolist() == [[1, 7, 0, 0], [1, 9, 10, 11]]  # <s> first, no -100
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_source_can_be_padded_on_the_left(tokenizer):
    tokenizer.padding_side = "left"
    try:
        batch = DataCollatorForTranslation(tokenizer)(features(([5, 6, 2], [7, 2]), ([8, 2], [9, 2])))
    finally:
        tokenizer.padding_side = "right"
    assert batch["input_ids"].tolist() == [[5, 6, 2], [0, 8, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]


def test_lengths_can_be_rounded_up(tokenizer):
    batch = DataCollatorForTranslation(tokenizer, pad_to_multiple_of=8)(features(([5, 2], [7] * 8 + [2])))
    assert batch["input_ids"].shape == (1, 8) and batch["labels"].shape == (1, 16)


def test_sources_alone_make_a_batch(tokenizer):
    assert set(DataCollatorForTranslation(tokenizer)([{"input_ids": [5, 2]}])) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [], "labels": [2]}, "row 1 of the batch has empty input_ids"),
        ({"input_ids": [5, 2], "labels": []}, "row 1 of the batch has empty labels"),
        ({"input_ids": [5, 999, 2], "labels": [2]}, "row 1 of the batch has the id 999 in input_ids"),
        ({"input_ids": [5, 2], "labels": [-3, 2]}, "row 1 of the batch has the id -3 in labels"),
        ({"labels": [2]}, "row 1 of the batch has no input_ids; it has labels"),
    ],
)
def test_bad_rows_are_named(tokenizer, row, message):
    with pytest.raises(ValueError, match=message):
        DataCollatorForTranslation(tokenizer)([{"input_ids": [5, 2], "labels": [6, 2]}, row])


def test_ignored_labels_are_kept_and_become_padding_in_the_inputs(tokenizer):
    batch = DataCollatorForTranslation(tokenizer)(features(([5, 2], [-100, 7, 2])))
    assert batch["labels"].tolist() == [[-100, 7, 2]]
    assert batch["decoder_input_ids"].tolist() == [[1, 0, 7]]


def test_two_vocabularies_have_two_limits(tokenizer):
    collator = DataCollatorForTranslation(tokenizer, vocab_size=10, target_vocab_size=300)
    collator(features(([9, 2], [299, 2])))
    with pytest.raises(ValueError, match="outside the vocabulary of 10 tokens"):
        collator(features(([10, 2], [299, 2])))
