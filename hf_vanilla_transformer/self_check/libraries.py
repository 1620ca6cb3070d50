# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check the versions of the installed libraries."""

import torch

from . import installation
from .check import Check, Skipped


def versions(device: torch.device) -> None:
    """Compare the installed versions with the requirements of this package."""
    requirements = installation.requirements()
    if not requirements:
        raise Skipped("the package runs from a folder without being installed")
    installed = {name: installation.installed_version(name) for name in requirements}
    wrong = [
        (name, version, str(requirements[name]))
        for name, version in installed.items()
        if version is None or not requirements[name].specifier.contains(version, prereleases=True)
    ]
    if wrong:
        found = ", ".join(f"{name} {version or 'is not installed'}" for name, version, _ in wrong)
        install = " ".join(f'"{requirement}"' for *_, requirement in wrong)
        raise AssertionError(f"{found}; run `pip install {install}` and check again")


CHECKS = (Check("versions", "The installed libraries have the versions that this package needs", versions, library=""),)

__all__ = ["CHECKS"]
