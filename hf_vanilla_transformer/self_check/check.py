# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""A check and its description."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .installation import requirements


class Skipped(Exception):
    """A check cannot run on this device; the message contains the reason."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: short name, as in `CheckResult`.
        title: what is checked, in one sentence.
        run: raises an exception if something is wrong; AssertionError if a result differs.
        library: library to reinstall if the check fails; "" if the exception says what to do.
        workaround: what works until the fault is repaired; "" for nothing.
        all_threads: use the caller's number of threads instead of one. With many threads, thousands of operations on a
            few hundred numbers each mostly wait for threads: minutes on a busy machine.
    """

    name: str
    title: str
    run: Callable[[torch.device], None]
    library: str = "transformers"
    workaround: str = ""
    all_threads: bool = False

    @property
    def advice(self) -> str:
        """What to do if the check fails."""
        if not self.library:
            return ""
        requirement = f"{self.library}{getattr(requirements().get(self.library), 'specifier', '')}"
        command = f'pip install --force-reinstall "{requirement}"'
        advice = f"run `{command}` and check again; if it fails again, report this output."
        return f"{advice} Until then {self.workaround}." if self.workaround else advice


__all__ = ["Check", "Skipped"]
