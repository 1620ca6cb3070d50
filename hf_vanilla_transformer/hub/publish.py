# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Publish a checkpoint so that it loads with or without this package.

Weights as safetensors, configuration, generation configuration, the model's code, tokenizers and the model card are
collected in a temporary directory. A process that cannot import this package loads that directory and must translate as
the original does. One commit then uploads all files: the repository has the complete checkpoint, or is unchanged.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, constants, get_token
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, logging

from ..checkpoints.checkpoint_directory import CheckpointDirectory
from ..checkpoints.remote_code import write_model_code
from ..hub_access import why_unreachable
from ..json_object import read_json_object
from ..languages import check_language, doubtful_language
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from ..model_card import CARD_NAME, RESULTS_NAME, check_card, model_card, rename_card
from ..plausibility import MANY, USELESS, poor_translations
from .standalone_check import check_without_package
from .upload import upload

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Published:
    """The result of a push or a dry run.

    Attributes:
        repo_id: "user/name".
        files: name in the repository → bytes.
        card: text of the model card.
        compared: number of translations that were equal without this package; None if ``check`` was off.
        url: of the repository; None after a dry run.
        commit: the commit's id, for ``revision=``; None after a dry run.
    """

    repo_id: str
    files: dict[str, int]
    card: str
    compared: int | None
    url: str | None = None
    commit: str | None = None


def push_to_hub(
    source: str | Path | PreTrainedModel,
    repo_id: str,
    *,
    tokenizer: Any = None,
    private: bool = True,
    token: str | None = None,
    license: str | None = None,
    data_license: str | None = None,
    commit_message: str = "Upload the model, its code, tokenizer and card",
    revision: str | None = None,
    dry_run: bool = False,
    check: bool = True,
    overwrite: bool = False,
    allow_useless: bool = False,
) -> Published:
    """Publish a checkpoint that loads with or without this package.

    An interrupted push can be run again: uploaded files are not sent twice, and the repository changes only with the
    final commit.

    Args:
        source: a checkpoint's directory, with its tokenizer, or a model.
        repo_id: "user/name", or a name that belongs to the token's user.
        tokenizer: the model's tokenizer, or both as `TranslationTokenizers`. None: the tokenizer in the directory.
        private: create a private repository; an existing public repository is rejected.
        token: an access token with write access. None: the one of `hf auth login` or HF_TOKEN.
        license, data_license: for a new model card; see `model_card`. An existing README.md in the directory is
            uploaded with only the model's name changed.
        commit_message: message of the commit.
        revision: branch to commit to, created if it does not exist. None: the default branch, "main".
        dry_run: collect and check the files, but upload nothing. Needs neither token nor network.
        check: load the files in a process without this package and compare the translations.
        overwrite: replace an existing model of this type in the repository.
        allow_useless: publish a model even if, by the scores in its directory, 90% of its translations or more are
            empty or repeat themselves.

    Returns:
        The uploaded files, and where they are.

    Raises:
        ValueError: If the checkpoint is incomplete, of another type or useless, ``repo_id`` is invalid, there is no
            token, or the repository has a model already.
        OSError: If there is no such directory, or the Hub rejects a request or cannot be reached; then nothing was
            published.
    """
    _check_repo_id(repo_id)
    _check_scores(source, allow_useless)
    with tempfile.TemporaryDirectory(prefix="vanilla-transformer-push-") as work:
        folder = Path(work) / "repository"
        folder.mkdir()
        model, tokenizers = _collect(source, tokenizer, folder, Path(work))
        _write_card(source, folder, repo_id, license, data_license)
        token = None if dry_run else token or get_token()
        if not dry_run and not token:
            raise ValueError("there is no token for the Hub; run `hf auth login`, or set HF_TOKEN, with write access")
        if not dry_run and (reason := why_unreachable()) is not None:
            raise OSError(f"the Hub {reason}; nothing was published")
        compared = check_without_package(folder, model, tokenizers, Path(work)) if check else None
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
        card = (folder / CARD_NAME).read_text(encoding="utf-8")
        if token is None:
            return Published(repo_id, files, card, compared)
        repo_id, commit = upload(
            folder,
            repo_id,
            files,
            token=token,
            private=private,
            commit_message=commit_message,
            revision=revision,
            overwrite=overwrite,
        )
        return Published(repo_id, files, card, compared, f"{constants.ENDPOINT}/{repo_id}", commit.oid)


