# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Write a checkpoint in the format of a runtime that knows neither Python nor torch."""

import importlib.util
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..atomic_files import write_json
from ..checkpoints.download import local_directory
from ..checkpoints.loading import load_checkpoint
from ..model.special_tokens_vanilla_transformer import SpecialTokens
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from ..overwriting import check_folder, output_folder
from ..version import __version__

logger = logging.get_logger(__name__)

EXPORT_NAME = "export.json"  # in the result: the format, what the runtime has to know, and the model's configuration
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
    ``length_normalization="power"`` with the same α, and knows nothing of the paper's ((5 + n) / 6)^α.

    Args:
        target_format: "ctranslate2" or "onnx".
        source: a checkpoint's directory, or its name on the Hub.
        target: directory for the result.
        quantization: how weights are stored. CTranslate2: "float32" (None), "int8" and the others that it has; ONNX:
            None.
        overwrite: replace an exported checkpoint that is at ``target``.

    Returns:
        ``target``.

    Raises:
        ValueError: If the format is unknown, the checkpoint is of another model, or the format can't express it; all
            reasons are named.
        OSError: If the checkpoint is missing, or ``target`` is there and ``overwrite`` isn't set, or it holds other
            things than an exported checkpoint.
        ImportError: If a package that writes the format is missing.
    """
    output = Path(target)
    if target_format not in TARGET_FORMATS:
        raise ValueError(
            f"target_format={target_format!r} is unknown; choose one of {', '.join(map(repr, TARGET_FORMATS))}"
        )
    _check_packages(target_format)
    check_folder(output, "export", inputs=[source], overwrite=overwrite)
    folder = local_directory(source)
    model, tokenizer = load_checkpoint(folder)
    tokenizers = TranslationTokenizers(tokenizer)
    special = SpecialTokens.of(model, None)  # as the search in torch reads them: generation_config.json comes first
    with output_folder(output, "export", inputs=[folder], overwrite=overwrite) as staging:
        if target_format == "ctranslate2":
            from .ctranslate2 import write_ctranslate2

            source_tokens = _tokens(tokenizers.source)
            target_tokens = _tokens(tokenizers.target) if tokenizers.separate else source_tokens
            notes = write_ctranslate2(model, source_tokens, target_tokens, staging, quantization)
        else:
            from .onnx import write_onnx

            notes = write_onnx(model, staging, quantization)
        tokenizers.save_pretrained(staging)
        notes["special_tokens"] = {
            "start": special.decoder_start_token_id,
            "end": list(special.eos_token_id),
            "pad": special.pad_token_id,
            "never": list(special.suppress_tokens),
        }
        fields = model.config.to_dict()
        fields.pop("_name_or_path", None)  # a published file should not tell where it was made
        record = {"format": target_format, "hf_vanilla_transformer": __version__, **notes, "config": fields}
        write_json(staging / EXPORT_NAME, record)
    logger.info(f"exported {source} for {target_format} to {output}")
    return output


def _check_packages(target_format: str) -> None:
    missing = [name for name in TARGET_FORMATS[target_format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the format {target_format} needs {', '.join(missing)}; run "
            f"`pip install 'hf_vanilla_transformer[{target_format}]'`"
        )


def _tokens(tokenizer: Any) -> list[str]:
    """List the vocabulary in the order of its ids."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    for place, (token, token_id) in enumerate(vocabulary):
        if place != token_id:
            raise ValueError(f"the tokenizer's ids leave a gap or repeat before {token!r} (id {token_id})")
    return [token for token, _ in vocabulary]


__all__ = ["EXPORT_NAME", "TARGET_FORMATS", "export_checkpoint"]
