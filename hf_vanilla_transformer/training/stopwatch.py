# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Wall time and processor time of a training run, accumulated across resumes."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

_CLOCKS: dict[str, Callable[[], float]] = {
    "seconds": time.perf_counter,  # wall time
    "processor_seconds": time.process_time,  # CPU time of all threads of this process
}


class Stopwatch(TrainerCallback, ExportableState):
    """Measures the duration of training; its state is saved in checkpoints, so that a resumed run continues from it."""

    def __init__(self) -> None:
        self._before = dict.fromkeys(_CLOCKS, 0.0)  # before this process, from the checkpoint
        self._started: dict[str, float] | None = None
        self._stopped: dict[str, float] | None = None

    @property
    def seconds(self) -> float:
        """Wall time since training started, until now or its end, plus the time saved in the checkpoint."""
        return self._elapsed("seconds")

    @property
    def processor_seconds(self) -> float:
        """CPU time of this process in that time, summed over cores."""
        return self._elapsed("processor_seconds")

    def _elapsed(self, clock: str) -> float:
        if self._started is None:
            return 0.0
        now = _CLOCKS[clock]() if self._stopped is None else self._stopped[clock]
        return self._before[clock] + now - self._started[clock]

    def state(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint, in Trainer's format."""
        return {"args": {}, "attributes": {f"saved_{clock}": self._elapsed(clock) for clock in _CLOCKS}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from the times in the checkpoint, if there is one and it has them."""
        callbacks: Any = state.stateful_callbacks if state.global_step else {}
        saved = callbacks.get(type(self).__name__)
        attributes = saved["attributes"] if isinstance(saved, dict) else {}
        self._before["seconds"] = float(attributes.get("saved_seconds", 0.0))
        # If the checkpoint has only the wall time: the upper bound for this number of threads.
        most = self._before["seconds"] * torch.get_num_threads()
        self._before["processor_seconds"] = float(attributes.get("saved_processor_seconds", most))
        self._started, self._stopped = _read_clocks(), None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop."""
        self._stopped = _read_clocks()


def _read_clocks() -> dict[str, float]:
    return {name: clock() for name, clock in _CLOCKS.items()}


__all__ = ["Stopwatch"]
