# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Detect NaN and infinity in losses, gradients, weights and optimizer state."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def with_nan_gradients(loss: Tensor) -> Tensor:
    """Return the loss unchanged; if it is not finite, its gradients become NaN.

    The gradient of an infinite loss can be finite, or zero. With NaN gradients, a check of the gradients alone is
    enough, and their sum over ranks makes every rank notice without further communication. For a finite loss the
    gradients are multiplied by 1.0, which is exact.
    """
    return loss * (loss.detach() * 0.0 + 1.0)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the 2-norm of all gradients together, a scalar that is not finite if any gradient is not.

    One fused pass that does not write to the gradients; Trainer's own version multiplies them by 1 as well.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded gradients


def first_non_finite(named: Iterable[tuple[str, Any]]) -> str | None:
    """Return the name of the first tensor that contains NaN or infinity; None if there is none.

    Args:
        named: names and tensors. Of a sharded tensor only the local shard is checked. Values that are not
            floating-point tensors are ignored.
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
    """Check that the model's tensors, and the optimizer's state, are finite, before they are saved or published.

    Raises:
        FloatingPointError: If a value is not finite; the message contains the name of the tensor.
    """
    assert model is not None  # Trainer's attribute is None only until `model_init` has made the model
    name = first_non_finite([*model.named_parameters(), *model.named_buffers()])
    if name is None and optimizer is not None:
        state = ((f"the optimizer's {key}", value) for slot in optimizer.state.values() for key, value in slot.items())
        name = first_non_finite(state)
    if name is not None:
        raise FloatingPointError(f"{name} contains NaN or infinity, so nothing is saved: training has failed")


__all__ = ["check_finite", "first_non_finite", "gradient_norm", "with_nan_gradients"]
