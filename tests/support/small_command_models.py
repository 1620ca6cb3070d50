# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Models of random weights for tests of the commands, and logging as in a new process."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset

SIZES = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}


def log_as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the handlers that another test may have set up."""
    logger = logging.getLogger("hf_vanilla_transformer")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)


def save_wordy_model(
    folder: Path, tokenizer: Any, *, seed: int = 0, scale: float = 6.0, attention_scale: float = 1.0, **sizes: int
) -> None:
    """Save a model that writes letters, not bytes or symbols, and ends its translations.

    Args:
        folder: of the checkpoint.
        tokenizer: by `train_tokenizer`; it is saved as well.
        seed: of the weights.
        scale: factor of the output projection; larger ones make the model surer.
        attention_scale: factor of the queries of cross-attention; larger ones make it sharper.
        sizes: fields of the configuration that differ from `SIZES`.
    """
    torch.manual_seed(seed)
    fields: dict[str, Any] = {**SIZES, **sizes, "output_bias": True, "tie_word_embeddings": False}
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **fields))
    with torch.no_grad():
        model.lm_head.weight.mul_(scale)
        model.lm_head.bias[:260] = -20.0
        model.lm_head.bias[tokenizer.eos_token_id] = 1.0
        for layer in model.model.decoder.layers:
            layer.cross_attn.q_proj.weight.mul_(attention_scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
