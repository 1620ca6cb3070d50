"""`vanilla-transformer align`, and alignments and minimum Bayes risk decoding of `translate`."""

import json
import shutil
from pathlib import Path

import pytest
from small_command_models import log_as_in_a_new_process, save_wordy_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    MBRConfig,
    align_words,
    alignment_error_rate,
    embedded_corpus,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.alignment.pharaoh import format_alignment
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.data.embedded_alignments import embedded_alignment
from hf_vanilla_transformer.data.embedded_corpus import draw_expressions

TEXTS = ["three million and five", "", "two hundred", "nine o'clock a.m."]


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as in a new process: another test may have set up logging."""
    log_as_in_a_new_process(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("align") / "checkpoint"
    rows = embedded_corpus("train", 200)["translation"]
    tokenizer = train_tokenizer((text for row in rows for text in row.values()), 400)
    save_wordy_model(folder, tokenizer, scale=4.0, attention_scale=8.0, decoder_layers=2)
    return folder


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "checkpoint"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rows = draw_expressions("validation", 40)
    for name, lines in (
        ("en", [row.en for row in rows]),
        ("ko", [row.ko for row in rows]),
        ("gold", [embedded_alignment(row) for row in rows]),
        ("short", ["one"]),
        ("bad", ["0-0"] * 39 + ["0:0"]),
        ("far", ["0-0", "0-99"] + ["0-0"] * 38),
        ("lines", TEXTS),
    ):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def run(*words: object) -> int:
    return main([str(word) for word in words])


def loaded(checkpoint: Path) -> tuple:
    return AutoModelForSeq2SeqLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


# --------------------------------------------------------------------------- align


def test_align_writes_one_alignment_per_pair(checkpoint: Path, files: Path, capfdbinary) -> None:
    words = ["align", checkpoint, "--source", files / "en", "--target", files / "ko"]
    assert run(*words, "--alignment-head", "0.1", "--output", files / "out", "--gold", files / "gold") == 0
    printed = capfdbinary.readouterr()
    found = align_words(*loaded(checkpoint), lines_of(files / "en"), lines_of(files / "ko"), "0.1")
    assert lines_of(files / "out") == [format_alignment(links) for links in found]
    error_rate = alignment_error_rate(found, lines_of(files / "gold"))
    assert printed.out.decode() == f"align: error_rate={error_rate:.4f}\n"
    assert b"Loading weights" not in printed.err


def test_choose_head_stores_the_best_head_that_align_and_translate_then_use(
    checkpoint: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["align", checkpoint, "--source", files / "en", "--target", files / "ko"]
    assert run(*words, "--choose-head", "--gold", files / "gold") == 0
    printed = capsys.readouterr()
    head = printed.out.split("head=")[1].split()[0]
    assert "alignment error rate, 40 pairs:" in printed.err and f"  {head} " in printed.err
    assert json.loads((checkpoint / "generation_config.json").read_text())["alignment_heads"][0][0] == int(head[0])
    model, tokenizer = loaded(checkpoint)
    sources, targets = lines_of(files / "en"), lines_of(files / "ko")
    assert align_words(model, tokenizer, sources, targets) == align_words(model, tokenizer, sources, targets, head)
    assert run(*words, "--choose-head") == 0
    assert "share of the statistical aligner's links missed, 40 pairs:" in capsys.readouterr().err


def test_a_source_tag_is_read_by_the_model_but_is_no_word(checkpoint: Path, files: Path, capfdbinary) -> None:
    words = ["align", checkpoint, "--source", files / "en", "--target", files / "ko", "--alignment-head", "0.1"]
    assert run(*words, "--source-tag", "o", "--output", files / "out") == 0
    sources, targets = lines_of(files / "en"), lines_of(files / "ko")
    found = align_words(*loaded(checkpoint), sources, targets, "0.1", source_tag="o")
    assert lines_of(files / "out") == [format_alignment(links) for links in found]
    assert found != align_words(*loaded(checkpoint), sources, targets, "0.1")
    assert run(*words[:-2], "--source-tag", "o", "--choose-head", "--gold", files / "gold") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "{0}/ko", "--source-tag", "<2xx>"], "--source-tag: '<2xx>' is not a token of the model's"),
        (["--target", "{0}/short"], "{0}/short has 1 lines, and {0}/en has more"),
        (["--target", "{0}/no"], "no"),
        (["--target", "{0}/ko", "--gold", "{0}/bad"], "line 40 of {0}/bad: '0:0' is not a link"),
        (["--target", "{0}/ko", "--gold", "{0}/far"], "line 2 of {0}/far has the link 0-99, but the pair has"),
        (["--target", "{0}/ko", "--gold", "{0}/far", "--choose-head"], "line 2 of {0}/far has the link 0-99"),
        (["--target", "{0}/ko", "--gold", "{0}/short"], "line 1 of {0}/short: 'one' is not a link"),
        (["--target", "{0}/ko", "--alignment-head", "x"], "--alignment-head x is not LAYER.HEAD"),
        (["--target", "{0}/ko", "--alignment-head", "7"], "--alignment-head 7 is not in the model"),
        (["--target", "{0}/ko", "--output", "{0}/ko"], "{0}/ko"),
        (["--target", "{0}/ko", "--output", "{0}/gold"], "{0}/gold already exists"),
        (["--target", "{0}/ko", "--choose-head", "--alignment-head", "0"], "--alignment-head is for alignments"),
        (["--target", "{0}/ko", "--choose-head", "--output", "{0}/x"], "--output is for alignments"),
    ],
)
def test_bad_input_of_align_is_one_sentence(
    words: list[str], message: str, checkpoint: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("align", checkpoint, "--source", files / "en", *(word.format(files) for word in words)) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("vanilla-transformer align: error: ") and message.format(files) in error


def test_a_checkpoint_with_a_manifest_is_not_changed(
    checkpoint: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / "checkpoint_manifest.json").write_text("{}")
    before = (checkpoint / "generation_config.json").read_bytes()
    assert run("align", checkpoint, "--source", files / "en", "--target", files / "ko", "--choose-head") == 2
    assert "hashed in checkpoint_manifest.json" in capsys.readouterr().err
    assert (checkpoint / "generation_config.json").read_bytes() == before


# --------------------------------------------------------------------------- translate --alignments


def test_translate_writes_alignments_in_every_format(checkpoint: Path, files: Path, capfdbinary) -> None:
    found = translate(*loaded(checkpoint), TEXTS, return_scores=True, alignments=True, alignment_head="1.0")
    words = ["translate", checkpoint, files / "lines", "--alignments", "--alignment-head", "1.0"]
    written = [format_alignment(best.alignment or ()) for best in found]
    assert any(written)
    assert run(*words) == 0
    assert capfdbinary.readouterr().out.decode() == "".join(
        f"{best.text}\t{links}\n" for best, links in zip(found, written, strict=True)
    )
    assert run(*words, "--format", "tsv", "--scores") == 0
    assert capfdbinary.readouterr().out.decode() == "".join(
        f"{text}\t{best.text}\t{best.score:.4f}\t{links}\n"
        for text, best, links in zip(TEXTS, found, written, strict=True)
    )
    assert run(*words, "--format", "jsonl") == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.decode().splitlines()]
    assert [row["translations"][0]["alignment"] for row in rows] == written
    assert run(*words[:3]) == 0
    assert capfdbinary.readouterr().out.decode() == "".join(f"{best.text}\n" for best in found)


# --------------------------------------------------------------------------- translate --mbr-*


def test_translate_decodes_by_minimum_bayes_risk(checkpoint: Path, files: Path, capfdbinary) -> None:
    for options, search, mbr in (
        (["--mbr-nbest", 6], BeamSearchConfig(), MBRConfig(num_best=6)),
        (
            ["--mbr-samples", 8, "--epsilon-cutoff", 0.1, "--temperature", 0.9, "--seed", 3, "--max-extra-tokens", 4],
            BeamSearchConfig(max_extra_tokens=4),
            MBRConfig(num_samples=8, epsilon_cutoff=0.1, temperature=0.9, seed=3),
        ),
    ):
        assert run("translate", checkpoint, files / "lines", *options, "--scores") == 0
        found = translate(*loaded(checkpoint), TEXTS, search, mbr=mbr, return_scores=True)
        assert capfdbinary.readouterr().out.decode() == "".join(f"{best.text}\t{best.score:.4f}\n" for best in found)


def test_n_best_of_minimum_bayes_risk_may_exceed_the_beam(checkpoint: Path, files: Path, capfdbinary) -> None:
    assert run("translate", checkpoint, files / "lines", "--mbr-samples", 8, "--n-best", 6, "--format", "jsonl") == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.decode().splitlines()]
    assert [len(row["translations"]) for row in rows] == [6] * len(TEXTS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--alignment-head", "0"], "--alignment-head has no effect without --alignments"),
        (["--alignments", "--alignment-head", "5.0"], "--alignment-head 5.0 is not in the model"),
        (["--mbr-samples", "4", "--mbr-nbest", "4"], "--mbr-samples and --mbr-nbest name two sets of candidates"),
        (["--mbr-nbest", "4", "--top-p", "0.9"], "--top-p is for samples; add --mbr-samples"),
        (["--seed", "1"], "--seed is for samples"),
        (["--mbr-samples", "4", "--num-beams", "8"], "--num-beams is for the beam search, and --mbr-samples has none"),
        (["--mbr-samples", "4", "--top-p", "0"], "--top-p 0 must be more than 0"),
        (["--mbr-samples", "4", "--n-best", "5"], "--n-best 5 is more than the --mbr-samples 4 candidates"),
        (["--mbr-samples", "1"], "1"),
    ],
)
def test_bad_options_of_alignments_and_mbr_are_one_sentence(
    words: list[str], message: str, checkpoint: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("translate", checkpoint, files / "lines", *words) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("vanilla-transformer translate: error: ") and message in error
