# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Sentences of ids → one padded batch, with the decoder's inputs shifted right (§3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class DataCollatorForTranslation:
    """Pad a batch and check its ids.

    The batch has ``decoder_input_ids`` beside ``labels``, because the stock Trainer takes the labels out before the
    forward pass when it smooths them. It has no ``decoder_attention_mask``: targets are padded on the right, where no
    earlier position sees the padding and the labels there carry no loss.

    Attributes:
        tokenizer: gives the padding id and, for the source, the side that is padded.
        decoder_start_token_id: first decoder input; the configuration's field of that name.
        pad_to_multiple_of: lengths are rounded up to it; None leaves them.
        label_pad_token_id: label of padding; −100 carries no loss.
        vocab_size: source ids have to be below it; None takes the tokenizer's size.
        target_vocab_size: target ids have to be below it; None takes ``vocab_size``.
    """

    tokenizer: Any
    decoder_start_token_id: int = 1
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = -100
    vocab_size: int | None = None
    target_vocab_size: int | None = None

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            features: each with ``input_ids`` and ``labels``, lists of ids that end with the end-of-sentence token;
                other keys are left out.

        Returns:
            ``input_ids`` and ``attention_mask`` (B, S), ``labels`` and ``decoder_input_ids`` (B, T), all int64;
            without labels only the first two.

        Raises:
            ValueError: If a key is missing, a sentence is empty or an id is outside the vocabulary; it names the row.
        """
        source_size = self.vocab_size if self.vocab_size is not None else len(self.tokenizer)
        target_size = self.target_vocab_size if self.target_vocab_size is not None else source_size
        sources = [self._ids(feature, "input_ids", row, source_size) for row, feature in enumerate(features)]
        pad = self.tokenizer.pad_token_id
        left = getattr(self.tokenizer, "padding_side", "right") == "left"
        batch = {
            "input_ids": self._pad(sources, pad, left),
            "attention_mask": self._pad([[1] * len(ids) for ids in sources], 0, left),
        }
        if any(feature.get("labels") is not None for feature in features):
            targets = [self._ids(feature, "labels", row, target_size) for row, feature in enumerate(features)]
            shifted = [[self.decoder_start_token_id, *_labels_to_inputs(ids[:-1], pad)] for ids in targets]
            batch["labels"] = self._pad(targets, self.label_pad_token_id, left=False)
            batch["decoder_input_ids"] = self._pad(shifted, pad, left=False)
        return batch

    def _ids(self, feature: dict[str, Any], key: str, row: int, vocab_size: int) -> list[int]:
        if feature.get(key) is None:
            raise ValueError(f"row {row} of the batch has no {key}; it has {', '.join(sorted(feature)) or 'nothing'}")
        ids = [int(token_id) for token_id in feature[key]]
        if not ids:
            raise ValueError(f"row {row} of the batch has empty {key}; every sentence needs at least its end token")
        allowed = {self.label_pad_token_id} if key == "labels" else set()
        for token_id in (min(ids), max(ids)):
            if not 0 <= token_id < vocab_size and token_id not in allowed:
                raise ValueError(
                    f"row {row} of the batch has the id {token_id} in {key}, outside the vocabulary of {vocab_size} "
                    "tokens; use the tokenizer that belongs to the model"
                )
        return ids

    def _pad(self, rows: list[list[int]], value: int, left: bool) -> Tensor:
        length = max(map(len, rows))
        if self.pad_to_multiple_of:
            length = -(-length // self.pad_to_multiple_of) * self.pad_to_multiple_of
        filling = [[value] * (length - len(row)) for row in rows]
        padded = [fill + row if left else row + fill for row, fill in zip(rows, filling, strict=True)]
        return torch.tensor(padded, dtype=torch.long)  # one tensor: one a row takes five times as long


def _labels_to_inputs(labels: list[int], pad_token_id: int) -> list[int]:
    return [pad_token_id if label < 0 else label for label in labels]
