"""The choice between plain attention products and torch's fused kernel on the CPU, and that both compute the same."""

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, paper_beam_search, preset
from hf_vanilla_transformer.model import attention_kernels_vanilla_transformer as kernels
from hf_vanilla_transformer.model.attention_kernels_vanilla_transformer import (
    prefers_fp32_products,
    prefers_plain_products,
)
from hf_vanilla_transformer.model.layers_vanilla_transformer import scaled_dot_product_attention


@pytest.fixture(params=[False, True], ids=["without AMX", "with AMX"])
def has_amx(request, monkeypatch):
    monkeypatch.setattr(kernels, "cpu_has_amx", lambda: request.param)
    return request.param


def heads(batch, length, dtype, heads=4, width=8):
    return torch.zeros(batch, heads, length, width, dtype=dtype)


def test_bf16_uses_plain_products_up_to_256_keys_where_there_is_no_amx(has_amx):
    for length in (9, 64, 256):
        query = heads(2, length, torch.bfloat16)
        assert prefers_plain_products(query, query) is not has_amx
    longest = heads(1, 257, torch.bfloat16)
    assert not prefers_plain_products(longest, longest)


@pytest.mark.parametrize(
    ("dtype", "queries", "least_sentences", "most_keys"),
    [
        (torch.float32, 1, 24, 48),
        (torch.float32, 8, 8, 24),
        (torch.bfloat16, 1, 16, 64),
        (torch.bfloat16, 8, 16, 64),
    ],
)
def test_a_search_step_uses_plain_products_for_many_sentences_with_few_keys(
    has_amx, dtype, queries, least_sentences, most_keys
):
    def chosen(sentences, keys):  # with 4 heads
        step, past = (heads(sentences, length, dtype, width=32) for length in (queries, keys))
        return prefers_plain_products(step, past)

    assert chosen(least_sentences, most_keys) is (dtype == torch.float32 or not has_amx)
    assert not chosen(least_sentences - 1, most_keys)
    assert not chosen(least_sentences, most_keys + 1)


def test_nine_queries_are_not_few(has_amx):
    assert not prefers_plain_products(heads(64, 9, torch.float32), heads(64, 24, torch.float32))


def test_products_that_torch_computes_number_by_number_are_left_to_the_fused_kernel(has_amx):
    step = heads(320, 1, torch.float32, width=32)
    assert not prefers_plain_products(step, heads(320, 12, torch.float32, width=32))  # 384 multiplications
    assert prefers_plain_products(step, heads(320, 13, torch.float32, width=32))


def test_fp32_uses_plain_products_for_short_sentences(has_amx):
    for length, without_gradients, with_gradients in ((15, True, True), (32, False, True), (33, False, False)):
        query = heads(32, length, torch.float32)
        assert prefers_plain_products(query, query) is without_gradients
        assert prefers_plain_products(query.requires_grad_(), query) is with_gradients
    few = heads(31, 12, torch.float32)
    assert not prefers_plain_products(few, few)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("keys", [1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64])
@pytest.mark.parametrize("register", [4, 8, 16])
def test_plain_attention_agrees_with_the_reference_forward_and_backward(dtype, keys, register, monkeypatch):
    monkeypatch.setattr(kernels, "numbers_per_register", lambda: register)
    torch.manual_seed(keys)
    inputs = [torch.randn(2, 3, length, 8, dtype=torch.float64) for length in (5, keys, keys)]
    mask = torch.zeros(2, 1, 5, keys, dtype=torch.float64)
    mask[0, :, :, keys // 2 + 1 :] = torch.finfo(dtype).min
    mask[1, :, 2] = torch.finfo(dtype).min  # a row that sees nothing
    gradient = torch.randn(2, 3, 5, 8, dtype=torch.float64)

    def run(attention, dtype):
        leaves = [values.to(dtype).requires_grad_() for values in inputs]
        context = attention(*leaves, mask.to(dtype), 0.0, 0.3)
        return [context.detach(), *torch.autograd.grad(context, leaves, gradient.to(dtype))]

    found = run(kernels.plain_attention, dtype)
    expected = run(lambda *arguments: scaled_dot_product_attention(*arguments)[0], dtype)
    exact = run(lambda *arguments: scaled_dot_product_attention(*arguments)[0], torch.float64)
    for ours, same_dtype, reference in zip(found, expected, exact, strict=True):
        error, allowed = (ours.double() - reference).norm(), (same_dtype.double() - reference).norm()
        assert error <= 1.5 * allowed + 4 * torch.finfo(dtype).eps * reference.norm()

    # In a search: no gradients, and keys and values are the first columns of longer tensors.
    query, key, value = (values.to(dtype) for values in inputs)
    key, value = (torch.cat([states, torch.randn_like(states)], dim=2)[:, :, :keys] for states in (key, value))
    ours = kernels.plain_attention(query, key, value, mask.to(dtype), 0.0, 0.3)
    assert ours.dtype == dtype
    error, allowed = (ours.double() - exact[0]).norm(), (expected[0].double() - exact[0]).norm()
    assert error <= 1.5 * allowed + 4 * torch.finfo(dtype).eps * exact[0].norm()


def test_short_bf16_products_of_narrow_heads_are_computed_in_fp32_with_gradients(has_amx):
    query = heads(64, 32, torch.bfloat16, width=32)
    assert not prefers_fp32_products(query, query)
    query.requires_grad_()
    assert prefers_fp32_products(query, query) is not has_amx
    for other in (heads(64, 33, torch.bfloat16, width=32), heads(64, 32, torch.float16, width=32)):
        assert not prefers_fp32_products(other.requires_grad_(), other)
    wide = heads(64, 32, torch.bfloat16, width=64).requires_grad_()
    assert not prefers_fp32_products(wide, wide)
    assert not prefers_fp32_products(query.to("meta"), query.to("meta"))


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_attention_in_fp32_has_the_error_of_one_rounding(autocast, monkeypatch):
    monkeypatch.setattr(kernels, "cpu_has_amx", lambda: False)
    torch.manual_seed(0)
    inputs = [torch.randn(6, 4, length, 32).bfloat16() for length in (13, 17, 17)]
    mask = torch.zeros(6, 1, 1, 17, dtype=torch.bfloat16)
    mask[::2, ..., 11:] = torch.finfo(torch.bfloat16).min
    gradient = torch.randn(6, 4, 13, 32).bfloat16()

    def run(attention, dtype):
        leaves = [values.to(dtype).requires_grad_() for values in inputs]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast and dtype != torch.float64):
            context = attention(*leaves, mask.to(dtype), 0.0, 0.2)
        return [context.detach(), *torch.autograd.grad(context, leaves, gradient.to(dtype))]

    found = run(kernels.plain_attention, torch.bfloat16)
    exact = run(lambda *arguments: scaled_dot_product_attention(*arguments)[0], torch.float64)
    for ours, reference in zip(found, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), reference.to(torch.bfloat16).double(), rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_always_use_the_fused_kernel(dtype, has_amx):
    query = heads(64, 4, dtype)
    assert not prefers_plain_products(query, query)


