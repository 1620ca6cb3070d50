"""Source tags: one model for several directions, from the training files to `translate` and `evaluate`."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    embedded_corpus,
    export_checkpoint,
    load_engine,
    read_recipe,
    train,
    translate,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.data.corpora import load_text_files
from hf_vanilla_transformer.data.held_out import hold_out
from hf_vanilla_transformer.data.splits import HoldOut, TextFiles, load_splits
from hf_vanilla_transformer.data.tokenization import train_tokenizer

SIZES = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as in a new process: another test may have set up logging."""
    monkeypatch.setattr(logging.getLogger("hf_vanilla_transformer"), "handlers", [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two text files, and a model that was trained on both directions."""
    folder = tmp_path_factory.mktemp("tags")
    pairs = embedded_corpus("train", 60)["translation"]
    for language in ("en", "ko"):
        (folder / f"my.{language}").write_text("".join(f"{pair[language]}\n" for pair in pairs), encoding="utf-8")
    train(recipe_of(folder, "--output_dir", str(folder / "joint")))
    return folder


def recipe_of(folder: Path, *words: str, tags: tuple[str, str] = ("<2ko>", "<2en>")) -> Any:
    """Return the recipe of both directions, with two updates."""
    english, korean = (str(folder / f"my.{language}") for language in ("en", "ko"))
    both = ["--train_source", english, korean, "--train_target", korean, english, "--train_source_tags", *tags]
    settings = ["--config_overrides", json.dumps(SIZES), "--vocab_size", "360", "--max_steps", "2", "--save_steps", "2"]
    settings += ["--warmup_steps", "2", "--cooldown_steps", "0", "--eval_strategy", "no", "--average_last", "0"]
    settings += ["--precision", "fp32", "--use_cpu", "true", "--report_to", "none"]
    return read_recipe("tiny", [*both, *settings, *words])


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


# --------------------------------------------------------------------------- text


def test_each_file_gets_its_tag_and_a_blank_line_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n\ntwo\n")
    (tmp_path / "b").write_text("eins\nnull\nzwei\n")
    files = [tmp_path / "a", tmp_path / "b", tmp_path / "a"], [tmp_path / "b", tmp_path / "a", tmp_path / "b"]
    corpus = load_text_files(*files, source_tags=["<2de>", "<2en> <bt>", ""], keep_all=True)
    assert corpus.sides() == (
        ["<2de> one", "", "<2de> two", "<2en> <bt> eins", "<2en> <bt> null", "<2en> <bt> zwei", "one", "", "two"],
        ["eins", "null", "zwei", "one", "", "two", "eins", "null", "zwei"],
    )
    assert load_text_files(*files, source_tags=["<2de>"] * 3).report.pairs_kept == 6  # a blank side stays a problem


def test_all_files_of_a_pattern_get_its_tag(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / f"{name}.en").write_text(f"one {name}\n")
        (tmp_path / f"{name}.de").write_text(f"eins {name}\n")
    sides = [str(tmp_path / "*.en"), str(tmp_path / "1.de")], [str(tmp_path / "*.de"), str(tmp_path / "1.en")]
    corpus = load_text_files(*sides, source_tags=["<2de>", "<2en>"])
    assert corpus.sides()[0] == ["<2de> one 1", "<2de> one 2", "<2en> eins 1"]


def test_a_wrong_number_of_tags_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    with pytest.raises(ValueError, match="there are 2 source tags for 1 source files and 1 target files"):
        load_text_files(tmp_path / "a", tmp_path / "a", source_tags=["<2de>", "<2en>"])


def test_no_text_of_a_held_out_pair_is_trained_on_in_the_opposite_direction(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("".join(f"source {number}\n" for number in range(100)))
    (tmp_path / "b").write_text("".join(f"target {number}\n" for number in range(100)))
    files = TextFiles([tmp_path / "a", tmp_path / "b"], [tmp_path / "b", tmp_path / "a"], ("<2de>", "<2en>"))
    source = HoldOut(files, 10)
    corpora = load_splits({"train": source, "validation": source}, source_lang="x", target_lang="y")
    texts = {
        split: {text.removeprefix("<2de> ").removeprefix("<2en> ") for side in corpus.sides() for text in side}
        for split, corpus in corpora.items()
    }
    assert not texts["train"] & texts["validation"]
    assert corpora["validation"].report.pairs_kept == 10
    assert all(text.startswith("<2") for text in corpora["validation"].sides()[0])
    untagged, _ = hold_out(load_text_files(tmp_path / "a", tmp_path / "b"), 10)
    assert untagged.report.pairs_kept == 90


def test_no_subword_is_learned_from_a_tag() -> None:
    texts = [f"<2de> {word}" for word in ("one", "two", "three")] * 50
    tokenizer = train_tokenizer(texts, 300, extra_tokens=["<2de>"])
    assert [token for token in tokenizer.get_vocab() if "2" in token and not token.startswith("<0x")] == ["<2de>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("<2de> one")["input_ids"])[0] == "<2de>"


# --------------------------------------------------------------------------- recipe


def test_one_tag_is_that_of_all_files_and_tags_are_special_tokens() -> None:
    files = ["--train_source", "a", "b", "--train_target", "c", "d", "--eval_strategy", "no"]
    data = read_recipe("tiny", [*files, "--train_source_tags", "<2de> <bt>", "--extra_tokens", "<2de>", "<x>"]).data
    assert data.text_of("train") == TextFiles(["a", "b"], ["c", "d"], ("<2de> <bt>", "<2de> <bt>"))
    assert data.special_tokens == ["<2de>", "<x>", "<bt>"]
    data = read_recipe("tiny", [*files, "--train-source-tags", "", "<bt>"]).data
    assert data.text_of("train") == TextFiles(["a", "b"], ["c", "d"], ("", "<bt>"))
    assert data.special_tokens == ["<bt>"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--train_source_tags <a> <b> <c>", "train_source_tags has 3 tags and train_source has 2 files; give one tag"),
        ("--train_source_tags <a> <s>", "extra token '<s>' is built in"),
        ("--test_source_tags <a>", "test_source_tags is set, but not test_source"),
        (
            "--train_source_tags <a> <b> --validation_source v --validation_target w",
            "every training source begins with a tag, and validation_source_tags is not set",
        ),
    ],
)
def test_tags_that_do_not_fit_the_files_are_refused(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(
            "tiny", ["--eval_strategy", "no", "--train_source", "a", "b", "--train_target", "c", "d", *words.split()]
        )


def test_validation_without_tags_is_allowed_where_it_is_asked_for_or_some_training_text_has_none() -> None:
    files = ["--train_source", "a", "b", "--train_target", "c", "d", "--validation_source", "v"]
    files += ["--validation_target", "w"]
    for words in (["--train_source_tags", "", "<bt>"], ["--train_source_tags", "<a>", "--validation_source_tags", ""]):
        assert read_recipe("tiny", [*files, *words]).data.text_of("validation").source_tags in ((), ("",))


# --------------------------------------------------------------------------- models


def test_the_tags_of_a_trained_model_are_single_tokens_of_its_vocabulary(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "joint")
    ids = tokenizer("<2ko> three million")["input_ids"]
    assert tokenizer.decode(ids[:1]) == "<2ko>" and tokenizer.decode(ids, skip_special_tokens=True) == "three million"
    record = json.loads((folder / "joint" / "results.json").read_text(encoding="utf-8"))
    assert record["data"]["train"]["pairs"] == 120
    assert record["recipe"]["settings"]["train_source_tags"] == ["<2ko>", "<2en>"]


def test_a_model_is_fine_tuned_with_a_tag_that_its_vocabulary_does_not_have(folder: Path, tmp_path: Path) -> None:
    words = ["--model_name_or_path", str(folder / "joint"), "--config_overrides", "null", "--output_dir", str(tmp_path)]
    result = train(recipe_of(folder, *words, tags=("<2ko>", "<bt>")))
    assert result.tokenizer.convert_tokens_to_ids("<2ko>") == 358  # as before
    assert result.tokenizer.convert_tokens_to_ids("<bt>") == 360 == result.model.config.vocab_size - 1


def test_translate_puts_the_tag_before_each_text(folder: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "joint").eval()
    with torch.no_grad():  # make the translation depend on the tag
        model.get_input_embeddings().weight.mul_(8)
    tokenizer = AutoTokenizer.from_pretrained(folder / "joint")
    texts = ["three million", "", "nine o'clock"]
    expected = translate(model, tokenizer, [f"<2en> {text}" if text else "" for text in texts])
    assert translate(model, tokenizer, texts, source_tag="<2en>") == expected
    assert translate(model, tokenizer, texts) != expected
    for tag, message in (
        ("<2de>", "'<2de>' is not a token of the model's vocabulary; it has <2ko>, <2en>"),
        (2, "not a string"),
    ):
        with pytest.raises(ValueError, match=message):
            translate(model, tokenizer, texts, source_tag=tag)


def test_texts_without_a_tag_or_with_two_are_counted_in_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "joint").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "joint")
    with caplog.at_level("WARNING", logger="hf_vanilla_transformer"):
        translate(model, tokenizer, ["<2en> three", "three", "", "<2ko> <2en> three"])
        assert "2 text(s) have no tag of a language, or several, and the model has <2en>, <2ko>: line 2" in caplog.text
        caplog.clear()
        translate(model, tokenizer, ["three", "nine"], source_tag="<2en>")
        assert not caplog.text


def test_an_exported_model_takes_a_tag(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    export_checkpoint("ctranslate2", folder / "joint", tmp_path / "export")
    engine, tokenizer = load_engine("ctranslate2", tmp_path / "export"), AutoTokenizer.from_pretrained(folder / "joint")
    greedy = BeamSearchConfig(num_beams=1)
    expected = translate(engine, tokenizer, ["<2en> three"], greedy)
    assert translate(engine, tokenizer, ["three"], greedy, source_tag="<2en>") == expected


def test_the_command_line_takes_a_tag(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tagged = tmp_path / "tagged.ko"
    tagged.write_text("".join(f"<2en> {line}\n" for line in lines_of(folder / "my.ko")), encoding="utf-8")
    model, plain, by_hand = str(folder / "joint"), tmp_path / "plain", tmp_path / "by_hand"
    assert main(["translate", model, str(folder / "my.ko"), "--source-tag", "<2en>", "--output", str(plain)]) == 0
    assert main(["translate", model, str(tagged), "--output", str(by_hand)]) == 0
    assert lines_of(plain) == lines_of(by_hand)

    words = ["--reference", str(folder / "my.en"), "--output", str(tmp_path / "scores.json")]
    assert main(["evaluate", model, "--source", str(folder / "my.ko"), *words, "--source_tag", "<2en>"]) == 0
    record = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert record["decoding"]["source_tag"] == "<2en>"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["translate", "{joint}", "{text}"],
            "--source-tag: '<2de>' is not a token of the model's vocabulary; it has <2ko>, <2en>",
        ),
        (
            ["evaluate", "{joint}", "--source", "{text}", "--reference", "{text}"],
            "--source-tag: '<2de>' is not a token",
        ),
        (
            ["evaluate", "{joint}", "--recipe", "demo"],
            "--source-tag is for two files; for the text of a recipe, set its test_source_tags",
        ),
    ],
)
def test_a_tag_that_cannot_be_used_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    named = [word.format(joint=folder / "joint", text=folder / "my.en") for word in words]
    assert main([*named, "--source-tag", "<2de>"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
