"""int8 inference: exact products, the layer, whole models, saving and loading, and what is refused."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from hf_vanilla_transformer import (
    BeamSearchConfig,
    Int8Config,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    paper_beam_search,
    preset,
    quantize,
)
from hf_vanilla_transformer.model import int8_vanilla_transformer as int8
from hf_vanilla_transformer.model.int8_vanilla_transformer import Int8Linear, largest_exact_weight


@pytest.fixture(params=[True, False], ids=["fast-int-mm", "slow-int-mm"])
def int_mm(request, monkeypatch):
    """Both choices of products, whatever the processor prefers."""
    monkeypatch.setattr(int8, "int_mm_is_fast", lambda: request.param)
    largest_exact_weight.cache_clear()
    yield request.param
    largest_exact_weight.cache_clear()


def dequantized(inputs: torch.Tensor) -> torch.Tensor:
    rows, scale = int8._quantize_rows(inputs)
    return rows.double() * scale.double()


def product_of(kind, weight, scale):
    return (lambda rows: int8._product(rows, weight, scale)) if kind is None else kind(weight, scale)


# FBGEMM quantizes a single row with a zero point, which the next test is about.
@pytest.mark.parametrize(
    "kind, rows",
    [(kind, rows) for kind in (None, int8._FusedProduct) for rows in (1, 3, 128)]
    + [(int8._FbgemmProduct, rows) for rows in (2, 3, 128)],
)
def test_products_are_those_of_the_dequantized_numbers(kind, rows):
    torch.manual_seed(0)
    largest = largest_exact_weight(96)
    if kind is not None and not int8._is_available(kind, largest, 96):
        pytest.skip("this torch has no such product")
    weight = torch.randint(-largest, largest + 1, (40, 96), dtype=torch.int8)
    scale, inputs = torch.rand(40) + 0.1, torch.randn(rows, 96)
    expected = dequantized(inputs) @ (weight.double() * scale.double().unsqueeze(-1)).t()
    torch.testing.assert_close(product_of(kind, weight, scale)(inputs).double(), expected, rtol=2e-6, atol=1e-4)


def test_the_product_of_one_row_is_that_of_the_row_with_a_zero_point():
    torch.manual_seed(0)
    largest = largest_exact_weight(96)
    if not int8._is_available(int8._FbgemmProduct, largest, 96):
        pytest.skip("this torch has no such product")
    weight = torch.randint(-largest, largest + 1, (40, 96), dtype=torch.int8)
    scale, row = torch.rand(40) + 0.1, torch.randn(1, 96)
    step = (row.max() - row.min()) / 255
    found = int8._FbgemmProduct(weight, scale)(row)
    exact = row @ (weight.float() * scale.unsqueeze(-1)).t()
    # Each of 96 inputs is at most half a step from its 8-bit number.
    bound = step / 2 * (weight.float().abs() * scale.unsqueeze(-1)).sum(dim=-1)
    assert ((found - exact).abs() <= bound + 1e-3).all()


@pytest.mark.parametrize("fast", [True, False], ids=["fast-int-mm", "slow-int-mm"])
@pytest.mark.parametrize("isa", [None, "AVX512_CORE", "AVX2"])
def test_saturating_inputs_are_exact_on_processors_without_vnni(isa, fast):
    """Without VNNI, 512 · 127 · 127 would be 65,280; then the weights have 7 bits."""
    code = """
import sys
import torch
from hf_vanilla_transformer.model import int8_vanilla_transformer as int8
int8.int_mm_is_fast = lambda: sys.argv[1] == "True"
largest = int8.largest_exact_weight(2048)
linear = torch.nn.Linear(2048, 4100, bias=False)
linear.weight.data = torch.ones(4100, 2048)
linear.weight.data[::2] *= -1
linear.weight.data[1::4, ::2] *= -1
quantized = int8.Int8Linear.of(linear, largest)
assert int(quantized.weight.max()) == largest
narrow = int8.Int8Linear.of(torch.nn.Linear(2048, 8, bias=False), largest)
for rows in (1, 2, 128):
    inputs = torch.ones(rows, 2048)
    inputs[:, -1] = -1
    inputs[1::2] *= -1
    for layer in (quantized, narrow):
        expected = inputs.double() @ layer.dequantized_weight().double().t()
        error = (layer(inputs) - expected).abs().max() / expected.abs().max()
        assert error < (0.005 if rows == 1 else 1e-5), (rows, error)
