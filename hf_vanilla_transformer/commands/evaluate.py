# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer evaluate`: translate test sets and score them; compare several systems."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .mbr_options import mbr_options, mbr_settings
from .messages import warnings_in_option_words
from .options import (
    chosen_device,
    device_option,
    engine_option,
    given,
    overwrite_option,
    precision_option,
    search_options,
    search_settings,
    translation_options,
)
from .parser import Subparsers, whole_number
from .table import print_table

if TYPE_CHECKING:
    from ..training.comparison import Comparison
    from ..training.evaluation import EvaluationResult


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parents = [search_options(), translation_options(), device_option(), precision_option()]
    parser = commands.add_parser(
        "evaluate",
        parents=[
            *parents,
            mbr_options(),
            engine_option(),
            overwrite_option("existing files at --translations and --output"),
        ],
        help="translate test sets and score them: BLEU and chrF with their signatures",
        description="Translate a test set and score it with BLEU and chrF. The test set is either two aligned files, "
        "--source and --reference, or the splits of a recipe, --recipe. Several models, and the outputs of other "
        "systems, are compared in one table; paired bootstrap resampling tests whether they differ from the first one.",
        epilog="Options that are not given have the recipe's values, else the defaults. With --recipe, every key of a "
        "recipe may be given as --key value.",
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="*", help="directory of a checkpoint, or id of a model on the Hub"
    )
    parser.add_argument(
        "--ensemble",
        action="append",
        metavar="MODEL",
        help="further model of an ensemble with the one MODEL, a directory or an id on the Hub; may be repeated",
    )
    parser.add_argument(
        "--source", action="append", help="text file with one sentence per line; once for each test set"
    )
    parser.add_argument(
        "--reference",
        action="append",
        help="text file with the translation of each line of --source; once for each test set",
    )
    parser.add_argument(
        "--system-output",
        action="append",
        nargs="+",
        metavar="FILE",
        help="translations by another system, one file for each test set; NAME=FILE names the system; may be repeated",
    )
    parser.add_argument(
        "--paired-bs-n",
        type=whole_number(0, 1_000_000),
        default=1000,
        metavar="N",
        help="resamples of sacreBLEU's paired bootstrap test of several systems; 0: no test (default: %(default)s)",
    )
    parser.add_argument(
        "--recipe", help="recipe that names the text: a YAML file, or the name of a recipe in the package"
    )
    parser.add_argument(
        "--split", action="append", help="split of the recipe; may be repeated (default: validation and test)"
    )
    parser.add_argument(
        "--target-lang",
        help="language of the translations, which selects --tokenize (default: by the name of the references: test.ko)",
    )
    parser.add_argument(
        "--tokenize",
        help="tokenizer of sacreBLEU: 13a, none, char, korean (ko-mecab if installed, else char), ... (default: by "
        "language, else 13a)",
    )
    parser.add_argument("--lowercase", action="store_true", default=None, help="ignore case in the scores")
    parser.add_argument(
        "--groups",
        action="append",
        help="file with one label per line; each label is scored separately as well; once for each test set",
    )
    parser.add_argument("--translations", help="write the translations of one model to this file, one per line")
    parser.add_argument("--output", help="write scores, data hash, hardware and seconds to this JSON file")
    parser.set_defaults(run=run, takes_overrides=True, speaks_options=True)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    _check_text(options)
    from ..launch import check_one_process
    from ..messages import other_progress_bars_hidden
    from ..training.comparison import ComparisonRequest, run_comparison
    from ..training.evaluation_request import EvaluationRequest, run_evaluation
    from ..translation.engines import choose_engine

    check_one_process("evaluate")
    models, outputs = options.models, options.system_output or []
    sources, references, groups = options.source or [], options.reference or [], options.groups or []
    several = len(models) != 1 or len(sources) > 1 or len(groups) > 1 or bool(outputs)
    if several and options.translations:
        raise ValueError("--translations is for one model and one test set; write others with translate --output")
    if not models and (options.mbr_samples is not None or options.mbr_nbest is not None):
        raise ValueError("--mbr-samples and --mbr-nbest are for a MODEL; there are only translations (--system-output)")
    if options.ensemble and len(models) != 1:
        raise ValueError(
            "--ensemble is for one MODEL; compare an ensemble with other systems as an output of translate "
            "(--system-output)"
        )
    engines = [choose_engine(options.engine, model, options.device, options.precision) for model in models]
    device = chosen_device(options) if "torch" in engines else None
    settings = EvaluationRequest(
        model=models[0] if models else "",
        source=sources[0] if sources else None,
        reference=references[0] if references else None,
        recipe=options.recipe,
        overrides=options.overrides,
        splits=options.split,
        target_lang=options.target_lang,
        tokenize=options.tokenize,
        lowercase=options.lowercase,
        search=search_settings(options),
        groups=groups[0] if groups else None,
        translations=options.translations,
        output=options.output,
        overwrite=options.overwrite,
        precision=options.precision,
        engine=options.engine,
        ensemble=options.ensemble or (),
        mbr=mbr_settings(options),
        **given(options, "batch_size", "max_source_tokens", "source_tag", "workers"),
    )
    with warnings_in_option_words(options), other_progress_bars_hidden():
        if not several:
            _print_scores(run_evaluation(settings, device=device, on_split=_print_progress))
            return 0
        comparison = run_comparison(
            ComparisonRequest(models, outputs, sources, references, groups, options.paired_bs_n, settings),
            device=device,
            on_split=lambda system, split, sentences: _print_progress(f"{split} with {system}", sentences),
        )
    _print_comparison(comparison)
    return 0


