# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""A recipe: a YAML file that says what is trained on what, and how; `--key value` overrides any of its keys.

A recipe is flat. Its keys are the fields of the four dataclasses below: the model, the data, the run, and Trainer's
arguments. YAML serves as notation only: nothing in the file is ever constructed, every value is read as the text that
stands there and converted by the type of its field, just as on the command line. So 1e-3 is a number and `no` a word.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser

from .arguments import VanillaTransformerTrainingArguments

EMBEDDED = "embedded"  # the data set's name that means the corpus made by rule
MAX_RECIPE_BYTES = 100_000
_MAX_DEPTH = 8
_SPLITS = ("train", "validation", "test")
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
}
_NULL_TAG = "tag:yaml.org,2002:null"

# What may differ when a run is continued: where it writes and what it says, not what it computes.
NOT_IDENTITY = frozenset(
    """
    output_dir overwrite_output_dir resume_from_checkpoint ignore_data_skip run_name report_to project
    trackio_space_id logging_dir logging_strategy logging_steps logging_first_step log_level log_level_replica
    log_on_each_node disable_tqdm push_to_hub hub_model_id hub_strategy hub_token hub_private_repo
    hub_always_push hub_revision dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers
    dataloader_pin_memory per_device_eval_batch_size include_num_input_tokens_seen skip_memory_metrics num_beams
    length_penalty metric_tokenize max_source_tokens average_last average_best early_stopping_patience num_train_epochs
    max_steps save_total_limit resume_anyway max_skipped_updates
    """.split()
)


# Trainer's fields that no Trainer reads: scripts do, and `train` goes by the data that a recipe names.
_FOR_SCRIPTS = ("do_train", "do_eval", "do_predict")


