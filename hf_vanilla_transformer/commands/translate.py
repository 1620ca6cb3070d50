# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""`vanilla-transformer translate`: translate files or standard input."""

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from .mbr_options import mbr_options, mbr_settings
from .messages import print_warning, warnings_in_option_words
from .options import (
    DEFAULTS,
    chosen_device,
    device_option,
    engine_option,
    given,
    model_argument,
    overwrite_option,
    precision_option,
    restriction_options,
    search_options,
    search_settings,
    translation_options,
)
from .parser import Subparsers, whole_number

FORMATS = ("text", "tsv", "jsonl")
# Options that may differ when a translation is resumed. The text and the model are compared by their content.
_WITHOUT_EFFECT = {
    "batch_size", "command", "device", "ensemble", "files", "interactive", "model", "output", "overrides", "overwrite",
    "run", "speaks_options", "workers",
}  # fmt: skip


def add_parser(commands: Subparsers) -> None:
    """Declare the command and its options."""
    parents = [model_argument(), search_options(), restriction_options(), translation_options()]
    parents += [device_option(), precision_option()]
    parser = commands.add_parser(
        "translate",
        parents=[*parents, mbr_options(), engine_option(), overwrite_option("an existing file at --output")],
        help="translate text files or standard input: one line in, one line out",
        description="Translate each line of the files, or of standard input, into one line of output. Lines from a "
        "terminal are translated one by one; a line from a pipe waits at most 0.2 s for others.",
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILES",
        help="text files with one sentence per line, also .gz; - is standard input (default: -); directories are "
        "further models of an ensemble, which averages the models' probabilities",
    )
    parser.add_argument(
        "--ensemble",
        action="append",
        metavar="MODEL",
        help="further model of an ensemble, a directory or an id on the Hub; may be repeated",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write to this file instead of standard output; it appears when it is complete; .gz is compressed",
    )
    parser.add_argument(
        "--n-best",
        type=whole_number(1, 1_000),
        metavar="N",
        help="translations per line, best first; at most --num-beams (default: 1)",
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="also write the score of each translation: its log-probability in nats, divided by the length penalty; "
        "with --mbr-*, its mean chrF against the candidates",
    )
    parser.add_argument(
        "--alignments",
        action="store_true",
        help="also write which words of the source and the translation belong together, by attention: 0-0 1-2 ... "
        "(source word - target word, separated by white space and counted from 0)",
    )
    parser.add_argument(
        "--alignment-head",
        metavar="LAYER[.HEAD]",
        help="cross-attention that aligns the words, counted from 0: a head, or the mean over a layer; +1 at the end "
        "takes the decoder step that reads a word instead of the one that predicts it (default: stored by `align "
        "--choose-head`, else the mean over the last layer but one, or the last of two)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text: the translation, with --scores a tab and the score, with --alignments a tab and the alignment; "
        "tsv: the source, a tab and the same, without a header; jsonl: one object per line of input, with all "
        "translations and scores (default: %(default)s)",
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="translate each line as soon as it is read (the default on a terminal)",
    )
    parser.set_defaults(run=run, speaks_options=True)


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit status."""
    from ..atomic_files import staged_file
    from ..launch import current_launch
    from ..messages import other_progress_bars_hidden
    from ..translation.engines import check_ensemble, choose_engine, load_models
    from ..translation.line_sources import (
        STANDARD_INPUT,
        LineSource,
        count_all_lines,
        input_files,
        standard_input,
        suggested_wait,
    )
    from ..translation.output_formats import Progress, open_terminal
    from ..translation.parts import PartsSource, translation_identity
    from ..translation.parts_directory import finish_joining, may_be_joined, open_parts
    from ..translation.restriction_files import RestrictionFiles
    from ..translation.stream import translate_stream

    models, names = split_models(options)
    files = input_files(names)
    stdin = standard_input() if STANDARD_INPUT in files else None
    restrictions = RestrictionFiles(
        options.prefix_file, options.constraint_file, options.terminology_file, options.banned_file
    )
    restrictions.check(files)
    inputs = [*models[1:], *files, *restrictions.paths()]
    launch = current_launch()
    in_parts = _in_parts(options, files, launch.processes)
    complete = in_parts and may_be_joined(options.output)
    if not complete:
        check_output(options, inputs, stdin)
    identity = translation_identity(files, models, _settings(options)) if in_parts else {}
    if complete:
        if finish_joining(options.output, identity):
            return 0
        check_output(options, inputs, stdin)
    if len(models) > 1:
        check_ensemble(models)
    engine = choose_engine(options.engine, options.model, options.device, options.precision)
    device = chosen_device(options) if engine == "torch" else None
    _check_alignments(options, engine)
    mbr = mbr_settings(options)
    search = _search(options, engine, mbr)

    wait = 0.0 if options.interactive else suggested_wait(files, stdin)
    output = None if options.output else sys.stdout.buffer
    terminal = None if wait == 0 or not launch.is_first else open_terminal(sys.stderr, output)
    with ExitStack() as stack:
        stack.enter_context(warnings_in_option_words(options))
        source: LineSource
        target: Any
        if in_parts:
            parts = stack.enter_context(
                open_parts(
                    options.output,
                    identity,
                    lambda: count_all_lines(files) or 0,
                    launch=launch,
                    overwrite=options.overwrite,
                )
            )
            if parts.resumed_lines and launch.is_first:
                print(f"resuming: {parts.resumed_lines:,} of {parts.lines:,} lines are complete", file=sys.stderr)
            progress = Progress(terminal, parts.lines)
            source = target = PartsSource(parts, files, progress)
        else:
            progress = Progress(terminal, None if terminal is None else count_all_lines(files))
            source = LineSource(files, stdin, wait, progress)
        with other_progress_bars_hidden():  # that of the weights
            model, tokenizer = load_models(engine, models, device, options.precision)
        if stdin is not None and stdin.isatty():
            print("type one line per translation; end with Ctrl-D", file=sys.stderr, flush=True)
        progress.start()
        if not in_parts:
            target = output if output is not None else stack.enter_context(staged_file(options.output))
        warnings = translate_stream(
            model,
            tokenizer,
            source,
            target,
            search,
            output_format=options.format,
            scores=options.scores,
            flush=output is not None,
            progress=progress,
            restrictions=restrictions.arguments(in_parts),
            mbr=mbr,
            **given(options, "batch_size", "max_source_tokens", "source_tag", "workers"),
            **given(options, "alignments", "alignment_head"),
        )
        if in_parts:
            parts.join()
    for warning in warnings:
        print_warning(warning, options)
    return 0


def split_models(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the models and the names of the text files; directories among FILES are models.

    Raises:
        ValueError: If a directory among FILES is no model.
    """
    directories = [name for name in options.files if Path(name).is_dir()]
    for name in directories:
        if not any((Path(name) / known).is_file() for known in ("config.json", "export.json")):
            raise ValueError(f"{name} is a folder without config.json; name text files, or the directory of a model")
    files = [name for name in options.files if name not in directories]
    return [options.model, *directories, *(options.ensemble or ())], files


