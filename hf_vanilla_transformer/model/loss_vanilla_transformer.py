# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loss: token cross-entropy with label smoothing (§5.4), and the negative log-likelihood.

There are two implementations of the same loss. `token_cross_entropy` takes the logits. `linear_cross_entropy` takes the
hidden states and the output projection, and computes logits and gradients of one chunk of tokens at a time, so that the
(tokens × vocabulary) logits are never stored. Both can add the divergence of R-Drop (Liang et al. 2021), a departure
from the paper: a batch that contains each example twice has two predictions for each token, which differ in their
dropout and shall agree.
"""

# Shapes: N tokens of the batch · D d_model · V vocabulary

import dataclasses
from typing import Any

import torch
from torch import Tensor

IGNORE_INDEX = -100  # label of positions that the loss ignores
_CHUNK_BYTES = 16 * 2**20  # size of a chunk's logits on the CPU: large enough for efficient matrix products
# The same on a GPU. Each chunk reads and writes the weight's gradient, 12 bytes per weight: 3.6 ps at 3.3 TB/s. Its
# three products take 6 operations per row and weight, 8.6 fs at 700 TFLOP/s: both take equally long at 420 rows, and
# the products take ten times as long at 4,200 rows.
_CHUNK_BYTES_ON_ACCELERATOR = 256 * 2**20
_UPCAST_ELEMENTS = 2**19  # logits converted to fp32 at a time on the CPU: 2 MiB, which fits into the processor's cache
_ADDED_ELEMENTS = 2**20  # of the weight's gradient that are added at a time on the CPU


def on_accelerator(tensor: Tensor) -> bool:
    """Return whether a tensor is on a device that computes asynchronously, where reading its values synchronizes."""
    return tensor.device.type != "cpu"


def token_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    r_drop: float = 0.0,
    num_items: int | Tensor = 1,
) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy of all labels that are not ignored, and divide the sum by ``num_items``.

    The smoothed target distribution is 1 − ε on the label plus ε/V on each of the V tokens, label included (§5.4).

    Args:
        logits: (…, V), any floating dtype; computed in fp32, or in fp64 if the logits are.
        labels: (…), integers; −100 is ignored.
        label_smoothing: ε in [0, 1).
        r_drop: α of R-Drop; not 0 needs a batch whose second half has the examples of the first. α times the mean of
            KL(P‖Q) and KL(Q‖P) is added for each label of the first half, where P and Q are its two predictions.
        num_items: at least 1, or a scalar tensor.

    Returns:
        The smoothed loss, and the negative log-likelihood, which has no gradient; both in nats, and 0 if all labels are
        ignored.
    """
    logits = logits.flatten(0, -2)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    labels = labels.flatten()
    real = labels != IGNORE_INDEX
    log_normalizer = logits.logsumexp(dim=-1)
    label_logits = logits.gather(-1, labels.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)
    nll = (log_normalizer - label_logits).masked_fill(~real, 0.0).sum()
    loss = nll
    if label_smoothing:
        uniform = (log_normalizer - logits.mean(dim=-1)).masked_fill(~real, 0.0).sum()
        loss = (1.0 - label_smoothing) * nll + label_smoothing * uniform
    if r_drop:
        _check_pairs(labels)
        first, second = (logits - log_normalizer.unsqueeze(-1)).chunk(2)
        # KL(P‖Q) + KL(Q‖P) = Σ (P − Q) (log P − log Q)
        both = ((first.exp() - second.exp()) * (first - second)).sum(dim=-1)
        loss = loss + r_drop / 2 * both.masked_fill(~real[: len(both)], 0.0).sum()
    return loss / num_items, nll.detach() / num_items


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    label_smoothing: float = 0.0,
    r_drop: float = 0.0,
    num_items: int | Tensor = 1,
) -> tuple[Tensor, Tensor]:
    """Compute `token_cross_entropy(hidden @ weight.T + bias, labels, …)` without storing the logits.

    Args:
        hidden: (…, D), the decoder's output.
        weight: (V, D), the output projection.
        bias: (V,) or None.
        labels: (…), integers; −100 is ignored.
        label_smoothing: ε in [0, 1).
        r_drop: α of R-Drop; not 0 needs a batch whose second half has the examples of the first.
        num_items: at least 1, or a scalar tensor; what the sums are divided by. Backward from the loss itself then
            needs no copy of the gradients on the CPU.

    Returns:
        The same as `token_cross_entropy`. The loss has no second derivative.
    """
    hidden, labels = hidden.flatten(0, -2), labels.flatten()
    if r_drop:
        _check_pairs(labels)
        # The two predictions of a token become neighbours, so that a chunk has both.
        hidden, labels = (torch.stack(values.chunk(2), dim=1).flatten(0, 1) for values in (hidden, labels))
    return _ChunkedLinearCrossEntropy.apply(hidden, weight, bias, labels, label_smoothing, r_drop, num_items)


