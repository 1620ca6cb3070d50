"""A small random model and its tokenizer, which the tests here share."""

from typing import Any

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset, train_tokenizer
from hf_vanilla_transformer.data.embedded_corpus import draw_expressions


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    rows = draw_expressions("train", 200)
    return train_tokenizer((text for row in rows for text in (row.en, row.ko)), 400)


@pytest.fixture(scope="session")
def model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"d_model": 24, "d_ff": 16, "num_heads": 3, "encoder_layers": 1, "decoder_layers": 2}
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name:
                parameter.mul_(8.0)  # weights far from uniform, so that the largest is beyond doubt
    return model
