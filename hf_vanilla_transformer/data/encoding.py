# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenize a parallel corpus into ``input_ids`` and ``labels``."""

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..model.tokenizers_vanilla_transformer import MANY_UNKNOWN, TranslationTokenizers
from .corpora import ParallelCorpus

logger = logging.get_logger(__name__)

_CHECKED_PAIRS_OF_A_STREAM = 200  # pairs that are searched for unknown tokens before training
_BATCH_ROWS = 10_000


def encode_corpus(
    corpus: ParallelCorpus, tokenizer: PreTrainedTokenizerBase | TranslationTokenizers
) -> Dataset | IterableDataset:
    """Encode the pairs of a corpus as ``input_ids`` and ``labels``, without truncation.

    Logs a warning if many tokens are unknown to the tokenizer.

    Args:
        corpus: the pairs; the first of its languages is the source.
        tokenizer: one for both sides, or two.
    """
    tokenizers = TranslationTokenizers(tokenizer)
    source_lang, target_lang = corpus.languages

    def encode(rows: dict[str, list[dict[str, str]]]) -> dict[str, list[list[int]]]:
        pairs = rows["translation"]
        sources = tokenizers.encode_sources([pair[source_lang] for pair in pairs])
        targets = tokenizers.encode_targets([pair[target_lang] for pair in pairs])
        return {"input_ids": sources, "labels": targets}

    name, dataset = corpus.report.name, corpus.dataset
    if isinstance(dataset, Dataset):
        encoded = dataset.map(encode, batched=True, remove_columns=dataset.column_names, desc="encoding")
        _warn_of_unknown_tokens(name, tokenizers, encoded)
        return encoded
    beginning = Dataset.from_list(list(dataset.take(_CHECKED_PAIRS_OF_A_STREAM)))
    if len(beginning):
        name = f"the first {len(beginning):,} pairs of {name}"
        _warn_of_unknown_tokens(name, tokenizers, Dataset.from_dict(encode(beginning[:])))
    return dataset.map(encode, batched=True, remove_columns=["translation"])


def _warn_of_unknown_tokens(name: str, tokenizers: TranslationTokenizers, encoded: Dataset) -> None:
    """Log a warning for each side of which many tokens are unknown.

    Args:
        name: name of the text, for the message.
        tokenizers: of both sides.
        encoded: rows with ``input_ids`` and ``labels``.
    """
    for side, column in (("source", "input_ids"), ("target", "labels")):
        tokenizer = getattr(tokenizers, side)
        unknown_id = tokenizer.unk_token_id
        if unknown_id in (None, tokenizer.eos_token_id):  # GPT-2 has one special token for all purposes
            continue
        total = unknown = 0
        for table in encoded.with_format("arrow", columns=[column]).iter(_BATCH_ROWS):
            ids = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            total, unknown = total + len(ids), unknown + int((ids == unknown_id).sum())
        if unknown > MANY_UNKNOWN * total:
            logger.warning(
                f"{name}: {unknown:,} of {total:,} {side} tokens ({unknown / total:.1%}) are unknown to the tokenizer; "
                "the model can't learn them. Use a tokenizer trained on similar text, and check that "
                "source and target are not swapped"
            )


__all__ = ["encode_corpus"]
