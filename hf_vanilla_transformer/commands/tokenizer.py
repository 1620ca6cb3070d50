# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer tokenizer`: learn a subword vocabulary from text files."""

import argparse

from .options import overwrite_option
from .parser import Subparsers, real_number, whole_number


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "tokenizer",
        parents=[overwrite_option("an earlier tokenizer at --output")],
        help="learn a subword vocabulary from text files, shared by both languages or one for each",
        description="Learn a subword vocabulary from text files. FILES gives one vocabulary that source and target "
        "share; --source and --target give one for each.",
    )
    parser.add_argument("files", nargs="*", metavar="FILES", help="text files of both languages, one sentence per line")
    parser.add_argument("--source", nargs="+", metavar="FILE", help="text files for the source vocabulary")
    parser.add_argument("--target", nargs="+", metavar="FILE", help="text files for the target vocabulary")
    parser.add_argument(
        "--output", required=True, help="directory to write to; two vocabularies go to its source/ and target/"
    )
    parser.add_argument(
        "--vocab-size",
        type=whole_number(1, 100_000_000),
        default=37_000,
        help="number of tokens, with the 256 byte tokens and the special tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--model", choices=("bpe", "unigram"), default="bpe", help="learning algorithm (default: %(default)s)"
    )
    parser.add_argument(
        "--normalization",
        choices=("NFC", "NFKC", "none"),
        default="NFC",
        help="Unicode normalization form of the text (default: %(default)s)",
    )
    parser.add_argument("--lowercase", action="store_true", help="convert text to lower case")
    parser.add_argument(
        "--character-coverage",
        type=real_number(0, 1),
        default=0.9999,
        help="share of the text's characters that get a token of their own, 0 to 1; the others are written as bytes "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--extra-token",
        action="append",
        metavar="TOKEN",
        help='further special token, e.g. the language tag "<2ko>": one token anywhere in a text, and left out of '
        "translations; may be given several times",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    files = _files(options)
    from ..training.vocabulary import write_vocabularies

    vocabularies = write_vocabularies(
        files,
        options.output,
        options.vocab_size,
        model=options.model,
        normalization=None if options.normalization == "none" else options.normalization,
        lowercase=options.lowercase,
        character_coverage=options.character_coverage,
        extra_tokens=options.extra_token or (),
        overwrite=options.overwrite,
    )
    for folder, vocabulary in vocabularies.items():
        print(
            f"tokenizer: output={folder} size={vocabulary.size} lines={vocabulary.lines} "
            f"tokens_per_word={vocabulary.tokens_per_word:.2f} unknown={vocabulary.unknown:.4%} "
            f"bytes={vocabulary.bytes:.4%}"
        )
    return 0


def _files(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return subdirectory -> text files; raise ValueError if the options do not go together."""
    if options.source is None and options.target is None:
        if not options.files:
            raise ValueError("no text files were given; give FILES, or --source FILE and --target FILE")
        return {"": options.files}
    if options.files or options.source is None or options.target is None:
        raise ValueError("two vocabularies need --source and --target and no other files; one needs FILES alone")
    return {"source": options.source, "target": options.target}
