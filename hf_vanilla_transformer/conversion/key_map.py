# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Literal maps from another model's tensor names to ours, and how they are applied.

A map's "*" stands for a layer's number. A name that maps to None is knowingly dropped; several names that map to one
are copies of one matrix. Names the map lacks, names that stay empty, wrong shapes, copies that differ and numbers that
aren't finite are collected and told in one sentence, not one at a time.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

KeyMap = Mapping[str, str | None]

SOURCE_EMBEDDING = "model.encoder.embed_tokens.weight"
TARGET_EMBEDDING = "model.decoder.embed_tokens.weight"
OUTPUT_PROJECTION = "lm_head.weight"
OUTPUT_BIAS = "lm_head.bias"

# The layers of fairseq, which FSMT, BART and Marian in transformers took over name by name.
FAIRSEQ_LAYERS: KeyMap = {
    "encoder.layers.*.self_attn.q_proj.weight": "model.encoder.layers.*.self_attn.q_proj.weight",
    "encoder.layers.*.self_attn.q_proj.bias": "model.encoder.layers.*.self_attn.q_proj.bias",
    "encoder.layers.*.self_attn.k_proj.weight": "model.encoder.layers.*.self_attn.k_proj.weight",
    "encoder.layers.*.self_attn.k_proj.bias": "model.encoder.layers.*.self_attn.k_proj.bias",
    "encoder.layers.*.self_attn.v_proj.weight": "model.encoder.layers.*.self_attn.v_proj.weight",
    "encoder.layers.*.self_attn.v_proj.bias": "model.encoder.layers.*.self_attn.v_proj.bias",
    "encoder.layers.*.self_attn.out_proj.weight": "model.encoder.layers.*.self_attn.out_proj.weight",
    "encoder.layers.*.self_attn.out_proj.bias": "model.encoder.layers.*.self_attn.out_proj.bias",
    "encoder.layers.*.self_attn_layer_norm.weight": "model.encoder.layers.*.self_attn_norm.weight",
    "encoder.layers.*.self_attn_layer_norm.bias": "model.encoder.layers.*.self_attn_norm.bias",
    "encoder.layers.*.fc1.weight": "model.encoder.layers.*.feed_forward.w_1.weight",
    "encoder.layers.*.fc1.bias": "model.encoder.layers.*.feed_forward.w_1.bias",
    "encoder.layers.*.fc2.weight": "model.encoder.layers.*.feed_forward.w_2.weight",
    "encoder.layers.*.fc2.bias": "model.encoder.layers.*.feed_forward.w_2.bias",
    "encoder.layers.*.final_layer_norm.weight": "model.encoder.layers.*.feed_forward_norm.weight",
    "encoder.layers.*.final_layer_norm.bias": "model.encoder.layers.*.feed_forward_norm.bias",
    "decoder.layers.*.self_attn.q_proj.weight": "model.decoder.layers.*.self_attn.q_proj.weight",
    "decoder.layers.*.self_attn.q_proj.bias": "model.decoder.layers.*.self_attn.q_proj.bias",
    "decoder.layers.*.self_attn.k_proj.weight": "model.decoder.layers.*.self_attn.k_proj.weight",
    "decoder.layers.*.self_attn.k_proj.bias": "model.decoder.layers.*.self_attn.k_proj.bias",
    "decoder.layers.*.self_attn.v_proj.weight": "model.decoder.layers.*.self_attn.v_proj.weight",
    "decoder.layers.*.self_attn.v_proj.bias": "model.decoder.layers.*.self_attn.v_proj.bias",
    "decoder.layers.*.self_attn.out_proj.weight": "model.decoder.layers.*.self_attn.out_proj.weight",
    "decoder.layers.*.self_attn.out_proj.bias": "model.decoder.layers.*.self_attn.out_proj.bias",
    "decoder.layers.*.self_attn_layer_norm.weight": "model.decoder.layers.*.self_attn_norm.weight",
    "decoder.layers.*.self_attn_layer_norm.bias": "model.decoder.layers.*.self_attn_norm.bias",
    "decoder.layers.*.encoder_attn.q_proj.weight": "model.decoder.layers.*.cross_attn.q_proj.weight",
    "decoder.layers.*.encoder_attn.q_proj.bias": "model.decoder.layers.*.cross_attn.q_proj.bias",
    "decoder.layers.*.encoder_attn.k_proj.weight": "model.decoder.layers.*.cross_attn.k_proj.weight",
    "decoder.layers.*.encoder_attn.k_proj.bias": "model.decoder.layers.*.cross_attn.k_proj.bias",
    "decoder.layers.*.encoder_attn.v_proj.weight": "model.decoder.layers.*.cross_attn.v_proj.weight",
    "decoder.layers.*.encoder_attn.v_proj.bias": "model.decoder.layers.*.cross_attn.v_proj.bias",
    "decoder.layers.*.encoder_attn.out_proj.weight": "model.decoder.layers.*.cross_attn.out_proj.weight",
    "decoder.layers.*.encoder_attn.out_proj.bias": "model.decoder.layers.*.cross_attn.out_proj.bias",
    "decoder.layers.*.encoder_attn_layer_norm.weight": "model.decoder.layers.*.cross_attn_norm.weight",
    "decoder.layers.*.encoder_attn_layer_norm.bias": "model.decoder.layers.*.cross_attn_norm.bias",
    "decoder.layers.*.fc1.weight": "model.decoder.layers.*.feed_forward.w_1.weight",
    "decoder.layers.*.fc1.bias": "model.decoder.layers.*.feed_forward.w_1.bias",
    "decoder.layers.*.fc2.weight": "model.decoder.layers.*.feed_forward.w_2.weight",
    "decoder.layers.*.fc2.bias": "model.decoder.layers.*.feed_forward.w_2.bias",
    "decoder.layers.*.final_layer_norm.weight": "model.decoder.layers.*.feed_forward_norm.weight",
    "decoder.layers.*.final_layer_norm.bias": "model.decoder.layers.*.feed_forward_norm.bias",
}


