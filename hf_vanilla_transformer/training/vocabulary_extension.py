# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Extend the vocabulary of a trained model: new tokens in its tokenizers, new rows in its embeddings.

Old tokens keep their ids, rows and logits. A new row is the mean of the rows of the tokens that it replaces.
"""

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers.utils import logging

from ..checkpoints.tokenizer_completion import rewrite_tokenizer
from ..data.subword_extension import NewSubwords, insert_subwords, learn_subwords
from ..data.tokenization import add_extra_tokens, check_extra_tokens
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers

logger = logging.get_logger(__name__)

FROM_TEXT = "text"
_MOST = 1_000_000  # new tokens; a larger number is probably a mistake
_FREQUENT = 20  # occurrences of a merged subword, where no number of new tokens is given
_WORD_START = "▁"
_LARGEST_MULTIPLE = 64  # of a padded vocabulary's size


@dataclass(frozen=True)
class ExtensionRequest:
    """The value of ``extend_vocabulary``.

    Attributes:
        size: maximum number of new subwords to learn; None learns none.
        fewest: occurrences that a merged subword must have.
        tokens: new tokens from a file.
    """

    size: int | None
    fewest: int
    tokens: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: str) -> "ExtensionRequest":
        """Read the value: a number of subwords, "text", or a file with one token per line.

        Raises:
            ValueError: If it is neither, or the file is not as it should be.
        """
        if value.lstrip("+-").isdigit():
            size = int(value)
            if not 1 <= size <= _MOST:
                raise ValueError(f"extend_vocabulary={value} is out of range; choose 1 to {_MOST:,} new subwords")
            return cls(size, fewest=2)
        if value == FROM_TEXT:
            return cls(_MOST, fewest=_FREQUENT)
        path = Path(value)
        if not path.is_file():
            raise ValueError(
                f"extend_vocabulary={value!r} is neither a number of new subwords, nor {FROM_TEXT!r}, nor a file with "
                "one token per line"
            )
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except ValueError as error:
            raise ValueError(f"{path} is not UTF-8 text; extend_vocabulary expects one token per line") from error
        tokens = tuple(line.strip() for line in lines if line.strip())
        if not tokens:
            raise ValueError(f"{path} contains no tokens; extend_vocabulary expects one token per line")
        if len(tokens) > len(set(tokens)):
            twice = next(token for token in tokens if tokens.count(token) > 1)
            raise ValueError(f"{path} contains the token {twice!r} twice")
        return cls(None, fewest=0, tokens=tokens)


# --------------------------------------------------------------------------- tokenizers


def extend_tokenizers(
    tokenizers: TranslationTokenizers,
    request: ExtensionRequest | None,
    extra_tokens: Sequence[str],
    texts: Callable[[str], Iterable[str]],
    name: str,
) -> TranslationTokenizers:
    """Return tokenizers with new tokens; the old ones keep their ids.

    Text that the old tokenizer encodes without unknown tokens, byte tokens and partial characters is encoded as before,
    unless it contains a token that was given by name.

    Args:
        tokenizers: those of the model.
        request: what to add; None adds ``extra_tokens`` only.
        extra_tokens: further special tokens, e.g. "<2de>".
        texts: returns the training text of "source", "target" or "both".
        name: the model's name, for messages.

    Raises:
        ValueError: If a tokenizer cannot be extended, or nothing was learned.
    """
    check_extra_tokens(extra_tokens)
    sides = ("source", "target") if tokenizers.separate else ("both",)
    extended, learned = [], 0
    for side in sides:
        tokenizer = tokenizers.target if side == "target" else tokenizers.source
        before = _vocabulary_end(tokenizer)
        if not tokenizer.is_fast:
            raise ValueError(
                f"the vocabulary of {name} cannot be extended: its tokenizer ({type(tokenizer).__name__}) is not a fast"
                " tokenizer"
            )
        if request is not None and request.size is not None:
            tokenizer = _with_subwords(tokenizer, request.size, request.fewest, partial(texts, side), name)
        else:
            tokenizer = rewrite_tokenizer(tokenizer, lambda content: None)  # a copy
        if request is not None and request.tokens:
            _add_words(tokenizer, request.tokens)
        add_extra_tokens(tokenizer, extra_tokens)
        learned += _vocabulary_end(tokenizer) - before
        extended.append(tokenizer)
    if not learned and not extra_tokens:
        asked = "the tokens of extend_vocabulary" if request is not None and request.tokens else "the training text"
        raise ValueError(
            f"the vocabulary of {name} already covers {asked}, so there is nothing to add; leave extend_vocabulary out"
        )
    return TranslationTokenizers(*extended)


def _with_subwords(tokenizer: Any, size: int, fewest: int, texts: Callable[[], Iterable[str]], name: str) -> Any:
    backend = tokenizer.backend_tokenizer
    try:
        learned = learn_subwords(backend, json.loads(backend.to_str()), texts(), size, fewest)
    except ValueError as error:
        raise ValueError(f"the vocabulary of {name} cannot be extended: {error}") from error
    extended = rewrite_tokenizer(tokenizer, lambda content: insert_subwords(content, learned))
    _report(tokenizer, extended, learned, texts)
    return extended


def _report(old: Any, new: Any, learned: NewSubwords, texts: Callable[[], Iterable[str]]) -> None:
    """Log the number of new subwords, and of tokens before and after in the beginning of the text."""
    sample = [text for text, _ in zip(texts(), range(2000), strict=False)]
    before, after = (
        sum(map(len, tokenizer(sample, add_special_tokens=False, verbose=False)["input_ids"])) if sample else 0
        for tokenizer in (old, new)
    )
    logger.info(
        f"extended the vocabulary by {len(learned.counts):,} subwords from the training text, to {len(new):,} tokens; "
        f"its first {len(sample):,} sentences have {after:,} tokens instead of {before:,}"
    )


def _add_words(tokenizer: Any, words: Sequence[str]) -> None:
    """Add tokens that are matched anywhere, and shown in decoded text.

    Where the tokenizer removes spaces before an added token, the token with a space before it is added as well.
    """
    known = tokenizer.get_vocab()
    new = [word for word in words if word not in known and f"{_WORD_START}{word}" not in known]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in new])
    spaced = [
        word
        for word in new
        if f" {word}" not in tokenizer.decode(tokenizer(f"a {word}")["input_ids"], skip_special_tokens=True)
    ]
    tokenizer.add_tokens([AddedToken(f" {word}", normalized=False) for word in spaced])


def _vocabulary_end(tokenizer: Any) -> int:
    """Return the id after the last one."""
    return max(tokenizer.get_vocab().values()) + 1


# --------------------------------------------------------------------------- model


@torch.no_grad()
def grow_vocabulary(model: Any, old: TranslationTokenizers, new: TranslationTokenizers) -> Any:
    """Return a copy of a model with rows for the new tokens of its tokenizers.

    The row of a new token is the mean of the rows of the tokens into which the old tokenizer splits it. All old rows
    are unchanged. A vocabulary that was padded to a multiple stays one of that multiple.

    Args:
        model: `VanillaTransformerForConditionalGeneration`.
        old: the tokenizers before the extension.
        new: the extended tokenizers.

    Raises:
        ValueError: If a tokenizer has changed the id of an old token.
    """
    sources = _pieces_of_new_tokens(old.source, new.source)
    targets = _pieces_of_new_tokens(old.target, new.target) if new.separate else sources
    config = copy.deepcopy(model.config)
    config.vocab_size = _padded_size(config.vocab_size, old.source, new.source)
    if config.decoder_vocab_size is not None:
        config.decoder_vocab_size = _padded_size(config.decoder_vocab_size, old.target, new.target)
    grown = type(model)(config).to(model.dtype)
    state = model.state_dict()
    own = grown.state_dict()
    for name, pieces, end in (
        ("model.encoder.embed_tokens.weight", sources, _vocabulary_end(old.source)),
        ("model.decoder.embed_tokens.weight", targets, _vocabulary_end(old.target)),
        ("lm_head.weight", targets, _vocabulary_end(old.target)),
        ("lm_head.bias", targets, _vocabulary_end(old.target)),
    ):
        if name in state:
            state[name] = _extended(state[name], own[name].clone(), pieces, end)
    grown.load_state_dict(state)
    grown.generation_config = copy.deepcopy(model.generation_config)
    return grown.train(model.training)


def _pieces_of_new_tokens(old: Any, new: Any) -> dict[int, list[int]]:
    """Return, for the id of each new token, the ids of the tokens into which the old tokenizer splits it."""
    before, after = old.get_vocab(), new.get_vocab()
    moved = next((token for token, index in before.items() if after.get(token) != index), None)
    if moved is not None:
        raise ValueError(f"the extended tokenizer changed the id of {moved!r}; start again from the model's tokenizer")
    added = {token.content for token in new.backend_tokenizer.get_added_tokens_decoder().values()}
    model = old.backend_tokenizer.model
    prefix = getattr(model, "continuing_subword_prefix", None) or ""
    pieces = {}
    for token, index in sorted(after.items(), key=lambda item: item[1]):
        if token in before:
            continue
        if token in added:
            ids = list(old(token, add_special_tokens=False, verbose=False)["input_ids"])
        else:
            ids = [piece.id for piece in model.tokenize(token.removeprefix(prefix))]
        pieces[index] = ids or ([] if old.unk_token_id is None else [old.unk_token_id])
    return pieces


def _padded_size(size: int, old: Any, new: Any) -> int:
    """Return the size of the grown vocabulary, a multiple of the power of two to which the old one was padded."""
    multiple = 1
    if size > _vocabulary_end(old):
        while multiple < _LARGEST_MULTIPLE and size % (2 * multiple) == 0:
            multiple *= 2
    needed = max(size, _vocabulary_end(new))
    return -(-needed // multiple) * multiple


def _extended(rows: Tensor, grown: Tensor, pieces: dict[int, list[int]], end: int) -> Tensor:
    """Copy old rows into a larger tensor and set the rows of new tokens to means.

    Args:
        rows: the old rows.
        grown: the larger tensor, freshly initialized.
        pieces: new id → old ids; the mean of all old tokens where there are none.
        end: the id after the last old token.
    """
    grown[: len(rows)] = rows
    for index, ids in pieces.items():
        grown[index] = (rows[ids] if ids else rows[:end]).float().mean(dim=0).to(rows.dtype)
    return grown


__all__ = ["FROM_TEXT", "ExtensionRequest", "extend_tokenizers", "grow_vocabulary"]
