# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The argument parser of all commands: - or _ in options, exceptions instead of exits, validated numbers."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias


class UsageError(ValueError):
    """The command line is wrong.

    Attributes:
        program: program and command, as "vanilla-transformer train".
    """

    def __init__(self, program: str, message: str) -> None:
        super().__init__(message)
        self.program = program


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that takes ``--num_beams`` for ``--num-beams`` and raises `UsageError` instead of exiting."""

    def parse_known_args(  # type: ignore[override]  # the overloads of typeshed
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as `ArgumentParser` does, with ``_`` in the names of this parser's options replaced by ``-``.

        Other words keep their spelling: they may be keys of a recipe.
        """
        parsed, rest = super().parse_known_args(None if args is None else self._with_dashes(args), namespace)
        # argparse takes all files from the first group of words that are no options: "MODEL --output x FILE" leaves
        # FILE in the rest. Words after an option that is unknown here may be its values.
        files = next((action for action in self._actions if not action.option_strings and action.nargs == "*"), None)
        while files is not None and rest and (rest[0] == "-" or not rest[0].startswith("-")):
            setattr(parsed, files.dest, [*getattr(parsed, files.dest), rest.pop(0)])
        return parsed, rest

    def _with_dashes(self, words: Sequence[str]) -> list[str]:
        known = [name for action in self._actions for name in action.option_strings]
        end = words.index("--") if "--" in words else len(words)
        changed = []
        for word in words[:end]:
            name, equals, value = word.partition("=")
            dashed = name.replace("_", "-")
            if name.startswith("--") and any(option.startswith(dashed) for option in known):
                word = f"{dashed}{equals}{value}"
            changed.append(word)
        return [*changed, *words[end:]]

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(self.prog, message)


Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a `type` for `add_argument`: an integer from ``least`` to ``most``."""
    return _number(int, "whole number", least, most)


def real_number(least: float, most: float) -> Callable[[str], float]:
    """Return a `type` for `add_argument`: a number from ``least`` to ``most``."""
    return _number(float, "number", least, most)


def _number(kind: Any, description: str, least: float, most: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:  # NaN is in no range
            raise argparse.ArgumentTypeError(f"{text} is not a {description} from {least:,} to {most:,}")
        return value

    return parse


def name_and_value(text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``; a `type` for `add_argument`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE, e.g. num_heads=8")
    return name, value


__all__ = ["Parser", "Subparsers", "UsageError", "name_and_value", "real_number", "whole_number"]
