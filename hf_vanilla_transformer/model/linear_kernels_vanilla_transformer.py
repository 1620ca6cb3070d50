# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Which kernel is faster for the output projection in fp32 on a CPU: MKL's, which torch uses, or oneDNN's.

On AMD processors MKL does not use its fastest kernels, and oneDNN's is faster. Results differ in rounding only.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

_WIDE = 4096  # output features, from which the difference counts


def project(linear: nn.Module, states: Tensor) -> Tensor:
    """Apply a linear layer to (…, I) without gradients, by the faster kernel: (…, O)."""
    if not prefers_onednn(linear, states):
        output: Tensor = linear(states)
        return output
    output = torch.ops.mkldnn._linear_pointwise(states, linear.weight, linear.bias, "none", [], "")
    return output


def prefers_onednn(linear: nn.Module, states: Tensor) -> bool:
    """Return whether oneDNN's kernel is faster for this layer and input, and may replace the call of the layer."""
    return (
        states.device.type == "cpu"
        and states.dtype == torch.float32
        and type(linear) is nn.Linear  # not an adapter or a quantized layer
        and linear.out_features >= _WIDE
        and linear.weight.dtype == torch.float32
        and not (linear._forward_hooks or linear._forward_pre_hooks)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and mkl_is_slow_here()
    )


@lru_cache
def mkl_is_slow_here() -> bool:
    """Return whether torch multiplies by MKL, oneDNN is available, and the processor is AMD's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    try:
        torch.ops.mkldnn._linear_pointwise(torch.ones(1, 1), torch.ones(1, 1), None, "none", [], "")
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except (OSError, AttributeError, RuntimeError):  # another system, or a torch without this operator
        return False


__all__ = ["mkl_is_slow_here", "prefers_onednn", "project"]
