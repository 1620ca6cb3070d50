# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The fields that the configurations of Marian and FSMT, both made after BART's, have under the same names."""

from typing import Any

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig

_ALIKE = (
    "d_model encoder_layers decoder_layers dropout attention_dropout activation_dropout activation_function "
    "max_position_embeddings scale_embedding pad_token_id bos_token_id eos_token_id decoder_start_token_id"
).split()
_BY_STACK = {"d_ff": "ffn_dim", "num_heads": "attention_heads"}  # one for both stacks here, one for each there


def our_fields(theirs: Any) -> dict[str, Any]:
    """Read a Marian or FSMT configuration; that its stacks are of one size is the caller's to check."""
    fields = {name: getattr(theirs, name) for name in _ALIKE}
    return {**fields, **{ours: getattr(theirs, f"encoder_{name}") for ours, name in _BY_STACK.items()}}


def their_fields(config: VanillaTransformerConfig) -> dict[str, Any]:
    """Say the same to a Marian or FSMT configuration."""
    fields = {name: getattr(config, name) for name in _ALIKE}
    for ours, name in _BY_STACK.items():
        fields |= {f"{stack}_{name}": getattr(config, ours) for stack in ("encoder", "decoder")}
    return fields


__all__ = ["our_fields", "their_fields"]
