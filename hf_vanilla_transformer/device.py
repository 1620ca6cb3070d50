# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Choose the device that a model runs on, in one place for every command."""

import platform
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device asked for, else the accelerator (CUDA, MPS, XPU, …), else the CPU.

    Args:
        device: e.g. "cpu", "cuda:1" or "mps"; None chooses.

    Raises:
        ValueError: If the device is unknown or not there.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        return torch.device("cpu") if accelerator is None else accelerator
    there = f"there is {'no accelerator' if accelerator is None else accelerator.type}, and the CPU as 'cpu'"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is not the name of a device; {there}") from error
    if chosen.type == "cpu" or chosen.type == "meta":
        return chosen
    if accelerator is None or chosen.type != accelerator.type:
        raise ValueError(f"device={str(device)!r} is not available here; {there}")
    count = torch.accelerator.device_count()
    if chosen.index is not None and chosen.index >= count:
        raise ValueError(f"device={str(device)!r} is not available here; the last one is {chosen.type}:{count - 1}")
    return chosen


def move_to_device(model: Any, device: str | torch.device | None = None) -> Any:
    """Move a model to the device that `choose_device` chooses, and log which that is.

    Args:
        model: a torch model. What has no weights in torch (an exported model) is returned as it is.
        device: see `choose_device`.

    Returns:
        The model.
    """
    chosen = choose_device(device)
    if not isinstance(model, torch.nn.Module):
        return model
    logger.info(f"running on {describe_device(chosen)}")
    return model.to(chosen)


def describe_device(device: torch.device) -> str:
    """Return a device's name for people, as "cuda (NVIDIA H100)" or "cpu"."""
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def processor_name() -> str:
    """Return the processor's name as Linux reports it, elsewhere what Python knows of it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # only Linux has it
        pass
    return platform.processor() or platform.machine()


__all__ = ["choose_device", "describe_device", "move_to_device", "processor_name"]
