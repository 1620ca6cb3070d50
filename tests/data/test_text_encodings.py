# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Text that is not UTF-8: its encoding is named, with the command that converts it and the share that is lost."""

from pathlib import Path

import pytest

from hf_vanilla_transformer.data.corpora import load_pairs, load_text_files, read_sentences
from hf_vanilla_transformer.data.corpus_report import CorpusReport
from hf_vanilla_transformer.data.embedded_corpus import draw_expressions
from hf_vanilla_transformer.data.text_encodings import likely_encoding

TEXTS = {
    "ko": [row.ko for row in draw_expressions("train", 20, seed=0)],
    "de": ["Zwei junge weiße Männer sind im Freien.", "Ein schöner grüner Garten.", "Übermäßig schöne Brücken."],
    "fr": ["Où est l’école ?", "J’ai mangé à midi.", "C’est très élevé."],
    "ru": ["Привет, как дела?", "Я сегодня иду в магазин за хлебом.", "Это — очень хорошая книга."],
    "el": ["Καλημέρα, τι κάνεις;", "Σήμερα πάω στο μαγαζί για ψωμί.", "Αυτό είναι ένα πολύ καλό βιβλίο."],
    "ja": ["日本語の文章です。", "今日は店にパンを買いに行きます。", "とても良い本ですが、値段が高いです。"],
    "zh": ["你好,今天天气怎么样?", "我今天去商店买面包。", "这是一本很好的书,但是价格很高。"],
    "zh-Hant": ["你好,今天天氣怎麼樣?", "我今天去商店買麵包。", "這是一本很好的書,但是價格很高。"],
}


@pytest.mark.parametrize(
    ("language", "codec", "name"),
    [
        ("ko", "euc_kr", "CP949"),
        ("ko", "cp949", "CP949"),
        ("de", "latin-1", "LATIN1"),
        ("fr", "cp1252", "CP1252"),
        ("ru", "cp1251", "CP1251"),
        ("ru", "koi8_r", "KOI8-R"),
        ("el", "iso8859_7", "CP1253"),  # the same letters
        ("ja", "cp932", "CP932"),
        ("ja", "euc_jp", "EUC-JP"),
        ("zh", "gb18030", "GB18030"),
        ("zh-Hant", "big5", "BIG5"),
        ("ko", "utf-16-be", "UTF-16BE"),
        ("ko", "utf-16-le", "UTF-16LE"),
    ],
)
def test_the_encoding_of_a_few_lines_is_recognized(language: str, codec: str, name: str) -> None:
    file = "".join(f"{text}\n" for text in TEXTS[language]).encode(codec, errors="ignore")
    assert likely_encoding(file.split(b"\n")[:-1]) == name


def test_ascii_and_arbitrary_bytes_have_no_encoding() -> None:
    assert likely_encoding([b"abc"]) is None and likely_encoding([]) is None
    assert likely_encoding([bytes(range(128, 256))]) is None


def test_a_refused_file_is_named_in_the_command_that_converts_it(tmp_path: Path) -> None:
    source, target = tmp_path / "a.en", tmp_path / "a.ko"
    source.write_text("a\n" * 20)
    target.write_bytes("".join(f"{text}\n" for text in TEXTS["ko"]).encode("cp949"))
    command = f"the text looks like CP949: convert it, e.g. with `iconv -f CP949 -t UTF-8 {target} > NEW_FILE`"
    with pytest.raises(ValueError) as caught:
        load_text_files(source, target)
    # Two of the 20 lines are numbers in digits.
    assert f"18 of 20 lines (90%) are not UTF-8, the first at {target}:1; {command}" in str(caught.value)
    with pytest.raises(ValueError, match="iconv -f CP949"):
        list(read_sentences(target, CorpusReport("text")))
    target.write_bytes("".join(f"{text}\n" for text in TEXTS["ko"]).encode("utf-16-be"))
    with pytest.raises(ValueError, match=f"iconv -f UTF-16BE -t UTF-8 {target} > NEW_FILE"):
        load_text_files(source, target)


@pytest.mark.parametrize(
    ("keep_all", "end"), [(False, "these pairs are left out"), (True, "invalid bytes are replaced by U+FFFD")]
)
def test_a_few_lines_in_another_encoding_give_a_warning_with_their_share(
    tmp_path: Path, keep_all: bool, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.de").write_bytes("grün\nschön\n".encode("latin-1") + b"gut\n" * 98)
    (tmp_path / "a.en").write_text("a\n" * 100)
    corpus = load_text_files(tmp_path / "a.de", tmp_path / "a.en", keep_all=keep_all)
    assert corpus.report.pairs_kept == (100 if keep_all else 98)
    assert (
        f"2 of 100 lines (2%) are not UTF-8, the first at {tmp_path}/a.de:1; the text looks like LATIN1 (languages of "
        f"Eastern Europe: CP1250): convert it, e.g. with `iconv -f LATIN1 -t UTF-8 {tmp_path}/a.de > NEW_FILE`; {end}"
    ) in caplog.text


def test_pairs_without_a_file_are_reported_as_well(caplog: pytest.LogCaptureFixture) -> None:
    assert load_pairs([("a", "b"), ("\udcfc", "c")], "list").report.pairs_kept == 1
    assert "1 of 2 lines (50%) are not UTF-8, the first at list pair 2; " in caplog.text and "FILE >" in caplog.text
