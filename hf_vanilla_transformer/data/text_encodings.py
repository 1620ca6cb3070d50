# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Guess the encoding of text that is not UTF-8, to name it in a message; nothing is decoded with a guess."""

import re
from collections.abc import Iterable

_SINGLE = 1.5  # mean number of neighbouring non-ASCII bytes, below which they are accented letters of Latin text
_CLEAR = 0.9  # share of the non-ASCII characters that the encoding's letters have at least
_NON_ASCII_BYTES = re.compile(rb"[\x80-\xff]+")
_C1_BYTES = re.compile(rb"[\x80-\x9f]")  # quotation marks and dashes in CP1252, control characters in Latin-1
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_KANA, _HAN = "\u3041-\u30fe", "\u4e00-\u9fff"
_EAST_ASIAN = f"{_KANA}{_HAN}\u3000-\u303f\uff01-\uff60"
# Name for iconv, codec of Python, letters, their share, further characters. The first encoding that fits is taken.
_CANDIDATES = (
    ("CP949", "cp949", "\uac00-\ud7a3", _CLEAR, "\u3000-\u303f\u2010-\u2027"),
    ("CP932", "cp932", _KANA, 0.3, _EAST_ASIAN),
    ("EUC-JP", "euc_jp", _KANA, 0.3, _EAST_ASIAN),
    ("GB18030", "gb2312", _HAN, _CLEAR - 0.15, _EAST_ASIAN + "\u2010-\u2027"),
    ("BIG5", "big5", _HAN, _CLEAR - 0.15, _EAST_ASIAN + "\u2010-\u2027\ufe30-\ufe4f"),
    ("CP1253", "cp1253", "\u0386-\u03ce", _CLEAR, "«»"),
    ("CP1251", "cp1251", "\u0410-\u044fЁёЄєІіЇїЎўЂђЈјЉљЊњЋћЏџҐґ", _CLEAR, "«»—–№"),
    ("KOI8-R", "koi8_r", "\u0410-\u044fЁё", _CLEAR, ""),
)  # fmt: skip


def likely_encoding(lines: Iterable[bytes]) -> str | None:
    """Return the likely encoding of lines that are not UTF-8, as iconv names it; None if none fits.

    Args:
        lines: some lines; the more, the surer.
    """
    lines = list(lines)
    for name, cut in (("UTF-16BE", bytes.endswith), ("UTF-16LE", bytes.startswith)):
        if sum(cut(line, b"\0") for line in lines) * 2 > len(lines):  # the other byte of each line feed
            return name
    data = b"\n".join(lines)
    runs = _NON_ASCII_BYTES.findall(data)
    if not runs:
        return None
    if sum(map(len, runs)) < _SINGLE * len(runs):
        return "CP1252" if _C1_BYTES.search(data) else "LATIN1"
    for name, codec, letters, least, others in _CANDIDATES:
        try:
            text = data.decode(codec)
        except UnicodeDecodeError:
            continue
        characters = "".join(_NON_ASCII.findall(text))
        expected = len(re.findall(f"[{letters}]", characters))
        known = len(re.findall(f"[{letters}{others}]", characters))
        upper = sum(map(str.isupper, characters))  # KOI8-R and CP1251 have capital and small letters in turn
        if expected >= least * len(characters) and known >= 0.95 * len(characters) and 2 * upper <= len(characters):
            return name
    return None


__all__ = ["likely_encoding"]
