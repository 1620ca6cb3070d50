# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, call, print.

Each command imports what it needs when it runs, so that `--help` answers at once. Bad input ends in one sentence on
standard error and exit status 2; an interrupt in exit status 130.
"""

import argparse
import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from .version import TESTED_TRANSFORMERS, __version__

PROGRAM = "vanilla-transformer"
_DEVICE_HELP = "what computes, as cuda:0, mps or cpu; not given: the accelerator where there is one, else the CPU"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after the program's name; None takes the process's own.

    Returns:
        The exit status: 0 done, 1 a check failed, 2 bad input, 130 interrupted.
    """
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = rest
    try:
        _check_numbers(options)
        return options.run(options) or 0
    except KeyboardInterrupt:
        print(f"{PROGRAM} {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `… | head`; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError, ArithmeticError, MemoryError, RuntimeError) as error:
        if os.environ.get("VANILLA_TRANSFORMER_TRACEBACK"):
            raise
        shown = _out_of_memory(error, options) if isinstance(error, RuntimeError) or not str(error) else error
        print(f"{PROGRAM} {options.command}: error: {_sentence(shown)}", file=sys.stderr)
        return 2


_NUMBERS: dict[str, tuple[float, float]] = {  # the least and the most of each number on the command line
    "num_beams": (1, 1_000),
    "batch_size": (1, 100_000),
    "max_source_tokens": (1, 10_000_000),
    "length_penalty": (-100, 100),
    "vocab_size": (1, 100_000_000),
    "character_coverage": (0, 1),
    "last": (1, 1_000_000),
    "best": (1, 1_000_000),
    "layer": (0, 1_000),
    "head": (0, 1_000),
}


def _check_numbers(options: argparse.Namespace) -> None:
    """Refuse a number that no command can do anything with, before anything is loaded."""
    for name, (least, most) in _NUMBERS.items():
        value = getattr(options, name, None)
        if value is not None and not least <= value <= most:
            option = name.replace("_", "-")
            raise ValueError(f"{name}={value} is not between {least:,} and {most:,}; choose another --{option}")


def _out_of_memory(error: Exception, options: argparse.Namespace) -> Exception:
    """Return an error that says what to lower where there was no memory left; raise any other error again."""
    from .training.guards import is_out_of_memory

    if not is_out_of_memory(error):
        if str(error):
            raise error
        return error
    names = [name for name in ("batch_size", "num_beams") if getattr(options, name, None) is not None]
    what = " or ".join(f"--{name.replace('_', '-')} (now {getattr(options, name)})" for name in names)
    return MemoryError(f"out of memory; lower {what}" if what else "out of memory; choose something smaller")


def _sentence(error: BaseException) -> str:
    """What an error says, on one line; the system's own errors name a file and a reason, but not what to do."""
    if isinstance(error, OSError) and error.filename and error.strerror and str(error).startswith("[Errno"):
        return f"{error.filename} can't be used: {error.strerror}; give another path, or see to this one"
    return " ".join(str(error).split()) or type(error).__name__


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
    demo.add_argument("--card", default=None, help="file for a second copy of the model card, as model_card.md")
    demo.set_defaults(run=_demo)

    check = commands.add_parser(
        "check",
        help="check that this installation computes the right numbers, in seconds; exit status 1 if it doesn't",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    check.add_argument("--device", default=None, help="where to compute, e.g. cpu or cuda:1; unset: the GPU if any")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.set_defaults(run=_check)

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
    translate.add_argument("--num-beams", type=int, default=4, help="hypotheses kept open; 1 is greedy (section 6.1)")
    translate.add_argument(
        "--length-penalty", type=float, default=0.6, help="exponent of the length penalty (section 6.1)"
    )
    translate.add_argument(
        "--length-normalization",
        choices=("gnmt", "power"),
        default="gnmt",
        help="((5 + n) / 6)^alpha, the paper's, or n^alpha, the only one of CTranslate2",
    )
    translate.add_argument(
        "--engine",
        choices=("torch", "ctranslate2", "onnx"),
        default="torch",
        help="what runs the model; the others take what `convert --to` has written",
    )
    translate.add_argument("--batch-size", type=int, default=64, help="most sentences a batch")
    translate.add_argument(
        "--max-source-tokens", type=int, default=1024, help="longer lines become empty lines, with a warning"
    )
    translate.add_argument("--device", default=None, help=f"{_DEVICE_HELP}; torch only")
    translate.set_defaults(run=_translate)

    evaluate = commands.add_parser(
        "evaluate",
        help="translate a test set and score it: BLEU and chrF with their signatures",
        epilog="The text is two aligned files, or what a recipe evaluates on; with --recipe, any of its keys may "
        "follow as --key value. Unset options are the recipe's, else the paper's.",
    )
    evaluate.add_argument("model", help="a checkpoint's directory, or its name on the Hub")
    evaluate.add_argument("--source", default=None, help="text file, a sentence a line")
    evaluate.add_argument("--reference", default=None, help="its translation, line by line")
    evaluate.add_argument("--recipe", default=None, help="a YAML file that names the text instead")
    evaluate.add_argument(
        "--split", action="append", default=None, help="validation or test of the recipe; may be repeated (both)"
    )
    evaluate.add_argument("--target-lang", default=None, help="language of the translations; chooses --tokenize")
    evaluate.add_argument(
        "--tokenize",
        default=None,
        help="sacrebleu's tokenizer: 13a, none, char, korean (ko-mecab where installed, else char), … (13a)",
    )
    evaluate.add_argument("--lowercase", action="store_true", default=None, help="score without regard to capitals")
    evaluate.add_argument("--num-beams", type=int, default=None, help="hypotheses kept open; 1 is greedy (4)")
    evaluate.add_argument("--length-penalty", type=float, default=None, help="exponent of the length penalty (0.6)")
    evaluate.add_argument("--batch-size", type=int, default=64, help="most sentences a batch (64)")
    evaluate.add_argument(
        "--max-source-tokens", type=int, default=None, help="longer sources become empty translations (1024)"
    )
    evaluate.add_argument("--groups", default=None, help="file with a label a line: scores by label as well")
    evaluate.add_argument("--translations", default=None, help="file for the translations, a line each")
    evaluate.add_argument("--output", default=None, help="JSON file for scores, data hash, hardware and seconds")
    evaluate.add_argument(
        "--overwrite", action="store_true", help="replace --translations and --output if they are there"
    )
    evaluate.add_argument("--device", default=None, help=_DEVICE_HELP)
    evaluate.set_defaults(run=_evaluate, takes_overrides=True)

    tokenizer = commands.add_parser(
        "tokenizer",
        help="learn a subword vocabulary from text files, shared by both languages or one for each",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    tokenizer.add_argument("files", nargs="*", help="text files of all languages, for one shared vocabulary")
    tokenizer.add_argument("--source", nargs="+", default=None, help="files of a vocabulary for the source alone")
    tokenizer.add_argument("--target", nargs="+", default=None, help="files of a vocabulary for the target alone")
    tokenizer.add_argument("--output", required=True, help="directory; two vocabularies go to its source/ and target/")
    tokenizer.add_argument("--vocab-size", type=int, default=37000, help="tokens in all, bytes and special ones too")
    tokenizer.add_argument("--model", choices=("bpe", "unigram"), default="bpe", help="how to learn")
    tokenizer.add_argument(
        "--normalization", choices=("NFC", "NFKC", "none"), default="NFC", help="Unicode form that text is brought to"
    )
    tokenizer.add_argument("--lowercase", action="store_true", help="write everything in lower case")
    tokenizer.add_argument(
        "--character-coverage", type=float, default=0.9999, help="share of characters with a token; others go in bytes"
    )
    tokenizer.add_argument("--overwrite", action="store_true", help="replace a tokenizer that is there")
    tokenizer.set_defaults(run=_tokenizer)

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
    average.add_argument("--overwrite", action="store_true", help="replace an earlier average at --output")
    average.set_defaults(run=_average)

    convert = commands.add_parser(
        "convert",
        help="bring in a checkpoint of Marian, FSMT, fairseq or torch.nn.Transformer, or write one out",
        epilog="A model around torch.nn.Transformer says little itself: --set num_heads=8 --set embedding=emb.weight "
        "--set generator=out --set prefix=transformer. and so on; a wrong name gives the list of all.",
    )
    direction = convert.add_mutually_exclusive_group(required=True)
    direction.add_argument(
        "--from", dest="source_format", choices=("marian", "fsmt", "fairseq", "torch"), help="format of SOURCE"
    )
    direction.add_argument(
        "--to",
        dest="target_format",
        choices=("ctranslate2", "onnx", "marian", "fsmt", "torch"),
        help="format of TARGET: of a fast runtime, or back to where such a checkpoint came from",
    )
    convert.add_argument("source", metavar="SOURCE", help="directory or file; also a name on the Hub where one is read")
    convert.add_argument("target", metavar="TARGET", help="directory for the result")
    convert.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="an option of torch's format"
    )
    convert.add_argument("--quantization", default=None, help="of ctranslate2: how weights are stored, e.g. int8")
    convert.add_argument("--overwrite", action="store_true", help="replace an earlier conversion at TARGET")
    convert.set_defaults(run=_convert)

    push = commands.add_parser(
        "push",
        help="publish a checkpoint on the Hub: weights, code, tokenizer and card, tried out before they are sent",
        epilog="The token is that of `hf auth login` or of the variable HF_TOKEN; it is never written anywhere. An "
        "interrupted push can be run again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    push.add_argument("checkpoint", help="its directory, with the tokenizer")
    push.add_argument("repository", help="user/name")
    push.add_argument("--public", action="store_true", help="everybody may see it; without this, only you")
    push.add_argument("--license", default=None, help="of the model, for a card written now, as apache-2.0")
    push.add_argument("--data-license", default=None, help="of the training data, for a card written now, in words")
    push.add_argument("--dry-run", action="store_true", help="put together, try out and list; send nothing")
    push.add_argument("--no-check", action="store_true", help="don't try it out without this package")
    push.add_argument("--overwrite", action="store_true", help="replace a model that the repository holds")
    push.set_defaults(run=_push)

    visualize = commands.add_parser(
        "visualize",
        help="show what attention looks at in a sentence: a page for a browser, and a figure",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    visualize.add_argument("model", help="a checkpoint's directory, or its name on the Hub")
    visualize.add_argument("--source", required=True, help="the sentence")
    visualize.add_argument("--target", default=None, help="its translation instead of the model's own")
    visualize.add_argument("--output", required=True, help="file for the page, e.g. attention.html")
    visualize.add_argument("--figure", default=None, help="file for a figure as well, e.g. attention.png or .pdf")
    visualize.add_argument(
        "--attention", default="cross", choices=("encoder", "decoder", "cross"), help="what to show (first)"
    )
    visualize.add_argument("--layer", type=int, default=None, help="counted from 0; not given: the last, or all")
    visualize.add_argument("--head", type=int, default=None, help="counted from 0; not given: all, or their average")
    visualize.add_argument("--overwrite", action="store_true", help="replace --output and --figure if they are there")
    visualize.add_argument("--device", default=None, help=_DEVICE_HELP)
    visualize.set_defaults(run=_visualize)

    presets = commands.add_parser(
        "presets", help="list the named architectures with their parameters and operations, beside the paper's"
    )
    presets.set_defaults(run=_presets)
    return parser


# --------------------------------------------------------------------------- commands


def _demo(options: argparse.Namespace) -> int:
    from .training.demo import run_demo

    result = run_demo(output_dir=options.output, recipe_path=options.recipe, card_path=options.card)
    print("\nHeld-out expressions, translated greedily by the checkpoint as AutoModelForSeq2SeqLM loads it:\n")
    rows = [(row.source, row.reference, row.translation) for row in result.samples]
    _print_table(("source", "reference", "translation"), rows)
    print()
    for kind, exact in result.exact_by_kind.items():
        print(f"exact {kind}: {exact:.4f} of {result.count_by_kind[kind]}")
    _show_attention(options, result.samples[0].source)
    print(
        f"demo: exact={result.exact:.4f} bleu={result.bleu:.2f} train_seconds={result.train_seconds:.1f} "
        f"output={options.output}"
    )
    return 0


def _show_attention(options: argparse.Namespace, source: str) -> None:
    """Measure the demo's encoder-decoder attention, and write the attention page and an alignment figure."""
    from pathlib import Path

    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from .data.embedded_corpus import draw_expressions
    from .device import move_to_device
    from .training.demo import RECIPE
    from .training.recipe import read_recipe
    from .visualization.alignment import digit_alignment
    from .visualization.figures import alignment_figure, save_figure
    from .visualization.maps import attention_maps
    from .visualization.page import save_page

    output = Path(options.output)
    recipe = read_recipe(options.recipe or RECIPE, [f"--output_dir={output}"])
    tokenizer = AutoTokenizer.from_pretrained(output)
    model = move_to_device(AutoModelForSeq2SeqLM.from_pretrained(output), recipe.training.device)
    data, seed = recipe.data, recipe.training.seed
    layer = head = None
    try:
        dev = digit_alignment(model, tokenizer, draw_expressions("validation", data.embedded_validation, seed=seed))
        test = digit_alignment(model, tokenizer, draw_expressions("test", data.embedded_test, seed=seed))
        layer, head = dev.best()
        print(
            f"\nattention: decoder layer {layer}, head {head} (the best on the validation split) looks most at "
            f"the matching word, one to nine,\n  for {test.accuracy[layer, head]:.1%} of {test.digits} Korean digits "
            f"of the test split; chance: {test.chance:.1%}"
        )
    except ValueError as error:  # a recipe of one's own may hold out too little to measure
        print(f"\nattention: not measured: {error}")
    maps = attention_maps(model, tokenizer, source)
    page = save_page(maps, output / "attention.html", layer=layer, head=head)
    figure = save_figure(alignment_figure(maps, layer, head), output / "alignment.png")
    print(f"attention: page={page} figure={figure}\n")


def _check(options: argparse.Namespace) -> int:
    import json

    from .self_check import check_installation

    report = check_installation(options.device)
    print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if options.json else report)
    return 0 if report.passed else 1


class _StandardErrorHandler(logging.StreamHandler):
    """Writes to `sys.stderr` as it is at the time of the record; a notebook or a test may have replaced it since."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # the parent's would keep today's stream

    @property
    def stream(self) -> Any:
        """Return the standard error stream of this moment."""
        return sys.stderr


def _show_log(first_process: bool) -> None:
    """Write what the package and transformers have to say to standard error; other processes only warn."""
    from transformers.utils.logging import set_verbosity

    level = logging.INFO if first_process else logging.WARNING
    set_verbosity(level)
    logger = logging.getLogger(__package__)
    logger.setLevel(level)
    if not logger.handlers:  # otherwise somebody has decided already where it goes
        handler = _StandardErrorHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def _train(options: argparse.Namespace) -> int:
    from .training.recipe import read_recipe
    from .training.run import train

    first_process = os.environ.get("RANK", "0") == "0"  # of those that torchrun or accelerate has started
    _show_log(first_process)  # what was read, skipped and chosen is part of a run's record
    result = train(read_recipe(options.recipe, options.overrides))
    if not first_process:
        return 0
    for split, scores in result.scores.items():
        print(f"{split}: {scores}")
    print(f"train: output={result.output_dir}")
    return 0


def _translate(options: argparse.Namespace) -> int:
    from .checkpoints.loading import load_checkpoint, load_tokenizer
    from .data.text_lines import decode_line, stream_lines
    from .device import move_to_device
    from .model.beam_search_config_vanilla_transformer import BeamSearchConfig
    from .plausibility import TranslationTally
    from .translation import translate

    model: Any
    if options.engine == "torch":
        device = _chosen_device(options)
        model, tokenizer = load_checkpoint(options.model)
        model = move_to_device(model, device)
    else:
        from .export.engines import load_engine

        if options.device is not None:
            raise ValueError(f"--device is for torch; {options.engine} runs on the CPU")
        model, tokenizer = load_engine(options.engine, options.model), load_tokenizer(options.model)
    tally, sources, broken = TranslationTally(), deque[str](), []

    def lines() -> Iterator[str]:
        for number, line in enumerate(stream_lines(sys.stdin.buffer, "standard input"), start=1):
            text, valid = decode_line(line)
            if not valid:
                broken.append(number)
            sources.append(text)
            yield text

    translations = translate(
        model,
        tokenizer,
        lines(),
        BeamSearchConfig(
            num_beams=options.num_beams,
            length_normalization=options.length_normalization,
            length_penalty=options.length_penalty,
        ),
        batch_size=options.batch_size,
        max_source_tokens=options.max_source_tokens,
    )
    for translation in translations:
        one_line = translation.replace("\r", " ").replace("\n", " ")
        sys.stdout.buffer.write(one_line.encode("utf-8", errors="replace") + b"\n")
        sys.stdout.buffer.flush()
        tally.add(sources.popleft(), translation)
    if broken:
        print(
            f"{PROGRAM} translate: warning: {len(broken):,} line(s) are not UTF-8, the first is line {broken[0]}; bad "
            "bytes were replaced, so these translations are doubtful: convert the text, as with iconv -t UTF-8",
            file=sys.stderr,
        )
    if warning := tally.warning():
        print(f"{PROGRAM} translate: warning: {warning}", file=sys.stderr)
    return 0


def _chosen_device(options: argparse.Namespace) -> Any:
    """Choose the device before anything is read, and name it on standard error if it is not the CPU."""
    from .device import choose_device, describe_device

    device = choose_device(options.device)
    if device.type != "cpu":
        print(f"running on {describe_device(device)}", file=sys.stderr, flush=True)
    return device


def _evaluate(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .metrics import TranslationMetric, default_bleu_tokenizer
    from .overwriting import check_file
    from .training.evaluation import (
        Decoding,
        evaluate_checkpoint,
        load_evaluation_text,
        load_recipe_text,
        read_labels,
        write_record,
        write_translations,
    )
    from .training.recipe import read_recipe

    language, tokenize, lowercase, unset = options.target_lang, options.tokenize, options.lowercase, Decoding()
    if (options.recipe is None) == (options.source is None and options.reference is None):
        raise ValueError("name the text either by --source and --reference, or by --recipe")
    if options.recipe is not None:
        recipe = read_recipe(options.recipe, options.overrides)
        language = language or recipe.data.target_lang
        tokenize = tokenize or (None if options.target_lang else recipe.run.metric_tokenize)
        lowercase = recipe.data.lowercase if lowercase is None else lowercase
        unset = Decoding(
            recipe.run.num_beams, recipe.run.length_penalty, max_source_tokens=recipe.run.max_source_tokens
        )
        inputs = [options.recipe, *recipe.data.files]
    else:
        if options.source is None or options.reference is None:
            raise ValueError(f"{'--source' if options.source is None else '--reference'} is missing; both are needed")
        if options.overrides or options.split:
            raise ValueError(f"{(options.overrides or ['--split'])[0]} is for a recipe; name one with --recipe")
        inputs = [options.source, options.reference]
    inputs += [options.model, options.groups]
    tokenize = tokenize or default_bleu_tokenizer(language or "")
    TranslationMetric(tokenize)  # what isn't installed, or can't be fetched, is said before any work
    if options.translations:
        check_file(options.translations, "translations", inputs=inputs, overwrite=options.overwrite)
    if options.output:
        check_file(options.output, "record", inputs=[*inputs, options.translations], overwrite=options.overwrite)
    if options.recipe is not None:
        corpora = load_recipe_text(recipe, options.split)
    else:
        corpora = load_evaluation_text(options.source, options.reference)
    if (options.groups or options.translations) and len(corpora) != 1:
        raise ValueError(f"--groups and --translations belong to one text, not to {len(corpora)}; choose by --split")
    only = next(iter(corpora))
    result = evaluate_checkpoint(
        options.model,
        corpora,
        tokenize=tokenize,
        lowercase=bool(lowercase),
        decoding=Decoding(
            unset.num_beams if options.num_beams is None else options.num_beams,
            unset.length_penalty if options.length_penalty is None else options.length_penalty,
            options.batch_size,
            unset.max_source_tokens if options.max_source_tokens is None else options.max_source_tokens,
        ),
        groups={only: read_labels(options.groups)} if options.groups else None,
        on_split=lambda name, size: print(f"translating {name}: {size:,} sentences", file=sys.stderr, flush=True),
        device=_chosen_device(options),
    )
    if options.translations:
        write_translations(Path(options.translations), result.translations[only])
    if options.output:
        write_record(Path(options.output), result.record)
    for name, scores in result.record["scores"].items():
        for label, found in scores.get("by_group", {}).items():
            print(f"{name} {label}: bleu={found['bleu']:.2f} chrf={found['chrf']:.2f} sentences={found['sentences']}")
        print(f"{name}: {scores['bleu_signature']}\n{name}: {scores['chrf_signature']}")
        print(
            f"{name}: bleu={scores['bleu']:.2f} chrf={scores['chrf']:.2f} exact={scores['exact']:.4f} "
            f"sentences={scores['sentences']} seconds={result.record['seconds'][name]}"
        )
    return 0


def _tokenizer(options: argparse.Namespace) -> int:
    from .overwriting import output_folder
    from .training.vocabulary import learn_vocabulary

    apart = options.source is not None or options.target is not None
    if apart and (options.files or options.source is None or options.target is None):
        raise ValueError("two vocabularies need --source FILES and --target FILES and no others; one needs files alone")
    if not apart and not options.files:
        raise ValueError("there are no text files to learn from; name some, or --source FILES and --target FILES")
    wanted = {"source": options.source, "target": options.target} if apart else {"": options.files}
    inputs = [file for files in wanted.values() for file in files]
    with output_folder(options.output, "tokenizer", inputs=inputs, overwrite=options.overwrite) as staging:
        results = {
            side: learn_vocabulary(
                files,
                staging / side,
                options.vocab_size,
                model=options.model,
                normalization=None if options.normalization == "none" else options.normalization,
                lowercase=options.lowercase,
                character_coverage=options.character_coverage,
            )
            for side, files in wanted.items()
        }
    for side, result in results.items():
        print(
            f"tokenizer: output={os.path.join(options.output, side) if side else options.output} size={result.size} "
            f"lines={result.lines} tokens_per_word={result.tokens_per_word:.2f} unknown={result.unknown:.4%} "
            f"bytes={result.bytes:.4%}"
        )
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


def _convert(options: argparse.Namespace) -> int:
    out_format = options.target_format in ("ctranslate2", "onnx")
    settings = {}
    for setting in options.settings:
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise ValueError(f"--set {setting} is not NAME=VALUE, as in --set num_heads=8")
        settings[name] = value
    if settings and out_format:
        raise ValueError(f"--set is for torch's format; {options.target_format} takes none")
    if options.quantization is not None and not out_format:
        raise ValueError("--quantization is for the formats of fast runtimes, as --to ctranslate2")
    if out_format:
        from .export.writing import export_checkpoint

        output = export_checkpoint(
            options.target_format,
            options.source,
            options.target,
            quantization=options.quantization,
            overwrite=options.overwrite,
        )
    else:
        from .conversion.convert import convert_checkpoint, restore_checkpoint

        convert = convert_checkpoint if options.source_format else restore_checkpoint
        output = convert(
            options.source_format or options.target_format,
            options.source,
            options.target,
            options=settings,
            overwrite=options.overwrite,
        )
    print(f"convert: output={output}")
    return 0


def _push(options: argparse.Namespace) -> int:
    from .hub.publish import listing, push_to_hub

    published = push_to_hub(
        options.checkpoint,
        options.repository,
        private=not options.public,
        license=options.license,
        data_license=options.data_license,
        dry_run=options.dry_run,
        check=not options.no_check,
        overwrite=options.overwrite,
    )
    _print_table(("file", "size"), listing(published.files))
    print(f"push: its code was tested with transformers {' to '.join(TESTED_TRANSFORMERS)}")
    if options.dry_run:
        print(f"push: nothing was sent to {published.repo_id}")
    else:
        print(f"push: {published.url} revision={published.commit}")
    return 0


def _visualize(options: argparse.Namespace) -> int:
    from .checkpoints.loading import load_checkpoint
    from .device import move_to_device
    from .overwriting import check_file
    from .visualization.figures import alignment_figure, check_figure_format, head_figure, layer_figure, save_figure
    from .visualization.maps import attention_maps
    from .visualization.page import save_page

    kind, layer, head = options.attention, options.layer, options.head
    check_file(options.output, "page", inputs=(options.model,), overwrite=options.overwrite)
    if options.figure:
        check_figure_format(options.figure)
        check_file(options.figure, "figure", inputs=(options.model, options.output), overwrite=options.overwrite)
    device = _chosen_device(options)
    model, tokenizer = load_checkpoint(options.model)
    model = move_to_device(model, device)
    maps = attention_maps(model, tokenizer, options.source, options.target)
    maps.weights(kind, layer, head)  # says what is wrong with them before anything is written
    page = save_page(maps, options.output, kind=kind, layer=layer, head=head)
    written = f"page={page}"
    if options.figure:
        if head is not None:
            figure = head_figure(maps, kind, layer, head)
        elif layer is not None or kind != "cross":
            figure = layer_figure(maps, kind, len(maps.weights(kind)) - 1 if layer is None else layer)
        else:
            figure = alignment_figure(maps)
        written += f" figure={save_figure(figure, options.figure)}"
    print(f"visualize: {written} target={maps.target}")
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