@dataclass
class ModelArguments:
    """What is trained."""

    preset: str = field(
        default="base", metadata={"help": "Architecture: base, big, small, tiny or a row of Table 3 (see `presets`)."}
    )
    config_overrides: str | None = field(
        default=None, metadata={"help": 'Configuration fields over the preset, as {"encoder_layers": 2}.'}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Start from this checkpoint, with its tokenizer, instead of from scratch."}
    )

    def __post_init__(self) -> None:
        if self.model_name_or_path is not None and self.config_overrides is not None:
            raise ValueError(
                "config_overrides change an architecture to be built, and model_name_or_path brings a built one; "
                "leave one of them out"
            )
        self.overrides  # noqa: B018 - refuses what isn't a dictionary before any work is done

    @property
    def overrides(self) -> dict[str, Any]:
        """``config_overrides`` as a dictionary."""
        try:
            fields = json.loads(self.config_overrides or "{}")
        except ValueError as error:
            raise ValueError(f"config_overrides {self.config_overrides!r} is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(f'config_overrides {self.config_overrides!r} is no dictionary, as in {{"d_ff": 512}}')
        return fields


@dataclass
class DataArguments:
    """What it is trained on: text files in pairs, tables, a data set's name, or the embedded corpus."""

    train_source: list[str] | None = field(default=None, metadata={"help": "Text file(s), a sentence a line."})
    train_target: list[str] | None = field(default=None, metadata={"help": "Their translations, line by line."})
    train_file: list[str] | None = field(
        default=None, metadata={"help": "Table(s) instead: .tsv, .csv, .jsonl or .parquet, with two columns named."}
    )
    validation_source: list[str] | None = field(default=None, metadata={"help": "See train_source."})
    validation_target: list[str] | None = field(default=None, metadata={"help": "See train_target."})
    validation_file: list[str] | None = field(default=None, metadata={"help": "See train_file."})
    test_source: list[str] | None = field(default=None, metadata={"help": "See train_source."})
    test_target: list[str] | None = field(default=None, metadata={"help": "See train_target."})
    test_file: list[str] | None = field(default=None, metadata={"help": "See train_file."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "A Hub data set's name; `embedded` is the corpus made by rule."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "The Hub data set's configuration."})
    train_split: str = field(default="train", metadata={"help": "Split of the Hub data set to train on."})
    validation_split: str | None = field(default="validation", metadata={"help": "Split to validate on; null: none."})
    test_split: str | None = field(default="test", metadata={"help": "Split to test on; null: none."})
    embedded_train: int = field(default=20_000, metadata={"help": "Training pairs of the embedded corpus."})
    embedded_validation: int = field(default=500, metadata={"help": "Validation pairs of the embedded corpus."})
    embedded_test: int = field(default=500, metadata={"help": "Test pairs of the embedded corpus."})
    source_column: str | None = field(
        default=None, metadata={"help": "Column of the source; unset, the one named as source_lang."}
    )
    target_column: str | None = field(
        default=None, metadata={"help": "Column of the target; unset, the one named as target_lang."}
    )
    source_lang: str = field(default="source", metadata={"help": "Language of the source, as en."})
    target_lang: str = field(
        default="target", metadata={"help": "Language of the target, as ko; chooses how to score."}
    )
    streaming: bool = field(default=False, metadata={"help": "Read training text while training; needs max_steps."})
    tokenizer: str | None = field(
        default=None, metadata={"help": "A tokenizer's directory or Hub name, instead of learning one."}
    )
    vocab_size: int = field(default=37_000, metadata={"help": "Subwords of the vocabulary to be learned."})
    tokenizer_model: str = field(
        default="bpe", metadata={"help": "How to learn it, bpe or unigram.", "choices": ("bpe", "unigram")}
    )
    lowercase: bool = field(default=False, metadata={"help": "Let the tokenizer lower-case all text."})
    normalization: str | None = field(
        default="NFC", metadata={"help": "Unicode form that the tokenizer brings text to: NFC, NFKC or null for none."}
    )

    @property
    def files(self) -> list[str]:
        """Every file that the settings name, as written; patterns included."""
        sides = (getattr(self, f"{split}_{side}") for split in _SPLITS for side in ("source", "target", "file"))
        return [name for names in sides for name in names or ()]

    def __post_init__(self) -> None:
        for split in _SPLITS:
            source, target, table = (getattr(self, f"{split}_{side}") for side in ("source", "target", "file"))
            if (source is None) != (target is None):
                missing = f"{split}_source" if source is None else f"{split}_target"
                raise ValueError(f"{missing} is missing; text files come in pairs, line n translating line n")
            if source is not None and table is not None:
                raise ValueError(f"both {split}_source and {split}_file are set; set one of them to null")
        if self.dataset_name is None and self.train_source is None and self.train_file is None:
            raise ValueError(
                "there is nothing to train on; set train_source and train_target, train_file, or dataset_name "
                f"(dataset_name: {EMBEDDED} needs no files)"
            )
        if self.dataset_name is not None and (self.train_source or self.train_file):
            raise ValueError("both dataset_name and training files are set; set one of them to null")
        if self.dataset_name == EMBEDDED:
            if (self.source_lang, self.target_lang) == ("source", "target"):
                self.source_lang, self.target_lang = "en", "ko"
            if {self.source_lang, self.target_lang} != {"en", "ko"}:
                raise ValueError(
                    f"the embedded corpus has en and ko, not {self.source_lang} and {self.target_lang}; set "
                    "source_lang and target_lang to these, in either direction"
                )
        if self.source_lang == self.target_lang:
            raise ValueError(f"source_lang and target_lang are both {self.source_lang!r}; give them different names")
        if self.dataset_name == EMBEDDED and self.streaming:
            raise ValueError("the embedded corpus is made in memory; streaming has no meaning for it")
        for name in ("vocab_size", "embedded_train", "embedded_validation", "embedded_test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass
class RunArguments:
    """What happens before and after the training itself."""

    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete an earlier run's checkpoints in output_dir and start over."}
    )
    average_last: int = field(
        default=0, metadata={"help": "Average the last n checkpoints into the final model (5 and 20 in the paper)."}
    )
    average_best: int = field(
        default=0, metadata={"help": "Average the n kept checkpoints of lowest validation loss instead."}
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after so many evaluations without a lower validation loss; 0 never stops."}
    )
    num_beams: int = field(default=4, metadata={"help": "Beam width of the evaluation (section 6.1)."})
    length_penalty: float = field(default=0.6, metadata={"help": "Exponent of the length penalty (section 6.1)."})
    max_source_tokens: int = field(
        default=1024, metadata={"help": "Evaluation sources with more tokens are translated by an empty line."}
    )
    metric_tokenize: str | None = field(
        default=None, metadata={"help": "sacreBLEU's tokenizer; unset, what target_lang asks for, `none` for none."}
    )

    def __post_init__(self) -> None:
        if self.average_last and self.average_best:
            raise ValueError("both average_last and average_best are set; one final model is one average")
        for name, least in (
            ("average_last", 0),
            ("average_best", 0),
            ("early_stopping_patience", 0),
            ("num_beams", 1),
            ("max_source_tokens", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")


@dataclass
class Recipe:
    """A recipe that has been read and checked.

    Attributes:
        path: the YAML file.
        model, data, run, training: its fields, by what they are about.
        settings: what file and command line said, as text; None, a text or a list a key.
    """

    path: Path
    model: ModelArguments
    data: DataArguments
    run: RunArguments
    training: VanillaTransformerTrainingArguments
    settings: dict[str, str | list[str] | None]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def identity(self) -> dict[str, str | list[str] | None]:
        """The settings that two runs must share for one to continue the other."""
        return {key: value for key, value in sorted(self.settings.items()) if key not in NOT_IDENTITY}


@dataclass(frozen=True)
class _Setting:
    """The words given for a key, None for null, and where they stand."""

    words: list[str] | None
    origin: str


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message.split(": ", 1)[-1] if message.startswith("argument ") else message)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: the YAML file.
        overrides: words of a command line, "--key value" or "--key=value", that take precedence; "null" unsets.

    Returns:
        The recipe; without an ``output_dir`` of its own it writes to runs/NAME.

    Raises:
        ValueError: If the file isn't readable as a recipe, a key is unknown, or a value is of the wrong kind; the
            message names file and line.
    """
    path = Path(path)
    settings = {**_read_yaml(path), **_read_overrides(overrides)}
    classes: list[Any] = [ModelArguments, DataArguments, RunArguments, VanillaTransformerTrainingArguments]
    parser = _Parser(classes, allow_abbrev=False, add_help=False)
    kinds = {key: kind for arguments in classes for key, kind in get_type_hints(arguments).items()}
    actions = {action.dest: action for action in reversed(parser._actions)}  # the first of a name, not its --no_name
    values: dict[str, Any] = {"output_dir": str(Path("runs") / path.stem)}
    for key, setting in settings.items():
        if key not in actions:
            close = get_close_matches(key, actions, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{setting.origin}: there is no setting {key!r}{hint}")
        if key in _FOR_SCRIPTS:
            raise ValueError(
                f"{setting.origin}: {key} has no meaning in a recipe; training, evaluation and test take place where "
                "the recipe names their data"
            )
        if setting.words is None:
            if type(None) not in get_args(kinds[key]):
                raise ValueError(f"{setting.origin}: {key} can't be null; leave it out for {actions[key].default!r}")
            values[key] = None
            continue
        # One word is glued to its key, so that it may start with a hyphen.
        words = [f"--{key}={setting.words[0]}"] if len(setting.words) == 1 else [f"--{key}", *setting.words]
        try:
            namespace, rest = parser.parse_known_args(words)
        except ValueError as error:
            raise ValueError(f"{setting.origin}: {key}: {error}") from error
        if rest:
            raise ValueError(f"{setting.origin}: {key} takes one value, not {len(setting.words)}")
        values[key] = getattr(namespace, key)
    if values.get("eval_strategy", "no") != "no":
        values.setdefault("metric_for_best_model", "loss")  # so that the best checkpoint is known and kept
    try:
        model, data, run, training = parser.parse_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    most = training.save_total_limit
    wanted = max(run.average_last, run.average_best)
    tracked = training.metric_for_best_model is not None  # one of those kept is then the best, which may be an old one
    if wanted and most is not None and most < wanted + tracked:
        raise ValueError(
            f"{path}: save_total_limit={most} keeps too few checkpoints for an average of {wanted}"
            f"{' beside the best' if tracked else ''}; set it to {wanted + tracked} or more"
        )
    if (run.average_best or run.early_stopping_patience) and training.eval_strategy == "no":
        raise ValueError(
            f"{path}: average_best and early_stopping_patience go by the validation loss; set eval_strategy: steps"
        )
    if data.streaming and training.max_steps <= 0:
        raise ValueError(f"{path}: a stream has no length from which epochs could be counted; set max_steps")
    given = {key: _shown(setting.words) for key, setting in settings.items()}
    return Recipe(path, model, data, run, training, given)


def _shown(words: list[str] | None) -> str | list[str] | None:
    return words[0] if words is not None and len(words) == 1 else words


def _read_overrides(words: Sequence[str]) -> dict[str, _Setting]:
    settings: dict[str, _Setting] = {}
    given: list[str] | None = None
    for word in words:
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            given = [value] if equals else []
            settings[key.replace("-", "_")] = _Setting(given, "command line")
        elif given is None:
            raise ValueError(f"command line: {word!r} follows no key; settings are written --key value")
        else:
            given.append(word)
    return {key: _Setting(None, item.origin) if item.words == ["null"] else item for key, item in settings.items()}


# ---------------------------------------------------------------------------------------------- YAML as notation


def _read_yaml(path: Path) -> dict[str, _Setting]:
    """Read a flat mapping of keys to texts, lists of texts, or small dictionaries, which become JSON."""
    if not path.is_file():
        raise ValueError(f"there is no recipe {path}")
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; a recipe has at most {MAX_RECIPE_BYTES:,}")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text") from error
    if "\0" in text:
        raise ValueError(f"{path}:{text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL character; is it a text file?")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            where = f"{path}:{event.start_mark.line + 1 if event.start_mark is not None else 1}"
            if getattr(event, "anchor", None) is not None:  # a few lines of them can stand for gigabytes
                raise ValueError(f"{where}: anchors and aliases have no place in a recipe")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ValueError(f"{where}: nested too deeply for a recipe, which is flat")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ValueError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if root is None:
        raise ValueError(f"{path} is empty; a recipe names at least what to train on")
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{path}: a recipe is a list of `key: value` lines")
    settings: dict[str, _Setting] = {}
    for key_node, value_node in root.value:
        origin = f"{path}:{key_node.start_mark.line + 1}"
        key = _scalar(key_node, origin)
        if key is None:
            raise ValueError(f"{origin}: a setting without a name")
        if key in settings:
            raise ValueError(f"{origin}: {key} is set a second time; it stands at {settings[key].origin} already")
        settings[key] = _Setting(_words(value_node, origin), origin)
    return settings


def _words(node: yaml.Node, origin: str) -> list[str] | None:
    _refuse_tags(node, origin)
    if isinstance(node, yaml.SequenceNode):
        words = [_scalar(item, origin) for item in node.value]
        if not words or None in words:
            raise ValueError(f"{origin}: an empty list or item; leave the setting out, or write null for it")
        return [word for word in words if word is not None]
    if isinstance(node, yaml.MappingNode):
        return [json.dumps(_plain(node, origin))]
    word = _scalar(node, origin)
    return None if word is None else [word]


def _scalar(node: yaml.Node, origin: str) -> str | None:
    _refuse_tags(node, origin)
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{origin}: a recipe is flat; write a single value or a list of them")
    return None if node.tag == _NULL_TAG else str(node.value)


def _plain(node: yaml.Node, origin: str) -> Any:
    """Return numbers, texts, lists and dictionaries; what YAML takes for a text but JSON for a number is the number."""
    _refuse_tags(node, origin)
    if isinstance(node, yaml.MappingNode):
        return {str(_scalar(key, origin)): _plain(value, origin) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, origin) for item in node.value]
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return node.value.lower() in ("true", "yes", "on")
    if getattr(node, "style", None) is None:  # not in quotes
        try:
            return json.loads(node.value.replace("_", ""), parse_constant=str)
        except ValueError:
            pass
    return node.value


def _refuse_tags(node: yaml.Node, origin: str) -> None:
    if node.tag not in _PLAIN_TAGS:
        raise ValueError(
            f"{origin}: the YAML tag {node.tag.replace('tag:yaml.org,2002:', '!!')} has no place in a recipe"
        )


__all__ = [
    "EMBEDDED",
    "DataArguments",
    "ModelArguments",
    "Recipe",
    "RunArguments",
    "read_recipe",
]
