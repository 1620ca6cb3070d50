# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Convert between state dicts of models that wrap torch.nn.Transformer and our format.

torch.nn.Transformer is only the two stacks. Embeddings, positions and the output projection belong to the model around
it, under names that its author chose, so the caller gives these names. A state dict doesn't record the number of heads
or the position of the layer norms either; see `TorchOptions`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from .checkpoint_parts import CheckpointParts, default_generation_config, read_parts
from .foreign_files import read_pickle, read_weight_file
from .key_map import (
    OUTPUT_BIAS,
    OUTPUT_PROJECTION,
    SOURCE_EMBEDDING,
    SOURCE_POSITIONS,
    TARGET_EMBEDDING,
    TARGET_POSITIONS,
    KeyMap,
    count_layers,
    expected_shapes,
    rename_keys,
    restore_keys,
    with_prefix,
)
from .problems import build_config, raise_problems, require_complete, require_values
from .tied_matrices import detect_tying, untie
from .torch_options import TorchOptions

_DIRECTION = "from torch.nn.Transformer"

STACK_KEYS: KeyMap = {
    "encoder.layers.*.self_attn.q_proj.weight": "model.encoder.layers.*.self_attn.q_proj.weight",
    "encoder.layers.*.self_attn.q_proj.bias": "model.encoder.layers.*.self_attn.q_proj.bias",
    "encoder.layers.*.self_attn.k_proj.weight": "model.encoder.layers.*.self_attn.k_proj.weight",
    "encoder.layers.*.self_attn.k_proj.bias": "model.encoder.layers.*.self_attn.k_proj.bias",
    "encoder.layers.*.self_attn.v_proj.weight": "model.encoder.layers.*.self_attn.v_proj.weight",
    "encoder.layers.*.self_attn.v_proj.bias": "model.encoder.layers.*.self_attn.v_proj.bias",
    "encoder.layers.*.self_attn.out_proj.weight": "model.encoder.layers.*.self_attn.out_proj.weight",
    "encoder.layers.*.self_attn.out_proj.bias": "model.encoder.layers.*.self_attn.out_proj.bias",
    "encoder.layers.*.linear1.weight": "model.encoder.layers.*.feed_forward.w_1.weight",
    "encoder.layers.*.linear1.bias": "model.encoder.layers.*.feed_forward.w_1.bias",
    "encoder.layers.*.linear2.weight": "model.encoder.layers.*.feed_forward.w_2.weight",
    "encoder.layers.*.linear2.bias": "model.encoder.layers.*.feed_forward.w_2.bias",
    "encoder.layers.*.norm1.weight": "model.encoder.layers.*.self_attn_norm.weight",
    "encoder.layers.*.norm1.bias": "model.encoder.layers.*.self_attn_norm.bias",
    "encoder.layers.*.norm2.weight": "model.encoder.layers.*.feed_forward_norm.weight",
    "encoder.layers.*.norm2.bias": "model.encoder.layers.*.feed_forward_norm.bias",
    "encoder.norm.weight": "model.encoder.final_norm.weight",
    "encoder.norm.bias": "model.encoder.final_norm.bias",
    "decoder.layers.*.self_attn.q_proj.weight": "model.decoder.layers.*.self_attn.q_proj.weight",
    "decoder.layers.*.self_attn.q_proj.bias": "model.decoder.layers.*.self_attn.q_proj.bias",
    "decoder.layers.*.self_attn.k_proj.weight": "model.decoder.layers.*.self_attn.k_proj.weight",
    "decoder.layers.*.self_attn.k_proj.bias": "model.decoder.layers.*.self_attn.k_proj.bias",
    "decoder.layers.*.self_attn.v_proj.weight": "model.decoder.layers.*.self_attn.v_proj.weight",
    "decoder.layers.*.self_attn.v_proj.bias": "model.decoder.layers.*.self_attn.v_proj.bias",
    "decoder.layers.*.self_attn.out_proj.weight": "model.decoder.layers.*.self_attn.out_proj.weight",
    "decoder.layers.*.self_attn.out_proj.bias": "model.decoder.layers.*.self_attn.out_proj.bias",
    "decoder.layers.*.multihead_attn.q_proj.weight": "model.decoder.layers.*.cross_attn.q_proj.weight",
    "decoder.layers.*.multihead_attn.q_proj.bias": "model.decoder.layers.*.cross_attn.q_proj.bias",
    "decoder.layers.*.multihead_attn.k_proj.weight": "model.decoder.layers.*.cross_attn.k_proj.weight",
    "decoder.layers.*.multihead_attn.k_proj.bias": "model.decoder.layers.*.cross_attn.k_proj.bias",
    "decoder.layers.*.multihead_attn.v_proj.weight": "model.decoder.layers.*.cross_attn.v_proj.weight",
    "decoder.layers.*.multihead_attn.v_proj.bias": "model.decoder.layers.*.cross_attn.v_proj.bias",
    "decoder.layers.*.multihead_attn.out_proj.weight": "model.decoder.layers.*.cross_attn.out_proj.weight",
    "decoder.layers.*.multihead_attn.out_proj.bias": "model.decoder.layers.*.cross_attn.out_proj.bias",
    "decoder.layers.*.linear1.weight": "model.decoder.layers.*.feed_forward.w_1.weight",
    "decoder.layers.*.linear1.bias": "model.decoder.layers.*.feed_forward.w_1.bias",
    "decoder.layers.*.linear2.weight": "model.decoder.layers.*.feed_forward.w_2.weight",
    "decoder.layers.*.linear2.bias": "model.decoder.layers.*.feed_forward.w_2.bias",
    "decoder.layers.*.norm1.weight": "model.decoder.layers.*.self_attn_norm.weight",
    "decoder.layers.*.norm1.bias": "model.decoder.layers.*.self_attn_norm.bias",
    "decoder.layers.*.norm2.weight": "model.decoder.layers.*.cross_attn_norm.weight",
    "decoder.layers.*.norm2.bias": "model.decoder.layers.*.cross_attn_norm.bias",
    "decoder.layers.*.norm3.weight": "model.decoder.layers.*.feed_forward_norm.weight",
    "decoder.layers.*.norm3.bias": "model.decoder.layers.*.feed_forward_norm.bias",
    "decoder.norm.weight": "model.decoder.final_norm.weight",
    "decoder.norm.bias": "model.decoder.final_norm.bias",
}
_WRAPPERS = ("model_state_dict", "state_dict", "model")  # names of the state dict in a training script's file


