# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""R-Drop: the mean loss of two passes and the divergence of their predictions, beside a computation by torch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    preset,
)
from hf_vanilla_transformer.model import loss_vanilla_transformer as losses
from hf_vanilla_transformer.training.r_drop import doubled

LABELS = torch.tensor([[7, 8, 9, 2], [7, 2, -100, -100]])
INPUTS = {
    "input_ids": torch.tensor([[5, 6, 2], [5, 2, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    "labels": LABELS,
}


def trainer(tmp_path: Path, alpha: float, dropout: float = 0.3, **settings: Any) -> VanillaTransformerTrainer:
    torch.manual_seed(0)
    config = preset("tiny", vocab_size=40, d_model=16, d_ff=32, num_heads=2, dropout=dropout)
    arguments = VanillaTransformerTrainingArguments(
        str(tmp_path), max_steps=2, learning_rate=0.01, warmup_steps=1, precision="fp32", report_to="none",
        r_drop=alpha, **settings,
    )  # fmt: skip
    rows = [{"input_ids": [5, 6, 2], "labels": [7, 8, 9, 2]}, {"input_ids": [5, 4, 2], "labels": [7, 4, 4, 2]}]
    made = VanillaTransformerTrainer(VanillaTransformerForConditionalGeneration(config), arguments, train_dataset=rows)
    made.model.train()
    return made


def divergence(logits: torch.Tensor) -> torch.Tensor:
    """Return the divergence of the two predictions for `LABELS`."""
    with_it, without = (losses.token_cross_entropy(logits, TWICE, r_drop=alpha)[0] for alpha in (1.0, 0.0))
    return with_it - without


def two_predictions(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return hidden states of a doubled batch (4, 4, 8), a projection to 40 tokens, and its bias."""
    torch.manual_seed(0)
    shapes = ((4, 4, 8), (40, 8), (40,))
    hidden, weight, bias = (torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes)
    return hidden, weight, bias


TWICE = torch.cat([LABELS, LABELS])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_logits_adds_the_divergence_of_torch(smoothing: float) -> None:
    hidden, weight, bias = two_predictions()
    logits = hidden @ weight.T + bias
    log_p, log_q = logits.log_softmax(dim=-1).chunk(2)
    both = [
        nn.functional.kl_div(one, other, log_target=True, reduction="none").sum(-1)
        for one, other in ((log_p, log_q), (log_q, log_p))
    ]
    divergence = ((both[0] + both[1]) / 2 * (LABELS != -100)).sum()
    plain, nll = losses.token_cross_entropy(logits, TWICE, smoothing)
    found, found_nll = losses.token_cross_entropy(logits, TWICE, smoothing, r_drop=5.0)
    assert divergence > 1 and torch.equal(nll, found_nll)
    torch.testing.assert_close(found, plain + 5 * divergence)
    expected = torch.autograd.grad(plain + 5 * divergence, (hidden, weight, bias), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(found, (hidden, weight, bias)), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_in_chunks_is_that_of_the_logits(
    monkeypatch: pytest.MonkeyPatch, accelerator: bool, rows: int, smoothing: float, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(losses, "on_accelerator", lambda tensor: accelerator)
    for name in ("_CHUNK_BYTES", "_CHUNK_BYTES_ON_ACCELERATOR"):
        monkeypatch.setattr(losses, name, rows * 40 * dtype.itemsize)
    monkeypatch.setattr(losses, "_UPCAST_ELEMENTS", 2 * 40)
    inputs = hidden, weight, bias = two_predictions(dtype)
    plain = losses.token_cross_entropy(hidden @ weight.T + bias, TWICE, smoothing, 5.0)
    chunked = losses.linear_cross_entropy(hidden, weight, bias, TWICE, smoothing, 5.0)
    torch.testing.assert_close(chunked, plain)
    expected = torch.autograd.grad(0.3 * plain[0], inputs)
    torch.testing.assert_close(torch.autograd.grad(0.3 * chunked[0], inputs), expected)
    with torch.no_grad():
        torch.testing.assert_close(losses.linear_cross_entropy(hidden, weight, None, TWICE, smoothing, 5.0),
                                   losses.token_cross_entropy(hidden @ weight.T, TWICE, smoothing, 5.0))  # fmt: skip


def test_the_loss_in_chunks_passes_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_BYTES", 4 * 40 * 8)
    _, weight, bias = two_predictions()
    hidden = torch.randn(4, 4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: losses.linear_cross_entropy(x, weight, bias, TWICE, 0.1, 5.0)[0], hidden)


def test_in_bf16_chunks_lose_no_more_than_the_rounded_logits_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_BYTES", 6 * 40 * 2)
    exact, rounded, ours = [], [], []
    for found, dtype in ((exact, torch.float64), (rounded, torch.bfloat16), (ours, torch.float32)):
        hidden, weight, _ = (values.detach().to(dtype).requires_grad_() for values in two_predictions())
        if found is ours:
            with torch.autocast("cpu", torch.bfloat16):
                loss, nll = losses.linear_cross_entropy(hidden, weight, None, TWICE, 0.1, 5.0)
        else:
            loss, nll = losses.token_cross_entropy(hidden @ weight.T, TWICE, 0.1, 5.0)
        loss.backward()
        found += [loss.double(), nll.double(), hidden.grad.double(), weight.grad.double()]
    for true, expected, found in zip(exact, rounded, ours, strict=True):
        assert (found - true).norm() <= 1.1 * (expected - true).norm() + 2**-9 * true.norm()


def test_ignored_labels_alone_and_an_odd_batch() -> None:
    hidden, weight, bias = two_predictions()
    for loss in (
        losses.linear_cross_entropy(hidden, weight, bias, torch.full_like(TWICE, -100), 0.1, 5.0)[0],
        losses.token_cross_entropy(hidden @ weight.T, torch.full_like(TWICE, -100), 0.1, 5.0)[0],
    ):
        (gradient,) = torch.autograd.grad(loss, hidden)
        assert loss == 0 and not gradient.any()
    one = hidden[:1, :3]
    with pytest.raises(ValueError, match="r_drop compares two predictions for each label, and the batch has 3 labels"):
        losses.linear_cross_entropy(one, weight, bias, TWICE[:1, :3], 0.1, 5.0)
    with pytest.raises(ValueError, match="the batch has 3 labels"):
        losses.token_cross_entropy(one @ weight.T, TWICE[:1, :3], 0.1, 5.0)


@pytest.mark.parametrize("number", [None, 6, torch.tensor(6)])
def test_the_loss_is_the_mean_of_two_passes_and_half_alpha_times_the_divergence(tmp_path: Path, number: Any) -> None:
    made = trainer(tmp_path, alpha=5.0)
    torch.manual_seed(1)
    loss, outputs = made.compute_loss(made.model, INPUTS, True, number)
    torch.manual_seed(1)
    passes = made.model(**doubled(INPUTS), label_smoothing=0.1, return_logits=True)
    expected = passes.loss + 2.5 * divergence(passes.logits) / 6
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and loss > passes.loss + 0.01
    assert made._meter.nats.item() == pytest.approx(6 * passes.nll.item(), rel=1e-5)
    assert torch.equal(outputs.logits, passes.logits[:2])
    torch.manual_seed(1)
    in_chunks = made.compute_loss(made.model, INPUTS, num_items_in_batch=number)
    assert in_chunks.item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_r_drop_or_in_evaluation_there_is_one_pass(tmp_path: Path) -> None:
    losses = []
    for alpha in (0.0, 5.0):
        made = trainer(tmp_path, alpha)
        made.model.eval()
        losses.append(made.compute_loss(made.model, INPUTS).item())
    assert losses[0] == losses[1]
    made, rows = trainer(tmp_path, 0.0), []
    made.model.register_forward_hook(
        lambda model, args, kwargs, output: rows.append(len(kwargs["labels"])), with_kwargs=True
    )
    made.compute_loss(made.model, INPUTS)
    assert rows == [2]


def test_training_lowers_the_divergence(tmp_path: Path) -> None:
    found = {}
    for alpha in (0.0, 20.0):
        made = trainer(tmp_path / str(alpha), alpha, save_strategy="no")
        made.args.max_steps = 60
        made.train()
        made.model.train()
        torch.manual_seed(2)
        passes = made.model(**doubled(INPUTS), return_logits=True)
        found[alpha] = divergence(passes.logits).item()
    assert found[20.0] < 0.5 * found[0.0]


def test_what_r_drop_cannot_do_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="r_drop=-1.0 must be 0"):
        trainer(tmp_path, -1.0)
    with pytest.raises(ValueError, match="the model has no dropout"):
        trainer(tmp_path, 5.0, dropout=0.0)
