# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches by token budget: "about 25,000 source and 25,000 target tokens" (§5.1), with little padding.

The plan has two parts. What is fixed, once and for all epochs, are the *slots*, one an update: examples sorted by
length are cut into runs that fill the budget, and each run leaves behind its number of rows and its longest source and
target. What changes from epoch to epoch is who sits where: examples change places wherever both still fit, and the
slots come in another order. So every epoch has as many updates, and none has more padding than the sorted order.

Ranks and accumulation steps share out a slot. So an update is made of the same examples on any number of them, and none
of them waits long for another.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from pyarrow.compute import list_value_length
from torch.utils.data import IterableDataset, Sampler, get_worker_info
from transformers.utils import logging

logger = logging.get_logger(__name__)

_MIXING_ROUNDS = 24  # rounds in which every example may change places; more mixes batches further
_STRIP_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # tried; data decides which wastes least
_STRIPS_OF_AN_UPDATE = 3  # in which the examples of one update are sorted to be shared out


class TokenBudgetSampler(Sampler[list[int]]):
    """Yields lists of example indices whose padded source and padded target each fit a budget of tokens.

    An update may see ``max_tokens_per_batch`` source and as many target tokens, padding included, over all ranks and
    accumulation steps together; one micro-batch gets its share, rounded up to whole examples. The updates of an epoch
    are a pure function of (seed, epoch), the same for any number of ranks and accumulation steps (but an example must
    fit a micro-batch). Every example comes exactly once an epoch (but see `_share_out`), every rank gets the same
    number of batches, and ranks work on batches of about the same size at the same time.

    With Trainer use `VanillaTransformerTrainer`, which builds it. In a loop of your own with accelerate, leave ``rank``
    None, give the sampler to a DataLoader as ``batch_sampler``, prepare the loader, and call its ``set_epoch``.

    Attributes:
        skipped: indices of examples that never come: empty, longer than ``max_length``, or than a micro-batch.
        micro_batch_tokens: source tokens, and target tokens, that are one batch's share of an update.
        epoch: the epoch that iterating yields; see `set_epoch`.
    """

    # What accelerate asks of a batch sampler: None says that sizes vary; an integer would make it drop batches.
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
            source_lengths: tokens of each source, the end symbol included.
            target_lengths: tokens of each target, likewise.
            max_tokens_per_batch: source tokens, and target tokens, of one update: all ranks, all accumulation steps.
            num_ranks: processes that train together.
            rank: whose batches to yield; None yields those of all ranks in turn, for accelerate to deal out.
            accumulation_steps: micro-batches of one rank in one update.
            max_length: tokens on either side above which an example is skipped; None skips only what can't fit.
            seed: of the shuffling.
            shuffle: False yields the slots as they were cut, shortest targets first, in every epoch.

        Raises:
            ValueError: If the lengths differ in number, a number is out of range, or no example fits.
        """
        source = np.asarray(source_lengths, dtype=np.int64)
        target = np.asarray(target_lengths, dtype=np.int64)
        if source.shape != target.shape or source.ndim != 1:
            raise ValueError(
                f"there are {source.size} source lengths and {target.size} target lengths; give one of each an example"
            )
        if num_ranks < 1 or accumulation_steps < 1 or not 0 <= (rank or 0) < num_ranks:
            raise ValueError(
                f"num_ranks={num_ranks}, rank={rank}, accumulation_steps={accumulation_steps} don't go together; "
                "counts start at 1, ranks at 0"
            )
        self.micro_batch_tokens = max_tokens_per_batch // (num_ranks * accumulation_steps)
        limit = self.micro_batch_tokens if max_length is None else min(max_length, self.micro_batch_tokens)
        fits = (np.maximum(source, target) <= limit) & (np.minimum(source, target) > 0)
        self.skipped: list[int] = np.flatnonzero(~fits).tolist()
        if self.skipped:
            empty = int((np.minimum(source, target) <= 0).sum())
            logger.warning(
                f"{len(self.skipped)} of {len(source)} examples are left out of training: "
                f"{len(self.skipped) - empty} with more than {limit} tokens on one side, {empty} with an empty side"
            )
        if not fits.any():
            raise ValueError(
                f"none of {len(source)} examples fits: a batch takes {limit} tokens a side "
                f"({max_tokens_per_batch} over {num_ranks} ranks and {accumulation_steps} accumulation steps"
                + ("" if max_length is None else f", max_length={max_length}")
                + "); raise max_tokens_per_batch or cut the text into shorter pieces"
            )
        self.num_ranks = num_ranks
        self._micro_batches = num_ranks * accumulation_steps  # in an update
        self._rank = rank
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        kept = np.flatnonzero(fits)
        order, starts = _cut_slots(source[kept], target[kept], max_tokens_per_batch)
        self._members = kept[order]  # examples, slot after slot
        self._starts = starts  # where each slot starts among the members, and the number of members at the end
        self._source = source
        self._target = target

    # ------------------------------------------------------------------ what loaders ask

    def __len__(self) -> int:
        batches = (len(self._starts) - 1) * self._micro_batches
        return batches if self._rank is None else batches // self.num_ranks

    def __iter__(self) -> Iterator[list[int]]:
        plan = self.plan(self.epoch)
        yield from plan if self._rank is None else plan[self._rank :: self.num_ranks]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next iteration yields."""
        self.epoch = epoch

    @property
    def sampler(self) -> "TokenBudgetSampler":
        """The sampler itself: where accelerate's loaders look for `set_epoch` once they have wrapped it."""
        return self

    # ------------------------------------------------------------------ the plan

    @property
    def padding(self) -> float:
        """Share of padding among the source and target positions of an epoch; no epoch has more."""
        rows = np.diff(self._starts)
        positions = (rows * (self._longest(self._source) + self._longest(self._target))).sum()
        return float(1.0 - (self._source[self._members] + self._target[self._members]).sum() / positions)

    def plan(self, epoch: int) -> list[list[int]]:
        """Lay out one epoch.

        Args:
            epoch: from 0.

        Returns:
            The batches of all ranks; rank r has every ``num_ranks``-th, starting with batch r.
        """
        members = self._members
        rng = np.random.default_rng([self.seed, epoch])
        if self.shuffle:
            members = self._change_places(rng)
        slots = np.split(members, self._starts[1:-1])
        if self.shuffle:
            slots = [rng.permutation(slots[slot]) for slot in rng.permutation(len(slots))]
        return [batch.tolist() for slot in slots for batch in self._share_out(slot, rng)]

    def _share_out(self, slot: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Divide the examples of one update among its micro-batches: little padding, about as many positions in each.

        Where there are fewer examples than micro-batches, the first ones are repeated: the one case in which an example
        comes more than once an epoch. Since an example fits a micro-batch, that can only be where the rest of the
        corpus is left over.
        """
        parts = self._micro_batches
        if parts == 1:
            return [slot]
        slot = np.concatenate([slot, np.resize(slot, max(0, parts - len(slot)))])
        source, target = self._source[slot], self._target[slot]
        order = _sorted_in_strips(source, target, min(_STRIPS_OF_AN_UPDATE, len(slot)))
        starts = _cut_evenly(source[order], target[order], parts)
        batches = np.split(slot[order], starts[1:])
        return [batches[part] for part in rng.permutation(parts)]  # the longest ones go to every rank in turn

    def _longest(self, lengths: np.ndarray) -> np.ndarray:
        """Return the longest of each slot's members, in tokens."""
        return np.maximum.reduceat(lengths[self._members], self._starts[:-1])

    def _change_places(self, rng: np.random.Generator) -> np.ndarray:
        """Let pairs of examples change places where each fits the other's slot; the slots stay as they are."""
        rows = np.diff(self._starts)
        most_source = np.repeat(self._longest(self._source), rows)
        most_target = np.repeat(self._longest(self._target), rows)
        members = self._members.copy()
        # First anywhere among equals: same source length, same target length.
        equal = np.lexsort((rng.random(len(members)), self._source[members], self._target[members]))
        seats = np.lexsort((self._source[members], self._target[members]))
        members[seats] = members[equal]
        # Then with others, near and far: positions p and p + distance for every p in every other stretch.
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


def _cut_slots(source: np.ndarray, target: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort examples by length and cut them into slots, in the way that needs fewest positions.

    Few strips pad targets, many pad sources; the best number depends on the data.

    Args:
        source: tokens of each source, at most ``budget``.
        target: tokens of each target, at most ``budget``.
        budget: tokens a side that one slot may hold, padding included.

    Returns:
        The examples in order, and where each slot starts, with the number of examples at the end.
    """
    best: tuple[int, np.ndarray, np.ndarray] | None = None
    for strips in _STRIP_COUNTS:
        if strips > len(source):
            break
        order = _sorted_in_strips(source, target, strips)
        starts = _cut(source[order], target[order], budget)
        longest = np.maximum.reduceat(source[order], starts[:-1]) + np.maximum.reduceat(target[order], starts[:-1])
        positions = int((np.diff(starts) * longest).sum())
        if best is None or positions < best[0]:
            best = positions, order, starts
    assert best is not None
    return best[1], best[2]


def _sorted_in_strips(source: np.ndarray, target: np.ndarray, strips: int) -> np.ndarray:
    """Split examples into strips by target length, each strip sorted by source length, up and down in turn.

    So strips meet at similar lengths, and neighbours are about equally long on both sides.

    Returns:
        The examples in order.
    """
    by_target = np.lexsort((source, target))
    tokens = np.cumsum((source + target)[by_target])
    # Strips of equal numbers of tokens, their borders moved to where the target length changes.
    strip = np.empty(len(source), dtype=np.int64)
    strip[by_target] = (tokens - 1) * strips // tokens[-1]
    first_of_length = np.full(int(target.max()) + 1, strips, dtype=np.int64)
    np.minimum.at(first_of_length, target, strip)
    strip = first_of_length[target]
    upwards = np.unique(strip, return_inverse=True)[1] % 2 == 0
    return np.lexsort((target, np.where(upwards, source, -source), strip))


def _cut(source: np.ndarray, target: np.ndarray, budget: int) -> np.ndarray:
    """Cut a sorted run into slots, each as long as rows × longest stays within the budget on both sides."""
    longest = np.maximum(source, target)  # both sides fit where the longer one does
    starts = [0]
    while starts[-1] < len(longest):
        window = longest[starts[-1] : starts[-1] + budget // longest[starts[-1]]]
        padded = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        starts.append(starts[-1] + int(np.searchsorted(padded, budget, side="right")))
    if len(starts) > 2:  # the last two share what is left, so that the last isn't a handful of examples
        middle = (starts[-3] + starts[-1]) // 2
        if (starts[-1] - middle) * longest[middle:].max() <= budget:
            starts[-2] = middle
    return np.array(starts)


def _cut_evenly(source: np.ndarray, target: np.ndarray, parts: int) -> np.ndarray:
    """Cut a sorted run into parts of one example or more, so that the costliest has as few positions as can be.

    No side of a part gets longer than it would if examples were dealt out by number.

    Returns:
        Where each part starts.
    """
    number = len(source)
    most = -(-number // parts) * int(max(source.max(), target.max()))  # positions a side

    def cut(cost: int) -> list[int] | None:
        starts, start = [], 0
        for part in range(parts):
            starts.append(start)
            window = slice(start, number - (parts - part - 1))
            rows = np.arange(1, window.stop - start + 1)
            a, b = np.maximum.accumulate(source[window]), np.maximum.accumulate(target[window])
            fits = (rows * (a + b) <= cost) & (rows * np.maximum(a, b) <= most)
            start += max(1, int(fits.sum()))  # both grow with the rows: those that fit come first
        return starts if start >= number else None

    least, enough = int((source + target).sum()) // parts, 2 * most
    best = cut(enough)
    while enough - least > max(1, least // 200):  # half a percent is as good as even
        middle = (least + enough) // 2
        found = cut(middle)
        if found is None:
            least = middle
        else:
            best, enough = found, middle
    assert best is not None  # dealing out by number is within both bounds
    return np.array(best)


class TokenBudgetStream(IterableDataset):
    """Yields batches by token budget from examples without a number: what doesn't fit in memory is streamed.

    A pool of examples is read, planned as `TokenBudgetSampler` plans an epoch, and its batches are yielded; then the
    next. So budget, padding, equal numbers of batches on every rank, and every example exactly once hold here too; the
    order doesn't: only a pool is shuffled. Every rank reads the whole stream, so that an update is made of the same
    examples on any number of them.

    Several loader workers share the stream out: a data set of `datasets` by its files, of which there have to be as
    many, anything else example by example. Each worker fills and shuffles pools of its own, and their batches come in
    turn, so another number of workers gives other batches.

    Attributes:
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
            examples: dictionaries with ``input_ids`` and ``labels``; iterated once an epoch, its ``set_epoch`` called.
            max_tokens_per_batch: see `TokenBudgetSampler`, as for all that follow.
            num_ranks: processes that train together.
            rank: whose batches to yield; None yields those of all ranks in turn.
            accumulation_steps: micro-batches of one rank in one update.
            max_length: tokens on either side above which an example is skipped.
            seed: of the shuffling.
            pool_size: examples that are shuffled and sorted together; more means less padding and more memory.
            endless: go on with the next epoch at the end of one. Trainer counts no epochs of a stream, so this is how a
                resumed run finds its place: by the number of batches since the start.
        """
        if pool_size < num_ranks:
            raise ValueError(f"pool_size={pool_size} can't give {num_ranks} ranks a batch each; 50,000 is usual")
        self.examples = examples
        self.max_tokens_per_batch = max_tokens_per_batch
        self.num_ranks = num_ranks
        self.rank = rank
        self.accumulation_steps = accumulation_steps
        self.max_length = max_length
        self.seed = seed
        self.pool_size = pool_size
        self.endless = endless
        self.epoch = 0
        self.skipped = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next iteration yields, or starts with."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        shards = getattr(self.examples, "num_shards", None)  # of `datasets`, which shares them out by itself
        if workers > 1 and shards is not None and shards < workers:
            raise ValueError(
                f"a stream of {shards} files can't be shared among {workers} loader workers; set "
                f"dataloader_num_workers to {shards} or fewer, or cut the text into more files"
            )
        if workers > 1 and self.num_ranks > 1 and self.rank is None:
            raise ValueError("with several loader workers a stream has to be told its rank")
        epoch = self.epoch
        while True:
            yield from self._one_epoch(epoch, worker, workers, dealt_out=shards is not None)
            if not self.endless:
                return
            epoch += 1

    def _one_epoch(self, epoch: int, worker: int, workers: int, dealt_out: bool) -> Iterator[list[dict[str, Any]]]:
        self.skipped = 0
        if hasattr(self.examples, "set_epoch"):
            self.examples.set_epoch(epoch)
        examples = iter(self.examples)
        if not dealt_out:
            examples = itertools.islice(examples, worker, None, workers)
        empty = True
        for pool_index in itertools.count(worker, workers):  # a number of its own for every pool of every worker
            pool = list(itertools.islice(examples, self.pool_size))
            if not pool:
                break
            for batch in self._batches(pool, pool_index, epoch):
                empty = False
                yield batch
        if empty:
            raise ValueError(
                f"the stream ended without an example that fits ({self.skipped} were left out); is it empty or read up?"
            )

    def _batches(self, pool: list[dict[str, Any]], pool_index: int, epoch: int) -> Iterator[list[dict[str, Any]]]:
        limit = self.max_tokens_per_batch // (self.num_ranks * self.accumulation_steps)
        limit = limit if self.max_length is None else min(limit, self.max_length)
        source, target = example_lengths(pool, "input_ids"), example_lengths(pool, "labels")
        if not ((np.maximum(source, target) <= limit) & (np.minimum(source, target) > 0)).any():
            logger.warning(f"none of {len(pool)} examples in a row fits {limit} tokens a side; they are left out")
            self.skipped += len(pool)
            return
        sampler = TokenBudgetSampler(
            source,
            target,
            self.max_tokens_per_batch,
            num_ranks=self.num_ranks,
            rank=self.rank,
            accumulation_steps=self.accumulation_steps,
            max_length=self.max_length,
            seed=self.seed + 1_000_003 * pool_index,
        )
        self.skipped += len(sampler.skipped)
        sampler.set_epoch(epoch)
        for batch in sampler:
            yield [pool[index] for index in batch]


def example_lengths(dataset: Any, column: str) -> np.ndarray:
    """Count the tokens of every example.

    Args:
        dataset: a `datasets.Dataset`, or a sequence of dictionaries.
        column: the column of token ids, e.g. "input_ids".

    Returns:
        Tokens, one number an example.

    Raises:
        ValueError: If an example has no such column.
    """
    try:
        if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):  # lists stay in Arrow, uncopied
            tables = dataset.with_format("arrow", columns=[column]).iter(batch_size=10_000)
            lengths = [list_value_length(table[column]).fill_null(0).to_numpy() for table in tables]
            return np.concatenate(lengths).astype(np.int64) if lengths else np.zeros(0, dtype=np.int64)
        return np.array([len(dataset[index][column]) for index in range(len(dataset))], dtype=np.int64)
    except (KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"the training data has no column {column!r} of token lists; encode the text first, so that every example "
            "has input_ids and labels"
        ) from error


__all__ = ["TokenBudgetSampler", "TokenBudgetStream", "example_lengths"]
