# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The command line: parse the arguments, run the command, report errors.

An error is one sentence on standard error and exit status 2; an interrupt is exit status 130. The commands are in
`commands`, one module each.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from .commands import (
    align,
    average,
    check,
    convert,
    demo,
    evaluate,
    presets,
    push,
    score,
    tokenizer,
    train,
    translate,
    visualize,
)
from .commands.inputs import check_inputs
from .commands.interrupts import INTERRUPTED, Program, one_line_interrupts
from .commands.messages import in_option_words
from .commands.options import in_effect
from .commands.parser import Parser, UsageError
from .version import __version__

PROGRAM = "vanilla-transformer"
COMMANDS = (
    demo, check, tokenizer, train, translate, score, evaluate, average, convert, visualize, align, push, presets
)  # fmt: skip
_WORKER_TRACEBACK = "Traceback (most recent call last):"
# Errors that torch can't raise again, and raises a RuntimeError for, but which are invalid input rather than a bug.
_WORKER_ERRORS = {"ValueError", "OSError", "FileNotFoundError", "PermissionError", "UnicodeDecodeError", "BadGzipFile"}
_ERRORS = (ValueError, OSError, ImportError, ArithmeticError, MemoryError, RuntimeError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words after the program's name; None takes those of the process.

    Returns:
        The exit status: 0 success, 1 a check failed, 2 invalid input, 130 interrupted.
    """
    with one_line_interrupts(PROGRAM) as interrupted:
        return _main(arguments, interrupted)


def _main(arguments: Sequence[str] | None, interrupted: Program) -> int:
    program, options = PROGRAM, None
    try:
        options = _parse(arguments)
        program = interrupted.name = f"{PROGRAM} {options.command}"
        check_inputs(options)
        return options.run(options)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has closed it, as in `... | head`; this is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UsageError as error:
        print(f"{error.program}: error: {error}; see {error.program} --help", file=sys.stderr)
        return 2
    except _ERRORS as error:
        sentence = _out_of_memory(error, options) or _sentence(error)
        if os.environ.get("VANILLA_TRANSFORMER_TRACEBACK") or sentence is None:
            raise
        print(f"{program}: error: {in_option_words(sentence, options)}", file=sys.stderr)
        return 2


def build_parser() -> Parser:
    """Build the parser of all commands."""
    parser = Parser(
        prog=PROGRAM,
        description='The original Transformer of "Attention Is All You Need" (2017): train it, translate with it.',
        epilog="Set the environment variable VANILLA_TRANSFORMER_TRACEBACK=1 to print the traceback of an error.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if rest and not getattr(options, "takes_overrides", False):
        raise UsageError(f"{PROGRAM} {options.command}", f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = rest
    return options


def _out_of_memory(error: Exception, options: argparse.Namespace | None) -> str | None:
    """Return which options to lower if memory ran out, else None."""
    if not isinstance(error, RuntimeError | MemoryError):
        return None
    from .training.memory import is_out_of_memory

    if not is_out_of_memory(error):
        return None
    lower = []
    for name in ("batch_size", "num_beams"):
        if options is not None and hasattr(options, name):
            value = in_effect(options, name)
            lower.append(f"--{name.replace('_', '-')}" + ("" if value is None else f" (now {value})"))
    return f"out of memory; lower {' or '.join(lower) or 'the size of the model or of the input'}"


def _sentence(error: Exception) -> str | None:
    """Return the message of an error on one line; None if the error is a bug rather than invalid input."""
    if isinstance(error, OSError) and error.filename and error.strerror and str(error).startswith("[Errno"):
        return f"{error.filename} cannot be used: {error.strerror}; give another path, or correct this one"
    if raised := worker_error(str(error)):
        kind, message = raised
        return message if not isinstance(error, RuntimeError) or kind in _WORKER_ERRORS else None
    if isinstance(error, RuntimeError) and str(error):
        return None
    return " ".join(str(error).split()) or type(error).__name__


def worker_error(message: str) -> tuple[str, str] | None:
    """Return the type and message of the error that a message of torch's DataLoader repeats with its traceback.

    torch raises an error of a worker process again, with the worker's traceback as the message.
    """
    if _WORKER_TRACEBACK not in message:
        return None
    lines = message[message.rindex(_WORKER_TRACEBACK) :].rstrip().splitlines()
    # The lines of a traceback are indented; the first one that is not begins the error.
    start = next((number for number, line in enumerate(lines) if number and not line.startswith(" ")), len(lines))
    kind, _, text = " ".join(lines[start:]).partition(": ")
    name = kind.rpartition(".")[2]
    return name, " ".join(text.split()) or name


if __name__ == "__main__":
    sys.exit(main())
