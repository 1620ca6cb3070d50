# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Versions, requirements and hardware of this installation."""

import importlib.metadata
import os
import platform
from typing import Any

import torch

from ..device import processor_name
from ..version import __version__

PACKAGE = "hf_vanilla_transformer"
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "datasets", "evaluate")


def installed_versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries that are installed."""
    found = {name: version for name in _LIBRARIES if (version := installed_version(name)) is not None}
    return {PACKAGE: __version__, "Python": platform.python_version(), **found}


def installed_version(library: str) -> str | None:
    """Return the version of a library, None if it is not installed."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def requirements() -> dict[str, Any]:
    """Return this package's requirements, library -> `Requirement`; none if it runs without being installed."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    parsed = [Requirement(line) for line in lines]
    return {item.name: item for item in parsed if item.marker is None or item.marker.evaluate({"extra": ""})}


def describe_hardware() -> dict[str, str]:
    """Return processor, threads, bf16 support and accelerator, as names and descriptions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = {"AMX": "_is_amx_tile_supported", "AVX512-bf16": "_is_avx512_bf16_supported"}
    units = [name for name, flag in flags.items() if getattr(torch.cpu, flag, lambda: False)()]
    found = {
        "processor": f"{processor_name()}, {cores} cores, {torch.get_num_threads()} threads in use",
        "bf16 on the processor": ", ".join(units) or "no instructions that torch reports",
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        major, minor = torch.cuda.get_device_capability()
        found["GPU"] = f"{', '.join(names)}, compute capability {major}.{minor}"
        found["bf16 on the GPU"] = "yes" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    elif torch.accelerator.is_available():
        found["accelerator"] = str(torch.accelerator.current_accelerator())
    return found


def describe_precision(device: torch.device) -> str:
    """Return what ``precision="auto"`` of the training arguments selects on a device, and why."""
    try:
        from ..training.precision import best_precision

        return "auto is {} ({})".format(*best_precision(use_cpu=device.type == "cpu"))
    except Exception as error:  # libraries for training may be missing where a model is only used
        return f"unknown ({type(error).__name__}: {error})"


__all__ = [
    "PACKAGE",
    "describe_hardware",
    "describe_precision",
    "installed_version",
    "installed_versions",
    "requirements",
]
