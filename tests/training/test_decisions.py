"""Two processes: process 0 chooses the precision, and an update waits for the device once on each of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("decisions")
    script = Path(__file__).with_name("decisions_run.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, folder]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_process_0_chooses_the_precision_of_all(records):
    assert [record["precision"] for record in records] == ["bf16", "bf16"]  # process 1 alone would choose fp32


def test_an_update_of_each_rank_looks_at_the_device_once(records):
    for record in records:
        # Is the gradients' norm finite, and has any rank received a signal?
        assert record["synchronizations"] == ["tolist"]
