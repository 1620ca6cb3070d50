"""Loss, logits and gradients on the device are those of fp64 on the CPU, in every precision and by every kernel."""

from collections.abc import Callable

import pytest
import torch
from small_models import PADDINGS, batch, build, gradients, relative_error
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import EncoderDecoderCache, StaticCache

from hf_vanilla_transformer import attention_maps, train_tokenizer
from hf_vanilla_transformer.model import loss_vanilla_transformer as losses
from hf_vanilla_transformer.model.attention_vanilla_transformer import CACHE_NAME
from hf_vanilla_transformer.model.dropout_vanilla_transformer import Dropout
from hf_vanilla_transformer.model.layers_vanilla_transformer import sinusoidal_position_encoding
from hf_vanilla_transformer.self_check.runner import check_installation

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# ‖error‖ / ‖exact‖ that rounding may cost, in units of the dtype's ε: errors of single numbers add up like a random
# walk, so that a whole tensor is off by a few ε after the longest path of some ten roundings (√10 · ε), twice that for
# gradients, which go through it twice.
FORWARD, BACKWARD = 8.0, 16.0
SMOOTHING = 0.1
# The paper's ReLU has a kink: where rounding moves an input across 0, a gradient changes by more than rounding.
SMOOTH = {"activation_function": "silu"}


def run(model, inputs, training: bool = True, scale: float = 1.0, precision: str = "fp32"):
    """Return logits, loss and gradients of a model on its own device."""
    device = model.device.type
    model.train(training)
    model.zero_grad()
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    with torch.autocast(device, dtype=DTYPES[precision], enabled=precision != "fp32"):
        with torch.no_grad():
            logits = model(**inputs, return_logits=True).logits
        loss = model(**inputs, label_smoothing=SMOOTHING).loss
    scaler = torch.amp.GradScaler(device, init_scale=scale, enabled=precision == "fp16")
    scaler.scale(loss).backward()
    found = {name: gradient / (scale if precision == "fp16" else 1.0) for name, gradient in gradients(model).items()}
    return logits, loss.detach(), found


def assert_close(found, expected, epsilon: float) -> None:
    assert relative_error(found[0], expected[0]) < FORWARD * epsilon
    assert relative_error(found[1], expected[1]) < FORWARD * epsilon
    assert found[2].keys() == expected[2].keys()
    off = {name: relative_error(found[2][name], gradient) / epsilon for name, gradient in expected[2].items()}
    assert all(error < BACKWARD for error in off.values()), off


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("precision", DTYPES)
def test_loss_logits_and_gradients_are_those_of_fp64(device, precision, padding):
    inputs = batch(device, padding)
    expected = run(build(torch.float64, **SMOOTH), {name: tensor.cpu() for name, tensor in inputs.items()})
    found = run(build(**SMOOTH).to(device), inputs, scale=2.0**16, precision=precision)
    assert_close(found, expected, torch.finfo(DTYPES[precision]).eps)


def test_the_padded_side_changes_nothing(device):
    model = build().to(device).eval()
    right, left = batch(device, "right"), batch(device, "left")
    with torch.no_grad():
        logits = [model(**inputs).logits for inputs in (right, left)]
    assert relative_error(logits[1], logits[0]) < FORWARD * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("kernel", ["MATH", "EFFICIENT_ATTENTION", "FLASH_ATTENTION", "CUDNN_ATTENTION"])
@pytest.mark.parametrize("padding", ["right", "none"])
def test_every_attention_kernel_gives_the_same(device, kernel, padding):
    if device.type == "cpu" and kernel in ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
        pytest.skip(f"{kernel} is a kernel of GPUs")
    masked = padding != "none"
    if device.type == "cuda" and kernel == "FLASH_ATTENTION" and masked:
        pytest.skip("the flash kernel of CUDA takes no mask")
    half = device.type == "cuda" and kernel in ("FLASH_ATTENTION", "CUDNN_ATTENTION")  # these take nothing wider
    precision = "bf16" if half else "fp32"
    inputs = batch(device, padding)
    expected = run(build(torch.float64, **SMOOTH), {name: tensor.cpu() for name, tensor in inputs.items()})
    # Outside of training transformers passes no mask where nothing is padded.
    with sdpa_kernel([getattr(SDPBackend, kernel)]):
        try:
            found = run(build(**SMOOTH).to(device), inputs, training=masked, precision=precision)
        except RuntimeError as error:
            if kernel == "CUDNN_ATTENTION" and "No available kernel" in str(error):
                pytest.skip(f"cuDNN has no such kernel here: {error}")
            raise
    assert_close(found, expected, torch.finfo(DTYPES[precision]).eps)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("smoothing", [0.0, SMOOTHING])
