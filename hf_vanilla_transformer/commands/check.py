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
    parser.add_argument(
        "--measure",
        action="store_true",
        help="also time fp32 against bf16 and plain against fused attention (about 10 s), and report where other "
        "settings than the automatic ones are faster on this machine",
    )
    parser.set_defaults(run=run, speaks_options=True)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    import torch

    from ..self_check.runner import check_installation

    report = check_installation(options.device)
    measurements = []
    if options.measure:
        from ..self_check.measurement import measure

        measurements = measure(torch.device(report.device))
    if options.json:
        content = report.to_dict()
        if options.measure:
            content["measurements"] = [measurement.to_dict() for measurement in measurements]
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(report, *measurements, sep="\n")
    return 0 if report.passed else 1
