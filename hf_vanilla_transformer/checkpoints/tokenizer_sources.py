# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Load a tokenizer that was made elsewhere: a checkpoint's, a tokenizers JSON file, or a SentencePiece model."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..json_object import read_json_object
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .checkpoint_directory import CheckpointDirectory, load_tokenizer_files
from .sentencepiece_model import read_sentencepiece
from .tokenizer_completion import complete_tokenizer

TOKENIZER_FILE = "tokenizer.json"
_CONFIGURATIONS = ("tokenizer_config.json", "config.json")
_SENTENCEPIECE_NAMES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "source.spm", "spm.model")
_SENTENCEPIECE_SUFFIXES = (".model", ".spm")
# The special tokens of a tokenizers JSON file, which does not contain their roles: usual names, the first found counts.
_USUAL_NAMES = {
    "pad_token": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<PAD>"),
    "bos_token": ("<s>", "[CLS]", "[BOS]", "<bos>", "<|startoftext|>", "<|begin_of_text|>", "<sos>", "<BOS>"),
    "eos_token": ("</s>", "[SEP]", "[EOS]", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|eos|>", "<EOS>"),
    "unk_token": ("<unk>", "[UNK]", "<|unk|>", "<UNK>"),
}


def load_tokenizers_for_training(path: Path, name: str) -> TranslationTokenizers:
    """Load the tokenizers of source and target and complete them for training; see `complete_tokenizer`.

    Args:
        path: a file, or a directory with one tokenizer, with ``source.spm`` and ``target.spm``, or with the directories
            that `CheckpointDirectory.load_tokenizers` knows.
        name: its name in messages.

    Raises:
        ValueError: If there is no tokenizer, it is damaged, or it cannot be completed.
    """
    if path.is_file():
        sides: list[Any] = [_load_file(path, name)]
    else:
        sides = _load_directory(path, name)
    completed = [complete_tokenizer(side, name) for side in sides]
    return TranslationTokenizers(*completed)


def _load_directory(path: Path, name: str) -> list[Any]:
    """Return the source's tokenizer, and the target's if it is another."""
    directory = CheckpointDirectory(path, name)
    if any((path / file).is_file() for file in _CONFIGURATIONS) or directory.has_a_tokenizer_per_side():
        return directory.load_raw_tokenizers()
    if (path / TOKENIZER_FILE).is_file():
        return [_load_file(path / TOKENIZER_FILE, f"{name}/{TOKENIZER_FILE}")]
    if all((path / file).is_file() for file in ("source.spm", "target.spm", "vocab.json")):
        return [_load_marian(path, name)]
    found = [path / file for file in _SENTENCEPIECE_NAMES if (path / file).is_file()]
    if not found:
        found = sorted(file for file in path.iterdir() if file.suffix in _SENTENCEPIECE_SUFFIXES and file.is_file())
    if not found:
        raise ValueError(
            f"{name} contains no tokenizer; give a directory with {TOKENIZER_FILE}, {_SENTENCEPIECE_NAMES[0]} or a "
            "checkpoint's files"
        )
    if found[0].name not in _SENTENCEPIECE_NAMES and len(found) > 1:
        raise ValueError(f"{name} contains several SentencePiece models; give one file, e.g. {name}/{found[0].name}")
    files = [found[0]]
    if found[0].name == "source.spm" and (path / "target.spm").is_file():
        files.append(path / "target.spm")
    return [read_sentencepiece(file, f"{name}/{file.name}") for file in files]


def _load_marian(path: Path, name: str) -> PreTrainedTokenizerBase:
    """Load Marian's tokenizer from a directory without its configuration."""
    from transformers import MarianTokenizer
    from transformers.utils import is_sentencepiece_available

    if not is_sentencepiece_available():
        raise ValueError(
            f"{name} contains Marian's tokenizer, which needs sentencepiece; run pip install sentencepiece"
        )
    return MarianTokenizer.from_pretrained(path)


def _load_file(path: Path, name: str) -> PreTrainedTokenizerBase:
    """Load a SentencePiece model or a tokenizers JSON file, which is recognized by its first byte."""
    with path.open("rb") as file:
        beginning = file.read(64)
    if beginning.lstrip()[:1] == b"{":
        # Beside it, a checkpoint's configuration has the roles of the special tokens.
        if path.name == TOKENIZER_FILE and (path.parent / _CONFIGURATIONS[0]).is_file():
            return load_tokenizer_files(path.parent, name)
        return _load_json(path, name)
    if beginning[:1] == b"\n":  # the key of the first piece
        return read_sentencepiece(path, name)
    raise ValueError(
        f"{name} is neither a SentencePiece model nor a tokenizers JSON file; give one of them, or a directory"
    )


def _load_json(path: Path, name: str) -> PreTrainedTokenizerFast:
    content = read_json_object(path)
    try:
        tokenizer = Tokenizer.from_str(json.dumps(content))
        vocabulary = tokenizer.get_vocab()
        special = {token["content"] for token in content.get("added_tokens", ()) if token.get("special")}
        roles = {
            role: token
            for role, names in _USUAL_NAMES.items()
            if (token := next((name for name in names if name in vocabulary), None)) is not None
        }
        if isinstance(unknown := content["model"].get("unk_token"), str) and unknown in vocabulary:
            roles["unk_token"] = unknown
        added = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            **{role: added.get(token, token) for role, token in roles.items()},
            extra_special_tokens=[added[token] for token in sorted(special - set(roles.values()))],
            model_input_names=["input_ids", "attention_mask"],
            clean_up_tokenization_spaces=False,
        )
    except BaseException as error:  # a panic of tokenizers, which is written in Rust, is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} is not a tokenizers JSON file: {reason}") from error


__all__ = ["TOKENIZER_FILE", "load_tokenizers_for_training"]
