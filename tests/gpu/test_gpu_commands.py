"""Commands, pipeline and demo choose the GPU by themselves, and write what they write on the CPU."""

import io
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import sharp
from transformers import pipeline

from hf_vanilla_transformer import TranslationPipeline, embedded_corpus, train_tokenizer
from hf_vanilla_transformer.cli import main

pytest.importorskip("datasets")  # `evaluate`, `train` and `demo` read their text with it

DEMO = """
dataset_name: embedded
embedded_train: 300
embedded_validation: 8
embedded_test: 12
vocab_size: 360
preset: tiny
config_overrides: {"d_model": 32, "d_ff": 32, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
max_tokens_per_batch: 400
max_steps: 4
warmup_steps: 400
save_steps: 1
average_last: 2
disable_tqdm: true
report_to: none
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    pairs = embedded_corpus("train", 40)["translation"]
    tokenizer = train_tokenizer([text for pair in pairs for text in pair.values()], 360)
    sharp(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for language in ("en", "ko"):
        (folder / f"text.{language}").write_text("".join(pair[language] + "\n" for pair in pairs[:12]), "utf-8")
    return folder


def run(words: list[Any], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out, captured.err


def asked(device: torch.device) -> list[str]:
    """Return no option for the GPU, which is what is to be chosen."""
    return ["--device", "cpu"] if device.type == "cpu" else []


def test_translate_chooses_the_device_and_writes_the_cpus_text(device, checkpoint, capsys, monkeypatch):
    text, written = (checkpoint / "text.en").read_bytes(), []
    for choice in (["--device", "cpu"], asked(device)):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))
        out, err = run(["translate", checkpoint, *choice], capsys)
        written.append(out)
    assert ("running on cuda" in err) == (device.type == "cuda")
    assert written[0] == written[1] and len(written[0].splitlines()) == 12


def test_evaluate_chooses_the_device_and_scores_alike(device, checkpoint, tmp_path, capsys):
    records = []
    for number, choice in enumerate((["--device", "cpu"], asked(device))):
        output = tmp_path / f"{number}.json"
        sides = ["--source", checkpoint / "text.en", "--reference", checkpoint / "text.ko", "--output", output]
        run(["evaluate", checkpoint, *sides, *choice], capsys)
        records.append(json.loads(output.read_text(encoding="utf-8")))
    assert [record["device"] for record in records] == ["cpu", device.type]
    assert records[0]["scores"] == records[1]["scores"]


def test_visualize_runs_on_the_device(device, checkpoint, tmp_path, capsys):
    page = tmp_path / "page.html"
    _, err = run(["visualize", checkpoint, "--source", "one", "--output", page, *asked(device)], capsys)
    assert ("running on cuda" in err) == (device.type == "cuda") and page.is_file()


def test_the_pipeline_chooses_the_device_and_writes_the_cpus_text(device, checkpoint):
    texts = (checkpoint / "text.en").read_text(encoding="utf-8").splitlines()
    written = []
    for choice in ("cpu", None if device.type == "cuda" else "cpu"):
        translate = pipeline(
            "translation", model=str(checkpoint), pipeline_class=TranslationPipeline, device=choice, batch_size=5
        )
        written.append([result["translation_text"] for result in translate(["", *texts])])
    assert translate.device.type == translate.model.device.type == device.type
    assert written[0] == written[1] and written[0][0] == ""


@pytest.mark.slow_on_cpu
def test_train_and_demo_run_on_the_device(device, tmp_path, capsys, caplog):
    recipe = tmp_path / "demo.yaml"
    recipe.write_text(DEMO + f"use_cpu: {str(device.type == 'cpu').lower()}\n", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        out, _ = run(["demo", "--recipe", recipe, "--output", tmp_path / "demo"], capsys)
    assert re.search(rf"1 process on {device.type}, precision", caplog.text), caplog.text
    assert "demo: exact=" in out
    run(["train", recipe, "--output_dir", tmp_path / "run"], capsys)
    record = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert record["training"]["updates"] == 4 and record["scores"]["test"]["bleu"] >= 0
    if device.type == "cuda":
        assert torch.cuda.get_device_name() in json.dumps(record["hardware"])
