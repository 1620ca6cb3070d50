# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Marian as transformers holds it (OPUS-MT), in and out.

Marian's model is the paper's but for four things, each a field of our configuration (swish, biases, a bias on the
logits, the padding symbol as first decoder input), and for the order of the model's axis: its sinusoids stand in
halves, all sines and then all cosines, where the paper alternates them. The frequencies are the same, and nothing in a
Transformer depends on the order of that axis as long as everything that reads or writes it agrees: embeddings, layer
normalisations, and each projection's side on that axis. So the import is exact.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import GenerationConfig, MarianConfig
from transformers.utils import logging

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from .bart_fields import our_fields, their_fields
from .importing import (
    ImportedCheckpoint,
    carry_tokenizer,
    load_tokenizer,
    read_config,
    read_generation_config,
    read_own,
    read_weights,
)
from .key_map import (
    FAIRSEQ_LAYERS,
    OUTPUT_BIAS,
    OUTPUT_PROJECTION,
    SOURCE_EMBEDDING,
    TARGET_EMBEDDING,
    KeyMap,
    check_complete,
    detect_tying,
    refuse,
    rename_keys,
    restore_keys,
    untie,
    with_prefix,
)

logger = logging.get_logger(__name__)

_LAYER_NORM_EPS = 1e-5  # torch's default, which Marian's code leaves in force

