# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, as parent parsers, and functions that read their values."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .parser import Parser, real_number, whole_number

if TYPE_CHECKING:
    import torch

LENGTH_NORMALIZATIONS = ("gnmt", "power")
ENGINES = ("torch", "ctranslate2", "onnx")
INFERENCE_PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
DEFAULTS = {  # of BeamSearchConfig and `translate`, for help texts: importing those would take seconds
    "num_beams": 4,
    "length_penalty": 0.6,
    "length_normalization": "gnmt",
    "coverage_penalty": 0.0,
    "max_extra_tokens": 50,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "batch_size": 64,
    "max_source_tokens": 1024,
}
_SEARCH = (
    "num_beams",
    "length_penalty",
    "length_normalization",
    "coverage_penalty",
    "max_extra_tokens",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
)


# --------------------------------------------------------------------------- parent parsers


def model_argument() -> Parser:
    """Declare the positional argument ``model``."""
    parent = Parser(add_help=False)
    parent.add_argument("model", metavar="MODEL", help="directory of a checkpoint, or id of a model on the Hub")
    return parent


def device_option() -> Parser:
    """Declare ``--device``; see `chosen_device`."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--device", help="device to run the model on, e.g. cuda:1, mps or cpu (default: the accelerator, else the CPU)"
    )
    return parent


def precision_option() -> Parser:
    """Declare ``--precision`` of inference."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--precision",
        choices=INFERENCE_PRECISIONS,
        default="auto",
        help="precision of the model's arithmetic; auto keeps the dtype of the weights, int8 runs on the CPU only and "
        "is made for models of the size of base (default: %(default)s)",
    )
    return parent


def engine_option() -> Parser:
    """Declare ``--engine``; None reads it from the directory of the model."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--engine",
        choices=ENGINES,
        help="runtime of the model; ctranslate2 and onnx run what `convert --to` has exported, on the CPU (default: "
        "read from the directory)",
    )
    return parent


def overwrite_option(what: str) -> Parser:
    """Declare ``--overwrite``.

    Args:
        what: what it replaces, for the help text.
    """
    parent = Parser(add_help=False)
    parent.add_argument("--overwrite", action="store_true", help=f"replace {what}")
    return parent


def search_options() -> Parser:
    """Declare the settings of the beam search; `search_settings` returns those that were given.

    An option that is not given is None. Its default is that of `BeamSearchConfig`, or of a recipe.
    """
    parent = Parser(add_help=False)
    group = parent.add_argument_group("beam search (section 6.1 of the paper)")
    group.add_argument(
        "--num-beams",
        type=whole_number(1, 1_000),
        help=f"open hypotheses per sentence; 1 is greedy search {_default('num_beams')}",
    )
    group.add_argument(
        "--length-penalty",
        type=real_number(-100, 100),
        help=f"exponent alpha of the length penalty; 0 compares plain log-probabilities {_default('length_penalty')}",
    )
    group.add_argument(
        "--length-normalization",
        choices=LENGTH_NORMALIZATIONS,
        help="divide the log-probability of n tokens by ((5 + n) / 6)^alpha (gnmt, as the paper) or by n^alpha "
        f"(power, as generate() and CTranslate2) {_default('length_normalization')}",
    )
    group.add_argument(
        "--coverage-penalty",
        type=real_number(0, 100),
        help="weight beta of the coverage penalty, which favors translations that attend to every source token "
        f"{_default('coverage_penalty')}",
    )
    group.add_argument(
        "--max-extra-tokens",
        type=whole_number(0, 1_000_000),
        help=f"tokens a translation may have beyond the length of its source {_default('max_extra_tokens')}",
    )
    group.add_argument(
        "--min-length",
        type=whole_number(0, 1_000_000),
        help=f"minimum length of a translation in tokens, with its prefix and EOS {_default('min_length')}",
    )
    group.add_argument(
        "--min-new-tokens",
        type=whole_number(0, 1_000_000),
        help=f"minimum number of tokens between the prefix and EOS {_default('min_new_tokens')}",
    )
    group.add_argument(
        "--no-repeat-ngram-size",
        type=whole_number(0, 1_000),
        metavar="N",
        help="no translation has the same N tokens in a row twice; 0 allows repetitions "
        f"{_default('no_repeat_ngram_size')}",
    )
    return parent


def restriction_options() -> Parser:
    """Declare the files that restrict translations; see `RestrictionFiles`."""
    parent = Parser(add_help=False)
    group = parent.add_argument_group("restrictions, read from text files")
    group.add_argument(
        "--prefix-file",
        metavar="FILE",
        help="how each translation begins: one line per line of input, empty where its beginning is free",
    )
    group.add_argument(
        "--constraint-file",
        metavar="FILE",
        help="phrases that each translation contains: one line per line of input, phrases separated by tabs",
    )
    group.add_argument(
        "--terminology-file",
        metavar="FILE",
        help="one term per line: source term, tab, target phrase, which a translation contains if its source has the "
        "term",
    )
    group.add_argument(
        "--banned-file",
        metavar="FILE",
        help="words and phrases that no translation contains, one per line",
    )
    return parent


def translation_options() -> Parser:
    """Declare the options of `translate` that are not of the search; None where not given, see `given`."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--batch-size",
        type=whole_number(1, 100_000),
        help=f"maximum number of sentences per batch {_default('batch_size')}",
    )
    parent.add_argument(
        "--workers",
        type=whole_number(1, 1_024),
        help="processes that translate batches side by side on the CPU, each with one thread (default: one per thread "
        "of torch, on Linux; else 1)",
    )
    parent.add_argument(
        "--max-source-tokens",
        type=whole_number(1, 10_000_000),
        help="maximum length of a source in tokens; longer sources get an empty translation and a warning "
        f"{_default('max_source_tokens')}",
    )
    parent.add_argument(
        "--source-tag",
        metavar="TAG",
        help="put this tag before each source, e.g. <2de> for a model that was trained with --train-source-tags",
    )
    return parent


