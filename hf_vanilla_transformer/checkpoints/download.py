# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Resolve a local path or Hub id to a local directory; downloads are compared with the Hub's hashes.

This is part of checkpoints/ because everything that reads a checkpoint accepts a Hub id; hub/ only publishes.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import errors, snapshot_download

from ..hub_access import HTTPError, hub_or_cache

# Configuration, tokenizers and weights, but no code and no pickle files.
TOKENIZER_PATTERNS = ("*.json", "*.spm", "*.txt", "*.model", "*.jinja")
CHECKPOINT_PATTERNS = (*TOKENIZER_PATTERNS, "*.safetensors")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_BLOCK = 2**20  # bytes per read


def is_hub_id(name: str | Path) -> bool:
    """Return whether a name has the form "user/name" of the Hub and is not a path that exists."""
    return isinstance(name, str) and not Path(name).exists() and _HUB_ID.fullmatch(name) is not None


def local_directory(
    name: str | Path, *, revision: str | None = None, allow_patterns: Sequence[str] = CHECKPOINT_PATTERNS
) -> Path:
    """Resolve a local path or Hub id to a local directory.

    Args:
        name: a directory, or "user/name" on the Hub, which is downloaded. If the Hub cannot be reached, the cache is
            used.
        revision: a commit, branch or tag on the Hub; None: the newest commit.
        allow_patterns: patterns of the files to download.

    Raises:
        OSError: If there is no such directory or repository, the Hub cannot be reached, or a download is damaged.
    """
    if not is_hub_id(name):
        path = Path(name)
        if not path.is_dir():
            raise FileNotFoundError(f"there is no directory {name}" + ("; it is a file" if path.exists() else ""))
        return path
    with hub_or_cache() as unreachable:
        try:
            downloaded = Path(snapshot_download(str(name), revision=revision, allow_patterns=list(allow_patterns)))
        except (HTTPError, OSError, ValueError, errors.RevisionResolutionError) as error:
            reason = _reason(error, str(name), revision, unreachable)
            raise OSError(f"there is no directory {name}, and the Hub {reason}") from error
    _check_hashes(downloaded, str(name))
    return downloaded


def _reason(error: BaseException, name: str, revision: str | None, unreachable: str | None) -> str:
    """Describe why a download failed, as the end of a sentence that begins with "the Hub".

    Args:
        error: raised by the download.
        name, revision: what was asked for.
        unreachable: see `why_unreachable`.
    """
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for found in chain:
        status = getattr(getattr(found, "response", None), "status_code", None)
        if isinstance(found, errors.HFValidationError):
            return "does not allow such a name"
        if isinstance(found, errors.GatedRepoError):
            return f"restricts access to {name}; request access on its page and log in (`hf auth login`)"
        if isinstance(found, errors.RevisionNotFoundError):
            return f"has no revision {revision!r} of {name} (HTTP {status})"
        if isinstance(found, errors.RepositoryNotFoundError) or status in (401, 404):
            return (
                f"has no {name} that you can see (HTTP {status}); check the name and, if it is private, log in "
                "(`hf auth login`)"
            )
        if status == 429:
            return "received too many requests (HTTP 429); try again in a few minutes"
        if status is not None and status >= 500:
            return f"has an internal error (HTTP {status}); try again later"
        if status is not None:
            return f"denies access (HTTP {status}); check the token (`hf auth whoami`)"
    if unreachable is not None:
        return unreachable
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return f"may have it, but it cannot be stored here ({error})"
    return f"cannot be reached, or the connection broke ({type(chain[-1]).__name__}); try again later"


def _check_hashes(directory: Path, name: str) -> None:
    """Compare downloaded files with the Hub's hashes; the client itself compares sizes only.

    In the client's cache, a file is a link to one that is named by its hash: SHA-256 for large files, otherwise Git's.
    """
    for path in sorted(directory.rglob("*")):
        stored = path.resolve()
        if not path.is_symlink() or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", stored.name):
            continue
        digest = hashlib.sha256() if len(stored.name) == 64 else hashlib.sha1(b"blob %d\0" % stored.stat().st_size)
        with stored.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != stored.name:
            path.unlink()
            stored.unlink()
            raise OSError(
                f"{path.name} of {name} was damaged in the download (its hash differs from the Hub's) and was removed "
                "from the cache; run the same command again to download it again"
            )


__all__ = ["CHECKPOINT_PATTERNS", "TOKENIZER_PATTERNS", "is_hub_id", "local_directory"]
