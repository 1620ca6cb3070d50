# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer train`: train from two text files, or by a recipe."""

import argparse
from pathlib import Path

from .log import is_first_process, log_to_standard_error, verbose_option
from .parser import Subparsers, UsageError


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "train",
        parents=[verbose_option()],
        usage="vanilla-transformer train --train-source FILE --train-target FILE [--output-dir DIR] [--KEY VALUE ...]\n"
        "       vanilla-transformer train RECIPE [--KEY VALUE ...]",
        help="train from two text files, or by a recipe; --key value sets any key",
        description="Train from two text files with settings that are chosen from the amount of text, or by a recipe.\n"
        "A run that was interrupted resumes from its last checkpoint when the same command is given again.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--recipe", metavar="RECIPE", help="the recipe, instead of the first argument")
    parser.add_argument(
        "--print-recipe", action="store_true", help="print the recipe that would be run as YAML, and exit"
    )
    parser.epilog = (
        f"RECIPE is a YAML file or the name of a recipe in the package: {', '.join(recipe_names())}.\n\n"
        + (Path(__file__).parents[1] / "training" / "recipe_keys.txt").read_text(encoding="utf-8").replace("%", "%%")
    )
    parser.set_defaults(run=run, takes_overrides=True)


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package; `package_recipes` without its imports."""
    return sorted(path.stem for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    name, words = _recipe_and_settings(options.recipe, options.overrides)
    from ..training.recipe import print_recipe, read_recipe

    if options.print_recipe:
        print(print_recipe(read_recipe(name, words), words), end="")
        return 0
    from ..training.run import train

    log_to_standard_error(options.verbose)
    recipe = read_recipe(name, words)
    result = train(recipe)
    if is_first_process():  # the scores are shown on standard error already, and are in results.json
        print(f"train: output={result.output_dir}")
    return 0


def _recipe_and_settings(recipe: str | None, words: list[str]) -> tuple[str | None, list[str]]:
    """Return the recipe's name, from either place, and the settings.

    Only the first word can be the recipe: one after "--max_steps" is the value of that setting.
    """
    if words and not words[0].startswith("-"):
        if recipe is not None:
            raise UsageError(
                "vanilla-transformer train", f"two recipes are given, {words[0]} and {recipe}; give one of them"
            )
        return words[0], words[1:]
    return recipe, words
