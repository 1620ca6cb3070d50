# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The layers of the paper with transformers' attention kernels, caches and gradient checkpointing."""

# Shapes: B batch · S source length · T target length · D d_model · H heads · K d_k

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.modeling_utils import AttentionInterface
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .attention_kernels_vanilla_transformer import plain_attention, prefers_plain_products
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .layers_vanilla_transformer import (
    DecoderLayer,
    EncoderLayer,
    MultiHeadAttention,
    scaled_dot_product_attention,
)

# The name of the cache in the outputs and mask functions of the installed transformers. 5.24 renamed
# `past_key_values` to `cache`; using the other name on an output fails before 5.24 and warns from 5.24 on.
CACHE_NAME = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"


def resolve_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """Return the cache that was passed under either of its two names.

    From transformers 5.24 on, `generate` passes its cache as ``cache``, and PEFT 0.21 additionally passes its tuned
    prefix as ``past_key_values`` in every step. The prefix is used in the first step, in which the cache of `generate`
    is still empty; in later steps that cache contains the prefix.

    Raises:
        ValueError: If different caches were passed under both names, and the second is not a tuned prefix.
    """
    if past_key_values is None:
        return cache
    if cache is not None and cache is not past_key_values:
        if not _is_tuned_prefix(past_key_values):
            raise ValueError("cache and past_key_values are two names of one argument; pass only one of them")
        return past_key_values if cache.get_seq_length() == 0 else cache
    if CACHE_NAME == "cache" and not torch.compiler.is_compiling():
        warnings.warn("`past_key_values` is deprecated; use `cache` instead", FutureWarning, stacklevel=2)
    return past_key_values


def _is_tuned_prefix(cache: Cache) -> bool:
    """Return whether a cache holds target positions although no decoder step has written to it."""
    return isinstance(cache, EncoderDecoderCache) and cache.get_seq_length() > 0 and not any(cache.is_updated.values())


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Compute the paper's attention (§3.2.1) with the signature of transformers' attention functions."""
    context, weights = scaled_dot_product_attention(query, key, value, attention_mask, dropout, scaling)
    return context.transpose(1, 2), weights  # (B, T, H, K)


def fastest_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute the paper's attention by plain products or torch's fused kernel, whichever is faster on this device.

    Takes the masks of transformers' "sdpa": boolean, True keeps, or additive, or None. Returns no weights.
    """
    if not prefers_plain_products(query, key):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    causal = attention_mask is None and getattr(module, "is_causal", False) and query.shape[2] > 1
    if causal:
        shape = query.shape[2], key.shape[2]
        attention_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril_()
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        hidden = torch.finfo(query.dtype).min  # not −inf: a row without any visible position would become NaN
        attention_mask = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(~attention_mask, hidden)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return plain_attention(query, key, value, attention_mask, dropout, scaling).transpose(1, 2), None  # (B, T, H, K)


# transformers' attention functions, with our own for "sdpa", which is the default: of the two ways to compute scaled
# dot-product attention, it selects the faster one. "eager" always uses plain products, "fused" always torch's kernel.
_attention_functions = AttentionInterface()
_attention_functions["sdpa"] = fastest_attention_forward
AttentionInterface.register("fused", sdpa_attention_forward)
AttentionMaskInterface.register("fused", sdpa_mask)


class VanillaTransformerAttention(MultiHeadAttention):
    """The paper's multi-head attention (§3.2.2) with transformers' attention kernels and caches."""

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool = False, layer_idx: int = 0) -> None:
        super().__init__(config, is_causal, layer_idx)
        self.config = config  # its `_attn_implementation` selects the kernel

    def forward(
        self,
        query_states: Tensor,
        key_value_states: Tensor | None = None,
        attention_mask: Any = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from (B, T, D) to (B, S, D); see `MultiHeadAttention.forward`.

        Args:
            query_states: the states that the queries are projected from.
            key_value_states: the encoder's output in encoder-decoder attention, else None.
            attention_mask: in the form that the selected attention implementation takes.
            cache: keys and values of earlier steps, and of the encoder after the first step.
            past_key_values: the cache, under its name in transformers before 5.24.
            **kwargs: passed to the attention function.

        Returns:
            The attended states (B, T, D) and the weights, or None if the kernel does not return weights.
        """
        query = self.project_query(query_states)
        cache = cache if past_key_values is None else past_key_values
        key, value = self._keys_and_values(query_states, key_value_states, cache)
        implementation: Callable = _attention_functions.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )

        def attention_function(
            query: Tensor, key: Tensor, value: Tensor, mask: Any, dropout: float, scale: float
        ) -> tuple[Tensor, Tensor | None]:
            context, weights = implementation(self, query, key, value, mask, dropout=dropout, scaling=scale, **kwargs)
            return context.transpose(1, 2), weights  # (B, H, T, K)

        return self.attend(query, key, value, attention_mask, attention_function)

    def _keys_and_values(
        self, query_states: Tensor, key_value_states: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor]:
        """Project keys and values, and add them to the cache or read them from it."""
        if cache is None:
            return self.project_key_value(query_states if key_value_states is None else key_value_states)
        if key_value_states is None:
            self_attention_cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
            return self_attention_cache.update(*self.project_key_value(query_states), self.layer_idx)
        if not isinstance(cache, EncoderDecoderCache):
            return self.project_key_value(key_value_states)
        # The encoder's keys and values are the same in every step: project them in the first step only.
        cross_attention_cache = cache.cross_attention_cache
        if cache.is_updated.get(self.layer_idx):
            layer: Any = cross_attention_cache.layers[self.layer_idx]  # Any: not every kind of layer has keys
            return layer.keys, layer.values
        key_value = cross_attention_cache.update(*self.project_key_value(key_value_states), self.layer_idx)
        cache.is_updated[self.layer_idx] = True
        return key_value


class VanillaTransformerEncoderLayer(GradientCheckpointingLayer, EncoderLayer):
    """The paper's encoder layer (§3.1) with gradient checkpointing."""

    attention_class = VanillaTransformerAttention


class VanillaTransformerDecoderLayer(GradientCheckpointingLayer, DecoderLayer):
    """The paper's decoder layer (§3.1) with gradient checkpointing."""

    attention_class = VanillaTransformerAttention


__all__ = [
    "CACHE_NAME",
    "VanillaTransformerAttention",
    "VanillaTransformerDecoderLayer",
    "VanillaTransformerEncoderLayer",
    "eager_attention_forward",
    "fastest_attention_forward",
    "resolve_cache",
]
