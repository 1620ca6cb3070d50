"""The guards by themselves and inside Trainer: numbers that aren't finite, signals, memory, first lines of the log."""

import copy
import json
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_trainer import Collator, arguments, examples, logged, tiny_model
from transformers import TrainerCallback

from hf_vanilla_transformer.training import guards
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer


def poisoned(word: int, rows: list[dict[str, list[int]]], which: set[int]) -> list[dict[str, list[int]]]:
    """Put the word that the model can't stand into some sources."""
    rows = copy.deepcopy(rows)
    for index, row in enumerate(rows):
        row["input_ids"] = [token if token != word else word - 1 for token in row["input_ids"]]
        if index in which:
            row["input_ids"][0] = word
    return rows


class SickOf(torch.nn.Module):
    """Makes everything NaN once the word comes; without that word it changes nothing."""

    def __init__(self, word: int) -> None:
        super().__init__()
        self.word = word

    def __call__(self, module, args, kwargs, output):
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        if not (ids == self.word).any():
            return output
        output.loss = output.loss * math.nan
        return output


def sick_model(word: int):
    model = tiny_model()
    model.register_forward_hook(SickOf(word), with_kwargs=True)
    return model


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


# --------------------------------------------------------------------------- pure


def test_poison_changes_nothing_finite_and_spreads_what_is_not():
    x = torch.tensor([0.1, 0.7, -3.3], requires_grad=True)
    plain = torch.autograd.grad((x**3).sum(), x)[0]
    value = guards.poison((x**3).sum())
    assert torch.equal(value, (x**3).sum())
    assert torch.equal(torch.autograd.grad(value, x)[0], plain)  # to the bit: times 1.0
    infinite = x.sum() * 0 + torch.tensor(math.inf)  # an infinite loss whose gradient is 0
    assert torch.autograd.grad(infinite, x, retain_graph=True)[0].tolist() == [0, 0, 0]
    assert torch.autograd.grad(guards.poison(infinite), x)[0].isnan().all()


def test_gradient_norm_is_that_of_all_gradients_together():
    one, two = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    one.grad, two.grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
    assert guards.gradient_norm([one, two, torch.nn.Parameter(torch.zeros(1))]).item() == 7.0  # √(4 + 9 + 36)
    two.grad[0] = math.inf
    assert not guards.gradient_norm([one, two]).isfinite()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_names_the_tensor(value):
    good, bad = torch.ones(3, dtype=torch.bfloat16), torch.ones(2, 5)
    bad[1, 3] = value
    assert (
        guards.not_finite([("good", good), ("count", torch.tensor(3)), ("none", torch.ones(0)), ("text", "x")]) is None
    )
    assert guards.not_finite([("good", good), ("bad", bad)]) == "bad"


def test_only_so_many_skipped_updates_in_a_row():
    skipped = guards.SkippedUpdates(3)
    for update in (1, 2):
        skipped.skipped(update)
    skipped.good()
    for update in (4, 5):
        skipped.skipped(update)
    with pytest.raises(FloatingPointError, match="in 3 updates in a row, the last of them update 6"):
        skipped.skipped(6)
    assert skipped.total == 5
    unlimited = guards.SkippedUpdates(0)
    for update in range(50):
        unlimited.skipped(update)


def test_messages_of_lost_processes_and_of_memory_are_known():
    assert guards.is_lost_process(RuntimeError("[../pair.cc:534] Connection closed by peer [127.0.0.1]:4711"))
    assert not guards.is_lost_process(RuntimeError("shape mismatch"))
    assert not guards.is_lost_process(ValueError("connection refused"))
    assert guards.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert guards.is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not guards.is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (7500, "2 h 05 min"), (200_000, "2 d 07 h")]
)
def test_durations_are_written_in_two_units(seconds, text):
    assert guards.duration(seconds) == text  # 200,000 s = 2 · 86,400 + 7 · 3,600 + 2,000


# --------------------------------------------------------------------------- inside Trainer


class WeightsAfter(TrainerCallback):
    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.weights.append(weights(kwargs["model"]))


