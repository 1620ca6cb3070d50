# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Average checkpoints (§6.1): the last 5 for the paper's base models, the last 20 for its big ones."""

import json
import math
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import logging

from ..atomic_files import staged_directory
from ..json_object import read_json_object
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER
from ..overwriting import RECORD_NAME, check_folder, write_folder_record
from ..version import __version__
from .manifest import MANIFEST_NAME, file_sha256, has_manifest, verify
from .weight_index import INDEX, WEIGHTS, read_weight_index, weight_files

logger = logging.get_logger(__name__)

PROVENANCE_NAME = "averaging.json"
DEFAULT_LAST = 5  # §6.1, base models

_TRAINER_STATE = "trainer_state.json"
# What a checkpoint holds beside its weights and belongs to the model: configurations, tokenizer, code. By suffix,
# because tokenizers bring files of any name; what Trainer needs to go on has other suffixes or stands in _LEFT_BEHIND.
_COPIED_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".spm", ".py"}
_LEFT_BEHIND = {_TRAINER_STATE, INDEX, PROVENANCE_NAME, MANIFEST_NAME, RECORD_NAME, "pytorch_model.bin.index.json"}
# Fields that may differ without harm.
_SAME_MODEL = {"_name_or_path", "auto_map", "custom_pipelines", "transformers_version", "use_cache"}
_PICKLES = ("pytorch_model*.bin", "model*.pt", "checkpoint*.pt")  # weights as older tools save them
_LOWER_IS_BETTER = re.compile(r"(loss|perplexity|nll|ter|wer)$")


@dataclass(frozen=True)
class _Checkpoint:
    """A folder with weights.

    Attributes:
        path: the folder.
        step: updates behind it; None where no name or state says so.
        scores: what evaluation gave at that step.
        files: weight tensor → the safetensors file that has it.
    """

    path: Path
    step: int | None
    scores: dict[str, float]
    files: dict[str, Path] = field(default_factory=dict)


def average_checkpoints(
    checkpoints: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    *,
    last: int | None = None,
    best: int | None = None,
    metric: str = "eval_loss",
    overwrite: bool = False,
) -> Path:
    """Write the arithmetic mean of several checkpoints' weights as an ordinary model directory.

    The mean is taken in fp64 and stored in the checkpoints' own dtype. Configuration, generation configuration,
    tokenizer and code come from the latest of them. ``averaging.json`` in the result says which checkpoints went into
    it, their steps, scores and hashes. The result appears whole or not at all.

    Args:
        checkpoints: a run's directory with its ``checkpoint-<step>`` folders, or the folders themselves.
        output_dir: where the result goes.
        last: average the last so many. Neither ``last`` nor ``best``: the last 5 of a run, or all folders named.
        best: average the so many best by ``metric``, as Trainer's state recorded it.
        metric: a name in Trainer's evaluation log, e.g. "eval_loss" or "eval_bleu". Of losses and perplexities the
            lowest are best, of anything else the highest.
        overwrite: replace ``output_dir`` if it is there and holds an earlier average and nothing else.

    Returns:
        ``output_dir``.

    Raises:
        ValueError: If the checkpoints don't go together, aren't safetensors, aren't finite or are too few; the message
            names the file.
        OSError: If a folder is missing, or ``output_dir`` is there and ``overwrite`` isn't set, or it isn't an average.
    """
    return write_average(checkpoints, output_dir, last=last, best=best, metric=metric, overwrite=overwrite)


