# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Write recipes as YAML that `recipe_yaml` reads back as the same settings."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

# Text that YAML reads as it stands: no quotes are needed.
_PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./+~ -]*(?<! )")
_COMMENT_COLUMN, _MOST_COLUMNS = 40, 120
_KEY = re.compile(r"^(\w+):", re.MULTILINE)


def recipe_text(header: Sequence[str], settings: Mapping[str, list[str] | None], comments: Mapping[str, str]) -> str:
    """Write settings as YAML, one per line with its comment.

    Args:
        header: lines of text at the top.
        settings: the words of each key; None is null.
        comments: text after the value, by key.
    """
    lines = [f"# {line}" for line in header]
    for key, words in settings.items():
        line = f"{key}: {_value(words)}"
        comment = comments.get(key)
        if not comment:
            lines.append(line)
        elif max(len(line) + 2, _COMMENT_COLUMN) + len(comment) + 2 > _MOST_COLUMNS:
            lines += [f"# {comment}", line]
        else:
            lines.append(f"{line:<{_COMMENT_COLUMN - 2}}  # {comment}")
    return "\n".join(lines) + "\n"


def comments_of(path: Path) -> dict[str, str]:
    """Return the comment behind each setting of a recipe's file."""
    text = path.read_text(encoding="utf-8")
    starts = [*_KEY.finditer(text)]
    ends = [*(found.start() for found in starts[1:]), len(text)]
    comments = {}
    for found, end in zip(starts, ends, strict=True):
        comment = re.search(r"\s# (.*)", text[found.end() : end])
        if comment:
            comments[found[1]] = comment[1].strip()
    return comments


def _value(words: list[str] | None) -> str:
    if words is None:
        return "null"
    if not words:  # an option without a value, such as --overwrite
        return "true"
    return _scalar(words[0]) if len(words) == 1 else f"[{', '.join(_scalar(word) for word in words)}]"


def _scalar(word: str) -> str:
    if word.startswith("{"):  # JSON is YAML
        try:
            return json.dumps(json.loads(word), ensure_ascii=False)
        except ValueError:
            pass
    is_plain = _PLAIN.fullmatch(word) and word.lower() not in ("null", "~")
    return word if is_plain else json.dumps(word, ensure_ascii=False)


__all__ = ["comments_of", "recipe_text"]
