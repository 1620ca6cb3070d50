# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Convert checkpoints of the same family into ours, exactly, and back where the other format can express ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..checkpoints.loading import fetch
from ..overwriting import check_folder, output_folder
from .fsmt import read_fairseq, read_fsmt, write_fsmt
from .importing import ImportedCheckpoint
from .marian import read_marian, write_marian
from .torch_transformer import read_torch, write_torch

logger = logging.get_logger(__name__)

SOURCE_FORMATS = ("marian", "fsmt", "fairseq", "torch")
RESTORED_FORMATS = ("marian", "fsmt", "torch")

_WANTED_FILES = ("*.json", "*.safetensors", "*.bin", "*.spm", "*.txt")  # of a repository on the Hub


def convert_checkpoint(
    source_format: str,
    source: str | Path,
    target: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert another model's checkpoint into an ordinary directory of ours, with its tokenizer.

    The result computes what the original computes. It appears whole or not at all; no code of the source is run.

    Args:
        source_format: "marian" (transformers' MarianMTModel, OPUS-MT), "fsmt" (FSMTForConditionalGeneration), "fairseq"
            or "torch" (a state dict around torch.nn.Transformer).
        source: its directory or file; of "marian" and "fsmt" also a name on the Hub.
        target: directory for the result.
        options: of "torch" only: the names and numbers of `torch_transformer.TorchOptions`.
        overwrite: replace an earlier conversion that is at ``target``.

    Returns:
        ``target``.

    Raises:
        ValueError: If something in the source can't be expressed, is missing or is left over; the message lists
            everything.
        OSError: If the source is missing, or ``target`` is there and ``overwrite`` isn't set.
        ImportError: If the source's tokenizer needs a package that isn't installed.
    """
    _check_format(source_format, SOURCE_FORMATS, options)
    output = Path(target)
    path = Path(source)
    check_folder(output, "conversion", inputs=[path], overwrite=overwrite)
    if source_format in ("marian", "fsmt"):
        path = fetch(source, wanted=_WANTED_FILES)
    imported = _read(source_format, path, options or {})
    with output_folder(output, "conversion", inputs=[path], overwrite=overwrite) as staging:
        imported.save(staging)
    logger.info(f"converted {source} into {output}")
    return output


def restore_checkpoint(
    target_format: str,
    source: str | Path,
    target: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert a checkpoint of ours into the format of another model that can express it.

    Args:
        target_format: "marian", "fsmt" or "torch".
        source: our checkpoint's directory.
        target: directory for the result.
        options: of "torch" only: the names of `torch_transformer.TorchOptions`.
        overwrite: replace a checkpoint that is at ``target``.

    Returns:
        ``target``.

    Raises:
        ValueError: If the format can't express the checkpoint; the message lists everything.
        OSError: If the source is missing, or ``target`` is there and ``overwrite`` isn't set.
    """
    _check_format(target_format, RESTORED_FORMATS, options)
    path = Path(source)
    with output_folder(target, "conversion", inputs=[path], overwrite=overwrite) as staging:
        if target_format == "marian":
            write_marian(path, staging)
        elif target_format == "fsmt":
            write_fsmt(path, staging)
        else:
            write_torch(path, staging, options or {})
    return Path(target)


def _check_format(name: str, known: tuple[str, ...], options: Mapping[str, Any] | None) -> None:
    if name not in known:
        raise ValueError(f"there is no converter for {name!r}; choose one of {', '.join(known)}")
    if options and name != "torch":
        raise ValueError(f"{name} says everything itself and takes no options, but {', '.join(sorted(options))} is set")


def _read(source_format: str, path: Path, options: Mapping[str, Any]) -> ImportedCheckpoint:
    if source_format == "marian":
        return read_marian(path)
    if source_format == "fsmt":
        return read_fsmt(path)
    if source_format == "fairseq":
        return read_fairseq(path)
    return read_torch(path, options)


__all__ = ["RESTORED_FORMATS", "SOURCE_FORMATS", "convert_checkpoint", "restore_checkpoint"]
