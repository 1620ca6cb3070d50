# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Our models in the format of CTranslate2, a C++ runtime for translation with 8-bit weights.

Importing this module also teaches CTranslate2's own `TransformersConverter` our configuration class. What the format
can't say is refused with all its reasons at once; how its beam search differs from the paper's is the business of
whoever runs it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from ctranslate2.converters import utils
from ctranslate2.converters.transformers import ModelLoader, register_loader
from ctranslate2.specs import common_spec, transformer_spec
from torch import Tensor, nn

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.layers_vanilla_transformer import MultiHeadAttention
from ..model.special_tokens_vanilla_transformer import SpecialTokens

# Rows of the position table that goes with the weights: tokens a source or a target may have there.
POSITIONS = 4096
QUANTIZATIONS = ("float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16", "int8_bfloat16")

_ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "gelu": common_spec.Activation.GELU,
    "gelu_new": common_spec.Activation.GELUTanh,
    "gelu_pytorch_tanh": common_spec.Activation.GELUTanh,
    "quick_gelu": common_spec.Activation.GELUSigmoid,
    "silu": common_spec.Activation.SWISH,
    "swish": common_spec.Activation.SWISH,
}


def write_ctranslate2(
    model: Any, source_tokens: Sequence[str], target_tokens: Sequence[str], directory: Path, quantization: str | None
) -> dict[str, Any]:
    """Write model.bin, its configuration and its vocabularies into a folder that exists.

    Args:
        model: `VanillaTransformerForConditionalGeneration`.
        source_tokens: the source vocabulary in the order of its ids; may be shorter than the embedding.
        target_tokens: the target vocabulary, likewise.
        directory: where to.
        quantization: how weights are stored, one of `QUANTIZATIONS`; None is "float32".

    Returns:
        What a runtime has to know beside the files: ``positions``, the longest sentence in tokens, and
        ``quantization``.

    Raises:
        ValueError: If the format has no word for the model, or ``quantization`` is unknown.
    """
    quantization = quantization or "float32"
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization={quantization!r} is unknown; choose one of {', '.join(QUANTIZATIONS)}")
    spec = build_spec(model)
    spec.register_source_vocabulary(_fill(source_tokens, model.config.vocab_size))
    spec.register_target_vocabulary(_fill(target_tokens, model.config.output_vocab_size))
    _set_config(spec.config, model, source_tokens, target_tokens)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(directory))
    return {
        "positions": _positions(model.config),
        "quantization": quantization,
        "ctranslate2": ctranslate2.__version__,
    }


def refused_fields(config: VanillaTransformerConfig) -> list[str]:
    """List what of a configuration CTranslate2 can't express, each with the field's name and value."""
    refused = []
    if config.key_dim != config.value_dim:
        refused.append(f"d_k={config.key_dim} and d_v={config.value_dim} differ, and it knows one width a head")
    if config.activation_function not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        refused.append(f"activation_function={config.activation_function!r} is none of {known}")
    if config.unk_token_id is None:
        refused.append("unk_token_id is missing")
    return refused


@torch.no_grad()
def build_spec(model: Any) -> transformer_spec.TransformerSpec:
    """Lay the weights out as CTranslate2's Transformer has them; vocabularies and symbols are the caller's.

    Raises:
        ValueError: If the configuration can't be expressed; every reason is named.
    """
    config = model.config
    if refused := refused_fields(config):
        raise ValueError(f"CTranslate2 can't express this model: {'; '.join(refused)}")
    options = {
        "num_heads": config.num_heads,
        # True makes room for the norms behind the stacks, which exist here with post-norm, too.
        "pre_norm": config.norm_position == "pre" or config.final_norm,
        "no_final_norm": not config.final_norm,
        "activation": _ACTIVATIONS[config.activation_function],
        # Written only where it isn't what the runtime would take it for.
        "head_dim": None if config.num_heads * config.key_dim == config.d_model else config.key_dim,
    }
    encoder = transformer_spec.TransformerEncoderSpec(config.encoder_layers, **options)
    decoder = transformer_spec.TransformerDecoderSpec(config.decoder_layers, **options)
    for spec, stack in ((encoder, model.model.encoder), (decoder, model.model.decoder)):
        spec.pre_norm = config.norm_position == "pre"
        spec.scale_embeddings = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        spec.position_encodings.encodings = stack.embed_positions(torch.arange(_positions(config)), torch.float32)
        embeddings = spec.embeddings[0] if isinstance(spec.embeddings, list) else spec.embeddings
        embeddings.weight = _plain(stack.embed_tokens.weight)
        if stack.final_norm is not None:
            _set_norm(spec.layer_norm, stack.final_norm)
        for layer_spec, layer in zip(spec.layer, stack.layers, strict=True):
            _set_attention(layer_spec.self_attention, layer.self_attn)
            _set_norm(layer_spec.self_attention.layer_norm, layer.self_attn_norm)
            if stack is model.model.decoder:
                _set_attention(layer_spec.attention, layer.cross_attn)
                _set_norm(layer_spec.attention.layer_norm, layer.cross_attn_norm)
            _set_linear(layer_spec.ffn.linear_0, layer.feed_forward.w_1)
            _set_linear(layer_spec.ffn.linear_1, layer.feed_forward.w_2)
            _set_norm(layer_spec.ffn.layer_norm, layer.feed_forward_norm)
    _set_linear(decoder.projection, model.lm_head)
    return transformer_spec.TransformerSpec(encoder, decoder)


