"""The documented command for two processes: it starts two, stops on a signal, and is resumed with another layout."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from hf_vanilla_transformer.cli import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "examples" / "configs" / "accelerate"
RECIPE = """
dataset_name: embedded
embedded_train: 300
embedded_validation: 8
embedded_test: 8
vocab_size: 360
preset: tiny
config_overrides: {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
max_tokens_per_batch: 400
warmup_steps: 10
precision: fp32
logging_steps: 1
save_steps: 2
use_cpu: true
disable_tqdm: true
report_to: none
"""


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_the_file_and_its_header_states_whether_it_was_run(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes == 2
    head = "".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert ("not run" in head.lower()) != ("Run: on" in head)


def losses(folder: Path) -> dict[int, float]:
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["nll"] for entry in history if "nll" in entry}


@pytest.mark.slow
def test_a_run_on_one_process_then_two_until_a_signal_then_one_equals_an_uninterrupted_run(
    tmp_path: Path, capfd
) -> None:
    recipe, folder = tmp_path / "small.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)

    def alone(last_update: int, output: Path) -> None:
        words = ["train", recipe, "--output_dir", output, "--max_steps", last_update]
        assert main(list(map(str, words))) == 0, capfd.readouterr().err[-3000:]

    alone(3, folder)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "cpu.yaml"]
    command += ["-m", "hf_vanilla_transformer", "train", recipe, "--output_dir", folder, "--max_steps", 2000]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    log = (tmp_path / "log").open("w+b")
    launcher = subprocess.Popen(list(map(str, command)), env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        until = time.monotonic() + 300
        while not any(int(path.name.rpartition("-")[2]) >= 6 for path in folder.glob("checkpoint-*")):
            assert launcher.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)
        launcher.send_signal(signal.SIGINT)  # which the launcher forwards
        assert launcher.wait(120) != 0
    finally:
        launcher.kill()
        log.close()
    said = (tmp_path / "log").read_text(errors="replace")
    assert said.count("2 processes on cpu, precision float32, at most 400 source and 400 target tokens") == 1
    assert (
        "saved with another layout: gradient_accumulation" in said or "saved with another layout: processes (1" in said
    )
    assert said.count("finishing this update, saving, then stopping") == 2  # once per process
    assert "stopped by SIGINT after update" in said
    reached = max(losses(folder))
    assert f"after update {reached:,} of 2,000, which is saved" in said
    alone(reached + 3, folder)
    assert json.loads((folder / "results.json").read_text())["training"]["updates"] == reached + 3
    alone(reached + 3, tmp_path / "undisturbed")
    curve, expected = losses(folder), losses(tmp_path / "undisturbed")
    assert list(curve) == list(expected) == list(range(1, reached + 4))
    torch.testing.assert_close(
        torch.tensor(list(curve.values())), torch.tensor(list(expected.values())), rtol=1e-4, atol=0
    )


@pytest.mark.slow
def test_the_accelerate_loop_runs_on_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "cpu.yaml"]
    command += [ROOT / "examples" / "accelerate_loop.py", tmp_path / "loop", "--updates", 3, "--pairs", 400]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Without communication, both processes would write the model and print this.
    assert done.stdout.count("accelerate_loop: exact=") == 1
    assert (tmp_path / "loop" / "model.safetensors").is_file()
