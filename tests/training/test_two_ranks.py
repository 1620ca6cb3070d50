"""Two processes: every example once per epoch, the same update as one process, exact resuming inside epoch two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_trainer import Collator, arguments, assert_same_checkpoint, examples, tiny_model

from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two_ranks")
    script = Path(__file__).with_name("two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, folder]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]
    return folder


def records(folder: Path) -> list[dict]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_every_example_is_seen_by_one_of_the_ranks(runs):
    one, two = records(runs)
    expected = 3 * [row["input_ids"] for row in examples(60)]
    assert sorted(one["seen"] + two["seen"]) == sorted(expected)


def test_resumed_ranks_end_with_bit_identical_weights(runs):
    last = f"checkpoint-{records(runs)[0]['steps']}"
    assert_same_checkpoint(runs / "whole" / last, runs / "stopped" / last)


def test_two_ranks_make_the_update_of_one_process(runs, tmp_path):
    model = tiny_model().double()
    args = arguments(tmp_path, max_tokens_per_batch=80, max_steps=1, optim="sgd")
    trainer = VanillaTransformerTrainer(model, args, Collator(), examples(16, length=5))
    trainer.train()
    together = torch.load(runs / "one.pt")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(together[name], weight, rtol=0, atol=1e-10)
    assert records(runs)[0]["nll"] == pytest.approx(trainer.state.log_history[0]["nll"], rel=1e-9)
