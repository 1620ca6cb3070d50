"""JoeyNMT 2.3.0, by its own command in an environment of its own (`--joeynmt-python`).

It reads the text as subwords of the shared tokenizer, separated by spaces, so that its vocabulary is the same. What is
measured is read from its log: the time between lines, without the windows in which it validates.
"""

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from .job import Contender, Job, Measurements, best_length_penalty
from .processes import call, started
from .task import BATCH, Task

VERSION = "2.3.0"
NUM_BEAMS = 5
LENGTH_PENALTIES = (0.6, 1.0, 1.4)
MAX_LENGTH = 100  # subwords of a translation
_SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")  # JoeyNMT's ids 0 to 3
_LOGS_PER_POINT = 10
_SHORTEST_POLL = 0.2  # seconds
_LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - \w+ - ([\w.]+) - (.*)$")
_STEP = re.compile(r"Epoch +\d+, Step: +(\d+), Batch Loss: +([\d.naif]+), .*Tokens per Sec: +(\d+)")
_EPOCH = re.compile(r"Epoch +\d+, total training loss: .*num\. of tokens: (\d+)")


@dataclass
class LogState:
    """The content of JoeyNMT's log.

    Attributes:
        steps: for each logged update, its number, seconds of training and loss.
        validations: for each validation that has ended, seconds of training at which it began.
        validating: whether a validation is under way.
        paused: seconds in validations until now.
        started: time stamp of the first epoch's start; None before it.
        tokens_per_update: target tokens of an update, from the epochs that have ended, or from the speed.
    """

    steps: list[tuple[int, float, float]]
    validations: list[float]
    validating: bool
    paused: float
    started: float | None
    tokens_per_update: float

    def seconds(self, now: float) -> float:
        """Return the training time at a time stamp."""
        if self.started is None:
            return 0.0
        return (self.validations[-1] if self.validating else now - self.started - self.paused) if self.started else 0.0


def read_log(text: str) -> LogState:
    """Read a training log of JoeyNMT."""
    steps: list[tuple[int, float, float]] = []
    validations: list[float] = []
    started = began = None
    paused = ended = 0.0
    tokens = epoch_updates = 0
    speed: list[float] = []
    for line in text.splitlines():
        if not (match := _LINE.match(line)):
            continue
        stamp = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
        logger, message = match[2], match[3]
        if logger == "joeynmt.prediction" and message.startswith("Predicting "):
            began = stamp
            validations.append(stamp - (started or stamp) - paused)
            continue
        if began is not None and (
            logger != "joeynmt.training" or message.startswith(("Hooray", "Checkpoint", "Example", "\t"))
        ):
            ended = stamp  # still the validation: its last line ends it
            continue
        if logger != "joeynmt.training":
            continue
        if began is not None:
            paused += ended - began
            began = None
        if message.startswith("EPOCH") and started is None:
            started = stamp
        elif match := _STEP.match(message):
            seconds = stamp - (started or stamp) - paused
            if steps and int(match[1]) > steps[-1][0]:
                speed.append(float(match[3]) * (seconds - steps[-1][1]) / (int(match[1]) - steps[-1][0]))
            steps.append((int(match[1]), seconds, float(match[2])))
        elif (match := _EPOCH.match(message)) and steps:
            tokens += int(match[1])
            epoch_updates = steps[-1][0]
    if tokens:
        per_update = tokens / epoch_updates
    else:
        per_update = sum(speed) / len(speed) if speed else 0.0
    return LogState(steps, validations, began is not None, paused, started, per_update)


