"""Train variants of the recipe `tiny` for the same number of updates, and score each on validation text.

    python benchmarks/recipe_variants.py runs/variants --data DATA --updates 6000 --variants recipe muon r-drop+muon
    python benchmarks/recipe_variants.py examples/results/recipe_variants --render docs/recipes.md

DATA holds multi30k/lc.norm.tok. Every variant changes one thing about the recipe as it is (`--list` shows them), or
several that are joined by "+", and keeps the model that of the paper. A variant that was trained before is not trained
again. The test text is not read. The table has the processor time, so that a variant which makes an update slower is
not preferred for its score alone. With `--only-table`, nothing is trained; with `--render`, the table is written into a
page. The last line is "recipe_variants: N trained".
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from machine import commit, hardware, versions
from torch import Tensor
from transformers import TrainerCallback

from hf_vanilla_transformer import read_recipe, train

TEXT = "multi30k/lc.norm.tok"
HEADINGS = ("variant", "updates", "seed", "epochs", "processor minutes", "validation loss", "BLEU", "chrF")
START, END = "<!-- variants:start -->", "<!-- variants:end -->"
SETTINGS = {"source_lang": "en", "target_lang": "de", "metric_tokenize": "none", "report_to": "none"}


class ExponentialAverage(TrainerCallback):
    """Keeps an exponential moving average of the weights, which becomes the model at the end."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: list[Tensor] = []

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Move the average towards the weights."""
        weights = list(model.parameters())
        if not self.average:
            self.average = [weight.clone() for weight in weights]
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        torch._foreach_lerp_(self.average, weights, 1 - decay)

    @torch.no_grad()
    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Replace the weights by their average."""
        for weight, average in zip(model.parameters(), self.average, strict=True):
            weight.copy_(average)


@dataclass(frozen=True)
class Variant:
    """One change of the recipe.

    Attributes:
        settings: keys of the recipe with their values.
        decay: of an exponential moving average instead of the mean of checkpoints; 0 keeps the mean.
        name: of the variants that are joined in it.
    """

    settings: dict[str, str] = field(default_factory=dict)
    decay: float = 0.0
    name: str = ""


VARIANTS = {
    "recipe": Variant(),
    "no-bpe-dropout": Variant({"bpe_dropout": "0"}),
    "bpe-dropout": Variant({"bpe_dropout": "0.1"}),
    "bpe-dropout-0.2": Variant({"bpe_dropout": "0.2"}),
    "dropout-0.1": Variant({"config_overrides": '{"dropout": 0.1}'}),
    "dropout-0.2": Variant({"config_overrides": '{"dropout": 0.2}'}),
    "dropout-0.3": Variant({"config_overrides": '{"dropout": 0.3}'}),
    "batch-2048": Variant({"max_tokens_per_batch": "2048"}),
    "batch-4096": Variant({"max_tokens_per_batch": "4096"}),
    "vocabulary-3000": Variant({"vocab_size": "3000"}),
    "vocabulary-10000": Variant({"vocab_size": "10000"}),
    "smoothing-0.2": Variant({"label_smoothing_factor": "0.2"}),
    "peak-0.003": Variant({"learning_rate": "0.003"}),
    "peak-0.006": Variant({"learning_rate": "0.006"}),
    "r-drop": Variant({"r_drop": "5"}),
    "r-drop-half-batch": Variant({"r_drop": "5", "max_tokens_per_batch": "512"}),
    "adam": Variant({"optim": "adamw_torch_fused"}),
    "muon": Variant({"optim": "muon"}),
    "ema": Variant({"average_last": "0"}, decay=0.998),
}


def variant_of(name: str) -> Variant:
    """Return the variant of a name; "+" joins several changes.

    Raises:
        argparse.ArgumentTypeError: If there is no such variant, or two of them change the same setting.
    """
    settings: dict[str, str] = {}
    decay = 0.0
    for part in name.split("+"):
        if part not in VARIANTS:
            raise argparse.ArgumentTypeError(f"there is no variant {part!r}; --list shows them")
        variant = VARIANTS[part]
        if both := settings.keys() & variant.settings.keys():
            raise argparse.ArgumentTypeError(f"{name}: two of the variants change {', '.join(sorted(both))}")
        settings |= variant.settings
        decay = max(decay, variant.decay)
    return Variant(settings, decay, name)


