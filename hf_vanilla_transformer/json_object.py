# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read a JSON file of a checkpoint safely; it may be damaged or untrusted."""

import json
from pathlib import Path
from typing import Any

_MAX_BYTES = 256 * 2**20  # a trainer state with a million log entries


def read_json_object(path: Path, max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        max_bytes: longer files are rejected before they are read.

    Raises:
        ValueError: If the file contains no JSON object or is too long; the message names it.
    """
    if (size := path.stat().st_size) > max_bytes:
        raise ValueError(f"{path} has {size:,} bytes, more than the limit of {max_bytes:,} for such a file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not valid JSON ({reason}); was saving it interrupted?") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


__all__ = ["read_json_object"]
