"""Train variants of a recipe for the same number of updates, and score each on validation text.

    python benchmarks/recipe_variants.py runs/variants --data DATA --updates 6000 --variants recipe muon r-drop+muon
    python benchmarks/recipe_variants.py runs/variants --data DATA --text koen --updates 2500 --variants recipe muon
    python benchmarks/recipe_variants.py examples/results/recipe_variants --render docs/recipes.md

DATA holds multi30k/lc.norm.tok, for the recipe `tiny`, and koen, for `small`. Every variant changes one thing about the
recipe as it is (`--list` shows them), or several that are joined by "+", and keeps the model that of the paper. A
variant that was trained before is not trained again. The test text is not read. The variant "distilled" trains on a
teacher's translations of the training text, from `vanilla-transformer translate`. The table has the processor time, so
that a variant which makes an update slower is not preferred for its score alone. The mean of the last checkpoints and
the length penalty are chosen after training: each run is scored with several of them. With `--only-table`, nothing is
trained; with `--render`, the tables are written into a page. The last line is "recipe_variants: N trained".
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from machine import commit, hardware, versions
from recipe_lengths import scaled_to
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, TrainerCallback

from hf_vanilla_transformer import (
    BeamSearchConfig,
    TranslationMetric,
    average_checkpoints,
    read_recipe,
    train,
    translate,
)

AVERAGES = (1, 3, 5, 10)  # last checkpoints; 1 is the last one as it is
LENGTH_PENALTIES = (0.6, 1.0, 1.4, 1.8)
# Keys of a recipe that are in each record: what the variants and the recipes have changed so far.
COMPARED = (
    "optim", "max_tokens_per_batch", "learning_rate", "warmup_steps", "r_drop", "bpe_dropout", "label_smoothing_factor",
    "vocab_size", "config_overrides",
)  # fmt: skip
OPTIONAL = {"r_drop": "R-Drop", "bpe_dropout": "BPE-dropout"}  # shown where they are not 0
# Shown where they are not those of the recipe.
OTHERS = {
    "warmup_steps": "warmup", "label_smoothing_factor": "smoothing", "vocab_size": "vocabulary",
    "config_overrides": "model",
}  # fmt: skip
ADAM = "adamw_torch_fused"
HEADINGS = ("settings", "updates", "seed", "epochs", "processor minutes", "validation loss", "BLEU", "chrF")
START, END = "<!-- variants:start -->", "<!-- variants:end -->"


@dataclass(frozen=True)
class Text:
    """Training and validation text, and the recipe for its size.

    Attributes:
        recipe: name of the recipe.
        folder: in the data folder.
        validation: name of the validation files, without their language; those of training are named "train".
        languages: of source and target, which are the suffixes of the files.
        tokenize: sacreBLEU's tokenizer; "" selects it by the language.
        origins: file with a label for each line of the validation text, whose scores are reported separately.
    """

    recipe: str
    folder: str
    validation: str
    languages: tuple[str, str]
    tokenize: str = ""
    origins: str = ""

    def missing(self, data: Path) -> list[str]:
        """Return the files of this text that are not there."""
        paths = [Path(path) for key, path in self.settings(data).items() if key.endswith(("_source", "_target"))]
        paths += [data / self.folder / self.origins] if self.origins else []
        return [str(path) for path in paths if not path.is_file()]

    def settings(self, data: Path) -> dict[str, str]:
        """Return the keys of a recipe that name this text."""
        folder, (source, target) = data / self.folder, self.languages
        return {
            "source_lang": source,
            "target_lang": target,
            **({"metric_tokenize": self.tokenize} if self.tokenize else {}),
            "train_source": str(folder / f"train.{source}"),
            "train_target": str(folder / f"train.{target}"),
            "validation_source": str(folder / f"{self.validation}.{source}"),
            "validation_target": str(folder / f"{self.validation}.{target}"),
        }


TEXTS = {
    "multi30k": Text("tiny", "multi30k/lc.norm.tok", "val", ("en", "de"), tokenize="none"),
    "koen": Text("small", "koen", "dev", ("en", "ko"), origins="dev.source"),
}


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
        distilled: whether the target text is what a teacher translated.
        name: of the variants that are joined in it.
    """

    settings: dict[str, str] = field(default_factory=dict)
    decay: float = 0.0
    distilled: bool = False
    name: str = ""


