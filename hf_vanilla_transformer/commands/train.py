# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer train`: train from a recipe."""

import argparse
import os
from pathlib import Path

from .parser import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "train",
        help="train by a recipe; --key value overrides a key of it",
        description="Train by a recipe. A run that was interrupted resumes from its last checkpoint when the same "
        "command is given again.",
        epilog=f"Any key of a recipe may follow as --key value. Recipes in the package: {', '.join(recipe_names())}.",
    )
    parser.add_argument("recipe", help="YAML file, or the name of a recipe in the package, e.g. tiny")
    parser.set_defaults(run=run, takes_overrides=True)


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package; `package_recipes` without its imports."""
    return sorted(path.stem for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..training.recipe import read_recipe
    from ..training.run import train
    from .log import log_to_standard_error

    first_process = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun or accelerate started
    log_to_standard_error(first_process)  # what was read, skipped and chosen is part of a run's record
    result = train(read_recipe(options.recipe, options.overrides))
    if first_process:
        for split, scores in result.scores.items():
            print(f"{split}: {scores}")
        print(f"train: output={result.output_dir}")
    return 0
