# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Skip updates with a non-finite loss or gradient, and report the examples responsible."""

import math
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from .non_finite import gradient_norm
from .processes import any_rank, read_with_max

if TYPE_CHECKING:
    from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)

UNSHARDED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
_REPORTED_EXAMPLES = 20  # of those that caused a skipped update


class SkippedUpdateCounter:
    """Counts skipped updates.

    Attributes:
        limit: number of consecutive skipped updates that ends the run; 0: no limit.
        consecutive: number since the last update that was made.
        total: number since the start of training in this process.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.consecutive = 0
        self.total = 0

    def made(self) -> None:
        """Count an update that was made."""
        self.consecutive = 0

    def skipped(self, update: int) -> None:
        """Count an update that was skipped.

        Raises:
            FloatingPointError: If the limit is reached.
        """
        self.consecutive += 1
        self.total += 1
        if self.limit and self.consecutive >= self.limit:
            raise FloatingPointError(
                f"training has failed: loss or gradients were not finite in {self.consecutive} consecutive updates, "
                f"the last of them update {update:,}; resume from the last checkpoint with a lower learning_rate or "
                "more warmup_steps, or with precision: fp32"
            )


class NonFiniteUpdates(TrainerCallback):
    """Skips an update whose loss or gradients are not finite, just before the optimizer would make it.

    Attributes:
        counter: of the skipped updates.
        grad_norm: norm of the running update's gradients, over all ranks; None if it was not computed.
    """

    def __init__(self, trainer: "VanillaTransformerTrainer") -> None:
        self.trainer = trainer
        self.counter = SkippedUpdateCounter(trainer.args.max_skipped_updates)
        self.grad_norm: Tensor | float | None = None
        self._micro_batches: list[tuple[dict[str, Any], Tensor]] = []  # of the running update, with their losses

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start counting."""
        self.counter = SkippedUpdateCounter(self.trainer.args.max_skipped_updates)
        self._micro_batches = []

    def add(self, inputs: dict[str, Any], loss: Tensor) -> None:
        """Record a micro-batch of the running update, and its loss."""
        self._micro_batches.append((inputs, loss))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Skip the update if it is not finite.

        All ranks see the norm of the same summed gradients, so they decide alike without communication. It is read
        together with the signal that any rank has received: one host synchronization per update.
        """
        trainer = self.trainer
        model: Any = trainer.model
        norm, self.grad_norm = self.grad_norm, None
        norm = gradient_norm(model.parameters()) if norm is None else norm
        scaler = getattr(trainer.accelerator, "scaler", None)
        micro_batches, self._micro_batches = self._micro_batches, []
        norm, trainer._stop.number_of_update = read_with_max(norm, trainer._stop.received, args.device)
        finite = math.isfinite(norm)
        failed = [] if finite else [index for index, (_, loss) in enumerate(micro_batches) if not loss.isfinite()]
        if not finite and scaler is not None and not any_rank(bool(failed), args.device):
            finite = True  # an overflow of the fp16 scaler's own: it skips the update itself and lowers its scale
        trainer._meter.end_update(skipped=not finite)
        if finite:
            self.counter.made()
            return
        update = state.global_step + 1
        logger.warning(f"update {update:,} is skipped: {self._describe(micro_batches, failed)}")
        if scaler is None:
            model.zero_grad(set_to_none=True)  # parameters without a gradient are not updated
        self.counter.skipped(update)

    def _describe(self, micro_batches: list[tuple[dict[str, Any], Tensor]], failed: list[int]) -> str:
        """Return which values of this rank are not finite, and with which examples, as precisely as is known.

        Args:
            micro_batches: of the update, with their losses.
            failed: indices of those whose loss is not finite.
        """
        args = self.trainer.args
        if failed:
            what = "the loss is"
        else:
            what = "the gradients are" if args.world_size == 1 else "the summed gradients of all ranks are"
            failed = list(range(len(micro_batches)))
        parts = []
        for index in failed:
            inputs = micro_batches[index][0]
            rows = self._non_finite_rows(inputs)
            examples = len(inputs["input_ids"])
            names = self.trainer._batches.example_names(self.trainer.state.global_step, index, examples, args)
            chosen = rows or list(range(examples))
            listed = ", ".join(names[row] for row in chosen[:_REPORTED_EXAMPLES])
            more = f" and {len(chosen) - _REPORTED_EXAMPLES} more" if len(chosen) > _REPORTED_EXAMPLES else ""
            cause = "each not finite by itself" if rows else "not finite together"
            parts.append(f"{listed}{more} ({cause}; the first starts with {self._source_text(inputs, chosen[0])!r})")
        where = f"{what} not finite on process {args.process_index}"
        return f"{where}, with examples {'; '.join(parts)} of the training data" if parts else where

    def _non_finite_rows(self, inputs: dict[str, Any]) -> list[int]:
        """Return the rows whose own loss, without dropout, is not finite; none if the model is sharded."""
        trainer = self.trainer
        if trainer.accelerator.distributed_type not in UNSHARDED:
            return []
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        batch = {key: value.to(trainer.args.device) for key, value in inputs.items() if isinstance(value, Tensor)}
        rows = len(batch["input_ids"])
        found = []
        model.eval()
        with torch.no_grad(), trainer.compute_loss_context_manager():
            for row in range(rows):
                one = {key: value[row : row + 1] for key, value in batch.items() if value.dim() and len(value) == rows}
                if not model(**one).loss.isfinite():
                    found.append(row)
        model.train()
        return found

    def _source_text(self, inputs: dict[str, Any], row: int) -> str:
        """Return the first 80 characters of a source sentence; its ids if there is no tokenizer."""
        ids = inputs["input_ids"][row].tolist()
        tokenizer: Any = getattr(self.trainer.processing_class, "source", self.trainer.processing_class)
        text = tokenizer.decode(ids, skip_special_tokens=True) if hasattr(tokenizer, "decode") else str(ids)
        return text[:80]


__all__ = ["UNSHARDED", "NonFiniteUpdates", "SkippedUpdateCounter"]