def _check_repo_id(repo_id: Any) -> None:
    """Reject an invalid repository name before any work is done."""
    try:
        if not isinstance(repo_id, str):
            raise TypeError(f"a name is a string, not {type(repo_id).__name__}")
        validate_repo_id(repo_id)
    except (ValueError, TypeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(f"{repo_id!r} is not a valid repository name; use user/name ({reason})") from error


def _check_scores(source: Any, allow_useless: bool) -> None:
    """Reject a checkpoint whose recorded translations are nearly all empty or repetitive; warn if many are."""
    results = Path(source) / RESULTS_NAME if isinstance(source, (str, os.PathLike)) else None
    if results is None or not results.is_file():
        return
    scores = read_json_object(results).get("scores", {})
    useless, many = (poor_translations(scores, least) for least in (USELESS, MANY))
    if useless and not allow_useless:
        raise ValueError(f"{useless}, so the model is not published; train it longer, or set --allow-useless")
    if many:
        logger.warning(f"{many}; a user of the model will see the same, train it longer")


def _check_languages(card: str) -> None:
    """Log a warning for each language in the header of a model card that is no language code, or rarely meant."""
    languages = ModelCard(card).data.get("language") or []
    for name in [languages] if isinstance(languages, str) else languages:
        try:
            check_language(str(name), "language in the model card")
            warning = doubtful_language(str(name), "language in the model card")
        except ValueError as error:
            warning = str(error)
        if warning:
            logger.warning(warning)


def _collect(source: Any, tokenizer: Any, folder: Path, work: Path) -> tuple[PreTrainedModel, TranslationTokenizers]:
    """Collect all files except the card in a directory.

    Returns:
        The model as loaded from there, and its tokenizers.
    """
    if not isinstance(source, (str, os.PathLike)):
        _save(source, work / "model")
        if tokenizer is None:
            raise ValueError("a model is pushed with its tokenizer; set tokenizer, or pass a checkpoint's directory")
    directory = CheckpointDirectory(Path(source) if isinstance(source, (str, os.PathLike)) else work / "model")
    directory.check()
    for name in (CONFIG_NAME, GENERATION_CONFIG_NAME):
        if (directory.path / name).is_file():
            shutil.copyfile(directory.path / name, folder / name)
    for path in directory.require_weight_files():
        _link_or_copy(path, folder / path.name)
    model = CheckpointDirectory(folder, directory.name).load_model()
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name} in {directory.name} holds a value that is not finite: the training failed")
    if not (folder / GENERATION_CONFIG_NAME).is_file():
        model.generation_config.save_pretrained(folder)
    if isinstance(source, PreTrainedModel):
        tokenizers = TranslationTokenizers.of(source, tokenizer)
    else:
        tokenizers = _tokenizers(directory, tokenizer, model.config)
    tokenizers.save_pretrained(folder)
    write_model_code(folder)
    return model, tokenizers


def _save(model: Any, directory: Path) -> None:
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind != "vanilla_transformer" or not hasattr(model, "lm_head"):
        raise ValueError(f"only a VanillaTransformerForConditionalGeneration can be pushed, not a {kind}")
    if hasattr(model, "merge_and_unload"):
        raise ValueError("this model has an adapter; push model.merge_and_unload()")
    model.save_pretrained(directory)


def _link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link, or a copy where the file system does not support links."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _tokenizers(directory: CheckpointDirectory, tokenizer: Any, config: Any) -> TranslationTokenizers:
    """Return the given tokenizers, completed by those in the checkpoint."""
    tokenizers = directory.load_tokenizers(config) if tokenizer is None else TranslationTokenizers(tokenizer)
    if config.decoder_vocab_size is not None and not tokenizers.separate:
        tokenizers = TranslationTokenizers(tokenizers.source, directory.load_target_tokenizer())
    tokenizers.check_fit(config)
    return tokenizers


def _write_card(source: Any, folder: Path, repo_id: str, license: str | None, data_license: str | None) -> None:
    """Write the model card: the checkpoint's own, with the model's new name, or one written from its records."""
    directory = Path(source) if isinstance(source, (str, os.PathLike)) else None
    if directory is not None and (directory / CARD_NAME).is_file():
        try:
            text = rename_card((directory / CARD_NAME).read_text(encoding="utf-8-sig"), repo_id)
        except UnicodeDecodeError as error:
            raise ValueError(f"{directory / CARD_NAME} is not UTF-8 text") from error
        check_card(text, str(directory / CARD_NAME))
    else:
        results = None if directory is None else directory / RESULTS_NAME
        if results is not None and results.is_file():
            shutil.copyfile(results, folder / RESULTS_NAME)
        text = model_card(folder, repo_id=repo_id, license=license, data_license=data_license)
        (folder / RESULTS_NAME).unlink(missing_ok=True)
    _check_languages(text)
    (folder / CARD_NAME).write_text(text, encoding="utf-8", newline="\n")


def listing(files: dict[str, int]) -> Sequence[tuple[str, str]]:
    """Format file names and sizes as table rows, the largest file first."""
    rows = sorted(files.items(), key=lambda item: (-item[1], item[0]))
    return [(name, f"{size:,} bytes") for name, size in [*rows, ("in all", sum(files.values()))]]


__all__ = ["Published", "listing", "push_to_hub"]
