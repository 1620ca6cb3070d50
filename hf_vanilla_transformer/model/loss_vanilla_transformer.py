# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loss: token cross-entropy with label smoothing (§5.4), and the true negative log-likelihood beside it.

Two ways to the same numbers. `token_cross_entropy` takes logits. `linear_cross_entropy` takes what the logits are made
of and goes over the tokens in chunks, so that the (tokens × vocabulary) logits exist for one chunk at a time only, and
their gradient is made while they are at hand.
"""

# Shapes: N tokens of the batch · D d_model · V vocabulary

from typing import Any

import torch
from torch import Tensor

IGNORE_INDEX = -100  # label of positions that carry no loss
_CHUNK_BYTES = 32 * 2**20  # size of one chunk's logits; big enough for full matrix speed, small beside a model
# The same on a GPU. Each chunk reads and writes the weight's gradient, 12 bytes a weight: 3.6 ps at 3.3 TB/s. Its three
# products take 6 operations a row and weight, 8.6 fs at 700 TFLOP/s: as long at 420 rows, ten times as long at 4,200.
_CHUNK_BYTES_OF_DEVICE = 256 * 2**20
_WIDE_ELEMENTS = 2**18  # logits widened at a time on the CPU: 1 MiB of fp32, which stays in the processor's cache


def on_accelerator(tensor: Tensor) -> bool:
    """Return whether reading the tensor's values makes the host wait for a device that computes by itself."""
    return tensor.device.type != "cpu"


def token_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sum cross-entropy over the real tokens.

    The smoothed target puts 1 − ε on the label and spreads ε evenly over all V words, the label included (§5.4).

    Args:
        logits: (…, V), any floating dtype; reduced in fp32 or wider.
        labels: (…), whole numbers; −100 carries no loss.
        label_smoothing: ε in [0, 1).

    Returns:
        The smoothed loss, which has a gradient, and the true negative log-likelihood, which has none; both are sums
        over real tokens in nats, both 0 where no label is real.
    """
    logits = logits.flatten(0, -2)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    labels = labels.flatten()
    real = labels != IGNORE_INDEX
    log_normalizer = logits.logsumexp(dim=-1)
    label_logits = logits.gather(-1, labels.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    nll = (log_normalizer - label_logits).masked_fill(~real, 0.0).sum()
    if not label_smoothing:
        return nll, nll.detach()
    uniform = (log_normalizer - logits.mean(dim=-1)).masked_fill(~real, 0.0).sum()
    return (1.0 - label_smoothing) * nll + label_smoothing * uniform, nll.detach()


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compute `token_cross_entropy(hidden @ weight.T + bias, labels)` without keeping the logits.

    Args:
        hidden: (…, D), the decoder's output.
        weight: (V, D), the output projection.
        bias: (V,) or None.
        labels: (…), whole numbers; −100 carries no loss.
        label_smoothing: ε in [0, 1).

    Returns:
        The same two sums as `token_cross_entropy`. The loss can be differentiated once.
    """
    return _ChunkedLinearCrossEntropy.apply(hidden.flatten(0, -2), weight, bias, labels.flatten(), label_smoothing)


