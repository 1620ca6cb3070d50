# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer train`: train from a recipe."""

import argparse
from pathlib import Path

from .log import is_first_process, log_to_standard_error, verbose_option
from .parser import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "train",
        parents=[verbose_option()],
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

    log_to_standard_error(options.verbose)
    result = train(read_recipe(options.recipe, options.overrides))
    if is_first_process():  # the scores are shown on standard error already, and are in results.json
        print(f"train: output={result.output_dir}")
    return 0
