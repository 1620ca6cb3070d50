# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Load a checkpoint that somebody else may have made: no code of its own is run, and what is wrong is one sentence.

What a name on the Hub stands for is fetched first, and each file held against the hash the Hub has for it. A folder is
looked over before transformers reads it: what its configuration claims has to be in the file of weights, so that a few
bytes can't ask for gigabytes, and every file has to be inside the folder.
"""

import hashlib
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import errors, snapshot_download
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..json_object import read_json_object
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig, with_current_names
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER, TranslationTokenizers
from .weight_index import WEIGHTS, weight_files

_HTTPError: Any = errors.HTTPError  # httpx's or httpx2's, as huggingface_hub's version has it
# Of a repository on the Hub: configuration, weights and tokenizers; no code and no pickles.
_WANTED_FILES = ("*.json", "*.safetensors", "*.spm", "*.txt")
_TOKENIZER_FILES = ("*.json", "*.spm", "*.txt", "*.model", "*.jinja")
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # on the Hub, user/name
_READ_BYTES = 2**20  # at a time, for a hash
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_MAX_CONFIG_BYTES = 2**20
_MAX_HEADER_BYTES = 100 * 2**20  # what the safetensors library allows
# Configuration fields that say how large tensors are, or how many.
_SIZES = "vocab_size decoder_vocab_size d_model d_ff num_heads d_k d_v encoder_layers decoder_layers".split()


def fetch(name: str | Path, *, revision: str | None = None, wanted: Sequence[str] = _WANTED_FILES) -> Path:
    """Give a checkpoint's folder: the one of that name, or, fetched and checked, what the Hub has by it.

    Args:
        name: a folder, or "user/name" on the Hub. Without a network, what was fetched before is taken.
        revision: of the Hub: a commit, branch or tag; None is the newest.
        wanted: patterns of the files to fetch.

    Raises:
        OSError: If there is neither, the Hub refuses or can't be reached, or a file arrived damaged.
    """
    folder = Path(name)
    if folder.exists() or isinstance(name, Path) or not _NAME.fullmatch(str(name)):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no directory {name}" + (", but a file" if folder.exists() else ""))
        return folder
    try:
        fetched = Path(snapshot_download(str(name), revision=revision, allow_patterns=list(wanted)))
    except (_HTTPError, OSError, ValueError, errors.RevisionResolutionError) as error:
        raise OSError(f"there is no directory {name}, and the Hub {_why_not(error, str(name), revision)}") from error
    _check_hashes(fetched, str(name))
    return fetched


def _why_not(error: BaseException, name: str, revision: str | None) -> str:
    """Say why the Hub gave nothing, so that it goes on after "the Hub "."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for found in chain:
        status = getattr(getattr(found, "response", None), "status_code", None)
        if isinstance(found, errors.HFValidationError):
            return "takes no such name"
        if isinstance(found, errors.GatedRepoError):
            return f"gives {name} only to those whom its authors let in; ask there, and log in (`hf auth login`)"
        if isinstance(found, errors.RevisionNotFoundError):
            return f"has no revision {revision!r} of {name} (HTTP {status})"
        if isinstance(found, errors.RepositoryNotFoundError) or status in (401, 404):
            return (
                f"has no {name} that you can see (HTTP {status}); check the name and, if it is private, log in "
                "(`hf auth login`)"
            )
        if isinstance(found, errors.OfflineModeIsEnabled):
            return "may not be asked (HF_HUB_OFFLINE is set); what was never fetched needs the network once"
        if status == 429:
            return "asks for patience, there were too many requests (HTTP 429); try again in some minutes"
        if status is not None and status >= 500:
            return f"has trouble of its own (HTTP {status}); try again later"
        if status is not None:
            return f"refuses it (HTTP {status}); check the token (`hf auth whoami`)"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return f"may have one, but it can't be stored here ({error})"
    return f"can't be reached or broke off ({type(chain[-1]).__name__}); try again when the network is back"


def _check_hashes(folder: Path, name: str) -> None:
    """Hold what was fetched against the Hub's hashes: the client itself looks at sizes only.

    A file in the client's cache is a link to one that is called by its hash: SHA-256 of large files, git's of others.
    """
    for path in sorted(folder.rglob("*")):
        stored = path.resolve()
        if not path.is_symlink() or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", stored.name):
            continue
        digest = hashlib.sha256() if len(stored.name) == 64 else hashlib.sha1(b"blob %d\0" % stored.stat().st_size)
        with stored.open("rb") as file:
            while part := file.read(_READ_BYTES):
                digest.update(part)
        if digest.hexdigest() != stored.name:
            path.unlink()
            stored.unlink()
            raise OSError(
                f"{path.name} of {name} arrived damaged (its hash is not the Hub's) and was removed from the cache; "
                "run the same command again to fetch it anew"
            )


