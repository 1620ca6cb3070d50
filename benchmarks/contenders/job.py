"""One run of a contender: what is asked for, what is measured, and the clock that counts training time only."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

WARM_UP = 400  # updates over which a peer's learning rate rises; in a short run a tenth of the run
_SETTLED = 0.2  # the first fifth of a run is left out of its pace: caches and allocators are cold
_UNLIMITED = 1_000_000  # updates; a run without a planned number ends by the clock


@dataclass(frozen=True)
class Contender:
    """How a contender is run and which of its settings are screened.

    Attributes:
        name: in options and file names.
        label: in the record and the picture.
        run: makes a `Job`'s run on a `Task`.
        rates: peak learning rates to screen, rising; () takes the contender's own.
        choices: further settings to screen, one after the other, by name; the first value is where screening starts.
        kernels: settings of precision and attention; the fastest of them are taken.
        fixed: the settings that are not screened, in words, for the record.
    """

    name: str
    label: str
    run: Callable[["Job", Any], dict[str, Any]]
    rates: tuple[float, ...] = ()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    kernels: tuple[Mapping[str, str], ...] = ()
    fixed: str = ""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        contender: its name.
        purpose: "speed" measures updates per second and translates nothing; "screen" compares settings by validation
            BLEU at the end; "final" also has points in between and the test.
        seconds: limit of the training time.
        updates: planned number of updates, over which the schedule runs; None in a run that measures the speed.
        points: seconds of training time at which validation is translated, beside the end.
        settings: of the contender: learning rate, batch, schedule, precision.
        architecture: sizes and dropout of the model, by configuration name.
        task: folder of text and tokenizer.
        folder: folder that the run may fill.
        seed: of weights and batches.
        program: Python of another environment; None uses this one.
    """

    contender: str
    purpose: str
    seconds: float
    updates: int | None
    points: list[float]
    settings: dict[str, Any]
    architecture: dict[str, Any]
    task: str
    folder: str
    seed: int
    program: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read a job's file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write the job to a file."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @property
    def total_updates(self) -> int:
        """Planned number of updates, or a number that no run reaches."""
        return self.updates or _UNLIMITED

    @property
    def warm_up(self) -> int:
        """Updates over which a peer's learning rate rises."""
        return max(min(WARM_UP, self.total_updates // 10), 1)


class TrainingClock:
    """Wall time of training, without the pauses in which a model is evaluated."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.paused_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Training time until now."""
        return time.perf_counter() - self.started - self.paused_seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of a ``with`` block."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self.paused_seconds += time.perf_counter() - before

    def discount(self, seconds: float) -> None:
        """Leave out time that has passed already."""
        self.paused_seconds += seconds


class Measurements:
    """Points, pace and end of a run; its dictionary is the run's file.

    Args:
        job: the run.
        bleu: scores translations of the validation text.
    """

    def __init__(self, job: Job, bleu: Callable[[list[str]], float]) -> None:
        self.job, self.bleu = job, bleu
        self.points: list[dict[str, Any]] = []
        self._next = 0  # of job.points
        self._settled: tuple[int, float] | None = None
        self._updates, self._seconds = 0, 0.0

    def after_update(self, updates: int, seconds: float) -> bool:
        """Note an update's end; return whether the time is over."""
        if self._settled is None and seconds >= _SETTLED * self.job.seconds:
            self._settled = (updates, seconds)
        self._updates, self._seconds = updates, seconds
        return seconds >= self.job.seconds

    @property
    def point_is_due(self) -> bool:
        """Whether the next point's time has come."""
        return self._next < len(self.job.points) and self._seconds >= self.job.points[self._next]

    def add_point(
        self, translations: list[str], tokens: float, loss: float | None, updates: int | None = None,
        seconds: float | None = None,
    ) -> None:  # fmt: skip
        """Note a point; ``updates`` and ``seconds`` of None are those of the last update."""
        updates, seconds = self._updates if updates is None else updates, self._seconds if seconds is None else seconds
        point = {
            "minutes": round(seconds / 60, 3),
            "updates": updates,
            "tokens": round(tokens),
            "loss": None if loss is None else round(loss, 4),
            "bleu": round(self.bleu(translations), 2),
        }
        self.points.append(point)
        while self._next < len(self.job.points) and self.job.points[self._next] <= seconds:
            self._next += 1
        loss_text = "" if loss is None else f", training loss {loss:.3f}"
        print(
            f"    {point['minutes']:.2f} min, {updates:,} updates, {point['tokens']:,} target tokens{loss_text}: "
            f"BLEU {point['bleu']:.2f}",
            flush=True,
        )

    def record(self, **more: Any) -> dict[str, Any]:
        """Return the run's record."""
        updates, seconds = self._updates, self._seconds
        if self._settled is not None and updates > self._settled[0]:
            pace = (updates - self._settled[0]) / (seconds - self._settled[1])
        else:
            pace = updates / max(seconds, 1e-9)
        return {
            "contender": self.job.contender,
            "purpose": self.job.purpose,
            "settings": self.job.settings,
            "seed": self.job.seed,
            "limit_seconds": self.job.seconds,
            "planned_updates": self.job.updates,
            "updates": updates,
            "seconds": round(seconds, 2),
            "updates_per_second": round(pace, 4),
            "ended_by": "updates" if updates >= self.job.total_updates else "time limit",
            "points": self.points,
            **more,
        }


class TrainerBudget(TrainerCallback):
    """Ends a Trainer by its training time and translates at the points; neither that nor evaluation is counted.

    Args:
        measurements: of the run.
        translate: translates the validation text with a model.
        tokens_per_epoch: target tokens of the training text.
    """

    def __init__(
        self, measurements: Measurements, translate: Callable[[Any], list[str]], tokens_per_epoch: int
    ) -> None:
        self.measurements, self.translate, self.tokens_per_epoch = measurements, translate, tokens_per_epoch
        self.clock = TrainingClock()
        self._loss: float | None = None
        self._before_evaluation = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.clock = TrainingClock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the update; translate at a point; stop at the limit."""
        if self.measurements.after_update(state.global_step, self.clock.seconds):
            control.should_training_stop = True
        elif self.measurements.point_is_due:
            with self.clock.paused():
                self._add_point(state, kwargs["model"])
        self._before_evaluation = self.clock.seconds

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Keep the training loss."""
        if logs and "loss" in logs:
            self._loss = float(logs["loss"])
            self._before_evaluation = self.clock.seconds

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave out the time since the update: Trainer has evaluated the validation loss."""
        if state.global_step < args.max_steps or self.clock.seconds > self._before_evaluation:
            self.clock.discount(max(self.clock.seconds - self._before_evaluation, 0.0))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Translate with the last weights."""
        if self.measurements.job.purpose != "speed":
            self._add_point(state, kwargs["model"])

    def _add_point(self, state: Any, model: Any) -> None:
        self.measurements.add_point(
            self.translate(weights_copy(model)), (state.epoch or 0.0) * self.tokens_per_epoch, self._loss
        )


def weights_copy(model: Any) -> Any:
    """Return a new model with the same weights: training has wrapped the forward method of the other."""
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def best_length_penalty(
    translate: Callable[[str, float], list[str]], score: Callable[[str, list[str]], dict[str, Any]],
    penalties: tuple[float, ...], num_beams: int,
) -> dict[str, Any]:  # fmt: skip
    """Translate validation with each length penalty and the test with the best; return the scores.

    Args:
        translate: translates a split with a length penalty.
        score: scores the translations of a split.
        penalties: to try.
        num_beams: beam size, for the record.
    """
    validation = {penalty: score("validation", translate("validation", penalty)) for penalty in penalties}
    best = max(validation, key=lambda penalty: validation[penalty]["bleu"])
    return {
        "num_beams": num_beams,
        "length_penalty": best,
        "length_penalties_tried": {str(penalty): round(found["bleu"], 2) for penalty, found in validation.items()},
        "validation": validation[best],
        "test": score("test", translate("test", best)),
    }


def show(text: str) -> None:
    """Print a line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


__all__ = [
    "WARM_UP",
    "Contender",
    "Job",
    "Measurements",
    "TrainerBudget",
    "TrainingClock",
    "best_length_penalty",
    "show",
    "weights_copy",
]
