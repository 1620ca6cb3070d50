"""The matrix that is both embeddings and the projection: one gradient for its three uses, and when it is used."""

import pytest
import torch
from torch import nn

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset
from hf_vanilla_transformer.model import modeling_vanilla_transformer as modeling
from hf_vanilla_transformer.model import shared_matrix_vanilla_transformer as shared

INPUTS = {
    "input_ids": torch.tensor([[5, 6, 7, 2], [9, 5, 2, 0]]),
    "labels": torch.tensor([[8, 5, 2], [5, 2, -100]]),
}


def model_of(**fields) -> VanillaTransformerForConditionalGeneration:
    torch.manual_seed(0)
    return VanillaTransformerForConditionalGeneration(
        preset("tiny", vocab_size=30, encoder_layers=1, decoder_layers=1, dropout=0.0, **fields)
    ).train()


def count_uses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    uses: list[int] = []
    look_up = shared.look_up_source_and_target
    monkeypatch.setattr(modeling, "look_up_source_and_target", lambda *inputs: uses.append(1) or look_up(*inputs))
    return uses


def gradients(model, backward=torch.Tensor.backward, **more):
    model.zero_grad()
    output = model(**INPUTS, label_smoothing=0.1, **more)
    backward(output.loss)
    return output.loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fields", [{}, {"output_bias": True}, {"scale_embedding": False}], ids=str)
def test_loss_and_gradients_are_those_of_separate_lookups(precision, fields, monkeypatch):
    model = model_of(**fields)
    model = model.double() if precision == torch.float64 else model
    uses = count_uses(monkeypatch)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        loss, ours = gradients(model)
        assert uses == [1]
        monkeypatch.setattr(modeling, "is_shared_matrix", lambda *_: False)
        expected_loss, expected = gradients(model)
        assert uses == [1]
    assert torch.equal(loss, expected_loss)
    tolerance = 1e-12 if precision == torch.float64 else 1e-6
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=tolerance, atol=tolerance, msg=name)


def test_a_kept_graph_gives_the_same_gradient_again():
    model = model_of()
    _, once = gradients(model)

    def twice(loss):
        loss.backward(retain_graph=True)
        kept = model.lm_head.weight.grad.clone()
        loss.backward()
        torch.testing.assert_close(model.lm_head.weight.grad, 2 * kept)

    _, both = gradients(model, twice)
    for name, gradient in once.items():
        torch.testing.assert_close(both[name], 2 * gradient)


def test_accumulated_and_returned_gradients():
    model = model_of()
    _, once = gradients(model)
    weight = model.lm_head.weight
    for factor in (1.0, 0.5):  # the loss returns what it saved, or a multiple
        loss = factor * model(**INPUTS, label_smoothing=0.1).loss
        (found,) = torch.autograd.grad(loss, [weight], retain_graph=True)
        (again,) = torch.autograd.grad(loss, [weight])
        torch.testing.assert_close(found, factor * once["model.encoder.embed_tokens.weight"])
        assert torch.equal(found, again)
    for _ in range(2):
        model(**INPUTS, label_smoothing=0.1).loss.backward()
    torch.testing.assert_close(weight.grad, 3 * once["model.encoder.embed_tokens.weight"])


def test_the_loss_may_be_unused():
    model = model_of()
    output = model(**INPUTS)
    (output.encoder_last_hidden_state * torch.randn(2, 4, 128)).sum().backward()
    gradient = model.lm_head.weight.grad
    seen = torch.zeros(30, dtype=torch.bool)
    seen[INPUTS["input_ids"]] = True
    assert gradient[seen].any(dim=-1).all() and not gradient[~seen].any()


def test_nothing_of_the_matrix_size_is_made_for_the_lookups():
    model = model_of()
    weight = model.lm_head.weight
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(**INPUTS).loss.backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::index_add_" in names and "aten::embedding_dense_backward" not in names
    assert weight.grad is not None


@pytest.mark.parametrize(
    "more",
    [
        {"return_logits": True},
        {"inputs_embeds": torch.ones(2, 4, 128), "input_ids": None},
        {"decoder_inputs_embeds": torch.ones(2, 3, 128)},
        {"labels": None, "decoder_input_ids": torch.tensor([[1, 8], [1, 5]])},
    ],
    ids=lambda more: next(iter(more)),
)
def test_other_inputs_are_looked_up_separately(more, monkeypatch):
    model, uses = model_of(), count_uses(monkeypatch)
    model(**{**INPUTS, **more})
    assert not uses


def test_matrices_that_are_not_shared_or_not_plain_are_looked_up_separately(monkeypatch):
    uses = count_uses(monkeypatch)
    model_of(tie_word_embeddings=False)(**INPUTS)
    model_of(share_encoder_decoder_embeddings=False)(**INPUTS)
    hooked = model_of()
    seen = []
    hooked.get_input_embeddings().register_forward_hook(lambda *_: seen.append(1))  # as NEFTune's noise
    hooked(**INPUTS)
    adapted = model_of()
    adapted.model.encoder.embed_tokens.__class__ = type("Adapted", (nn.Embedding,), {})
    adapted(**INPUTS)
    model_of().eval()(**INPUTS)
    assert not uses and seen == [1]
    model_of()(**INPUTS)
    assert uses == [1]


def test_padding_and_bad_ids_are_found_as_before():
    model = model_of()
    given = model(**INPUTS, attention_mask=INPUTS["input_ids"].ne(0).long()).loss
    assert torch.equal(model(**INPUTS).loss, given)
    for name, side in (("input_ids", "input_ids"), ("decoder_input_ids", "decoder_input_ids")):
        with pytest.raises(ValueError, match=f"{side} contains the id 30, which is outside the vocabulary of 30"):
            model(**{**INPUTS, "decoder_input_ids": torch.full((2, 3), 3), name: torch.full((2, 3), 30)})
