# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Options of minimum Bayes risk decoding, as a parent parser, and the settings they give (not a command)."""

import argparse
from typing import TYPE_CHECKING

from .options import given
from .parser import Parser, real_number, whole_number

if TYPE_CHECKING:
    from ..minimum_bayes_risk.config import MBRConfig

DEFAULTS = {"epsilon_cutoff": 0.02, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": 0}  # of MBRConfig


def mbr_options() -> Parser:
    """Declare the options; those that are not given are None."""
    parent = Parser(add_help=False)
    group = parent.add_argument_group(
        "minimum Bayes risk decoding (of many candidates, the one with the highest mean chrF against the others)"
    )
    group.add_argument("--mbr-samples", type=whole_number(2, 100_000), metavar="N", help="sample N candidates per line")
    group.add_argument(
        "--mbr-nbest",
        type=whole_number(2, 1_000),
        metavar="N",
        help="take the N best hypotheses of the beam search as candidates; the beam is at least N",
    )
    group.add_argument(
        "--epsilon-cutoff",
        type=real_number(0, 1),
        help=f"of --mbr-samples: sample no tokens of smaller probability; 0 samples all {_default('epsilon_cutoff')}",
    )
    group.add_argument(
        "--temperature",
        type=real_number(0, 100),
        help=f"of --mbr-samples: divide the logits by it {_default('temperature')}",
    )
    group.add_argument(
        "--top-p",
        type=real_number(0, 1),
        help=f"of --mbr-samples: sample among the likeliest tokens of this total probability {_default('top_p')}",
    )
    group.add_argument(
        "--top-k",
        type=whole_number(0, 1_000_000),
        help=f"of --mbr-samples: sample among the K likeliest tokens; 0 samples all {_default('top_k')}",
    )
    group.add_argument(
        "--seed",
        type=whole_number(0, 2**31 - 1),
        help=f"of --mbr-samples: the same seed gives the same samples {_default('seed')}",
    )
    return parent


def mbr_settings(options: argparse.Namespace) -> "MBRConfig | None":
    """Return the settings; None without --mbr-samples and --mbr-nbest.

    Raises:
        ValueError: If the options contradict each other.
    """
    sampling = given(options, *DEFAULTS)
    if sampling and options.mbr_samples is None:
        name = next(iter(sampling))
        raise ValueError(f"--{name.replace('_', '-')} is for samples; add --mbr-samples, or leave it out")
    if options.mbr_samples is None and options.mbr_nbest is None:
        return None
    search = given(options, "num_beams", "length_penalty", "length_normalization", "coverage_penalty")
    if search and options.mbr_samples is not None:
        name = next(iter(search))
        raise ValueError(f"--{name.replace('_', '-')} is for the beam search, and --mbr-samples has none; leave it out")
    if options.mbr_samples is not None and options.mbr_nbest is not None:
        raise ValueError("--mbr-samples and --mbr-nbest name two sets of candidates; choose one of them")
    from ..minimum_bayes_risk.config import MBRConfig

    return MBRConfig(num_samples=options.mbr_samples, num_best=options.mbr_nbest, **sampling)


def _default(name: str) -> str:
    return f"(default: {DEFAULTS[name]:g})"


__all__ = ["DEFAULTS", "mbr_options", "mbr_settings"]
