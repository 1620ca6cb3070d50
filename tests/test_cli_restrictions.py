"""Restrictions of translations by text: in `translate`, in the pipeline and on the command line."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    TranslationPipeline,
    TranslationTokenizers,
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    preset,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.cli import main

TEXTS = ["three million and five", "", "two hundred", "   ", "nine o'clock a.m.", "the fifth of May"]
PREFIXES = ["three", "two", "", "", "nine hundred ", "the fifth of"]


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log as in a new process: another test may have set up logging."""
    logger = logging.getLogger("hf_vanilla_transformer")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights that writes words of both languages."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("restrictions") / "checkpoint"
    rows = embedded_corpus("train", 200)["translation"]
    tokenizer = train_tokenizer((text for row in rows for text in row.values()), 400)
    sizes = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    config = preset("tiny", vocab_size=len(tokenizer), output_bias=True, tie_word_embeddings=False, **sizes)
    model = VanillaTransformerForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(6.0)
        model.lm_head.bias[:260] = -20.0
        model.lm_head.bias[tokenizer.eos_token_id] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
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


# --------------------------------------------------------------------------- pipeline


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_pipeline_takes_prefixes(loaded: SimpleNamespace, batch_size: int) -> None:
    pipeline = TranslationPipeline(*parts(loaded), device="cpu")
    expected = translate(*parts(loaded), TEXTS, prefixes=PREFIXES)
    found = pipeline(TEXTS, prefixes=PREFIXES, batch_size=batch_size)
    assert [result["translation_text"] for result in found] == expected
    assert pipeline(TEXTS[0], prefixes=PREFIXES[0]) == [{"translation_text": expected[0]}]
    assert pipeline(TEXTS, batch_size=batch_size) == pipeline(TEXTS, prefixes=[""] * 6)
    with pytest.raises(ValueError, match="there are 1 prefixes for 6 texts"):
        pipeline(TEXTS, prefixes=["three"])
    with pytest.raises(ValueError, match="prefixes is one string for one text"):
        pipeline(iter(TEXTS), prefixes=PREFIXES)


# --------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prefix-file", "{0}/short"], "{0}/short has 1 lines, but the input has 6; give one line per line of input"),
        (["--prefix-file", "{0}/none"], "there is no file {0}/none"),
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
    monkeypatch.setattr("hf_vanilla_transformer.translation_stream.load_checkpoint", lambda *_: pytest.fail("loaded"))
    source = write(tmp_path / "source", TEXTS)
    write(tmp_path / "short", ["a"])
    write(tmp_path / "same", PREFIXES)
    assert main(["translate", str(checkpoint), source, *[word.format(tmp_path) for word in words]]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert message.format(tmp_path) in error
