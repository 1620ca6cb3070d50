# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The tokenizers of source and target as one object.

There are three cases: one tokenizer with a shared vocabulary; one tokenizer that encodes targets differently, by
``text_target=`` (Marian's two SentencePiece models, language codes); and two separate tokenizers, of which the target's
is in the folder ``target_tokenizer`` of the checkpoint.
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

logger = logging.get_logger(__name__)

_MAX_TAGS_LISTED = 20  # in an error
_LANGUAGE_TAG = re.compile(r"<2[\w-]+>")

Span = tuple[int, int]  # first character, and one past the last

TARGET_TOKENIZER = "target_tokenizer"  # folder in the checkpoint, if source and target have separate vocabularies
MANY_UNKNOWN = 0.01  # fraction of unknown ids above which the tokenizer probably does not fit the text

_LEAD = "a"  # a word before a phrase, to encode the phrase as inside a sentence
_NAMED_SPECIAL_TOKENS = ("pad_token", "bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token")


class TranslationTokenizers:
    """The tokenizers of a translation model: encodes sources and targets, and decodes translations.

    Each encoded sentence ends with the EOS token. It is appended if the tokenizer does not append it, because a model
    never learns to stop without EOS tokens in the labels. A BOS token at the beginning of a target is removed: the
    decoder start token replaces it, and beam search never generates it.

    Trainer accepts this object as ``processing_class`` and saves both tokenizers.

    Attributes:
        source: the source tokenizer.
        target: the target tokenizer; the same object as ``source`` if there is only one.
        separate: whether there is a separate target tokenizer, which is saved in its own folder.
    """

    def __init__(self, source: Any, target: Any = None) -> None:
        """Combine a source and a target tokenizer.

        Args:
            source: a Hugging Face tokenizer, or a `TranslationTokenizers`.
            target: the target tokenizer if the vocabularies are separate; None uses ``source`` for both sides.

        Raises:
            ValueError: If a tokenizer has no EOS token.
        """
        if isinstance(source, TranslationTokenizers):
            source, target = source.source, source.target if target is None and source.separate else target
        self.source: Any = source
        self.target: Any = source if target is None else target
        self.separate = target is not None
        for tokenizer, side in ((self.source, "source"), (self.target, "target")):
            if tokenizer.eos_token_id is None:
                raise ValueError(
                    f"the {side} tokenizer has no eos_token, without which translations don't end; add one with "
                    'tokenizer.add_special_tokens({"eos_token": "</s>"})'
                )
            _warn_of_split_special_tokens(tokenizer)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, target_tokenizer: Any = None) -> "TranslationTokenizers":
        """Return the tokenizers of a model, after checking that they fit it.

        Args:
            model: any object with a ``config``. If its ``decoder_vocab_size`` is not None, the target tokenizer is
                loaded from its ``name_or_path``.
            tokenizer: the source tokenizer, or both.
            target_tokenizer: the target tokenizer; None loads it from the folder ``target_tokenizer`` if needed.

        Raises:
            ValueError: If a tokenizer is missing or does not fit the model.
        """
        config = model.config
        given = isinstance(tokenizer, TranslationTokenizers) and tokenizer.separate
        if target_tokenizer is None and not given and config.decoder_vocab_size is not None:
            target_tokenizer = load_target_tokenizer(model)
        tokenizers = cls(tokenizer, target_tokenizer)
        tokenizers.check_fit(config)
        return tokenizers

    def check_fit(self, config: Any) -> None:
        """Check that the tokenizers fit a model; see `check_tokenizer_fits`.

        Raises:
            ValueError: If a tokenizer does not fit.
        """
        check_tokenizer_fits(self.source, config)
        if self.separate:
            check_tokenizer_fits(self.target, config, "target")

    def language_tags(self) -> list[str]:
        """Return the tags of languages, such as "<2de>", among the added tokens of the source vocabulary."""
        return sorted(token for token in self.source.get_added_vocab() if _LANGUAGE_TAG.fullmatch(token))

    def check_source_tag(self, source_tag: str) -> None:
        """Check that each word of a tag is a token of the source vocabulary.

        Raises:
            ValueError: If one is not; it would be split into subwords that the model was not trained with.
        """
        if not isinstance(source_tag, str):
            raise ValueError(f"source_tag={source_tag!r} is not a string; give a tag such as '<2de>'")
        vocabulary = self.source.get_vocab() if source_tag.split() else {}
        for word in source_tag.split():
            if word not in vocabulary:
                standard = {getattr(self.source, f"{name}_token", None) for name in ("pad", "bos", "eos", "unk")}
                known = [token for token in self.source.get_added_vocab() if token not in standard]
                has = f"it has {', '.join(known[:_MAX_TAGS_LISTED])}" if known else "it has no tags"
                raise ValueError(f"source_tag: {word!r} is not a token of the model's vocabulary; {has}")

    def difference(self, other: "TranslationTokenizers") -> str | None:
        """Return what differs between two models' tokenizers, e.g. "target vocabularies"; None if nothing does."""
        for side in ("source", "target"):
            ours, theirs = getattr(self, side), getattr(other, side)
            if ours.get_vocab() != theirs.get_vocab():
                return f"{side} vocabularies"
            if _rules(ours) != _rules(theirs):
                return f"{side} tokenizers"
        return None

    # ------------------------------------------------------------------ ids

    @property
    def pad_token_id(self) -> int | None:
        """Id of padding, which is the same on both sides."""
        return self.source.pad_token_id

    @property
    def eos_token_id(self) -> int:
        """Id of the EOS token, which is the same on both sides."""
        return self.source.eos_token_id

    @property
    def padding_side(self) -> str:
        """Side on which sources are padded, "left" or "right"."""
        return getattr(self.source, "padding_side", "right")

    @property
    def model_input_names(self) -> list[str]:
        """Model inputs that the source tokenizer returns; read by Trainer."""
        return self.source.model_input_names

    def __len__(self) -> int:
        """Return the size of the source's vocabulary."""
        return len(self.source)

    # ------------------------------------------------------------------ text → ids → text

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each source, with the EOS token."""
        return self._encode("source", texts)["input_ids"]

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each target, with the EOS token and without a BOS token: the labels."""
        return self._encode("target", texts)["input_ids"]

    def encode_prefixes(self, prefixes: Sequence[str]) -> list[list[int]]:
        """Return the token ids of the beginning of each target, without EOS; [] for a blank one.

        White space at the end is left out: most vocabularies have it at the start of the next token.
        """
        encoded = self.encode_targets([prefix.rstrip() for prefix in prefixes])
        return [ids[:-1] if prefix.strip() else [] for prefix, ids in zip(prefixes, encoded, strict=True)]

    def encode_phrases(self, phrases: Sequence[str]) -> list[list[list[int]]]:
        """Return the token ids of each phrase of a target: after another word, and at the beginning where they differ.

        Byte-level vocabularies, for example, have a space in the first token of a word, except at the beginning.
        """
        if not phrases:
            return []
        lead = self.encode_targets([_LEAD])[0][:-1]
        alone = [ids[:-1] for ids in self.encode_targets([phrase.strip() for phrase in phrases])]
        following = [ids[:-1] for ids in self.encode_targets([f"{_LEAD} {phrase.strip()}" for phrase in phrases])]
        encoded = []
        for at_start, with_lead in zip(alone, following, strict=True):
            inside = with_lead[len(lead) :] if with_lead[: len(lead)] == lead else at_start
            encoded.append([inside] if inside == at_start else [inside, at_start])
        return encoded

    def encode_banned(self, phrases: Iterable[str]) -> list[list[int]]:
        """Return the token ids of words and phrases that are to be banned, for ``bad_words_ids``.

        Raises:
            ValueError: If ``phrases`` is one string.
        """
        if isinstance(phrases, str):
            raise ValueError(f"banned={phrases!r} is one string; give a list of words or phrases")
        encoded = self.encode_phrases([phrase for phrase in phrases if phrase.strip()])
        return [list(ids) for ids in dict.fromkeys(tuple(ids) for variants in encoded for ids in variants)]

    def encode_with_offsets(self, side: str, texts: Sequence[str]) -> tuple[list[list[int]], list[list[Span]]]:
        """Encode texts and return the characters that each token covers.

        Args:
            side: "source" or "target".
            texts: sentences.

        Returns:
            The token ids as `encode_sources` and `encode_targets` return them, and the span of characters of each
            token; (0, 0) for the EOS token.

        Raises:
            ValueError: If the side's tokenizer is not a fast one.
        """
        self._check_fast(side, "character offsets")
        encoded = self._encode(side, texts, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    def encode_with_words(self, side: str, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int | None]]]:
        """Encode texts and return the word to which each token belongs.

        Args:
            side: "source" or "target".
            texts: sentences.

        Returns:
            The token ids as `encode_sources` and `encode_targets` return them, and for each token the number of the
            word in its sentence, as the tokenizer splits text into words before it splits words into tokens; None for
            special tokens.

        Raises:
            ValueError: If the side's tokenizer is not a fast one.
        """
        self._check_fast(side, "word numbers")
        if not texts:
            return [], []
        encoded = self._call(side, texts)
        removes_bos, appends_eos = self._special_tokens[side]
        end = getattr(self, side).eos_token_id
        ids, words = [], []
        for row in range(len(texts)):
            first = 1 if removes_bos else 0
            ids.append([*encoded["input_ids"][row][first:], *([] if appends_eos else [end])])
            words.append([*encoded.word_ids(row)[first:], *([] if appends_eos else [None])])
        return ids, words

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Decode the token ids of a target."""
        return self.target.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Iterable[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        """Decode the token ids of several targets."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def count_unknown(self, rows: Iterable[Sequence[int]], side: str) -> int:
        """Count the unknown ids of sources or targets.

        Args:
            rows: token ids.
            side: "source" or "target".
        """
        unknown = getattr(self, side).unk_token_id
        if unknown in (None, self.eos_token_id):  # GPT-2 has one special token for all purposes
            return 0
        return sum(list(row).count(unknown) for row in rows)

    def _check_fast(self, side: str, what: str) -> None:
        """Raise an error if a side's tokenizer is not a fast one, which alone knows ``what``."""
        if not getattr(getattr(self, side), "is_fast", False):
            raise ValueError(f"the {side} tokenizer has no {what}; load a fast tokenizer")

    def _encode(self, side: str, texts: Sequence[str], **settings: Any) -> dict[str, list[list[Any]]]:
        """Call a side's tokenizer, remove a target's BOS token and append missing EOS tokens."""
        if not texts:
            return {"input_ids": [], "offset_mapping": []}
        tokenizer = getattr(self, side)
        columns = {"input_ids": tokenizer.eos_token_id, **({"offset_mapping": (0, 0)} if settings else {})}
        encoded = self._call(side, texts, **settings)
        rows = {column: [list(row) for row in encoded[column]] for column in columns}
        removes_bos, appends_eos = self._special_tokens[side]
        for column, end in columns.items():
            if removes_bos:
                rows[column] = [row[1:] for row in rows[column]]
            if not appends_eos:
                rows[column] = [[*row, end] for row in rows[column]]
        return rows

    def _call(self, side: str, texts: Sequence[str], **settings: Any) -> Any:
        name = "text" if side == "source" else "text_target"
        settings |= {name: [_plain(text) for text in texts], "add_special_tokens": True, "verbose": False}
        return getattr(self, side)(**settings)

    @cached_property
    def _special_tokens(self) -> dict[str, tuple[bool, bool]]:
        """For each side: whether a BOS token has to be removed, and whether the tokenizer appends the EOS token."""
        found = {}
        for side in ("source", "target"):
            tokenizer = getattr(self, side)
            ids = list(self._call(side, ["a"])["input_ids"][0])
            removable = side == "target" and tokenizer.bos_token_id not in (None, tokenizer.eos_token_id)
            found[side] = (
                removable and ids[:1] == [tokenizer.bos_token_id],
                tokenizer.eos_token_id in ids[1:],
            )  # not a BOS token
        return found

    # ------------------------------------------------------------------ files

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the source tokenizer, and a separate target tokenizer in the folder ``target_tokenizer``.

        Args:
            save_directory: the checkpoint's folder.
            kwargs: passed to ``save_pretrained`` of the tokenizers.
        """
        self.source.save_pretrained(save_directory, **kwargs)
        if self.separate:
            self.target.save_pretrained(os.path.join(save_directory, TARGET_TOKENIZER), **kwargs)


def load_target_tokenizer(model: Any) -> Any:
    """Load the target tokenizer from the checkpoint of a model with separate vocabularies.

    Raises:
        ValueError: If the checkpoint has none.
    """
    config = model.config
    try:
        return AutoTokenizer.from_pretrained(
            config.name_or_path,
            subfolder=TARGET_TOKENIZER,
            revision=getattr(config, "_commit_hash", None) or "main",
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the target has a separate vocabulary ({config.decoder_vocab_size} tokens), but {config.name_or_path!r} "
            f"has no folder {TARGET_TOKENIZER}; give target_tokenizer"
        ) from error


def check_tokenizer_fits(tokenizer: Any, config: Any, side: str = "source") -> None:
    """Check that a tokenizer's ids are those of the model.

    Args:
        tokenizer: any Hugging Face tokenizer.
        config: a model configuration with ``vocab_size`` and the special ids.
        side: "source" or "target", the vocabulary to compare with.

    Raises:
        ValueError: If the tokenizer has more tokens than the model, or other ids for padding or EOS.
    """
    size, name = (config.output_vocab_size, "target ") if side == "target" else (config.vocab_size, "")
    if len(tokenizer) > size:
        raise ValueError(
            f"the {name}tokenizer has {len(tokenizer)} tokens, the model's vocabulary only {size}; use the "
            "tokenizer that was saved with the model"
        )
    for field in ("pad_token_id", "eos_token_id"):
        token_id, expected = getattr(tokenizer, field), getattr(config, field)
        if expected is not None and token_id not in (expected if isinstance(expected, list) else [expected]):
            raise ValueError(
                f"the {name}tokenizer's {field} is {token_id}, the model's is {expected}; use the tokenizer that was "
                "saved with the model"
            )


def _rules(tokenizer: Any) -> Any:
    """Return how a fast tokenizer encodes text, for comparison; None for other tokenizers."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return {name: value for name, value in rules.items() if name not in ("version", "truncation", "padding")}


