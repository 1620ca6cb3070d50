"""Linear layers: both kernels in fp32 and when they replace the layer's own call; casts under autocast."""

import pytest
import torch
from torch import nn

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerForConditionalGeneration,
    paper_beam_search,
    preset,
)
from hf_vanilla_transformer.model import linear_kernels_vanilla_transformer as kernels


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose oneDNN's kernel whatever the processor is."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(kernels, "mkl_is_slow_here", lambda: True)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (32, 4)])
@pytest.mark.usefixtures("onednn")
def test_both_kernels_compute_the_product(bias: bool, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    linear, states = nn.Linear(32, 5000, bias=bias), torch.randn(*shape, 32)
    with torch.no_grad():
        assert kernels.prefers_onednn(linear, states)
        expected = linear.double()(states.double()).float()
        linear.float()
        torch.testing.assert_close(kernels.project(linear, states), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("onednn")
def test_the_layer_itself_is_called_where_something_depends_on_its_call() -> None:
    linear, states = nn.Linear(8, 5000), torch.randn(2, 8)
    assert not kernels.prefers_onednn(linear, states)  # with gradients
    with torch.no_grad():
        assert kernels.prefers_onednn(linear, states)
        assert not kernels.prefers_onednn(linear, states.double())
        assert not kernels.prefers_onednn(nn.Linear(8, 100), states)
        assert not kernels.prefers_onednn(nn.Sequential(linear), states)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not kernels.prefers_onednn(linear, states)
        calls = []
        handle = linear.register_forward_hook(lambda *_: calls.append(1))
        kernels.project(linear, states)
        assert calls == [1]
        handle.remove()
        assert kernels.prefers_onednn(linear, states)


@pytest.mark.usefixtures("onednn")
def test_smaller_layers_use_it_for_few_rows() -> None:
    linear = nn.Linear(512, 512)
    with torch.no_grad():
        assert kernels.prefers_onednn(linear, torch.randn(1, 512))
        assert kernels.prefers_onednn(linear, torch.randn(8, 2, 512))
        assert not kernels.prefers_onednn(linear, torch.randn(17, 512))
        assert not kernels.prefers_onednn(nn.Linear(511, 512), torch.randn(1, 511))


@pytest.mark.usefixtures("onednn")
def test_a_layer_that_is_more_than_its_matrix_is_called() -> None:
    states = torch.randn(2, 512)
    with torch.no_grad():
        sharded, offloaded = nn.Linear(512, 512), nn.Linear(512, 512)
        sharded.weight.data = torch.empty(0)  # as FSDP leaves it between its calls
        offloaded._hf_hook = object()
        for linear in (sharded, offloaded, type("Adapted", (nn.Linear,), {})(512, 512)):
            assert not kernels.prefers_onednn(linear, states)
        quantized = nn.Linear(512, 512)
        quantized.weight = nn.Parameter(quantized.weight.data, requires_grad=False)
        assert kernels.prefers_onednn(quantized, states)
        quantized.weight.__class__ = type("QuantizedWeight", (nn.Parameter,), {})
        assert not kernels.prefers_onednn(quantized, states)


@pytest.mark.usefixtures("onednn")
def test_the_layer_is_called_where_its_input_is_more_than_numbers() -> None:
    linear, states = nn.Linear(512, 512), torch.randn(2, 512)
    with torch.no_grad():
        _, tangent = torch.func.jvp(linear, (states,), (torch.ones_like(states),))
        _, found = torch.func.jvp(lambda rows: kernels.project(linear, rows), (states,), (torch.ones_like(states),))
        torch.testing.assert_close(found, tangent)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            kernels.project(linear, states[:, 1:])
        assert kernels.project(linear.to("meta"), states.to("meta")).is_meta
        replaced = nn.Linear(512, 512)
        replaced.forward = torch.zeros_like
        assert not kernels.project(replaced, states).any()


def test_tracing_and_exporting_see_the_layer_alone() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(512, 512)

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return kernels.project(self.linear, states)

    layer, states = Layer().eval(), torch.randn(2, 512)
    with torch.no_grad():
        for trace in (
            lambda: torch.jit.trace(layer, states).graph,
            lambda: torch.export.export(layer, (states,), strict=True).graph,
            lambda: torch.export.export(layer, (states,), strict=False).graph,
        ):
            kernels.mkl_is_slow_here.cache_clear()
            assert "mkldnn" not in str(trace())
        kernels.mkl_is_slow_here.cache_clear()
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(states), layer(states))


@pytest.mark.usefixtures("onednn")
def test_a_search_of_a_large_model_writes_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = preset("base", vocab_size=5000, encoder_layers=1, decoder_layers=2)
    model = VanillaTransformerForConditionalGeneration(config).eval()
    ids = torch.randint(4, 5000, (4, 7))
    counted = []
    prefers = kernels.prefers_onednn
    monkeypatch.setattr(kernels, "prefers_onednn", lambda *inputs: counted.append(prefers(*inputs)) or counted[-1])

    def search() -> tuple[torch.Tensor, torch.Tensor]:
        output = paper_beam_search(model, ids, config=BeamSearchConfig(max_extra_tokens=0))
        return output.sequences, output.sequences_scores

    tokens, scores = search()
    assert sum(counted) > 50
    monkeypatch.setattr(kernels, "mkl_is_slow_here", lambda: False)
    counted.clear()
    expected, expected_scores = search()
    assert not any(counted)
    assert torch.equal(tokens, expected)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-5, atol=1e-5)


