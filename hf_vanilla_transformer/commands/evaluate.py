# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer evaluate`: translate a test set and score it."""

import argparse
import sys

from .messages import warnings_in_option_words
from .options import (
    chosen_device,
    device_option,
    engine_option,
    given,
    model_argument,
    overwrite_option,
    precision_option,
    search_options,
    search_settings,
    translation_options,
)
from .parser import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parents = [model_argument(), search_options(), translation_options(), device_option(), precision_option()]
    parser = commands.add_parser(
        "evaluate",
        parents=[*parents, engine_option(), overwrite_option("existing files at --translations and --output")],
        help="translate a test set and score it: BLEU and chrF with their signatures",
        description="Translate a test set and score it with BLEU and chrF. The test set is either two aligned files, "
        "--source and --reference, or the splits of a recipe, --recipe.",
        epilog="Options that are not given have the recipe's values, else the defaults. With --recipe, every key of a "
        "recipe may be given as --key value.",
    )
    parser.add_argument("--source", help="text file with one sentence per line")
    parser.add_argument("--reference", help="text file with the translation of each line of --source")
    parser.add_argument(
        "--recipe", help="recipe that names the text: a YAML file, or the name of a recipe in the package"
    )
    parser.add_argument(
        "--split", action="append", help="split of the recipe; may be repeated (default: validation and test)"
    )
    parser.add_argument("--target-lang", help="language of the translations, which selects --tokenize, e.g. ko")
    parser.add_argument(
        "--tokenize",
        help="tokenizer of sacreBLEU: 13a, none, char, korean (ko-mecab if installed, else char), ... (default: by "
        "language, else 13a)",
    )
    parser.add_argument("--lowercase", action="store_true", default=None, help="ignore case in the scores")
    parser.add_argument("--groups", help="file with one label per line; each label is scored separately as well")
    parser.add_argument("--translations", help="write the translations to this file, one per line")
    parser.add_argument("--output", help="write scores, data hash, hardware and seconds to this JSON file")
    parser.set_defaults(run=run, takes_overrides=True, speaks_options=True)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    _check_text(options)
    from ..messages import other_progress_bars_hidden
    from ..training.evaluation_request import EvaluationRequest, run_evaluation
    from ..translation_stream import choose_engine

    engine = choose_engine(options.engine, options.model, options.device, options.precision)
    device = chosen_device(options) if engine == "torch" else None
    request = EvaluationRequest(
        model=options.model,
        source=options.source,
        reference=options.reference,
        recipe=options.recipe,
        overrides=options.overrides,
        splits=options.split,
        target_lang=options.target_lang,
        tokenize=options.tokenize,
        lowercase=options.lowercase,
        search=search_settings(options),
        groups=options.groups,
        translations=options.translations,
        output=options.output,
        overwrite=options.overwrite,
        precision=options.precision,
        engine=engine,
        **given(options, "batch_size", "max_source_tokens", "source_tag", "workers"),
    )
    with warnings_in_option_words(options), other_progress_bars_hidden():
        result = run_evaluation(request, device=device, on_split=_print_progress)
    for name, scores in result.record["scores"].items():
        for label, group in scores.get("by_group", {}).items():
            print(f"{name} {label}: bleu={group['bleu']:.2f} chrf={group['chrf']:.2f} sentences={group['sentences']}")
        print(f"{name}: {scores['bleu_signature']}\n{name}: {scores['chrf_signature']}")
        print(
            f"{name}: bleu={scores['bleu']:.2f} chrf={scores['chrf']:.2f} exact={scores['exact']:.4f} "
            f"sentences={scores['sentences']} seconds={result.record['seconds'][name]}"
        )
    return 0


def _check_text(options: argparse.Namespace) -> None:
    """Raise ValueError unless either two files or a recipe are given."""
    if (options.recipe is None) == (options.source is None and options.reference is None):
        raise ValueError("name the text either with --source and --reference, or with --recipe")
    if options.recipe is None:
        if options.source is None or options.reference is None:
            raise ValueError(f"{'--source' if options.source is None else '--reference'} is missing; both are needed")
        if options.overrides or options.split:
            raise ValueError(f"{(options.overrides or ['--split'])[0]} is for a recipe; name one with --recipe")


def _print_progress(split: str, sentences: int) -> None:
    print(f"translating {split}: {sentences:,} sentences", file=sys.stderr, flush=True)
