# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Learn subwords that a trained tokenizer lacks, and insert them into its model.

A text is split badly where a character is in no piece of the vocabulary, so that it is unknown or encoded as bytes, or,
with byte-level BPE, where a piece ends within a character. Every new subword contains such a place. Text without one
therefore keeps its token ids exactly.

New subwords are learned by byte-pair encoding on top of the old split and become pieces of the model itself. Added
tokens (``add_tokens``) would not keep the spaces around them.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tokenizers import pre_tokenizers
from tokenizers.models import Model

_WORD_START = "▁"
_FEWEST = 2  # occurrences of a subword that is learned
_MODELS = ("BPE", "Unigram", "WordPiece")

Merge = tuple[str, str]


@dataclass
class NewSubwords:
    """Subwords to insert into a tokenizer's model.

    Attributes:
        counts: new piece → number of its occurrences when it was learned, in the order of the new ids.
        merges: the pairs of pieces that make them; single characters need none.
        total: number of tokens of the text, to which the counts relate.
    """

    counts: dict[str, int] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    total: int = 1


def learn_subwords(backend: Any, content: dict[str, Any], texts: Iterable[str], size: int, fewest: int) -> NewSubwords:
    """Learn subwords from the words that a tokenizer splits badly.

    Args:
        backend: the `tokenizers.Tokenizer`.
        content: its tokenizer.json.
        texts: training text.
        size: maximum number of new pieces.
        fewest: occurrences below which no pieces are merged.

    Raises:
        ValueError: If the tokenizer's model cannot be extended.
    """
    kind = _check_model(content)
    vocabulary = content["model"]["vocab"]
    pieces = [piece for piece, _ in vocabulary] if kind == "Unigram" else list(vocabulary)
    words, total = _count_words(backend, texts)
    learned = NewSubwords(total=total)
    if _is_byte_level(content):
        split: list[tuple[list[str | None], int]] = []
        fresh = {piece for piece in pieces if not _is_complete(piece)}
        for word, count in words.items():
            symbols = [token.value for token in backend.model.tokenize(word)]
            if fresh.intersection(symbols):
                split.append((list(symbols), count))
        _merge(split, fresh, set(pieces), learned, size, fewest, lambda left, right: left + right)
        return learned
    prefix = content["model"].get("continuing_subword_prefix", "##") if kind == "WordPiece" else ""
    known = {character for piece in pieces if not _is_byte(piece) for character in piece.removeprefix(prefix)}
    known |= set(_WORD_START)
    new = Counter[str]()
    for word, count in words.items():
        for place, character in enumerate(word):
            if character not in known:
                new[prefix + character if place else character] += count
    for piece, count in sorted(new.items(), key=lambda item: (-item[1], item[0])):
        if count >= _FEWEST and len(learned.counts) < size:
            learned.counts[piece] = count
    fresh = set(learned.counts)
    initial = _wordpiece_symbols(prefix) if kind == "WordPiece" else _symbols(backend.model, known)
    split = [
        (symbols, count)
        for word, count in words.items()
        if not known.issuperset(word) and fresh.intersection(symbols := initial(word, fresh))
    ]
    join = (lambda left, right: left + right.removeprefix(prefix)) if prefix else (lambda left, right: left + right)
    _merge(split, fresh, set(pieces), learned, size, fewest, join)
    return learned


def insert_subwords(content: dict[str, Any], learned: NewSubwords) -> None:
    """Insert subwords into the content of a tokenizer.json; their ids follow all others."""
    model, kind = content["model"], content["model"]["type"]
    # Added tokens are outside the model. They are entered there as well, because ids must not have gaps; they are
    # matched before the model sees a text, so this changes no split.
    added = {token["id"]: token["content"] for token in content.get("added_tokens", ())}
    if kind == "Unigram":
        vocabulary = model["vocab"]
        lowest = min(score for _, score in vocabulary)  # no new score is lower: it sets the score of the unknown token
        last = max([len(vocabulary) - 1, *added])
        vocabulary += [[added.get(index, f"<unused {index}>"), lowest] for index in range(len(vocabulary), last + 1)]
        vocabulary += [[piece, max(lowest, math.log(count / learned.total))] for piece, count in learned.counts.items()]
        return
    vocabulary = model["vocab"]
    vocabulary |= {token: index for index, token in added.items() if token not in vocabulary}
    last = max(vocabulary.values())
    vocabulary |= {piece: last + place for place, piece in enumerate(learned.counts, start=1)}
    if kind == "BPE":
        as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
        model["merges"] += [" ".join(merge) if as_text else list(merge) for merge in learned.merges]


