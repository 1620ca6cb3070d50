# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""fairseq's dictionaries, dict.<language>.txt, and tokenizers built from them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from .fsmt_tokenizers import load_fsmt_tokenizers, write_fsmt_tokenizer

logger = logging.get_logger(__name__)

Dictionary: TypeAlias = dict[str, int]  # token → id

_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3; not in the file


def read_dictionaries(directory: Path, task: Mapping[str, Any]) -> list[Dictionary]:
    """Read the dictionaries of source and target; return an empty list, with a warning, if one is missing.

    Args:
        directory: of the checkpoint.
        task: options of the task; names the two languages.

    Raises:
        ValueError: If a line is invalid.
    """
    languages = (task.get("source_lang"), task.get("target_lang"))
    paths = [directory / f"dict.{language}.txt" for language in languages]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        logger.warning(f"{directory} has no {', '.join(absent)}; the result has no tokenizer")
        return []
    return [_read_dictionary(path) for path in paths]


def build_tokenizers(directory: Path, dictionaries: list[Dictionary], task: Mapping[str, Any]) -> tuple[Any, Any]:
    """Build tokenizers of source and target; the second is None if both sides have the same dictionary.

    With BPE codes in the directory, the tokenizers take ordinary text (they are FSMT's: Moses' rules, then BPE).
    Without them, they take the input of `fairseq-interactive`: tokens separated by spaces.

    Args:
        directory: of the checkpoint; may have the BPE codes as bpecodes.
        dictionaries: from `read_dictionaries`; if empty, there are no tokenizers.
        task: options of the task; names the two languages.
    """
    if not dictionaries:
        return None, None
    codes = directory / "bpecodes"
    if codes.is_file():
        with tempfile.TemporaryDirectory() as folder:
            languages = [task["source_lang"], task["target_lang"]]
            write_fsmt_tokenizer(Path(folder), dictionaries, codes, languages)
            return load_fsmt_tokenizers(Path(folder))
    source, target = map(_word_tokenizer, dictionaries)
    return source, None if dictionaries[0] == dictionaries[1] else target


def _read_dictionary(path: Path) -> Dictionary:
    """Read a dictionary: one token and its count per line.

    Ids follow the order of the lines, starting after the four special tokens, which are not in the file.
    """
    dictionary = {token: token_id for token_id, token in enumerate(_SPECIAL_TOKENS)}
    next_id = len(dictionary)  # counted apart: a token that overwrites a special one leaves an id without a token
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        token, _, count = line.rstrip().rpartition(" ")
        overwrites = count == "#fairseq:overwrite"
        if overwrites:
            token, _, count = token.rpartition(" ")
        if not token or not count.isdigit():
            raise ValueError(f"line {number} of {path} is not a token and its count: {line[:60]!r}")
        if token in dictionary and not overwrites:
            raise ValueError(f"line {number} of {path} repeats the token {token!r}")
        dictionary[token] = next_id
        next_id += 1
    return dictionary


def _word_tokenizer(dictionary: Dictionary) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(dict(dictionary), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


__all__ = ["Dictionary", "build_tokenizers", "read_dictionaries"]
