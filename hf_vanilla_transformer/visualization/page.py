# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention maps as one HTML page that needs nothing else: no network, no other file, no server.

The page's content security policy lets only its own script run and nothing be fetched; sentences reach it as data that
the script shows as text.
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
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_STEPS = 255  # weights are shown in whole percent; a byte holds them


def attention_page(
    maps: AttentionMaps, title: str = "What attention looks at", *, kind: str = "cross", layer: int | None = None,
    head: int | None = None,
) -> str:  # fmt: skip
    """Make the page: choose layer and head, point at a token to see where it looks, all heads of a layer side by side.

    Args:
        maps: of `attention_maps`.
        title: the heading.
        kind: what the page shows first: "encoder", "decoder" or "cross".
        layer: the layer it shows first, counted from 0; None is the last.
        head: the head it shows first, counted from 0; None is the average of all.

    Returns:
        A whole HTML document.

    Raises:
        ValueError: If there is no such kind, layer or head.
    """
    layers = len(maps.weights(kind))
    layer = layers - 1 if layer is None else layer
    maps.weights(kind, layer, head)  # says what is wrong with them
    data = {
        "source": maps.source,
        "target": maps.target,
        "targetIsOwn": maps.target_is_own,
        "first": {"kind": kind, "layer": layer, "head": "average" if head is None else head},
        "kinds": {kind: _data_of(maps, kind) for kind in KINDS},
        "statistics": [asdict(statistics) for statistics in maps.statistics()],
    }
    template = _TEMPLATE.read_text(encoding="utf-8")
    fillings = {
        "title": html.escape(title),
        # "<" can't end the element that holds the data, whatever a sentence says.
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "script_hash": _hash_of("script", template),
        "style_hash": _hash_of("style", template),
    }
    # In one pass: what a sentence says is never taken for a place to fill.
    page = _PLACE.sub(lambda place: fillings[place[1]], template)
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair can't be written


def save_page(maps: AttentionMaps, path: str | Path, title: str = "What attention looks at", **first: Any) -> Path:
    """Write `attention_page` to a file; its arguments and errors, and ValueError if the path can't be written."""
    path = Path(path)
    page = attention_page(maps, title, **first)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"can't write {path}: {error.strerror or error}; choose another path") from error
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
    """Name an inline element's text as a content security policy wants it."""
    found = re.search(rf"<{element}>(.*?)</{element}>", template, re.DOTALL)
    assert found is not None, element
    digest = hashlib.sha256(found[1].encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
