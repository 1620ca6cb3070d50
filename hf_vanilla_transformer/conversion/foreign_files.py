# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read the files of other checkpoints (configuration, weights, generation settings, tokenizer) without running code."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import logging

from ..checkpoints.checkpoint_directory import CheckpointDirectory
from ..model.modeling_vanilla_transformer import DEFAULT_MAX_LENGTH

logger = logging.get_logger(__name__)


def read_config(source: Path, model_type: str) -> dict[str, Any]:
    """Read config.json.

    Raises:
        ValueError: If it is missing, is not JSON, or belongs to another type of model.
    """
    return CheckpointDirectory(source).read_config(model_type)


def read_weights(source: Path) -> dict[str, Tensor]:
    """Read the weights of a directory in the layout of transformers: safetensors, else pickle files of plain tensors.

    Raises:
        ValueError: If there are none, or they can't be read.
    """
    found = CheckpointDirectory(source).weight_files(allow_pickle=True)
    if not found:
        raise ValueError(
            f"{source} has no weights: found none of model.safetensors, pytorch_model.bin and their index files"
        )
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
        raise ValueError(f"{path} is not a dictionary of tensors; save the model's state_dict()")
    return dict(content)


def read_pickle(path: Path, allowed: tuple[type, ...] = ()) -> Any:
    """Read a file written by torch.save, without running any code in it.

    Args:
        path: the file.
        allowed: classes that it may contain besides tensors, containers, numbers and strings.

    Raises:
        ValueError: If it is damaged or contains other objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        name = reason.partition("GLOBAL ")[2].split(" ")[0]
        problem = f"contains an object of {name}, which could run code" if name else "was not written by torch.save"
        raise ValueError(f"{path} {problem}; save only its tensors, preferably as safetensors") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} can't be read ({' '.join(str(error).split())}); check that the file is complete"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} can't be read as safetensors ({error}); check that the file is complete") from error


def read_generation_config(source: Path, config: Any) -> GenerationConfig:
    """Read generation settings from generation_config.json or, in older checkpoints, from config.json.

    All settings are kept, so that ``generate()`` gives the same output as before. Only a maximum length is added if
    there is none.
    """
    found = CheckpointDirectory(source).read_generation_config()
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")} - {"transformers_version"}
    fields = {name: value for name, value in found.to_diff_dict().items() if name in known}
    for name in ("output_attentions", "output_hidden_states"):  # they choose what a call returns, not how it decodes
        fields.pop(name, None)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        if fields.get(name) is None and getattr(config, name, None) is not None:
            fields[name] = getattr(config, name)
    if not {"max_length", "max_new_tokens"} & fields.keys():
        fields["max_length"] = DEFAULT_MAX_LENGTH
    return GenerationConfig(**fields)


def load_tokenizer(tokenizer_class: Any, source: Path, needed: tuple[str, ...]) -> Any:
    """Load a tokenizer of transformers; return None, with a warning, if one of the needed files is missing.

    Raises:
        ValueError: If the files can't be read.
    """
    absent = [name for name in needed if not (source / name).is_file()]
    if absent:
        logger.warning(f"{source} has no {', '.join(absent)}; the result has no tokenizer")
        return None
    try:
        return tokenizer_class.from_pretrained(source)
    except ImportError:
        raise
    except Exception as error:  # tokenizers raise the exceptions of their libraries
        raise ValueError(f"the tokenizer in {source} can't be read ({' '.join(str(error).split())})") from error


__all__ = [
    "load_tokenizer",
    "read_config",
    "read_generation_config",
    "read_pickle",
    "read_weight_file",
    "read_weights",
]
