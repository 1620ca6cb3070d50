# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Convert between transformers' Marian models (OPUS-MT) and our format.

Marian differs from the paper in four points, each a field of our configuration (swish, biases in attention, a bias on
the logits, the padding token as first decoder input), and in the order of the d_model axis: its sinusoids have all
sines before all cosines, where the paper alternates them. The frequencies are the same. The output of a Transformer
does not depend on the order of that axis if all weights that read or write it use the same order: embeddings, layer
norms, and one side of each projection. So the conversion reorders that axis and is exact.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MarianConfig

from .checkpoint_parts import CheckpointParts, read_parts
from .fairseq_family import (
    FAIRSEQ_LAYERS,
    LAYER_NORM_EPS,
    parse_config,
    require_packages,
    save_stock_checkpoint,
    to_our_fields,
    to_their_fields,
    unequal_stacks,
    warn_of_layer_drop,
)
from .foreign_files import load_tokenizer, read_config, read_generation_config, read_weights
from .key_map import (
    OUTPUT_BIAS,
    OUTPUT_PROJECTION,
    SOURCE_EMBEDDING,
    TARGET_EMBEDDING,
    KeyMap,
    rename_keys,
    restore_keys,
    with_prefix,
)
from .problems import build_config, raise_problems, require_complete, require_values
from .tied_matrices import detect_tying, untie

_DIRECTION = "from Marian"

_COMMON: KeyMap = {
    **with_prefix("model.", FAIRSEQ_LAYERS),
    "final_logits_bias": OUTPUT_BIAS,
    "model.encoder.embed_positions.weight": None,  # sinusoids, computed by our model
    "model.decoder.embed_positions.weight": None,
}
_THREE_WAY: KeyMap = {
    **_COMMON,
    "model.shared.weight": SOURCE_EMBEDDING,
    "model.encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.decoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "lm_head.weight": SOURCE_EMBEDDING,
}
_TWO_WAY: KeyMap = {
    **_COMMON,
    "model.encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.decoder.embed_tokens.weight": TARGET_EMBEDDING,
    "lm_head.weight": TARGET_EMBEDDING,
}
UNTIED_KEYS: KeyMap = {
    **_COMMON,
    "model.shared.weight": None,  # stored, but unused
    "model.encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.decoder.embed_tokens.weight": TARGET_EMBEDDING,
    "lm_head.weight": OUTPUT_PROJECTION,
}
# Before transformers 5, the two embeddings stayed tied to "shared" when the output was untied.
_SHARED_UNTIED_OUTPUT: KeyMap = {
    **_COMMON,
    "model.shared.weight": SOURCE_EMBEDDING,
    "lm_head.weight": OUTPUT_PROJECTION,
}

# The d_model axis of each tensor, by the end of its name; None if it has none.
MODEL_AXIS: Mapping[str, int | None] = {
    "embed_tokens.weight": 1,
    "lm_head.weight": 1,
    "lm_head.bias": None,
    "q_proj.weight": 1,
    "q_proj.bias": None,
    "k_proj.weight": 1,
    "k_proj.bias": None,
    "v_proj.weight": 1,
    "v_proj.bias": None,
    "out_proj.weight": 0,
    "out_proj.bias": 0,
    "w_1.weight": 1,
    "w_1.bias": None,
    "w_2.weight": 0,
    "w_2.bias": 0,
    "self_attn_norm.weight": 0,
    "self_attn_norm.bias": 0,
    "cross_attn_norm.weight": 0,
    "cross_attn_norm.bias": 0,
    "feed_forward_norm.weight": 0,
    "feed_forward_norm.bias": 0,
}


def read_marian(source: Path) -> CheckpointParts:
    """Read a directory of transformers' MarianMTModel.

    Args:
        source: with config.json, weights, and the tokenizer's source.spm, target.spm and vocab.json.

    Raises:
        ValueError: If it is not one, or our format can't express it; the message lists all problems.
        ImportError: If its tokenizer needs a package that is not installed.
    """
    content = read_config(source, "marian")
    marian = parse_config(MarianConfig, source, content)
    tensors = read_weights(source)
    problems = unequal_stacks(marian) + _contradictions(content)
    renamed = rename_keys(tensors, _key_map(marian, tensors), problems)
    raise_problems(source, _DIRECTION, problems)
    if OUTPUT_BIAS in renamed:
        renamed[OUTPUT_BIAS] = renamed[OUTPUT_BIAS].flatten()  # Marian's has the shape (1, V)
    elif SOURCE_EMBEDDING in renamed:  # not stored if it was never trained
        embedding = renamed.get(TARGET_EMBEDDING, renamed[SOURCE_EMBEDDING])
        renamed[OUTPUT_BIAS] = torch.zeros(len(embedding), dtype=embedding.dtype)
    tokenizer = _load_tokenizer(source)
    tying = detect_tying(renamed)
    fields = {
        "vocab_size": marian.vocab_size,
        "decoder_vocab_size": None if tying["share_encoder_decoder_embeddings"] else marian.decoder_vocab_size,
        "layer_norm_eps": LAYER_NORM_EPS,
        "attention_bias": True,
        "output_bias": True,
        "unk_token_id": None if tokenizer is None else tokenizer.unk_token_id,
        **to_our_fields(marian),
        **tying,
    }
    config = build_config(source, _DIRECTION, fields)
    require_complete(source, _DIRECTION, renamed, config)
    warn_of_layer_drop(source, marian)
    return CheckpointParts(
        config,
        permute_model_axis(renamed, halves_to_pairs(config.d_model)),
        read_generation_config(source, marian),
        tokenizer,
        _target_tokenizer(source, tokenizer),
    )


