"""Initialization: the standard deviations of the weights, and their purpose."""

import pytest
import torch
from torch import nn

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset

SCALED = ("v_proj", "out_proj", "w_1", "w_2")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return VanillaTransformerForConditionalGeneration(preset("base", vocab_size=4000)).eval()


def test_linear_layers_have_glorots_size_and_in_residual_branches_a_gain_that_falls_with_depth(model):
    checked = set()
    for name, module in model.model.named_modules():
        if isinstance(module, nn.Linear):
            kind = name.rsplit(".", 1)[-1]
            glorot = (2 / sum(module.weight.shape)) ** 0.5
            sublayers = 12 if name.startswith("encoder") else 18
            expected = glorot * (sublayers**-0.25 if kind in SCALED else 1.0)
            assert module.weight.std().item() == pytest.approx(expected, rel=0.02), name
            assert module.bias is None or not module.bias.any()
            checked.add(kind)
    assert checked == {"q_proj", "k_proj", *SCALED}


def test_embeddings_have_the_inverse_root_of_the_width_as_standard_deviation(model):
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight is model.model.encoder.embed_tokens.weight
    assert model.lm_head.weight.std().item() == pytest.approx(512**-0.5, rel=0.02)


def likeness(model):
    """Return the mean cosine similarity of source states before and after the encoder, the mean state subtracted."""
    ids = torch.randint(4, 4000, (8, 24), generator=torch.Generator().manual_seed(1))
    states = []
    with torch.no_grad():
        hook = model.model.encoder.dropout.register_forward_hook(lambda module, inputs, output: states.append(output))
        states.append(model.model.encoder(ids).last_hidden_state)
        hook.remove()
    first, last = (nn.functional.normalize(part - part.mean((0, 1)), dim=-1) for part in states)
    return (first * last).sum(-1).mean().item()


def test_an_untrained_encoder_preserves_tokens(model):
    """The purpose of the gain: without it, 12 post-norm sub-layers preserve less of the source tokens."""
    kept = likeness(model)
    large = VanillaTransformerForConditionalGeneration(model.config).eval()
    large.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, weight in large.model.encoder.named_parameters():
            if name.endswith(tuple(f"{kind}.weight" for kind in SCALED)):
                weight.mul_(12**0.25)
    assert kept > 0.8 > 0.6 > likeness(large)
