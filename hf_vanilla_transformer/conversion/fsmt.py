# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Convert between FSMT (transformers' port of fairseq's translation models) and our format.

FSMT differs from the paper in its positions. Its sinusoids have other frequencies, with all sines before all cosines
(``position_embedding_type="sinusoidal_t2t"``), and positions are counted from ``pad_token_id + 1``. A target starts
with the EOS token. Each side may have its own vocabulary. FSMT's training code is wrong (it feeds the decoder other
inputs, and padding contributes to the loss), but its inference equals fairseq's and is converted exactly.
"""

from pathlib import Path

from transformers import FSMTConfig, GenerationConfig
from transformers.utils import logging

from ..json_object import read_json_object
from .checkpoint_parts import CheckpointParts, read_parts
from .fairseq_family import (
    FAIRSEQ_LAYERS,
    LAYER_NORM_EPS,
    parse_config,
    save_stock_checkpoint,
    to_our_fields,
    to_their_fields,
    unequal_stacks,
    warn_of_layer_drop,
)
from .foreign_files import read_config, read_generation_config, read_weights
from .fsmt_tokenizers import load_fsmt_tokenizers
from .key_map import (
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

logger = logging.get_logger(__name__)

_DIRECTION = "from FSMT"
_DEFAULT_UNK_TOKEN_ID = 3  # the fourth special token of fairseq's dictionaries

FSMT_KEYS: KeyMap = {
    **with_prefix("model.", FAIRSEQ_LAYERS),
    "model.encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.decoder.embed_tokens.weight": TARGET_EMBEDDING,
    "model.decoder.output_projection.weight": OUTPUT_PROJECTION,
    "model.encoder.embed_positions.weight": None,  # sinusoids, computed by our model
    "model.decoder.embed_positions.weight": None,
}
_TIED_KEYS: KeyMap = {  # if all three matrices are tied, a file has any of them
    **FSMT_KEYS,
    "model.decoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.decoder.output_projection.weight": SOURCE_EMBEDDING,
}


def read_fsmt(source: Path) -> CheckpointParts:
    """Read a directory of transformers' FSMTForConditionalGeneration.

    Args:
        source: with config.json, weights, and the tokenizer's vocab-src.json, vocab-tgt.json and merges.txt.

    Raises:
        ValueError: If it is not one, or our format can't express it; the message lists all problems.
        ImportError: If its tokenizer needs a package that is not installed.
    """
    fsmt = parse_config(FSMTConfig, source, read_config(source, "fsmt"))
    tensors = read_weights(source)
    problems = unequal_stacks(fsmt)
    if fsmt.pad_token_id is None:
        problems.append("pad_token_id is None, but positions are counted from it")
    renamed = rename_keys(tensors, _TIED_KEYS if fsmt.tie_word_embeddings else FSMT_KEYS, problems)
    if OUTPUT_PROJECTION not in renamed and not fsmt.tie_word_embeddings:
        problems.append("there is no tensor for lm_head.weight, although tie_word_embeddings is False")
    raise_problems(source, _DIRECTION, problems)
    tying = detect_tying(renamed)
    fields = {
        "vocab_size": fsmt.src_vocab_size,
        "decoder_vocab_size": None if tying["share_encoder_decoder_embeddings"] else fsmt.tgt_vocab_size,
        "layer_norm_eps": LAYER_NORM_EPS,
        "attention_bias": True,
        "position_embedding_type": "sinusoidal_t2t",
        "position_offset": (fsmt.pad_token_id or 0) + 1,
        "unk_token_id": _unk_token_id(source / "vocab-src.json"),
        **to_our_fields(fsmt),
        **tying,
    }
    config = build_config(source, _DIRECTION, fields)
    require_complete(source, _DIRECTION, renamed, config)
    warn_of_layer_drop(source, fsmt)
    tokenizer = target_tokenizer = None
    if (source / "vocab-src.json").is_file():
        tokenizer, target_tokenizer = load_fsmt_tokenizers(source)
    else:
        logger.warning(f"{source} has no vocab-src.json; the result has no tokenizer")
    return CheckpointParts(config, renamed, read_generation_config(source, fsmt), tokenizer, target_tokenizer)


def write_fsmt(source: Path, directory: Path) -> None:
    """Write one of our checkpoints as a directory that transformers' FSMTForConditionalGeneration loads.

    Args:
        source: our checkpoint.
        directory: an empty output directory.

    Raises:
        ValueError: If FSMT can't express it; the message lists all problems.
    """
    ours = read_parts(source)
    config = ours.config
    problems: list[str] = []
    required = {
        "norm_position": "post",
        "final_norm": False,
        "layer_norm_eps": LAYER_NORM_EPS,
        "attention_bias": True,
        "output_bias": False,
        "position_embedding_type": "sinusoidal_t2t",
        "position_offset": None if config.pad_token_id is None else config.pad_token_id + 1,
        "key_dim": config.d_model / config.num_heads,
        "value_dim": config.d_model / config.num_heads,
    }
    require_values(config, "FSMT", required, problems)
    raise_problems(source, "to FSMT", problems)
    generation = ours.generation_config or GenerationConfig()
    tokenizer_config = source / "tokenizer_config.json"
    languages = read_json_object(tokenizer_config).get("langs") if tokenizer_config.is_file() else None
    fsmt = FSMTConfig(
        langs=languages or ["source", "target"],
        src_vocab_size=config.vocab_size,
        tgt_vocab_size=config.output_vocab_size,
        tie_word_embeddings=config.share_encoder_decoder_embeddings and config.tie_word_embeddings,
        forced_eos_token_id=generation.forced_eos_token_id,
        architectures=["FSMTForConditionalGeneration"],
        **to_their_fields(config),
    )
    save_stock_checkpoint(directory, fsmt, restore_keys(untie(ours.tensors, config), FSMT_KEYS), ours, source)


def _unk_token_id(vocabulary: Path) -> int | None:
    return read_json_object(vocabulary).get("<unk>") if vocabulary.is_file() else _DEFAULT_UNK_TOKEN_ID


__all__ = ["FSMT_KEYS", "read_fsmt", "write_fsmt"]
