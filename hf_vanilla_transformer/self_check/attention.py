# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check attention: masks, and every attention implementation."""

import itertools

import torch

from .check import Check
from .comparison import require_close
from .small_model import DECODER_INPUTS, PAD, SOURCES, logits_of, pad, small_model
from .training import loss_and_gradients


@torch.no_grad()
def padding(device: torch.device) -> None:
    """Compare the logits of padded batches with those of single sentences."""
    model = small_model(device)
    target, _ = pad(DECODER_INPUTS, device)
    alone = [
        logits_of(model, *pad([source], device), pad([inputs], device)[0])[0]
        for source, inputs in zip(SOURCES, DECODER_INPUTS, strict=True)
    ]
    for side, value in itertools.product(("left", "right"), (PAD, 5)):
        # With a mask, the mask alone decides what is padding: a masked position may contain the id of a word.
        source, mask = pad(SOURCES, device, left=side == "left", value=value)
        for given in (mask, None) if value == PAD else (mask,):
            logits = logits_of(model, source, given, target)
            for row, expected in enumerate(alone):
                what = f"sentence {row} in a batch padded on the {side} {'without' if given is None else 'with'} a mask"
                require_close(what, logits[row, : len(expected)], expected)


def attention_implementations(device: torch.device) -> None:
    """Compare loss and gradients of the attention implementations "eager" and "sdpa"."""
    found = {}
    for implementation in ("eager", "sdpa"):
        model = small_model(device)
        model.set_attn_implementation(implementation)
        found[implementation] = loss_and_gradients(model, range(len(SOURCES)))
    for name, expected in found["eager"].items():
        require_close(name, found["sdpa"][name], expected)


CHECKS = (
    Check("padding", "Padding on either side and other sentences of the batch do not change logits", padding),
    Check(
        "attention_implementations",
        "Eager attention and torch's fused attention (sdpa) agree, gradients included",
        attention_implementations,
        library="torch",
        workaround='load models with attn_implementation="eager"',
        all_threads=True,
    ),
)

__all__ = ["CHECKS"]
