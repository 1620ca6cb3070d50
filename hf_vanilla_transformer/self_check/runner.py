# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Run all checks."""

import time

import torch

from ..device import choose_device
from . import attention, cache, files, libraries, loss, search, training
from .check import Check, Skipped
from .installation import describe_hardware, describe_precision, installed_versions
from .isolation import default_settings
from .report import FAILED, OK, SKIPPED, CheckResult, SelfCheckReport

CHECKS: tuple[Check, ...] = (
    *libraries.CHECKS,
    *cache.CHECKS,
    *search.CHECKS,
    *attention.CHECKS,
    *training.CHECKS,
    *loss.CHECKS,
    *files.CHECKS,
)


def check_installation(device: str | torch.device | None = None) -> SelfCheckReport:
    """Check that this installation computes correct results. Takes seconds; needs neither data nor network.

    Random state, default dtype and other settings of torch are restored afterwards.

    Args:
        device: device of the checks, e.g. "cpu" or "cuda:1"; None selects the accelerator if there is one.

    Returns:
        The report; its ``passed`` is False if a check failed.

    Raises:
        ValueError: If there is no such device, or torch cannot compute on it.
    """
    chosen = choose_device(device)
    _require_computing(chosen)
    results = tuple(_run(check, chosen) for check in CHECKS)
    return SelfCheckReport(
        versions=installed_versions(),
        hardware=describe_hardware(),
        device=str(chosen),
        precision=describe_precision(chosen),
        results=results,
    )


def _run(check: Check, device: torch.device) -> CheckResult:
    start, status, detail = time.perf_counter(), OK, ""
    try:
        with default_settings(device, check.all_threads):
            check.run(device)
    except Skipped as reason:
        status, detail = SKIPPED, str(reason)
    except Exception as error:  # an incompatible library may raise anything
        kind = "" if type(error) is AssertionError else f"{type(error).__name__}: "
        status, detail = FAILED, kind + " ".join(str(error).split())
    milliseconds = (time.perf_counter() - start) * 1000
    return CheckResult(check.name, check.title, status, milliseconds, detail, check.advice if status == FAILED else "")


def _require_computing(device: torch.device) -> None:
    try:
        if device.type == "meta":
            raise RuntimeError("it has no numbers")
        torch.ones(1, device=device).add_(1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"torch cannot compute on device={str(device)!r} ({error}); choose cpu or another one"
        ) from error


__all__ = ["CHECKS", "check_installation"]
