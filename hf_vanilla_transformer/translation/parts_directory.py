# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Write a long output in parts that several processes share; a killed process loses only the part it worked on.

The parts of ``FILE`` are in the directory ``FILE.parts`` until all are complete. Then they are joined, and the joined
file is renamed to ``FILE``. Each process claims one part after the other, so a fast process writes more of them. The
processes communicate only through this directory, which contains

- ``manifest.json``: the number of lines, and hashes and settings by which a later start recognizes the same work;
- ``00000012.part``: part 12, complete; it is written to ``00000012.tmp``, flushed to disk and renamed;
- ``locks``: a file with a lock for the directory and one for each part and process; see `file_locks`.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..atomic_files import flush_to_disk, opened_for_writing, write_json
from ..file_locks import FileLocks
from ..json_object import read_json_object
from ..launch import Launch
from ..version import __version__

logger = logging.get_logger(__name__)

LINES_PER_PART = 1024  # most lines per part, unless there would be too many parts
_LEAST_LINES_PER_PART = 64
_PARTS_PER_PROCESS = 4  # at least, so that processes end at about the same time
_MOST_PARTS = 20_000  # files in one directory
_KIND = "parts of an output"
_MANIFEST, _LOCKS, _JOINED, _STAGING = "manifest.json", "locks", "joined.json", "joined.tmp"
_PART = "{:08}.part"
# Numbers of locks: the directory, part i, process r. A lock of a process is held from its start to its end.
_DIRECTORY_LOCK, _FIRST_PART_LOCK, _FIRST_PROCESS_LOCK = 0, 1, 2**40
_START_SECONDS = 60  # that the first process to end waits for others of its launch that have not started yet
_POLL_SECONDS = 0.2


def parts_path(output: str | Path) -> Path:
    """Return the directory of the parts of an output."""
    return Path(f"{output}.parts")


