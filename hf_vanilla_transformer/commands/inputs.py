# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check that the checkpoints a command reads exist, before torch and transformers are imported.

Only what needs no import is checked; the functions that read the inputs check everything.
"""

import argparse
import re
from pathlib import Path

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def check_inputs(options: argparse.Namespace) -> None:
    """Check the inputs of a command.

    Raises:
        FileNotFoundError: If a checkpoint is neither a directory nor, where the command takes one, an id on the Hub.
    """
    if getattr(options, "model", None) is not None and options.command in ("translate", "score", "visualize", "align"):
        _check_directory(options.model, hub=True)
    for model in options.models if options.command == "evaluate" else ():
        _check_directory(model, hub=True)
    for checkpoint in getattr(options, "ensemble", None) or ():
        _check_directory(checkpoint, hub=True)
    if options.command == "push":
        _check_directory(options.checkpoint, hub=False)
    for checkpoint in options.checkpoints if options.command == "average" else ():
        _check_directory(checkpoint, hub=False)
    if options.command == "convert" and not Path(options.source).exists() and not _HUB_ID.fullmatch(options.source):
        raise FileNotFoundError(f"there is no file or directory {options.source}")


def _check_directory(name: str, hub: bool) -> None:
    if not Path(name).is_dir() and not (hub and not Path(name).exists() and _HUB_ID.fullmatch(name)):
        raise FileNotFoundError(f"there is no directory {name}" + ("; it is a file" if Path(name).exists() else ""))


__all__ = ["check_inputs"]
