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
from hf_vanilla_transformer.training import r_drop
from hf_vanilla_transformer.training.r_drop import doubled, prediction_divergence

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


@pytest.mark.parametrize("chunk_elements", [1, 2**21])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_divergence_and_its_gradients_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, chunk_elements: int
) -> None:
    monkeypatch.setattr(r_drop, "_CHUNK_ELEMENTS", chunk_elements)
    torch.manual_seed(0)
    logits = (3 * torch.randn(4, 4, 40)).to(dtype).requires_grad_()
    wide = logits.detach().double().requires_grad_()
    log_p, log_q = wide.log_softmax(dim=-1).chunk(2)
    both = [
        nn.functional.kl_div(one, other, log_target=True, reduction="none").sum(-1)
        for one, other in ((log_p, log_q), (log_q, log_p))
    ]
    expected = ((both[0] + both[1]) / 2 * (LABELS != -100)).sum()
    (2 * expected).backward()
    found = prediction_divergence(logits, LABELS)
    (2 * found).backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    assert expected > 1
    torch.testing.assert_close(found.double(), expected, rtol=max(tolerance, 1e-6), atol=0.0)
    torch.testing.assert_close(logits.grad.double(), wide.grad, rtol=tolerance, atol=tolerance)


def test_the_divergence_passes_gradcheck() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 4, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: prediction_divergence(x, LABELS), (logits,))


@pytest.mark.parametrize("number", [None, 6, torch.tensor(6)])
def test_the_loss_is_the_mean_of_two_passes_and_half_alpha_times_the_divergence(tmp_path: Path, number: Any) -> None:
    made = trainer(tmp_path, alpha=5.0)
    torch.manual_seed(1)
    loss, outputs = made.compute_loss(made.model, INPUTS, True, number)
    torch.manual_seed(1)
    passes = made.model(**doubled(INPUTS), label_smoothing=0.1, return_logits=True)
    expected = passes.loss + 2.5 * prediction_divergence(passes.logits, LABELS) / 6
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and loss > passes.loss + 0.01
    assert made._meter.nats.item() == pytest.approx(6 * passes.nll.item(), rel=1e-5)
    assert torch.equal(outputs.logits, passes.logits[:2])


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
        found[alpha] = prediction_divergence(passes.logits, LABELS).item()
    assert found[20.0] < 0.5 * found[0.0]


def test_what_r_drop_cannot_do_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="r_drop=-1.0 must be 0"):
        trainer(tmp_path, -1.0)
    with pytest.raises(ValueError, match="the model has no dropout"):
        trainer(tmp_path, 5.0, dropout=0.0)