def read_torch(source: Path, options: Mapping[str, Any]) -> CheckpointParts:
    """Read a state dict of a model around torch.nn.Transformer.

    Args:
        source: a file of torch.save or safetensors, or a directory with a single one.
        options: the fields of `TorchOptions`.

    Raises:
        ValueError: If our format can't express it, or tensors are missing; the message lists all problems.
    """
    chosen = TorchOptions.of(options)
    path = _state_dict_file(source)
    renamed = _renamed(path, _unwrap(path), chosen)
    vocabularies = len(renamed[SOURCE_EMBEDDING]), len(renamed[TARGET_EMBEDDING])
    tying = detect_tying(renamed)
    fields = {
        **_config_fields(chosen, renamed),
        "vocab_size": vocabularies[0],
        "decoder_vocab_size": None if tying["share_encoder_decoder_embeddings"] else vocabularies[1],
        **tying,
    }
    config = build_config(path, _DIRECTION, fields)
    _fill_absent_biases(renamed, config)
    require_complete(path, _DIRECTION, renamed, config)
    tensors = {name: tensor.contiguous() for name, tensor in renamed.items()}
    return CheckpointParts(config, tensors, default_generation_config(config))


def _renamed(path: Path, tensors: Mapping[str, Tensor], options: TorchOptions) -> dict[str, Tensor]:
    """Return the tensors under our names, with both embeddings and, if positions are learned, both tables."""
    problems = []
    named = [options.embedding, options.target_embedding, options.positions, options.target_positions]
    named += [options.generator and f"{options.generator}.weight", *options.ignored]
    absent = [name for name in named if name and name not in tensors]
    if absent:
        problems.append(f"it has no tensor named {', '.join(absent)}")
    renamed = rename_keys(_split_fused(tensors), _key_map(options), problems)
    learned = options.position_embedding_type == "learned"
    if learned != (options.positions is not None):
        problems.append("position_embedding_type='learned' needs the name of a table, positions=…, and the reverse")
    raise_problems(path, _DIRECTION, problems)
    if "model.encoder.layers.0.feed_forward.w_1.weight" not in renamed or not count_layers(renamed, "decoder"):
        problems.append("it has no layers of torch.nn.Transformer; set prefix to the part before encoder.layers…")
    raise_problems(path, _DIRECTION, problems)
    renamed.setdefault(TARGET_EMBEDDING, renamed[SOURCE_EMBEDDING])
    if learned:
        renamed.setdefault(TARGET_POSITIONS, renamed[SOURCE_POSITIONS].clone())
    return renamed


