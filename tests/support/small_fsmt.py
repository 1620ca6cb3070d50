# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Small FSMT models with random weights, for the tests of FSMT and of fairseq, whose model FSMT is."""

from pathlib import Path

import pytest
import torch
from transformers import FSMTConfig, FSMTForConditionalGeneration

from hf_vanilla_transformer.conversion.convert import convert_checkpoint

PAD, EOS = 1, 2
FIELDS = dict(
    langs=["en", "de"], src_vocab_size=23, tgt_vocab_size=31, d_model=12, encoder_layers=2, decoder_layers=1,
    encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=20, decoder_ffn_dim=20,
    max_position_embeddings=40,
)  # fmt: skip
CONFIGURATIONS = {
    "two vocabularies": {},
    "two vocabularies, output tied": {},
    "one vocabulary, three-way": dict(src_vocab_size=27, tgt_vocab_size=27, tie_word_embeddings=True),
    "one size, untied, unscaled": dict(src_vocab_size=27, tgt_vocab_size=27, scale_embedding=False, decoder_layers=2),
}


def fsmt_model(name: str, dtype: torch.dtype = torch.float32, **fields) -> FSMTForConditionalGeneration:
    """A model whose every number is random, biases and normalisations too."""
    torch.manual_seed(0)
    model = FSMTForConditionalGeneration(FSMTConfig(**{**FIELDS, **CONFIGURATIONS[name], **fields})).eval()
    decoder = model.model.decoder
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "embed_positions" not in parameter_name:
                parameter.normal_(std=0.4)
        if (
            name == "two vocabularies, output tied"
        ):  # fairseq's share_decoder_input_output_embed, which FSMT stores twice
            decoder.output_projection.weight.copy_(decoder.embed_tokens.weight)
    return model.to(dtype)


def batch(config) -> dict[str, torch.Tensor]:
    """Three sources of 9, 6 and 2 tokens and targets of 7, 7 and 4, padded on the right; targets start with "</s>"."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, config.vocab_size, (3, 9), generator=generator)
    mask = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 6, 2)])
    target = torch.randint(4, config.output_vocab_size, (3, 7), generator=generator)
    target[:, 0], target[2, 4:] = EOS, PAD
    return dict(input_ids=source.masked_fill(mask == 0, PAD), attention_mask=mask, decoder_input_ids=target)


def logits_difference(ours, theirs, inputs: dict[str, torch.Tensor]) -> float:
    """The largest difference where the target isn't padding."""
    with torch.no_grad():
        difference = (ours(**inputs).logits - theirs(**inputs, use_cache=False).logits).abs()
    return difference[inputs["decoder_input_ids"] != PAD].max().item()


def beams_of_fsmt(model, inputs, options, ours: torch.Tensor) -> torch.Tensor:
    """What FSMT's beam search writes; where its cache changes that, what it writes as ours does, or a skip."""
    options = {**options, "return_dict_in_generate": True, "output_scores": True}
    found = [model.generate(**inputs, **options, use_cache=use_cache) for use_cache in (True, False)]
    for theirs in found:
        if torch.equal(theirs.sequences, ours):
            return theirs.sequences
    if not torch.allclose(*(theirs.sequences_scores for theirs in found), rtol=0, atol=1e-6):
        pytest.skip("this transformers' FSMT contradicts itself, with a cache and without; logits are equal to ours")
    return found[0].sequences


def refusal(source_format: str, tmp_path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        convert_checkpoint(source_format, tmp_path / source_format, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == [source_format]  # nothing half-written
    assert "\n" not in str(caught.value)
    return str(caught.value)
