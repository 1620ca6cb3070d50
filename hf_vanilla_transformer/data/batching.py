# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches by token budget: "about 25,000 source and 25,000 target tokens" (§5.1), with little padding.

A plan has two parts. The *slots*, one per update, are the same for all epochs: examples are sorted by length and cut
into slots that fill the budget; each slot keeps its number of rows and its longest source and target. The examples in
the slots change from epoch to epoch: two examples are swapped if each fits the slot of the other, and the slots are
shuffled. So every epoch has the same number of updates, and no epoch has more padding than the sorted order.

The examples of a slot are divided among ranks and accumulation steps. So an update has the same examples for any number
of them, and all ranks work on batches of similar size.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pyarrow.compute import list_value_length
from torch.utils.data import IterableDataset, Sampler, get_worker_info
from transformers.utils import logging

from .slots import cut_evenly, cut_slots, sort_in_strips

logger = logging.get_logger(__name__)

_MIXING_ROUNDS = 24  # rounds in which every example may be swapped; more rounds mix batches further
_STRIPS_PER_UPDATE = 3  # for dividing the examples of one update among micro-batches
_SEED_STEP = 1_000_003  # between the seeds of consecutive pools of a stream
_BATCH_ROWS = 10_000  # rows whose lengths are read at a time


@dataclass(frozen=True)
class TokenBudget:
    """The size of an update, how it is divided among ranks and accumulation steps, and the seed of the shuffling.

    `TokenBudgetSampler.from_budget` and `TokenBudgetStream.from_budget` take it.

    Attributes:
        max_tokens_per_batch: source tokens, and target tokens, of one update, padding included: all ranks and all
            accumulation steps together.
        num_ranks: number of processes that train together.
        rank: the rank whose batches are yielded; None yields those of all ranks in turn, as accelerate expects.
        accumulation_steps: micro-batches of one rank in one update.
        max_length: number of tokens on either side above which an example is skipped; None skips only examples that
            don't fit a micro-batch.
        seed: of the shuffling.
    """

    max_tokens_per_batch: int = 25_000
    num_ranks: int = 1
    rank: int | None = None
    accumulation_steps: int = 1
    max_length: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        if self.num_ranks < 1 or self.accumulation_steps < 1 or not 0 <= (self.rank or 0) < self.num_ranks:
            raise ValueError(
                f"num_ranks={self.num_ranks}, rank={self.rank}, accumulation_steps={self.accumulation_steps} are "
                "invalid; num_ranks and accumulation_steps start at 1, and rank is 0 to num_ranks - 1"
            )

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches in one update."""
        return self.num_ranks * self.accumulation_steps

    @property
    def micro_batch_tokens(self) -> int:
        """Source tokens, and target tokens, of one micro-batch."""
        return self.max_tokens_per_batch // self.micro_batches

    @property
    def longest_example(self) -> int:
        """Number of tokens on either side above which an example is skipped."""
        return self.micro_batch_tokens if self.max_length is None else min(self.max_length, self.micro_batch_tokens)

    def fits(self, source_lengths: np.ndarray, target_lengths: np.ndarray) -> np.ndarray:
        """Return for each example whether it fits: neither side is empty or too long."""
        longest, shortest = np.maximum(source_lengths, target_lengths), np.minimum(source_lengths, target_lengths)
        return (longest <= self.longest_example) & (shortest > 0)


class TokenBudgetSampler(Sampler[list[int]]):
    """Yields lists of example indices whose padded sources and padded targets each fit a token budget.

    One update has at most ``max_tokens_per_batch`` source and as many target tokens, padding included, over all ranks
    and accumulation steps together. A micro-batch gets its share, rounded up to complete examples. The updates of an
    epoch depend only on the seed and the epoch, not on the number of ranks and accumulation steps (but an example must
    fit a micro-batch). Every example appears exactly once per epoch; only in an update with fewer examples than
    micro-batches, some appear twice. Every rank gets the same number of batches, and ranks work on batches of similar
    size at the same time.

    `VanillaTransformerTrainer` builds it. In your own training loop with accelerate, leave ``rank`` None, pass the
    sampler to a DataLoader as ``batch_sampler``, prepare the loader, and call its ``set_epoch``.

    Attributes:
        budget: the `TokenBudget`.
        skipped: indices of examples that are left out: empty, longer than ``max_length``, or than a micro-batch.
        epoch: the epoch that the next iteration yields; see `set_epoch`.
    """

    # accelerate reads these from a batch sampler. None means that sizes vary; with a number it would drop batches.
    batch_size = None
    drop_last = False

    def __init__(
        self,
        source_lengths: Sequence[int] | np.ndarray,
        target_lengths: Sequence[int] | np.ndarray,
        max_tokens_per_batch: int = 25_000,
        *,
        num_ranks: int = 1,
        rank: int | None = None,
        accumulation_steps: int = 1,
        max_length: int | None = None,
        seed: int = 42,
        shuffle: bool = True,
    ) -> None:
        """Plan the slots.

        Args:
            source_lengths: tokens of each source, with the EOS token.
            target_lengths: tokens of each target, with the EOS token.
            max_tokens_per_batch, num_ranks, rank, accumulation_steps, max_length, seed: see `TokenBudget`.
            shuffle: swap examples and shuffle slots. Without it, every epoch yields the slots in sorted order, shortest
                targets first.

        Raises:
            ValueError: If the numbers of lengths differ, an argument is out of range, or no example fits.
        """
        source = np.asarray(source_lengths, dtype=np.int64)
        target = np.asarray(target_lengths, dtype=np.int64)
        if source.shape != target.shape or source.ndim != 1:
            raise ValueError(
                f"there are {source.size} source lengths and {target.size} target lengths; give one of each per example"
            )
        self.budget = TokenBudget(max_tokens_per_batch, num_ranks, rank, accumulation_steps, max_length, seed)
        fits = self.budget.fits(source, target)
        self.skipped: list[int] = np.flatnonzero(~fits).tolist()
        if self.skipped:
            logger.warning(self._skipped_message(source, target))
        if not fits.any():
            raise ValueError(
                f"none of {len(source)} examples fits: a batch takes {self.budget.longest_example} tokens per side "
                f"({max_tokens_per_batch} over {num_ranks} ranks and {accumulation_steps} accumulation steps"
                + ("" if max_length is None else f", max_length={max_length}")
                + "); raise max_tokens_per_batch or cut the text into shorter pieces"
            )
        self.shuffle = shuffle
        self.epoch = 0
        kept = np.flatnonzero(fits)
        order, starts = cut_slots(source[kept], target[kept], max_tokens_per_batch)
        self._members = kept[order]  # examples, slot after slot
        self._starts = starts  # start of each slot among the members, and the number of members at the end
        self._source = source
        self._target = target

    def _skipped_message(self, source: np.ndarray, target: np.ndarray) -> str:
        """Describe the examples that are left out, and what to do."""
        count, limit = len(self.skipped), self.budget.longest_example
        empty = int((np.minimum(source, target) <= 0).sum())
        limited_by_length = self.budget.max_length is not None and limit == self.budget.max_length
        option = "the maximum length (max_sentence_tokens)" if limited_by_length else "max_tokens_per_batch"
        longest = int(np.maximum(source, target).max())
        return (
            f"{count:,} of {len(source):,} examples ({count / len(source):.1%}) are left out of training, the first is "
            f"example {self.skipped[0] + 1:,}: {count - empty:,} with more than {limit:,} tokens on one side, "
            f"{empty:,} with an empty side"
            + (
                f"; the longest has {longest:,} tokens: split long texts into sentences, or raise {option}"
                if count > empty
                else ""
            )
        )

    @classmethod
    def from_budget(
        cls,
        source_lengths: Sequence[int] | np.ndarray,
        target_lengths: Sequence[int] | np.ndarray,
        budget: TokenBudget,
        *,
        shuffle: bool = True,
    ) -> "TokenBudgetSampler":
        """Build a sampler from a `TokenBudget`; the other arguments are those of the class."""
        return cls(source_lengths, target_lengths, shuffle=shuffle, **asdict(budget))

    # ------------------------------------------------------------------ for data loaders

    def __len__(self) -> int:
        batches = (len(self._starts) - 1) * self.budget.micro_batches
        return batches if self.budget.rank is None else batches // self.budget.num_ranks

    def __iter__(self) -> Iterator[list[int]]:
        plan = self.plan(self.epoch)
        yield from plan if self.budget.rank is None else plan[self.budget.rank :: self.budget.num_ranks]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that the next iteration yields."""
        self.epoch = epoch

    @property
    def sampler(self) -> "TokenBudgetSampler":
        """The sampler itself; accelerate's loaders look for `set_epoch` here after they have wrapped it."""
        return self

    # ------------------------------------------------------------------ the plan

    @property
    def padding(self) -> float:
        """Share of padding, 0 to 1, among the source and target positions of an epoch; no epoch has more."""
        rows = np.diff(self._starts)
        positions = (rows * (self._longest(self._source) + self._longest(self._target))).sum()
        return float(1.0 - (self._source[self._members] + self._target[self._members]).sum() / positions)

    def plan(self, epoch: int) -> list[list[int]]:
        """Plan one epoch.

        Args:
            epoch: counted from 0.

        Returns:
            The batches of all ranks; rank r gets every ``num_ranks``-th batch, starting with batch r.
        """
        members = self._members
        rng = np.random.default_rng([self.budget.seed, epoch])
        if self.shuffle:
            members = self._swap_examples(rng)
        slots = np.split(members, self._starts[1:-1])
        if self.shuffle:
            slots = [rng.permutation(slots[slot]) for slot in rng.permutation(len(slots))]
        return [batch.tolist() for slot in slots for batch in self._divide(slot, rng)]

    def _divide(self, slot: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Divide the examples of one update among its micro-batches, with little padding and similar sizes.

        If there are fewer examples than micro-batches, the first examples are repeated. This is the only case in which
        an example appears more than once per epoch. Since every example fits a micro-batch, it can only happen in the
        slot with the remainder of the corpus.
        """
        parts = self.budget.micro_batches
        if parts == 1:
            return [slot]
        slot = np.concatenate([slot, np.resize(slot, max(0, parts - len(slot)))])
        source, target = self._source[slot], self._target[slot]
        order = sort_in_strips(source, target, min(_STRIPS_PER_UPDATE, len(slot)))
        starts = cut_evenly(source[order], target[order], parts)
        batches = np.split(slot[order], starts[1:])
        return [batches[part] for part in rng.permutation(parts)]  # so that no rank always gets the longest examples

    def _longest(self, lengths: np.ndarray) -> np.ndarray:
        """Return the length of the longest member of each slot, in tokens."""
        return np.maximum.reduceat(lengths[self._members], self._starts[:-1])

    def _swap_examples(self, rng: np.random.Generator) -> np.ndarray:
        """Swap pairs of examples if each fits the slot of the other; the sizes of the slots don't change."""
        rows = np.diff(self._starts)
        most_source = np.repeat(self._longest(self._source), rows)
        most_target = np.repeat(self._longest(self._target), rows)
        members = self._members.copy()
        # First among examples with the same source length and the same target length, at any distance.
        equal = np.lexsort((rng.random(len(members)), self._source[members], self._target[members]))
        ordered = np.lexsort((self._source[members], self._target[members]))
        members[ordered] = members[equal]
        # Then among all, at random distances: positions p and p + distance, for every p in every second interval.
        positions = np.arange(len(members))
        for distance in np.exp(rng.uniform(0, np.log(max(2, len(members))), _MIXING_ROUNDS)).astype(np.int64):
            offset = rng.integers(2 * distance)
            left = positions[(positions + offset) // distance % 2 == 0]
            left = left[left + distance < len(members)]
            right = left + distance
            a, b = members[left], members[right]
            fit = (self._source[a] <= most_source[right]) & (self._target[a] <= most_target[right])
            fit &= (self._source[b] <= most_source[left]) & (self._target[b] <= most_target[left])
            members[left[fit]], members[right[fit]] = b[fit], a[fit]
        return members


class TokenBudgetStream(IterableDataset):
    """Yields batches by token budget from examples without an index, such as a dataset that is streamed.

    A pool of examples is read and planned as `TokenBudgetSampler` plans an epoch; its batches are yielded, then the
    next pool is read. So a stream has the same guarantees: the budget, little padding, the same number of batches on
    every rank, and every example exactly once. Only the shuffling is limited to a pool. Every rank reads the complete
    stream, so that an update has the same examples for any number of ranks.

    Several loader workers divide the stream: a dataset of `datasets` by its files (there must be at least as many files
    as workers), any other stream by examples. Each worker fills and shuffles its own pools, and the batches of the
    workers alternate. So the batches depend on the number of workers.

    Attributes:
        budget: the `TokenBudget`.
        skipped: number of examples left out so far in this epoch.
    """

    def __init__(
        self,
        examples: Iterable[dict[str, Any]],
        max_tokens_per_batch: int = 25_000,
        *,
        num_ranks: int = 1,
        rank: int | None = None,
        accumulation_steps: int = 1,
        max_length: int | None = None,
        seed: int = 42,
        pool_size: int = 50_000,
        endless: bool = False,
    ) -> None:
        """Wrap a stream.

        Args:
            examples: dictionaries with ``input_ids`` and ``labels``. It is iterated once per epoch; if it has
                ``set_epoch``, that is called first.
            max_tokens_per_batch, num_ranks, rank, accumulation_steps, max_length, seed: see `TokenBudget`.
            pool_size: number of examples that are shuffled and sorted together; more needs more memory and gives less
                padding.
            endless: continue with the next epoch after the end of one. Trainer doesn't count the epochs of a stream; a
                resumed run finds its position by the number of batches since the start.

        Raises:
            ValueError: If an argument is out of range.
        """
        if pool_size < num_ranks:
            raise ValueError(f"pool_size={pool_size} is too small for {num_ranks} ranks; 50,000 is usual")
        self.examples = examples
        self.budget = TokenBudget(max_tokens_per_batch, num_ranks, rank, accumulation_steps, max_length, seed)
        self.pool_size = pool_size
        self.endless = endless
        self.epoch = 0
        self.skipped = 0

    @classmethod
    def from_budget(
        cls,
        examples: Iterable[dict[str, Any]],
        budget: TokenBudget,
        *,
        pool_size: int = 50_000,
        endless: bool = False,
    ) -> "TokenBudgetStream":
        """Build a stream from a `TokenBudget`; the other arguments are those of the class."""
        return cls(examples, pool_size=pool_size, endless=endless, **asdict(budget))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that the next iteration yields or, if endless, starts with."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        shards = getattr(self.examples, "num_shards", None)  # of `datasets`, which divides them among workers itself
        if workers > 1 and shards is not None and shards < workers:
            raise ValueError(
                f"a stream of {shards} files can't be shared among {workers} loader workers; set "
                f"dataloader_num_workers to {shards} or fewer, or cut the text into more files"
            )
        if workers > 1 and self.budget.num_ranks > 1 and self.budget.rank is None:
            raise ValueError("with several loader workers a stream needs its rank; set rank")
        epoch = self.epoch
        while True:
            yield from self._one_epoch(epoch, worker, workers, divided=shards is not None)
            if not self.endless:
                return
            epoch += 1

    def _one_epoch(self, epoch: int, worker: int, workers: int, divided: bool) -> Iterator[list[dict[str, Any]]]:
        self.skipped = 0
        if hasattr(self.examples, "set_epoch"):
            self.examples.set_epoch(epoch)
        examples = iter(self.examples)
        if not divided:
            examples = itertools.islice(examples, worker, None, workers)
        empty = True
        for pool_index in itertools.count(worker, workers):  # every pool of every worker has its own index
            pool = list(itertools.islice(examples, self.pool_size))
            if not pool:
                break
            for batch in self._batches(pool, pool_index, epoch):
                empty = False
                yield batch
        if empty:
            raise ValueError(
                f"the stream ended without an example that fits ({self.skipped} were left out); check that it is not "
                "empty or exhausted, and raise max_tokens_per_batch"
            )

    def _batches(self, pool: list[dict[str, Any]], pool_index: int, epoch: int) -> Iterator[list[dict[str, Any]]]:
        source, target = example_lengths(pool, "input_ids"), example_lengths(pool, "labels")
        if not self.budget.fits(source, target).any():
            longest = self.budget.longest_example
            logger.warning(
                f"none of {len(pool)} consecutive examples fits {longest} tokens per side; they are left out"
            )
            self.skipped += len(pool)
            return
        budget = replace(self.budget, seed=self.budget.seed + _SEED_STEP * pool_index)
        sampler = TokenBudgetSampler.from_budget(source, target, budget)
        self.skipped += len(sampler.skipped)
        sampler.set_epoch(epoch)
        for batch in sampler:
            yield [pool[index] for index in batch]


def example_lengths(dataset: Any, column: str) -> np.ndarray:
    """Return the number of tokens of every example.

    Args:
        dataset: a `datasets.Dataset`, or a sequence of dictionaries.
        column: the column of token ids, e.g. "input_ids".

    Raises:
        ValueError: If an example has no such column.
    """
    try:
        if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):  # without a copy out of Arrow
            tables = dataset.with_format("arrow", columns=[column]).iter(batch_size=_BATCH_ROWS)
            lengths = [list_value_length(table[column]).fill_null(0).to_numpy() for table in tables]
            return np.concatenate(lengths).astype(np.int64) if lengths else np.zeros(0, dtype=np.int64)
        return np.array([len(dataset[index][column]) for index in range(len(dataset))], dtype=np.int64)
    except (KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"the training data has no column {column!r} of token lists; encode the text first, so that every example "
            "has input_ids and labels"
        ) from error


__all__ = ["TokenBudget", "TokenBudgetSampler", "TokenBudgetStream", "example_lengths"]