def with_prefix(prefix: str, key_map: KeyMap) -> KeyMap:
    """Put ``prefix`` before every foreign name."""
    return {prefix + name: ours for name, ours in key_map.items()}


def rename_keys(tensors: Mapping[str, Tensor], key_map: KeyMap, problems: list[str]) -> dict[str, Tensor]:
    """Give foreign tensors our names.

    Args:
        tensors: by their own names.
        key_map: foreign name → our name, or None where the tensor is knowingly dropped.
        problems: gets a clause for each kind of incompatibility: names the map lacks, copies of one matrix that differ,
            values that aren't finite.

    Returns:
        The tensors by our names.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unknown, differing, broken = [], [], []
    for name, tensor in tensors.items():
        found, ours = _look_up(name, key_map)
        if not found:
            unknown.append(name)
            continue
        if ours is None:
            continue
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            broken.append(name)
        if ours not in renamed:
            renamed[ours], origin[ours] = tensor, name
        elif not torch.equal(renamed[ours], tensor):
            differing.append(f"{origin[ours]} and {name}")
    if unknown:
        problems.append(f"nothing here takes {list_names(unknown)}")
    if differing:
        problems.append(f"what should be copies of one matrix differs: {', '.join(differing)}")
    if broken:
        problems.append(f"not every number is finite in {list_names(broken)}")
    return renamed


def check_complete(renamed: Mapping[str, Tensor], config: VanillaTransformerConfig, problems: list[str]) -> None:
    """Compare tensors under our names with what a model of ``config`` has.

    Args:
        renamed: from `rename_keys`.
        config: the configuration they are meant for.
        problems: gets a clause for names that stay empty, for tensors too many and for wrong shapes.
    """
    expected = expected_shapes(config)
    missing = [name for name in expected if name not in renamed]
    surplus = [name for name in renamed if name not in expected]
    shapes = [
        f"{name} is {tuple(tensor.shape)} instead of {expected[name]}"
        for name, tensor in renamed.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    if missing:
        problems.append(f"no weight is there for {list_names(missing)}")
    if surplus:
        problems.append(f"a model of this configuration has no {list_names(surplus)}")
    if shapes:
        problems.append(", ".join(shapes))


def restore_keys(tensors: Mapping[str, Tensor], key_map: KeyMap) -> dict[str, Tensor]:
    """Give tensors their foreign names back, every copy that the map names included.

    Raises:
        KeyError: If the map has no foreign name for a tensor, which the caller has to have refused.
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
    """Name every tensor that a checkpoint of ``config`` holds, tied matrices once, with its shape."""
    with torch.device("meta"):
        model = VanillaTransformerForConditionalGeneration(config)
    tied = model.get_expanded_tied_weights_keys()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def detect_tying(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Find out which of the three vocabulary matrices (§3.4) are one, and leave copies out of ``tensors``.

    Formats that store copies don't say which of them are tied. After training, equal to the last bit means tied.

    Returns:
        ``share_encoder_decoder_embeddings`` and ``tie_word_embeddings``.
    """
    source, target, output = (tensors.get(name) for name in (SOURCE_EMBEDDING, TARGET_EMBEDDING, OUTPUT_PROJECTION))
    share_encoder_decoder_embeddings = target is None or (source is not None and torch.equal(source, target))
    both = source if target is None else target
    tie_word_embeddings = output is None or (both is not None and torch.equal(both, output))
    if share_encoder_decoder_embeddings:
        tensors.pop(TARGET_EMBEDDING, None)
    if tie_word_embeddings:
        tensors.pop(OUTPUT_PROJECTION, None)
    return {
        "share_encoder_decoder_embeddings": share_encoder_decoder_embeddings,
        "tie_word_embeddings": tie_word_embeddings,
    }


def untie(tensors: Mapping[str, Tensor], config: VanillaTransformerConfig) -> dict[str, Tensor]:
    """Write the three vocabulary matrices out, the same tensor under several names where they are tied."""
    spelled = dict(tensors)
    target = spelled.setdefault(TARGET_EMBEDDING, spelled[SOURCE_EMBEDDING])
    if config.tie_word_embeddings:
        spelled.setdefault(OUTPUT_PROJECTION, target)
    return spelled


def list_names(names: Iterable[str]) -> str:
    """List tensor names; the same tensor of several layers is one entry with the layers' numbers."""
    groups: dict[str, list[str]] = {}
    for name in names:
        pattern, number = _to_pattern(name)
        groups.setdefault(pattern, []).append(number)
    return ", ".join(
        pattern.replace("*", f"{{{','.join(numbers)}}}" if len(numbers) > 1 else numbers[0], 1)
        for pattern, numbers in groups.items()
    )


def refuse(source: object, kind: str, problems: list[str]) -> None:
    """Raise if there are problems.

    Raises:
        ValueError: One sentence with all of them.
    """
    if problems:
        raise ValueError(f"{source} can't be converted {kind}: {'; '.join(problems)}")


def _look_up(name: str, key_map: KeyMap) -> tuple[bool, str | None]:
    if name in key_map:
        return True, key_map[name]
    pattern, number = _to_pattern(name)
    if pattern not in key_map:
        return False, None
    ours = key_map[pattern]
    return True, None if ours is None else ours.replace("*", number)


def _to_pattern(name: str) -> tuple[str, str]:
    """Split off a layer's number: "layers.3.fc1" → ("layers.*.fc1", "3"); the number is "" where there is none."""
    match = re.search(r"(?<=\blayers\.)\d+(?=\.)", name)
    return (name, "") if match is None else (f"{name[: match.start()]}*{name[match.end() :]}", match[0])


__all__ = [
    "FAIRSEQ_LAYERS",
    "KeyMap",
    "check_complete",
    "detect_tying",
    "expected_shapes",
    "list_names",
    "refuse",
    "rename_keys",
    "restore_keys",
    "untie",
    "with_prefix",
]
