# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Average the last checkpoints of a run (§6.1; the paper averages 5 for its base models, 20 for its big models)."""

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
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME, logging

from ..atomic_files import write_json
from ..json_object import read_json_object
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER
from ..overwriting import RECORD_NAME, check_folder, output_folder
from ..version import __version__
from .checkpoint_directory import TRAINER_STATE_NAME, CheckpointDirectory, checkpoint_step, run_checkpoints
from .manifest import MANIFEST_NAME, file_sha256, has_manifest, read_manifest

logger = logging.get_logger(__name__)

PROVENANCE_NAME = "averaging.json"
DEFAULT_LAST = 5  # §6.1, base models

# Files beside the weights that belong to the model: configurations, tokenizer, code. They are chosen by suffix because
# tokenizers have files of any name. Trainer's state has other suffixes, except for the files in _NOT_COPIED.
_COPIED_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".spm", ".py"}
_NOT_COPIED = {
    TRAINER_STATE_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    WEIGHTS_INDEX_NAME,
    PROVENANCE_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
}
# Configuration fields that may differ between the checkpoints of one model.
_NOT_OF_THE_MODEL = {"_name_or_path", "auto_map", "custom_pipelines", "transformers_version", "use_cache"}
_OF_THE_RUN = ("data", "tokenizer", "optimizer")  # in a checkpoint's manifest
_TOKENIZER_NAME = "tokenizer.json"
_LOWER_IS_BETTER = re.compile(r"(loss|perplexity|nll|ter|wer)$")


@dataclass(frozen=True)
class _Checkpoint:
    """A checkpoint to choose from.

    Attributes:
        directory: its files.
        step: number of updates; None if neither its name nor Trainer's state has it.
        scores: evaluation results at that step.
        files: weight tensor → the safetensors file that contains it.
    """

    directory: CheckpointDirectory
    step: int | None
    scores: dict[str, float]
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.directory.path


@dataclass(frozen=True)
class Averaged:
    """A checkpoint that is part of an average.

    Attributes:
        path: its directory.
        step: number of updates; None if unknown.
        scores: evaluation results at that step, e.g. "eval_loss"; empty if it was not evaluated.
    """

    path: Path
    step: int | None
    scores: dict[str, float]


def average_checkpoints(
    checkpoints: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    *,
    last: int | None = None,
    best: int | None = None,
    metric: str = "eval_loss",
    overwrite: bool = False,
    allow_different_runs: bool = False,
) -> Path:
    """Write the arithmetic mean of several checkpoints' weights as an ordinary model directory.

    The mean is computed in fp64 and stored in the dtype of the checkpoints. Configuration, generation configuration,
    tokenizer and code are copied from the latest checkpoint. ``averaging.json`` in the result lists the averaged
    checkpoints with their steps, scores and hashes. The result is written to a staging directory and renamed.

    Args:
        checkpoints: a run's directory with its ``checkpoint-<step>`` directories, or a list of checkpoint directories.
        output_dir: directory for the result.
        last: number of latest checkpoints to average. Default: 5 of a run's directory, all of a list.
        best: number of best checkpoints by ``metric`` to average.
        metric: a name in Trainer's evaluation log, e.g. "eval_loss" or "eval_bleu". Lower is better for losses and
            perplexities, higher for anything else.
        overwrite: replace ``output_dir`` if it contains an earlier average and nothing else.
        allow_different_runs: average listed checkpoints even if their manifests show that data, tokenizer or optimizer
            of the runs differ. It is meant for runs that were fine-tuned from the same weights; the average of runs
            from different initial weights is useless.

    Returns:
        ``output_dir``.

    Raises:
        ValueError: If the checkpoints are of different models, tokenizers or runs, are not in safetensors files, have
            values that are not finite, or are fewer than requested; the message names the file.
        OSError: If a checkpoint is missing, or ``output_dir`` exists and may not be replaced.
    """
    average_and_list(
        checkpoints,
        output_dir,
        last=last,
        best=best,
        metric=metric,
        overwrite=overwrite,
        allow_different_runs=allow_different_runs,
    )
    return Path(output_dir)


