# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run shows: a header, one line of progress, one line per evaluation, and the scores of the final model.

All lines are INFO messages of this module's logger. Only the progress line that is updated in place, on a terminal or
in a notebook, is written to standard error directly.
"""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ..data.corpus_report import CorpusReport
from ..device import describe_device, processor_name
from ..messages import can_update_in_place
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from ..model_card import RESULTS_NAME
from .batches import updates_per_epoch
from .meters import RecentValues
from .score_table import perplexity_text, score_table, score_text
from .time_left import TimeLeft, duration

if TYPE_CHECKING:
    from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)

_LABEL_WIDTH = 15
_SECONDS_BETWEEN_REFRESHES = 0.5  # of the line that is updated in place
_LINES_PER_RUN = 10  # of progress, where no line can be updated in place
_SECONDS_BETWEEN_LINES = 600.0  # of progress, at most


def show(label: str, text: str) -> None:
    """Log one line of the header: a label and its text."""
    logger.info(f"{label:<{_LABEL_WIDTH}}{text}")


def show_scores(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Log the table of the final scores, one message per line, after a line that says what they are."""
    lines = score_table(scores)
    if lines:
        show("scores", "of the final model: BLEU and chrF from 0 to 100; exact: translations equal to the reference")
    for line in lines:
        logger.info(line)


def show_result(output_dir: Path) -> None:
    """Log where the final model is, and the command that translates with it.

    Args:
        output_dir: directory of the run.
    """
    show("final model", f"{output_dir} (the results are in {output_dir / RESULTS_NAME})")
    show("next", f"vanilla-transformer translate {shlex.quote(str(output_dir))} FILE")


def describe_text(report: CorpusReport) -> str:
    """Describe the text of a split: its number of pairs, and what was left out.

    Args:
        report: of the corpus.
    """
    if not report.complete or report.problems or report.pairs_kept != report.pairs_read:
        return str(report)
    pairs = f"{report.pairs_kept:,}"
    return report.name if report.name.startswith(f"{pairs} ") else f"{pairs} pairs of {report.name}"


def describe_vocabulary(tokenizers: TranslationTokenizers, origin: str) -> str:
    """Describe the vocabulary of a run.

    Args:
        tokenizers: of source and target.
        origin: where they come from, e.g. "learned from the training text".
    """
    if not tokenizers.separate:
        return f"{len(tokenizers.source):,} tokens for both languages, {origin}"
    return f"{len(tokenizers.source):,} source and {len(tokenizers.target):,} target tokens, {origin}"


def describe_model(model: Any, origin: str) -> str:
    """Describe a model by its size.

    Args:
        model: with a `VanillaTransformerConfig`.
        origin: the preset, or the checkpoint that it was loaded from.
    """
    config, parameters = model.config, sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{origin}: {parameters:,} parameters, {config.encoder_layers} encoder and {config.decoder_layers} decoder "
        f"layers, d_model {config.d_model:,}, d_ff {config.d_ff:,}, {config.num_heads} heads, "
        f"dropout {config.dropout:g}"
    )


def describe_average(updates: Sequence[int]) -> str:
    """Describe the average of checkpoints that is the final model.

    Args:
        updates: numbers of the updates after which the checkpoints were saved.
    """
    return (
        f"weights of updates {listed(updates)}, as in section 6.1 of Vaswani et al. 2017; this average is the final "
        "model, not the checkpoint with the lowest validation loss"
    )


def listed(updates: Sequence[int]) -> str:
    """List numbers of updates, as "160, 170 and 180"."""
    *first, last = (f"{update:,}" for update in updates)
    return f"{', '.join(first)} and {last}" if first else last


