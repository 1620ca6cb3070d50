# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Plain matrix products or torch's fused kernel: which computes attention faster on the CPU.

Both compute Equation 1 (§3.2.1). The fused kernel never stores the attention weights, so its memory is linear in the
length of a sentence. On a CPU without bf16 matrix units for tiles (AMX) its bf16 backward pass is several times slower
than plain products. They are used up to a fixed number of keys only, so that memory stays linear.
"""

# Shapes: B batch · S source length · T target length · H heads · K d_k

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

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
_FEW_QUERIES_IN_BF16_WITHOUT_AMX = _Limits(most_keys=64, least_sentences_times_heads=64)
_ONE_QUERY_IN_FP32 = _Limits(most_keys=48, least_sentences_times_heads=96)
_FEW_QUERIES_IN_FP32 = _Limits(most_keys=24, least_sentences_times_heads=32)
_FP32_WITH_GRADIENTS = _Limits(most_keys=32, least_sentences_times_heads=128)
_FP32 = _Limits(most_keys=15, least_sentences_times_heads=128)
# bf16 products of a training are computed in fp32 if they are at most this large. They take as long, and oneDNN, which
# computes them in bf16, first compiles code for each shape: as many (sentences, queries, keys) as a corpus has batches.
_MOST_KEYS_IN_FP32, _LARGEST_WIDTH_IN_FP32 = 32, 32
_LEAST_MULTIPLICATIONS = 400  # of one product in a batch; torch computes smaller ones number by number


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
    batch, heads, queries, width = query.shape
    limits: _Limits | None = None
    if query.dtype == torch.bfloat16 and not cpu_has_amx():
        limits = _FEW_QUERIES_IN_BF16_WITHOUT_AMX if queries <= _FEW_QUERIES else _BF16_WITHOUT_AMX
    elif query.dtype == torch.float32 and queries <= _FEW_QUERIES:
        limits = _FEW_QUERIES_IN_FP32 if queries > 1 else _ONE_QUERY_IN_FP32
    elif query.dtype == torch.float32:
        limits = _FP32_WITH_GRADIENTS if query.requires_grad else _FP32
    if limits is None:
        return False
    keys = key.shape[2]
    if keys > limits.most_keys or batch * heads < limits.least_sentences_times_heads:
        return False
    return queries * keys * width >= _LEAST_MULTIPLICATIONS


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float
) -> Tensor:
    """Compute Equation 1 by plain products, with a faster softmax of short rows: (B, H, T, V).

    Arguments are those of `scaled_dot_product_attention` in the layers, which is the reference.
    """
    if prefers_fp32_products(query, key):
        with torch.autocast(query.device.type, enabled=False):
            mask = None if mask is None else mask.float()
            # Each is cast and laid out for the products by one copy, and so is the result for the next layer.
            query32, key32, value32 = (
                states.to(torch.float32, memory_format=torch.contiguous_format) for states in (query, key, value)
            )
            context = _plain_attention(query32, key32, value32, mask, dropout, scale).transpose(1, 2)
            return context.to(query.dtype, memory_format=torch.contiguous_format).transpose(1, 2)
    return _plain_attention(query, key, value, mask, dropout, scale)


def prefers_fp32_products(query: Tensor, key: Tensor) -> bool:
    """Return whether plain products of bf16 inputs are computed in fp32: in the training of small models on a CPU.

    Args:
        query: (B, H, T, K).
        key: (B, H, S, K).
    """
    return (
        query.dtype == torch.bfloat16
        and query.requires_grad
        and query.device.type == "cpu"
        and max(query.shape[2], key.shape[2]) <= _MOST_KEYS_IN_FP32
        and query.shape[3] <= _LARGEST_WIDTH_IN_FP32
        and not cpu_has_amx()
    )


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float
) -> Tensor:
    if key.dtype == torch.bfloat16 and key.device.type == "cpu":
        key = key.contiguous()  # torch would copy its transpose number by number, which takes as long as the product
    scores = query @ key.transpose(-2, -1) * scale
    if mask is not None:
        scores = scores + mask
    weights = _softmax(scores)
    if dropout > 0:
        weights = functional.dropout(weights, p=dropout)
    return weights @ value


def _softmax(scores: Tensor) -> Tensor:
    """Compute the softmax over the keys.

    For rows that don't fill a vector register, torch's CPU kernel computes number by number, forward and backward,
    which takes longer than a full register does. They are filled up with −inf, whose weight is 0. In bf16 that kernel
    also computes the rest of longer rows number by number; without gradients, fp32 is faster than that.
    """
    if scores.dtype == torch.bfloat16 and scores.device.type == "cpu" and not scores.requires_grad:
        return _softmax(scores.float()).to(torch.bfloat16)
    keys = scores.shape[-1]
    missing = 0 if scores.device.type != "cpu" else numbers_per_register() * 4 // scores.element_size() - keys
    if missing <= 0:
        return scores.softmax(dim=-1)
    return functional.pad(scores, (0, missing), value=-math.inf).softmax(dim=-1)[..., :keys]


@lru_cache
def numbers_per_register() -> int:
    """Return how many fp32 numbers a vector register of torch's CPU kernels holds."""
    return {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)


__all__ = [
    "cpu_has_amx",
    "numbers_per_register",
    "plain_attention",
    "prefers_fp32_products",
    "prefers_plain_products",
]
