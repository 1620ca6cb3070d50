# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Convert checkpoints of fairseq's transformer to our format.

They differ from the paper in their positions: sinusoids have other frequencies, with all sines before all cosines
(``position_embedding_type="sinusoidal_t2t"``), and positions are counted from the padding id + 1. A target starts with
the EOS token. Each side may have its own vocabulary.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .checkpoint_parts import CheckpointParts, default_generation_config
from .fairseq_dictionaries import Dictionary, build_tokenizers, read_dictionaries
from .fairseq_family import FAIRSEQ_LAYERS, LAYER_NORM_EPS
from .foreign_files import read_pickle
from .key_map import (
    OUTPUT_PROJECTION,
    SOURCE_EMBEDDING,
    SOURCE_POSITIONS,
    TARGET_EMBEDDING,
    TARGET_POSITIONS,
    KeyMap,
    count_layers,
    rename_keys,
)
from .problems import build_config, raise_problems, require_complete
from .tied_matrices import detect_tying

_DIRECTION = "from fairseq"
_FIRST_VERSION_WITH_FINAL_NORM = 3

FAIRSEQ_KEYS: KeyMap = {
    **FAIRSEQ_LAYERS,
    "encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "decoder.embed_tokens.weight": TARGET_EMBEDDING,
    "decoder.output_projection.weight": OUTPUT_PROJECTION,
    "decoder.embed_out": OUTPUT_PROJECTION,  # its name before fairseq 0.10
    "encoder.layer_norm.weight": "model.encoder.final_norm.weight",
    "encoder.layer_norm.bias": "model.encoder.final_norm.bias",
    "decoder.layer_norm.weight": "model.decoder.final_norm.weight",
    "decoder.layer_norm.bias": "model.decoder.final_norm.bias",
    "encoder.version": None,
    "decoder.version": None,
    "encoder.embed_positions._float_tensor": None,  # holds a dtype and a device, no values
    "decoder.embed_positions._float_tensor": None,
}
_LEARNED_POSITIONS: KeyMap = {
    "encoder.embed_positions.weight": SOURCE_POSITIONS,
    "decoder.embed_positions.weight": TARGET_POSITIONS,
}
_UNUSED_FINAL_NORM: KeyMap = {
    "encoder.layer_norm.weight": None,
    "encoder.layer_norm.bias": None,
    "decoder.layer_norm.weight": None,
    "decoder.layer_norm.bias": None,
}
_ACTIVATIONS = {  # fairseq's name → transformers'
    "relu": "relu",
    "gelu": "gelu",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "swish": "swish",
    "tanh": "tanh",
}
_UNSUPPORTED_OPTIONS = (
    "adaptive_input",
    "adaptive_softmax_cutoff",
    "character_embeddings",
    "cross_self_attention",
    "layernorm_embedding",
    "no_cross_attention",
    "no_decoder_final_norm",
    "no_token_positional_embeddings",
)


@dataclass(frozen=True)
class _FairseqCheckpoint:
    """What a file of fairseq contains: tensors by name, and the options of model and task."""

    tensors: dict[str, Tensor]
    options: dict[str, Any]
    task: dict[str, Any]


def read_fairseq(source: Path) -> CheckpointParts:
    """Read a checkpoint of fairseq's transformer.

    Args:
        source: a directory with one checkpoint (model.pt, checkpoint_best.pt or a single other .pt file),
            dict.<language>.txt of both sides and, to segment text, the BPE codes as bpecodes; or the checkpoint's file,
            in a directory with the others.

    Raises:
        ValueError: If it is not one, or our format can't express it; the message lists all problems.
        ImportError: If its tokenizer needs a package that is not installed.
    """
    path = _checkpoint_file(source)
    found = _load(path)
    options = found.options
    dictionaries = read_dictionaries(path.parent, found.task)
    problems = _unsupported(options)
    renamed = rename_keys(found.tensors, _key_map(found), problems)
    raise_problems(path, _DIRECTION, problems)
    _check_vocabularies(path, renamed, options, dictionaries)
    sizes = [len(renamed[name]) for name in (SOURCE_EMBEDDING, TARGET_EMBEDDING)]
    tying = detect_tying(renamed)
    fields = {
        **_config_fields(found, renamed),
        "vocab_size": sizes[0],
        "decoder_vocab_size": None if tying["share_encoder_decoder_embeddings"] else sizes[1],
        **tying,
    }
    config = build_config(path, _DIRECTION, fields)
    require_complete(path, _DIRECTION, renamed, config)
    tokenizer, target_tokenizer = build_tokenizers(path.parent, dictionaries, found.task)
    return CheckpointParts(config, renamed, default_generation_config(config), tokenizer, target_tokenizer)


