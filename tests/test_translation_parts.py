"""Long files are translated in parts: killed and interrupted commands resume, several processes share the work."""

import gzip
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_command_models import log_as_in_a_new_process, save_wordy_model

from hf_vanilla_transformer import (
    embedded_corpus,
    train_tokenizer,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.launch import Launch
from hf_vanilla_transformer.translation.line_sources import LineSource
from hf_vanilla_transformer.translation.output_formats import Progress
from hf_vanilla_transformer.translation.parts import PartsSource
from hf_vanilla_transformer.translation.parts_directory import open_parts
from hf_vanilla_transformer.translation.texts import ScoredTranslation

LINES = 100
forks = pytest.mark.skipif(sys.platform != "linux", reason="the processes of these tests are forked")


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make parts of 8 lines, wait for other processes briefly, and log as in a new process."""
    monkeypatch.setattr("hf_vanilla_transformer.translation.parts_directory.LINES_PER_PART", 8)
    monkeypatch.setattr("hf_vanilla_transformer.translation.parts_directory._LEAST_LINES_PER_PART", 8)
    monkeypatch.setattr("hf_vanilla_transformer.translation.parts.LINES_PER_PART", 8)
    monkeypatch.setattr("hf_vanilla_transformer.translation.parts._POLL_SECONDS", 0.02)
    monkeypatch.setattr("hf_vanilla_transformer.translation.parts_directory._POLL_SECONDS", 0.02)
    log_as_in_a_new_process(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, a text, and its translation by one process that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("parts")
    rows = embedded_corpus("train", LINES)["translation"]
    tokenizer = train_tokenizer((text for row in rows for text in row.values()), 400)
    save_wordy_model(folder / "model", tokenizer)
    lines = [row["en"] for row in rows]
    lines[3], lines[57] = "", "  "
    (folder / "big.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


def words(folder: Path, output: Path, *more: object, model: str = "model", text: Path | None = None) -> list[str]:
    given = ["translate", folder / model, text or folder / "big.txt", "--output", output, "--num-beams", 1]
    return [str(word) for word in [*given, "--workers", 1, *more]]


def in_one_part(folder: Path, output: Path, *more: object) -> bytes:
    """Return the translation that the command writes without parts, to standard output."""
    parts = "hf_vanilla_transformer.translation.parts.LINES_PER_PART"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, 10**6)
        assert main(words(folder, output, *more)) == 0
    return output.read_bytes()


def start(arguments: list[str], rank: int = 0, processes: int = 1, *, delay: float = 0.0) -> Any:
    """Run the command in a forked process, as a process of a launch if there are several."""

    def run() -> None:
        if processes > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
        torch.set_num_threads(1)
        time.sleep(delay)
        os._exit(main(arguments))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def ended(process: Any) -> int:
    process.join(60)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# --------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--scores",),
        ("--format", "tsv", "--scores"),
        ("--format", "jsonl"),
        ("--n-best", 2, "--num-beams", 2, "--format", "tsv", "--scores"),
    ],
    ids=["text", "text scores", "tsv scores", "jsonl", "n-best"],
)
def test_parts_give_the_output_that_a_translation_without_parts_gives(
    folder: Path, tmp_path: Path, more: tuple
) -> None:
    whole = in_one_part(folder, tmp_path / "whole", *more)
    assert main(words(folder, tmp_path / "out", *more)) == 0
    found = (tmp_path / "out").read_bytes()
    if "--scores" in more or "jsonl" in more:  # batches of other lines: scores differ in the last digits
        assert found.count(b"\n") == whole.count(b"\n")
        cut: Callable[[bytes], list[str]] = lambda data: [  # noqa: E731
            line.rpartition("\t")[0] if "--scores" in more else json.loads(line)["translations"][0]["text"]
            for line in data.decode().splitlines()
        ]
        assert cut(found) == cut(whole)
    else:
        assert found == whole
    assert names(tmp_path) == {"whole", "out"}


def test_compressed_files_are_read_and_written(folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "big.txt.gz"
    text.write_bytes(gzip.compress((folder / "big.txt").read_bytes()))
    assert main(words(folder, tmp_path / "out.gz", text=text)) == 0
    assert main(words(folder, tmp_path / "out")) == 0
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()) == (tmp_path / "out").read_bytes()
    assert names(tmp_path) == {"big.txt.gz", "out", "out.gz"}


def test_only_a_part_of_a_long_input_is_in_memory(folder: Path, tmp_path: Path) -> None:
    lines = 1000
    (tmp_path / "text").write_text("one\n" * lines)
    with open_parts(tmp_path / "out", {}, lambda: lines) as parts:
        source = PartsSource(parts, [tmp_path / "text"], None)
        most = taken = 0
        while texts := source.take(1024):
            most, taken = max(most, len(source.pending)), taken + len(texts)
            for _ in texts:
                source.next_written()
                source.write(b"eins\n")
        parts.join()
    assert taken == lines and most == 8
    assert (tmp_path / "out").read_text() == "eins\n" * lines


# --------------------------------------------------------------------------- killed processes


@pytest.fixture
def fast_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translate lines to upper case, one per 2 ms: these tests are about files and processes."""

    def translate(model: Any, tokenizer: Any, source: PartsSource, *_: Any, **__: Any) -> Iterator[ScoredTranslation]:
        while texts := source.take(5):
            for text in texts:
                time.sleep(0.002)
                yield ScoredTranslation(text.upper(), 0.0)

    monkeypatch.setattr("hf_vanilla_transformer.translation.stream.translate", translate)
    monkeypatch.setattr("hf_vanilla_transformer.translation.engines.load_translator", lambda *_: (None, None))


def kill_at_ten_random_moments(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill one process, or one of two, and compare the completed output with that of a process that was not killed."""
    monkeypatch.setattr(
        "hf_vanilla_transformer.translation.parts_directory._START_SECONDS", 2.0
    )  # a killed process never starts
    whole = tmp_path / "whole"
    began = time.monotonic()
    assert ended(start(words(folder, whole))) == 0
    seconds = time.monotonic() - began
    chance, interrupted = random.Random(0), 0
    for attempt in range(10):
        output = tmp_path / f"out{attempt}"
        processes = [start(words(folder, output), rank, 1 + attempt % 2) for rank in range(1 + attempt % 2)]
        time.sleep(chance.uniform(0.1, 0.9) * seconds)
        assert not output.exists() or output.read_bytes() == whole.read_bytes()
        os.kill(processes[-1].pid, signal.SIGKILL)
        if ended(processes[-1]) == -signal.SIGKILL:
            interrupted += 1
        else:
            seconds /= 2  # it had ended: the run that was timed may have been slowed down by another program
        if len(processes) == 2:
            assert ended(processes[0]) == 0  # the other one completes the output
        elif not output.exists() or (tmp_path / f"out{attempt}.parts").exists():
            assert ended(start(words(folder, output))) == 0
        assert output.read_bytes() == whole.read_bytes()
        assert not (tmp_path / f"out{attempt}.parts").exists()
    assert interrupted >= 5


@forks
def test_output_is_identical_after_a_kill_at_ten_random_moments(
    folder: Path, tmp_path: Path, fast_translation: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at_ten_random_moments(folder, tmp_path, monkeypatch)


@forks
@pytest.mark.slow
def test_output_of_a_model_is_identical_after_a_kill_at_ten_random_moments(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at_ten_random_moments(folder, tmp_path, monkeypatch)


@forks
def test_a_process_that_was_killed_while_joining_leaves_a_complete_output_or_none(
    folder: Path,
    tmp_path: Path,
    fast_translation: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(folder, tmp_path / "whole")) == 0
    whole = (tmp_path / "whole").read_bytes()
    for function in ("shutil.copyfileobj", "os.replace", "hf_vanilla_transformer.translation.parts_directory._remove"):

        def kill(*given: Any) -> None:
            if function != "os.replace" or str(given[1]) == str(tmp_path / "out"):  # noqa: B023
                os.kill(os.getpid(), signal.SIGKILL)
            os.rename(*given)

        with monkeypatch.context() as patch:
            patch.setattr(function, kill)
            assert ended(start(words(folder, tmp_path / "out"))) == -signal.SIGKILL
        complete = function.endswith("_remove")
        assert (tmp_path / "out").exists() == complete and (tmp_path / "out.parts").exists()
        assert main(words(folder, tmp_path / "out")) == 0  # also without --overwrite
        assert (tmp_path / "out").read_bytes() == whole and names(tmp_path) == {"whole", "out"}
        assert main(words(folder, tmp_path / "out")) == 2  # now it is an ordinary file
        (tmp_path / "out").unlink()
    capsys.readouterr()


def test_a_process_that_waited_for_a_killed_one_to_join_finds_the_output_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_parts(tmp_path / "out", {}, lambda: 16) as parts:
        for part in range(2):
            assert parts.claim(part)
            parts.write(part, b"one\n" * 8)

        def interrupted(path: Path) -> None:
            (path / "00000000.part").unlink()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("hf_vanilla_transformer.translation.parts_directory._remove", interrupted)
            with pytest.raises(KeyboardInterrupt):
                parts.join()
        parts.join()
    assert (tmp_path / "out").read_text() == "one\n" * 16 and names(tmp_path) == {"out"}


def test_no_part_can_be_claimed_while_another_process_removes_the_joined_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_parts(tmp_path / "out", {}, lambda: 16) as parts:
        for part in range(2):
            assert parts.claim(part)
            parts.write(part, b"one\n" * 8)
        with monkeypatch.context() as patch:
            patch.setattr(
                "hf_vanilla_transformer.translation.parts_directory._remove",
                lambda path: (path / "00000001.part").unlink(),
            )
            parts.join()
        assert not parts.claim(1)
        parts.join()
    assert names(tmp_path) == {"out"}


@forks
def test_processes_share_the_lines_and_one_that_starts_late_finds_nothing_left(
    folder: Path, tmp_path: Path, fast_translation: None
) -> None:
    assert main(words(folder, tmp_path / "whole")) == 0
    for overwrite in ((), ("--overwrite",)):
        arguments = words(folder, tmp_path / "out", *overwrite)
        processes = [start(arguments, rank, 3, delay=rank * 0.7) for rank in range(3)]
        assert [ended(process) for process in processes] == [0, 0, 0]
        assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
        assert names(tmp_path) == {"whole", "out"}


@forks
def test_a_second_command_helps_the_first_one(folder: Path, tmp_path: Path, fast_translation: None) -> None:
    assert main(words(folder, tmp_path / "whole")) == 0
    processes = [start(words(folder, tmp_path / "out", "--overwrite")) for _ in range(2)]
    assert [ended(process) for process in processes] == [0, 0]
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


# --------------------------------------------------------------------------- resuming


def interrupt_after(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    """Raise KeyboardInterrupt when a number of lines is written."""
    written, write = [0], PartsSource.write

    def interrupted(self: PartsSource, data: bytes) -> int:
        written[0] += 1
        if written[0] > lines:
            raise KeyboardInterrupt
        return write(self, data)

    monkeypatch.setattr(PartsSource, "write", interrupted)


def test_an_interrupted_command_keeps_its_parts_and_resumes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = in_one_part(folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 20)
        assert main(words(folder, tmp_path / "out")) == 130
    error = capsys.readouterr().err
    assert f"16 of {LINES} lines are complete and kept in {tmp_path / 'out.parts'}; run the same command again" in error
    assert names(tmp_path) == {"whole", "out.parts"}
    # Options that don't change translations may differ, and the files may have other names.
    shutil.copytree(folder / "model", tmp_path / "moved")
    shutil.copy(folder / "big.txt", tmp_path / "text")
    options = ["--batch-size", 5, "--max-source-tokens", 1024]  # the latter is the default
    arguments = words(tmp_path, tmp_path / "out", *options, model="moved", text=tmp_path / "text")
    assert main(arguments) == 0
    assert f"resuming: 16 of {LINES} lines are complete" in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == whole and not (tmp_path / "out.parts").exists()


def test_a_change_of_text_model_or_settings_is_noticed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    text, output = tmp_path / "text", tmp_path / "out"
    lines = (folder / "big.txt").read_text(encoding="utf-8")
    text.write_text(lines, encoding="utf-8")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 20)
        assert main(words(tmp_path, output, text=text)) == 130
    before = {path: path.read_bytes() for path in (tmp_path / "out.parts").iterdir()}

    def refused(*more: object) -> str:
        capsys.readouterr()
        assert main(words(tmp_path, output, *more, text=text)) == 2
        assert {path: path.read_bytes() for path in (tmp_path / "out.parts").iterdir()} == before
        (message,) = capsys.readouterr().err.splitlines()
        return message

    assert "it has --num-beams 1, now --num-beams 2. Repeat the earlier command" in refused("--num-beams", 2)
    assert "it has no scores, now scores" in refused("--scores")
    assert "it has --format text, now --format jsonl" in refused("--format", "jsonl")
    text.write_text(lines.replace("o", "u"), encoding="utf-8")
    assert "the text has changed" in refused()
    text.write_text(lines, encoding="utf-8")
    weights = tmp_path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert "the model has changed" in refused()
    assert main(words(tmp_path, output, "--scores", "--overwrite", text=text)) == 0  # starts again
    assert output.read_text(encoding="utf-8").count("\t") == LINES


def test_an_interrupt_before_the_first_part_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_after(monkeypatch, 3)
    assert main(words(folder, tmp_path / "out")) == 130
    assert names(tmp_path) == set() and capsys.readouterr().err.endswith("translate: interrupted\n")


def test_a_directory_of_other_files_is_not_touched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.parts").mkdir()
    (tmp_path / "out.parts" / "thesis.tex").write_text("years of work")
    for more in ((), ("--overwrite",)):
        assert main(words(folder, tmp_path / "out", *more)) == 2
        assert "contains other files (thesis.tex)" in capsys.readouterr().err
    assert (tmp_path / "out.parts" / "thesis.tex").read_text() == "years of work"
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------- several processes


@pytest.mark.parametrize("given", ["pipe", "no output", "interactive"])
def test_processes_of_a_launch_need_files_and_an_output(
    folder: Path, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    arguments = {
        "pipe": ["translate", str(folder / "model"), "--output", str(tmp_path / "out")],
        "no output": ["translate", str(folder / "model"), str(folder / "big.txt")],
        "interactive": words(folder, tmp_path / "out", "--interactive"),
    }[given]
    assert main(arguments) == 2
    assert "2 processes can share only files, and write only to a file" in capsys.readouterr().err


def test_line_numbers_of_warnings_are_those_of_the_input(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [b"one"] * 40
    lines[21], lines[33] = b"gr\xfcn", b"one two three four five six seven eight nine ten eleven"
    (tmp_path / "a").write_bytes(b"one\n" * 10)
    (tmp_path / "b").write_bytes(b"\n".join(lines) + b"\n")
    with open_parts(tmp_path / "out", {}, lambda: 50) as parts:
        for part in range(3):  # another process has translated them
            assert parts.claim(part)
            parts.write(part, b"one\n" * 8)
        source = PartsSource(parts, [tmp_path / "a", tmp_path / "b"])
        numbers = []
        while texts := source.take(5):
            assert source.lines_before is not None
            for text, number in zip(texts, range(source.lines_before + 1, 100), strict=False):
                assert source.next_written() == (text, number)
                numbers.append(number)
                source.write(text.encode() + b"\n")
        assert numbers == list(range(25, 51))
        assert source.decoder.first_invalid == f"{tmp_path / 'b'}:22"
        parts.join()
    assert main(["translate", str(folder / "model"), str(tmp_path / "b"), "--output", str(tmp_path / "b.out"),
                 "--max-source-tokens", "12", "--num-beams", "1"]) == 0  # fmt: skip
    error = capsys.readouterr().err
    assert "12 tokens have empty translations: line 34;" in error and "b:22" in error


def test_progress_counts_the_lines_of_all_processes_but_its_rate_only_those_since_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    now = [0.0]
    monkeypatch.setattr("hf_vanilla_transformer.translation.output_formats.time.monotonic", lambda: now[0])
    progress = Progress(terminal := io.StringIO(), 100)
    progress.start()
    now[0] = 2.0
    progress.translated(10)
    progress.elsewhere(50, 40)
    now[0] = 4.0
    progress.translated(10)
    assert terminal.getvalue().split("\r")[-1].strip() == "70 of 100 lines, 7.5 lines/s, 0:04 left"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launch()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Launch(3, 4, 1)),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
            Launch(1, 2, 1),
        ),
        ({"RANK": "-1", "WORLD_SIZE": "1"}, Launch()),
        ({"RANK": "5", "WORLD_SIZE": "2"}, Launch()),
        ({"RANK": "x", "WORLD_SIZE": ""}, Launch()),
    ],
)
def test_the_place_of_a_process_is_read_from_the_environment(
    environment: dict[str, str], expected: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_vanilla_transformer.launch import current_launch

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert current_launch() == expected


@pytest.mark.slow
def test_accelerate_launch_translates_with_two_processes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text((folder / "big.txt").read_text(encoding="utf-8") * 3, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "hf_vanilla_transformer"]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [*command, *words(folder, tmp_path / "out", text=tmp_path / "text")],
        env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert main(words(folder, tmp_path / "whole", text=tmp_path / "text")) == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert names(tmp_path) == {"text", "out", "whole"}


def test_a_source_of_lines_numbers_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a\nb\n")
    source = LineSource([tmp_path / "text"], None)
    assert source.take(5) == ["a", "b"]
    assert [source.next_written(), source.next_written()] == [("a", 1), ("b", 2)]
