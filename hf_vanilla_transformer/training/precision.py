# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Precision of the arithmetic (fp32, bf16, fp16) and of the weights (fp32) in training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Environment variable that overrides the precision which "auto" selects from the hardware.
AUTO_PRECISION = "VANILLA_TRANSFORMER_AUTO_PRECISION"


def best_precision(use_cpu: bool = False) -> tuple[str, str]:
    """Return the precision that ``precision="auto"`` selects on this machine.

    Args:
        use_cpu: train on the CPU even if there is a GPU.

    Returns:
        "bf16" if the device has matrix units for it, else "fp32"; and the reason, as text. The environment variable
        VANILLA_TRANSFORMER_AUTO_PRECISION overrides the hardware.

    Raises:
        ValueError: If that variable is set to a value other than fp32 or bf16.
    """
    if forced := os.environ.get(AUTO_PRECISION):
        if forced not in ("fp32", "bf16"):
            raise ValueError(f"{AUTO_PRECISION}={forced!r} is unknown; set it to fp32 or bf16, or unset it")
        return forced, f"set by {AUTO_PRECISION}"
    if torch.cuda.is_available() and not use_cpu:
        name = torch.cuda.get_device_name()
        major, minor = torch.cuda.get_device_capability()
        if torch.version.hip or major >= 8:
            return "bf16", f"{name} has matrix units for it"
        return "fp32", f"{name} has compute capability {major}.{minor}, bf16 needs 8.0"
    if torch.accelerator.is_available() and not use_cpu:
        return "fp32", f"not measured on {torch.accelerator.current_accelerator()}; choose with precision"
    units = cpu_bf16_units()
    if units:
        return "bf16", f"the processor has {', '.join(units)}"
    return "fp32", "torch finds neither AMX nor AVX512-bf16 in this processor"


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


__all__ = ["AUTO_PRECISION", "PRECISIONS", "best_precision", "convert_to_fp32", "cpu_bf16_units", "restored_weights"]
