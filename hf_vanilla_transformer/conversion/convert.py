# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Convert checkpoints of equivalent architectures to our format without loss, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..checkpoints.download import local_directory
from ..overwriting import check_folder, output_folder
from .formats import FORMATS, RESTORED_FORMATS, SOURCE_FORMATS

logger = logging.get_logger(__name__)

_WANTED_FILES = ("*.json", "*.safetensors", "*.bin", "*.spm", "*.txt")  # to download from the Hub


def convert_checkpoint(
    source_format: str,
    source: str | Path,
    target: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert a checkpoint of another model, with its tokenizer, into a directory that `from_pretrained` loads.

    The converted model computes the same outputs as the original. No code of the source is run. If the conversion
    fails, nothing is written to ``target``.

    Args:
        source_format: "marian" (transformers' MarianMTModel, OPUS-MT), "fsmt" (FSMTForConditionalGeneration), "fairseq"
            (a checkpoint of fairseq itself) or "torch" (a state dict of a model that contains torch.nn.Transformer).
        source: its directory or file; for "marian" and "fsmt", also a repository on the Hub.
        target: directory for the result.
        options: for "torch" only: the fields of `torch_options.TorchOptions`.
        overwrite: replace an earlier conversion at ``target``.

    Returns:
        ``target``.

    Raises:
        ValueError: If our format can't express the source, or tensors are missing or left over; the message lists all
            problems.
        OSError: If the source does not exist, or ``target`` exists and ``overwrite`` is False.
        ImportError: If the source's tokenizer needs a package that is not installed.
    """
    _check_format(source_format, SOURCE_FORMATS, options)
    output = Path(target)
    path = Path(source)
    check_folder(output, "conversion", inputs=[path], overwrite=overwrite)
    if FORMATS[source_format].on_hub:
        path = local_directory(source, allow_patterns=_WANTED_FILES)
    converted = FORMATS[source_format].read(path, options or {})
    with output_folder(output, "conversion", inputs=[path], overwrite=overwrite) as staging:
        converted.save(staging)
    logger.info(f"converted {source} to {output}")
    return output


def restore_checkpoint(
    target_format: str,
    source: str | Path,
    target: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert one of our checkpoints to another format: the inverse of `convert_checkpoint`.

    Args:
        target_format: "marian", "fsmt" or "torch".
        source: our checkpoint's directory.
        target: directory for the result.
        options: for "torch" only: the fields of `torch_options.TorchOptions`.
        overwrite: replace an earlier conversion at ``target``.

    Returns:
        ``target``.

    Raises:
        ValueError: If the format can't express the checkpoint; the message lists all problems.
        OSError: If the source does not exist, or ``target`` exists and ``overwrite`` is False.
    """
    _check_format(target_format, RESTORED_FORMATS, options)
    path = Path(source)
    write = FORMATS[target_format].write
    assert write is not None  # _check_format has checked it
    with output_folder(target, "conversion", inputs=[path], overwrite=overwrite) as staging:
        write(path, staging, options or {})
    return Path(target)


def _check_format(name: str, known: tuple[str, ...], options: Mapping[str, Any] | None) -> None:
    if name not in known:
        raise ValueError(f"there is no converter for {name!r}; choose one of {', '.join(known)}")
    if options and not FORMATS[name].takes_options:
        raise ValueError(f"the format {name} takes no options; leave out {', '.join(sorted(options))}")


__all__ = ["convert_checkpoint", "restore_checkpoint"]
