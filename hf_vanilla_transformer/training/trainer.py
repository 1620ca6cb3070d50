# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's training (§5) as a Trainer: Equation 3, token-budget batches, smoothing in the loss, true perplexity.

Everything else is the stock Seq2SeqTrainer's.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
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
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..data.batching import TokenBudgetSampler, TokenBudgetStream, example_lengths
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.loss_vanilla_transformer import IGNORE_INDEX
from .arguments import VanillaTransformerTrainingArguments
from .schedule import noam_schedule

logger = logging.get_logger(__name__)


class VanillaTransformerTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` that trains as the paper does.

    - The learning rate is Equation 3 times ``learning_rate_factor``, from update 1 on.
    - An update sees ``max_tokens_per_batch`` source and target tokens, over all devices and accumulation steps.
      ``per_device_train_batch_size`` has no meaning here; ``per_device_eval_batch_size`` has.
    - The loss is smoothed while training only. Training logs carry ``nll`` and ``perplexity`` of the unsmoothed
      targets beside ``loss``; ``eval_loss`` is the true negative log-likelihood in nats a token, over all tokens of
      the set, and ``eval_perplexity`` its exponential. On several ranks the sentences that accelerate repeats to fill
      the last evaluation batch count twice.
    - Stopping at any update and resuming gives the batches that never stopping would have given.

    Examples have ``input_ids`` and ``labels``, lists of token ids. A data set without a length is streamed: shuffled
    and sorted within a pool, and it needs ``max_steps``.
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
        if data_collator is None and processing_class is not None:
            from ..data.collator import DataCollatorForTranslation

            data_collator = DataCollatorForTranslation(processing_class)
            config: Any = getattr(model, "config", None)
            if config is not None:
                data_collator.decoder_start_token_id = config.decoder_start_token_id
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
        model_type = getattr(getattr(self.model, "config", None), "model_type", None)
        if model_type != VanillaTransformerConfig.model_type:  # by name: remote code has a class of its own
            raise ValueError(
                f"VanillaTransformerTrainer trains {VanillaTransformerConfig.model_type} models, not {model_type}, "
                "whose loss takes no label_smoothing; use the stock Seq2SeqTrainer"
            )
        self.add_callback(_SamplerEpoch())
        self._sentences_per_update: int | None = None
        self._window: _TrainingWindow | None = None
        self._evaluated = torch.zeros(2)  # nats and target tokens of the running evaluation

    # ------------------------------------------------------------------ batches

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Return the token-budget sampler, which Trainer's loader takes for its batches as they are."""
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
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
        if not isinstance(dataset, IterableDataset):
            return super().get_train_dataloader()
        args = self.args
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
        loader = DataLoader(
            stream,
            batch_size=None,  # an item of the stream is a batch
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        # Not through Accelerator.prepare: it would deal out again what the stream has dealt out.
        return prepare_data_loader(
            loader, device=args.device, num_processes=1, process_index=0, put_on_device=True, dispatch_batches=False
        )

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Return the sentences of an average update, from which Trainer reckons its samples a second."""
        return self._sentences_per_update or super().get_total_train_batch_size(args)

    # ------------------------------------------------------------------ learning rate

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Schedule by Equation 3, unless a scheduler was handed to the constructor."""
        model: Any = self.model
        if self.lr_scheduler is None:
            self.lr_scheduler = noam_schedule(
                self.optimizer if optimizer is None else optimizer,  # type: ignore[arg-type]
                model.config.d_model,
                self.args.get_warmup_steps(num_training_steps),
                self.args.learning_rate_factor,
                total_steps=num_training_steps,
                cooldown_steps=self.args.cooldown_steps,
            )
            self._created_lr_scheduler = True  # so that the next train() makes a new one
        return self.lr_scheduler

    # ------------------------------------------------------------------ loss, likelihood, perplexity

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """See `Trainer.train`."""
        self._window = None  # what an interrupted run has left
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

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
        inputs = {**inputs, "label_smoothing": self.args.label_smoothing}
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        nll = outputs.get("nll")
        if nll is not None and "labels" in inputs:
            if self._window is None:
                self._window = _TrainingWindow(self.args.device)
            self._window.add(nll, inputs, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the true likelihood, perplexity and speed beside the training loss."""
        if "loss" in logs and self._window is not None:  # the entries of all ranks are made at the same update
            logs.update(self._window.summary(self.accelerator.reduce(self._window.sums, "sum")))
            self._window = None
        super().log(logs, start_time)

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
        self._evaluated = torch.zeros(2, dtype=_sum_dtype(self.args.device), device=self.args.device)
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        nats, tokens = self.accelerator.reduce(self._evaluated, "sum").tolist()
        if tokens and output.metrics is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = nats / tokens
            output.metrics[f"{metric_key_prefix}_perplexity"] = _perplexity(nats / tokens)
        return output


class _TrainingWindow:
    """What is summed from one log entry to the next, on one rank."""

    def __init__(self, device: torch.device) -> None:
        self.started = time.perf_counter()
        self.sums = torch.zeros(3, dtype=_sum_dtype(device), device=device)  # nats, target tokens, source tokens

    def add(self, nll: Tensor, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None) -> None:
        """Add a micro-batch: its ``nll`` in nats, as divided by the model, which tokens it had, and the divisor."""
        target_tokens = (inputs["labels"] != IGNORE_INDEX).sum()
        divisor = target_tokens if num_items_in_batch is None else num_items_in_batch
        mask = inputs.get("attention_mask")
        source_tokens = torch.as_tensor(inputs["input_ids"].numel()) if mask is None else mask.sum()
        counts = ((nll * divisor).sum(), target_tokens, source_tokens)
        self.sums += torch.stack([count.to(self.sums) for count in counts])

    def summary(self, sums: Tensor) -> dict[str, float]:
        """Return log entries from the sums of all ranks."""
        nats, target_tokens, source_tokens = sums.tolist()
        seconds = time.perf_counter() - self.started
        nll = nats / max(target_tokens, 1.0)
        return {
            "nll": nll,
            "perplexity": _perplexity(nll),
            "tokens_per_second": round((source_tokens + target_tokens) / max(seconds, 1e-9), 1),
        }


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


def _perplexity(nll: float) -> float:
    """Return e^nll, infinite where that is more than a float holds."""
    return math.exp(nll) if not nll > 700 else math.inf


def _sum_dtype(device: torch.device) -> torch.dtype:
    """Return the widest dtype for sums that the device has."""
    return torch.float32 if device.type == "mps" else torch.float64


__all__ = ["VanillaTransformerTrainer"]
