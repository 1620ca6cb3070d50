# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a checkpoint: size and SHA-256 of every file, written last, so a checkpoint with one is complete.

The manifest contains the digest of its own content. It is read only if it is byte for byte what that content gives when
written, so that a single flipped bit is noticed.
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
_BLOCK = 2**20  # bytes per read


class BrokenCheckpointError(ValueError):
    """A checkpoint differs from what was saved; the message names the file."""


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest, after all files that it lists are on disk.

    Args:
        folder: the checkpoint, complete except for its manifest.
        facts: other JSON values, which `read_manifest` and `verify` return.
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
    """Read an undamaged manifest, without looking at the files it lists.

    Returns:
        ``facts`` as passed to `write_manifest`, and ``files``: name → ``bytes`` and ``sha256``.

    Raises:
        BrokenCheckpointError: If the manifest is missing or damaged.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file() or path.is_symlink():
        raise BrokenCheckpointError(f"{folder} has no {MANIFEST_NAME}, which is written last: saving was interrupted")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BrokenCheckpointError(
            f"{path} has {path.stat().st_size:,} bytes, more than the limit of {MAX_MANIFEST_BYTES:,} for a manifest"
        )
    damaged = BrokenCheckpointError(f"{path} is damaged, so the checkpoint cannot be verified")
    try:
        text = path.read_bytes().decode("ascii")
        content = json.loads(text)["content"]
        intact = _render(content) == text
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # all that arbitrary bytes raise
        raise damaged from error
    if not intact:
        raise damaged
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BrokenCheckpointError(f"{path} has a format that this version does not support")
    files, facts = content.get("files"), content.get("facts")
    if not isinstance(files, dict) or not isinstance(facts, dict):
        raise damaged
    for name, entry in files.items():
        _check_entry(path, name, entry)
    return content


def verify(folder: Path, suffixes: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Compare the files of a checkpoint with its manifest.

    Args:
        folder: the checkpoint. Files that the manifest does not list are ignored.
        suffixes: compare only files that end in one of them, as (".safetensors",) for the weights.

    Returns:
        The manifest's ``facts``.

    Raises:
        BrokenCheckpointError: If a file is missing or differs; the message names it.
    """
    content = read_manifest(folder)
    files = {name: entry for name, entry in content["files"].items() if suffixes is None or name.endswith(suffixes)}
    for name, entry in files.items():  # cheap checks first: most broken checkpoints are incomplete
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
    """Return whether a directory has a manifest; checkpoints of transformers' own Trainer have none."""
    return (folder / MANIFEST_NAME).exists()


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _render(content: Any) -> str:
    """Format the content with its digest; equal content gives equal text."""
    body = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    return f'{{"content": {body},\n"sha256": "{hashlib.sha256(body.encode("ascii")).hexdigest()}"}}\n'


def _check_entry(manifest: Path, name: str, entry: Any) -> None:
    """Reject a path that leads out of the directory, and an entry without size or hash."""
    parts = PurePosixPath(name).parts
    inside = parts and not name.startswith("/") and ".." not in parts and "\\" not in name and "\0" not in name
    if not inside or ":" in parts[0]:
        raise BrokenCheckpointError(f"{manifest} lists {name!r}, which is no file of its folder")
    if (
        not isinstance(entry, dict)
        or type(entry.get("bytes")) is not int
        or entry["bytes"] < 0
        or not isinstance(entry.get("sha256"), str)
    ):
        raise BrokenCheckpointError(f"{manifest} has no size and SHA-256 for {name!r}")


__all__ = [
    "MANIFEST_NAME",
    "BrokenCheckpointError",
    "file_sha256",
    "has_manifest",
    "read_manifest",
    "verify",
    "write_manifest",
]
