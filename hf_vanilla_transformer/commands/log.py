# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Set up logging of the package to standard error (not a command)."""

import logging
import os

from .parser import Parser


def verbose_option() -> Parser:
    """Declare ``--verbose``."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--verbose",
        action="store_true",
        help="show all messages and progress bars, including those of transformers, and every log entry",
    )
    return parent


def is_first_process() -> bool:
    """Return whether this is the first, or only, process of those that torchrun or accelerate started."""
    return os.environ.get("RANK", "0") == "0"


def log_to_standard_error(verbose: bool = False) -> None:
    """Write log messages of the package to standard error; of several processes, all but the first only warnings.

    Args:
        verbose: write details and the INFO messages of transformers as well.
    """
    from ..messages import PACKAGE, StandardErrorHandler

    if verbose and is_first_process():
        from transformers.utils.logging import set_verbosity_info

        set_verbosity_info()
    logger = logging.getLogger(PACKAGE)
    level = logging.DEBUG if verbose else logging.INFO
    logger.setLevel(level if is_first_process() else logging.WARNING)
    if not logger.handlers:  # otherwise the caller has chosen where messages go
        logger.addHandler(StandardErrorHandler())


__all__ = ["is_first_process", "log_to_standard_error", "verbose_option"]
