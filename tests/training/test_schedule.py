"""Equation 3, compared with values computed by hand."""

import pytest
import torch

from hf_vanilla_transformer.training.schedule import cooldown_multiplier, noam_learning_rate, noam_schedule


@pytest.mark.parametrize(
    ("step", "d_model", "warmup_steps", "expected"),
    [
        # d_model = 64: 64^-0.5 = 1/8. warmup = 100: 100^-1.5 = 1/1000.
        (1, 64, 100, 1 / 8000),  # 1/8 · min(1, 1/1000)
        (50, 64, 100, 1 / 160),  # 1/8 · 50/1000
        (100, 64, 100, 1 / 80),  # both terms are 1/10: the peak, 1/√(64·100)
        (400, 64, 100, 1 / 160),  # 1/8 · 1/20
        # The paper's base: 512^-0.5 = 0.04419417, 4000^-1.5 = 3.9528471e-6, 4000^-0.5 = 0.015811388.
        (1, 512, 4000, 1.7469281e-7),
        (4000, 512, 4000, 6.9877124e-4),
        (100_000, 512, 4000, 1.3975425e-4),  # 0.04419417 · 0.0031622777
    ],
)
def test_rate_is_equation_3(step, d_model, warmup_steps, expected):
    assert noam_learning_rate(step, d_model, warmup_steps) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("step", "d_model", "warmup_steps"), [(0, 8, 8), (1, 0, 8), (1, 8, 0)])
def test_numbers_below_one_are_refused(step, d_model, warmup_steps):
    with pytest.raises(ValueError, match="Equation 3 needs"):
        noam_learning_rate(step, d_model, warmup_steps)


def test_update_one_uses_the_rate_of_step_one():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=3 / 80)  # three times the paper's peak, 1/√(64·100) = 1/80
    schedule = noam_schedule(optimizer, warmup_steps=100)
    seen = []
    for _ in range(3):
        before = weight.item()
        weight.grad = torch.ones(1)
        optimizer.step()  # plain gradient descent with gradient 1 moves the weight by the learning rate
        seen.append(before - weight.item())
        schedule.step()
    assert seen == pytest.approx([3 / 8000, 6 / 8000, 9 / 8000], rel=1e-4)


def test_a_warmup_of_zero_is_refused_before_the_first_update():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="warmup_steps of at least 1"):
        noam_schedule(optimizer, warmup_steps=0)


def test_the_cooldown_is_linear_and_ends_just_above_zero():
    # Ten updates, the last four cooled down: 4/5, 3/5, 2/5, 1/5.
    multipliers = [cooldown_multiplier(step, total_steps=10, cooldown_steps=4) for step in range(1, 11)]
    assert multipliers == pytest.approx([1.0] * 6 + [0.8, 0.6, 0.4, 0.2])
    assert [cooldown_multiplier(step, 10, 0) for step in (1, 10)] == [1.0, 1.0]


def test_a_cooldown_longer_than_the_run_is_refused():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="cooldown_steps=11 must be between 0 and the run's 10 updates"):
        noam_schedule(optimizer, 4, total_steps=10, cooldown_steps=11)
