# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Measure the attention of the demo's model, and write its attention page and alignment figure."""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from ..data.embedded_corpus import draw_expressions
from ..device import move_to_device
from ..messages import other_progress_bars_hidden
from ..visualization.alignment import digit_alignment
from ..visualization.figures import alignment_figure, save_figure
from ..visualization.maps import attention_maps
from ..visualization.page import save_page
from .demo import FIGURES, RECIPE
from .recipe import read_recipe


@dataclass(frozen=True)
class DemoAttention:
    """What was measured and written.

    Attributes:
        page, figure: the files.
        measurement: one sentence about the head that aligns digits best, or why it was not measured.
    """

    page: Path
    figure: Path
    measurement: str


def show_demo_attention(output_dir: str | Path, source: str, recipe_path: str | Path | None = None) -> DemoAttention:
    """Select the encoder-decoder head that aligns digits best on the validation split, and show it for one sentence.

    Args:
        output_dir: the demo's checkpoint; page and figure are written there.
        source: the sentence.
        recipe_path: recipe of the demo; None is the package's own.
    """
    output_dir = Path(output_dir)
    recipe = read_recipe(RECIPE if recipe_path is None else recipe_path, [f"--output_dir={output_dir}"])
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    with other_progress_bars_hidden():
        model = move_to_device(AutoModelForSeq2SeqLM.from_pretrained(output_dir), recipe.training.device)
    data, seed = recipe.data, recipe.data.embedded_seed
    layer = head = None
    try:
        validation, test = (
            digit_alignment(model, tokenizer, draw_expressions(split, size, seed=seed))
            for split, size in (("validation", data.embedded_validation), ("test", data.embedded_test))
        )
        layer, head = validation.best()
        measurement = (
            f"decoder layer {layer}, head {head} (the best on the validation split) attends most to the matching word, "
            f"one to nine,\n  for {test.accuracy[layer, head]:.1%} of {test.digits} Korean digits of the test split; "
            f"chance: {test.chance:.1%}"
        )
    except ValueError as error:  # another recipe may hold out too few expressions to measure
        measurement = f"not measured: {error}"
    maps = attention_maps(model, tokenizer, source)
    page, figure = FIGURES
    return DemoAttention(
        page=save_page(maps, output_dir / page, layer=layer, head=head),
        figure=save_figure(alignment_figure(maps, layer, head), output_dir / figure),
        measurement=measurement,
    )


__all__ = ["DemoAttention", "show_demo_attention"]