_COMMON: KeyMap = {
    **with_prefix("model.", FAIRSEQ_LAYERS),
    "final_logits_bias": OUTPUT_BIAS,
    "model.encoder.embed_positions.weight": None,  # sinusoids, computed here
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
_UNTIED: KeyMap = {
    **_COMMON,
    "model.shared.weight": None,  # there, but read by nothing
    "model.encoder.embed_tokens.weight": SOURCE_EMBEDDING,
    "model.decoder.embed_tokens.weight": TARGET_EMBEDDING,
    "lm_head.weight": OUTPUT_PROJECTION,
}
# Saved before transformers 5, where an untied output left the two embeddings tied to "shared".
_SHARED_UNTIED_OUTPUT: KeyMap = {
    **_COMMON,
    "model.shared.weight": SOURCE_EMBEDDING,
    "lm_head.weight": OUTPUT_PROJECTION,
}

# Which axis of a tensor, by the end of its name, is the model's (d_model); None has none.
_MODEL_AXIS: Mapping[str, int | None] = {
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


def read_marian(source: Path) -> ImportedCheckpoint:
    """Read a directory of transformers' MarianMTModel.

    Args:
        source: with config.json, weights, and the tokenizer's source.spm, target.spm and vocab.json.

    Raises:
        ValueError: If it is none, or something in it can't be expressed; the message lists everything.
    """
    written = read_config(source, "marian")
    try:
        marian = MarianConfig.from_dict(dict(written))
    except Exception as error:  # the strict fields of transformers raise exceptions of their own
        raise ValueError(f"{source}/config.json is no valid configuration ({' '.join(str(error).split())})") from error
    tensors = read_weights(source)
    problems = _inexpressible(marian, written)
    fits = not problems
    key_map = _key_map(marian, tensors)
    renamed = rename_keys(tensors, key_map, problems)
    bias = renamed.get(OUTPUT_BIAS)
    if bias is not None:
        renamed[OUTPUT_BIAS] = bias.flatten()  # (1, V) there
    elif SOURCE_EMBEDDING in renamed:  # left out where it was never trained
        rows = renamed.get(TARGET_EMBEDDING, renamed[SOURCE_EMBEDDING])
        renamed[OUTPUT_BIAS] = torch.zeros(len(rows), dtype=rows.dtype)
    tokenizer = _load_tokenizer(source)
    config = None
    if fits and not problems:
        try:
            config = _our_config(marian, detect_tying(renamed), tokenizer)
            check_complete(renamed, config, problems)
        except ValueError as error:
            problems.append(str(error))
    refuse(source, "from Marian", problems)
    assert config is not None
    if marian.encoder_layerdrop or marian.decoder_layerdrop:
        logger.warning(f"{source}: layer drop is left out; it changes further training, not the model")
    renamed = permute_model_axis(renamed, halves_to_pairs(config.d_model))
    generation = read_generation_config(source, marian)
    return ImportedCheckpoint(config, renamed, generation, tokenizer, _target_tokenizer(source, tokenizer))


def write_marian(source: Path, directory: Path) -> None:
    """Write one of our checkpoints as a directory that transformers' MarianMTModel loads.

    Args:
        source: our checkpoint.
        directory: an empty one.

    Raises:
        ValueError: If Marian can't express it; the message lists everything.
    """
    own = read_own(source)
    config, problems = own.config, []
    heads_width = config.d_model / config.num_heads
    for name, value in {
        "norm_position": "post",
        "final_norm": False,
        "layer_norm_eps": _LAYER_NORM_EPS,
        "attention_bias": True,
        "position_embedding_type": "sinusoidal",
        "position_offset": 0,
        "key_dim": heads_width,
        "value_dim": heads_width,
    }.items():
        if getattr(config, name) != value:
            problems.append(f"{name} is {getattr(config, name)!r}, which in Marian is always {value!r}")
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        if getattr(config, name) is None:
            problems.append(f"{name} is None, which Marian needs")
    refuse(source, "to Marian", problems)
    share = config.share_encoder_decoder_embeddings and config.tie_word_embeddings
    marian = MarianConfig(
        vocab_size=config.vocab_size,
        decoder_vocab_size=config.output_vocab_size,
        share_encoder_decoder_embeddings=share,
        tie_word_embeddings=config.tie_word_embeddings,
        forced_eos_token_id=getattr(own.generation_config, "forced_eos_token_id", None),
        architectures=["MarianMTModel"],
        **their_fields(config),
    )
    tensors = permute_model_axis(own.tensors, torch.argsort(halves_to_pairs(config.d_model)))
    bias = tensors.get(OUTPUT_BIAS, torch.zeros(config.output_vocab_size, dtype=tensors[SOURCE_EMBEDDING].dtype))
    tensors[OUTPUT_BIAS] = bias.unsqueeze(0)
    key_map = _THREE_WAY if share else _TWO_WAY if config.tie_word_embeddings else _UNTIED
    if not share:
        tensors = untie(tensors, config)
    if key_map is _TWO_WAY:
        del tensors[OUTPUT_PROJECTION]  # a second name for the target's embedding
    restored = {name: tensor.clone() for name, tensor in restore_keys(tensors, key_map).items()}
    marian.dtype = next(iter(restored.values())).dtype
    save_torch_state_dict(restored, directory, metadata={"format": "pt"})
    marian.save_pretrained(directory)
    (own.generation_config or GenerationConfig()).save_pretrained(directory)
    carry_tokenizer(source, directory)


def halves_to_pairs(d_model: int) -> Tensor:
    """Give, for each place of an axis where sine and cosine alternate, its place where all sines come first.

    ``halves_to_pairs(6)`` is (0, 3, 1, 4, 2, 5).
    """
    return torch.arange(d_model).view(2, d_model // 2).t().flatten()


def permute_model_axis(tensors: Mapping[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """Reorder the model's axis of every tensor (our names): place i gets what was at ``order[i]``."""
    permuted = {}
    for name, tensor in tensors.items():
        axis = _MODEL_AXIS[".".join(name.split(".")[-2:])]
        permuted[name] = tensor.contiguous() if axis is None else tensor.index_select(axis, order)
    return permuted


def _inexpressible(marian: MarianConfig, written: Mapping[str, Any]) -> list[str]:
    """Name what our configuration has no field for, and what contradicts the code that runs Marian in transformers."""
    problems = []
    for ours, theirs in {"num_heads": "attention_heads", "d_ff": "ffn_dim"}.items():
        encoder, decoder = getattr(marian, f"encoder_{theirs}"), getattr(marian, f"decoder_{theirs}")
        if encoder != decoder:
            problems.append(f"encoder_{theirs} is {encoder} and decoder_{theirs} {decoder}, but there is one {ours}")
    # Fields of the Marian toolkit, carried along in OPUS-MT's config.json, which transformers' model doesn't read.
    for name, value in {
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "static_position_embeddings": True,
    }.items():
        if written.get(name, value) != value:
            problems.append(f"{name} is {written[name]!r}, which transformers' own Marian doesn't compute")
    return problems


def _key_map(marian: MarianConfig, tensors: Mapping[str, Tensor]) -> KeyMap:
    if marian.tie_word_embeddings:
        return _THREE_WAY if marian.share_encoder_decoder_embeddings else _TWO_WAY
    has_own = "model.encoder.embed_tokens.weight" in tensors
    return _UNTIED if has_own or not marian.share_encoder_decoder_embeddings else _SHARED_UNTIED_OUTPUT


def _our_config(marian: MarianConfig, tying: dict[str, Any], tokenizer: Any) -> VanillaTransformerConfig:
    return VanillaTransformerConfig(
        vocab_size=marian.vocab_size,
        decoder_vocab_size=None if tying["share_encoder_decoder_embeddings"] else marian.decoder_vocab_size,
        layer_norm_eps=_LAYER_NORM_EPS,
        attention_bias=True,
        output_bias=True,
        unk_token_id=None if tokenizer is None else tokenizer.unk_token_id,
        **our_fields(marian),
        **tying,
    )


def _load_tokenizer(source: Path) -> Any:
    """Load the stock tokenizer, which is saved with its class's name, so that AutoTokenizer finds it anywhere."""
    import importlib.util

    if importlib.util.find_spec("sentencepiece") is None and (source / "source.spm").is_file():
        raise ImportError("Marian's tokenizer needs sentencepiece; run `pip install sentencepiece`")
    from transformers import MarianTokenizer

    return load_tokenizer(MarianTokenizer, source, ("source.spm", "target.spm", "vocab.json"))


def _target_tokenizer(source: Path, tokenizer: Any) -> Any:
    """Make a tokenizer of the target's side alone, where it has a vocabulary of its own."""
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


__all__ = ["halves_to_pairs", "permute_model_axis", "read_marian", "write_marian"]
