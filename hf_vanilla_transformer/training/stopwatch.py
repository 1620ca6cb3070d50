# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""How long a training took, the parts before a stop included."""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState


class Stopwatch(TrainerCallback, ExportableState):
    """Counts seconds of training; each checkpoint remembers them, and a run that goes on from it counts on."""

    def __init__(self) -> None:
        self._before = 0.0  # of the parts before a stop, as the checkpoint has it
        self._started: float | None = None
        self._stopped: float | None = None

    @property
    def seconds(self) -> float:
        """Wall time from the start of training to now or to its end, and what earlier parts took until they saved."""
        if self._started is None:
            return 0.0
        return self._before + (time.perf_counter() if self._stopped is None else self._stopped) - self._started

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint remembers, in the form that Trainer saves."""
        return {"args": {}, "attributes": {"saved_seconds": self.seconds}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start, from what the checkpoint has if there is one; those of older versions have nothing."""
        callbacks: Any = state.stateful_callbacks if state.global_step else {}
        saved = callbacks.get(type(self).__name__)
        self._before = float(saved["attributes"]["saved_seconds"]) if isinstance(saved, dict) else 0.0
        self._started, self._stopped = time.perf_counter(), None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop."""
        self._stopped = time.perf_counter()


__all__ = ["Stopwatch"]
