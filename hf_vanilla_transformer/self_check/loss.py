# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check the loss and its gradients in every precision against fp64."""

# Shapes: N tokens · D d_model · V vocabulary

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..model import loss_vanilla_transformer as losses
from .check import Check, Skipped
from .comparison import require_within
from .small_model import SEED

_PRECISIONS = {  # name -> dtype of the tensors, dtype of autocast
    "fp64": (torch.float64, None),
    "fp32": (torch.float32, None),
    "bf16 autocast": (torch.float32, torch.bfloat16),
    "bf16": (torch.bfloat16, None),
    "fp16": (torch.float16, None),
}
# Label logit and label smoothing: an untrained model, and trained models whose labels have probabilities of about 0.92
# and 0.995. In those, probability minus target is a small difference of large numbers.
_CASES = ((0.0, 0.1), (9.5, 0.1), (13.0, 0.0))
_INPUTS = ("hidden", "weight", "bias")
_Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]  # of _INPUTS, labels, smoothing


def loss(device: torch.device, precision: str) -> None:
    """Compare both losses of the package, and their gradients, with fp64.

    The error of a gradient may be twice the error of torch's own cross-entropy on logits of this precision, computed in
    fp32 from there on, plus the bound of `_rounding`.
    """
    dtype, autocast = _PRECISIONS[precision]
    low = autocast or dtype
    _require_dtype(device, low)
    for label_logit, smoothing in _CASES:
        inputs, labels = _loss_inputs(label_logit, low)
        exact = _with_gradients(_torch_loss, inputs, labels, smoothing)
        losses_to_check: dict[str, _Loss] = {
            "torch": _torch_loss,
            "token_cross_entropy": _plain_loss,
            "linear_cross_entropy": losses.linear_cross_entropy,
        }
        tensors = [tensor.to(device, dtype) for tensor in inputs]
        with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            found = {
                name: _with_gradients(function, tensors, labels.to(device), smoothing)
                for name, function in losses_to_check.items()
            }
        torchs = found.pop("torch")
        bounds = _rounding(inputs, labels, smoothing, low)
        for name, values in found.items():
            _compare(f"{name}, label logit {label_logit:g}, smoothing {smoothing:g}", values, exact, torchs, bounds)


def _compare(
    where: str,
    values: dict[str, Tensor],
    exact: dict[str, Tensor],
    torchs: dict[str, Tensor],
    bounds: tuple[float, float, float],
) -> None:
    loss_bound, nll_bound, gradient_bound = bounds
    for what, bound in (("loss", loss_bound), ("nll", nll_bound)):
        require_within(f"{where}: the error of the {what}", (values[what] - exact[what]).abs().item(), bound)
    for what in _INPUTS:
        error, torchs_error = (
            ((result[what] - exact[what]).norm() / exact[what].norm()).item() for result in (values, torchs)
        )
        bound = 2 * torchs_error + gradient_bound
        require_within(f"{where}: the relative error of the gradient of {what}", error, bound)


def _loss_inputs(label_logit: float, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Return hidden states (N, D), weight (V, D) and bias (V,) in fp64, and labels (N,).

    Args:
        label_logit: approximate logit of every label, before the bias; 0 selects random hidden states.
        dtype: the values are rounded to it, so that they are the same in every precision that is compared.
    """
    tokens, width, vocabulary = 64, 64, 512
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.randn(vocabulary, width, generator=generator)
    bias = 0.1 * torch.randn(vocabulary, generator=generator)
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    hidden = torch.randn(tokens, width, generator=generator) / width**0.5
    if label_logit:
        hidden = label_logit * weight[labels] / weight[labels].square().sum(dim=-1, keepdim=True)
    labels[::9] = losses.IGNORE_INDEX
    return [tensor.to(dtype).double() for tensor in (hidden, weight, bias)], labels


def _torch_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return torch's cross-entropy, summed over tokens in fp32 or wider: with label smoothing, and without."""
    logits = functional.linear(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    cross_entropy = partial(functional.cross_entropy, logits, labels, ignore_index=losses.IGNORE_INDEX, reduction="sum")
    return cross_entropy(label_smoothing=smoothing), cross_entropy().detach()


def _plain_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    return losses.token_cross_entropy(functional.linear(hidden, weight, bias), labels, smoothing)


def _with_gradients(function: _Loss, inputs: Sequence[Tensor], labels: Tensor, smoothing: float) -> dict[str, Tensor]:
    """Return loss, nll and the gradients of the inputs, in fp64 on the CPU."""
    hidden, weight, bias = (tensor.clone().requires_grad_() for tensor in inputs)
    value, nll = function(hidden, weight, bias, labels, smoothing)
    value.backward()
    found: dict[str, Any] = {"loss": value, "nll": nll}
    found |= {"hidden": hidden.grad, "weight": weight.grad, "bias": bias.grad}
    return {name: tensor.detach().cpu().double() for name, tensor in found.items() if tensor is not None}


def _rounding(
    inputs: Sequence[Tensor], labels: Tensor, smoothing: float, dtype: torch.dtype
) -> tuple[float, float, float]:
    """Return the largest rounding errors of the loss, of the nll, and of gradients relative to their norm.

    A logit may be off by one unit of its dtype per unit of |h|·|w|, and the loss then by that times |P − target|. After
    the logits everything is fp32 or wider: the logit of a label and logsumexp are off by one unit per unit of the
    largest logit, here and in the reference, and P is off by as much, however small P − target is. Gradients are
    rounded once more when they are stored, and are sums of up to V products, whose errors grow with the root of their
    number.
    """
    hidden, weight, bias = inputs
    low, wide = torch.finfo(dtype).eps, torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    real = labels != losses.IGNORE_INDEX
    size = functional.linear(hidden.abs(), weight.abs(), bias.abs())[real]
    probabilities = functional.linear(hidden, weight, bias)[real].softmax(dim=-1)
    hard = functional.one_hot(labels[real], len(weight)).double()
    soft = (1 - smoothing) * hard + smoothing / len(weight)
    largest = size.amax(dim=-1)
    loss_bound, nll_bound = (
        (low * ((probabilities - target).abs() * size).sum() + wide * largest.sum()).item() for target in (soft, hard)
    )
    cancellation = probabilities.norm() / (probabilities - soft).norm()
    return loss_bound, nll_bound, (low + wide * (len(weight) ** 0.5 + 4 * largest.max() * cancellation)).item()


def _require_dtype(device: torch.device, dtype: torch.dtype) -> None:
    try:
        (torch.ones(2, 2, dtype=dtype, device=device) @ torch.ones(2, 2, dtype=dtype, device=device)).cpu()
    except (RuntimeError, TypeError) as error:
        raise Skipped(f"torch has no matrix products in {dtype} on {device}: {error}") from error


CHECKS = tuple(
    Check(
        f"loss_{name.replace(' ', '_')}",
        f"The loss in chunks equals the plain loss, gradients included, in {name}",
        partial(loss, precision=name),
        library="torch",
        workaround="train with precision: fp32" if "16" in name else "",
        all_threads=True,
    )
    for name in _PRECISIONS
)

__all__ = ["CHECKS"]
