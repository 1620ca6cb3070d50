# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The layers of "Attention Is All You Need" (Vaswani et al. 2017), §3, in plain torch.

The order is that of the data through the model: §3.5 positions, §3.2.1 attention, §3.2.2 multi-head attention, §3.3
feed-forward network, §3.1 residual connections and the two kinds of layer. What Hugging Face needs beside the paper
(caches, masks from token ids, gradient checkpointing) is in the attention and modeling files.
"""

# Shapes: B batch · S source length · T target length · D d_model · H heads · K d_k (V d_v for values) · F d_ff

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .configuration_vanilla_transformer import VanillaTransformerConfig
from .dropout_vanilla_transformer import Dropout
from .linear_kernels_vanilla_transformer import cast_for_products, project

# --------------------------------------------------------------------------- §3.5 Positional encoding


def sinusoidal_position_encoding(
    positions: Tensor, d_model: int, variant: str = "sinusoidal", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Encode positions as sines and cosines of geometrically spaced frequencies (§3.5).

    PE(pos, 2i) = sin(pos / 10000^(2i / d_model)) and PE(pos, 2i+1) = cos(pos / 10000^(2i / d_model)): sine and cosine
    alternate. The variant "sinusoidal_t2t" is what Tensor2Tensor and fairseq compute instead: first all sines, then all
    cosines, with the exponent i / (d_model/2 − 1), which gives other frequencies.

    Args:
        positions: integers of any shape, counted from 0.
        d_model: width of the encoding; even.
        variant: "sinusoidal" or "sinusoidal_t2t".
        dtype: dtype of the result.

    Returns:
        The encoding; its shape is that of ``positions`` followed by D.
    """
    # Angles need fp64: at position 10,000 an fp32 angle is wrong in the third decimal. (MPS has no fp64.)
    precise = torch.float32 if positions.device.type == "mps" else torch.float64
    half = d_model // 2
    steps = half - 1 if variant == "sinusoidal_t2t" else half
    exponents = torch.arange(half, dtype=precise, device=positions.device) / steps
    angles = positions.to(precise).unsqueeze(-1) * torch.exp(exponents * -math.log(10000.0))
    if variant == "sinusoidal_t2t":
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2).to(dtype)


class SinusoidalPositionalEncoding(nn.Module):
    """Sinusoidal positions (§3.5). They are computed in each call: there is no table to save, and no maximum length."""

    max_length: int | None = None  # longest sequence that has positions, in tokens; None: no limit

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.d_model = config.d_model
        self.variant = config.position_embedding_type
        self.offset = config.position_offset

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Encode ``positions`` (any shape, counted from 0); the result's shape is theirs followed by D."""
        return sinusoidal_position_encoding(positions + self.offset, self.d_model, self.variant, dtype)


class LearnedPositionalEncoding(nn.Embedding):
    """Learned positions (§3.5; Table 3, row E)."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config.max_position_embeddings, config.d_model)
        self.offset = config.position_offset
        self.max_length: int | None = config.max_position_embeddings - config.position_offset

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[override]
        """Return the rows of ``positions`` (any shape, counted from 0); the result's shape is theirs followed by D."""
        return super().forward(positions + self.offset).to(dtype)


def positional_encoding(config: VanillaTransformerConfig) -> SinusoidalPositionalEncoding | LearnedPositionalEncoding:
    """Build the positional encoding that ``position_embedding_type`` names."""
    if config.position_embedding_type == "learned":
        return LearnedPositionalEncoding(config)
    return SinusoidalPositionalEncoding(config)


