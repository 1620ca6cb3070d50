# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's training (§5) as a Trainer: Equation 3, token-budget batches, smoothing in the loss, true perplexity.

Everything else is the stock Seq2SeqTrainer's.
"""

import math
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DistributedType, broadcast_object_list
from safetensors import SafetensorError
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
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..card import RESULTS_NAME, write_card
from ..checkpoints.manifest import BrokenCheckpointError, has_manifest, verify
from ..checkpoints.self_contained import copy_model_code, write_model_code
from ..data.batching import TokenBudgetSampler, TokenBudgetStream, example_lengths
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.loss_vanilla_transformer import IGNORE_INDEX
from . import checkpointing, guards, resuming
from .arguments import VanillaTransformerTrainingArguments
from .meters import TrainingWindow, perplexity, sum_dtype
from .schedule import noam_schedule
from .stopwatch import Stopwatch

logger = logging.get_logger(__name__)

_SHOWN_SENTENCES = 20  # of those that a skipped update names
_UPDATES_TIMED = 5  # after the first one, before the time is estimated
_UNSHARDED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


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
    - A checkpoint is whole or isn't there: written aside, vouched for by a manifest, renamed. ``train`` with
      ``resume_from_checkpoint=True`` goes on from the newest whole one, and refuses other data, another tokenizer or
      another model than it was trained with (``resume_anyway`` overrides).
    - An update whose loss or gradients aren't finite is skipped on all ranks; ``max_skipped_updates`` in a row end the
      run. SIGTERM and SIGINT finish the update, save and exit with status 143 and 130.

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
        self._sampler = sampler
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
        self._skipped = guards.SkippedUpdates(self.args.max_skipped_updates)
        self._micro_batches = []
        self._stop_signal, self._saving_for_a_stop = 0, False
        self.resumed_from = self._choose_checkpoint(resume_from_checkpoint)
        try:
            with guards.StopSignals() as self._signals:
                return super().train(self.resumed_from, trial, ignore_keys_for_eval)
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
        inputs = {**inputs, "label_smoothing": self.args.label_smoothing}
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = guards.poison(loss)
        nll = outputs.get("nll")
        if nll is not None and "labels" in inputs:
            if self._window is None:
                self._window = TrainingWindow(self.args.device)
            self._window.add(nll, inputs, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the true likelihood, perplexity and speed beside the training loss."""
        if "loss" in logs and self._skipped.total:
            logs["skipped_updates"] = self._skipped.total
        if "loss" in logs and self._window is not None:  # the entries of all ranks are made at the same update
            logs["loss"] *= self._window.share_not_skipped()
            logs.update(self._window.summary(self.accelerator.reduce(self._window.sums, "sum")))
            self._window = None
        super().log(logs, start_time)

    # ------------------------------------------------------------------ numbers that aren't finite

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run forward and backward pass of a micro-batch; its loss counts as 0 in the log where it isn't finite."""
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except (RuntimeError, MemoryError) as error:
            if not guards.is_out_of_memory(error):
                raise
            share = self.args.world_size * self.args.gradient_accumulation_steps
            budget = self.args.max_tokens_per_batch
            message = guards.out_of_memory_message(self.state.global_step + 1, inputs, budget, share)
            raise MemoryError(message) from error
        self._micro_batches.append((inputs, loss))
        return torch.where(loss.isfinite(), loss, 0.0)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float:
        """Return the norm of the gradients, which Trainer logs; where it isn't finite, see that the update is skipped.

        All ranks see the same norm, that of the gradients' sum, and so decide alike without asking each other.
        """
        scaler = getattr(self.accelerator, "scaler", None)
        if grad_norm is None and scaler is None and self.accelerator.distributed_type in _UNSHARDED:
            grad_norm = guards.gradient_norm(model.parameters())
        else:  # sharded, or to be unscaled first
            grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        micro_batches, self._micro_batches = self._micro_batches, []
        finite = grad_norm is None or math.isfinite(float(grad_norm))  # DeepSpeed may keep it to itself
        failed = [] if finite else [index for index, (_, loss) in enumerate(micro_batches) if not loss.isfinite()]
        if not finite and scaler is not None and not guards.any_rank(bool(failed), self.args.device):
            finite = True  # the scaler tries how far it can go: it skips the update itself and lowers its scale
        if self._window is not None:
            self._window.end_update(skipped=not finite)
        if finite:
            self._skipped.good()
            return grad_norm  # type: ignore[return-value]
        update = self.state.global_step + 1
        logger.warning(f"update {update} is skipped: {self._describe(micro_batches, failed)}")
        for _, loss in micro_batches:
            self._tr_loss -= torch.where(loss.isfinite(), loss, 0.0)
        if scaler is None:
            model.zero_grad(set_to_none=True)  # without gradients no optimizer moves anything
        self._skipped.skipped(update)
        return grad_norm

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
        batch = self._prepare_inputs(inputs)
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

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """See `Trainer._save`; what isn't finite is not saved."""
        if self.args.should_save:
            guards.check_finite(self.model)
        super()._save(output_dir, state_dict)
        if self.args.push_to_hub and self.args.should_save:
            write_model_code(output_dir if output_dir is not None else str(self.args.output_dir))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """See `Trainer._push_from_checkpoint`, which pushes what is in the output directory; the code belongs there."""
        if self.is_world_process_zero():
            copy_model_code(str(self.args.output_dir))
        super()._push_from_checkpoint(checkpoint_folder)

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
            self._identity = resuming.run_identity(self.args, self.train_dataset, self.processing_class)
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
                    resuming.check_resumable(Path(answer[0]), self._run_identity(), config, self.args)
            except BrokenCheckpointError as error:
                hint = "" if asked is True else "; resume_from_checkpoint=True goes on from the newest whole one"
                answer[1] = f"{error}{hint}"
            except (ValueError, OSError) as error:
                answer[1] = str(error)
        broadcast_object_list(answer)
        if answer[1] is not None:
            raise ValueError(answer[1])
        return answer[0]

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse weights that don't fill the model, which Trainer only warns of."""
        tied = set(getattr(self.accelerator.unwrap_model(self.model), "all_tied_weights_keys", None) or {})
        wrong = [key for key in load_result.missing_keys if key not in tied] + list(load_result.unexpected_keys)
        if wrong and not self.args.resume_anyway:
            raise ValueError(
                f"the checkpoint's weights are not this model's: {', '.join(wrong[:5])} are in only one of them; start "
                "a new run"
            )
        super()._issue_warnings_after_load(load_result)

    # ------------------------------------------------------------------ signals and the end

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """See `Trainer._run_epoch`, which would make one more update of a run that was resumed at its end."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Leave at once after a signal: what follows deletes checkpoints and loads others."""
        if not self._stop_signal:
            return super()._finalize_training(*args, **kwargs)
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        self.is_in_train = False
        logger.warning(
            f"stopped by {signal.Signals(self._stop_signal).name} after update {self.state.global_step} of "
            f"{self.state.max_steps}, which is saved; the same command goes on from there"
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
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        nats, tokens = self.accelerator.reduce(self._evaluated, "sum").tolist()
        if tokens and output.metrics is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = nats / tokens
            output.metrics[f"{metric_key_prefix}_perplexity"] = perplexity(nats / tokens)
        return output


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
    """Says at the start what is trained on what, soon after how long it will take, and stops when a signal came."""

    def __init__(self, trainer: VanillaTransformerTrainer) -> None:
        self.trainer = trainer
        self.first: tuple[int, float] | None = None  # an update that is over, and when it was, in seconds

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first = None
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
        now = time.perf_counter()
        if self.first is None:  # the first update compiles, fills caches and starts workers: it isn't timed
            self.first = state.global_step, now
        elif state.global_step == self.first[0] + _UPDATES_TIMED and state.is_world_process_zero:
            seconds = (now - self.first[1]) / _UPDATES_TIMED
            left = state.max_steps - state.global_step
            logger.info(
                f"estimated time: {guards.duration(seconds * left)} for the {left} updates to go, at {seconds:.3g} s "
                "each, without evaluation and saving"
            )
        trainer = self.trainer
        received = trainer._signals.received
        trainer._stop_signal = guards.largest_of_ranks(0 if received is None else int(received), args.device)
        if trainer._stop_signal:
            trainer._saving_for_a_stop = not control.should_save  # else the schedule wants this checkpoint anyway
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer._stop_signal:  # stopped inside the epoch: this is not its end
            control.should_save = control.should_evaluate = control.should_log = False


__all__ = ["VanillaTransformerTrainer"]