VARIANTS = {
    "recipe": Variant(),
    # The training of the paper, with the batches and peaks that suit it for little text.
    "paper": Variant(
        {"optim": ADAM, "max_tokens_per_batch": "1024", "learning_rate": "0.004", "r_drop": "0", "bpe_dropout": "0"}
    ),
    "adam": Variant({"optim": ADAM}),
    "muon": Variant({"optim": "muon"}),
    "no-r-drop": Variant({"r_drop": "0"}),
    "r-drop": Variant({"r_drop": "5"}),
    "bpe-dropout": Variant({"bpe_dropout": "0.1"}),
    "bpe-dropout-0.2": Variant({"bpe_dropout": "0.2"}),
    "dropout-0.1": Variant({"config_overrides": '{"dropout": 0.1}'}),
    "dropout-0.2": Variant({"config_overrides": '{"dropout": 0.2}'}),
    "dropout-0.3": Variant({"config_overrides": '{"dropout": 0.3}'}),
    "batch-1024": Variant({"max_tokens_per_batch": "1024"}),
    "batch-2048": Variant({"max_tokens_per_batch": "2048"}),
    "batch-4096": Variant({"max_tokens_per_batch": "4096"}),
    "vocabulary-3000": Variant({"vocab_size": "3000"}),
    "vocabulary-10000": Variant({"vocab_size": "10000"}),
    "smoothing-0.2": Variant({"label_smoothing_factor": "0.2"}),
    "warmup-400": Variant({"warmup_steps": "400"}),
    "peak-0.002": Variant({"learning_rate": "0.002"}),
    "peak-0.003": Variant({"learning_rate": "0.003"}),
    "peak-0.004": Variant({"learning_rate": "0.004"}),
    "peak-0.006": Variant({"learning_rate": "0.006"}),
    "peak-0.010": Variant({"learning_rate": "0.010"}),
    "ema": Variant({"average_last": "0"}, decay=0.998),
    "distilled": Variant(distilled=True),
}


def variant_of(name: str) -> Variant:
    """Return the variant of a name; "+" joins several changes.

    Raises:
        argparse.ArgumentTypeError: If there is no such variant, or two of them change the same setting.
    """
    settings: dict[str, str] = {}
    decay, distilled = 0.0, False
    for part in name.split("+"):
        if part not in VARIANTS:
            raise argparse.ArgumentTypeError(f"there is no variant {part!r}; --list shows them")
        variant = VARIANTS[part]
        if both := settings.keys() & variant.settings.keys():
            raise argparse.ArgumentTypeError(f"{name}: two of the variants change {', '.join(sorted(both))}")
        settings |= variant.settings
        decay, distilled = max(decay, variant.decay), distilled or variant.distilled
    return Variant(settings, decay, distilled, name)


