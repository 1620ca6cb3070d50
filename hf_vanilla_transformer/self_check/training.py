# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check training: gradient accumulation and dropout."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.loss_vanilla_transformer import IGNORE_INDEX
from .check import Check
from .comparison import require_close, require_same_tokens
from .search import search
from .small_model import MAX_TOKENS, SOURCES, TARGETS, pad, small_model


def loss_and_gradients(model: Any, *micro_batches: Sequence[int], **options: Any) -> dict[str, Tensor]:
    """Train on sentences in one or several batches; return the sum of the losses, and the gradients by name."""
    device, total = model.device, 0.0
    model.zero_grad()
    source, mask = pad(SOURCES, device, left=True)
    labels, _ = pad(TARGETS, device, value=IGNORE_INDEX)
    for rows in map(list, micro_batches):
        loss = model(source[rows], mask[rows], labels=labels[rows], label_smoothing=0.1, **options).loss
        loss.backward()
        total = total + loss.detach()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": total, **gradients}


def accumulation(device: torch.device) -> None:
    """Compare gradients accumulated over micro-batches with those of one batch."""
    model = small_model(device)
    whole = loss_and_gradients(model, range(4))
    tokens = torch.tensor(sum(map(len, TARGETS)), device=device)
    for training in (False, True):  # evaluation mode uses the plain loss, training mode the loss in chunks
        parts = loss_and_gradients(model.train(training), [0, 1], [2], [3], num_items_in_batch=tokens)
        for name, expected in whole.items():
            require_close(f"{name} in {'training' if training else 'evaluation'} mode", parts[name], expected)


def dropout(device: torch.device) -> None:
    """Compare training runs with equal and different seeds, and evaluation mode with a model without dropout."""
    model = small_model(device, dropout=0.3)
    without = loss_and_gradients(small_model(device), range(4))
    for name, value in loss_and_gradients(model, range(4)).items():
        require_close(f"{name} in evaluation mode, against a model without dropout", value, without[name])
    model.train()
    found = []
    for seed in (1, 1, 2):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        found.append(loss_and_gradients(model, range(4)))
    first, again, other = found
    for name, expected in first.items():
        require_close(f"{name} with the same seed", again[name], expected)
    if torch.equal(first["loss"], other["loss"]):
        raise AssertionError("training with two seeds gives the same loss; nothing is dropped")
    source, mask = pad(SOURCES, device)
    config = BeamSearchConfig(num_beams=2, max_target_tokens=MAX_TOKENS)
    searched = search(model, source, mask, config).sequences
    expected = search(model.eval(), source, mask, config).sequences
    require_same_tokens("the beam search with a model in training mode", searched, expected)


CHECKS = (
    Check(
        "accumulation",
        "Micro-batches with num_items_in_batch have the loss and gradients of one batch, training or not",
        accumulation,
    ),
    Check(
        "dropout",
        "Dropout is reproducible with a seed in training mode, and off in evaluation mode",
        dropout,
        library="torch",
    ),
)

__all__ = ["CHECKS", "loss_and_gradients"]
