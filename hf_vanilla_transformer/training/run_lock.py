# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""One process at a time trains into a directory: a second start is refused before it deletes anything.

The lock is a file that names its owner: process, host, start. It outlives a process that was killed, so a lock is taken
over where its owner can't be alive: the process has ended (or another one has its number now), or, on another host,
the file hasn't been touched for a while, as a living owner does every minute. An operating system's own lock would also
be held by child processes that survive for a moment, and many network file systems have none.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers.utils import logging

logger = logging.get_logger(__name__)

LOCK_NAME = ".run.lock"
_TOUCH_SECONDS = 60  # between two signs of life
_STALE_SECONDS = 600  # without one, after which an owner on another host counts as gone
_MAX_BYTES = 10_000
# Raised if another process renames the lock at the same time; on Windows also while another process reads it.
_RENAME_RACE = (FileNotFoundError, PermissionError) if os.name == "nt" else (FileNotFoundError,)
_HELD: dict[Path, int] = {}  # by this process: how often; a run inside a run is one run


class RunLockedError(ValueError):
    """Another process trains into the directory."""


@contextmanager
def run_lock(run_dir: str | Path, holding: bool = True) -> Iterator[None]:
    """Hold the directory's lock, which is made if there is no such directory yet.

    Args:
        run_dir: the run's directory.
        holding: False does nothing; of several ranks only process 0 holds the lock.

    Raises:
        RunLockedError: If another living process has it; the message says which.
    """
    run_dir = Path(run_dir).resolve()
    if not holding or _HELD.get(run_dir):
        _HELD[run_dir] = _HELD.get(run_dir, 0) + holding
        try:
            yield
        finally:
            _HELD[run_dir] -= holding
        return
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / LOCK_NAME
    owner = _myself()
    try:
        _take(path, owner)
    except BaseException:
        _remove_empty(made)
        raise
    _HELD[run_dir] = 1
    ended = threading.Event()
    threading.Thread(target=_keep_touching, args=(path, ended), daemon=True, name="run lock").start()
    try:
        yield
    finally:
        ended.set()
        _HELD[run_dir] = 0
        if _read(path).get("token") == owner["token"]:
            path.unlink(missing_ok=True)
        _remove_empty(made)


def check_not_locked(run_dir: Path) -> None:
    """Refuse a directory whose lock another living process holds.

    Raises:
        RunLockedError: As `run_lock`.
    """
    path = run_dir / LOCK_NAME
    if not _HELD.get(run_dir.resolve()) and path.exists() and _why_stale(path, owner := _read(path)) is None:
        raise _refusal(run_dir, owner)


def _take(path: Path, owner: dict[str, Any]) -> None:
    for _ in range(3):  # between reading and writing the lock another start may have changed it
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(owner, file)
            return
        except FileExistsError:
            pass
        there = _read(path)
        reason = _why_stale(path, there)
        if reason is None:
            raise _refusal(path.parent, there)
        doomed = path.with_name(f"{LOCK_NAME}.{uuid.uuid4().hex}")
        with suppress(*_RENAME_RACE):
            os.rename(path, doomed)
            if _read(doomed).get("token") == there.get("token"):
                logger.warning(f"{path.parent} was locked by {_described(there)}, but {reason}; taking it over")
                doomed.unlink()
            elif not path.exists():  # a new owner's lock, renamed between our two looks at it: give it back
                os.rename(doomed, path)
    raise _refusal(path.parent, _read(path))


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "started": _process_start(os.getpid()),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "token": uuid.uuid4().hex,
    }


def _read(path: Path) -> dict[str, Any]:
    """Read a lock; one that isn't complete (yet) names nobody."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _why_stale(path: Path, owner: dict[str, Any]) -> str | None:
    """Say why the owner of a lock can't be alive; None if it may be."""
    pid = owner.get("pid")
    if owner.get("host") == socket.gethostname() and type(pid) is int:
        started = _process_start(pid)
        if started is None:
            return "that process has ended"
        before = owner.get("started")
        if isinstance(before, int | float) and abs(before - started) > 2:
            return "another process has its number now"
        return None
    try:
        silent = _now_of(path.parent) - path.stat().st_mtime
    except OSError:
        return None
    return f"it gave no sign of life for {silent / 60:.0f} minutes" if silent > _STALE_SECONDS else None


def _process_start(pid: int) -> float | None:
    """Return when a process of this host has started, in seconds of the clock; None if there is no such process."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:  # it is there, and somebody else's
        return 0.0


def _now_of(folder: Path) -> float:
    """Return the time by the clock of the folder's file system, which may be another machine's."""
    probe = folder / f"{LOCK_NAME}.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _keep_touching(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_TOUCH_SECONDS):
        with suppress(OSError):
            os.utime(path)


def _refusal(run_dir: Path, owner: dict[str, Any]) -> RunLockedError:
    return RunLockedError(
        f"{run_dir} is in use: {_described(owner)} trains into it; wait until it has ended, or choose another "
        "output_dir"
    )


def _described(owner: dict[str, Any]) -> str:
    if "pid" not in owner:
        return "another process"
    return f"process {owner['pid']} on {owner.get('host')} (since {owner.get('since')})"


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # the deepest first
        with suppress(OSError):
            folder.rmdir()


__all__ = ["LOCK_NAME", "RunLockedError", "check_not_locked", "run_lock"]
