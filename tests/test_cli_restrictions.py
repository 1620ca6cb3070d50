"""Restrictions of translations by text: in `translate`, in the pipeline and on the command line."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_command_models import log_as_in_a_new_process, save_wordy_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    Terminology,
    TranslationPipeline,
    TranslationTokenizers,
    embedded_corpus,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.cli import main

TEXTS = ["three million and five", "", "two hundred", "   ", "nine o'clock a.m.", "the fifth of May"]
PREFIXES = ["three", "two", "", "", "nine hundred ", "the fifth of"]


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as in a new process: another test may have set up logging."""
    log_as_in_a_new_process(monkeypatch)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights that writes words of both languages."""
    folder = tmp_path_factory.mktemp("restrictions") / "checkpoint"
    rows = embedded_corpus("train", 200)["translation"]
    tokenizer = train_tokenizer((text for row in rows for text in row.values()), 400)
    save_wordy_model(folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> SimpleNamespace:
    return SimpleNamespace(
        model=AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval(),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
    )


def parts(loaded: SimpleNamespace) -> tuple:
    return loaded.model, loaded.tokenizer


def write(path: Path, lines: list[str]) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


# --------------------------------------------------------------------------- prefixes


def test_translations_begin_with_their_prefixes(loaded: SimpleNamespace) -> None:
    plain = translate(*parts(loaded), TEXTS)
    found = translate(*parts(loaded), TEXTS, prefixes=PREFIXES)
    for text, translation, prefix, free in zip(TEXTS, found, PREFIXES, plain, strict=True):
        assert translation.startswith(prefix.rstrip()) or not text.strip()
        assert prefix or translation == free
    assert list(translate(*parts(loaded), iter(TEXTS), prefixes=iter(PREFIXES), window=2, batch_size=1)) == found
    assert translate(*parts(loaded), TEXTS[0], prefixes=PREFIXES[0]) == found[0]
    assert translate(*parts(loaded), TEXTS * 12, prefixes=PREFIXES * 12, workers=2, batch_size=8) == found * 12


def test_there_is_one_prefix_for_each_text(loaded: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"there are more texts than prefixes \(2\)"):
        translate(*parts(loaded), TEXTS, prefixes=["a", "b"])
    with pytest.raises(ValueError, match=r"there are more prefixes than texts \(6\)"):
        translate(*parts(loaded), TEXTS, prefixes=[*PREFIXES, ""])
    with pytest.raises(ValueError, match="the prefix of line 2 is of type int"):
        translate(*parts(loaded), TEXTS, prefixes=["", 3, "", "", "", ""])
    with pytest.raises(ValueError, match="is one string for several texts"):
        translate(*parts(loaded), TEXTS, prefixes="three")
    with pytest.raises(ValueError, match="is not one prefix for one text"):
        translate(*parts(loaded), TEXTS[0], prefixes=["three"])


def test_the_command_reads_prefixes_from_a_file(checkpoint: Path, loaded: SimpleNamespace, tmp_path: Path) -> None:
    source, prefixes = write(tmp_path / "source", TEXTS), write(tmp_path / "prefixes", PREFIXES)
    words = ["translate", str(checkpoint), source, "--prefix-file", prefixes, "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert lines_of(tmp_path / "out") == translate(*parts(loaded), TEXTS, prefixes=PREFIXES)


def test_prefixes_go_with_the_lines_of_a_pipe(
    checkpoint: Path,
    loaded: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.TextIOWrapper(io.BytesIO("".join(text + "\n" for text in TEXTS).encode()), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stream)
    output = str(tmp_path / "out")
    words = ["translate", str(checkpoint), "--output", output, "--overwrite", "--prefix_file"]
    assert main([*words, write(tmp_path / "prefixes", PREFIXES)]) == 0
    assert lines_of(tmp_path / "out") == translate(*parts(loaded), TEXTS, prefixes=PREFIXES)
    stream.buffer.seek(0)
    assert main([*words, write(tmp_path / "prefixes", PREFIXES[:3])]) == 2
    assert "there are more texts than prefixes (3)" in capsys.readouterr().err


# --------------------------------------------------------------------------- banned words, n-grams, minimum length


def test_banned_words_do_not_occur(checkpoint: Path, loaded: SimpleNamespace, tmp_path: Path) -> None:
    plain = translate(*parts(loaded), TEXTS)
    banned = sorted({word for translation in plain for word in translation.split()})
    found = translate(*parts(loaded), TEXTS, banned=[*banned, " "])
    # The random model also writes these words in other tokens than the usual ones, which stay possible.
    usual = [ids for word in banned for ids in TranslationTokenizers(loaded.tokenizer).encode_phrases([word])[0]]
    assert found != plain and any(found)
    config = BeamSearchConfig(bad_words_ids=usual)
    assert translate(*parts(loaded), TEXTS, config) == found
    pipeline = TranslationPipeline(*parts(loaded), device="cpu")
    assert [result["translation_text"] for result in pipeline(TEXTS, banned=banned)] == found
    words = ["translate", str(checkpoint), write(tmp_path / "source", TEXTS), "--output", str(tmp_path / "out")]
    assert main([*words, "--banned-file", write(tmp_path / "banned", [*banned, ""])]) == 0
    assert lines_of(tmp_path / "out") == found
    with pytest.raises(ValueError, match="banned='two' is one string"):
        translate(*parts(loaded), TEXTS, banned="two")


def test_the_command_passes_settings_to_the_search(checkpoint: Path, loaded: SimpleNamespace, tmp_path: Path) -> None:
    words = ["translate", str(checkpoint), write(tmp_path / "source", TEXTS), "--output", str(tmp_path / "out")]
    assert main([*words, "--no-repeat-ngram-size", "1", "--min-length", "9"]) == 0
    config = BeamSearchConfig(no_repeat_ngram_size=1, min_length=9)
    assert lines_of(tmp_path / "out") == translate(*parts(loaded), TEXTS, config)
    assert lines_of(tmp_path / "out") != translate(*parts(loaded), TEXTS)


def test_a_phrase_is_encoded_as_inside_a_sentence_and_as_at_its_beginning(loaded: SimpleNamespace) -> None:
    tokenizers = TranslationTokenizers(loaded.tokenizer)
    for text in ("two hundred", "hundred"):
        ((inside, *at_start),) = tokenizers.encode_phrases([text])
        assert tokenizers.encode_targets([f"three {text}"])[0][-len(inside) - 1 : -1] == inside
        assert tokenizers.encode_targets([text])[0][:-1] == (at_start or [inside])[0]


# --------------------------------------------------------------------------- constraints and terminology

CONSTRAINTS = [["삼백만 오", "two"], ["two"], [], [], ["구", " "], ["5월 5일"]]
TERMS = {"million": "백만", "May": "5월 5일", "hundred": "백", "Fifth of May": "never"}


def contain(translations: list[str], phrases: list[list[str]]) -> bool:
    return all(
        phrase.strip() in translation
        for text, translation, of_text in zip(TEXTS, translations, phrases, strict=True)
        for phrase in of_text
        if text.strip()
    )


def test_translations_contain_their_constraints(loaded: SimpleNamespace) -> None:
    plain = translate(*parts(loaded), TEXTS)
    found = translate(*parts(loaded), TEXTS, constraints=CONSTRAINTS)
    assert contain(found, CONSTRAINTS) and not contain(plain, CONSTRAINTS)
    assert found[1] == "" and found[2] == plain[2]
    given = iter(CONSTRAINTS)
    assert list(translate(*parts(loaded), iter(TEXTS), constraints=given, window=2, batch_size=1)) == found
    assert translate(*parts(loaded), TEXTS[0], constraints=CONSTRAINTS[0]) == found[0]
    assert translate(*parts(loaded), TEXTS * 12, constraints=CONSTRAINTS * 12, workers=2, batch_size=8) == found * 12


def test_the_terms_of_a_text_are_its_constraints(loaded: SimpleNamespace) -> None:
    phrases = [["백만"], [], ["백"], [], [], ["5월 5일"]]
    expected = translate(*parts(loaded), TEXTS, constraints=phrases)
    assert contain(expected, phrases)
    assert translate(*parts(loaded), TEXTS, terminology=TERMS) == expected
    assert translate(*parts(loaded), TEXTS, terminology=Terminology(TERMS)) == expected
    both = translate(*parts(loaded), TEXTS, terminology=TERMS, constraints=[["하나"]] * 6)
    assert contain(both, [["하나", *of_text] for of_text in phrases])


def test_the_command_reads_constraints_and_terminology(
    checkpoint: Path, loaded: SimpleNamespace, tmp_path: Path
) -> None:
    lines = ["\t".join(phrases) for phrases in CONSTRAINTS]
    entries = ["# comment", "", *(f"{term}\t{phrase} " for term, phrase in TERMS.items())]
    words = ["translate", str(checkpoint), write(tmp_path / "source", TEXTS), "--output", str(tmp_path / "out")]
    words += ["--constraint-file", write(tmp_path / "constraints", lines)]
    assert main([*words, "--terminology-file", write(tmp_path / "terms", entries), "--num-beams", "8"]) == 0
    config = BeamSearchConfig(num_beams=8)
    expected = translate(*parts(loaded), TEXTS, config, constraints=CONSTRAINTS, terminology=TERMS)
    assert lines_of(tmp_path / "out") == expected


def test_a_phrase_that_the_vocabulary_lacks_is_ignored_with_a_warning(
    loaded: SimpleNamespace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("hf_vanilla_transformer"), "propagate", True)
    monkeypatch.setattr(TranslationTokenizers, "count_unknown", lambda _, rows, __: int(len(rows[0]) > 3))
    constraints = [["two two two two two two"], *[["two"]] * 5]
    found = translate(*parts(loaded), TEXTS, constraints=constraints)
    assert found == translate(*parts(loaded), TEXTS, constraints=[[], *[["two"]] * 5])
    assert "1 constraint(s) are ignored; the vocabulary cannot write 'two two two two two two'" in caplog.text


def test_texts_without_a_possible_target_are_empty_with_a_warning(
    loaded: SimpleNamespace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("hf_vanilla_transformer"), "propagate", True)
    constraints = [[], [], ["two two"], [], [], []]
    found = translate(
        *parts(loaded), TEXTS, BeamSearchConfig(no_repeat_ngram_size=1), constraints=constraints, return_scores=True
    )
    assert (found[2].text, found[2].score) == ("", 0.0) and found[0].text
    assert "1 text(s) have empty translations because no target fits their restrictions: line 3; allow" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"terminology": [("two", "둘")]}, "is not a mapping"),
        ({"mbr": 8}, "mbr=8 is not an MBRConfig"),
        ({"config": {"num_beams": 2}}, "is not a BeamSearchConfig"),
        ({"constraints": [["two"]]}, "give one list for one text"),
        ({"texts": None}, "texts is of type NoneType"),
    ],
)
def test_arguments_of_another_type_are_one_sentence(
    loaded: SimpleNamespace, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        translate(*parts(loaded), **{"texts": "two", **arguments})


def test_bad_constraints_are_refused(loaded: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"there are more texts than constraints \(1\)"):
        translate(*parts(loaded), TEXTS, constraints=[["two"]])
    with pytest.raises(ValueError, match="the constraints of line 1 are 'two', not a list of phrases"):
        translate(*parts(loaded), TEXTS, constraints=["two"] * 6)
    with pytest.raises(ValueError, match="the constraint 'two' contains a banned word"):
        translate(*parts(loaded), TEXTS, constraints=[["two"]] * 6, banned=["two"])
    exported = SimpleNamespace(config=loaded.model.config, check_beam_search=lambda _: None)
    with pytest.raises(ValueError, match="constraints and terminology are supported by the torch engine only"):
        translate(exported, loaded.tokenizer, TEXTS, terminology=TERMS)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("The bank opens.", ["Bank"]),
        ("Banks and riverbanks", []),
        ("BANK, bank; Bank.", ["Bank"]),
        ("It is in Polish", ["polnisch"]),
        ("polish the shoes", []),
        ("the central bank of Poland", ["Zentralbank"]),
        ("a bank in the central bank", ["Bank", "Zentralbank"]),
        ("은행에서 만나요", ["Ufer"]),
        ("ABC은행", ["Ufer"]),
        ("İbank straße bank", ["Bank"]),
        ("bank_account bank-note", ["Bank"]),
        ("", []),
    ],
)
def test_terms_are_found_as_whole_words(text: str, phrases: list[str]) -> None:
    entries = {"bank": "Bank", "Polish": "polnisch", " central bank ": "Zentralbank ", "은행": "Ufer"}
    assert Terminology(entries).phrases(text) == phrases


def test_a_term_needs_a_translation() -> None:
    for entries in ({"": "a"}, {"a": " "}, {"a": None}):
        with pytest.raises(ValueError, match="is not a pair of texts"):
            Terminology(entries)


# --------------------------------------------------------------------------- pipeline


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_pipeline_takes_prefixes(loaded: SimpleNamespace, batch_size: int) -> None:
    pipeline = TranslationPipeline(*parts(loaded), device="cpu")
    expected = translate(*parts(loaded), TEXTS, prefixes=PREFIXES)
    found = pipeline(TEXTS, prefixes=PREFIXES, batch_size=batch_size)
    assert [result["translation_text"] for result in found] == expected
    assert pipeline(TEXTS[0], prefixes=PREFIXES[0]) == [{"translation_text": expected[0]}]
    assert pipeline(TEXTS, batch_size=batch_size) == pipeline(TEXTS, prefixes=[""] * 6)
    restrictions = {"constraints": CONSTRAINTS, "terminology": TERMS, "banned": ["one"]}
    expected = translate(*parts(loaded), TEXTS, prefixes=PREFIXES, **restrictions)
    found = pipeline(TEXTS, prefixes=PREFIXES, batch_size=batch_size, **restrictions)
    assert [result["translation_text"] for result in found] == expected
    with pytest.raises(ValueError, match="constraints is a list of phrases for one text"):
        pipeline(TEXTS, constraints=["two"] * 6)
    with pytest.raises(ValueError, match="there are 1 prefixes for 6 texts"):
        pipeline(TEXTS, prefixes=["three"])
    with pytest.raises(ValueError, match="prefixes and constraints are for one text or a list of texts"):
        pipeline(iter(TEXTS), prefixes=PREFIXES)


# --------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prefix-file", "{0}/short"], "{0}/short has 1 lines, but the input has 6; give one line per line of input"),
        (["--prefix-file", "{0}/none"], "there is no file {0}/none"),
        (["--constraint-file", "{0}/short"], "{0}/short has 1 lines, but the input has 6"),
        (["--terminology-file", "{0}/short"], "{0}/short:1 is not a source term, a tab and its translation: 'a'"),
        (["--terminology-file", "{0}/two"], "{0}/two:2: the term 'a' has two translations, 'b' and 'c'"),
        (["--terminology-file", "{0}/comment"], "{0}/comment has no terms"),
        *(
            ([option, "{0}/latin"], "{0}/latin:2 is not UTF-8 text; convert the file")
            for option in ("--prefix-file", "--constraint-file", "--terminology-file", "--banned-file")
        ),
        (["--banned-file", "{0}"], "{0} is a folder, not a file"),
        (["--prefix-file", "{0}/same", "--output", "{0}/same", "--overwrite"], "would replace the source {0}/same"),
        (["--no-repeat-ngram-size", "-1"], "-1 is not a whole number from 0 to 1,000"),
    ],
)
def test_bad_files_are_one_sentence_before_the_model_is_loaded(
    words: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hf_vanilla_transformer.translation.engines.load_checkpoint", lambda *_: pytest.fail("loaded"))
    source = write(tmp_path / "source", TEXTS)
    write(tmp_path / "short", ["a"])
    write(tmp_path / "same", PREFIXES)
    write(tmp_path / "two", ["a\tb", "a\tc"])
    write(tmp_path / "comment", ["# a\tb"])
    (tmp_path / "latin").write_bytes(b"one\tun\n\xe9t\xe9\tsummer\n" + b"\n" * 4)
    assert main(["translate", str(checkpoint), source, *[word.format(tmp_path) for word in words]]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert message.format(tmp_path) in error
