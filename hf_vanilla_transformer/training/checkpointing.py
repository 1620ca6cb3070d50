# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are complete or ignored: written aside, vouched for by a manifest, renamed into place.

A run's directory holds ``checkpoint-<update>`` folders. One under construction, or on its way out, has a name that
begins with a dot; whatever kills the process, what is called ``checkpoint-<update>`` and has a manifest is whole. The
manifest's facts say what the run was trained on, so that going on with something else is noticed.
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

FOR_A_STOP = "stop"  # a checkpoint made because a signal came: deleted once the next regular one stands
FOR_THE_SCHEDULE = "schedule"
_NAME = re.compile(r"checkpoint-(\d+)")
_ASIDE = re.compile(r"\.checkpoint-\d+\.(saving|replaced|deleting)")


# --------------------------------------------------------------------------- writing


def aside_folder(run_dir: Path, step: int) -> Path:
    """Return where the checkpoint of an update is written before it is whole; the same path on every rank."""
    return run_dir / f".checkpoint-{step}.saving"


def put_in_place(aside: Path, run_dir: Path, step: int, facts: dict[str, Any]) -> Path:
    """Vouch for a complete folder and give it its name; what had the name goes once the new one stands.

    Args:
        aside: the folder, on the run directory's file system.
        run_dir: the run's directory.
        step: updates behind the checkpoint.
        facts: see `write_manifest`.

    Returns:
        ``run_dir/checkpoint-<step>``.
    """
    write_manifest(aside, facts)
    final = run_dir / f"checkpoint-{step}"
    # What is there already is broken, or of a run that was continued from further back.
    rename_into_place(aside, final, replaced=run_dir / f".checkpoint-{step}.replaced")
    return final


def rotate(newest: Path, limit: int | None, best: str | None) -> None:
    """Delete what is too many, oldest first; called when the newest checkpoint is whole.

    Checkpoints that a signal caused go in any case, so that a run that was stopped leaves the same ones as one that
    wasn't, and the same average. What has a later number than the newest is broken, or of a run that was continued
    from further back: it neither counts nor goes.

    Args:
        newest: the checkpoint of the run that is whole, which stays.
        limit: how many to keep; None or 0 keeps all of the schedule.
        best: path of the one of the best score, which stays.
    """
    for path in checkpoints_until(newest):
        if path.name != newest.name and kept_for_a_stop(path):
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
    """Delete what a killed process left half written or half deleted, and give back a name that was being replaced.

    Raises:
        ValueError: If another process trains into the directory: what looks left over may be its own.
    """
    if not run_dir.is_dir():
        return
    check_not_locked(run_dir)
    for path in sorted(run_dir.iterdir()):
        if not path.is_dir() or not (_ASIDE.fullmatch(path.name) or path.name == FILES_STAGING):
            continue
        name = path.name[1:].rpartition(".")[0]
        if path.name.endswith(".replaced") and not (run_dir / name).exists():
            os.rename(path, run_dir / name)
            continue
        logger.warning(f"{path} was left by a process that ended before its time; deleting it")
        shutil.rmtree(path, ignore_errors=True)


def _delete(path: Path) -> None:
    """Delete a checkpoint; half deleted it doesn't look like one."""
    logger.info(f"deleting {path}, an older checkpoint")
    doomed = path.with_name(f".{path.name}.deleting")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


# --------------------------------------------------------------------------- finding


def checkpoints(run_dir: Path) -> list[Path]:
    """List a run's checkpoint folders by update, whole or not."""
    if not run_dir.is_dir():
        return []
    found = [path for path in run_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def checkpoints_until(newest: Path) -> list[Path]:
    """List the checkpoints of a run up to one of them."""
    found = checkpoints(newest.parent)
    return found[: 1 + [path.name for path in found].index(newest.name)]


def kept_for_a_stop(checkpoint: Path) -> bool:
    """Tell whether a signal caused a checkpoint, and not the schedule."""
    return has_manifest(checkpoint) and _facts(checkpoint).get("kept_for") == FOR_A_STOP


def newest_whole(run_dir: Path, unverified: bool = False) -> Path | None:
    """Find the checkpoint to go on from; broken ones are named in a warning and passed over.

    Args:
        run_dir: the run's directory.
        unverified: take the newest without a manifest as well, as stock Trainer and other tools leave them.

    Returns:
        The newest whole checkpoint; None if there is no checkpoint at all.

    Raises:
        BrokenCheckpointError: If there are some and none of them is whole.
    """
    found = checkpoints(run_dir)
    first: BrokenCheckpointError | None = None
    for path in reversed(found):
        if unverified and not has_manifest(path):
            logger.warning(f"{path} has no manifest; nothing says that it is whole")
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
            f"none of the {len(found)} checkpoints in {run_dir} is whole ({first}); start in another output_dir, or "
            "set resume_anyway to go on from one without a manifest"
        )
    return None


def _facts(checkpoint: Path) -> dict[str, Any]:
    """Read the facts of a manifest without checking the files; a broken one says nothing."""
    try:
        return read_manifest(checkpoint)["facts"]
    except BrokenCheckpointError:
        return {}


__all__ = [
    "FOR_A_STOP",
    "FOR_THE_SCHEDULE",
    "aside_folder",
    "checkpoints",
    "clear_leftovers",
    "kept_for_a_stop",
    "newest_whole",
    "put_in_place",
    "rotate",
]
