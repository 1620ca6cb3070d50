# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Show the package's log messages on standard error, and hide the progress bars of other libraries.

The modules of the package only log through their own loggers. INFO messages are written for the user of a command or of
`train`; details are DEBUG messages.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from tqdm import tqdm

PACKAGE = __name__.partition(".")[0]


class StandardErrorHandler(logging.StreamHandler):
    """Writes each message on lines of its own, above a progress bar if there is one; a warning is always one line.

    Args:
        defer_warnings: pass warnings to the handlers of the root logger, if it has any, instead of writing them.
    """

    def __init__(self, defer_warnings: bool = False) -> None:
        logging.Handler.__init__(self)  # StreamHandler's would store the current stream
        self.defer_warnings = defer_warnings

    @property
    def stream(self) -> Any:
        """Return the current standard error stream; a notebook or a test may replace it."""
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        """Return the message; that of a warning on one line, after the word "warning"."""
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"warning: {' '.join(text.split())}"

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        root = logging.getLogger()
        if self.defer_warnings and record.levelno >= logging.WARNING and root.handlers:
            root.callHandlers(record)
            return
        with tqdm.external_write_mode(file=self.stream):  # removes the bar, and draws it again below the message
            super().emit(record)


@contextmanager
def messages_shown(level: int = logging.INFO) -> Iterator[None]:
    """Show the package's messages on standard error inside the ``with`` block, unless the caller has set up logging.

    Logging counts as set up if the package's logger has a level or a handler, or if a handler of the root logger gets
    INFO messages.

    Args:
        level: lowest level that is shown.
    """
    logger = logging.getLogger(PACKAGE)
    if logger.handlers or logger.level or (logger.isEnabledFor(logging.INFO) and logger.hasHandlers()):
        yield
        return
    handler = StandardErrorHandler(defer_warnings=True)
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False  # a handler of the root logger would write INFO messages a second time
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = propagates


@contextmanager
def other_progress_bars_hidden() -> Iterator[None]:
    """Hide the progress bars of transformers and datasets inside the ``with`` block.

    They stay visible if transformers logs INFO messages.
    """
    from transformers.utils import logging as transformers_logging

    with ExitStack() as stack:
        if transformers_logging.get_verbosity() > transformers_logging.INFO:
            if transformers_logging.is_progress_bar_enabled():
                stack.callback(transformers_logging.enable_progress_bar)
                transformers_logging.disable_progress_bar()
            if "datasets" in sys.modules:
                from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

                if not are_progress_bars_disabled():
                    stack.callback(enable_progress_bars)
                    disable_progress_bars()
        yield


def can_update_in_place(stream: Any) -> bool:
    """Return whether a line of a stream can be overwritten: on a terminal, and in the output of a notebook's cell."""
    if stream.isatty():
        with suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(stream.fileno()).columns > 0  # some containers have a terminal without a size
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


__all__ = ["PACKAGE", "StandardErrorHandler", "can_update_in_place", "messages_shown", "other_progress_bars_hidden"]
