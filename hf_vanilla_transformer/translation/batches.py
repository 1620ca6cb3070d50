# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of texts of similar length, computed one after the other or side by side in worker processes."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from ..model.beam_search_config_vanilla_transformer import check_integer
from ..worker_processes import WorkerProcesses, workers_are_supported

_MOST_CHOSEN_WORKERS = 16  # each needs the memory of a batch
_MAX_LINES_LISTED = 10  # in a warning; further lines are only counted

Given = TypeVar("Given")
Found = TypeVar("Found")


def number_of_workers(model: Any, workers: int | None) -> int:
    """Return the number of worker processes, checked or chosen."""
    if workers is None:
        possible = workers_are_supported() and isinstance(model, torch.nn.Module) and model.device.type == "cpu"
        return min(torch.get_num_threads(), _MOST_CHOSEN_WORKERS) if possible else 1
    check_integer("workers", workers, minimum=1)
    if workers == 1:
        return 1
    if not workers_are_supported():
        raise ValueError(f"workers={workers}: worker processes need Linux; leave workers out")
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"workers={workers} is for torch models; an exported model has threads of its own")
    if model.device.type != "cpu":
        raise ValueError(f"workers={workers} is for the CPU; the model is on {model.device}, so leave workers out")
    return workers


class Batches(Generic[Given, Found]):
    """Computes a window of texts after the other in batches, with worker processes where a window fills several.

    Args:
        compute: returns the results of a batch.
        lengths: returns the lengths of a text in tokens, of its source alone or of both sides.
        batch_size: most texts per batch.
        batch_tokens: most tokens per batch, with padding; a text with more is a batch by itself.
        workers: processes that compute side by side.
        stack: closes the worker processes.
    """

    def __init__(
        self,
        compute: Callable[[list[Given]], Found],
        lengths: Callable[[Given], tuple[int, ...]],
        batch_size: int,
        batch_tokens: int,
        workers: int,
        stack: ExitStack,
    ) -> None:
        self._compute, self._lengths = compute, lengths
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self._number, self._stack = workers, stack
        self._workers: WorkerProcesses | None = None

    def results(self, inputs: dict[int, Given]) -> Iterator[tuple[list[int], Found]]:
        """Yield the places of the texts of each batch, and the results.

        Args:
            inputs: the texts of a window that can be computed, by their place in it.
        """
        if self._number > 1 and self._workers is None and len(inputs) > self._batch_size:
            self._workers = self._stack.enter_context(WorkerProcesses(self._compute, self._number))
        batches = list(self._split(inputs))
        of_batches = [[inputs[place] for place in batch] for batch in batches]
        found = map(self._compute, of_batches) if self._workers is None else self._workers.map(of_batches)
        yield from zip(batches, found, strict=True)

    def _split(self, inputs: dict[int, Given]) -> Iterator[list[int]]:
        """Yield batches of places, the longest texts first, so that the first batch uses the most memory.

        Each of several processes gets at least one batch.
        """
        shared_by = 1 if self._workers is None else self._number
        size = min(self._batch_size, math.ceil(len(inputs) / shared_by))
        lengths = {place: self._lengths(given) for place, given in inputs.items()}
        batch: list[int] = []
        longest: tuple[int, ...] = ()
        for place in sorted(inputs, key=lambda place: (*(-length for length in lengths[place]), place)):
            wider = tuple(map(max, longest, lengths[place])) if batch else lengths[place]
            if batch and (len(batch) == size or (len(batch) + 1) * sum(wider) > self._batch_tokens):
                yield batch
                batch, wider = [], lengths[place]
            batch.append(place)
            longest = wider
        if batch:
            yield batch


@dataclass
class Lines:
    """Lines of which a warning tells the number and the first ones.

    Attributes:
        count: number of lines.
        first: the first of them, numbered from 1.
    """

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """Count a line."""
        self.count += 1
        if len(self.first) < _MAX_LINES_LISTED:
            self.first.append(line)

    def __str__(self) -> str:
        """Return "line 3, 5"; after the last one listed "…" if there are more."""
        return "line " + ", ".join(map(str, self.first)) + (", …" if self.count > len(self.first) else "")


def padded(rows: Sequence[Sequence[int]], value: int, device: torch.device) -> torch.Tensor:
    """Return rows as a tensor (B, L), filled on the right with a value."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], device=device)


__all__ = ["Batches", "Lines", "number_of_workers", "padded"]
