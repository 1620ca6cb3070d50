"""`vanilla-transformer evaluate`: its scores are sacrebleu's on `translate`'s output; its record is complete."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from small_command_models import save_wordy_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    embedded_corpus,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.training.evaluation import read_labels
from hf_vanilla_transformer.training.evaluation_request import EvaluationRequest, ResolvedRequest

SENTENCES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, a test set in two files, one label per line, and a recipe that names them."""
    folder = tmp_path_factory.mktemp("evaluate")
    pairs = embedded_corpus("test", SENTENCES)["translation"]
    tokenizer = train_tokenizer([text for pair in pairs for text in pair.values()], 340)
    save_wordy_model(folder / "model", tokenizer)
    save_wordy_model(folder / "second", tokenizer, seed=1)
    for language in ("en", "ko"):
        (folder / f"test.{language}").write_text("".join(p[language] + "\n" for p in pairs), encoding="utf-8")
    (folder / "labels").write_text("b\na\nb\nb\na\nb\n")
    (folder / "my.yaml").write_text(
        f"dataset_name: embedded\nembedded_validation: 3\nembedded_test: {SENTENCES}\nlowercase: true\nnum_beams: 2\n"
        "length_penalty: 0.3\nmetric_tokenize: char\n"
    )
    return folder


def expected(folder: Path, **settings: Any) -> list[str]:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    return translate(model, tokenizer, (folder / "test.en").read_text().splitlines(), BeamSearchConfig(**settings))


def run(folder: Path, *words: object) -> int:
    return main(["evaluate", str(folder / "model"), *map(str, words)])


