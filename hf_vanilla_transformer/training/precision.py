# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Precision of the arithmetic (fp32, bf16, fp16) and of the weights (fp32) in training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Environment variable that overrides the precision which "auto" selects from the hardware.
AUTO_PRECISION = "VANILLA_TRANSFORMER_AUTO_PRECISION"


@dataclass(frozen=True)
class _SmallModels:
    """Models that train faster in fp32 although the CPU has instructions for bf16, because of the casts.

    Attributes:
        parameters: fp32 is faster below this number of parameters.
        with_fused_attention: the same if attention is fixed to torch's fused kernel, whose bf16 backward pass is slow.
    """

    parameters: int
    with_fused_attention: int


# Steps of 64 × 16 tokens on an AMD EPYC, one thread, in ms, fp32 and bf16: 65,000 parameters 20 and 25; 200,000: 34 and
# 35; 350,000: 63 and 61; 600,000: 71 and 55; preset tiny: 221 and 152. With attn_implementation="fused", tiny: 220 and
# 307; 12 million parameters (d_model 256): 1,140 and 2,290; preset base (32 × 32 tokens): 4,000 and 2,950.
# `vanilla-transformer check --measure` compares the table with the machine it runs on.
_SMALL_MODELS = {
    "AMX": _SmallModels(0, 0),
    "AVX512-bf16": _SmallModels(parameters=200_000, with_fused_attention=30_000_000),
}


def best_precision(use_cpu: bool = False, model: nn.Module | None = None) -> tuple[str, str]:
    """Return the precision that ``precision="auto"`` selects on this machine.

    Args:
        use_cpu: train on the CPU even if there is a GPU.
        model: the model to train, whose size and attention implementation matter on a CPU; None for a large one with
            the default attention.

    Returns:
        "bf16" if training is faster in it, else "fp32"; and the reason, as text. The environment variable
        VANILLA_TRANSFORMER_AUTO_PRECISION overrides the hardware.

    Raises:
        ValueError: If that variable is set to a value other than fp32 or bf16.
    """
    if forced := os.environ.get(AUTO_PRECISION):
        if forced not in ("fp32", "bf16"):
            raise ValueError(f"{AUTO_PRECISION}={forced!r} is unknown; set it to fp32 or bf16, or unset it")
        return forced, f"set by {AUTO_PRECISION}"
    has_bf16, reason = bf16_hardware(use_cpu)
    if not has_bf16:
        return "fp32", reason
    if model is not None and _trains_on_cpu(use_cpu) and (smaller := _is_faster_in_fp32(model)):
        return "fp32", f"{reason}, but {smaller}"
    return "bf16", reason


def bf16_hardware(use_cpu: bool = False) -> tuple[bool, str]:
    """Return whether the device computes bf16 products in hardware, and the reason, as text."""
    if torch.cuda.is_available() and not use_cpu:
        name = torch.cuda.get_device_name()
        major, minor = torch.cuda.get_device_capability()
        if torch.version.hip or major >= 8:
            return True, f"{name} has matrix units for it"
        return False, f"{name} has compute capability {major}.{minor}, bf16 needs 8.0"
    if not _trains_on_cpu(use_cpu):
        return False, f"not measured on {torch.accelerator.current_accelerator()}; choose with precision"
    units = cpu_bf16_units()
    if units:
        return True, f"the processor has {', '.join(units)}"
    return False, "torch finds neither AMX nor AVX512-bf16 in this processor"


def _trains_on_cpu(use_cpu: bool) -> bool:
    return use_cpu or not torch.accelerator.is_available()


def _is_faster_in_fp32(model: nn.Module) -> str:
    """Return why a model trains faster in fp32 on this processor, which has bf16 units; "" if it does not."""
    small = _SMALL_MODELS[cpu_bf16_units()[0]]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters < small.parameters:
        return f"a model of {parameters:,} parameters trains faster in fp32"
    fused = getattr(getattr(model, "config", None), "_attn_implementation", None) == "fused"
    if fused and parameters < small.with_fused_attention:
        return f'a model of {parameters:,} parameters with attn_implementation="fused" trains faster in fp32'
    return ""


def why_unsupported(precision: str, use_cpu: bool = False) -> str:
    """Return why the device cannot train in a precision at the speed of its hardware; "" if it can."""
    if precision == "fp32" or os.environ.get(AUTO_PRECISION) == precision:
        return ""
    if precision == "bf16":
        has_bf16, reason = bf16_hardware(use_cpu)
        return "" if has_bf16 else reason
    if precision == "fp16":
        return "" if torch.accelerator.is_available() and not use_cpu else "fp16 needs a GPU"
    return f"{precision} needs accelerate launch --mixed_precision {precision}"


def cpu_bf16_units() -> list[str]:
    """Return the processor's bf16 instruction sets that torch uses; empty if bf16 would be emulated.

    oneDNN, which computes the matrix products, has to support them as well: ONEDNN_MAX_CPU_ISA can disable them.
    oneDNN's answer alone is not enough: it accepts bf16 on every AVX512 processor and emulates missing instructions.
    """
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return []
    except (AttributeError, RuntimeError):  # torch was built without oneDNN
        return []
    units = {"AMX": torch.cpu._is_amx_tile_supported(), "AVX512-bf16": torch.cpu._is_avx512_bf16_supported()}
    return [name for name, found in units.items() if found]


def convert_to_fp32(model: nn.Module) -> bool:
    """Convert a model with bf16 or fp16 trainable weights to fp32, in place; return whether it was converted.

    Adjacent bf16 values differ by up to 0.8 %: most updates are smaller and would be lost by rounding. Frozen weights,
    as under an adapter, are converted only together with trainable ones.
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
def restored_weights(model: nn.Module) -> Iterator[None]:
    """Restore parameters and buffers on exit, whatever dtype and device the model was converted to inside."""
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


__all__ = [
    "AUTO_PRECISION",
    "PRECISIONS",
    "best_precision",
    "bf16_hardware",
    "convert_to_fp32",
    "cpu_bf16_units",
    "restored_weights",
    "why_unsupported",
]
