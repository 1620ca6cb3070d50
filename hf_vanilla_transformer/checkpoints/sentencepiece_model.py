# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read a SentencePiece model file and build a fast tokenizer with the same pieces and ids.

The file is a Protocol Buffers message of three parts: pieces, trainer settings and normalizer settings. Its format is
simple enough to read here, so neither sentencepiece nor protobuf has to be installed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_WORD_START = "▁"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # types of pieces
_UNIGRAM, _BPE = 1, 2
_MODEL_TYPES = {3: "word", 4: "char"}
# Field numbers of TrainerSpec and NormalizerSpec in sentencepiece_model.proto.
_MODEL_TYPE, _SUFFIX, _BYTE_FALLBACK = 3, 24, 35
_SPECIAL_IDS = {"unk_token": (40, 0), "bos_token": (41, 1), "eos_token": (42, 2), "pad_token": (43, -1)}
_CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES = 2, 3, 4


@dataclass(frozen=True)
class Piece:
    """A piece: its text, its score (a log-probability, or for BPE minus its rank), and its type."""

    text: str
    score: float
    type: int


def read_sentencepiece(path: str | Path, name: str | None = None) -> PreTrainedTokenizerFast:
    """Read a SentencePiece model of type BPE or unigram as a fast tokenizer.

    Control pieces are special tokens, which are recognized in text, unlike in SentencePiece. User-defined pieces are
    added tokens. Nothing is appended to a sentence, as in SentencePiece.

    Args:
        path: the file.
        name: its name in messages; None: the path.

    Raises:
        ValueError: If it is not a SentencePiece model, or one of another type.
    """
    path, name = Path(path), str(name or path)
    try:
        pieces, trainer, normalizer = _read_file(path.read_bytes())
    except (ValueError, struct.error, IndexError) as error:
        raise ValueError(f"{name} is not a SentencePiece model ({error})") from error
    if not pieces:
        raise ValueError(f"{name} is not a SentencePiece model (it has no pieces)")
    kind = _integer(trainer, _MODEL_TYPE, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        raise ValueError(
            f"{name} is a SentencePiece model of type {_MODEL_TYPES.get(kind, kind)}; train it with "
            "model_type=unigram or bpe"
        )
    if _integer(trainer, _SUFFIX, 0):
        raise ValueError(f"{name} marks the ends of words (treat_whitespace_as_suffix); train it without that option")
    texts = [piece.text for piece in pieces]
    if len(set(texts)) < len(texts):
        raise ValueError(f"{name} contains a piece twice; a vocabulary lists each piece once")
    tokenizer = Tokenizer(_build_model(pieces, trainer, kind))
    spaces, prefix = _integer(normalizer, _REMOVE_SPACES, 1), _integer(normalizer, _DUMMY_PREFIX, 1)
    _set_pipeline(tokenizer, normalizer.get(_CHARSMAP, b""), bool(spaces), bool(prefix))
    named = {
        token: texts[index]
        for token, (field, default) in _SPECIAL_IDS.items()
        if 0 <= (index := _integer(trainer, field, default)) < len(pieces)
        and pieces[index].type in (_CONTROL, _UNKNOWN, _USER_DEFINED)
    }
    control = [piece.text for piece in pieces if piece.type == _CONTROL and piece.text not in named.values()]
    tokenizer.add_tokens([AddedToken(piece.text, normalized=False) for piece in pieces if piece.type == _USER_DEFINED])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{token: AddedToken(text, special=True, normalized=False) for token, text in named.items()},
        extra_special_tokens=control,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _build_model(pieces: list[Piece], trainer: dict[int, bytes | int], kind: int) -> models.Model:
    unknown = next((index for index, piece in enumerate(pieces) if piece.type == _UNKNOWN), None)
    by_bytes = bool(_integer(trainer, _BYTE_FALLBACK, 0))
    if kind == _UNIGRAM:
        lowest = min(piece.score for piece in pieces)
        # Control, unused and byte pieces don't take part in the search for the best split.
        scored = [(piece.text, piece.score if piece.type == _NORMAL else lowest) for piece in pieces]
        return models.Unigram(scored, unk_id=unknown, byte_fallback=by_bytes)
    return models.BPE(
        vocab={piece.text: index for index, piece in enumerate(pieces)},
        merges=_merges(pieces),
        unk_token=None if unknown is None else pieces[unknown].text,
        fuse_unk=True,
        byte_fallback=by_bytes,
    )


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Return the pairs of pieces whose concatenation is a piece, in the order in which SentencePiece merges them."""
    scores = {piece.text: piece.score for piece in pieces if piece.type == _NORMAL}
    merges = [
        (-score, text[:place], text[place:])
        for text, score in scores.items()
        for place in range(1, len(text))
        if text[:place] in scores and text[place:] in scores
    ]
    return [(left, right) for _, left, right in sorted(merges, key=lambda merge: merge[0])]


def _set_pipeline(tokenizer: Tokenizer, charsmap: bytes | int, remove_spaces: bool, dummy_prefix: bool) -> None:
    """Set the normalizer, the split into words, and the decoder."""
    steps: list[normalizers.Normalizer] = []
    if charsmap and isinstance(charsmap, bytes):
        steps.append(normalizers.Precompiled(charsmap))
    if remove_spaces:  # the word start is not doubled at the beginning of a text, which thus may keep one space
        steps += [normalizers.Strip(left=not dummy_prefix, right=True), normalizers.Replace(Regex(" {2,}"), " ")]
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=_WORD_START, prepend_scheme="first" if dummy_prefix else "never"
    )
    decoding = [decoders.Replace(_WORD_START, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*decoding, *([decoders.Strip(" ", 1, 0)] if dummy_prefix else [])])


# --------------------------------------------------------------------------- Protocol Buffers


def _read_file(data: bytes) -> tuple[list[Piece], dict[int, bytes | int], dict[int, bytes | int]]:
    """Return the pieces, the trainer's fields and the normalizer's fields."""
    pieces, parts = [], {2: b"", 3: b""}
    for number, value in _fields(data):
        if number == 1:
            if not isinstance(value, bytes):
                raise ValueError("its pieces are no messages")
            piece = dict(_fields(value))
            text, score = piece.get(1, b""), piece.get(2, b"\0\0\0\0")
            if not isinstance(text, bytes) or not isinstance(score, bytes):
                raise ValueError("a piece has no text or score")
            pieces.append(Piece(text.decode("utf-8"), struct.unpack("<f", score)[0], _integer(piece, 3, _NORMAL)))
        elif number in parts and isinstance(value, bytes):
            parts[number] += value  # a message that is given twice is merged
    return pieces, dict(_fields(parts[2])), dict(_fields(parts[3]))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield number and value of each field of a message: an integer, or the bytes of any other type.

    Raises:
        ValueError: If the message is truncated or malformed.
    """
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire_type == 2:
            length, place = _varint(data, place)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} is unknown")
        if place + length > len(data):
            raise ValueError("a field ends after the file")
        yield number, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the integer at a place, and the place after it."""
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("an integer is not terminated")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _integer(fields: dict[int, bytes | int], number: int, default: int) -> int:
    """Return a field of type int32, bool or enum."""
    value = fields.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"field {number} is no integer")
    return value - 2**64 if value >= 2**63 else value  # negative numbers are stored in 64 bits


__all__ = ["Piece", "read_sentencepiece"]
