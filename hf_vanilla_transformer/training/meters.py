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
    """What is summed from one log entry to the next, on one rank."""

    def __init__(self, device: torch.device) -> None:
        self.started = time.perf_counter()
        self.sums = torch.zeros(3, dtype=sum_dtype(device), device=device)  # nats, target tokens, source tokens
        self.of_update = torch.zeros_like(self.sums)  # what the running update will add, if it isn't skipped
        self.made = self.skipped = 0  # updates

    def add(self, nll: Tensor, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None) -> None:
        """Add a micro-batch: its ``nll`` in nats, as divided by the model, which tokens it had, and the divisor."""
        target_tokens = (inputs["labels"] != IGNORE_INDEX).sum()
        divisor = target_tokens if num_items_in_batch is None else num_items_in_batch
        mask = inputs.get("attention_mask")
        source_tokens = torch.as_tensor(inputs["input_ids"].numel()) if mask is None else mask.sum()
        counts = ((nll * divisor).sum(), target_tokens, source_tokens)
        self.of_update += torch.stack([count.to(self.sums) for count in counts])

    def end_update(self, skipped: bool) -> None:
        """Count the update that is over, unless it was skipped."""
        if skipped:
            self.skipped += 1
        else:
            self.made += 1
            self.sums += self.of_update
        self.of_update.zero_()

    def share_not_skipped(self) -> float:
        """Return what to multiply a mean over all updates by, to which skipped ones gave 0; NaN if all were skipped."""
        return (self.made + self.skipped) / self.made if self.made else math.nan

    def summary(self, sums: Tensor) -> dict[str, float]:
        """Return log entries from the sums of all ranks."""
        nats, target_tokens, source_tokens = sums.tolist()
        seconds = time.perf_counter() - self.started
        nll = nats / target_tokens if target_tokens else math.nan
        return {
            "nll": nll,
            "perplexity": perplexity(nll),
            "tokens_per_second": round((source_tokens + target_tokens) / max(seconds, 1e-9), 1),
        }


def perplexity(nll: float) -> float:
    """Return e^nll, infinite where that is more than a float holds."""
    return math.exp(nll) if not nll > 700 else math.inf


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the widest dtype for sums that the device has."""
    return torch.float32 if device.type == "mps" else torch.float64


__all__ = ["TrainingWindow", "perplexity", "sum_dtype"]