def _check_alignments(options: argparse.Namespace, engine: str) -> None:
    """Raise ValueError for options of alignments that have no effect, or that the engine does not support."""
    if options.alignment_head is not None and not options.alignments:
        raise ValueError("--alignment-head has no effect without --alignments; add it as well")
    if options.alignments and engine != "torch":
        raise ValueError("--alignments needs a checkpoint: an exported model returns no attention; leave it out")


def _search(options: argparse.Namespace, engine: str, mbr: Any) -> Any:
    """Return the settings of the search; those that are not given are the engine's defaults."""
    from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
    from ..translation.engines import default_search

    wanted = search_settings(options) | ({} if options.n_best is None else {"num_return_sequences": options.n_best})
    if mbr is not None and options.n_best is not None:  # chosen among the candidates, not among the beams
        wanted["num_beams"] = max(options.n_best, wanted.get("num_beams", 0))
    return default_search(engine, BeamSearchConfig(), **wanted)


def _in_parts(options: argparse.Namespace, files: list[Any], processes: int) -> bool:
    """Return whether the text is translated in parts: by several processes, or because it is long.

    Raises:
        ValueError: If several processes cannot share the input or the output.
    """
    from ..translation.parts import are_long, can_be_parts

    output = Path(options.output) if options.output else None
    possible = output is not None and (output.is_file() or not output.exists()) and not options.interactive
    if processes > 1 and not (possible and can_be_parts(files)):
        raise ValueError(
            f"{processes} processes can share only files, and write only to a file: name the files and --output FILE, "
            "or start one process"
        )
    if not possible:
        return False
    return processes > 1 or are_long(files, options.output)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that decide about the translations, for parts to resume from."""
    settings = {name: value for name, value in vars(options).items() if name not in _WITHOUT_EFFECT and value != []}
    # A default that is given is the same as one that is not.
    return {name: None if value == DEFAULTS.get(name) else value for name, value in settings.items()}


def check_output(options: argparse.Namespace, files: list[Any], stdin: IO[bytes] | None) -> None:
    """Check that the output may be written and replaces no input.

    Raises:
        ValueError: If it would replace an input.
        OSError: If it exists and --overwrite is not given, or it cannot be written.
    """
    from ..overwriting import check_file

    named = [file for file in files if file != "-"]
    if options.output:
        # A redirected file has a name on Linux and macOS.
        redirected = ["/dev/stdin"] if stdin is not None and Path("/dev/stdin").is_file() else []
        check_file(
            options.output,
            "translations",
            inputs=[*named, *redirected, options.model],
            overwrite=options.overwrite,
        )
        return
    try:
        written = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):  # closed, or an object in memory
        return
    for file in named:
        if Path(file).is_file() and os.path.samestat(written, os.stat(file)):
            raise ValueError(f"standard output is the source {file}; write to another file")
