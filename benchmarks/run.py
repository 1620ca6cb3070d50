"""Measure this package side by side with what one would use instead (`make bench`), and keep every run.

Prints one table and writes examples/results/bench-<name>-<kind>.json for each measurement. The kind is that of the
processor: amx, avx512-bf16 or neither. A run on another kind of processor therefore adds a record and replaces none.
On two cores without a GPU it takes about an hour. The training loop needs Multi30k's training text (--data, or
VANILLA_TRANSFORMER_DATA: the folder that holds multi30k/), `translating` its test text and checkpoints trained on it
(--checkpoint, or VANILLA_TRANSFORMER_CHECKPOINT): the first is timed, what int8 changes is the mean over all. The last
line is `bench: <n> measured, <n> skipped`.
"""

import argparse
import importlib
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Modules beside this one, in the order of the table. They, and torch, are imported when the options are known to be
# right.
MEASUREMENTS = (
    "import_time",
    "training_step",
    "memory",
    "training_loop",
    "decoding",
    "translating",
    "attention_kernels",
    "optimizations",
)
RESULTS = Path(__file__).resolve().parents[1] / "examples" / "results"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"measurements, separated by commas: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run? Needs --output")
    parser.add_argument("--output", type=Path, help="folder for the results (default: examples/results)")
    parser.add_argument(
        "--data", type=Path, help="folder that holds multi30k/lc.norm.tok with the training and test text"
    )
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[], help="directories of models trained on Multi30k, for "
        "`translating`: the first is timed",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="runs of each contender (default: each measurement's own)")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the headline; auto takes bf16 where the processor has units for it",
    )
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(MEASUREMENTS)
    if unknown := sorted(set(names) - set(MEASUREMENTS)):
        parser.error(f"there is no measurement {', '.join(unknown)}; choose among {', '.join(MEASUREMENTS)}")
    if asked.quick and asked.output is None:
        parser.error("--quick makes figures that mean nothing; give --output, so that they replace no real ones")
    if asked.rounds is not None and asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds} measures nothing; give 1 or more")

    import machine
    import torch
    from side_by_side import Skipped, table
    from transformers.utils import logging

    logging.set_verbosity_error()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = _options(asked)
    folder = asked.output or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    found, skipped = [], []
    for name in names:
        print(f"{name} …", file=sys.stderr)
        torch.manual_seed(0)
        try:
            result = importlib.import_module(name).measure(options)
        except Skipped as reason:
            skipped.append(str(reason))
            continue
        skipped += result.skipped
        found.append(_record(result, options))
        path = folder / f"bench-{name.replace('_', '-')}-{machine.hardware()['kind']}.json"
        path.write_text(json.dumps(found[-1], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(found))
    print(f"precision of the headline: {options.precision} ({options.precision_reason})")
    for reason in skipped:
        print(f"skipped: {reason}")
    print(f"bench: {len(found)} measured, {len(skipped)} skipped")


def _options(asked: argparse.Namespace) -> Any:
    import machine
    from side_by_side import Options

    precision, reason = asked.precision, "as asked for"
    if precision == "auto":
        precision = machine.best_precision()
        units = [unit for unit in machine.hardware()["units"] if "bf16" in unit]
        reason = f"the processor has {', '.join(units)}" if units else "the processor has no bf16 units"
    return Options(asked.quick, precision, reason, asked.data, asked.rounds, asked.checkpoint)


def _record(result: Any, options: Any) -> dict[str, Any]:
    """What the results file holds."""
    import machine

    return {
        "name": result.name,
        "what": result.what,
        "quick": options.quick,
        "date": datetime.now(UTC).date().isoformat(),
        "precision": {"headline": options.precision, "why": options.precision_reason},
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "settings": result.settings,
        "rows": [row.as_dict() for row in result.rows],
        "skipped": result.skipped,
        "profile": result.profile,
    }


if __name__ == "__main__":
    main()
