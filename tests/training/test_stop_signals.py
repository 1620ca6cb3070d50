"""SIGTERM and SIGINT: the update is finished, a checkpoint saved, the exit status is the signal's."""

import json
import logging
import signal
from pathlib import Path

import pytest
from test_trainer import Collator, arguments, examples, tiny_model
from transformers import TrainerCallback

from hf_vanilla_transformer.training import stop_signals
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer


class SignalAt(TrainerCallback):
    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_checkpoint_and_sets_the_exit_status(tmp_path: Path, number: int, status: int, caplog) -> None:
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
def test_a_signal_after_the_last_update_also_ends_the_process(tmp_path: Path, moment: str, save: str, caplog) -> None:
    class SignalIn(TrainerCallback):
        """Sends the signal to its own process at the end of the last evaluation, the last save, or training."""

    def send(self, args, state, control, **kwargs):
        if state.global_step == 4:
            signal.raise_signal(signal.SIGTERM)

    setattr(SignalIn, moment, send)
    args = arguments(
        tmp_path, max_steps=4, save_strategy=save, save_steps=2, eval_strategy="steps", eval_steps=2,
        metric_for_best_model="loss", greater_is_better=True,  # the last one is not the best
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
    expected = "which is saved; run the same command" if saved else "which is not saved; the same command resumes"
    assert f"stopped by SIGTERM after update 4 of 4, {expected}" in caplog.text


@pytest.mark.parametrize("launched", [False, True])
def test_a_second_signal_ends_the_process_at_once_unless_a_launcher_has_forwarded_the_first(launched, monkeypatch):
    exits, clock = [], [100.0]
    monkeypatch.setattr(stop_signals.os, "_exit", exits.append)
    monkeypatch.setattr(stop_signals.time, "monotonic", lambda: clock[0])
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with stop_signals.StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert (signals.received, exits) == (signal.SIGTERM, [])
        clock[0] += 1.0
        signal.raise_signal(signal.SIGTERM)
        assert exits == ([] if launched else [143])
        clock[0] += 5.0
        signal.raise_signal(signal.SIGINT)
        assert exits[-1] == 130
