# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The script that a text is written in, and the scripts that a language is written in."""

import re
from collections.abc import Iterable

from ..languages import base_language

_MOSTLY = 0.7  # share of the letters that are of one script
_LEAST_LETTERS = 40
_HAN = "Han"
_CHARACTERS = {  # script → characters of a regular expression
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Cyrillic": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Hangul": "\uac00-\ud7a3\u1100-\u11ff\u3130-\u318f",
    "Kana": "\u3040-\u30ff",
    _HAN: "\u3400-\u4dbf\u4e00-\u9fff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Hebrew": "\u0590-\u05ff",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
}
_PATTERNS = {script: re.compile(f"[{characters}]") for script, characters in _CHARACTERS.items()}
_LANGUAGES = {  # script → languages that are written in it and in no other of these scripts
    "Latin": "af ca cs cy da de en es et eu fi fr ga gl hr ht hu id is it kr la lb lt lv ms mt nb nl nn no pl pt ro se "
    "sk sl so sq sv sw tl tr vi xh yo zu",
    "Cyrillic": "be bg mk ru uk",
    "Greek": "el",
    "Hangul": "ko",
    "Arabic": "ar fa ps ur",
    "Hebrew": "he yi",
    "Devanagari": "hi mr ne",
    "Thai": "th",
}
_EXPECTED = {code: {script} for script, codes in _LANGUAGES.items() for code in codes.split()}
_EXPECTED |= {"ja": {"Kana", _HAN}, "zh": {_HAN}}
# BLEU's usual tokenizer splits at spaces, which these scripts do not have, or which stand between longer units.
NOT_SPLIT_AT_SPACES = {"Hangul": "ko", "Kana": "ja", _HAN: "zh"}


def main_script(texts: Iterable[str]) -> str | None:
    """Return the script of at least 70% of the letters; None if there is none, or fewer than 40 letters."""
    text = "".join(texts)
    counts = {script: len(pattern.findall(text)) for script, pattern in _PATTERNS.items()}
    if counts["Kana"] * 5 >= counts[_HAN]:  # Japanese: both
        counts["Kana"], counts[_HAN] = counts["Kana"] + counts[_HAN], 0
    total, script = sum(counts.values()), max(counts, key=lambda name: counts[name])
    return script if total >= _LEAST_LETTERS and counts[script] >= _MOSTLY * total else None


def unexpected_script(texts: Iterable[str], language: str) -> str | None:
    """Return the script that most letters have if the language is written in another one, else None.

    Args:
        texts: some lines of the text.
        language: a language code; of names without a language, nothing is known.
    """
    expected = _EXPECTED.get(base_language(language) or "")
    script = None if expected is None else main_script(texts)
    return None if expected is None or script in expected else script


__all__ = ["NOT_SPLIT_AT_SPACES", "main_script", "unexpected_script"]
