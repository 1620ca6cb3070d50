# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Estimate the time that a run still takes, from the duration of its updates."""

import time
from collections.abc import Callable


class TimeLeft:
    """Measures the mean duration of updates, and computes the time left from it.

    The first update is not timed: it compiles, fills caches and starts worker processes.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None  # number of the first update, and when it ended, in seconds
        self._last = (0, 0.0)

    def end_update(self, update: int, seconds_paused: float) -> None:
        """Record the end of an update.

        Args:
            update: its number.
            seconds_paused: time spent in evaluation and saving so far, which is not counted.
        """
        self._last = update, self._clock() - seconds_paused
        if self._first is None:
            self._first = self._last

    @property
    def timed_updates(self) -> int:
        """Number of updates that were timed."""
        return 0 if self._first is None else self._last[0] - self._first[0]

    @property
    def seconds_per_update(self) -> float | None:
        """Mean duration of the timed updates in seconds; None before there is one."""
        if self._first is None or not self.timed_updates:
            return None
        return (self._last[1] - self._first[1]) / self.timed_updates

    def seconds(self, updates: int) -> float | None:
        """Return the estimated time for a number of updates in seconds; None before an update is timed."""
        per_update = self.seconds_per_update
        return None if per_update is None else per_update * updates


def duration(seconds: float) -> str:
    """Format a time in its two largest units, as "2 h 05 min" or "40 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600:02d} h"


__all__ = ["TimeLeft", "duration"]
