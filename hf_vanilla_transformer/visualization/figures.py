# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention maps as matplotlib figures: one head, all heads of a layer, the heads' average.

Figures are made without pyplot, so that nothing depends on a display or is left open.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from transformers.utils import logging

from .font_subset import FAMILY, FONT_PATH
from .maps import AttentionMaps, Token

logger = logging.get_logger(__name__)

COLOUR_MAP = "Blues"  # one hue, darker is more: it reads the same without colour vision, and in print
_CELL = 0.26  # inches a token
_DEFAULT_FONT = "DejaVu Sans"  # comes with matplotlib
_KNOWN_FONTS = (  # of good Hangul, Kana and Han, tried before any other
    "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Apple SD Gothic Neo", "Malgun Gothic", "UnDotum",
    "Noto Sans CJK JP",
)  # fmt: skip
_PLACEHOLDERS = "Last Resort"  # comes with matplotlib and has a box for every character
_TITLES = {
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
    "cross": "encoder-decoder attention",
}


def head_figure(maps: AttentionMaps, kind: str, layer: int, head: int) -> Figure:
    """Draw one head: who looks in rows, at what in columns, the darker the more.

    Args:
        maps: of `attention_maps`.
        kind: "encoder", "decoder" or "cross".
        layer: counted from 0.
        head: counted from 0.

    Raises:
        ValueError: If there is no such kind, layer or head.
    """
    return _one_map(maps, kind, maps.weights(kind, layer, head), f"{_TITLES[kind]}, layer {layer}, head {head}")


def layer_figure(maps: AttentionMaps, kind: str, layer: int) -> Figure:
    """Draw all heads of a layer side by side; arguments and errors as in `head_figure`."""
    heads = maps.weights(kind, layer)
    rows, columns = maps.axes(kind)
    width, height = len(columns) * _CELL + 1.1, len(rows) * _CELL + 1.2
    across = _heads_in_a_row(len(heads), width / height)
    down = math.ceil(len(heads) / across)
    figure = Figure(figsize=(max(across * width, 4.0), down * height + 0.5), layout="constrained")
    grid: NDArray[Any] = figure.subplots(down, across, squeeze=False)
    for head, axes in enumerate(grid.flat):
        if head < len(heads):
            _draw(axes, heads[head], rows, columns)
            axes.set_title(f"head {head}", fontsize=10)
        else:
            axes.set_axis_off()
    figure.suptitle(f"{_TITLES[kind]}, layer {layer}")
    return figure


def alignment_figure(maps: AttentionMaps, layer: int | None = None, head: int | None = None) -> Figure:
    """Draw which source words the target words come from: encoder-decoder attention, averaged.

    Args:
        maps: of `attention_maps`.
        layer: counted from 0; None averages over all layers.
        head: one head of the layer, counted from 0; None averages over all heads.

    Raises:
        ValueError: If there is no such layer or head.
    """
    weights = maps.weights("cross", layer, head)
    where = "all layers" if layer is None else f"layer {layer}"
    which = "average of all heads" if head is None else f"head {head}"
    return _one_map(maps, "cross", weights.reshape(-1, *weights.shape[-2:]).mean(axis=0), f"{where}, {which}")


def check_figure_format(path: str | Path) -> None:
    """Refuse a path whose ending names no format that a figure can be saved in.

    Raises:
        ValueError: If it names none.
    """
    formats = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix.lower().lstrip(".") not in formats:
        raise ValueError(f"{path} ends in no picture format; choose one of {', '.join(sorted(formats))}")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format that the path's ending names, with a font that has the characters in it.

    Raises:
        ValueError: If the ending names no format, or the path can't be written.
    """
    path = Path(path)
    check_figure_format(path)
    _choose_fonts(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")  # said already, and once
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise ValueError(f"can't write {path}: {error.strerror or error}; choose another path") from error
    return path


# --------------------------------------------------------------------------- drawing


def _heads_in_a_row(heads: int, shape: float) -> int:
    """Choose how many maps stand side by side, so that all are about 3 : 2; shape is a map's width by its height."""

    def strangeness(across: int) -> float:
        down = math.ceil(heads / across)
        empty = across * down - heads
        return abs(math.log(shape * across / down / 1.5)) + 0.2 * empty

    return min(range(1, heads + 1), key=strangeness)


