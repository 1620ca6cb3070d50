# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Infer the language of a text file from its name, or of a text from a script that only one language uses."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..languages import language_name

_PLAIN_SUFFIXES = ("gz", "txt", "text", "tok", "raw")
_CODE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,4})?")
# Scripts that one language alone uses, each with its least share of the letters; the rest is names, code or English.
_SCRIPTS = (
    ("ko", re.compile(r"[\uac00-\ud7a3\u1100-\u11ff]"), 0.3),
    ("ja", re.compile(r"[\u3040-\u30ff]"), 0.1),
    ("zh", re.compile(r"[\u4e00-\u9fff]"), 0.3),  # after "ja", whose text has these characters as well
    ("th", re.compile(r"[\u0e00-\u0e7f]"), 0.3),
    ("el", re.compile(r"[\u0370-\u03ff]"), 0.3),
)
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")


def language_of_file(name: str | Path) -> str | None:
    """Return the language code at the end of a file's name: "ko" for train.ko, train.ko.gz and train.ko.txt.

    Returns:
        The code; None if there is none.
    """
    parts = Path(name).name.split(".")
    while len(parts) > 1 and parts[-1].lower() in _PLAIN_SUFFIXES:
        parts.pop()
    is_code = len(parts) > 1 and _CODE.fullmatch(parts[-1]) and language_name(parts[-1]) is not None
    return parts[-1] if is_code else None


def language_of_files(names: Sequence[str | Path]) -> str | None:
    """Return the language code that all names end in, or None."""
    codes = {language_of_file(name) for name in names}
    return codes.pop() if len(codes) == 1 else None


def language_of_text(text: str) -> str | None:
    """Return the language of a text whose script only one language uses: Korean, Japanese, Chinese, Thai or Greek."""
    letters = len(_LETTER.findall(text))
    for language, script, share in _SCRIPTS:
        if letters and len(script.findall(text)) >= share * letters:
            return language
    return None


def is_latin(text: str) -> bool:
    """Return whether at least half of the letters of a text are Latin."""
    return 2 * len(_LATIN.findall(text)) >= len(_LETTER.findall(text))


__all__ = ["is_latin", "language_of_file", "language_of_files", "language_of_text"]
