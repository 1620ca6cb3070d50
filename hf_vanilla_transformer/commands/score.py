# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer score`: write the log-probabilities of given translations."""

import argparse
import sys
from contextlib import nullcontext

from .messages import print_warning, warnings_in_option_words
from .options import chosen_device, device_option, given, model_argument, overwrite_option, precision_option
from .parser import Subparsers, whole_number

FORMATS = ("text", "tsv", "jsonl")


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parents = [model_argument(), device_option(), precision_option(), overwrite_option("an existing file at --output")]
    parser = commands.add_parser(
        "score",
        parents=parents,
        help="score given translations by their log-probabilities, e.g. to filter parallel text",
        description="Write the log-probability, in nats, of each target given its source, one line per pair, in order. "
        "A pair with an empty side, or with too many tokens, is not scored: it has -inf (null in JSON), and a warning "
        "counts it.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="text file with one source per line, also .gz; without TARGET: with a tab between source and target; - is "
        "standard input",
    )
    parser.add_argument(
        "target", metavar="TARGET", nargs="?", help="text file with the translation of each line of SOURCE, also .gz"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write to this file instead of standard output; it appears when it is complete; .gz is compressed",
    )
    parser.add_argument(
        "--normalize",
        action="store_true",
        help="divide each log-probability by the number of target tokens, with the EOS token",
    )
    parser.add_argument(
        "--per-token",
        action="store_true",
        help="also write the log-probability of each target token, separated by spaces, in the last column",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text: the score; tsv: source, target and score, without a header; jsonl: one object per pair, with the "
        "tokens if --per-token is given (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=whole_number(1, 100_000), help="maximum number of pairs per batch (default: 64)"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, 1_024),
        help="processes that score batches side by side on the CPU, each with one thread (default: one per thread of "
        "torch, on Linux; else 1)",
    )
    for side in ("source", "target"):
        parser.add_argument(
            f"--max-{side}-tokens",
            type=whole_number(1, 10_000_000),
            help=f"maximum length of a {side} in tokens; longer pairs are not scored (default: 1024)",
        )
    parser.set_defaults(run=run, speaks_options=True)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..atomic_files import staged_file
    from ..launch import check_one_process
    from ..messages import other_progress_bars_hidden
    from ..overwriting import check_file
    from ..translation.engines import choose_engine, load_translator
    from ..translation.line_sources import standard_input
    from ..translation.output_formats import Progress, open_terminal
    from ..translation.score_files import STANDARD_INPUT, PairFiles, score_files

    check_one_process("score")
    files = [name for name in (options.source, options.target) if name is not None]
    stdin = standard_input() if STANDARD_INPUT in files else None
    pairs = PairFiles(options.source, options.target, stdin)
    if options.output:
        inputs = [name for name in files if name != STANDARD_INPUT]
        check_file(options.output, "scores", inputs=[*inputs, options.model], overwrite=options.overwrite)
    engine = choose_engine(None, options.model, options.device, options.precision)
    if engine != "torch":
        raise ValueError(
            f"{options.model} is an export for {engine}, which can only translate; score with the checkpoint it was "
            "exported from"
        )
    device = chosen_device(options)
    output = None if options.output else sys.stdout.buffer
    progress = Progress(open_terminal(sys.stderr, output), pairs.pairs)
    with warnings_in_option_words(options):
        with other_progress_bars_hidden():  # that of the weights
            model, tokenizer = load_translator(engine, options.model, device, options.precision)
        progress.start()
        with nullcontext(output) if output is not None else staged_file(options.output) as target:
            score_files(
                model,
                tokenizer,
                pairs,
                target,
                output_format=options.format,
                normalize=options.normalize,
                per_token=options.per_token,
                progress=progress,
                workers=options.workers,
                **given(options, "batch_size", "max_source_tokens", "max_target_tokens"),
            )
            target.flush()
    if warning := pairs.warning():
        print_warning(warning, options)
    return 0
