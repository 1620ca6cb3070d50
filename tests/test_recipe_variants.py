# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Variants of the recipes: each trains, and the departures compute what their papers say."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_vanilla_transformer import embedded_corpus

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def variants(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import recipe_variants

    return recipe_variants


def test_joined_variants_change_all_that_each_of_them_changes(variants):
    both = variants.variant_of("r-drop+muon")
    assert both.settings == {"r_drop": "5", "optim": "muon"} and both.decay == 0
    assert variants.variant_of("bpe-dropout+ema").decay == variants.VARIANTS["ema"].decay
    assert variants.variant_of("distilled+muon").distilled and not both.distilled
    for name, reason in (("muon+adam", "change optim"), ("muon+none", "no variant 'none'")):
        with pytest.raises(argparse.ArgumentTypeError, match=reason):
            variants.variant_of(name)


def test_the_table_of_records_is_written_between_its_markers(variants, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{variants.START}\nold\n{variants.END}\nbelow\n")
    training = {"updates": 16, "seed": 1, "epochs": 0.5, "processor_seconds": 90}
    scores = {"validation": {"loss": 2.0, "bleu": 30.0, "chrf": 50.0}}
    settings = {"optim": "muon", "max_tokens_per_batch": "1024", "learning_rate": "0.0123", "r_drop": "2"}
    settings |= {"vocab_size": "6000", "label_smoothing_factor": "0.3", "config_overrides": '{"dropout": 0.15}'}
    record = {"name": "muon", "text": "multi30k", "settings": settings, "training": training, "scores": scores}
    (tmp_path / "muon-16-1.json").write_text(json.dumps(record))
    variants.main([str(tmp_path), "--render", str(page)])
    lines = page.read_text().splitlines()
    assert lines[0] == "above" and lines[-1] == "below" and "old" not in lines
    named = "Muon, 1,024 tokens, peak 0.012, R-Drop 2, smoothing 0.3"
    assert f"| {named} | 16 | 1 | 0.5 | 1.5 | 2.000 | 30.00 | 50.00 |" in lines
    scored = [
        {"average_last": last, "length_penalty": penalty, "scores": {"all": {"bleu": last + penalty, "chrf": 0.0}}}
        for last in (1, 3)
        for penalty in variants.LENGTH_PENALTIES
    ]
    (tmp_path / "muon-16-1.json").write_text(json.dumps({**record, "decoding": scored}))
    variants.main([str(tmp_path), "--render", str(page)])
    assert f"| {named}, 16 updates | 3 | 3.60 | 4.00 | 4.40 | 4.80 |" in page.read_text().splitlines()
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="variants:start"):
        variants.main([str(tmp_path), "--render", str(page)])


def test_origins_have_the_scores_of_the_runs_mean_and_penalty(variants):
    entries = [
        {"average_last": last, "length_penalty": penalty, "scores": {"all": {}, "talpco": {"chrf": last + penalty}}}
        for last in (1, 3, 5)
        for penalty in (0.6, 1.0)
    ]
    training = {
        "updates": 16, "averaged": ["checkpoint-8", "checkpoint-12", "checkpoint-16"], "decoding": {"length_penalty": 1}
    }  # fmt: skip
    settings = {"max_tokens_per_batch": "1024", "learning_rate": "0.002"}
    record = {"text": "koen", "settings": settings, "training": training, "decoding": entries, "moving_average": 0.9}
    assert " moving average 0.9, 16 updates | 4.00 |" in variants.origin_table([record])


def test_the_page_of_recipes_matches_the_records(variants, tmp_path):
    page = ROOT / "docs" / "recipes.md"
    copy = tmp_path / "recipes.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    variants.main([str(ROOT / "examples" / "results" / "recipe_variants"), "--render", str(copy)])
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), (
        "run benchmarks/recipe_variants.py examples/results/recipe_variants --render docs/recipes.md"
    )


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
    refused = run("--data", str(tmp_path), "--variants", "distilled")
    assert refused.returncode == 2 and "--distilled FILE" in refused.stderr
    distilled = ("--distilled", str(folder / "train.de"))
    names = ("vocabulary-3000", "ema", "muon", "r-drop", "distilled")
    done = run("--data", str(tmp_path), "--updates", "16", *distilled, "--variants", *names)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("recipe_variants: 5 trained")
    record = json.loads((tmp_path / "work" / "multi30k-muon-16-1.json").read_text())
    assert record["training"]["updates"] == 16 and "bleu" in record["scores"]["validation"]
    assert {entry["length_penalty"] for entry in record["decoding"]} == {0.6, 1.0, 1.4, 1.8}
    again = run("--data", str(tmp_path), "--updates", "16", "--variants", "muon")
    assert again.stdout.rstrip().endswith("recipe_variants: 0 trained")
    for named in ("moving average 0.998", "Muon", "R-Drop 5", "vocabulary 3000", "distilled targets"):
        assert named in again.stdout
