# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Compare results: exactly, or within the rounding errors of the small model."""

from typing import Any

import torch
from torch import Tensor

from .small_model import END

LONGEST_PATH = (2 + 2 * 3) * 64  # sub-layers of one encoder and two decoder layers × d_ff, the longest sum in each


def require_close(what: str, found: Tensor, expected: Tensor) -> None:
    """Raise AssertionError if the largest difference is more than rounding explains.

    In the worst case, every addition on the longest path through the model loses one unit of the largest value.
    """
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    unit = torch.finfo(found.dtype).eps
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    difference = (found - expected).abs().max().item()
    require_within(f"{what}: the largest difference", difference, LONGEST_PATH * unit * expected.abs().max().item())


def require_within(what: str, error: float, bound: float) -> None:
    """Raise AssertionError if an error is above its bound."""
    if not error <= bound:  # NaN is above every bound
        raise AssertionError(f"{what} is {error:.2g}; rounding explains at most {bound:.2g}")


def require_same(what: str, found: Any, expected: Any) -> None:
    """Raise AssertionError if two values differ."""
    if found != expected:
        raise AssertionError(f"{what}: {found}, expected {expected}")


def require_same_tokens(what: str, found: Tensor, expected: Tensor) -> None:
    """Raise AssertionError if two batches of translations differ before the EOS tokens."""
    for row, tokens in enumerate(zip(until_end(found), until_end(expected), strict=True)):
        require_same(f"{what}: tokens of sentence {row}", *tokens)


def until_end(sequences: Tensor) -> list[list[int]]:
    """Return each row's tokens after the start token, up to its EOS token."""
    rows = [row[1:] for row in sequences.tolist()]
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


__all__ = ["LONGEST_PATH", "require_close", "require_same", "require_same_tokens", "require_within", "until_end"]
