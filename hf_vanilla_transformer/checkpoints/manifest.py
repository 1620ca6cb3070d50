# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a checkpoint: every file with its size and SHA-256, written last, so that having one means whole.

The manifest vouches for itself too: it holds the digest of its own content and is compared byte for byte with what
that content gives when written, so one flipped bit anywhere in it is noticed.
"""

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from ..atomic_files import flush_to_disk

MANIFEST_NAME = "checkpoint_manifest.json"
FORMAT = 1
MAX_MANIFEST_BYTES = 4 * 2**20  # a checkpoint of 10,000 shards needs 1.5 MB
_BLOCK = 2**20  # bytes read at a time


class BrokenCheckpointError(ValueError):
    """A checkpoint is not as it was written; the message names the file."""


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write down what the folder holds; everything in it is on the disk before the manifest is.

    Args:
        folder: the checkpoint, complete but for its manifest.
        facts: what else is worth knowing, JSON values; `verify` gives it back.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST_NAME:
            files[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            flush_to_disk(path)
    with (folder / MANIFEST_NAME).open("w", encoding="ascii", newline="\n") as file:
        file.write(_render({"format": FORMAT, "facts": facts, "files": files}))
        file.flush()
        os.fsync(file.fileno())
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        flush_to_disk(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest that is as it was written, without looking at the files it names.

    Returns:
        ``facts`` as given to `write_manifest`, and ``files``: name → ``bytes`` and ``sha256``.

    Raises:
        BrokenCheckpointError: If it is missing or not as it was written.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file() or path.is_symlink():
        raise BrokenCheckpointError(f"{folder} has no {MANIFEST_NAME}, which is written last: it was not saved whole")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BrokenCheckpointError(f"{path} has {path.stat().st_size:,} bytes; no manifest is that long")
    damaged = BrokenCheckpointError(f"{path} is not as it was written; the checkpoint can't be trusted")
    try:
        text = path.read_bytes().decode("ascii")
        content = json.loads(text)["content"]
        intact = _render(content) == text
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # what hostile bytes can make of JSON
        raise damaged from error
    if not intact:
        raise damaged
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BrokenCheckpointError(f"{path} is written in a format that this version doesn't know")
    files, facts = content.get("files"), content.get("facts")
    if not isinstance(files, dict) or not isinstance(facts, dict):
        raise damaged
    for name, entry in files.items():
        _check_entry(path, name, entry)
    return content


def verify(folder: Path, suffixes: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest.

    Args:
        folder: the checkpoint. Files that the manifest doesn't name are somebody else's and left alone.
        suffixes: look only at files that end so, as (".safetensors",) where only the weights are wanted.

    Returns:
        The manifest's ``facts``.

    Raises:
        BrokenCheckpointError: If a file is missing, shorter, longer or another; the message names it.
    """
    content = read_manifest(folder)
    files = {name: entry for name, entry in content["files"].items() if suffixes is None or name.endswith(suffixes)}
    for name, entry in files.items():  # cheap things first: most broken checkpoints are incomplete
        path = folder / name
        if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise BrokenCheckpointError(f"{path} is missing, although the checkpoint was saved with it")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise BrokenCheckpointError(f"{path} has {size:,} bytes, and had {entry['bytes']:,} when it was saved")
    for name, entry in files.items():
        if file_sha256(folder / name) != entry["sha256"]:
            raise BrokenCheckpointError(f"{folder / name} is damaged: its SHA-256 is not the one it was saved with")
    return content["facts"]


def has_manifest(folder: Path) -> bool:
    """Tell whether somebody vouched for the folder; stock Trainer's checkpoints have no manifest."""
    return (folder / MANIFEST_NAME).exists()


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits, reading a block at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _render(content: Any) -> str:
    """Write content and its digest; the same content always gives the same text."""
    body = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    return f'{{"content": {body},\n"sha256": "{hashlib.sha256(body.encode("ascii")).hexdigest()}"}}\n'


def _check_entry(manifest: Path, name: str, entry: Any) -> None:
    """Refuse a name that leads out of the folder, and an entry of another kind."""
    parts = PurePosixPath(name).parts
    inside = parts and not name.startswith("/") and ".." not in parts and "\\" not in name and "\0" not in name
    if not inside or ":" in parts[0]:
        raise BrokenCheckpointError(f"{manifest} names {name!r}, which is no file of its folder")
    if (
        not isinstance(entry, dict)
        or type(entry.get("bytes")) is not int
        or entry["bytes"] < 0
        or not isinstance(entry.get("sha256"), str)
    ):
        raise BrokenCheckpointError(f"{manifest} says no size and SHA-256 of {name!r}")


__all__ = [
    "MANIFEST_NAME",
    "BrokenCheckpointError",
    "file_sha256",
    "has_manifest",
    "read_manifest",
    "verify",
    "write_manifest",
]