def test_an_update_that_is_not_finite_is_skipped_and_its_sentence_named(tmp_path, caplog):
    word, culprit = 20, 17
    rows = poisoned(word, examples(40), {culprit})
    after = WeightsAfter()
    args = arguments(tmp_path, num_train_epochs=1, gradient_accumulation_steps=2)
    trainer = VanillaTransformerTrainer(sick_model(word), args, Collator(), rows, callbacks=[after])
    before = weights(trainer.model)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    moved = [
        any(not torch.equal(one[name], two[name]) for name in one)
        for one, two in zip([before, *after.weights], after.weights, strict=False)
    ]
    assert moved.count(False) == 1
    update = moved.index(False) + 1
    assert f"update {update} is skipped: the loss of process 0 not finite with examples {culprit} (each" in caplog.text
    losses = logged(trainer, "loss")
    assert [math.isnan(loss) for loss in losses] == [not move for move in moved]  # no loss where nothing was learned
    assert logged(trainer, "skipped_updates") == [1] * (len(moved) - update + 1)
    assert all(tensor.isfinite().all() for tensor in weights(trainer.model).values())


def test_skipping_leaves_the_optimizer_as_it_was(tmp_path):
    word = 20
    rows = poisoned(word, examples(8, length=5), set(range(8)))
    args = arguments(tmp_path, max_steps=2, max_skipped_updates=0)
    trainer = VanillaTransformerTrainer(sick_model(word), args, Collator(), rows)
    before = weights(trainer.model)
    trainer.train()
    assert not trainer.optimizer.state_dict()["state"]  # Adam never took a step
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer.model).items())


def test_several_in_a_row_end_the_run_and_nothing_is_saved(tmp_path):
    word = 20
    rows = poisoned(word, examples(40), set(range(40)))
    args = arguments(tmp_path, max_steps=20, max_skipped_updates=3, save_strategy="steps", save_steps=4)
    trainer = VanillaTransformerTrainer(sick_model(word), args, Collator(), rows)
    with pytest.raises(FloatingPointError, match="not finite in 3 updates in a row, the last of them update 3"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_gradients_that_are_not_finite_are_caught_under_a_finite_loss(tmp_path, caplog):
    model = tiny_model()
    model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * math.inf)
    trainer = VanillaTransformerTrainer(model, arguments(tmp_path, max_steps=1), Collator(), examples(6, length=5))
    before = weights(model)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    assert "the gradients of process 0 not finite with examples" in caplog.text and "together" in caplog.text


def test_an_fp16_scalers_own_overflow_does_not_count(tmp_path):
    trainer = VanillaTransformerTrainer(tiny_model(), arguments(tmp_path), Collator(), examples(6, length=5))
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
    inputs = Collator()(examples(2, length=5))
    weight = next(trainer.model.parameters())
    for loss, skipped in ((1.0, 0), (math.nan, 1)):
        weight.grad = torch.full_like(weight, math.inf)
        trainer._micro_batches = [(inputs, torch.tensor(loss))]
        trainer._get_grad_norm(trainer.model, grad_norm=torch.tensor(math.inf))
        trainer._skip_unless_finite()
        assert trainer._skipped.total == skipped
        assert weight.grad is not None  # the scaler skips: it has to see them


def on_two_ranks(folder: Path, which: str) -> list[dict]:
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        list(map(str, [*command, here / "guards_run.py", folder, which])),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_a_sentence_of_one_rank_has_all_ranks_skip_the_update(tmp_path):
    records = on_two_ranks(tmp_path, "one")
    assert records[0]["moved"] == records[1]["moved"]
    assert records[0]["sums"] == records[1]["sums"]  # the same weights to the last digit
    assert records[0]["moved"].count(False) == 1 and records[0]["failed"] is None
    update = records[0]["moved"].index(False) + 1
    lines = [next(line for line in record["lines"] if f"update {update} is skipped" in line) for record in records]
    guilty = [rank for rank, line in enumerate(lines) if f"the loss of process {rank} not finite" in line]
    assert len(guilty) == 1 and "with examples 17 (each not finite by itself" in lines[guilty[0]]
    assert f"the gradients of all ranks; process {1 - guilty[0]} not finite" in lines[1 - guilty[0]]


@pytest.mark.slow
def test_several_in_a_row_end_all_ranks(tmp_path):
    for record in on_two_ranks(tmp_path, "all"):
        assert "not finite in 3 updates in a row, the last of them update 3" in record["failed"]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = tiny_model()
    trainer = VanillaTransformerTrainer(model, arguments(tmp_path), Collator(), examples(6))
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="so nothing is saved"):
        trainer.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final").exists()


# --------------------------------------------------------------------------- signals, memory, first lines


