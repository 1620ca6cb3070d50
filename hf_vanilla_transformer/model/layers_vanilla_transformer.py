# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The layers of "Attention Is All You Need" (Vaswani et al. 2017), §3, in plain torch.

Read it top to bottom with the paper beside it: §3.5 positions, §5.4 dropout, §3.2.1 attention, §3.2.2 several heads,
§3.3 feed-forward, §3.1 residual connections and the two kinds of layer. Caches, masks from token ids, gradient
checkpointing and everything else that Hugging Face asks for stands in the modeling file.
"""

# Shapes: B batch · S source length · T target length · D d_model · H heads · K d_k (V d_v for values) · F d_ff

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .configuration_vanilla_transformer import VanillaTransformerConfig

# --------------------------------------------------------------------------- §3.5 Positional encoding


def sinusoidal_position_encoding(
    positions: Tensor, d_model: int, variant: str = "sinusoidal", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Encode positions as sines and cosines of geometrically spaced frequencies (§3.5).

    PE(pos, 2i) = sin(pos / 10000^(2i / d_model)) and PE(pos, 2i+1) = cos(the same): sine and cosine alternate. The
    variant "sinusoidal_t2t" is what Tensor2Tensor and fairseq compute instead: all sines, then all cosines, with
    exponent i / (d_model/2 − 1), so other frequencies.

    Args:
        positions: whole numbers of any shape, counted from 0.
        d_model: even width of the encoding.
        variant: "sinusoidal" or "sinusoidal_t2t".
        dtype: of the result.

    Returns:
        The shape of ``positions`` followed by D.
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


class PositionalEncoding(nn.Module):
    """Positions as vectors of the model's width (§3.5): sinusoids, or the learned table of Table 3 E.

    Sinusoids are computed at each call: no table to outgrow, to save, or to be garbage after loading.
    """

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.d_model = config.d_model
        self.variant = config.position_embedding_type
        self.offset = config.position_offset
        self.max_positions = config.max_position_embeddings if self.variant == "learned" else None
        if self.variant == "learned":
            self.table = nn.Embedding(config.max_position_embeddings, config.d_model)

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the longest sequence that has positions; None where there is no limit."""
        return None if self.max_positions is None else self.max_positions - self.offset

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Encode ``positions`` (any shape, counted from 0) as vectors: that shape followed by D."""
        positions = positions + self.offset
        if self.variant == "learned":
            return self.table(positions).to(dtype)
        return sinusoidal_position_encoding(positions, self.d_model, self.variant, dtype)


# --------------------------------------------------------------------------- §5.4 Residual dropout


class Dropout(nn.Dropout):
    """Dropout (§5.4) that draws 16 random bits an element on the CPU, where torch's own draws one number at a time.

    The probability is rounded to 1/65,536 and the scale made to fit, so that the expectation is exact. Elsewhere, and
    while compiling, this is torch's dropout.
    """

    def forward(self, states: Tensor) -> Tensor:
        """Zero elements of ``states`` (any shape) with probability ``p`` and scale the others, while training."""
        if not self.training or self.p == 0.0:
            return states
        if states.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(states)
        dropped = round(self.p * 65536)
        if dropped in (0, 65536):  # too close to 0 or 1 for 16 bits
            return super().forward(states)
        words = torch.empty((states.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: states.numel()] >= dropped - 32768
        return _Keep.apply(states, kept.view(states.shape), 65536 / (65536 - dropped))


class _Keep(torch.autograd.Function):
    """Keep some elements, scaled; what is remembered for the backward pass is a byte an element, not a float."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return kept.to(states.dtype).mul_(scale).mul_(states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return kept.to(gradient.dtype).mul_(ctx.scale).mul_(gradient), None, None


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
        mask: broadcastable to (B, H, T, S), additive: 0 keeps, the dtype's minimum hides. None keeps everything.
        dropout: probability with which a weight is dropped; not in the paper.
        scale: factor on the products; None is 1 / √d_k.

    Returns:
        The context (B, H, T, V) and the weights (B, H, T, S); each row of the weights sums to 1 before dropout.

    Raises:
        ValueError: If the last axes of query and key differ.
    """
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"query and key must share a width d_k, but have {query.shape[-1]} and {key.shape[-1]}; project both to d_k"
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.transpose(-2, -1) * scale  # (B, H, T, S)
    if mask is not None:
        scores = scores + mask  # inside the softmax, so that hidden positions get weight 0 (§3.2.3)
    weights = scores.softmax(dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=dropout > 0)
    return weights @ value, weights


# --------------------------------------------------------------------------- §3.2.2 Multi-head attention


class MultiHeadAttention(nn.Module):
    """Concat(head_1 … head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) (§3.2.2).

    The h matrices of each kind are stacked into one: W^Q and W^K are (H·K, D), W^V is (H·V, D), W^O is (D, H·V).
    The paper writes no biases; ``attention_bias`` adds them for checkpoints that have them.
    """

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool = False, layer_idx: int = 0) -> None:
        super().__init__()
        self.layer_idx = layer_idx  # which layer's entry of a cache belongs to this attention
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
        """Project (B, T, D) to the heads' queries (B, H, T, K)."""
        return _split_heads(self.q_proj(states), self.key_dim)

    def project_key_value(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Project (B, S, D) to the heads' keys (B, H, S, K) and values (B, H, S, V)."""
        return _split_heads(self.k_proj(states), self.key_dim), _split_heads(self.v_proj(states), self.value_dim)

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
        dropout = self.attention_dropout if self.training else 0.0
        context, weights = scaled_dot_product_attention(query, key, value, attention_mask, dropout, self.scaling)
        return self.out_proj(context.transpose(1, 2).flatten(2)), weights


def _split_heads(states: Tensor, head_dim: int) -> Tensor:
    # -1 heads and not H: under tensor parallelism a process holds only some of them.
    return states.unflatten(-1, (-1, head_dim)).transpose(1, 2)  # (B, T, H·K) → (B, H, T, K)


# --------------------------------------------------------------------------- §3.3 Position-wise feed-forward network


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, the same at every position (§3.3, Eq. 2)."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.d_model, config.d_ff)
        self.w_2 = nn.Linear(config.d_ff, config.d_model)
        self.activation = ACT2FN[config.activation_function]
        self.activation_dropout = Dropout(config.activation_dropout)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, D) → (B, T, F) → (B, T, D)."""
        return self.w_2(self.activation_dropout(self.activation(self.w_1(states))))


# --------------------------------------------------------------------------- §3.1 Encoder and decoder layers


class _ResidualLayer(nn.Module):
    """What both kinds of layer share: a residual connection and a layer normalisation around every sub-layer."""

    attention_class: type[MultiHeadAttention] = MultiHeadAttention  # the modeling file puts one with caches here

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.normalize_first = config.norm_position == "pre"
        self.dropout = Dropout(config.dropout)

    def start_small(self, sublayers: int) -> None:
        """Say how large the products that this layer adds to its input start, of which the paper says nothing.

        Where Sublayer(x) is as large as x, LayerNorm(x + Sublayer(x)) hands on half of x's variance only, and a stack
        of L sub-layers next to nothing: the decoder then takes long to find the source. A fourth root of 1/L on both
        products of a sub-layer, W^V and W^O or W_1 and W_2, lets all L together add about as much as came in. (DeepNet,
        Wang et al. 2022, starts the same four matrices small.)

        Args:
            sublayers: L, of the whole stack.
        """
        for module in self.modules():
            for name in ("v_proj", "out_proj", "w_1", "w_2"):
                if hasattr(module, name):
                    getattr(module, name).initial_gain = sublayers**-0.25  # `_init_weights` of the models reads it

    def add_and_norm(self, states: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module) -> Tensor:
        """LayerNorm(x + Dropout(Sublayer(x))) (§3.1, §5.4), or x + Dropout(Sublayer(LayerNorm(x))) if pre-norm."""
        if self.normalize_first:
            return states + self.dropout(sublayer(norm(states)))
        return norm(states + self.dropout(sublayer(states)))


class EncoderLayer(_ResidualLayer):
    """Self-attention, then the feed-forward network (§3.1, left half of Figure 1)."""

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int = 0) -> None:
        super().__init__(config)
        self.self_attn = self.attention_class(config, layer_idx=layer_idx)
        self.self_attn_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.start_small(2 * config.encoder_layers)

    def forward(self, hidden_states: Tensor, attention_mask: Any = None, **kwargs: Any) -> Tensor:
        """Transform (B, S, D) into (B, S, D).

        Args:
            hidden_states: the layer below, or the embeddings.
            attention_mask: hides padding; its form is the attention sub-layer's.
            **kwargs: handed to the attention sub-layer.
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
        self.start_small(3 * config.decoder_layers)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Any = None,
        encoder_attention_mask: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Transform (B, T, D) into (B, T, D), looking at the encoder's output (B, S, D).

        Args:
            hidden_states: the layer below, or the embeddings.
            encoder_hidden_states: the encoder's output; None leaves encoder-decoder attention out.
            attention_mask: hides later positions and padding of the target.
            encoder_attention_mask: hides padding of the source.
            **kwargs: handed to both attention sub-layers.
        """

        def self_attention(states: Tensor) -> Tensor:
            return self.self_attn(states, attention_mask=attention_mask, **kwargs)[0]

        def cross_attention(states: Tensor) -> Tensor:
            return self.cross_attn(states, encoder_hidden_states, attention_mask=encoder_attention_mask, **kwargs)[0]

        hidden_states = self.add_and_norm(hidden_states, self_attention, self.self_attn_norm)
        if encoder_hidden_states is not None:
            hidden_states = self.add_and_norm(hidden_states, cross_attention, self.cross_attn_norm)
        return self.add_and_norm(hidden_states, self.feed_forward, self.feed_forward_norm)
