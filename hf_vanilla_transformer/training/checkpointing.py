# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: written to a staging directory, hashed in a manifest, renamed atomically, rotated.

A run's directory contains ``checkpoint-<update>`` directories. While one is written or deleted, its name begins with a
dot; a directory that is named ``checkpoint-<update>`` and has a manifest is complete, whenever the process is killed.
The manifest's facts contain what the run is trained on, so that resuming with something else is detected.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..atomic_files import FILES_STAGING, rename_into_place
from ..checkpoints.manifest import (
    BrokenCheckpointError,
    has_manifest,
    read_manifest,
    verify,
    write_manifest,
)
from .run_lock import check_not_locked

logger = logging.get_logger(__name__)

BY_SIGNAL = "signal"  # a checkpoint saved because of a signal is deleted after the next scheduled one
BY_SCHEDULE = "schedule"
_NAME = re.compile(r"checkpoint-(\d+)")
_TEMPORARY = re.compile(r"\.checkpoint-\d+\.(saving|replaced|deleting)")


# --------------------------------------------------------------------------- writing


def staging_dir(run_dir: Path, step: int) -> Path:
    """Return the directory in which the checkpoint of an update is written; the same path on every rank."""
    return run_dir / f".checkpoint-{step}.saving"


def finish_checkpoint(staging: Path, run_dir: Path, step: int, facts: dict[str, Any]) -> Path:
    """Write the manifest of a complete staging directory and rename it to ``checkpoint-<step>``.

    An existing checkpoint of that name is deleted after the new one is in place.

    Args:
        staging: the staging directory, on the run directory's file system.
        run_dir: the run's directory.
        step: number of updates before the checkpoint.
        facts: see `write_manifest`.

    Returns:
        ``run_dir/checkpoint-<step>``.
    """
    write_manifest(staging, facts)
    final = run_dir / f"checkpoint-{step}"
    # An existing one is broken, or the run was resumed from an earlier checkpoint.
    rename_into_place(staging, final, replaced=run_dir / f".checkpoint-{step}.replaced")
    return final


def rotate(newest: Path, limit: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints above the limit; called when the newest one is complete.

    Checkpoints saved because of a signal are always deleted, so that a run that was stopped and resumed leaves the same
    checkpoints, and the same average, as an uninterrupted one. Checkpoints with a later number than ``newest`` are
    broken, or from before the run was resumed at an earlier update: they are neither counted nor deleted.

    Args:
        newest: the run's newest complete checkpoint, which is kept.
        limit: number of checkpoints to keep; None or 0 keeps every scheduled one.
        best: path of the checkpoint with the best score, which is kept.
    """
    for path in checkpoints_until(newest):
        if path.name != newest.name and saved_by_signal(path):
            _delete(path)
    found = checkpoints_until(newest)
    protected = {newest.name}
    if best is not None:
        protected.add(Path(best).name)
    removable = [path for path in found if path.name not in protected]
    excess = len(found) - max(limit, len(protected)) if limit else 0
    for path in removable[: max(excess, 0)]:
        _delete(path)


def clear_leftovers(run_dir: Path) -> None:
    """Delete what a killed process has left half written or half deleted; restore a checkpoint it was replacing.

    Raises:
        RunLockedError: If another process is training in the directory, whose files these may be.
    """
    if not run_dir.is_dir():
        return
    check_not_locked(run_dir)
    for path in sorted(run_dir.iterdir()):
        if not path.is_dir() or not (_TEMPORARY.fullmatch(path.name) or path.name == FILES_STAGING):
            continue
        name = path.name[1:].rpartition(".")[0]
        if path.name.endswith(".replaced") and not (run_dir / name).exists():
            os.rename(path, run_dir / name)
            continue
        logger.warning(f"{path} was left by a process that was killed; deleting it")
        shutil.rmtree(path, ignore_errors=True)


def _delete(path: Path) -> None:
    """Delete a checkpoint, renamed first, so that a half-deleted one is not taken for a checkpoint."""
    logger.debug(f"deleting {path}, an older checkpoint")
    deleting = path.with_name(f".{path.name}.deleting")
    shutil.rmtree(deleting, ignore_errors=True)
    os.rename(path, deleting)
    shutil.rmtree(deleting, ignore_errors=True)


# --------------------------------------------------------------------------- finding


def checkpoints(run_dir: Path) -> list[Path]:
    """List a run's checkpoint directories by update, valid or not."""
    if not run_dir.is_dir():
        return []
    found = [path for path in run_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def checkpoints_until(newest: Path) -> list[Path]:
    """List a run's checkpoint directories up to and including one of them."""
    found = checkpoints(newest.parent)
    return found[: 1 + [path.name for path in found].index(newest.name)]


def saved_by_signal(checkpoint: Path) -> bool:
    """Return whether a checkpoint was saved because of a signal, and not by ``save_strategy``."""
    return has_manifest(checkpoint) and _facts(checkpoint).get("saved_by") == BY_SIGNAL


def newest_valid(run_dir: Path, allow_unverified: bool = False) -> Path | None:
    """Find the newest valid checkpoint; a warning reports every broken one that is newer.

    Args:
        run_dir: the run's directory.
        allow_unverified: accept a checkpoint without a manifest, as Trainer and other tools write them.

    Returns:
        The newest valid checkpoint; None if there is no checkpoint.

    Raises:
        BrokenCheckpointError: If there are checkpoints and none of them is valid.
    """
    found = checkpoints(run_dir)
    first: BrokenCheckpointError | None = None
    for path in reversed(found):
        if allow_unverified and not has_manifest(path):
            logger.warning(f"{path} has no manifest, so it cannot be verified")
            return path
        try:
            verify(path)
        except BrokenCheckpointError as error:
            first = first or error
            logger.warning(f"{error}; looking for an older checkpoint")
            continue
        return path
    if first is not None:
        raise BrokenCheckpointError(
            f"none of the {len(found)} checkpoints in {run_dir} is valid ({first}); train into another output_dir, or "
            "set resume_anyway to resume from one without a manifest"
        )
    return None


def _facts(checkpoint: Path) -> dict[str, Any]:
    """Read the facts of a manifest without verifying the files; empty if the manifest is broken."""
    try:
        return read_manifest(checkpoint)["facts"]
    except BrokenCheckpointError:
        return {}


__all__ = [
    "BY_SCHEDULE",
    "BY_SIGNAL",
    "checkpoints",
    "checkpoints_until",
    "clear_leftovers",
    "newest_valid",
    "finish_checkpoint",
    "rotate",
    "saved_by_signal",
    "staging_dir",
]
