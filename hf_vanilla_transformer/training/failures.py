# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Replace errors of torch that do not tell the user what to change with errors that do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .memory import is_out_of_memory, out_of_memory_message
from .processes import is_lost_process

if TYPE_CHECKING:
    from .trainer import VanillaTransformerTrainer


@contextmanager
def explained_step_errors(
    trainer: "VanillaTransformerTrainer", inputs: dict[str, Any], custom_loss: bool
) -> Iterator[None]:
    """Explain errors of the forward and backward pass of a micro-batch.

    Args:
        trainer: whose training step this is.
        inputs: the micro-batch.
        custom_loss: whether a subclass overrides ``compute_loss``.

    Raises:
        ValueError: If a custom loss reads logits that the model has not returned.
        MemoryError: If memory ran out.
    """
    try:
        yield
    except (AttributeError, TypeError) as error:
        if not custom_loss or "NoneType" not in str(error):
            raise
        raise ValueError(
            f"{type(trainer).__name__}.compute_loss fails on None ({error}): in training with labels, outputs.logits "
            "is None, because the loss computes logits in chunks without keeping them; to get them, call "
            "model(**inputs, return_logits=True)"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        args = trainer.args
        micro_batches = args.world_size * args.gradient_accumulation_steps
        update = trainer.state.global_step + 1
        raise MemoryError(out_of_memory_message(update, inputs, args.max_tokens_per_batch, micro_batches)) from error


@contextmanager
def explained_run_errors(trainer: "VanillaTransformerTrainer") -> Iterator[None]:
    """Explain errors of a training outside of the passes over a micro-batch.

    Raises:
        ConnectionError: If another process has died.
        MemoryError: If memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        args, update = trainer.args, trainer.state.global_step
        if args.world_size > 1 and is_lost_process(error):
            reason = str(error).strip().splitlines()[0][:200]
            raise ConnectionError(
                f"another of the {args.world_size} processes has died or cannot be reached, so process "
                f"{args.process_index} stops at update {update:,}; run the same command again to resume from the "
                f"newest valid checkpoint ({reason})"
            ) from error
        if is_out_of_memory(error):
            raise MemoryError(
                f"out of memory after update {update:,}, in the optimizer, in evaluation or in saving: lower "
                f"per_device_eval_batch_size={args.per_device_eval_batch_size} or "
                f"max_tokens_per_batch={args.max_tokens_per_batch}, or choose a smaller preset"
            ) from error
        raise


__all__ = ["explained_run_errors", "explained_step_errors"]
