# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""What keeps a run from going wrong quietly: numbers that aren't finite, signals, memory that runs out, lost processes.

`VanillaTransformerTrainer` calls all of it; nothing here knows Trainer.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_PASSED_ON_SECONDS = 2.0  # within which a launcher passes a signal on
# What the CPU's allocators say, in torch and in oneDNN; CUDA's has a class of its own.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "cannot allocate memory", "out of memory")
# What gloo, NCCL and the store say when the other end of a connection is gone.
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


# --------------------------------------------------------------------------- numbers that aren't finite


def poison(loss: Tensor) -> Tensor:
    """Return the loss unchanged, but with gradients that are NaN where it isn't finite.

    A loss can be infinite while its gradient is finite, or zero. Multiplied by 1, or by NaN, the gradients themselves
    carry the news: the sum over ranks brings it to all of them without a message of its own, and a check of the
    gradients alone suffices. Times 1.0 is exact.
    """
    return loss * (loss.detach() * 0.0 + 1.0)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the 2-norm of all gradients, a scalar that isn't finite if any of them isn't.

    One fused pass that leaves the gradients alone; stock Trainer multiplies them by 1 as well.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded gradients


class SkippedUpdates:
    """Counts updates that were skipped because they weren't finite.

    Attributes:
        limit: so many in a row end the run; 0 never does.
        in_a_row: how many since the last good one.
        total: how many since the start of this process.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0
        self.total = 0

    def good(self) -> None:
        """Note an update that was made."""
        self.in_a_row = 0

    def skipped(self, update: int) -> None:
        """Note an update that was skipped.

        Raises:
            FloatingPointError: If there were too many in a row.
        """
        self.in_a_row += 1
        self.total += 1
        if self.limit and self.in_a_row >= self.limit:
            raise FloatingPointError(
                f"training has failed: loss or gradients were not finite in {self.in_a_row} updates in a row, the last "
                f"of them update {update}; start again from the last checkpoint with a lower learning_rate or more "
                "warmup_steps, or with precision: fp32"
            )


def not_finite(named: Iterable[tuple[str, Any]]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity; None if all are finite.

    Args:
        named: names and tensors; of sharded ones the shard at hand is looked at. What isn't a floating-point tensor
            is passed over.
    """
    tensors = [
        (name, tensor.to_local() if hasattr(tensor, "to_local") else tensor)
        for name, tensor in named
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
    ]
    for name, tensor in tensors:
        # One pass without a mask: the extremes are NaN or infinite if and only if some value is.
        if tensor.numel() and not torch.stack(torch.aminmax(tensor.detach())).isfinite().all():
            return name
    return None


def check_finite(model: nn.Module | None, optimizer: Optimizer | None = None) -> None:
    """Refuse a model, and an optimizer's state, that must not be saved or published.

    Raises:
        FloatingPointError: If a value isn't finite; the message names the tensor.
    """
    assert model is not None  # Trainer's is typed so, but only before a `model_init` has made it
    name = not_finite([*model.named_parameters(), *model.named_buffers()])
    if name is None and optimizer is not None:
        state = ((f"the optimizer's {key}", value) for slot in optimizer.state.values() for key, value in slot.items())
        name = not_finite(state)
    if name is not None:
        raise FloatingPointError(f"{name} holds a value that is not finite, so nothing is saved: training has failed")


# --------------------------------------------------------------------------- precision of the weights


def train_in_fp32(model: nn.Module) -> bool:
    """Convert a model whose trainable weights are bf16 or fp16 to fp32, in place; tell whether there were any.

    A step of bf16 is 0.8 % of the value: most updates are smaller and would be lost. Weights that are not trained, as
    under an adapter, are left alone unless trainable ones have to be converted.
    """
    half = (torch.bfloat16, torch.float16)
    if not any(parameter.requires_grad and parameter.dtype in half for parameter in model.parameters()):
        return False
    model.float()
    config = getattr(model, "config", None)
    if config is not None:
        config.dtype = torch.float32
    return True


