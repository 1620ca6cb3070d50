# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""One subword vocabulary for source and target (§5.1), learned here, saved as a stock fast tokenizer.

What is saved loads through AutoTokenizer with no code of ours. Every character survives: what the vocabulary lacks is
written in bytes. ``decode(encode(text))`` returns the *normalised* text exactly: `normalize_text` says what that is.

Special tokens that are added later (``add_special_tokens``, ``extra_special_tokens``) are found in text, as with any
tokenizer. The four that are built in are not: "</s>" in a sentence is four characters, not its end. Only a text that is
nothing but such a name, as "</s>", is taken for the token by the tokenizer itself; `translate`, training and the
pipeline tell these apart, too.
"""

import json
from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ..model.tokenizers_vanilla_transformer import check_tokenizer_fits

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")  # ids 0 to 3, as the configuration's defaults have them
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))  # ids 4 to 259
_WORD_START = "▁"
_NAMES = "|".join(token[1:-1] for token in SPECIAL_TOKENS)
_SPACES = "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"  # Unicode's category Zs without U+0020
_STAND_IN = "\ufdd0"  # for "<" in a special token's name that is written out; a code point that no text may hold
_WRITTEN_OUT = rf"(?!\A<(?:{_NAMES})>\z)<(?=(?:{_NAMES})>)"  # such a "<", unless the name is all of the text


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 37000,
    *,
    model: str = "bpe",
    normalization: str | None = "NFC",
    lowercase: bool = False,
    character_coverage: float = 0.9999,
) -> PreTrainedTokenizerFast:
    """Learn a subword vocabulary.

    Args:
        texts: sentences of both languages; read once and kept in memory.
        vocab_size: tokens in all, the 4 special ones and the 256 bytes included.
        model: "bpe" (§5.1) or "unigram".
        normalization: "NFC", "NFKC" or None.
        lowercase: write everything in lower case.
        character_coverage: share of all characters that get a token of their own; the rarest go in bytes, so that rare
            Hangul syllables or ideographs don't fill the vocabulary.

    Returns:
        A stock fast tokenizer. It ends every sentence with ``</s>``, source and target alike; special tokens written
        out in a text are text.

    Raises:
        ValueError: If there is no text, an argument is unknown, or ``vocab_size`` is too small for the alphabet.
    """
    if model not in ("bpe", "unigram"):
        raise ValueError(f"model={model!r} is unknown; choose 'bpe' or 'unigram'")
    if not 0.0 < character_coverage <= 1.0:
        raise ValueError(f"character_coverage={character_coverage} is not a share; choose 0 < share ≤ 1, e.g. 0.9999")
    tokenizer = _empty_tokenizer(normalization, lowercase)
    normalized = [tokenizer.normalizer.normalize_str(text).replace(_STAND_IN, "<") for text in texts]
    characters = Counter(character for text in normalized for character in text if not character.isspace())
    if not characters:
        raise ValueError("there is no text to learn a vocabulary from; give at least one sentence")
    alphabet = _frequent_characters(characters, character_coverage)
    smallest = len(SPECIAL_TOKENS) + len(BYTE_TOKENS) + len(alphabet) + 1  # one for the word start
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size} is too small: {len(SPECIAL_TOKENS)} special tokens, {len(BYTE_TOKENS)} bytes and "
            f"an alphabet of {len(alphabet) + 1} need {smallest}; choose at least that or lower character_coverage"
        )
    learned = vocab_size - len(BYTE_TOKENS)
    pieces = (_keep_characters(text, alphabet) for text in normalized)
    build = _learn_bpe if model == "bpe" else _learn_unigram
    tokenizer.model = build(pieces, learned, sorted(alphabet))
    end = SPECIAL_TOKENS.index("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{
            f"{name}_token": AddedToken(token, special=True, normalized=True)  # looked for after the normalisation
            for name, token in zip(("pad", "bos", "eos", "unk"), SPECIAL_TOKENS, strict=True)
        },
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def normalize_text(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """Return what ``decode(encode(text))`` gives back.

    That is, for the tokenizers that are learned here: the text in the Unicode form that was asked for (NFC unless said
    otherwise), in lower case if that was asked for, without white space at its two ends, with every space of Unicode
    (U+00A0, U+3000, …) as U+0020, U+2581 "▁" (which marks word beginnings) as "_" and U+FDD0 (no character) as U+FFFD.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    return text if normalizer is None else normalizer.normalize_str(text).replace(_STAND_IN, "<")


def _empty_tokenizer(normalization: str | None, lowercase: bool) -> Tokenizer:
    forms: dict[str | None, list[normalizers.Normalizer]]
    forms = {"NFC": [normalizers.NFC()], "NFKC": [normalizers.NFKC()], None: []}
    if normalization not in forms:
        raise ValueError(f"normalization={normalization!r} is unknown; choose 'NFC', 'NFKC' or None")
    # Lower case first: the lower case of some letters is decomposed and has to be composed again.
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()] if lowercase else []
    steps += [*forms[normalization], normalizers.Replace(Regex(_SPACES), " ")]
    steps += [normalizers.Replace(_WORD_START, "_"), normalizers.Replace(_STAND_IN, "\ufffd")]
    steps += [normalizers.Replace(Regex(_WRITTEN_OUT), _STAND_IN), normalizers.Strip()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = _words()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_WORD_START, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Replace(_STAND_IN, "<"),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _words() -> pre_tokenizers.PreTokenizer:
    """Split into words; "<" stands alone, so that no text spells a special token or a byte's."""
    words = pre_tokenizers.Metaspace(replacement=_WORD_START, prepend_scheme="always")
    return pre_tokenizers.Sequence([words, pre_tokenizers.Split("<", behavior="isolated")])


def _frequent_characters(characters: Counter[str], coverage: float) -> set[str]:
    """Choose the most frequent characters that make up ``coverage`` of the text; ties go by code point."""
    wanted = coverage * characters.total()
    chosen, covered = set(), 0
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted:
            break
        chosen.add(character)
        covered += count
    return chosen


def _keep_characters(text: str, alphabet: set[str]) -> str:
    """Put white space where a character has no token, so that nothing is learned across it."""
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


__all__ = ["BYTE_TOKENS", "SPECIAL_TOKENS", "check_tokenizer_fits", "normalize_text", "train_tokenizer"]
