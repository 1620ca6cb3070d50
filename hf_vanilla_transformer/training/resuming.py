# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Choose the checkpoint to resume from, and check that it belongs to this run and has all training state."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import PretrainedConfig
from transformers.utils import logging

from ..checkpoints.checkpoint_directory import CheckpointDirectory
from ..checkpoints.manifest import BrokenCheckpointError, has_manifest, read_manifest, verify
from ..json_object import read_json_object
from .arguments import VanillaTransformerTrainingArguments
from .checkpointing import clear_leftovers, newest_valid
from .precision import why_unsupported
from .processes import from_first_rank

logger = logging.get_logger(__name__)

_TRAINER_STATE = "trainer_state.json"
# Any of these contains the optimizer's state: of Trainer, and of FSDP's two formats.
_OPTIMIZER_FILES = ("optimizer.pt", "optimizer.bin", "optimizer_0")
_SAME_STATE = {"adamw_torch", "adamw_torch_fused"}  # optimizers that can load each other's state
_NOT_ARCHITECTURE = {"_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype", "architectures"}


def choose_checkpoint(
    asked: str | bool | None,
    args: VanillaTransformerTrainingArguments,
    model: Any,
    identity: Callable[[], dict[str, Any]],
    needs_scaler: bool,
) -> str | None:
    """Verify the checkpoint that was asked for, or find the newest valid one.

    Process 0 does the work, and every process gets its result.

    Args:
        asked: a checkpoint's path; True for the newest valid one; None or False for none.
        args: the training arguments; ``resume_anyway`` accepts unverified and different checkpoints.
        model: the unwrapped model.
        identity: returns the `run_identity` of this run.
        needs_scaler: whether an fp16 gradient scaler is used.

    Returns:
        The checkpoint's path; None to start a new run.

    Raises:
        ValueError: If there is no valid checkpoint, or it does not belong to this run.
    """
    result: list[str | None] = [None, None]  # the path, and the reason for an error
    if args.process_index == 0:
        run_dir = Path(str(args.output_dir))
        try:
            clear_leftovers(run_dir)
            checkpoint = _find_checkpoint(asked, run_dir, args.resume_anyway)
            if checkpoint is not None:
                check_resumable(checkpoint, identity(), model.config, args, needs_scaler)
                if not args.resume_anyway:
                    check_weights(checkpoint, model)
                result[0] = str(checkpoint)
        except BrokenCheckpointError as error:
            hint = "" if asked is True else "; resume_from_checkpoint=True resumes from the newest valid checkpoint"
            result[1] = f"{error}{hint}"
        except (ValueError, OSError) as error:
            result[1] = str(error)
    broadcast_object_list(result)
    if result[1] is not None:
        raise ValueError(result[1])
    return result[0]


def _find_checkpoint(asked: str | bool | None, run_dir: Path, resume_anyway: bool) -> Path | None:
    if asked is True:
        found = newest_valid(run_dir, resume_anyway)
        if found is None:
            raise ValueError(
                f"there is no checkpoint in {run_dir} to resume from; leave out resume_from_checkpoint to start a new "
                "run"
            )
        return found
    if not asked:
        return None
    checkpoint = Path(asked)
    if has_manifest(checkpoint) or not resume_anyway:
        verify(checkpoint)
    return checkpoint


def check_resumable(
    checkpoint: Path,
    identity: dict[str, Any],
    config: PretrainedConfig,
    args: VanillaTransformerTrainingArguments,
    needs_scaler: bool = False,
) -> None:
    """Check that a checkpoint belongs to a run of the same identity and configuration, and has all training state.

    The files are not verified again, because hashing them takes long.

    Args:
        checkpoint: the checkpoint's directory, verified.
        identity: `run_identity` of the run that is resumed.
        config: of its model.
        args: its training arguments; with ``resume_anyway``, differences are warnings instead of errors.
        needs_scaler: whether an fp16 gradient scaler is used.

    Raises:
        ValueError: If they differ; the message lists every difference.
    """
    step = saved_update(checkpoint)
    before = read_manifest(checkpoint)["facts"] if has_manifest(checkpoint) else {}
    layout = before.get("layout", identity["layout"])
    problems = [
        f"{part}: {difference}"
        for part in ("data", "tokenizer", "optimizer")
        for difference in differences(before.get(part, identity[part]), identity[part])
    ]
    config_file = checkpoint / "config.json"
    if config_file.is_file():
        saved = type(config).from_dict(read_json_object(config_file))
        saved_fields, fields = (architecture(one.to_dict()) for one in (saved, config))
        problems += [f"configuration: {difference}" for difference in differences(saved_fields, fields)]
    ranks = layout.get("processes", 1)
    states = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
    problems += [f"missing {what}" for what in missing_state(checkpoint, states, needs_scaler)]
    _check_optimizer(checkpoint, before.get("optimizer"), identity["optimizer"])
    if problems:
        text = f"{checkpoint} does not match this run: {'; '.join(problems)}"
        if not args.resume_anyway:
            raise ValueError(f"{text}; start a new run, or set resume_anyway to resume in spite of this")
        logger.warning(f"{text}; resuming in spite of this, because resume_anyway is set")
    moved = differences(layout, identity["layout"])
    if moved:
        logger.warning(
            f"{checkpoint} was saved with another layout: {', '.join(moved)}; resuming after {step} updates, with "
            "other random numbers for dropout"
        )


