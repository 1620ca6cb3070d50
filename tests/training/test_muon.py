# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Muon for the matrices of the layers, Adam for the rest."""

import copy
from pathlib import Path

import pytest
import torch

from hf_vanilla_transformer import (
    DataCollatorForTranslation,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    preset,
    train_tokenizer,
)
from hf_vanilla_transformer.training import muon

SENTENCES = ["a b c d", "b c d a", "c d a", "d a b c a", "a c", "b d b d"]


def trainer_in(folder: Path, **settings) -> VanillaTransformerTrainer:
    tokenizer = train_tokenizer(SENTENCES, 280)
    torch.manual_seed(0)
    model = VanillaTransformerForConditionalGeneration(
        preset("tiny", vocab_size=len(tokenizer), d_model=16, d_ff=32, num_heads=2, dropout=0.1)
    )
    arguments = VanillaTransformerTrainingArguments(
        str(folder),
        **{
            "max_steps": 6, "max_tokens_per_batch": 24, "learning_rate": 0.01, "warmup_steps": 2, "precision": "fp32",
            "report_to": "none", "save_steps": 3, "optim": "muon", "disable_tqdm": True, **settings,
        },
    )  # fmt: skip
    rows = [{"input_ids": ids, "labels": ids[::-1][1:] + ids[-1:]} for ids in tokenizer(SENTENCES)["input_ids"]]
    return VanillaTransformerTrainer(
        model,
        arguments,
        data_collator=DataCollatorForTranslation(tokenizer, model.config.decoder_start_token_id),
        train_dataset=rows,
        processing_class=tokenizer,
    )


def names_of(trainer: VanillaTransformerTrainer) -> dict[int, str]:
    return {id(weight): name for name, weight in trainer.model.named_parameters()}


def test_matrices_are_muons_and_everything_else_is_adams(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, weight_decay=0.01)
    optimizer = trainer.create_optimizer()
    names = names_of(trainer)
    matrices, *adam = [{names[id(weight)] for weight in group["params"]} for group in optimizer.param_groups]
    everything = set(names.values())
    assert matrices == {
        name for name in everything if name.endswith("weight") and "norm" not in name and "embed" not in name
    }
    assert set().union(*adam) == everything - matrices
    assert [group["lr"] for group in optimizer.param_groups] == [0.01] * len(optimizer.param_groups)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stacked", [1, 2**22])
def test_an_update_is_that_of_torchs_muon_and_of_adam(tmp_path: Path, monkeypatch, precision: str, stacked) -> None:
    monkeypatch.setattr(muon, "_STACKED", stacked)
    trainer = trainer_in(tmp_path, weight_decay=0.1, precision=precision)
    optimizer = trainer.create_optimizer()
    alone = [copy.deepcopy(group["params"]) for group in optimizer.param_groups]
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    others = [torch.optim.Muon(alone[0], lr=0.01, weight_decay=decays[0], adjust_lr_fn="match_rms_adamw")]
    others += [
        torch.optim.AdamW(weights, lr=0.01, betas=(0.9, 0.98), eps=1e-9, weight_decay=decay)
        for weights, decay in zip(alone[1:], decays[1:], strict=True)
    ]
    assert decays[0] == 0.1
    for _ in range(3):
        for group, copies in zip(optimizer.param_groups, alone, strict=True):
            for number, (weight, other) in enumerate(zip(group["params"], copies, strict=True)):
                # One matrix has no gradient.
                weight.grad = None if group is optimizer.param_groups[0] and number == 3 else torch.randn_like(weight)
                other.grad = None if weight.grad is None else weight.grad.clone()
        optimizer.step()
        for other in others:
            other.step()
    # torch's Muon computes in bf16, matrix by matrix: else the two differ by the rounding of bf16 in five iterations.
    tolerance = 1e-6 if (precision, stacked) == ("bf16", 1) else 3 * 0.01 * 0.2 * 0.1
    for group, copies in zip(optimizer.param_groups, alone, strict=True):
        for weight, other in zip(group["params"], copies, strict=True):
            assert torch.allclose(weight, other, atol=tolerance if weight.ndim == 2 else 1e-6)


def test_the_steps_singular_values_are_about_one() -> None:
    defaults = torch.optim.Muon([torch.nn.Parameter(torch.ones(2, 2))]).defaults
    matrices = torch.randn(3, 40, 16)
    matrices[1] *= 1e6
    iteration = {"coefficients": defaults["ns_coefficients"], "steps": defaults["ns_steps"], "eps": defaults["eps"]}
    for shape in (matrices, matrices.mT):
        found = muon.orthogonal(shape, **iteration)
        assert found.shape == shape.shape
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.6 and values.max() < 1.3
        left, _, right = torch.linalg.svd(shape, full_matrices=False)
        assert torch.nn.functional.cosine_similarity((left @ right).flatten(1), found.flatten(1)).min() > 0.95
        exact = [reference(matrix.double(), **iteration) for matrix in shape]
        assert torch.allclose(found, torch.stack(exact).float(), atol=1e-5)


def reference(matrix: torch.Tensor, coefficients, steps: int, eps: float) -> torch.Tensor:
    """The iteration as it is written: X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X, whichever side is longer."""
    matrix = matrix / max(float(torch.linalg.matrix_norm(matrix)), eps)
    for _ in range(steps):
        squares = matrix @ matrix.T
        matrix = sum(
            factor * torch.linalg.matrix_power(squares, power) @ matrix for power, factor in enumerate(coefficients)
        )
    return matrix


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = trainer_in(tmp_path / "whole")
    whole.train()
    trainer_in(tmp_path / "parts", max_steps=3).train()
    parts = trainer_in(tmp_path / "parts")
    parts.train(resume_from_checkpoint=True)
    assert parts.state.global_step == 6
    for (name, weight), other in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(weight, other), name


def test_another_optimizer_cannot_resume_the_run(tmp_path: Path) -> None:
    trainer_in(tmp_path, max_steps=3).train()
    with pytest.raises(ValueError, match="saved with optim='muon'"):
        trainer_in(tmp_path, optim="adamw_torch").train(resume_from_checkpoint=True)


def test_the_learning_rate_of_both_follows_the_schedule(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, max_steps=4, cooldown_steps=2)
    trainer.train()
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    assert len(rates) == 1 and rates.pop() < 0.005


def test_a_misspelled_optimizer_is_answered_by_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="optim='muonn' is unknown; did you mean 'muon'"):
        VanillaTransformerTrainingArguments(str(tmp_path), optim="muonn")
    with pytest.raises(ValueError, match="optim='x' is unknown; choose one of muon, adamw_torch"):
        VanillaTransformerTrainingArguments(str(tmp_path), optim="x")