class _ChunkedLinearCrossEntropy(torch.autograd.Function):
    """Forward makes the gradients too, while a chunk's logits are at hand.

    The softmax P is the only pass over a chunk's logits outside the matrix products: the uniform part of the smoothed
    target, being the same for every word, is a product with the mean row of the weight.
    ∂loss/∂logits = P − (1 − ε)·onehot(label) − ε/V.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        wants_gradient = any(ctx.needs_input_grad[:3])
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        with torch.autocast(device_type=device, enabled=False):
            ignored = labels == IGNORE_INDEX
            kept: Tensor | None = None
            if on_accelerator(labels):  # to learn how many there are; states of 0 add nothing to any sum below
                labels = labels.masked_fill(ignored, 0)
                states = hidden.masked_fill(ignored.unsqueeze(-1), 0.0).to(dtype)
            else:
                kept = (~ignored).nonzero().squeeze(-1)  # padding costs nothing from here on
                labels, ignored = labels[kept], ignored[kept]
                states = hidden[kept].to(dtype)
            tokens = (~ignored).sum().to(wide)
            matrix = weight.to(dtype)
            vocab_size = weight.shape[0]
            loss = hidden.new_zeros((), dtype=wide)
            nll = hidden.new_zeros((), dtype=wide)
            if wants_gradient:
                grad_states = torch.empty_like(states)
                grad_weight = torch.zeros_like(weight, dtype=wide)
                grad_bias = torch.zeros_like(bias, dtype=wide) if bias is not None else None
            if label_smoothing:  # Σ_v logits_v = h · Σ_v W_v + Σ_v b_v
                column_sum = weight.sum(dim=0, dtype=wide)
                bias_sum = None if bias is None else bias.sum(dtype=wide)
                uniform_part = (column_sum * (-label_smoothing / vocab_size)).to(dtype)  # of every row of grad_states
            chunk_bytes = _CHUNK_BYTES if device == "cpu" else _CHUNK_BYTES_OF_DEVICE
            chunk = max(1, chunk_bytes // (vocab_size * dtype.itemsize))
            buffer = states.new_empty((min(chunk, len(labels)), vocab_size))
            for start in range(0, len(labels), chunk):
                rows = slice(start, start + chunk)
                label_index = labels[rows].unsqueeze(-1)
                logits = torch.mm(states[rows], matrix.t(), out=buffer[: len(label_index)])
                if bias is not None:
                    logits += bias.to(dtype)
                label_logits = logits.gather(-1, label_index).to(wide)
                if wants_gradient:
                    log_normalizer = _subtract_label_from_softmax_(logits, label_index, 1.0 - label_smoothing, wide)
                else:
                    log_normalizer = logits.to(wide).logsumexp(dim=-1, keepdim=True)
                if kept is None:
                    log_normalizer, label_logits = (
                        numbers.masked_fill(ignored[rows].unsqueeze(-1), 0.0)
                        for numbers in (log_normalizer, label_logits)
                    )
                chunk_nll = (log_normalizer - label_logits).sum()
                nll += chunk_nll
                loss += (1.0 - label_smoothing) * chunk_nll
                if label_smoothing:
                    logits_sum = states[rows].to(wide).sum(dim=0) @ column_sum
                    if bias_sum is not None:
                        logits_sum = logits_sum + (~ignored[rows]).sum() * bias_sum
                    loss += label_smoothing * (log_normalizer.sum() - logits_sum / vocab_size)
                if wants_gradient:
                    gradient = logits
                    if grad_bias is not None:
                        if kept is None:
                            gradient.masked_fill_(ignored[rows].unsqueeze(-1), 0.0)
                        grad_bias += gradient.sum(dim=0, dtype=wide)
                    if label_smoothing:  # added before the product is rounded
                        torch.addmm(uniform_part, gradient, matrix, out=grad_states[rows])
                    else:
                        torch.mm(gradient, matrix, out=grad_states[rows])
                    if dtype == wide:
                        grad_weight.addmm_(gradient.t(), states[rows])
                    else:
                        grad_weight += gradient.t() @ states[rows]
            if wants_gradient and label_smoothing:
                share = label_smoothing / vocab_size
                grad_weight -= share * states.to(wide).sum(dim=0)
                if grad_bias is not None:
                    grad_bias -= share * tokens
            if wants_gradient:
                if kept is None:
                    grad_states.masked_fill_(ignored.unsqueeze(-1), 0.0)
                ctx.save_for_backward(grad_states, kept, grad_weight, grad_bias)
                ctx.like = (hidden.shape, hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, kept, grad_weight, grad_bias = ctx.saved_tensors
        shape, hidden_dtype, weight_dtype, bias_dtype = ctx.like
        grad_hidden = None
        if ctx.needs_input_grad[0]:
            grad_hidden = grad_states.mul(grad_loss.to(grad_states.dtype)).to(hidden_dtype)
            if kept is not None:
                grad_hidden = grad_hidden.new_zeros(shape).index_copy_(0, kept, grad_hidden)
        weight_out = grad_weight.mul(grad_loss).to(weight_dtype) if ctx.needs_input_grad[1] else None
        bias_out = grad_bias.mul(grad_loss).to(bias_dtype) if ctx.needs_input_grad[2] else None
        return grad_hidden, weight_out, bias_out, None, None


def _subtract_label_from_softmax_(logits: Tensor, label_index: Tensor, share: float, wide: torch.dtype) -> Tensor:
    """Overwrite logits with softmax(logits) − share · onehot(label), computed in ``wide`` and rounded once.

    Rounding the softmax first would be wrong where a label is nearly certain: bf16 keeps 8 bits of a probability near
    1, and the difference that is left may be smaller than what those lose.

    Args:
        logits: (N, V), any floating dtype.
        label_index: (N, 1).
        share: 1 − ε, the target's weight on the label.
        wide: fp32, or fp64 for logits of that dtype.

    Returns:
        The logarithm of each row's normalizer (N, 1), in ``wide``.
    """
    on_cpu = logits.device.type == "cpu"
    rows = max(1, _WIDE_ELEMENTS // logits.shape[-1]) if on_cpu and logits.dtype != wide else len(logits)
    log_normalizers = []
    for part, labels in zip(logits.split(rows), label_index.split(rows), strict=True):
        exact = part.to(wide)  # the part itself where that is its dtype
        highest = exact.amax(dim=-1, keepdim=True)
        torch.softmax(exact, dim=-1, out=exact)
        # The likeliest word's probability is at least 1/V, so that its logarithm is safe.
        log_normalizers.append(highest - exact.amax(dim=-1, keepdim=True).log())
        exact.scatter_add_(-1, labels, exact.new_full(labels.shape, -share))
        if exact.data_ptr() != part.data_ptr():
            part.copy_(exact)
    return torch.cat(log_normalizers)


__all__ = ["IGNORE_INDEX", "linear_cross_entropy", "token_cross_entropy", "on_accelerator"]
