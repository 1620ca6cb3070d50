"""Two processes that share one GPU make the updates of one process; sharded parameters are DTensors."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import train
from safetensors.torch import load_file
from small_models import batch, build, relative_error

HERE = Path(__file__).resolve().parent
TIMEOUT = 60  # seconds


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(action: str, device: torch.device, folder: Path, processes: int) -> list[dict]:
    """Start processes as on machines of one GPU each: their local rank is 0, so that all take the first GPU."""
    port, running, logs = free_port(), [], []
    for rank in range(processes):
        logs.append((folder / f"rank{rank}.log").open("w+b"))
        ranks = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        environment = {
            **os.environ,
            **{name: str(value) for name, value in ranks.items()},
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, str(HERE / "processes.py"), action, device.type, str(folder)]
        running.append(subprocess.Popen(command, env=environment, stdout=logs[-1], stderr=logs[-1]))
    try:
        states = [process.wait(TIMEOUT) for process in running]
    finally:
        for process in running:
            process.kill()
        for log in logs:
            log.close()
    said = "\n".join((folder / f"rank{rank}.log").read_text(errors="replace")[-3000:] for rank in range(processes))
    assert states == [0] * processes, said
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def nll(trainer) -> list[float]:
    return [entry["nll"] for entry in trainer.state.log_history if "nll" in entry]


@pytest.mark.slow_on_cpu
def test_two_processes_on_one_device_make_the_updates_of_one(device, tmp_path):
    records = start("ddp", device, tmp_path, processes=2)
    assert [record["world_size"] for record in records] == [2, 2]
    assert {record["wrapped"] for record in records} == {"DistributedDataParallel"}
    assert {record["device"].partition(":")[0] for record in records} == {device.type}
    alone = train(device.type, tmp_path / "alone", save_strategy="no")
    together = torch.load(tmp_path / "weights.pt", map_location="cpu", weights_only=True)
    for name, weight in alone.model.state_dict().items():
        assert relative_error(together[name], weight) < 1e-9, name
    assert records[0]["nll"] == pytest.approx(nll(alone), rel=1e-9)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_tied_weights_stay_tied_where_accelerate_shards(processes, tmp_path):
    """Left to accelerate, the decoder's embedding becomes a weight of its own (torch < 2.13) or an error."""
    records = start("tied", torch.device("cpu"), tmp_path, processes)
    model, inputs = build(torch.float64).train(), batch(torch.device("cpu"), rows=6)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    for _ in range(3):
        loss = model(**inputs, label_smoothing=0.1).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    for record in records:
        assert record["sharded"] and record["numbers"][0] == record["numbers"][1]
        assert record["losses"] == pytest.approx(losses, rel=1e-9)


@pytest.mark.only_on_gpu("on the CPU, tests/model/test_parallel.py shards over two processes")
def test_sharded_parameters_are_dtensors_and_updates_are_the_same(device, tmp_path):
    """One process: gloo, which two processes on one GPU need, can't add up and scatter there."""
    (record,) = start("fsdp2", device, tmp_path, processes=1)
    assert record["sharded"] and record["kinds"] == ["DTensor"], record
    alone = train(device.type, tmp_path / "alone", save_strategy="no")
    assert record["nll"] == pytest.approx(nll(alone), rel=1e-9)


@pytest.mark.only_on_gpu("on the CPU, accelerate turns to DDP")
def test_a_sharded_run_saves_a_checkpoint_that_loads_anywhere(device, tmp_path):
    start("fsdp2_saved", device, tmp_path, processes=1)
    alone = train(device.type, tmp_path / "alone", save_strategy="no")
    for name, weight in load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors").items():
        assert relative_error(weight, alone.model.state_dict()[name]) < 1e-9, name
