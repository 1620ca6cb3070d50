# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""R-Drop (Liang et al. 2021): each batch goes through the model twice, and the two predictions shall agree.

The two passes differ in their dropout masks. The divergence between their predictions is added to the loss, so that the
model without dropout, which is used after the training, is close to the models that were trained. It is a departure
from the paper, and off unless ``r_drop`` is set.
"""

# Shapes: N tokens · V vocabulary

from typing import Any

import torch
from torch import Tensor

from ..model.loss_vanilla_transformer import IGNORE_INDEX

_CHUNK_ELEMENTS = 2**21  # logits of one pass that are compared at a time: 8 MiB in fp32


def doubled(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch that contains each example twice: all of them, then all of them again."""
    return {
        name: torch.cat([value, value]) if isinstance(value, Tensor) and value.ndim else value
        for name, value in inputs.items()
    }


def prediction_divergence(logits: Tensor, labels: Tensor) -> Tensor:
    """Compare the predictions of the two passes.

    Args:
        logits: (2B, T, V), any floating dtype, of a batch from `doubled`.
        labels: (B, T), integers; −100 is ignored.

    Returns:
        The mean of both Kullback-Leibler divergences between the distributions P and Q of the two passes,
        (KL(P‖Q) + KL(Q‖P)) / 2 in nats, summed over the labels.
    """
    real = (labels != IGNORE_INDEX).flatten()
    first, second = (half.flatten(0, -2) for half in logits.chunk(2))
    return _Divergence.apply(first, second, real)


class _Divergence(torch.autograd.Function):
    """The divergence in fp32, chunk by chunk; the forward pass computes the gradients too.

    With P = softmax(x) and Q = softmax(y): ∂/∂x = (P · (log P − log Q) + P − Q − P · KL(P‖Q)) / 2, and likewise for y.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, real: Tensor) -> Tensor:
        rows = max(1, _CHUNK_ELEMENTS // first.shape[-1])
        total = first.new_zeros((), dtype=torch.float64 if first.dtype == torch.float64 else torch.float32)
        gradients = torch.empty_like(first), torch.empty_like(second)
        for start in range(0, len(first), rows):
            part = slice(start, start + rows)
            log_p, log_q = (x[part].to(total.dtype).log_softmax(dim=-1) for x in (first, second))
            p, q = log_p.exp(), log_q.exp()
            difference = log_p.sub_(log_q)
            kept = real[part].unsqueeze(-1).to(total.dtype) / 2
            p_to_q = (p * difference).sum(dim=-1, keepdim=True)
            q_to_p = -(q * difference).sum(dim=-1, keepdim=True)
            total += ((p_to_q + q_to_p) * kept).sum()
            gradients[0][part] = (p * (difference - p_to_q + 1) - q) * kept
            gradients[1][part] = (q * (1 - difference - q_to_p) - p) * kept
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second = ctx.saved_tensors
        return first * grad.to(first.dtype), second * grad.to(second.dtype), None


__all__ = ["doubled", "prediction_divergence"]
