"""Losses and weights do not depend on the number of processes or accumulation steps, which may change when resuming."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layout_run import train

pytestmark = pytest.mark.slow

UPDATES = 7  # an epoch has about five: the second one is reached


def launch(folder: Path, processes: int, accumulation_steps: int, last_update: int, *more: str) -> Path:
    folder.mkdir(exist_ok=True)
    script = Path(__file__).with_name("layout_run.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes, script]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        list(map(str, [*command, folder, accumulation_steps, last_update, *more])),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The reference: one process, one micro-batch per update."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder, 1, UPDATES)
    return folder


def assert_same(folder: Path, alone: Path, updates: int = UPDATES) -> None:
    curve, expected = (json.loads((path / "curve.json").read_text()) for path in (folder, alone))
    assert len(expected) == UPDATES
    for (loss, nll), (expected_loss, expected_nll) in zip(curve[-updates:], expected[-updates:], strict=True):
        assert loss == pytest.approx(expected_loss, rel=1e-6)  # Trainer adds losses up in fp32
        assert nll == pytest.approx(expected_nll, abs=1e-10)
    weights, reference = (torch.load(path / "weights.pt", weights_only=True) for path in (folder, alone))
    for name, weight in reference.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-10)


def test_accumulation_on_one_process_gives_the_same_updates(alone, tmp_path):
    train(tmp_path, 3, UPDATES)
    assert_same(tmp_path, alone)


@pytest.mark.parametrize(("processes", "accumulation_steps"), [(2, 1), (2, 2), (4, 1)])
def test_several_processes_and_accumulation_give_the_same_updates(processes, accumulation_steps, alone, tmp_path):
    assert_same(launch(tmp_path, processes, accumulation_steps, UPDATES), alone)


@pytest.mark.parametrize(("first", "then"), [((2, 1), (1, 1)), ((1, 1), (2, 2))])
def test_a_run_is_resumed_in_another_layout(first, then, alone, tmp_path):
    stop = UPDATES - 1  # in the middle of epoch two
    launch(tmp_path, *first, stop)
    launch(tmp_path, *then, UPDATES, str(tmp_path / f"checkpoint-{stop}"))
    assert_same(tmp_path, alone, updates=1)
