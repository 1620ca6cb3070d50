# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The formats that checkpoints are converted from and to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint_parts import CheckpointParts
from .fairseq import read_fairseq
from .fsmt import read_fsmt, write_fsmt
from .marian import read_marian, write_marian
from .torch_transformer import read_torch, write_torch

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A checkpoint format.

    Attributes:
        read: read a directory or file of this format.
        write: convert one of our checkpoints, given its directory, into a directory of this format. None if there is no
            way back.
        on_hub: whether repositories on the Hub have this format.
        takes_options: whether ``read`` and ``write`` use options; a format without them describes itself.
    """

    read: Callable[[Path, Options], CheckpointParts]
    write: Callable[[Path, Path, Options], None] | None = None
    on_hub: bool = False
    takes_options: bool = False


FORMATS: dict[str, Format] = {
    "marian": Format(
        lambda source, options: read_marian(source),
        lambda source, directory, options: write_marian(source, directory),
        on_hub=True,
    ),
    "fsmt": Format(
        lambda source, options: read_fsmt(source),
        lambda source, directory, options: write_fsmt(source, directory),
        on_hub=True,
    ),
    "fairseq": Format(lambda source, options: read_fairseq(source)),
    "torch": Format(read_torch, write_torch, takes_options=True),
}
SOURCE_FORMATS = tuple(FORMATS)
RESTORED_FORMATS = tuple(name for name, entry in FORMATS.items() if entry.write is not None)


__all__ = ["FORMATS", "RESTORED_FORMATS", "SOURCE_FORMATS", "Format"]