def _check_model(content: dict[str, Any]) -> str:
    model = content["model"]
    if model.get("type") not in _MODELS:
        raise ValueError(f"its model is {model.get('type')}, and only BPE, unigram and WordPiece can be extended")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model["type"] == "BPE" and model.get(name):
            raise ValueError(f"its BPE pieces mark the place in the word ({name} {model[name]!r})")
    return model["type"]


def _count_words(backend: Any, texts: Iterable[str]) -> tuple[Counter[str], int]:
    """Return the words that the model sees with their frequencies, and an estimate of the number of tokens."""
    words = Counter[str]()
    for text in texts:
        normalized = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
        if backend.pre_tokenizer is None:
            words[normalized] += 1
        else:
            words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized))
    return words, max(1, sum(len(word) * count for word, count in words.items()) // 3)


def _symbols(model: Model, known: set[str]) -> Callable[[str, set[str]], list[str | None]]:
    """Return a function that splits a word into old pieces and new characters; None is a place that stays unknown."""

    def split(word: str, fresh: set[str]) -> list[str | None]:
        symbols: list[str | None] = []
        run = ""
        for character in [*word, ""]:
            if character and character in known:
                run += character
                continue
            if run:
                tokens = [token.value for token in model.tokenize(run)]
                symbols += tokens if "".join(tokens) == run else [None]
                run = ""
            if character:
                symbols.append(character if character in fresh else None)
        return symbols

    return split


def _wordpiece_symbols(prefix: str) -> Callable[[str, set[str]], list[str | None]]:
    def split(word: str, fresh: set[str]) -> list[str | None]:
        return [prefix + character if place else character for place, character in enumerate(word)]

    return split


def _merge(
    words: list[tuple[list[str | None], int]],
    fresh: set[str],
    pieces: set[str],
    learned: NewSubwords,
    size: int,
    fewest: int,
    join: Callable[[str, str], str],
) -> None:
    """Merge the most frequent pair again and again, as long as one of the two is new or ends within a character."""

    def may_merge(left: str | None, right: str | None) -> bool:
        if left is None or right is None or right.startswith(_WORD_START):
            return False
        return left in fresh or right in fresh

    counts = Counter[Merge]()
    places: defaultdict[Merge, set[int]] = defaultdict(set)

    def add(index: int, sign: int) -> set[Merge]:
        symbols, count = words[index]
        changed = set()
        for left, right in zip(symbols, symbols[1:], strict=False):
            if left is not None and right is not None and may_merge(left, right):
                counts[left, right] += sign * count
                places[left, right].add(index)
                changed.add((left, right))
        return changed

    for index in range(len(words)):
        add(index, 1)
    heap = [(-count, *pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    while heap and len(learned.counts) < size:
        negative, left, right = heapq.heappop(heap)
        pair, count = (left, right), counts[left, right]
        if -negative != count:  # an old entry of the heap
            continue
        if count < max(fewest, _FEWEST):
            break
        piece = join(left, right)
        learned.merges.append(pair)
        if piece not in pieces:  # several pairs may make one piece
            learned.counts[piece] = learned.counts.get(piece, 0) + count
            fresh.add(piece)
        changed: set[Merge] = set()
        for index in sorted(places[pair]):
            symbols = words[index][0]
            changed |= add(index, -1)
            symbols[:] = _joined(symbols, pair, piece)
            changed |= add(index, 1)
        for other in changed:
            if counts[other] > 0:
                heapq.heappush(heap, (-counts[other], *other))


def _joined(symbols: list[str | None], pair: Merge, piece: str) -> list[str | None]:
    """Replace each occurrence of the pair, from left to right, by the piece."""
    result: list[str | None] = []
    place = 0
    while place < len(symbols):
        if tuple(symbols[place : place + 2]) == pair:
            result.append(piece)
            place += 2
        else:
            result.append(symbols[place])
            place += 1
    return result


# --------------------------------------------------------------------------- bytes


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _is_byte_level(content: dict[str, Any]) -> bool:
    step = content.get("pre_tokenizer")
    steps = [] if step is None else step.get("pretokenizers", [step])
    return content["model"]["type"] == "BPE" and any(step.get("type") == "ByteLevel" for step in steps)


def _byte_characters() -> dict[str, int]:
    """Return the byte of each character of byte-level BPE's alphabet: printable bytes are themselves (GPT-2)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_characters()
assert set(_BYTES) == set(pre_tokenizers.ByteLevel.alphabet())


def _is_complete(piece: str) -> bool:
    """Return whether a piece of byte-level BPE consists of complete characters; other tokens count as complete."""
    if not _BYTES.keys() >= set(piece):
        return True
    try:
        bytes(_BYTES[character] for character in piece).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


__all__ = ["NewSubwords", "insert_subwords", "learn_subwords"]
