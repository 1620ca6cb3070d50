# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer check`: check that this installation computes correct results."""

import argparse
import json

from .options import device_option
from .parser import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "check",
        parents=[device_option()],
        help="check in seconds that this installation computes correct results",
        description="Check that this installation computes correct results. Takes seconds and needs neither data nor "
        "network. The exit status is 1 if a check fails.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..self_check.runner import check_installation

    report = check_installation(options.device)
    print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if options.json else report)
    return 0 if report.passed else 1
