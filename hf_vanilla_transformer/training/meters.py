# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Loss, negative log-likelihood without label smoothing, perplexity and tokens per second for the log.

Sums stay on the device between log entries, so that an update never waits for them.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..model.loss_vanilla_transformer import IGNORE_INDEX

_SHOWN_UPDATES = 10  # fewest updates since the last line from which `TrainingMeter.recent` computes its values


@dataclass(frozen=True)
class RecentValues:
    """What a line of progress shows, of the updates since the line before.

    Attributes:
        loss: mean loss per update, with label smoothing.
        nll: mean negative log-likelihood per target token in nats, without label smoothing; None if a custom loss was
            computed without it.
        perplexity: e^nll; None if that is unknown.
        target_tokens_per_second: number of target tokens trained on per second, by all ranks.
    """

    loss: float
    nll: float | None
    perplexity: float | None
    target_tokens_per_second: float


@dataclass(frozen=True)
class Totals:
    """Sums of a run up to one moment, on one rank.

    Attributes:
        sums: as in `LogWindow`.
        updates: number of updates made.
        seconds: of training, without evaluation and saving.
        has_nats: whether the unsmoothed likelihood of every micro-batch is known.
    """

    sums: Tensor
    updates: int
    seconds: float
    has_nats: bool

    def __add__(self, later: "Totals") -> "Totals":
        return Totals(
            self.sums + later.sums,
            self.updates + later.updates,
            self.seconds + later.seconds,
            self.has_nats and later.has_nats,
        )

    def since(self, earlier: "Totals") -> "Totals":
        """Return the sums from an earlier moment to this one."""
        return Totals(
            self.sums - earlier.sums, self.updates - earlier.updates, self.seconds - earlier.seconds, self.has_nats
        )

    def values(self, world_size: int) -> RecentValues:
        """Return the means of this rank, without waiting for the others; the speed is that of all ranks together."""
        loss, nats, target_tokens, _ = self.sums.tolist()
        nll = nats / target_tokens if self.has_nats and target_tokens else None
        return RecentValues(
            loss=loss / self.updates if self.updates else math.nan,
            nll=nll,
            perplexity=None if nll is None else perplexity(nll),
            target_tokens_per_second=target_tokens * world_size / max(self.seconds, 1e-9),
        )


class LogWindow:
    """Sums from one log entry to the next, on one rank.

    Attributes:
        sums: loss summed over updates, nats, target tokens, source tokens.
        updates: number of updates made.
        has_nats: whether the unsmoothed likelihood of every micro-batch is known.
    """

    def __init__(self, device: torch.device) -> None:
        self.started = time.perf_counter()
        self.paused = 0.0  # seconds since then in evaluation and saving
        self.sums = torch.zeros(4, dtype=sum_dtype(device), device=device)
        self.update_sums = torch.zeros_like(self.sums)  # of the running update, added unless it is skipped
        self.updates = 0
        self.has_nats = True

    def add(self, loss: Tensor, nats: Tensor | None, inputs: dict[str, Any]) -> None:
        """Add a micro-batch.

        Args:
            loss: its share of the update's loss.
            nats: unsmoothed negative log-likelihood, summed over its target tokens; None if a custom loss was computed
                without it.
            inputs: ``input_ids`` and ``labels``, whose tokens are counted.
        """
        labels, mask = inputs.get("labels"), inputs.get("attention_mask")
        target_tokens = self.sums.new_zeros(()) if labels is None else (labels != IGNORE_INDEX).sum()
        source_tokens = self.sums.new_full((), inputs["input_ids"].numel()) if mask is None else mask.sum()
        if nats is None:
            self.has_nats, nats = False, self.sums.new_zeros(())
        counts = (loss.detach(), nats, target_tokens, source_tokens)
        self.update_sums += torch.stack([count.to(self.sums) for count in counts])

    def end_update(self, skipped: bool) -> None:
        """Add the running update to the sums, unless it was skipped."""
        if not skipped:
            self.updates += 1
            self.sums += self.update_sums
        self.update_sums.zero_()

    def mean_loss(self, sums: Tensor, world_size: int) -> float:
        """Return the mean loss per update; NaN if no update was made.

        Args:
            sums: the ranks' sums, added up.
            world_size: number of ranks.
        """
        return sums[0].item() / world_size / self.updates if self.updates else math.nan

    def summary(self, sums: Tensor) -> dict[str, float]:
        """Return log entries computed from the sums of all ranks."""
        _, nats, target_tokens, source_tokens = sums.tolist()
        seconds = time.perf_counter() - self.started - self.paused
        speed = {"tokens_per_second": round((source_tokens + target_tokens) / max(seconds, 1e-9), 1)}
        if not self.has_nats:
            return speed
        nll = nats / target_tokens if target_tokens else math.nan
        return {"nll": nll, "perplexity": perplexity(nll), **speed}

    def totals(self) -> Totals:
        """Return the sums up to now."""
        seconds = time.perf_counter() - self.started - self.paused
        return Totals(self.sums.clone(), self.updates, seconds, self.has_nats)


