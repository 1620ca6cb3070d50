# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Compare several systems on several test sets, with paired bootstrap resampling; outputs of other toolkits as well."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..data.corpora import ParallelCorpus, load_text_files
from ..metrics import TranslationMetric, paired_bootstrap
from ..overwriting import check_file
from .evaluation import (
    TEXT,
    check_labels,
    load_recipe_text,
    read_labels,
    read_translations,
    score_corpus,
    write_record,
)
from .evaluation_request import EvaluationRequest, ResolvedRequest
from .record import commit, data_record, hardware, versions, without_folder

RESAMPLES = 1000  # sacrebleu's default


@dataclass(frozen=True)
class ComparisonRequest:
    """What to compare, and on what.

    Attributes:
        models: directories of checkpoints or exports, or ids on the Hub.
        system_outputs: for each other system, the files of its translations, one per test set; the first may have a
            name in front, as "NAME=FILE".
        sources, references: the test sets, two aligned files each; none with a recipe.
        groups: files with one label per line, one per test set, or none.
        resamples: of the paired bootstrap test; 0 leaves it out.
        settings: all other settings; its model, files and translations are not read.
    """

    models: Sequence[str]
    system_outputs: Sequence[Sequence[str]] = ()
    sources: Sequence[str] = ()
    references: Sequence[str] = ()
    groups: Sequence[str] = ()
    resamples: int = RESAMPLES
    settings: EvaluationRequest = field(default_factory=lambda: EvaluationRequest(""))


@dataclass(frozen=True)
class Comparison:
    """Scores of several systems on several test sets.

    Attributes:
        record: data, the record of each system, significance, hardware and versions, ready for JSON.
        translations: of each system, of each test set.
    """

    record: dict[str, Any]
    translations: dict[str, dict[str, list[str]]]

    @property
    def systems(self) -> list[str]:
        """The names of the systems; the first one is the baseline."""
        return list(self.record["systems"])

    @property
    def test_sets(self) -> list[str]:
        """The names of the test sets."""
        return list(self.record["data"])

    def scores(self, system: str, test_set: str) -> dict[str, Any]:
        """Return the scores of a system on a test set."""
        return self.record["systems"][system]["scores"][test_set]

    def significance(self, system: str, test_set: str) -> dict[str, Any]:
        """Return the result of the paired bootstrap test; see `paired_bootstrap`. Empty if there was none."""
        return self.record["significance"].get(test_set, {}).get(system, {})


def run_comparison(
    request: ComparisonRequest,
    *,
    device: str | torch.device | None = None,
    on_split: Callable[[str, str, int], None] | None = None,
) -> Comparison:
    """Check all arguments, translate with each model, score, test the differences, and write the record.

    Args:
        request: see `ComparisonRequest`.
        device: see `evaluate_checkpoint`.
        on_split: called before each translation with the system, the test set and its number of sentences.

    Raises:
        ValueError: If a setting is invalid, the text cannot be read, or a file has the wrong number of lines.
        OSError: If the output exists and must not be replaced, or cannot be written.
    """
    settings = request.settings
    systems = _names_of_systems(request)
    _check_files(request)
    resolved = ResolvedRequest.of(settings)
    recipe, tokenize, lowercase = resolved.recipe, resolved.tokenize, resolved.lowercase
    metric = TranslationMetric(tokenize, lowercase=lowercase)
    outputs = [[_split_name(files[0])[1], *files[1:]] for files in request.system_outputs]
    if settings.output:
        text = [*request.sources, *request.references] if recipe is None else [str(recipe.path), *recipe.data.files]
        inputs = [
            *text,
            *request.models,
            *settings.ensemble,
            *request.groups,
            *(file for files in outputs for file in files),
        ]
        check_file(settings.output, "record", inputs=inputs, overwrite=settings.overwrite)
    corpora = _load_test_sets(request) if recipe is None else load_recipe_text(recipe, settings.splits)
    given = _read_outputs(outputs, corpora)
    groups = _read_groups(request.groups, corpora)
    resolved.warn_of_text(corpora)

    records: dict[str, dict[str, Any]] = {}
    translations: dict[str, dict[str, list[str]]] = {}
    for system, model in zip(systems, request.models, strict=False):
        of_model = None if on_split is None else _with_system(on_split, system)
        result = resolved.evaluate(model, corpora, groups=groups, device=device, on_split=of_model)
        shared = {"data", "hardware", "versions", "commit"}  # of all systems
        records[system] = {name: value for name, value in result.record.items() if name not in shared}
        translations[system] = result.translations
    for system, files, texts in zip(systems[len(request.models) :], outputs, given, strict=True):
        scores = {}
        for name, corpus in corpora.items():
            scores[name] = score_corpus(metric, corpus, texts[name], name=f"{system}, {name}")
            if name in groups:
                scores[name]["by_group"] = metric.compute_by_group(texts[name], corpus.sides()[1], groups[name])
        records[system] = {"files": without_folder([Path(file).name for file in files]), "scores": scores}
        translations[system] = texts

    significance = {}
    if len(systems) > 1 and request.resamples:
        for name, corpus in corpora.items():
            significance[name] = paired_bootstrap(
                {system: translations[system][name] for system in systems},
                corpus.sides()[1],
                tokenize=tokenize,
                lowercase=lowercase,
                resamples=request.resamples,
            )
    record = {
        "baseline": systems[0],
        "data": {name: data_record(corpus) for name, corpus in corpora.items()},
        "systems": records,
        "significance": significance,
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }
    if settings.output:
        write_record(Path(settings.output), record)
    return Comparison(record, translations)