def _plain(text: str) -> str:
    """Return a text that the tokenizer encodes as plain text."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # replaces lone surrogates, which tokenizers reject
    # A fast tokenizer encodes a text that equals a special token as that token; leading white space prevents it.
    stripped = text.strip()
    if stripped[:1] in ("<", "＜") and unicodedata.normalize("NFKC", stripped).lower() in _TOKEN_NAMES:
        return f" {stripped}"
    return text


_TOKEN_NAMES = frozenset(("<pad>", "<s>", "</s>", "<unk>"))  # in vocabularies trained by `train_tokenizer`


def _warn_of_split_special_tokens(tokenizer: Any) -> None:
    if not getattr(tokenizer, "split_special_tokens", False):
        return
    named = {getattr(tokenizer, name, None) for name in _NAMED_SPECIAL_TOKENS}
    others = [token for token in tokenizer.all_special_tokens if token not in named]
    if others:
        logger.warning_once(
            f"the tokenizer splits its special tokens in text (split_special_tokens=True), including "
            f"{', '.join(others[:5])}; set tokenizer.split_special_tokens = False and save it again to keep them"
        )


__all__ = [
    "MANY_UNKNOWN",
    "TARGET_TOKENIZER",
    "TranslationTokenizers",
    "check_tokenizer_fits",
    "load_target_tokenizer",
]
