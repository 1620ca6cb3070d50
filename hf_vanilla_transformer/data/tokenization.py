# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Train a subword tokenizer with one vocabulary for source and target (§5.1), a fast tokenizer of transformers.

AutoTokenizer loads it without code of this package. No character is lost: characters that are not in the vocabulary are
encoded as bytes. ``decode(encode(text))`` returns exactly the normalized text; see `normalize_text`.

Further special tokens, such as language tags, are recognized in text: those of ``extra_tokens``, and those that are
added later (``add_special_tokens``). The four built-in ones are not: "</s>" in a sentence is four characters, not the
EOS token. The tokenizer itself makes one exception, a text that consists only of such a name; `translate`, training and
the pipeline treat that as text as well.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..model.tokenizers_vanilla_transformer import check_tokenizer_fits

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")  # ids 0 to 3, as the configuration's defaults have them
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))  # ids 4 to 259
_WORD_START = "▁"
_NAMES = "|".join(token[1:-1] for token in SPECIAL_TOKENS)
_SPACES = "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"  # Unicode category Zs without U+0020
# Replaces "<" in text that spells a special token; a Unicode noncharacter, which text does not contain.
_PLACEHOLDER = "\ufdd0"
_SPELLED_OUT = rf"(?!\A<(?:{_NAMES})>\z)<(?=(?:{_NAMES})>)"  # such a "<", unless the name is the complete text


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 37000,
    *,
    model: str = "bpe",
    normalization: str | None = "NFC",
    lowercase: bool = False,
    character_coverage: float = 0.9999,
    extra_tokens: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Train a tokenizer.

    Args:
        texts: sentences of both languages; iterated once and kept in memory.
        vocab_size: number of tokens, with the 4 special tokens and the 256 bytes.
        model: "bpe" (§5.1) or "unigram".
        normalization: "NFC", "NFKC" or None.
        lowercase: convert text to lower case.
        character_coverage: share of the characters in the text, 0 to 1, that must be covered by tokens; the rarest ones
            are encoded as bytes, so that rare Hangul syllables or ideographs don't fill the vocabulary.
        extra_tokens: further special tokens, e.g. the language tags "<2ko>" and "<2de>"; ``vocab_size`` includes them,
            and they have the last ids. Each is one token anywhere in a text, and is matched before normalization and
            lower case; no subword is learned from it. Decoding leaves them out with ``skip_special_tokens=True``.

    Returns:
        A fast tokenizer. It appends ``</s>`` to every sentence, source and target; names of special tokens in a text
        are encoded as text.

    Raises:
        ValueError: If there is no text, an argument is unknown, or ``vocab_size`` is too small for the alphabet.
    """
    if model not in ("bpe", "unigram"):
        raise ValueError(f"model={model!r} is unknown; choose 'bpe' or 'unigram'")
    if not 0.0 < character_coverage <= 1.0:
        raise ValueError(f"character_coverage={character_coverage} is out of range; choose 0 < coverage ≤ 1")
    check_extra_tokens(extra_tokens)
    tokenizer = _empty_tokenizer(normalization, lowercase)
    if extra_tokens:
        names = re.compile("|".join(map(re.escape, sorted(extra_tokens, key=len, reverse=True))))
        texts = (names.sub(" ", text) for text in texts)
    normalized = [tokenizer.normalizer.normalize_str(text).replace(_PLACEHOLDER, "<") for text in texts]
    characters = Counter(character for text in normalized for character in text if not character.isspace())
    if not characters:
        raise ValueError("there is no text to train on; give at least one sentence")
    alphabet = _frequent_characters(characters, character_coverage)
    special = len(SPECIAL_TOKENS) + len(extra_tokens)
    smallest = special + len(BYTE_TOKENS) + len(alphabet) + 1  # one for the start of a word
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size} is too small: {special} special tokens, {len(BYTE_TOKENS)} bytes and "
            f"an alphabet of {len(alphabet) + 1} need {smallest}; choose at least that or lower character_coverage"
        )
    learned = vocab_size - len(BYTE_TOKENS) - len(extra_tokens)
    pieces = (_keep_characters(text, alphabet) for text in normalized)
    build = _learn_bpe if model == "bpe" else _learn_unigram
    tokenizer.model = build(pieces, learned, sorted(alphabet))
    end = SPECIAL_TOKENS.index("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)]
    )
    trained = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{
            f"{name}_token": AddedToken(token, special=True, normalized=True)  # matched after normalization
            for name, token in zip(("pad", "bos", "eos", "unk"), SPECIAL_TOKENS, strict=True)
        },
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
    add_extra_tokens(trained, extra_tokens)
    return trained


def check_extra_tokens(tokens: Sequence[str]) -> None:
    """Check further special tokens.

    Raises:
        ValueError: If one is empty, has white space, is given twice, or is built in.
    """
    if isinstance(tokens, str):
        raise ValueError(f"extra_tokens is one string; give a list, e.g. [{tokens!r}]")
    for token in tokens:
        if not isinstance(token, str) or not token or token != "".join(token.split()):
            raise ValueError(f"extra token {token!r} is empty or has white space; choose a name such as '<2ko>'")
        if len(token) == 1:
            raise ValueError(f"extra token {token!r} is a single character of text; choose a name such as '<2ko>'")
        if token in SPECIAL_TOKENS or token in BYTE_TOKENS:
            raise ValueError(f"extra token {token!r} is built in; choose another name")
    if twice := [token for token, count in Counter(tokens).items() if count > 1]:
        raise ValueError(f"extra token {twice[0]!r} is given twice")


def add_extra_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    """Add further special tokens to a tokenizer, which keeps each as one token anywhere in a text.

    A token that the tokenizer has keeps its id and becomes a special token.
    """
    if tokens:
        added = [AddedToken(token, special=True, normalized=False) for token in tokens]
        tokenizer.add_special_tokens({"extra_special_tokens": added}, replace_extra_special_tokens=False)


def normalize_text(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """Return the normalized text, which is the result of ``decode(encode(text))``.

    For tokenizers of `train_tokenizer`, it is in the Unicode form ``normalization``, in lower case if ``lowercase`` is
    set, and without white space at the ends. Unicode spaces (U+00A0, U+3000, …) are replaced by U+0020, U+2581 "▁"
    (the start of a word in tokens) by "_", and U+FDD0 (a noncharacter) by U+FFFD.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    return text if normalizer is None else normalizer.normalize_str(text).replace(_PLACEHOLDER, "<")