def test_other_devices_always_use_the_fused_kernel(monkeypatch):
    monkeypatch.setattr(kernels, "cpu_has_amx", lambda: False)
    query = heads(2, 16, torch.bfloat16).to("meta")
    assert not prefers_plain_products(query, query)


@pytest.fixture
def calls(monkeypatch):
    """Count the plain products of the model's attention."""
    from hf_vanilla_transformer.model import attention_vanilla_transformer as attention

    counted = []
    plain = attention.plain_attention
    monkeypatch.setattr(attention, "plain_attention", lambda *arguments: counted.append(1) or plain(*arguments))
    return counted


def batch(padding_side="right"):
    ids = torch.randint(4, 60, (3, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, slice(7, None) if padding_side == "right" else slice(0, 4)] = 0
    labels = torch.randint(4, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    labels[2, 6:] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def build(implementation, dtype):
    torch.manual_seed(0)
    config = preset("tiny", vocab_size=60, dropout=0.0)
    model = VanillaTransformerForConditionalGeneration(config).to(dtype).eval()
    model.set_attn_implementation(implementation)
    return model


def loss_and_gradients(model, inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.float() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_plain_products_agree_with_the_fp32_reference_forward_and_backward(padding_side, monkeypatch, calls):
    monkeypatch.setattr(kernels, "cpu_has_amx", lambda: False)
    inputs = batch(padding_side)
    expected_loss, expected = loss_and_gradients(build("eager", torch.float32), inputs)
    calls.clear()
    errors = {}
    for implementation in ("sdpa", "fused"):
        loss, gradients = loss_and_gradients(build(implementation, torch.bfloat16), inputs)
        assert bool(calls) is (implementation == "sdpa")
        calls.clear()
        # bf16 has 8 bits; the rounding errors of 8 layers add up.
        assert abs(loss - expected_loss) < 0.02 * expected_loss
        errors[implementation] = max(
            float((gradients[name] - expected[name]).norm() / expected[name].norm()) for name in expected
        )
    assert errors["sdpa"] < max(1.5 * errors["fused"], 0.05)


def test_the_rule_and_the_causal_mask_agree_with_the_fused_kernel_in_fp32(monkeypatch, calls):
    from hf_vanilla_transformer.model import attention_vanilla_transformer as attention

    monkeypatch.setattr(attention, "prefers_plain_products", lambda query, key: True)
    for inputs in (batch(), {"input_ids": batch()["input_ids"].clamp(min=4), "labels": batch()["labels"]}):
        loss, gradients = loss_and_gradients(build("sdpa", torch.float32), inputs)
        assert len(calls) == 12  # 4 encoder layers with one attention, 4 decoder layers with two
        calls.clear()
        expected_loss, expected = loss_and_gradients(build("fused", torch.float32), inputs)
        assert not calls
        torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=1e-6)
        for name in expected:
            torch.testing.assert_close(gradients[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_search_finds_the_same_with_plain_products(num_beams, monkeypatch):
    from hf_vanilla_transformer import BeamSearchConfig
    from hf_vanilla_transformer.model import incremental_decoder_vanilla_transformer as decoder

    model, inputs = build("sdpa", torch.float32), batch()
    del inputs["labels"]
    config = BeamSearchConfig(num_beams=num_beams)
    expected = paper_beam_search(model, **inputs, config=config)
    monkeypatch.setattr(decoder, "prefers_plain_products", lambda query, key: True)
    found = paper_beam_search(model, **inputs, config=config)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, rtol=1e-5, atol=1e-5)


def test_an_implementation_given_by_hand_is_kept():
    for name in ("eager", "fused", "sdpa"):
        assert build(name, torch.float32).config._attn_implementation == name
