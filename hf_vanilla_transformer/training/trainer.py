# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's training (§5) as a Trainer: Equation 3, token-budget batches, label smoothing inside the model's loss.

Each further concern has a module of its own: `batches`, `peak_learning_rates`, `meters`, `evaluation_loss`,
`skipped_updates`, `stop_signals`, `saving`, `resuming`, `progress`, `failures`.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, Dataset
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from ..freed_memory import freed_memory_kept
from ..model.loss_vanilla_transformer import IGNORE_INDEX
from .arguments import EQUATION_3, VanillaTransformerTrainingArguments
from .batches import SamplerEpoch, TrainingBatches, forward_columns
from .compatibility import (
    check_best_metric,
    check_model_type,
    check_parallelism,
    check_passed_arguments,
    check_r_drop,
    checked_search_space,
)
from .evaluation_loss import EvaluationLossPerToken
from .failures import explained_run_errors, explained_step_errors
from .memory_gaps import GapsReturned
from .meters import TrainingMeter
from .muon import MUON, MuonAndAdam
from .non_finite import gradient_norm, with_nan_gradients
from .peak_learning_rates import PeakLearningRates
from .precision import convert_to_fp32
from .progress import Progress
from .r_drop import doubled
from .resuming import choose_checkpoint, resumed_precision, saved_update
from .run_lock import run_lock
from .saving import CheckpointSaving, SavingCallback
from .schedule import noam_schedule
from .sharding import shard_tied_weights
from .skipped_updates import UNSHARDED, NonFiniteUpdates
from .stop_signals import StopBySignal
from .stopwatch import Stopwatch

logger = logging.get_logger(__name__)

# All private methods of Trainer that this package overrides or calls, with the parameters that it relies on. A test
# compares them with the installed transformers.
PRIVATE_METHODS = {
    # Overridden: it returns the norm that Trainer logs. Its own version multiplies all gradients by 1.
    "_get_grad_norm": ("self", "model", "grad_norm"),
    # Overridden: no public method lets a checkpoint be written to a staging directory first.
    "_save_checkpoint": ("self", "model", "trial"),
    # Called by that override.
    "_get_output_dir": ("self", "trial"),
    "_save_optimizer_and_scheduler": ("self", "output_dir"),
    "_save_scaler": ("self", "output_dir"),
    "_save_rng_state": ("self", "output_dir"),
    "_push_from_checkpoint": ("self", "checkpoint_folder"),
}


