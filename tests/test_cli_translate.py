"""`vanilla-transformer translate` as a tool: files, formats, a terminal, pipes, exported models."""

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_command_models import log_as_in_a_new_process, save_wordy_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    embedded_corpus,
    export_checkpoint,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.translation.line_sources import PIPE_WAIT, LineSource, count_all_lines, suggested_wait
from hf_vanilla_transformer.translation.output_formats import Progress, clock_time
from hf_vanilla_transformer.worker_processes import workers_are_supported

TEXTS = ["three million and five", "", "two hundred", "   ", "nine o'clock a.m.", "the fifth of May"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes, terminals and signals of POSIX")


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as in a new process: another test may have set up logging."""
    log_as_in_a_new_process(monkeypatch)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translate") / "checkpoint"
    rows = embedded_corpus("train", 200)["translation"]
    tokenizer = train_tokenizer((text for row in rows for text in row.values()), 400)
    save_wordy_model(folder, tokenizer)
    return folder


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.en"
    path.write_text("".join(text + "\n" for text in TEXTS), encoding="utf-8")
    return path


def expected(checkpoint: Path, texts: list[str] = TEXTS, **settings: object) -> list:
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return translate(model, tokenizer, texts, BeamSearchConfig(**settings), return_scores=True)


def texts_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


# --------------------------------------------------------------------------- files


def test_files_in_any_form_give_one_line_per_line_in_one_output(checkpoint: Path, tmp_path: Path, lines: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(lines.read_bytes()))
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + lines.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "c.txt").write_text("\n".join(TEXTS), encoding="utf-16")  # no line end after the last line
    output = tmp_path / "new" / "out.ko"
    words = ["translate", checkpoint, lines, tmp_path / "a.gz", "--output", output, tmp_path / "b.txt"]
    assert main([*map(str, words), str(tmp_path / "c.txt")]) == 0
    found = [one_line(translation.text) for translation in expected(checkpoint)]
    assert any(found) and found[1] == found[3] == ""
    assert texts_of(output) == found * 4


def test_a_compressed_output_has_the_same_text(checkpoint: Path, tmp_path: Path, lines: Path) -> None:
    for name in ("out.txt", "out.txt.gz"):
        assert main(["translate", str(checkpoint), str(lines), "--output", str(tmp_path / name)]) == 0
    compressed = (tmp_path / "out.txt.gz").read_bytes()
    assert gzip.decompress(compressed) == (tmp_path / "out.txt").read_bytes()
    words = ["translate", str(checkpoint), str(lines), "--output", str(tmp_path / "out.txt.gz")]
    assert main(words) == 2  # it exists
    assert main([*words, "--overwrite"]) == 0 and (tmp_path / "out.txt.gz").read_bytes() == compressed


def test_an_output_never_replaces_an_input_and_appears_only_when_it_is_complete(
    checkpoint: Path, tmp_path: Path, lines: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lines.read_bytes()
    for output, message in ((lines, "would replace the source"), (checkpoint, "would replace the source")):
        assert main(["translate", str(checkpoint), str(lines), "--output", str(output), "--overwrite"]) == 2
        assert message in capsys.readouterr().err
    assert lines.read_bytes() == before

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_vanilla_transformer.translation.translator.paper_beam_search", fail)
    assert main(["translate", str(checkpoint), str(lines), "--output", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "vanilla-transformer translate: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["lines.en"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}/no.en"], "there is no file {0}/no.en; {0} contains broken.gz, lines.en, wide"),
        (["{0}"], "{0} is a folder without config.json; name text files, or the directory of a model"),
        (["{0}/broken.gz"], "has the suffix .gz but isn't compressed with gzip"),
        (["{0}/wide"], "looks like UTF-16"),
        (["{0}/lines.en", "--n-best", "5"], "--n-best 5 is more than --num-beams 4 can find"),
        (["{0}/lines.en", "--device", "gpu"], "--device gpu is not the name of a device; available are: 'cpu'"),
        (["{0}/lines.en", "--device", "meta"], "--device meta holds no numbers"),
        (["{0}/lines.en", "--precision", "int8", "--device", "cuda"], "int8 models run on the CPU only, not on cuda"),
        (["{0}/lines.en", "--engine", "onnx"], "is a checkpoint, not an export for onnx; leave --engine onnx out"),
        (["{0}/lines.en", "--colour", "red"], "unrecognized arguments: --colour red"),
        (["{0}/lines.en", "--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_bad_input_is_one_sentence_before_the_model_is_loaded(
    words: list[str],
    message: str,
    checkpoint: Path,
    lines: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("hf_vanilla_transformer.translation.engines.load_checkpoint", load)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    (lines.parent / "broken.gz").write_bytes(b"plain text")
    (lines.parent / "wide").write_bytes("one two\n".encode("utf-16-le"))
    assert main(["translate", str(checkpoint), *[word.format(lines.parent) for word in words]]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("vanilla-transformer translate: error: ") and message.format(lines.parent) in error


def test_warnings_name_the_file_and_line_and_the_option(
    checkpoint: Path, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latin = lines.parent / "latin"
    latin.write_bytes(b"one\ngr\xfcn\nz\xf6lf\n")
    words = ["translate", str(checkpoint), str(lines), str(latin), "--max-source-tokens", "5", "--num-beams", "1"]
    assert main([*words, "--output", str(lines.parent / "out")]) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert all(line.startswith("vanilla-transformer translate: warning: ") for line in warnings)
    assert any(f"2 line(s) are not UTF-8, the first is {latin}:2" in line for line in warnings)
    assert any("tokens have empty translations" in line and "raise --max-source-tokens" in line for line in warnings)
    assert len(texts_of(lines.parent / "out")) == len(TEXTS) + 3


# --------------------------------------------------------------------------- formats


def test_formats_contain_the_same_translations(checkpoint: Path, lines: Path, tmp_path: Path) -> None:
    lines.write_text("".join(text + "\n" for text in [*TEXTS, "a\tb"]), encoding="utf-8")
    sources = [*TEXTS, "a\tb"]
    best = expected(checkpoint, sources, num_beams=3, num_return_sequences=2)
    words = ["translate", checkpoint, lines, "--num-beams", 3, "--n-best", 2]

    def output(name: str, *more: str) -> list[str]:
        assert main([*map(str, words), "--output", str(tmp_path / name), *more]) == 0
        return texts_of(tmp_path / name)

    pairs = [
        (source, hypothesis) for source, hypotheses in zip(sources, best, strict=True) for hypothesis in hypotheses
    ]
    assert output("text") == [one_line(found.text) for _, found in pairs]
    cells = [
        (source.replace("\t", " "), one_line(found.text).replace("\t", " "), found.score) for source, found in pairs
    ]
    assert output("text-scores", "--scores") == [f"{text}\t{score:.4f}" for _, text, score in cells]
    assert output("tsv", "--format", "tsv") == [f"{source}\t{text}" for source, text, _ in cells]
    scored = output("tsv-scores", "--format", "tsv", "--scores")
    assert scored == [f"{source}\t{text}\t{score:.4f}" for source, text, score in cells]
    objects = [json.loads(line) for line in output("jsonl", "--format", "jsonl")]
    assert [found["source"] for found in objects] == sources
    for found, hypotheses in zip(objects, best, strict=True):
        assert [row["text"] for row in found["translations"]] == [hypothesis.text for hypothesis in hypotheses]
        scores = [row["score"] for row in found["translations"]]
        assert scores == pytest.approx([hypothesis.score for hypothesis in hypotheses], abs=1e-6)


# --------------------------------------------------------------------------- pipes and terminals


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_lines_per_second_and_the_time_left_on_a_terminal_only(
    checkpoint: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["translate", str(checkpoint), str(lines), "--batch-size", "1", "--overwrite"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert "lines/s" not in capsys.readouterr().err
    monkeypatch.setattr("hf_vanilla_transformer.translation.output_formats._INTERVAL", 0.0)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    shown = terminal.getvalue().split("\r")
    assert any(re.fullmatch(r"1 of 6 lines, [\d.,]+ lines/s, \d+:\d\d left *", text) for text in shown)
    assert re.fullmatch(r"6 lines in \d+:\d\d, [\d.,]+ lines/s *\n", shown[-1])


def test_progress_counts_lines_that_are_not_translated_and_clears_itself() -> None:
    terminal = Terminal()
    progress = Progress(terminal, total=10)
    progress._shown = float("-inf")
    progress.translated(2)
    for _ in range(5):  # 3 of them are empty
        progress.written()
    progress._shown = float("-inf")
    progress.translated(1)
    assert "\r2 of 10 lines, " in terminal.getvalue() and "\r6 of 10 lines, " in terminal.getvalue()
    progress.clear()
    assert terminal.getvalue().endswith(" \r")
    assert (clock_time(7.4), clock_time(3723)) == ("0:07", "1:02:03")


def test_the_wait_depends_on_the_kind_of_input(tmp_path: Path, lines: Path) -> None:
    with lines.open("rb") as redirected:
        assert suggested_wait(["-"], redirected) is None
    assert suggested_wait([lines], None) is None
    assert count_all_lines([lines, lines]) == 12 and count_all_lines([lines, "-"]) is None
    read, write = os.pipe()
    with open(read, "rb") as pipe, open(write, "wb"):
        assert suggested_wait(["-"], pipe) == suggested_wait([lines, "-"], pipe) == PIPE_WAIT


@posix
def test_a_fast_pipe_fills_large_batches_and_a_slow_one_does_not_wait_for_them() -> None:
    read, write = os.pipe()
    with open(read, "rb") as pipe, open(write, "wb") as writer:
        source = LineSource(["-"], pipe, wait=0.5)
        writer.write(b"line\n" * 3000)
        writer.flush()
        assert [len(source.take(1024)) for _ in range(2)] == [1024, 1024]
        started = time.monotonic()
        assert len(source.take(1024)) == 952  # after 0.5 s although the pipe is open
        assert time.monotonic() - started < 5
        writer.write(b"last")
        writer.close()
        assert source.take(1024) == ["last"] and source.take(1024) == source.take(1024) == []


@posix
def test_an_error_in_a_pipe_follows_the_lines_before_it() -> None:
    class Broken(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            return b"one\n"

        def __next__(self) -> bytes:
            raise ValueError("broken")

    source = LineSource(["-"], Broken(), wait=0.2)
    assert source.take(10) == ["one"]
    with pytest.raises(ValueError, match="broken"):
        source.take(10)


def start(checkpoint: Path, *words: str, stdin: int = subprocess.PIPE, new_group: bool = False) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "hf_vanilla_transformer", "translate", str(checkpoint), "--num-beams", "1", *words],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=new_group,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the background jobs of a shell ignore it
    )


@posix
@pytest.mark.parametrize("words", [[], ["--interactive", "--batch-size", "1"]])
def test_a_slow_pipe_is_answered_line_by_line_and_an_interrupt_ends_it_quietly(
    checkpoint: Path, words: list[str]
) -> None:
    process = start(checkpoint, *words)
    assert process.stdin is not None and process.stdout is not None
    found = [one_line(translation.text) for translation in expected(checkpoint, num_beams=1)]
    for text, translation in zip(TEXTS, found, strict=True):
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline().decode() == translation + "\n"  # the input has not ended
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.decode().splitlines()[-1:] == ["vanilla-transformer translate: interrupted"]
    assert b"Traceback" not in error and b"Fatal" not in error


@posix
def test_a_terminal_is_answered_line_by_line(checkpoint: Path) -> None:
    import pty
    import termios

    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    process = start(checkpoint, stdin=slave)
    os.close(slave)
    assert process.stdout is not None and process.stderr is not None
    assert process.stderr.readline() == b"type one line per translation; end with Ctrl-D\n"
    for text, translation in zip(TEXTS, expected(checkpoint, num_beams=1), strict=True):
        os.write(master, text.encode() + b"\n")
        assert process.stdout.readline().decode() == one_line(translation.text) + "\n"
    os.write(master, b"\x04")  # Ctrl-D
    output, error = process.communicate(timeout=60)
    os.close(master)
    assert (process.returncode, output) == (0, b"") and b"Traceback" not in error


@pytest.mark.skipif(not workers_are_supported(), reason="worker processes need Linux")
@pytest.mark.parametrize("from_a_pipe", [False, True])
def test_worker_processes_write_the_lines_of_a_file_or_a_pipe_in_order(
    checkpoint: Path, tmp_path: Path, from_a_pipe: bool
) -> None:
    texts = TEXTS * 8
    file = tmp_path / "many.en"
    file.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    words = ["--workers", "2", "--batch-size", "4", *([] if from_a_pipe else [str(file)])]
    output, errors = start(checkpoint, *words).communicate(file.read_bytes() if from_a_pipe else None, timeout=120)
    found = [one_line(translation.text) for translation in expected(checkpoint, texts, num_beams=1)]
    assert output.decode().split("\n")[:-1] == found and b"Traceback" not in errors


@pytest.mark.skipif(not workers_are_supported(), reason="worker processes need Linux")
def test_ctrl_c_ends_the_command_and_its_workers_quietly(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "many.en"
    file.write_text("".join(text + "\n" for text in TEXTS * 3000), encoding="utf-8")
    process = start(checkpoint, "--workers", "2", "--batch-size", "4", str(file), new_group=True)
    assert process.stdout is not None and process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        errors.decode().splitlines()[-1] == "vanilla-transformer translate: interrupted" and b"Traceback" not in errors
    )
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nothing of the group is left


@posix
def test_a_reader_that_stops_ends_the_command_quietly(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "long").write_text("two hundred\n" * 3000)
    process = start(checkpoint, str(tmp_path / "long"))
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 0)


@posix
def test_standard_output_and_standard_input_are_no_ways_to_replace_an_input(checkpoint: Path, lines: Path) -> None:
    before = lines.read_bytes()
    command = [sys.executable, "-m", "hf_vanilla_transformer", "translate", str(checkpoint)]
    with lines.open("ab") as appended:
        done = subprocess.run([*command, str(lines)], stdout=appended, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and f"standard output is the source {lines}" in done.stderr
    with lines.open("rb") as stdin:
        words = ["--output", str(lines), "--overwrite"]
        done = subprocess.run([*command, *words], stdin=stdin, capture_output=True, text=True)
    assert done.returncode == 2 and "would replace the source" in done.stderr
    assert lines.read_bytes() == before


# --------------------------------------------------------------------------- exported models


@pytest.fixture(scope="module", params=["ctranslate2", "onnx"])
def export(request: pytest.FixtureRequest, checkpoint: Path) -> tuple[str, Path]:
    for name in {"ctranslate2": ["ctranslate2"], "onnx": ["onnx", "onnxruntime", "onnxscript"]}[request.param]:
        pytest.importorskip(name)
    return request.param, export_checkpoint(request.param, checkpoint, checkpoint.parent / request.param)


def test_an_export_is_recognized_and_its_limits_are_the_defaults(
    export: tuple[str, Path], checkpoint: Path, lines: Path, tmp_path: Path
) -> None:
    engine, folder = export
    settings = {"length_normalization": "power"} if engine == "ctranslate2" else {"num_beams": 1}
    for words in ([], ["--engine", engine], ["--device", "cpu"]):
        assert (
            main(["translate", str(folder), str(lines), "--output", str(tmp_path / "out"), "--overwrite", *words]) == 0
        )
        found = [one_line(translation.text) for translation in expected(checkpoint, **settings)]
        assert texts_of(tmp_path / "out") == found


def test_what_an_export_cannot_do_is_said_in_options(
    export: tuple[str, Path], lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, folder = export
    cases = [
        (["--precision", "bf16"], "--precision bf16 is for the torch engine"),
        (["--engine", "torch"], f"is an export for {engine}, which --engine torch cannot run; leave it out"),
        (["--coverage-penalty", "0.5"], "--coverage-penalty 0.5 is supported by the torch engine only"),
    ]
    if engine == "onnx":
        cases += [(["--num-beams", "4"], "--num-beams 4 is not supported by the ONNX engine")]
        cases += [(["--n-best", "2"], "--n-best 2 is not possible with an ONNX export")]
    else:
        cases += [(["--length-normalization", "gnmt"], "choose --length-normalization power, which divides by n^α")]
    for words, message in cases:
        assert main(["translate", str(folder), str(lines), *words]) == 2
        assert message in capsys.readouterr().err


def test_evaluate_scores_exports_and_int8(export: tuple[str, Path], checkpoint: Path, lines: Path) -> None:
    engine, folder = export
    output = lines.parent / "scores.json"
    lines.write_text("".join(f"{text or 'one'}\n" for text in TEXTS), encoding="utf-8")
    words = ["--source", str(lines), "--reference", str(lines), "--output", str(output), "--overwrite"]
    assert main(["evaluate", str(folder), *words]) == 0
    record = json.loads(output.read_text(encoding="utf-8"))
    assert (record["engine"], record["precision"], record["device"]) == (engine, "float32", "cpu")
    assert record["scores"]["text"]["sentences"] == len(TEXTS)
    assert record["decoding"]["num_beams"] == (4 if engine == "ctranslate2" else 1)
    assert main(["evaluate", str(checkpoint), *words, "--precision", "int8"]) == 0
    record = json.loads(output.read_text(encoding="utf-8"))
    assert (record["engine"], record["precision"]) == ("torch", "int8")


def test_an_export_of_another_writer_is_rejected_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.bin", "shared_vocabulary.json", "config.json"):
        (tmp_path / name).write_text("{}")
    assert main(["translate", str(tmp_path), "-"]) == 2
    assert "CTranslate2's own converter" in capsys.readouterr().err
    (tmp_path / "export.json").write_text('{"format": "tflite"}')
    assert main(["translate", str(tmp_path), "-"]) == 2
    assert "has the unknown format 'tflite'" in capsys.readouterr().err
