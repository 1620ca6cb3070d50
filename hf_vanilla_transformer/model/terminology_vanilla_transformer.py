# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Terminology of a language pair: source terms, and the phrases that translate them."""

from collections.abc import Mapping
from typing import Any

# Scripts without spaces between words, and Hangul, whose particles follow a word without a space: code points.
_UNSPACED = (
    range(0x0E00, 0x0F00),  # Thai, Lao
    range(0x1000, 0x10A0),  # Myanmar
    range(0x1100, 0x1200),  # Hangul Jamo
    range(0x1780, 0x1800),  # Khmer
    range(0x2E80, 0xA000),  # Han, Hiragana, Katakana, Bopomofo
    range(0xAC00, 0xD800),  # Hangul
    range(0xF900, 0xFB00),  # Han
    range(0x20000, 0x40000),  # Han
)


class Terminology:
    """Finds the terms of a text.

    A term is found as a whole word or several: "bank" is not in "banks". Next to characters of scripts without spaces,
    and of Hangul, whose particles follow without a space, a term is found anywhere. A term in lower case matches any
    case, a term with capitals its own spelling only. Of terms that overlap, the first counts, and of those that begin
    at the same place the longest.
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        """Take the entries.

        Args:
            entries: source term -> target phrase.

        Raises:
            ValueError: If a term or a phrase is blank or not a string.
        """
        self._phrases: dict[str, str] = {}
        for term, phrase in entries.items():
            if not isinstance(term, str) or not isinstance(phrase, str) or not term.strip() or not phrase.strip():
                raise ValueError(f"the term {term!r} with the translation {phrase!r} is not a pair of texts")
            self._phrases[term.strip()] = phrase.strip()
        self._lengths = sorted({len(term) for term in self._phrases}, reverse=True)

    @classmethod
    def of(cls, entries: Any) -> "Terminology":
        """Return a terminology as it is, and make one of a mapping.

        Raises:
            ValueError: If it is of another type.
        """
        if isinstance(entries, Terminology):
            return entries
        if not isinstance(entries, Mapping):
            raise ValueError(f"terminology={entries!r} is not a mapping; give {{source term: target phrase}}")
        return cls(entries)

    def phrases(self, text: str) -> list[str]:
        """Return the target phrases of the terms in a text, each once, in the order of the terms."""
        lowered = _lower(text)
        found: list[str] = []
        place = 0
        while place < len(text):
            length = self._term_at(text, lowered, place)
            if length:
                term = text[place : place + length]
                found.append(self._phrases.get(term) or self._phrases[lowered[place : place + length]])
            place += length or 1
        return list(dict.fromkeys(found))

    def _term_at(self, text: str, lowered: str, place: int) -> int:
        """Return the length of the longest term that begins at a place of a text; 0 if none does."""
        if _same_word(text, place):
            return 0
        for length in self._lengths:
            end = place + length
            if end > len(text) or _same_word(text, end):
                continue
            # A term in lower case is its own lower-case spelling, so that terms with capitals are not found by it.
            if text[place:end] in self._phrases or lowered[place:end] in self._phrases:
                return length
        return 0


def _same_word(text: str, place: int) -> bool:
    """Return whether the characters before and at a place belong to one word."""
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    return before.isalnum() and after.isalnum() and not _is_unspaced(before) and not _is_unspaced(after)


def _is_unspaced(character: str) -> bool:
    return any(ord(character) in block for block in _UNSPACED)


def _lower(text: str) -> str:
    """Convert to lower case, character by character, so that places stay the same."""
    return "".join(lower if len(lower := character.lower()) == 1 else character for character in text)


__all__ = ["Terminology"]
