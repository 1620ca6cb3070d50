# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Incremental decoding with several beams per sentence: one position per step, with cached keys and values.

The beams of a sentence are on the axis that has target positions in training, so they share the encoder's keys and
values without copies. The keys and values of self-attention are written once and never reordered: a mask selects those
that belong to a beam's own past, and only that mask is reordered when a beam continues another one. On the CPU, columns
that no beam's past contains any more are removed every few steps.
"""

# Shapes: B batch · S source length · W beam width · P columns written · L room for columns · D d_model · H heads
#         K d_k, or d_v for values

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .attention_kernels_vanilla_transformer import plain_attention, prefers_plain_products
from .layers_vanilla_transformer import scaled_dot_product_attention
from .loss_vanilla_transformer import on_accelerator

_STEPS_BETWEEN_REMOVALS = 4
_LARGEST_SHARE_TO_COMPACT = 0.8  # of used columns: copying those costs about as much as one step saves with fewer


@dataclass
class _LayerCache:
    """Keys and values of one decoder layer.

    Attributes:
        source_key: (B, H, S, K), projected from the encoder's output.
        source_value: (B, H, S, K).
        past_key: (B, H, L, K); of them, P are written.
        past_value: (B, H, L, K).
    """

    source_key: Tensor
    source_value: Tensor
    past_key: Tensor
    past_value: Tensor

    @classmethod
    def of(cls, layer: Any, encoder_states: Tensor, columns: int) -> "_LayerCache":
        """Project the encoder's output (B, S, D), and allocate ``columns`` = L for the past."""
        key, value = (states.contiguous() for states in layer.cross_attn.project_key_value(encoder_states))
        past_key, past_value = (
            states.new_empty(states.shape[0], states.shape[1], columns, states.shape[3]) for states in (key, value)
        )
        return cls(key, value, past_key, past_value)

    def source(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the source's keys and values of the first ``batch`` rows."""
        return self.source_key[:batch], self.source_value[:batch]

    def write(self, key: Tensor, value: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Write new keys and values (B, H, W, K) from column ``start`` on; return all that are written."""
        batch, stop = key.shape[0], start + key.shape[2]
        self.past_key[:batch, :, start:stop] = key
        self.past_value[:batch, :, start:stop] = value
        return self.past_key[:batch, :, :stop], self.past_value[:batch, :, :stop]

    def grow(self, batch: int, columns: int) -> None:
        """Keep the first ``batch`` rows of the cache and extend it by ``columns`` zero-filled positions."""
        self.past_key = functional.pad(self.past_key[:batch], (0, 0, 0, columns))
        self.past_value = functional.pad(self.past_value[:batch], (0, 0, 0, columns))

    def keep_columns(self, columns: Tensor) -> None:
        """Keep the columns (B, P) of the past, in this order."""
        batch, kept = columns.shape
        index = columns[:, None, :, None]
        for past in (self.past_key, self.past_value):
            past[:batch, :, :kept] = past[:batch].gather(2, index.expand(-1, past.shape[1], -1, past.shape[3]))

    def move(self, target: Tensor, origin: Tensor, written: int) -> None:
        """Copy rows ``origin`` to rows ``target``; of the past, the first ``written`` columns."""
        self.source_key[target] = self.source_key[origin]
        self.source_value[target] = self.source_value[origin]
        self.past_key[target, :, :written] = self.past_key[origin, :, :written]
        self.past_value[target, :, :written] = self.past_value[origin, :, :written]


class IncrementalDecoder:
    """Run a model's decoder for W beams per sentence, one position per step.

    It runs `DecoderLayer.step` of the model's own layers, so adapters, biases and both norm positions apply.
    """

    def __init__(
        self, decoder: Any, encoder_states: Tensor, source_mask: Tensor, num_beams: int, max_steps: int
    ) -> None:
        """Project the encoder's output for all layers, and allocate room for the first positions.

        Args:
            decoder: `VanillaTransformerDecoder`.
            encoder_states: (B, S, D), the encoder's output.
            source_mask: (B, S), 1 keeps, 0 is padding.
            num_beams: W.
            max_steps: upper limit of the number of steps.
        """
        self.decoder = decoder
        self.num_beams = num_beams
        self.max_steps = max_steps
        self.steps = 0
        self.columns = 0  # P
        self.batch = encoder_states.shape[0]  # rows in use; the caches may have more
        device, dtype = encoder_states.device, encoder_states.dtype
        # Most translations are about as long as their source: allocate for that, and more when it is needed.
        self.room = min(max_steps, source_mask.shape[1] + 8) * num_beams  # L
        self.caches = [_LayerCache.of(layer, encoder_states, self.room) for layer in decoder.layers]
        # Additive masks: 0 keeps, −inf hides. None where no source is padded, which is faster.
        padded = not bool(source_mask.all())
        hidden = torch.zeros(source_mask.shape, dtype=dtype, device=device).masked_fill(source_mask == 0, -math.inf)
        self.source_mask = hidden[:, None, None, :] if padded else None  # (B, 1, 1, S)
        self.past_mask = torch.full((self.batch, num_beams, self.room), -math.inf, dtype=dtype, device=device)
        self.own_position = torch.full((num_beams, num_beams), -math.inf, dtype=dtype, device=device)
        self.own_position.fill_diagonal_(0.0)
        self.position_encodings = decoder.embed_positions(torch.arange(max_steps, device=device), dtype)  # (L, D)

    def step(self, tokens: Tensor, parents: Tensor | None, with_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Decode one position.

        Args:
            tokens: (B, W), the latest token of every beam; at the first step (B, 1) suffices, as all beams are equal.
            parents: (B, W), the beam of the previous step that each beam continues; None at the first step.
            with_attention: whether to return the attention over the source.

        Returns:
            The decoder's output (B, W, D), and the encoder-decoder attention of the last layer (B, W, S), averaged over
            heads, where it was requested.
        """
        past_mask = self._update_past_mask(parents, tokens.shape[1])
        start = self.columns
        source_mask = None if self.source_mask is None else self.source_mask[: self.batch]
        states = self.decoder.embed_tokens(tokens) * self.decoder.embed_scale + self.position_encodings[self.steps]
        weights: Tensor | None = None
        last_layer = self.decoder.layers[-1]
        for layer, cache in zip(self.decoder.layers, self.caches, strict=True):

            def update_past(key: Tensor, value: Tensor, cache: _LayerCache = cache) -> tuple[Tensor, Tensor]:
                return cache.write(key, value, start)

            with_weights = with_attention and layer is last_layer
            states, weights = layer.step(
                states,
                update_past,
                cache.source(self.batch),
                past_mask,
                source_mask,
                _fastest_attention,
                _fastest_attention_with_weights if with_weights else _fastest_attention,
            )
        self.steps += 1
        self.columns += tokens.shape[1]
        if self.decoder.final_norm is not None:
            states = self.decoder.final_norm(states)
        return states, None if weights is None else weights.mean(dim=1)

    def select(self, rows: list[int]) -> None:
        """Keep these rows of the batch, in this order. Rows that keep their place are not copied."""
        moved = [(target, origin) for target, origin in enumerate(rows) if target != origin]
        self.batch = len(rows)
        if not moved:
            return
        target, origin = (torch.tensor(side, device=self.past_mask.device) for side in zip(*moved, strict=True))
        self.past_mask[target] = self.past_mask[origin]
        if self.source_mask is not None:
            self.source_mask[target] = self.source_mask[origin]
        for cache in self.caches:
            cache.move(target, origin, written=self.columns)

    def _update_past_mask(self, parents: Tensor | None, width: int) -> Tensor | None:
        """Copy each parent's mask to its continuation, and add the new position in the next columns.

        Args:
            parents: (B, W), as in `step`.
            width: beams of this step, W or 1.

        Returns:
            The mask (B, 1, W, P + W) with the new position; None where the one beam attends to everything.
        """
        if parents is not None and self.num_beams > 1:
            past = self.past_mask[: self.batch, :, : self.columns]
            past[:] = past.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.columns))
            if self.steps % _STEPS_BETWEEN_REMOVALS == 0 and not on_accelerator(past):
                self._remove_unused_columns(past)
        if self.columns + width > self.room:
            self._grow()
        stop = self.columns + width
        # A position that all beams have in common is visible to each of them.
        self.past_mask[: self.batch, :, self.columns : stop] = self.own_position if width == self.num_beams else 0.0
        return self.past_mask[: self.batch, None, :, :stop] if width > 1 else None

    def _remove_unused_columns(self, past_mask: Tensor) -> None:
        """Remove the columns that no beam attends to, if they are many; ``past_mask`` is (B, W, P).

        The beams of a sentence have most of their past in common: after a few steps, about half of the columns belong
        to hypotheses that were dropped.
        """
        used = (past_mask == 0).any(dim=1)  # (B, P)
        most = int(used.sum(dim=1).max())
        if most > _LARGEST_SHARE_TO_COMPACT * self.columns:
            return
        kept = used.byte().argsort(dim=1, descending=True, stable=True)[:, :most]  # used columns first, in their order
        for cache in self.caches:
            cache.keep_columns(kept)
        self.past_mask[: self.batch, :, :most] = past_mask.gather(2, kept.unsqueeze(1).expand(-1, self.num_beams, -1))
        self.columns = most

    def _grow(self) -> None:
        added = min(self.max_steps * self.num_beams, 2 * self.room) - self.room
        self.room += added
        for cache in self.caches:
            cache.grow(self.batch, added)
        self.past_mask = functional.pad(self.past_mask[: self.batch], (0, added), value=-math.inf)


def _fastest_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float
) -> tuple[Tensor, Tensor | None]:
    """Attend by plain products or torch's fused kernel, whichever is faster; return no weights."""
    if prefers_plain_products(query, key):
        return plain_attention(query, key, value, mask, dropout, scale), None
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    return context, None


def _fastest_attention_with_weights(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float
) -> tuple[Tensor, Tensor | None]:
    """Attend likewise, and compute the weights separately, so that they don't change the result."""
    context, _ = _fastest_attention(query, key, value, mask, dropout, scale)
    return context, scaled_dot_product_attention(query, key, value, mask, dropout, scale)[1]


__all__ = ["IncrementalDecoder"]
