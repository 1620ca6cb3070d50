# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's learning rate schedule (§5.3, Equation 3)."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def noam_learning_rate(step: int, d_model: int, warmup_steps: int) -> float:
    """Compute d_model^−0.5 · min(step^−0.5, step · warmup_steps^−1.5) (§5.3, Eq. 3).

    Args:
        step: number of the update, starting at 1.
        d_model: width of the model.
        warmup_steps: number of updates over which the rate rises, to its peak of 1 / √(d_model · warmup_steps) at
            update ``warmup_steps``.

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
    """Return 1, falling linearly over the last ``cooldown_steps`` updates, to reach 0 one update after the last.

    The paper has no cooldown (``cooldown_steps=0``): it trains for long and averages checkpoints.

    Args:
        step: number of the update, starting at 1.
        total_steps: number of updates of the run.
        cooldown_steps: number of updates over which the rate falls.
    """
    return min(1.0, max(total_steps - step + 1, 0) / (cooldown_steps + 1)) if cooldown_steps else 1.0


def noam_multiplier(step: int, warmup_steps: int) -> float:
    """Return the rate of Equation 3 relative to its peak: min(step / warmup_steps, √(warmup_steps / step)).

    Args:
        step: number of the update, starting at 1.
        warmup_steps: number of the update with the peak rate.
    """
    return min(step / warmup_steps, (warmup_steps / step) ** 0.5)


def noam_schedule(optimizer: Optimizer, warmup_steps: int, total_steps: int = 0, cooldown_steps: int = 0) -> LambdaLR:
    """Make a learning rate schedule with the curve of Equation 3, starting at update 1.

    Args:
        optimizer: the learning rates of its parameter groups are the peaks; the paper's is
            1 / √(d_model · warmup_steps).
        warmup_steps: number of updates over which the rate rises.
        total_steps: number of updates of the run; only used for the cooldown.
        cooldown_steps: number of last updates over which the rate falls to 0; the paper has none.

    Raises:
        ValueError: If ``warmup_steps`` is below 1, or the cooldown longer than the run.
    """
    if warmup_steps < 1:
        raise ValueError(f"Equation 3 needs warmup_steps of at least 1, not {warmup_steps}")
    if cooldown_steps < 0 or (cooldown_steps and cooldown_steps > total_steps):
        raise ValueError(
            f"cooldown_steps={cooldown_steps} must be between 0 and the run's {total_steps} updates; lower it, or "
            "train longer"
        )

    def multiplier(done: int) -> float:
        return cooldown_multiplier(done + 1, total_steps, cooldown_steps) * noam_multiplier(done + 1, warmup_steps)

    return LambdaLR(optimizer, multiplier)


__all__ = ["cooldown_multiplier", "noam_learning_rate", "noam_multiplier", "noam_schedule"]
