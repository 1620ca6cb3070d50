"""What the tests of several formats share."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    paper_beam_search,
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


@pytest.fixture(scope="module")
def own_decoding(checkpoint: Path) -> Any:
    """The checkpoint, but generation_config.json starts at another token and ends at a list of them."""
    model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint).eval()
    sources = torch.randint(4, 400, (40, 9), generator=torch.Generator().manual_seed(1))
    plain = paper_beam_search(model, sources, torch.ones_like(sources), BeamSearchConfig(num_beams=1)).hypotheses()
    # What the model likes to write ends a sentence now, so that ignoring the list shows.
    often = torch.tensor([token for row in plain for token in row[0][:-1]]).bincount(minlength=400).argmax()
    model.generation_config.decoder_start_token_id = 9
    model.generation_config.eos_token_id = [2, int(often)]
    folder = checkpoint.parent / "own_decoding"
    shutil.copytree(checkpoint, folder)
    model.save_pretrained(folder)
    ours = paper_beam_search(model, sources, torch.ones_like(sources), BeamSearchConfig(num_beams=1))
    assert sum(a != b for a, b in zip(ours.hypotheses(), plain, strict=True)) > 20
    assert {row[0][-1] for row in ours.hypotheses()} >= {int(often)}
    return folder, sources, ours
