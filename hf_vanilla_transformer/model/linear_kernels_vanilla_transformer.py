# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear layers: the faster kernel in fp32 on a CPU; under autocast fewer casts, and fewer copies in memory.

torch uses MKL's kernel. On AMD processors that one does not use its fastest instructions, and oneDNN's kernel is faster
for few rows, as in a step of greedy search, and for the output projection. It compiles code for each number of rows.
Results differ in rounding only.

Autocast keeps a copy of every weight in its dtype from the forward to the backward pass. On a CPU, where a cast is
cheap beside the products, large layers cast their weight a second time instead.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

_WIDE = 4096  # output features, from which the difference is worth the compilation for any number of rows
_LEAST_WEIGHTS = 2**18  # a smaller layer takes less time than the call that replaces it
_FEW_ROWS = 16  # with more rows, MKL reads the weights as fast


def project(linear: nn.Module, states: Tensor) -> Tensor:
    """Apply a linear layer to (…, I) by the faster kernel: (…, O)."""
    output: Tensor
    if prefers_onednn(linear, states):
        output = torch.ops.mkldnn._linear_pointwise(states, linear.weight, linear.bias, "none", [], "")
    elif prefers_second_cast(linear, states):
        output = _LinearWithSecondCast.apply(cast_for_products(states), linear.weight, linear.bias)
    else:
        output = linear(states)
    return output


class _LinearWithSecondCast(torch.autograd.Function):
    """A linear layer in the dtype of its input that casts its weight in both passes, and keeps no copy in between."""

    generate_vmap_rule = True

    @staticmethod
    def forward(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.to(states.dtype)
        return nn.functional.linear(states, weight.to(states.dtype), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        states, weight, _ = inputs
        # Each of the two is needed for the gradient of the other.
        ctx.save_for_backward(states if ctx.needs_input_grad[1] else None, weight if ctx.needs_input_grad[0] else None)
        ctx.weight_dtype = weight.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        grad_states = None if weight is None else gradient @ weight.to(gradient.dtype)
        grad_weight = None if states is None else (rows.t() @ states.flatten(0, -2)).to(ctx.weight_dtype)
        grad_bias = rows.sum(dim=0, dtype=ctx.weight_dtype) if ctx.needs_input_grad[2] else None
        return grad_states, grad_weight, grad_bias


def cast_for_products(states: Tensor) -> Tensor:
    """Cast the common input of several linear layers to the dtype of autocast, if that is on.

    Autocast would cast it once per layer, and keep each copy for the backward pass.
    """
    device = states.device.type
    if states.dtype != torch.float32 or not torch.amp.is_autocast_available(device):  # not on the meta device
        return states
    if not torch.is_autocast_enabled(device):
        return states
    return states.to(torch.get_autocast_dtype(device))


def prefers_onednn(linear: nn.Module, states: Tensor) -> bool:
    """Return whether oneDNN's kernel is faster for this layer and input, and may replace the call of the layer."""
    return (
        not torch.compiler.is_compiling()  # first: what follows cannot be traced
        and not torch.jit.is_tracing()
        and not torch.is_grad_enabled()
        and states.device.type == "cpu"
        and states.dtype == torch.float32
        and mkl_is_slow_here()
        and is_plain_linear(linear)
        and linear.weight.dtype == torch.float32
        and linear.weight.device == states.device
        and states.shape[-1] == linear.in_features
        and (
            linear.out_features >= _WIDE
            or (linear.weight.numel() >= _LEAST_WEIGHTS and states.numel() <= _FEW_ROWS * linear.in_features)
        )
        and not torch.is_autocast_enabled("cpu")
        and unpack_dual(states).tangent is None  # no_grad does not turn off forward-mode derivatives
    )


def prefers_second_cast(linear: nn.Module, states: Tensor) -> bool:
    """Return whether to cast this layer's weight again in the backward pass instead of keeping the copy."""
    return (
        not torch.compiler.is_compiling()  # a compiler decides itself what is kept
        and not torch.jit.is_tracing()
        and linear.training
        and torch.is_grad_enabled()
        and states.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and is_plain_linear(linear)
        and linear.weight.numel() >= _LEAST_WEIGHTS
        and linear.weight.dtype == torch.float32
        and linear.weight.device == states.device
        and states.dtype in (torch.float32, torch.get_autocast_dtype("cpu"))
        and unpack_dual(states).tangent is None
        and unpack_dual(linear.weight).tangent is None
    )


def is_plain_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether a layer is only its matrix and bias: not adapted, quantized, sharded, offloaded or hooked."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and module.weight.shape == (module.out_features, module.in_features)
        and calls_only_its_class(module)
    )


def calls_only_its_class(module: nn.Module) -> bool:
    """Return whether a call of the module is its class's forward alone: no hooks before or after, nothing replaced."""
    return (
        not hasattr(module, "_hf_hook")
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
    )


@lru_cache
def mkl_is_slow_here() -> bool:
    """Return whether torch multiplies by MKL, oneDNN is available, and the processor is AMD's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    try:
        one = torch.ones(1, 1, dtype=torch.float32)
        torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], "")
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except (OSError, AttributeError, RuntimeError):  # another system, or a torch without this operator
        return False


__all__ = [
    "calls_only_its_class",
    "cast_for_products",
    "is_plain_linear",
    "mkl_is_slow_here",
    "prefers_onednn",
    "prefers_second_cast",
    "project",
]
