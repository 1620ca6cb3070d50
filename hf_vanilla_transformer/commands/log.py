# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Set up logging of the package to standard error (not a command)."""

import logging
import sys
from typing import Any

_PACKAGE = __package__.partition(".")[0]


def log_to_standard_error(first_process: bool) -> None:
    """Write log messages of the package and of transformers to standard error.

    Args:
        first_process: whether this is the first of several processes; the others write warnings only.
    """
    from transformers.utils.logging import set_verbosity

    level = logging.INFO if first_process else logging.WARNING
    set_verbosity(level)
    logger = logging.getLogger(_PACKAGE)
    logger.setLevel(level)
    if not logger.handlers:  # otherwise the caller has chosen where messages go
        handler = _StandardErrorHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


class _StandardErrorHandler(logging.StreamHandler):
    """Writes to the `sys.stderr` of the moment; a notebook or a test may replace it after this handler is created."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler's would store the current stream

    @property
    def stream(self) -> Any:
        """Return the current standard error stream."""
        return sys.stderr


__all__ = ["log_to_standard_error"]
