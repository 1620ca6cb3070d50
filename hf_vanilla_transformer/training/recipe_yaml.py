# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read a recipe's YAML without building Python objects: each key with its raw text and line number."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_RECIPE_BYTES = 100_000
_MAX_DEPTH = 8
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
}
_NULL_TAG = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Setting:
    """The text given for a key.

    Attributes:
        words: one word, or the items of a list; None for null.
        origin: where it was given, for messages: "my.yaml:3" or "command line".
    """

    words: list[str] | None
    origin: str

    @property
    def text(self) -> str | list[str] | None:
        """The words as they are recorded: a list only where there are several."""
        return self.words[0] if self.words is not None and len(self.words) == 1 else self.words


def read_yaml(path: Path) -> dict[str, Setting]:
    """Read a flat mapping from keys to texts, lists of texts, or small dictionaries, which become JSON.

    Raises:
        ValueError: If the file is missing, too large, or not such a mapping; the message contains file and line.
    """
    return parse_yaml(_read_text(path), path)


def parse_yaml(text: str, path: Path) -> dict[str, Setting]:
    """Parse the text of a recipe as `read_yaml` does.

    Args:
        text: the YAML.
        path: its file, for messages.
    """
    root = _compose(path, text)
    if root is None:
        raise ValueError(f"{path} is empty; write settings as `key: value` lines")
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{path}: a recipe is a list of `key: value` lines")
    settings: dict[str, Setting] = {}
    for key_node, value_node in root.value:
        origin = f"{path}:{key_node.start_mark.line + 1}"
        key = _scalar(key_node, origin)
        if key is None:
            raise ValueError(f"{origin}: the setting has no name")
        if key in settings:
            raise ValueError(f"{origin}: {key} is set a second time; the first is at {settings[key].origin}")
        settings[key] = Setting(_words(value_node, origin), origin)
    return settings


def _read_text(path: Path) -> str:
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
    return text


def _compose(path: Path, text: str) -> yaml.Node | None:
    """Parse the text to nodes, none of which is expanded or constructed; None for an empty document."""
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            where = f"{path}:{event.start_mark.line + 1 if event.start_mark is not None else 1}"
            if getattr(event, "anchor", None) is not None:  # a few lines of aliases can expand to gigabytes
                raise ValueError(f"{where}: anchors and aliases are not allowed in a recipe")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ValueError(f"{where}: nested too deeply; a recipe is flat")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ValueError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def _words(node: yaml.Node, origin: str) -> list[str] | None:
    _check_tag(node, origin)
    if isinstance(node, yaml.SequenceNode):
        words = [_scalar(item, origin) for item in node.value]
        if not words or None in words:
            raise ValueError(f"{origin}: an empty list or item; leave the setting out, or set it to null")
        return [word for word in words if word is not None]
    if isinstance(node, yaml.MappingNode):
        return [json.dumps(_plain(node, origin))]
    word = _scalar(node, origin)
    return None if word is None else [word]


def _scalar(node: yaml.Node, origin: str) -> str | None:
    _check_tag(node, origin)
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{origin}: a recipe is flat; write a single value or a list of values")
    return None if node.tag == _NULL_TAG else str(node.value)


def _plain(node: yaml.Node, origin: str) -> Any:
    """Return a node as a JSON value; unquoted text that is a number in JSON, such as 1e-1, becomes the number."""
    _check_tag(node, origin)
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


def _check_tag(node: yaml.Node, origin: str) -> None:
    if node.tag not in _PLAIN_TAGS:
        raise ValueError(
            f"{origin}: the YAML tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not allowed in a recipe"
        )


__all__ = ["MAX_RECIPE_BYTES", "Setting", "parse_yaml", "read_yaml"]
