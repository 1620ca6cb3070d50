# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Choose the engine that runs a checkpoint, torch or the runtime of an export, and load what it needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.loading import load_checkpoint, load_tokenizer
from ..device import choose_device
from ..export.formats import SEARCH_DEFAULTS, load_engine, recognize_engine
from ..inference import check_precision, prepare_for_inference
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.ensemble_vanilla_transformer import Ensemble
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers


def load_models(
    engine: str | None,
    checkpoints: Sequence[str | Path],
    device: str | torch.device | None = None,
    precision: str = "auto",
) -> tuple[Any, Any]:
    """Load a checkpoint by `load_translator`, or several as an ensemble by `load_ensemble`."""
    if len(checkpoints) > 1:
        return load_ensemble(checkpoints, device, precision)
    return load_translator(engine, checkpoints[0], device, precision)


def choose_engine(
    engine: str | None,
    checkpoint: str | Path,
    device: str | torch.device | None = None,
    precision: str = "auto",
) -> str:
    """Return the engine that runs a checkpoint, and check that the device and precision are possible with it.

    Args:
        engine: "torch", "ctranslate2" or "onnx"; None reads it from the directory.
        checkpoint, device, precision: see `load_translator`.

    Raises:
        ValueError: If they contradict each other.
    """
    found = recognize_engine(checkpoint)
    if engine is not None and engine != found:
        if found != "torch":
            raise ValueError(f"{checkpoint} is an export for {found}, which engine={engine!r} cannot run; leave it out")
        if (Path(checkpoint) / "config.json").is_file():
            raise ValueError(
                f"{checkpoint} is a checkpoint, not an export for {engine}; leave engine={engine!r} out, or export it "
                f"with `vanilla-transformer convert --to {engine} {checkpoint} DIRECTORY`"
            )
    chosen = engine or found
    if chosen == "torch":
        check_precision(precision, device)
    elif device is not None and choose_device(device).type != "cpu":
        raise ValueError(f"device={str(device)!r} is for the torch engine; an export for {chosen} runs on the CPU")
    elif precision != "auto":
        raise ValueError(
            f"precision={precision!r} is for the torch engine; an exported model runs in the precision of its export"
        )
    return chosen


def default_search(engine: str, config: BeamSearchConfig, **given: Any) -> BeamSearchConfig:
    """Return search settings; the ones that were not given have the defaults of the engine.

    Args:
        engine: from `choose_engine`.
        config: the settings of the torch engine.
        given: settings that the user has chosen.

    Raises:
        ValueError: If a setting is out of range, or more translations are wanted than the engine returns.
    """
    wanted = given.get("num_return_sequences", 1)
    if engine == "onnx" and wanted > 1:
        raise ValueError(
            f"num_return_sequences={wanted} is not possible with an ONNX export, whose greedy search finds one "
            "translation; leave it out, or use the checkpoint it was exported from"
        )
    return config.replace(**{**SEARCH_DEFAULTS[engine], **given})


def load_translator(
    engine: str | None, checkpoint: str | Path, device: str | torch.device | None = None, precision: str = "auto"
) -> tuple[Any, Any]:
    """Load what `translate` needs.

    Args:
        engine: "torch", or the runtime for which the checkpoint was exported: "ctranslate2" or "onnx"; None reads it
            from the directory.
        checkpoint: directory of the checkpoint or the export; for "torch" also an id on the Hub.
        device: device of a torch model; None selects the accelerator if there is one. Exported models run on the CPU.
        precision: of a torch model; see `prepare_for_inference`. Not for exported models.

    Returns:
        The model and its tokenizer.

    Raises:
        ValueError: If the checkpoint is invalid, or its engine does not support the device or precision.
        OSError: If there is no such checkpoint.
        ImportError: If the runtime is not installed.
    """
    engine = choose_engine(engine, checkpoint, device, precision)
    if engine == "torch":
        model, tokenizer = load_checkpoint(checkpoint)
        return prepare_for_inference(model, device, precision), tokenizer
    return load_engine(engine, checkpoint), load_tokenizer(checkpoint)


def load_ensemble(
    checkpoints: Sequence[str | Path], device: str | torch.device | None = None, precision: str = "auto"
) -> tuple[Ensemble, Any]:
    """Load several checkpoints that translate together.

    Args:
        checkpoints: directories or ids on the Hub.
        device, precision: see `load_translator`.

    Returns:
        The ensemble and the tokenizer of all its models.

    Raises:
        ValueError: If a checkpoint is invalid or is an export, or their vocabularies or tokenizers differ.
        OSError: If there is no such checkpoint.
    """
    check_ensemble(checkpoints)
    models, tokenizers = zip(*(load_translator("torch", name, device, precision) for name in checkpoints), strict=True)
    first = TranslationTokenizers(tokenizers[0])
    for name, tokenizer in zip(checkpoints[1:], tokenizers[1:], strict=True):
        if difference := first.difference(TranslationTokenizers(tokenizer)):
            raise ValueError(
                f"{checkpoints[0]} and {name} have different {difference}; an ensemble needs models that were trained "
                "with the same tokenizer"
            )
    return Ensemble(models), tokenizers[0]


def check_ensemble(checkpoints: Sequence[str | Path]) -> None:
    """Raise ValueError if one of several checkpoints is an export."""
    for name in checkpoints:
        if (engine := recognize_engine(name)) != "torch":
            raise ValueError(f"{name} is an export for {engine}; an ensemble is made of checkpoints")


__all__ = ["check_ensemble", "choose_engine", "default_search", "load_ensemble", "load_models", "load_translator"]
