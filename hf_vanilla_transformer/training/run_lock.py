# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""A lock so that only one process trains in a directory; a second process stops before it touches any file.

The lock is a file with the process id, start time and host of its owner. It remains after a process is killed, so a
stale lock is taken over: if the owning process has ended (or its process id was reused), or, on another host, if the
file has not been touched for ten minutes; the owner touches it every minute. A lock of the operating system would also
be held by surviving child processes, and many network file systems do not support it.
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
_TOUCH_SECONDS = 60  # between two touches
_STALE_SECONDS = 600  # since the last touch, after which the lock of another host is stale
_MAX_BYTES = 10_000
# Raised if another process renames the lock at the same time; on Windows also while another process reads it.
_RENAME_RACE = (FileNotFoundError, PermissionError) if os.name == "nt" else (FileNotFoundError,)
_HELD: dict[Path, int] = {}  # number of nested locks that this process holds


class RunLockedError(ValueError):
    """Another process is training in the directory."""


@contextmanager
def run_lock(run_dir: str | Path, holding: bool = True) -> Iterator[None]:
    """Hold the directory's lock inside the ``with`` block; a missing directory is created.

    Args:
        run_dir: the run's directory.
        holding: False does nothing; of several ranks only process 0 holds the lock.

    Raises:
        RunLockedError: If another running process holds it; the message contains its process id and host.
    """
    run_dir = Path(run_dir).resolve()
    if not holding or _HELD.get(run_dir):
        _HELD[run_dir] = _HELD.get(run_dir, 0) + holding
        try:
            yield
        finally:
            _HELD[run_dir] -= holding
        return
    created = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / LOCK_NAME
    owner = _this_process()
    try:
        _take(path, owner)
    except BaseException:
        _remove_empty(created)
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
        _remove_empty(created)


def check_not_locked(run_dir: Path) -> None:
    """Check that no other running process holds a directory's lock.

    Raises:
        RunLockedError: If one does.
    """
    path = run_dir / LOCK_NAME
    if not _HELD.get(run_dir.resolve()) and path.exists() and _why_stale(path, owner := _read(path)) is None:
        raise _refusal(run_dir, owner)


def _take(path: Path, owner: dict[str, Any]) -> None:
    for _ in range(3):  # another process may change the lock between our read and write
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(owner, file)
            return
        except FileExistsError:
            pass
        current = _read(path)
        reason = _why_stale(path, current)
        if reason is None:
            raise _refusal(path.parent, current)
        stale = path.with_name(f"{LOCK_NAME}.{uuid.uuid4().hex}")
        with suppress(*_RENAME_RACE):  # another process has taken it over
            os.rename(path, stale)
            if _read(stale).get("token") == current.get("token"):
                logger.warning(f"{path.parent} was locked by {_described(current)}, but {reason}; taking over the lock")
                stale.unlink()
            elif not path.exists():  # a new owner's lock, written after our read: restore it
                os.rename(stale, path)
    raise _refusal(path.parent, _read(path))


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "started": _process_start(os.getpid()),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "token": uuid.uuid4().hex,
    }


def _read(path: Path) -> dict[str, Any]:
    """Read a lock; an incomplete one is returned as empty."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _why_stale(path: Path, owner: dict[str, Any]) -> str | None:
    """Return the reason why a lock is stale; None if its owner may be running."""
    pid = owner.get("pid")
    if owner.get("host") == socket.gethostname() and type(pid) is int:
        started = _process_start(pid)
        if started is None:
            return "that process has ended"
        before = owner.get("started")
        if isinstance(before, int | float) and abs(before - started) > 2:
            return "its process id was reused"
        return None
    try:
        age = _now_of(path.parent) - path.stat().st_mtime
    except OSError:
        return None
    return f"the lock was not touched for {age / 60:.0f} minutes" if age > _STALE_SECONDS else None


def _process_start(pid: int) -> float | None:
    """Return the start time of a process on this host, in seconds since the epoch; None if it is not running."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:  # it exists, and belongs to another user
        return 0.0


def _now_of(folder: Path) -> float:
    """Return the time of the file system's clock, which may be that of another machine."""
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
        f"{run_dir} is in use: {_described(owner)} is training in it; wait until it has ended, or choose another "
        "output_dir"
    )


def _described(owner: dict[str, Any]) -> str:
    if "pid" not in owner:
        return "another process"
    return f"process {owner['pid']} on {owner.get('host')} (since {owner.get('since')})"


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # deepest first
        with suppress(OSError):
            folder.rmdir()


__all__ = ["LOCK_NAME", "RunLockedError", "check_not_locked", "run_lock"]