def load_checkpoint(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | TranslationTokenizers]:
    """Load a translation model and its tokenizer.

    Args:
        name: a checkpoint's folder, or its name on the Hub. Only safetensors weights are read, and code that comes
            with the checkpoint is not run.

    Returns:
        The model, in evaluation mode, and its tokenizer; where the target has a vocabulary of its own, both.

    Raises:
        ValueError: If a file is broken or claims what isn't there, or it is another kind of model; the message says
            which.
        OSError: If there is no such checkpoint, or the Hub doesn't give it.
    """
    folder = fetch(name)
    check_folder(folder)
    try:
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (ValueError, OSError, ImportError):
        raise
    except BaseException as error:
        _refuse(f"the model in {name} can't be loaded", error)
    wrong = sorted([*report["missing_keys"], *report["unexpected_keys"], *map(str, report["mismatched_keys"])])
    if wrong:
        raise ValueError(f"the weights in {name} are not those that config.json describes: {', '.join(wrong[:3])} …")
    if model.config.decoder_vocab_size is None:
        return model.eval(), load_tokenizer(folder)
    if not (folder / TARGET_TOKENIZER).is_dir():
        raise ValueError(
            f"the target has a vocabulary of its own ({model.config.decoder_vocab_size} tokens), but {name} has no "
            f"folder {TARGET_TOKENIZER}; save the target's tokenizer there"
        )
    tokenizers = TranslationTokenizers(load_tokenizer(folder), load_tokenizer(folder / TARGET_TOKENIZER))
    tokenizers.check_fit(model.config)
    return model.eval(), tokenizers


def load_tokenizers(name: str | Path) -> TranslationTokenizers:
    """Load what encodes source and target: one tokenizer, or two.

    Two are found as `vanilla-transformer tokenizer --source … --target …` writes them, in the folders source and
    target, and as a checkpoint has them, the target's in the folder target_tokenizer.

    Args:
        name: a folder, or a name on the Hub.

    Raises:
        ValueError: If a tokenizer can't be loaded, or has no EOS token.
        OSError: If there is none of that name.
    """
    if Path(name).exists() or _NAME.fullmatch(str(name)):
        name = fetch(name, wanted=_TOKENIZER_FILES)
    folder = Path(name)
    halves = [folder / side for side in ("source", "target")]
    if all(half.is_dir() for half in halves) and not (folder / "tokenizer_config.json").is_file():
        return TranslationTokenizers(*map(load_tokenizer, halves))
    if (folder / TARGET_TOKENIZER).is_dir():
        return TranslationTokenizers(load_tokenizer(folder), load_tokenizer(folder / TARGET_TOKENIZER))
    return TranslationTokenizers(load_tokenizer(name))


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Load one tokenizer; see `load_checkpoint`."""
    folder: str | Path = name
    if isinstance(name, Path) or Path(name).exists() or _NAME.fullmatch(name):
        folder = fetch(name, wanted=_TOKENIZER_FILES)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
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
    config = with_current_names(_read_config(folder))
    kind = config.get("model_type")
    if kind != VanillaTransformerConfig.model_type:
        raise ValueError(
            f"{folder} holds a model of type {kind!r}, not {VanillaTransformerConfig.model_type!r}; "
            "`vanilla-transformer convert --from` brings in Marian, FSMT, fairseq and torch.nn.Transformer"
        )
    shards = [path for path in weight_files(folder) if path.suffix == ".safetensors"]
    if not shards:
        pickles = any(path for pattern in _PICKLES for path in folder.glob(pattern))
        raise ValueError(
            f"{folder} has its weights in pickles only, which can run code; save the model as safetensors"
            if pickles
            else f"{folder} has no {WEIGHTS}; it holds no model, or saving it was interrupted"
        )
    tensors: dict[str, Any] = {}
    for shard in shards:
        tensors.update(read_header(shard))
    total = sum(shard.stat().st_size for shard in shards)  # bytes, an upper limit on any number of elements
    sizes = {key: config[key] for key in _SIZES if isinstance(config.get(key), int)}
    defaults = VanillaTransformerConfig()
    for key in _SIZES:
        if sizes.setdefault(key, getattr(defaults, key) or 0) > total:
            raise ValueError(f"config.json in {folder} says {key}={sizes[key]}, more than its weights have bytes")
    if sizes["encoder_layers"] + sizes["decoder_layers"] > len(tensors):
        raise ValueError(f"config.json in {folder} says more layers than the {len(tensors)} tensors of its weights")
    for left, right in (("vocab_size", "d_model"), ("decoder_vocab_size", "d_model"), ("d_model", "d_ff")):
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
    config = read_json_object(path, _MAX_CONFIG_BYTES)
    for key, value in config.items():
        if "attn_implementation" in key and isinstance(value, str) and "/" in value:
            raise ValueError(f"{path} asks for attention code from {value!r}; code that a checkpoint names is not run")
    return config


__all__ = ["check_folder", "fetch", "load_checkpoint", "load_tokenizer", "load_tokenizers", "read_header"]