def _with_system(on_split: Callable[[str, str, int], None], system: str) -> Callable[[str, int], None]:
    return lambda name, sentences: on_split(system, name, sentences)


# --------------------------------------------------------------------------- names


def _names_of_systems(request: ComparisonRequest) -> list[str]:
    """Return a different name for each system: the name of its directory or file, or what is given."""
    named: list[tuple[str | None, str]] = [(None, model) for model in request.models]
    named += [_split_name(files[0]) for files in request.system_outputs]
    given = [name for name, _ in named if name]
    if twice := [name for name in given if given.count(name) > 1]:
        raise ValueError(f"two systems have the name {twice[0]}; give each --system-output a name of its own")
    if not named:
        raise ValueError("there is no system to evaluate; name a model, or a file of translations with --system-output")
    return _unique([name or Path(path).name or path for name, path in named], [path for _, path in named])


def _split_name(file: str) -> tuple[str | None, str]:
    """Split "NAME=FILE"; the name is None if there is none."""
    name, equals, path = file.partition("=")
    return (name, path) if equals and name and path and not Path(file).exists() else (None, file)


def _unique(names: list[str], paths: list[str]) -> list[str]:
    """Replace the names that are not unique by their paths, and number what still is not."""
    names = [path if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]
    counts: dict[str, int] = {}
    for place, name in enumerate(names):
        counts[name] = counts.get(name, 0) + 1
        if counts[name] > 1:
            names[place] = f"{name} ({counts[name]})"
    return names


# --------------------------------------------------------------------------- files


def _check_files(request: ComparisonRequest) -> None:
    """Check that there are as many files as test sets, as far as their number is known."""
    if request.settings.recipe is not None:
        return
    test_sets = len(request.sources)
    if test_sets != len(request.references) or not test_sets:
        raise ValueError(
            f"there are {test_sets} source and {len(request.references)} reference files; give one --source and one "
            "--reference for each test set, or a recipe"
        )
    _check_counts(request, test_sets)


def _check_counts(request: ComparisonRequest, test_sets: int) -> None:
    for files in request.system_outputs:
        if len(files) != test_sets:
            raise ValueError(
                f"--system-output {' '.join(files)} names {len(files)} files for {test_sets} test sets; give one file "
                "for each, in the order of the test sets"
            )
    if request.groups and len(request.groups) != test_sets:
        raise ValueError(
            f"there are {len(request.groups)} files of labels for {test_sets} test sets; give --groups once for each"
        )


def _load_test_sets(request: ComparisonRequest) -> dict[str, ParallelCorpus]:
    if len(request.sources) == 1:
        names = [TEXT]
    else:
        names = _unique([Path(source).name for source in request.sources], list(request.sources))
    return {
        name: load_text_files(source, reference, keep_all=True)
        for name, source, reference in zip(names, request.sources, request.references, strict=True)
    }


def _read_outputs(
    outputs: Sequence[Sequence[str]], corpora: Mapping[str, ParallelCorpus]
) -> list[dict[str, list[str]]]:
    """Read the translations of the systems that are given as files, by test set."""
    found = []
    for files in outputs:
        if len(files) != len(corpora):
            raise ValueError(
                f"--system-output {' '.join(files)} names {len(files)} files for {len(corpora)} test sets "
                f"({', '.join(corpora)}); give one file for each"
            )
        texts = {}
        for (name, corpus), file in zip(corpora.items(), files, strict=True):
            texts[name] = read_translations(file)
            lines = corpus.report.pairs_kept
            if len(texts[name]) != lines:
                raise ValueError(
                    f"{file} has {len(texts[name]):,} lines, and {name} has {lines:,}; line n has to be the "
                    "translation of line n"
                )
        found.append(texts)
    return found


def _read_groups(files: Sequence[str], corpora: Mapping[str, ParallelCorpus]) -> dict[str, list[str]]:
    if files and len(files) != len(corpora):
        raise ValueError(
            f"there are {len(files)} files of labels for {len(corpora)} test sets ({', '.join(corpora)}); give "
            "--groups once for each"
        )
    groups = {name: read_labels(file) for name, file in zip(corpora, files, strict=False)}
    for name, labels in groups.items():
        check_labels(labels, corpora[name], name)
    return groups


__all__ = ["RESAMPLES", "Comparison", "ComparisonRequest", "run_comparison"]
