# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The one rule for what an output may replace, applied by every command before it starts to work.

- An input is never replaced, nor a folder that contains one.
- What is there stays, unless the caller asks for it to be replaced.
- Then only what this package wrote is replaced, and only by the same kind of output. A folder says so by a record,
  which lists its files: with one other file in it (a thesis, a .git), the folder stays.

Whether the output can be written at all is checked here as well, so that it is noticed before the work.
"""

import errno
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .json_object import read_json_object
from .version import __version__

RECORD_NAME = "vanilla_transformer_output.json"

FOLDERS = {  # kind → what messages call it
    "average": "an average of checkpoints",
    "conversion": "a converted checkpoint",
    "demo": "a checkpoint of the demo",
    "export": "an exported checkpoint",
    "tokenizer": "a tokenizer",
}
FILES = {
    "card": "a model card",
    "figure": "a figure",
    "page": "an attention page",
    "record": "a record of scores",
    "translations": "translations",
}
_KINDS = FOLDERS | FILES
_LISTED = 5  # names in a message

# What earlier versions wrote has no record; these files are in no folder that another program made.
_EARLIER = {"average": "averaging.json", "demo": "averaging.json", "export": "export.json"}
_EARLIER_FILES = re.compile(
    r"(config|generation_config|averaging|export|results|tokenizer\w*|special_tokens_map|added_tokens|vocab\w*|"
    r"\w+_vocabulary|model\.safetensors\.index)\.json|(vocab|merges)\.txt|.+\.spm|chat_template\.jinja|README\.md|"
    r"model(-\d+-of-\d+)?\.safetensors|model\.bin|\w+\.onnx(\.data)?|\w+_vanilla_transformer\.py|attention\.html|"
    r"alignment\.png|target_tokenizer"
)


# --------------------------------------------------------------------------- folders


def check_folder(
    target: str | Path,
    kind: str,
    *,
    inputs: Iterable[str | Path] = (),
    overwrite: bool = False,
    option: str = "overwrite",
) -> None:
    """Refuse a folder as an output unless it is new, empty, or may be replaced; see the module's first lines.

    Args:
        target: the folder that is to appear.
        kind: what will be in it, a key of `FOLDERS`.
        inputs: files and folders that are read.
        overwrite: whether the caller asked for what is there to be replaced.
        option: how the caller asks for it.

    Raises:
        ValueError: If an input would be replaced.
        OSError: If ``target`` is there and stays, or can't be written.
    """
    target = Path(target)
    _refuse_inputs(target, inputs)
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file; choose a directory")
    check_writable(target)
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{target} is there already; choose another directory or set {option}")
    there = _kind_of(target, kind)
    if there != kind:
        holds = f"{_KINDS[there]}, not {_KINDS[kind]}" if there in _KINDS else f"something else than {_KINDS[kind]}"
        raise FileExistsError(
            f"{target} holds {holds} ({_listing(path.name for path in target.iterdir())}); only what this package "
            "wrote is replaced, and only by the same kind: choose another directory"
        )
    foreign = _foreign_files(target)
    if foreign:
        raise FileExistsError(
            f"{target} holds other files beside {_KINDS[kind]} ({_listing(foreign)}), which replacing it would delete; "
            "move them away or choose another directory"
        )


def write_folder_record(folder: Path, kind: str, also: Sequence[str] = ()) -> None:
    """Record in a complete folder that this package wrote it, and which files.

    Args:
        folder: the folder.
        kind: a key of `FOLDERS`.
        also: names of files that will be added to it.
    """
    files = sorted({*_files_in(folder), *also} - {RECORD_NAME})
    record = {"kind": kind, "hf_vanilla_transformer": __version__, "files": files}
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _kind_of(folder: Path, wanted: str) -> str | None:
    """Return the kind that a folder's record names; of a folder without one, ``wanted`` if it must be of that kind."""
    if (folder / RECORD_NAME).is_file():
        return read_json_object(folder / RECORD_NAME).get("kind")
    earlier = _EARLIER.get(wanted)
    if earlier is None or not (folder / earlier).is_file():
        return None
    if wanted in ("average", "demo") and (wanted == "demo") != (folder / "results.json").is_file():
        return None
    return wanted


def _foreign_files(folder: Path) -> list[str]:
    if not (folder / RECORD_NAME).is_file():
        return sorted(path.name for path in folder.iterdir() if not _EARLIER_FILES.fullmatch(path.name))
    written = read_json_object(folder / RECORD_NAME).get("files")
    known = set(written) if isinstance(written, list) else set()
    return sorted(set(_files_in(folder)) - known - {RECORD_NAME})


def _files_in(folder: Path) -> list[str]:
    """List what is in a folder: files, links and empty folders, by their paths inside it."""
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    ]


# --------------------------------------------------------------------------- files


def check_file(
    path: str | Path, kind: str, *, inputs: Iterable[str | Path | None] = (), overwrite: bool = False
) -> None:
    """Refuse a file as an output unless it is new, empty, or may be replaced; see the module's first lines.

    Args:
        path: the file.
        kind: what will be in it, a key of `FILES`.
        inputs: files and folders that are read, and other outputs; None is skipped.
        overwrite: whether the caller asked for what is there to be replaced.

    Raises:
        ValueError: If an input would be replaced.
        OSError: If the file is there and stays, or can't be written.
    """
    path = Path(path)
    _refuse_inputs(path, inputs)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file")
    check_writable(path)
    if not path.exists() or path.stat().st_size == 0 or not path.is_file():  # /dev/null and pipes hold nothing
        return
    if not overwrite:
        raise FileExistsError(f"{path} is there already; choose another file or set --overwrite")
    if not _looks_like(path, kind):
        raise FileExistsError(
            f"{path} does not look like {_KINDS[kind]} that this package wrote, so it is not replaced; choose another "
            "file"
        )


def _looks_like(path: Path, kind: str) -> bool:
    data = path.read_bytes()
    if kind == "record":
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return isinstance(content, dict) and "hf_vanilla_transformer" in _dictionary(content.get("versions"))
    if kind == "figure":
        return b"atplotlib" in data  # in the metadata of every format that it writes but JPEG
    if kind == "translations":  # plain text, a line each: nothing in it can say whose it is
        return b"\0" not in data
    return b"hf_vanilla_transformer" in data


def _dictionary(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, complete or not at all; its folder is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        staging.write_text(text, encoding="utf-8", newline="\n")
        if path.exists() and not path.is_file():  # as /dev/stdout: written to, not replaced
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


# --------------------------------------------------------------------------- both


def _refuse_inputs(target: Path, inputs: Iterable[str | Path | None]) -> None:
    for source in [Path(name) for name in inputs if name]:
        same = target.exists() and source.exists() and target.samefile(source)  # also by a link
        if same or target.resolve() == source.resolve() or target.resolve() in source.resolve().parents:
            raise ValueError(f"writing to {target} would replace the source {source}; choose another path")


def check_writable(path: Path) -> None:
    """Refuse a path that can't be written, judged by its nearest folder that exists.

    Raises:
        OSError: If that is no folder, or may not be written.
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
    "replace_text",
    "write_folder_record",
]