def test_other_processors_use_torch_s_own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "mkl_is_slow_here", lambda: False)
    with torch.no_grad():
        assert not kernels.prefers_onednn(nn.Linear(8, 5000), torch.randn(2, 8))


def test_the_input_of_a_sublayer_is_cast_once() -> None:
    config = preset("tiny", vocab_size=50, encoder_layers=1, decoder_layers=1, dropout=0.0)
    model = VanillaTransformerForConditionalGeneration(config)
    inputs: dict[int, set[int]] = {}

    def note(layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        inputs.setdefault(arguments[0].data_ptr(), set()).add(id(layer))
        assert arguments[0].dtype == torch.bfloat16

    attentions = [model.model.decoder.layers[0].self_attn, model.model.decoder.layers[0].cross_attn]
    for attention in attentions:
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj):
            layer.register_forward_pre_hook(note)
    ids = torch.tensor([[5, 6, 7]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(input_ids=ids, decoder_input_ids=ids, use_cache=False)
    shared = {frozenset(layers) for layers in inputs.values()}
    own, encoder = attentions
    assert shared == {
        frozenset(map(id, (own.q_proj, own.k_proj, own.v_proj))),
        frozenset([id(encoder.q_proj)]),
        frozenset(map(id, (encoder.k_proj, encoder.v_proj))),
    }
    del output


def test_states_are_cast_under_autocast_only() -> None:
    states = torch.randn(2, 3)
    assert kernels.cast_for_products(states) is states
    meta = states.to("meta")  # which has no autocast
    assert kernels.cast_for_products(meta) is meta
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kernels.cast_for_products(states).dtype == torch.bfloat16
        for other in (states.double(), states.half(), states.bfloat16()):
            assert kernels.cast_for_products(other) is other


# --------------------------------------------------------------------------- the second cast of a weight


def large_layer(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(512, 520, bias=bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 3, 4)])
def test_a_second_cast_gives_the_gradients_of_autocast(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]) -> None:
    linear, states = large_layer(bias), torch.randn(*shape, 512, requires_grad=True)
    weights = torch.randn(*shape, 520)
    results = []
    for project in (kernels.project, lambda layer, rows: layer(rows)):
        inputs = [states, *linear.parameters()]
        with torch.autocast("cpu", dtype=dtype):
            assert kernels.prefers_second_cast(linear, states)
            output = project(linear, states)
        assert output.dtype == dtype
        results.append([output, *torch.autograd.grad((output.float() * weights).sum(), inputs)])
    names = ["output", "states", "weight", "bias"]
    for name, ours, expected in zip(names, *results, strict=False):
        assert ours.dtype == expected.dtype
        if name == "bias":  # summed in fp32, where autocast rounds the sum
            torch.testing.assert_close(ours, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)
        else:
            assert torch.equal(ours, expected), name


