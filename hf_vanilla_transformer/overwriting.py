# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Decide whether an output may replace existing files; every command checks this before it does any work.

1. An input is never replaced, nor a directory that contains one.
2. An existing output is replaced only if the caller sets ``overwrite``.
3. Even then, only an output of the same kind that this package wrote is replaced. A directory contains a record of its
   kind and files; a directory with a file that the record does not list is not replaced.

The check also covers whether the output can be written at all.
"""

import errno
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .atomic_files import staged_directory, write_json
from .json_object import read_json_object
from .version import __version__

RECORD_NAME = "vanilla_transformer_output.json"

FOLDERS = {  # kind → its name in messages
    "average": "an average of checkpoints",
    "conversion": "a converted checkpoint",
    "demo": "a checkpoint of the demo",
    "export": "an exported checkpoint",
    "tokenizer": "a tokenizer",
}
FILES = {
    "alignments": "word alignments",
    "card": "a model card",
    "figure": "a figure",
    "page": "an attention page",
    "record": "a record of scores",
    "scores": "scores of sentence pairs",
    "translations": "translations",
}
_KINDS = FOLDERS | FILES
_LISTED = 5  # file names in a message
_MAX_TEXT_READ = 2**24  # bytes of a text file that are searched for binary data


# --------------------------------------------------------------------------- directories


def check_folder(target: str | Path, kind: str, *, inputs: Iterable[str | Path] = (), overwrite: bool = False) -> None:
    """Check that a directory may be written: it is new, empty, or may be replaced by the rules of this module.

    Args:
        target: the output directory.
        kind: its content, a key of `FOLDERS`.
        inputs: files and directories that are read.
        overwrite: replace an existing output of the same kind.

    Raises:
        ValueError: If an input would be replaced.
        OSError: If ``target`` exists and may not be replaced, or cannot be written.
    """
    target = Path(target)
    _check_inputs(target, inputs)
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file; choose a directory")
    check_writable(target)
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise _exists(target, "directory")
    record = read_json_object(target / RECORD_NAME) if (target / RECORD_NAME).is_file() else {}
    found = str(record.get("kind"))
    if found != kind:
        content = f"{_KINDS[found]}, not {_KINDS[kind]}" if found in _KINDS else f"something other than {_KINDS[kind]}"
        raise FileExistsError(
            f"{target} holds {content} ({_listing(path.name for path in target.iterdir())}); an output replaces "
            "only an earlier output of this package and of the same kind: choose another directory"
        )
    listed = record.get("files")
    known = {str(name) for name in listed} if isinstance(listed, list) else set()
    foreign = set(_files_in(target)) - known - {RECORD_NAME}
    if foreign:
        raise FileExistsError(
            f"{target} holds other files beside {_KINDS[kind]} ({_listing(foreign)}), which would be deleted; move "
            "them or choose another directory"
        )


@contextmanager
def output_folder(
    target: str | Path,
    kind: str,
    *,
    inputs: Iterable[str | Path] = (),
    overwrite: bool = False,
    also: Sequence[str] = (),
) -> Iterator[Path]:
    """Create a staging directory that becomes ``target``, with its record, on success.

    Args:
        target, kind, inputs, overwrite: see `check_folder`, which is called first.
        also: names of files that are added to ``target`` later.
    """
    check_folder(target, kind, inputs=inputs, overwrite=overwrite)
    with staged_directory(Path(target)) as staging:
        yield staging
        write_folder_record(staging, kind, also)


def write_folder_record(folder: Path, kind: str, also: Sequence[str] = ()) -> None:
    """Write the record of a complete output directory: its kind and its files.

    Args:
        folder: the directory.
        kind: a key of `FOLDERS`.
        also: names of files that are added later.
    """
    files = sorted({*_files_in(folder), *also} - {RECORD_NAME})
    write_json(folder / RECORD_NAME, {"kind": kind, "hf_vanilla_transformer": __version__, "files": files})


def _files_in(folder: Path) -> list[str]:
    """List files, links and empty directories by their relative paths."""
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    ]


# --------------------------------------------------------------------------- files


def check_file(
    path: str | Path, kind: str, *, inputs: Iterable[str | Path | None] = (), overwrite: bool = False
) -> None:
    """Check that a file may be written: it is new, empty, or may be replaced by the rules of this module.

    Args:
        path: the output file.
        kind: its content, a key of `FILES`.
        inputs: files and directories that are read, and other outputs; None is skipped.
        overwrite: replace an existing output of the same kind.

    Raises:
        ValueError: If an input would be replaced.
        OSError: If the file exists and may not be replaced, or cannot be written.
    """
    path = Path(path)
    _check_inputs(path, inputs)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file")
    check_writable(path)
    if not path.exists() or path.stat().st_size == 0 or not path.is_file():  # /dev/null and pipes have no content
        return
    if not overwrite:
        raise _exists(path, "file")
    if not _is_own_file(path, kind):
        raise FileExistsError(
            f"{path} does not look like {_KINDS[kind]} written by this package, so it is not replaced; choose another "
            "file"
        )


def _is_own_file(path: Path, kind: str) -> bool:
    """Return whether the content of a file looks like an output of that kind."""
    if kind in ("scores", "translations", "alignments"):  # plain text without a mark of its origin
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
                return b"\0" not in stream.read(_MAX_TEXT_READ)
        except (gzip.BadGzipFile, EOFError, zlib.error):  # not compressed, or truncated
            return False
    data = path.read_bytes()
    if kind == "record":
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return isinstance(content, dict) and "hf_vanilla_transformer" in _dictionary(content.get("versions"))
    if kind == "figure":
        return b"atplotlib" in data  # in the metadata of every format that Matplotlib writes except JPEG
    return b"hf_vanilla_transformer" in data


def _dictionary(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


# --------------------------------------------------------------------------- both


def _exists(path: Path, what: str) -> FileExistsError:
    return FileExistsError(f"{path} already exists; choose another {what} or set overwrite (--overwrite)")


def _check_inputs(target: Path, inputs: Iterable[str | Path | None]) -> None:
    for source in [Path(name) for name in inputs if name]:
        same = target.exists() and source.exists() and target.samefile(source)  # also through a link
        if same or target.resolve() == source.resolve() or target.resolve() in source.resolve().parents:
            raise ValueError(f"writing to {target} would replace the source {source}; choose another path")


def check_writable(path: Path) -> None:
    """Check that a path can be written, judged by its nearest existing parent.

    Raises:
        OSError: If that parent is not a directory, or permissions are missing.
    """
    parent = path.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if path.exists() and not path.is_dir() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if (not path.exists() or path.is_dir()) and not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{os.strerror(errno.EACCES)} in {parent}", str(path))


def _listing(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


__all__ = [
    "FILES",
    "FOLDERS",
    "RECORD_NAME",
    "check_file",
    "check_folder",
    "check_writable",
    "output_folder",
    "write_folder_record",
]
