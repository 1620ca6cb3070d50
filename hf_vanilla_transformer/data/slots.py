# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Group examples of similar length into slots; a slot holds the examples of one optimizer update."""

import numpy as np

_STRIP_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # numbers of strips to try


def cut_slots(source: np.ndarray, target: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort examples by length and cut them into slots with as little padding as possible.

    A small number of strips pads targets, a large number pads sources. The best number depends on the data, so several
    are tried.

    Args:
        source: tokens of each source, at most ``budget``.
        target: tokens of each target, at most ``budget``.
        budget: tokens per side of one slot, padding included.

    Returns:
        The indices of the examples in order, and the start of each slot among them, with the number of examples at the
        end.
    """
    best: tuple[int, np.ndarray, np.ndarray] | None = None
    for strips in _STRIP_COUNTS:
        if strips > len(source):
            break
        order = sort_in_strips(source, target, strips)
        starts = _cut(source[order], target[order], budget)
        longest = np.maximum.reduceat(source[order], starts[:-1]) + np.maximum.reduceat(target[order], starts[:-1])
        positions = int((np.diff(starts) * longest).sum())
        if best is None or positions < best[0]:
            best = positions, order, starts
    assert best is not None
    return best[1], best[2]


def sort_in_strips(source: np.ndarray, target: np.ndarray, strips: int) -> np.ndarray:
    """Split examples into strips by target length, and sort the strips by source length, alternately up and down.

    So adjacent strips meet at similar lengths, and neighbours have about the same length on both sides.

    Returns:
        The indices of the examples in order.
    """
    by_target = np.lexsort((source, target))
    tokens = np.cumsum((source + target)[by_target])
    # Strips with equal numbers of tokens; their borders are moved to where the target length changes.
    strip = np.empty(len(source), dtype=np.int64)
    strip[by_target] = (tokens - 1) * strips // tokens[-1]
    first_of_length = np.full(int(target.max()) + 1, strips, dtype=np.int64)
    np.minimum.at(first_of_length, target, strip)
    strip = first_of_length[target]
    upwards = np.unique(strip, return_inverse=True)[1] % 2 == 0
    return np.lexsort((target, np.where(upwards, source, -source), strip))


def _cut(source: np.ndarray, target: np.ndarray, budget: int) -> np.ndarray:
    """Cut sorted examples into slots, each as large as rows × longest stays within the budget on both sides."""
    longest = np.maximum(source, target)  # both sides fit if the longer one does
    starts = [0]
    while starts[-1] < len(longest):
        window = longest[starts[-1] : starts[-1] + budget // longest[starts[-1]]]
        padded = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        starts.append(starts[-1] + int(np.searchsorted(padded, budget, side="right")))
    if len(starts) > 2:  # split the last two evenly, so that the last one isn't small
        middle = (starts[-3] + starts[-1]) // 2
        if (starts[-1] - middle) * longest[middle:].max() <= budget:
            starts[-2] = middle
    return np.array(starts)


def cut_evenly(source: np.ndarray, target: np.ndarray, parts: int) -> np.ndarray:
    """Cut sorted examples into non-empty parts, so that the largest part has as few positions as possible.

    No side of a part gets more positions than if every part had the same number of examples.

    Returns:
        The start of each part.
    """
    number = len(source)
    most = -(-number // parts) * int(max(source.max(), target.max()))  # positions per side

    def cut(cost: int) -> list[int] | None:
        starts, start = [], 0
        for part in range(parts):
            starts.append(start)
            window = slice(start, number - (parts - part - 1))
            rows = np.arange(1, window.stop - start + 1)
            a, b = np.maximum.accumulate(source[window]), np.maximum.accumulate(target[window])
            fits = (rows * (a + b) <= cost) & (rows * np.maximum(a, b) <= most)
            start += max(1, int(fits.sum()))  # both grow with the number of rows, so those that fit come first
        return starts if start >= number else None

    least, enough = int((source + target).sum()) // parts, 2 * most
    best = cut(enough)
    while enough - least > max(1, least // 200):  # half a percent is close enough
        middle = (least + enough) // 2
        found = cut(middle)
        if found is None:
            least = middle
        else:
            best, enough = found, middle
    assert best is not None  # parts with the same number of examples are within both bounds
    return np.array(best)


__all__ = ["cut_evenly", "cut_slots", "sort_in_strips"]
