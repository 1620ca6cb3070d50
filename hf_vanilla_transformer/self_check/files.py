# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check saving and loading."""

import tempfile
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from .check import Check
from .comparison import require_close, require_same
from .small_model import DECODER_INPUTS, SOURCES, logits_of, pad, small_model


def save_and_load(device: torch.device) -> None:
    """Compare a model with the same model, saved and loaded: configurations, weights bit by bit, ties and logits."""
    source, mask = pad(SOURCES, device, left=True)
    target, _ = pad(DECODER_INPUTS, device)
    for fields in ({"tie_word_embeddings": True}, {"output_bias": True}):
        model = small_model(device, **fields)
        model.generation_config.num_beams = 3
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            loaded, problems = AutoModelForSeq2SeqLM.from_pretrained(directory, output_loading_info=True)
            loaded = loaded.to(device)
        if any(problems.values()):
            raise AssertionError(f"loading reports { ({name: keys for name, keys in problems.items() if keys}) }")
        for name in ("config", "generation_config"):
            require_same(name, _settings(getattr(loaded, name)), _settings(getattr(model, name)))
        _require_same_weights(loaded, model)
        with torch.no_grad():
            logits = [logits_of(each, source, mask, target) for each in (loaded, model)]
        require_close("logits", *logits)


def _require_same_weights(loaded: nn.Module, model: nn.Module) -> None:
    expected = {**model.state_dict(), **dict(model.named_buffers())}
    found = {**loaded.state_dict(), **dict(loaded.named_buffers())}
    require_same("names of the weights", list(found), list(expected))
    for name, tensor in expected.items():
        if found[name].dtype != tensor.dtype or not torch.equal(found[name], tensor):
            raise AssertionError(f"{name} differs from what was saved")
    require_same("tied weights", _tied(loaded), _tied(model))


def _settings(config: Any) -> dict[str, Any]:
    """Return a configuration without what loading adds to it: its origin, and the version that wrote it."""
    added = ("_name_or_path", "_from_model_config", "_original_object_hash", "architectures", "dtype")
    return {name: value for name, value in config.to_dict().items() if name not in (*added, "transformers_version")}


def _tied(model: nn.Module) -> list[list[str]]:
    """Return the groups of names that share one parameter."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return sorted(names for names in groups.values() if len(names) > 1)


CHECKS = (
    Check(
        "save_and_load",
        "A model that is saved and loaded has the same configurations, weights (bit by bit) and logits",
        save_and_load,
    ),
)

__all__ = ["CHECKS"]