def run(variant: Variant, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train a variant in a directory and return its record."""
    text = TEXTS[options.text]
    settings = {
        **text.settings(options.data),
        "report_to": "none",
        **scaled_to(options.updates, read_recipe(text.recipe), longest_warmup=1.0),
        "save_total_limit": str(max(AVERAGES) + 1),
        "seed": str(options.seed),
        "output_dir": str(output),
        **({"train_target": str(options.distilled)} if variant.distilled else {}),
        **variant.settings,
    }
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    callbacks = [ExponentialAverage(variant.decay)] if variant.decay else []
    recipe = read_recipe(text.recipe, words)
    record = train(recipe, callbacks).record
    return {key: record[key] for key in ("training", "scores")} | {
        "name": variant.name,
        "text": options.text,
        "settings": {key: recipe.settings[key] for key in COMPARED if key in recipe.settings},
        "moving_average": variant.decay,
        "distilled": variant.distilled,
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }


def decoding_scores(run: Path, data: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Score the mean of a run's last checkpoints with several numbers of checkpoints and length penalties."""
    text = TEXTS[record["text"]]
    settings = text.settings(data)
    sources, references = (read_lines(Path(settings[f"validation_{side}"])) for side in ("source", "target"))
    origins = read_lines(data / text.folder / text.origins) if text.origins else []
    metric = TranslationMetric(record["scores"]["validation"]["bleu_signature"].split("tok:")[1].split("|")[0])
    scores = []
    checkpoints = len(list(run.glob("checkpoint-*")))
    for last in (last for last in AVERAGES if last <= checkpoints):
        with TemporaryDirectory() as temporary:
            average_checkpoints(run, Path(temporary) / "average", last=last)
            model = AutoModelForSeq2SeqLM.from_pretrained(Path(temporary) / "average").eval()
            tokenizer = AutoTokenizer.from_pretrained(Path(temporary) / "average")
            for penalty in LENGTH_PENALTIES:
                search = BeamSearchConfig(num_beams=record["training"]["decoding"]["num_beams"], length_penalty=penalty)
                found = translate(model, tokenizer, sources, search)
                scored = {"all": metric.compute(predictions=found, references=references)}
                scored |= metric.compute_by_group(found, references, origins) if origins else {}
                scores.append({
                    "average_last": last,
                    "length_penalty": penalty,
                    "scores": {
                        name: {key: round(value[key], 2) for key in ("bleu", "chrf")} for name, value in scored.items()
                    },
                })  # fmt: skip
    return scores


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line."""
    return path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown whose first row is the heading."""
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *others))


def tables(records: list[dict[str, Any]]) -> str:
    """Return the tables of each text, the best variant first."""
    records = sorted(records, key=lambda record: -record["scores"]["validation"]["bleu"])
    parts = []
    for name, text in TEXTS.items():
        chosen = [record for record in records if record["text"] == name]
        if not chosen:
            continue
        rows: list[Sequence[str]] = [HEADINGS]
        for record in chosen:
            training, scores = record["training"], record["scores"]["validation"]
            rows.append((
                describe(record), f"{training['updates']:,}", f"{training['seed']}", f"{training['epochs']:.1f}",
                f"{training['processor_seconds'] / 60:.1f}", f"{scores['loss']:.3f}", f"{scores['bleu']:.2f}",
                f"{scores['chrf']:.2f}",
            ))  # fmt: skip
        parts += [f"{name}, recipe `{text.recipe}`:", markdown(rows)]
        if any(record.get("decoding") for record in chosen):
            parts += ["BLEU by checkpoints in the mean and by length penalty:", decoding_table(chosen)]
        if text.origins:
            parts += ["chrF by origin, with the mean and the penalty of the recipe:", origin_table(chosen)]
    return "\n\n".join(parts)


def describe(record: dict[str, Any]) -> str:
    """Name the settings of a run that variants change."""
    settings = record["settings"]
    parts = [
        "Muon" if settings.get("optim") == "muon" else "Adam",
        f"{int(settings['max_tokens_per_batch']):,} tokens",
        f"peak {float(settings['learning_rate']):.2g}",
    ]
    recipe = read_recipe(TEXTS[record["text"]].recipe).settings
    for key, name in OPTIONAL.items():
        if float(settings.get(key) or 0):
            parts.append(f"{name} {settings[key]}")
    for key, name in OTHERS.items():
        if key in settings and settings[key] != recipe.get(key):
            parts.append(f"{name} {settings[key]}")
    if record.get("moving_average"):
        parts.append(f"moving average {record['moving_average']}")
    if record.get("distilled"):
        parts.append("distilled targets")
    return ", ".join(parts)


def label(record: dict[str, Any]) -> str:
    """Name a run: its settings and number of updates."""
    return f"{describe(record)}, {record['training']['updates']:,} updates"