def _default(name: str) -> str:
    return f"(default: {DEFAULTS[name]})"


# --------------------------------------------------------------------------- values


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of the options that were given, name -> value."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def in_effect(options: argparse.Namespace, name: str) -> Any:
    """Return the value of an option, else its default; None where a recipe may set it."""
    value = getattr(options, name)
    return DEFAULTS[name] if value is None and getattr(options, "recipe", None) is None else value


def search_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of `search_options` that were given, as fields of `BeamSearchConfig`."""
    return given(options, *_SEARCH)


def chosen_device(options: argparse.Namespace) -> "torch.device":
    """Return the device of ``--device``, checked before anything is read; print it unless it is the CPU.

    Of several processes that accelerate or torchrun started on a machine, each gets a device of its own.
    """
    from ..device import choose_device, describe_device, device_of_process
    from ..launch import current_launch

    int8 = getattr(options, "precision", "auto") == "int8"  # runs on the CPU, and an accelerator is no default for it
    device = choose_device("cpu" if int8 and options.device is None else options.device)
    device = device_of_process(device, current_launch())
    if device.type == "meta":
        raise ValueError("device='meta' holds no numbers and computes nothing; choose another one, e.g. cpu")
    if device.type != "cpu":
        print(f"running on {describe_device(device)}", file=sys.stderr, flush=True)
    return device


__all__ = [
    "DEFAULTS",
    "ENGINES",
    "INFERENCE_PRECISIONS",
    "LENGTH_NORMALIZATIONS",
    "chosen_device",
    "device_option",
    "engine_option",
    "given",
    "in_effect",
    "model_argument",
    "overwrite_option",
    "precision_option",
    "restriction_options",
    "search_options",
    "search_settings",
    "translation_options",
]
