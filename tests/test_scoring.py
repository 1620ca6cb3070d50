"""`score`: log-probabilities of given pairs equal the model's own log-softmax; bad input is reported."""

import gzip
import io
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_command_models import log_as_in_a_new_process
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    preset,
    quantize,
    score,
    train_tokenizer,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.translation.score_files import PairFiles
from hf_vanilla_transformer.worker_processes import workers_are_supported

PAIRS = 7


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as in a new process: another test may have set up logging."""
    log_as_in_a_new_process(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model and pairs in two files."""
    folder = tmp_path_factory.mktemp("score")
    pairs = embedded_corpus("test", PAIRS)["translation"]
    tokenizer = train_tokenizer([text for pair in pairs for text in pair.values()], 340)
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    config = preset("tiny", vocab_size=len(tokenizer), output_bias=True, tie_word_embeddings=False, **sizes)
    model = VanillaTransformerForConditionalGeneration(config)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for language in ("en", "ko"):
        (folder / f"a.{language}").write_text("".join(pair[language] + "\n" for pair in pairs), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any, list[str], list[str]]:
    """The model, its tokenizer, sources and targets."""
    sides = [(folder / f"a.{language}").read_text(encoding="utf-8").splitlines() for language in ("en", "ko")]
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "model").eval()
    return model, AutoTokenizer.from_pretrained(folder / "model"), *sides


def by_hand(model: Any, tokenizer: Any, source: str, target: str) -> list[float]:
    """Return the log-probabilities of the tokens of one target: log-softmax of the logits, one sentence at a time."""
    ids = torch.tensor([tokenizer(source)["input_ids"]])
    labels = tokenizer(text_target=target)["input_ids"]
    assert labels[-1] == tokenizer.eos_token_id
    start = model.config.decoder_start_token_id
    with torch.no_grad():
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[start, *labels[:-1]]])).logits[0]
    return [float(row.log_softmax(-1)[token]) for row, token in zip(logits.double(), labels, strict=True)]


def test_a_score_is_the_sum_of_the_model_s_log_softmax_over_the_target(loaded: tuple) -> None:
    model, tokenizer, sources, targets = loaded
    for found, source, target in zip(
        score(model, tokenizer, sources, targets, batch_size=3), sources, targets, strict=True
    ):
        expected = by_hand(model, tokenizer, source, target)
        assert found.token_log_probs == pytest.approx(expected, abs=1e-4)
        assert found.log_prob == pytest.approx(sum(expected), abs=1e-4)
        assert found.mean_log_prob == pytest.approx(sum(expected) / len(expected), abs=1e-5)
        assert list(found.token_ids) == tokenizer(text_target=target)["input_ids"]


def test_the_loss_is_the_negative_mean(loaded: tuple) -> None:
    model, tokenizer, sources, targets = loaded
    found = score(model, tokenizer, sources[0], targets[0])
    labels = torch.tensor([tokenizer(text_target=targets[0])["input_ids"]])
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([tokenizer(sources[0])["input_ids"]]), labels=labels).loss
    assert -found.mean_log_prob == pytest.approx(float(loss), abs=1e-5)


def test_the_kind_of_the_result_is_that_of_the_arguments_and_iterables_are_read_in_windows(loaded: tuple) -> None:
    model, tokenizer, sources, targets = loaded
    whole = score(model, tokenizer, sources, targets)
    assert isinstance(whole, list)
    taken = []

    def read() -> Any:
        for source in sources:
            taken.append(source)
            yield source

    lazily = score(model, tokenizer, read(), iter(targets), window=2, batch_tokens=1)
    assert not taken
    first = next(lazily)
    assert len(taken) == 2 and first.log_prob == pytest.approx(whole[0].log_prob, abs=1e-4)
    assert [row.token_ids for row in lazily] == [row.token_ids for row in whole[1:]]
    assert score(model, tokenizer, sources[2], targets[2]).log_prob == pytest.approx(whole[2].log_prob, abs=1e-4)
    assert score(model, tokenizer, [], []) == []


