# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The matrix that both embeddings and the output projection share (§3.4), with one gradient for its three uses.

For each lookup torch fills a gradient of the size of the whole matrix, almost all of it zeros, and adds it to that of
the projection, which on the CPU takes time and memory. Here the rows of the looked up tokens are added to the
projection's gradient in place.
"""

# Shapes: B batch · S source length · T target length · D d_model · V vocabulary

from typing import Any

import torch
from torch import Tensor, nn

from .linear_kernels_vanilla_transformer import calls_only_its_class


def is_shared_matrix(matrix: Tensor, *embeddings: nn.Module) -> bool:
    """Return whether the projection's matrix (V, D) is on the CPU and that of all embeddings, which only look it up."""
    return matrix.device.type == "cpu" and all(
        _is_plain_lookup(embedding) and embedding.weight is matrix for embedding in embeddings
    )


def _is_plain_lookup(module: nn.Module) -> bool:
    return (
        type(module) is nn.Embedding
        and module.padding_idx is None
        and module.max_norm is None
        and not (module.scale_grad_by_freq or module.sparse)
        and not module._backward_hooks
        and calls_only_its_class(module)
    )


def look_up_source_and_target(matrix: Tensor, source_ids: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the embeddings of the tokens of both sides, and the matrix to project with.

    Args:
        matrix: (V, D).
        source_ids: (B, S) integers.
        target_ids: (B, T) integers.

    Returns:
        The embeddings of the source (B, S, D) and of the target (B, T, D), and the matrix (V, D) to project with. The
        gradient of the third is changed in place; use it for one operation only.
    """
    source, target, projection = _SharedMatrix.apply(matrix, source_ids, target_ids)
    return source, target, projection


class _SharedMatrix(torch.autograd.Function):
    """Two lookups and the matrix itself; the backward pass has the gradients of all three at the same time."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, source_ids: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(source_ids, target_ids)
        ctx.shape, ctx.dtype = matrix.shape, matrix.dtype
        ctx.set_materialize_grads(False)
        lookup = nn.functional.embedding
        return lookup(source_ids, matrix), lookup(target_ids, matrix), matrix.view_as(matrix)

    @staticmethod
    def backward(
        ctx: Any, grad_source: Tensor | None, grad_target: Tensor | None, grad_projection: Tensor | None
    ) -> tuple[Tensor, None, None]:
        if grad_projection is None:
            grad_projection = ctx.saved_tensors[0].new_zeros(ctx.shape, dtype=ctx.dtype)
        elif _graph_is_kept():
            grad_projection = grad_projection.clone()  # the loss returns it again in the next backward pass
        for ids, gradient in zip(ctx.saved_tensors, (grad_source, grad_target), strict=True):
            if gradient is not None:
                grad_projection.index_add_(0, ids.flatten(), gradient.flatten(0, -2))
        return grad_projection, None, None


def _graph_is_kept() -> bool:
    """Return whether the backward pass that is running keeps its graph for another one (``retain_graph``)."""
    is_kept = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if is_kept is None else bool(is_kept())


__all__ = ["is_shared_matrix", "look_up_source_and_target"]
