# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention maps as a self-contained HTML page: it needs no network, no other file and no server.

The content security policy of the page allows only its own script and style, and no requests. Sentences are embedded as
JSON, and the script inserts them as text.
"""

import base64
import hashlib
import html
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .maps import KINDS, AttentionMaps

_TEMPLATE = Path(__file__).with_name("page.html")
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_STEPS = 255  # weights are stored in one byte each; the page shows whole percent
_TITLE = "Attention weights"


def attention_page(
    maps: AttentionMaps, title: str = _TITLE, *, kind: str = "cross", layer: int | None = None,
    head: int | None = None,
) -> str:  # fmt: skip
    """Return an interactive HTML page of attention maps.

    A reader selects a layer, a head and a token, and compares all heads of a layer, with mouse, touch or keyboard.

    Args:
        maps: the result of `attention_maps`.
        title: title and heading of the page.
        kind: kind of attention shown first: "encoder", "decoder" or "cross".
        layer: index of the layer shown first, from 0; None is the last layer.
        head: index of the head shown first, from 0; None is the mean of all heads.

    Returns:
        The HTML document.

    Raises:
        ValueError: If the kind, layer or head does not exist.
    """
    layers = len(maps.weights(kind))
    layer = layers - 1 if layer is None else layer
    maps.weights(kind, layer, head)  # raises if one of them does not exist
    data = {
        "source": maps.source,
        "target": maps.target,
        "targetIsOwn": maps.target_is_own,
        "first": {"kind": kind, "layer": layer, "head": "mean" if head is None else head},
        "kinds": {kind: _data_of(maps, kind) for kind in KINDS},
        "statistics": [asdict(statistics) for statistics in maps.statistics()],
    }
    template = _TEMPLATE.read_text(encoding="utf-8")
    values = {
        "title": html.escape(title),
        # Without "<", no sentence can close the script element that contains the data.
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "script_hash": _hash_of("script", template),
        "style_hash": _hash_of("style", template),
    }
    # One pass, so that a placeholder inside a sentence is not replaced.
    page = _PLACEHOLDER.sub(lambda match: values[match[1]], template)
    return page.encode("utf-8", "replace").decode("utf-8")  # UTF-8 cannot encode lone surrogates


def save_page(maps: AttentionMaps, path: str | Path, title: str = _TITLE, **first: Any) -> Path:
    """Write the page of `attention_page` to a file.

    Args:
        maps: the result of `attention_maps`.
        path: the file. Missing parent directories are created.
        title: title and heading of the page.
        **first: ``kind``, ``layer`` and ``head`` of `attention_page`.

    Returns:
        The path of the file.

    Raises:
        ValueError: If the kind, layer or head does not exist, or the file cannot be written.
    """
    path = Path(path)
    page = attention_page(maps, title, **first)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}; choose another path") from error
    return path


def _data_of(maps: AttentionMaps, kind: str) -> dict[str, Any]:
    weights = maps.weights(kind)
    rows, columns = maps.axes(kind)
    probabilities = None if kind == "encoder" else [round(float(p), 4) for p in maps.target_probabilities]
    return {
        "layers": weights.shape[0],
        "heads": weights.shape[1],
        "rows": [asdict(token) for token in rows],
        "columns": [asdict(token) for token in columns],
        "probabilities": probabilities,
        "weights": base64.b64encode(np.rint(weights * _STEPS).astype(np.uint8).tobytes()).decode("ascii"),
    }


def _hash_of(element: str, template: str) -> str:
    """Return the hash source of an inline element for the content security policy."""
    found = re.search(rf"<{element}>(.*?)</{element}>", template, re.DOTALL)
    assert found is not None, element
    digest = hashlib.sha256(found[1].encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
