# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Write files and directories atomically: after a crash or on a full disk, the old or the new content is intact.

New content is written beside its destination, flushed to disk and renamed into place. The three cases are one file
(`write_text`, `write_json`, `staged_file`), several files of a directory that stays in use (`replace_files`) and a
complete directory (`staged_directory`).
"""

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FILES_STAGING = ".files.saving"  # where `replace_files` writes; a killed process leaves it behind


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, with Unix line ends; missing parent directories are created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # /dev/stdout and pipes cannot be replaced
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        staging.write_text(text, encoding="utf-8", newline="\n")
        flush_to_disk(staging)
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def staged_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it has its name only when the block ends, and is deleted if the block raises.

    A file with the suffix ``.gz`` is compressed. Missing parent directories are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # /dev/stdout and pipes cannot be replaced
        with open(path, "wb") as stream:
            yield stream
        return
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with opened_for_writing(staging, compress=path.suffix == ".gz") as stream:
            yield stream
        flush_to_disk(staging)
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def opened_for_writing(path: Path, *, compress: bool) -> Iterator[IO[bytes]]:
    """Open a file for bytes, which are compressed with gzip on request: equal content gives equal files."""
    with open(path, "wb") as stream:
        if compress:
            with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as compressed:
                yield compressed  # type: ignore[misc]
        else:
            yield stream


def replace_files(directory: Path, write: Callable[[str], Any]) -> None:
    """Write files into a directory that is in use; each file is replaced atomically.

    No file is replaced before all of them are on disk. Files with other names stay.

    Args:
        directory: the destination.
        write: called with the path of a staging directory, into which it writes the files.
    """
    staging = directory / FILES_STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        write(str(staging))
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        for path in files:
            flush_to_disk(path)
        for path in files:
            destination = directory / path.relative_to(staging)
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, destination)
        flush_to_disk(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Create a staging directory that is renamed to ``target`` on success and deleted if the block raises.

    A directory at ``target`` is replaced; check beforehand whether it may be (see `overwriting.check_folder`).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    staging, replaced = work / "new", work / "replaced"
    try:
        staging.mkdir()  # with default permissions; mkdtemp's are for the owner only
        yield staging
        for path in staging.rglob("*"):
            if not path.is_symlink():
                flush_to_disk(path)
        rename_into_place(staging, target, replaced)
    finally:
        if target.exists() or not replaced.exists():  # otherwise `replaced` is the only copy of the old directory
            shutil.rmtree(work, ignore_errors=True)


def rename_into_place(staging: Path, target: Path, replaced: Path) -> None:
    """Rename a complete directory to its final name and delete the directory that had the name.

    Args:
        staging: the complete directory; its files are on disk.
        target: the final name, on the same file system.
        replaced: the name that an old directory at ``target`` has meanwhile. It is renamed back if the second rename
            fails; after a crash between the two renames, the old directory is found under this name.
    """
    if target.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(target, replaced)
    try:
        os.rename(staging, target)
    except OSError:
        if replaced.exists():
            os.rename(replaced, target)
        raise
    flush_to_disk(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Call fsync on a file, or on a directory, whose entries are then on disk."""
    flags = os.O_RDWR if os.name == "nt" and path.is_file() else os.O_RDONLY  # Windows flushes writable files only
    try:
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not path.is_dir():  # some systems cannot open directories, some file systems cannot flush them
            raise


__all__ = [
    "FILES_STAGING",
    "flush_to_disk",
    "opened_for_writing",
    "rename_into_place",
    "replace_files",
    "staged_directory",
    "staged_file",
    "write_json",
    "write_text",
]
