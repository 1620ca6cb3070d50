# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""A recipe: a YAML file with the settings of a training run; `--key value` on the command line overrides any key.

A recipe is flat. Its keys are the fields of four dataclasses: the model, the data and the run (`recipe_arguments`), and
the training arguments. Every value is read as text and converted to the type of its field, in the file as on the
command line: 1e-3 is a number and `no` is a word. The recipes in the package contain no data paths; those are given on
the command line. Without a recipe, the settings are chosen from the amount of text (`recipe_choice`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from transformers import HfArgumentParser

from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from .arguments import VanillaTransformerTrainingArguments
from .recipe_arguments import NOT_IDENTITY, DataArguments, ModelArguments, RunArguments
from .recipe_choice import choose_held_out, choose_recipe
from .recipe_hints import hint
from .recipe_text import comments_of, recipe_text
from .recipe_yaml import Setting, parse_yaml, read_yaml

PACKAGE_RECIPES = Path(__file__).resolve().parents[1] / "recipes"
ARGUMENTS: list[Any] = [ModelArguments, DataArguments, RunArguments, VanillaTransformerTrainingArguments]
FOR_SCRIPTS = ("do_train", "do_eval", "do_predict")  # TrainingArguments fields that Trainer itself never reads


@dataclass
class Recipe:
    """A recipe that has been read and checked.

    Attributes:
        path: the YAML file; for chosen settings, the one that the run writes.
        model, data, run, training: its settings, by topic.
        search: settings of the beam search with which the run is evaluated.
        settings: all keys that were given or chosen, as text.
        chosen_text: the chosen settings as YAML, which the run writes to its directory; None for a recipe's file.
        summary: what the settings were chosen for, as text; "" if none were chosen.
    """

    path: Path
    model: ModelArguments
    data: DataArguments
    run: RunArguments
    training: VanillaTransformerTrainingArguments
    search: BeamSearchConfig
    settings: dict[str, str | list[str] | None]
    chosen_text: str | None = None
    summary: str = ""

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def identity(self) -> dict[str, str | list[str] | None]:
        """The settings that a run must share with the run that it resumes."""
        return {key: value for key, value in sorted(self.settings.items()) if key not in NOT_IDENTITY}


def package_recipes() -> list[str]:
    """List the names of the recipes in the package."""
    return sorted(path.name.removesuffix(".yaml") for path in PACKAGE_RECIPES.glob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """Resolve a path, or the name of a recipe in the package, to a file.

    Args:
        name: path of a YAML file. A bare name such as "tiny", with no folder and no .yaml, is looked up in the package
            if there is no file of that name.

    Raises:
        ValueError: If there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.name != str(name) or path.suffix in (".yaml", ".yml"):
        raise ValueError(f"there is no recipe {path}; the package has {', '.join(package_recipes())}")
    if path.name not in package_recipes():
        close = get_close_matches(path.name, package_recipes(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the package has {', '.join(package_recipes())}"
        raise ValueError(f"there is no recipe {path}, neither a file nor in the package; {hint}")
    return PACKAGE_RECIPES / f"{path.name}.yaml"


def read_recipe(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file, or the name of a recipe in the package ("tiny"). None chooses the settings from the amount of
            text in the training files that ``overrides`` names.
        overrides: command-line words "--key value" or "--key=value" that take precedence over the file. Hyphens in a
            key are read as underscores; the value "null" unsets a key. A key for a list may be repeated.

    Returns:
        The recipe. Without an ``output_dir`` of its own, it writes to runs/NAME.

    Raises:
        ValueError: If the file cannot be read, a key is unknown, or a value is invalid; the message contains file and
            line.
    """
    parser = _Parser(ARGUMENTS, allow_abbrev=False, add_help=False)
    given = _read_overrides(overrides)
    chosen_text, summary = None, ""
    if path is None:
        chosen = choose_recipe(given, _convert(parser, given))
        path, chosen_text, summary = chosen.path, chosen.text, chosen.summary
        settings = {**parse_yaml(chosen.text, chosen.path), **chosen.command_only}
    else:
        path = find_recipe(path)
        settings = {**read_yaml(path), **given}
    values = {"output_dir": str(Path("runs") / path.stem), **_convert(parser, settings)}
    if _lacks_validation(path, values):
        pairs, summary = choose_held_out(values)
        settings["held_out_pairs"] = Setting([str(pairs)], "chosen")
        values["held_out_pairs"] = pairs
    if values.get("eval_strategy", "no") != "no":
        values.setdefault("metric_for_best_model", "loss")  # so that the best checkpoint is tracked and kept
    where = "command line" if chosen_text is not None else path
    try:
        model, data, run, training = parser.parse_dict(values)
        search = run.search
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    texts = {key: setting.text for key, setting in settings.items()}
    recipe = Recipe(path, model, data, run, training, search, texts, chosen_text, summary)
    _check_combination(recipe)
    return recipe


def print_recipe(recipe: Recipe, overrides: Sequence[str] = ()) -> str:
    """Return a recipe as YAML, with all settings that were given or chosen.

    Args:
        recipe: from `read_recipe`.
        overrides: the words that it was read with; their settings are marked.
    """
    if recipe.chosen_text is not None:
        return recipe.chosen_text
    comments = comments_of(recipe.path) | dict.fromkeys(_read_overrides(overrides), "given")
    words = {key: [text] if isinstance(text, str) else text for key, text in recipe.settings.items()}
    return recipe_text([f"The recipe {recipe.name}, with the settings of the command line."], words, comments)


def _lacks_validation(path: Path, values: dict[str, Any]) -> bool:
    """Return whether a recipe of the package evaluates during training, and only training files were given."""
    return (
        path.parent == PACKAGE_RECIPES
        and bool(values.get("train_source") or values.get("train_file"))
        and not any(values.get(key) for key in ("validation_source", "validation_file", "streaming"))
        and "held_out_pairs" not in values
        and str(values.get("eval_strategy", "no")) != "no"
    )


def _read_overrides(words: Sequence[str]) -> dict[str, Setting]:
    lists = {key for key, kind in _kinds().items() if list in (kind, *map(get_origin, (kind, *get_args(kind))))}
    settings: dict[str, Setting] = {}
    given: list[str] | None = None
    for word in words:
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            key = key.replace("-", "_")
            given = settings[key].words if key in settings and key in lists else []
            assert given is not None
            given += [value] if equals else []
            settings[key] = Setting(given, "command line")
        elif given is None:
            raise ValueError(f"command line: {word!r} follows no key; write settings as --key value")
        else:
            given.append(word)
    for key, item in settings.items():
        if item.words == ["null"] or (key in lists and item.words and item.words[-1] == "null"):
            settings[key] = Setting(None, item.origin)
    return settings


def _kinds() -> dict[str, Any]:
    """Return the type of each key."""
    return {key: kind for arguments in ARGUMENTS for key, kind in get_type_hints(arguments).items()}


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process."""
        raise ValueError(message.split(": ", 1)[-1] if message.startswith("argument ") else message)


def _convert(parser: _Parser, settings: dict[str, Setting]) -> dict[str, Any]:
    """Convert each setting's text to the type of its field."""
    kinds = _kinds()
    # In reverse, so that the first action of a name is kept; a boolean field has a second one, --no_name.
    actions = {action.dest: action for action in reversed(parser._actions)}
    values: dict[str, Any] = {}
    for key, setting in settings.items():
        if key not in actions:
            raise ValueError(f"{setting.origin}: there is no setting {key!r}{hint(key, list(actions))}")
        if key in FOR_SCRIPTS:
            raise ValueError(
                f"{setting.origin}: {key} has no effect in a recipe; leave it out, a run trains, evaluates and tests "
                "on the data that the recipe names"
            )
        if setting.words is None:
            if type(None) not in get_args(kinds[key]):
                raise ValueError(f"{setting.origin}: {key} can't be null; leave it out for {actions[key].default!r}")
            values[key] = None
            continue
        # A single word is joined to its key, so that it may start with a hyphen.
        words = [f"--{key}={setting.words[0]}"] if len(setting.words) == 1 else [f"--{key}", *setting.words]
        try:
            namespace, rest = parser.parse_known_args(words)
        except ValueError as error:
            raise ValueError(f"{setting.origin}: {key}: {error}") from error
        if rest:
            raise ValueError(f"{setting.origin}: {key} takes one value, not {len(setting.words)}")
        values[key] = getattr(namespace, key)
    return values


def _check_combination(recipe: Recipe) -> None:
    """Reject settings of different topics that contradict each other."""
    run, training = recipe.run, recipe.training
    limit, averaged = training.save_total_limit, max(run.average_last, run.average_best)
    tracked = training.metric_for_best_model is not None  # then one of the kept ones is the best, maybe an old one
    if averaged and limit is not None and limit < averaged + tracked:
        raise ValueError(
            f"{recipe.path}: save_total_limit={limit} keeps too few checkpoints for an average of {averaged}"
            f"{' beside the best' if tracked else ''}; set it to {averaged + tracked} or more"
        )
    if (run.average_best or run.early_stopping_patience) and training.eval_strategy == "no":
        raise ValueError(
            f"{recipe.path}: average_best and early_stopping_patience need the validation loss; set eval_strategy: "
            "steps"
        )
    if recipe.data.bpe_dropout and training.max_steps <= 0:
        raise ValueError(
            f"{recipe.path}: with bpe_dropout={recipe.data.bpe_dropout} every pass over the text differs, so the run's "
            "length is counted in updates; set max_steps instead of num_train_epochs"
        )
    if recipe.data.streaming and training.max_steps <= 0:
        raise ValueError(f"{recipe.path}: a stream has no length from which to count epochs; set max_steps")


__all__ = ["PACKAGE_RECIPES", "Recipe", "find_recipe", "package_recipes", "print_recipe", "read_recipe"]
