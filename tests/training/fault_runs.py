"""What test_faults.py lets die: one process of a small run that saves every other update, with a fault to come.

Its processes are forked from one that has imported everything, so that starting one costs next to nothing.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from test_trainer import Collator, arguments, examples, tiny_model
from transformers import TrainerCallback

from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer

UPDATES = 24
SAVE_STEPS = 2
_CHANGES_FILES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}


@dataclass
class Fault:
    """What happens to one process of a run.

    Attributes:
        kill_at_change: SIGKILL itself when it is about to change the run's files for the n-th time.
        largest_file: bytes above which the system refuses to let a file grow.
        signals: sent to itself at the end of update 3, before anything else happens there.
    """

    kill_at_change: int | None = None
    largest_file: int | None = None
    signals: tuple[int, ...] = ()


class Report(TrainerCallback):
    """Writes down where a run goes on from, and that it has come to an update."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.folder = folder
        self.fault = fault
        self.trainer: VanillaTransformerTrainer | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.folder.with_suffix(".from").write_text(str(self.trainer.resumed_from))

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            for number in self.fault.signals:
                os.kill(os.getpid(), number)


def run(folder: Path, rank: int = 0, ranks: int = 1, port: int = 0, fault: Fault | None = None) -> None:
    """Train to the end, from the newest whole checkpoint if there is any; what it says goes to FOLDER.RANK.log."""
    fault = Fault() if fault is None else fault
    log = os.open(folder.with_suffix(f".{rank}.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if ranks > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    if fault.kill_at_change is not None:
        _kill_at_change(folder, fault.kill_at_change)
    if fault.largest_file is not None:
        writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)  # so that the log may grow nevertheless
        for number in (1, 2):
            os.dup2(writer.stdin.fileno(), number)
        import resource  # POSIX only

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest_file, fault.largest_file))
    args = arguments(
        folder,
        max_tokens_per_batch=60,
        gradient_accumulation_steps=2 // ranks,
        max_steps=UPDATES,
        save_strategy="steps",
        save_steps=SAVE_STEPS,
        save_total_limit=3,
        logging_steps=10,
    )
    report = Report(folder, fault)
    trainer = VanillaTransformerTrainer(tiny_model(0.3), args, Collator(), examples(60), callbacks=[report])
    report.trainer = trainer
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))


def _kill_at_change(folder: Path, number: int) -> None:
    """Kill this process before the n-th change of a file in the folder."""
    changes = 0

    def watch(event: str, args: tuple) -> None:
        nonlocal changes
        if event not in _CHANGES_FILES or not args or not isinstance(args[0], str | os.PathLike):
            return
        if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
            return
        if str(args[0]).startswith(f"{folder}/"):
            changes += 1
            if changes == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