def run(variant: Variant, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train a variant in a directory and return its record."""
    folder = options.data / TEXT
    # The cooldown has the recipe's share of the updates, and so has the interval of checkpoints.
    recipe = read_recipe("tiny")
    share = options.updates / recipe.training.max_steps
    interval = str(max(round(recipe.training.save_steps * share), 1))
    settings = {
        **SETTINGS,
        "train_source": str(folder / "train.en"),
        "train_target": str(folder / "train.de"),
        "validation_source": str(folder / "val.en"),
        "validation_target": str(folder / "val.de"),
        "max_steps": str(options.updates),
        "cooldown_steps": str(round(recipe.training.cooldown_steps * share)),
        "save_steps": interval,
        "eval_steps": interval,
        "seed": str(options.seed),
        "output_dir": str(output),
        **variant.settings,
    }
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    callbacks = [ExponentialAverage(variant.decay)] if variant.decay else []
    record = train(read_recipe("tiny", words), callbacks).record
    return {key: record[key] for key in ("training", "scores")} | {
        "name": variant.name,
        "settings": variant.settings,
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return the scores in Markdown, the best variant first."""
    rows: list[Sequence[str]] = [HEADINGS, ("---",) * len(HEADINGS)]
    for record in sorted(records, key=lambda record: -record["scores"]["validation"]["bleu"]):
        training, scores = record["training"], record["scores"]["validation"]
        rows.append((
            record["name"], f"{training['updates']:,}", f"{training['seed']}", f"{training['epochs']:.1f}",
            f"{training['processor_seconds'] / 60:.1f}", f"{scores['loss']:.3f}", f"{scores['bleu']:.2f}",
            f"{scores['chrf']:.2f}",
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def render(page: Path, records: list[dict[str, Any]]) -> None:
    """Write the table between its markers into a page."""
    text = page.read_text(encoding="utf-8")
    if (text.count(START), text.count(END)) != (1, 1):
        raise SystemExit(f"{page} must have {START} and {END} once each")
    page.write_text(
        f"{text[: text.index(START)]}{START}\n{table(records)}\n{text[text.index(END) :]}", encoding="utf-8"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of the runs and their records")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VANILLA_TRANSFORMER_DATA", "data")))
    parser.add_argument("--variants", nargs="+", type=variant_of, default=[variant_of("recipe")], metavar="NAME")
    parser.add_argument("--updates", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="list the variants and end")
    parser.add_argument("--only-table", action="store_true", help="print the records that there are and end")
    parser.add_argument("--render", type=Path, metavar="PAGE", help="write the records into this page and end")
    options = parser.parse_args(arguments)
    if options.list:
        for name, variant in VARIANTS.items():
            average = f", moving average of decay {variant.decay}" if variant.decay else ""
            print(f"{name}: {variant.settings or 'the recipe as it is'}{average}")
        return
    only_table = options.only_table or options.render is not None
    if not only_table and not (options.data / TEXT / "train.en").is_file():
        parser.error(f"there is no {options.data / TEXT}/train.en; give the folder that holds multi30k with --data")
    options.work.mkdir(parents=True, exist_ok=True)
    trained = 0
    for variant in () if only_table else options.variants:
        output = options.work / f"{variant.name}-{options.updates}-{options.seed}"
        path = Path(f"{output}.json")
        if not path.exists():
            path.write_text(json.dumps(run(variant, output, options), indent=1) + "\n", encoding="utf-8")
            trained += 1
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.work.glob("*.json"))]
    if options.render is not None:
        render(options.render, records)
    print(table(records))
    print(f"recipe_variants: {trained} trained")


if __name__ == "__main__":
    main()