def test_the_loss_that_never_counts_tokens_is_the_same(device, smoothing, bias, monkeypatch):
    """What is done on a GPU, on the CPU as well: padding stays in the chunks, as rows of 0."""
    monkeypatch.setattr(losses, "on_accelerator", lambda tensor: True)
    monkeypatch.setattr(losses, "_CHUNK_BYTES", 4 * 8 * 67)  # 8 rows of fp32
    monkeypatch.setattr(losses, "_CHUNK_BYTES_ON_ACCELERATOR", 4 * 8 * 67)
    torch.manual_seed(0)
    labels = batch(device)["labels"]  # (5, 9), some of them ignored
    values = [torch.randn(size).to(device) for size in ((5, 9, 16), (67, 16), (67,))]
    values[0][labels == -100] = float("nan")  # values at padding must not matter
    results = []
    for loss_of in (losses.linear_cross_entropy, by_logits):
        hidden, weight, shift = (value.clone().requires_grad_() for value in values)
        loss, nll = loss_of(hidden, weight, shift if bias else None, labels, smoothing)
        (loss / 3.0).backward()
        results.append([loss, nll, hidden.grad, weight.grad, *([shift.grad] if bias else [])])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert results[0][2][labels == -100].abs().max() == 0


def by_logits(hidden, weight, bias, labels, smoothing):
    hidden = hidden.masked_fill((labels == -100).unsqueeze(-1), 0.0)
    return losses.token_cross_entropy(torch.nn.functional.linear(hidden, weight, bias), labels, smoothing)


def test_positions_are_as_exact_as_on_the_cpu(device):
    positions = torch.arange(0, 20_000, 97)
    found = sinusoidal_position_encoding(positions.to(device), 64).cpu()
    expected = sinusoidal_position_encoding(positions, 64, dtype=torch.float64)
    # Angles are fp64, so a sine in fp32 is off by its rounding, half an ε, and by the device's own sine.
    assert (found - expected).abs().max() < torch.finfo(torch.float32).eps


def test_dropout_keeps_the_share_and_the_expectation(device):
    layer, number = Dropout(0.3), 200_000
    kept = layer(torch.ones(number, device=device))
    share = float((kept != 0).float().mean())
    assert abs(share - 0.7) < 5 * (0.3 * 0.7 / number) ** 0.5  # five standard deviations of a binomial
    assert float(kept.max()) == pytest.approx(1 / 0.7, rel=1e-4)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_cached_steps_equal_the_full_forward(device, kind, padding):
    model, inputs = build().to(device).eval(), batch(device, padding)
    target = model.prepare_decoder_input_ids_from_labels(inputs.pop("labels"))
    with torch.no_grad():
        expected = model(**inputs, decoder_input_ids=target).logits
        encoded = model.model.encoder(**inputs)
        cache = static_cache(model, target.shape[1], target.shape[1]) if kind == "static" else None
        steps = []
        for place in range(target.shape[1]):
            output = model(
                encoder_outputs=encoded,
                attention_mask=inputs["attention_mask"],
                decoder_input_ids=target[:, place : place + 1],
                use_cache=True,
                **{CACHE_NAME: cache},
            )
            cache = output[CACHE_NAME]
            steps.append(output.logits)
    assert relative_error(torch.cat(steps, dim=1), expected) < FORWARD * torch.finfo(torch.float32).eps


def static_cache(model, target_length: int, source_length: int) -> EncoderDecoderCache:
    return EncoderDecoderCache(
        *(StaticCache(config=model.config, max_cache_len=length) for length in (target_length, source_length))
    )


