"""Started by test_layouts.py on each process: train in fp64 without dropout, record losses and weights.

Usage: torchrun --nproc_per_node N layout_run.py FOLDER ACCUMULATION_STEPS LAST_UPDATE [CHECKPOINT]
"""

import json
import sys
from pathlib import Path

import torch
from test_trainer import Collator, SaveAtEnd, arguments, examples, tiny_model

from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer

TOKENS_PER_UPDATE = 240  # at least eight sentences: two for each of four processes


def train(folder: Path, accumulation_steps: int, last_update: int, checkpoint: str | None = None) -> None:
    """Train on all processes; schedule and data do not depend on their number."""
    args = arguments(
        folder,
        max_tokens_per_batch=TOKENS_PER_UPDATE,
        gradient_accumulation_steps=accumulation_steps,
        max_steps=last_update,
        logging_steps=1,
    )
    model = tiny_model().double()
    trainer = VanillaTransformerTrainer(model, args, Collator(), examples(90), callbacks=[SaveAtEnd()])
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.args.process_index == 0:
        curve = [[entry["loss"], entry["nll"]] for entry in trainer.state.log_history if "loss" in entry]
        (folder / "curve.json").write_text(json.dumps(curve))
        torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
