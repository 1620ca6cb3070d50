"""Real target tokens per second of training loops on Multi30k: ours with recipe tiny, and the stock Seq2SeqTrainer.

The peer is MarianMT of the same size with 256 sentences per batch and batches of like length, its best setting. Both
loops run with their own collators, samplers, optimizers and logging; what counts is every non-padding target token
between two updates of the loop, and every second between them. Ours takes the precision that ``precision: auto``
selects; the peer runs in every precision that the processor has units for, with torch's attention kernel and with plain
products, and its fastest counts. The recipe's R-Drop sends every token through the model twice, which the peer does
not: the comparison is without it, and the recipe as it is has a row of its own.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from datasets import Dataset
from machine import DTYPES, matrix_rate, memory_bandwidth
from side_by_side import OURS, Goal, Options, Result, Row, Skipped
from training_step import ATTENTIONS, Setting, dearest, marian_config, profiler, step_floor, step_operations
from transformers import (
    DataCollatorForSeq2Seq,
    MarianMTModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from hf_vanilla_transformer import (
    DataCollatorForTranslation,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    embedded_corpus,
    preset,
    train_tokenizer,
)

DATA_VARIABLE = "VANILLA_TRANSFORMER_DATA"
RECIPE = Path(__file__).resolve().parents[1] / "hf_vanilla_transformer" / "recipes" / "tiny.yaml"
TEXT = ("multi30k/lc.norm.tok/train.en", "multi30k/lc.norm.tok/train.de")  # in the folder that --data names
DATA_LICENSE = "Multi30k: no licence stated; the text and weights trained on it may not be redistributed"
WITH_R_DROP = f"{OURS}, R-Drop"
PEER = "transformers MarianMT, Seq2SeqTrainer, 256 sentences per batch, group_by_length"
WARM_UP = 3  # updates that aren't counted
_COMMON: dict[str, Any] = {
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_steps": 20,
    "use_cpu": True,
}


class CountingCollator:
    """A collator that notes how many real target tokens each batch had."""

    def __init__(self, collator: Callable[[list[Any]], Any]) -> None:
        self.collator = collator
        self.tokens: list[int] = []  # by batch, in the order in which the loop takes them

    def __call__(self, features: list[Any]) -> Any:
        """Collate, and note."""
        batch = self.collator(features)
        self.tokens.append(int((batch["labels"] != -100).sum()))
        return batch


class Clock(TrainerCallback):
    """Notes when each update ended, and profiles the last of them, which isn't counted."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.profile = profiler()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the profile."""
        if state.global_step == state.max_steps - 1:
            self.profile.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time, or end the profile."""
        if state.global_step == state.max_steps:
            self.profile.stop()
        else:
            self.ended.append(time.perf_counter())


def tokens_per_second(trainer: Any, collator: CountingCollator) -> tuple[float, list[dict[str, Any]]]:
    """Train, and return the real target tokens per second after the warm-up, and a profile of one more update."""
    clock = Clock()
    trainer.remove_callback(PrinterCallback)  # standard output is for the table
    trainer.add_callback(clock)
    trainer.train()
    tokens = sum(collator.tokens[WARM_UP : len(clock.ended)])
    return tokens / (clock.ended[-1] - clock.ended[WARM_UP - 1]), dearest(clock.profile)


def update_floor(options: Options, precision: str, vocab_size: int, positions: int) -> dict[str, Any]:
    """Compute the least time of one of our updates.

    The products are counted for sentences of 16 tokens, about Multi30k's length; the share that attention has in them
    is small.
    """
    config = preset("tiny", vocab_size=vocab_size)
    operations = step_operations(config, max(positions // 16, 1), 16)
    rate = matrix_rate(DTYPES[precision], quick=options.quick)
    return step_floor(config, operations, precision, rate, memory_bandwidth(quick=options.quick))


def our_trainer(
    data: Dataset, tokenizer: PreTrainedTokenizerBase, recipe: dict[str, Any], updates: int, r_drop: float
) -> Any:
    """Build our trainer as the recipe does, but for its R-Drop; returns it and its counting collator."""
    config = preset("tiny", vocab_size=len(tokenizer))
    collator = CountingCollator(DataCollatorForTranslation(tokenizer, config.decoder_start_token_id))
    trainer = VanillaTransformerTrainer(
        VanillaTransformerForConditionalGeneration(config),
        VanillaTransformerTrainingArguments(
            max_steps=updates,
            max_tokens_per_batch=recipe["max_tokens_per_batch"],
            warmup_steps=recipe["warmup_steps"],
            learning_rate=recipe["learning_rate"],
            label_smoothing_factor=recipe["label_smoothing_factor"],
            precision=recipe["precision"],
            r_drop=r_drop,
            seed=recipe["seed"],
            **{"optim": recipe["optim"]} if "optim" in recipe else {},
            **_COMMON,
        ),
        data_collator=collator,
        train_dataset=data,
        processing_class=tokenizer,
    )
    return trainer, collator


def stock_trainer(
    data: Dataset, tokenizer: PreTrainedTokenizerBase, recipe: dict[str, Any], updates: int, setting: Setting
) -> Any:
    """Build the stock trainer with a MarianMT of the same size; returns it and its counting collator."""
    sizes = preset("tiny", vocab_size=len(tokenizer) + 1)
    model = MarianMTModel(marian_config(sizes, attn_implementation=setting.attention))
    collator = CountingCollator(DataCollatorForSeq2Seq(tokenizer, model=model))
    trainer = Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(
            max_steps=updates,
            per_device_train_batch_size=recipe["sentences"],
            train_sampling_strategy="group_by_length",
            label_smoothing_factor=recipe["label_smoothing_factor"],
            bf16=setting.precision == "bf16",
            seed=recipe["seed"],
            **_COMMON,
        ),
        data_collator=collator,
        train_dataset=data,
        processing_class=tokenizer,
    )
    return trainer, collator


def load_pairs(options: Options) -> tuple[list[str], list[str]] | None:
    """Read Multi30k's training text, or None where it isn't; ``--quick`` makes some by rule."""
    if options.quick:
        rows = embedded_corpus("train", size=200, seed=0)["translation"]
        return [row["en"] for row in rows], [row["ko"] for row in rows]
    folder = options.data or Path(os.environ.get(DATA_VARIABLE, "data"))
    paths = [folder / name for name in TEXT]
    if not all(path.is_file() for path in paths):
        return None
    source, target = (path.read_text(encoding="utf-8").removesuffix("\n").split("\n") for path in paths)
    return source, target


def measure(options: Options) -> Result:
    """Run both loops in turns."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    recipe["sentences"] = 256
    recipe["precision"] = "fp32" if options.precision == "fp32" else "auto"
    pairs = load_pairs(options)
    if pairs is None:
        raise Skipped(f"training_loop: no Multi30k; give its folder with --data or {DATA_VARIABLE}")
    if options.quick:
        recipe.update(vocab_size=400, max_tokens_per_batch=256, sentences=8)
    rounds = options.rounds or (1 if options.quick else 5)
    updates = WARM_UP + (2 if options.quick else 40) + 1  # the last is profiled
    source, target = pairs
    tokenizer = train_tokenizer([*source, *target], recipe["vocab_size"])
    encoded = Dataset.from_dict(
        {"input_ids": tokenizer(source)["input_ids"], "labels": tokenizer(text_target=target)["input_ids"]}
    )
    peers = {
        str(setting): setting
        for precision in options.precisions
        for setting in (Setting(PEER, precision, attention) for attention in ATTENTIONS)
    }
    ours = {OURS: 0.0, **({WITH_R_DROP: recipe["r_drop"]} if recipe.get("r_drop") else {})}
    speeds: dict[str, list[float]] = {name: [] for name in (*ours, *peers)}
    operators: dict[str, list[dict[str, Any]]] = {}
    precision = ""
    with TemporaryDirectory() as temporary:
        _COMMON["output_dir"] = temporary
        for turn in range(rounds):
            recipe["seed"] = turn + 1
            for name in speeds:
                torch.manual_seed(turn)
                if name in ours:
                    trainer, collator = our_trainer(encoded, tokenizer, recipe, updates, ours[name])
                else:
                    trainer, collator = stock_trainer(encoded, tokenizer, recipe, updates, peers[name])
                speed, operators[name] = tokens_per_second(trainer, collator)
                speeds[name].append(speed)
                if name == OURS:
                    precision = trainer.args.precision  # what "auto" was resolved to
                print(f"  {name}: run {turn + 1} of {rounds}, {speed:,.0f} tokens/s", file=sys.stderr)

    def fastest(*precisions: str) -> Setting:
        among = [setting for setting in peers.values() if setting.precision in precisions]
        return max(among, key=lambda setting: max(speeds[str(setting)]))

    best = fastest(*options.precisions)
    best_note = f"ours {precision}, peer {best.precision}, attention {best.attention}"
    what = f"training loop on {'the embedded corpus' if options.quick else 'Multi30k'}, tiny.yaml"
    rows = [
        Row(
            f"{what}, best precision of each",
            "target tokens/s",
            speeds[OURS],
            speeds[str(best)],
            PEER,
            goal=Goal(least=3.5),
            note=best_note,
        )
    ]
    if len(options.precisions) > 1:
        for of_peer in options.precisions:
            theirs = fastest(of_peer)
            rows.append(
                Row(
                    f"{what}, against the peer in {of_peer}",
                    "target tokens/s",
                    speeds[OURS],
                    speeds[str(theirs)],
                    f"{PEER}, {of_peer}",
                    note=f"ours {precision}, peer's attention {theirs.attention}",
                )
            )
    if WITH_R_DROP in ours:
        rows.append(
            Row(
                f"{what}, with its R-Drop: two passes over each token, the peer one",
                "target tokens/s",
                speeds[WITH_R_DROP],
                speeds[str(best)],
                PEER,
                note=best_note,
            )
        )
    positions = recipe["max_tokens_per_batch"]
    no_bf16 = [] if "bf16" in options.precisions else [f"the peer's training loop in bf16: {options.precision_reason}"]
    return Result(
        "training_loop",
        "Real target tokens per second of whole training loops, padding not counted, after a warm-up of a few updates.",
        rows,
        profile={
            "operators": operators,
            "floor": {
                f"an update of {positions:,} positions on either side, {precision}": update_floor(
                    options, precision, len(tokenizer), positions
                )
            },
        },
        settings={
            "precision": precision,
            "max_tokens_per_batch": positions,
            "optim": recipe.get("optim", "adamw"),
            "vocab_size": len(tokenizer),
            "updates": updates - WARM_UP - 1,
            "rounds": rounds,
            "data_license": DATA_LICENSE,
        },
        skipped=no_bf16,
    )
