# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The first lines of the training log: what is trained, on which devices, and the estimated time."""

import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

if TYPE_CHECKING:
    from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)

_TIMED_UPDATES = 5  # after the first one, before the time is estimated


class Progress(TrainerCallback):
    """Logs processes, precision and batch size when training begins, and the estimated time after a few updates."""

    def __init__(self, trainer: "VanillaTransformerTrainer") -> None:
        self.trainer = trainer
        self._first: tuple[int, float] | None = None  # number of an update, and when it ended, in seconds

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log what is trained."""
        self._first = None
        if not state.is_world_process_zero:
            return
        processes = "1 process" if args.world_size == 1 else f"{args.world_size} processes"
        micro_batches = args.world_size * args.gradient_accumulation_steps
        budget = self.trainer.args.max_tokens_per_batch
        precision = self.trainer.accelerator.mixed_precision
        dtype = str(next(kwargs["model"].parameters()).dtype).removeprefix("torch.")
        logger.info(
            f"{processes} on {args.device.type}, precision {dtype if precision == 'no' else precision}, at most "
            f"{budget} source and {budget} target tokens per update ({micro_batches} micro-batches of "
            f"{budget // micro_batches}), updates {state.global_step + 1} to {state.max_steps}; the estimated time "
            f"follows after {_TIMED_UPDATES + 1} updates"
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log the estimated time once enough updates are timed."""
        now = time.perf_counter() - self.trainer._meter.seconds_paused
        if self._first is None:  # the first update compiles, fills caches and starts workers: it is not timed
            self._first = state.global_step, now
        elif state.global_step == self._first[0] + _TIMED_UPDATES and state.is_world_process_zero:
            seconds = (now - self._first[1]) / _TIMED_UPDATES
            remaining = state.max_steps - state.global_step
            logger.info(
                f"estimated time: {duration(seconds * remaining)} for the remaining {remaining} updates, at "
                f"{seconds:.3g} s per update, without evaluation and saving"
            )


def duration(seconds: float) -> str:
    """Format a time in its two largest units, as "2 h 05 min" or "40 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


__all__ = ["Progress", "duration"]
