# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Collate examples into a padded batch, with the decoder inputs shifted right (§3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class DataCollatorForTranslation:
    """Pads a batch and checks its ids.

    Examples may already be padded, on either side and in any way that Hugging Face tokenizers pad: the padding is
    removed, and the batch is padded to its longest example. Padding of a source is the part at its ends that
    ``attention_mask`` hides or, without a mask, that has the padding id; a zero in between stays hidden. Padding of a
    target is the part at its end that ``decoder_attention_mask`` hides, that has the padding id, or that is −100.

    The batch has ``decoder_input_ids`` in addition to ``labels``, because Trainer removes the labels before the forward
    pass when it applies label smoothing. It has no ``decoder_attention_mask``: targets are padded on the right, where
    earlier positions don't attend to the padding and the labels are ignored by the loss.

    Attributes:
        tokenizer: defines the padding id and the padding side of the source; two tokenizers as one
            `TranslationTokenizers`.
        decoder_start_token_id: first decoder input; see the configuration.
        pad_to_multiple_of: round lengths up to a multiple of it; None doesn't.
        label_pad_token_id: label of padding; −100 is ignored by the loss.
        vocab_size: upper limit of source ids; None takes the tokenizer's size.
        decoder_vocab_size: upper limit of target ids; None takes ``vocab_size``, or the target tokenizer's size.
    """

    tokenizer: Any
    decoder_start_token_id: int = 1
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = -100
    vocab_size: int | None = None
    decoder_vocab_size: int | None = None

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Collate examples.

        Args:
            features: each with ``input_ids`` and ``labels`` of one sentence, as lists, arrays or tensors that end with
                the EOS token; ``attention_mask`` and ``decoder_attention_mask`` are optional. ``decoder_input_ids``
                must be the labels shifted right. Other keys are dropped.

        Returns:
            ``input_ids`` and ``attention_mask`` (B, S), ``labels`` and ``decoder_input_ids`` (B, T), all int64;
            without labels, only the first two.

        Raises:
            ValueError: If a key is missing, a sentence is empty, an id is outside the vocabulary, or masks or decoder
                inputs contradict the ids; the message gives the row.
        """
        source_size = self.vocab_size if self.vocab_size is not None else len(self.tokenizer)
        own_target = getattr(self.tokenizer, "target", None)
        target_size = self.decoder_vocab_size
        if target_size is None:
            target_size = source_size if own_target is None else len(own_target)
        sources = [self._source(feature, row, source_size) for row, feature in enumerate(features)]
        pad = self.tokenizer.pad_token_id
        left = getattr(self.tokenizer, "padding_side", "right") == "left"
        batch = {
            "input_ids": self._pad([ids for ids, _ in sources], pad, left),
            "attention_mask": self._pad([mask for _, mask in sources], 0, left),
        }
        if any(feature.get("labels") is not None for feature in features):
            targets = [self._target(feature, row, target_size) for row, feature in enumerate(features)]
            shifted = [[self.decoder_start_token_id, *_labels_to_inputs(ids[:-1], pad)] for ids in targets]
            for row, feature in enumerate(features):
                self._check_decoder_inputs(feature, row, shifted[row])
            batch["labels"] = self._pad(targets, self.label_pad_token_id, left=False)
            batch["decoder_input_ids"] = self._pad(shifted, pad, left=False)
        return batch

    def _source(self, feature: dict[str, Any], row: int, vocab_size: int) -> tuple[list[int], list[int]]:
        """Return a source without its padding, and its mask."""
        ids = _values(feature, "input_ids", row)
        if feature.get("attention_mask") is None:
            kept = self._kept(ids)
            mask = [1] * len(ids)
        else:
            mask = _mask(feature, "attention_mask", row, len(ids))
            kept = range(mask.index(1), len(mask) - mask[::-1].index(1)) if 1 in mask else range(0)
        ids, mask = ids[kept.start : kept.stop], mask[kept.start : kept.stop]
        _check(ids, "input_ids", row, vocab_size)
        return ids, mask

    def _target(self, feature: dict[str, Any], row: int, vocab_size: int) -> list[int]:
        """Return labels without their padding."""
        ids = _values(feature, "labels", row)
        if feature.get("decoder_attention_mask") is not None:
            mask = _mask(feature, "decoder_attention_mask", row, len(ids))
            ids = [token_id if kept else self.label_pad_token_id for token_id, kept in zip(ids, mask, strict=True)]
        end = len(ids)
        while end > 1 and ids[end - 1] == self.label_pad_token_id:
            end -= 1
        ids = ids[:end]
        ids = ids[: self._kept(ids).stop]
        _check([token_id for token_id in ids if token_id != self.label_pad_token_id] or ids, "labels", row, vocab_size,
               self.label_pad_token_id)  # fmt: skip
        return ids

    def _kept(self, ids: list[int]) -> range:
        """Return the range between the padding ids at both ends."""
        pad, start, end = self.tokenizer.pad_token_id, 0, len(ids)
        while end > start and ids[end - 1] == pad:
            end -= 1
        if pad == getattr(self.tokenizer, "eos_token_id", None):  # the first of them is the EOS token
            end = min(end + 1, len(ids))
        while start < end - 1 and ids[start] == pad:
            start += 1
        return range(start, end)

    def _check_decoder_inputs(self, feature: dict[str, Any], row: int, shifted: list[int]) -> None:
        if feature.get("decoder_input_ids") is None:
            return
        given = _values(feature, "decoder_input_ids", row)[: len(shifted)]
        if given != shifted:
            raise ValueError(
                f"row {row} of the batch has decoder_input_ids that begin with {given[:4]}, but its labels shifted "
                f"right behind decoder_start_token_id={self.decoder_start_token_id} begin with {shifted[:4]}; leave "
                "decoder_input_ids out, since the collator makes them"
            )

    def _pad(self, rows: list[list[int]], value: int, left: bool) -> Tensor:
        length = max(map(len, rows))
        if self.pad_to_multiple_of:
            length = -(-length // self.pad_to_multiple_of) * self.pad_to_multiple_of
        filling = [[value] * (length - len(row)) for row in rows]
        padded = [fill + row if left else row + fill for row, fill in zip(rows, filling, strict=True)]
        return torch.tensor(padded, dtype=torch.long)  # one tensor; a tensor per row takes five times as long


def _values(feature: dict[str, Any], key: str, row: int) -> list[int]:
    """Return integers from a list, an array or a tensor, which may have the shape (1, length)."""
    values = feature.get(key)
    if values is None:
        raise ValueError(f"row {row} of the batch has no {key}; it has {', '.join(sorted(feature)) or 'nothing'}")
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(values) == 1 and hasattr(values[0], "__len__"):  # from a tokenizer with return_tensors
        values = values[0].tolist() if hasattr(values[0], "tolist") else list(values[0])
    if any(hasattr(value, "__len__") for value in values):
        raise ValueError(
            f"row {row} of the batch has {len(values)} sentences in {key}; encode one sentence per example"
        )
    return [int(value) for value in values]


def _mask(feature: dict[str, Any], key: str, row: int, length: int) -> list[int]:
    mask = _values(feature, key, row)
    if len(mask) != length or not {0, 1}.issuperset(mask):
        raise ValueError(
            f"row {row} of the batch has {len(mask)} values in {key} for {length} ids, or values other than 0 and 1; "
            "take both from one call of the tokenizer"
        )
    return mask


def _check(ids: list[int], key: str, row: int, vocab_size: int, allowed: int | None = None) -> None:
    if not ids:
        raise ValueError(
            f"row {row} of the batch has empty {key}, or only padding in it; every sentence needs at least the EOS "
            "token"
        )
    for token_id in (min(ids), max(ids)):
        if not 0 <= token_id < vocab_size and token_id != allowed:
            raise ValueError(
                f"row {row} of the batch has the id {token_id} in {key}, outside the vocabulary of {vocab_size} "
                "tokens; use the tokenizer of the model"
            )


def _labels_to_inputs(labels: list[int], pad_token_id: int) -> list[int]:
    return [pad_token_id if label < 0 else label for label in labels]
