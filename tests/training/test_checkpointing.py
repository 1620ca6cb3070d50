"""Checkpoints are complete or ignored: flipped bits are detected, other runs' are refused, no code in them is run."""

import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_trainer import Collator, arguments, assert_same_checkpoint, examples, tiny_model
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_vanilla_transformer.checkpoints.averaging import average_checkpoints
from hf_vanilla_transformer.checkpoints.manifest import (
    MANIFEST_NAME,
    BrokenCheckpointError,
    read_manifest,
    verify,
    write_manifest,
)
from hf_vanilla_transformer.data.tokenization import train_tokenizer
from hf_vanilla_transformer.training import checkpointing
from hf_vanilla_transformer.training.checkpointing import (
    checkpoints,
    clear_leftovers,
    finish_checkpoint,
    newest_valid,
    rotate,
)
from hf_vanilla_transformer.training.run_identity import data_sha256
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer

FLIPS_A_FILE = 32  # quoted in the documented guarantees
FIELDS = dict(max_steps=6, save_strategy="steps", save_steps=2, logging_steps=3)


def make_trainer(folder: Path, data: list | None = None, model=None, **fields) -> VanillaTransformerTrainer:
    args = arguments(folder, **{**FIELDS, **fields})
    return VanillaTransformerTrainer(model or tiny_model(0.3), args, Collator(), data or examples(40))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    make_trainer(folder).train()
    return folder


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def flip(path: Path, bit: int) -> None:
    """Flip one bit in place; a second call restores it. Rewriting whole files would take much longer."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


# --------------------------------------------------------------------------- the manifest


def test_a_checkpoint_has_a_manifest_of_all_its_files_and_nothing_temporary_is_left(finished: Path) -> None:
    assert [path.name for path in checkpoints(finished)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    for checkpoint in checkpoints(finished):
        facts = verify(checkpoint)
        assert facts["step"] == int(checkpoint.name.removeprefix("checkpoint-"))
        named = read_manifest(checkpoint)["files"]
        assert {path.name for path in checkpoint.iterdir()} == {*named, MANIFEST_NAME}
        assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(
            named
        )
    assert not list(finished.glob(".*"))


def test_one_flipped_bit_in_any_file_is_detected_and_the_file_reported(run_dir: Path) -> None:
    checkpoint = run_dir / "checkpoint-6"
    draw = random.Random(0)
    files = sorted(checkpoint.iterdir())
    assert len(files) >= 8
    for file in files:
        bits = 8 * file.stat().st_size
        for bit in [0, bits - 1, *(draw.randrange(bits) for _ in range(FLIPS_A_FILE - 2))]:
            flip(file, bit)
            with pytest.raises(BrokenCheckpointError, match=file.name.replace(".", r"\.")):
                verify(checkpoint)
            flip(file, bit)
    verify(checkpoint)


def test_one_flipped_bit_in_a_manifest_is_detected(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    write_manifest(tmp_path, {"step": 1})
    manifest = tmp_path / MANIFEST_NAME
    for bit in range(8 * manifest.stat().st_size):
        flip(manifest, bit)
        with pytest.raises(BrokenCheckpointError):
            verify(tmp_path)
        flip(manifest, bit)
    assert verify(tmp_path) == {"step": 1}


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer", "link"])
def test_a_missing_or_changed_file_is_reported(run_dir: Path, damage: str) -> None:
    file = run_dir / "checkpoint-6" / "optimizer.pt"
    data = file.read_bytes()
    if damage in ("missing", "link"):
        file.unlink()
    if damage == "link":
        file.symlink_to(run_dir / "checkpoint-4" / "optimizer.pt")
    if damage in ("shorter", "longer"):
        file.write_bytes(data[:-1] if damage == "shorter" else data + b"x")
    with pytest.raises(BrokenCheckpointError, match=r"checkpoint-6/optimizer\.pt (is missing|has )"):
        verify(run_dir / "checkpoint-6")


# --------------------------------------------------------------------------- resuming


def test_broken_checkpoints_are_skipped_and_the_final_weights_are_the_same(
    finished: Path, run_dir: Path, caplog
) -> None:
    flip(run_dir / "checkpoint-6" / "model.safetensors", 4_000)
    (run_dir / "checkpoint-4" / "scheduler.pt").unlink()
    (run_dir / ".checkpoint-8.saving").mkdir()
    trainer = make_trainer(run_dir)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.resumed_from == str(run_dir / "checkpoint-2")
    assert "checkpoint-6/model.safetensors is damaged" in caplog.text
    assert "checkpoint-4/scheduler.pt is missing" in caplog.text
    assert not list(run_dir.glob(".*"))
    for step in (4, 6):
        verify(run_dir / f"checkpoint-{step}")
        assert_same_checkpoint(finished / f"checkpoint-{step}", run_dir / f"checkpoint-{step}")


def test_a_finished_run_makes_no_further_update(finished: Path, run_dir: Path) -> None:
    trainer = make_trainer(run_dir)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6
    weights = torch.load(finished / "checkpoint-6" / "optimizer.pt")  # nothing was saved again
    assert [path.name for path in checkpoints(run_dir)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert weights["state"][0]["step"].item() == 6


def test_a_broken_checkpoint_given_by_path_is_refused(run_dir: Path) -> None:
    flip(run_dir / "checkpoint-6" / "rng_state.pth", 999)
    with pytest.raises(ValueError, match=r"rng_state\.pth is damaged.*resume_from_checkpoint=True resumes from"):
        make_trainer(run_dir).train(resume_from_checkpoint=str(run_dir / "checkpoint-6"))


def test_no_valid_checkpoint_and_no_checkpoint_are_different_errors(run_dir: Path, tmp_path: Path) -> None:
    for checkpoint in checkpoints(run_dir):
        (checkpoint / MANIFEST_NAME).unlink()
    with pytest.raises(ValueError, match="none of the 3 checkpoints .* is valid"):
        make_trainer(run_dir).train(resume_from_checkpoint=True)
    trainer = make_trainer(run_dir, resume_anyway=True)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.resumed_from == str(run_dir / "checkpoint-6")
    with pytest.raises(ValueError, match="there is no checkpoint in .*empty to resume from"):
        make_trainer(tmp_path / "empty").train(resume_from_checkpoint=True)


def other_data() -> list[dict[str, list[int]]]:
    data = examples(40)
    data[7]["labels"][0] += 1 if data[7]["labels"][0] < 20 else -1
    return data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": other_data()}, "data: content;"),
        ({"seed": 7}, r"data: seed \(42 in the checkpoint, 7 now\)"),
        ({"max_tokens_per_batch": 50}, r"data: max_tokens_per_batch \(60 in the checkpoint, 50 now\)"),
        ({"model": tiny_model(0.1)}, r"configuration: dropout \(0\.3 in the checkpoint, 0\.1 now\)"),
    ],
)
def test_another_run_is_refused_and_the_difference_reported_unless_forced(
    run_dir: Path, changes: dict, message: str, caplog
) -> None:
    with pytest.raises(ValueError, match=f"{message}.*set resume_anyway to resume in spite of this"):
        make_trainer(run_dir, **changes).train(resume_from_checkpoint=True)
    make_trainer(run_dir, **changes, max_steps=7, resume_anyway=True).train(resume_from_checkpoint=True)
    assert "resuming in spite of this" in caplog.text


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    def trainer(text: str, last_update: int) -> VanillaTransformerTrainer:
        args = arguments(tmp_path, max_steps=last_update, save_strategy="steps", save_steps=2)
        tokenizer = train_tokenizer([text], 270)
        return VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40), processing_class=tokenizer)

    trainer("one two three", 2).train()
    with pytest.raises(ValueError, match="tokenizer: content; start a new run, or set resume_anyway"):
        trainer("eins zwei drei", 4).train(resume_from_checkpoint=True)
    trainer("one two three", 4).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("anyway", [False, True])
def test_the_state_of_another_optimizer_is_refused_and_both_are_reported(run_dir: Path, anyway: bool) -> None:
    message = "checkpoint-6 was saved with optim='adamw_torch_fused', whose state optim='adafactor' cannot load"
    with pytest.raises(ValueError, match=message):
        make_trainer(run_dir, optim="adafactor", resume_anyway=anyway).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"adam_beta2": 0.9}, r"optimizer: adam_beta2 \(0\.98 in the checkpoint, 0\.9 now\)"),
        ({"learning_rate": 0.002}, r"optimizer: learning_rate \(None in the checkpoint, 0\.002 now\)"),
        ({"optim": "adamw_torch"}, r"optimizer: optim \(adamw_torch_fused in the checkpoint, adamw_torch now\)"),
        (
            {"lr_scheduler_type": "linear", "learning_rate": 0.002},
            r"learning_rate \(.*; optimizer: lr_scheduler_type \(noam in the checkpoint, linear now\)",
        ),
    ],
)
def test_settings_that_the_saved_state_would_replace_are_refused(run_dir: Path, fields: dict, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(run_dir, **fields).train(resume_from_checkpoint=True)


def test_a_learning_rate_changed_with_resume_anyway_is_used(run_dir: Path) -> None:
    trainer = make_trainer(run_dir, max_steps=9, learning_rate=0.002, resume_anyway=True)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.log_history[-2]["learning_rate"] == pytest.approx(0.002 * 9 / 10)  # the warm-up has 10 updates


def test_a_checkpoint_with_other_peaks_is_resumed_with_the_learning_rate_of_the_arguments(
    run_dir: Path,
) -> None:
    checkpoint = run_dir / "checkpoint-6"
    facts = verify(checkpoint)
    facts.pop("optimizer")  # as earlier versions wrote it: the optimizer's rate is 1, the schedule all of Equation 3
    optimizer, scheduler = (torch.load(checkpoint / name) for name in ("optimizer.pt", "scheduler.pt"))
    for group in optimizer["param_groups"]:
        group["initial_lr"] = 1.0
    scheduler["base_lrs"] = [1.0] * len(scheduler["base_lrs"])
    torch.save(optimizer, checkpoint / "optimizer.pt")
    torch.save(scheduler, checkpoint / "scheduler.pt")
    write_manifest(checkpoint, facts)
    trainer = make_trainer(run_dir, max_steps=9)
    trainer.train(resume_from_checkpoint=True)
    peak = (16 * 10) ** -0.5  # d_model 16, a warm-up of 10
    assert trainer.state.log_history[-2]["learning_rate"] == pytest.approx(0.9 * peak)


def test_weights_of_another_model_are_refused(run_dir: Path) -> None:
    checkpoint = run_dir / "checkpoint-6"
    facts = verify(checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    name = sorted(weights)[3]
    weights["unknown.weight"] = weights.pop(name)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    write_manifest(checkpoint, facts)
    message = f"the checkpoint's weights do not match the model's: {name}, unknown.weight are in only one of them"
    with pytest.raises(ValueError, match=message):
        make_trainer(run_dir, max_steps=8).train(resume_from_checkpoint=True)


def test_a_manifest_has_the_data_of_its_own_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=2)
    trainer.train()
    trainer.train_dataset, trainer.args.max_steps = other_data(), 4
    trainer.train()
    first, second = (verify(tmp_path / f"checkpoint-{step}")["data"] for step in (2, 4))
    assert second["sha256"] == data_sha256(other_data()) != data_sha256(examples(40))
    assert first["sha256"] == second["sha256"]  # the second training saved update 2 again


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("optimizer.pt", r"missing the optimizer's state \(optimizer\.pt\)"),
        ("scheduler.pt", r"missing the learning rate schedule's state \(scheduler\.pt\)"),
        ("rng_state.pth", r"missing the random number generators' state \(rng_state\.pth\)"),
        ("trainer_state.json", "has no trainer_state.json, which contains the position in the data"),
    ],
)
def test_missing_state_is_refused_even_if_the_manifest_does_not_list_it(run_dir: Path, file: str, message: str) -> None:
    checkpoint = run_dir / "checkpoint-6"
    facts = verify(checkpoint)
    (checkpoint / file).unlink()
    (checkpoint / MANIFEST_NAME).unlink()
    write_manifest(checkpoint, facts)  # as after saving with save_only_model
    with pytest.raises(ValueError, match=message):
        make_trainer(run_dir).train(resume_from_checkpoint=True)


class Payload:
    """Unpickled without restrictions, it runs a command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_no_code_in_training_state_is_run(run_dir: Path, tmp_path: Path, file: str) -> None:
    checkpoint = run_dir / "checkpoint-6"
    facts = verify(checkpoint)
    torch.save({"state": Payload(tmp_path / "proof")}, checkpoint / file)
    write_manifest(checkpoint, facts)
    with pytest.raises(Exception, match="Weights only load failed|WeightsUnpickler error"):
        make_trainer(run_dir, max_steps=8).train(resume_from_checkpoint=True)
    assert not (tmp_path / "proof").exists()


