# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Named architectures: the rows of Table 3, including `base` and `big`, and two sizes for small datasets.

A preset is only an architecture. The rows of Table 3 that vary label smoothing or the number of steps are recipes.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .model.configuration_vanilla_transformer import VanillaTransformerConfig
from .model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration


@dataclass(frozen=True)
class Preset:
    """One architecture and its origin.

    Attributes:
        row: the row of Table 3, or the purpose of the architecture.
        fields: the configuration fields that differ from the base model.
        paper_parameters: the paper's number of parameters in millions; None if its cell is empty.
    """

    row: str
    fields: dict[str, Any] = field(default_factory=dict)
    paper_parameters: float | None = None


PRESETS: dict[str, Preset] = {
    "base": Preset("Table 3 base", {}, 65),
    "a-h1": Preset("Table 3 A, h=1", {"num_heads": 1}),
    "a-h4": Preset("Table 3 A, h=4", {"num_heads": 4}),
    "a-h16": Preset("Table 3 A, h=16", {"num_heads": 16}),
    "a-h32": Preset("Table 3 A, h=32", {"num_heads": 32}),
    "b-dk16": Preset("Table 3 B, d_k=16", {"d_k": 16}, 58),
    "b-dk32": Preset("Table 3 B, d_k=32", {"d_k": 32}, 60),
    "c-n2": Preset("Table 3 C, N=2", {"encoder_layers": 2, "decoder_layers": 2}, 36),
    "c-n4": Preset("Table 3 C, N=4", {"encoder_layers": 4, "decoder_layers": 4}, 50),
    "c-n8": Preset("Table 3 C, N=8", {"encoder_layers": 8, "decoder_layers": 8}, 80),
    "c-d256": Preset("Table 3 C, d_model=256", {"d_model": 256, "d_k": 32, "d_v": 32}, 28),
    "c-d1024": Preset("Table 3 C, d_model=1024", {"d_model": 1024, "d_k": 128, "d_v": 128}, 168),
    "c-ff1024": Preset("Table 3 C, d_ff=1024", {"d_ff": 1024}, 53),
    "c-ff4096": Preset("Table 3 C, d_ff=4096", {"d_ff": 4096}, 90),
    "d-drop0": Preset("Table 3 D, P_drop=0", {"dropout": 0.0}),
    "d-drop0.2": Preset("Table 3 D, P_drop=0.2", {"dropout": 0.2}),
    "e-learned": Preset("Table 3 E, learned positions", {"position_embedding_type": "learned"}),
    "big": Preset("Table 3 big", {"d_model": 1024, "d_ff": 4096, "num_heads": 16, "dropout": 0.3}, 213),
    "small": Preset(
        "for about 100,000 pairs",
        {"d_model": 256, "d_ff": 1024, "num_heads": 4, "dropout": 0.2},
    ),
    "tiny": Preset(
        "for about 30,000 pairs (Wu et al. 2021, Transformer-Tiny)",
        {"encoder_layers": 4, "decoder_layers": 4, "d_model": 128, "d_ff": 256, "num_heads": 4, "dropout": 0.3},
    ),
}


def preset(name: str, **fields: Any) -> VanillaTransformerConfig:
    """Return the configuration of a named architecture.

    Args:
        name: a key of `PRESETS`: "base", "big", "tiny", "small" or a row of Table 3.
        **fields: configuration fields to override, e.g. ``vocab_size``.

    Raises:
        ValueError: If there is no such preset, or a field is invalid.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return VanillaTransformerConfig(**{**PRESETS[name].fields, **fields})


def built_parameters(config: VanillaTransformerConfig) -> int:
    """Count the parameters of a model of this configuration, tied matrices once, without allocating it."""
    with torch.device("meta"):
        model = VanillaTransformerForConditionalGeneration(config)
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops_per_token(config: VanillaTransformerConfig, length: int = 32) -> float:
    """Count the floating-point operations of a forward pass per pair of one source and one target token.

    Args:
        config: the architecture.
        length: tokens of the source, and of the target; the share of attention grows with it.

    Returns:
        The operations of all matrix products (a multiply-add counts as two), divided by ``length``. Training needs
        about three times as many.
    """
    config = VanillaTransformerConfig.from_dict(config.to_dict(), attn_implementation="eager")
    with torch.device("meta"):
        model = VanillaTransformerForConditionalGeneration(config).eval()
        states = torch.empty(1, length, config.d_model)  # not ids: masks depend on their values
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs_embeds=states, decoder_inputs_embeds=states, use_cache=False)
    return counter.get_total_flops() / length


def presets_table() -> list[dict[str, Any]]:
    """Return the sizes of every preset, with the parameters and operations of its model and the paper's numbers.

    Returns:
        A dictionary per preset: name, row, sizes, ``parameters``, ``difference`` from base, ``flops`` per token
        (forward pass), and ``paper`` and ``paper_difference`` in parameters, None if the paper's cell is empty.
    """
    base = built_parameters(preset("base"))
    paper_base = PRESETS["base"].paper_parameters or 0
    table = []
    for name, entry in PRESETS.items():
        config = preset(name)
        parameters = built_parameters(config)
        paper = entry.paper_parameters
        table.append(
            {
                "name": name,
                "row": entry.row,
                "layers": config.encoder_layers,
                "d_model": config.d_model,
                "d_ff": config.d_ff,
                "heads": config.num_heads,
                "d_k": config.key_dim,
                "d_v": config.value_dim,
                "dropout": config.dropout,
                "parameters": parameters,
                "difference": parameters - base,
                "flops": forward_flops_per_token(config),
                "paper": None if paper is None else paper * 1e6,
                "paper_difference": None if paper is None else (paper - paper_base) * 1e6,
            }
        )
    return table