# --------------------------------------------------------------------------- §3.2.1 Scaled dot-product attention


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute softmax(Q Kᵀ / √d_k) V (§3.2.1, Eq. 1).

    Args:
        query: (B, H, T, K), projected and split into heads.
        key: (B, H, S, K).
        value: (B, H, S, V).
        mask: additive, broadcastable to (B, H, T, S): 0 keeps, the dtype's minimum hides; None keeps everything.
        dropout: probability of dropping an attention weight; not in the paper.
        scale: factor applied to Q Kᵀ; None is 1 / √d_k.

    Returns:
        The context (B, H, T, V) and the weights (B, H, T, S); each row of the weights sums to 1 before dropout.

    Raises:
        ValueError: If the last axes of query and key differ.
    """
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"query and key have different widths, {query.shape[-1]} and {key.shape[-1]}; project both to d_k"
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.transpose(-2, -1) * scale  # (B, H, T, S)
    if mask is not None:
        scores = scores + mask  # inside the softmax, so that hidden positions get weight 0 (§3.2.3)
    weights = scores.softmax(dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=dropout > 0)
    return weights @ value, weights


# (query, key, value, mask, dropout probability, scale) → (context, weights or None)
AttentionFunction = Callable[[Tensor, Tensor, Tensor, Any, float, float], tuple[Tensor, Tensor | None]]


# --------------------------------------------------------------------------- §3.2.2 Multi-head attention


class MultiHeadAttention(nn.Module):
    """Concat(head_1 … head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) (§3.2.2).

    The h matrices of each kind are stacked into one: W^Q and W^K are (H·K, D), W^V is (H·V, D), W^O is (D, H·V).
    The paper has no biases; ``attention_bias`` adds them for checkpoints that have them.
    """

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool = False, layer_idx: int = 0) -> None:
        super().__init__()
        self.layer_idx = layer_idx  # index of this layer's entry in a cache
        self.key_dim, self.value_dim = config.key_dim, config.value_dim
        self.scaling = config.key_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = is_causal
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.d_model, config.num_heads * config.key_dim, bias=bias)
        self.k_proj = nn.Linear(config.d_model, config.num_heads * config.key_dim, bias=bias)
        self.v_proj = nn.Linear(config.d_model, config.num_heads * config.value_dim, bias=bias)
        self.out_proj = nn.Linear(config.num_heads * config.value_dim, config.d_model, bias=bias)

    def project_query(self, states: Tensor) -> Tensor:
        """Project (B, T, D) to the queries of all heads (B, H, T, K)."""
        return _split_heads(project(self.q_proj, states), self.key_dim)

    def project_key_value(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Project (B, S, D) to the keys (B, H, S, K) and values (B, H, S, V) of all heads."""
        states = cast_for_products(states)
        key, value = project(self.k_proj, states), project(self.v_proj, states)
        return _split_heads(key, self.key_dim), _split_heads(value, self.value_dim)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        attention_function: AttentionFunction = scaled_dot_product_attention,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend with projected queries to projected keys and values, and project the result (W^O).

        Args:
            query: (B, H, T, K).
            key: (B, H, S, K).
            value: (B, H, S, V).
            attention_mask: in the form that ``attention_function`` takes.
            attention_function: computes Equation 1; called with query, key, value, mask, dropout probability and scale
                as `scaled_dot_product_attention` is, and may return None for the weights.

        Returns:
            The attended states (B, T, D) and the weights (B, H, T, S).
        """
        dropout = self.attention_dropout if self.training else 0.0
        context, weights = attention_function(query, key, value, attention_mask, dropout, self.scaling)
        return project(self.out_proj, context.transpose(1, 2).flatten(2)), weights

    def forward(
        self, query_states: Tensor, key_value_states: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``query_states`` (B, T, D) to ``key_value_states`` (B, S, D; None: to the queries themselves).

        Args:
            query_states: where the queries come from.
            key_value_states: where keys and values come from: the encoder's output in encoder-decoder attention.
            attention_mask: additive, broadcastable to (B, H, T, S): 0 keeps, the dtype's minimum hides.

        Returns:
            The attended states (B, T, D) and the weights (B, H, T, S).
        """
        query = self.project_query(query_states)
        key, value = self.project_key_value(query_states if key_value_states is None else key_value_states)
        return self.attend(query, key, value, attention_mask)


def _split_heads(states: Tensor, head_dim: int) -> Tensor:
    # -1 and not H: under tensor parallelism a process has only some of the heads.
    return states.unflatten(-1, (-1, head_dim)).transpose(1, 2)  # (B, T, H·K) → (B, H, T, K)


