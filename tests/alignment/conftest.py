"""A tiny model with a tokenizer that splits words."""

from typing import Any

import pytest
import torch

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    preset,
    train_tokenizer,
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    rows = embedded_corpus("train", 200)["translation"]
    return train_tokenizer((text for row in rows for text in row.values()), 400)


@pytest.fixture
def model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_ff": 16, "num_heads": 4, "encoder_layers": 1, "decoder_layers": 3}
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes)).eval()
    with torch.no_grad():
        for layer in model.model.decoder.layers:  # so that the weights differ clearly
            layer.cross_attn.q_proj.weight.mul_(8)
    return model
