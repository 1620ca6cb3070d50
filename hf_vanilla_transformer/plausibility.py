# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Signs that a result is useless although nothing has failed: functions that return a sentence for the log, or None.

Each sentence has the number that gives it away and what to do. None of them is an error: an odd setting may be meant.
"""

import re
from collections import Counter
from collections.abc import Iterable

PAPER_WARMUP_STEPS = 4000  # §5.3
_SHARE = 0.5  # of the translations; as many empty or repeating ones are said
_LEAST_TRANSLATIONS = 3
_LEAST_FOR_SAME = 10  # distinct sources, before one and the same translation of half of them is odd
_MOST_REMEMBERED = 10_000  # translations held together
_MOST_CHARACTERS = 1000  # of a translation that are looked at for repetition
_HIGH_PEAK, _LOW_PEAK = 6.0, 1 / 20  # times the rate that Equation 3 reaches with the paper's warm-up
_FEW_PAIRS = 1000
# A unit of 1 to 30 characters, six times or more in a row.
_REPEATED = re.compile(r"(\S.{0,29}?)\1{5,}", re.DOTALL)


class TranslationTally:
    """Counts empty, repeating and identical translations as they come."""

    def __init__(self) -> None:
        self.sources = self.empty = self.repeating = 0
        self._translations: Counter[str] = Counter()
        self._seen: set[str] = set()

    def add(self, source: str, translation: str) -> None:
        """Count one translation; that of an empty source is rightly empty."""
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
        """Return what is wrong with most of the translations, or None."""
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
            f"{what}: the model is of no use yet, or its tokenizer or the language of the sources is not the one that "
            "it was trained with; look at the loss and perplexity of its training, and train longer"
        )


def doubtful_translations(sources: Iterable[str], translations: Iterable[str]) -> str | None:
    """Return what is wrong with most of some translations, or None; see `TranslationTally`."""
    tally = TranslationTally()
    for source, translation in zip(sources, translations, strict=True):
        tally.add(source, translation)
    return tally.warning()


def repeats_itself(text: str) -> bool:
    """Whether half of a text of 20 characters or more is one unit, repeated six times or more in a row."""
    text = text.strip()[:_MOST_CHARACTERS]
    if len(text) < 20:
        return False
    return sum(len(found[0]) for found in _REPEATED.finditer(text + " ")) * 2 >= len(text)


def run_inside_warmup(updates: int, warmup_steps: int) -> str | None:
    """Return what is wrong with a run that ends before the learning rate has reached its peak, or None.

    Args:
        updates: of the run.
        warmup_steps: updates over which the rate rises.
    """
    if not 0 < updates <= warmup_steps:
        return None
    return (
        f"the run ends after {updates:,} updates, inside the warm-up of {warmup_steps:,}: the learning rate only "
        f"reaches {updates / warmup_steps:.2%} of its peak, and the model hardly learns; train longer (max_steps or "
        "num_train_epochs), make more updates of the same text (a smaller max_tokens_per_batch), or set warmup_steps "
        "to about a tenth of the updates"
    )


def odd_peak_rate(peak: float, d_model: int, warmup_steps: int) -> str | None:
    """Return what is wrong with a peak of the learning rate far from the paper's scale, or None.

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
        f"the learning rate peaks at {peak:.2g}, {times} what Equation 3 gives with the paper's warm-up "
        f"({usual:.2g} for d_model={d_model}); "
        + (
            f"training may diverge: lower the rate, or raise warmup_steps={warmup_steps}"
            if peak > usual
            else "the model may hardly learn: raise the rate"
        )
    )


def few_pairs(pairs: int) -> str | None:
    """Return what to expect of a very small training corpus, or None."""
    if pairs >= _FEW_PAIRS:
        return None
    return (
        f"there are only {pairs:,} training pairs, which a model learns by heart instead of learning to translate; use "
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
