# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Show the attention of a checkpoint for one sentence: an HTML page and, optionally, a figure."""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from ..checkpoints.loading import load_checkpoint
from ..device import move_to_device
from ..overwriting import check_file
from .figures import alignment_figure, check_figure_format, head_figure, layer_figure, save_figure
from .maps import AttentionMaps, attention_maps
from .page import save_page


@dataclass(frozen=True)
class Visualization:
    """What was written.

    Attributes:
        maps: the attention weights.
        page, figure: the files; ``figure`` is None if none was wanted.
    """

    maps: AttentionMaps
    page: Path
    figure: Path | None


def visualize_checkpoint(
    checkpoint: str | Path,
    source: str,
    target: str | None = None,
    *,
    page: str | Path,
    figure: str | Path | None = None,
    kind: str = "cross",
    layer: int | None = None,
    head: int | None = None,
    overwrite: bool = False,
    device: str | torch.device | None = None,
) -> Visualization:
    """Load a checkpoint and write the attention page, and a figure, for one sentence pair.

    Args:
        checkpoint: directory, or id on the Hub.
        source: the sentence.
        target: its translation; None translates with the paper's beam search (§6.1).
        page: HTML file to write.
        figure: picture file to write; the suffix selects the format.
        kind: "encoder", "decoder" or "cross": what the figure shows, and the page shows first.
        layer, head: counted from 0. The figure shows one head, one layer, or without either the mean of the
            encoder-decoder attention over layers and heads, or the last layer of another kind.
        overwrite: replace files that an earlier call wrote.
        device: None selects the accelerator if there is one, else the CPU.

    Raises:
        ValueError: If an argument is invalid or a sentence is empty or too long.
        OSError: If there is no such checkpoint, or a file exists and must not be replaced, or cannot be written.
    """
    check_file(page, "page", inputs=(checkpoint,), overwrite=overwrite)
    if figure is not None:
        check_figure_format(figure)
        check_file(figure, "figure", inputs=(checkpoint, page), overwrite=overwrite)
    model, tokenizer = load_checkpoint(checkpoint)
    maps = attention_maps(move_to_device(model, device), tokenizer, source, target)
    maps.weights(kind, layer, head)  # rejects an unknown layer or head before anything is written
    written = save_page(maps, page, kind=kind, layer=layer, head=head)
    drawn = None if figure is None else save_figure(attention_figure(maps, kind, layer, head), figure)
    return Visualization(maps, written, drawn)


def attention_figure(
    maps: AttentionMaps, kind: str = "cross", layer: int | None = None, head: int | None = None
) -> Figure:
    """Draw the figure for a choice of attention, layer and head; see `visualize_checkpoint`.

    Raises:
        ValueError: If there is no such kind, layer or head.
    """
    if layer is not None and head is not None:
        return head_figure(maps, kind, layer, head)
    if layer is None and kind == "cross":
        return alignment_figure(maps)
    return layer_figure(maps, kind, len(maps.weights(kind)) - 1 if layer is None else layer)


__all__ = ["Visualization", "attention_figure", "visualize_checkpoint"]
