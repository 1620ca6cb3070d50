# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts of a record of results: data, decoding, hardware, versions and commit; and how records are written."""

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..atomic_files import write_json, write_text
from ..data.corpora import ParallelCorpus
from ..device import processor_name
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..version import __version__

_ALWAYS_RECORDED = ("num_beams", "length_penalty", "length_normalization")
_VERSIONS = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "sacrebleu")


def data_record(corpus: ParallelCorpus) -> dict[str, Any]:
    """Describe a corpus: name, number of pairs, hash and problems; only the name of a stream not read to its end."""
    report = corpus.report
    name = " ".join(map(without_folder, report.name.split(" ")))
    record = {"name": name, "pairs": report.pairs_kept, "sha256": report.sha256, "problems": report.problems}
    return record if report.complete else {"name": name, "streamed": True}


def decoding_record(config: BeamSearchConfig) -> dict[str, Any]:
    """Describe a beam search by the settings that a recipe has, and others that are not their defaults."""
    fields, defaults = dataclasses.asdict(config), dataclasses.asdict(BeamSearchConfig())
    return {name: value for name, value in fields.items() if name in _ALWAYS_RECORDED or value != defaults[name]}


def hardware() -> str:
    """Describe the hardware of this process, e.g. "2 cores of Intel Xeon …" or "4 × NVIDIA H100"."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} {'core' if cores == 1 else 'cores'} of {processor_name()}"


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries that may affect results."""
    found = {name: importlib.metadata.version(name) for name in _VERSIONS}
    return {"hf_vanilla_transformer": __version__, "python": platform.python_version(), **found}


def commit() -> str | None:
    """Return the commit of the code, with "+" if files differ from it; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package may be inside another repository
        return None

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def without_folder(value: Any) -> Any:
    """Reduce an absolute path, or each in a list, to its file name; return any other value unchanged.

    Records are published; they contain no paths of the machine.
    """
    if isinstance(value, list):
        return [without_folder(word) for word in value]
    return Path(value).name if value is not None and Path(value).is_absolute() else value


def write_translations(path: Path, translations: Sequence[str]) -> None:
    """Write translations as UTF-8, one per line, atomically."""
    write_text(path, "".join(" ".join(text.split()) + "\n" for text in translations))


__all__ = [
    "commit",
    "data_record",
    "decoding_record",
    "hardware",
    "versions",
    "without_folder",
    "write_json",
    "write_translations",
]
