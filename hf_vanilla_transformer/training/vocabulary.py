# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Train a tokenizer on text files, save it, and measure how it splits that text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from transformers.utils import logging

from ..data.corpora import read_sentences
from ..data.corpus_report import CorpusReport
from ..data.tokenization import BYTE_TOKENS, train_tokenizer
from ..overwriting import output_folder

logger = logging.get_logger(__name__)

_BATCH_LINES = 10_000


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary of a trained tokenizer, measured on its training text.

    Attributes:
        size: number of tokens; less than requested if the text does not yield as many.
        lines: number of lines that it was trained on.
        tokens_per_word: mean number of tokens, without the EOS token, per word between white space.
        unknown: share of unknown tokens, 0 to 1; the byte tokens keep it at 0 unless something is wrong.
        bytes: share of byte tokens, 0 to 1; they encode characters that have no token of their own.
    """

    size: int
    lines: int
    tokens_per_word: float
    unknown: float
    bytes: float


def learn_vocabulary(
    files: Sequence[str | Path],
    folder: str | Path,
    vocab_size: int,
    *,
    model: str = "bpe",
    normalization: str | None = "NFC",
    lowercase: bool = False,
    character_coverage: float = 0.9999,
    extra_tokens: Sequence[str] = (),
) -> Vocabulary:
    """Train a tokenizer on text files and save it so that `AutoTokenizer` loads it.

    Args:
        files: text, one sentence per line; of both languages for a shared vocabulary.
        folder: directory for the tokenizer.
        vocab_size, model, normalization, lowercase, character_coverage, extra_tokens: see `train_tokenizer`.

    Raises:
        ValueError: If a file is missing, no usable text is found, or an argument is out of range.
    """
    report = CorpusReport(", ".join(map(str, files)))
    texts = list(read_sentences(files, report))
    if report.problems:
        logger.warning(str(report).replace("pairs read", "lines read").replace("of the pairs", "of the lines"))
    tokenizer = train_tokenizer(
        texts,
        vocab_size,
        model=model,
        normalization=normalization,
        lowercase=lowercase,
        character_coverage=character_coverage,
        extra_tokens=extra_tokens,
    )
    tokenizer.save_pretrained(str(folder))
    if len(tokenizer) < vocab_size:
        logger.warning(f"the text yields only {len(tokenizer)} of the {vocab_size} tokens requested")
    byte_ids = {tokenizer.convert_tokens_to_ids(token) for token in BYTE_TOKENS}
    words = tokens = unknown = in_bytes = 0
    lines = iter(texts)
    while batch := list(islice(lines, _BATCH_LINES)):
        words += sum(len(text.split()) for text in batch)
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            tokens += len(ids)
            unknown += ids.count(tokenizer.unk_token_id)
            in_bytes += sum(token_id in byte_ids for token_id in ids)
    return Vocabulary(len(tokenizer), len(texts), tokens / words, unknown / tokens, in_bytes / tokens)


def write_vocabularies(
    files: Mapping[str, Sequence[str | Path]],
    folder: str | Path,
    vocab_size: int,
    *,
    model: str = "bpe",
    normalization: str | None = "NFC",
    lowercase: bool = False,
    character_coverage: float = 0.9999,
    extra_tokens: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[Path, Vocabulary]:
    """Learn one or several vocabularies and write them to a directory, all of them or none.

    Args:
        files: name of a subdirectory -> text files to learn from; the name "" is the directory itself.
        folder: the directory.
        overwrite: replace tokenizers that an earlier call wrote there.
        vocab_size, model, normalization, lowercase, character_coverage, extra_tokens: see `train_tokenizer`.

    Returns:
        Directory of the tokenizer -> its measures.

    Raises:
        ValueError: If a file is missing, no text is left, or an argument is out of range.
        OSError: If the directory exists and must not be replaced, or cannot be written.
    """
    folder = Path(folder)
    inputs = [file for group in files.values() for file in group]
    with output_folder(folder, "tokenizer", inputs=inputs, overwrite=overwrite) as staging:
        vocabularies = {
            folder / name: learn_vocabulary(
                group,
                staging / name,
                vocab_size,
                model=model,
                normalization=normalization,
                lowercase=lowercase,
                character_coverage=character_coverage,
                extra_tokens=extra_tokens,
            )
            for name, group in files.items()
        }
    return vocabularies


__all__ = ["Vocabulary", "learn_vocabulary", "write_vocabularies"]