# --------------------------------------------------------------------------- §3.3 Position-wise feed-forward network


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, applied to each position separately (§3.3, Eq. 2)."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.d_model, config.d_ff)
        self.w_2 = nn.Linear(config.d_ff, config.d_model)
        self.activation = ACT2FN[config.activation_function]
        self.activation_dropout = Dropout(config.activation_dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Transform (B, T, D) into (B, T, D), through the inner width (B, T, F)."""
        inner = self.activation(project(self.w_1, states))
        return project(self.w_2, self.activation_dropout(inner))


# --------------------------------------------------------------------------- §3.1 Encoder and decoder layers


class _ResidualLayer(nn.Module):
    """Base of both kinds of layer: a residual connection and layer normalization around each sub-layer."""

    attention_class: type[MultiHeadAttention] = MultiHeadAttention  # subclasses in the attention file add caches

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.normalize_first = config.norm_position == "pre"
        self.dropout = Dropout(config.dropout)

    def set_initial_gain(self, sublayers: int) -> None:
        """Set the gain of the residual branch's initialization, which the paper does not specify.

        If Sublayer(x) has the same variance as x, LayerNorm(x + Sublayer(x)) keeps only half of x's variance, and a
        stack of L sub-layers keeps almost none of it: the decoder then needs long to learn to attend to the source.
        With the gain L^(-1/4) on both matrix products of a sub-layer (W^V and W^O, or W_1 and W_2), the L sub-layers
        together add about as much variance as the input has. (DeepNet, Wang et al. 2022, scales the same matrices.)

        Args:
            sublayers: L, the number of sub-layers in the stack.
        """
        for module in self.modules():
            for name in ("v_proj", "out_proj", "w_1", "w_2"):
                if hasattr(module, name):
                    getattr(module, name).initial_gain = sublayers**-0.25  # read by `_init_weights` of the models

    def add_and_norm(self, states: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module) -> Tensor:
        """Compute LayerNorm(x + Dropout(Sublayer(x))) (§3.1, §5.4); pre-norm: x + Dropout(Sublayer(LayerNorm(x)))."""
        if self.normalize_first:
            return states + self.dropout(sublayer(cast_for_products(norm(states))))
        return norm(states + self.dropout(sublayer(cast_for_products(states))))


class EncoderLayer(_ResidualLayer):
    """Self-attention, then the feed-forward network (§3.1, left half of Figure 1)."""

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int = 0) -> None:
        super().__init__(config)
        self.self_attn = self.attention_class(config, layer_idx=layer_idx)
        self.self_attn_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.set_initial_gain(2 * config.encoder_layers)

    def forward(self, hidden_states: Tensor, attention_mask: Any = None, **kwargs: Any) -> Tensor:
        """Transform (B, S, D) into (B, S, D).

        Args:
            hidden_states: output of the layer below, or the embeddings.
            attention_mask: hides padding; in the form that the attention sub-layer takes.
            **kwargs: passed to the attention sub-layer.
        """

        def self_attention(states: Tensor) -> Tensor:
            return self.self_attn(states, attention_mask=attention_mask, **kwargs)[0]

        hidden_states = self.add_and_norm(hidden_states, self_attention, self.self_attn_norm)
        return self.add_and_norm(hidden_states, self.feed_forward, self.feed_forward_norm)


class DecoderLayer(_ResidualLayer):
    """Masked self-attention, encoder-decoder attention, feed-forward network (§3.1, right half of Figure 1)."""

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int = 0) -> None:
        super().__init__(config)
        self.self_attn = self.attention_class(config, is_causal=True, layer_idx=layer_idx)
        self.self_attn_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.cross_attn = self.attention_class(config, layer_idx=layer_idx)
        self.cross_attn_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.set_initial_gain(3 * config.decoder_layers)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Any = None,
        encoder_attention_mask: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Transform (B, T, D) into (B, T, D), attending to the encoder's output (B, S, D).

        Args:
            hidden_states: output of the layer below, or the embeddings.
            encoder_hidden_states: the encoder's output; None skips encoder-decoder attention.
            attention_mask: hides later positions and padding of the target.
            encoder_attention_mask: hides padding of the source.
            **kwargs: passed to both attention sub-layers.
        """

        def self_attention(states: Tensor) -> Tensor:
            return self.self_attn(states, attention_mask=attention_mask, **kwargs)[0]

        def cross_attention(states: Tensor) -> Tensor:
            return self.cross_attn(states, encoder_hidden_states, attention_mask=encoder_attention_mask, **kwargs)[0]

        return self._run_sublayers(
            hidden_states, self_attention, None if encoder_hidden_states is None else cross_attention
        )

    def step(
        self,
        hidden_states: Tensor,
        update_past: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        encoder_key_value: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        self_attention_function: AttentionFunction = scaled_dot_product_attention,
        cross_attention_function: AttentionFunction = scaled_dot_product_attention,
    ) -> tuple[Tensor, Tensor | None]:
        """Decode T new positions with keys and values that the caller keeps.

        Args:
            hidden_states: (B, T, D), the layer below or the embeddings, of the new positions only.
            update_past: called with the new positions' keys (B, H, T, K) and values (B, H, T, V) of self-attention;
                returns all keys and values to attend to (B, H, P, ·), the new ones included.
            encoder_key_value: keys (B, H, S, K) and values (B, H, S, V), projected from the encoder's output by
                ``cross_attn.project_key_value``.
            attention_mask: additive, broadcastable to (B, H, T, P): 0 keeps, −inf or the dtype's minimum hides.
            encoder_attention_mask: additive, broadcastable to (B, H, T, S).
            self_attention_function: see `MultiHeadAttention.attend`.
            cross_attention_function: see `MultiHeadAttention.attend`.

        Returns:
            The states (B, T, D), and the weights of encoder-decoder attention as the function returned them.
        """
        weights: Tensor | None = None

        def self_attention(states: Tensor) -> Tensor:
            query = self.self_attn.project_query(states)
            key, value = update_past(*self.self_attn.project_key_value(states))
            return self.self_attn.attend(query, key, value, attention_mask, self_attention_function)[0]

        def cross_attention(states: Tensor) -> Tensor:
            nonlocal weights
            query = self.cross_attn.project_query(states)
            attended, weights = self.cross_attn.attend(
                query, *encoder_key_value, encoder_attention_mask, cross_attention_function
            )
            return attended

        hidden_states = self._run_sublayers(hidden_states, self_attention, cross_attention)
        return hidden_states, weights

    def _run_sublayers(
        self,
        states: Tensor,
        self_attention: Callable[[Tensor], Tensor],
        cross_attention: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        states = self.add_and_norm(states, self_attention, self.self_attn_norm)
        if cross_attention is not None:
            states = self.add_and_norm(states, cross_attention, self.cross_attn_norm)
        return self.add_and_norm(states, self.feed_forward, self.feed_forward_norm)
