# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer convert`: convert a checkpoint from or to another format."""

import argparse
from pathlib import Path

from .options import overwrite_option
from .parser import Subparsers, name_and_value

SOURCE_FORMATS = ("marian", "fsmt", "fairseq", "torch")
RESTORED_FORMATS = ("marian", "fsmt", "torch")
EXPORT_FORMATS = ("ctranslate2", "onnx")


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "convert",
        parents=[overwrite_option("an earlier conversion at TARGET")],
        help="convert a checkpoint of Marian, FSMT, fairseq or torch.nn.Transformer, or export one",
        description="Convert a checkpoint of another format with --from, or one of this package with --to.",
        epilog="A torch state dict lacks some settings of the model; give them as --set num_heads=8 --set "
        "embedding=emb.weight --set generator=out --set prefix=transformer. An unknown NAME lists all names.",
    )
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--from", dest="source_format", choices=SOURCE_FORMATS, help="format of SOURCE")
    direction.add_argument(
        "--to",
        dest="target_format",
        choices=(*EXPORT_FORMATS, *RESTORED_FORMATS),
        help="format of TARGET: of a fast runtime, or the format that SOURCE was converted from",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="checkpoint directory or file, or id on the Hub for --from marian and fsmt"
    )
    parser.add_argument("target", metavar="TARGET", help="directory to write to")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        type=name_and_value,
        metavar="NAME=VALUE",
        help="setting of the torch format; may be repeated",
    )
    parser.add_argument(
        "--quantization", help="type of the stored weights for --to ctranslate2, e.g. int8 (default: float32)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    export = options.target_format in EXPORT_FORMATS
    if export and options.settings:
        raise ValueError(f"--set is for the torch format; {options.target_format} has no settings")
    if not export and options.quantization is not None:
        raise ValueError("--quantization is for --to ctranslate2 and --to onnx")
    output = _export(options) if export else _convert(options)
    print(f"convert: output={output}")
    return 0


def _export(options: argparse.Namespace) -> Path:
    from ..export.formats import export_checkpoint

    return export_checkpoint(
        options.target_format,
        options.source,
        options.target,
        quantization=options.quantization,
        overwrite=options.overwrite,
    )


def _convert(options: argparse.Namespace) -> Path:
    from ..conversion.convert import convert_checkpoint, restore_checkpoint

    convert = convert_checkpoint if options.source_format else restore_checkpoint
    return convert(
        options.source_format or options.target_format,
        options.source,
        options.target,
        options=dict(options.settings or ()),
        overwrite=options.overwrite,
    )
