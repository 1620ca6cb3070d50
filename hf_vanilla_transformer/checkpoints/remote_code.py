# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Copy the model's code into a checkpoint, which then loads with ``trust_remote_code=True`` without this package.

All files of model/ are copied unchanged, and config.json refers to the classes in them. ``register_for_auto_class``
does the same for every later save of the process; this does it for one directory, and includes the classes that saving
one model does not name: the bare model and the pipeline.
"""

from pathlib import Path

from ..model.remote_code_vanilla_transformer import AUTO_MAP, copy_code, write_code
from .checkpoint_directory import CheckpointDirectory

CODE_FILES = tuple(sorted((Path(__file__).resolve().parent.parent / "model").glob("*_vanilla_transformer.py")))


def write_model_code(folder: str | Path) -> list[Path]:
    """Copy the model's code into a checkpoint and refer to its classes in config.json.

    Where this package is installed, its own classes load the checkpoint as before.

    Args:
        folder: the checkpoint; its config.json is rewritten.

    Returns:
        The copied files.

    Raises:
        ValueError: If there is no config.json of this model type.
    """
    CheckpointDirectory(folder).read_config()
    return write_code(folder)


def copy_model_code(folder: str | Path) -> list[Path]:
    """Copy the model's code into a directory and leave its config.json unchanged."""
    return copy_code(folder)


__all__ = ["AUTO_MAP", "CODE_FILES", "copy_model_code", "write_model_code"]