class SignalAt(TrainerCallback):
    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_exits_with_its_status(tmp_path: Path, number: int, status: int, caplog) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    args = arguments(tmp_path, max_steps=9, save_strategy="steps", save_steps=5)
    callbacks = [SignalAt(3, number)]
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40), callbacks=callbacks)
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as caught:
        trainer.train()
    assert caught.value.code == status
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())["global_step"] == 3
    assert f"stopped by {signal.Signals(number).name} after update 3 of 9" in caplog.text


@pytest.mark.parametrize("moment", ["on_evaluate", "on_save", "on_train_end"])
@pytest.mark.parametrize("save", ["steps", "no", "best"])
def test_a_signal_after_the_last_update_ends_the_process_too(tmp_path: Path, moment: str, save: str, caplog) -> None:
    class SignalIn(TrainerCallback):
        """Sends the signal to itself at the end of the last evaluation, of the last save, or of all."""

    def send(self, args, state, control, **kwargs):
        if state.global_step == 4:
            signal.raise_signal(signal.SIGTERM)

    setattr(SignalIn, moment, send)
    args = arguments(
        tmp_path, max_steps=4, save_strategy=save, save_steps=2, eval_strategy="steps", eval_steps=2,
        metric_for_best_model="loss", greater_is_better=True,  # so that the last one is not the best
    )  # fmt: skip
    trainer = VanillaTransformerTrainer(
        tiny_model(), args, Collator(), examples(40), examples(4), callbacks=[SignalIn()]
    )
    if moment == "on_save" and save != "steps":
        trainer.train()  # nothing is saved after the last update: no signal
        return
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as caught:
        trainer.train()
    assert caught.value.code == 143
    saved = save == "steps" or moment == "on_evaluate"
    assert (tmp_path / "checkpoint-4").is_dir() == saved
    says = "which is saved; the same command goes on" if saved else "which is not saved; the same command goes on from"
    assert f"stopped by SIGTERM after update 4 of 4, {says}" in caplog.text


@pytest.mark.parametrize("launched", [False, True])
def test_a_second_signal_ends_at_once_unless_a_launcher_has_passed_on_the_first(launched, monkeypatch):
    left, clock = [], [100.0]
    monkeypatch.setattr(guards.os, "_exit", left.append)
    monkeypatch.setattr(guards.time, "monotonic", lambda: clock[0])
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with guards.StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert (signals.received, left) == (signal.SIGTERM, [])
        clock[0] += 1.0
        signal.raise_signal(signal.SIGTERM)
        assert left == ([] if launched else [143])
        clock[0] += 5.0
        signal.raise_signal(signal.SIGINT)
        assert left[-1] == 130


def test_out_of_memory_says_what_to_lower(tmp_path, monkeypatch):
    def no_memory(*args, **kwargs):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried …"
        )

    model = tiny_model()
    args = arguments(tmp_path, max_steps=1, max_tokens_per_batch=80, gradient_accumulation_steps=2)
    trainer = VanillaTransformerTrainer(model, args, Collator(), examples(16, length=5))
    monkeypatch.setattr(trainer.accelerator, "backward", no_memory)
    # 80 tokens over 2 micro-batches are 40 a micro-batch: 8 sentences of 5.
    expected = (
        r"out of memory in update 1: the micro-batch has 8 sentences, the longest source with 5 tokens and the longest "
        r"target with 5, under a budget of 40 tokens a side .* raise gradient_accumulation_steps"
    )
    with pytest.raises(MemoryError, match=expected):
        trainer.train()


def test_out_of_memory_elsewhere_says_so_too(tmp_path):
    class NoMemory(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = VanillaTransformerTrainer(
        tiny_model(), arguments(tmp_path, max_steps=1), Collator(), examples(16), callbacks=[NoMemory()]
    )
    with pytest.raises(MemoryError, match="out of memory after update 0, in the optimizer, .* lower per_device_eval"):
        trainer.train()


def test_the_first_lines_say_what_is_trained_and_how_long_it_takes(tmp_path, caplog):
    args = arguments(tmp_path, max_steps=8, max_tokens_per_batch=60, gradient_accumulation_steps=2, precision="fp32")
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40))
    with caplog.at_level(logging.INFO, logger="hf_vanilla_transformer.training.trainer"):
        trainer.train()
    assert (
        "1 process on cpu, precision float32, at most 60 source and as many target tokens an update (2 micro-batches "
        "of 30), updates 1 to 8; the estimated time follows after 6 updates"
    ) in caplog.text
    assert "for the 2 updates to go, at " in caplog.text
