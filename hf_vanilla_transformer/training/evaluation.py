# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint: load test sets, translate them by beam search, score the translations, write a record."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ..data.corpora import ParallelCorpus, load_text_files
from ..data.splits import SPLITS, load_splits
from ..data.text_lines import decode_line, read_lines, read_valid_lines
from ..device import choose_device
from ..metrics import TranslationMetric
from ..minimum_bayes_risk.config import MBRConfig
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..plausibility import tally_translations
from ..translation.engines import choose_engine, load_models
from ..translation.translate import translate
from .recipe import Recipe
from .recipe_arguments import DataArguments
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

logger = logging.get_logger(__name__)

TEXT = "text"  # name of a test set of two files; those of a recipe are called by their split


@dataclass(frozen=True)
class EvaluationResult:
    """Scores and translations of an evaluation.

    Attributes:
        record: data, scores with their signatures, decoding, hardware, seconds and versions, ready for JSON.
        translations: the translations of each test set, one per source, by name of the test set.
    """

    record: dict[str, Any]
    translations: dict[str, list[str]]


def load_corpora(data: DataArguments, splits: Sequence[str] = SPLITS) -> dict[str, ParallelCorpus]:
    """Load the splits that a recipe names.

    Args:
        data: names files or a dataset.
        splits: the splits to load, of "train", "validation" and "test"; those without data are skipped.
    """
    sources = {split: source for split in splits if (source := data.split_source(split)) is not None}
    return load_splits(sources, source_lang=data.source_lang, target_lang=data.target_lang, streaming=data.streaming)


def load_evaluation_text(source: str | Path, reference: str | Path) -> dict[str, ParallelCorpus]:
    """Load a test set from two aligned text files; every line is kept.

    Raises:
        ValueError: If a file is missing or empty, or their numbers of lines differ.
    """
    return {TEXT: load_text_files(source, reference, keep_all=True)}


def load_recipe_text(recipe: Recipe, splits: Sequence[str] | None = None) -> dict[str, ParallelCorpus]:
    """Load the test sets of a recipe.

    Args:
        recipe: from `read_recipe`.
        splits: "train", "validation" or "test"; None loads the last two, where the recipe names data for them.

    Raises:
        ValueError: If a split is unknown, or the recipe names no data for it.
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
    config: BeamSearchConfig | None = None,
    *,
    batch_size: int = 64,
    max_source_tokens: int = 1024,
    source_tag: str = "",
    tokenize: str = "13a",
    lowercase: bool = False,
    groups: Mapping[str, Sequence[str]] | None = None,
    on_split: Callable[[str, int], None] | None = None,
    device: str | torch.device | None = None,
    precision: str = "auto",
    engine: str | None = None,
    workers: int | None = None,
    ensemble: Sequence[str | Path] = (),
    mbr: MBRConfig | None = None,
) -> EvaluationResult:
    """Translate test sets with a checkpoint or an export and score the translations.

    Args:
        checkpoint: a directory, or an id on the Hub.
        corpora: the test sets by name; the first language of each is the source.
        config: settings of the beam search; None uses the paper's.
        batch_size: maximum number of sentences per batch.
        max_source_tokens: sources with more tokens become empty translations, which are scored as such.
        source_tag: put before each source, e.g. "<2de>"; see `translate`.
        tokenize: sacreBLEU's tokenizer; see `TranslationMetric`.
        lowercase: compute case-insensitive scores.
        groups: a label for each line of a test set, by its name; each label is also scored separately.
        on_split: called before each test set with its name and number of sentences.
        device: device to run on; None selects the accelerator if there is one, else the CPU.
        precision: of the model's arithmetic; see `prepare_for_inference`.
        engine: runtime of the model; None reads it from the directory. See `load_translator`.
        workers: processes that translate side by side; see `translate`.
        ensemble: further checkpoints that translate together with the first one; see `Ensemble`.
        mbr: choose each translation by minimum Bayes risk; see `MBRConfig`.

    Raises:
        ValueError: If an argument is out of range, the checkpoint cannot be loaded, or the number of labels differs
            from the number of lines.
    """
    config, groups = config or BeamSearchConfig(), groups or {}
    metric = TranslationMetric(tokenize, lowercase=lowercase)  # raises for an unknown tokenizer before any work
    for name, labels in groups.items():
        check_labels(labels, corpora[name], name)
    engine = choose_engine(engine, checkpoint, device, precision)
    choose_device(device)  # raises before the checkpoint is loaded
    model, tokenizer = load_models(engine, [checkpoint, *ensemble], device, precision)
    scores: dict[str, dict[str, Any]] = {}
    translations: dict[str, list[str]] = {}
    seconds: dict[str, float] = {}
    for name, corpus in corpora.items():
        if on_split is not None:
            on_split(name, corpus.report.pairs_kept)
        started = time.perf_counter()
        translations[name] = translate_corpus(
            model,
            tokenizer,
            corpus,
            config,
            batch_size=batch_size,
            max_source_tokens=max_source_tokens,
            source_tag=source_tag,
            workers=workers,
            mbr=mbr,
        )
        seconds[name] = round(time.perf_counter() - started, 1)
        references = corpus.sides()[1]
        scores[name] = score_corpus(metric, corpus, translations[name], name=name)
        if name in groups:
            scores[name]["by_group"] = metric.compute_by_group(translations[name], references, groups[name])
    record = {
        "checkpoint": without_folder(str(checkpoint)),
        **({"ensemble": [without_folder(str(other)) for other in ensemble]} if ensemble else {}),
        "data": {name: data_record(corpus) for name, corpus in corpora.items()},
        "model": _model_record(model),
        "engine": engine,
        "decoding": {
            **decoding_record(config),
            "batch_size": batch_size,
            **({"source_tag": source_tag} if source_tag else {}),
            **({} if mbr is None else {"mbr": dataclasses.asdict(mbr)}),
        },
        "precision": _precision(model),
        "scores": scores,
        "seconds": seconds,
        "device": model.device.type,
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }
    return EvaluationResult(record, translations)


def _model_record(model: Any) -> dict[str, int]:
    """Return the number of parameters; an exported model doesn't report it."""
    if not isinstance(model, torch.nn.Module):
        return {}
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def _precision(model: Any) -> str:
    if not isinstance(model, torch.nn.Module):
        return str(model.precision)
    return "int8" if getattr(model, "is_quantized", False) else str(model.dtype).removeprefix("torch.")


