# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, call, print.

Each command imports what it needs when it runs, so that `--help` answers at once. Bad input ends in one sentence on
standard error and exit status 2; an interrupt in exit status 130.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from .version import __version__

PROGRAM = "vanilla-transformer"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after the program's name; None takes the process's own.

    Returns:
        The exit status: 0 done, 2 bad input, 130 interrupted.
    """
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = rest
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        print(f"{PROGRAM} {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `… | head`; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("VANILLA_TRANSFORMER_TRACEBACK"):
            raise
        sentence = " ".join(str(error).split()) or type(error).__name__
        print(f"{PROGRAM} {options.command}: error: {sentence}", file=sys.stderr)
        return 2


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description='The original Transformer of "Attention Is All You Need" (2017): train it, translate with it.',
        epilog="Set VANILLA_TRANSFORMER_TRACEBACK=1 to see where an error came from.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="train on the embedded English-Korean corpus and show the translations (minutes on two CPU cores)",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--output", default="runs/demo", help="directory for the checkpoint")
    demo.add_argument("--recipe", default=None, help="a YAML file instead of the package's own demo.yaml")
    demo.set_defaults(run=_demo)

    train = commands.add_parser(
        "train",
        help="train by a recipe: a YAML file, and --key value for what differs from it",
        epilog="Recipes to start from stand in examples/configs. Any key of a recipe may follow as --key value.",
    )
    train.add_argument("recipe", help="the YAML file")
    train.set_defaults(run=_train, takes_overrides=True)

    translate = commands.add_parser(
        "translate",
        help="translate standard input: one line in, one line out",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    translate.add_argument("model", help="a checkpoint's directory, or its name on the Hub")
    translate.add_argument("--beam-size", type=int, default=4, help="hypotheses kept open; 1 is greedy (section 6.1)")
    translate.add_argument("--alpha", type=float, default=0.6, help="exponent of the length penalty (section 6.1)")
    translate.add_argument("--batch-size", type=int, default=64, help="most sentences a batch")
    translate.add_argument(
        "--max-source-tokens", type=int, default=1024, help="longer lines become empty lines, with a warning"
    )
    translate.set_defaults(run=_translate)

    average = commands.add_parser(
        "average",
        help="average the weights of several checkpoints (section 6.1)",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    average.add_argument("checkpoints", nargs="+", help="a run's directory, or the checkpoints' own")
    average.add_argument("--output", required=True, help="directory for the result")
    average.add_argument("--last", type=int, default=None, help="the last so many of a run")
    average.add_argument("--best", type=int, default=None, help="the so many best by --metric instead")
    average.add_argument("--metric", default="eval_loss", help="a name of the evaluation log")
    average.add_argument("--overwrite", action="store_true", help="replace --output if it is there")
    average.set_defaults(run=_average)

    presets = commands.add_parser(
        "presets", help="list the named architectures with their parameters and operations, beside the paper's"
    )
    presets.set_defaults(run=_presets)
    return parser


# --------------------------------------------------------------------------- commands


def _demo(options: argparse.Namespace) -> int:
    from .training.demo import run_demo

    result = run_demo(output_dir=options.output, recipe_path=options.recipe)
    print("\nHeld-out expressions, translated greedily by the checkpoint as AutoModelForSeq2SeqLM loads it:\n")
    rows = [(row.source, row.reference, row.translation) for row in result.samples]
    _print_table(("source", "reference", "translation"), rows)
    print()
    for kind, exact in result.exact_by_kind.items():
        print(f"exact {kind}: {exact:.4f} of {result.count_by_kind[kind]}")
    print(
        f"demo: exact={result.exact:.4f} bleu={result.bleu:.2f} train_seconds={result.train_seconds:.1f} "
        f"output={options.output}"
    )
    return 0


def _train(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from .training.recipe import read_recipe
    from .training.run import train

    logging.set_verbosity_info()  # what was read, skipped and chosen is part of a run's record
    result = train(read_recipe(options.recipe, options.overrides))
    for split, scores in result.scores.items():
        print(f"{split}: {scores}")
    print(f"train: output={result.output_dir}")
    return 0


def _translate(options: argparse.Namespace) -> int:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from .evaluation import translate

    model = AutoModelForSeq2SeqLM.from_pretrained(options.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    # Only "\n" ends a line; other separators and broken bytes belong to the sentence.
    lines = (line.removesuffix(b"\n").decode("utf-8", errors="replace") for line in sys.stdin.buffer)
    translations = translate(
        model,
        tokenizer,
        lines,
        beam_size=options.beam_size,
        alpha=options.alpha,
        batch_size=options.batch_size,
        max_source_tokens=options.max_source_tokens,
    )
    for translation in translations:
        one_line = translation.replace("\r", " ").replace("\n", " ")
        sys.stdout.buffer.write(one_line.encode("utf-8", errors="replace") + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _average(options: argparse.Namespace) -> int:
    from .checkpoints.averaging import average_checkpoints

    checkpoints = options.checkpoints[0] if len(options.checkpoints) == 1 else options.checkpoints
    output = average_checkpoints(
        checkpoints,
        options.output,
        last=options.last,
        best=options.best,
        metric=options.metric,
        overwrite=options.overwrite,
    )
    print(f"average: output={output}")
    return 0


def _presets(options: argparse.Namespace) -> int:
    from .presets import presets_table

    def millions(number: float | None, sign: bool = False) -> str:
        return "" if number is None else f"{number / 1e6:{'+' if sign else ''}.2f}"

    header = ("preset", "N", "d_model", "d_ff", "h", "d_k", "d_v", "P_drop", "params ×10⁶", "− base", "paper", "− base")
    rows = []
    for row in presets_table():
        sizes = [str(row[key]) for key in ("name", "layers", "d_model", "d_ff", "heads", "d_k", "d_v", "dropout")]
        counted = [millions(row["parameters"]), millions(row["difference"], sign=True)]
        paper = ["" if row["paper"] is None else f"{row['paper'] / 1e6:.0f}"]
        paper += ["" if row["paper"] is None else f"{row['paper_difference'] / 1e6:+.0f}"]
        rows.append((*sizes, *counted, *paper, f"{row['flops'] / 1e6:.1f}", row["row"]))
    _print_table((*header, "MFLOPs a token", "what it is"), rows)
    print(
        "\nCounted from the built models: V = 37,000, one matrix for both embeddings and the output, no attention bias."
        "\nThe paper's totals are about 2M higher (a vocabulary of 'about 37,000'); compare the differences."
        "\nMFLOPs: forward pass for one target and one source token of 32 each; training takes about three times that."
    )
    return 0


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; a Hangul syllable takes two columns of a terminal."""
    from unicodedata import east_asian_width

    def width(text: str) -> int:
        return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)

    widths = [max(width(line[column]) for line in (header, *rows)) for column in range(len(header))]
    for line in (header, ["-" * size for size in widths], *rows):
        print("  ".join(cell + " " * (size - width(cell)) for cell, size in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
