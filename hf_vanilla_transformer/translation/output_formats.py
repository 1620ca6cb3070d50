# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Write translations as text, tab-separated values or JSON lines, and show the progress on a terminal."""

import json
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, TextIO

from ..alignment.pharaoh import format_alignment
from .texts import ScoredTranslation

_INTERVAL = 0.2  # seconds between two updates of the progress


def format_text(source: str, translations: Sequence[ScoredTranslation], scores: bool) -> str:
    """Return one line per translation; with ``scores``, the score follows after a tab, then the alignment if any."""
    rows = [(translation, _further_cells(translation, scores)) for translation in translations]
    return "".join(_row(_cell(found.text) if cells else found.text, *cells) for found, cells in rows)


def format_tsv(source: str, translations: Sequence[ScoredTranslation], scores: bool) -> str:
    """Return one row per translation: source, translation, with ``scores`` its score, and its alignment if any."""
    return "".join(_row(_cell(source), _cell(found.text), *_further_cells(found, scores)) for found in translations)


def format_jsonl(source: str, translations: Sequence[ScoredTranslation], scores: bool) -> str:
    """Return one JSON object: the source and all its translations, always with scores, with alignments if any."""
    found: list[dict[str, Any]] = []
    for translation in translations:
        found.append({"text": translation.text, "score": round(translation.score, 6)})
        if translation.alignment is not None:
            found[-1]["alignment"] = format_alignment(translation.alignment)
    return json.dumps({"source": source, "translations": found}, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[str, Sequence[ScoredTranslation], bool], str]] = {
    "text": format_text,
    "tsv": format_tsv,
    "jsonl": format_jsonl,
}


def _row(*cells: str) -> str:
    return "\t".join(cells).replace("\r", " ").replace("\n", " ") + "\n"


def _cell(text: str) -> str:
    return text.replace("\t", " ")


def _further_cells(translation: ScoredTranslation, scores: bool) -> list[str]:
    """Return the score, if wanted, and the alignment, if there is one."""
    cells = [f"{translation.score:.4f}"] if scores else []
    return cells if translation.alignment is None else [*cells, format_alignment(translation.alignment)]


class Progress:
    """Shows how many lines are translated, lines per second and the time left, in one line of a terminal.

    Args:
        terminal: where it is shown; None shows nothing.
        total: number of lines; None if it is not known.
    """

    def __init__(self, terminal: TextIO | None, total: int | None = None) -> None:
        self._terminal, self._total = terminal, total
        self._written = self._translated = 0  # lines; the second one with those that are translated but not written
        self._elsewhere = self._before = 0  # lines translated by other processes, and by earlier starts
        self._started = self._shown = time.monotonic()
        self._width = 0

    def start(self) -> None:
        """Start the clock: what was before, as loading the model, is not counted."""
        self._started = self._shown = time.monotonic()

    def translated(self, lines: int) -> None:
        """Count the lines of a batch."""
        self._translated += lines
        self._show()

    def elsewhere(self, lines: int, before: int) -> None:
        """Set the number of lines that this process does not translate.

        Args:
            lines: translated by other processes and earlier starts until now.
            before: how many of them were translated before this process started; the rate does not count these.
        """
        self._elsewhere, self._before = lines, before
        self._show()

    def written(self) -> None:
        """Count a line that is written."""
        self._written += 1
        # Empty lines are written without having been translated.
        self._translated = max(self._translated, self._written)

    def _show(self) -> None:
        now = time.monotonic()
        if self._terminal is None or now - self._shown < _INTERVAL:
            return
        self._shown = now
        translated = self._translated + self._elsewhere
        rate = (translated - self._before) / max(now - self._started, 1e-9)
        of, left = "", ""
        if self._total is not None:
            of = f" of {self._total:,}"
            if rate > 0:
                left = f", {clock_time(max(0, self._total - translated) / rate)} left"
        self._print(f"{translated:,}{of} lines, {rate:,.1f} lines/s{left}")

    def _print(self, text: str, end: str = "") -> None:
        assert self._terminal is not None
        self._terminal.write(f"\r{text:<{self._width}}{end}")
        self._terminal.flush()
        self._width = len(text)

    def close(self) -> None:
        """Show the final numbers."""
        if self._terminal is not None:
            seconds = time.monotonic() - self._started
            written = self._written + self._elsewhere - self._before
            rate = written / max(seconds, 1e-9)
            self._print(f"{written:,} lines in {clock_time(seconds)}, {rate:,.1f} lines/s", end="\n")

    def clear(self) -> None:
        """Remove the line from the terminal, before a message."""
        if self._terminal is not None and self._width:
            self._terminal.write(f"\r{'':<{self._width}}\r")
            self._terminal.flush()


def clock_time(seconds: float) -> str:
    """Return a duration as "0:07" or "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def open_terminal(stream: TextIO | None, output: IO[bytes] | None = None) -> TextIO | None:
    """Return a stream for the progress if it is a terminal to which the translations are not written, else None."""
    if stream is None or not stream.isatty() or (output is not None and output.isatty()):
        return None
    return stream


__all__ = ["FORMATS", "Progress", "clock_time", "format_jsonl", "format_text", "format_tsv", "open_terminal"]
