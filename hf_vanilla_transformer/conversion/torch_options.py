# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Options that describe the state dict of a model that wraps torch.nn.Transformer."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TorchOptions:
    """What a state dict of a model around torch.nn.Transformer does not record.

    Attributes:
        num_heads: ``nhead`` of the model; no tensor's shape shows it.
        embedding: name of the source embedding, and of the target embedding unless ``target_embedding`` is given.
        target_embedding: name of the target embedding, if it is a separate matrix.
        generator: name of the output projection, without ".weight" or ".bias"; None if the target embedding is reused.
        prefix: part of the names before "encoder.layers…".
        ignore: names of tensors to drop, such as a stored table of sinusoids, separated by commas.
        norm_first: as in the model; False normalizes after each sub-layer, as the paper does.
        activation: "relu" or "gelu", as in the model.
        layer_norm_eps: as in the model; torch's default is 1e-5.
        dropout: probability, for further training; torch's default is 0.1.
        scale_embedding: whether embeddings are multiplied by √d_model before positions are added.
        position_embedding_type: "sinusoidal" (the paper's and most tutorials'), "sinusoidal_t2t" or "learned".
        positions: name of the learned position table, and of the target's unless ``target_positions`` is given.
        target_positions: name of the target's position table, if it is a separate matrix.
        position_offset: index of the first position.
        pad_token_id, bos_token_id, eos_token_id, unk_token_id: special ids of the vocabulary; -1 if there is none.
        decoder_start_token_id: first decoder input; None takes ``bos_token_id``.
    """

    num_heads: int = 8
    embedding: str = "embedding.weight"
    target_embedding: str | None = None
    generator: str | None = None
    prefix: str = ""
    ignore: str = ""
    norm_first: bool = False
    activation: str = "relu"
    layer_norm_eps: float = 1e-5
    dropout: float = 0.1
    scale_embedding: bool = True
    position_embedding_type: str = "sinusoidal"
    positions: str | None = None
    target_positions: str | None = None
    position_offset: int = 0
    pad_token_id: int = 0
    bos_token_id: int = 1
    eos_token_id: int = 2
    unk_token_id: int = 3
    decoder_start_token_id: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "TorchOptions":
        """Build options from names and values; values may be strings, as on a command line.

        Raises:
            ValueError: If a name is unknown or a value has the wrong type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(f"there is no option {', '.join(unknown)}; the options are: {', '.join(fields)}")
        if "num_heads" not in values:
            raise ValueError("a state dict does not contain num_heads; give it as an option, e.g. num_heads=8")
        return cls(**{name: _parse(name, value, fields[name].type) for name, value in values.items()})

    @property
    def ignored(self) -> list[str]:
        """Names in ``ignore``."""
        return [name.strip() for name in self.ignore.split(",") if name.strip()]

    @property
    def token_ids(self) -> dict[str, int | None]:
        """Special ids by field of our configuration."""
        start = self.bos_token_id if self.decoder_start_token_id is None else self.decoder_start_token_id
        ids = {
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "unk_token_id": self.unk_token_id,
            "decoder_start_token_id": start,
        }
        return {name: None if token_id == -1 else token_id for name, token_id in ids.items()}


def _parse(name: str, value: Any, kind: Any) -> Any:
    """Convert a string to the type of the field, and check other values."""
    if isinstance(value, str) and kind is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{name}={value!r} is not a boolean; choose true or false")
        return value.lower() == "true"
    number = int if kind in (int, int | None) else float if kind is float else None
    if number is not None and value is not None:
        if isinstance(value, bool):
            raise ValueError(f"{name}={value!r} is not a number")
        try:
            return number(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}={value!r} is not a number") from error
    if number is None and not isinstance(value, bool if kind is bool else str) and value is not None:
        raise ValueError(f"{name}={value!r} is not {'a boolean' if kind is bool else 'a name'}")
    return value


__all__ = ["TorchOptions"]
