# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check decoding with key-value caches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from ..model.attention_vanilla_transformer import CACHE_NAME
from .check import Check
from .comparison import require_close, require_same_tokens
from .small_model import (
    DECODER_INPUTS,
    MAX_TOKENS,
    SOURCES,
    batches,
    generate,
    greedy_by_full_passes,
    logits_of,
    pad,
    small_model,
)


@torch.no_grad()
def cached_logits(device: torch.device) -> None:
    """Compare the logits of a prompt and single tokens after it, decoded with a cache, with those of one pass."""
    model = small_model(device)
    source, source_mask = pad(SOURCES, device, left=True)
    for side in ("right", "left"):
        target, target_mask = pad(DECODER_INPUTS, device, left=side == "left")
        full = logits_of(model, source, source_mask, target, decoder_attention_mask=target_mask)
        kept = target_mask.bool()  # a padded position has no earlier position to attend to
        for kind, cache in _caches(model, source.shape[1]).items():
            pieces = _logits_step_by_step(model, source, source_mask, target, target_mask, cache)
            require_close(f"logits with a {kind} cache, targets padded on the {side}", pieces[kept], full[kept])


def _logits_step_by_step(
    model: Any, source: Tensor, source_mask: Tensor, target: Tensor, target_mask: Tensor, cache: EncoderDecoderCache
) -> Tensor:
    encoded = model.get_encoder()(source, attention_mask=source_mask)
    pieces, start = [], 0
    for width in (3, *[1] * (target.shape[1] - 3)):  # a prompt of three tokens, then single tokens
        output = model(
            attention_mask=source_mask,
            decoder_input_ids=target[:, start : start + width],
            decoder_attention_mask=target_mask[:, : start + width],
            encoder_outputs=encoded,
            use_cache=True,
            **{CACHE_NAME: cache},
        )
        cache = getattr(output, CACHE_NAME)
        pieces.append(output.logits)
        start += width
    return torch.cat(pieces, dim=1)


def _caches(model: Any, source_length: int) -> dict[str, EncoderDecoderCache]:
    def both(make: Callable[[int], Any]) -> EncoderDecoderCache:
        return EncoderDecoderCache(make(MAX_TOKENS), make(source_length))

    return {
        "dynamic": both(lambda _: DynamicCache(config=model.config)),
        "static": both(lambda length: StaticCache(config=model.config, max_cache_len=length)),
    }


def cached_generation(device: torch.device) -> None:
    """Compare `generate` with each kind of cache with decoding without a cache."""
    model = small_model(device)
    for batch, (source, mask) in batches(device).items():
        expected = greedy_by_full_passes(model, source, mask)
        for beams in (1, 3):
            for cache in (None, "dynamic", "static"):
                output = generate(model, source, mask, num_beams=beams, cache=cache)
                if beams > 1 and cache is None:
                    expected = output.sequences
                what = f"{beams} beams, {cache or 'no'} cache, {batch}"
                require_same_tokens(what, output.sequences, expected)


_WORKAROUND = "decode with paper_beam_search, or with generate(use_cache=False)"

CHECKS = (
    Check(
        "cached_logits",
        "Decoding step by step with a cache gives the logits of one full pass",
        cached_logits,
        workaround=_WORKAROUND,
    ),
    Check(
        "cached_generation",
        "generate() gives the same tokens with a dynamic, a static and no cache, greedily and with beams",
        cached_generation,
        workaround=_WORKAROUND,
    ),
)

__all__ = ["CHECKS"]
