# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The demo: `train` on the embedded corpus, then `translate` held-out expressions and score the translations."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from ..checkpoints.averaging import write_average
from ..checkpoints.remote_code import write_model_code
from ..data.corpora import load_embedded
from ..data.embedded_corpus import KINDS, Expression, draw_expressions
from ..device import move_to_device
from ..messages import other_progress_bars_hidden
from ..metrics import TranslationMetric
from ..model_card import CARD_NAME, RESULTS_NAME, write_card
from ..overwriting import check_file, check_folder, output_folder
from ..plausibility import tally_translations
from ..translation.translate import translate
from .recipe import PACKAGE_RECIPES, Recipe, read_recipe
from .recipe_arguments import EMBEDDED
from .record import data_record, write_json
from .run import train_and_show

logger = logging.get_logger(__name__)

RECIPE = PACKAGE_RECIPES / "demo.yaml"
FIGURES = ("attention.html", "alignment.png")  # files that the command adds to the checkpoint's directory
SAMPLES_PER_KIND = 3
# The demo evaluates the checkpoint as a user loads it, not within the run.
_NOT_EVALUATED = {"validation_split": "null", "test_split": "null"}


@dataclass
class DemoSample:
    """A held-out expression: English, the correct translation, and the model's."""

    kind: str
    source: str
    reference: str
    translation: str


@dataclass
class DemoResult:
    """Scores of the demo on held-out expressions. Kinds of which none was held out are missing.

    Attributes:
        exact: share of translations that equal the reference, 0 to 1.
        exact_by_kind: the same by kind of expression.
        count_by_kind: number of expressions by kind.
        bleu: BLEU over characters (sacreBLEU, ``tokenize="char"``), 0 to 100.
        scores: BLEU and chrF with their signatures, from `TranslationMetric`.
        train_seconds: wall time of the training alone, in seconds.
        samples: the first few expressions of each kind.
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
    """Train by the recipe, average the last checkpoints (§6.1), load the average and translate the test split.

    The directory contains the checkpoint, results.json with the record of the run, and README.md, the model card.

    Args:
        output_dir: directory for the checkpoint; one of an earlier demo is replaced.
        recipe_path: a recipe instead of the package's demo.yaml.
        card_path: file for a second copy of the card; None writes none.

    Returns:
        The scores, the training time and samples.

    Raises:
        ValueError: If the recipe is invalid, or the directory contains something other than a demo's checkpoint.
    """
    output_dir = Path(output_dir)
    inputs = () if recipe_path is None else (recipe_path,)
    check_folder(output_dir, "demo", inputs=inputs, overwrite=True)
    if card_path is not None:
        check_file(card_path, "card", inputs=(recipe_path,), overwrite=True)
    with tempfile.TemporaryDirectory() as run_dir:  # for the checkpoints, of which only the average is kept
        recipe = _read_recipe(RECIPE if recipe_path is None else recipe_path, run_dir)
        record = train_and_show(recipe, output_dir=output_dir).record
        also = (RESULTS_NAME, CARD_NAME, *FIGURES)
        with output_folder(output_dir, "demo", inputs=inputs, overwrite=True, also=also) as staging:
            write_average(run_dir, staging, last=len(record["training"]["averaged"]))
            write_model_code(staging)  # so that it can be loaded without this package

    with other_progress_bars_hidden():
        model = move_to_device(AutoModelForSeq2SeqLM.from_pretrained(output_dir), recipe.training.device)
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    rows = draw_expressions("test", recipe.data.embedded_test, seed=recipe.data.embedded_seed)
    sources = [row.en for row in rows]
    logger.info(f"translating test: {len(sources):,} sentences")
    translations = translate(model, tokenizer, sources, recipe.search, max_source_tokens=recipe.run.max_source_tokens)
    tally = tally_translations(sources, translations)
    if warning := tally.warning():
        logger.warning(warning)
    result = _score(rows, translations, record["training"]["seconds"])
    write_json(output_dir / RESULTS_NAME, _add_results(record, recipe, result, tally.shares))
    for path in (None, *([card_path] if card_path is not None else [])):
        write_card(output_dir, path, license="apache-2.0")
    return result


def _read_recipe(path: str | Path, run_dir: str) -> Recipe:
    overrides = {"output_dir": run_dir, **_NOT_EVALUATED}
    recipe = read_recipe(path, [f"--{key}={value}" for key, value in overrides.items()])
    if recipe.data.dataset_name != EMBEDDED or not recipe.run.average_last:
        raise ValueError(f"{recipe.path}: the demo needs dataset_name: {EMBEDDED} and average_last of 1 or more")
    if recipe.data.source_lang != "en":
        raise ValueError(f"{recipe.path}: the demo translates from en to ko; set source_lang: en and target_lang: ko")
    return recipe


def _add_results(
    record: dict[str, Any], recipe: Recipe, result: DemoResult, shares: dict[str, float]
) -> dict[str, Any]:
    """Add the held-out split, its scores and samples to the record of the run."""
    settings = {key: value for key, value in record["recipe"]["settings"].items() if key not in _NOT_EVALUATED}
    test = load_embedded("test", recipe.data.embedded_test, seed=recipe.data.embedded_seed, keep_all=True)
    first = {sample.kind: sample for sample in reversed(result.samples)}
    return {
        **record,
        "recipe": {**record["recipe"], "settings": settings},
        "data": {**record["data"], "test": data_record(test)},
        "scores": {"test": {"exact": result.exact, **result.scores, **shares}},
        "samples": [asdict(first[kind]) for kind in KINDS if kind in first],
    }


def _score(rows: Sequence[Expression], translations: list[str], train_seconds: float) -> DemoResult:
    samples = [DemoSample(row.kind, row.en, row.ko, text) for row, text in zip(rows, translations, strict=True)]
    by_kind = {kind: [sample for sample in samples if sample.kind == kind] for kind in KINDS}
    by_kind = {kind: of_kind for kind, of_kind in by_kind.items() if of_kind}
    scores = TranslationMetric("char").compute(predictions=translations, references=[row.ko for row in rows])
    return DemoResult(
        exact=_share_exact(samples),
        exact_by_kind={kind: _share_exact(of_kind) for kind, of_kind in by_kind.items()},
        count_by_kind={kind: len(of_kind) for kind, of_kind in by_kind.items()},
        bleu=scores["bleu"],
        scores=scores,
        train_seconds=train_seconds,
        samples=[sample for of_kind in by_kind.values() for sample in of_kind[:SAMPLES_PER_KIND]],
    )


def _share_exact(samples: Sequence[DemoSample]) -> float:
    return sum(sample.translation == sample.reference for sample in samples) / len(samples)


__all__ = ["DemoResult", "DemoSample", "run_demo"]
