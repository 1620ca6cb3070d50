# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Run checks with torch's default settings, and restore the caller's settings and random state."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers.utils import logging


@contextmanager
def default_settings(device: torch.device, all_threads: bool) -> Iterator[None]:
    """Use default dtype, precision, device and autocast inside; restore everything, random state included, afterwards.

    Args:
        device: device of the check.
        all_threads: keep the number of threads; otherwise use one.
    """
    with ExitStack() as stack:
        _restore_random_state(stack, device)
        if not all_threads:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        backends: Any = torch.backends
        for backend in (backends.cuda.matmul, backends.mkldnn.matmul):  # fp32 products may use TF32 or bf16
            stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = "ieee"
        bars = logging.is_progress_bar_enabled()
        stack.callback(logging.enable_progress_bar if bars else logging.disable_progress_bar)
        logging.disable_progress_bar()
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _restore_random_state(stack: ExitStack, device: torch.device) -> None:
    generators: list[Any] = [torch]
    if device.type != "cpu":
        if device.index is not None:
            stack.enter_context(torch.accelerator.device_index(device.index))
        generators.append(torch.get_device_module(device))
    for generator in generators:
        stack.callback(generator.set_rng_state, generator.get_rng_state())


__all__ = ["default_settings"]
