# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer average`: average the weights of checkpoints (§6.1)."""

import argparse

from .options import overwrite_option
from .parser import Subparsers, whole_number


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "average",
        parents=[overwrite_option("an earlier average at --output")],
        help="average the weights of several checkpoints (section 6.1 of the paper)",
        description="Average the weights of several checkpoints of one run, as section 6.1 of the paper does.",
    )
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="checkpoint directories, or the directory of a run",
    )
    parser.add_argument("--output", required=True, help="directory to write to")
    count = whole_number(1, 1_000_000)
    parser.add_argument("--last", type=count, help="number of last checkpoints of the run to average (default: all)")
    parser.add_argument("--best", type=count, help="number of best checkpoints by --metric to average")
    parser.add_argument(
        "--metric", default="eval_loss", help="metric of the run's evaluation log, for --best (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..checkpoints.averaging import average_checkpoints

    output = average_checkpoints(
        options.checkpoints[0] if len(options.checkpoints) == 1 else options.checkpoints,
        options.output,
        last=options.last,
        best=options.best,
        metric=options.metric,
        overwrite=options.overwrite,
    )
    print(f"average: output={output}")
    return 0
