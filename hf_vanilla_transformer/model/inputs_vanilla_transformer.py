# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Token ids, positions and masks: how the model's inputs are checked and derived from one another."""

# Shapes: B batch · S source length · T target length · D d_model

from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from .loss_vanilla_transformer import IGNORE_INDEX, on_accelerator


def shift_tokens_right(labels: Tensor, pad_token_id: int, decoder_start_token_id: int) -> Tensor:
    """Make decoder inputs from labels: the decoder start token, then all labels but the last (§3.1).

    Args:
        labels: (B, T), −100 where there is no label; not modified.
        pad_token_id: replaces −100.
        decoder_start_token_id: the first input of each row.

    Returns:
        (B, T), in the dtype of the labels.
    """
    shifted = labels.new_full(labels.shape, decoder_start_token_id)
    shifted[:, 1:] = labels[:, :-1]
    return shifted.masked_fill(shifted == IGNORE_INDEX, pad_token_id)


def positions_from_mask(attention_mask: Tensor) -> Tensor:
    """Number the real tokens of each row from 0, so that left padding does not shift positions: (B, S) → (B, S)."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def default_attention_mask(
    input_ids: Tensor | None, attention_mask: Tensor | None, pad_token_id: int | None
) -> Tensor | None:
    """Return the mask if it is given, else (B, S) that hides the padding of the source; None if that is unknown."""
    if attention_mask is None and input_ids is not None and pad_token_id is not None:
        return input_ids.ne(pad_token_id).long()
    return attention_mask


def source_padding_mask(
    module: Any, inputs_embeds: Tensor, attention_mask: Tensor | None, encoder_hidden_states: Tensor | None = None
) -> Any:
    """Make the mask that hides the source's padding, in the form that the selected attention implementation takes.

    transformers first checks whether any token is padding, because attention without a mask is faster. On a GPU that
    check synchronizes twice per update, and nearly all training batches contain padding: skip it there.
    """
    if (
        module.training
        and module.config._attn_implementation in ("sdpa", "fused")
        and attention_mask is not None
        and attention_mask.dim() == 2
        and on_accelerator(attention_mask)
    ):
        return attention_mask.to(inputs_embeds.device).bool()[:, None, None, :]  # (B, 1, 1, S)
    return create_bidirectional_mask(
        config=module.config,
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        encoder_hidden_states=encoder_hidden_states,
    )


def check_token_ids(ids: Tensor, vocab_size: int, name: str, ignored: int | None = None) -> None:
    """Check that ids are in the vocabulary, so that an error names the argument instead of an index inside torch.

    On other devices than the CPU the check would synchronize; there the collator and `translate` check the ids.

    Args:
        ids: (…, T) token ids.
        vocab_size: number of tokens in the vocabulary.
        name: the argument's name, for the message.
        ignored: an id outside the vocabulary that is accepted.

    Raises:
        ValueError: If there are no tokens, or an id is outside the vocabulary.
    """
    if ids.shape[-1] == 0:
        raise ValueError(f"{name} has no tokens; give every sentence at least its EOS token")
    if on_accelerator(ids) or torch.compiler.is_compiling() or torch.jit.is_tracing() or ids.numel() == 0:
        return
    if type(ids) is not Tensor:  # a fake or traced tensor has no values to check
        return
    if ignored is not None:
        ids = ids.masked_fill(ids == ignored, 0)
    lowest, highest = (int(bound) for bound in ids.aminmax())
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(
            f"{name} contains the id {lowest if lowest < 0 else highest}, which is outside the vocabulary of "
            f"{vocab_size} tokens; use the tokenizer of this model"
        )


__all__ = [
    "check_token_ids",
    "default_attention_mask",
    "positions_from_mask",
    "shift_tokens_right",
    "source_padding_mask",
]
