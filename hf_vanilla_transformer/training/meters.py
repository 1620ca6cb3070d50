# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""What the log says of training: true likelihood and perplexity a token, without smoothing, and tokens a second."""

import math
import time
from typing import Any

import torch
from torch import Tensor

from ..model.loss_vanilla_transformer import IGNORE_INDEX


class TrainingWindow:
    """What is summed from one log entry to the next, on one rank.

    Attributes:
        sums: loss summed over updates, nats, target tokens, source tokens.
        made: updates.
        skipped: updates that were skipped, which count nowhere else.
    """

    def __init__(self, device: torch.device) -> None:
        self.started = time.perf_counter()
        self.elsewhere = 0.0  # seconds since then in which nothing was trained
        self.sums = torch.zeros(4, dtype=sum_dtype(device), device=device)
        self.of_update = torch.zeros_like(self.sums)  # what the running update will add, if it isn't skipped
        self.made = self.skipped = 0
        self.knows_nats = True

    def add(self, loss: Tensor, nats: Tensor | None, inputs: dict[str, Any]) -> None:
        """Add a micro-batch.

        Args:
            loss: its part of the loss of the update.
            nats: negative log-likelihood of its tokens, without smoothing; None where a loss of the user's own was
                computed without it.
            inputs: ``input_ids`` and ``labels``, of which the tokens are counted.
        """
        labels, mask = inputs.get("labels"), inputs.get("attention_mask")
        target_tokens = self.sums.new_zeros(()) if labels is None else (labels != IGNORE_INDEX).sum()
        source_tokens = self.sums.new_full((), inputs["input_ids"].numel()) if mask is None else mask.sum()
        if nats is None:
            self.knows_nats, nats = False, self.sums.new_zeros(())
        counts = (loss.detach(), nats, target_tokens, source_tokens)
        self.of_update += torch.stack([count.to(self.sums) for count in counts])

    def end_update(self, skipped: bool) -> None:
        """Count the update that is over, unless it was skipped."""
        if skipped:
            self.skipped += 1
        else:
            self.made += 1
            self.sums += self.of_update
        self.of_update.zero_()

    def pause(self, seconds: float) -> None:
        """Leave out time that went into evaluation or saving."""
        self.elsewhere += seconds

    def loss(self, sums: Tensor, ranks: int) -> float:
        """Return the mean loss of the updates that were made; NaN if there were none.

        Args:
            sums: those of all ranks, added up.
            ranks: how many there are.
        """
        return sums[0].item() / ranks / self.made if self.made else math.nan

    def summary(self, sums: Tensor) -> dict[str, float]:
        """Return log entries from the sums of all ranks."""
        _, nats, target_tokens, source_tokens = sums.tolist()
        seconds = time.perf_counter() - self.started - self.elsewhere
        speed = {"tokens_per_second": round((source_tokens + target_tokens) / max(seconds, 1e-9), 1)}
        if not self.knows_nats:
            return speed
        nll = nats / target_tokens if target_tokens else math.nan
        return {"nll": nll, "perplexity": perplexity(nll), **speed}


def perplexity(nll: float) -> float:
    """Return e^nll, infinite where that is more than a float holds."""
    return math.exp(nll) if not nll > 700 else math.inf


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the widest dtype for sums that the device has."""
    return torch.float32 if device.type == "mps" else torch.float64


__all__ = ["TrainingWindow", "perplexity", "sum_dtype"]
