"""Measurements side by side: contenders take turns, every run is kept, a row says what came of it."""

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

NameT = TypeVar("NameT")  # of a contender: a text, or settings that are shown as one

OURS = "hf_vanilla_transformer"
MEBIBYTE = 2**20
_SETTLE = 0.3  # seconds before a run: the threads of the last one still wait actively for work, 0.2 s with Intel OpenMP


class Skipped(Exception):
    """A measurement that is not possible on this machine; its message contains the reason."""


@dataclass(frozen=True)
class Options:
    """What `run.py` was asked for.

    Attributes:
        quick: tiny sizes, to see whether everything runs; its figures mean nothing.
        precision: "fp32" or "bf16", of the headline.
        precision_reason: why, in words.
        data: folder with multi30k/lc.norm.tok; None where there is none.
        rounds: runs of each contender; None leaves it to the measurement.
        checkpoints: directories of trained models for `translating`.
    """

    quick: bool
    precision: str
    precision_reason: str
    data: Path | None = None
    rounds: int | None = None
    checkpoints: Sequence[Path] = ()

    @property
    def precisions(self) -> list[str]:
        """Floating-point precisions worth measuring here: fp32, and the headline's if it is another."""
        return ["fp32"] if self.precision == "fp32" else ["fp32", self.precision]


@dataclass(frozen=True)
class Goal:
    """A bound on a row's ratio, on our own figure, or on the difference between ours and the peer's.

    Attributes:
        of: "ratio", "ours" or "difference".
        least: lower bound; None sets none.
        most: upper bound; None sets none.
    """

    of: str = "ratio"
    least: float | None = None
    most: float | None = None

    def met_by(self, figures: Mapping[str, Any]) -> bool | None:
        """Whether a row's figures keep the bound; None where the figure is missing."""
        value = figures[self.of]
        if value is None:
            return None
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def text(self, unit: str) -> str:
        """The goal in words, as "≥ 2.5×"."""
        if self.of == "difference" and self.least is not None:
            return f"≥ peer {'−' if self.least < 0 else '+'} {abs(self.least):g} {unit}"
        bound = f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"
        if self.of == "ratio":
            return f"{bound}×"
        return f"{bound} {unit}" if self.of == "ours" else f"peer + {bound} {unit}"


@dataclass
class Row:
    """One measure: our runs and a peer's, made in turns.

    Attributes:
        measure: what was measured.
        unit: of every figure.
        ours: every run of ours.
        peer: every run of the peer's; empty where there is no peer to compare with.
        peer_name: who.
        better: "higher" or "lower"; the best run is the highest or the lowest.
        share: the ratio is ours ÷ peer although lower is better, as for memory: 0.75 means three quarters of it.
        goal: None where the row only informs.
        note: what a reader has to know beside the figures.
    """

    measure: str
    unit: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    peer_name: str | None = None
    better: str = "higher"
    share: bool = False
    goal: Goal | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as the results file has it: ``ratio`` of the best runs, medians beside them, every run."""
        best = max if self.better == "higher" else min
        ours, peer = best(self.ours), best(self.peer) if self.peer else None
        middle = statistics.median(self.ours), statistics.median(self.peer) if self.peer else None
        figures: dict[str, Any] = {
            "ours": ours,
            "peer": peer,
            "ratio": self._ratio(ours, peer),
            "difference": None if peer is None else ours - peer,
        }
        return {
            "measure": self.measure,
            "ours": _rounded(ours),
            "peer": _rounded(peer),
            "peer_name": self.peer_name,
            "unit": self.unit,
            "ratio": _rounded(figures["ratio"]),
            "goal": None if self.goal is None else self.goal.text(self.unit),
            "met": None if self.goal is None else self.goal.met_by(figures),
            "median": {
                "ours": _rounded(middle[0]),
                "peer": _rounded(middle[1]),
                "ratio": _rounded(self._ratio(*middle)),
            },
            "better": self.better,
            "note": self.note,
            "runs": {"ours": [_rounded(run) for run in self.ours], "peer": [_rounded(run) for run in self.peer]},
        }

    def _ratio(self, ours: float, peer: float | None) -> float | None:
        if not ours or not peer:
            return None
        return peer / ours if self.better == "lower" and not self.share else ours / peer


@dataclass
class Result:
    """What one module of measurements found.

    Attributes:
        name: the results file is bench-<name>-<kind of processor>.json.
        what: one sentence on what was measured.
        rows: the measures.
        profile: where the time went and what it can't be less than; None where that wasn't asked.
        settings: sizes and precision, enough to repeat it.
        skipped: what could not be measured here, and why.
    """

    name: str
    what: str
    rows: list[Row]
    profile: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def take_turns(
    contenders: Mapping[NameT, Callable[[], object]], rounds: int, warm_up: int = 1, device: torch.device | None = None
) -> dict[NameT, list[float]]:
    """Time contenders in turns, A B A B, so that whatever else the machine does meets all of them alike.

    Args:
        contenders: by name; each call is one run.
        rounds: timed runs of each.
        warm_up: runs of each before that, not counted.
        device: waited for at both ends of a run; None is the CPU.

    Returns:
        Seconds of every run, by name.
    """
    seconds: dict[NameT, list[float]] = {name: [] for name in contenders}
    for turn in range(-warm_up, rounds):
        for name, run in contenders.items():
            wait_for(device)
            time.sleep(_SETTLE)
            started = time.perf_counter()
            run()
            wait_for(device)
            elapsed = time.perf_counter() - started
            note = "warm-up" if turn < 0 else f"run {turn + 1} of {rounds}"
            print(f"  {name}: {note}, {elapsed:.3g} s", file=sys.stderr)
            if turn >= 0:
                seconds[name].append(elapsed)
    return seconds


def wait_for(device: torch.device | None) -> None:
    """Wait until a GPU has done what it was told."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def fastest(seconds: Mapping[str, list[float]], names: Iterable[str] | None = None) -> str:
    """Return the name with the shortest run, of ``names`` if they are given."""
    return min(seconds if names is None else names, key=lambda name: min(seconds[name]))


def per_second(count: float, seconds: list[float]) -> list[float]:
    """Convert seconds per run into ``count`` per second, run by run."""
    return [count / run for run in seconds]


def table(results: list[dict[str, Any]]) -> str:
    """Render the rows of results files as one table of plain text."""
    lines = [("measure", "ours", "peer", "unit", "ratio", "goal", "", "peer's name")]
    for result in results:
        for row in result["rows"]:
            met = {True: "met", False: "not met", None: ""}[row["met"]]
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}×"
            lines.append(
                (
                    row["measure"],
                    f"{row['ours']:,.4g}",
                    "" if row["peer"] is None else f"{row['peer']:,.4g}",
                    row["unit"],
                    ratio,
                    row["goal"] or "",
                    met,
                    row["peer_name"] or "",
                )
            )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _rounded(value: float | None) -> float | None:
    """Keep six digits, more than any clock here tells apart."""
    return None if value is None else float(f"{value:.6g}")