def test_no_copy_of_the_weight_is_kept() -> None:
    linear, states = large_layer(), torch.randn(4, 512, requires_grad=True)
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        kernels.project(linear, states)
    large = [tensor for tensor in kept if tensor.numel() == linear.weight.numel()]
    assert [tensor.data_ptr() for tensor in large] == [linear.weight.data_ptr()]


def test_frozen_weights_and_inputs_without_gradient() -> None:
    linear, states = large_layer(), torch.randn(4, 512)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kernels.project(linear, states).float().sum().backward()
        assert linear.weight.grad is not None and linear.bias.grad is not None
        linear.requires_grad_(False)
        linear.weight.grad = linear.bias.grad = None
        kernels.project(linear, states.requires_grad_()).float().sum().backward()
    assert states.grad is not None and linear.weight.grad is None and linear.bias.grad is None


def test_the_second_derivative_exists() -> None:
    linear, states = large_layer(), torch.randn(4, 512, requires_grad=True)
    results = []
    for project in (kernels.project, lambda layer, rows: layer(rows)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = project(linear, states)
        (first,) = torch.autograd.grad(output.float().square().sum(), states, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), linear.weight)[0])
    torch.testing.assert_close(results[0], results[1], rtol=0.02, atol=0.02 * results[1].abs().max().item())


def test_the_copy_is_kept_where_a_second_cast_gains_nothing_or_cannot_be_made() -> None:
    linear, states = large_layer(), torch.randn(4, 512)
    assert not kernels.prefers_second_cast(linear, states)  # without autocast
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kernels.prefers_second_cast(linear, states)
        assert kernels.prefers_second_cast(linear, states.bfloat16())
        assert not kernels.prefers_second_cast(linear, states.half())
        assert not kernels.prefers_second_cast(linear, states.double())
        assert not kernels.prefers_second_cast(nn.Linear(512, 511), states)  # small
        assert not kernels.prefers_second_cast(large_layer().bfloat16(), states)
        assert not kernels.prefers_second_cast(large_layer().eval(), states)
        assert not kernels.prefers_second_cast(type("Adapted", (nn.Linear,), {})(512, 520), states)
        with torch.no_grad():
            assert not kernels.prefers_second_cast(linear, states)
        tangent = torch.func.jvp(lambda rows: kernels.project(linear, rows), (states,), (torch.ones_like(states),))[1]
        assert tangent.any()


def test_the_gradients_of_a_large_model_are_those_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = preset("base", vocab_size=100, encoder_layers=1, decoder_layers=1, dropout=0.0)
    model = VanillaTransformerForConditionalGeneration(config).train()
    ids = torch.randint(4, 100, (4, 7))
    used = []
    prefers = kernels.prefers_second_cast
    monkeypatch.setattr(kernels, "prefers_second_cast", lambda *inputs: used.append(prefers(*inputs)) or used[-1])

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids.flip(1), label_smoothing=0.1).loss
        loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    ours = gradients()
    assert len(used) == 16 and all(used)
    monkeypatch.setattr(kernels, "prefers_second_cast", lambda *_: False)
    for (name, parameter), found, expected in zip(model.named_parameters(), ours, gradients(), strict=True):
        if parameter.dim() > 1:
            assert torch.equal(found, expected), name
        else:
            torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-3, msg=name)
