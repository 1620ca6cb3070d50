# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The first lines of the training log: what is trained, on which devices, and the estimated time."""

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from .time_left import TimeLeft, duration

if TYPE_CHECKING:
    from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)

_TIMED_UPDATES = 5  # after the first one, before the time is estimated


class Progress(TrainerCallback):
    """Logs processes, precision and batch size when training begins, and the estimated time after a few updates."""

    def __init__(self, trainer: "VanillaTransformerTrainer") -> None:
        self.trainer = trainer
        self._time_left = TimeLeft()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log what is trained."""
        self._time_left = TimeLeft()
        if not state.is_world_process_zero:
            return
        processes = "1 process" if args.world_size == 1 else f"{args.world_size} processes"
        micro_batches = args.world_size * args.gradient_accumulation_steps
        budget = self.trainer.args.max_tokens_per_batch
        precision = self.trainer.accelerator.mixed_precision
        dtype = str(next(kwargs["model"].parameters()).dtype).removeprefix("torch.")
        logger.info(
            f"{processes} on {args.device.type}, precision {dtype if precision == 'no' else precision}, at most "
            f"{budget:,} source and {budget:,} target tokens per update ({micro_batches:,} micro-batches of "
            f"{budget // micro_batches:,}), updates {state.global_step + 1:,} to {state.max_steps:,}; the estimated "
            f"time follows after {_TIMED_UPDATES + 1} updates"
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log the estimated time once enough updates are timed."""
        self._time_left.end_update(state.global_step, self.trainer._meter.seconds_paused)
        if self._time_left.timed_updates == _TIMED_UPDATES and state.is_world_process_zero:
            remaining = state.max_steps - state.global_step
            logger.info(
                f"estimated time: {duration(self._time_left.seconds(remaining) or 0.0)} for the remaining "
                f"{remaining:,} updates, at {self._time_left.seconds_per_update:.3g} s per update, without evaluation "
                "and saving"
            )


__all__ = ["Progress"]
