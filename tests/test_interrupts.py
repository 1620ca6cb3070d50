"""Ctrl-C ends a command with one line and status 130, during imports too; SIGTERM ends it without a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLOW_TORCH = "import sys, time\nprint('importing', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
SWALLOWING = "import time\ntry:\n    print('ready', flush=True)\n    time.sleep(60)\nexcept BaseException:\n    pass\n"


def started(words: list[str], path: Path, ready: bytes) -> subprocess.Popen[bytes]:
    """Start Python with a folder at the front of its path, and wait for a line."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), root])}
    process = subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        cwd=path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        if stream is process.stdout and ready == b"importing\n":
            continue
        assert stream.readline() == ready
        break
    return process


@pytest.mark.parametrize(
    ("number", "status", "error"),
    [
        (signal.SIGINT, 130, b"vanilla-transformer train: interrupted\n"),
        (signal.SIGTERM, -signal.SIGTERM, b""),  # the default: the shell reports it
    ],
)
def test_a_signal_while_torch_is_imported_shows_no_traceback(
    tmp_path: Path, number: int, status: int, error: bytes
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(SLOW_TORCH)
    process = started(["-m", "hf_vanilla_transformer", "train", "tiny"], tmp_path, b"importing\n")
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == error
    assert process.returncode == status


def test_an_import_that_catches_the_interrupt_does_not_swallow_it(tmp_path: Path) -> None:
    (tmp_path / "swallowing.py").write_text(SWALLOWING)
    program = (
        "from hf_vanilla_transformer.commands.interrupts import one_line_interrupts\n"
        "with one_line_interrupts('program'):\n    import swallowing\n"
    )
    process = started(["-c", program], tmp_path, b"ready\n")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"program: interrupted\n")
    assert process.returncode == 130


def test_the_first_interrupt_cleans_up_and_a_second_one_ends_the_process(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from hf_vanilla_transformer.commands.interrupts import one_line_interrupts\n"
        "with one_line_interrupts('program'):\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaning up', flush=True)\n"
        "        time.sleep(60)\n"
    )
    process = started(["-c", program], tmp_path, b"ready\n")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == b"cleaning up\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"program: interrupted\n")
    assert process.returncode == 130


def test_an_interrupt_at_the_end_of_an_interrupted_program_shows_no_traceback(tmp_path: Path) -> None:
    program = (
        "import atexit, time\n"
        "from hf_vanilla_transformer.commands.interrupts import one_line_interrupts\n"
        "atexit.register(lambda: (print('ending', flush=True), time.sleep(60)))\n"
        "try:\n"
        "    with one_line_interrupts('program'), one_line_interrupts('program'):\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    process = started(["-c", program], tmp_path, b"ready\n")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == b"ending\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == -signal.SIGINT


def test_a_finished_command_restores_the_handler() -> None:
    from hf_vanilla_transformer.commands.interrupts import one_line_interrupts

    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores the signal
    try:
        with one_line_interrupts("program"):
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)
