# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run shows: a header, one line of progress, one line per evaluation, and a table of the scores.

All lines are INFO messages of this module's logger. Only the progress line that is updated in place, on a terminal or
in a notebook, is written to standard error directly.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ..device import describe_device, processor_name
from ..messages import can_update_in_place
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .batches import updates_per_epoch
from .meters import RecentValues
from .progress import duration
from .score_table import perplexity_text, score_table, score_text

if TYPE_CHECKING:
    from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)

_LABEL_WIDTH = 12
_SECONDS_BETWEEN_REFRESHES = 0.5  # of the line that is updated in place
_LINES_PER_RUN = 10  # of progress, where no line can be updated in place
_SECONDS_BETWEEN_LINES = 600.0  # of progress, at most


def show(label: str, text: str) -> None:
    """Log one line of the header: a label and its text."""
    logger.info(f"{label:<{_LABEL_WIDTH}}{text}")


def show_scores(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Log the table of the final scores, one message per line."""
    for line in score_table(scores):
        logger.info(line)


def describe_vocabulary(tokenizers: TranslationTokenizers, origin: str) -> str:
    """Describe the vocabulary of a run.

    Args:
        tokenizers: of source and target.
        origin: where they come from, e.g. "learned from the training text".
    """
    if not tokenizers.separate:
        return f"{len(tokenizers.source):,} tokens, {origin}"
    return f"{len(tokenizers.source):,} source and {len(tokenizers.target):,} target tokens, {origin}"


def describe_model(model: Any, origin: str) -> str:
    """Describe a model by its size.

    Args:
        model: with a `VanillaTransformerConfig`.
        origin: name of the preset, or of the checkpoint that it was loaded from.
    """
    config, parameters = model.config, sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{origin}, {parameters:,} parameters: {config.encoder_layers} + {config.decoder_layers} layers, d_model "
        f"{config.d_model}, d_ff {config.d_ff}, {config.num_heads} heads"
    )


class RunDisplay(TrainerCallback):
    """Shows precision, batch, length, device and output of a run, its progress, and its evaluations.

    Args:
        trainer: of the run.
        output_dir: directory that the header names as the output.
    """

    def __init__(self, trainer: "VanillaTransformerTrainer", output_dir: Path) -> None:
        self.trainer = trainer
        self.output_dir = output_dir
        self._bar: tqdm | None = None  # the line that is updated in place
        self._refreshed = 0.0  # when that line or the last line of progress was written, in seconds
        self._first: tuple[int, float] | None = None  # number of the first update, and when it ended, in seconds
        self._next_line = 0  # update after which the next line of progress is due
        self._evaluated_batches = 0

    def close(self) -> None:
        """Remove the line that is updated in place."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    # ------------------------------------------------------------------ header

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the header's last lines, and start the progress line."""
        self._first, self._refreshed, self._next_line = None, time.perf_counter(), 0
        if not state.is_world_process_zero:
            return
        show("precision", self._precision())
        show("batch", self._batch())
        show("length", self._length(state))
        show("device", self._device())
        show("output", f"{self.output_dir}, {self._checkpoints(state)}")
        self.close()
        if logger.isEnabledFor(logging.INFO) and not args.disable_tqdm and can_update_in_place(sys.stderr):
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc} |{bar:20}|",
                desc=f"update {state.global_step} of {state.max_steps}",
            )
        self._set_next_line(state)

    def _precision(self) -> str:
        reason = self.trainer.args.precision_reason
        mixed = self.trainer.accelerator.mixed_precision
        model: Any = self.trainer.model
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        name = mixed if mixed != "no" else {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(dtype, dtype)
        return f"{name} ({reason})" if reason else str(name)

    def _batch(self) -> str:
        args, batches = self.trainer.args, self.trainer._batches
        budget, micro_batches = args.max_tokens_per_batch, args.world_size * args.gradient_accumulation_steps
        text = f"at most {budget:,} source and {budget:,} target tokens per update"
        if micro_batches > 1:
            text += f", in {micro_batches} micro-batches of {budget // micro_batches:,}"
        if batches.sampler is not None:
            text += f"; about {batches.examples_per_update:,} pairs, {batches.sampler.padding:.1%} padding"
        return text

    def _length(self, state: TrainerState) -> str:
        args, sampler = self.trainer.args, self.trainer._batches.sampler
        text = f"{state.max_steps:,} updates"
        if sampler is not None:
            per_epoch = updates_per_epoch(sampler, args)
            text += f", {state.max_steps / per_epoch:.3g} epochs of {per_epoch:,}"
        if state.global_step:
            text += f", from update {state.global_step + 1:,} on"
        peak, warmup = args.learning_rate, args.get_warmup_steps(state.max_steps)
        if self.trainer._schedule is None or peak is None:
            return text
        text += f"; learning rate up to {peak:.3g} in update {warmup:,}"
        return f"{text}, down to 0 in the last {args.cooldown_steps:,}" if args.cooldown_steps else text

    def _device(self) -> str:
        args = self.trainer.args
        name = describe_device(args.device)
        if args.device.type == "cpu":
            threads = torch.get_num_threads()
            name = f"cpu ({processor_name()}, {threads} {'thread' if threads == 1 else 'threads'})"
        return name if args.world_size == 1 else f"{args.world_size} processes on {name}"

    def _checkpoints(self, state: TrainerState) -> str:
        strategy = str(getattr(self.trainer.args.save_strategy, "value", self.trainer.args.save_strategy))
        when = {
            "no": "no checkpoints",
            "epoch": "a checkpoint every epoch",
            "best": "a checkpoint when the best so far",
        }
        return when.get(strategy, f"a checkpoint every {state.save_steps:,} updates")

    # ------------------------------------------------------------------ progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Update the progress line if it is due."""
        if not state.is_world_process_zero:
            return
        now = time.perf_counter()
        if self._first is None:  # the first update compiles, fills caches and starts workers: it is not timed
            self._first = state.global_step, now - self.trainer._meter.seconds_paused
        if self._bar is not None:
            if now - self._refreshed >= _SECONDS_BETWEEN_REFRESHES:
                self._refreshed = now
                self._update_bar(state, self._progress(state))
        elif state.global_step < state.max_steps and (  # the last update has a line of its own, in on_train_end
            state.global_step >= self._next_line or now - self._refreshed >= _SECONDS_BETWEEN_LINES
        ):
            self._refreshed = now
            self._set_next_line(state)
            logger.info(self._progress(state))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log the entry, as a detail."""
        if state.is_world_process_zero:
            entries = (f"{key} {value:.5g}" if isinstance(value, float) else f"{key} {value}" for key, value in
                       (logs or {}).items())  # fmt: skip
            logger.debug(f"update {state.global_step}: {', '.join(entries)}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Replace the progress line by a last one, with the time that the training took."""
        if not state.is_world_process_zero:
            return
        self.close()
        text = f"{self._values(state)}, after {duration(self.trainer.seconds)}"
        stopped_early = state.global_step < state.max_steps and not self.trainer._stop.number
        logger.info(f"{text}; stopped early" if stopped_early else text)

    def _update_bar(self, state: TrainerState, text: str) -> None:
        if self._bar is not None:
            self._bar.n = state.global_step
            self._bar.set_description_str(text)

    def _set_next_line(self, state: TrainerState) -> None:
        part = max(state.max_steps / _LINES_PER_RUN, 1)
        self._next_line = round((state.global_step // part + 1) * part)

    def _progress(self, state: TrainerState) -> str:
        text = self._values(state)
        if self._first is None or state.global_step == self._first[0]:
            return text
        first, started = self._first
        seconds = (time.perf_counter() - self.trainer._meter.seconds_paused - started) / (state.global_step - first)
        return f"{text}, {duration(seconds * (state.max_steps - state.global_step))} left"

    def _values(self, state: TrainerState) -> str:
        recent = self.trainer._meter.recent(self.trainer.args.world_size)
        return f"update {state.global_step} of {state.max_steps}{'' if recent is None else f': {_recent_text(recent)}'}"

    # ------------------------------------------------------------------ evaluation

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the number of batches evaluated in the progress line."""
        if self._bar is None:
            return
        self._evaluated_batches += 1
        now = time.perf_counter()
        if now - self._refreshed >= _SECONDS_BETWEEN_REFRESHES:
            self._refreshed = now
            self._update_bar(state, f"update {state.global_step}: {self._evaluated_batches} batches evaluated")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the evaluation in one line."""
        self._evaluated_batches = 0
        if not state.is_world_process_zero or not self.trainer.is_in_train:
            return
        scores = {name.removeprefix("eval_"): value for name, value in (metrics or {}).items()}
        text = f"update {state.global_step}: validation {score_text(scores, ('loss', 'perplexity'))}"
        if "bleu" in scores:
            text += f", {score_text(scores)}"
        logger.info(f"{text} (best so far)" if _is_best(args, state, metrics or {}) else text)


def _recent_text(recent: RecentValues) -> str:
    text = f"loss {recent.loss:.3f}"
    if recent.perplexity is not None:
        text += f", perplexity {perplexity_text(recent.perplexity)}"
    return f"{text}, {recent.target_tokens_per_second:,.0f} target tokens/s"


def _is_best(args: TrainingArguments, state: TrainerState, metrics: Mapping[str, Any]) -> bool:
    """Return whether the metric that selects the best checkpoint is better than in all earlier evaluations."""
    name = args.metric_for_best_model
    if name is None:
        return False
    value = metrics.get(name if name.startswith("eval_") else f"eval_{name}")
    if value is None:
        return False
    best = state.best_metric
    return best is None or (value > best if args.greater_is_better else value < best)


__all__ = ["RunDisplay", "describe_model", "describe_vocabulary", "show", "show_scores"]
