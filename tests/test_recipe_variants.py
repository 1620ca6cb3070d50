# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Variants of the recipe `tiny`: each trains, and the departures compute what their papers say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_vanilla_transformer import (
    embedded_corpus,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def variants(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import recipe_variants

    return recipe_variants


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
