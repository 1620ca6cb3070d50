# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""How long a training took, the parts before a stop included."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

_CLOCKS: dict[str, Callable[[], float]] = {
    "seconds": time.perf_counter,  # what the user waits
    "processor_seconds": time.process_time,  # all threads of this process added up, whatever else the machine does
}


class Stopwatch(TrainerCallback, ExportableState):
    """Counts seconds of training; each checkpoint remembers them, and a run that goes on from it counts on."""

    def __init__(self) -> None:
        self._before = dict.fromkeys(_CLOCKS, 0.0)  # of the parts before a stop, as the checkpoint has it
        self._started: dict[str, float] | None = None
        self._stopped: dict[str, float] | None = None

    @property
    def seconds(self) -> float:
        """Wall time from the start of training to now or to its end, and what earlier parts took until they saved."""
        return self._elapsed("seconds")

    @property
    def processor_seconds(self) -> float:
        """Time that the cores gave to this process meanwhile, summed over them."""
        return self._elapsed("processor_seconds")

    def _elapsed(self, clock: str) -> float:
        if self._started is None:
            return 0.0
        now = _CLOCKS[clock]() if self._stopped is None else self._stopped[clock]
        return self._before[clock] + now - self._started[clock]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint remembers, in the form that Trainer saves."""
        return {"args": {}, "attributes": {f"saved_{clock}": self._elapsed(clock) for clock in _CLOCKS}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start, from what the checkpoint has if there is one; those of older versions have nothing."""
        callbacks: Any = state.stateful_callbacks if state.global_step else {}
        saved = callbacks.get(type(self).__name__)
        attributes = saved["attributes"] if isinstance(saved, dict) else {}
        self._before["seconds"] = float(attributes.get("saved_seconds", 0.0))
        # Where a checkpoint has the wall time alone: no more than its threads can have taken of it.
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
