# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Report everything that prevents a conversion in one error."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from .key_map import check_complete


def raise_problems(subject: object, direction: str, problems: list[str]) -> None:
    """Raise an error if there are problems.

    Args:
        subject: what was to be converted, e.g. a path.
        direction: from or to which format, e.g. "from FSMT".
        problems: a clause each.

    Raises:
        ValueError: With all of them in one sentence.
    """
    if problems:
        raise ValueError(f"{subject} can't be converted {direction}: {'; '.join(problems)}")


def build_config(subject: object, direction: str, fields: Mapping[str, Any]) -> VanillaTransformerConfig:
    """Build the configuration of a converted model.

    Raises:
        ValueError: If a field is invalid.
    """
    try:
        return VanillaTransformerConfig(**fields)
    except ValueError as error:
        raise ValueError(f"{subject} can't be converted {direction}: {error}") from error


def require_complete(
    subject: object, direction: str, tensors: Mapping[str, Tensor], config: VanillaTransformerConfig
) -> None:
    """Check that tensors under our names are exactly those of a model.

    Raises:
        ValueError: If there are missing or surplus tensors or wrong shapes.
    """
    problems: list[str] = []
    check_complete(tensors, config, problems)
    raise_problems(subject, direction, problems)


def require_values(
    config: VanillaTransformerConfig, target: str, values: Mapping[str, Any], problems: list[str]
) -> None:
    """Append a clause for each configuration field that another format fixes to a different value.

    Args:
        config: of the checkpoint to convert.
        target: name of the format.
        values: the fixed values by name.
        problems: the list to append to.
    """
    for name, value in values.items():
        if getattr(config, name) != value:
            problems.append(f"{name} is {getattr(config, name)!r}, but {target} requires {value!r}")


__all__ = ["build_config", "raise_problems", "require_complete", "require_values"]
