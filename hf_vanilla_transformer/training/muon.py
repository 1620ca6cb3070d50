# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Muon (Jordan 2024) for the matrices of the layers, Adam (§5.3) for all other parameters.

Muon replaces the momentum of a matrix by the nearest orthogonal matrix, so that an update changes all directions by the
same amount. Its updates are scaled so that a matrix changes by as much as Adam would change it (Liu et al. 2025), and
both follow the same learning rate. It is a departure from the paper, and off unless ``optim="muon"`` is set.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MUON = "muon"  # the value of optim that selects it

_STACKED = 2**22  # elements of the matrices that are orthogonalized together; more need memory and gain nothing


class Muon(torch.optim.Muon):
    """torch's Muon for many small matrices: those of the same shape are orthogonalized by one batched product.

    On a GPU, an update then has tens of kernels instead of thousands. torch's own class always computes in bf16, which
    a processor without bf16 units emulates, many times slower than fp32.
    """

    def __init__(self, matrices: Sequence[Tensor], dtype: torch.dtype, **settings: Any) -> None:
        """Make the optimizer.

        Args:
            matrices: to be trained.
            dtype: of the products that orthogonalize.
            settings: of `torch.optim.Muon`, whose ``adjust_lr_fn`` is "match_rms_adamw".
        """
        super().__init__(matrices, adjust_lr_fn="match_rms_adamw", **settings)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make an update of all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[Any, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault((weight.shape, weight.device, weight.dtype), []).append(weight)
            for weights in by_shape.values():
                size = max(_STACKED // weights[0].numel(), 1)
                for start in range(0, len(weights), size):
                    self._update(weights[start : start + size], group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices of the same shape (O, I)."""
        gradients: Any = [weight.grad for weight in weights]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
        steps = orthogonal(
            torch.stack(list(directions)).to(self._dtype), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        rate = float(group["lr"])
        # An orthogonal matrix has entries of 1 / √(the longer side); Adam's updates are about 0.2 (Liu et al. 2025).
        size = 0.2 * math.sqrt(max(weights[0].shape))
        torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
        torch._foreach_add_(weights, list(steps.to(weights[0].dtype)), alpha=-rate * size)


def orthogonal(matrices: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """Return about the nearest orthogonal matrix of each by the Newton-Schulz iteration: (B, O, I) to (B, O, I)."""
    first, third, fifth = coefficients  # of the odd polynomial that moves each singular value towards 1
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.mT if is_tall else matrices
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        squares = found @ found.mT
        polynomial = torch.baddbmm(squares, squares, squares, beta=third, alpha=fifth)
        found = torch.baddbmm(found, polynomial, found, beta=first)
    return found.mT if is_tall else found


class MuonAndAdam(Optimizer):
    """One optimizer for two: a state dict and parameter groups of both, with one learning rate."""

    def __init__(self, model: Any, adam: Optimizer, precision: str) -> None:
        """Take the matrices of the layers out of Adam's parameters.

        Embeddings stay Adam's, and with them an output projection that is tied to them; so do biases and the scales of
        layer normalization.

        Args:
            model: whose parameters ``adam`` has.
            adam: an optimizer of all parameters.
            precision: of the training; Muon's products are computed in bf16 if it is "bf16", else in fp32.
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
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        muon = Muon(matrices, dtype, lr=rate, weight_decay=decay)
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
