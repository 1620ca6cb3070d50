# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The learning rate of the paper (§5.3, Equation 3)."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def noam_learning_rate(step: int, d_model: int, warmup_steps: int) -> float:
    """Compute d_model^−0.5 · min(step^−0.5, step · warmup_steps^−1.5) (§5.3, Eq. 3).

    Args:
        step: the update, counted from 1.
        d_model: width of the model.
        warmup_steps: updates over which the rate rises; it peaks at update ``warmup_steps``, at
            1 / √(d_model · warmup_steps).

    Returns:
        The learning rate of that update.

    Raises:
        ValueError: If a number is below 1.
    """
    if min(step, d_model, warmup_steps) < 1:
        raise ValueError(
            f"Equation 3 needs step, d_model and warmup_steps of at least 1, not {step}, {d_model} and {warmup_steps}"
        )
    return d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)


def cooldown_multiplier(step: int, total_steps: int, cooldown_steps: int) -> float:
    """Return 1, and over the last ``cooldown_steps`` updates a line that would meet 0 one update after the last.

    The paper has no such end (``cooldown_steps=0``): its runs are long, and it averages checkpoints instead.

    Args:
        step: the update, counted from 1.
        total_steps: updates of the run.
        cooldown_steps: updates over which the rate falls.
    """
    return min(1.0, max(total_steps - step + 1, 0) / (cooldown_steps + 1)) if cooldown_steps else 1.0


def noam_multiplier(step: int, warmup_steps: int) -> float:
    """Return what share of its peak the rate of Equation 3 is at a step: min(step / warmup, √(warmup / step)).

    Args:
        step: the update, counted from 1.
        warmup_steps: the update with the highest rate.
    """
    return min(step / warmup_steps, (warmup_steps / step) ** 0.5)


def noam_schedule(optimizer: Optimizer, warmup_steps: int, total_steps: int = 0, cooldown_steps: int = 0) -> LambdaLR:
    """Schedule an optimizer by the curve of Equation 3, from update 1 on.

    Args:
        optimizer: its groups' learning rates are the peaks of their curves; 1 / √(d_model · warmup_steps) is the
            paper's.
        warmup_steps: updates over which the rate rises.
        total_steps: updates of the run; only a cooldown needs it.
        cooldown_steps: the last updates, over which the rate falls to 0; the paper has none.

    Raises:
        ValueError: If the warm-up is below 1, or the cooldown is longer than the run.
    """
    if warmup_steps < 1:  # before training starts
        raise ValueError(f"Equation 3 needs warmup_steps of at least 1, not {warmup_steps}")
    if cooldown_steps < 0 or (cooldown_steps and cooldown_steps > total_steps):
        raise ValueError(f"cooldown_steps={cooldown_steps} must be between 0 and the run's {total_steps} updates")

    def share(done: int) -> float:
        return cooldown_multiplier(done + 1, total_steps, cooldown_steps) * noam_multiplier(done + 1, warmup_steps)

    return LambdaLR(optimizer, share)


__all__ = ["cooldown_multiplier", "noam_learning_rate", "noam_multiplier", "noam_schedule"]
