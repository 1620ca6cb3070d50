# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""What all converters share: reading somebody's files without running their code, and writing a directory whole."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import logging

from ..checkpoints.weight_index import INDEX, WEIGHTS, read_weight_index, weight_files
from ..json_object import read_json_object
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import DEFAULT_MAX_LENGTH, VanillaTransformerForConditionalGeneration
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER
from .key_map import check_complete, refuse

logger = logging.get_logger(__name__)

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # in this order, after safetensors


@dataclass
class ImportedCheckpoint:
    """A checkpoint in our terms.

    Attributes:
        config: the architecture.
        tensors: the weights under our names, tied matrices once.
        generation_config: how its authors decode; None is ours.
        tokenizer: for the source, and for the target where there is no other; None if the source has none.
        target_tokenizer: for the target where it has a vocabulary of its own.
    """

    config: VanillaTransformerConfig
    tensors: dict[str, Tensor]
    generation_config: GenerationConfig | None = None
    tokenizer: Any = None
    target_tokenizer: Any = field(default=None)

    def save(self, directory: Path) -> None:
        """Write an ordinary model directory."""
        with torch.device("meta"):
            model = VanillaTransformerForConditionalGeneration(self.config)
        incomplete = model.load_state_dict(self.tensors, strict=False, assign=True)
        assert not incomplete.unexpected_keys  # check_complete has said so
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
            target_tokenizer = self.tokenizer  # two matrices, one vocabulary: what writes the target is still there
        if target_tokenizer is not None:
            target_tokenizer.save_pretrained(directory / TARGET_TOKENIZER)


# --------------------------------------------------------------------------- reading


def read_config(source: Path, model_type: str) -> dict[str, Any]:
    """Read config.json.

    Raises:
        ValueError: If it isn't there, isn't JSON, or belongs to another type of model.
    """
    path = source / "config.json"
    if not source.is_dir():
        raise FileNotFoundError(f"there is no directory {source}")
    if not path.is_file():
        raise ValueError(f"{source} has no config.json, so nothing says which model its weights are")
    config = read_json_object(path)
    if config.get("model_type") != model_type:
        raise ValueError(f"{source} holds a model of type {config.get('model_type')!r}, not {model_type!r}")
    return config


def read_weights(source: Path) -> dict[str, Tensor]:
    """Read the weights of a directory as transformers writes them: safetensors, else pickles of plain tensors.

    Raises:
        ValueError: If there are none or they can't be read.
    """
    found = weight_files(source)
    for path in (source / name for name in _PICKLES):
        if not found and path.is_file():
            found = sorted(set(read_weight_index(path).values())) if path.suffix == ".json" else [path]
    if not found:
        raise ValueError(f"{source} has no weights: none of {', '.join((WEIGHTS, INDEX, *_PICKLES))}")
    tensors: dict[str, Tensor] = {}
    for path in found:
        if path.suffix != ".json":
            tensors |= read_weight_file(path)
    return tensors


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Read one file of tensors by name.

    Raises:
        ValueError: If it can't be read, or holds anything but tensors.
    """
    content = read_pickle(path) if path.suffix != ".safetensors" else _read_safetensors(path)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds something else than tensors by name; save the model's state_dict()")
    return dict(content)


def read_pickle(path: Path, harmless: tuple[type, ...] = ()) -> Any:
    """Read what torch.save wrote, without running any code in it.

    Args:
        path: the file.
        harmless: classes it may hold beside tensors, containers, numbers and strings.

    Raises:
        ValueError: If it is damaged or holds other objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with torch.serialization.safe_globals(list(harmless)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        culprit = reason.partition("GLOBAL ")[2].split(" ")[0]
        holds = f"holds an object of {culprit}, which could run code" if culprit else "is no file of torch.save"
        raise ValueError(f"{path} {holds}; save its tensors alone, best as safetensors") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} can't be read ({' '.join(str(error).split())}); is it whole?") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} can't be read as safetensors ({error}); is it whole?") from error


def read_generation_config(source: Path, config: Any) -> GenerationConfig:
    """Read how a checkpoint's authors decode: from generation_config.json, else from config.json, as it once was.

    Everything is kept as it is, so that plain ``generate()`` gives the same as before; only a length is set where there
    is none.
    """
    name = "generation_config.json" if (source / "generation_config.json").is_file() else "config.json"
    found = GenerationConfig.from_pretrained(source, config_file_name=name)
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")} - {"transformers_version"}
    fields = {name: value for name, value in found.to_diff_dict().items() if name in known}
    for name in ("output_attentions", "output_hidden_states"):  # switches of a call, not ways to decode
        fields.pop(name, None)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        if fields.get(name) is None and getattr(config, name, None) is not None:
            fields[name] = getattr(config, name)
    if not {"max_length", "max_new_tokens"} & fields.keys():
        fields["max_length"] = DEFAULT_MAX_LENGTH
    return GenerationConfig(**fields)


def load_tokenizer(tokenizer_class: Any, source: Path, needed: tuple[str, ...]) -> Any:
    """Load the stock tokenizer of a checkpoint, or None, with a warning, if its files aren't all there.

    Raises:
        ValueError: If they are there and can't be read.
    """
    absent = [name for name in needed if not (source / name).is_file()]
    if absent:
        logger.warning(f"{source} has no {', '.join(absent)}: the result has no tokenizer")
        return None
    try:
        return tokenizer_class.from_pretrained(source)
    except ImportError:
        raise
    except Exception as error:  # tokenizers raise what their libraries raise
        raise ValueError(f"the tokenizer in {source} can't be read ({' '.join(str(error).split())})") from error


def carry_tokenizer(source: Path, directory: Path) -> None:
    """Save the tokenizer of one of our checkpoints, where it has one, into another directory."""
    if (source / "tokenizer_config.json").is_file():
        AutoTokenizer.from_pretrained(source).save_pretrained(directory)


def read_own(source: Path) -> ImportedCheckpoint:
    """Read a checkpoint of ours, for the way back.

    Raises:
        ValueError: If it is none, or its weights don't fit its configuration.
    """
    read_config(source, VanillaTransformerConfig.model_type)
    config = VanillaTransformerConfig.from_pretrained(source)
    tensors = read_weights(source)
    problems: list[str] = []
    check_complete(tensors, config, problems)
    refuse(source, "from our format", problems)
    return ImportedCheckpoint(config, tensors, read_generation_config(source, config))


__all__ = [
    "ImportedCheckpoint",
    "carry_tokenizer",
    "load_tokenizer",
    "read_config",
    "read_generation_config",
    "read_own",
    "read_pickle",
    "read_weight_file",
    "read_weights",
]
