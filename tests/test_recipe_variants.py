# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Variants of the recipe `tiny`: each trains, and the departures compute what their papers say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    embedded_corpus,
    preset,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def variants(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import recipe_variants

    return recipe_variants


def trainer_of(kind, tmp_path, dropout=0.0):
    torch.manual_seed(0)
    model = VanillaTransformerForConditionalGeneration(
        preset("tiny", vocab_size=40, d_model=16, d_ff=32, num_heads=2, dropout=dropout)
    )
    arguments = VanillaTransformerTrainingArguments(
        str(tmp_path), max_steps=1, learning_rate=0.01, warmup_steps=1, precision="fp32", report_to="none"
    )
    rows = [{"input_ids": [5, 6, 2], "labels": [7, 8, 9, 2]}, {"input_ids": [5, 2], "labels": [7, 2]}]
    return kind(model, arguments, train_dataset=rows), {
        "input_ids": torch.tensor([[5, 6, 2], [5, 2, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "decoder_input_ids": torch.tensor([[1, 7, 8, 9], [1, 7, 0, 0]]),
        "labels": torch.tensor([[7, 8, 9, 2], [7, 2, -100, -100]]),
    }


def test_r_drop_without_dropout_is_the_recipes_loss(variants, tmp_path):
    trainer, inputs = trainer_of(variants.RDrop, tmp_path)
    plain, _ = trainer_of(VanillaTransformerTrainer, tmp_path)
    trainer.model.train(), plain.model.train()
    for number in (None, 6):
        ours, expected = (each.compute_loss(each.model, inputs, False, number) for each in (trainer, plain))
        assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_r_drop_adds_the_divergence_between_two_dropout_masks(variants, tmp_path):
    trainer, inputs = trainer_of(variants.RDrop, tmp_path, dropout=0.3)
    trainer.model.train()
    losses = {}
    for trainer.weight in (0.0, 1.0, 2.0):
        torch.manual_seed(1)
        losses[trainer.weight] = trainer.compute_loss(trainer.model, inputs, False, 6).item()
    assert losses[1.0] > losses[0.0]
    assert losses[2.0] - losses[0.0] == pytest.approx(2 * (losses[1.0] - losses[0.0]), rel=1e-4)


@pytest.mark.slow
def test_variants_train_once_and_are_listed_by_score(tmp_path):
    folder = tmp_path / "multi30k" / "lc.norm.tok"
    folder.mkdir(parents=True)
    for split, size in (("train", 300), ("val", 8)):
        rows = embedded_corpus("train", size=size, seed=0)["translation"]
        for language, other in (("en", "en"), ("ko", "de")):
            (folder / f"{split}.{other}").write_text("\n".join(row[language] for row in rows) + "\n", encoding="utf-8")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / "recipe_variants.py"), str(tmp_path / "work"), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    refused = run("--data", str(tmp_path / "nowhere"))
    assert refused.returncode == 2 and "--data" in refused.stderr
    done = run("--data", str(tmp_path), "--updates", "16", "--variants", "vocabulary-3000", "ema", "muon", "r-drop")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("recipe_variants: 4 trained")
    record = json.loads((tmp_path / "work" / "muon-16-1.json").read_text())
    assert record["training"]["updates"] == 16 and "bleu" in record["scores"]["validation"]
    again = run("--data", str(tmp_path), "--updates", "16", "--variants", "muon")
    assert again.stdout.rstrip().endswith("recipe_variants: 0 trained")
    assert sum(name in again.stdout for name in ("ema", "muon", "r-drop", "vocabulary-3000")) == 4
