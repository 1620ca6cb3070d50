# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Decisions that all processes of a run have to make together, and errors that mean one of them was lost."""

from typing import TypeVar

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

_Value = TypeVar("_Value")

# Phrases from the messages of gloo, NCCL and the store when the peer of a connection has disappeared.
_LOST_PROCESS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "connectfullmesh failed",
    "nccl communicator was aborted",
    "remote process exited",
    "socket timeout",
    "timed out waiting",
    "watchdog",
)


def max_over_ranks(number: int, device: torch.device) -> int:
    """Return the largest of the numbers that the processes pass.

    This is a collective operation: every process has to call it.

    Args:
        number: the number of this process.
        device: on which the process group communicates.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    largest = torch.tensor([number], device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest.item())


def read_with_max(value: Tensor | float, number: int, device: torch.device) -> tuple[float, int]:
    """Return a value, and the largest of the numbers that the processes pass, with one host synchronization.

    This is a collective operation: every process has to call it.

    Args:
        value: one number, of this process; a tensor on ``device``, or a number that the host already has.
        number: an integer of this process, exact in fp32.
        device: on which the process group communicates.
    """
    if not isinstance(value, Tensor) or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return float(value), max_over_ranks(number, device)
    largest = torch.full((1,), number, dtype=torch.promote_types(value.dtype, torch.float32), device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    found, maximum = torch.cat([value.detach().reshape(1).to(largest), largest]).tolist()
    return found, int(maximum)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return True if the flag is True on any process; a collective operation like `max_over_ranks`."""
    return bool(max_over_ranks(int(flag), device))


def from_first_rank(value: _Value) -> _Value:
    """Return process 0's value, which has to be picklable, on every process; a collective operation."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error means that another process has died or cannot be reached."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _LOST_PROCESS)


__all__ = ["any_rank", "from_first_rank", "is_lost_process", "max_over_ranks", "read_with_max"]