def decoding_table(records: list[dict[str, Any]]) -> str:
    """Return the BLEU of each number of checkpoints and length penalty."""
    rows: list[Sequence[str]] = [("settings", "checkpoints", *(f"{penalty}" for penalty in LENGTH_PENALTIES))]
    for record in records:
        for last in AVERAGES:
            found = [entry for entry in record.get("decoding", []) if entry["average_last"] == last]
            if found:
                scores = (f"{entry['scores']['all']['bleu']:.2f}" for entry in found)
                rows.append((label(record), f"{last}", *scores))
    return markdown(rows)


def origin_table(records: list[dict[str, Any]]) -> str:
    """Return the chrF of each origin."""
    found = {label(record): recipe_scores(record) for record in records if record.get("decoding")}
    origins = sorted({origin for scores in found.values() for origin in scores} - {"all"})
    rows = [(name, *(f"{scores[origin]['chrf']:.2f}" for origin in origins)) for name, scores in found.items()]
    return markdown([("settings", *origins), *rows])


def recipe_scores(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the scores with the run's own number of checkpoints and length penalty, or the closest to them."""
    averaged, penalty = len(record["training"]["averaged"]), record["training"]["decoding"]["length_penalty"]

    def distance(entry: dict[str, Any]) -> tuple[float, float]:
        return abs(entry["average_last"] - averaged), abs(entry["length_penalty"] - penalty)

    scores: dict[str, dict[str, float]] = min(record["decoding"], key=distance)["scores"]
    return scores


def render(page: Path, records: list[dict[str, Any]]) -> None:
    """Write the tables between its markers into a page."""
    text = page.read_text(encoding="utf-8")
    if (text.count(START), text.count(END)) != (1, 1):
        raise SystemExit(f"{page} must have {START} and {END} once each")
    page.write_text(
        f"{text[: text.index(START)]}{START}\n{tables(records)}\n{text[text.index(END) :]}", encoding="utf-8"
    )


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record."""
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of the runs and their records")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VANILLA_TRANSFORMER_DATA", "data")))
    parser.add_argument("--text", choices=TEXTS, default="multi30k")
    parser.add_argument("--variants", nargs="+", type=variant_of, default=[variant_of("recipe")], metavar="NAME")
    parser.add_argument("--updates", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--distilled", type=Path, metavar="FILE", help="a teacher's translations of the training text")
    parser.add_argument("--list", action="store_true", help="list the variants and end")
    parser.add_argument("--only-table", action="store_true", help="print the records that there are and end")
    parser.add_argument("--render", type=Path, metavar="PAGE", help="write the tables into this page and end")
    options = parser.parse_args(arguments)
    if options.list:
        for name, variant in VARIANTS.items():
            average = f", moving average of decay {variant.decay}" if variant.decay else ""
            changes = " ".join(f"--{key} '{value}'" for key, value in variant.settings.items())
            changes += "targets of a teacher" if variant.distilled else ""
            print(f"{name}: {changes or 'the recipe as it is'}{average}")
        return
    only_table = options.only_table or options.render is not None
    missing = [] if only_table else TEXTS[options.text].missing(options.data)
    if missing:
        parser.error(f"there is no {missing[0]}; give the folder that holds {options.text} with --data")
    needs_teacher = not only_table and any(variant.distilled for variant in options.variants)
    if needs_teacher and options.distilled is None:
        parser.error("the variant distilled needs a teacher's translations of the training text: --distilled FILE")
    if needs_teacher and not options.distilled.is_file():
        parser.error(f"there is no {options.distilled}; give the file that `vanilla-transformer translate` wrote")
    options.work.mkdir(parents=True, exist_ok=True)
    trained = 0
    for variant in () if only_table else options.variants:
        output = options.work / f"{options.text}-{variant.name}-{options.updates}-{options.seed}"
        path = Path(f"{output}.json")
        if not path.exists():
            write(path, run(variant, output, options))
            trained += 1
        record = json.loads(path.read_text(encoding="utf-8"))
        if "decoding" not in record and not variant.decay:
            write(path, {**record, "decoding": decoding_scores(output, options.data, record)})
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.work.glob("*.json"))]
    if options.render is not None:
        render(options.render, records)
    print(tables(records))
    print(f"recipe_variants: {trained} trained")


if __name__ == "__main__":
    main()
