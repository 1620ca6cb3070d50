"""The program that test_parallel.py runs in each of two processes.

Usage: torchrun --nproc_per_node 2 two_processes.py {tensor_parallel,fully_shard} FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from hf_vanilla_transformer.model.attention_vanilla_transformer import (
    VanillaTransformerDecoderLayer,
    VanillaTransformerEncoderLayer,
)
from hf_vanilla_transformer.model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration


def tensor_parallel(folder: Path) -> dict:
    """Load the checkpoint with each projection split over the processes, and run a forward pass."""
    model = VanillaTransformerForConditionalGeneration.from_pretrained(folder, tp_plan="auto").eval()
    batch = torch.load(folder / "batch.pt", weights_only=True)
    with torch.no_grad():
        logits = model(**batch).logits
    logits = logits.full_tensor() if hasattr(logits, "full_tensor") else logits
    local = {
        name: list((weight.to_local() if hasattr(weight, "to_local") else weight).shape)
        for name, weight in model.named_parameters()
    }
    if distributed.get_rank() == 0:
        torch.save(logits, folder / "logits.pt")
    return {"local": local}


def fully_shard(folder: Path) -> dict:
    """Shard parameters, gradients and optimizer state (FSDP2), make three updates, gather the weights."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard as shard
    from torch.distributed.tensor import DTensor

    distributed.init_process_group("gloo")
    model = VanillaTransformerForConditionalGeneration.from_pretrained(folder, dtype=torch.float64).train()
    mesh = distributed.device_mesh.init_device_mesh("cpu", (2,))
    for module in model.modules():
        if isinstance(module, (VanillaTransformerEncoderLayer, VanillaTransformerDecoderLayer)):
            shard(module, mesh=mesh)
    shard(model, mesh=mesh)
    kinds = {name: type(weight).__name__ for name, weight in model.named_parameters()}
    assert all(isinstance(weight, DTensor) for weight in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    batch = torch.load(folder / "batch.pt", weights_only=True)
    rank, losses = distributed.get_rank(), []
    mine = {name: value[rank::2] for name, value in batch.items()}
    tokens = (batch["labels"] != -100).sum()
    for _ in range(3):
        loss = model(**mine, num_items_in_batch=tokens, label_smoothing=0.1).loss
        (2 * loss).backward()  # gradients are averaged over the two processes; the loss is a sum over both
        optimizer.step()
        optimizer.zero_grad()
        whole = loss.detach().clone()
        distributed.all_reduce(whole)
        losses.append(whole.item())
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if rank == 0:
        torch.save(weights, folder / "sharded.pt")
    return {"kinds": kinds, "losses": losses}


if __name__ == "__main__":
    action, target = sys.argv[1], Path(sys.argv[2])
    record = {"tensor_parallel": tensor_parallel, "fully_shard": fully_shard}[action](target)
    (target / f"{action}-{distributed.get_rank()}.json").write_text(json.dumps(record))
    distributed.destroy_process_group()
