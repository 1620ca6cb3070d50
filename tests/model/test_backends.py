"""Attention kernels, gradient checkpointing, compilation, dtypes, devices and caches all give the same numbers."""

# Shapes: B batch · S source length · T target length · V vocabulary

import copy
import re
import shutil

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache, StaticCache

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration

SOURCE = torch.tensor([[4, 9, 17, 5, 2], [6, 8, 2, 0, 0], [11, 7, 20, 2, 0]])
LEFT_PADDED = torch.tensor([[4, 9, 17, 5, 2], [0, 0, 6, 8, 2], [0, 11, 7, 20, 2]])
UNPADDED = torch.tensor([[4, 9, 17, 5, 2], [6, 8, 2, 21, 3], [11, 7, 20, 2, 5]])
TARGET = torch.tensor([[1, 7, 8, 3, 12, 9, 11], [1, 18, 10, 4, 12, 9, 5], [1, 6, 6, 20, 0, 0, 0]])
LABELS = torch.tensor([[7, 8, 3, 12, 9, 11, 2], [18, 10, 4, 12, 9, 5, 2], [6, 6, 20, 2, -100, -100, -100]])
SOURCES = {"right": SOURCE, "left": LEFT_PADDED, "none": UNPADDED}


def build(attention="sdpa", dtype=torch.float64, **fields):
    """Build a model with the same weights for every attention kernel; two heads of 16, which every kernel supports."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=23, d_model=32, d_ff=14, num_heads=2, encoder_layers=2, decoder_layers=2, dropout=0.0)
    config = VanillaTransformerConfig(**{**sizes, **fields}, attn_implementation=attention)
    return VanillaTransformerForConditionalGeneration(config).to(dtype)


def run(model, source, training=True, **inputs):
    """Return the logits in evaluation mode, the loss, and the gradient of every parameter."""
    inputs = dict(attention_mask=(source != 0).long(), decoder_input_ids=TARGET, labels=LABELS, **inputs)
    model.eval()
    logits = model(source, **inputs).logits.detach()
    model.train(training)
    model.zero_grad()
    loss = model(source, **inputs, label_smoothing=0.1).loss
    loss.backward()
    return logits, loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same(found, expected, tolerance):
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found[1], expected[1], rtol=tolerance, atol=tolerance)
    assert found[2].keys() == expected[2].keys()
    for name, gradient in expected[2].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(
            found[2][name], gradient, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


# --------------------------------------------------------------------------- attention kernels


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize("padding", SOURCES)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_eager_and_sdpa_agree_forward_and_backward(padding, dtype, tolerance, training):
    source = SOURCES[padding]
    expected = run(build("eager", dtype), source, training)
    assert_same(run(build("sdpa", dtype), source, training), expected, tolerance)


def test_eager_and_sdpa_agree_where_the_target_has_a_mask():
    mask = (TARGET != 0).long()
    expected = run(build("eager"), SOURCE, decoder_attention_mask=mask)
    assert_same(run(build("sdpa"), SOURCE, decoder_attention_mask=mask), expected, 1e-12)


def flex_or_skip(action):
    """Run an action, or skip the test if flex attention, which is compiled, is not supported on this CPU."""
    if shutil.which("g++") is None and shutil.which("c++") is None and shutil.which("clang++") is None:
        pytest.skip("flex attention on the CPU needs a C++ compiler")
    try:
        return action()
    except (NotImplementedError, RuntimeError) as error:
        if re.search(r"(?i)not (yet )?(implemented|supported)|unsupported|does not support", str(error)):
            pytest.skip(
                f"torch {torch.__version__} does not support this flex attention on the CPU: {str(error)[:200]}"
            )
        raise


@pytest.mark.slow
@pytest.mark.parametrize("padding", SOURCES)
def test_flex_attention_gives_the_same_logits(padding):
    source = SOURCES[padding]
    mask = (source != 0).long()
    inputs = dict(input_ids=source, attention_mask=mask, decoder_input_ids=TARGET)
    with torch.no_grad():
        expected = build("eager", torch.float32).eval()(**inputs).logits
        model = build("flex_attention", torch.float32).eval()
        logits = flex_or_skip(lambda: model(**inputs).logits)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_flex_attention_gives_the_same_gradients():
    expected = run(build("eager", torch.float32), SOURCE)
    found = flex_or_skip(lambda: run(build("flex_attention", torch.float32), SOURCE))
    assert_same(found, expected, 2e-5)


def test_attention_can_be_switched_after_loading(tmp_path):
    model = build("eager").eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, attn_implementation="sdpa", dtype=torch.float64)
    assert again.config._attn_implementation == "sdpa"
    expected = model(SOURCE, decoder_input_ids=TARGET).logits
    torch.testing.assert_close(again(SOURCE, decoder_input_ids=TARGET).logits, expected, rtol=0, atol=1e-12)
    again.set_attn_implementation("eager")
    assert again.model.encoder.config._attn_implementation == "eager"
    torch.testing.assert_close(again(SOURCE, decoder_input_ids=TARGET).logits, expected, rtol=0, atol=1e-12)


# --------------------------------------------------------------------------- gradient checkpointing


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not_reentrant"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_no_gradient(attention, reentrant, dropout):
    model = build(attention, dropout=dropout)
    again = copy.deepcopy(model)
    again.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert again.model.encoder.layers[0].gradient_checkpointing and again.model.decoder.layers[0].gradient_checkpointing
    torch.manual_seed(5)  # the recomputation has to drop the same elements as the forward pass
    expected = run(model, SOURCE)
    torch.manual_seed(5)
    assert_same(run(again, SOURCE), expected, 1e-12)


def test_gradient_checkpointing_really_recomputes():
    model = build()
    model.gradient_checkpointing_enable()
    model.train()
    calls = []
    model.model.decoder.layers[0].feed_forward.register_forward_pre_hook(lambda *_: calls.append(1))
    model(SOURCE, decoder_input_ids=TARGET, labels=LABELS).loss.backward()
    assert len(calls) == 2


# --------------------------------------------------------------------------- torch.compile


# Dynamo makes the full graphs: "eager" runs them unchanged, "aot_eager" traces autograd as well.
@pytest.mark.parametrize(
    "backend, padding",
    [
        ("eager", "right"),
        pytest.param("eager", "none", marks=pytest.mark.slow),
        pytest.param("aot_eager", "right", marks=pytest.mark.slow),
    ],
)
def test_forward_compiles_to_one_graph(backend, padding):
    torch._dynamo.reset()
    model = build(dtype=torch.float32).eval()
    source = SOURCES[padding]
    inputs = dict(input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=TARGET, use_cache=False)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_training_step_compiles_to_one_graph():
    torch._dynamo.reset()
    model = build(dtype=torch.float32)
    expected = run(model, SOURCE)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model.train()
    model.zero_grad()
    inputs = dict(attention_mask=(SOURCE != 0).long(), decoder_input_ids=TARGET, labels=LABELS, label_smoothing=0.1)
    loss = compiled(SOURCE, **inputs).loss
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected[1], rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[2][name], rtol=1e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_compiles_the_forward_pass():
    torch._dynamo.reset()
    model = build(dtype=torch.float32).eval()
    inputs = dict(input_ids=SOURCE, attention_mask=(SOURCE != 0).long(), decoder_input_ids=TARGET, use_cache=False)
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(
            torch.compile(model, fullgraph=True)(**inputs).logits, expected, rtol=1e-4, atol=1e-4
        )


# --------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.1), (torch.float16, 0.02)], ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_half_precision_is_close_to_fp32(dtype, tolerance, attention):
    exact = build(attention, torch.float32).eval()
    half = copy.deepcopy(exact).to(dtype)
    inputs = dict(attention_mask=(SOURCE != 0).long(), decoder_input_ids=TARGET, labels=LABELS)
    with torch.no_grad():
        expected, found = exact(SOURCE, **inputs), half(SOURCE, **inputs)
    assert found.logits.dtype == dtype
    assert (found.logits.float() - expected.logits).abs().max() < tolerance
    assert found.loss.float().item() == pytest.approx(expected.loss.item(), abs=tolerance)


def test_bf16_autocast_trains_like_fp32():
    expected = run(build(dtype=torch.float32), SOURCE)
    model = build(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.train()
        loss = model(
            SOURCE, attention_mask=(SOURCE != 0).long(), decoder_input_ids=TARGET, labels=LABELS, label_smoothing=0.1
        ).loss
    assert loss.dtype == torch.float32
    loss.backward()
    assert loss.item() == pytest.approx(expected[1].item(), abs=0.02)
    for name, parameter in model.named_parameters():
        likeness = torch.nn.functional.cosine_similarity(parameter.grad.flatten(), expected[2][name].flatten(), dim=0)
        assert parameter.grad.dtype == torch.float32 and likeness > 0.98, (name, likeness)


# --------------------------------------------------------------------------- tensor parallelism, devices


def test_the_tensor_parallel_plan_lists_every_matrix_and_only_existing_modules():
    model = build()
    names = {kind: set() for kind in (torch.nn.Linear, torch.nn.Embedding)}
    for name, module in model.named_modules():
        if type(module) in names:
            names[type(module)].add(re.sub(r"\.\d+\.", ".*.", name))
    plan = model.tp_plan
    # The projections of the layers and the output projection are all matrix products. Embeddings may be split as well,
    # by tokens.
    assert names[torch.nn.Linear] <= set(plan) <= names[torch.nn.Linear] | names[torch.nn.Embedding]
    # Two consecutive products need one reduction if the first is split by outputs and the second by inputs.
    for name, style in plan.items():
        last = name.rsplit(".", 1)[-1]
        expected = {"embed_tokens": "embedding", "out_proj": "rowwise", "w_2": "rowwise"}.get(last, "colwise")
        assert style.startswith(expected), (name, style)


def test_tensor_parallelism_splits_attention_by_heads():
    model = build()
    attention = model.model.encoder.layers[0].self_attn
    # Half of the rows of W^Q, W^K, W^V and half of the columns of W^O belong to one head; the outputs are summed.
    states = torch.randn(2, 5, 32, dtype=torch.float64)
    whole, _ = attention(states)
    parts = []
    for head in range(2):
        half = copy.deepcopy(attention)
        rows = slice(16 * head, 16 * head + 16)
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(half, name).weight.data = getattr(attention, name).weight.data[rows]
        half.out_proj.weight.data = attention.out_proj.weight.data[:, rows]
        parts.append(half(states)[0])
    torch.testing.assert_close(sum(parts), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}], ids=str)
def test_device_map_loads_the_same_model(device_map, tmp_path):
    model = build(dtype=torch.float32).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, device_map=device_map)
    found = again(SOURCE.to(again.device), decoder_input_ids=TARGET.to(again.device)).logits.cpu()
    torch.testing.assert_close(found, model(SOURCE, decoder_input_ids=TARGET).logits, rtol=0, atol=1e-5)
    assert again.lm_head.weight.data_ptr() == again.model.encoder.embed_tokens.weight.data_ptr()


def test_a_model_spread_over_memory_and_disk_gives_the_same_logits(tmp_path):
    model = build(dtype=torch.float32, share_encoder_decoder_embeddings=False, tie_word_embeddings=False).eval()
    model.save_pretrained(tmp_path / "model")
    device_map = {"model.encoder": "cpu", "model.decoder": "disk", "lm_head": "cpu"}
    again = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    expected = model(SOURCE, decoder_input_ids=TARGET).logits
    torch.testing.assert_close(again(SOURCE, decoder_input_ids=TARGET).logits, expected, rtol=0, atol=1e-5)


# --------------------------------------------------------------------------- caches


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("padding", SOURCES)
def test_cached_steps_equal_the_full_forward(attention, kind, padding):
    model = build(attention).eval()
    source = SOURCES[padding]
    mask = (source != 0).long()
    if kind == "dynamic":
        halves = [DynamicCache(config=model.config) for _ in range(2)]
    else:
        halves = [StaticCache(config=model.config, max_cache_len=length) for length in (9, source.shape[1])]
    cache = EncoderDecoderCache(*halves)
    with torch.no_grad():
        full = model(source, attention_mask=mask, decoder_input_ids=TARGET).logits
        encoder_outputs = model.model.encoder(source, attention_mask=mask)
        steps = [
            model(
                encoder_outputs=encoder_outputs, attention_mask=mask, decoder_input_ids=TARGET[:, step : step + 1],
                cache=cache, use_cache=True,
            ).logits
            for step in range(TARGET.shape[1])
        ]  # fmt: skip
    torch.testing.assert_close(torch.cat(steps, dim=1), full, rtol=0, atol=1e-12)
