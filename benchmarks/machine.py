"""The machine under the measurements: its name, its versions, and how fast it multiplies and copies."""

import importlib.metadata
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from side_by_side import wait_for

from hf_vanilla_transformer import __version__

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KINDS = ("amx", "avx512-bf16", "neither")  # of processors: with AMX, with AVX512-bf16 only, with neither
LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "ctranslate2")
_ROOT = Path(__file__).resolve().parents[1]


def kind_of(units: Collection[str]) -> str:
    """Return the kind of a processor, one of `KINDS`, from its vector and matrix units."""
    if "amx_bf16" in units:
        return "amx"
    return "avx512-bf16" if "avx512_bf16" in units else "neither"


def best_precision() -> str:
    """Return "bf16" where the processor has units for it, and "fp32" elsewhere."""
    return "fp32" if hardware()["kind"] == "neither" else "bf16"


def hardware() -> dict[str, Any]:
    """Describe processor, threads, memory and GPU."""
    name, flags = platform.processor() or platform.machine(), set()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    units = sorted(flags & {"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2"})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "processor": name,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "units": units,
        "kind": kind_of(units),
        "memory_GiB": round(memory_available(total=True) / 2**30, 1),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["gpu_memory_GiB"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    return found


def memory_available(total: bool = False) -> float:
    """Bytes of memory that are free for use, or all there are; infinite where the system doesn't say."""
    key = "MemTotal" if total else "MemAvailable"
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith(key + ":"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float("inf")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that take part."""
    found = {"hf_vanilla_transformer": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the code, "+" added where files differ from it; None outside a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def matrix_rate(dtype: torch.dtype, device: torch.device | None = None, quick: bool = False) -> float:
    """Measure the rate of matrix products, in operations per second: the best over a few shapes of this model's kind.

    Args:
        dtype: of both factors; torch.int8 has int32 sums, and the faster of torch's two products counts.
        device: None is the CPU.
        quick: small factors.
    """
    on_gpu = device is not None and device.type == "cuda"
    shapes = [(1024, 512, 2048), (2048, 2048, 2048)] + ([(8192, 8192, 8192)] if on_gpu else [])
    best = 0.0
    for rows, inner, columns in [(128, 128, 128)] if quick else shapes:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        operations = 2 * rows * inner * columns
        plain = [partial(torch.matmul, left, right.t())]
        for multiply in _int8_products(left, right) if dtype is torch.int8 else plain:
            best = max(best, operations / _best_seconds(multiply, device))
    return best


def _int8_products(left: torch.Tensor, right: torch.Tensor) -> list[Callable[[], torch.Tensor]]:
    """Return torch's products of int8 matrices: the first is slow on processors without VNNI."""
    products: list[Callable[[], torch.Tensor]] = [partial(torch._int_mm, left, right.t())]
    with suppress(AttributeError, RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch intends to remove quantized tensors
        scales, zero_points = torch.ones(len(right)).double(), torch.zeros(len(right), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(right.clamp(-64, 64), scales, zero_points, 0)
        packed = torch.ops.quantized.linear_prepack(quantized, None)
        products.append(partial(torch.ops.quantized.linear_dynamic, left.float(), packed))
    return products


def memory_bandwidth(device: torch.device | None = None, quick: bool = False) -> float:
    """Measure how many bytes per second a copy reads and writes together."""
    size = 2**20 if quick else 2**26  # elements of 4 bytes: 256 MiB, far beyond any cache
    source, target = torch.ones(size, device=device), torch.empty(size, device=device)
    return 2 * 4 * size / _best_seconds(lambda: target.copy_(source), device)


def _best_seconds(run: Any, device: torch.device | None, budget: float = 1.5) -> float:
    """Repeat until ``budget`` seconds are used, at least three times, and return the shortest."""
    run()
    best, used, runs = float("inf"), 0.0, 0
    while runs < 3 or used < budget:
        wait_for(device)
        started = time.perf_counter()
        run()
        wait_for(device)
        elapsed = time.perf_counter() - started
        best, used, runs = min(best, elapsed), used + elapsed, runs + 1
        if runs >= 3 and used > budget or runs >= 50:
            break
    return best
