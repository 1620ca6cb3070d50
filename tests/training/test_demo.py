"""The demo: what it measures is what `train` and `translate` give, and a small or unsuitable recipe is no traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import translate
from hf_vanilla_transformer.data.corpora import load_embedded
from hf_vanilla_transformer.data.embedded_corpus import KINDS, draw_expressions
from hf_vanilla_transformer.training.demo import RECIPE, run_demo
from hf_vanilla_transformer.training.recipe import read_recipe
from hf_vanilla_transformer.training.run import train

SHORT = {
    "embedded_train": 300, "embedded_validation": 8, "embedded_test": 15, "vocab_size": 400, "max_steps": 4,
    "warmup_steps": 2, "cooldown_steps": 0, "save_steps": 1, "average_last": 3, "use_cpu": True, "disable_tqdm": True,
    "precision": "fp32",
    "config_overrides": {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1},
}  # fmt: skip


def recipe(folder: Path, **settings: Any) -> Path:
    content = {**yaml.safe_load(RECIPE.read_text(encoding="utf-8")), **SHORT, **settings}
    (folder / "short.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "short.yaml"


def test_the_demo_is_a_run_of_its_recipe_and_its_scores_are_those_of_translate(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    result = run_demo(tmp_path / "demo", path, tmp_path / "card.md")
    run = train(read_recipe(path, ["--output_dir", str(tmp_path / "run")]))
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "demo").eval()
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    rows = draw_expressions("test", 15, seed=2)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "demo")
    sources = [row.en for row in rows]
    translations = dict(zip(sources, translate(model, tokenizer, sources, read_recipe(path).search), strict=True))
    assert all(sample.translation == translations[sample.source] for sample in result.samples)
    assert result.count_by_kind == {"number": 4, "date": 4, "time": 4, "money": 3}  # 15 = 4 + 4 + 4 + 3
    record = json.loads((tmp_path / "demo" / "results.json").read_text(encoding="utf-8"))
    assert record["training"]["averaged"] == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]
    for key in ("bleu", "chrf", "exact"):
        assert record["scores"]["test"][key] == pytest.approx(run.record["scores"]["test"][key])
    assert record["data"] == {split: run.record["data"][split] for split in ("train", "test")}
    assert record["data"]["train"]["sha256"] == load_embedded("train", 300, seed=2).report.sha256
    assert not {"output_dir", "validation_split", "test_split"} & set(record["recipe"]["settings"])
    assert [sample["kind"] for sample in record["samples"]] == list(KINDS)
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert card == (tmp_path / "demo" / "README.md").read_text(encoding="utf-8") and "greedy search" in card


def test_fewer_held_out_expressions_than_samples_are_measured_all_the_same(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", recipe(tmp_path, embedded_test=3))  # one of each kind but the last
    assert result.count_by_kind == {"number": 1, "date": 1, "time": 1}
    assert [sample.kind for sample in result.samples] == ["number", "date", "time"]
    record = json.loads((tmp_path / "demo" / "results.json").read_text(encoding="utf-8"))
    assert [sample["kind"] for sample in record["samples"]] == ["number", "date", "time"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average_last": 0}, "the demo needs dataset_name: embedded and average_last of 1 or more"),
        ({"source_lang": "ko", "target_lang": "en"}, "the demo translates from en to ko"),
        ({"cooldown_steps": 9}, "cooldown_steps=9 is more than the run's 4 updates"),
    ],
)
def test_an_unsuitable_recipe_is_refused_and_nothing_is_written(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_demo(tmp_path / "demo", recipe(tmp_path, **settings))
    assert not (tmp_path / "demo").exists()
