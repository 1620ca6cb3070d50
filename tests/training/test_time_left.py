"""The time left: the mean of the timed updates, without the first one and without pauses."""

import pytest

from hf_vanilla_transformer.training.time_left import TimeLeft, duration


def test_the_first_update_and_pauses_are_not_timed() -> None:
    times = iter([100.0, 102.0, 114.0])  # the first update ends at 100 s, the third one after a pause of 10 s
    left = TimeLeft(clock=lambda: next(times))
    left.end_update(5, seconds_paused=0.0)
    assert left.timed_updates == 0 and left.seconds_per_update is None and left.seconds(3) is None
    left.end_update(6, seconds_paused=0.0)
    assert (left.timed_updates, left.seconds_per_update, left.seconds(3)) == (1, 2.0, 6.0)
    left.end_update(7, seconds_paused=10.0)
    assert (left.timed_updates, left.seconds_per_update) == (2, 2.0)  # (114 − 10 − 100) / 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (7500, "2 h 05 min"), (200_000, "2 d 07 h")]
)
def test_durations_are_written_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text  # 200,000 s = 2 · 86,400 + 7 · 3,600 + 2,000
