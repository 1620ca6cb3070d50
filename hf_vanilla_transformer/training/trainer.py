# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's training (§5) as a Trainer: Equation 3, token-budget batches, smoothing in the loss, true perplexity.

Everything else is the stock Seq2SeqTrainer's.
"""

import inspect
import math
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DistributedType, broadcast_object_list
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput, seed_worker
from transformers.utils import logging

from ..checkpoints.manifest import BrokenCheckpointError, has_manifest, verify
from ..checkpoints.self_contained import copy_model_code, write_model_code
from ..data.batching import TokenBudgetSampler, TokenBudgetStream, example_lengths
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.loss_vanilla_transformer import IGNORE_INDEX
from ..model_card import RESULTS_NAME, write_card
from . import checkpointing, guards, resuming
from .arguments import EQUATION_3, VanillaTransformerTrainingArguments
from .meters import TrainingWindow, perplexity, sum_dtype
from .run_lock import run_lock
from .schedule import noam_schedule
from .sharding import shard_tied_weights
from .stopwatch import Stopwatch

logger = logging.get_logger(__name__)

_SHOWN_SENTENCES = 20  # of those that a skipped update names
_UPDATES_TIMED = 5  # after the first one, before the time is estimated
_UNSHARDED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
# All that is used of Trainer beside its documented interface: the names, and the parameters that are relied on. A test
# compares them with the installed transformers.
PRIVATE_METHODS = {
    # Overridden: it returns the norm that Trainer logs. Its own version multiplies all gradients by 1.
    "_get_grad_norm": ("self", "model", "grad_norm"),
    # Overridden: nothing public lets a checkpoint be written to a staging directory first.
    "_save_checkpoint": ("self", "model", "trial"),
    # Called from there.
    "_get_output_dir": ("self", "trial"),
    "_save_optimizer_and_scheduler": ("self", "output_dir"),
    "_save_scaler": ("self", "output_dir"),
    "_save_rng_state": ("self", "output_dir"),
    "_push_from_checkpoint": ("self", "checkpoint_folder"),
}
# What evaluation reports without compute_metrics, behind "eval_" and the name of one of several data sets.
_METRICS_OF_EVALUATION = ("loss", "perplexity", "runtime", "samples_per_second", "steps_per_second")
# What an optimizer that is handed in brings itself, and a schedule that is.
_BROUGHT_BY_OPTIMIZER = (
    "optim", "optim_args", "optim_target_modules", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
)  # fmt: skip
_BROUGHT_BY_SCHEDULE = ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate", "warmup_steps", "cooldown_steps")


class VanillaTransformerTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` that trains as the paper does.

    - The learning rate follows Equation 3 from update 1 on, with ``learning_rate`` as its peak; another
      ``lr_scheduler_type`` than "noam" is Trainer's. An optimizer that is handed in keeps its own learning rates: they
      are the peaks of the schedule, unless a scheduler is handed in with it.
    - An update sees ``max_tokens_per_batch`` source and target tokens, over all devices and accumulation steps.
      ``per_device_train_batch_size`` has no meaning here; ``per_device_eval_batch_size`` has.
    - Weights are trained in fp32 whatever dtype the model comes in, unless ``keep_weight_dtype`` is set.
    - The loss is smoothed while training only, inside the model, by ``label_smoothing_factor``. Training logs carry
      ``nll`` and ``perplexity`` of the unsmoothed targets beside ``loss``; ``eval_loss`` is the true negative
      log-likelihood in nats a token, over all tokens of the set, and ``eval_perplexity`` its exponential. On several
      ranks the sentences that accelerate repeats to fill the last evaluation batch count twice.
    - Stopping at any update and resuming gives the batches that never stopping would have given.
    - A checkpoint is whole or isn't there: written aside, vouched for by a manifest, renamed. ``train`` with
      ``resume_from_checkpoint=True`` goes on from the newest whole one, and refuses other data, another tokenizer or
      another model than it was trained with (``resume_anyway`` overrides).
    - An update whose loss or gradients aren't finite is skipped on all ranks; ``max_skipped_updates`` in a row end the
      run. SIGTERM and SIGINT finish the update, save and exit with status 143 and 130.

    Examples have ``input_ids`` and ``labels``, lists of token ids. A data set without a length is streamed: shuffled
    and sorted within a pool, and it needs ``max_steps``.

    A subclass whose `compute_loss` needs logits calls `super().compute_loss(..., return_outputs=True)`: only then does
    the model make them while training.
    """

    args: VanillaTransformerTrainingArguments

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
        """See `Seq2SeqTrainer`; ``data_collator`` defaults to `DataCollatorForTranslation`.

        Raises:
            ValueError: If the arguments or the model are of another kind.
        """
        if args is None:
            args = VanillaTransformerTrainingArguments(output_dir="tmp_trainer")
        if not isinstance(args, VanillaTransformerTrainingArguments):
            raise ValueError(
                f"args is a {type(args).__name__}, which knows nothing of token budgets or Equation 3; use "
                "VanillaTransformerTrainingArguments, or the stock Seq2SeqTrainer"
            )
        args.check()
        _check_handed_in(args, *optimizers, compute_loss_func)
        args._in_our_trainer = True
        self.args = args  # as the parent will; `call_model_init` needs it before
        self._default_collator: Any = None
        if data_collator is None and processing_class is not None:
            from ..data.collator import DataCollatorForTranslation

            data_collator = self._default_collator = DataCollatorForTranslation(processing_class)
        if model is not None:
            self._prepare_new_model(model)
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
        self.label_smoother = None  # the model's loss smooths by itself
        model_type = getattr(getattr(self.model, "config", None), "model_type", None)
        if model_type != VanillaTransformerConfig.model_type:  # by name: remote code has a class of its own
            raise ValueError(
                f"VanillaTransformerTrainer trains {VanillaTransformerConfig.model_type} models, not {model_type}, "
                "whose loss takes no label_smoothing; use the stock Seq2SeqTrainer"
            )
        if self.get_tp_size() * self.get_cp_size() * self.get_sp_size() > 1:
            raise ValueError(
                "the model or accelerate is set up for tensor, context or sequence parallelism, and batches are shared "
                "out by data parallelism alone; train with DDP or FSDP"
            )
        self._check_metric_for_best_model()
        self._handed_in = None if optimizers[0] is None else type(optimizers[0]).__name__
        self.add_callback(Stopwatch())
        self.add_callback(_SamplerEpoch())
        self.add_callback(_Watch(self))
        self.resumed_from: str | None = None
        self._skipped = guards.SkippedUpdates(args.max_skipped_updates)
        self._signals = guards.StopSignals()
        self._stop_signal = 0  # the number of the signal for which all ranks stop
        self._saving_for_a_stop = False
        self._micro_batches: list[tuple[dict[str, Any], Tensor]] = []  # of the running update, with their losses
        self._sampler: TokenBudgetSampler | None = None
        self._identity: dict[str, Any] | None = None
        self._sentences_per_update: int | None = None
        self._window: TrainingWindow | None = None
        self._evaluated = torch.zeros(2)  # nats and target tokens of the running evaluation
        self._schedule: LRScheduler | None = None  # that this class has made
        self._peaks: list[float] | None = None  # of the schedule's groups, before a checkpoint is loaded
        self._grad_norm: Tensor | float | None = None  # of the running update
        self._nats: Tensor | None = None  # of the running micro-batch
        self._losses, self._updates_made = 0.0, 0  # of this call of train
        self._seconds_elsewhere = 0.0  # in evaluation and saving
        self._saved_update: int | None = None
        self._pushing = False

    def _prepare_new_model(self, model: Any) -> None:
        """Convert weights that would be trained in bf16 or fp16, and give the default collator the model's symbols."""
        if not self.args.keep_weight_dtype and guards.train_in_fp32(model):
            logger.info(
                "the weights are converted to fp32 for training; keep_weight_dtype=True trains them as they are"
            )
        config = getattr(model, "config", None)
        start = getattr(config, "decoder_start_token_id", None)
        if self._default_collator is not None and start is not None:
            self._default_collator.decoder_start_token_id = start

    def _check_metric_for_best_model(self) -> None:
        """Refuse a metric that evaluation won't report, before it is missed at the first evaluation."""
        metric = self.args.metric_for_best_model
        if metric is None or self.args.eval_strategy == "no" or self.compute_metrics is not None:
            return
        if not metric.endswith(_METRICS_OF_EVALUATION):
            raise ValueError(
                f"metric_for_best_model={metric!r} is not reported by evaluation without compute_metrics (and "
                "predict_with_generate for scores of translations); choose loss or perplexity, or give compute_metrics"
            )

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """See `Trainer.call_model_init`; the weights of the new model are fp32 as well."""
        model: nn.Module = super().call_model_init(trial)
        self._prepare_new_model(model)
        return model

    # ------------------------------------------------------------------ batches

    def _token_budget_sampler(self, dataset: Any) -> TokenBudgetSampler:
        """Plan the batches of a data set that has a length."""
        args = self.args
        sampler = TokenBudgetSampler(
            example_lengths(dataset, "input_ids"),
            example_lengths(dataset, "labels"),
            args.max_tokens_per_batch,
            num_ranks=args.world_size,
            rank=args.process_index,
            accumulation_steps=args.gradient_accumulation_steps,
            max_length=args.max_sentence_tokens,
            seed=args.seed if args.data_seed is None else args.data_seed,
        )
        updates = math.ceil(len(sampler) / args.gradient_accumulation_steps)
        sentences = len(dataset) - len(sampler.skipped)
        self._sentences_per_update = round(sentences / updates)
        logger.info(
            f"{sentences} examples an epoch in {updates} updates of at most {args.max_tokens_per_batch} source and "
            f"target tokens; {sampler.padding:.1%} of the positions are padding"
        )
        return sampler

    def get_train_dataloader(self) -> DataLoader:
        """Return batches by token budget; see `TokenBudgetSampler`, and for streams `TokenBudgetStream`."""
        dataset: Any = self.train_dataset
        if dataset is None:
            raise ValueError("there is no train_dataset; give one to VanillaTransformerTrainer")
        args = self.args
        args.check()  # a search sets fields after the arguments were made
        self._sampler, self._sentences_per_update = None, None
        collate, wanted = self.data_collator, self._columns_of_forward()
        batches: dict[str, Any]
        if isinstance(dataset, IterableDataset):
            stream = TokenBudgetStream(
                dataset,
                args.max_tokens_per_batch,
                num_ranks=args.world_size,
                rank=args.process_index,
                accumulation_steps=args.gradient_accumulation_steps,
                max_length=args.max_sentence_tokens,
                seed=args.seed if args.data_seed is None else args.data_seed,
                endless=True,
            )
            batches = {"dataset": stream, "batch_size": None}  # an item of the stream is a batch
        else:
            self._sampler = self._token_budget_sampler(dataset)
            batches = {"dataset": dataset, "batch_sampler": self._sampler}
        if wanted is not None:
            if hasattr(dataset, "select_columns") and not isinstance(dataset, IterableDataset):
                names = [name for name in dataset.column_names if name in wanted]
                batches["dataset"] = dataset.select_columns(names)  # before other columns are read at all
            else:
                collate = partial(_collate_columns, self.data_collator, wanted)
        loader = DataLoader(
            **batches,
            collate_fn=collate,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        )
        # Not through Accelerator.prepare: it would deal out again what is dealt out by rank already.
        return prepare_data_loader(
            loader,
            device=args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
            # Pinned batches travel while the GPU computes; a copy that waits would wait for all that it has to do.
            non_blocking=self.accelerator.non_blocking or (args.dataloader_pin_memory and args.device.type == "cuda"),
        )

    def _columns_of_forward(self) -> set[str] | None:
        """Return the columns that the model may be given; None where ``remove_unused_columns`` is off."""
        if not self.args.remove_unused_columns:
            return None
        model: Any = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapter
        return {*inspect.signature(type(model).forward).parameters, *self.label_names}

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Return the sentences of an average update, from which Trainer reckons its samples a second."""
        return self._sentences_per_update or super().get_total_train_batch_size(args)

    # ------------------------------------------------------------------ learning rate

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """See `Trainer.create_optimizer`; an open ``learning_rate`` becomes Equation 3's peak."""
        if self.optimizer is None:
            config: Any = getattr(self.model, "config", None)
            # `state` has the number of updates once `train` has counted them.
            total_steps = self.state.max_steps if self.is_in_train else max(self.args.max_steps, 0)
            self.args.resolve_learning_rate(config.d_model, total_steps)
        optimizer: Optimizer = super().create_optimizer(model)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Schedule by Equation 3, or by Trainer's ``lr_scheduler_type``, unless a scheduler was handed in."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == EQUATION_3:
            self.lr_scheduler = self._schedule = noam_schedule(
                self.optimizer if optimizer is None else optimizer,  # type: ignore[arg-type]
                self.args.get_warmup_steps(num_training_steps),
                total_steps=num_training_steps,
                cooldown_steps=self.args.cooldown_steps,
            )
        schedule: LRScheduler = super().create_scheduler(num_training_steps, optimizer)
        self._peaks = [float(rate) for rate in schedule.base_lrs] if isinstance(schedule, LambdaLR) else None
        return schedule

    def _keep_own_peaks(self) -> None:
        """Give a schedule that a checkpoint was loaded into the peaks of this run.

        They differ where ``resume_anyway`` changes ``learning_rate``, and in checkpoints of versions in which the
        optimizer's learning rate was a factor.
        """
        schedule, optimizer = self.lr_scheduler, self.optimizer
        if self._handed_in or self._peaks is None or not isinstance(schedule, LambdaLR) or optimizer is None:
            return
        if list(schedule.base_lrs) == self._peaks:
            return
        done = schedule.last_epoch
        rates = [peak * share(done) for peak, share in zip(self._peaks, schedule.lr_lambdas, strict=True)]
        schedule.load_state_dict({**schedule.state_dict(), "base_lrs": list(self._peaks), "_last_lr": rates})
        for group, peak, rate in zip(optimizer.param_groups, self._peaks, rates, strict=True):
            group["initial_lr"], group["lr"] = peak, rate

    def hyperparameter_search(
        self, hp_space: Callable[[Any], dict[str, Any]] | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """See `Trainer.hyperparameter_search`; ``hp_space`` has to be given.

        Raises:
            ValueError: If there is no ``hp_space``, or it names what is no training argument.
        """
        if hp_space is None:
            raise ValueError(
                "the default search space of transformers has learning rates for fine-tuning and numbers of sentences "
                "a batch, which have no meaning here; give hp_space, e.g. lambda trial: "
                '{"learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-3, log=True)}'
            )

        def checked(trial: Any) -> dict[str, Any]:
            space = hp_space(trial)
            names = space.get("parameters", space)  # Weights & Biases nests them
            unknown = [name for name in names if not hasattr(type(self.args), name) and not hasattr(self.args, name)]
            if unknown:
                raise ValueError(f"hp_space names {', '.join(map(repr, unknown))}, which are no training arguments")
            return space

        return super().hyperparameter_search(checked, *args, **kwargs)

    # ------------------------------------------------------------------ loss, likelihood, perplexity

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """See `Trainer.train`.

        Args:
            resume_from_checkpoint: a checkpoint's folder, which has to be whole; True takes the newest whole one.
            trial: see `Trainer.train`.
            ignore_keys_for_eval: see `Trainer.train`.

        Raises:
            ValueError: If the checkpoint is broken, or belongs to other data, another tokenizer or another model.
            FloatingPointError: If training has failed: too many updates in a row weren't finite.
            MemoryError: If there is no memory for a batch; the message says what to lower.
            ConnectionError: If another process has died.
            SystemExit: After SIGTERM or SIGINT, once a checkpoint is saved.
        """
        self._window = None  # what an interrupted run has left
        self._losses, self._updates_made = 0.0, 0
        self._identity = None  # data and arguments may be others than last time
        self._saved_update = None
        if self._schedule is not None and self.lr_scheduler is self._schedule:
            self.lr_scheduler = self._schedule = None  # this run may have another length
        self._skipped = guards.SkippedUpdates(self.args.max_skipped_updates)
        self._micro_batches = []
        self._stop_signal, self._saving_for_a_stop = 0, False
        try:
            with (
                run_lock(str(self.args.output_dir), holding=self.args.process_index == 0),
                guards.StopSignals() as self._signals,
            ):
                self.resumed_from = self._choose_checkpoint(resume_from_checkpoint)
                if self.accelerator.is_fsdp2:
                    assert self.model is not None
                    shard_tied_weights(self.model, self.accelerator)
                output = super().train(self.resumed_from, trial, ignore_keys_for_eval)
                self._hear_signals()
                if self._stop_signal:  # it came after the last checkpoint
                    self._leave()
                return output._replace(training_loss=output.metrics["train_loss"])
        except RuntimeError as error:
            if self.args.world_size > 1 and guards.is_lost_process(error):
                reason = str(error).strip().splitlines()[0][:200]
                raise ConnectionError(
                    f"another of the {self.args.world_size} processes has died or can't be reached, so process "
                    f"{self.args.process_index} stops at update {self.state.global_step}; start the same command again "
                    f"to go on from the newest whole checkpoint ({reason})"
                ) from error
            if guards.is_out_of_memory(error):  # in the passes over a micro-batch `training_step` says more
                raise MemoryError(
                    f"out of memory after update {self.state.global_step}, in the optimizer, in evaluation or in "
                    f"saving: lower per_device_eval_batch_size={self.args.per_device_eval_batch_size} or "
                    f"max_tokens_per_batch={self.args.max_tokens_per_batch}, or choose a smaller preset"
                ) from error
            raise

    @property
    def seconds(self) -> float:
        """Wall time of the training; of one that was stopped and gone on with, of all its parts."""
        return self._stopwatch.seconds

    @property
    def processor_seconds(self) -> float | None:
        """Time the cores gave to it, summed over them; None where something else computes or several processes do."""
        alone = self.args.device.type == "cpu" and self.args.world_size == 1
        return self._stopwatch.processor_seconds if alone else None

    @property
    def _stopwatch(self) -> Stopwatch:
        watches = [callback for callback in self.callback_handler.callbacks if isinstance(callback, Stopwatch)]
        return watches[0] if watches else Stopwatch()  # `remove_callback` may have taken it

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss, smoothed while training; in evaluation the likelihood a token of this batch alone."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs)
        has_labels = "labels" in inputs
        tokens = (inputs["labels"] != IGNORE_INDEX).sum() if has_labels and num_items_in_batch is None else None
        inputs = {**inputs, "label_smoothing": self.args.label_smoothing_factor}
        if return_outputs:
            inputs["return_logits"] = True
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = guards.poison(loss)
        nll = outputs.get("nll") if has_labels else None
        if nll is not None:
            self._nats = (nll * (num_items_in_batch if tokens is None else tokens)).sum().detach()
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the true likelihood, perplexity and speed beside the training loss."""
        if "loss" in logs and self._skipped.total:
            logs["skipped_updates"] = self._skipped.total
        # The entries of all ranks are made at the same update.
        if "loss" in logs and self._window is not None:
            sums = self._close_window(self._window)
            logs["loss"] = self._window.loss(sums, self.args.world_size)
            logs.update(self._window.summary(sums))
            self._window = TrainingWindow(self.args.device)
        if "train_loss" in logs and self._window is not None:
            self._close_window(self._window)
            logs["train_loss"] = self._losses / self._updates_made if self._updates_made else math.nan
            self._window = None
        super().log(logs, start_time)

    def _close_window(self, window: TrainingWindow) -> Tensor:
        """Add the sums of all ranks to those of the run, and return them."""
        sums: Tensor = self.accelerator.reduce(window.sums, "sum")
        self._losses += sums[0].item() / self.args.world_size
        self._updates_made += window.made
        return sums

    @contextmanager
    def _elsewhere(self) -> Iterator[None]:
        """Keep the time that evaluation or saving takes out of the speed of training."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._seconds_elsewhere += seconds
            if self._window is not None:
                self._window.pause(seconds)

    # ------------------------------------------------------------------ numbers that aren't finite

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run forward and backward pass of a micro-batch; its loss counts as 0 in the log where it isn't finite."""
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except (AttributeError, TypeError) as error:  # of None, which `logits` is
            if type(self).compute_loss is VanillaTransformerTrainer.compute_loss or "NoneType" not in str(error):
                raise
            raise ValueError(
                f"{type(self).__name__}.compute_loss fails on None ({error}): while training with labels, "
                "outputs.logits is None, since the loss computes them in chunks and never keeps them; to read them, "
                "call model(**inputs, return_logits=True)"
            ) from error
        except (RuntimeError, MemoryError) as error:
            if not guards.is_out_of_memory(error):
                raise
            share = self.args.world_size * self.args.gradient_accumulation_steps
            budget = self.args.max_tokens_per_batch
            message = guards.out_of_memory_message(self.state.global_step + 1, inputs, budget, share)
            raise MemoryError(message) from error
        self._micro_batches.append((inputs, loss))
        if self._window is not None:
            self._window.add(loss, self._nats, inputs)
        self._nats = None
        return loss.masked_fill(~loss.isfinite(), 0.0)  # torch.where would copy the 0 to the device, and wait

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float:
        """Return the norm of the gradients, which Trainer logs.

        All ranks see the same norm, that of the gradients' sum, and so decide alike without asking each other.
        """
        scaler = getattr(self.accelerator, "scaler", None)
        if grad_norm is None and scaler is None and self.accelerator.distributed_type in _UNSHARDED:
            grad_norm = guards.gradient_norm(model.parameters())
        else:  # sharded, or to be unscaled first
            grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
            if hasattr(grad_norm, "full_tensor"):
                grad_norm = grad_norm.full_tensor()  # of all shards, or each rank would decide by its own
        self._grad_norm = grad_norm
        return grad_norm  # type: ignore[return-value]

    def _skip_unless_finite(self) -> None:
        """See that an update whose loss or gradients aren't finite is skipped; called just before it would be made."""
        model: Any = self.model
        grad_norm, self._grad_norm = self._grad_norm, None
        if grad_norm is None:
            grad_norm = guards.gradient_norm(model.parameters())
        scaler = getattr(self.accelerator, "scaler", None)
        micro_batches, self._micro_batches = self._micro_batches, []
        finite = math.isfinite(float(grad_norm))
        failed = [] if finite else [index for index, (_, loss) in enumerate(micro_batches) if not loss.isfinite()]
        if not finite and scaler is not None and not guards.any_rank(bool(failed), self.args.device):
            finite = True  # the scaler tries how far it can go: it skips the update itself and lowers its scale
        if self._window is not None:
            self._window.end_update(skipped=not finite)
        if finite:
            self._skipped.good()
            return
        update = self.state.global_step + 1
        logger.warning(f"update {update} is skipped: {self._describe(micro_batches, failed)}")
        if scaler is None:
            model.zero_grad(set_to_none=True)  # without gradients no optimizer moves anything
        self._skipped.skipped(update)

    def _describe(self, micro_batches: list[tuple[dict[str, Any], Tensor]], failed: list[int]) -> str:
        """Say which sentences of this rank are to blame, as closely as can be told."""
        if not failed:
            what = "the gradients of process" if self.args.world_size == 1 else "the gradients of all ranks; process"
            failed = list(range(len(micro_batches)))
        else:
            what = "the loss of process"
        parts = []
        for index in failed:
            inputs = micro_batches[index][0]
            rows = self._rows_at_fault(inputs)
            names = self._sentence_names(index, len(inputs["input_ids"]))
            chosen = rows or list(range(len(inputs["input_ids"])))
            shown = ", ".join(names[row] for row in chosen[:_SHOWN_SENTENCES])
            more = f" and {len(chosen) - _SHOWN_SENTENCES} more" if len(chosen) > _SHOWN_SENTENCES else ""
            text = self._source_text(inputs, chosen[0])
            parts.append(
                f"{shown}{more} ({'each not finite by itself' if rows else 'together'}; the first begins {text!r})"
            )
        if not parts:
            return f"{what} {self.args.process_index} not finite"
        return f"{what} {self.args.process_index} not finite with examples {'; '.join(parts)} of the training data"

    def _rows_at_fault(self, inputs: dict[str, Any]) -> list[int]:
        """Find the sentences whose loss isn't finite by itself, without dropout; none if the model is sharded."""
        if self.accelerator.distributed_type not in _UNSHARDED:
            return []
        model: Any = self.accelerator.unwrap_model(self.model)
        batch = {
            key: value.to(self.args.device) if isinstance(value, Tensor) else value for key, value in inputs.items()
        }
        number = len(batch["input_ids"])
        found = []
        model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for row in range(number):
                one = {
                    key: value[row : row + 1]
                    for key, value in batch.items()
                    if isinstance(value, Tensor) and value.dim() and len(value) == number
                }
                if not model(**one).loss.isfinite():
                    found.append(row)
        model.train()
        return found

    def _sentence_names(self, index: int, number: int) -> list[str]:
        """Number the sentences of a micro-batch as the training data does; of a stream, within the micro-batch."""
        if self._sampler is not None:
            updates = math.ceil(len(self._sampler) / self.args.gradient_accumulation_steps)
            first = self.state.global_step % updates * self.args.gradient_accumulation_steps
            batch = list(self._sampler)[first + index]
            if len(batch) == number:
                return list(map(str, batch))
        return [f"{row} of micro-batch {index}" for row in range(number)]

    def _source_text(self, inputs: dict[str, Any], row: int) -> str:
        ids = inputs["input_ids"][row].tolist()
        tokenizer: Any = getattr(self.processing_class, "source", self.processing_class)
        text = tokenizer.decode(ids, skip_special_tokens=True) if hasattr(tokenizer, "decode") else str(ids)
        return text[:80]

    # ------------------------------------------------------------------ checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """See `Trainer.save_model`; what isn't finite is not saved."""
        if self.args.should_save:
            guards.check_finite(self.model)
        super().save_model(output_dir, _internal_call=True)
        if (self.args.push_to_hub or self._pushing) and self.args.should_save:
            write_model_code(output_dir if output_dir is not None else str(self.args.output_dir))
        if self.args.push_to_hub and not _internal_call:  # as the parent does, once the code is there
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """See `Trainer.push_to_hub`; the model's code goes with it."""
        self._pushing = True
        try:
            return super().push_to_hub(*args, **kwargs)
        finally:
            self._pushing = False

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """See `Trainer.create_model_card`; a run that has left its record gets the card that is written from it."""
        folder = Path(str(self.args.output_dir))
        if (folder / RESULTS_NAME).is_file():
            if self.is_world_process_zero():
                write_card(folder)
            return
        super().create_model_card(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save everything aside, vouch for it, and give it its name; on every rank or on none.

        A checkpoint that can't be written ends the run: to go on for days without one helps nobody. What is there
        stays whole.
        """
        with self._elsewhere():
            self._write_checkpoint(trial)
        self._saved_update = self.state.global_step

    def _write_checkpoint(self, trial: Any) -> None:
        state, args = self.state, self.args
        if trial is None:
            self.store_flos()
        run_dir = Path(self._get_output_dir(trial=trial))
        step = state.global_step
        aside = checkpointing.aside_folder(run_dir, step)
        error: Exception | None = None
        try:
            guards.check_finite(self.model, self.optimizer)
            if args.should_save:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
        except (FloatingPointError, OSError) as caught:
            error = caught
        self._agree_on_saving(error, aside)
        try:
            self.save_model(str(aside), _internal_call=True)
            if not args.save_only_model:
                self._save_optimizer_and_scheduler(str(aside))
                self._save_scaler(str(aside))
                self._save_rng_state(str(aside))
            if state.best_global_step:
                best = run_dir / f"checkpoint-{state.best_global_step}"
                if best.is_dir() or state.best_global_step == step:
                    state.best_model_checkpoint = str(best)
            if args.should_save:
                self._export_callback_states()
                state.save_to_json(str(aside / "trainer_state.json"))
        except (OSError, RuntimeError, SafetensorError) as caught:
            error = caught
        self._agree_on_saving(error, aside)  # everybody's files are there
        try:
            if args.should_save:
                kept_for = checkpointing.FOR_A_STOP if self._saving_for_a_stop else checkpointing.FOR_THE_SCHEDULE
                facts = {"step": step, "kept_for": kept_for, **self._run_identity()}
                final = checkpointing.put_in_place(aside, run_dir, step, facts)
                logger.info(f"{final} is whole")
                if not self._saving_for_a_stop:
                    checkpointing.rotate(final, args.save_total_limit, state.best_model_checkpoint)
        except OSError as caught:
            error = caught
        self._agree_on_saving(error, aside)
        if args.push_to_hub:
            self._push_from_checkpoint(str(run_dir / f"checkpoint-{step}"))

    def _agree_on_saving(self, error: Exception | None, aside: Path) -> None:
        """Go on if saving has worked so far on every rank; else clean up and raise on all of them."""
        if not guards.any_rank(error is not None, self.args.device):
            return
        if self.args.should_save:
            shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, FloatingPointError):
            raise error
        reason = "another process could not write its part" if error is None else " ".join(str(error).split())[:300]
        raise OSError(
            f"the checkpoint of update {self.state.global_step} can't be saved ({reason}), so the run stops here; "
            f"older checkpoints are as they were: make room in {aside.parent} and start the same command again"
        ) from error

    def _export_callback_states(self) -> None:
        """Put the callbacks that have something to remember into the state that is saved."""
        states: dict[str, list[dict[str, Any]]] = defaultdict(list)
        saved: Any = self.state.stateful_callbacks
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                states[type(callback).__name__].append(callback.state())
        for name, exported in states.items():
            saved[name] = exported[0] if len(exported) == 1 else exported

    def _run_identity(self) -> dict[str, Any]:
        if self._identity is None:
            self._identity = resuming.run_identity(
                self.args, self.train_dataset, self.processing_class, self._handed_in
            )
        return self._identity

    def _choose_checkpoint(self, asked: str | bool | None) -> str | None:
        """Verify the checkpoint that was asked for, or find one; process 0 looks, all of them hear the same."""
        answer: list[str | None] = [None, None]  # the folder, or why there is none
        if self.args.process_index == 0:
            run_dir = Path(str(self.args.output_dir))
            try:
                checkpointing.clear_leftovers(run_dir)
                if asked is True:
                    found = checkpointing.newest_whole(run_dir, self.args.resume_anyway)
                    if found is None:
                        raise ValueError(f"there is no checkpoint in {run_dir} to resume from; start without")
                    answer[0] = str(found)
                elif asked:
                    answer[0] = str(asked)
                    if has_manifest(Path(asked)) or not self.args.resume_anyway:
                        verify(Path(asked))
                if answer[0] is not None:
                    config: Any = self.accelerator.unwrap_model(self.model).config
                    scaled = getattr(self.accelerator, "scaler", None) is not None
                    resuming.check_resumable(Path(answer[0]), self._run_identity(), config, self.args, scaled)
                    if not self.args.resume_anyway:
                        resuming.check_weights(Path(answer[0]), self.accelerator.unwrap_model(self.model))
            except BrokenCheckpointError as error:
                hint = "" if asked is True else "; resume_from_checkpoint=True goes on from the newest whole one"
                answer[1] = f"{error}{hint}"
            except (ValueError, OSError) as error:
                answer[1] = str(error)
        broadcast_object_list(answer)
        if answer[1] is not None:
            raise ValueError(answer[1])
        return answer[0]

    # ------------------------------------------------------------------ signals and the end

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader) -> Any:
        """See `Trainer.set_initial_training_values`; a run that was resumed at its end has no epoch left.

        Trainer would make one more update.
        """
        epochs, updates_per_epoch, *others, max_steps = super().set_initial_training_values(args, dataloader)
        done = 0 if self.resumed_from is None else resuming.saved_update(Path(self.resumed_from))
        if done and done >= max_steps:
            epochs = done // updates_per_epoch
        return epochs, updates_per_epoch, *others, max_steps

    def _hear_signals(self) -> None:
        """Learn whether any rank got a signal; every rank has to ask."""
        received = self._signals.received
        self._stop_signal = guards.largest_of_ranks(0 if received is None else int(received), self.args.device)

    def _leave(self) -> None:
        """End the process after a signal: what follows training deletes checkpoints and loads others."""
        if self.is_in_train:
            self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
            self.is_in_train = False
        if (
            self._saved_update == self.state.global_step
            or self.resumed_from is not None
            and (resuming.saved_update(Path(self.resumed_from)) == self.state.global_step)
        ):
            saved = "which is saved; the same command goes on from there"
        else:
            saved = "which is not saved; the same command goes on from the newest checkpoint, if there is one"
        logger.warning(
            f"stopped by {signal.Signals(self._stop_signal).name} after update {self.state.global_step} of "
            f"{self.state.max_steps}, {saved}"
        )
        raise SystemExit(guards.exit_status(self._stop_signal))

    # ------------------------------------------------------------------ evaluation

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, Any, Any]:
        """See `Seq2SeqTrainer.prediction_step`; counts nats and tokens as well."""
        step: tuple[Any, Any, Any] = super().prediction_step(
            model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs
        )
        loss = step[0]
        if loss is not None and "labels" in inputs:
            tokens = (inputs["labels"] != IGNORE_INDEX).sum().to(self._evaluated)
            self._evaluated += torch.stack((loss.to(self._evaluated) * tokens, tokens))
        return step

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """See `Trainer.evaluation_loop`, whose loss is a mean of batches; ours is the mean of tokens."""
        self._evaluated = torch.zeros(2, dtype=sum_dtype(self.args.device), device=self.args.device)
        converts = (self.args.bf16_full_eval or self.args.fp16_full_eval) and not self.is_in_train
        model: Any = self.model
        with self._elsewhere(), guards.kept_precision(model) if converts else nullcontext():
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        nats, tokens = self.accelerator.reduce(self._evaluated, "sum").tolist()
        if tokens and output.metrics is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = nats / tokens
            output.metrics[f"{metric_key_prefix}_perplexity"] = perplexity(nats / tokens)
        return output


def _check_handed_in(
    args: VanillaTransformerTrainingArguments,
    optimizer: Optimizer | None,
    scheduler: Any,
    compute_loss_func: Callable | None,
) -> None:
    """Refuse arguments that an optimizer, a scheduler or a loss of the user's own would leave without effect."""
    if optimizer is None and scheduler is not None:
        raise ValueError("optimizers has a scheduler without its optimizer; hand in both, or only the optimizer")
    brought = {
        **dict.fromkeys(() if optimizer is None else _BROUGHT_BY_OPTIMIZER, "optimizer"),
        **dict.fromkeys(() if scheduler is None else _BROUGHT_BY_SCHEDULE, "scheduler"),
    }
    for name, what in brought.items():
        value = getattr(args, name)
        open_rate = name == "learning_rate" and args.learning_rate_is_equation_3s
        if value != args.default(name) and not open_rate:
            raise ValueError(f"{name}={value!r} would have no effect beside the {what} that is handed in; leave it out")
    if optimizer is not None and scheduler is None and not args.learning_rate_is_equation_3s:
        rates = {float(group["lr"]) for group in optimizer.param_groups}
        if rates != {args.learning_rate}:
            raise ValueError(
                f"learning_rate={args.learning_rate} and the optimizer's {', '.join(map(str, sorted(rates)))} differ; "
                "leave learning_rate out: an optimizer that is handed in keeps its own as the schedule's peak"
            )
    if compute_loss_func is not None and args.label_smoothing_factor:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor} shapes the model's own loss and would have no "
            "effect beside compute_loss_func; set it to 0 and smooth there"
        )


