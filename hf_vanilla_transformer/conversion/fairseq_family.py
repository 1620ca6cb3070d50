# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Layer names and configuration fields that transformers' FSMT and Marian inherited from fairseq and BART."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import logging

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from .checkpoint_parts import CheckpointParts, copy_tokenizer
from .key_map import KeyMap

logger = logging.get_logger(__name__)

LAYER_NORM_EPS = 1e-5  # torch's default, which none of these models overrides

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

_SAME_NAME = (
    "d_model encoder_layers decoder_layers dropout attention_dropout activation_dropout activation_function "
    "max_position_embeddings scale_embedding pad_token_id bos_token_id eos_token_id decoder_start_token_id"
).split()
_PER_STACK = {"d_ff": "ffn_dim", "num_heads": "attention_heads"}  # our field → theirs, after "encoder_" or "decoder_"


def parse_config(config_class: Any, source: Path, content: Mapping[str, Any]) -> Any:
    """Build a configuration of transformers from the content of config.json.

    Raises:
        ValueError: If the content is invalid.
    """
    try:
        return config_class.from_dict(dict(content))
    except Exception as error:  # strict fields of transformers raise exceptions of their own
        message = f"{source}/config.json is not a valid configuration ({' '.join(str(error).split())})"
        raise ValueError(message) from error


def unequal_stacks(theirs: Any) -> list[str]:
    """Return a clause for each size that differs between encoder and decoder."""
    problems = []
    for ours, name in _PER_STACK.items():
        encoder, decoder = getattr(theirs, f"encoder_{name}"), getattr(theirs, f"decoder_{name}")
        if encoder != decoder:
            problems.append(
                f"encoder_{name} is {encoder} and decoder_{name} is {decoder}, but both stacks share one {ours}"
            )
    return problems


def to_our_fields(theirs: Any) -> dict[str, Any]:
    """Return our fields for a Marian or FSMT configuration; `unequal_stacks` checks that they can hold it."""
    fields = {name: getattr(theirs, name) for name in _SAME_NAME}
    return {**fields, **{ours: getattr(theirs, f"encoder_{name}") for ours, name in _PER_STACK.items()}}


def to_their_fields(config: VanillaTransformerConfig) -> dict[str, Any]:
    """Return the fields of a Marian or FSMT configuration for one of ours."""
    fields = {name: getattr(config, name) for name in _SAME_NAME}
    for ours, name in _PER_STACK.items():
        fields |= {f"{stack}_{name}": getattr(config, ours) for stack in ("encoder", "decoder")}
    return fields


def warn_of_layer_drop(source: Path, theirs: Any) -> None:
    """Log that layer drop is not converted."""
    if theirs.encoder_layerdrop or theirs.decoder_layerdrop:
        logger.warning(f"{source}: layer drop is not converted; it affects further training, not the outputs")


def require_packages(names: tuple[str, ...], tokenizer: str, install: str) -> None:
    """Check that the packages of a tokenizer are installed.

    Raises:
        ImportError: If one is missing.
    """
    if any(importlib.util.find_spec(name) is None for name in names):
        raise ImportError(f"{tokenizer}'s tokenizer needs {install}; run `pip install {install}`")


def save_stock_checkpoint(
    directory: Path, theirs: Any, tensors: Mapping[str, Tensor], ours: CheckpointParts, source: Path
) -> None:
    """Write the directory of a model of transformers.

    Args:
        directory: an empty output directory.
        theirs: the configuration.
        tensors: the weights, by the names of that model; tensors may share memory.
        ours: the checkpoint they were converted from; gives the generation settings.
        source: its directory; gives the tokenizer.
    """
    theirs.dtype = next(iter(tensors.values())).dtype
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    save_torch_state_dict(copies, directory, metadata={"format": "pt"})
    theirs.save_pretrained(directory)
    (ours.generation_config or GenerationConfig()).save_pretrained(directory)
    copy_tokenizer(source, directory)


__all__ = [
    "FAIRSEQ_LAYERS",
    "LAYER_NORM_EPS",
    "parse_config",
    "require_packages",
    "save_stock_checkpoint",
    "to_our_fields",
    "to_their_fields",
    "unequal_stacks",
    "warn_of_layer_drop",
]
