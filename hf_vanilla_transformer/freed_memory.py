# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Keep freed memory in the process while a model computes on a CPU.

An update or a step of the search allocates and frees tensors of many megabytes, such as the gradient of the embedding.
glibc returns large blocks to the operating system as soon as they are freed, which then has to clear the pages of the
next one. The Trainer keeps them, and so do the worker processes of `translate`; a loop of your own can do it by
`freed_memory_kept`.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_KEPT_BYTES = 2**30  # a larger block is still returned, and so is a free end of the heap of twice that size
_DEFAULT_BYTES = 2**25  # 32 MiB, which glibc's own rule reaches in a program that frees large blocks
# Variables by which a user sets malloc, which then is left as it is.
_VARIABLES = (
    "GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_"
)  # fmt: skip


@contextmanager
def freed_memory_kept(device: torch.device | str) -> Iterator[bool]:
    """Keep freed memory in the process, and give it back at the end.

    Example::

        with freed_memory_kept(model.device):
            for batch in batches:
                model(**batch).loss.backward()
                ...

    Args:
        device: of the computation. On an accelerator, whose memory torch keeps anyway, nothing is changed.

    Yields:
        Whether it is kept: on a CPU under glibc, unless an environment variable sets malloc (MALLOC_… or
        GLIBC_TUNABLES).
    """
    malloc = _malloc_to_set(device)
    if malloc is None or not _set_thresholds(malloc, _KEPT_BYTES):
        yield False
        return
    try:
        yield True
    finally:
        _set_thresholds(malloc, _DEFAULT_BYTES)
        malloc.malloc_trim(0)


def keep_freed_memory() -> None:
    """Keep freed memory until this process ends; as `freed_memory_kept`, but without giving it back."""
    if (malloc := _malloc_to_set("cpu")) is not None:
        _set_thresholds(malloc, _KEPT_BYTES)


def return_gaps(device: torch.device | str) -> None:
    """Return the memory between blocks in use to the operating system.

    Args:
        device: whose tensors leave the gaps. Nothing is done on an accelerator, without glibc, and where an environment
            variable sets malloc.
    """
    if (malloc := _malloc_to_set(device)) is not None:
        malloc.malloc_trim(0)


def _malloc_to_set(device: torch.device | str) -> ctypes.CDLL | None:
    """Return glibc if tensors of the device are allocated by it and the user has left its settings alone."""
    on_cpu = torch.device(device).type == "cpu"
    return _glibc() if on_cpu and not any(name in os.environ for name in _VARIABLES) else None


def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def _set_thresholds(malloc: ctypes.CDLL, size: int) -> bool:
    """Set the size from which on a block is a mapping of its own; return whether glibc accepts it."""
    return bool(malloc.mallopt(_MMAP_THRESHOLD, size)) and bool(
        malloc.mallopt(_TRIM_THRESHOLD, min(2 * size, 2**31 - 1))  # an int
    )


__all__ = ["freed_memory_kept", "keep_freed_memory", "return_gaps"]
