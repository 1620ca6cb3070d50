# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts of one of our checkpoints: configuration, weights, generation settings and tokenizers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..checkpoints.checkpoint_directory import CheckpointDirectory
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import DEFAULT_MAX_LENGTH, VanillaTransformerForConditionalGeneration
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER
from .foreign_files import read_config, read_generation_config, read_weights
from .problems import require_complete


@dataclass
class CheckpointParts:
    """A checkpoint in our format, in memory.

    Attributes:
        config: the architecture.
        tensors: the weights under our names, tied matrices once.
        generation_config: the original's generation settings; None takes this package's defaults.
        tokenizer: of the source, and of the target if there is no other; None if the original has none.
        target_tokenizer: of the target, if it has its own vocabulary.
    """

    config: VanillaTransformerConfig
    tensors: dict[str, Tensor]
    generation_config: GenerationConfig | None = None
    tokenizer: Any = None
    target_tokenizer: Any = None

    def save(self, directory: Path) -> None:
        """Write a directory that `from_pretrained` loads."""
        with torch.device("meta"):
            model = VanillaTransformerForConditionalGeneration(self.config)
        incompatible = model.load_state_dict(self.tensors, strict=False, assign=True)
        assert not incompatible.unexpected_keys  # see require_complete
        model.tie_weights()
        assert not any(parameter.is_meta for parameter in model.parameters())
        model.config.dtype = next(iter(self.tensors.values())).dtype
        if self.generation_config is not None:
            model.generation_config = self.generation_config
        model.save_pretrained(directory)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(directory)
        target_tokenizer = self.target_tokenizer
        if target_tokenizer is None and self.config.decoder_vocab_size is not None:
            target_tokenizer = self.tokenizer  # two embedding matrices for one vocabulary
        if target_tokenizer is not None:
            target_tokenizer.save_pretrained(directory / TARGET_TOKENIZER)


def read_parts(source: Path) -> CheckpointParts:
    """Read one of our checkpoints, to convert it into another format.

    Raises:
        ValueError: If it is not one, or its weights don't fit its configuration.
    """
    read_config(source, VanillaTransformerConfig.model_type)
    config = VanillaTransformerConfig.from_pretrained(source)
    tensors = read_weights(source)
    require_complete(source, "from our format", tensors, config)
    return CheckpointParts(config, tensors, read_generation_config(source, config))


def default_generation_config(config: VanillaTransformerConfig) -> GenerationConfig:
    """Return generation settings for a model whose original has none: its special ids and our maximum length."""
    return GenerationConfig(
        max_length=DEFAULT_MAX_LENGTH,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )


def copy_tokenizer(source: Path, directory: Path) -> None:
    """Save the tokenizer of one of our checkpoints, if it has one, to another directory."""
    if (source / "tokenizer_config.json").is_file():
        CheckpointDirectory(source).load_tokenizer().save_pretrained(directory)


__all__ = ["CheckpointParts", "copy_tokenizer", "default_generation_config", "read_parts"]
