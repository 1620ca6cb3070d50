"""`vanilla-transformer tokenizer`: its output loads with AutoTokenizer, its measures are right, its errors clear."""

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hf_vanilla_transformer import embedded_corpus
from hf_vanilla_transformer.cli import main


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("text")
    pairs = embedded_corpus("train", 300)["translation"]
    paths = {}
    for language in ("en", "ko"):
        paths[language] = folder / f"train.{language}"
        paths[language].write_text("".join(pair[language] + "\n" for pair in pairs), encoding="utf-8")
    return paths


def run(*words: object) -> int:
    return main(["tokenizer", *map(str, words)])


def printed(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", line))


def test_a_shared_vocabulary_loads_and_is_reported(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "vocabulary"
    assert run(files["en"], files["ko"], "--output", output, "--vocab-size", 420) == 0
    said = printed(capsys.readouterr().out.splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert int(said["size"]) == len(tokenizer) == 420
    assert said["lines"] == "600" and said["unknown"] == "0.0000%"
    lines = [line for path in files.values() for line in path.read_text(encoding="utf-8").splitlines()]
    tokens = sum(len(tokenizer(line, add_special_tokens=False)["input_ids"]) for line in lines)
    assert float(said["tokens_per_word"]) == pytest.approx(tokens / sum(len(line.split()) for line in lines), abs=5e-3)
    for path in files.values():
        text = path.read_text(encoding="utf-8").splitlines()[0]
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_extra_tokens_can_be_given_several_times(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [files["en"], "--output", tmp_path / "out", "--vocab-size", 420]
    assert run(*words, "--extra-token", "<2ko>", "--extra_token", "<2de>") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(["<2ko>", "<2de>"]) == [418, 419]
    assert run(*words, "--overwrite", "--extra-token", "two words") == 2
    assert "extra token 'two words' is empty or has white space" in capsys.readouterr().err


def test_rare_characters_are_counted_as_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 99 a's and one é. Its two bytes are the only byte tokens; each line is "a…" in some number of tokens.
    text = tmp_path / "text"
    text.write_text("a\n" * 99 + "é\n", encoding="utf-8")
    assert run(text, "--output", tmp_path / "out", "--vocab-size", 263, "--character-coverage", 0.99) == 0
    said = printed(capsys.readouterr().out.splitlines()[-1])
    # 263 = 4 special + 256 bytes + "▁" and "a" + the merge "▁a": 99 tokens for the a's; "▁", 0xC3, 0xA9 for the é.
    assert said["tokens_per_word"] == "1.02"
    assert said["bytes"] == f"{2 / 102:.4%}"


def test_source_and_target_vocabularies_are_learned_separately(files: dict[str, Path], tmp_path: Path) -> None:
    words = ("--source", files["en"], "--target", files["ko"], "--output", tmp_path, "--vocab-size", 340)
    assert run(*words) == 0
    source, target = (AutoTokenizer.from_pretrained(tmp_path / side) for side in ("source", "target"))
    assert any("삼" in token for token in target.get_vocab()) and not any("삼" in token for token in source.get_vocab())


def test_settings_reach_the_vocabulary(files: dict[str, Path], tmp_path: Path) -> None:
    words = (files["en"], "--vocab-size", 340, "--model", "unigram", "--lowercase", "--normalization", "NFKC")
    assert run(*words, "--output", tmp_path) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer("THREE ﬁ")["input_ids"], skip_special_tokens=True) == "three fi"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no text files were given"),
        (["no-such-file"], "there is no file no-such-file"),
        (["{en}", "--source", "{en}", "--target", "{ko}"], "two vocabularies need"),
        (["--source", "{en}"], "two vocabularies need"),
        (["{en}", "--vocab-size", "200"], "vocab_size=200 is too small"),
        (["{empty}"], "no usable sentence is left"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], message: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").write_text("\n\n")
    words = [word.format(**files, empty=tmp_path / "empty") for word in words]
    assert run(*words, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vanilla-transformer tokenizer: error: ") and message in error


def test_an_existing_tokenizer_is_replaced_only_with_overwrite(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (files["en"], "--vocab-size", 340, "--output")
    assert run(*words, tmp_path / "out") == 0
    assert run(*words, tmp_path / "out") == 2 and "already exists; choose another" in capsys.readouterr().err
    assert run(*words, tmp_path / "out", "--overwrite") == 0
    (tmp_path / "out" / "config.json").write_text("{}")  # now it is a checkpoint's
    assert (
        run(*words, tmp_path / "out", "--overwrite") == 2
        and "holds other files beside a tokenizer (config.json)" in capsys.readouterr().err
    )
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    assert run(*words, tmp_path / "thesis", "--overwrite") == 2
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
