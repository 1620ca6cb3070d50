# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Choose the device on which a model runs."""

import platform
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from .launch import Launch

logger = logging.get_logger(__name__)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the requested device or, by default, the accelerator (CUDA, MPS, XPU, …) or the CPU.

    Args:
        device: e.g. "cpu", "cuda:1" or "mps"; None takes the accelerator if there is one, else the CPU.

    Raises:
        ValueError: If the device is unknown or not available.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        return torch.device("cpu") if accelerator is None else accelerator
    available = "'cpu'" if accelerator is None else f"'{accelerator.type}' and 'cpu'"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is not the name of a device; available are: {available}") from error
    if chosen.type == "cpu" or chosen.type == "meta":
        return chosen
    if accelerator is None or chosen.type != accelerator.type:
        raise ValueError(f"device={str(device)!r} is not available; available are: {available}")
    count = torch.accelerator.device_count()
    if chosen.index is not None and chosen.index >= count:
        raise ValueError(f"device={str(device)!r} is not available; the last one is {chosen.type}:{count - 1}")
    return chosen


def device_of_process(device: torch.device, launch: Launch) -> torch.device:
    """Return the device of one of several processes: that of its local rank. They share devices if there are too few.

    Args:
        device: from `choose_device`; the CPU, or a device with a number, is returned unchanged.
        launch: the place of the process.
    """
    if launch.processes == 1 or device.type in ("cpu", "meta") or device.index is not None:
        return device
    count = torch.accelerator.device_count()
    return device if count <= 1 else torch.device(device.type, launch.local_rank % count)


def move_to_device(model: Any, device: str | torch.device | None = None) -> Any:
    """Move a model to the device that `choose_device` returns, and log its name.

    Args:
        model: a torch model. An exported model, which is not a torch module, is returned unchanged.
        device: see `choose_device`.

    Returns:
        The model.
    """
    chosen = choose_device(device)
    if not isinstance(model, torch.nn.Module):
        return model
    logger.debug(f"running on {describe_device(chosen)}")
    return model.to(chosen)


def describe_device(device: torch.device) -> str:
    """Return the name of a device for messages, e.g. "cuda (NVIDIA H100)" or "cpu"."""
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def processor_name() -> str:
    """Return the processor's name from /proc/cpuinfo or, on other systems than Linux, from `platform`."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # only on Linux
        pass
    return platform.processor() or platform.machine()


__all__ = ["choose_device", "describe_device", "device_of_process", "move_to_device", "processor_name"]
