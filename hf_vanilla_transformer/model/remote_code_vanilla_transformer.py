# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Copy the model's code into a checkpoint, so that transformers loads it without this package (trust_remote_code)."""

import json
import os
import shutil
from pathlib import Path

from .configuration_vanilla_transformer import VanillaTransformerConfig

# transformers caches only the files that a loaded file imports. `copy_code` copies from that cache, too.
from .generate_vanilla_transformer import generate_with_paper_beam_search  # noqa: F401
from .modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration, VanillaTransformerModel

# The entry of config.json that tells transformers which class each Auto class loads.
AUTO_MAP = {
    name: f"{loaded.__module__.rpartition('.')[2]}.{loaded.__name__}"
    for name, loaded in {
        "AutoConfig": VanillaTransformerConfig,
        "AutoModel": VanillaTransformerModel,
        "AutoModelForSeq2SeqLM": VanillaTransformerForConditionalGeneration,
    }.items()
}


def write_code(folder: str | os.PathLike) -> list[Path]:
    """Copy the model's code into a checkpoint and add its classes to config.json.

    Args:
        folder: the checkpoint; its config.json is replaced.

    Returns:
        The copied files.
    """
    copied = copy_code(folder)
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"auto_map": dict(AUTO_MAP), "custom_pipelines": VanillaTransformerConfig().custom_pipelines}
    staged = path.with_suffix(".json.tmp")
    staged.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(staged, path)
    return copied


def copy_code(folder: str | os.PathLike) -> list[Path]:
    """Copy the files of the model's code, all files of this directory, into a folder; return the copies."""
    sources = sorted(Path(__file__).resolve().parent.glob("*_vanilla_transformer.py"))
    return [Path(shutil.copyfile(source, Path(folder) / source.name)) for source in sources]


__all__ = ["AUTO_MAP", "copy_code", "write_code"]