def _one_map(maps: AttentionMaps, kind: str, weights: NDArray[np.float32], title: str) -> Figure:
    rows, columns = maps.axes(kind)
    size = (max(len(columns) * _CELL + 2.2, 4.0), max(len(rows) * _CELL + 1.6, 3.0))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = _draw(axes, weights, rows, columns)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("looks at")
    axes.set_ylabel("token" if kind == "encoder" else "token being written")
    figure.colorbar(image, ax=axes, label="attention weight", shrink=0.8)
    return figure


def _draw(axes: Axes, weights: NDArray[np.float32], rows: Sequence[Token], columns: Sequence[Token]) -> Any:
    image = axes.imshow(weights, cmap=COLOUR_MAP, vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_xticks(range(len(columns)), [_literal(token) for token in columns], fontsize=8)
    for label in axes.get_xticklabels():
        if all(east_asian_width(character) == "W" for character in label.get_text()):
            label.set_text("\n".join(label.get_text()))  # from top to bottom, as Korean may be written
        else:
            label.set_rotation(90)
    axes.set_yticks(range(len(rows)), [_literal(token) for token in rows], fontsize=8)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#d9d9d9", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    return image


def _literal(token: Token) -> str:
    """Keep matplotlib from reading a token as a formula, and control characters out of the picture."""
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in token.text)
    return text.replace("$", r"\$")


# --------------------------------------------------------------------------- fonts


def _choose_fonts(figure: Figure) -> None:
    from matplotlib.text import Text

    texts: list[Text] = figure.findobj(Text)  # type: ignore[assignment]
    families, missing = font_families("".join(text.get_text() for text in texts))
    if missing:
        shown = "".join(sorted(missing)[:8])
        logger.warning_once(
            f"no installed font has the characters {shown}, which the figure shows as boxes; install one that has, "
            "e.g. Noto Sans CJK or Nanum Gothic for Hangul"
        )
    for text in texts:
        text.set_fontfamily(families)


def font_families(text: str) -> tuple[list[str], set[str]]:
    """Choose fonts that together have every character of a text.

    Returns:
        Family names, matplotlib's own font first, and the characters that no installed font has.
    """
    missing = {character for character in text if not character.isspace()}
    families = []
    for family, path in _fonts():
        if not missing:
            break
        covered = {character for character in missing if ord(character) in _characters_of(path)}
        if covered or family == _DEFAULT_FONT:
            families.append(family)
            missing -= covered
    return families or [_DEFAULT_FONT], missing


@functools.cache
def _fonts() -> list[tuple[str, str]]:
    """List installed fonts, name and file, in the order in which they are to be tried, the package's own last."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:  # installed since matplotlib made its list
            try:
                manager.addfont(path)
            except (OSError, RuntimeError):  # not a font that can be drawn
                continue
    regular: dict[str, str] = {}
    for entry in manager.ttflist:
        if entry.name.startswith(_PLACEHOLDERS):
            continue
        if entry.style == "normal" and entry.weight in (400, "normal", "regular", "book"):
            regular.setdefault(entry.name, entry.fname)
    if FAMILY not in regular:
        manager.addfont(FONT_PATH)
    regular.pop(FAMILY, None)
    order = [_DEFAULT_FONT, *(name for name in _KNOWN_FONTS if name in regular)]
    return [*((name, regular[name]) for name in [*order, *sorted(set(regular) - set(order))]), (FAMILY, str(FONT_PATH))]


@functools.cache
def _characters_of(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