def average_and_list(
    checkpoints: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    *,
    last: int | None = None,
    best: int | None = None,
    metric: str = "eval_loss",
    overwrite: bool = False,
    allow_different_runs: bool = False,
) -> list[Averaged]:
    """Do what `average_checkpoints` does, and return the checkpoints that were averaged."""
    if last is not None and best is not None:
        raise ValueError("both last and best are set; choose one of them")
    for name, number in (("last", last), ("best", best)):
        if number is not None and number < 1:
            raise ValueError(f"{name}={number} is not positive; the paper's base models average the last 5")
    output = Path(output_dir)
    found = [_read_state(path) for path in _find_checkpoints(checkpoints)]
    inputs = [checkpoint.path for checkpoint in found]
    check_folder(output, "average", inputs=inputs, overwrite=overwrite)
    if isinstance(checkpoints, str | Path) and last is None and best is None:
        last = min(DEFAULT_LAST, len(found))
    chosen = _choose(found, last, best, metric)
    if not isinstance(checkpoints, str | Path) and not allow_different_runs:
        _check_same_run(chosen)
    with output_folder(output, "average", inputs=inputs, overwrite=overwrite) as staging:
        _write(chosen, staging, metric if best is not None else "order")
    logger.debug(f"averaged {', '.join(checkpoint.path.name for checkpoint in chosen)} into {output}")
    return [Averaged(checkpoint.path, checkpoint.step, checkpoint.scores) for checkpoint in chosen]


def write_average(checkpoints: str | Path | Sequence[str | Path], directory: Path, *, last: int | None = None) -> None:
    """Write the average of the last checkpoints, or of all, into an existing directory; see `average_checkpoints`."""
    found = [_read_state(path) for path in _find_checkpoints(checkpoints)]
    _write(_choose(found, last, None, ""), directory, "order")


def _write(checkpoints: list[_Checkpoint], directory: Path, selected_by: str) -> None:
    chosen = [_read_files(checkpoint) for checkpoint in checkpoints]
    _check_same_model(chosen)
    save_torch_state_dict(_average(chosen), directory, metadata={"format": "pt"})
    latest = chosen[-1].path
    for file in sorted(latest.iterdir()):
        if file.is_file() and file.suffix in _COPIED_SUFFIXES and file.name not in _NOT_COPIED:
            shutil.copyfile(file, directory / file.name)
    if (latest / TARGET_TOKENIZER).is_dir():
        shutil.copytree(latest / TARGET_TOKENIZER, directory / TARGET_TOKENIZER)
    write_json(directory / PROVENANCE_NAME, _provenance(chosen, selected_by))


# --------------------------------------------------------------------------- choosing checkpoints


def _find_checkpoints(checkpoints: str | Path | Sequence[str | Path]) -> list[Path]:
    """List the checkpoints of a run by step, or return the given list after checking it."""
    if isinstance(checkpoints, str | Path):
        run = Path(checkpoints)
        if not run.is_dir():
            raise FileNotFoundError(f"there is no directory {run}; choose a run's directory or its checkpoints")
        if not (found := run_checkpoints(run)):
            raise ValueError(
                f"{run} holds no checkpoint-<step> folder; choose the run's directory, or list checkpoint directories"
            )
        return found
    paths = [Path(path) for path in checkpoints]
    if not paths:
        raise ValueError("no checkpoint is given; list at least one directory")
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"there is no checkpoint folder {path}")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("a checkpoint is named twice and would be counted twice; list each directory once")
    return paths


def _read_state(path: str | Path) -> _Checkpoint:
    """Read step and scores from Trainer's state, or the step from the directory's name."""
    directory = CheckpointDirectory(path)
    state = directory.read_trainer_state()
    step = state.get("global_step", checkpoint_step(directory.path))
    scores: dict[str, float] = {}
    for entry in state.get("log_history", []):
        if entry.get("step") == step:
            scores |= {name: value for name, value in entry.items() if name.startswith("eval_")}
    return _Checkpoint(directory, step, scores)


def _choose(found: list[_Checkpoint], last: int | None, best: int | None, metric: str) -> list[_Checkpoint]:
    """Return the last or the best checkpoints, in their original order."""
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
            known = ", ".join(sorted(checkpoint.scores)) or "no scores"
            raise ValueError(
                f"{checkpoint.path} has no {metric} to choose by (it has {known}); evaluate at the steps where "
                "checkpoints are saved, or choose with last"
            )
    sign = 1 if _LOWER_IS_BETTER.search(metric) else -1
    scores = [sign * checkpoint.scores[metric] for checkpoint in found]  # now lower is better; nan comes last
    ranked = sorted(range(len(found)), key=lambda index: (math.isnan(scores[index]), scores[index], -index))
    return [found[index] for index in sorted(ranked[:wanted])]


