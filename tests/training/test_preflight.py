"""Settings with which a run would fail later are refused before a byte of data is read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl

from hf_vanilla_transformer.training import run as run_module
from hf_vanilla_transformer.training.preflight import PlausibilityWatch, check_settings
from hf_vanilla_transformer.training.recipe import read_recipe
from hf_vanilla_transformer.training.run import train

RECIPE = """
dataset_name: embedded
preset: tiny
max_steps: 6
warmup_steps: 4
precision: fp32
use_cpu: true
report_to: none
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--report_to tensorbord", "report_to: tensorbord is not supported, only .*tensorboard"),
        ("--report_to swanlab", "report_to: swanlab needs the package swanlab, .* `pip install swanlab`"),
        ("--report_to flyte", "report_to: flyte needs the package flytekit, which is not installed"),
        ("--cooldown_steps 7", "cooldown_steps=7 is more than the run's 6 updates"),
        (
            "--cooldown_steps 900 --max_steps -1 --num_train_epochs 2 --embedded_train 400",
            "cooldown_steps=900 is more than the run's updates: 2 epochs of 400 pairs are at most 800",
        ),
        ("--eval_strategy steps --metric_for_best_model bleu", "bleu is only measured .* predict_with_generate: true"),
        ("--eval_strategy steps --metric_for_best_model blue", "blue is never measured; choose one of loss, perp"),
        ("--eval_strategy steps --validation_split null", "eval_strategy=steps needs text to evaluate on"),
        ("--metric_tokenize klingon", "tokenize='klingon' is unknown"),
        ("--preset huge", "huge"),
        ("--config_overrides {\"d_modle\":3}", "d_modle"),
        ("--output_dir {tmp}/r.yaml", "is a file; name a directory"),
        ("--output_dir {tmp}/r.yaml/out", "Not a directory"),
        ("--dataset_name null", "there is nothing to train on; set train_source"),
        ("--dataset_name null --train_source {tmp}/a --train_target {tmp}/b", "there is no file .*/a"),
        (
            "--dataset_name null --train_source {tmp}/r.yaml --train_target {tmp}/r.yaml "
            "--test_source {tmp}/a --test_target {tmp}/b", "there is no file .*/a",
        ),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused_before_any_data_is_read(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr(run_module, "load_corpora", read)
    (tmp_path / "r.yaml").write_text(RECIPE)
    words = words.format(tmp=tmp_path) if "{tmp}" in words else words
    options = ["--output_dir", f"{tmp_path}/out", *words.split()]
    with pytest.raises((ValueError, OSError), match=message):
        train(read_recipe(tmp_path / "r.yaml", options))
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_a_cooldown_longer_than_the_epochs_of_text_files_is_refused_before_they_are_read(tmp_path: Path) -> None:
    for side in ("en", "ko"):
        (tmp_path / f"a.{side}").write_text(f"{side} 1\n{side} 2\n")
    words = ["--train_source", f"{tmp_path}/a.en", "--train_target", f"{tmp_path}/a.ko", "--eval_strategy", "no"]
    words += ["--max_steps", "-1", "--num_train_epochs", "3", "--output_dir", f"{tmp_path}/out"]
    with pytest.raises(ValueError, match="3 epochs of 2 pairs are at most 6; lower it"):
        train(read_recipe("tiny", [*words, "--cooldown_steps", "7"]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "warns"),
    [
        ([], True),
        (["--target-lang", "ko"], False),
        (["--metric-tokenize", "char"], False),
        (["--test-file", "null"], False),
    ],
)
def test_an_unknown_target_language_is_reported_before_bleu_splits_at_spaces(
    words: list[str], warns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr("hf_vanilla_transformer.training.preflight.logger.warning", messages.append)
    (tmp_path / "a.tsv").write_text("source\ttarget\nA\tB\n")
    data = ["--train-file", f"{tmp_path}/a.tsv", "--test-file", f"{tmp_path}/a.tsv", "--eval-strategy", "no"]
    check_settings(read_recipe("tiny", [*data, "--output-dir", f"{tmp_path}/out", *words]))
    assert len(messages) == warns and all("target_lang is not set" in message for message in messages)


def test_the_metrics_that_are_measured_may_choose_the_best_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Read(Exception):
        pass

    def read(*_: Any, **__: Any) -> None:
        raise Read

    monkeypatch.setattr(run_module, "load_corpora", read)
    (tmp_path / "r.yaml").write_text(RECIPE + "eval_strategy: steps\npredict_with_generate: true\n")
    for name in ("loss", "eval_loss", "perplexity", "bleu", "eval_chrf", "exact"):
        with pytest.raises(Read):
            train(
                read_recipe(tmp_path / "r.yaml", ["--output_dir", f"{tmp_path}/out", "--metric_for_best_model", name])
            )


def test_a_missing_tensorboard_is_one_sentence_that_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: False)
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe = read_recipe(tmp_path / "r.yaml", ["--output_dir", f"{tmp_path}/out", "--report_to", "tensorboard"])
    with pytest.raises(ValueError) as caught:
        train(recipe)
    assert str(caught.value) == (
        "report_to: tensorboard needs the package tensorboard, which is not installed or does not work; install it "
        "with `pip install tensorboard`, or set report_to: none"
    )


@pytest.mark.parametrize(
    ("updates", "factor", "said"),
    [(100, 1.0, ""), (4, 1.0, "during the warmup of 4: "), (100, 30.0, "what Equation 3 gives")],
)
def test_an_odd_run_is_said_at_its_start(
    updates: int, factor: float, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr("hf_vanilla_transformer.training.preflight.logger.warning", messages.append)
    peak = factor * (512 * 4000) ** -0.5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: peak * min(done + 1, 4) / 4)
    args: Any = SimpleNamespace(get_warmup_steps=lambda total: 4)
    state: Any = SimpleNamespace(is_world_process_zero=True, max_steps=updates)
    model = SimpleNamespace(config=SimpleNamespace(d_model=512))
    PlausibilityWatch().on_train_begin(args, state, TrainerControl(), model=model, lr_scheduler=scheduler)
    assert len(messages) == bool(said) and all(said in message for message in messages)
