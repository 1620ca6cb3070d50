"""One process of a small run with a fault, started by test_faults.py; it saves every second update.

Processes are forked from one that has imported everything, which saves the import in each of them.
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
    """A fault of one process of a run.

    Attributes:
        kill_at_change: send SIGKILL to itself before the n-th change of the run's files.
        largest_file: maximum file size in bytes.
        signals: send these to itself at the end of update 3, before other callbacks.
    """

    kill_at_change: int | None = None
    largest_file: int | None = None
    signals: tuple[int, ...] = ()


class Report(TrainerCallback):
    """Records the checkpoint that a run was resumed from, and sends the fault's signals."""

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
    """Train to the end, from the newest valid checkpoint if there is one; the output is written to FOLDER.RANK.log."""
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
        writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)  # without a limit for the log
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
