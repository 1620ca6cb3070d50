# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Which weights a directory has: the one place that decides, by the order in which transformers looks for them.

A file model.safetensors comes before an index, whichever of them was saved later: whoever averages, publishes or checks
a directory has to take the weights that `from_pretrained` loads from it.
"""

import re
from collections.abc import Collection
from pathlib import Path

from ..json_object import read_json_object

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that `from_pretrained` loads a directory's weights from.

    Args:
        folder: the checkpoint.

    Returns:
        One file; or the index, and then the files that it names; or nothing if there are no such weights.

    Raises:
        ValueError: If the index is damaged or names a file that isn't there.
    """
    named = read_json_object(folder / "config.json").get("transformers_weights") if _has_config(folder) else None
    if isinstance(named, str) and (Path(named).name != named or not (folder / named).is_file()):
        raise ValueError(f"config.json in {folder} names the weights {named!r}, which is no file of its folder")
    for name in [named] if isinstance(named, str) else [WEIGHTS, INDEX]:
        path = folder / name
        if not path.is_file():
            continue
        return [path, *sorted(set(read_weight_index(path).values()))] if name.endswith(".index.json") else [path]
    return []


def other_weight_files(folder: Path, written: Collection[str]) -> list[Path]:
    """Return the files of weights that an earlier save has left beside those just written."""
    return [path for path in folder.iterdir() if _SAFETENSORS.fullmatch(path.name) and path.name not in written]


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def read_weight_index(path: Path) -> dict[str, Path]:
    """Read in which file each tensor is.

    Args:
        path: the index, "model.safetensors.index.json" or "pytorch_model.bin.index.json".

    Returns:
        The file of each tensor, by the tensor's name; all of them lie beside the index.

    Raises:
        ValueError: If it is no such index, or names a file that isn't there.
    """
    names = read_json_object(path).get("weight_map")
    if not isinstance(names, dict):
        raise ValueError(f"{path} names no files of weights; was saving it interrupted?")
    files = {}
    for tensor, name in names.items():
        plain = isinstance(name, str) and Path(name).name == name
        if plain and not (path.parent / name).exists():
            raise ValueError(f"{path.parent / name} is missing, although {path.name} names it")
        if not plain or not (path.parent / name).is_file():
            raise ValueError(f"{path} names {name!r}, which is no file of its folder")
        files[tensor] = path.parent / name
    return files


__all__ = ["INDEX", "WEIGHTS", "other_weight_files", "read_weight_index", "weight_files"]
