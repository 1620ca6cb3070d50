# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""What a record of results says about where it came from: data, hardware, versions, commit; and how it is written."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.corpora import ParallelCorpus
from ..device import processor_name
from ..overwriting import replace_text
from ..version import __version__

_VERSIONS = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "sacrebleu")


def data_record(corpus: ParallelCorpus) -> dict[str, Any]:
    """Describe a corpus: name, pairs, hash and what was wrong with it; of a stream not read to its end, the name."""
    report = corpus.report
    name = " ".join(map(shown, report.name.split(" ")))
    record = {"name": name, "pairs": report.pairs_kept, "sha256": report.sha256, "problems": report.problems}
    return record if report.complete else {"name": name, "streamed": True}


def hardware() -> str:
    """Name what this process computes on, as "2 cores of Intel Xeon …" or "4 × NVIDIA H100"."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {processor_name()}"


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries that results may depend on."""
    found = {name: importlib.metadata.version(name) for name in _VERSIONS}
    return {"hf_vanilla_transformer": __version__, "python": platform.python_version(), **found}


def commit() -> str | None:
    """Return the commit of the code, "+" added where files differ from it; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package may lie in somebody else's repository
        return None

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def shown(value: Any) -> Any:
    """Return a setting as written, of an absolute path only its name."""
    if isinstance(value, list):
        return [shown(word) for word in value]
    return Path(value).name if value is not None and Path(value).is_absolute() else value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as readable JSON, complete or not at all."""
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_translations(path: Path, translations: Sequence[str]) -> None:
    """Write translations in UTF-8, exactly a line each, all of them or none."""
    replace_text(path, "".join(" ".join(text.split()) + "\n" for text in translations))


__all__ = ["commit", "data_record", "hardware", "shown", "versions", "write_json", "write_translations"]