def write_marian(source: Path, directory: Path) -> None:
    """Write one of our checkpoints as a directory that transformers' MarianMTModel loads.

    Args:
        source: our checkpoint.
        directory: an empty output directory.

    Raises:
        ValueError: If Marian can't express it; the message lists all problems.
    """
    ours = read_parts(source)
    config = ours.config
    problems: list[str] = []
    required = {
        "norm_position": "post",
        "final_norm": False,
        "layer_norm_eps": LAYER_NORM_EPS,
        "attention_bias": True,
        "position_embedding_type": "sinusoidal",
        "position_offset": 0,
        "key_dim": config.d_model / config.num_heads,
        "value_dim": config.d_model / config.num_heads,
    }
    require_values(config, "Marian", required, problems)
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        if getattr(config, name) is None:
            problems.append(f"{name} is None, but Marian needs one")
    raise_problems(source, "to Marian", problems)
    three_way = config.share_encoder_decoder_embeddings and config.tie_word_embeddings
    marian = MarianConfig(
        vocab_size=config.vocab_size,
        decoder_vocab_size=config.output_vocab_size,
        share_encoder_decoder_embeddings=three_way,
        tie_word_embeddings=config.tie_word_embeddings,
        forced_eos_token_id=getattr(ours.generation_config, "forced_eos_token_id", None),
        architectures=["MarianMTModel"],
        **to_their_fields(config),
    )
    tensors = permute_model_axis(ours.tensors, torch.argsort(halves_to_pairs(config.d_model)))
    bias = tensors.get(OUTPUT_BIAS, torch.zeros(config.output_vocab_size, dtype=tensors[SOURCE_EMBEDDING].dtype))
    tensors[OUTPUT_BIAS] = bias.unsqueeze(0)
    if not three_way:
        tensors = untie(tensors, config)
        if config.tie_word_embeddings:
            del tensors[OUTPUT_PROJECTION]  # _TWO_WAY writes it as a copy of the target embedding
    key_map = _THREE_WAY if three_way else _TWO_WAY if config.tie_word_embeddings else UNTIED_KEYS
    save_stock_checkpoint(directory, marian, restore_keys(tensors, key_map), ours, source)


def halves_to_pairs(d_model: int) -> Tensor:
    """Return, for each index of an axis with alternating sines and cosines, its index where all sines come first.

    ``halves_to_pairs(6)`` is (0, 3, 1, 4, 2, 5).
    """
    return torch.arange(d_model).view(2, d_model // 2).t().flatten()


def permute_model_axis(tensors: Mapping[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """Reorder the d_model axis of every tensor (under our names): index i gets the values at ``order[i]``."""
    permuted = {}
    for name, tensor in tensors.items():
        axis = MODEL_AXIS[".".join(name.split(".")[-2:])]
        permuted[name] = tensor.contiguous() if axis is None else tensor.index_select(axis, order)
    return permuted


def _contradictions(content: Mapping[str, Any]) -> list[str]:
    """Return a clause for each field of the Marian toolkit in config.json that transformers' model ignores."""
    fixed = {
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "static_position_embeddings": True,
    }
    return [
        f"{name} is {content[name]!r}, but transformers' Marian model always computes it as {value!r}"
        for name, value in fixed.items()
        if content.get(name, value) != value
    ]


def _key_map(marian: MarianConfig, tensors: Mapping[str, Tensor]) -> KeyMap:
    if marian.tie_word_embeddings:
        return _THREE_WAY if marian.share_encoder_decoder_embeddings else _TWO_WAY
    separate = "model.encoder.embed_tokens.weight" in tensors
    return UNTIED_KEYS if separate or not marian.share_encoder_decoder_embeddings else _SHARED_UNTIED_OUTPUT


def _load_tokenizer(source: Path) -> Any:
    """Load Marian's tokenizer; its class is in transformers, so that AutoTokenizer can load what is saved."""
    if (source / "source.spm").is_file():
        require_packages(("sentencepiece",), "Marian", "sentencepiece")
    from transformers import MarianTokenizer

    return load_tokenizer(MarianTokenizer, source, ("source.spm", "target.spm", "vocab.json"))


def _target_tokenizer(source: Path, tokenizer: Any) -> Any:
    """Build a tokenizer of the target alone, if it has its own vocabulary."""
    if tokenizer is None or not tokenizer.separate_vocabs:
        return None
    from transformers import MarianTokenizer

    return MarianTokenizer(
        source_spm=str(source / "target.spm"),
        target_spm=str(source / "target.spm"),
        vocab=str(source / "target_vocab.json"),
        source_lang=tokenizer.target_lang,
        target_lang=tokenizer.target_lang,
        model_max_length=tokenizer.model_max_length,
    )


__all__ = ["MODEL_AXIS", "UNTIED_KEYS", "halves_to_pairs", "permute_model_axis", "read_marian", "write_marian"]
