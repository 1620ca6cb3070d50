# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Muon (Jordan 2024) for the matrices of the layers, Adam (§5.3) for all other parameters.

Muon replaces the momentum of a matrix by the nearest orthogonal matrix, so that an update changes all directions by the
same amount. Its updates are scaled so that a matrix changes by as much as Adam would change it (Liu et al. 2025), and
both follow the same learning rate. It is a departure from the paper, and off unless ``optim="muon"`` is set.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MUON = "muon"  # the value of optim that selects it


class MuonAndAdam(Optimizer):
    """One optimizer for two: a state dict and parameter groups of both, with one learning rate."""

    def __init__(self, model: Any, adam: Optimizer) -> None:
        """Take the matrices of the layers out of Adam's parameters.

        Embeddings stay Adam's, and with them an output projection that is tied to them; so do biases and the scales of
        layer normalization.

        Args:
            model: whose parameters ``adam`` has.
            adam: an optimizer of all parameters.
        """
        vocabulary = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
        projection = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if projection is not None:
            vocabulary.add(id(projection.weight))
        matrices = [
            weight
            for weight in model.parameters()
            if weight.requires_grad and weight.ndim == 2 and id(weight) not in vocabulary
        ]
        if not matrices:
            raise ValueError("optim=muon trains the matrices of layers, and no such matrix is to be trained")
        taken, decay = {id(weight) for weight in matrices}, 0.0
        for group in adam.param_groups:
            kept = [weight for weight in group["params"] if id(weight) not in taken]
            if len(kept) < len(group["params"]):
                decay = max(decay, group["weight_decay"])
            group["params"] = kept
        adam.param_groups[:] = [group for group in adam.param_groups if group["params"]]
        rate = adam.defaults["lr"]
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        self._parts = (muon, adam)
        super().__init__(
            [{"params": [weight for group in self._groups() for weight in group["params"]]}], adam.defaults
        )
        self.param_groups = self._groups()
        self._share()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts for group in part.param_groups]

    def _share(self) -> None:
        """Set the groups and state of both parts to this object's, which `state_dict` saves and schedules change."""
        muon, adam = self._parts
        muon.param_groups, adam.param_groups = self.param_groups[:1], self.param_groups[1:]
        muon.state = adam.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Tensor | None:  # type: ignore[override]
        """Make an update of all parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both; see `torch.optim.Optimizer`."""
        super().load_state_dict(state_dict)
        self._share()


__all__ = ["MUON", "MuonAndAdam"]
