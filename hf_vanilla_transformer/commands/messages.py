# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Messages of the library in the words of the command line (not a command)."""

import argparse
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = __package__.partition(".")[0]
_NO_OPTIONS = {"command", "files", "model", "models", "overrides", "run", "speaks_options", "takes_overrides"}
_RENAMED = {  # name in Python -> option, where they differ
    "num_return_sequences": "n_best",
    "num_samples": "mbr_samples",
    "num_best": "mbr_nbest",
}
_NAME = re.compile(r"(?<![\w/.'\"-])([a-z]\w*)(=('[^']*'|\"[^\"]*\"|[^\s,;()]*[^\s,;().:]))?(?![\w/='\"])")


def in_option_words(message: str, options: argparse.Namespace | None) -> str:
    """Replace the names of arguments by the options of the command: "num_beams=4" by "--num-beams 4".

    Args:
        message: of an error or a warning.
        options: of a command that sets ``speaks_options``; otherwise, or if None, the message is returned unchanged.
    """
    if not getattr(options, "speaks_options", False):
        return message

    def option(found: re.Match[str]) -> str:
        name = _RENAMED.get(found[1], found[1])
        # Without a value, "device" or "output" is an ordinary word.
        if not hasattr(options, name) or name in _NO_OPTIONS or (found[2] is None and "_" not in name):
            return found[0]
        value = "" if found[3] is None else f" {found[3].strip(chr(39) + chr(34))}"
        return f"--{name.replace('_', '-')}{value}"

    return _NAME.sub(option, message)


@contextmanager
def warnings_in_option_words(options: argparse.Namespace) -> Iterator[None]:
    """Print the warnings that the package logs in this block, one line each, unless the caller handles them."""
    logger = logging.getLogger(_PACKAGE)
    handler = _WarningHandler(options)
    if logger.handlers:
        yield
        return
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def print_warning(message: str, options: argparse.Namespace) -> None:
    """Print a warning to standard error, on one line."""
    text = " ".join(in_option_words(message, options).split())
    print(f"vanilla-transformer {options.command}: warning: {text}", file=sys.stderr, flush=True)


class _WarningHandler(logging.Handler):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(logging.WARNING)
        self._options = options

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message."""
        print_warning(record.getMessage(), self._options)


__all__ = ["in_option_words", "print_warning", "warnings_in_option_words"]
