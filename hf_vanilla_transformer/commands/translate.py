# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer translate`: translate standard input."""

import argparse
import sys

from .options import (
    chosen_device,
    device_option,
    given,
    model_argument,
    precision_option,
    search_config,
    search_options,
    translation_options,
)
from .parser import Subparsers

ENGINES = ("torch", "ctranslate2", "onnx")


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "translate",
        parents=[model_argument(), search_options(), translation_options(), device_option(), precision_option()],
        help="translate standard input: one line in, one line out",
        description="Translate each line of standard input into one line of standard output.",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="torch",
        help="runtime of the model; ctranslate2 and onnx run what `convert --to` has exported, on the CPU (default: "
        "%(default)s)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..translation_stream import load_translator, translate_stream

    device = chosen_device(options) if options.engine == "torch" else options.device
    model, tokenizer = load_translator(options.engine, options.model, device, options.precision)
    warnings = translate_stream(
        model,
        tokenizer,
        sys.stdin.buffer,
        sys.stdout.buffer,
        search_config(options),
        **given(options, "batch_size", "max_source_tokens"),
    )
    for warning in warnings:
        print(f"vanilla-transformer translate: warning: {warning}", file=sys.stderr)
    return 0
