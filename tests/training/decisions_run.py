"""Started by test_decisions.py on each of two ranks: shared decisions, and host synchronizations of an update.

Usage: torchrun --nproc_per_node 2 decisions_run.py FOLDER
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from test_trainer import arguments, examples, tiny_model
from transformers import TrainerCallback

sys.path.append(str(Path(__file__).resolve().parents[1] / "gpu"))
from small_models import waits

from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Collate sentences of one length, in numpy: `waits` counts tensors made of Python numbers."""
    ids = np.array([row["input_ids"] for row in rows])
    return {name: torch.from_numpy(ids) for name in ("input_ids", "labels")}


class Watch(TrainerCallback):
    """Records the host synchronizations from the end of update 2 to that of update 3."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.watching: Any = None

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == 2:
            self.watching = waits(torch.device("cpu"), self.found)
            self.watching.__enter__()
        elif state.global_step == 3:
            self.watching.__exit__(None, None, None)


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    os.environ["VANILLA_TRANSFORMER_AUTO_PRECISION"] = ("bf16", "fp32")[rank]
    args = arguments(folder, max_steps=5, logging_steps=5, max_tokens_per_batch=40, precision="auto")
    trainer = VanillaTransformerTrainer(tiny_model(0.1), args, collate, examples(60, length=5))
    watch = Watch()
    trainer.add_callback(watch)  # the last callback, after those of the trainer
    trainer.train()
    record = {"precision": args.used_precision, "synchronizations": watch.found}
    (folder / f"rank{rank}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
