# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The three vocabulary matrices (§3.4): source embedding, target embedding and output projection, tied or not."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from .key_map import OUTPUT_PROJECTION, SOURCE_EMBEDDING, TARGET_EMBEDDING


def detect_tying(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Find out which of the vocabulary matrices are tied, and remove the copies from ``tensors``.

    Formats that store copies don't record which matrices are tied. After training, bit-identical matrices are tied.

    Returns:
        ``share_encoder_decoder_embeddings`` and ``tie_word_embeddings``.
    """
    source, target, output = (tensors.get(name) for name in (SOURCE_EMBEDDING, TARGET_EMBEDDING, OUTPUT_PROJECTION))
    share_encoder_decoder_embeddings = target is None or (source is not None and torch.equal(source, target))
    both = source if target is None else target
    tie_word_embeddings = output is None or (both is not None and torch.equal(both, output))
    if share_encoder_decoder_embeddings:
        tensors.pop(TARGET_EMBEDDING, None)
    if tie_word_embeddings:
        tensors.pop(OUTPUT_PROJECTION, None)
    return {
        "share_encoder_decoder_embeddings": share_encoder_decoder_embeddings,
        "tie_word_embeddings": tie_word_embeddings,
    }


def untie(tensors: Mapping[str, Tensor], config: VanillaTransformerConfig) -> dict[str, Tensor]:
    """Add the tied matrices under all of their names; the tensors are shared, not copied."""
    untied = dict(tensors)
    target = untied.setdefault(TARGET_EMBEDDING, untied[SOURCE_EMBEDDING])
    if config.tie_word_embeddings:
        untied.setdefault(OUTPUT_PROJECTION, target)
    return untied


__all__ = ["detect_tying", "untie"]
