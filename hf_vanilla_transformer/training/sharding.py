# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Keep tied weights tied under FSDP2; accelerate by itself unties them."""

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard


def shard_tied_weights(model: nn.Module, accelerator: Any) -> None:
    """Shard the modules that share a weight as one group, before accelerate shards the others.

    accelerate puts only the input embedding and the output projection into one group. The decoder's embedding shares
    their weight (§3.4) and is left out of it: torch before 2.13 silently trains it as a separate weight, and later
    releases raise an error.

    Args:
        model: not yet sharded.
        accelerator: configured for FSDP2.
    """
    groups = [group for group in tied_modules(model) if not any(isinstance(module, FSDPModule) for module in group)]
    if not groups:
        return
    plugin = accelerator.state.fsdp_plugin
    if plugin.cpu_ram_efficient_loading:  # only process 0 has the weights; broadcast them
        model.to(accelerator.device)
        for tensor in (*model.parameters(), *model.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)
        plugin.cpu_ram_efficient_loading = False
    mesh = getattr(accelerator, "torch_device_mesh", None)
    settings: dict[str, Any] = {
        "mesh": None if mesh is None else mesh[tuple(accelerator.parallelism_config.fsdp_dim_names)],
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
        "reshard_after_forward": False,  # used at the start and the end of the forward pass
    }
    if plugin.cpu_offload:
        settings["offload_policy"] = plugin.cpu_offload
    for group in groups:
        fully_shard(group, **settings)


def tied_modules(model: nn.Module) -> list[list[nn.Module]]:
    """List the groups of modules that share a parameter."""
    sharing: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            sharing.setdefault(id(parameter), []).append(module)
    return [modules for modules in sharing.values() if len(modules) > 1]


__all__ = ["shard_tied_weights", "tied_modules"]