def _collate_columns(collator: Callable[[list[Any]], Any], wanted: set[str], rows: list[Any]) -> Any:
    """Collate rows without the columns that the model doesn't take."""
    return collator(
        [{name: row[name] for name in row if name in wanted} if isinstance(row, dict) else row for row in rows]
    )


class _SamplerEpoch(TrainerCallback):
    """Tells the sampler its epoch by itself.

    On several ranks, a resumed run looks at the sampler through two wrappers, and the epoch that Trainer announces
    reaches only through one: the rest of the epoch would come in another order.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        loader = kwargs["train_dataloader"]
        sampler = getattr(loader, "batch_sampler", None)
        while sampler is not None and not isinstance(sampler, TokenBudgetSampler):
            sampler = getattr(sampler, "batch_sampler", None)
        if sampler is not None:
            updates = math.ceil(len(sampler) / args.gradient_accumulation_steps)
            sampler.set_epoch(state.global_step // updates)


class _Watch(TrainerCallback):
    """Says at the start what is trained on what, soon after how long it will take, and stops when a signal came.

    Here are the moments between the steps of `Trainer.train` at which the trainer has something to do.
    """

    def __init__(self, trainer: VanillaTransformerTrainer) -> None:
        self.trainer = trainer
        self.first: tuple[int, float] | None = None  # an update that is over, and when it was, in seconds

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first = None
        if self.trainer.resumed_from is not None:
            self.trainer._keep_own_peaks()
        self.trainer._window = TrainingWindow(args.device)
        if state.is_world_process_zero:
            self._finish_rotation(state)
            ours, model = self.trainer.args, self.trainer.model
            assert model is not None
            processes = "1 process" if args.world_size == 1 else f"{args.world_size} processes"
            share = args.world_size * args.gradient_accumulation_steps
            precision = self.trainer.accelerator.mixed_precision
            dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
            logger.info(
                f"{processes} on {args.device.type}, precision {dtype if precision == 'no' else precision}, "
                f"at most {ours.max_tokens_per_batch} source and as many target tokens an update "
                f"({share} micro-batches of {ours.max_tokens_per_batch // share}), updates {state.global_step + 1} to "
                f"{state.max_steps}; the estimated time follows after {_UPDATES_TIMED + 1} updates"
            )
            if self.trainer._peaks is not None and self.trainer._schedule is self.trainer.lr_scheduler:
                peaks = ", ".join(f"{peak:.4g}" for peak in dict.fromkeys(self.trainer._peaks))
                warmup = args.get_warmup_steps(state.max_steps)
                logger.info(f"learning rate by Equation 3, at its peak {peaks} in update {warmup}")

    def _finish_rotation(self, state: TrainerState) -> None:
        """Delete what a run should have deleted that was killed between giving a checkpoint its name and that."""
        newest = self.trainer.resumed_from
        run_dir = Path(str(self.trainer.args.output_dir))
        if newest is None or Path(newest).resolve().parent != run_dir.resolve():
            return
        if not checkpointing.kept_for_a_stop(Path(newest)):  # after one of these the next save will do it
            limit = self.trainer.args.save_total_limit
            checkpointing.rotate(run_dir / Path(newest).name, limit, state.best_model_checkpoint)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.perf_counter() - self.trainer._seconds_elsewhere
        if self.first is None:  # the first update compiles, fills caches and starts workers: it isn't timed
            self.first = state.global_step, now
        elif state.global_step == self.first[0] + _UPDATES_TIMED and state.is_world_process_zero:
            seconds = (now - self.first[1]) / _UPDATES_TIMED
            left = state.max_steps - state.global_step
            logger.info(
                f"estimated time: {guards.duration(seconds * left)} for the {left} updates to go, at {seconds:.3g} s "
                "each, without evaluation and saving"
            )
        self._stop_after_signal(control)

    def _stop_after_signal(self, control: TrainerControl) -> None:
        """Ask for a checkpoint and the end if a signal has come; `on_save` ends the process."""
        trainer = self.trainer
        trainer._hear_signals()
        if trainer._stop_signal:
            if not control.should_save:  # else the schedule wants this checkpoint anyway
                trainer._saving_for_a_stop = control.should_save = True
            control.should_training_stop = True

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer._skip_unless_finite()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.trainer.is_in_train:
            self._stop_after_signal(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer._hear_signals()
        if self.trainer._stop_signal:
            self.trainer._leave()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer._stop_signal:  # stopped inside the epoch, and `save_strategy: best` has kept from saving
            control.should_evaluate = control.should_log = False
            control.should_save = self.trainer._saving_for_a_stop = True

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:  # what is pushed is the output directory
            copy_model_code(str(args.output_dir))


__all__ = ["PRIVATE_METHODS", "VanillaTransformerTrainer"]