def test_scores_of_two_files_are_those_of_sacrebleu_for_the_output_of_translate(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--source", folder / "test.en", "--reference", folder / "test.ko", "--tokenize", "char", "--num-beams", 2]
    words += ["--output", tmp_path / "new" / "scores.json", "--translations", tmp_path / "out.ko"]
    assert run(folder, *words, "--length-penalty", 0.3) == 0
    translations = expected(folder, num_beams=2, length_penalty=0.3)
    lines = [" ".join(text.split()) for text in translations]  # so that each stays one line
    assert any(lines) and (tmp_path / "out.ko").read_text(encoding="utf-8").split("\n")[:-1] == lines
    references = (folder / "test.ko").read_text(encoding="utf-8").splitlines()
    bleu = sacrebleu.BLEU(tokenize="char")
    chrf = sacrebleu.CHRF().corpus_score(translations, [references]).score
    score = bleu.corpus_score(translations, [references]).score
    assert chrf > 0
    out = capsys.readouterr().out
    assert f"text: bleu={score:.2f} chrf={chrf:.2f} exact=0.0000 sentences={SENTENCES}" in out
    assert str(bleu.get_signature()) in out
    record = json.loads((tmp_path / "new" / "scores.json").read_text(encoding="utf-8"))
    assert record["scores"]["text"]["bleu"] == score and record["scores"]["text"]["chrf"] == chrf
    assert record["scores"]["text"]["bleu_signature"] == str(bleu.get_signature())
    assert record["scores"]["text"]["empty"] == translations.count("") / SENTENCES
    assert record["decoding"] == {
        "num_beams": 2, "length_penalty": 0.3, "length_normalization": "gnmt", "batch_size": 64,
    }  # fmt: skip
    pairs = zip((folder / "test.en").read_text().splitlines(), references, strict=True)
    digest = hashlib.sha256("".join(f"{source}\t{target}\n" for source, target in pairs).encode()).hexdigest()
    assert record["data"]["text"]["sha256"] == digest and record["data"]["text"]["pairs"] == SENTENCES
    assert record["seconds"]["text"] >= 0 and " of " in record["hardware"] or "×" in record["hardware"]
    assert record["checkpoint"] == "model" and str(folder) not in json.dumps(record)


@pytest.mark.parametrize(
    ("words", "recorded"),
    [
        (["--ensemble", "{0}/second"], {"ensemble": ["second"]}),
        (["--mbr-nbest", "6"], {"num_best": 6}),
        (["--mbr-samples", "8", "--epsilon-cutoff", "0", "--seed", "3"], {"num_samples": 8, "seed": 3}),
        (["--ensemble", "{0}/second", "--mbr-nbest", "6"], {"ensemble": ["second"], "num_best": 6}),
    ],
)
def test_ensembles_and_minimum_bayes_risk_are_scored_as_translate_decodes_them(
    words: list[str], recorded: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    words = [word.format(folder) for word in words]
    text = ["--source", folder / "test.en", "--reference", folder / "test.ko", "--output", tmp_path / "scores.json"]
    assert run(folder, *text, "--translations", tmp_path / "out.ko", *words) == 0
    command = ["translate", str(folder / "model"), str(folder / "test.en"), "--output", str(tmp_path / "expected.ko")]
    assert main([*command, *words]) == 0
    found, theirs = (
        [" ".join(line.split()) for line in (tmp_path / name).read_text(encoding="utf-8").split("\n")[:-1]]
        for name in ("out.ko", "expected.ko")
    )
    assert found == theirs
    assert found != [" ".join(line.split()) for line in expected(folder)]  # else it would show nothing
    record = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert recorded.items() <= {**record, **record["decoding"].get("mbr", {})}.items()


def test_text_settings_and_language_come_from_the_recipe(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "--recipe", folder / "my.yaml", "--output", tmp_path / "scores.json") == 0
    record = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert list(record["scores"]) == ["validation", "test"] and record["data"]["validation"]["pairs"] == 3
    assert record["decoding"]["num_beams"] == 2 and record["decoding"]["length_penalty"] == 0.3
    assert "case:lc" in record["scores"]["test"]["bleu_signature"]
    assert "tok:char" in record["scores"]["test"]["bleu_signature"]
    assert "test: bleu=" in capsys.readouterr().out


def test_options_take_precedence_over_the_recipe_and_its_keys_may_follow(folder: Path, tmp_path: Path) -> None:
    words = ["--recipe", folder / "my.yaml", "--split", "test", "--num-beams", 1, "--tokenize", "none"]
    words += ["--output", tmp_path / "scores.json", "--embedded_test", 2, "--source_lang", "ko", "--target_lang=en"]
    assert run(folder, *words) == 0
    record = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert list(record["scores"]) == ["test"] and record["data"]["test"]["pairs"] == 2
    assert record["decoding"]["num_beams"] == 1 and "tok:none" in record["scores"]["test"]["bleu_signature"]


def messages(caplog: pytest.LogCaptureFixture, folder: Path, *words: Any) -> str:
    """Run the command and return what it logs."""
    caplog.clear()
    assert run(folder, *words) == 0
    return caplog.text


def test_a_language_that_does_not_fit_the_references_is_reported(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unnamed = tmp_path / "references"
    unnamed.write_bytes((folder / "test.ko").read_bytes())
    words = ["--source", folder / "test.en", "--reference", unnamed, "--num-beams", 1]
    for options, message in (
        ([], "the references look like text in Korean, and BLEU's tokenizer 13a does not split it"),
        (["--target-lang", "kr"], "the references are mostly Hangul, but target_lang is 'kr'"),
        (["--target-lang", "ko"], ""),
        (["--tokenize", "13a"], ""),
    ):
        text = messages(caplog, folder, *words, *options)
        assert message in text and bool(message) == ("the references" in text)


def test_references_in_another_script_than_that_of_their_name_are_reported(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    misnamed = tmp_path / "test.ko"
    misnamed.write_bytes((folder / "test.en").read_bytes())
    words = ["--source", folder / "test.en", "--reference", misnamed, "--num-beams", 1]
    message = (
        "the references are mostly Latin, but the language code in their file name is 'ko', by which BLEU splits words"
    )
    for options, warned in (([], True), (["--target-lang", "en"], False), (["--tokenize", "13a"], False)):
        assert (message in messages(caplog, folder, *words, *options)) is warned


@pytest.mark.parametrize(("name", "tokenize"), [("test.ko", "korean"), ("test.zh.txt", "zh"), ("test.de", "13a")])
def test_the_name_of_the_references_selects_the_tokenizer_of_bleu(name: str, tokenize: str) -> None:
    def chosen(**settings: Any) -> str:
        return ResolvedRequest.of(EvaluationRequest("model", "test.en", name, **settings)).tokenize

    assert chosen() == tokenize
    assert chosen(target_lang="de") == "13a" and chosen(tokenize="none") == "none"


def test_each_label_is_scored_separately(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--source", folder / "test.en", "--reference", folder / "test.ko", "--groups", folder / "labels"]
    assert run(folder, *words, "--target-lang", "ko", "--output", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["scores"]["text"]
    assert {label: found["sentences"] for label, found in scores["by_group"].items()} == {"a": 2, "b": 4}
    translations, references = expected(folder), (folder / "test.ko").read_text(encoding="utf-8").splitlines()
    chosen = [1, 4]  # the lines labelled a
    chrf = sacrebleu.CHRF().corpus_score([translations[i] for i in chosen], [[references[i] for i in chosen]]).score
    assert scores["by_group"]["a"]["chrf"] == chrf
    assert "tok:13a" not in scores["bleu_signature"]  # Korean
    assert "text a: bleu=" in capsys.readouterr().out


def test_inputs_are_never_overwritten_and_files_are_replaced_only_with_overwrite(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, reference, thesis = (tmp_path / name for name in ("test.en", "test.ko", "thesis.tex"))
    source.write_bytes((folder / "test.en").read_bytes())
    reference.write_bytes((folder / "test.ko").read_bytes())
    thesis.write_text("years of work")
    (tmp_path / "link.json").symlink_to(source)
    before = {path: path.read_bytes() for path in (source, reference, thesis)}
    words = ["--source", source, "--reference", reference, "--num-beams", 1, "--overwrite"]
    for option, path, message in (
        ("--output", source, "would replace the source"),
        ("--translations", reference, "would replace the source"),
        ("--output", tmp_path / "link.json", "would replace the source"),
        ("--output", thesis, "does not look like a record of scores"),
        ("--output", tmp_path, "would replace the source"),  # a directory with the inputs
        ("--output", thesis / "x.json", "cannot be used: Not a directory"),
    ):
        assert run(folder, *words, option, path) == 2
        assert message in capsys.readouterr().err
    outputs = ["--translations", tmp_path / "out.ko", "--output", tmp_path / "scores.json"]
    assert run(folder, *words, "--translations", tmp_path / "x", "--output", tmp_path / "x") == 2
    assert run(folder, *words[:-1], *outputs) == 0
    assert run(folder, *words[:-1], *outputs) == 2 and "out.ko already exists" in capsys.readouterr().err
    assert run(folder, *words, *outputs) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "link.json", "out.ko", "scores.json", "test.en", "test.ko", "thesis.tex",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokenize", "flores200"], "--tokenize flores200 is not available"),
        (["--output", "{0}/my.yaml/scores.json"], "Not a directory"),
        (["--translations", "{0}/my.yaml", "--overwrite"], "would replace the source"),
    ],
)
def test_metric_and_outputs_are_checked_before_any_text_is_read(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("text was read")

    def fetch(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("hf_vanilla_transformer.training.evaluation_request.load_recipe_text", read)
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.download_file", fetch)
    assert run(folder, "--recipe", folder / "my.yaml", *[word.format(folder) for word in words]) == 2
    assert message in capsys.readouterr().err


def test_empty_translations_are_warned_of_with_their_number(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_vanilla_transformer.training.evaluation.translate", lambda *_, **__: [""] * SENTENCES)
    logger = logging.getLogger("hf_vanilla_transformer.training.evaluation")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    assert run(folder, "--source", folder / "test.en", "--reference", folder / "test.ko") == 0
    assert "text: 6 of 6 translations are empty" in caplog.text


def test_labels_are_read_in_the_encodings_of_all_text_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes("a\r\nb\u2028c\r\n".encode("utf-16"))
    assert read_labels(tmp_path / "labels") == ["a", "b\u2028c"]
    (tmp_path / "labels").write_bytes(b"a\n\xff\n")
    with pytest.raises(ValueError, match="labels:2 is not UTF-8"):
        read_labels(tmp_path / "labels")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the text either with"),
        (["--source", "{0}/test.en"], "--reference is missing"),
        (["--source", "{0}/test.en", "--reference", "{0}/test.ko", "--recipe", "{0}/my.yaml"], "name the text either"),
        (["--source", "{0}/test.en", "--reference", "{0}/my.yaml"], "line n of one must be the translation"),
        (
            ["--source", "{0}/test.en", "--reference", "{0}/test.ko", "--colour", "red"],
            "--colour is neither an option of evaluate",
        ),
        (["--source", "{0}/test.en", "--reference", "{0}/test.ko", "--tokenize", "klingon"], "klingon is unknown"),
        (["--source", "{0}/test.en", "--reference", "{0}/test.ko", "--groups", "{0}/my.yaml"], "7 labels for the 6"),
        (["--source", "{0}/test.en", "--reference", "{0}/test.ko", "--num-beams", "0"], "--num-beams: 0 is not"),
        (["--source", "{0}/test.en", "--reference", "{0}/test.ko", "--seed", "1"], "--seed is for samples"),
        (["{0}/second", "--recipe", "{0}/my.yaml", "--ensemble", "{0}/second"], "--ensemble is for one MODEL"),
        (["--recipe", "{0}/my.yaml", "--ensemble", "{0}/none"], "there is no directory"),
        (["--recipe", "{0}/my.yaml", "--mbr-samples", "8", "--min-length", "3"], "samples don't follow"),
        (["--recipe", "{0}/my.yaml", "--split", "dev"], "there is no split 'dev'"),
        (["--recipe", "{0}/my.yaml", "--colour", "red"], "no setting 'colour'"),
        (["--recipe", "{0}/my.yaml", "--groups", "{0}/labels"], "choose one with --split"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *[word.format(folder) for word in words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vanilla-transformer evaluate: error: ") and message in error, error
