"""What the tests of several formats share."""

from pathlib import Path

import pytest
import torch

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    preset,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights with a tokenizer, in a folder of its own for each file of tests."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("export") / "checkpoint"
    rows = embedded_corpus("train", 300)["translation"]
    tokenizer = train_tokenizer((text for row in rows for text in row.values()), 400)
    sizes = dict(d_model=32, d_ff=48, num_heads=4, encoder_layers=2, decoder_layers=2)
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
