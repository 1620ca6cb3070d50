# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer push`: publish a checkpoint on the Hub."""

import argparse

from ..version import TESTED_TRANSFORMERS
from .options import overwrite_option
from .parser import Subparsers
from .table import print_table


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "push",
        parents=[overwrite_option("a model that is already in the repository")],
        help="publish a checkpoint on the Hub: weights, code, tokenizer and model card, checked before the upload",
        description="Publish a checkpoint on the Hub. The upload contains weights, model code, tokenizer and model "
        "card, and loads without this package, which is checked first. New repositories are private.",
        epilog="The token is the one of `hf auth login` or of the environment variable HF_TOKEN; it is not stored. An "
        "interrupted push can be repeated.",
    )
    parser.add_argument("checkpoint", help="checkpoint directory with the tokenizer")
    parser.add_argument("repository", help="id of the repository, USER/NAME")
    parser.add_argument("--public", action="store_true", help="make the repository public instead of private")
    parser.add_argument("--license", help="license of the model for a new model card, e.g. apache-2.0")
    parser.add_argument("--data-license", help="license of the training data for a new model card, in words")
    parser.add_argument("--revision", help="branch to commit to, created if it does not exist (default: main)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build and check the upload, and print the model card and the list of files, without sending anything",
    )
    parser.add_argument("--no-check", action="store_true", help="skip the check of the upload")
    parser.add_argument(
        "--allow-useless",
        action="store_true",
        help="publish the model even if 90%% or more of its evaluated translations are empty or repeat themselves",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..hub.publish import listing, push_to_hub

    published = push_to_hub(
        options.checkpoint,
        options.repository,
        private=not options.public,
        license=options.license,
        data_license=options.data_license,
        revision=options.revision,
        dry_run=options.dry_run,
        check=not options.no_check,
        overwrite=options.overwrite,
        allow_useless=options.allow_useless,
    )
    if options.dry_run:
        print("push: the model card, README.md:\n")
        print(published.card.rstrip(), end="\n\n")
    print_table(("file", "size"), listing(published.files))
    if published.compared is None:
        print("push: the upload was not checked (--no-check)")
    else:
        print(
            "push: a process without this package loaded the upload and gave the same translations and scores "
            f"({published.compared} of {published.compared} texts)"
        )
    print(f"push: the model code was tested with transformers {' to '.join(TESTED_TRANSFORMERS)}")
    if options.dry_run:
        print(f"push: dry run, nothing was sent to {published.repo_id}")
    else:
        print(f"push: {published.url} revision={published.commit}")
    return 0
