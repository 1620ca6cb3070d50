# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Functions that return a warning if a result is probably useless although no error occurred, else None.

A warning contains the number that caused it and what to do. It is not an error, since an unusual setting may be
intended.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PAPER_WARMUP_STEPS = 4000  # §5.3
MANY = 0.1  # share of the translations that are empty or repeat themselves, from which on there is a warning
_LEAST_BAD = 3  # fewer such translations give no warning
USELESS = 0.9  # share from which on a model is not published
_SAME = 0.5  # share of the distinct sources that have one and the same translation, from which on there is a warning
_LEAST_FOR_SAME = 10  # distinct sources
_MOST_REMEMBERED = 10_000  # translations that are compared with each other
_MOST_CHARACTERS = 1000  # of a translation that are searched for repetition
_LEAST_CHARACTERS = 20  # a shorter text does not repeat itself
_LEAST_REPEATED = 12  # characters of a loop after its first unit
_MOST_IN_NUMBERS = 6  # occurrences in a row of a unit without a letter, from which on they are a loop
_HIGH_PEAK, _LOW_PEAK = 6.0, 1 / 20  # relative to the peak of Equation 3 with the paper's warmup
_FEW_PAIRS = 1000
_LEAST_EVALUATIONS = 4  # fewer say nothing about overfitting
_CHANGED = 0.05  # nats per token by which a validation loss has changed: 5 % of perplexity
_LOOP = re.compile(r"(\S.{0,59}?)\1{2,}", re.DOTALL)  # a unit of 1 to 60 characters, three times or more in a row


class TranslationTally:
    """Counts empty, repetitive and identical translations.

    Attributes:
        sources: number of sources that are not empty.
        empty: how many of them have an empty translation.
        repeating: how many have a translation that repeats itself, as the source does not; see `repeats_itself`.
        first_bad: number of the first of these sources, from 1; 0 if there is none.
    """

    def __init__(self) -> None:
        self.sources = self.empty = self.repeating = self.first_bad = 0
        self._lines = 0
        self._translations: Counter[str] = Counter()
        self._seen: set[str] = set()

    def add(self, source: str, translation: str, line: int | None = None) -> None:
        """Count one translation. Empty sources are ignored.

        Args:
            source: the source.
            translation: its translation.
            line: number of the source; None: it follows the one before.
        """
        self._lines = self._lines + 1 if line is None else line
        if not source.strip():
            return
        self.sources += 1
        if not translation.strip():
            self.empty += 1
        elif repeats_itself(translation) and not repeats_itself(source):
            self.repeating += 1
        if not self.first_bad and self.empty + self.repeating:
            self.first_bad = self._lines
        if len(self._seen) < _MOST_REMEMBERED and source not in self._seen:
            self._seen.add(source)
            self._translations[translation] += 1

    @property
    def shares(self) -> dict[str, float]:
        """The shares, 0 to 1, of the sources whose translation is ``empty`` or ``repeating``."""
        return {name: getattr(self, name) / max(self.sources, 1) for name in ("empty", "repeating")}

    def warning(self) -> str | None:
        """Return a warning about the translations, or None."""
        bad = self.empty + self.repeating
        what = None
        if bad >= max(_LEAST_BAD, MANY * self.sources):
            kinds = " and ".join(
                f"{number:,} of {self.sources:,} translations {kind}"
                for number, kind in ((self.empty, "are empty"), (self.repeating, "repeat themselves"))
                if number
            )
            what = f"{kinds} ({bad / self.sources:.0%}), the first is line {self.first_bad:,}"
        elif len(self._seen) >= _LEAST_FOR_SAME:
            text, times = self._translations.most_common(1)[0]
            if times >= _SAME * len(self._seen):
                of_all = f"{times:,} of {len(self._seen):,} sources, all different,"
                what = f"{of_all} have the same translation ({text[:40]!r})"
        return None if what is None else f"{what}; {_USUAL_CAUSES}"


_USUAL_CAUSES = (
    "usual causes: the model was trained for too few updates or with too high a learning rate, or the tokenizer or the "
    "language of the sources is not that of its training"
)


def doubtful_translations(sources: Iterable[str], translations: Iterable[str]) -> str | None:
    """Return a warning about translations, or None; see `TranslationTally`."""
    return tally_translations(sources, translations).warning()


