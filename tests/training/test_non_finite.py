"""NaN and infinity in losses, gradients and tensors are detected."""

import math

import pytest
import torch

from hf_vanilla_transformer.training import non_finite


def test_a_loss_that_is_not_finite_gets_nan_gradients_and_a_finite_one_is_unchanged():
    x = torch.tensor([0.1, 0.7, -3.3], requires_grad=True)
    plain = torch.autograd.grad((x**3).sum(), x)[0]
    value = non_finite.with_nan_gradients((x**3).sum())
    assert torch.equal(value, (x**3).sum())
    assert torch.equal(torch.autograd.grad(value, x)[0], plain)  # bit-identical: times 1.0
    infinite = x.sum() * 0 + torch.tensor(math.inf)  # an infinite loss whose gradient is 0
    assert torch.autograd.grad(infinite, x, retain_graph=True)[0].tolist() == [0, 0, 0]
    assert torch.autograd.grad(non_finite.with_nan_gradients(infinite), x)[0].isnan().all()


def test_gradient_norm_is_that_of_all_gradients_together():
    one, two = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    one.grad, two.grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
    assert non_finite.gradient_norm([one, two, torch.nn.Parameter(torch.zeros(1))]).item() == 7.0  # √(4 + 9 + 36)
    two.grad[0] = math.inf
    assert not non_finite.gradient_norm([one, two]).isfinite()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_tensor_that_is_not_finite_is_named(value):
    good, bad = torch.ones(3, dtype=torch.bfloat16), torch.ones(2, 5)
    bad[1, 3] = value
    assert (
        non_finite.first_non_finite(
            [("good", good), ("count", torch.tensor(3)), ("none", torch.ones(0)), ("text", "x")]
        )
        is None
    )
    assert non_finite.first_non_finite([("good", good), ("bad", bad)]) == "bad"
