# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The demonstration: train on the embedded corpus, average, load again, translate what was held out."""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, set_seed
from transformers.utils import logging

from ..checkpoints.averaging import write_average
from ..checkpoints.self_contained import CODE_FILES, write_model_code
from ..data.collator import DataCollatorForTranslation
from ..data.embedded_corpus import KINDS, Expression, draw_expressions
from ..data.tokenization import check_tokenizer_fits, train_tokenizer
from ..device import move_to_device
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from ..model_card import CARD_NAME, RESULTS_NAME, write_card
from ..overwriting import check_file, check_folder, output_folder
from ..plausibility import doubtful_translations
from ..presets import preset
from .preflight import PlausibilityWatch, check_settings
from .recipe import PACKAGE_RECIPES, Recipe, read_recipe
from .recipe_arguments import EMBEDDED
from .record import commit, hardware, versions, write_json
from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)

RECIPE = PACKAGE_RECIPES / "demo.yaml"
FIGURES = ("attention.html", "alignment.png")  # that the command adds to the checkpoint's directory
SAMPLES_PER_KIND = 3
_SENTENCES_PER_BATCH = 100
_EXTRA_TOKENS = 50  # a translation is at most so much longer than its source (§6.1)


@dataclass
class DemoSample:
    """One held-out expression: English, the one right translation, and the model's."""

    kind: str
    source: str
    reference: str
    translation: str


@dataclass
class DemoResult:
    """What the demo measured.

    Attributes:
        exact: share of held-out expressions whose greedy translation equals the reference.
        exact_by_kind: the same a kind.
        count_by_kind: held-out expressions a kind.
        bleu: BLEU over characters (sacrebleu, ``tokenize="char"``), 0 to 100.
        scores: BLEU and chrF with their signatures, as `TranslationMetric` gives them.
        train_seconds: wall time of the training alone.
        samples: the first few held-out expressions of each kind.
    """

    exact: float
    exact_by_kind: dict[str, float]
    count_by_kind: dict[str, int]
    bleu: float
    scores: dict[str, Any]
    train_seconds: float
    samples: list[DemoSample]


def run_demo(
    output_dir: str | Path = "runs/demo", recipe_path: str | Path | None = None, card_path: str | Path | None = None
) -> DemoResult:
    """Train by the recipe, average its last checkpoints (§6.1), load the average through the Auto classes and measure.

    Beside the checkpoint stand results.json, the record of what was done, and README.md, the card written from it.

    Args:
        output_dir: where the checkpoint goes; it is replaced if it holds an earlier demo's.
        recipe_path: None takes the package's own demo.yaml.
        card_path: file for a second copy of the card; None makes none.

    Returns:
        Exactness, BLEU, seconds and samples on the held-out test split.

    Raises:
        ValueError: If the recipe is wrong, or the directory holds something else than a checkpoint.
    """
    output_dir = Path(output_dir)
    check_folder(output_dir, "demo", inputs=() if recipe_path is None else (recipe_path,), overwrite=True)
    if card_path is not None:
        check_file(card_path, "card", inputs=(recipe_path,), overwrite=True)
    with tempfile.TemporaryDirectory() as run_dir:  # the checkpoints that are averaged
        recipe = read_recipe(RECIPE if recipe_path is None else recipe_path, [f"--output_dir={run_dir}"])
        if recipe.data.dataset_name != EMBEDDED or not recipe.run.average_last:
            raise ValueError(f"{recipe.path}: the demo needs dataset_name: {EMBEDDED} and average_last of 1 or more")
        check_settings(recipe)
        training = _train(recipe)
        also = (RESULTS_NAME, CARD_NAME, *FIGURES, *(path.name for path in CODE_FILES))
        with output_folder(output_dir, "demo", overwrite=True, also=also) as staging:
            write_average(run_dir, staging, last=recipe.run.average_last)
    write_model_code(output_dir)  # so that it loads where this package isn't

    model = move_to_device(AutoModelForSeq2SeqLM.from_pretrained(output_dir), recipe.training.device)
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    rows = draw_expressions("test", recipe.data.embedded_test, seed=recipe.training.seed)
    translations = _translate_greedily(model, tokenizer, [row.en for row in rows])
    if warning := doubtful_translations([row.en for row in rows], translations):
        logger.warning(warning)
    result = _measure(rows, translations, training["seconds"])
    write_json(output_dir / RESULTS_NAME, _record(recipe, model, training, rows, result))
    for path in (None, *([card_path] if card_path is not None else [])):
        write_card(output_dir, path, license="apache-2.0")
    return result


