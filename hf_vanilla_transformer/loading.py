# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Load a checkpoint that somebody else may have made: no code of its own is run, and what is wrong is one sentence.

A folder is looked over before transformers reads it: what its configuration claims has to be in the file of weights,
so that a few bytes can't ask for gigabytes, and every file has to be inside the folder.
"""

import json
import struct
from pathlib import Path
from typing import Any, NoReturn

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .model.configuration_vanilla_transformer import VanillaTransformerConfig

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_MAX_CONFIG_BYTES = 2**20
_MAX_HEADER_BYTES = 100 * 2**20  # what the safetensors library allows
# Configuration fields that say how large tensors are, or how many.
_SIZES = "vocab_size target_vocab_size d_model d_ff num_heads d_k d_v encoder_layers decoder_layers".split()


def load_checkpoint(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a translation model and its tokenizer.

    Args:
        name: a checkpoint's folder, or its name on the Hub. Only safetensors weights are read, and code that comes
            with the checkpoint is not run.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        ValueError: If a file is broken or claims what isn't there; the message says which.
        OSError: If there is no such checkpoint.
    """
    folder = Path(name)
    if folder.is_dir():
        check_folder(folder)
    try:
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (ValueError, OSError, ImportError):
        raise
    except BaseException as error:
        _refuse(f"the model in {name} can't be loaded", error)
    wrong = sorted([*report["missing_keys"], *report["unexpected_keys"], *map(str, report["mismatched_keys"])])
    if wrong:
        raise ValueError(f"the weights in {name} are not those that config.json describes: {', '.join(wrong[:3])} …")
    return model.eval(), load_tokenizer(name)


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer; see `load_checkpoint`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        tokenizer("a")  # what is wrong with a tokenizer may show only when it works
    except (ValueError, OSError, ImportError):
        raise
    except BaseException as error:  # a panic of the library in Rust is no Exception
        _refuse(f"the tokenizer in {name} can't be loaded", error)
    return tokenizer


def _refuse(what: str, error: BaseException) -> NoReturn:
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    reason = " ".join(str(error).split())[:300]
    raise ValueError(f"{what}: {type(error).__name__} {reason}") from error


# --------------------------------------------------------------------------- a folder, before it is trusted


def check_folder(folder: Path) -> None:
    """Refuse a folder whose files contradict each other or lead out of it.

    Raises:
        ValueError: As the message says.
    """
    config = _read_config(folder)
    shards = _shards(folder)
    if not shards:
        return  # transformers says what is missing
    tensors: dict[str, Any] = {}
    for shard in shards:
        tensors.update(read_header(shard))
    if config.get("model_type") != VanillaTransformerConfig.model_type:
        return
    total = sum(shard.stat().st_size for shard in shards)  # bytes, an upper limit on any number of elements
    sizes = {key: config[key] for key in _SIZES if isinstance(config.get(key), int)}
    defaults = VanillaTransformerConfig()
    for key in _SIZES:
        if sizes.setdefault(key, getattr(defaults, key) or 0) > total:
            raise ValueError(f"config.json in {folder} says {key}={sizes[key]}, more than its weights have bytes")
    if sizes["encoder_layers"] + sizes["decoder_layers"] > len(tensors):
        raise ValueError(f"config.json in {folder} says more layers than the {len(tensors)} tensors of its weights")
    for left, right in (("vocab_size", "d_model"), ("target_vocab_size", "d_model"), ("d_model", "d_ff")):
        if sizes[left] * sizes[right] > total:
            raise ValueError(
                f"config.json in {folder} says {left}={sizes[left]} and {right}={sizes[right]}, a matrix larger than "
                f"the {total:,} bytes of its weights"
            )
    for width in ("d_k", "d_v"):
        if sizes["num_heads"] * max(sizes[width], 1) * sizes["d_model"] > max(total, sizes["d_model"] ** 2):
            raise ValueError(
                f"config.json in {folder} says num_heads={sizes['num_heads']} of {width}={sizes[width]}, a projection "
                f"larger than the {total:,} bytes of its weights"
            )


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file: tensor → dtype, shape and place. Nothing of the tensors is read.

    Raises:
        ValueError: If it is no safetensors file, or its header isn't as long as it says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"{path} is truncated or no safetensors file: its header is longer than the file allows")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is no safetensors file: its header is no dictionary")
    header.pop("__metadata__", None)
    return header


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json; it is no checkpoint")
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; no configuration is that long")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no JSON object")
    for key, value in config.items():
        if "attn_implementation" in key and isinstance(value, str) and "/" in value:
            raise ValueError(f"{path} asks for attention code from {value!r}; code that a checkpoint names is not run")
    return config


def _shards(folder: Path) -> list[Path]:
    """List the files of weights; none where there are none, which transformers says better."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).is_file():
        return []
    try:
        names = set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{folder / _INDEX} is no index of safetensors files") from error
    shards = []
    for name in sorted(map(str, names)):
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder / _INDEX} names {name!r}, which is no file of that folder")
        shards.append(folder / name)
    return shards


__all__ = ["check_folder", "load_checkpoint", "load_tokenizer", "read_header"]
