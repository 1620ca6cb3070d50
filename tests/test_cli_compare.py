"""`vanilla-transformer evaluate` with several systems and test sets: its table, its test and its record."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from sacrebleu.significance import PairedTest
from small_command_models import log_as_in_a_new_process, save_wordy_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    embedded_corpus,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.metrics import paired_bootstrap

LINES = {"a": 6, "b": 9}


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as in a new process: another test may have set up logging."""
    log_as_in_a_new_process(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random models, two test sets with labels, the references as the output of a system, and a worse one."""
    folder = tmp_path_factory.mktemp("compare")
    pairs = embedded_corpus("test", sum(LINES.values()))["translation"]
    tokenizer = train_tokenizer([text for pair in pairs for text in pair.values()], 340)
    for seed, name in enumerate(("first", "second")):
        save_wordy_model(folder / name, tokenizer, seed=seed)
    start = 0
    for name, lines in LINES.items():
        own = pairs[start : start + lines]
        start += lines
        for language in ("en", "ko"):
            (folder / f"{name}.{language}").write_text("".join(pair[language] + "\n" for pair in own), encoding="utf-8")
        (folder / f"{name}.exact").write_text("".join(pair["ko"] + "\n" for pair in own), encoding="utf-8")
        half = [pair["ko"] if place % 2 else "" for place, pair in enumerate(own)]
        (folder / f"{name}.half").write_text("".join(text + "\n" for text in half), encoding="utf-8")
        (folder / f"{name}.labels").write_text("".join("xy"[place % 2] + "\n" for place in range(lines)))
    (folder / "my.yaml").write_text("dataset_name: embedded\nembedded_validation: 3\nembedded_test: 4\nnum_beams: 1\n")
    return folder


def run(*words: object) -> int:
    return main(["evaluate", *map(str, words)])


def test_sets(folder: Path, *names: str) -> list[object]:
    words: list[object] = ["--tokenize", "char", "--num-beams", 1, "--workers", 1]
    for name in names:
        words += ["--source", folder / f"{name}.en", "--reference", folder / f"{name}.ko"]
    return words


test_sets.__test__ = False  # type: ignore[attr-defined]


def texts(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def translations(folder: Path, model: str, name: str) -> list[str]:
    loaded = AutoModelForSeq2SeqLM.from_pretrained(folder / model).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / model)
    return translate(loaded, tokenizer, texts(folder / f"{name}.en"), BeamSearchConfig(num_beams=1))


def test_models_and_outputs_are_compared_on_all_test_sets_as_sacrebleu_does(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*test_sets(folder, "a", "b"), "--paired-bs-n", 200, "--output", tmp_path / "record.json"]
    words += ["--system-output", f"good={folder / 'a.exact'}", folder / "b.exact"]
    words += ["--system-output", folder / "a.half", folder / "b.half"]
    assert run(folder / "first", folder / "second", *words) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert list(record["systems"]) == ["first", "second", "good", "a.half"] and record["baseline"] == "first"
    assert list(record["data"]) == ["a.en", "b.en"] and record["data"]["b.en"]["pairs"] == LINES["b"]
    assert str(folder) not in json.dumps(record)
    for name in LINES:
        references = texts(folder / f"{name}.ko")
        outputs = [translations(folder, model, name) for model in ("first", "second")]
        outputs += [texts(folder / f"{name}.exact"), texts(folder / f"{name}.half")]
        metrics = {"bleu": sacrebleu.BLEU(tokenize="char"), "chrf": sacrebleu.CHRF()}
        named: list[tuple[str, Sequence[str]]] = list(zip(record["systems"], outputs, strict=True))
        signatures, expected = PairedTest(named, metrics, [references], test_type="bs", n_samples=200)()
        for place, system in enumerate(record["systems"]):
            for metric, column in (("bleu", "BLEU"), ("chrf", "chrF2")):
                found = record["significance"][f"{name}.en"][system][metric]
                result: Any = expected[column][place]
                assert found["score"] == pytest.approx(result.score)
                assert found["mean"] == pytest.approx(result.mean) and found["ci"] == pytest.approx(result.ci)
                assert found["p_value"] == (None if place == 0 else pytest.approx(result.p_value))
                assert found["signature"] == str(signatures[column]) and "|bs:200|seed:12345|" in found["signature"]
                assert record["systems"][system]["scores"][f"{name}.en"][metric] == pytest.approx(result.score)
    assert record["systems"]["good"]["scores"]["a.en"]["bleu"] == pytest.approx(100)
    assert record["systems"]["good"]["files"] == ["a.exact", "b.exact"]
    assert record["systems"]["a.half"]["scores"]["a.en"]["empty"] == 0.5
    lines = out.splitlines()
    assert re.match(
        r"test set +system +BLEU +95 % interval +p +chrF +95 % interval +p +empty +repeating +sentences", lines[0]
    )
    assert re.match(r"b.en +good +100.00 +100.00 ± 0.00 +0\.\d+\* ", lines[8])
    assert re.match(r"a.en +a.half +[\d.]+ .* 50.0% +0.0% +6", lines[5])
    assert re.match(r"a.en +first +[\d.]+ +[\d.]+ ± [\d.]+ +[\d.]+ +[\d.]+ ± [\d.]+ +\d", lines[2])  # no p-value
    assert "BLEU signature nrefs:1|bs:200|seed:12345|case:mixed" in out
    assert "paired bootstrap test of the difference from first; * p < 0.05" in out


def test_outputs_alone_need_no_model_and_the_first_one_is_the_baseline(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--system-output", folder / "a.half", "--system-output", f"exact={folder / 'a.exact'}"]
    assert run(*words, *test_sets(folder, "a"), "--groups", folder / "a.labels", "--output", tmp_path / "r.json") == 0
    out = capsys.readouterr().out
    assert "difference from a.half" in out
    record = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    by_group = {name: system["scores"]["text"]["by_group"] for name, system in record["systems"].items()}
    assert by_group["exact"]["x"]["bleu"] == pytest.approx(100) and by_group["a.half"]["x"]["bleu"] == 0
    assert by_group["a.half"]["y"]["chrf"] == pytest.approx(100)
    assert re.search(r"text +sentences +BLEU a.half +chrF a.half +BLEU exact +chrF exact", out)
    assert re.search(r"x +3 +0.00 +0.00 +100.00 +100.00\ny +3 +100.00", out)
    assert run(*words[:2], *test_sets(folder, "a"), "--output", tmp_path / "r.json") == 2  # it exists
    assert run(*words[:2], *test_sets(folder, "a"), "--output", tmp_path / "r.json", "--overwrite") == 0
    assert "p:" not in capsys.readouterr().out  # there is nothing to compare it with


def test_one_model_on_several_test_sets_gets_one_table_without_a_test(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["--groups", folder / "a.labels", "--groups", folder / "b.labels"]
    assert run(folder / "first", *test_sets(folder, "a", "b"), *labels) == 0
    out = capsys.readouterr().out
    assert re.match(r"test set +system +BLEU +chrF +empty +repeating +sentences\n", out)
    assert re.search(r"\nb.en +first +[\d.]+ +[\d.]+ +[\d.]+% +[\d.]+% +9\n", out)
    assert re.search(r"\nb.en +sentences +BLEU first +chrF first\n", out) and "bs:" not in out


def test_splits_of_a_recipe_are_test_sets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder / "first", folder / "second", "--recipe", folder / "my.yaml", "--paired-bs-n", 0) == 0
    out = capsys.readouterr().out
    assert re.search(r"validation +second +[\d.]+ +[\d.]+ +[\d.]+% +[\d.]+% +3\n", out) and "p:" not in out
    assert re.search(r"test +first +[\d.]+ +[\d.]+ +[\d.]+% +[\d.]+% +4\n", out)


def test_systems_of_one_name_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "copy" / "a.half"
    other.parent.mkdir()
    other.write_bytes((folder / "a.half").read_bytes())
    words = ["--system-output", folder / "a.half", "--system-output", other, "--system-output", other]
    assert run(*words, *test_sets(folder, "a"), "--paired-bs-n", 20) == 0
    out = capsys.readouterr().out
    assert f"{folder / 'a.half'} " in out and f"{other} " in out and f"{other} (2)" in out


def test_forms_of_unicode_make_no_difference_to_the_test() -> None:
    composed, decomposed = ["한 둘 셋 넷 다섯"], ["\u1112\u1161\u11ab 둘 셋 넷 다섯"]
    found = paired_bootstrap({"a": composed, "b": decomposed}, composed, tokenize="char", resamples=10)
    assert found["a"]["bleu"]["score"] == found["b"]["bleu"]["score"] == pytest.approx(100)


def test_a_tag_is_not_put_before_the_text_of_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe", str(folder / "my.yaml"), "--source-tag", "<2ko>"]
    for models in (["first"], ["first", "second"]):
        assert main(["evaluate", *(str(folder / model) for model in models), *words]) == 2
        assert "test_source_tags" in capsys.readouterr().err


def test_processes_of_a_launch_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("--system-output", folder / "a.half", *test_sets(folder, "a")) == 2
    assert "evaluate runs in one process, but 2 were started" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no system to evaluate"),
        (["{0}/first", "{0}/third"], "there is no directory {0}/third"),
        (["{0}/first", "{0}/second", "--translations", "{0}/x"], "--translations is for one model and one test set"),
        (["--system-output", "{0}/a.half", "--mbr-samples", "8"], "--mbr-samples and --mbr-nbest are for a MODEL"),
        (["--system-output", "x={0}/a.half", "--system-output", "x={0}/a.exact"], "two systems have the name x"),
        (["--system-output", "{0}/a.half", "{0}/b.half"], "names 2 files for 1 test sets"),
        (["--system-output", "{0}/b.half"], "{0}/b.half has 9 lines, and text has 6; line n"),
        (["--system-output", "{0}/no"], "there is no file {0}/no"),
        (["--system-output", "{0}/a.half", "--source", "{0}/b.en"], "there are 2 files for --source and 1 for --ref"),
        (["--system-output", "{0}/a.half", "--groups", "{0}/b.labels"], "there are 9 labels for the 6 lines of text"),
        (["{0}/first", "--groups", "{0}/a.labels", "--groups", "{0}/a.labels"], "2 files of labels for 1 test sets"),
        (["--system-output", "{0}/a.half", "--output", "{0}/a.half"], "would replace the source"),
        (["--system-output", "{0}/a.half", "--tokenize", "klingon"], "klingon is unknown"),
        (["--system-output", "{0}/a.half", "--paired-bs-n", "-1"], "-1 is not a whole number"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*[word.format(folder) for word in words], *test_sets(folder, "a")[2:]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vanilla-transformer evaluate: error: ") and message.format(folder) in error, error
