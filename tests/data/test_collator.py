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
    collator = DataCollatorForTranslation(tokenizer, vocab_size=10, decoder_vocab_size=300)
    collator(features(([9, 2], [299, 2])))
    with pytest.raises(ValueError, match="outside the vocabulary of 10 tokens"):
        collator(features(([10, 2], [299, 2])))


# Examples that are padded already, as people prepare them.

SENTENCES = [("one two", "하나 둘 셋"), ("one two three", "둘")]


def plain(tokenizer):
    return DataCollatorForTranslation(tokenizer)([dict(tokenizer(s, text_target=t)) for s, t in SENTENCES])


def same(left, right):
    assert left.keys() == right.keys()
    return all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("labels", ["padding ids", "-100", "decoder_attention_mask"])
def test_examples_padded_by_the_tokenizer_make_the_same_batch(tokenizer, side, labels):
    expected = plain(tokenizer)
    tokenizer.padding_side = side
    try:
        sources = tokenizer([s for s, _ in SENTENCES], padding="max_length", max_length=40)
    finally:
        tokenizer.padding_side = "right"
    targets = tokenizer(text_target=[t for _, t in SENTENCES], padding="max_length", max_length=40)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": target, "token_type_ids": [0] * 40, "text": "one"}
        for ids, mask, target in zip(sources["input_ids"], sources["attention_mask"], targets["input_ids"], strict=True)
    ]
    for row, mask in zip(rows, targets["attention_mask"], strict=True):
        if labels == "-100":
            row["labels"] = [label if kept else -100 for label, kept in zip(row["labels"], mask, strict=True)]
        elif labels == "decoder_attention_mask":
            row["labels"] = [label if kept else 9 for label, kept in zip(row["labels"], mask, strict=True)]
            row["decoder_attention_mask"] = mask
    assert same(DataCollatorForTranslation(tokenizer)(rows), expected)
    for row in rows:
        del row["attention_mask"]  # then the padding ids say it
    assert same(DataCollatorForTranslation(tokenizer)(rows), expected)


def test_examples_of_tensors_make_the_same_batch(tokenizer):
    rows = [dict(tokenizer(s, text_target=t, return_tensors="pt")) for s, t in SENTENCES]
    assert rows[0]["input_ids"].dim() == 2
    assert same(DataCollatorForTranslation(tokenizer)(rows), plain(tokenizer))


def test_a_hidden_position_inside_a_source_stays_hidden(tokenizer):
    batch = DataCollatorForTranslation(tokenizer)([{"input_ids": [5, 6, 7, 2, 0], "attention_mask": [1, 0, 1, 1, 0]}])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2]] and batch["attention_mask"].tolist() == [[1, 0, 1, 1]]


def test_where_padding_is_the_end_token_one_end_stays(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token  # as people do with GPT-2's tokenizer
    try:
        batch = DataCollatorForTranslation(tokenizer)([{"input_ids": [5, 2, 2, 2], "labels": [7, 8, 2, 2]}])
    finally:
        tokenizer.pad_token = "<pad>"
    assert batch["input_ids"].tolist() == [[5, 2]] and batch["labels"].tolist() == [[7, 8, 2]]


def test_labels_shifted_by_somebody_else_are_compared(tokenizer):
    row = {"input_ids": [5, 2], "labels": [7, 8, 2]}
    DataCollatorForTranslation(tokenizer)([{**row, "decoder_input_ids": [1, 7, 8]}])
    with pytest.raises(ValueError, match=r"begin with \[2, 7, 8\], but its labels shifted right .* \[1, 7, 8\]"):
        DataCollatorForTranslation(tokenizer)([{**row, "decoder_input_ids": [2, 7, 8]}])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [[5, 2], [6, 2]]}, "has 2 sentences in input_ids; encode one"),
        ({"input_ids": [5, 2], "attention_mask": [1]}, "has 1 values in attention_mask for 2 ids"),
        ({"input_ids": [5, 2], "attention_mask": [0, 0]}, "only padding"),
        ({"input_ids": [0, 0]}, "only padding"),
        ({"input_ids": [5, 2], "labels": [0, 0]}, "row 0 of the batch has empty labels"),
    ],
)
def test_padding_that_contradicts_the_ids_is_refused(tokenizer, row, message):
    with pytest.raises(ValueError, match=message):
        DataCollatorForTranslation(tokenizer)([row])
