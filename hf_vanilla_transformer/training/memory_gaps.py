# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Return memory between blocks in use to the operating system during a training on a CPU.

Batches of many shapes leave gaps between the blocks that are in use. With every update there are more of them, so that
they are returned at each evaluation and checkpoint.
"""

from typing import Any

from transformers import TrainerCallback

from ..freed_memory import return_gaps


class GapsReturned(TrainerCallback):
    """Returns memory between blocks in use after an evaluation or a checkpoint; see `return_gaps`."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Return the gaps."""
        return_gaps(args.device)

    on_save = on_evaluate


__all__ = ["GapsReturned"]
