# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Which whitespace-separated words of a text each subword token belongs to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..model.tokenizers_vanilla_transformer import Span, TranslationTokenizers

_WORD = re.compile(r"\S+")
_WORD_START = "▁"  # prefix of the first token of a word in SentencePiece


@dataclass(frozen=True)
class TokenizedText:
    """A text as token ids, and the words of each token.

    Attributes:
        ids: the token ids, with the EOS token.
        words: for each token, the words that it has characters of, counted from 0; none for a special token. A token
            inside a word has one.
        size: number of words.
    """

    ids: list[int]
    words: list[range]
    size: int


def tokenize_words(
    tokenizers: TranslationTokenizers, side: str, texts: Sequence[str], tag: str = ""
) -> list[TokenizedText]:
    """Encode texts and find the words of each token.

    Args:
        tokenizers: the tokenizers of a model.
        side: "source" or "target".
        texts: sentences.
        tag: put before each text; its words are not counted.

    Raises:
        ValueError: If the tokenizer is neither a fast one nor a SentencePiece one.
    """
    if tag:
        tagged = tokenize_words(tokenizers, side, [f"{tag} {text}" for text in texts])
        return [_without_first_words(text, len(tag.split())) for text in tagged]
    words = [[found.span() for found in _WORD.finditer(text)] for text in texts]
    tokenizer: Any = getattr(tokenizers, side)
    if getattr(tokenizer, "is_fast", False):
        rows, offsets = tokenizers.encode_with_offsets(side, texts)
        special = _special_ids(tokenizer)
        return [
            TokenizedText(
                ids,
                [
                    range(0) if index in special else _words_of_span(span, spans)
                    for index, span in zip(ids, of_tokens, strict=True)
                ],
                len(spans),
            )
            for ids, of_tokens, spans in zip(rows, offsets, words, strict=True)
        ]
    rows = tokenizers.encode_sources(texts) if side == "source" else tokenizers.encode_targets(texts)
    return [
        TokenizedText(ids, _words_of_pieces(tokenizer, ids, len(spans)), len(spans))
        for ids, spans in zip(rows, words, strict=True)
    ]


def _without_first_words(text: TokenizedText, number: int) -> TokenizedText:
    """Count words from a later one on; tokens of the words before it belong to none."""
    words = [range(max(0, of_token.start - number), max(0, of_token.stop - number)) for of_token in text.words]
    return TokenizedText(text.ids, words, text.size - number)


def _special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of tokens without characters."""
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def _words_of_span(token: Span, words: list[Span]) -> range:
    """Return the words that share characters with a token; of white space, the word after it."""
    start, end = token
    found = [index for index, word in enumerate(words) if word[0] < end and word[1] > start]
    if found:
        return range(found[0], found[-1] + 1)
    after = next((index for index, word in enumerate(words) if word[0] >= end), len(words) - 1)
    return range(after, after + 1) if words else range(0)


def _words_of_pieces(tokenizer: Any, ids: list[int], size: int) -> list[range]:
    """Return the word of each SentencePiece token: a word begins where a token begins with "▁"."""
    special = _special_ids(tokenizer)
    pieces = tokenizer.convert_ids_to_tokens(ids)
    if not any(piece.startswith(_WORD_START) for piece, index in zip(pieces, ids, strict=True) if index not in special):
        raise ValueError("this tokenizer does not mark where words begin; load a fast tokenizer")
    words, word = [], -1
    for piece, index in zip(pieces, ids, strict=True):
        if index in special or size == 0:
            words.append(range(0))
            continue
        word += piece.startswith(_WORD_START) or word < 0
        place = min(word, size - 1)  # normalization may have split a word
        words.append(range(place, place + 1))
    return words


__all__ = ["TokenizedText", "tokenize_words"]