def tally_translations(sources: Iterable[str], translations: Iterable[str]) -> TranslationTally:
    """Count empty, repetitive and identical translations."""
    tally = TranslationTally()
    for source, translation in zip(sources, translations, strict=True):
        tally.add(source, translation)
    return tally


def poor_translations(scores: Mapping[str, Mapping[str, Any]], least: float = MANY) -> str | None:
    """Describe the split with the largest share of empty or repetitive translations; None if no share is ``least``.

    Args:
        scores: the scores of each split, as in results.json.
        least: share, 0 to 1, from which on there is a description.
    """
    found = {split: sum(_shares(by_name)) for split, by_name in scores.items() if isinstance(by_name, Mapping)}
    split = max(found, key=lambda name: found[name], default=None)
    if split is None or found[split] < least:
        return None
    return f"{found[split]:.0%} of the translations of {split} are empty or repeat themselves"


def _shares(scores: Mapping[str, Any]) -> list[float]:
    shares = (scores.get(name) for name in ("empty", "repeating"))  # absent from records of older versions
    return [share for share in shares if isinstance(share, int | float)]


def repeats_itself(text: str) -> bool:
    """Return whether loops cover at least half of a text of 20 characters or more.

    A loop is a unit of 1 to 60 characters that occurs three times or more in a row, with at least 12 characters after
    its first occurrence: "of the of the of the of the".
    """
    text = " ".join(text[: 2 * _MOST_CHARACTERS].split())[:_MOST_CHARACTERS]
    if len(text) < _LEAST_CHARACTERS:
        return False
    looped = 0
    for found in _LOOP.finditer(text + " "):
        loop, unit = found[0], found[1]
        is_number = not any(character.isalpha() for character in unit)  # 1,000,000,000,000 is no loop
        if len(loop) - len(unit) >= _LEAST_REPEATED and (not is_number or len(loop) >= _MOST_IN_NUMBERS * len(unit)):
            looped += len(loop)
    return 2 * looped >= len(text)


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


def validation_verdict(losses: Sequence[tuple[int, float]], taken: Sequence[int]) -> str | None:
    """Describe whether the validation loss rose or was still falling at the end of a run; None if it did neither.

    Args:
        losses: number of the update and validation loss, in nats per token, of each evaluation, in order.
        taken: updates of the checkpoints that the final model is made of.
    """
    losses = [(update, loss) for update, loss in losses if math.isfinite(loss)]
    if len(losses) < _LEAST_EVALUATIONS:
        return None
    last_update, last = losses[-1]
    best_update, best = min(losses, key=lambda of_update: of_update[1])
    if last >= best + _CHANGED:
        after = sum(update > best_update for update in taken)
        where = "all" if after == len(taken) else "none" if not after else f"{after} of {len(taken)}"
        checkpoints = f"the final model averages {len(taken)} checkpoints, {where} from after that minimum"
        if len(taken) == 1:
            checkpoints = f"the final model is the checkpoint of update {taken[0]:,}"
        return (
            f"the model overfits: the validation loss was lowest at update {best_update:,} ({best:.3f}) and rose to "
            f"{last:.3f} at update {last_update:,}; {checkpoints}; more text would help most"
        )
    before = [of_update for of_update in losses if of_update[0] <= 0.75 * last_update]  # without the last quarter
    if last_update == best_update and before and before[-1][1] >= last + _CHANGED:
        return (
            f"the validation loss was still falling: {before[-1][1]:.3f} at update {before[-1][0]:,}, {last:.3f} at "
            f"update {last_update:,}; a longer run (a larger max_steps, in a new output_dir) may lower it further"
        )
    return None


def few_pairs(pairs: int) -> str | None:
    """Return a warning if there are very few training pairs, else None."""
    if pairs >= _FEW_PAIRS:
        return None
    return (
        f"there are only {pairs:,} training pairs; the model will memorize them instead of learning to translate; use "
        "more text, or start from a trained model (model_name_or_path)"
    )


__all__ = [
    "MANY",
    "USELESS",
    "TranslationTally",
    "doubtful_translations",
    "few_pairs",
    "odd_peak_rate",
    "poor_translations",
    "repeats_itself",
    "run_inside_warmup",
    "tally_translations",
    "validation_verdict",
]
