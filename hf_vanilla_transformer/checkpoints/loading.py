# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Load a checkpoint's model and tokenizers from a directory or Hub id; code in the checkpoint is never run."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..hub_access import hub_or_cache
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .checkpoint_directory import CheckpointDirectory, load_tokenizer_files
from .download import TOKENIZER_PATTERNS, is_hub_id, local_directory
from .tokenizer_completion import complete_tokenizer
from .tokenizer_sources import load_tokenizers_for_training

_TOKENIZER_SUFFIXES = (".json", ".model", ".spm")


def load_checkpoint(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | TranslationTokenizers]:
    """Load a translation model and its tokenizer.

    Args:
        name: a checkpoint's directory or Hub id. Only safetensors weights are read.

    Returns:
        The model, in evaluation mode, and its tokenizer, or both tokenizers if the target has a separate vocabulary.

    Raises:
        ValueError: If a file is damaged, sizes contradict each other, or the model is of another type.
        OSError: If there is no such checkpoint, or it cannot be downloaded.
    """
    directory = CheckpointDirectory(local_directory(name), name)
    model = directory.load_model()
    tokenizers = directory.load_tokenizers(model.config)
    if not tokenizers.separate:
        return model, tokenizers.source
    tokenizers.check_fit(model.config)
    return model, tokenizers


def load_tokenizers(name: str | Path) -> TranslationTokenizers:
    """Load the tokenizers of source and target; see `CheckpointDirectory.load_tokenizers`.

    Args:
        name: a directory or a Hub id.

    Raises:
        ValueError: If a tokenizer is missing or damaged, or has no EOS token.
        OSError: If there is no such directory or repository.
    """
    if _is_directory_or_hub_id(name):
        return CheckpointDirectory(local_directory(name, allow_patterns=TOKENIZER_PATTERNS), name).load_tokenizers()
    return TranslationTokenizers(_download_tokenizer(str(name)))


def load_any_tokenizers(name: str | Path) -> TranslationTokenizers:
    """Load tokenizers that were made elsewhere, and complete them for training.

    Args:
        name: a SentencePiece model (BPE or unigram), a tokenizers JSON file, or a directory or Hub id with one of them
            or with a checkpoint's tokenizer.

    Returns:
        The tokenizers; both append an EOS token and have a padding token.

    Raises:
        ValueError: If a tokenizer is missing or damaged, or cannot be made to append an EOS token.
        OSError: If there is no such file, directory or repository.
    """
    if Path(name).is_file():
        return load_tokenizers_for_training(Path(name), str(name))
    if Path(name).suffix in _TOKENIZER_SUFFIXES and not Path(name).exists():
        raise FileNotFoundError(f"there is no tokenizer file {name}")
    if _is_directory_or_hub_id(name) or Path(name).name != str(name):
        return load_tokenizers_for_training(local_directory(name, allow_patterns=TOKENIZER_PATTERNS), str(name))
    return TranslationTokenizers(complete_tokenizer(load_tokenizer_files(str(name), str(name)), str(name)))


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Load one tokenizer; see `load_tokenizers`."""
    if _is_directory_or_hub_id(name):
        return CheckpointDirectory(local_directory(name, allow_patterns=TOKENIZER_PATTERNS), name).load_tokenizer()
    return _download_tokenizer(str(name))


def _download_tokenizer(name: str) -> PreTrainedTokenizerBase:
    with hub_or_cache() as unreachable:
        try:
            return load_tokenizer_files(name, name)
        except ValueError as error:
            if unreachable is None:
                raise
            raise OSError(f"there is no directory {name}, and the Hub {unreachable}") from error


def _is_directory_or_hub_id(name: str | Path) -> bool:
    """Return False for a Hub id without a user, such as "t5-small", which transformers itself downloads."""
    return isinstance(name, Path) or Path(name).exists() or is_hub_id(name)


__all__ = ["load_any_tokenizers", "load_checkpoint", "load_tokenizer", "load_tokenizers"]
