# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer average`: average the weights of checkpoints (§6.1)."""

import argparse

from .options import overwrite_option
from .parser import Subparsers, whole_number
from .table import print_table


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
    parser.add_argument(
        "--allow-different-runs",
        action="store_true",
        help="average checkpoints of runs whose data, tokenizer or optimizer settings differ; useful only if the runs "
        "were fine-tuned from the same weights",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..checkpoints.averaging import average_and_list

    averaged = average_and_list(
        options.checkpoints[0] if len(options.checkpoints) == 1 else options.checkpoints,
        options.output,
        last=options.last,
        best=options.best,
        metric=options.metric,
        overwrite=options.overwrite,
        allow_different_runs=options.allow_different_runs,
    )
    loss = "eval_loss"
    names = [loss, *([options.metric] if options.best is not None and options.metric != loss else [])]
    print_table(
        ("checkpoint", "updates", *("validation loss" if name == loss else name for name in names)),
        [
            (
                str(checkpoint.path),
                "" if checkpoint.step is None else f"{checkpoint.step:,}",
                *(f"{checkpoint.scores[name]:.4f}" if name in checkpoint.scores else "unknown" for name in names),
            )
            for checkpoint in averaged
        ],
    )
    print(f"average: output={options.output} checkpoints={len(averaged)}")
    return 0