class VanillaTransformerTrainer(CheckpointSaving, EvaluationLossPerToken, Seq2SeqTrainer):
    """`Seq2SeqTrainer` that trains as the paper does.

    Examples have ``input_ids`` and ``labels``, lists of token ids. What differs from `Seq2SeqTrainer`:

    - **Learning rate**: Equation 3, starting at update 1, with ``learning_rate`` as its peak. Other values of
      ``lr_scheduler_type`` than "noam" select Trainer's schedules. A custom optimizer (``optimizers``) keeps its own
      learning rates: they are the peaks of the schedule, unless a scheduler is passed with it.
    - **Batches**: an update has at most ``max_tokens_per_batch`` source tokens, and at most as many target tokens, over
      all devices and accumulation steps. ``per_device_eval_batch_size`` is used in evaluation only;
      ``per_device_train_batch_size`` is not supported. A dataset without a length is streamed, shuffled and sorted
      within a pool of examples, and needs ``max_steps``.
    - **Precision**: weights are trained in fp32, whatever the model's dtype, unless ``keep_weight_dtype`` is set. The
      arithmetic has the ``precision`` of the arguments; "auto" selects it for hardware and model, and a resumed run
      keeps that of its checkpoint.
    - **Loss**: labels are smoothed by ``label_smoothing_factor``, in training only, inside the model's loss; ``r_drop``
      adds R-Drop. Training logs contain ``nll`` and ``perplexity``, without smoothing, beside ``loss``. ``eval_loss``
      is the unsmoothed negative log-likelihood per token, in nats, over the evaluation dataset, and ``eval_perplexity``
      its exponential. On several ranks, sentences that accelerate repeats to fill the last evaluation batch count
      twice.
    - **Checkpoints**: complete or absent. A checkpoint is written to a staging directory, hashed in a manifest and
      renamed atomically. ``train(resume_from_checkpoint=True)`` resumes from the newest valid checkpoint, and rejects
      one with other data, another tokenizer, optimizer or model, unless ``resume_anyway`` is set. A resumed run gets
      the same batches as an uninterrupted one.
    - **Non-finite updates**: an update whose loss or gradients are not finite is skipped on all ranks. Training ends
      with an error after ``max_skipped_updates`` consecutive ones.
    - **Signals**: after SIGTERM or SIGINT the trainer finishes the update, saves a checkpoint and exits with status 143
      or 130.

    A subclass whose `compute_loss` needs logits calls ``super().compute_loss(..., return_outputs=True)``: in training,
    the model returns logits only then.
    """

    args: VanillaTransformerTrainingArguments
    passes_per_epoch = 1  # copies of the training text in the dataset: several with BPE-dropout

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: VanillaTransformerTrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        model_init: Callable[[], PreTrainedModel] | None = None,
        compute_loss_func: Callable | None = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Optimizer | None, LambdaLR | None] = (None, None),
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """Make the trainer; see `Seq2SeqTrainer`. ``data_collator`` defaults to `DataCollatorForTranslation`.

        Raises:
            ValueError: If arguments, model, optimizer or loss do not fit together.
        """
        if args is None:
            args = VanillaTransformerTrainingArguments(output_dir="tmp_trainer")
        check_passed_arguments(args, *optimizers, compute_loss_func)
        args._used_by_our_trainer = True
        self.args = args  # as the parent will; `call_model_init` needs it before
        self._default_collator: Any = None
        if data_collator is None and processing_class is not None:
            from ..data.collator import DataCollatorForTranslation

            data_collator = self._default_collator = DataCollatorForTranslation(processing_class)
        if model is not None:
            self._prepare_new_model(model)
            args.choose_precision_for(model)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        self.label_smoother = None  # the model's loss smooths the labels
        check_model_type(self.model)
        check_r_drop(args, self.model)
        check_parallelism(self.get_tp_size(), self.get_cp_size(), self.get_sp_size())
        check_best_metric(args, self.compute_metrics is not None)
        self._custom_optimizer = None if optimizers[0] is None else type(optimizers[0]).__name__
        self._schedule: LRScheduler | None = None  # by Equation 3, made by this trainer
        self._batches = TrainingBatches()
        self._meter = TrainingMeter()
        self._peaks = PeakLearningRates(custom_optimizer=optimizers[0] is not None)
        self._non_finite = NonFiniteUpdates(self)
        self._stop = StopBySignal(self)
        for callback in (
            Stopwatch(), SamplerEpoch(), self._meter, SavingCallback(self), Progress(self), self._peaks,
            self._non_finite, self._stop, GapsReturned(),
        ):  # fmt: skip
            self.add_callback(callback)

    def _prepare_new_model(self, model: Any) -> None:
        """Convert half-precision weights to fp32, and set the default collator's decoder start token."""
        if not self.args.keep_weight_dtype and convert_to_fp32(model):
            logger.info("the weights are converted to fp32 for training; keep_weight_dtype=True keeps their dtype")
        start = getattr(getattr(model, "config", None), "decoder_start_token_id", None)
        if self._default_collator is not None and start is not None:
            self._default_collator.decoder_start_token_id = start

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make a model as `Trainer.call_model_init` does, and prepare its weights for training."""
        model: nn.Module = super().call_model_init(trial)
        self._prepare_new_model(model)
        return model

    # ------------------------------------------------------------------ batches (§5.1)

    def get_train_dataloader(self) -> DataLoader:
        """Return batches by token budget; see `TokenBudgetSampler`, and for streams `TokenBudgetStream`."""
        if self.train_dataset is None:
            raise ValueError("there is no train_dataset; pass one to VanillaTransformerTrainer")
        self.args.check()  # a hyperparameter search sets fields after the arguments were made
        model: Any = self.accelerator.unwrap_model(self.model)
        columns = forward_columns(model, self.label_names) if self.args.remove_unused_columns else None
        return self._batches.dataloader(
            self.train_dataset, self.data_collator, columns, self.args, self.accelerator.non_blocking
        )

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Return the mean number of sentences per update, from which Trainer computes samples per second."""
        return self._batches.examples_per_update or super().get_total_train_batch_size(args)

    # ------------------------------------------------------------------ optimizer and learning rate (§5.3)

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """Make the optimizer; a ``learning_rate`` of None becomes the peak of Equation 3."""
        if self.optimizer is None:
            config: Any = getattr(self.model, "config", None)
            # `train` sets the state's max_steps before it makes the optimizer.
            total_steps = self.state.max_steps if self.is_in_train else max(self.args.max_steps, 0)
            self.args.resolve_learning_rate(config.d_model, total_steps)
        if self.optimizer is not None or self.args.optim != MUON:
            return super().create_optimizer(model)
        if self.accelerator.distributed_type not in UNSHARDED:
            raise ValueError("optim=muon needs whole matrices on every device; leave out FSDP, or choose another optim")
        adam = super().create_optimizer(model)
        self.optimizer = MuonAndAdam(self.model if model is None else model, adam, self.args.used_precision)
        return self.optimizer

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, Any]:
        """Return the class of the optimizer and its arguments; for "muon", those of the Adam that is a part of it."""
        if args.optim == MUON:
            args = copy.copy(args)
            args.optim = args.default("optim")
        return Seq2SeqTrainer.get_optimizer_cls_and_kwargs(args, model)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Make the schedule: Equation 3, or Trainer's of another ``lr_scheduler_type``; a custom one is kept."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == EQUATION_3:
            self.lr_scheduler = self._schedule = noam_schedule(
                self.optimizer if optimizer is None else optimizer,  # type: ignore[arg-type]
                self.args.get_warmup_steps(num_training_steps),
                total_steps=num_training_steps,
                cooldown_steps=self.args.cooldown_steps,
            )
        schedule: LRScheduler = super().create_scheduler(num_training_steps, optimizer)
        self._peaks.record(schedule, by_equation_3=schedule is self._schedule)
        return schedule

    # ------------------------------------------------------------------ loss (§5.4) and update

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the smoothed loss in training, and the mean negative log-likelihood per token in evaluation."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs)
        has_labels = "labels" in inputs
        items = num_items_in_batch  # of the update
        if has_labels and items is None:
            items = (inputs["labels"] != IGNORE_INDEX).sum()
        inputs = {**inputs, "label_smoothing": self.args.label_smoothing_factor}
        if return_outputs:
            inputs["return_logits"] = True
        if self.args.r_drop and has_labels and items is not None:
            loss, outputs = self._compute_r_drop_loss(model, inputs, items)
        else:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = with_nan_gradients(loss)
        nll = outputs.get("nll") if has_labels else None
        if nll is not None:
            self._meter.nats = (nll * items).sum().detach()
        return (loss, outputs) if return_outputs else loss

    def _compute_r_drop_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items: Tensor | int
    ) -> tuple[Tensor, Any]:
        """Return the mean loss of two passes, plus α/2 times their divergence, per token; and the first's outputs."""
        twice = {**doubled(inputs), "r_drop": self.args.r_drop}
        loss, outputs = super().compute_loss(model, twice, True, 2 * num_items)
        if outputs.logits is not None:
            outputs.logits = outputs.logits.chunk(2)[0]
        return loss, outputs

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run the forward and backward pass of a micro-batch; return its loss, 0 if it is not finite."""
        custom_loss = type(self).compute_loss is not VanillaTransformerTrainer.compute_loss
        with explained_step_errors(self, inputs, custom_loss):
            loss = super().training_step(model, inputs, num_items_in_batch)
        self._non_finite.add(inputs, loss)
        self._meter.add(loss, inputs)
        return loss.masked_fill(~loss.isfinite(), 0.0)  # torch.where would copy the 0 to the device and synchronize

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float:
        """Return the norm of the gradients, over all ranks and shards, which Trainer logs."""
        scaler = getattr(self.accelerator, "scaler", None)
        if grad_norm is None and scaler is None and self.accelerator.distributed_type in UNSHARDED:
            grad_norm = gradient_norm(model.parameters())
        else:  # sharded, clipped already, or to be unscaled first
            grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
            if hasattr(grad_norm, "full_tensor"):
                grad_norm = grad_norm.full_tensor()  # otherwise each rank would have the norm of its own shards
        self._non_finite.grad_norm = grad_norm
        return grad_norm  # type: ignore[return-value]

    # ------------------------------------------------------------------ training

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train, from the start or from a checkpoint; see `Trainer.train`.

        Args:
            resume_from_checkpoint: path of a valid checkpoint; True for the newest valid one in ``output_dir``.
            trial: see `Trainer.train`.
            ignore_keys_for_eval: see `Trainer.train`.

        Raises:
            ValueError: If the checkpoint is broken, or has other data, another tokenizer, optimizer or model.
            FloatingPointError: If ``max_skipped_updates`` consecutive updates were not finite.
            MemoryError: If memory runs out; the message contains the arguments to change.
            ConnectionError: If another process has died.
            SystemExit: After SIGTERM or SIGINT, once a checkpoint is saved.
        """
        self._identity = self.last_saved_update = None  # data and arguments may have changed since the last call
        if self._schedule is not None and self.lr_scheduler is self._schedule:
            self.lr_scheduler = self._schedule = None  # the number of updates may have changed as well
        locks = self.args.process_index == 0
        with (
            explained_run_errors(self),
            run_lock(str(self.args.output_dir), holding=locks),
            freed_memory_kept(self.args.device),
            self._stop.catching(),
        ):
            model: Any = self.accelerator.unwrap_model(self.model) if resume_from_checkpoint else None
            needs_scaler = getattr(self.accelerator, "scaler", None) is not None
            self.resumed_from = choose_checkpoint(
                resume_from_checkpoint, self.args, model, self.run_identity, needs_scaler
            )
            if self.resumed_from is not None:
                self.last_saved_update = saved_update(Path(self.resumed_from))
                self._use_precision_of(Path(self.resumed_from))
            if self.accelerator.is_fsdp2:
                assert self.model is not None
                shard_tied_weights(self.model, self.accelerator)
            output = super().train(self.resumed_from, trial, ignore_keys_for_eval)
            self._stop.exit_if_received()  # a signal that arrived after the last checkpoint
            return output._replace(training_loss=output.metrics["train_loss"])

    def _use_precision_of(self, checkpoint: Path) -> None:
        """Resume in the precision of a checkpoint, unless this run's precision is set."""
        precision = resumed_precision(checkpoint, self.args)
        if precision == self.args.used_precision:
            return
        # An evaluation before the training has prepared the model in the other precision.
        model: Any = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        model.__dict__.pop("_is_accelerate_prepared", None)
        self.args.use_precision(precision, f"as {checkpoint} was trained")
        self.create_accelerator_and_postprocess()

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader) -> Any:
        """Count epochs and updates as Trainer does; a run that is resumed at its end makes no further update."""
        epochs, updates_per_epoch, *others, max_steps = super().set_initial_training_values(args, dataloader)
        done = self.last_saved_update or 0
        if done and done >= max_steps:
            epochs = done // updates_per_epoch
        return epochs, updates_per_epoch, *others, max_steps

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with unsmoothed likelihood, perplexity, speed and skipped updates beside the training loss."""
        if "loss" in logs and self.skipped_updates:
            logs["skipped_updates"] = self.skipped_updates
        self._meter.complete(logs, self.accelerator)
        super().log(logs, start_time)

    def hyperparameter_search(
        self, hp_space: Callable[[Any], dict[str, Any]] | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Search as `Trainer.hyperparameter_search` does; ``hp_space`` is required.

        Raises:
            ValueError: If there is no ``hp_space``, or it contains a name that is not a training argument.
        """
        return super().hyperparameter_search(checked_search_space(hp_space, self.args), *args, **kwargs)

    @property
    def skipped_updates(self) -> int:
        """Number of updates skipped by the last call of `train`, because they were not finite."""
        return self._non_finite.counter.total

    @property
    def seconds(self) -> float:
        """Wall time of the training, including the time before it was stopped and resumed."""
        return self._stopwatch.seconds

    @property
    def processor_seconds(self) -> float | None:
        """CPU time of the training, summed over cores; None on another device or with several processes."""
        alone = self.args.device.type == "cpu" and self.args.world_size == 1
        return self._stopwatch.processor_seconds if alone else None

    @property
    def _stopwatch(self) -> Stopwatch:
        # Trainer replaces callbacks with a state when it restores them; `remove_callback` may have removed it.
        watches = [callback for callback in self.callback_handler.callbacks if isinstance(callback, Stopwatch)]
        return watches[0] if watches else Stopwatch()


__all__ = ["PRIVATE_METHODS", "VanillaTransformerTrainer"]