def _check_optimizer(checkpoint: Path, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Check that this run's optimizer can load the saved state; ``resume_anyway`` does not override this."""
    if before is None:  # saved by an earlier version
        return
    was, is_now = before.get("optim"), now["optim"]
    if was != is_now and not {was, is_now} <= _SAME_STATE:
        raise ValueError(
            f"{checkpoint} was saved with optim={was!r}, whose state optim={is_now!r} cannot load; set optim to {was} "
            "again, or start a new run from its weights (model_name_or_path) in another output_dir"
        )


def check_weights(checkpoint: Path, model: Any) -> None:
    """Check that a checkpoint has exactly the model's tensors; Trainer only warns if it does not.

    Raises:
        ValueError: If a tensor is only in one of them; the message lists the first ones.
    """
    saved = set(CheckpointDirectory(checkpoint).tensor_files())
    if not saved:
        return  # sharded by FSDP, or an adapter
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    expected = set(model.state_dict())
    wrong = sorted(expected - saved - tied) + sorted(saved - expected)
    if wrong:
        raise ValueError(
            f"the checkpoint's weights do not match the model's: {', '.join(wrong[:5])} are in only one of them; start "
            "a new run"
        )


def missing_state(checkpoint: Path, rng_states: Iterable[str], needs_scaler: bool) -> list[str]:
    """List the training state that a checkpoint lacks.

    Args:
        checkpoint: the checkpoint's directory.
        rng_states: names of the files with the states of random number generators, one per rank.
        needs_scaler: whether the state of an fp16 gradient scaler is required.
    """
    missing = []
    if not any((checkpoint / name).exists() for name in _OPTIMIZER_FILES):
        missing.append("the optimizer's state (optimizer.pt)")
    if not (checkpoint / "scheduler.pt").exists():
        missing.append("the learning rate schedule's state (scheduler.pt)")
    absent = [name for name in rng_states if not (checkpoint / name).exists()]
    if absent:
        missing.append(f"the random number generators' state ({', '.join(absent)})")
    if needs_scaler and not (checkpoint / "scaler.pt").exists():
        missing.append("the gradient scaler's state (scaler.pt)")
    return missing


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """List the differences between two dictionaries of JSON values, as "data.seed (1 in the checkpoint, 2 now)".

    A key that only one of them has is a difference; digests are reported without their digits.
    """
    found = []
    for key in sorted(before.keys() | now.keys()):
        one, two = before.get(key), now.get(key)
        if one == two:
            continue
        if isinstance(one, dict) and isinstance(two, dict):
            found += differences(one, two, f"{prefix}{key}.")
        elif key.endswith("sha256"):
            found.append(f"{prefix}{key.removesuffix('sha256').rstrip('_.') or 'content'}".rstrip("."))
        else:
            found.append(f"{prefix}{key} ({one} in the checkpoint, {two} now)")
    return found


def architecture(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration that describe the model, as JSON values."""
    plain = json.loads(json.dumps(fields, default=str))  # as in the file: tuples are lists, keys are strings
    return {key: value for key, value in plain.items() if key not in _NOT_ARCHITECTURE}


def saved_update(checkpoint: Path) -> int:
    """Read the number of updates before a checkpoint from Trainer's state.

    Raises:
        ValueError: If the state is missing or unreadable: the position in the data is unknown without it.
    """
    path = checkpoint / _TRAINER_STATE
    if not path.is_file():
        raise ValueError(
            f"{checkpoint} has no {_TRAINER_STATE}, which contains the position in the data; start a new run"
        )
    step = read_json_object(path).get("global_step")
    if type(step) is not int or step < 0:
        raise ValueError(f"{path} has global_step={step!r}, which is not a number of updates; start a new run")
    return step


def resumed_precision(checkpoint: Path, args: VanillaTransformerTrainingArguments) -> str:
    """Return the precision in which to resume: that of the checkpoint, unless it is set for this run.

    Process 0 decides for all processes.

    Raises:
        ValueError: If ``precision`` is "auto", and the device does not support the checkpoint's.
    """
    facts = read_manifest(checkpoint)["facts"] if args.process_index == 0 and has_manifest(checkpoint) else {}
    now = args.used_precision
    saved = from_first_rank(facts.get("precision", now))
    if saved == now:
        return now
    if not args.has_auto_precision:
        logger.warning(f"{checkpoint} was trained in {saved}; resuming in {now}, because precision is set to it")
        return now
    obstacle = from_first_rank(why_unsupported(saved, args.use_cpu))
    if obstacle:
        raise ValueError(
            f"{checkpoint} was trained in {saved}, which is slow or impossible here ({obstacle}); set precision to "
            f"{now} to resume in {now}, in a run of a recipe together with resume_anyway"
        )
    return str(saved)


__all__ = [
    "architecture",
    "check_resumable",
    "check_weights",
    "choose_checkpoint",
    "differences",
    "missing_state",
    "resumed_precision",
    "saved_update",
]