print(largest)
"""
    environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": isa} if isa else {})}
    done = subprocess.run(
        [sys.executable, "-c", code, str(fast)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) in (64, 127)
    if fast and isa is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert int(done.stdout) == 64


fbgemm = pytest.mark.skipif(
    not torch.cpu._is_avx2_supported(), reason="FBGEMM is for x86 processors with AVX2; others saturate differently"
)


@fbgemm
def test_weights_have_seven_bits_where_the_fast_products_saturate(monkeypatch):
    """FBGEMM's instructions do not depend on `ONEDNN_MAX_CPU_ISA`: its range is that of the processor."""
    monkeypatch.setattr(int8, "int_mm_is_fast", lambda: False)
    largest_exact_weight.cache_clear()
    if not int8._is_available(int8._FbgemmProduct, 64, 256):
        pytest.skip("this torch has no such product")
    found = largest_exact_weight(256)
    largest_exact_weight.cache_clear()
    assert found == (127 if torch.cpu._is_vnni_supported() else 64)


def test_which_products_are_used(int_mm):
    one, several, wide = (int8._packed_products(*sizes) for sizes in ((1, 512), (2, 512), (2, 37000)))
    assert one[0] is int8._FbgemmProduct
    assert several == ([] if int_mm else [int8._FbgemmProduct, int8._FusedProduct])
    assert wide == ([int8._FusedProduct] if int_mm else several)


@fbgemm
def test_without_vnni_a_layer_uses_fbgemm(monkeypatch):
    """`torch._int_mm` takes many times as long there."""
    monkeypatch.setattr(int8, "int_mm_is_fast", lambda: False)
    layer = Int8Linear.of(nn.Linear(512, 512), 64)
    layer(torch.randn(4, 512))
    assert isinstance(layer._packed[int8._FbgemmProduct], int8._FbgemmProduct)


def test_products_that_are_wrong_with_both_ranges_are_refused(monkeypatch):
    monkeypatch.setattr(int8, "_is_exact", lambda *arguments: False)
    largest_exact_weight.cache_clear()
    int8._is_available.cache_clear()
    with pytest.raises(ValueError, match="int8 matrix products are wrong on this processor; use precision"):
        quantize(small())
    largest_exact_weight.cache_clear()
    int8._is_available.cache_clear()


