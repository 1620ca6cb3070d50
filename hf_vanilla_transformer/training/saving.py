# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Saving in Trainer: all ranks save or none does; non-finite weights are refused; code and card are included.

What a checkpoint directory looks like, and how it is renamed and rotated, is in `checkpointing`.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import Seq2SeqTrainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.utils import logging

from ..checkpoints.remote_code import copy_model_code, write_model_code
from ..messages import other_progress_bars_hidden
from ..model_card import RESULTS_NAME, write_card
from . import checkpointing
from .arguments import VanillaTransformerTrainingArguments
from .meters import TrainingMeter
from .non_finite import check_finite
from .processes import any_rank
from .run_identity import run_identity
from .stop_signals import StopBySignal

logger = logging.get_logger(__name__)


class CheckpointSaving(Seq2SeqTrainer):
    """A Trainer whose checkpoints are complete or absent; it saves and pushes only finite weights.

    A checkpoint that cannot be written ends the run, because without checkpoints all further training may be lost.
    Older checkpoints are not changed by that.

    Attributes:
        resumed_from: the checkpoint that the last call of `train` has resumed from; None for a new run.
        last_saved_update: number of updates in the newest checkpoint that `train` has saved or resumed from.
    """

    args: VanillaTransformerTrainingArguments
    resumed_from: str | None = None
    last_saved_update: int | None = None
    _custom_optimizer: str | None
    _meter: TrainingMeter
    _stop: StopBySignal
    _identity: dict[str, Any] | None = None  # of the running training, computed once: hashing the data takes time
    _pushing = False

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as `Trainer.save_model` does, after checking that the weights are finite.

        Raises:
            FloatingPointError: If a weight is not finite.
        """
        if self.args.should_save:
            check_finite(self.model)
        with other_progress_bars_hidden():  # transformers has one for the files of the weights
            super().save_model(output_dir, _internal_call=True)
        if (self.args.push_to_hub or self._pushing) and self.args.should_save:
            write_model_code(output_dir if output_dir is not None else str(self.args.output_dir))
        if self.args.push_to_hub and not _internal_call:  # as the parent does, but after the code is written
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Push as `Trainer.push_to_hub` does, together with the model's code."""
        self._pushing = True
        try:
            return super().push_to_hub(*args, **kwargs)
        finally:
            self._pushing = False

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card rendered from the run's results; Trainer's card if ``output_dir`` has no results."""
        folder = Path(str(self.args.output_dir))
        if (folder / RESULTS_NAME).is_file():
            if self.is_world_process_zero():
                write_card(folder)
            return
        super().create_model_card(*args, **kwargs)

    def run_identity(self) -> dict[str, Any]:
        """Return what a run that resumes from this one's checkpoints must share with it; see `run_identity`."""
        if self._identity is None:
            self._identity = run_identity(self.args, self.train_dataset, self.processing_class, self._custom_optimizer)
        return self._identity

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write everything to a staging directory, then rename it; on every rank or on none."""
        with self._meter.paused():
            self._write_checkpoint(trial)
        self.last_saved_update = self.state.global_step

    def _write_checkpoint(self, trial: Any) -> None:
        state, args = self.state, self.args
        if trial is None:
            self.store_flos()
        run_dir = Path(self._get_output_dir(trial=trial))
        step = state.global_step
        staging = checkpointing.staging_dir(run_dir, step)
        with self._on_all_ranks(staging, FloatingPointError, OSError):
            check_finite(self.model, self.optimizer)
            if args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir(parents=True)
        with self._on_all_ranks(staging, OSError, RuntimeError, SafetensorError):  # waits for every rank's files
            self.save_model(str(staging), _internal_call=True)
            if not args.save_only_model:
                self._save_optimizer_and_scheduler(str(staging))
                self._save_scaler(str(staging))
                self._save_rng_state(str(staging))
            if state.best_global_step:
                best = run_dir / f"checkpoint-{state.best_global_step}"
                if best.is_dir() or state.best_global_step == step:
                    state.best_model_checkpoint = str(best)
            if args.should_save:
                self._export_callback_states()
                state.save_to_json(str(staging / "trainer_state.json"))
        with self._on_all_ranks(staging, OSError):
            if args.should_save:
                saved_by = checkpointing.BY_SIGNAL if self._stop.saving else checkpointing.BY_SCHEDULE
                facts = {
                    "step": step, "saved_by": saved_by, "precision": args.used_precision, **self.run_identity(),
                }  # fmt: skip
                final = checkpointing.finish_checkpoint(staging, run_dir, step, facts)
                logger.debug(f"{final} is complete")
                if not self._stop.saving:
                    checkpointing.rotate(final, args.save_total_limit, state.best_model_checkpoint)
        if args.push_to_hub:
            self._push_from_checkpoint(str(run_dir / f"checkpoint-{step}"))

    @contextmanager
    def _on_all_ranks(self, staging: Path, *errors: type[Exception]) -> Iterator[None]:
        """Run a part of saving; if it fails on any rank, delete the staging directory and raise on all ranks."""
        error: Exception | None = None
        try:
            yield
        except errors as caught:
            error = caught
        if not any_rank(error is not None, self.args.device):
            return
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, FloatingPointError):
            raise error
        reason = "another process could not write its part" if error is None else " ".join(str(error).split())[:300]
        raise OSError(
            f"the checkpoint of update {self.state.global_step:,} cannot be saved ({reason}), so the run stops here; "
            f"older checkpoints are unchanged: free some space in {staging.parent} and run the same command again"
        ) from error

    def _export_callback_states(self) -> None:
        """Write the states of callbacks that have one into the state that is saved."""
        states: dict[str, list[dict[str, Any]]] = defaultdict(list)
        saved: Any = self.state.stateful_callbacks
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                states[type(callback).__name__].append(callback.state())
        for name, exported in states.items():
            saved[name] = exported[0] if len(exported) == 1 else exported


class SavingCallback(TrainerCallback):
    """Completes an interrupted rotation when training is resumed, and copies the model's code before a push."""

    def __init__(self, trainer: CheckpointSaving) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Delete the checkpoints that a run killed between a rename and its rotation has not deleted."""
        newest, run_dir = self.trainer.resumed_from, Path(str(args.output_dir))
        if newest is None or not state.is_world_process_zero or Path(newest).resolve().parent != run_dir.resolve():
            return
        if not checkpointing.saved_by_signal(Path(newest)):  # otherwise the next scheduled save rotates
            checkpointing.rotate(run_dir / Path(newest).name, args.save_total_limit, state.best_model_checkpoint)

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy the model's code into the output directory, which is what is pushed."""
        if state.is_world_process_zero:
            copy_model_code(str(args.output_dir))


__all__ = ["CheckpointSaving", "SavingCallback"]
