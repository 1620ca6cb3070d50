"""Cost of importing the package and its model class, compared with transformers' own classes, in fresh processes."""

import subprocess
import sys

from side_by_side import OURS, Goal, Options, Result, Row

PEER = "from transformers import PreTrainedModel, GenerationMixin, AutoModelForSeq2SeqLM"
STATEMENTS = {
    OURS: f"import {OURS}; {OURS}.VanillaTransformerForConditionalGeneration",
    PEER: PEER,
}
_PROGRAM = "import time; started = time.perf_counter(); exec({statement!r}); print(time.perf_counter() - started)"


def seconds_to_import(statement: str) -> float:
    """Run an import in a fresh interpreter and return its seconds, the interpreter's own start left out."""
    program = _PROGRAM.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure(options: Options) -> Result:
    """Import in turns; the first turn only warms the file system's cache."""
    rounds = options.rounds or (1 if options.quick else 7)
    seconds: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for turn in range(-1 if not options.quick else 0, rounds):
        for name, statement in STATEMENTS.items():
            elapsed = seconds_to_import(statement)
            if turn >= 0:
                seconds[name].append(elapsed)
    return Result(
        "import_time",
        "Seconds from the import statement to the model class at hand, each in a fresh process.",
        [
            Row(
                "import",
                "s",
                seconds[OURS],
                seconds[PEER],
                PEER,
                "lower",
                share=True,
                goal=Goal("difference", most=0.3),
            )
        ],
        settings={"rounds": rounds},
    )
