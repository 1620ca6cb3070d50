# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""R-Drop (Liang et al. 2021): each batch goes through the model twice, and the two predictions shall agree.

The two passes differ in their dropout masks. The loss of the model adds the divergence between their predictions
(``r_drop`` in loss_vanilla_transformer.py), so that the model without dropout, which is used after the training, is
close to the models that were trained. It is a departure from the paper, and off unless ``r_drop`` is set.
"""

from typing import Any

import torch
from torch import Tensor


def doubled(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch that contains each example twice: all of them, then all of them again."""
    return {
        name: torch.cat([value, value]) if isinstance(value, Tensor) and value.ndim else value
        for name, value in inputs.items()
    }


__all__ = ["doubled"]