def write_text(job: Job, task: Task, folder: Path) -> None:
    """Write the text as subwords, and their vocabulary."""
    for split in ("train", "validation", "test"):
        for side, language in enumerate(task.languages):
            lines = [" ".join(task.tokenizer.tokenize(line)) for line in task.lines(split, side)]
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = sorted(task.tokenizer.get_vocab().items(), key=lambda item: item[1])
    vocabulary = [*_SPECIAL, *(word for word, _ in words if word not in _SPECIAL)]
    (folder / "vocabulary.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def config(job: Job, task: Task, folder: Path, validation_freq: int, updates: int) -> dict[str, Any]:
    """Return JoeyNMT's configuration: its example for small data, in the task's sizes."""
    sizes, settings = job.architecture, job.settings

    def side(language: str) -> dict[str, Any]:
        return {"lang": language, "level": "word", "lowercase": False, "voc_file": str(folder / "vocabulary.txt")}

    def stack(layers: str) -> dict[str, Any]:
        return {
            "type": "transformer",
            "num_layers": sizes[layers],
            "num_heads": sizes["num_heads"],
            "embeddings": {"embedding_dim": sizes["d_model"], "scale": True, "dropout": sizes["dropout"]},
            "hidden_size": sizes["d_model"],
            "ff_size": sizes["d_ff"],
            "dropout": sizes["dropout"],
            "layer_norm": settings["layer_norm"],
        }

    logging_freq = max(validation_freq // _LOGS_PER_POINT, 1)
    return {
        "name": "equal_minutes",
        "joeynmt_version": VERSION,
        "model_dir": str(folder / "model"),
        "use_cuda": False,
        "random_seed": job.seed,
        "data": {
            "train": str(folder / "train"),
            "dev": str(folder / "validation"),
            "test": str(folder / "test"),
            "dataset_type": "plain",
            "src": side(task.languages[0]),
            "trg": side(task.languages[1]),
        },
        "testing": {
            "batch_size": BATCH,
            "batch_type": "sentence",
            "max_output_length": MAX_LENGTH,
            "eval_metrics": ["bleu"],
            "sacrebleu_cfg": {"tokenize": "none"},
            "beam_size": 1,
        },
        "training": {
            "optimizer": "adamw",
            "adam_betas": [0.9, 0.98],
            "scheduling": "warmupinversesquareroot",
            "learning_rate": settings["learning_rate"],
            "learning_rate_warmup": job.warm_up,
            "learning_rate_min": 1e-8,
            "clip_grad_norm": 1.0,
            "weight_decay": 0.0,
            "label_smoothing": 0.1,
            "loss": "crossentropy",
            "normalization": "tokens",
            "batch_size": settings["tokens"],
            "batch_type": "token",
            "batch_multiplier": 1,
            "early_stopping_metric": "bleu",
            "epochs": 1_000_000,
            "updates": updates,
            "validation_freq": logging_freq * max(validation_freq // logging_freq, 1),
            "logging_freq": logging_freq,
            "keep_best_ckpts": 3,
            "print_valid_sents": [0],
        },
        "model": {
            "initializer": "xavier_uniform",
            "embed_initializer": "xavier_uniform",
            "bias_initializer": "zeros",
            "init_gain": 1.0,
            "embed_init_gain": 1.0,
            "tied_embeddings": True,
            "tied_softmax": True,
            "encoder": stack("encoder_layers"),
            "decoder": stack("decoder_layers"),
        },
    }


def detokenize(task: Task, line: str) -> str:
    """Join the subwords of a line."""
    return str(task.tokenizer.convert_tokens_to_string(line.split())) if line.strip() else ""


def run(job: Job, task: Task) -> dict[str, Any]:
    """Train and translate by `python -m joeynmt`."""
    folder = Path(job.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(job, task, folder)
    points = len(job.points) + 1
    freq = max(job.total_updates // points, 1)
    if job.updates is not None:
        freq = max(freq // _LOGS_PER_POINT, 1) * _LOGS_PER_POINT if freq >= _LOGS_PER_POINT else freq
    updates = freq * points if job.updates is not None else job.total_updates
    setup = config(job, task, folder, freq if job.updates is not None else job.total_updates, updates)
    if job.updates is None:
        setup["training"] |= {"logging_freq": 1, "validation_freq": job.total_updates}
    (folder / "train.yaml").write_text(yaml.safe_dump(setup), encoding="utf-8")
    measurements = Measurements(job, task.validation_bleu)
    log = folder / "model" / "train.log"
    _train(job, folder, log, updates)

    state = read_log(log.read_text(encoding="utf-8"))
    for number, seconds, _ in state.steps:
        measurements.after_update(number, seconds)
    if job.purpose == "speed":
        return measurements.record(evaluation_seconds=round(state.paused, 1))
    for number, began in enumerate(state.validations, start=1):
        step = number * setup["training"]["validation_freq"]
        hypotheses = folder / "model" / f"{step}.hyps"
        if hypotheses.is_file():
            _add_point(measurements, task, state, hypotheses, step, began)
    if not measurements.points or measurements.points[-1]["updates"] < state.steps[-1][0]:
        # It was stopped by the clock, between two validations.
        translations = _translate(job, task, folder, setup, "last", beam_size=1)
        loss = state.steps[-1][2]
        measurements.add_point(translations["validation"], state.tokens_per_update * state.steps[-1][0], loss)
    found = measurements.record(evaluation_seconds=round(state.paused, 1), parameters=_parameters(log))
    found["planned_updates"] = updates  # a multiple of the updates between two validations
    found["ended_by"] = "updates" if found["updates"] >= updates else "time limit"
    if job.purpose == "final":
        by_penalty = {
            penalty: _translate(job, task, folder, setup, f"beam-{penalty}", beam_size=NUM_BEAMS, beam_alpha=penalty)
            for penalty in LENGTH_PENALTIES
        }
        found["final"] = best_length_penalty(
            lambda split, penalty: by_penalty[penalty][split], task.scores, LENGTH_PENALTIES, NUM_BEAMS
        )
    return found


def _add_point(
    measurements: Measurements, task: Task, state: LogState, hypotheses: Path, step: int, seconds: float
) -> None:
    lines = hypotheses.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    loss = next((loss for number, _, loss in state.steps if number >= step), None)
    measurements.add_point(
        [detokenize(task, line) for line in lines], state.tokens_per_update * step, loss, updates=step, seconds=seconds
    )


def _train(job: Job, folder: Path, log: Path, updates: int) -> None:
    """Run the training command; at the time limit interrupt it, upon which it saves a checkpoint."""
    command = [str(job.program), "-m", "joeynmt", "train", str(folder / "train.yaml"), "--skip-test"]
    # Its output goes to its own log as well; this process's standard error is the run's log.
    with started(command, stdout=sys.stderr, stderr=sys.stderr, cwd=folder) as process:
        interrupted = False
        while process.poll() is None:
            time.sleep(max(min(job.seconds / 500, 1.0), _SHORTEST_POLL))
            if interrupted or not log.is_file():
                continue
            state = read_log(log.read_text(encoding="utf-8", errors="replace"))
            if state.validating or (state.steps and state.steps[-1][0] >= updates):
                continue  # an interrupt would find it outside its training loop, and would lose what it does there
            if state.seconds(time.time()) >= job.seconds:
                process.send_signal(signal.SIGINT)
                interrupted = True
    if process.returncode:
        raise RuntimeError(f"JoeyNMT's training ended with status {process.returncode}; see the run's log")


def _translate(
    job: Job, task: Task, folder: Path, setup: dict[str, Any], name: str, **testing: Any
) -> dict[str, list[str]]:
    """Translate validation and test by the test command with the best checkpoint, or the last if there is no best."""
    best, last = folder / "model" / "best.ckpt", folder / "model" / "latest.ckpt"
    checkpoint = best if best.exists() and name != "last" else last
    changed = {**setup, "testing": {**setup["testing"], **testing, "load_model": str(checkpoint.resolve())}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(changed), encoding="utf-8")
    command = [str(job.program), "-m", "joeynmt", "test", str(path), "--output-path", str(folder / name)]
    if status := call(command, stdout=sys.stderr, stderr=sys.stderr, cwd=folder):
        raise RuntimeError(f"JoeyNMT's test command ended with status {status}; see the run's log")
    found = {}
    for split, suffix in (("validation", "dev"), ("test", "test")):
        lines = (folder / f"{name}.{suffix}").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        found[split] = [detokenize(task, line) for line in lines]
    return found


def _parameters(log: Path) -> int | None:
    match = re.search(r"Total params: ([\d,]+)", log.read_text(encoding="utf-8"))
    return int(match[1].replace(",", "")) if match else None


def problem(program: str | None) -> str | None:
    """Return why JoeyNMT cannot be run by a Python, or None."""
    if program is None:
        return "JoeyNMT: no --joeynmt-python; docs/speed.md says how to make its environment"
    command = [program, "-c", "import joeynmt, joeynmt.training; print(joeynmt.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        return f"JoeyNMT: {program} cannot be started: {error}"
    if done.returncode:
        return f"JoeyNMT: {program} cannot import it: {done.stderr.strip().splitlines()[-1]}"
    if done.stdout.strip() != VERSION:
        return f"JoeyNMT: {program} has version {done.stdout.strip()}, not {VERSION}"
    return None


def versions(program: str) -> dict[str, str]:
    """Return the versions of JoeyNMT's environment."""
    command = [program, "-c", "import joeynmt, torch; print(joeynmt.__version__, torch.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(("joeynmt", "torch"), done.stdout.split()[-2:], strict=True))


CONTENDER = Contender(
    "joeynmt",
    f"JoeyNMT {VERSION}",
    run,
    rates=(0.001, 0.002, 0.004),
    choices={"tokens": (1024, 2048, 4096), "layer_norm": ("post", "pre")},
    fixed="AdamW with betas 0.9 and 0.98, no weight decay, label smoothing 0.1, gradient norm clipped at 1, warm-up "
    "and inverse square root (its exponential decay ignores the configuration in this version), fp32 (on the CPU it "
    "has no other); the checkpoint with the best validation BLEU is the final model",
)
