# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Make a recipe for text files: read the amount of text, choose the settings, write them as YAML."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..data.splits import Tables, TextFiles
from ..data.text_size import TextSize, measure_text
from .chosen_settings import choose_settings, held_out_pairs
from .recipe_arguments import EMBEDDED, DataArguments, ModelArguments
from .recipe_text import recipe_text
from .recipe_yaml import Setting

RECIPE_FILE = "recipe.yaml"  # in the output directory
# Settings of one command, which do not belong into a file.
_NOT_WRITTEN = ("overwrite", "resume_from_checkpoint", "resume_anyway", "hub_token")


@dataclass(frozen=True)
class ChosenRecipe:
    """A recipe that was chosen for text files.

    Attributes:
        path: where the run writes it.
        text: the recipe as YAML.
        summary: text that says what the settings were chosen for.
        command_only: given settings that are not in the YAML.
    """

    path: Path
    text: str
    summary: str
    command_only: dict[str, Setting]


def choose_recipe(given: Mapping[str, Setting], values: Mapping[str, Any]) -> ChosenRecipe:
    """Choose the settings that were not given, for the text that was given.

    Args:
        given: settings of the command line, as text.
        values: the same settings with the types of their fields.

    Raises:
        ValueError: If no text files are given, or they can't be read.
    """
    data = _data_arguments(values)
    if data.dataset_name is not None:
        recipe = "demo" if data.dataset_name == EMBEDDED else "small"
        raise ValueError(
            f"without a recipe, settings are chosen from the amount of text in files, and dataset_name is set; name a "
            f"recipe, e.g. --recipe {recipe}"
        )
    ModelArguments(config_overrides=values.get("config_overrides"))  # raises if it is not a dictionary
    size = _measure(data)
    output_dir = str(values.get("output_dir") or Path("runs") / _stem(data))
    written = {key: setting.words for key, setting in given.items() if key not in _NOT_WRITTEN}
    comments = dict.fromkeys(written, "given")
    written["output_dir"] = [output_dir]
    for key, language in (("source_lang", size.source_language), ("target_lang", size.target_language)):
        if key not in written:
            named = getattr(data, key)
            if named != key.removesuffix("_lang"):
                written[key], comments[key] = [named], "by the file's name"
            elif language is not None:
                written[key], comments[key] = [language], "by the script of the text"
    for choice in choose_settings(size, values):
        written[choice.key] = None if choice.value == "null" else [choice.value]
        comments[choice.key] = choice.reason
    header = [
        f"Settings chosen by `vanilla-transformer train` for {_described(size, data)}.",
        "Change any of them, and train with them into another directory:",
        f"  vanilla-transformer train {Path(output_dir) / RECIPE_FILE} --output-dir DIRECTORY",
        "File names are relative to the directory in which that command runs.",
    ]
    path = Path(output_dir) / RECIPE_FILE
    return ChosenRecipe(
        path=path,
        text=recipe_text(header, written, comments),
        summary=f"chosen for {_described(size, data)}{_kept(size, values)}; reasons in {path}",
        command_only={key: setting for key, setting in given.items() if key in _NOT_WRITTEN},
    )


def choose_held_out(values: Mapping[str, Any]) -> tuple[int, str]:
    """Return how many training pairs to hold out for a recipe without validation text, and a text that reports it.

    Args:
        values: settings of the recipe, with the types of their fields.
    """
    size = _measure(_data_arguments(values))
    pairs = held_out_pairs(size.pairs)
    return pairs, f"{pairs:,} of {size.pairs:,} pairs are held out for validation, since no validation text is given"


def _data_arguments(values: Mapping[str, Any]) -> DataArguments:
    return DataArguments(**{item.name: values[item.name] for item in fields(DataArguments) if item.name in values})


def _measure(data: DataArguments) -> TextSize:
    data.check_has_training_text()
    text = data.text_of("train")
    if not isinstance(text, TextFiles | Tables):
        raise ValueError("settings are chosen from the amount of text in files; give train_source and train_target")
    return measure_text(text, data.source_lang, data.target_lang)


def _stem(data: DataArguments) -> str:
    """Return the name of the first file before its first dot, for the directory of the run."""
    names = data.train_source or data.train_file or ["train"]
    return "".join(sign for sign in Path(names[0]).name.split(".")[0] if sign not in "*?[]") or "train"


def _described(size: TextSize, data: DataArguments) -> str:
    def megabytes(number: int) -> str:
        return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.0f} kB"

    return (
        f"{size.pairs:,} pairs ({megabytes(size.source_bytes)} {data.source_lang}, {megabytes(size.target_bytes)} "
        f"{data.target_lang})"
    )


def _kept(size: TextSize, values: Mapping[str, Any]) -> str:
    """List the given settings that would have been chosen otherwise."""
    kept = [choice.key for choice in choose_settings(size, {}) if choice.key in values]
    return f", except what is given ({', '.join(kept)})" if kept else ""


__all__ = ["RECIPE_FILE", "ChosenRecipe", "choose_held_out", "choose_recipe"]
