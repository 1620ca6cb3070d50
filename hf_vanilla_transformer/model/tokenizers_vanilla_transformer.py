# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Which tokenizer encodes the source and which the target, decided here for the whole package.

Three kinds of tokenizers are met: one with a shared vocabulary; one that knows two sides and is asked for the target's
by ``text_target=`` (Marian's two SentencePiece models, language codes); and two separate ones, of which the target's is
in the folder ``target_tokenizer`` beside the weights.
"""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

logger = logging.get_logger(__name__)

Span = tuple[int, int]  # characters, from … to before

TARGET_TOKENIZER = "target_tokenizer"  # the folder beside the weights, where the target has a vocabulary of its own
MANY_UNKNOWN = 0.01  # share of unknown ids, 0 to 1, beyond which text and tokenizer hardly belong together

_NAMED_SPECIAL_TOKENS = ("pad_token", "bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token")


class TranslationTokenizers:
    """The tokenizers of a translation model, as one object that encodes both sides and decodes translations.

    Every encoded sentence ends with the EOS token, appended here where the tokenizer doesn't append it: without one in
    the labels a model never learns to stop. A BOS token in front of a target is left out: the decoder start token takes
    its place, and beam search never writes it.

    Trainer takes such an object as ``processing_class``: it saves both tokenizers.

    Attributes:
        source: the source's tokenizer.
        target: the target's; the same object where there is only one.
        separate: whether the target's tokenizer was given, and so is saved, by itself.
    """

    def __init__(self, source: Any, target: Any = None) -> None:
        """Put two tokenizers together.

        Args:
            source: a Hugging Face tokenizer.
            target: the target's, where it has a vocabulary of its own; None takes ``source`` for both sides.

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
                    f"the {side}'s tokenizer has no eos_token, so nothing would end a sentence; add one with "
                    'tokenizer.add_special_tokens({"eos_token": "</s>"})'
                )
            _warn_of_split_special_tokens(tokenizer)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, target_tokenizer: Any = None) -> "TranslationTokenizers":
        """Find the tokenizers of a model, and check that their ids mean the same to it.

        Args:
            model: anything with ``config``; its ``decoder_vocab_size`` says whether the target has a vocabulary of its
                own, and its ``name_or_path`` where that is saved.
            tokenizer: the source's, or already both.
            target_tokenizer: None loads the folder ``target_tokenizer`` where the model needs one.

        Raises:
            ValueError: If a tokenizer is missing or doesn't fit the model.
        """
        config = model.config
        given = isinstance(tokenizer, TranslationTokenizers) and tokenizer.separate
        if target_tokenizer is None and not given and config.decoder_vocab_size is not None:
            target_tokenizer = load_target_tokenizer(model)
        tokenizers = cls(tokenizer, target_tokenizer)
        tokenizers.check_fit(config)
        return tokenizers

    def check_fit(self, config: Any) -> None:
        """Refuse tokenizers whose ids mean something else to the model.

        Raises:
            ValueError: If one has more tokens than the model, or other ids for padding or the sentence's end.
        """
        check_tokenizer_fits(self.source, config)
        if self.separate:
            check_tokenizer_fits(self.target, config, "target")

    # ------------------------------------------------------------------ ids

    @property
    def pad_token_id(self) -> int | None:
        """Padding; the model has one id for both sides."""
        return self.source.pad_token_id

    @property
    def eos_token_id(self) -> int:
        """The end of a sentence; the model has one id for both sides."""
        return self.source.eos_token_id

    @property
    def padding_side(self) -> str:
        """Where sources are padded, "left" or "right"."""
        return getattr(self.source, "padding_side", "right")

    @property
    def model_input_names(self) -> list[str]:
        """What the source's tokenizer gives, as Trainer asks for it."""
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

    def encode_with_offsets(self, side: str, texts: Sequence[str]) -> tuple[list[list[int]], list[list[Span]]]:
        """Encode, and say where in its text each token stands.

        Args:
            side: "source" or "target".
            texts: sentences.

        Returns:
            The token ids as `encode_sources` and `encode_targets` give them, and for each the characters it covers,
            from … to before; (0, 0) for the EOS token.

        Raises:
            ValueError: If the side's tokenizer is not a fast one.
        """
        if not getattr(getattr(self, side), "is_fast", False):
            raise ValueError(
                f"the {side}'s tokenizer can't say where a token stands in its text; load a fast tokenizer"
            )
        encoded = self._encode(side, texts, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of a target's token ids."""
        return self.target.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Iterable[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        """Return the texts of several targets' token ids."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def unknown(self, rows: Iterable[Sequence[int]], side: str) -> int:
        """Count the unknown ids of sources or targets.

        Args:
            rows: token ids.
            side: "source" or "target".
        """
        unknown = getattr(self, side).unk_token_id
        return 0 if unknown is None else sum(list(row).count(unknown) for row in rows)

    def _encode(self, side: str, texts: Sequence[str], **settings: Any) -> dict[str, list[list[Any]]]:
        """Call a side's tokenizer, and make the ends of its rows as the class says."""
        if not texts:
            return {"input_ids": [], "offset_mapping": []}
        tokenizer = getattr(self, side)
        columns = {"input_ids": tokenizer.eos_token_id, **({"offset_mapping": (0, 0)} if settings else {})}
        encoded = self._call(side, texts, **settings)
        rows = {column: [list(row) for row in encoded[column]] for column in columns}
        begins, ends = self._marks[side]
        for column, end in columns.items():
            if begins:
                rows[column] = [row[1:] for row in rows[column]]
            if not ends:
                rows[column] = [[*row, end] for row in rows[column]]
        return rows

    def _call(self, side: str, texts: Sequence[str], **settings: Any) -> Any:
        name = "text" if side == "source" else "text_target"
        settings |= {name: [_plain(text) for text in texts], "add_special_tokens": True, "verbose": False}
        return getattr(self, side)(**settings)

    @cached_property
    def _marks(self) -> dict[str, tuple[bool, bool]]:
        """Whether, by side, the tokenizer writes a BOS token to be left out, and whether it writes the EOS token."""
        marks = {}
        for side in ("source", "target"):
            tokenizer = getattr(self, side)
            ids = list(self._call(side, ["a"])["input_ids"][0])
            begins = side == "target" and tokenizer.bos_token_id not in (None, tokenizer.eos_token_id)
            marks[side] = begins and ids[:1] == [tokenizer.bos_token_id], tokenizer.eos_token_id in ids
        return marks

    # ------------------------------------------------------------------ files

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the source's tokenizer, and the target's in the folder ``target_tokenizer`` where it is separate.

        Args:
            save_directory: the checkpoint's folder.
            kwargs: of the tokenizers' own ``save_pretrained``.
        """
        self.source.save_pretrained(save_directory, **kwargs)
        if self.separate:
            self.target.save_pretrained(os.path.join(save_directory, TARGET_TOKENIZER), **kwargs)


def load_target_tokenizer(model: Any) -> Any:
    """Load the tokenizer of the target's own vocabulary from beside the weights.

    Raises:
        ValueError: If there is none.
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
            f"the target has a vocabulary of its own ({config.decoder_vocab_size} tokens), but {config.name_or_path!r} "
            f"has no folder {TARGET_TOKENIZER}; give target_tokenizer"
        ) from error


def check_tokenizer_fits(tokenizer: Any, config: Any, side: str = "source") -> None:
    """Refuse a tokenizer whose ids mean something else to the model.

    Args:
        tokenizer: any Hugging Face tokenizer.
        config: a model configuration with ``vocab_size`` and the special ids.
        side: "source" or "target": whose vocabulary the model compares with.

    Raises:
        ValueError: If the tokenizer has more tokens than the model, or other ids for padding or the sentence's end.
    """
    size, name = (config.output_vocab_size, "target's ") if side == "target" else (config.vocab_size, "")
    if len(tokenizer) > size:
        raise ValueError(
            f"the {name}tokenizer has {len(tokenizer)} tokens, the model's vocabulary only {size}; use the "
            "tokenizer that was saved with the model"
        )
    for field in ("pad_token_id", "eos_token_id"):
        theirs, ours = getattr(tokenizer, field), getattr(config, field)
        if ours is not None and theirs not in (ours if isinstance(ours, list) else [ours]):
            raise ValueError(
                f"the {name}tokenizer's {field} is {theirs}, the model's is {ours}; use the tokenizer that was saved "
                "with the model"
            )


def _plain(text: str) -> str:
    """Make of any string a text that means itself."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text; tokenizers refuse it
    # A fast tokenizer takes a text that is exactly a special token's name for that token; white space tells them apart.
    stripped = text.strip()
    if stripped[:1] in ("<", "＜") and unicodedata.normalize("NFKC", stripped).lower() in _TOKEN_NAMES:
        return f" {stripped}"
    return text


_TOKEN_NAMES = frozenset(("<pad>", "<s>", "</s>", "<unk>"))  # of the vocabularies that this package learns


def _warn_of_split_special_tokens(tokenizer: Any) -> None:
    if not getattr(tokenizer, "split_special_tokens", False):
        return
    named = {getattr(tokenizer, name, None) for name in _NAMED_SPECIAL_TOKENS}
    others = [token for token in tokenizer.all_special_tokens if token not in named]
    if others:
        logger.warning_once(
            f"the tokenizer splits its special tokens in text into characters (split_special_tokens=True), also "
            f"{', '.join(others[:5])}; set tokenizer.split_special_tokens = False and save it again to keep them whole"
        )


__all__ = [
    "MANY_UNKNOWN",
    "TARGET_TOKENIZER",
    "TranslationTokenizers",
    "check_tokenizer_fits",
    "load_target_tokenizer",
]
