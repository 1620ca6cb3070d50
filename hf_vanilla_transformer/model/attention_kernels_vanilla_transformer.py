# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Which attention kernel is faster on the CPU: plain matrix products or torch's fused kernel.

Both compute Equation 1 (§3.2.1). The fused kernel never stores the attention weights, so its memory is linear in the
length of a sentence. On a CPU without bf16 matrix units for tiles (AMX) its bf16 backward pass is several times slower
than plain products. They are used up to a fixed number of keys only, so that memory stays linear.
"""

# Shapes: B batch · S source length · T target length · H heads · K d_k

from dataclasses import dataclass

import torch
from torch import Tensor

_FEW_QUERIES = 8  # per sentence: a step of a search, whose cost is reading keys and values


@dataclass(frozen=True)
class _Limits:
    """Where plain products are faster.

    Attributes:
        most_keys: longest sequence of keys.
        least_sentences_times_heads: fewest (sentence, head) pairs; with fewer, the additional operators cost more.
    """

    most_keys: int
    least_sentences_times_heads: int


# Every other case uses the fused kernel. The figures follow from benchmarks/attention_kernels.py on a CPU with
# AVX512-bf16 and without AMX; `vanilla-transformer check --measure` compares them with the machine it runs on.
_BF16_WITHOUT_AMX = _Limits(most_keys=256, least_sentences_times_heads=1)
_FEW_QUERIES_IN_BF16_WITHOUT_AMX = _Limits(most_keys=64, least_sentences_times_heads=256)
_FEW_QUERIES_IN_FP32 = _Limits(most_keys=48, least_sentences_times_heads=256)


def cpu_has_amx() -> bool:
    """Return whether the CPU has matrix units for tiles, with which the fused kernel is fast in bf16."""
    return bool(torch.cpu._is_amx_tile_supported())


def prefers_plain_products(query: Tensor, key: Tensor) -> bool:
    """Return whether plain products are faster than the fused kernel, for the device, dtype and shapes of the inputs.

    Args:
        query: (B, H, T, K).
        key: (B, H, S, K).
    """
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    batch, heads, queries, _ = query.shape
    few_queries = queries <= _FEW_QUERIES
    limits: _Limits | None = None
    if query.dtype == torch.bfloat16 and not cpu_has_amx():
        limits = _FEW_QUERIES_IN_BF16_WITHOUT_AMX if few_queries else _BF16_WITHOUT_AMX
    elif query.dtype == torch.float32 and few_queries:
        limits = _FEW_QUERIES_IN_FP32
    if limits is None:
        return False
    return key.shape[2] <= limits.most_keys and batch * heads >= limits.least_sentences_times_heads


__all__ = ["cpu_has_amx", "prefers_plain_products"]