class TrainingMeter(TrainerCallback):
    """Measures the running training and adds the results to Trainer's log entries.

    Attributes:
        nats: unsmoothed negative log-likelihood of the running micro-batch, in nats; None if unknown.
        seconds_paused: time spent in evaluation and saving since the meter was made.
    """

    def __init__(self) -> None:
        self.nats: Tensor | None = None
        self.seconds_paused = 0.0
        self._window: LogWindow | None = None  # None while no training is running
        self._loss_sum = 0.0  # of all ranks, in this call of train, up to the last log entry
        self._closed: Totals | None = None  # up to the last log entry; None before training
        self._last_line: Totals | None = None  # when the last line was shown; None before training
        self._shown: RecentValues | None = None  # in that line

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start measuring."""
        self._window = LogWindow(args.device)
        self._loss_sum, self._shown = 0.0, None
        self._closed = self._last_line = Totals(self._window.sums.clone(), 0, 0.0, has_nats=True)

    def add(self, loss: Tensor, inputs: dict[str, Any]) -> None:
        """Add a micro-batch, whose ``nats`` have been set if they are known; see `LogWindow.add`."""
        nats, self.nats = self.nats, None
        if self._window is not None:
            self._window.add(loss, nats, inputs)

    def end_update(self, skipped: bool) -> None:
        """End the running update; a skipped one does not count."""
        if self._window is not None:
            self._window.end_update(skipped)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude evaluation or saving from the time that the speed of training is computed from."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.seconds_paused += seconds
            if self._window is not None:
                self._window.paused += seconds

    def recent(self, world_size: int) -> RecentValues | None:
        """Return loss, perplexity and speed since the last line, or those of that line if it was a few updates ago.

        Args:
            world_size: number of ranks.

        Returns:
            The values of this rank; None before the first update.
        """
        if self._last_line is None:
            return None
        interval = self._totals().since(self._last_line)
        if interval.updates == 0 or (interval.updates < _SHOWN_UPDATES and self._shown is not None):
            return self._shown
        return interval.values(world_size)

    def end_line(self, world_size: int) -> None:
        """Note that a line was shown, after which the values of the next line begin."""
        self._shown, self._last_line = self.recent(world_size), self._totals()

    def overall(self, world_size: int) -> RecentValues | None:
        """Return the values of all updates of this call of train; None if there were none."""
        totals = None if self._closed is None else self._totals()
        return None if totals is None or not totals.updates else totals.values(world_size)

    def _totals(self) -> Totals:
        assert self._closed is not None
        return self._closed if self._window is None else self._closed + self._window.totals()

    def complete(self, logs: dict[str, float], accelerator: Any) -> None:
        """Set ``loss``, ``nll``, ``perplexity`` and speed in a training log entry, ``train_loss`` in the final one.

        Reduces sums over the ranks, so every rank has to call it for the same entries.
        """
        if self._window is None or not {"loss", "train_loss"} & logs.keys():
            return
        window, world_size = self._window, accelerator.num_processes
        sums: Tensor = accelerator.reduce(window.sums, "sum")
        self._loss_sum += sums[0].item() / world_size
        self._closed = self._totals()
        if "loss" in logs:
            logs["loss"] = window.mean_loss(sums, world_size)
            logs.update(window.summary(sums))
            self._window = LogWindow(sums.device)
        else:
            logs["train_loss"] = self._loss_sum / self._closed.updates if self._closed.updates else math.nan
            self._window = None


def perplexity(nll: float) -> float:
    """Return e^nll; infinity if that exceeds the range of a float."""
    return math.exp(nll) if not nll > 700 else math.inf


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating-point dtype that the device supports."""
    return torch.float32 if device.type == "mps" else torch.float64


__all__ = ["LogWindow", "RecentValues", "Totals", "TrainingMeter", "perplexity", "sum_dtype"]
