# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer presets`: list the named architectures."""

import argparse

from .parser import Subparsers
from .table import print_table

_SIZES = ("name", "layers", "d_model", "d_ff", "heads", "d_k", "d_v", "dropout")
_HEADER = ("preset", "N", "d_model", "d_ff", "h", "d_k", "d_v", "P_drop", "params ×10⁶", "− base", "paper", "− base")
_NOTES = """
Parameters are counted from the built models: V = 37,000, one matrix for both embeddings and the output, no attention
bias. The paper's totals are about 2M higher (its vocabulary has "about 37,000" tokens); compare the differences.
MFLOPs: forward pass per target token and source token, 32 tokens each; training takes about three times as many."""


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "presets",
        help="list the named architectures with their parameters and operations, beside the paper's numbers",
        description="List the named architectures with their parameters and operations, beside the numbers of Table 3.",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..presets import presets_table

    rows = []
    for row in presets_table():
        counts = [
            _millions(row["parameters"], ".2f"),
            _millions(row["difference"], "+.2f"),
            _millions(row["paper"], ".0f"),
            _millions(row["paper_difference"], "+.0f"),
            _millions(row["flops"], ".1f"),
        ]
        rows.append([*(str(row[key]) for key in _SIZES), *counts, row["row"]])
    print_table((*_HEADER, "MFLOPs per token", "description"), rows)
    print(_NOTES)
    return 0


def _millions(number: float | None, form: str) -> str:
    return "" if number is None else format(number / 1e6, form)
