"""An update whose loss or gradients are not finite is skipped on all ranks; non-finite weights are never saved."""

import copy
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_trainer import Collator, arguments, examples, logged, tiny_model
from transformers import TrainerCallback

from hf_vanilla_transformer.training.skipped_updates import SkippedUpdateCounter
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer


def rows_with_word(word: int, rows: list[dict[str, list[int]]], chosen: set[int]) -> list[dict[str, list[int]]]:
    """Return rows whose sources contain the word only in the given rows."""
    rows = copy.deepcopy(rows)
    for index, row in enumerate(rows):
        row["input_ids"] = [token if token != word else word - 1 for token in row["input_ids"]]
        if index in chosen:
            row["input_ids"][0] = word
    return rows


class NanAtWord(torch.nn.Module):
    """A forward hook that makes the loss NaN if a source contains the word."""

    def __init__(self, word: int) -> None:
        super().__init__()
        self.word = word

    def __call__(self, module, args, kwargs, output):
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        if not (ids == self.word).any():
            return output
        output.loss = output.loss * math.nan
        return output


def model_with_nan_at(word: int):
    model = tiny_model()
    model.register_forward_hook(NanAtWord(word), with_kwargs=True)
    return model


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def test_the_limit_counts_consecutive_skipped_updates():
    skipped = SkippedUpdateCounter(3)
    for update in (1, 2):
        skipped.skipped(update)
    skipped.made()
    for update in (4, 5):
        skipped.skipped(update)
    with pytest.raises(FloatingPointError, match="in 3 consecutive updates, the last of them update 6"):
        skipped.skipped(6)
    assert skipped.total == 5
    unlimited = SkippedUpdateCounter(0)
    for update in range(50):
        unlimited.skipped(update)


class WeightsAfter(TrainerCallback):
    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.weights.append(weights(kwargs["model"]))


def test_an_update_that_is_not_finite_is_skipped_and_its_sentence_reported(tmp_path, caplog):
    word, culprit = 20, 17
    rows = rows_with_word(word, examples(40), {culprit})
    after = WeightsAfter()
    args = arguments(tmp_path, num_train_epochs=1, gradient_accumulation_steps=2)
    trainer = VanillaTransformerTrainer(model_with_nan_at(word), args, Collator(), rows, callbacks=[after])
    before = weights(trainer.model)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    moved = [
        any(not torch.equal(one[name], two[name]) for name in one)
        for one, two in zip([before, *after.weights], after.weights, strict=False)
    ]
    assert moved.count(False) == 1
    update = moved.index(False) + 1
    assert (
        f"update {update} is skipped: the loss is not finite on process 0, with examples {culprit} (each" in caplog.text
    )
    losses = logged(trainer, "loss")
    assert [math.isnan(loss) for loss in losses] == [not move for move in moved]  # no loss if skipped
    assert logged(trainer, "skipped_updates") == [1] * (len(moved) - update + 1)
    assert all(tensor.isfinite().all() for tensor in weights(trainer.model).values())


def test_a_skipped_update_does_not_change_the_optimizer(tmp_path):
    word = 20
    rows = rows_with_word(word, examples(8, length=5), set(range(8)))
    args = arguments(tmp_path, max_steps=2, max_skipped_updates=0)
    trainer = VanillaTransformerTrainer(model_with_nan_at(word), args, Collator(), rows)
    before = weights(trainer.model)
    trainer.train()
    assert not trainer.optimizer.state_dict()["state"]  # Adam made no step
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer.model).items())


def test_consecutive_skipped_updates_end_the_run_and_nothing_is_saved(tmp_path):
    word = 20
    rows = rows_with_word(word, examples(40), set(range(40)))
    args = arguments(tmp_path, max_steps=20, max_skipped_updates=3, save_strategy="steps", save_steps=4)
    trainer = VanillaTransformerTrainer(model_with_nan_at(word), args, Collator(), rows)
    with pytest.raises(FloatingPointError, match="not finite in 3 consecutive updates, the last of them update 3"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_gradients_that_are_not_finite_are_detected_under_a_finite_loss(tmp_path, caplog):
    model = tiny_model()
    model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * math.inf)
    trainer = VanillaTransformerTrainer(model, arguments(tmp_path, max_steps=1), Collator(), examples(6, length=5))
    before = weights(model)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    assert "the gradients are not finite on process 0, with examples" in caplog.text and "together" in caplog.text


def test_an_overflow_of_the_fp16_scaler_is_not_counted(tmp_path):
    trainer = VanillaTransformerTrainer(tiny_model(), arguments(tmp_path), Collator(), examples(6, length=5))
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
    inputs = Collator()(examples(2, length=5))
    weight = next(trainer.model.parameters())
    for loss, skipped in ((1.0, 0), (math.nan, 1)):
        weight.grad = torch.full_like(weight, math.inf)
        trainer._non_finite.add(inputs, torch.tensor(loss))
        trainer._get_grad_norm(trainer.model, grad_norm=torch.tensor(math.inf))
        trainer._non_finite.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)
        assert trainer.skipped_updates == skipped
        assert weight.grad is not None  # the scaler skips the update, and needs the gradients for that


def on_two_ranks(folder: Path, which: str) -> list[dict]:
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        list(map(str, [*command, here / "skipped_updates_run.py", folder, which])),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_a_sentence_on_one_rank_makes_all_ranks_skip_the_update(tmp_path):
    records = on_two_ranks(tmp_path, "one")
    assert records[0]["moved"] == records[1]["moved"]
    assert records[0]["sums"] == records[1]["sums"]  # bit-identical weights
    assert records[0]["moved"].count(False) == 1 and records[0]["failed"] is None
    update = records[0]["moved"].index(False) + 1
    lines = [next(line for line in record["lines"] if f"update {update} is skipped" in line) for record in records]
    failed = [rank for rank, line in enumerate(lines) if f"the loss is not finite on process {rank}" in line]
    assert len(failed) == 1 and "with examples 17 (each not finite by itself" in lines[failed[0]]
    assert f"the summed gradients of all ranks are not finite on process {1 - failed[0]}" in lines[1 - failed[0]]


@pytest.mark.slow
def test_consecutive_skipped_updates_end_all_ranks(tmp_path):
    for record in on_two_ranks(tmp_path, "all"):
        assert "not finite in 3 consecutive updates, the last of them update 3" in record["failed"]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = tiny_model()
    trainer = VanillaTransformerTrainer(model, arguments(tmp_path), Collator(), examples(6))
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="so nothing is saved"):
        trainer.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final").exists()