def _train(recipe: Recipe) -> dict[str, Any]:
    """Train, leave the last checkpoints in the recipe's output directory, and say what it took."""
    data, training = recipe.data, recipe.training
    set_seed(training.seed)
    rows = draw_expressions("train", data.embedded_train, seed=training.seed)
    tokenizer = train_tokenizer((text for row in rows for text in (row.en, row.ko)), data.vocab_size)
    tokenizers = TranslationTokenizers(tokenizer)
    columns = {
        "input_ids": tokenizers.encode_sources([row.en for row in rows]),
        "labels": tokenizers.encode_targets([row.ko for row in rows]),
    }
    config = preset(recipe.model.preset, vocab_size=len(tokenizer), **recipe.model.overrides)
    assert config.decoder_start_token_id is not None
    check_tokenizer_fits(tokenizer, config)
    trainer = VanillaTransformerTrainer(
        model=VanillaTransformerForConditionalGeneration(config),
        args=training,
        data_collator=DataCollatorForTranslation(tokenizer, config.decoder_start_token_id),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        callbacks=[PlausibilityWatch()],
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    epochs = trainer.state.epoch or 0.0
    an_epoch = sum(len(ids) for column in columns.values() for ids in column)
    saved = [int(path.name.rpartition("-")[2]) for path in Path(str(training.output_dir)).glob("checkpoint-*")]
    return {
        "updates": trainer.state.global_step,
        "epochs": round(epochs, 3),
        "seconds": seconds,
        "tokens": round(an_epoch * epochs),
        "precision": training.precision,
        "seed": training.seed,
        "max_tokens_per_batch": training.max_tokens_per_batch,
        "warmup_steps": training.warmup_steps,
        "lr_scheduler_type": str(getattr(training.lr_scheduler_type, "value", training.lr_scheduler_type)),
        "learning_rate": training.learning_rate,
        "cooldown_steps": training.cooldown_steps,
        "label_smoothing_factor": training.label_smoothing_factor,
        "averaged": [f"checkpoint-{step}" for step in sorted(saved)[-recipe.run.average_last :]],
        "decoding": {"num_beams": 1, "length_penalty": 0.0},
    }


def _record(
    recipe: Recipe, model: Any, training: dict[str, Any], rows: Sequence[Expression], result: DemoResult
) -> dict[str, Any]:
    """Say what was done and what came of it, in the words of the records of `train`."""
    data = recipe.data
    drawn = {"train": draw_expressions("train", data.embedded_train, seed=recipe.training.seed), "test": rows}
    first_of_each_kind = [result.samples[index * SAMPLES_PER_KIND] for index in range(len(KINDS))]
    return {
        "recipe": {
            "name": recipe.name,
            "settings": {key: value for key, value in recipe.settings.items() if key != "output_dir"},
        },
        "data": {split: _data_record(split, expressions) for split, expressions in drawn.items()},
        "model": {
            "preset": recipe.model.preset,
            "started_from": None,
            "parameters": model.num_parameters(),
            "vocabulary": model.config.vocab_size,
        },
        "training": {**training, "seconds": round(training["seconds"], 1)},
        "scores": {"test": {"exact": result.exact, **result.scores}},
        "samples": [asdict(sample) for sample in first_of_each_kind],
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }


def _data_record(split: str, rows: Sequence[Expression]) -> dict[str, Any]:
    pairs = "".join(f"{row.en}\t{row.ko}\n" for row in rows)
    return {
        "name": f"embedded corpus [{split}]",
        "pairs": len(rows),
        "sha256": hashlib.sha256(pairs.encode("utf-8")).hexdigest(),
        "problems": {},
    }


def _translate_greedily(model: Any, tokenizer: Any, texts: list[str]) -> list[str]:
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    translations = [""] * len(texts)
    model.eval()
    for start in range(0, len(order), _SENTENCES_PER_BATCH):
        chosen = order[start : start + _SENTENCES_PER_BATCH]
        batch = tokenizer([texts[index] for index in chosen], padding=True, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            longest = batch["input_ids"].shape[1] + _EXTRA_TOKENS
            ids = model.generate(**batch, num_beams=1, do_sample=False, max_length=longest)
        for index, text in zip(chosen, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            translations[index] = text
    return translations


def _measure(rows: list[Expression], translations: list[str], train_seconds: float) -> DemoResult:
    from ..metrics import TranslationMetric

    samples = [DemoSample(row.kind, row.en, row.ko, text) for row, text in zip(rows, translations, strict=True)]
    by_kind = {kind: [sample for sample in samples if sample.kind == kind] for kind in KINDS}
    exact = {
        kind: sum(sample.translation == sample.reference for sample in kept) / len(kept)
        for kind, kept in by_kind.items()
    }
    scores = TranslationMetric("char").compute(predictions=translations, references=[row.ko for row in rows])
    return DemoResult(
        exact=sum(sample.translation == sample.reference for sample in samples) / len(samples),
        exact_by_kind=exact,
        count_by_kind={kind: len(kept) for kind, kept in by_kind.items()},
        bleu=scores["bleu"],
        scores=scores,
        train_seconds=train_seconds,
        samples=[sample for kept in by_kind.values() for sample in kept[:SAMPLES_PER_KIND]],
    )