def lines_per_part(lines: int, processes: int) -> int:
    """Return the number of lines in each part but the last.

    Args:
        lines: of the input.
        processes: that share the parts.
    """
    if lines > LINES_PER_PART * _MOST_PARTS:
        return -(-lines // (LINES_PER_PART * _MOST_PARTS)) * LINES_PER_PART
    if processes == 1:
        return LINES_PER_PART
    return min(LINES_PER_PART, max(_LEAST_LINES_PER_PART, -(-lines // (processes * _PARTS_PER_PROCESS))))


class PartsDirectory:
    """The directory of the parts of an output; from `open_parts`.

    Attributes:
        output: the output.
        path: the directory.
        lines: number of lines of the input.
        lines_per_part: number of lines in each part but the last.
        parts: number of parts.
        resumed_lines: lines that were complete when this process started.
    """

    def __init__(
        self,
        output: Path,
        identity: Mapping[str, Any],
        count_lines: Callable[[], int],
        launch: Launch,
        overwrite: bool,
    ) -> None:
        self.output, self.path = output, parts_path(output)
        self._launch, self._identity = launch, dict(identity)
        self._not_seen = set(range(launch.processes)) - {launch.rank}  # ranks
        self._locks = self._enter()
        try:
            manifest = self._read_or_write_manifest(self._identity, count_lines, overwrite)
            if launch.processes > 1:
                self._locks.take(_FIRST_PROCESS_LOCK + launch.rank, wait=True)
            self._locks.release(_DIRECTORY_LOCK)
        except BaseException:
            self._locks.close()
            raise
        self.lines, self.lines_per_part = int(manifest["lines"]), int(manifest["lines_per_part"])
        self.parts = -(-self.lines // self.lines_per_part)
        self.resumed_lines = self.complete_lines()

    # ----------------------------------------------------------------------- parts

    def lines_of(self, part: int) -> int:
        """Return the number of lines of a part."""
        return min(self.lines_per_part, self.lines - part * self.lines_per_part)

    def complete_parts(self) -> set[int]:
        """List the complete parts."""
        try:
            names = [entry.name for entry in os.scandir(self.path)]
        except FileNotFoundError:  # joined by another process
            return set(range(self.parts))
        return {int(name.removesuffix(".part")) for name in names if name.endswith(".part")}

    def complete_lines(self) -> int:
        """Count the lines of the complete parts."""
        return sum(map(self.lines_of, self.complete_parts()))

    def claim(self, part: int) -> bool:
        """Claim a part; return False if it is complete or another process has claimed it.

        The claim ends with `write`, or with this process.
        """
        self._all_have_started()
        if not self._locks.take(_FIRST_PART_LOCK + part):
            return False
        # Another process that has joined the parts may be removing them: it removes the lock file after the parts, and
        # the record of joining last.
        if self._part(part).exists() or _is_joined(self.output) or not self._is_current():
            self._locks.release(_FIRST_PART_LOCK + part)
            return False
        return True

    def write(self, part: int, data: bytes) -> None:
        """Write a claimed part."""
        staging = self._part(part).with_suffix(".tmp")
        staging.write_bytes(data)
        flush_to_disk(staging)
        os.replace(staging, self._part(part))
        flush_to_disk(self.path)
        self._locks.release(_FIRST_PART_LOCK + part)

    def join(self) -> None:
        """Join the parts, which all have to be complete, and remove the directory; only one of the processes does."""
        self._wait_for_other_processes()
        self._locks.take(_DIRECTORY_LOCK, wait=True)
        try:
            if not self._is_current():
                return
            if _is_joined(self.output):  # by a process that was killed before it had removed the directory
                _remove(self.path)
                return
            staging = self.path / _STAGING
            with opened_for_writing(staging, compress=self.output.suffix == ".gz") as target:
                for part in range(self.parts):
                    with self._part(part).open("rb") as source:
                        shutil.copyfileobj(source, target, 2**20)
            flush_to_disk(staging)
            write_json(self.path / _JOINED, {"file": _file_identity(staging), "identity": self._identity})
            os.replace(staging, self.output)
            flush_to_disk(self.output.parent)
            _remove(self.path)
        finally:
            self._locks.release(_DIRECTORY_LOCK)

    def close(self) -> None:
        """Release all claims; remove the directory if it has no complete part and no other process uses it."""
        try:
            if self._locks.take(_DIRECTORY_LOCK) and self._is_current() and not (
                self.complete_parts() or self._in_use()
            ):  # fmt: skip
                _remove(self.path)
        finally:
            self._locks.close()

    def kept(self) -> str | None:
        """Return a sentence about the parts that a later start will resume from; None if there are none."""
        if not self._is_current() or not (lines := self.complete_lines()):
            return None
        return (
            f"{lines:,} of {self.lines:,} lines are complete and kept in {self.path}; run the same command again to "
            "resume"
        )

    # ----------------------------------------------------------------------- the directory

    def _part(self, part: int) -> Path:
        return self.path / _PART.format(part)

    def _enter(self) -> FileLocks:
        """Create the directory if it is missing, and take its lock."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                locks = FileLocks(self.path / _LOCKS)
            except FileNotFoundError:  # another process has just removed the directory
                continue
            locks.take(_DIRECTORY_LOCK, wait=True)
            if not locks.supported and self._launch.processes > 1:
                locks.close()
                raise OSError(
                    f"the file system of {self.path} does not support file locks, which several processes need; write "
                    "to another file system, or start one process"
                )
            if locks.is_file(self.path / _LOCKS):
                return locks
            locks.close()

    def _is_current(self) -> bool:
        """Return whether the directory is still the one that this process has opened."""
        return self._locks.is_file(self.path / _LOCKS)

    def _read_or_write_manifest(
        self, identity: dict[str, Any], count_lines: Callable[[], int], overwrite: bool
    ) -> dict[str, Any]:
        """Return the manifest. A new one is written if there is none, or if another one may be replaced."""
        path = self.path / _MANIFEST
        if path.is_file():
            manifest = read_json_object(path)
            if manifest.get("kind") != _KIND:
                raise FileExistsError(f"{path} was not written by this package; choose another output")
            changes = _changes(manifest.get("identity"), identity)
            if not changes:
                return manifest
            if not overwrite:
                raise FileExistsError(
                    f"{self.path} holds parts of another output: {'; '.join(changes)}. Repeat the earlier command to "
                    "resume it, or set overwrite (--overwrite) to start again"
                )
            if self._in_use():
                raise FileExistsError(f"another process is writing to {self.path}; end it first")
        elif foreign := sorted(entry.name for entry in self.path.iterdir() if not _is_ours(entry.name)):
            raise FileExistsError(f"{self.path} contains other files ({', '.join(foreign[:5])}); choose another output")
        for entry in list(self.path.iterdir()):
            if _is_ours(entry.name) and entry.name != _LOCKS:
                entry.unlink()
        lines = count_lines()
        manifest = {
            "kind": _KIND,
            "hf_vanilla_transformer": __version__,
            "identity": identity,
            "lines": lines,
            "lines_per_part": lines_per_part(lines, self._launch.processes),
        }
        write_json(path, manifest)
        flush_to_disk(self.path)
        return manifest

    def _in_use(self) -> bool:
        """Return whether another process has claimed a part or belongs to a launch that uses the directory."""
        return self._locks.supported and self._locks.any_taken_from(_FIRST_PART_LOCK)

    def _wait_for_other_processes(self) -> None:
        """Wait until all processes of this launch have started.

        One that starts when the output exists would report an error, or with ``overwrite`` write it a second time.
        """
        until = time.monotonic() + _START_SECONDS
        while not self._all_have_started() and self._is_current() and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def _all_have_started(self) -> bool:
        """Return whether each process of this launch was running now or at an earlier call."""
        self._not_seen = {rank for rank in self._not_seen if not self._locks.is_taken(_FIRST_PROCESS_LOCK + rank)}
        return not self._not_seen


@contextmanager
def open_parts(
    output: str | Path,
    identity: Mapping[str, Any],
    count_lines: Callable[[], int],
    *,
    launch: Launch | None = None,
    overwrite: bool = False,
) -> Iterator[PartsDirectory]:
    """Open the parts of an output: new ones, or those that an earlier start or another process has left.

    If the block raises, a warning reports how many lines are kept.

    Args:
        output: file that the parts are joined to.
        identity: JSON values that decide about the content of the output, by name; parts of another identity are not
            resumed.
        count_lines: returns the number of lines of the input.
        launch: the place of this process; None: it is alone.
        overwrite: replace parts of another identity.

    Raises:
        OSError: If there are parts of another identity and ``overwrite`` is False, or the directory cannot be written.
    """
    launch = Launch() if launch is None else launch
    parts = PartsDirectory(Path(output), identity, count_lines, launch, overwrite)
    try:
        yield parts
    except BaseException as error:
        message = parts.kept()
        if message is not None and (launch.is_first or not isinstance(error, KeyboardInterrupt)):
            logger.warning(message)
        raise
    finally:
        parts.close()


def may_be_joined(output: str | Path) -> bool:
    """Return whether there is a directory of parts that were perhaps joined before their process was killed."""
    path = parts_path(output)
    return (path / _JOINED).is_file() or (path.is_dir() and not any(path.iterdir()))


def finish_joining(output: str | Path, identity: Mapping[str, Any]) -> bool:
    """Remove the parts of an output that was joined completely before its process was killed.

    Args:
        output, identity: see `open_parts`.

    Returns:
        Whether that was the case, so that nothing is left to do.
    """
    path = parts_path(output)
    with suppress(OSError):
        path.rmdir()  # if it is empty
    if not _is_joined(Path(output)) or read_json_object(path / _JOINED).get("identity") != dict(identity):
        return False
    _remove(path)
    return True


def _is_joined(output: Path) -> bool:
    """Return whether an output is the file that its parts were joined to."""
    try:
        return _file_identity(output) == read_json_object(parts_path(output) / _JOINED).get("file")
    except (OSError, ValueError):
        return False


def _remove(path: Path) -> None:
    """Remove a directory of parts. The file by which an interrupted removal is recognized goes last."""
    last = (_MANIFEST, _LOCKS, _JOINED)
    with suppress(FileNotFoundError):  # another process is removing it as well
        for entry in list(path.iterdir()):
            if _is_ours(entry.name) and entry.name not in last:
                entry.unlink()
        for name in last:
            (path / name).unlink(missing_ok=True)
    with suppress(OSError):  # it contains other files
        path.rmdir()


def _is_ours(name: str) -> bool:
    stem, _, suffix = name.rpartition(".")
    return name in (_MANIFEST, _LOCKS, _JOINED, _STAGING) or (stem.isdecimal() and suffix in ("part", "tmp")) or (
        name.startswith(".") and name.endswith(".tmp")
    )  # fmt: skip


def _file_identity(path: Path) -> dict[str, Any]:
    """Return what a file keeps when it is renamed."""
    found = path.stat()
    return {"inode": found.st_ino, "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _changes(before: Any, now: dict[str, Any]) -> list[str]:
    """Describe how two identities differ; hashes, which are in dictionaries and lists, only by their name."""
    before = before if isinstance(before, dict) else {}
    changes = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict | list) or isinstance(new, dict | list):
            changes.append(f"the {name} has changed")
        else:
            changes.append(f"it has {_setting(name, old)}, now {_setting(name, new)}")
    return changes


def _setting(name: str, value: Any) -> str:
    return f"no {name}" if value is None or value is False else name if value is True else f"{name}={value}"


__all__ = [
    "LINES_PER_PART",
    "PartsDirectory",
    "finish_joining",
    "lines_per_part",
    "may_be_joined",
    "open_parts",
    "parts_path",
]
