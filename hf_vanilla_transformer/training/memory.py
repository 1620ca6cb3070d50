# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Recognize out-of-memory errors, and report which argument to lower."""

from typing import Any

import torch

# Phrases from the messages of the CPU allocators of torch and oneDNN; CUDA's error has a class of its own.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "cannot allocate memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def out_of_memory_message(update: int, batch: dict[str, Any], budget: int, micro_batches: int) -> str:
    """Return a message with the size of the micro-batch and the arguments to change.

    Args:
        update: number of the update in which memory ran out.
        batch: the micro-batch, ``input_ids`` (B, S) and ``labels`` (B, T).
        budget: ``max_tokens_per_batch``.
        micro_batches: number of micro-batches, over all processes, that share the budget.
    """
    sizes = {key: tuple(batch[key].shape) for key in ("input_ids", "labels") if hasattr(batch.get(key), "shape")}
    source, target = sizes.get("input_ids", (0, 0)), sizes.get("labels", (0, 0))
    return (
        f"out of memory in update {update:,}: the micro-batch has {source[0]} sentences, the longest source with "
        f"{source[1]} tokens and the longest target with {target[1]}, within a budget of {budget // micro_batches} "
        f"tokens per side (max_tokens_per_batch={budget} over {micro_batches} micro-batches); raise "
        "gradient_accumulation_steps, which does not change the result, or lower max_tokens_per_batch or "
        "max_sentence_tokens"
    )


__all__ = ["is_out_of_memory", "out_of_memory_message"]
