# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Upload a checkpoint to the Hub in one commit; failures raise an error with a one-sentence explanation."""

import time
from collections.abc import Callable, Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitInfo, HfApi, constants, errors
from transformers.utils import logging

from ..checkpoints.checkpoint_directory import WEIGHT_PATTERNS
from ..hub_access import HTTPError
from ..json_object import read_json_object
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig

logger = logging.get_logger(__name__)

Result = TypeVar("Result")

# Files of an earlier push that would contradict this one, and are deleted: other weights, older code.
_STALE_PATTERNS = (*WEIGHT_PATTERNS, "*_vanilla_transformer.py")
_WAITS = (1.0, 5.0, 20.0)  # seconds before each retry
_TEMPORARY = (408, 429, 500, 502, 503, 504)  # HTTP statuses that are worth a retry


def upload(
    folder: Path,
    repo_id: str,
    files: Collection[str],
    *,
    token: str,
    private: bool,
    commit_message: str,
    revision: str | None,
    overwrite: bool,
) -> tuple[str, CommitInfo]:
    """Create the repository if it does not exist, and commit a directory's files to it.

    Args:
        folder: the directory.
        repo_id: "user/name", or a name that belongs to the token's user.
        files: names of the files in the directory.
        token, private, commit_message, revision, overwrite: see `push_to_hub`.

    Returns:
        The repository's id, "user/name", and the commit.

    Raises:
        ValueError: If the repository is public and ``private`` is set, or it has a model that may not be replaced.
        OSError: If the Hub rejects a request or cannot be reached; then nothing was published.
    """
    api = HfApi(token=token)
    info = _retry(lambda: _repository(api, repo_id), repo_id, token)
    if info is None:
        created = _retry(lambda: api.create_repo(repo_id, private=private, exist_ok=True), repo_id, token)
        info = _retry(lambda: api.repo_info(created.repo_id), repo_id, token)
    repo_id = info.id  # with the user's name
    if revision is not None:
        info = _retry(lambda: _branch(api, repo_id, revision), repo_id, token)
    if private and info.private is False:
        raise ValueError(
            f"{repo_id} exists and is public; confirm a public upload (--public, private=False), or choose another name"
        )
    existing = {sibling.rfilename for sibling in info.siblings or []}
    replaced = sorted(existing & set(files)) or sorted(
        name for name in existing if any(fnmatch(name, pattern) for pattern in _STALE_PATTERNS)
    )
    if replaced and not overwrite:
        raise ValueError(
            f"{repo_id} already has a file {replaced[0]}; choose another name, or set overwrite (--overwrite)"
        )
    if replaced and "config.json" in existing:
        _check_model_type(api, repo_id, info.sha, token)
    commit = _retry(
        lambda: api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            delete_patterns=list(_STALE_PATTERNS),
            revision=revision,
            parent_commit=info.sha,  # a commit made in the meantime is not overwritten
        ),
        repo_id,
        token,
    )
    return repo_id, commit


def _repository(api: HfApi, repo_id: str) -> Any:
    """Return the Hub's information about a repository; None if it does not exist."""
    if "/" not in repo_id:
        repo_id = f"{api.whoami()['name']}/{repo_id}"
    try:
        return api.repo_info(repo_id)
    except errors.RepositoryNotFoundError:
        return None


def _branch(api: HfApi, repo_id: str, name: str) -> Any:
    """Return the Hub's information about a branch; it is created from the default branch if it does not exist."""
    try:
        return api.repo_info(repo_id, revision=name)
    except errors.RevisionNotFoundError:
        api.create_branch(repo_id, branch=name, exist_ok=True)
        return api.repo_info(repo_id, revision=name)


def _check_model_type(api: HfApi, repo_id: str, revision: str, token: str) -> None:
    """Reject replacing a model of another type; ``overwrite`` does not change that."""
    path = _retry(lambda: api.hf_hub_download(repo_id, "config.json", revision=revision), repo_id, token)
    try:
        found = read_json_object(Path(path)).get("model_type")
    except ValueError:
        found = None
    if found != VanillaTransformerConfig.model_type:
        raise ValueError(
            f"{repo_id} contains a model of another type ({found!r}) and is not overwritten; choose another repository "
            "name, or delete that repository on the Hub"
        )


def _retry(call: Callable[[], Result], repo_id: str, token: str) -> Result:
    """Call a function, with retries after temporary failures; other failures become an OSError of one sentence."""
    waits = list(_WAITS)
    while True:
        try:
            return call()
        except (HTTPError, OSError, RuntimeError) as error:
            failure: BaseException = error
            if isinstance(error, RuntimeError) and error.__cause__ is not None:  # raised in an upload thread
                failure = error.__cause__
            response = getattr(failure, "response", None)
            status = getattr(response, "status_code", None)
            temporary = status in _TEMPORARY or (status is None and isinstance(failure, HTTPError))
            if not temporary or not waits:
                raise OSError(_describe(failure, status, repo_id).replace(token, "…")) from None
            wait = waits.pop(0)
            logger.warning(f"the Hub failed ({status or type(failure).__name__}); trying again in {wait:g} seconds")
            time.sleep(wait)


def _describe(failure: BaseException, status: int | None, repo_id: str) -> str:
    """Describe a failure and how to fix it. The commit is the last request, so nothing was published."""
    if isinstance(failure, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, which disables the network; unset it to push"
    if status is None and isinstance(failure, HTTPError):
        return (
            f"the Hub at {constants.ENDPOINT} cannot be reached ({type(failure).__name__}), nothing was published; run "
            "the same command again when the network is available"
        )
    known = {
        401: "does not accept the token; create one with write access and log in again (`hf auth login`)",
        403: f"does not allow this token to write to {repo_id}; use a token with write access to your own namespace",
        404: f"has no {repo_id} that this token can see; check the name of the user or organization",
        409: f"is processing another change of {repo_id}; run the same command again",
        412: f"has a newer commit in {repo_id}, made during this push; check it and run the same command again",
        429: "received too many requests; run the same command again in a few minutes",
    }
    if status in known:
        return f"the Hub {known[status]} (HTTP {status}); nothing was published"
    if status is not None and status >= 500:
        return f"the Hub has an internal error (HTTP {status}), nothing was published; run the same command again later"
    message = " ".join(str(getattr(failure, "server_message", None) or failure).split())
    return f"the Hub rejected the upload ({f'HTTP {status}, ' if status else ''}{message}); nothing was published"


__all__ = ["upload"]
