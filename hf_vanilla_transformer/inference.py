# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Device and precision of a model that translates."""

from typing import Any

import torch

from .device import move_to_device
from .model.int8_vanilla_transformer import quantize

INFERENCE_PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare_for_inference(model: Any, device: str | torch.device | None = None, precision: str = "auto") -> Any:
    """Move a model to a device and convert it to the precision of its arithmetic.

    Args:
        model: a torch model. An exported model, which is not a torch module, is returned unchanged.
        device: see `choose_device`; int8 runs on the CPU, which is its default.
        precision: "auto" keeps the dtype of the weights, as they were stored; "fp32", "bf16" or "fp16" converts them;
            "int8" quantizes them, see `quantize`.

    Returns:
        The model, or its int8 copy.

    Raises:
        ValueError: If the precision is unknown, or is int8 on another device than the CPU.
    """
    check_precision(precision, device)
    if precision == "int8":
        device = "cpu"
    model = move_to_device(model, device)
    if not isinstance(model, torch.nn.Module) or precision == "auto":
        return model
    if precision == "int8":
        to_quantize: Any = model
        return model if getattr(model, "is_quantized", False) else quantize(to_quantize)
    if getattr(model, "is_quantized", False):
        raise ValueError(f"the checkpoint is quantized to int8 and cannot run in {precision}; use precision auto")
    return model.to(_DTYPES[precision])


def check_precision(precision: str, device: str | torch.device | None = None) -> None:
    """Raise ValueError if a precision is unknown, or is int8 and the device is not the CPU."""
    if precision not in INFERENCE_PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown; choose one of {', '.join(INFERENCE_PRECISIONS)}")
    if precision == "int8" and device is not None and torch.device(device).type != "cpu":
        raise ValueError(f"int8 models run on the CPU only, not on {device}; leave the device out, or use bf16 there")


__all__ = ["INFERENCE_PRECISIONS", "check_precision", "prepare_for_inference"]
