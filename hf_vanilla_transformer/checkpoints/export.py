# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Write a checkpoint in the format of a runtime that knows neither Python nor torch."""

import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..version import __version__

logger = logging.get_logger(__name__)

EXPORT_NAME = "export.json"  # in the result: the format, what the runtime has to know, and the model's configuration
TARGET_TOKENIZER = "target_tokenizer"  # a second vocabulary's tokenizer, in a folder of its own
TARGET_FORMATS = {  # format → the packages it needs, which are an extra of the same name
    "ctranslate2": ("ctranslate2",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}


def export_checkpoint(
    target_format: str,
    source: str | Path,
    target: str | Path,
    *,
    quantization: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint for CTranslate2 or onnxruntime.

    The result appears whole or not at all. Beside the format's own files it holds the tokenizer, which loads through
    AutoTokenizer as before, and ``export.json``, by which `load_engine` finds its way.

    Both decode greedily as we do. Their beam search is their own: CTranslate2 divides by n^α, which here is
    ``length_penalty="power"`` with the same α, and knows nothing of the paper's ((5 + n) / 6)^α.

    Args:
        target_format: "ctranslate2" or "onnx".
        source: a checkpoint's directory, or its name on the Hub.
        target: directory for the result.
        quantization: how weights are stored. CTranslate2: "float32" (None), "int8" and the others that it has; ONNX:
            None.
        overwrite: replace ``target`` if it is there.

    Returns:
        ``target``.

    Raises:
        ValueError: If the format is unknown, the checkpoint is of another model, or the format can't express it; all
            reasons are named.
        OSError: If the checkpoint is missing, or ``target`` is there and ``overwrite`` isn't set.
        ImportError: If a package that writes the format is missing.
    """
    output = Path(target)
    if target_format not in TARGET_FORMATS:
        raise ValueError(
            f"target_format={target_format!r} is unknown; choose one of {', '.join(map(repr, TARGET_FORMATS))}"
        )
    _check_packages(target_format)
    _check_output(output, Path(source), overwrite)
    config = AutoConfig.from_pretrained(source)
    if config.model_type != VanillaTransformerConfig.model_type:
        raise ValueError(
            f"{source} is a {config.model_type} model; only {VanillaTransformerConfig.model_type} checkpoints are "
            "exported: bring it in first with convert --from"
        )
    model = VanillaTransformerForConditionalGeneration.from_pretrained(source).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    target_tokenizer = None
    if (Path(source) / TARGET_TOKENIZER).is_dir():
        target_tokenizer = AutoTokenizer.from_pretrained(Path(source) / TARGET_TOKENIZER)

    output.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        if target_format == "ctranslate2":
            from .to_ctranslate2 import write_ctranslate2

            source_tokens = _tokens(tokenizer)
            target_tokens = source_tokens if target_tokenizer is None else _tokens(target_tokenizer)
            notes = write_ctranslate2(model, source_tokens, target_tokens, aside, quantization)
        else:
            from .to_onnx import write_onnx

            notes = write_onnx(model, aside, quantization)
        tokenizer.save_pretrained(aside)
        if target_tokenizer is not None:
            target_tokenizer.save_pretrained(aside / TARGET_TOKENIZER)
        fields = model.config.to_dict()
        fields.pop("_name_or_path", None)  # a published file should not tell where it was made
        record = {"format": target_format, "hf_vanilla_transformer": __version__, **notes, "config": fields}
        (aside / EXPORT_NAME).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(aside, 0o777 & ~mask)  # mkdtemp's folder is for its owner only
        if output.exists():
            shutil.rmtree(output)
        os.rename(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    logger.info(f"exported {source} for {target_format} to {output}")
    return output


def _check_packages(target_format: str) -> None:
    missing = [name for name in TARGET_FORMATS[target_format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the format {target_format} needs {', '.join(missing)}; run "
            f"`pip install 'hf_vanilla_transformer[{target_format}]'`"
        )


def _check_output(output: Path, source: Path, overwrite: bool) -> None:
    """Refuse to write over what is there, unless asked to, and over the source in any case."""
    if source.exists() and (output.resolve() == source.resolve() or output.resolve() in source.resolve().parents):
        raise ValueError(f"writing to {output} would replace the checkpoint {source}; choose another directory")
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file; choose a directory")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise FileExistsError(f"{output} is there already; choose another directory or set overwrite")


def _tokens(tokenizer: Any) -> list[str]:
    """List the vocabulary in the order of its ids."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    for place, (token, token_id) in enumerate(vocabulary):
        if place != token_id:
            raise ValueError(f"the tokenizer's ids leave a gap or repeat before {token!r} (id {token_id})")
    return [token for token, _ in vocabulary]


__all__ = ["EXPORT_NAME", "TARGET_FORMATS", "export_checkpoint"]
