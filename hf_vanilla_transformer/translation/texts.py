# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Texts to translate, values that are given for each of them, and their translations."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..alignment.pharaoh import Link


@dataclass(frozen=True)
class ScoredTranslation:
    """A translation with its score.

    Attributes:
        text: the translation.
        score: see `BeamSearchOutput.sequences_scores`, or `MBRConfig`; 0 for a text that was not translated.
        alignment: links (word of the source, word of the translation), see `align_words`; None if not asked for.
    """

    text: str
    score: float
    alignment: tuple[Link, ...] | None = None


class TextSource:
    """Texts for `translate` that decide themselves how many are translated together, e.g. those that a user types.

    Attributes:
        lines_before: number of lines of the input before those that `take` returned last, for messages; None: `take`
            returns all lines in order.
    """

    lines_before: int | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield the texts one by one."""
        while texts := self.take(1):
            yield from texts

    def take(self, most: int) -> list[str]:
        """Wait for texts and return up to ``most`` of them, which are translated at once; [] after the last one."""
        raise NotImplementedError

    def on_batch(self, texts: int) -> None:
        """Called after each batch with the number of its texts."""


class PerText:
    """Values that are given for each text.

    Args:
        name: of the argument.
        values: one per text: a sequence, of which any part can be taken, or an iterable, which is read together with
            the texts; None if they are not given.
        default: the value of each text if they are not given.
    """

    def __init__(self, name: str, values: Iterable[Any] | None, default: Any) -> None:
        self._name, self._default = name, default
        self._sequence = values if isinstance(values, Sequence) else None
        self._iterator = None if values is None or self._sequence is not None else iter(values)
        self._count = 0

    def take(self, number: int, first: int) -> list[Any]:
        """Return the values of the next texts.

        Args:
            number: of texts.
            first: texts before them.

        Raises:
            ValueError: If there are fewer.
        """
        if self._sequence is not None:
            values = list(self._sequence[first : first + number])
            self._count = first + len(values)
        elif self._iterator is not None:
            values = list(islice(self._iterator, number))
            self._count += len(values)
        else:
            return [self._default] * number
        if len(values) < number:
            raise ValueError(f"there are more texts than {self._name} ({self._count}); give one for each text")
        return values

    def check_end(self) -> None:
        """Raise ValueError if there are values after the last text."""
        sequence = () if self._sequence is None else self._sequence
        if self._count < len(sequence) or next(self._iterator or iter(()), None) is not None:
            raise ValueError(f"there are more {self._name} than texts ({self._count}); give one for each text")


__all__ = ["PerText", "ScoredTranslation", "TextSource"]