def _empty_tokenizer(normalization: str | None, lowercase: bool) -> Tokenizer:
    forms: dict[str | None, list[normalizers.Normalizer]]
    forms = {"NFC": [normalizers.NFC()], "NFKC": [normalizers.NFKC()], None: []}
    if normalization not in forms:
        raise ValueError(f"normalization={normalization!r} is unknown; choose 'NFC', 'NFKC' or None")
    # Lower case first: for some letters it is decomposed, and the Unicode form composes it.
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()] if lowercase else []
    steps += [*forms[normalization], normalizers.Replace(Regex(_SPACES), " ")]
    steps += [normalizers.Replace(_WORD_START, "_"), normalizers.Replace(_PLACEHOLDER, "\ufffd")]
    steps += [normalizers.Replace(Regex(_SPELLED_OUT), _PLACEHOLDER), normalizers.Strip()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = _words()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_WORD_START, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Replace(_PLACEHOLDER, "<"),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _words() -> pre_tokenizers.PreTokenizer:
    """Split into words, and "<" from the rest, so that no text is encoded as a special token or a byte token."""
    words = pre_tokenizers.Metaspace(replacement=_WORD_START, prepend_scheme="always")
    return pre_tokenizers.Sequence([words, pre_tokenizers.Split("<", behavior="isolated")])


def _frequent_characters(characters: Counter[str], coverage: float) -> set[str]:
    """Return the most frequent characters that cover a share of the text; ties are ordered by code point."""
    required = coverage * characters.total()
    chosen, covered = set(), 0
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if covered >= required:
            break
        chosen.add(character)
        covered += count
    return chosen


def _keep_characters(text: str, alphabet: set[str]) -> str:
    """Replace characters outside the alphabet by spaces, so that no token spans them."""
    return "".join(character if character in alphabet else " " for character in text)


def _learn_bpe(texts: Iterable[str], size: int, alphabet: list[str]) -> models.BPE:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _words()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=[_WORD_START, *alphabet],
        limit_alphabet=len(alphabet) + 1,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    vocabulary = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    tokens = [*SPECIAL_TOKENS, *BYTE_TOKENS, *vocabulary[len(SPECIAL_TOKENS) :]]
    return models.BPE(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token="<unk>",
        byte_fallback=True,
    )


def _learn_unigram(texts: Iterable[str], size: int, alphabet: list[str]) -> models.Unigram:
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = _words()
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        unk_token="<unk>",
        initial_alphabet=[_WORD_START, *alphabet],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = [(token, score) for token, score in json.loads(learner.to_str())["model"]["vocab"]]
    special, rest = learned[: len(SPECIAL_TOKENS)], learned[len(SPECIAL_TOKENS) :]
    byte_score = min(score for _, score in rest)
    vocabulary = [*special, *((token, byte_score) for token in BYTE_TOKENS), *rest]
    return models.Unigram(vocabulary, unk_id=SPECIAL_TOKENS.index("<unk>"), byte_fallback=True)


__all__ = [
    "BYTE_TOKENS",
    "SPECIAL_TOKENS",
    "add_extra_tokens",
    "check_extra_tokens",
    "check_tokenizer_fits",
    "normalize_text",
    "train_tokenizer",
]