def _check_pairs(labels: Tensor) -> None:
    """Raise ValueError unless there can be two predictions of each label."""
    if len(labels) % 2:
        raise ValueError(
            f"r_drop compares two predictions for each label, and the batch has {len(labels)} labels; let its second "
            "half repeat the examples of its first"
        )


@dataclasses.dataclass
class _Tokens:
    """The tokens that the chunked loss goes over.

    Attributes:
        states: (N, D) hidden states, in the dtype of the matrix products.
        labels: (N,).
        ignored: (N,) True where the label is ignored.
        kept: (N,) index of each token in the batch; None if ignored tokens were not removed. Those have states of 0.
    """

    states: Tensor
    labels: Tensor
    ignored: Tensor
    kept: Tensor | None

    @classmethod
    def select(cls, hidden: Tensor, labels: Tensor, dtype: torch.dtype) -> "_Tokens":
        """Remove the ignored tokens; on an accelerator set them to 0, because their number is unknown to the host."""
        ignored = labels == IGNORE_INDEX
        if on_accelerator(labels):
            states = hidden.masked_fill(ignored.unsqueeze(-1), 0.0).to(dtype)
            return cls(states, labels.masked_fill(ignored, 0), ignored, kept=None)
        kept = (~ignored).nonzero().squeeze(-1)
        return cls(hidden[kept].to(dtype), labels[kept], ignored[kept], kept)


