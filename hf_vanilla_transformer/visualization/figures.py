# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention maps as matplotlib figures: one head, all heads of a layer, or the mean over heads.

Figures are created without pyplot, so that they need no display and are not kept open.
"""

import functools
import io
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

COLOUR_MAP = "Blues"  # one hue, darker is larger: readable without colour vision and in print
_CELL = 0.26  # inches per token
_DEFAULT_FONT = "DejaVu Sans"  # comes with matplotlib
_KNOWN_FONTS = (  # good Hangul, Kana and Han; tried before any other
    "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Apple SD Gothic Neo", "Malgun Gothic", "UnDotum",
    "Noto Sans CJK JP",
)  # fmt: skip
_PLACEHOLDERS = "Last Resort"  # comes with matplotlib; it has a box for every character
_TITLES = {
    "encoder": "Encoder self-attention",
    "decoder": "Decoder self-attention",
    "cross": "Encoder-decoder attention",
}
_QUERY_LABELS = {
    "encoder": "source token (query)",
    "decoder": "predicted target token (query)",
    "cross": "predicted target token (query)",
}
_KEY_LABELS = {
    "encoder": "source token (key)",
    "decoder": "decoder input token (key)",
    "cross": "source token (key)",
}
_COLOUR_LABEL = "attention weight"


def head_figure(maps: AttentionMaps, kind: str, layer: int, head: int) -> Figure:
    """Draw one head: queries in rows, keys in columns; darker cells are larger weights.

    Args:
        maps: from `attention_maps`.
        kind: "encoder", "decoder" or "cross".
        layer: counted from 0.
        head: counted from 0.

    Raises:
        ValueError: If there is no such kind, layer or head.
    """
    return _one_map(maps, kind, maps.weights(kind, layer, head), f"{_TITLES[kind]}, layer {layer}, head {head}")


def layer_figure(maps: AttentionMaps, kind: str, layer: int) -> Figure:
    """Draw all heads of a layer side by side.

    Args:
        maps: from `attention_maps`.
        kind: "encoder", "decoder" or "cross".
        layer: counted from 0.

    Raises:
        ValueError: If there is no such kind or layer.
    """
    heads = maps.weights(kind, layer)
    rows, columns = maps.axes(kind)
    width, height = len(columns) * _CELL + 1.1, len(rows) * _CELL + 1.2
    across = _heads_per_row(len(heads), width / height)
    down = math.ceil(len(heads) / across)
    figure = Figure(figsize=(max(across * width + 0.9, 4.0), down * height + 0.8), layout="constrained")
    grid: NDArray[Any] = figure.subplots(down, across, squeeze=False)
    for head, axes in enumerate(grid.flat):
        if head < len(heads):
            image = _draw(axes, heads[head], rows, columns)
            axes.set_title(f"head {head}", fontsize=10)
        else:
            axes.set_axis_off()
    figure.suptitle(f"{_TITLES[kind]}, layer {layer}")
    figure.supxlabel(_KEY_LABELS[kind], fontsize=10)
    figure.supylabel(_QUERY_LABELS[kind], fontsize=10)
    figure.colorbar(image, ax=grid, label=_COLOUR_LABEL, shrink=0.6)
    return figure


def alignment_figure(maps: AttentionMaps, layer: int | None = None, head: int | None = None) -> Figure:
    """Draw the mean of the encoder-decoder attention: which source tokens each target token attends to.

    Args:
        maps: from `attention_maps`.
        layer: counted from 0; None takes the mean over all layers.
        head: of the layer, counted from 0; None takes the mean over all heads.

    Raises:
        ValueError: If there is no such layer or head.
    """
    weights = maps.weights("cross", layer, head)
    mean = weights.reshape(-1, *weights.shape[-2:]).mean(axis=0)
    if layer is None:
        what = "mean over all layers and heads"
    else:
        what = f"layer {layer}, " + ("mean over all heads" if head is None else f"head {head}")
    return _one_map(maps, "cross", mean, f"{_TITLES['cross']}, {what}")


def check_figure_format(path: str | Path) -> None:
    """Check that the suffix of a path is a format in which figures can be saved.

    Raises:
        ValueError: If it is not.
    """
    formats = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix.lower().lstrip(".") not in formats:
        raise ValueError(f"{path} has no suffix of an image format; use one of {', '.join(sorted(formats))}")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of the path's suffix, with fonts that contain its characters.

    Raises:
        ValueError: If the suffix is not that of a format, or the path can't be written.
    """
    path = Path(path)
    check_figure_format(path)
    _choose_fonts(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")  # logged by _choose_fonts
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise ValueError(f"can't write {path}: {error.strerror or error}; choose another path") from error
    return path


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG image for a notebook, with fonts that contain its characters."""
    _choose_fonts(figure)
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")  # logged by _choose_fonts
        figure.savefig(image, format="png", dpi=100)
    return image.getvalue()


# --------------------------------------------------------------------------- drawing


def _heads_per_row(heads: int, aspect_ratio: float) -> int:
    """Choose the number of maps per row, so that the figure is about 3 : 2.

    Args:
        heads: number of maps.
        aspect_ratio: width of a map divided by its height.
    """

    def cost(across: int) -> float:
        down = math.ceil(heads / across)
        empty = across * down - heads
        return abs(math.log(aspect_ratio * across / down / 1.5)) + 0.3 * empty

    return min(range(1, heads + 1), key=cost)


def _one_map(maps: AttentionMaps, kind: str, weights: NDArray[np.float32], title: str) -> Figure:
    rows, columns = maps.axes(kind)
    size = (max(len(columns) * _CELL + 2.2, 4.8), max(len(rows) * _CELL + 1.6, 3.0))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = _draw(axes, weights, rows, columns)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(_KEY_LABELS[kind], fontsize=9)
    axes.set_ylabel(_QUERY_LABELS[kind], fontsize=9)
    figure.colorbar(image, ax=axes, label=_COLOUR_LABEL, shrink=0.8)
    return figure


def _draw(axes: Axes, weights: NDArray[np.float32], rows: Sequence[Token], columns: Sequence[Token]) -> Any:
    image = axes.imshow(weights, cmap=COLOUR_MAP, vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_xticks(range(len(columns)), [_across(_literal(token)) for token in columns], fontsize=8)
    for label in axes.get_xticklabels():
        if not _is_wide(label.get_text().replace("\n", "")):
            label.set_rotation(90)
    axes.set_yticks(range(len(rows)), [_literal(token) for token in rows], fontsize=8)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#d9d9d9", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    return image


def _is_wide(text: str) -> bool:
    """Return whether all characters are as wide as high, such as Hangul syllables."""
    return all(east_asian_width(character) == "W" for character in text)


def _across(text: str) -> str:
    """Return the label of a column: wide characters are written from top to bottom, as Korean may be."""
    return "\n".join(text) if _is_wide(text) else text


def _literal(token: Token) -> str:
    """Return the text of a token without control characters, and with "$" escaped, which starts a formula."""
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
            f"no installed font has the characters {shown}; the figure shows them as boxes. Install a font that has "
            "them, e.g. Noto Sans CJK or Nanum Gothic for Hangul"
        )
    for text in texts:
        text.set_fontfamily(families)


def font_families(text: str) -> tuple[list[str], set[str]]:
    """Choose fonts that together contain every character of a text.

    Returns:
        The family names, matplotlib's default font first, and the characters that no installed font contains.
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
    """Return name and file of the installed fonts in the order of preference; the font of this package is last."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:  # installed after matplotlib cached its list
            try:
                manager.addfont(path)
            except (OSError, RuntimeError):  # not a font that matplotlib can draw
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
