# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Resolve file names and glob patterns, and pair source files with target files."""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

Files: TypeAlias = str | Path | Sequence[str | Path]  # a file, a pattern such as "data/train.*.en", or a list


def existing_files(files: Files) -> list[Path]:
    """Return the files that names or patterns match, in order.

    Raises:
        ValueError: If a file is missing or a pattern matches none.
    """
    paths: list[Path] = []
    for name in [files] if isinstance(files, str | Path) else files:
        path = Path(name).expanduser()
        if not path.exists() and any(sign in str(path) for sign in "*?["):
            found = sorted(glob.glob(str(path), recursive=True))
            if not found:
                raise ValueError(f"no file matches {name}")
            paths.extend(map(Path, found))
        elif path.is_dir():
            raise ValueError(f"{path} is a folder, not a file; it contains {_folder_listing(path)}")
        elif not path.exists():
            where = f"{path.parent} contains {_folder_listing(path.parent)}" if path.parent.is_dir() else (
                f"there is no folder {path.parent} either"
            )  # fmt: skip
            raise ValueError(f"there is no file {path}; {where}")
        else:
            paths.append(path)
    if not paths:
        raise ValueError("no file is given")
    return paths


def _folder_listing(folder: Path) -> str:
    names = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    return listed(names) if names else "nothing"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Join names for a message; of many, only the first."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def paired_files(source_files: Files, target_files: Files) -> list[tuple[Path, Path]]:
    """Return pairs of source and target files.

    Files listed by name are paired in the given order. If both sides are patterns, two files are a pair if the
    wildcards match the same text, so that "t.10.en" is never paired with "t.1.ko".

    Raises:
        ValueError: If a file is missing or has no partner.
    """
    sides = [[files] if isinstance(files, str | Path) else list(files) for files in (source_files, target_files)]
    if len(sides[0]) == len(sides[1]):
        return [pair for names in zip(*sides, strict=True) for pair in _paired(*names)]
    sources, targets = existing_files(source_files), existing_files(target_files)
    if len(sources) != len(targets):
        raise ValueError(_different_numbers(sources, targets))
    patterns = [name for name in (*sides[0], *sides[1]) if _is_pattern(name)]
    pairs = list(zip(sources, targets, strict=True))
    for source, target in pairs if patterns else ():
        # One side is in alphabetical order, the other in the caller's: compare the numbers in the names.
        if _numbers(source) != _numbers(target):
            raise ValueError(
                f"{patterns[0]} is a pattern, and its files don't pair by name with those of the other side: {source} "
                f"would be paired with {target}; list the files of both sides by name"
            )
    return pairs


def _paired(source: str | Path, target: str | Path) -> list[tuple[Path, Path]]:
    sources, targets = existing_files(source), existing_files(target)
    if len(sources) != len(targets):
        raise ValueError(_different_numbers(sources, targets))
    if not (_is_pattern(source) and _is_pattern(target)):
        return list(zip(sources, targets, strict=True))
    keys = [
        {_matched(str(name), path): path for path in paths} for name, paths in ((source, sources), (target, targets))
    ]
    alone = sorted((keys[0].keys() ^ keys[1].keys()), key=str)
    if alone or len(keys[0]) < len(sources) or len(keys[1]) < len(targets):
        unpaired = next((side[alone[0]] for side in keys if alone and alone[0] in side), sources[0])
        raise ValueError(
            f"{unpaired} has no partner: two files are a pair if the wildcards of {source} and {target} match the same "
            "text; list the files of both sides by name, in order"
        )
    return [(keys[0][_matched(str(source), path)], keys[1][_matched(str(source), path)]) for path in sources]


def _different_numbers(sources: Sequence[Path], targets: Sequence[Path]) -> str:
    return (
        f"there are {len(sources)} source files and {len(targets)} target files; list them in pairs: "
        f"{listed(map(str, sources))} and {listed(map(str, targets))}"
    )


def _is_pattern(name: str | Path) -> bool:
    return not Path(name).expanduser().exists() and any(sign in str(name) for sign in "*?[")


def _matched(pattern: str, path: Path) -> str:
    """Return the text that the wildcards of a pattern match in a path."""
    pattern = str(Path(pattern).expanduser())
    parts = re.split(r"(\*+|\?|\[!?[^\]]*\])", pattern)  # every second one is a wildcard
    expression = "".join(
        f"({'.*' if part[0] == '*' else '.'})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    found = re.fullmatch(expression, str(path), re.DOTALL)
    return str(path) if found is None else "\0".join(found.groups())


def _numbers(path: Path) -> list[str]:
    return re.findall(r"\d+", path.name)


__all__ = ["Files", "existing_files", "listed", "paired_files"]