@pytest.mark.slow_on_cpu
def test_generate_with_a_static_cache_writes_the_same_tokens(device):
    """On a GPU transformers compiles the decoder for it."""
    model, inputs = build().to(device).eval(), batch(device)
    del inputs["labels"]
    settings = dict(num_beams=1, do_sample=False, max_length=None, max_new_tokens=8)
    expected = model.generate(**inputs, **settings)
    assert torch.equal(model.generate(**inputs, **settings, cache_implementation="static"), expected)


# --------------------------------------------------------------------------- torch.compile


@pytest.fixture
def compiled(device) -> Callable:
    """Compile in one graph: by inductor on a GPU, on the CPU only as far as the graph."""
    torch._dynamo.reset()
    yield lambda model: torch.compile(model, fullgraph=True, backend="inductor" if device.type == "cuda" else "eager")
    torch._dynamo.reset()


def test_the_compiled_forward_pass_is_one_graph_with_the_same_logits(device, compiled):
    model, inputs = build().to(device).eval(), batch(device)
    with torch.no_grad():
        found, expected = (run_it(**inputs).logits for run_it in (compiled(model), model))
    assert relative_error(found, expected) < FORWARD * torch.finfo(torch.float32).eps


def test_the_compiled_training_step_is_one_graph_with_the_same_gradients(device, compiled):
    model, inputs = build(**SMOOTH).to(device).train(), batch(device)
    results = []
    for run_it in (compiled(model), model):
        model.zero_grad()
        loss = run_it(**inputs, label_smoothing=SMOOTHING).loss
        loss.backward()
        results.append((loss.detach(), gradients(model)))
    epsilon = torch.finfo(torch.float32).eps
    assert relative_error(results[0][0], results[1][0]) < FORWARD * epsilon
    off = {name: relative_error(results[0][1][name], grad) / epsilon for name, grad in results[1][1].items()}
    assert all(error < BACKWARD for error in off.values()), off


def test_the_compiled_decoder_step_is_one_graph_with_the_same_logits(device, compiled):
    model, inputs = build().to(device).eval(), batch(device)
    target = model.prepare_decoder_input_ids_from_labels(inputs.pop("labels"))
    with torch.no_grad():
        expected = model(**inputs, decoder_input_ids=target).logits
        encoded = model.model.encoder(**inputs)
        cache, step, steps = static_cache(model, target.shape[1], target.shape[1]), compiled(model), []
        for place in range(5):
            # The first step fills in the encoder's keys and values; later ones are all alike.
            output = (step if place else model)(
                encoder_outputs=encoded,
                attention_mask=inputs["attention_mask"],
                decoder_input_ids=target[:, place : place + 1],
                use_cache=True,
                **{CACHE_NAME: cache},
            )
            steps.append(output.logits.clone())
    found = torch.cat(steps, dim=1)
    assert relative_error(found, expected[:, : found.shape[1]]) < FORWARD * torch.finfo(torch.float32).eps


# --------------------------------------------------------------------------- what people look at


def test_attention_maps_are_those_of_the_cpu(device):
    tokenizer = train_tokenizer(["one two three four", "하나 둘 셋 넷"], 300)
    model = build(vocab_size=len(tokenizer)).eval()
    expected = attention_maps(model, tokenizer, "one two three", "하나 둘 셋")
    found = attention_maps(model.to(device), tokenizer, "one two three", "하나 둘 셋")
    for name in ("encoder", "decoder", "cross", "target_probabilities"):
        torch.testing.assert_close(
            torch.as_tensor(getattr(found, name)), torch.as_tensor(getattr(expected, name)), rtol=1e-4, atol=1e-6
        )
    assert attention_maps(model, tokenizer, "one two three").target_tokens  # and by its own search


def test_the_checks_of_an_installation_pass(device):
    report = check_installation(device)
    assert report.passed, str(report)
    if device.type == "cuda":
        skipped = {result.name for result in report.results if result.status == "skipped"}
        assert skipped <= {"versions"}, skipped  # of a package that runs from its source folder
