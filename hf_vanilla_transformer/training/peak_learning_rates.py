# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Keep the peak learning rates of the current run, even after a checkpoint's scheduler state was loaded."""

from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

logger = logging.get_logger(__name__)


class PeakLearningRates(TrainerCallback):
    """Remembers the peaks of the schedule's parameter groups, and restores them when training is resumed.

    A checkpoint has other peaks if ``resume_anyway`` changes ``learning_rate``, or if an earlier version wrote it, in
    which the optimizer's learning rate was a factor.
    """

    def __init__(self, custom_optimizer: bool) -> None:
        """Make the callback.

        Args:
            custom_optimizer: whether the user has passed an optimizer, which keeps its own learning rates.
        """
        self.custom_optimizer = custom_optimizer
        self._peaks: list[float] | None = None
        self._by_equation_3 = False

    def record(self, schedule: Any, by_equation_3: bool) -> None:
        """Record the peaks of a new schedule.

        Args:
            schedule: only a `LambdaLR` has peaks.
            by_equation_3: whether its curve is Equation 3.
        """
        self._peaks = [float(rate) for rate in schedule.base_lrs] if isinstance(schedule, LambdaLR) else None
        self._by_equation_3 = by_equation_3

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the peaks after a checkpoint was loaded, and log them."""
        if self._peaks is None:
            return
        schedule, optimizer = kwargs["lr_scheduler"], kwargs["optimizer"]
        if state.global_step and not self.custom_optimizer and isinstance(schedule, LambdaLR):
            self._restore(schedule, optimizer, self._peaks)
        if self._by_equation_3 and state.is_world_process_zero:
            peaks = ", ".join(f"{peak:.4g}" for peak in dict.fromkeys(self._peaks))
            warmup = args.get_warmup_steps(state.max_steps)
            logger.debug(f"learning rate by Equation 3, with its peak of {peaks} in update {warmup}")

    @staticmethod
    def _restore(schedule: LambdaLR, optimizer: Any, peaks: list[float]) -> None:
        if optimizer is None or list(schedule.base_lrs) == peaks:
            return
        done = schedule.last_epoch
        rates = [peak * curve(done) for peak, curve in zip(peaks, schedule.lr_lambdas, strict=True)]
        schedule.load_state_dict({**schedule.state_dict(), "base_lrs": list(peaks), "_last_lr": rates})
        for group, peak, rate in zip(optimizer.param_groups, peaks, rates, strict=True):
            group["initial_lr"], group["lr"] = peak, rate


__all__ = ["PeakLearningRates"]