def _config_fields(options: TorchOptions, renamed: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return all fields of our configuration but those of the vocabularies."""
    d_ff, d_model = renamed["model.encoder.layers.0.feed_forward.w_1.weight"].shape
    learned = options.position_embedding_type == "learned"
    return {
        "d_model": d_model,
        "d_ff": d_ff,
        "num_heads": options.num_heads,
        "encoder_layers": count_layers(renamed, "encoder"),
        "decoder_layers": count_layers(renamed, "decoder"),
        "dropout": options.dropout,
        "attention_dropout": options.dropout,  # torch's layers have one probability for all three
        "activation_dropout": options.dropout,
        "activation_function": options.activation,
        "norm_position": "pre" if options.norm_first else "post",
        "final_norm": "model.encoder.final_norm.weight" in renamed,
        "layer_norm_eps": options.layer_norm_eps,
        "attention_bias": "model.encoder.layers.0.self_attn.q_proj.bias" in renamed,
        "output_bias": OUTPUT_BIAS in renamed,
        "scale_embedding": options.scale_embedding,
        "position_embedding_type": options.position_embedding_type,
        "position_offset": options.position_offset,
        "max_position_embeddings": len(renamed[SOURCE_POSITIONS]) if learned else 1024,
        **options.token_ids,
    }


def write_torch(source: Path, directory: Path, options: Mapping[str, Any]) -> None:
    """Write one of our checkpoints as ``model.safetensors``, named as in a model that wraps torch.nn.Transformer.

    Args:
        source: our checkpoint.
        directory: an empty output directory.
        options: the names, as in `TorchOptions`; ``num_heads`` is read from the checkpoint.

    Raises:
        ValueError: If torch.nn.Transformer can't represent the architecture; the message lists all problems.
    """
    ours = read_parts(source)
    save_file(
        {name: tensor.clone() for name, tensor in to_torch_state_dict(ours.config, ours.tensors, options).items()},
        directory / "model.safetensors",
    )


def to_torch_state_dict(
    config: VanillaTransformerConfig, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Rename our tensors to those of a model around torch.nn.Transformer, with its fused projections.

    Args:
        config: of the checkpoint.
        tensors: by our names; tied matrices may be there once or several times.
        options: the names, as in `TorchOptions`.

    Returns:
        A state dict.

    Raises:
        ValueError: If torch.nn.Transformer can't represent the architecture; the message lists all problems.
    """
    chosen = TorchOptions.of({"num_heads": config.num_heads, **options})
    problems: list[str] = []
    required = {
        "key_dim": config.d_model / config.num_heads,
        "value_dim": config.d_model / config.num_heads,
        "attention_bias": True,
    }
    require_values(config, "torch.nn.Transformer", required, problems)
    if chosen.generator is None and not config.tie_word_embeddings:
        problems.append("the output projection is a separate matrix and needs a name, generator=…")
    if chosen.generator is None and config.output_bias:
        problems.append("the output bias needs a name, generator=…")
    if chosen.target_embedding is None and not config.share_encoder_decoder_embeddings:
        problems.append("the target embedding is a separate matrix and needs a name, target_embedding=…")
    if config.position_embedding_type == "learned" and (chosen.positions is None or chosen.target_positions is None):
        problems.append("the learned positions need names, positions=… and target_positions=…")
    raise_problems("the checkpoint", "to torch.nn.Transformer", problems)
    untied = untie({name: tensors[name] for name in expected_shapes(config)}, config)
    if chosen.target_embedding is None:
        del untied[TARGET_EMBEDDING]
    if chosen.generator is None:
        untied.pop(OUTPUT_PROJECTION, None)
    return _fuse(restore_keys(untied, _key_map(chosen)))


def _key_map(options: TorchOptions) -> KeyMap:
    key_map = dict(with_prefix(options.prefix, STACK_KEYS))
    key_map[options.embedding] = SOURCE_EMBEDDING
    if options.target_embedding is not None:
        key_map[options.target_embedding] = TARGET_EMBEDDING
    if options.generator is not None:
        key_map[f"{options.generator}.weight"] = OUTPUT_PROJECTION
        key_map[f"{options.generator}.bias"] = OUTPUT_BIAS
    if options.positions is not None:
        key_map[options.positions] = SOURCE_POSITIONS
    if options.target_positions is not None:
        key_map[options.target_positions] = TARGET_POSITIONS
    return key_map | dict.fromkeys(options.ignored)


def _split_fused(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split in_proj_weight (3D, D) and in_proj_bias (3D,) into query, key and value."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for kind in ("weight", "bias"):
            if name.endswith(f".in_proj_{kind}") and len(tensor) % 3 == 0:
                stem = name.removesuffix(f"in_proj_{kind}")
                for projection, part in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
                    split[f"{stem}{projection}.{kind}"] = part
                break
        else:
            split[name] = tensor
    return split


def _fuse(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join query, key and value again; the inverse of `_split_fused`."""
    fused: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        if stem.endswith("_attn.q_proj"):
            stem = stem.removesuffix("q_proj")
            parts = [tensors[f"{stem}{projection}.{kind}"] for projection in ("q_proj", "k_proj", "v_proj")]
            fused[f"{stem}in_proj_{kind}"] = torch.cat(parts)
        elif not stem.endswith(("_attn.k_proj", "_attn.v_proj")):
            fused[name] = tensor
    return fused


def _fill_absent_biases(renamed: dict[str, Tensor], config: VanillaTransformerConfig) -> None:
    """Add zeros for biases that our layers have and torch.nn.Transformer(bias=False) does not."""
    if any(name.endswith(("w_1.bias", "w_2.bias", "_norm.bias")) for name in renamed):
        return
    dtype = renamed[SOURCE_EMBEDDING].dtype
    for name, shape in expected_shapes(config).items():
        if name.endswith(("w_1.bias", "w_2.bias", "_norm.bias")):
            renamed.setdefault(name, torch.zeros(shape, dtype=dtype))


def _state_dict_file(source: Path) -> Path:
    if not source.exists():
        raise FileNotFoundError(f"there is no file or directory {source}")
    if source.is_file():
        return source
    found = sorted(path for path in source.iterdir() if path.suffix in {".pt", ".pth", ".bin", ".safetensors"})
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(f"{source} must have exactly one file of weights, but has: {names}. Give the path of the file")
    return found[0]


def _unwrap(path: Path) -> dict[str, Tensor]:
    """Read a state dict, or a training script's file that has one under a usual name."""
    if path.suffix == ".safetensors":
        return read_weight_file(path)
    content = read_pickle(path)
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} is not a dictionary of tensors; save the model's state_dict()")
    return dict(content)


__all__ = ["TorchOptions", "read_torch", "to_torch_state_dict", "write_torch"]
