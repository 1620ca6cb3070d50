"""The kernel of the output projection: equal results, and when it may replace the layer's own call."""

import pytest
import torch
from torch import nn

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


def test_other_processors_use_torch_s_own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "mkl_is_slow_here", lambda: False)
    with torch.no_grad():
        assert not kernels.prefers_onednn(nn.Linear(8, 5000), torch.randn(2, 8))
