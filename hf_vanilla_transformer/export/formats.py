# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Export a checkpoint to a format that runs without torch, and load it for `translate`."""

import importlib.util
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..checkpoints.download import local_directory
from ..checkpoints.loading import load_checkpoint
from ..json_object import read_json_object
from ..model.special_tokens_vanilla_transformer import SpecialTokens
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from ..overwriting import check_folder, output_folder
from .exported_model import RECORD_NAME, ExportedModel, ExportRecord

logger = logging.get_logger(__name__)

WRITER_PACKAGES = {  # format → the packages that write it; the extra of the same name installs them
    "ctranslate2": ("ctranslate2",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}
TARGET_FORMATS = tuple(WRITER_PACKAGES)
RUNTIME_PACKAGES = {"ctranslate2": "ctranslate2", "onnx": "onnxruntime"}  # format → the package that runs it
ENGINES = ("torch", *TARGET_FORMATS)
SEARCH_DEFAULTS: dict[str, dict[str, Any]] = {  # engine → fields of `BeamSearchConfig` where it lacks the paper's
    "torch": {},
    "ctranslate2": {"length_normalization": "power"},
    "onnx": {"num_beams": 1},
}


def export_checkpoint(
    target_format: str,
    source: str | Path,
    target: str | Path,
    *,
    quantization: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Export a checkpoint for CTranslate2 or onnxruntime.

    The target directory is complete or absent at any time. Beside the format's own files it has the tokenizer, which
    AutoTokenizer loads, and export.json, which `load_engine` reads.

    Greedy translations are the same as with torch. Beam search differs: CTranslate2 divides by n^α
    (``length_normalization="power"``) and does not have the paper's ((5 + n) / 6)^α; ONNX exports are greedy only.

    Args:
        target_format: "ctranslate2" or "onnx".
        source: directory of a checkpoint, or its name on the Hub.
        target: directory for the result.
        quantization: how weights are stored. CTranslate2: "float32" (None), "int8" and its other types; ONNX: None.
        overwrite: replace an exported checkpoint at ``target``.

    Returns:
        ``target``.

    Raises:
        ValueError: If the format is unknown, the checkpoint is of another model, or the format does not support it; all
            reasons are listed.
        OSError: If the checkpoint is missing, or ``target`` exists and ``overwrite`` is not set, or it holds other
            files than an exported checkpoint's.
        ImportError: If a package that writes the format is missing.
    """
    output = Path(target)
    if target_format not in TARGET_FORMATS:
        raise ValueError(
            f"target_format={target_format!r} is unknown; choose one of {', '.join(map(repr, TARGET_FORMATS))}"
        )
    _check_packages(f"the format {target_format}", WRITER_PACKAGES[target_format], extra=target_format)
    check_folder(output, "export", inputs=[source], overwrite=overwrite)
    folder = local_directory(source)
    model, tokenizer = load_checkpoint(folder)
    tokenizers = TranslationTokenizers(tokenizer)
    with output_folder(output, "export", inputs=[folder], overwrite=overwrite) as staging:
        if target_format == "ctranslate2":
            from .ctranslate2 import write_ctranslate2

            source_tokens = _list_tokens(tokenizers.source)
            target_tokens = _list_tokens(tokenizers.target) if tokenizers.separate else source_tokens
            details = write_ctranslate2(model, source_tokens, target_tokens, staging, quantization)
        else:
            from .onnx import write_onnx

            details = write_onnx(model, staging, quantization)
        tokenizers.save_pretrained(staging)
        fields = model.config.to_dict()
        fields.pop("_name_or_path", None)  # a local path does not belong in a published file
        limit = details.pop("max_sequence_length")
        ExportRecord(target_format, fields, SpecialTokens.of(model), limit, details).write(staging)
    logger.info(f"exported {source} for {target_format} to {output}")
    return output


def recognize_engine(checkpoint: str | Path) -> str:
    """Return the engine that runs a checkpoint: the format of an export, else "torch".

    Args:
        checkpoint: a directory, or an id on the Hub, which is never an export.

    Raises:
        ValueError: If the directory is an export of CTranslate2 that `export_checkpoint` did not write.
    """
    directory = Path(checkpoint)
    if (directory / RECORD_NAME).is_file():
        found = read_json_object(directory / RECORD_NAME).get("format")
        if found in TARGET_FORMATS:
            return str(found)
        raise ValueError(f"{directory / RECORD_NAME} has the unknown format {found!r}; export the checkpoint again")
    if (directory / "model.bin").is_file() and any(directory.glob("*_vocabulary.*")):
        raise ValueError(
            f"{directory} was written by CTranslate2's own converter and lacks {RECORD_NAME}; export the checkpoint "
            "with `vanilla-transformer convert --to ctranslate2 CHECKPOINT DIRECTORY`"
        )
    return "torch"


def load_engine(engine: str, directory: str | Path) -> ExportedModel:
    """Load an exported checkpoint for `translate`.

    Args:
        engine: "ctranslate2" or "onnx".
        directory: written by `export_checkpoint`.

    Raises:
        ValueError: If the directory has no such export.
        ImportError: If the library that runs it is not installed.
    """
    if engine not in RUNTIME_PACKAGES:
        raise ValueError(f"engine={engine!r} is unknown; choose one of {', '.join(ENGINES)}")
    _check_packages(f"engine={engine!r}", (RUNTIME_PACKAGES[engine],), extra=engine)
    ExportRecord.read(Path(directory), engine)
    try:
        if engine == "ctranslate2":
            from .ctranslate2 import CTranslate2Model

            return CTranslate2Model(directory)
        from .onnx import OnnxModel

        return OnnxModel(directory)
    except Exception as error:  # the libraries have exception types of their own
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot load the export in {directory} ({reason}); write it again with --overwrite"
        ) from error


def _check_packages(what: str, packages: tuple[str, ...], extra: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{what} needs {', '.join(missing)}; run `pip install 'hf_vanilla_transformer[{extra}]'`")


def _list_tokens(tokenizer: Any) -> list[str]:
    """List the vocabulary in the order of its ids."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    for place, (token, token_id) in enumerate(vocabulary):
        if place != token_id:
            raise ValueError(
                f"the ids of the tokenizer have a gap or a duplicate before {token!r} (id {token_id}); number its "
                "tokens from 0 without gaps"
            )
    return [token for token, _ in vocabulary]


__all__ = [
    "ENGINES",
    "SEARCH_DEFAULTS",
    "TARGET_FORMATS",
    "export_checkpoint",
    "load_engine",
    "recognize_engine",
]
