"""The amount of text and its languages, from files."""

import gzip
from pathlib import Path

import pytest

from hf_vanilla_transformer.data.file_languages import is_latin, language_of_file, language_of_files, language_of_text
from hf_vanilla_transformer.data.splits import Tables, TextFiles
from hf_vanilla_transformer.data.text_size import TextSize, measure_text


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("train.en", "en"),
        ("a/b.c/train.ko", "ko"),
        ("train.ko.gz", "ko"),
        ("train.de.txt", "de"),
        ("train.zh-CN", "zh-CN"),
        ("train.pt_BR", "pt_BR"),
        ("train.txt", None),
        ("train.src", None),
        ("train.zz", None),
        ("en", None),
        ("train", None),
        ("source.en.old", None),
    ],
)
def test_the_language_of_a_file_is_the_code_at_the_end_of_its_name(name: str, language: str | None) -> None:
    assert language_of_file(name) == language


def test_files_of_two_languages_have_none() -> None:
    assert language_of_files(["a.en", "b.en"]) == "en"
    assert language_of_files(["a.en", "b.de"]) is None
    assert language_of_files(["a.en", "b.txt"]) is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("삼백이십만 오", "ko"),
        ("Python 3에서 `str`은 유니코드 문자열입니다", "ko"),
        ("これは日本語の文です", "ja"),
        ("这是一个句子", "zh"),
        ("นี่คือประโยค", "th"),
        ("αυτή είναι μια πρόταση", "el"),
        ("This is English, with one 한국어 word", None),
        ("Это предложение", None),  # Cyrillic is used by several languages
        ("123 ...", None),
        ("", None),
    ],
)
def test_the_language_of_a_text_is_known_where_only_one_uses_its_script(text: str, language: str | None) -> None:
    assert language_of_text(text) == language


def test_latin_text_is_recognized_with_accents() -> None:
    assert is_latin("Größe, naïve") and is_latin("") and not is_latin("삼백 a")


def test_pairs_and_bytes_are_counted_in_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\n\ntwo\nthree\n")
    (tmp_path / "a.ko").write_text("하나\n빈\n둘\n셋\n", encoding="utf-8")
    # o n e t w h r; 하 나 둘 셋
    expected = TextSize(3, 11, 12, characters=11, same_script=False, target_language="ko")  # 3 + 3 + 5; 6 + 3 + 3
    assert measure_text(TextFiles([str(tmp_path / "a.en")], [str(tmp_path / "a.ko")]), "en", "ko") == expected
    for side in ("en", "ko"):
        (tmp_path / f"b.{side}.gz").write_bytes(gzip.compress((tmp_path / f"a.{side}").read_bytes()))
    assert measure_text(TextFiles(str(tmp_path / "b.en.gz"), str(tmp_path / "b.ko.gz")), "en", "ko") == expected
    (tmp_path / "a.tsv").write_text("en\tko\none\t하나\n\t빈\ntwo\t둘\nthree\t셋\n", encoding="utf-8")
    assert measure_text(Tables([str(tmp_path / "a.tsv")]), "en", "ko") == expected


def test_text_without_a_pair_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("\n\n")
    with pytest.raises(ValueError, match="there is no pair with text on both sides"):
        measure_text(TextFiles(str(tmp_path / "a.en"), str(tmp_path / "a.en")), "en", "ko")


def test_tokens_are_estimated_from_bytes_and_vocabulary() -> None:
    # 0.6 · log2(4,096) − 3.2 = 4.0 bytes per token
    assert TextSize(100, 4_000, 8_000).tokens(4_096) == (1_000, 2_000)
    # of 8,192 tokens, each of two scripts has 4,096
    assert TextSize(100, 4_000, 8_000, same_script=False).tokens(8_192) == (1_000, 2_000)
    assert TextSize(100, 4_000, 8_000).tokens(1) == (4_000, 8_000)  # never less than a byte
