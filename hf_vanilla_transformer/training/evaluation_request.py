# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint on two text files or on the test data that a recipe names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ..data.corpora import ParallelCorpus
from ..data.corpus_warnings import corpus_warnings
from ..data.file_languages import language_of_file
from ..data.scripts import NOT_SPLIT_AT_SPACES, main_script, unexpected_script
from ..languages import check_language, doubtful_language, language_name
from ..metrics import TranslationMetric, default_bleu_tokenizer
from ..minimum_bayes_risk.config import MBRConfig
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..overwriting import check_file
from ..translation.engines import check_ensemble, choose_engine, default_search
from .evaluation import (
    EvaluationResult,
    evaluate_checkpoint,
    load_evaluation_text,
    load_recipe_text,
    read_labels,
    write_record,
    write_translations,
)
from .recipe import Recipe, read_recipe

logger = logging.get_logger(__name__)

_SAMPLED_LINES = 500  # of the references, of which the script is determined


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate, on what, and where the results go. A setting that is None is the recipe's, else the default.

    Attributes:
        model: directory of a checkpoint or an export, or id on the Hub.
        source, reference: two aligned text files.
        recipe: recipe that names the text, instead of the two files.
        overrides: words "--key value" that take precedence over the recipe.
        splits: splits of the recipe; None evaluates validation and test.
        target_lang: language of the translations, which selects the tokenizer of BLEU; None takes it from the name of
            ``reference``, as test.ko.
        tokenize: sacreBLEU's tokenizer.
        lowercase: ignore case.
        search: fields of `BeamSearchConfig` that take precedence over the recipe's.
        batch_size: maximum number of sentences per batch.
        max_source_tokens: longer sources get an empty translation.
        source_tag: put before each line of ``source``; the recipe's test_source_tags are for a recipe.
        groups: file with one label per line; each label is scored separately as well.
        translations: file for the translations, one per line.
        output: file for the record, in JSON.
        overwrite: replace ``translations`` and ``output``.
        precision: of the model's arithmetic; see `prepare_for_inference`.
        engine: runtime of the model; None reads it from the directory.
        workers: processes that translate side by side; see `translate`.
        ensemble: further checkpoints that translate together with ``model``.
        mbr: choose each translation by minimum Bayes risk.
    """

    model: str
    source: str | None = None
    reference: str | None = None
    recipe: str | None = None
    overrides: Sequence[str] = ()
    splits: Sequence[str] | None = None
    target_lang: str | None = None
    tokenize: str | None = None
    lowercase: bool | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    max_source_tokens: int | None = None
    source_tag: str = ""
    groups: str | None = None
    translations: str | None = None
    output: str | None = None
    overwrite: bool = False
    precision: str = "auto"
    engine: str | None = None
    workers: int | None = None
    ensemble: Sequence[str] = ()
    mbr: MBRConfig | None = None


def run_evaluation(
    request: EvaluationRequest,
    *,
    device: str | torch.device | None = None,
    on_split: Callable[[str, int], None] | None = None,
) -> EvaluationResult:
    """Check all arguments, translate, score, and write the files that the request names.

    Args:
        request: see `EvaluationRequest`.
        device, on_split: see `evaluate_checkpoint`.

    Raises:
        ValueError: If a setting is invalid, or the text cannot be read.
        OSError: If an output file exists and must not be replaced, or cannot be written.
    """
    resolved = ResolvedRequest.of(request)
    _check_outputs(request, resolved.recipe)
    corpora = _load_text(request, resolved.recipe)
    if (request.groups or request.translations) and len(corpora) != 1:
        raise ValueError(
            f"--groups and --translations are for one split, and there are {len(corpora)}; choose one with --split"
        )
    resolved.warn_of_text(corpora)
    only = next(iter(corpora))
    groups = {only: read_labels(request.groups)} if request.groups else None
    result = resolved.evaluate(request.model, corpora, groups=groups, device=device, on_split=on_split)
    if request.translations:
        write_translations(Path(request.translations), result.translations[only])
    if request.output:
        write_record(Path(request.output), result.record)
    return result


@dataclass(frozen=True)
class ResolvedRequest:
    """A request whose recipe is read, and whose settings of the scores are decided.

    Attributes:
        request: the request.
        recipe: its recipe; None if it names none.
        tokenize: sacreBLEU's tokenizer.
        lowercase: whether case is ignored.
    """

    request: EvaluationRequest
    recipe: Recipe | None
    tokenize: str
    lowercase: bool

    @classmethod
    def of(cls, request: EvaluationRequest) -> "ResolvedRequest":
        """Read the recipe and check the settings, before any text is read.

        Raises:
            ValueError: If a setting is invalid.
        """
        if request.source_tag and request.recipe is not None:
            raise ValueError(
                "source_tag is for two files; for the text of a recipe, set its test_source_tags and "
                "validation_source_tags"
            )
        recipe = _read_recipe(request)
        _check_languages(request, recipe)
        if request.ensemble:
            check_ensemble([request.model, *request.ensemble])
        tokenize = _bleu_tokenizer(request, recipe)
        lowercase = request.lowercase
        if lowercase is None:
            lowercase = recipe is not None and recipe.data.lowercase
        TranslationMetric(tokenize)  # raises if the tokenizer is unknown, not installed, or cannot be downloaded
        return cls(request, recipe, tokenize, lowercase)

    def warn_of_text(self, corpora: dict[str, ParallelCorpus]) -> None:
        """Log a warning for each problem of the test sets."""
        for warning in corpus_warnings(corpora):
            logger.warning(warning)
        for corpus in corpora.values() if self.recipe is None else ():
            if doubt := _script_warning(corpus.sides()[1], self.request, self.tokenize):
                logger.warning(doubt)
                break

    def evaluate(
        self,
        model: str,
        corpora: dict[str, ParallelCorpus],
        *,
        groups: dict[str, list[str]] | None,
        device: str | torch.device | None,
        on_split: Callable[[str, int], None] | None,
    ) -> EvaluationResult:
        """Translate the test sets with a model, and score the translations; see `evaluate_checkpoint`."""
        request = self.request
        engine = choose_engine(request.engine, model, device, request.precision)
        config = BeamSearchConfig() if self.recipe is None else self.recipe.search
        return evaluate_checkpoint(
            model,
            corpora,
            default_search(engine, config, **request.search),
            tokenize=self.tokenize,
            lowercase=self.lowercase,
            batch_size=request.batch_size,
            max_source_tokens=_source_limit(request, self.recipe),
            source_tag=request.source_tag,
            groups=groups,
            on_split=on_split,
            device=device,
            precision=request.precision,
            engine=engine,
            workers=request.workers,
            ensemble=request.ensemble,
            mbr=request.mbr,
        )


def _read_recipe(request: EvaluationRequest) -> Recipe | None:
    """Read the recipe of a request with its overrides; None if it names none."""
    if request.recipe is None:
        return None
    language = () if request.target_lang is None else (f"--target_lang={request.target_lang}",)
    return read_recipe(request.recipe, [*request.overrides, *language])


def _check_languages(request: EvaluationRequest, recipe: Recipe | None) -> None:
    """Reject what is no language code, and log a warning for a code that is rarely meant."""
    names = {"target_lang": request.target_lang}
    if recipe is not None:
        names = {"source_lang": recipe.data.source_lang, "target_lang": recipe.data.target_lang}
    for option, name in names.items():
        if name is not None:
            check_language(name, option)
            if warning := doubtful_language(name, option):
                logger.warning(warning)


def _script_warning(references: Sequence[str], request: EvaluationRequest, tokenize: str) -> str | None:
    """Return a warning if the script of the references does not fit the language or the tokenizer of BLEU."""
    sample = references[:: max(1, len(references) // _SAMPLED_LINES)]
    named = _language_of_references(request)
    if named and (script := unexpected_script(sample, named)):
        if request.target_lang:
            return f"the references are mostly {script}, but target_lang is {named!r}; correct one of them"
        if request.tokenize is None:
            return (
                f"the references are mostly {script}, but the language code in their file name is {named!r}, by which "
                "BLEU splits words; set target_lang"
            )
    language = NOT_SPLIT_AT_SPACES.get(main_script(sample) or "")
    if language and tokenize == "13a" and request.tokenize is None:
        return (
            f"the references look like text in {language_name(language)}, and BLEU's tokenizer 13a does not split it "
            f"as usual for that language; set target_lang to {language!r} (--target-lang {language})"
        )
    return None


def _language_of_references(request: EvaluationRequest) -> str | None:
    """Return the language of two files: what is requested, else that in the name of the references."""
    return request.target_lang or (language_of_file(request.reference) if request.reference else None)


def _bleu_tokenizer(request: EvaluationRequest, recipe: Recipe | None) -> str:
    """Return sacreBLEU's tokenizer: what is requested, else the recipe's, else that of the language."""
    if request.tokenize:
        return request.tokenize
    if recipe is None:
        return default_bleu_tokenizer(_language_of_references(request) or "")
    if recipe.run.metric_tokenize and request.target_lang is None:
        return recipe.run.metric_tokenize
    return default_bleu_tokenizer(recipe.data.target_lang)


def _source_limit(request: EvaluationRequest, recipe: Recipe | None) -> int:
    """Return the number of tokens from which on a source is not translated."""
    if request.max_source_tokens is not None:
        return request.max_source_tokens
    return 1024 if recipe is None else recipe.run.max_source_tokens


def _check_outputs(request: EvaluationRequest, recipe: Recipe | None) -> None:
    text = [request.source, request.reference] if recipe is None else [str(recipe.path), *recipe.data.files]
    inputs = [*text, request.model, *request.ensemble, request.groups]
    if request.translations:
        check_file(request.translations, "translations", inputs=inputs, overwrite=request.overwrite)
    if request.output:
        check_file(request.output, "record", inputs=[*inputs, request.translations], overwrite=request.overwrite)


def _load_text(request: EvaluationRequest, recipe: Recipe | None) -> dict[str, ParallelCorpus]:
    if recipe is not None:
        return load_recipe_text(recipe, request.splits)
    if request.source is None or request.reference is None:
        raise ValueError("the text is not complete; give source and reference, or a recipe")
    return load_evaluation_text(request.source, request.reference)


__all__ = ["EvaluationRequest", "ResolvedRequest", "run_evaluation"]
