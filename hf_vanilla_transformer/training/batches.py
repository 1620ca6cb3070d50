# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The dataloader of training batches, which are filled by a token budget (§5.1)."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import seed_worker
from transformers.utils import logging

from ..data.batching import TokenBudget, TokenBudgetSampler, TokenBudgetStream, example_lengths
from .arguments import VanillaTransformerTrainingArguments

logger = logging.get_logger(__name__)


def token_budget(args: VanillaTransformerTrainingArguments) -> TokenBudget:
    """Return the settings that training arguments give for the batches of this rank."""
    return TokenBudget(
        max_tokens_per_batch=args.max_tokens_per_batch,
        num_ranks=args.world_size,
        rank=args.process_index,
        accumulation_steps=args.gradient_accumulation_steps,
        max_length=args.max_sentence_tokens,
        seed=args.seed if args.data_seed is None else args.data_seed,
    )


class TrainingBatches:
    """Makes the training dataloader; returns which examples are in a batch.

    Attributes:
        sampler: the batch sampler of the last dataloader; None for a stream.
        examples_per_update: mean number of examples per update; None for a stream.
    """

    def __init__(self) -> None:
        self.sampler: TokenBudgetSampler | None = None
        self.examples_per_update: int | None = None

    def dataloader(
        self,
        dataset: Any,
        collator: Callable[[list[Any]], dict[str, Any]],
        columns: set[str] | None,
        args: VanillaTransformerTrainingArguments,
        non_blocking: bool,
    ) -> DataLoader:
        """Return a dataloader over this rank's batches.

        Args:
            dataset: examples with ``input_ids`` and ``labels``; without a length, it is streamed.
            collator: makes a batch of examples.
            columns: columns to keep; None keeps all.
            args: the training arguments.
            non_blocking: copy pinned batches to the device without waiting.
        """
        self.sampler, self.examples_per_update = None, None
        batches: dict[str, Any]
        if isinstance(dataset, IterableDataset):
            stream = TokenBudgetStream.from_budget(dataset, token_budget(args), endless=True)
            batches = {"dataset": stream, "batch_size": None}  # an item of the stream is a batch
        else:
            self.sampler = self._plan(dataset, args)
            batches = {"dataset": dataset, "batch_sampler": self.sampler}
        if columns is not None:
            if hasattr(dataset, "select_columns") and not isinstance(dataset, IterableDataset):
                names = [name for name in dataset.column_names if name in columns]
                batches["dataset"] = dataset.select_columns(names)  # the other columns are never read
            else:
                collator = partial(_collate_columns, collator, columns)
        loader = DataLoader(
            **batches,
            collate_fn=collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        )
        # Accelerator.prepare would shard the batches again, which are sharded by rank already.
        return prepare_data_loader(
            loader,
            device=args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
            # Pinned batches are copied while the GPU computes; a blocking copy would wait for all queued work.
            non_blocking=non_blocking or (args.dataloader_pin_memory and args.device.type == "cuda"),
        )

    def _plan(self, dataset: Any, args: VanillaTransformerTrainingArguments) -> TokenBudgetSampler:
        """Plan the batches of a dataset with a length."""
        source_lengths, target_lengths = (example_lengths(dataset, column) for column in ("input_ids", "labels"))
        sampler = TokenBudgetSampler.from_budget(source_lengths, target_lengths, token_budget(args))
        updates = updates_per_epoch(sampler, args)
        examples = len(dataset) - len(sampler.skipped)
        self.examples_per_update = round(examples / updates)
        logger.debug(
            f"{examples} examples per epoch in {updates} updates of at most {args.max_tokens_per_batch} source and "
            f"target tokens; {sampler.padding:.1%} of the positions are padding"
        )
        return sampler

    def example_names(self, update: int, micro_batch: int, examples: int, args: TrainingArguments) -> list[str]:
        """Return the indices in the dataset of a micro-batch's examples, as text; in a stream, those in the batch.

        Args:
            update: number of updates before this one.
            micro_batch: index of the micro-batch in the update.
            examples: number of examples in it.
            args: the training arguments.
        """
        if self.sampler is not None:
            first = update % updates_per_epoch(self.sampler, args) * args.gradient_accumulation_steps
            batch = list(self.sampler)[first + micro_batch]
            if len(batch) == examples:
                return list(map(str, batch))
        return [f"{row} of micro-batch {micro_batch}" for row in range(examples)]


class SamplerEpoch(TrainerCallback):
    """Sets the sampler's epoch.

    On several ranks, a resumed run reaches the sampler through two wrappers, and Trainer's own ``set_epoch`` passes
    through only one: the rest of the epoch would have another order.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch from the number of updates made."""
        sampler = getattr(kwargs["train_dataloader"], "batch_sampler", None)
        while sampler is not None and not isinstance(sampler, TokenBudgetSampler):
            sampler = getattr(sampler, "batch_sampler", None)
        if sampler is not None:
            sampler.set_epoch(state.global_step // updates_per_epoch(sampler, args))


def updates_per_epoch(sampler: TokenBudgetSampler, args: TrainingArguments) -> int:
    """Return the number of updates in one epoch of a sampler."""
    return math.ceil(len(sampler) / args.gradient_accumulation_steps)


def forward_columns(model: Any, label_names: list[str]) -> set[str]:
    """Return the names of the columns that the model's ``forward`` takes, and of the labels."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapter
    return {*inspect.signature(type(model).forward).parameters, *label_names}


def _collate_columns(collator: Callable[[list[Any]], Any], columns: set[str], rows: list[Any]) -> Any:
    """Collate rows without the columns that the model does not take."""
    return collator(
        [{name: row[name] for name in row if name in columns} if isinstance(row, dict) else row for row in rows]
    )


__all__ = ["SamplerEpoch", "TrainingBatches", "forward_columns", "token_budget", "updates_per_epoch"]