class _Gradients:
    """The gradients of states, weight and bias, computed chunk by chunk."""

    def __init__(self, tokens: _Tokens, weight: Tensor, bias: Tensor | None, wide: torch.dtype) -> None:
        self.tokens = tokens
        self.states = torch.empty_like(tokens.states)
        # The first chunk overwrites it; a batch without labels has no chunk.
        self.weight = (torch.empty_like if len(tokens.labels) else torch.zeros_like)(weight, dtype=wide)
        self.bias = torch.zeros_like(bias, dtype=wide) if bias is not None else None

    def add(self, rows: slice, gradient: Tensor, matrix: Tensor, uniform: Tensor | None) -> None:
        """Add a chunk's gradient.

        Args:
            rows: the chunk's tokens.
            gradient: (rows, V) with respect to the chunk's logits, without the uniform part of the target; changed.
            matrix: (V, D) the weight in the dtype of the products.
            uniform: (D,) the uniform part of the target in each row of the states' gradient.
        """
        states, wide = self.tokens.states[rows], self.weight.dtype
        if self.bias is not None:
            if self.tokens.kept is None:
                gradient.masked_fill_(self.tokens.ignored[rows].unsqueeze(-1), 0.0)
            self.bias += gradient.sum(dim=0, dtype=wide)
        if uniform is not None:  # added before the product is rounded
            torch.addmm(uniform, gradient, matrix, out=self.states[rows])
        else:
            torch.mm(gradient, matrix, out=self.states[rows])
        first = rows.start == 0
        if states.dtype == wide:
            torch.addmm(self.weight, gradient.t(), states, beta=0 if first else 1, out=self.weight)
            return
        # On the CPU, torch adds bf16 to fp32 by a copy in fp32; one of a part of the weight stays in the cache.
        part = len(self.weight) if on_accelerator(states) else max(_ADDED_ELEMENTS // states.shape[1], 1)
        for start in range(0, len(self.weight), part):
            tokens = slice(start, start + part)
            product, total = gradient[:, tokens].t() @ states, self.weight[tokens]
            (total.copy_ if first else total.add_)(product)

    def finish(self, label_smoothing: float, num_items: int | Tensor) -> None:
        """Add the uniform part of the target to weight and bias, zero ignored states, and divide by ``num_items``."""
        tokens, wide = self.tokens, self.weight.dtype
        if label_smoothing:
            share = label_smoothing / len(self.weight)
            self.weight -= share * tokens.states.to(wide).sum(dim=0)
            if self.bias is not None:
                self.bias -= share * (~tokens.ignored).sum().to(wide)
        if tokens.kept is None:
            self.states.masked_fill_(tokens.ignored.unsqueeze(-1), 0.0)
        for gradient in (self.states, self.weight, self.bias):
            if gradient is not None:
                gradient /= num_items


class _ChunkedLinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a linear layer; the forward pass computes the gradients too, while it has a chunk's logits.

    ∂loss/∂logits = P − (1 − ε)·onehot(label) − ε/V, where P is the softmax. Softmax and onehot are the only operation
    on a chunk's logits in addition to the matrix products: ε/V is the same for all tokens of the vocabulary, so that
    its products are computed from the sum of the weight's rows. With R-Drop, rows 2i and 2i + 1 are the two predictions
    of a token.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        label_smoothing: float,
        r_drop: float,
        num_items: int | Tensor,
    ) -> tuple[Tensor, Tensor]:
        device, vocab_size = hidden.device.type, weight.shape[0]
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        with torch.autocast(device_type=device, enabled=False):
            tokens = _Tokens.select(hidden, labels, dtype)
            matrix = weight.to(dtype)
            loss = hidden.new_zeros((), dtype=wide)
            nll = hidden.new_zeros((), dtype=wide)
            gradients = _Gradients(tokens, weight, bias, wide) if any(ctx.needs_input_grad[:3]) else None
            uniform: Tensor | None = None
            if label_smoothing:  # Σ_v logits_v = h · Σ_v W_v + Σ_v b_v
                column_sum = weight.sum(dim=0, dtype=wide)
                bias_sum = None if bias is None else bias.sum(dtype=wide)
                uniform = (column_sum * (-label_smoothing / vocab_size)).to(dtype)
            chunk_bytes = _CHUNK_BYTES if device == "cpu" else _CHUNK_BYTES_ON_ACCELERATOR
            chunk = 2 * max(1, chunk_bytes // (2 * vocab_size * dtype.itemsize))  # even: pairs stay together
            buffer = tokens.states.new_empty((min(chunk, len(tokens.labels)), vocab_size))
            for start in range(0, len(tokens.labels), chunk):
                rows = slice(start, start + chunk)
                label_index = tokens.labels[rows].unsqueeze(-1)
                logits = torch.mm(tokens.states[rows], matrix.t(), out=buffer[: len(label_index)])
                if bias is not None:
                    logits += bias.to(dtype)
                label_logits = logits.gather(-1, label_index).to(wide)
                if r_drop:
                    log_normalizer, divergence = _to_gradient_of_pairs_(
                        logits, label_index, 1.0 - label_smoothing, r_drop, wide
                    )
                    loss += r_drop * divergence
                elif gradients is not None:
                    log_normalizer = _subtract_label_from_softmax_(logits, label_index, 1.0 - label_smoothing, wide)
                else:
                    log_normalizer = logits.to(wide).logsumexp(dim=-1, keepdim=True)
                if tokens.kept is None:
                    ignored = tokens.ignored[rows].unsqueeze(-1)
                    log_normalizer, label_logits = (
                        values.masked_fill(ignored, 0.0) for values in (log_normalizer, label_logits)
                    )
                chunk_nll = (log_normalizer - label_logits).sum()
                nll += chunk_nll
                loss += (1.0 - label_smoothing) * chunk_nll
                if label_smoothing:
                    logits_sum = tokens.states[rows].to(wide).sum(dim=0) @ column_sum
                    if bias_sum is not None:
                        logits_sum = logits_sum + (~tokens.ignored[rows]).sum() * bias_sum
                    loss += label_smoothing * (log_normalizer.sum() - logits_sum / vocab_size)
                if gradients is not None:
                    gradients.add(rows, logits, matrix, uniform)
            if gradients is not None:
                gradients.finish(label_smoothing, num_items)
                ctx.save_for_backward(gradients.states, tokens.kept, gradients.weight, gradients.bias)
                ctx.like = (hidden.shape, hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        loss, nll = loss / num_items, nll / num_items
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, kept, grad_weight, grad_bias = ctx.saved_tensors
        shape, hidden_dtype, weight_dtype, bias_dtype = ctx.like
        # What is saved may be returned: autograd copies it if it is still needed, and has freed it otherwise.
        unchanged = not on_accelerator(grad_loss) and bool(grad_loss == 1)

        def scaled(gradient: Tensor, dtype: torch.dtype) -> Tensor:
            return (gradient if unchanged else gradient * grad_loss.to(gradient.dtype)).to(dtype)

        grad_hidden = scaled(grad_states, hidden_dtype) if ctx.needs_input_grad[0] else None
        if grad_hidden is not None and kept is not None:
            grad_hidden = grad_hidden.new_zeros(shape).index_copy_(0, kept, grad_hidden)
        weight_out = scaled(grad_weight, weight_dtype) if ctx.needs_input_grad[1] else None
        bias_out = scaled(grad_bias, bias_dtype) if ctx.needs_input_grad[2] else None
        return grad_hidden, weight_out, bias_out, None, None, None, None


def _rows_in_cache(logits: Tensor) -> int:
    """Return how many rows of logits to compute in fp32 at a time, an even number: all of them on an accelerator."""
    return len(logits) if on_accelerator(logits) else 2 * max(1, _UPCAST_ELEMENTS // (2 * logits.shape[-1]))


def _log_normalizer(highest_logit: Tensor, probs: Tensor) -> Tensor:
    """Return the logarithm of each row's normalizer (N, 1) from its highest logit (N, 1) and its softmax (N, V)."""
    # The highest probability is at least 1/V, so that its logarithm is finite.
    return highest_logit - probs.amax(dim=-1, keepdim=True).log()


def _subtract_label_from_softmax_(logits: Tensor, label_index: Tensor, share: float, wide: torch.dtype) -> Tensor:
    """Replace logits by softmax(logits) − share · onehot(label), computed in ``wide`` and rounded once.

    Rounding the softmax before the subtraction would be inaccurate for labels of high probability: bf16 has 8 bits for
    a probability near 1, and the difference can be smaller than the rounding error.

    Args:
        logits: (N, V), any floating dtype.
        label_index: (N, 1).
        share: 1 − ε, the share of the target distribution that is on the label alone.
        wide: fp64 for fp64 logits, else fp32.

    Returns:
        The logarithm of each row's normalizer (N, 1), in ``wide``.
    """
    rows = _rows_in_cache(logits) if logits.dtype != wide else len(logits)
    log_normalizers = []
    for part, labels in zip(logits.split(rows), label_index.split(rows), strict=True):
        exact = part.to(wide)  # `part` itself if it has that dtype
        highest = exact.amax(dim=-1, keepdim=True)
        torch.softmax(exact, dim=-1, out=exact)
        log_normalizers.append(_log_normalizer(highest, exact))
        exact.scatter_add_(-1, labels, exact.new_full(labels.shape, -share))
        if exact.data_ptr() != part.data_ptr():
            part.copy_(exact)
    return torch.cat(log_normalizers)


def _to_gradient_of_pairs_(
    logits: Tensor, label_index: Tensor, share: float, r_drop: float, wide: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Replace logits by the gradient of cross-entropy and divergence, computed in ``wide`` and rounded once.

    P and Q are the rows 2i and 2i + 1. The gradient of α/2 · (KL(P‖Q) + KL(Q‖P)) with respect to the logits of P is
    α/2 · (P · (log P − log Q − KL(P‖Q) + 1) − Q), and likewise for Q. That of the cross-entropy is added; see
    `_subtract_label_from_softmax_`.

    Args:
        logits: (N, V), any floating dtype; N is even.
        label_index: (N, 1).
        share: 1 − ε.
        r_drop: α.
        wide: fp64 for fp64 logits, else fp32.

    Returns:
        The logarithm of each row's normalizer (N, 1), and the sum of (KL(P‖Q) + KL(Q‖P)) / 2, in ``wide``.
    """
    rows, half = _rows_in_cache(logits), r_drop / 2
    log_normalizers, total = [], logits.new_zeros((), dtype=wide)
    for part, labels in zip(logits.split(rows), label_index.split(rows), strict=True):
        exact = part.to(wide)
        probs = exact.softmax(dim=-1)
        log_normalizer = _log_normalizer(exact.amax(dim=-1, keepdim=True), probs)
        log_normalizers.append(log_normalizer)
        (x, y), (p, q), (normalizer_x, normalizer_y), (out_p, out_q) = (
            values.unflatten(0, (-1, 2)).unbind(1) for values in (exact, probs, log_normalizer, part)
        )
        log_ratio = (x - y).sub_(normalizer_x - normalizer_y)  # log P − log Q
        kl_p = torch.linalg.vecdot(p, log_ratio).unsqueeze(-1)
        kl_q = torch.linalg.vecdot(q, log_ratio).unsqueeze(-1).neg_()
        total += (kl_p + kl_q).sum() / 2
        log_ratio.mul_(half)
        label_share = p.new_full((len(p), 1), -share)
        gradient_p = (1 + half - half * kl_p + log_ratio).mul_(p).sub_(q, alpha=half)
        out_p.copy_(gradient_p.scatter_add_(-1, labels[::2], label_share))
        gradient_q = (1 + half - half * kl_q - log_ratio).mul_(q).sub_(p, alpha=half)
        out_q.copy_(gradient_q.scatter_add_(-1, labels[1::2], label_share))
    return torch.cat(log_normalizers), total


__all__ = ["IGNORE_INDEX", "linear_cross_entropy", "token_cross_entropy", "on_accelerator"]