def write_average(
    checkpoints: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    *,
    last: int | None = None,
    best: int | None = None,
    metric: str = "eval_loss",
    overwrite: bool = False,
    kind: str = "average",
    also: Sequence[str] = (),
) -> Path:
    """See `average_checkpoints`.

    Args:
        checkpoints, output_dir, last, best, metric, overwrite: the same.
        kind: of output; one of the same kind is replaced.
        also: names of files that will be added to it.
    """
    output = Path(output_dir)
    if last is not None and best is not None:
        raise ValueError("both last and best are given; choose one of them")
    for name, number in (("last", last), ("best", best)):
        if number is not None and number < 1:
            raise ValueError(f"{name}={number} averages nothing; the paper's base models average the last 5")
    found = _find_checkpoints(checkpoints)
    check_folder(output, kind, inputs=[checkpoint.path for checkpoint in found], overwrite=overwrite)
    if isinstance(checkpoints, str | Path) and last is None and best is None:
        last = min(DEFAULT_LAST, len(found))
    chosen = [_read_files(checkpoint) for checkpoint in _choose(found, last, best, metric)]
    _check_same_model(chosen)
    averaged = _average(chosen)

    with staged_directory(output) as aside:
        save_torch_state_dict(averaged, aside, metadata={"format": "pt"})
        for file in sorted(chosen[-1].path.iterdir()):
            if file.is_file() and file.suffix in _COPIED_SUFFIXES and file.name not in _LEFT_BEHIND:
                shutil.copyfile(file, aside / file.name)
        if (chosen[-1].path / TARGET_TOKENIZER).is_dir():
            shutil.copytree(chosen[-1].path / TARGET_TOKENIZER, aside / TARGET_TOKENIZER)
        provenance = _provenance(chosen, metric if best is not None else None)
        (aside / PROVENANCE_NAME).write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", "utf-8")
        write_folder_record(aside, kind, also)
    logger.info(f"averaged {', '.join(checkpoint.path.name for checkpoint in chosen)} into {output}")
    return output


# --------------------------------------------------------------------------- which checkpoints


def _find_checkpoints(checkpoints: str | Path | Sequence[str | Path]) -> list[_Checkpoint]:
    """List the checkpoints of a run by step, or the given folders in their order."""
    if isinstance(checkpoints, str | Path):
        run = Path(checkpoints)
        if not run.is_dir():
            raise FileNotFoundError(f"there is no directory {run}; name a run's directory or its checkpoint folders")
        steps = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in run.iterdir() if path.is_dir()}
        paths = sorted((path for path, match in steps.items() if match), key=lambda path: int(path.name[11:]))
        if not paths:
            raise ValueError(f"{run} holds no checkpoint-<step> folder; name the run's directory, or folders in a list")
    else:
        paths = [Path(path) for path in checkpoints]
        if not paths:
            raise ValueError("no checkpoint is given; name at least one folder")
        for path in paths:
            if not path.is_dir():
                raise FileNotFoundError(f"there is no checkpoint folder {path}")
        if len({path.resolve() for path in paths}) < len(paths):
            raise ValueError("a checkpoint is named twice and would count twice; name each folder once")
    return [_read_state(path) for path in paths]


def _read_state(path: Path) -> _Checkpoint:
    """Read step and scores, as far as the folder tells."""
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    step = int(match[1]) if match else None
    scores: dict[str, float] = {}
    if (path / _TRAINER_STATE).is_file():
        state = read_json_object(path / _TRAINER_STATE)
        step = state.get("global_step", step)
        for entry in state.get("log_history", []):
            if entry.get("step") == step:
                scores |= {name: value for name, value in entry.items() if name.startswith("eval_")}
    return _Checkpoint(path, step, scores)


def _choose(found: list[_Checkpoint], last: int | None, best: int | None, metric: str) -> list[_Checkpoint]:
    """Keep the last or the best, in the order they were found."""
    wanted = last if best is None else best
    if wanted is None:
        return found
    if wanted > len(found):
        name = "last" if best is None else "best"
        raise ValueError(
            f"{name}={wanted} asks for more checkpoints than the {len(found)} there are in {found[0].path.parent}; "
            "lower it, or train with a higher save_total_limit"
        )
    if best is None:
        return found[-wanted:]
    for checkpoint in found:
        if metric not in checkpoint.scores:
            known = ", ".join(sorted(checkpoint.scores)) or "no score at all"
            raise ValueError(
                f"{checkpoint.path} has no {metric} to choose by (it has {known}); evaluate at the steps where "
                "checkpoints are saved, or choose with last"
            )
    sign = 1 if _LOWER_IS_BETTER.search(metric) else -1
    scores = [sign * checkpoint.scores[metric] for checkpoint in found]  # the lowest is best now; nan is never
    ranked = sorted(range(len(found)), key=lambda index: (math.isnan(scores[index]), scores[index], -index))
    return [found[index] for index in sorted(ranked[:wanted])]


# --------------------------------------------------------------------------- whether they go together


