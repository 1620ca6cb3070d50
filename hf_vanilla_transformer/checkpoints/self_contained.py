# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Put the model's code beside a checkpoint's weights, so that it loads where this package is not installed.

The files of the folder model/ are copied as they are and config.json names the classes in them. This is what
``register_for_auto_class`` does when saving, but for one folder, not for every save of the process from then on, and
with the classes that saving one model doesn't name: the bare model and the pipeline.
"""

from pathlib import Path
from typing import Any

from ..json_object import read_json_object
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.pipeline_vanilla_transformer import AUTO_MAP, copy_code, write_code

CODE_FILES = tuple(sorted((Path(__file__).resolve().parent.parent / "model").glob("*_vanilla_transformer.py")))


def write_model_code(folder: str | Path) -> list[Path]:
    """Copy the model's code into a checkpoint's folder and name its classes in config.json.

    With this package installed nothing changes: the installed classes load the checkpoint, without a question.

    Args:
        folder: the checkpoint; its config.json is rewritten.

    Returns:
        The code files, where they are now.

    Raises:
        ValueError: If there is no config.json of this model type.
    """
    read_config(Path(folder))
    return write_code(folder)


def copy_model_code(folder: str | Path) -> list[Path]:
    """Copy the model's code into a folder, whose config.json names its classes already or never will."""
    return copy_code(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a checkpoint of this model type.

    Raises:
        ValueError: If it is missing, damaged, or another model's.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json; name the directory of a checkpoint")
    config = read_json_object(path)
    kind = config.get("model_type")
    if kind != VanillaTransformerConfig.model_type:
        raise ValueError(
            f"{path} is of model type {kind!r}, not {VanillaTransformerConfig.model_type!r}; "
            "`vanilla-transformer convert` brings in checkpoints of Marian, FSMT and torch.nn.Transformer"
        )
    return config


__all__ = ["AUTO_MAP", "CODE_FILES", "copy_model_code", "read_config", "write_model_code"]
