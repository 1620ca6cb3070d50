"""The one reader of text: encodings, line ends, spaces."""

import codecs
import gzip
import io
from pathlib import Path

import pytest

from hf_vanilla_transformer.data.text_lines import (
    TextEncodingError,
    count_lines,
    decode_line,
    plain_spaces,
    read_lines,
    stream_lines,
)

TEXT = "one two\r\n둘\u2028셋 \U00010437\x85\x0c\n\nlast"
LINES = ["one two", "둘\u2028셋 \U00010437\x85\x0c", "", "last"]


def lines_of(data: bytes) -> list[bytes]:
    return list(stream_lines(io.BytesIO(data), "text"))


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
    ids=["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"],
)
def test_every_encoding_with_a_mark_gives_the_same_lines(data: bytes, tmp_path: Path) -> None:
    assert [line.decode() for line in lines_of(data)] == LINES
    (tmp_path / "t").write_bytes(data)
    (tmp_path / "t.gz").write_bytes(gzip.compress(data))
    for name in ("t", "t.gz"):
        assert [line.decode() for line in read_lines(tmp_path / name)] == LINES
        assert count_lines(tmp_path / name) == len(LINES)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (codecs.BOM_UTF8, []),
        (codecs.BOM_UTF16_LE, []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\rb\r", [b"a", b"b"]),  # no line feed anywhere
        (b"a\rb\nc\r", [b"a\rb", b"c"]),
        (codecs.BOM_UTF8 + b"a\rb", [b"a", b"b"]),
        (b"a\n" + codecs.BOM_UTF8 + b"b\n", [b"a", b"b"]),  # two files with marks, joined
        (codecs.BOM_UTF16_LE + "a\rb".encode("utf-16-le"), [b"a", b"b"]),
        (b"nul\0\n\xff\n", [b"nul\0", b"\xff"]),
        (codecs.BOM_UTF16_LE + b"a\0\n\0" + b"b\0\x00\xd8c\0" + b"d", [b"a", b"b\xffc\xff"]),  # half a pair, a cut
    ],
)
def test_odd_ends_and_bytes(data: bytes, lines: list[bytes], tmp_path: Path) -> None:
    assert lines_of(data) == lines
    (tmp_path / "t").write_bytes(data)
    assert count_lines(tmp_path / "t") == len(lines)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["Hi\nyou\n", "안녕 하세요 여러 분\n"])
def test_two_or_four_bytes_a_character_without_a_mark_are_refused(text: str, encoding: str) -> None:
    with pytest.raises(TextEncodingError, match="text looks like UTF-16 or UTF-32 without a byte order mark"):
        lines_of(text.encode(encoding))


def test_a_line_is_answered_before_the_next_one_comes() -> None:
    class Terminal(io.BytesIO):
        def read(self, *_):
            raise AssertionError("a block was waited for")

    assert next(stream_lines(Terminal(b"one\ntwo\n"), "text")) == b"one"


def test_bad_bytes_are_replaced_and_told() -> None:
    assert decode_line("둘\u00a0셋".encode()) == ("둘 셋", True)
    assert decode_line(b"gr\xfcn") == ("gr\ufffdn", False)


def test_spaces_become_ordinary_one_for_one() -> None:
    assert plain_spaces("a\u00a0b\u3000\u2003c") == "a b  c"
    kept = "a\tb\u200bc\u2028d\ufeffe\u00ad"
    assert plain_spaces(kept) == kept
