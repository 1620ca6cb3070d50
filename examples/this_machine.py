"""The machine that a measurement ran on, for its record."""

import os
import platform
from pathlib import Path
from typing import Any

import torch
import transformers

from hf_vanilla_transformer import __version__


def this_machine() -> dict[str, Any]:
    """Describe processor and versions."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        names = [line for line in cpu_info.read_text(errors="replace").splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"hf_vanilla_transformer": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"processor": name, "cores": cores, "versions": {**versions, "transformers": transformers.__version__}}