@pytest.mark.parametrize("features", [(96, 40), (32, 4100)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("available", [True, False], ids=["packed", "plain"])
def test_a_layer_is_close_to_the_linear_layer_it_was_made_from(features, bias, available, int_mm, monkeypatch):
    torch.manual_seed(0)
    if not available:
        monkeypatch.setattr(int8, "_is_available", lambda *arguments: False)
    linear = nn.Linear(*features, bias=bias)
    layer = Int8Linear.of(linear, 127 if largest_exact_weight(96) == 127 else 64)
    for shape in ((1, 1), (2, 3), (1,), (4, 1, 2)):
        states = torch.randn(*shape, features[0])
        with torch.no_grad():
            expected, found = linear(states), layer(states)
        assert found.shape == expected.shape and found.dtype == torch.float32
        assert (found - expected).norm() < 0.03 * expected.norm()


def test_a_row_does_not_depend_on_the_rows_it_is_multiplied_with(int_mm):
    torch.manual_seed(0)
    layer = Int8Linear.of(nn.Linear(48, 24), 64)
    rows = torch.randn(5, 48) * torch.tensor([1.0, 100.0, 0.01, 1.0, 1.0]).unsqueeze(-1)
    assert torch.equal(layer(rows)[:2], layer(rows[:2]))


def test_a_row_of_zeros_gives_the_bias(int_mm):
    layer = Int8Linear.of(nn.Linear(16, 8), 64)
    for rows in (0, 1, 2):
        torch.testing.assert_close(layer(torch.zeros(rows, 16)), layer.bias.expand(rows, -1))


@pytest.mark.parametrize("rows", [1, 2])
def test_copies_and_pickles_of_a_used_layer_work(rows, int_mm):
    layer = Int8Linear.of(nn.Linear(32, 4100), 64)
    states = torch.randn(rows, 32)
    expected = layer(states)
    assert torch.equal(copy.deepcopy(layer)(states), expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(states), expected)
    layer.set_weight(-layer.dequantized_weight(), 64)  # a packed weight is packed again
    torch.testing.assert_close(layer(states) - layer.bias, -(expected - layer.bias))


# --------------------------------------------------------------------------- whole models


def small(**fields):
    torch.manual_seed(0)
    config = preset("tiny", vocab_size=120, **fields)
    return VanillaTransformerForConditionalGeneration(config).eval()


def source():
    ids = torch.randint(4, 120, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize(
    "fields",
    [{}, {"tie_word_embeddings": False}, {"attention_bias": True, "output_bias": True}, {"norm_position": "pre"}],
    ids=str,
)
def test_a_quantized_model_is_close_to_the_model_and_leaves_it_unchanged(fields):
    model = small(**fields)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantized = quantize(model)
    assert not any(isinstance(module, nn.Linear) for module in quantized.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    inputs = {**source(), "decoder_input_ids": source()["input_ids"][:, :5].clamp(min=1)}
    with torch.no_grad():
        expected, found = model(**inputs).logits, quantized(**inputs).logits
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_quantized_models_search_generate_and_are_saved(int_mm, tmp_path):
    model = small()
    quantized = quantize(model)
    assert quantized.get_output_embeddings().weight.dtype == torch.int8
    expected = paper_beam_search(quantized, **source(), config=BeamSearchConfig(max_target_tokens=8))
    quantized.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = paper_beam_search(loaded, **source(), config=BeamSearchConfig(max_target_tokens=8))
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.equal(found.sequences_scores, expected.sequences_scores)
    generated = loaded.generate(**source(), num_beams=2, max_length=8)
    assert generated.shape[0] == 3
    assert loaded.generate(**source(), num_beams=2, max_length=8).equal(generated)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_can_be_quantized_while_it_is_loaded(dtype, tmp_path):
    model = small().to(dtype)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, quantization_config=Int8Config())
    expected = quantize(model).state_dict()
    found = loaded.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_weights_quantized_elsewhere_are_quantized_again_where_their_products_are_not_exact(tmp_path, monkeypatch):
    model = small()
    monkeypatch.setattr(int8, "largest_exact_weight", lambda in_features: 127)
    quantize(model).save_pretrained(tmp_path)
    monkeypatch.setattr(int8, "largest_exact_weight", lambda in_features: 64)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    layers = [module for module in loaded.modules() if isinstance(module, Int8Linear)]
    assert max(int(layer.weight.abs().max()) for layer in layers) == 64
    original = model.model.encoder.layers[0].self_attn.q_proj.weight
    again = loaded.model.encoder.layers[0].self_attn.q_proj.dequantized_weight()
    assert (again - original).norm() < 0.02 * original.norm()


def test_int8_models_are_refused_off_the_cpu_and_for_training(tmp_path):
    model = small()
    with pytest.raises(ValueError, match="run on the CPU only; this model is on meta"):
        quantize(copy.deepcopy(model).to("meta"))
    quantized = quantize(model)
    with pytest.raises(ValueError, match="quantized already"):
        quantize(quantized)
    with pytest.raises(ValueError, match="run on the CPU only, not on meta"):
        quantized.lm_head(torch.empty(1, 128, device="meta"))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="run on the CPU only; device_map places it on cuda"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path, quantization_config=Int8Config(), device_map="cuda")
    arguments = VanillaTransformerTrainingArguments(str(tmp_path / "run"), max_steps=1, report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match="[Qq]uantiz|fine-tun"):
        VanillaTransformerTrainer(quantized, arguments, data_collator=lambda rows: rows, train_dataset=[])
