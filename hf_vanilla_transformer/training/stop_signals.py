# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Stop on SIGTERM and SIGINT: finish the update, save a checkpoint, exit with the signal's status."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from .processes import max_over_ranks

if TYPE_CHECKING:
    from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_FORWARDED_SECONDS = 2.0  # within which a launcher forwards a signal that it has received


class StopSignals:
    """Context manager that catches SIGTERM and SIGINT; a second signal ends the process immediately.

    Only the main thread can install signal handlers; in other threads nothing is caught. Under torchrun and
    ``accelerate launch`` a signal to all processes of a job arrives twice, from its sender and from the launcher, which
    forwards it: there, a repetition within two seconds is ignored. Forked dataloader workers leave the first signal to
    the main process.

    Attributes:
        received: the first signal received, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._when = 0.0  # seconds of the monotonic clock
        self._owner = os.getpid()
        self._launched = "TORCHELASTIC_RUN_ID" in os.environ  # by torchrun, or by accelerate, which uses it
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed from Python

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is not None:
            if self._launched and now - self._when < _FORWARDED_SECONDS:
                return
            os._exit(exit_status(number))
        self.received, self._when = signal.Signals(number), now
        if os.getpid() == self._owner:
            line = f"{self.received.name}: finishing this update, saving, then stopping; a second signal stops at once"
            start = "\n" if os.isatty(2) else ""  # a terminal shows ^C, maybe behind a progress line
            os.write(2, f"{start}{line}\n".encode("ascii"))  # a logger may hold its lock when the signal arrives


class StopBySignal(TrainerCallback):
    """Ends a training after a signal to any rank: at the end of the update, once a checkpoint is saved.

    Attributes:
        number: the signal that all ranks stop for; 0 while there is none.
        number_of_update: the signal that any rank had received when the running update was known to be finite or not;
            None if that is not known yet.
        saving: whether the checkpoint being written was requested by a signal, and not by ``save_strategy``.
    """

    def __init__(self, trainer: "VanillaTransformerTrainer") -> None:
        self.trainer = trainer
        self.number = 0
        self.number_of_update: int | None = None
        self.saving = False
        self._signals = StopSignals()

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Catch signals inside the ``with`` block."""
        self.number, self.saving = 0, False
        with StopSignals() as self._signals:
            yield

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request a checkpoint and the end of training if a signal has arrived.

        With several processes, the ranks have exchanged their signals already, when the update's gradients were known.
        """
        number, self.number_of_update = self.number_of_update, None
        if number is None or args.world_size == 1:
            self._ask_all_ranks()
        else:
            self.number = number
        self._stop_if_received(control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request a checkpoint and the end of training if a signal has arrived during evaluation."""
        if self.trainer.is_in_train:
            self._ask_all_ranks()
            self._stop_if_received(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Request the checkpoint again if training was stopped inside the epoch."""
        if self.number:  # with `save_strategy: best`, Trainer has withdrawn the request
            control.should_evaluate = control.should_log = False
            control.should_save = self.saving = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Exit once the checkpoint is saved."""
        self.exit_if_received()

    def exit_if_received(self) -> None:
        """End the process if any rank has received a signal; a collective operation.

        The process ends here because Trainer's steps after training delete checkpoints and load others.

        Raises:
            SystemExit: With the signal's exit status.
        """
        self._ask_all_ranks()
        if not self.number:
            return
        trainer = self.trainer
        if trainer.is_in_train:
            trainer.control = trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            trainer.is_in_train = False
        update = trainer.state.global_step
        if trainer.last_saved_update == update:
            saved = "which is saved; run the same command again to resume from it"
        else:
            saved = "which is not saved; the same command resumes from the newest checkpoint, if there is one"
        name = signal.Signals(self.number).name
        logger.warning(f"stopped by {name} after update {update:,} of {trainer.state.max_steps:,}, {saved}")
        raise SystemExit(exit_status(self.number))

    @property
    def received(self) -> int:
        """The signal that this process has received; 0 if there is none."""
        received = self._signals.received
        return 0 if received is None else int(received)

    def _ask_all_ranks(self) -> None:
        self.number = max_over_ranks(self.received, self.trainer.args.device)

    def _stop_if_received(self, control: TrainerControl) -> None:
        if self.number:
            if not control.should_save:  # otherwise this checkpoint is due anyway
                self.saving = control.should_save = True
            control.should_training_stop = True


def exit_status(number: int) -> int:
    """Return the exit status that shells report for a process ended by a signal: 143 for SIGTERM, 130 for SIGINT."""
    return 128 + number


__all__ = ["StopBySignal", "StopSignals", "exit_status"]
