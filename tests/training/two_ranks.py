"""Started by test_two_ranks.py on each of two ranks: train uninterrupted, and stopped and resumed; record examples.

Usage: torchrun --nproc_per_node 2 two_ranks.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from test_trainer import Collator, SaveAtEnd, StopAt, arguments, examples, tiny_model

from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer


def main(folder: Path) -> None:
    data = examples(60)

    def train(run: str, callbacks: list, resume: str | None = None, **fields) -> VanillaTransformerTrainer:
        args = arguments(folder / run, num_train_epochs=3, logging_steps=1, **fields)
        trainer = VanillaTransformerTrainer(tiny_model(0.3), args, Collator(), data, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    fields = dict(max_tokens_per_batch=120, gradient_accumulation_steps=2)
    whole = train("whole", [SaveAtEnd()], **fields)
    rank = whole.args.process_index
    updates = whole.state.max_steps // 3
    train("stopped", [StopAt(updates + 2)], **fields)
    train("stopped", [SaveAtEnd()], str(folder / "stopped" / f"checkpoint-{updates + 2}"), **fields)

    model = tiny_model().double()
    args = arguments(folder / "one", max_tokens_per_batch=80, max_steps=1, optim="sgd")
    same = examples(16, length=5)  # 80 tokens: one update, eight sentences per rank
    one = VanillaTransformerTrainer(model, args, Collator(), same)
    one.train()
    if rank == 0:
        torch.save(model.state_dict(), folder / "one.pt")
    record = {
        "seen": whole.data_collator.seen,
        "steps": whole.state.max_steps,
        "nll": one.state.log_history[0]["nll"],
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