# --------------------------------------------------------------------------- compatibility of the checkpoints


def _read_files(checkpoint: _Checkpoint) -> _Checkpoint:
    """Verify the manifest, if there is one, and find the file of every tensor."""
    directory = checkpoint.directory
    directory.verify_manifest(suffixes=(".safetensors", ".json"))
    directory.require_weight_files()
    return _Checkpoint(directory, checkpoint.step, checkpoint.scores, directory.tensor_files())


def _check_same_model(chosen: list[_Checkpoint]) -> None:
    """Reject checkpoints whose configurations, tensor names or tokenizers differ."""
    first = chosen[0]
    config = _model_fields(first)
    tokenizers = _tokenizer_files(first)
    for other in chosen[1:]:
        other_config = _model_fields(other)
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
        other_tokenizers = _tokenizer_files(other)
        for name in sorted(tokenizers.keys() & other_tokenizers.keys()):
            if tokenizers[name] != other_tokenizers[name]:
                raise ValueError(
                    f"{other.path / name} differs from {first.path / name}: the same id is another token; only "
                    "checkpoints of one model can be averaged"
                )


def _check_same_run(chosen: list[_Checkpoint]) -> None:
    """Reject checkpoints whose manifests are of different runs; a checkpoint without a manifest is not compared."""
    known = [checkpoint for checkpoint in chosen if has_manifest(checkpoint.path)]
    facts = [read_manifest(checkpoint.path)["facts"] for checkpoint in known]
    for checkpoint, other in zip(known[1:], facts[1:], strict=True):
        for name in _OF_THE_RUN:
            if name in facts[0] and name in other and facts[0][name] != other[name]:
                raise ValueError(
                    f"{checkpoint.path} and {known[0].path} are of different runs ({name}: {other[name]} and "
                    f"{facts[0][name]}); average checkpoints of one run, or, if both runs were fine-tuned from the "
                    "same weights, set allow_different_runs (--allow-different-runs)"
                )


def _tokenizer_files(checkpoint: _Checkpoint) -> dict[str, Any]:
    """Read the tokenizers without padding and truncation, which every call of a tokenizer may change."""
    names = [_TOKENIZER_NAME, f"{TARGET_TOKENIZER}/{_TOKENIZER_NAME}"]
    files = {name: checkpoint.path / name for name in names if (checkpoint.path / name).is_file()}
    return {
        name: {key: value for key, value in read_json_object(path).items() if key not in ("padding", "truncation")}
        for name, path in files.items()
    }


def _model_fields(checkpoint: _Checkpoint) -> dict[str, Any]:
    """Read the fields of config.json that describe the model."""
    config = checkpoint.directory.read_config(model_type=None)
    return {key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL}


# --------------------------------------------------------------------------- the mean


def _average(chosen: list[_Checkpoint]) -> dict[str, Tensor]:
    """Compute the mean of every tensor; only one tensor per checkpoint is in memory."""
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
                raise ValueError(f"{name} holds integers that differ between {chosen[0].path} and {checkpoint.path}")
            continue
        if not tensor.isfinite().all():
            raise ValueError(f"{name} in {checkpoint.path} holds a value that is not finite: the training failed")
        total += tensor
    return (total / len(tensors)).to(first.dtype) if first.is_floating_point() else first


def _tensor(reader: Any, name: str, checkpoint: _Checkpoint) -> Tensor:
    try:
        return reader.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(
            f"{checkpoint.path} lists {name} in its index, but its file has no such tensor ({error})"
        ) from error


def _open(path: Path) -> Any:
    """Open a safetensors file for reading."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}); was saving it interrupted?") from error


# --------------------------------------------------------------------------- provenance


def _provenance(chosen: list[_Checkpoint], selected_by: str) -> dict[str, Any]:
    """Describe the averaged checkpoints; paths are reduced to names, so that a published file reveals no local path."""
    return {
        "method": "arithmetic mean in float64",
        "selected_by": selected_by,
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


__all__ = ["Averaged", "average_and_list", "average_checkpoints", "write_average"]
