# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read lines of text. The package reads all its text files and streams with these functions.

- A byte order mark defines the encoding: UTF-8, or UTF-16 or UTF-32 in either byte order. Without one, text is UTF-8.
  Text that looks like UTF-16 or UTF-32 without a mark is an error, since a guessed byte order could be wrong.
- "\\n" and "\\r\\n" end a line. "\\r" ends a line only if the text has no "\\n". No other character does: Python's
  `str.splitlines` also splits at U+2028, U+0085, form feed and others, and one of these inside a sentence would
  misalign all following pairs.
- Lines are yielded as UTF-8 bytes, so that the caller decides how to handle invalid text: `corpora` leaves out the pair
  and counts it, `decode_line` replaces invalid bytes by U+FFFD.
- `plain_spaces` replaces Unicode spaces, such as U+00A0 between words, by ordinary ones.
"""

import codecs
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_BLOCK = 2**20  # bytes read at a time
_HEAD = 4096  # bytes that are searched for signs of an encoding without a mark
_UTF_8_MARK = codecs.BOM_UTF8
_MARKS = (  # UTF-32 first: its little-endian mark starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")  # Unicode category Zs without U+0020


class TextEncodingError(ValueError):
    """Raised for text in an encoding that can't be read."""


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, ``.gz`` decompressed, as UTF-8 bytes without line ends.

    Raises:
        ValueError: If the file is not text, has the suffix ``.gz`` but is not compressed, or is truncated.
    """
    with _opened(path) as stream:
        yield from stream_lines(stream, str(path))


def stream_lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of a binary stream as UTF-8 bytes without line ends, each as soon as it is complete.

    Args:
        stream: a file opened for bytes, or standard input's buffer.
        name: of the stream, for messages.

    Raises:
        TextEncodingError: If it looks like UTF-16 or UTF-32 without a byte order mark.
    """
    first = stream.readline()  # not a block, so that input from a terminal is processed line by line
    encoding = next((encoding for mark, encoding in _MARKS if first.startswith(mark)), None)
    lines: Iterator[bytes] = iter(stream)
    if encoding is None:
        _check_unmarked(first, name)
    else:
        lines = iter(_Transcoded(first, stream, encoding).readline, b"")
        first = next(lines, b"")
    first = first.removeprefix(_UTF_8_MARK)
    if not first:
        return
    if b"\r" in first and not first.endswith(b"\n"):  # no "\n" in the text
        yield from first.removesuffix(b"\r").split(b"\r")
        return
    yield first.removesuffix(b"\n").removesuffix(b"\r")
    for line in lines:
        # A mark at the start of a later line is from concatenated files and not part of the text either.
        yield line.removesuffix(b"\n").removesuffix(b"\r").removeprefix(_UTF_8_MARK)


def count_lines(path: Path) -> int:
    """Count the lines that `read_lines` yields, faster for UTF-8 without a byte order mark."""
    with _opened(path) as stream:
        block = stream.read(_BLOCK)
        if b"\n" in block and not block.startswith(tuple(mark for mark, _ in _MARKS)):
            count, last = 0, b""
            while block:
                count, last = count + block.count(b"\n"), block
                block = stream.read(_BLOCK)
            return count + (not last.endswith(b"\n"))
    return sum(1 for _ in read_lines(path))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            yield stream  # type: ignore[misc]
    except gzip.BadGzipFile as error:
        raise ValueError(f"{path} has the suffix .gz but isn't compressed with gzip") from error
    except EOFError as error:
        raise ValueError(f"{path} is truncated: its compressed data ends early") from error


def decode_line(line: bytes) -> tuple[str, bool]:
    """Decode a line to text with ordinary spaces; return whether it was valid UTF-8. U+FFFD replaces invalid bytes.

    Args:
        line: from `read_lines` or `stream_lines`.
    """
    try:
        return plain_spaces(line.decode()), True
    except UnicodeDecodeError:
        return plain_spaces(line.decode(errors="replace")), False


def read_valid_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file that decides about the result, in which no character may be guessed.

    Raises:
        ValueError: If the file is not text, or a line is not UTF-8.
    """
    for number, line in enumerate(read_lines(path), start=1):
        text, valid = decode_line(line)
        if not valid:
            raise ValueError(f"{path}:{number} is not UTF-8 text; convert the file, as with iconv -f LATIN1 -t UTF-8")
        yield text


def plain_spaces(text: str) -> str:
    """Replace no-break, ideographic and other Unicode spaces by U+0020, one by one.

    They separate words like an ordinary space, but a vocabulary trained on ordinary text has no token for them, and the
    words next to them would be split into rare tokens. Tabs, line separators and zero-width characters are kept.
    """
    return text if text.isascii() else _SPACES.sub(" ", text)


def _check_unmarked(first: bytes, name: str) -> None:
    """Raise an error if the zero bytes of the first line show UTF-16, UTF-32, or binary data."""
    head = first[:_HEAD]
    even, odd = (sum(not byte for byte in head[parity::2]) for parity in (0, 1))
    zeros, one_sided = even + odd, not (even and odd)
    # In English, every second byte is zero; in other scripts, only those of spaces and digits.
    utf_16 = one_sided and zeros >= 2 and (zeros * 4 >= len(head) or _decodes_as_utf_16(head, little_endian=not even))
    if utf_16 or (zeros >= 3 and zeros * 2 >= len(head)):
        raise TextEncodingError(
            f"{name} looks like UTF-16 or UTF-32 without a byte order mark, or is not text; convert it to UTF-8 first, "
            f"e.g. with `iconv -f UTF-16{'BE' if even else 'LE'} -t UTF-8 {name} > NEW_FILE`"
        )


def _decodes_as_utf_16(head: bytes, little_endian: bool) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-16-le" if little_endian else "utf-16-be")().decode(head)
    except UnicodeDecodeError:
        return False
    return sum(character.isalnum() or character.isspace() for character in text) * 2 > len(text)


class _Transcoded:
    """Reads a stream of UTF-16 or UTF-32 as UTF-8. Invalid parts become the byte 0xFF, which is invalid in UTF-8."""

    def __init__(self, first: bytes, stream: IO[bytes], encoding: str) -> None:
        self._stream, self._start = stream, first
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_ERRORS)
        self._ready = io.BytesIO()
        self._ended = False

    def readline(self) -> bytes:
        """Return the next line with its line end, or b"" after the last one."""
        parts = []
        while True:
            part = self._ready.readline()
            parts.append(part)
            if part.endswith(b"\n") or (not part and self._ended):
                return b"".join(parts)
            if not part:
                self._fill()

    def _fill(self) -> None:
        # `read1` returns the available data; `read` from a pipe would wait until a block is complete.
        read = getattr(self._stream, "read1", self._stream.read)
        data, self._start = self._start or read(_BLOCK), b""
        self._ended = not data
        text = self._decoder.decode(data, final=self._ended)
        self._ready = io.BytesIO(text.removeprefix("\ufeff").encode(errors="surrogateescape"))


_ERRORS = "vanilla_transformer_mark"


def _mark_error(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end  # `surrogateescape` writes it as the byte 0xFF


codecs.register_error(_ERRORS, _mark_error)


__all__ = [
    "TextEncodingError",
    "count_lines",
    "decode_line",
    "plain_spaces",
    "read_lines",
    "read_valid_lines",
    "stream_lines",
]
