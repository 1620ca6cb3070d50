# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer demo`: train on the embedded corpus and show the result."""

import argparse

from .log import log_to_standard_error, verbose_option
from .parser import Subparsers
from .table import print_table


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "demo",
        parents=[verbose_option()],
        help="train on the embedded English-Korean corpus and show translations (minutes on two CPU cores)",
        description="Train a small model on the embedded English-Korean corpus, average its last checkpoints, "
        "translate held-out expressions and show the attention.",
    )
    parser.add_argument(
        "--output", default="runs/demo", help="directory for the checkpoint; an earlier demo there is replaced "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--recipe", help="YAML file of the recipe (default: the package's recipe demo)")
    parser.add_argument("--card", help="write a second copy of the model card to this file, e.g. model_card.md")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..training.demo import run_demo
    from ..training.demo_attention import show_demo_attention

    log_to_standard_error(options.verbose)
    result = run_demo(output_dir=options.output, recipe_path=options.recipe, card_path=options.card)
    print("\nHeld-out expressions, translated by the checkpoint, loaded with AutoModelForSeq2SeqLM:\n")
    rows = [(row.source, row.reference, row.translation) for row in result.samples]
    print_table(("source", "reference", "translation"), rows)
    print()
    for kind, exact in result.exact_by_kind.items():
        print(f"exact {kind}: {exact:.4f} of {result.count_by_kind[kind]}")
    attention = show_demo_attention(options.output, result.samples[0].source, options.recipe)
    print(f"\nattention: {attention.measurement}")
    print(f"attention: page={attention.page} figure={attention.figure}\n")
    print(
        f"demo: exact={result.exact:.4f} bleu={result.bleu:.2f} train_seconds={result.train_seconds:.1f} "
        f"output={options.output}"
    )
    return 0