# --------------------------------------------------------------------------- saving and deleting


def test_a_save_that_fails_does_not_change_older_checkpoints(run_dir: Path, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "write_manifest", full)
    message = "the checkpoint of update 8 cannot be saved .*No space left on device.*older checkpoints are unchanged"
    with pytest.raises(OSError, match=message):
        make_trainer(run_dir, max_steps=8).train(resume_from_checkpoint=True)
    assert [path.name for path in checkpoints(run_dir)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    for checkpoint in checkpoints(run_dir):
        verify(checkpoint)
    assert not list(run_dir.glob(".*"))


def write_checkpoint(run_dir: Path, step: int, saved_by: str = checkpointing.BY_SCHEDULE) -> Path:
    staging = checkpointing.staging_dir(run_dir, step)
    staging.mkdir(parents=True)
    (staging / "model.safetensors").write_bytes(bytes([step]))
    return finish_checkpoint(staging, run_dir, step, {"step": step, "saved_by": saved_by})


def steps(run_dir: Path) -> list[int]:
    return [int(path.name.removeprefix("checkpoint-")) for path in checkpoints(run_dir)]


def test_rotation_keeps_the_last_and_the_best_and_deletes_those_saved_by_a_signal(tmp_path: Path) -> None:
    for step in (2, 4, 5, 6, 8, 10):
        write_checkpoint(tmp_path, step, checkpointing.BY_SIGNAL if step == 5 else checkpointing.BY_SCHEDULE)
    newest = tmp_path / "checkpoint-10"
    rotate(newest, None, None)
    assert steps(tmp_path) == [2, 4, 6, 8, 10]
    rotate(newest, 3, str(tmp_path / "checkpoint-4"))
    assert steps(tmp_path) == [4, 8, 10]
    rotate(newest, 1, None)
    assert steps(tmp_path) == [10]
    assert not list(tmp_path.glob(".*"))


def test_rotation_neither_counts_nor_deletes_a_later_broken_checkpoint(tmp_path: Path) -> None:
    for step in (2, 4, 6, 9):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-9" / "model.safetensors").write_bytes(b"broken")
    rotate(tmp_path / "checkpoint-6", 1, None)  # the run was resumed from 4 and saved 6
    assert steps(tmp_path) == [6, 9]
    assert newest_valid(tmp_path) == tmp_path / "checkpoint-6"


def test_a_rotation_interrupted_by_a_kill_is_completed_when_resuming(finished: Path, run_dir: Path) -> None:
    shutil.copytree(run_dir / "checkpoint-2", run_dir / "checkpoint-1")  # as after a kill between rename and deletion
    make_trainer(run_dir, save_total_limit=3).train(resume_from_checkpoint=True)
    assert steps(run_dir) == [2, 4, 6]


def test_a_checkpoint_replaces_one_of_the_same_name(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3)
    (tmp_path / "checkpoint-3" / "model.safetensors").write_bytes(b"broken")
    write_checkpoint(tmp_path, 3)
    assert newest_valid(tmp_path) == tmp_path / "checkpoint-3"
    assert not list(tmp_path.glob(".*"))


def test_leftovers_are_deleted_and_a_checkpoint_that_was_being_replaced_is_restored(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3)
    os.rename(tmp_path / "checkpoint-3", tmp_path / ".checkpoint-3.replaced")  # killed between two renames
    for name in (".checkpoint-4.saving", ".checkpoint-2.deleting", ".hidden"):
        (tmp_path / name).mkdir()
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "checkpoint-3"]
    assert newest_valid(tmp_path) == tmp_path / "checkpoint-3"


# --------------------------------------------------------------------------- averaging


def test_only_valid_checkpoints_are_averaged_and_the_average_has_no_manifest(run_dir: Path, tmp_path: Path) -> None:
    average_checkpoints(run_dir, tmp_path / "mean", last=2)
    assert not (tmp_path / "mean" / MANIFEST_NAME).exists()
    flip(run_dir / "checkpoint-4" / "model.safetensors", 20_000)
    with pytest.raises(ValueError, match=r"checkpoint-4/model\.safetensors is damaged"):
        average_checkpoints(run_dir, tmp_path / "other", last=2)


def test_checkpoints_of_the_stock_trainer_can_be_averaged(tmp_path: Path) -> None:
    args = Seq2SeqTrainingArguments(
        output_dir=tmp_path / "stock",
        max_steps=2,
        save_steps=1,
        use_cpu=True,
        disable_tqdm=True,
        label_names=["labels"],
    )
    Seq2SeqTrainer(tiny_model(), args, Collator(), examples(16)).train()
    average_checkpoints(tmp_path / "stock", tmp_path / "mean", last=2)
    assert (tmp_path / "mean" / "model.safetensors").is_file()