@contextmanager
def kept_precision(model: nn.Module) -> Iterator[None]:
    """Give a model its weights back at the end, whatever dtype and device it was converted to in between."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer) for module in model.modules() for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for parameter, data in parameters:
            parameter.data = data
        for module, name, buffer in buffers:
            setattr(module, name, buffer)


# --------------------------------------------------------------------------- several processes


def largest_of_ranks(number: int, device: torch.device) -> int:
    """Return the largest of the numbers that the processes bring; every process has to ask."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    largest = torch.tensor([number], device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest.item())


def any_rank(flag: bool, device: torch.device) -> bool:
    """Tell whether the flag is up on any process; every process has to ask."""
    return bool(largest_of_ranks(int(flag), device))


def is_lost_process(error: BaseException) -> bool:
    """Tell whether an error means that another process has died or can't be reached."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _LOST_PROCESS)


# --------------------------------------------------------------------------- memory


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that there was no memory left, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def out_of_memory_message(update: int, batch: dict[str, Any], budget: int, share: int) -> str:
    """Say what was too large and what to lower.

    Args:
        update: the update in which it happened.
        batch: the micro-batch, ``input_ids`` (B, S) and ``labels`` (B, T).
        budget: ``max_tokens_per_batch``.
        share: how many micro-batches the budget is divided among.
    """
    sizes = {key: tuple(batch[key].shape) for key in ("input_ids", "labels") if hasattr(batch.get(key), "shape")}
    source, target = sizes.get("input_ids", (0, 0)), sizes.get("labels", (0, 0))
    return (
        f"out of memory in update {update}: the micro-batch has {source[0]} sentences, the longest source with "
        f"{source[1]} tokens and the longest target with {target[1]}, under a budget of {budget // share} tokens a "
        f"side (max_tokens_per_batch={budget} over {share} micro-batches); raise gradient_accumulation_steps, which "
        "changes no result, or lower max_tokens_per_batch or max_sentence_tokens"
    )


# --------------------------------------------------------------------------- signals


class StopSignals:
    """Catches SIGTERM and SIGINT while a run is in its ``with`` block; the second one ends the process at once.

    Outside of the main thread, where Python allows no handlers, it catches nothing. Under torchrun and `accelerate
    launch` a signal to all processes of a job comes twice, from its sender and from the launcher, which passes it on:
    there, one that follows within two seconds is the same. Loader workers, forked from this process, leave the first
    signal to it.

    Attributes:
        received: the first signal, None while there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._when = 0.0  # seconds of the monotonic clock
        self._owner = os.getpid()
        self._launched = "TORCHELASTIC_RUN_ID" in os.environ  # by torchrun, or by accelerate, which uses it
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is not None:
            if self._launched and now - self._when < _PASSED_ON_SECONDS:
                return
            os._exit(128 + number)
        self.received, self._when = signal.Signals(number), now
        if os.getpid() == self._owner:
            line = f"{self.received.name}: finishing this update, saving, then stopping; a second signal stops at once"
            os.write(2, f"{line}\n".encode("ascii"))  # not through a logger, which may be in the middle of a line


def exit_status(number: int) -> int:
    """Return the exit status that shells give a process ended by a signal: 143 for SIGTERM, 130 for SIGINT."""
    return 128 + number


# --------------------------------------------------------------------------- time


def duration(seconds: float) -> str:
    """Write a time in the two units that matter, as "2 h 05 min" or "40 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


__all__ = [
    "SkippedUpdates",
    "StopSignals",
    "any_rank",
    "check_finite",
    "duration",
    "exit_status",
    "gradient_norm",
    "is_lost_process",
    "is_out_of_memory",
    "kept_precision",
    "largest_of_ranks",
    "not_finite",
    "out_of_memory_message",
    "poison",
    "train_in_fp32",
]