def _read_files(checkpoint: _Checkpoint) -> _Checkpoint:
    """Find the file of every tensor; a checkpoint with a manifest has to hold what it was saved with."""
    path = checkpoint.path
    if has_manifest(path):
        verify(path, suffixes=(".safetensors", ".json"))
    found = weight_files(path)
    if len(found) == 1:
        with _open(found[0]) as weights:
            files = dict.fromkeys(weights.keys(), found[0])
    elif found:
        files = read_weight_index(found[0])
    elif any(file for pattern in _PICKLES for file in path.glob(pattern)):
        raise ValueError(f"{path} has its weights in pickles only, which can run code; save it as safetensors first")
    else:
        raise ValueError(f"{path} has no {WEIGHTS}; it is no checkpoint, or saving it was interrupted")
    return _Checkpoint(path, checkpoint.step, checkpoint.scores, files)


def _check_same_model(chosen: list[_Checkpoint]) -> None:
    """Refuse checkpoints of different configurations or tensors."""
    first = chosen[0]
    config = _model_fields(first.path)
    for other in chosen[1:]:
        other_config = _model_fields(other.path)
        differing = sorted(
            key for key in config.keys() | other_config.keys() if config.get(key) != other_config.get(key)
        )
        if differing:
            key = differing[0]
            raise ValueError(
                f"{other.path} has {key}={other_config.get(key)!r}, {first.path} has {config.get(key)!r}; only "
                "checkpoints of one model can be averaged"
            )
        differing = sorted(first.files.keys() ^ other.files.keys())
        if differing:
            raise ValueError(
                f"{differing[0]} is in only one of {first.path} and {other.path}; only checkpoints of one model can "
                "be averaged"
            )


def _model_fields(path: Path) -> dict[str, Any]:
    """Read the fields of config.json that describe the model."""
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} has no config.json, so nothing says which model its weights are")
    return {key: value for key, value in read_json_object(path / "config.json").items() if key not in _SAME_MODEL}


# --------------------------------------------------------------------------- the mean


def _average(chosen: list[_Checkpoint]) -> dict[str, Tensor]:
    """Take the mean of every tensor, one tensor of all checkpoints at a time."""
    averaged: dict[str, Tensor] = {}
    with ExitStack() as stack:
        readers = {
            path: stack.enter_context(_open(path))
            for path in sorted({path for checkpoint in chosen for path in checkpoint.files.values()})
        }
        for name in chosen[0].files:
            tensors = [_tensor(readers[checkpoint.files[name]], name, checkpoint) for checkpoint in chosen]
            averaged[name] = _mean(name, tensors, chosen)
    return averaged


def _mean(name: str, tensors: list[Tensor], chosen: list[_Checkpoint]) -> Tensor:
    first = tensors[0]
    total = torch.zeros(first.shape, dtype=torch.float64)
    for tensor, checkpoint in zip(tensors, chosen, strict=True):
        if tensor.shape != first.shape or tensor.dtype != first.dtype:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} {tensor.dtype} in {checkpoint.path}, {tuple(first.shape)} "
                f"{first.dtype} in {chosen[0].path}; only checkpoints of one model can be averaged"
            )
        if not first.is_floating_point():
            if not torch.equal(tensor, first):
                raise ValueError(
                    f"{name} holds whole numbers that differ between {chosen[0].path} and {checkpoint.path}"
                )
            continue
        if not tensor.isfinite().all():
            raise ValueError(f"{name} in {checkpoint.path} holds a value that is not finite: that training had failed")
        total += tensor
    return (total / len(tensors)).to(first.dtype) if first.is_floating_point() else first


def _tensor(reader: Any, name: str, checkpoint: _Checkpoint) -> Tensor:
    try:
        return reader.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{checkpoint.path} names {name} in its index but doesn't hold it ({error})") from error


def _open(path: Path) -> Any:
    """Open a safetensors file for reading."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} can't be read as safetensors ({error}); was saving it interrupted?") from error


# --------------------------------------------------------------------------- what is written


def _provenance(chosen: list[_Checkpoint], metric: str | None) -> dict[str, Any]:
    """Say what went into the mean; folder names only, a published file should not tell where it was made."""
    return {
        "method": "arithmetic mean in float64",
        "selected_by": metric or "order",
        "hf_vanilla_transformer": __version__,
        "checkpoints": [
            {
                "name": checkpoint.path.name,
                "step": checkpoint.step,
                "scores": checkpoint.scores,
                "sha256": {path.name: file_sha256(path) for path in sorted(set(checkpoint.files.values()))},
            }
            for checkpoint in chosen
        ],
    }


__all__ = ["average_checkpoints", "write_average"]
