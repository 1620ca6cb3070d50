# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""A finished checkpoint, measured: translate text by §6.1, score it, and say on what, how, where and how fast."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ..checkpoints.loading import load_checkpoint
from ..data.corpora import ParallelCorpus, load_text_files
from ..data.splits import SPLITS
from ..data.text_lines import decode_line, read_lines
from ..device import choose_device, move_to_device
from ..metrics import TranslationMetric
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..plausibility import doubtful_translations
from ..translation import translate
from .recipe import Recipe
from .record import (
    commit,
    data_record,
    decoding_record,
    hardware,
    versions,
    without_folder,
    write_json,
    write_translations,
)
from .run import load_corpora

logger = logging.get_logger(__name__)

TEXT = "text"  # what two files are called where a recipe's splits have names


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation has found.

    Attributes:
        record: data, scores (with their signatures), decoding, hardware, seconds, versions; plain, ready for JSON.
        translations: by split, a line a source.
    """

    record: dict[str, Any]
    translations: dict[str, list[str]]


def load_evaluation_text(source: str | Path, reference: str | Path) -> dict[str, ParallelCorpus]:
    """Read two aligned text files, every line in its place.

    Raises:
        ValueError: If a file is missing, empty, or of another length than the other.
    """
    return {TEXT: load_text_files(source, reference, keep_all=True)}


def load_recipe_text(recipe: Recipe, splits: Sequence[str] | None = None) -> dict[str, ParallelCorpus]:
    """Load what a recipe evaluates on.

    Args:
        recipe: from `read_recipe`.
        splits: "train", "validation" or "test"; None takes the latter two, where there are.

    Raises:
        ValueError: If a split is unknown, or the recipe names no text for it.
    """
    wanted = SPLITS[1:] if splits is None else tuple(splits)
    unknown = [split for split in wanted if split not in SPLITS]
    if unknown:
        raise ValueError(f"there is no split {unknown[0]!r}; choose of {', '.join(SPLITS)}")
    corpora = load_corpora(recipe.data, wanted)
    missing = [split for split in wanted if split not in corpora]
    if not corpora or (splits is not None and missing):
        name = missing[0]
        raise ValueError(f"{recipe.path}: there is no text for {name}; set {name}_source and {name}_target")
    return corpora


def evaluate_checkpoint(
    checkpoint: str | Path,
    corpora: Mapping[str, ParallelCorpus],
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
    config: BeamSearchConfig | None = None,
    batch_size: int = 64,
    max_source_tokens: int = 1024,
    groups: Mapping[str, Sequence[str]] | None = None,
    on_split: Callable[[str, int], None] | None = None,
    device: str | torch.device | None = None,
) -> EvaluationResult:
    """Translate and score.

    Args:
        checkpoint: a directory, or a name on the Hub.
        corpora: what to evaluate on, by name; sources are the first language of each.
        tokenize: how BLEU splits into words; see `TranslationMetric`.
        lowercase: score without regard to capitals.
        config: settings of the beam search; None takes the paper's.
        batch_size, max_source_tokens: see `translate`.
        groups: by name of the corpus, a label for each line; scores are then given for each label as well.
        on_split: called before each with its name and number of sentences.
        device: what computes; None takes the accelerator where there is one, else the CPU.

    Raises:
        ValueError: If an argument is out of range, the checkpoint isn't readable, or labels aren't one a line.
    """
    config = BeamSearchConfig() if config is None else config
    groups = groups or {}
    metric = TranslationMetric(tokenize, lowercase=lowercase)  # an unknown tokenizer is refused before any work
    for name, labels in groups.items():
        lines = corpora[name].report.pairs_kept
        if len(labels) != lines:
            raise ValueError(f"there are {len(labels)} labels for the {lines} lines of {name}; give one a line")
    chosen = choose_device(device)
    loaded, tokenizer = load_checkpoint(checkpoint)
    model = move_to_device(loaded, chosen)
    scores: dict[str, dict[str, Any]] = {}
    translations: dict[str, list[str]] = {}
    seconds: dict[str, float] = {}
    for name, corpus in corpora.items():
        sources, references = corpus.sides()
        if on_split is not None:
            on_split(name, len(sources))
        started = time.perf_counter()
        translations[name] = translate(
            model,
            tokenizer,
            sources,
            config,
            batch_size=batch_size,
            max_source_tokens=max_source_tokens,
        )
        seconds[name] = round(time.perf_counter() - started, 1)
        if warning := doubtful_translations(sources, translations[name]):
            logger.warning(f"{name}: {warning}")
        scores[name] = metric.compute(predictions=translations[name], references=references)
        if name in groups:
            scores[name]["by_group"] = score_by_group(metric, translations[name], references, groups[name])
    record = {
        "checkpoint": without_folder(str(checkpoint)),
        "data": {name: data_record(corpus) for name, corpus in corpora.items()},
        "model": {"parameters": sum(parameter.numel() for parameter in model.parameters())},
        "decoding": decoding_record(config) | {"batch_size": batch_size},
        "precision": str(model.dtype).removeprefix("torch."),
        "scores": scores,
        "seconds": seconds,
        "device": model.device.type,
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }
    return EvaluationResult(record, translations)


def score_by_group(
    metric: Any, predictions: Sequence[str], references: Sequence[str], labels: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Score the lines of each label by themselves; labels in alphabetical order."""
    scores = {}
    for label in sorted(set(labels)):
        chosen = [place for place, other in enumerate(labels) if other == label]
        found = metric.compute(
            predictions=[predictions[place] for place in chosen], references=[references[place] for place in chosen]
        )
        scores[label] = {key: found[key] for key in ("bleu", "chrf", "exact", "sentences")}
    return scores


def read_labels(path: str | Path) -> list[str]:
    """Read a file of labels, one per line, as text is read everywhere; see `text_lines`.

    Raises:
        ValueError: If the file isn't text, or a line isn't UTF-8.
    """
    labels = []
    for number, line in enumerate(read_lines(Path(path)), start=1):
        text, valid = decode_line(line)
        if not valid:
            raise ValueError(f"{path}:{number} is not UTF-8 text; convert the file, as with iconv -f LATIN1 -t UTF-8")
        labels.append(text.strip())
    return labels


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, complete or not at all."""
    write_json(path, record)


__all__ = [
    "EvaluationResult",
    "evaluate_checkpoint",
    "load_evaluation_text",
    "load_recipe_text",
    "read_labels",
    "score_by_group",
    "write_record",
    "write_translations",
]
