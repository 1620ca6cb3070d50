# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer align`: align the words of given translations, or choose the attention head that does."""

import argparse
import sys

from .messages import warnings_in_option_words
from .options import chosen_device, device_option, given, model_argument, overwrite_option
from .parser import Subparsers, whole_number

_SHOWN = 10  # heads in the table of --choose-head


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "align",
        parents=[model_argument(), device_option(), overwrite_option("an existing file at --output")],
        help="align the words of two files, or choose the attention head that aligns words",
        description="Write the word alignment of each pair of lines, 0-0 1-2 ... (source word - target word, separated "
        "by white space and counted from 0). With --choose-head, compare the cross-attention heads on the pairs "
        "instead, and store the best one in the checkpoint's generation_config.json for `align` and `translate "
        "--alignments`.",
    )
    parser.add_argument("--source", required=True, help="text file with one sentence per line")
    parser.add_argument("--target", required=True, help="text file with the translation of each line")
    parser.add_argument(
        "--gold",
        help="file with the correct alignment of each pair, 0-0 1p2 ... (p: a possible link); prints the alignment "
        "error rate, or chooses the head by it",
    )
    parser.add_argument(
        "--choose-head",
        action="store_true",
        help="choose the head: by the alignment error rate with --gold, else by its agreement with a statistical "
        "aligner (IBM Model 1 in both directions) that is trained on the pairs",
    )
    parser.add_argument(
        "--alignment-head",
        metavar="LAYER[.HEAD]",
        help="cross-attention that aligns the words, counted from 0: a head, or the mean over a layer; +1 at the end "
        "takes the decoder step that reads a word instead of the one that predicts it (default: stored by "
        "--choose-head, else the mean over the last layer but one, or the last of two)",
    )
    parser.add_argument("--output", metavar="FILE", help="write to this file instead of standard output")
    parser.add_argument(
        "--batch-size", type=whole_number(1, 100_000), help="maximum number of pairs per batch (default: 64)"
    )
    parser.add_argument(
        "--source-tag",
        metavar="TAG",
        help="put this tag before each source, e.g. <2de> for a model that was trained with --train-source-tags; it is "
        "not one of the words",
    )
    parser.set_defaults(run=run, speaks_options=True)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    if options.choose_head and (options.alignment_head is not None or options.output is not None):
        name = "--output" if options.alignment_head is None else "--alignment-head"
        raise ValueError(f"{name} is for alignments, but --choose-head writes none; leave one of them out")
    from ..alignment.align_files import AlignmentRequest, align_files, choose_head_of_checkpoint
    from ..messages import other_progress_bars_hidden

    request = AlignmentRequest(
        model=options.model,
        source=options.source,
        target=options.target,
        gold=options.gold,
        alignment_head=options.alignment_head,
        output=options.output,
        overwrite=options.overwrite,
        **given(options, "batch_size", "source_tag"),
    )
    device = chosen_device(options)
    with warnings_in_option_words(options), other_progress_bars_hidden():  # that of the weights
        if options.choose_head:
            choice = choose_head_of_checkpoint(request, device)
            name = "alignment error rate" if choice.with_gold else "share of the statistical aligner's links missed"
            print(f"{name}, {choice.pairs:,} pairs:", file=sys.stderr)
            for head, error in list(choice.errors.items())[:_SHOWN]:
                print(f"  {str(head):8} {error:.3f}", file=sys.stderr)
            print(f"align: head={choice.best} error={choice.errors[choice.best]:.4f} pairs={choice.pairs}")
            return 0
        error_rate = align_files(request, device)
    if error_rate is not None:
        print(f"align: error_rate={error_rate:.4f}", file=sys.stderr if options.output is None else sys.stdout)
    return 0
