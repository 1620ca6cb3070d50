# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read the JSON files of a checkpoint, whoever wrote them."""

import json
from pathlib import Path
from typing import Any

_MAX_BYTES = 256 * 2**20  # a trainer state with its log of a million entries


def read_json_object(path: Path, max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        max_bytes: longer files are refused unread.

    Raises:
        ValueError: If the file isn't one; the message names it.
    """
    if path.stat().st_size > max_bytes:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, more than such a file ever has")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not valid JSON ({reason}); was saving it interrupted?") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


__all__ = ["read_json_object"]
