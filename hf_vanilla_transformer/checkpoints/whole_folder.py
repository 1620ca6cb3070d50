# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""A folder that appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..overwriting import check_folder, write_folder_record


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes ``target`` at the end, or disappears if anything fails.

    What was at ``target`` goes once the new folder stands; whether it may go is the caller's to decide before.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    aside, replaced = work / "new", work / "replaced"
    try:
        aside.mkdir()  # with the rights that a folder has here; mkdtemp's own is for its owner only
        yield aside
        if target.exists():
            os.rename(target, replaced)
        try:
            os.rename(aside, target)
        except OSError:
            if replaced.exists():
                os.rename(replaced, target)
            raise
    finally:
        if target.exists() or not replaced.exists():  # else what was there has no other place than this
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def written_aside(
    target: Path, sources: tuple[Path, ...] = (), overwrite: bool = False, kind: str = "conversion"
) -> Iterator[Path]:
    """Give a folder to write into, which becomes ``target`` at the end, or disappears if anything fails.

    Args:
        target: the directory that is to appear.
        sources: what must not be replaced.
        overwrite: replace what is there, if it is of the same kind.
        kind: of `overwriting.FOLDERS`.

    Raises:
        OSError: If ``target`` is there and ``overwrite`` isn't set, or it is of another kind.
        ValueError: If it would replace a source.
    """
    check_target(target, sources, overwrite, kind)
    with whole_folder(target) as aside:
        yield aside
        write_folder_record(aside, kind)


def check_target(
    target: Path, sources: tuple[Path, ...] = (), overwrite: bool = False, kind: str = "conversion"
) -> None:
    """Refuse to write over what is there; see `overwriting.check_folder`."""
    check_folder(target, kind, inputs=sources, overwrite=overwrite, option="--overwrite")


__all__ = ["check_target", "whole_folder", "written_aside"]