def _check_text(options: argparse.Namespace) -> None:
    """Raise ValueError unless there is a system, and either files or a recipe."""
    if not options.models and not options.system_output:
        raise ValueError("there is no system to evaluate; name a MODEL, or translations with --system-output")
    if (options.recipe is None) == (options.source is None and options.reference is None):
        raise ValueError("name the text either with --source and --reference, or with --recipe")
    if options.recipe is None:
        if options.source is None or options.reference is None:
            raise ValueError(f"{'--source' if options.source is None else '--reference'} is missing; both are needed")
        if options.overrides:
            raise ValueError(
                f"{options.overrides[0]} is neither an option of evaluate nor a key of a recipe that is named; see "
                "--help, and name a recipe with --recipe"
            )
        if options.split:
            raise ValueError("--split is for a recipe; name one with --recipe")
        if len(options.source) != len(options.reference):
            raise ValueError(
                f"there are {len(options.source)} files for --source and {len(options.reference)} for --reference; "
                "give one of both for each test set"
            )


def _print_progress(split: str, sentences: int) -> None:
    print(f"translating {split}: {sentences:,} sentences", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------- results


def _print_scores(result: "EvaluationResult") -> None:
    """Print the scores of one model."""
    for name, scores in result.record["scores"].items():
        for label, group in scores.get("by_group", {}).items():
            print(f"{name} {label}: bleu={group['bleu']:.2f} chrf={group['chrf']:.2f} sentences={group['sentences']}")
        print(f"{name}: {scores['bleu_signature']}\n{name}: {scores['chrf_signature']}")
        print(
            f"{name}: bleu={scores['bleu']:.2f} chrf={scores['chrf']:.2f} exact={scores['exact']:.4f} "
            f"sentences={scores['sentences']} seconds={result.record['seconds'][name]}"
        )


def _print_comparison(comparison: "Comparison") -> None:
    """Print the scores of all systems on all test sets, those of each label, and the signatures."""
    tested = bool(comparison.record["significance"])
    header = ["test set", "system"]
    for name in ("BLEU", "chrF"):
        header += [name, "95 % interval", "p"] if tested else [name]
    rows = []
    for test_set in comparison.test_sets:
        for system in comparison.systems:
            scores, significance = comparison.scores(system, test_set), comparison.significance(system, test_set)
            row = [test_set, system]
            for metric in ("bleu", "chrf"):
                row.append(f"{scores[metric]:.2f}")
                row += _test_cells(significance[metric]) if tested else []
            rows.append([*row, f"{scores['empty']:.1%}", f"{scores['repeating']:.1%}", f"{scores['sentences']:,}"])
    print_table([*header, "empty", "repeating", "sentences"], rows)
    for test_set in comparison.test_sets:
        by_label = {system: comparison.scores(system, test_set).get("by_group") for system in comparison.systems}
        if all(by_label.values()):
            print()
            _print_labels(test_set, by_label)
    print()
    print("\n".join(_signatures(comparison)))
    if tested:
        print(f"p: paired bootstrap test of the difference from {comparison.systems[0]}; * p < 0.05")


def _test_cells(result: dict[str, Any]) -> list[str]:
    """Return the confidence interval and the p-value of a paired bootstrap test."""
    p_value = result["p_value"]
    p_text = "" if p_value is None else f"{p_value:.3f}{'*' if p_value < 0.05 else ''}"
    return [f"{result['mean']:.2f} ± {result['ci']:.2f}", p_text]


def _print_labels(test_set: str, by_label: dict[str, Any]) -> None:
    """Print the scores of each label by each system."""
    columns = [(system, metric, name) for system in by_label for metric, name in (("bleu", "BLEU"), ("chrf", "chrF"))]
    first = next(iter(by_label.values()))
    rows = [
        [label, f"{group['sentences']:,}", *(f"{by_label[system][label][metric]:.2f}" for system, metric, _ in columns)]
        for label, group in first.items()
    ]
    print_table([test_set, "sentences", *(f"{name} {system}" for system, _, name in columns)], rows)


def _signatures(comparison: "Comparison") -> list[str]:
    """Return the signatures of the scores, each once."""
    found = []
    for test_set in comparison.test_sets:
        scores = comparison.scores(comparison.systems[0], test_set)
        significance = comparison.significance(comparison.systems[0], test_set)
        for metric, name in (("bleu", "BLEU"), ("chrf", "chrF")):
            signature = significance.get(metric, {}).get("signature", scores[f"{metric}_signature"])
            found.append(f"{name} signature {signature}")
    return list(dict.fromkeys(found))
