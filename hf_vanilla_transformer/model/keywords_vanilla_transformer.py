# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The keywords that `forward` accepts through ``**kwargs``, and the check that rejects all others."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from transformers.modeling_flash_attention_utils import FlashAttentionKwargs
from transformers.utils import TransformersKwargs


class LossKwargs(TransformersKwargs, total=False):
    """Keywords of the loss.

    They are not parameters of `forward`, because Trainer takes every parameter with "label" in its name for a column of
    labels, and reports no evaluation loss if a batch doesn't have that column.
    """

    label_smoothing: float
    r_drop: float
    return_logits: bool


_KNOWN_KEYWORDS = frozenset(
    {
        *TransformersKwargs.__annotations__,
        *FlashAttentionKwargs.__annotations__,
        *LossKwargs.__annotations__,
        "return_dict",  # read by `can_return_tuple` of the outermost call
        "shift_labels",  # passed by Trainer under context parallelism, where Trainer shifts the labels
        "debug_io",  # these three are read by `merge_with_config_defaults`, for transformers' model_debugging_utils
        "debug_io_dir",
        "prune_layers",
    }
)


def check_keywords(forward: Callable, keywords: Mapping[str, Any]) -> None:
    """Check that a `forward` method or its callees read each of the keywords; a value of None is always accepted.

    Raises:
        ValueError: If a keyword is unknown. The message lists all unknown keywords, each with the closest known one.
    """
    unknown = [name for name, value in keywords.items() if name not in _KNOWN_KEYWORDS and value is not None]
    if not unknown:
        return
    known = {*inspect.signature(forward).parameters, *_KNOWN_KEYWORDS} - {"self", "kwargs"}
    closest = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    listed = [f"{name!r}" + (f" (did you mean {found[0]!r}?)" if found else "") for name, found in closest.items()]
    raise ValueError(
        f"forward() has no argument {', '.join(listed)}; leave it out, or remove that column from the batch"
    )


__all__ = ["LossKwargs", "check_keywords"]
