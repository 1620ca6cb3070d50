# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Functions that return a warning if a result is probably useless although no error occurred, else None.

A warning contains the number that caused it and what to do. It is not an error, since an unusual setting may be
intended.
"""

import re
from collections import Counter
from collections.abc import Iterable

PAPER_WARMUP_STEPS = 4000  # §5.3
_SHARE = 0.5  # of the translations that are empty or repetitive, from which on there is a warning
_LEAST_TRANSLATIONS = 3
_LEAST_FOR_SAME = 10  # distinct sources, from which on the same translation for half of them is a sign
_MOST_REMEMBERED = 10_000  # translations that are compared with each other
_MOST_CHARACTERS = 1000  # of a translation that are searched for repetition
_HIGH_PEAK, _LOW_PEAK = 6.0, 1 / 20  # relative to the peak of Equation 3 with the paper's warmup
_FEW_PAIRS = 1000
# A unit of 1 to 30 characters, repeated at least six times in a row.
_REPEATED = re.compile(r"(\S.{0,29}?)\1{5,}", re.DOTALL)


class TranslationTally:
    """Counts empty, repetitive and identical translations."""

    def __init__(self) -> None:
        self.sources = self.empty = self.repeating = 0
        self._translations: Counter[str] = Counter()
        self._seen: set[str] = set()

    def add(self, source: str, translation: str) -> None:
        """Count one translation. Empty sources are ignored."""
        if not source.strip():
            return
        self.sources += 1
        if not translation.strip():
            self.empty += 1
        elif repeats_itself(translation):
            self.repeating += 1
        if len(self._seen) < _MOST_REMEMBERED and source not in self._seen:
            self._seen.add(source)
            self._translations[translation] += 1

    def warning(self) -> str | None:
        """Return a warning about the translations, or None."""
        if self.sources < _LEAST_TRANSLATIONS:
            return None
        what = None
        if self.empty >= _SHARE * self.sources:
            what = f"{self.empty:,} of {self.sources:,} translations are empty"
        elif self.empty + self.repeating >= _SHARE * self.sources:
            what = (
                f"{self.repeating:,} of {self.sources:,} translations repeat themselves"
                f"{f' and {self.empty:,} are empty' if self.empty else ''}"
            )
        elif len(self._seen) >= _LEAST_FOR_SAME:
            text, times = self._translations.most_common(1)[0]
            if times >= _SHARE * len(self._seen):
                what = f"{times:,} of {len(self._seen):,} different sources have the same translation ({text[:40]!r})"
        if what is None:
            return None
        return (
            f"{what}: the model is not trained enough, or the tokenizer or the language of the sources is not that of "
            "its training; check the loss and perplexity of the training, and train longer"
        )


def doubtful_translations(sources: Iterable[str], translations: Iterable[str]) -> str | None:
    """Return a warning about translations, or None; see `TranslationTally`."""
    tally = TranslationTally()
    for source, translation in zip(sources, translations, strict=True):
        tally.add(source, translation)
    return tally.warning()


def repeats_itself(text: str) -> bool:
    """Return whether at least half of a text of 20 characters or more is a unit repeated six times or more in a row."""
    text = text.strip()[:_MOST_CHARACTERS]
    if len(text) < 20:
        return False
    return sum(len(found[0]) for found in _REPEATED.finditer(text + " ")) * 2 >= len(text)


def run_inside_warmup(updates: int, warmup_steps: int) -> str | None:
    """Return a warning if a run ends before the learning rate reaches its peak, else None.

    Args:
        updates: number of updates of the run.
        warmup_steps: updates over which the rate rises.
    """
    if not 0 < updates <= warmup_steps:
        return None
    return (
        f"the run ends after {updates:,} updates, during the warmup of {warmup_steps:,}: the learning rate only "
        f"reaches {updates / warmup_steps:.2%} of its peak, and the model hardly learns; train longer (max_steps or "
        "num_train_epochs), use smaller batches (max_tokens_per_batch) for more updates per epoch, or set warmup_steps "
        "to about a tenth of the updates"
    )


def odd_peak_rate(peak: float, d_model: int, warmup_steps: int) -> str | None:
    """Return a warning if the peak of the learning rate is far from the paper's, else None.

    Args:
        peak: the highest learning rate of the run.
        d_model: width of the model.
        warmup_steps: updates over which the rate rises.
    """
    usual = (d_model * PAPER_WARMUP_STEPS) ** -0.5
    if _LOW_PEAK <= peak / usual <= _HIGH_PEAK:
        return None
    times = f"{peak / usual:.0f} times" if peak > usual else f"1/{usual / peak:.0f} of"
    return (
        f"the learning rate peaks at {peak:.2g}, {times} what Equation 3 gives with the paper's warmup "
        f"({usual:.2g} for d_model={d_model}); "
        + (
            f"training may diverge: lower the rate, or raise warmup_steps={warmup_steps}"
            if peak > usual
            else "the model may hardly learn: raise the rate"
        )
    )


def few_pairs(pairs: int) -> str | None:
    """Return a warning if there are very few training pairs, else None."""
    if pairs >= _FEW_PAIRS:
        return None
    return (
        f"there are only {pairs:,} training pairs; the model will memorize them instead of learning to translate; use "
        "more text, or start from a trained model (model_name_or_path)"
    )


__all__ = [
    "TranslationTally",
    "doubtful_translations",
    "few_pairs",
    "odd_peak_rate",
    "repeats_itself",
    "run_inside_warmup",
]
