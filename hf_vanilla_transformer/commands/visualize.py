# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer visualize`: show the attention for a sentence."""

import argparse

from .options import chosen_device, device_option, model_argument, overwrite_option
from .parser import Subparsers, whole_number

KINDS = ("encoder", "decoder", "cross")


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "visualize",
        parents=[model_argument(), overwrite_option("existing files at --output and --figure"), device_option()],
        help="show the attention for a sentence: an HTML page, and a figure",
        description="Write an HTML page that shows the attention weights of every layer and head for one sentence.",
    )
    parser.add_argument("--source", required=True, help="sentence to translate")
    parser.add_argument("--target", help="translation to use instead of the model's own")
    parser.add_argument("--output", required=True, help="HTML file to write, e.g. attention.html")
    parser.add_argument("--figure", help="picture to write as well, e.g. attention.png or attention.pdf")
    parser.add_argument(
        "--attention",
        choices=KINDS,
        default="cross",
        help="attention that the figure shows, and the page shows first: encoder self-attention, decoder "
        "self-attention, or encoder-decoder (cross) attention (default: %(default)s)",
    )
    parser.add_argument(
        "--layer",
        type=whole_number(0, 1_000),
        help="layer, counted from 0 (default: the mean over all layers for cross, else the last layer)",
    )
    parser.add_argument(
        "--head",
        type=whole_number(0, 1_000),
        help="head, counted from 0; needs --layer (default: all heads; the page shows their mean first)",
    )
    parser.set_defaults(run=run, speaks_options=True)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..visualization.visualize import visualize_checkpoint

    result = visualize_checkpoint(
        options.model,
        options.source,
        options.target,
        page=options.output,
        figure=options.figure,
        kind=options.attention,
        layer=options.layer,
        head=options.head,
        overwrite=options.overwrite,
        device=chosen_device(options),
    )
    figure = "" if result.figure is None else f" figure={result.figure}"
    print(f"visualize: page={result.page}{figure} target={result.maps.target}")
    return 0
