"""What test_gpu_processes.py starts as a process; ranks and address are in the environment.

Usage: processes.py {ddp,fsdp2,fsdp2_saved,tied} DEVICE FOLDER
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from small_models import batch, build, collate, examples
from torch import distributed
from torch.distributed.tensor import DTensor

from hf_vanilla_transformer import VanillaTransformerTrainer, VanillaTransformerTrainingArguments
from hf_vanilla_transformer.training.sharding import shard_tied_weights

SENTENCES = 16  # of 5 tokens: two updates an epoch, of which each of two processes has four sentences


def train(device: str, folder: Path, **fields: Any) -> VanillaTransformerTrainer:
    """Make four plain gradient updates in fp64; only rounding may tell one process from two."""
    args = VanillaTransformerTrainingArguments(
        output_dir=str(folder / "run"),
        max_tokens_per_batch=40,
        optim="sgd",
        lr_scheduler_type="constant",
        learning_rate=0.1,
        max_steps=4,
        precision="fp32",
        use_cpu=device == "cpu",
        disable_tqdm=True,
        logging_steps=1,
        report_to="none",
        **fields,
    )
    trainer = VanillaTransformerTrainer(build(torch.float64), args, collate, examples(SENTENCES, length=5))
    trainer.train()
    return trainer


def record(trainer: VanillaTransformerTrainer, folder: Path, **more: Any) -> None:
    """Write down what this process saw."""
    nll = [entry["nll"] for entry in trainer.state.log_history if "nll" in entry]
    facts = {"world_size": trainer.args.world_size, "device": str(trainer.args.device), "nll": nll, **more}
    (folder / f"rank{trainer.args.process_index}.json").write_text(json.dumps(facts))


def ddp(device: str, folder: Path) -> None:
    """Train under DistributedDataParallel."""
    trainer = train(device, folder, ddp_backend="gloo", save_strategy="no")
    wrapped = type(trainer.model_wrapped).__name__
    if trainer.args.process_index == 0:
        torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), folder / "weights.pt")
    record(trainer, folder, wrapped=wrapped)


def fsdp2(device: str, folder: Path, **fields: Any) -> None:
    """Train with parameters, gradients and optimizer sharded."""
    sharding = {
        "version": 2,
        "reshard_after_forward": True,
        "transformer_layer_cls_to_wrap": ["VanillaTransformerEncoderLayer", "VanillaTransformerDecoderLayer"],
        "state_dict_type": "FULL_STATE_DICT",
    }
    trainer = train(device, folder, fsdp=True, fsdp_config=sharding, **{"save_strategy": "no", **fields})
    assert trainer.model is not None
    parameters = list(trainer.model.parameters())
    sharded = all(isinstance(parameter, DTensor) for parameter in parameters)
    record(trainer, folder, kinds=sorted({type(parameter).__name__ for parameter in parameters}), sharded=sharded)


def fsdp2_saved(device: str, folder: Path) -> None:
    """Do that and save a checkpoint."""
    fsdp2(device, folder, save_strategy="steps", save_steps=4)


def tied(device: str, folder: Path) -> None:
    """Shard as Trainer and accelerate do, with gloo on the CPU, where accelerate itself would turn to DDP."""
    distributed.init_process_group("gloo")
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["VanillaTransformerEncoderLayer", "VanillaTransformerDecoderLayer"],
        cpu_ram_efficient_loading=True,
    )
    mesh = distributed.device_mesh.init_device_mesh("cpu", (world_size,), mesh_dim_names=("ranks",))
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh={("ranks",): mesh},
        parallelism_config=SimpleNamespace(fsdp_dim_names=("ranks",)),
        device=torch.device("cpu"),
        mixed_precision="no",
        is_main_process=rank == 0,
    )
    model = build(torch.float64)
    if rank:  # as where process 0 alone has read a checkpoint
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    number = len(list(model.parameters()))
    shard_tied_weights(model, accelerator)
    model = fsdp2_prepare_model(accelerator, model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    whole = batch(torch.device("cpu"), rows=6)
    mine = {name: tensor[rank::world_size] for name, tensor in whole.items()}
    losses = []
    for _ in range(3):
        tokens = (whole["labels"] != -100).sum()
        loss = model(**mine, num_items_in_batch=tokens, label_smoothing=0.1).loss
        (world_size * loss).backward()  # gradients are averaged over the processes; the loss is a sum over them
        optimizer.step()
        optimizer.zero_grad()
        total = loss.detach().clone()
        distributed.all_reduce(total)
        losses.append(total.item())
    parameters = list(model.parameters())
    sharded = all(isinstance(parameter, DTensor) for parameter in parameters)
    facts = {"losses": losses, "sharded": sharded, "numbers": [number, len(parameters)]}
    (folder / f"rank{rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    {"ddp": ddp, "fsdp2": fsdp2, "fsdp2_saved": fsdp2_saved, "tied": tied}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    if distributed.is_initialized():
        distributed.destroy_process_group()
