# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The index of weights that are spread over several files, as transformers writes it."""

from pathlib import Path

from ..json_object import read_json_object


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


__all__ = ["read_weight_index"]
