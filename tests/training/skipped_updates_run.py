"""Started by test_skipped_updates.py on each of two ranks: a sentence on one rank makes an update non-finite.

Usage: torchrun --nproc_per_node 2 skipped_updates_run.py FOLDER {one,all}
"""

import json
import logging
import sys
from pathlib import Path

from test_skipped_updates import WeightsAfter, model_with_nan_at, rows_with_word, weights
from test_trainer import Collator, arguments, examples

from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer

WORD, CULPRIT = 20, 17


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main(folder: Path, which: str) -> None:
    rows = rows_with_word(WORD, examples(40), {CULPRIT} if which == "one" else set(range(40)))
    args = arguments(folder, max_tokens_per_batch=120, num_train_epochs=1, max_skipped_updates=3)  # three updates
    after, lines = WeightsAfter(), Lines()
    logging.getLogger("hf_vanilla_transformer").addHandler(lines)
    trainer = VanillaTransformerTrainer(model_with_nan_at(WORD), args, Collator(), rows, callbacks=[after])
    before = weights(trainer.model)
    failed = None
    try:
        trainer.train()
    except FloatingPointError as error:
        failed = str(error)
    steps = zip([before, *after.weights], after.weights, strict=False)
    record = {
        "moved": [any(not one[name].equal(two[name]) for name in one) for one, two in steps],
        "sums": [sum(value.double().sum().item() for value in state.values()) for state in after.weights],
        "lines": lines.lines,
        "failed": failed,
    }
    (folder / f"rank{args.process_index}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
