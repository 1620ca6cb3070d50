"""Messages of the package on standard error, and the progress bars of other libraries."""

import logging
from collections.abc import Iterator

import pytest
from datasets.utils import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging as transformers_logging

from hf_vanilla_transformer.messages import (
    PACKAGE,
    StandardErrorHandler,
    can_update_in_place,
    messages_shown,
    other_progress_bars_hidden,
)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The package's logger, as if no command had set it up."""
    logger = logging.getLogger(PACKAGE)
    before = logger.level, logger.handlers[:]
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()
    yield logger
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def test_a_warning_is_one_line_and_an_information_keeps_its_columns(logger, capsys):
    logger.setLevel(logging.INFO)
    logger.addHandler(StandardErrorHandler())
    logger.info("label       text")
    logger.warning("one\n  two")
    logger.debug("a detail")
    assert capsys.readouterr().err == "label       text\nwarning: one two\n"


def test_messages_are_shown_unless_logging_is_set_up(logger, capsys):
    with messages_shown():
        logging.getLogger(f"{PACKAGE}.training.display").info("shown")
    logger.info("not shown")
    assert capsys.readouterr().err == "shown\n"
    logger.setLevel(logging.WARNING)  # the caller's choice
    with messages_shown():
        logger.info("not shown")
        assert not logger.handlers
    assert logger.level == logging.WARNING and capsys.readouterr().err == ""


def test_the_root_logger_s_handlers_get_warnings_once(logger, capsys, caplog):
    with messages_shown():
        logger.info("for standard error")
        logger.warning("for the handlers of the root logger")
    assert capsys.readouterr().err == "for standard error\n"
    assert [record.getMessage() for record in caplog.records] == ["for the handlers of the root logger"]


def test_progress_bars_of_other_libraries_are_hidden_inside_only():
    transformers_logging.enable_progress_bar()
    enable_progress_bars()
    with other_progress_bars_hidden():
        assert not transformers_logging.is_progress_bar_enabled() and are_progress_bars_disabled()
        with other_progress_bars_hidden():
            pass
        assert not transformers_logging.is_progress_bar_enabled() and are_progress_bars_disabled()
    assert transformers_logging.is_progress_bar_enabled() and not are_progress_bars_disabled()


def test_progress_bars_stay_when_transformers_logs_everything():
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_info()
    try:
        with other_progress_bars_hidden():
            assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity(before)


def test_a_file_is_not_updated_in_place(tmp_path):
    with (tmp_path / "log").open("w") as stream:
        assert not can_update_in_place(stream)
