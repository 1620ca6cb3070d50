# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Rename the tensors of another model with an explicit table of names.

In a map, "*" is the number of a layer. A name that maps to None is dropped on purpose. Several names that map to one
are copies of one matrix. All problems are collected, so that one error message can list them: names that the map lacks,
missing tensors, wrong shapes, copies that differ, and values that are not finite.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

KeyMap = Mapping[str, str | None]

SOURCE_EMBEDDING = "model.encoder.embed_tokens.weight"
TARGET_EMBEDDING = "model.decoder.embed_tokens.weight"
OUTPUT_PROJECTION = "lm_head.weight"
OUTPUT_BIAS = "lm_head.bias"
SOURCE_POSITIONS = "model.encoder.embed_positions.weight"  # where positions are learned
TARGET_POSITIONS = "model.decoder.embed_positions.weight"


def with_prefix(prefix: str, key_map: KeyMap) -> KeyMap:
    """Add a prefix to every foreign name of a map."""
    return {prefix + name: ours for name, ours in key_map.items()}


def rename_keys(tensors: Mapping[str, Tensor], key_map: KeyMap, problems: list[str]) -> dict[str, Tensor]:
    """Rename tensors from foreign names to ours.

    Args:
        tensors: by foreign name.
        key_map: foreign name → our name, or None to drop the tensor.
        problems: a clause is appended for each kind of problem: names that the map lacks, copies of one matrix that
            differ, and values that are not finite.

    Returns:
        The tensors by our names.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unknown, differing, not_finite = [], [], []
    for name, tensor in tensors.items():
        found, ours = _look_up(name, key_map)
        if not found:
            unknown.append(name)
            continue
        if ours is None:
            continue
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            not_finite.append(name)
        if ours not in renamed:
            renamed[ours], origin[ours] = tensor, name
        elif not torch.equal(renamed[ours], tensor):
            differing.append(f"{origin[ours]} and {name}")
    if unknown:
        problems.append(f"there is no counterpart for {list_names(unknown)}")
    if differing:
        problems.append(f"tensors that should be copies of one matrix differ: {', '.join(differing)}")
    if not_finite:
        problems.append(f"some values are not finite in {list_names(not_finite)}")
    return renamed


def check_complete(renamed: Mapping[str, Tensor], config: VanillaTransformerConfig, problems: list[str]) -> None:
    """Compare tensors under our names with those of a model.

    Args:
        renamed: from `rename_keys`.
        config: the configuration of the model.
        problems: a clause is appended for missing tensors, for surplus tensors and for wrong shapes.
    """
    expected = expected_shapes(config)
    missing = [name for name in expected if name not in renamed]
    surplus = [name for name in renamed if name not in expected]
    shapes = [
        f"{name} has shape {tuple(tensor.shape)} instead of {expected[name]}"
        for name, tensor in renamed.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    if missing:
        problems.append(f"there is no tensor for {list_names(missing)}")
    if surplus:
        problems.append(f"a model of this configuration has no {list_names(surplus)}")
    if shapes:
        problems.append(", ".join(shapes))


def restore_keys(tensors: Mapping[str, Tensor], key_map: KeyMap) -> dict[str, Tensor]:
    """Rename tensors from our names to the foreign ones, including every copy that the map names.

    Raises:
        KeyError: If the map has no foreign name for a tensor; callers reject such models first.
    """
    inverse: dict[str, list[str]] = {}
    for name, ours in key_map.items():
        if ours is not None:
            inverse.setdefault(ours, []).append(name)
    restored = {}
    for ours, tensor in tensors.items():
        pattern, number = _to_pattern(ours)
        for name in inverse[ours if ours in inverse else pattern]:
            restored[name.replace("*", number)] = tensor
    return restored


def expected_shapes(config: VanillaTransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in a checkpoint of ``config``, tied matrices once."""
    with torch.device("meta"):
        model = VanillaTransformerForConditionalGeneration(config)
    tied = model.get_expanded_tied_weights_keys()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def count_layers(names: Iterable[str], stack: str) -> int:
    """Count the layers of a stack, "encoder" or "decoder", by the largest number among the tensor names."""
    numbers = {int(match[1]) for name in names if (match := re.search(rf"\b{stack}\.layers\.(\d+)\.", name))}
    return max(numbers, default=-1) + 1


def list_names(names: Iterable[str]) -> str:
    """Join tensor names for a message; names that differ in the layer number only are one entry."""
    groups: dict[str, list[str]] = {}
    for name in names:
        pattern, number = _to_pattern(name)
        groups.setdefault(pattern, []).append(number)
    return ", ".join(
        pattern.replace("*", f"{{{','.join(numbers)}}}" if len(numbers) > 1 else numbers[0], 1)
        for pattern, numbers in groups.items()
    )


def _look_up(name: str, key_map: KeyMap) -> tuple[bool, str | None]:
    if name in key_map:
        return True, key_map[name]
    pattern, number = _to_pattern(name)
    if pattern not in key_map:
        return False, None
    ours = key_map[pattern]
    return True, None if ours is None else ours.replace("*", number)


def _to_pattern(name: str) -> tuple[str, str]:
    """Split off the number of a layer: "layers.3.fc1" → ("layers.*.fc1", "3"). Without one, the number is ""."""
    match = re.search(r"(?<=\blayers\.)\d+(?=\.)", name)
    return (name, "") if match is None else (f"{name[: match.start()]}*{name[match.end() :]}", match[0])


__all__ = [
    "OUTPUT_BIAS",
    "OUTPUT_PROJECTION",
    "SOURCE_EMBEDDING",
    "SOURCE_POSITIONS",
    "TARGET_EMBEDDING",
    "TARGET_POSITIONS",
    "KeyMap",
    "check_complete",
    "count_layers",
    "expected_shapes",
    "list_names",
    "rename_keys",
    "restore_keys",
    "with_prefix",
]