class RunDisplay(TrainerCallback):
    """Shows batch, length, learning rate, device and output of a run, its progress, and its evaluations.

    Args:
        trainer: of the run.
        output_dir: directory that the header names as the output.
    """

    def __init__(self, trainer: "VanillaTransformerTrainer", output_dir: Path) -> None:
        self.trainer = trainer
        self.output_dir = output_dir
        self._bar: tqdm | None = None  # the line that is updated in place
        self._refreshed = 0.0  # when that line or the last line of progress was written, in seconds
        self._time_left = TimeLeft()
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
        self._time_left, self._refreshed, self._next_line = TimeLeft(), time.perf_counter(), 0
        if not state.is_world_process_zero:
            return
        show("batch", self._batch())
        show("length", self._length(state))
        if rate := self._learning_rate(state):
            show("learning rate", rate)
        show("loss", self._loss())
        show("device", f"{self._device()}; precision {self._precision()}")
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
                desc=_update(state),
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
        text = f"at most {budget:,} source and {budget:,} target tokens per update, with padding"
        if micro_batches > 1:
            text += f", in {micro_batches:,} micro-batches of {budget // micro_batches:,}"
        if batches.sampler is not None:
            padding = f"{100 * batches.sampler.padding:.1f} % of the tokens are padding"
            text += f", about {batches.examples_per_update:,} pairs; {padding}"
        return text

    def _length(self, state: TrainerState) -> str:
        args, sampler = self.trainer.args, self.trainer._batches.sampler
        text = f"{state.max_steps:,} updates"
        if sampler is not None:
            per_epoch = updates_per_epoch(sampler, args) / self.trainer.passes_per_epoch
            text += f" = {_epochs(state.max_steps / per_epoch)} epochs of {round(per_epoch):,} updates"
        if state.global_step:
            text += f", resumed after update {state.global_step:,}"
        return text

    def _learning_rate(self, state: TrainerState) -> str | None:
        args = self.trainer.args
        peak, warmup = args.learning_rate, args.get_warmup_steps(state.max_steps)
        if self.trainer._schedule is None or peak is None:
            return None
        text = f"rises to {peak:.3g} at update {warmup:,}, then falls with 1 / √update"
        if not args.cooldown_steps:
            return text
        return f"{text}; over the last {args.cooldown_steps:,} updates it falls linearly to 0"

    def _loss(self) -> str:
        smoothing = self.trainer.args.label_smoothing_factor
        without = f", without the label smoothing of {smoothing:g} that training adds" if smoothing else ""
        return (
            f"cross-entropy in nats per target token{without}; perplexity = e^loss; the training loss is the mean "
            "since the line before, with dropout"
        )

    def _device(self) -> str:
        args = self.trainer.args
        name = describe_device(args.device)
        if args.device.type == "cpu":
            threads = torch.get_num_threads()
            name = f"cpu ({processor_name()}, {threads} {'thread' if threads == 1 else 'threads'})"
        return name if args.world_size == 1 else f"{args.world_size:,} processes on {name}"

    def _checkpoints(self, state: TrainerState) -> str:
        strategy = str(getattr(self.trainer.args.save_strategy, "value", self.trainer.args.save_strategy))
        when = {
            "no": "no checkpoints",
            "epoch": "a checkpoint every epoch",
            "best": "a checkpoint when the best so far",
        }
        return when.get(strategy, f"a checkpoint every {round(state.save_steps):,} updates")

    # ------------------------------------------------------------------ progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Update the progress line if it is due. The line of an evaluation replaces it."""
        if not state.is_world_process_zero:
            return
        self._time_left.end_update(state.global_step, self.trainer._meter.seconds_paused)
        now = time.perf_counter()
        is_due = state.global_step == state.max_steps
        if self._bar is None:
            is_due |= state.global_step >= self._next_line or now - self._refreshed >= _SECONDS_BETWEEN_LINES
        elif now - self._refreshed >= _SECONDS_BETWEEN_REFRESHES:
            self._refreshed = now
            self._update_bar(state, self._progress(state))
        if is_due:
            self._refreshed = now
            self._set_next_line(state)
            if not control.should_evaluate:
                logger.info(self._progress(state))
                self.trainer._meter.end_line(args.world_size)

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
            logger.debug(f"update {state.global_step:,}: {', '.join(entries)}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the progress line, and show how long the training was and took."""
        if not state.is_world_process_zero:
            return
        self.close()
        text = f"{state.global_step:,} updates"
        if self.trainer._batches.sampler is not None:
            text += f" = {_epochs((state.epoch or 0.0) * self.trainer.passes_per_epoch)} epochs"
        text += f" in {duration(self.trainer.seconds)}"
        overall = self.trainer._meter.overall(args.world_size)
        if overall is not None:
            text += f"; {overall.target_tokens_per_second:,.0f} target tokens/s (without evaluation and saving)"
        stopped_early = state.global_step < state.max_steps and not self.trainer._stop.number
        show("trained", f"{text}; stopped before update {state.max_steps:,}" if stopped_early else text)

    def _update_bar(self, state: TrainerState, text: str) -> None:
        if self._bar is not None:
            self._bar.n = state.global_step
            self._bar.set_description_str(text)

    def _set_next_line(self, state: TrainerState) -> None:
        part = max(state.max_steps / _LINES_PER_RUN, 1)
        self._next_line = round((state.global_step // part + 1) * part)

    def _progress(self, state: TrainerState) -> str:
        recent = self.trainer._meter.recent(self.trainer.args.world_size)
        text = _update(state)
        if recent is not None:
            text += f": {_training_text(recent)}, {recent.target_tokens_per_second:,.0f} target tokens/s"
        return text + self._remaining(state, ",")

    def _remaining(self, state: TrainerState, separator: str) -> str:
        """Return the time left as text, after a separator; "" if it is unknown or the run is at its end."""
        updates = state.max_steps - state.global_step
        seconds = self._time_left.seconds(updates)
        return "" if seconds is None or updates <= 0 else f"{separator} {duration(seconds)} left"

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
            self._update_bar(state, f"{_update(state)}: {self._evaluated_batches:,} batches evaluated")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the evaluation in one line, beside the values of the training."""
        self._evaluated_batches = 0
        if not state.is_world_process_zero or not self.trainer.is_in_train:
            return
        scores = {name.removeprefix("eval_"): value for name, value in (metrics or {}).items()}
        recent = self.trainer._meter.recent(args.world_size)
        text = f"{_update(state)}: {'' if recent is None else f'{_training_text(recent)}; '}"
        text += f"validation {score_text(scores, ('loss', 'perplexity'))}"
        if "bleu" in scores:
            text += f", {score_text(scores)}"
        if _is_best(args, state, metrics or {}):
            text += " (best so far)"
        logger.info(text + self._remaining(state, ";"))
        self.trainer._meter.end_line(args.world_size)


def _update(state: TrainerState) -> str:
    return f"update {state.global_step:,} of {state.max_steps:,}"


def _epochs(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def _training_text(recent: RecentValues) -> str:
    """Return the training loss without label smoothing, as that of an evaluation; a custom loss as it is."""
    if recent.nll is None or recent.perplexity is None:
        return f"training loss {recent.loss:.3f}"
    return f"training loss {recent.nll:.3f}, perplexity {perplexity_text(recent.perplexity)}"


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


__all__ = [
    "RunDisplay",
    "describe_average",
    "describe_model",
    "describe_text",
    "describe_vocabulary",
    "listed",
    "show",
    "show_result",
    "show_scores",
]