def _checkpoint_file(source: Path) -> Path:
    if not source.exists():
        raise FileNotFoundError(f"there is no file or directory {source}")
    if source.is_file():
        return source
    for name in ("model.pt", "checkpoint_best.pt"):
        if (source / name).is_file():
            return source / name
    found = sorted(source.glob("*.pt"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(f"{source} has no model.pt; its other .pt files are: {names}. Give the path of the file")
    return found[0]


def _load(path: Path) -> _FairseqCheckpoint:
    """Load a file; its options are in "args" before fairseq 0.10 and in "cfg" since."""
    content = read_pickle(path, allowed=(argparse.Namespace,))
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{path} is not a checkpoint of fairseq: it has no 'model'")

    def as_dict(options: Any) -> dict[str, Any]:
        return dict(vars(options)) if isinstance(options, argparse.Namespace) else dict(options or {})

    if content.get("cfg") is not None:
        configuration = as_dict(content["cfg"])
        options, task = as_dict(configuration.get("model")), as_dict(configuration.get("task"))
    elif content.get("args") is not None:
        options = task = as_dict(content["args"])
    else:
        raise ValueError(f"{path} has neither 'args' nor 'cfg', which hold the model's options, e.g. its heads")
    tensors = {name: tensor for name, tensor in content["model"].items() if isinstance(tensor, Tensor)}
    return _FairseqCheckpoint(tensors, options, task)


def _unsupported(options: Mapping[str, Any]) -> list[str]:
    """Return a clause for each option that our configuration can't express."""
    problems = []
    for name in ("embed_dim", "ffn_embed_dim", "attention_heads", "normalize_before", "learned_pos"):
        sides = [options.get(f"{side}_{name}") for side in ("encoder", "decoder")]
        if name in ("normalize_before", "learned_pos"):
            sides = [bool(value) for value in sides]
        elif None in sides:
            problems.append(f"the options lack encoder_{name} or decoder_{name}")
            continue
        if sides[0] != sides[1]:
            problems.append(f"encoder_{name} is {sides[0]} and decoder_{name} is {sides[1]}, but they must be equal")
    problems += [f"{name}={options[name]!r} is not supported" for name in _UNSUPPORTED_OPTIONS if options.get(name)]
    for name in ("decoder_input_dim", "decoder_output_dim"):
        width = options.get(name)
        if width is not None and width != options.get("decoder_embed_dim"):
            problems.append(f"{name} is {width}, but decoder_embed_dim is {options.get('decoder_embed_dim')}")
    if (activation := options.get("activation_fn", "relu")) not in _ACTIVATIONS:
        problems.append(f"activation_fn={activation!r} has no counterpart in transformers")
    return problems


def _key_map(checkpoint: _FairseqCheckpoint) -> KeyMap:
    key_map = dict(FAIRSEQ_KEYS)
    version = checkpoint.tensors.get("encoder.version")
    if version is None or float(version.flatten()[0]) < _FIRST_VERSION_WITH_FINAL_NORM:
        key_map |= _UNUSED_FINAL_NORM  # such stacks don't apply it, even if the file has its weights
    if checkpoint.options.get("encoder_learned_pos"):
        key_map |= _LEARNED_POSITIONS
    return key_map


def _check_vocabularies(
    path: Path, renamed: Mapping[str, Tensor], options: Mapping[str, Any], dictionaries: list[Dictionary]
) -> None:
    """Check that both embeddings and the output are there, and fit the dictionaries.

    Raises:
        ValueError: With all problems.
    """
    problems = []
    for name, dictionary in zip((SOURCE_EMBEDDING, TARGET_EMBEDDING), dictionaries, strict=False):
        tokens = max(dictionary.values()) + 1
        if name in renamed and len(renamed[name]) != tokens:
            problems.append(f"{name} has {len(renamed[name])} rows, but its dictionary has {tokens} tokens")
    shared_output = options.get("share_decoder_input_output_embed") or options.get("share_all_embeddings")
    if OUTPUT_PROJECTION not in renamed and not shared_output:
        problems.append("there is no tensor for lm_head.weight, although the output shares no embedding")
    if SOURCE_EMBEDDING not in renamed or TARGET_EMBEDDING not in renamed:
        problems.append("an embedding is missing; there must be one for the encoder and one for the decoder")
    raise_problems(path, _DIRECTION, problems)


def _config_fields(checkpoint: _FairseqCheckpoint, renamed: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return all fields of our configuration but those of the vocabularies."""
    options = checkpoint.options
    position_table = renamed.get(SOURCE_POSITIONS)
    return {
        "d_model": options["encoder_embed_dim"],
        "d_ff": options["encoder_ffn_embed_dim"],
        "num_heads": options["encoder_attention_heads"],
        "encoder_layers": count_layers(checkpoint.tensors, "encoder"),
        "decoder_layers": count_layers(checkpoint.tensors, "decoder"),
        "dropout": options.get("dropout", 0.1),
        "attention_dropout": options.get("attention_dropout", 0.0),
        "activation_dropout": options.get("activation_dropout", 0.0) or options.get("relu_dropout", 0.0),
        "activation_function": _ACTIVATIONS[options.get("activation_fn", "relu")],
        "norm_position": "pre" if options.get("encoder_normalize_before") else "post",
        "final_norm": "model.encoder.final_norm.weight" in renamed,
        "layer_norm_eps": LAYER_NORM_EPS,
        "attention_bias": True,
        "scale_embedding": not options.get("no_scale_embedding", False),
        "position_embedding_type": "learned" if options.get("encoder_learned_pos") else "sinusoidal_t2t",
        "position_offset": 2,  # pad_token_id + 1
        "max_position_embeddings": 1024 if position_table is None else len(position_table),
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "unk_token_id": 3,
        "decoder_start_token_id": 2,
    }


__all__ = ["FAIRSEQ_KEYS", "read_fairseq"]