def _positions(config: VanillaTransformerConfig) -> int:
    """Say how many positions the exported table has; learned ones are as many as there are."""
    if config.position_embedding_type == "learned":
        return config.max_position_embeddings - config.position_offset
    return POSITIONS


def _set_config(written: Any, model: Any, source_tokens: Sequence[str], target_tokens: Sequence[str]) -> None:
    config, special = model.config, SpecialTokens.of(model, None)
    written.unk_token = source_tokens[config.unk_token_id]
    written.eos_token = target_tokens[
        special.eos_token_id[0]
    ]  # the file has room for one; the engine is told of the others
    written.decoder_start_token = target_tokens[special.decoder_start_token_id]
    written.bos_token = written.decoder_start_token
    written.layer_norm_epsilon = config.layer_norm_eps


def _fill(tokens: Sequence[str], size: int) -> list[str]:
    """Name the rows of the embedding that the tokenizer has no token for; no text ever spells them."""
    if len(tokens) > size:
        raise ValueError(
            f"the tokenizer has {len(tokens)} tokens, the model's vocabulary only {size}; use the tokenizer that was "
            "saved with the model"
        )
    return [*tokens, *(f"<unused {index}>" for index in range(len(tokens), size))]


def _set_attention(spec: Any, attention: MultiHeadAttention) -> None:
    """Fuse the projections that see the same states: all three in self-attention, keys and values in the other."""
    projections = []
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projections.append(common_spec.LinearSpec())
        _set_linear(projections[-1], projection)
    if len(spec.linear) == 2:
        utils.fuse_linear(spec.linear[0], projections)
    else:
        utils.fuse_linear(spec.linear[0], projections[:1])
        utils.fuse_linear(spec.linear[1], projections[1:])
    _set_linear(spec.linear[-1], attention.out_proj)


def _set_linear(spec: Any, linear: nn.Linear) -> None:
    spec.weight = _plain(linear.weight)
    if linear.bias is not None:
        spec.bias = _plain(linear.bias)


def _set_norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _plain(norm.weight), _plain(norm.bias)


def _plain(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32)


@register_loader("VanillaTransformerConfig")
class VanillaTransformerLoader(ModelLoader):
    """Lets `ctranslate2.converters.TransformersConverter` read our checkpoints, once this module is imported."""

    @property
    def architecture_name(self) -> str:
        """Name the class of transformers that loads the checkpoint."""
        return "AutoModelForSeq2SeqLM"

    def get_model_spec(self, model: Any) -> transformer_spec.TransformerSpec:
        """See `build_spec`."""
        return build_spec(model)

    def set_vocabulary(self, spec: Any, tokens: list[str]) -> None:
        """Register one vocabulary for both sides."""
        spec.register_source_vocabulary(_fill(tokens, spec.get_source_vocabulary_size()[0]))
        spec.register_target_vocabulary(_fill(tokens, spec.get_target_vocabulary_size()))

    def set_config(self, config: Any, model: Any, tokenizer: Any) -> None:
        """Name the special tokens, the start symbol and the norms' ε."""
        tokens = self.get_vocabulary(model, tokenizer)
        _set_config(config, model, tokens, tokens)


__all__ = ["POSITIONS", "QUANTIZATIONS", "build_spec", "refused_fields", "write_ctranslate2"]