def test_pairs_with_an_empty_side_or_too_many_tokens_are_reported_and_not_scored(
    loaded: tuple, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, *_ = loaded
    logger = logging.getLogger("hf_vanilla_transformer.translation.score")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    sources, targets = ["one", "", "two", "three " * 40, "four"], ["하나", "둘", " ", "셋", "넷 " * 40]
    found = score(model, tokenizer, sources, targets, max_source_tokens=30, max_target_tokens=30)
    assert [math.isfinite(row.log_prob) for row in found] == [True, False, False, False, False]
    assert found[1].log_prob == found[1].mean_log_prob == -math.inf and found[1].token_log_probs == ()
    assert "2 pair(s) with an empty source or target are not scored and have −inf: line 2, 3" in caplog.text
    assert "2 pair(s) of more than 30 source or 30 target tokens are not scored and have −inf: line 4, 5" in caplog.text


def test_bad_arguments_are_errors(loaded: tuple) -> None:
    model, tokenizer, sources, targets = loaded
    for some, others, message in (
        (sources, targets[:-1], "there are only 6 targets and more sources"),
        (sources[:-2], targets, "there are only 5 sources and more targets"),
        ("one", ["하나"], "two strings, or two lists"),
        (["one", 2], ["하나", "둘"], "line 2 is of type int"),
    ):
        with pytest.raises(ValueError, match=message):
            score(model, tokenizer, some, others)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window=0"):
        score(model, tokenizer, sources, targets, window=0)
    with pytest.raises(ValueError, match="can only translate"):
        score(object(), tokenizer, sources, targets)


def test_an_int8_model_scores_nearly_the_same(loaded: tuple) -> None:
    model, tokenizer, sources, targets = loaded
    for found, expected in zip(
        score(quantize(model), tokenizer, sources, targets), score(model, tokenizer, sources, targets), strict=True
    ):
        assert found.mean_log_prob == pytest.approx(expected.mean_log_prob, abs=0.1)


@pytest.mark.skipif(not workers_are_supported(), reason="worker processes need Linux")
def test_worker_processes_give_the_same_scores(loaded: tuple) -> None:
    model, tokenizer, sources, targets = loaded
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker process; with several, sums differ in their last bit
    try:
        one = score(model, tokenizer, sources, targets, batch_size=2)
    finally:
        torch.set_num_threads(threads)
    assert score(model, tokenizer, sources, targets, batch_size=2, workers=2) == one


# --------------------------------------------------------------------------- the command


def run(folder: Path, *words: object) -> int:
    return main(["score", str(folder / "model"), *map(str, words)])


def test_scores_of_files_are_written_in_order_in_every_format(folder: Path, tmp_path: Path, loaded: tuple) -> None:
    model, tokenizer, sources, targets = loaded
    expected = score(model, tokenizer, sources, targets)
    (tmp_path / "a.en.gz").write_bytes(gzip.compress((folder / "a.en").read_bytes()))
    files = [tmp_path / "a.en.gz", folder / "a.ko"]

    def output(name: str, *more: object) -> list[str]:
        assert run(folder, *files, "--output", tmp_path / name, "--workers", 1, *more) == 0
        data = (tmp_path / name).read_bytes()
        return (gzip.decompress(data) if name.endswith(".gz") else data).decode().splitlines()

    def numbers(cells: list[str]) -> list[float]:
        return [float(cell) for cell in cells]

    log_probs = [row.log_prob for row in expected]
    assert numbers(output("text")) == pytest.approx(log_probs, abs=1e-3)
    assert numbers(output("text.gz")) == pytest.approx(log_probs, abs=1e-3)
    assert numbers(output("mean", "--normalize")) == pytest.approx([row.mean_log_prob for row in expected], abs=1e-4)
    rows = [line.split("\t") for line in output("tsv", "--format", "tsv", "--per-token")]
    assert [row[:2] for row in rows] == [list(pair) for pair in zip(sources, targets, strict=True)]
    assert numbers([row[2] for row in rows]) == pytest.approx(log_probs, abs=1e-3)
    for row, found in zip(rows, expected, strict=True):
        assert numbers(row[3].split(" ")) == pytest.approx(list(found.token_log_probs), abs=1e-3)
    objects = [json.loads(line) for line in output("jsonl", "--format", "jsonl", "--per-token", "--normalize")]
    for row, found, source in zip(objects, expected, sources, strict=True):
        assert row["source"] == source and row["num_tokens"] == len(row["tokens"]) == len(found.token_ids)
        assert row["score"] == pytest.approx(sum(row["token_log_probs"]) / row["num_tokens"], abs=1e-4)
        assert row["tokens"] == tokenizer.convert_ids_to_tokens(list(found.token_ids))


def test_pairs_of_one_file_or_a_pipe_are_separated_by_a_tab(
    folder: Path, tmp_path: Path, loaded: tuple, capsysbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, sources, targets = loaded
    rows = "".join(f"{source}\t{target}\tmore\n" for source, target in zip(sources, targets, strict=True)).encode()
    assert run(folder, folder / "a.en", folder / "a.ko") == 0
    expected = capsysbinary.readouterr().out
    (tmp_path / "pairs.tsv").write_bytes(rows)
    assert run(folder, tmp_path / "pairs.tsv") == 0
    assert capsysbinary.readouterr().out == expected
    monkeypatch.setattr("hf_vanilla_transformer.translation.line_sources.standard_input", lambda: io.BytesIO(rows))
    assert run(folder, "-") == 0
    assert capsysbinary.readouterr().out == expected


def test_warnings_and_infinities_are_in_the_output_of_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s").write_bytes(b"one\n\ngr\xfcn\n")
    (tmp_path / "t").write_text("하나\n둘\n셋\n", encoding="utf-8")
    assert run(folder, tmp_path / "s", tmp_path / "t", "--output", tmp_path / "out") == 0
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines[1] == "-inf" and all(float(line) < 0 for line in lines)
    warnings = capsys.readouterr().err.splitlines()
    assert any("1 pair(s) with an empty source or target" in line for line in warnings)
    assert any(f"1 line(s) are not UTF-8, the first is {tmp_path / 's'}:3" in line for line in warnings)
    assert all(line.startswith("vanilla-transformer score: warning: ") for line in warnings)
    assert run(folder, tmp_path / "s", tmp_path / "t", "--output", tmp_path / "out") == 2  # it exists
    assert run(folder, tmp_path / "s", tmp_path / "t", "--output", tmp_path / "out", "--overwrite") == 0
    words = ["--output", tmp_path / "json", "--format", "jsonl", "--max-target-tokens", "1"]
    assert run(folder, tmp_path / "s", tmp_path / "t", *words) == 0
    assert [json.loads(line)["score"] for line in (tmp_path / "json").read_text(encoding="utf-8").splitlines()] == [
        None
    ] * 3
    assert "raise --max-source-tokens or --max-target-tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}/a.en", "{0}/short.ko"], "a.en has 7 lines and {0}/short.ko has 1; line n of both"),
        (["{0}/a.en"], "{0}/a.en:1 has no tab between source and target"),
        (["{0}/no.en", "{0}/a.ko"], "there is no file {0}/no.en"),
        (["{0}", "{0}/a.ko"], "{0} is a directory"),
        (["-", "-"], "only one of the two files can be standard input"),
        (["{0}/a.en", "{0}/a.ko", "--output", "{0}/a.ko"], "would replace the source"),
        (["{0}/a.en", "{0}/a.ko", "--precision", "int8", "--device", "cuda"], "int8 models run on the CPU only"),
        (["{0}/a.en", "{0}/a.ko", "--batch-size", "0"], "0 is not a whole number"),
        (["{0}/a.en", "{0}/a.ko", "more"], "unrecognized arguments: more"),
        ([], "the following arguments are required: SOURCE"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "short.ko").write_text("하나\n", encoding="utf-8")
    assert run(folder, *[word.format(folder) for word in words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vanilla-transformer score: error: ") and message.format(folder) in error, error


def test_processes_of_a_launch_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(folder, folder / "a.en", folder / "a.ko") == 2
    assert "score runs in one process, but 2 were started" in capsys.readouterr().err


def test_files_of_different_lengths_are_noticed_in_pipes_too(folder: Path, loaded: tuple) -> None:
    model, tokenizer, *_ = loaded
    pairs = PairFiles("-", str(folder / "a.ko"), io.BytesIO(b"one\ntwo\n"))
    assert pairs.pairs is None
    with pytest.raises(ValueError, match="there are only 2 sources and more targets"):
        list(score(model, tokenizer, pairs.sources(), pairs.targets()))