def translate_corpus(
    model: Any,
    tokenizer: Any,
    corpus: ParallelCorpus,
    config: BeamSearchConfig,
    *,
    batch_size: int = 64,
    max_source_tokens: int = 1024,
    source_tag: str = "",
    workers: int | None = 1,
    mbr: MBRConfig | None = None,
) -> list[str]:
    """Translate the sources of a corpus.

    Args:
        model, tokenizer, config, batch_size, max_source_tokens, source_tag, workers, mbr: see `translate`.
        corpus: its first language is the source.
    """
    sources, _ = corpus.sides()
    return translate(
        model,
        tokenizer,
        sources,
        config,
        batch_size=batch_size,
        max_source_tokens=max_source_tokens,
        source_tag=source_tag,
        workers=workers,
        mbr=mbr,
    )


def score_corpus(metric: Any, corpus: ParallelCorpus, translations: Sequence[str], *, name: str) -> dict[str, Any]:
    """Score the translations of a corpus, and log a warning if many are empty or repeat themselves.

    Args:
        metric: a `TranslationMetric`.
        corpus: sources and references.
        translations: one for each source.
        name: name of the corpus in the warning.

    Returns:
        The metric's scores, and the shares of translations, 0 to 1, that are ``empty`` and ``repeating``.
    """
    sources, references = corpus.sides()
    tally = tally_translations(sources, translations)
    if warning := tally.warning():
        logger.warning(f"{name}: {warning}")
    return {**metric.compute(predictions=translations, references=references), **tally.shares}


def read_labels(path: str | Path) -> list[str]:
    """Read a file of labels, one per line; encodings and line ends are those of `text_lines`.

    Raises:
        ValueError: If the file is not text, or a line is not UTF-8.
    """
    return [text.strip() for text in read_valid_lines(Path(path))]


def check_labels(labels: Sequence[str], corpus: ParallelCorpus, name: str) -> None:
    """Raise ValueError unless there is a label for each line of a corpus, whose name is for the message."""
    lines = corpus.report.pairs_kept
    if len(labels) != lines:
        raise ValueError(f"there are {len(labels)} labels for the {lines} lines of {name}; give one per line")


def read_translations(path: str | Path) -> list[str]:
    """Read translations, one per line; invalid UTF-8 is replaced, and a warning counts these lines.

    Raises:
        ValueError: If the file is not text.
        OSError: If it cannot be read.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}")
    found = [decode_line(line) for line in read_lines(Path(path))]
    if invalid := sum(not valid for _, valid in found):
        logger.warning(f"{path}: {invalid:,} line(s) are not UTF-8; invalid bytes were replaced")
    return [text for text, _ in found]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, record)


__all__ = [
    "EvaluationResult",
    "check_labels",
    "evaluate_checkpoint",
    "load_corpora",
    "load_evaluation_text",
    "load_recipe_text",
    "read_labels",
    "read_translations",
    "score_corpus",
    "translate_corpus",
    "write_record",
    "write_translations",
]
