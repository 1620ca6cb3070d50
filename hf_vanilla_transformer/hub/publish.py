# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Publish a checkpoint: everything that somebody without this package needs, tried out before it is sent.

What is sent is put together in a folder of its own: weights as safetensors, configuration and generation
configuration, the model's code, tokenizer, and the card. A process in which this package can't be imported loads that
folder and has to translate as the original does. Then one commit holds all of it: the repository has the whole
checkpoint, or what it had before.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import HfApi, constants, errors, get_token
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from ..checkpoints.self_contained import read_config, write_model_code
from ..checkpoints.weight_index import INDEX, WEIGHTS, weight_files
from ..json_object import read_json_object
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..model.pipeline_vanilla_transformer import TranslationPipeline
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER, TranslationTokenizers
from ..model_card import CARD_NAME, RESULTS_NAME, check_card, model_card, rename_card
from ..plausibility import doubtful_translations

logger = logging.get_logger(__name__)

Result = TypeVar("Result")
HTTPError: Any = errors.HTTPError  # httpx's or httpx2's, as huggingface_hub's version has it

CHECK_TEXTS = ("two hundred and seven", "Attention is all you need.", "삼백이십만 오")
# Of an earlier push, what would contradict this one: other weights, older code.
_STALE = ("*.safetensors", INDEX, "pytorch_model*.bin", "pytorch_model.bin.index.json", "*_vanilla_transformer.py")
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_WAITS = (1.0, 5.0, 20.0)  # seconds before trying again where the Hub or the network failed for the moment
_PASSING = (408, 429, 500, 502, 503, 504)  # HTTP statuses that may be gone after a while
_CHECK_SECONDS = 900  # the longest that the check may take

_CHECK_PROGRAM = """
import importlib.abc, json, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_vanilla_transformer":
            raise ModuleNotFoundError("hf_vanilla_transformer is hidden here", name=name)
sys.meta_path.insert(0, Hidden())
from transformers import AutoTokenizer, pipeline
folder, output, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
translator = pipeline("translation", model=folder, trust_remote_code=True, device="cpu")
with open(output, "w", encoding="ascii") as file:
    json.dump(translator(texts, return_scores=True), file)
"""


@dataclass(frozen=True)
class Published:
    """What was, or would be, published.

    Attributes:
        repo_id: "user/name".
        files: name in the repository → bytes.
        url: where it is; None after a dry run.
        commit: the commit's id, for ``revision=``; None after a dry run.
    """

    repo_id: str
    files: dict[str, int]
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
    dry_run: bool = False,
    check: bool = True,
    overwrite: bool = False,
) -> Published:
    """Publish a checkpoint that loads with this package or without it.

    A push that was interrupted can be run again; what has arrived is not sent twice, and until all has arrived the
    repository shows nothing new.

    Args:
        source: a checkpoint's directory with its tokenizer, or a model.
        repo_id: "user/name"; a name alone belongs to the token's user.
        tokenizer: the model's, or both as one `TranslationTokenizers`; for a directory, None takes what is there.
        private: whether nobody else may see it, for a repository that is made now; one that others can see already is
            refused.
        token: with the right to write; None takes the one of `hf auth login` or of the variable HF_TOKEN.
        license, data_license: for a card written now; see `model_card`. A README.md in the directory is sent as it is,
            but for the model's name.
        commit_message: what the repository's history says.
        dry_run: put together and check, send nothing. Needs no token and no network.
        check: load the folder in a process without this package and compare its translations.
        overwrite: replace a model of this kind that the repository holds already.

    Returns:
        What was sent, and where it is.

    Raises:
        ValueError: If the checkpoint is incomplete or another kind of model, the name can't be one, there is no token,
            or the repository holds a model already.
        OSError: If the Hub refuses or can't be reached; nothing was published then.
    """
    repo_id = _checked_name(repo_id)
    with tempfile.TemporaryDirectory(prefix="vanilla-transformer-push-") as work:
        folder = Path(work) / "repository"
        folder.mkdir()
        model, tokenizers = _gather(source, tokenizer, folder, Path(work))
        _write_card(source, folder, repo_id, license, data_license)
        token = None if dry_run else token or get_token()
        if not dry_run and not token:
            raise ValueError(
                "there is no token for the Hub; run `hf auth login`, or set HF_TOKEN, with a token that may write"
            )
        if check:
            _check_without_package(folder, model, tokenizers, Path(work))
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files_of(folder)}
        if token is None:
            return Published(repo_id, files)
        return _send(folder, repo_id, files, token, private, commit_message, overwrite)


def _checked_name(repo_id: Any) -> str:
    """Refuse what can't be a repository's name, before any work is done."""
    try:
        if not isinstance(repo_id, str):
            raise TypeError(f"a name is text, not {type(repo_id).__name__}")
        validate_repo_id(repo_id)
    except (ValueError, TypeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(f"{repo_id!r} can't be a repository's name, as user/name ({reason})") from error
    return repo_id


# --------------------------------------------------------------------------- what is sent


def _gather(source: Any, tokenizer: Any, folder: Path, work: Path) -> tuple[PreTrainedModel, TranslationTokenizers]:
    """Put everything but the card into the folder.

    Returns:
        The model as loaded from there, and its tokenizers.
    """
    if isinstance(source, (str, os.PathLike)):
        directory = Path(source)
        if not directory.is_dir():
            raise ValueError(f"there is no directory {directory}; name a checkpoint's")
    else:
        directory = work / "model"
        _save(source, directory)
        if tokenizer is None:
            raise ValueError("a model is pushed with its tokenizer; give tokenizer=…, or a checkpoint's directory")
    read_config(directory)
    for name in ("config.json", "generation_config.json"):
        if (directory / name).is_file():
            shutil.copyfile(directory / name, folder / name)
    for path in _weight_files(directory):
        _link(path, folder / path.name)
    model = _load(folder, directory)
    if not (folder / "generation_config.json").is_file():
        model.generation_config.save_pretrained(folder)
    tokenizers = _tokenizers(source, directory, tokenizer, model.config)
    tokenizers.save_pretrained(folder)
    write_model_code(folder)
    return model, tokenizers


def _tokenizers(source: Any, directory: Path, tokenizer: Any, config: Any) -> TranslationTokenizers:
    """Take the tokenizers that were given, those of the checkpoint's folder, or those beside the model's weights."""
    if isinstance(source, PreTrainedModel):
        tokenizers = TranslationTokenizers.of(source, tokenizer)
    else:
        tokenizers = TranslationTokenizers(_tokenizer(directory) if tokenizer is None else tokenizer)
        if config.decoder_vocab_size is not None and not tokenizers.separate:
            tokenizers = TranslationTokenizers(tokenizers.source, _tokenizer(directory / TARGET_TOKENIZER))
    tokenizers.check_fit(config)
    return tokenizers


def _save(model: Any, directory: Path) -> None:
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind != "vanilla_transformer" or not hasattr(model, "lm_head"):
        raise ValueError(f"only a VanillaTransformerForConditionalGeneration can be pushed, not a {kind}")
    if hasattr(model, "merge_and_unload"):
        raise ValueError("this model has an adapter; push model.merge_and_unload()")
    model.save_pretrained(directory)


def _weight_files(directory: Path) -> list[Path]:
    """List the safetensors files of a checkpoint, the index first."""
    if found := weight_files(directory):
        return found
    if any(path for pattern in _PICKLES for path in directory.glob(pattern)):
        raise ValueError(
            f"{directory} has its weights in pickles only, which can run code on the machine that loads them; save the "
            "model as safetensors first (save_pretrained)"
        )
    raise ValueError(f"{directory} has no {WEIGHTS}; it holds no model, or saving it was interrupted")


def _link(source: Path, target: Path) -> None:
    """Have a file a second time, without copying its bytes where the file system allows."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _load(folder: Path, directory: Path) -> PreTrainedModel:
    """Load the weights and refuse what doesn't fill the model exactly."""
    try:
        model, report = VanillaTransformerForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        sentence = " ".join(str(error).replace(str(folder), str(directory)).split())
        raise ValueError(f"the checkpoint in {directory} can't be loaded: {sentence}") from error
    for problem, what in (("missing_keys", "lacks"), ("unexpected_keys", "has, and the model doesn't,")):
        if names := sorted(report[problem]):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"the weights in {directory} don't fit its config.json: it {what} {names[0]}{more}")
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name} in {directory} holds a value that is not finite: that training had failed")
    return model.eval()


def _tokenizer(directory: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # tokenizers of all kinds fail in all ways
        raise ValueError(
            f"{directory} has no tokenizer that loads without code of its own; save the model's tokenizer there "
            "(tokenizer.save_pretrained)"
        ) from error


def _write_card(source: Any, folder: Path, repo_id: str, license: str | None, data_license: str | None) -> None:
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
    (folder / CARD_NAME).write_text(text, encoding="utf-8", newline="\n")


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --------------------------------------------------------------------------- whether it works


def _check_without_package(folder: Path, model: PreTrainedModel, tokenizers: TranslationTokenizers, work: Path) -> None:
    """Load the folder in a process that can't import this package, offline, and compare translations and scores."""
    texts = list(CHECK_TEXTS)
    pipeline = TranslationPipeline(model, tokenizers, device="cpu")
    expected = pipeline(texts, return_scores=True)
    if warning := doubtful_translations(texts, [translation["translation_text"] for translation in expected]):
        logger.warning(f"of the sentences that try the model out, {warning}")
    output = work / "translations.json"
    environment = {name: value for name, value in os.environ.items() if name not in _TOKEN_VARIABLES}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(work / "home"),
        "HF_MODULES_CACHE": str(work / "modules"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHECK_PROGRAM, str(folder), str(output), json.dumps(texts)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CHECK_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"loading it without this package took more than {_CHECK_SECONDS} seconds") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"it doesn't load without this package, so it was not sent: {last}")
    found = json.loads(output.read_text(encoding="ascii"))
    for text, ours, theirs in zip(texts, expected, found, strict=True):
        same = ours["translation_text"] == theirs["translation_text"]
        if not same or abs(ours["score"] - theirs["score"]) > 1e-3 * max(1.0, abs(ours["score"])):
            raise ValueError(
                f"without this package it translates {text!r} differently ({theirs} instead of {ours}), so it was not "
                "sent"
            )


_TOKEN_VARIABLES = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HF_OIDC_ID_TOKEN"}


# --------------------------------------------------------------------------- sending


def _send(
    folder: Path, repo_id: str, files: dict[str, int], token: str, private: bool, commit_message: str, overwrite: bool
) -> Published:
    """Make the repository if there is none, and commit the folder's files to it."""
    api = HfApi(token=token)
    seen = _patiently(lambda: _look(api, repo_id), repo_id, token)
    if seen is None:
        made = _patiently(lambda: api.create_repo(repo_id, private=private, exist_ok=True), repo_id, token)
        seen = _patiently(lambda: api.repo_info(made.repo_id), repo_id, token)
    repo_id = seen.id  # with the user's name, where none was given
    if private and seen.private is False:
        raise ValueError(
            f"{repo_id} exists and everybody can see it; say that this is meant (--public, private=False), or choose "
            "another name"
        )
    names = {sibling.rfilename for sibling in seen.siblings or []}
    there = sorted(names & set(files)) or sorted(
        name for name in names if any(fnmatch(name, stale) for stale in _STALE)
    )
    if there and not overwrite:
        raise ValueError(
            f"{repo_id} holds a {there[0]} already; choose another name, or say that it may be replaced (--overwrite, "
            "overwrite=True)"
        )
    if there and "config.json" in names:
        _refuse_other_model(api, repo_id, seen.sha, token)
    commit = _patiently(
        lambda: api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            delete_patterns=list(_STALE),
            parent_commit=seen.sha,  # what somebody else commits meanwhile is not overwritten
        ),
        repo_id,
        token,
    )
    return Published(repo_id, files, f"{api.endpoint}/{repo_id}", commit.oid)


def _refuse_other_model(api: HfApi, repo_id: str, revision: str, token: str) -> None:
    """Refuse to replace a model of another kind, whatever the caller has asked for."""
    path = _patiently(lambda: api.hf_hub_download(repo_id, "config.json", revision=revision), repo_id, token)
    try:
        kind = read_json_object(Path(path)).get("model_type")
    except ValueError:
        kind = None
    if kind != VanillaTransformerConfig.model_type:
        raise ValueError(
            f"{repo_id} holds a model of type {kind!r}, which is not replaced; choose another name, or delete that "
            "repository on the Hub"
        )


def _look(api: HfApi, repo_id: str) -> Any:
    """Return what the Hub knows of a repository, None if there is none."""
    if "/" not in repo_id:
        repo_id = f"{api.whoami()['name']}/{repo_id}"
    try:
        return api.repo_info(repo_id)
    except errors.RepositoryNotFoundError:
        return None


def _patiently(call: Callable[[], Result], repo_id: str, token: str) -> Result:
    """Call, again after a while where the failure may pass, and turn what remains into one sentence."""
    waits = list(_WAITS)
    while True:
        try:
            return call()
        except (HTTPError, OSError, RuntimeError) as error:
            failure: BaseException = error
            if isinstance(error, RuntimeError) and error.__cause__ is not None:  # an upload in a thread of its own
                failure = error.__cause__
            response = getattr(failure, "response", None)
            status = getattr(response, "status_code", None)
            passing = status in _PASSING or (status is None and isinstance(failure, HTTPError))
            if not passing or not waits:
                raise OSError(_sentence(failure, status, repo_id).replace(token, "…")) from None
            wait = waits.pop(0)
            logger.warning(f"the Hub failed ({status or type(failure).__name__}); trying again in {wait:g} seconds")
            time.sleep(wait)


def _sentence(failure: BaseException, status: int | None, repo_id: str) -> str:
    """Say what went wrong and what to do; the commit is made last, so nothing was published."""
    message = " ".join(str(getattr(failure, "server_message", None) or failure).split())
    if isinstance(failure, errors.OfflineModeIsEnabled):
        return "the variable HF_HUB_OFFLINE forbids to use the network; unset it to push"
    if status is None and isinstance(failure, HTTPError):
        return (
            f"the Hub at {constants.ENDPOINT} can't be reached ({type(failure).__name__}), nothing was published; run "
            "the same command again when the network is back"
        )
    known = {
        401: "doesn't know the token; make one that may write and log in again (`hf auth login`)",
        403: f"doesn't let this token write to {repo_id}; it needs the right to write, and the name must be yours",
        404: f"has no {repo_id} that this token can see; check the name of the user or organisation",
        409: f"is changing {repo_id} for somebody else just now; run the same command again",
        412: f"had {repo_id} changed by somebody else meanwhile; look at it and run the same command again",
        429: "asks for patience, there were too many requests; run the same command again in some minutes",
    }
    if status in known:
        return f"the Hub {known[status]} (HTTP {status}); nothing was published"
    if status is not None and status >= 500:
        return (
            f"the Hub has trouble of its own (HTTP {status}), nothing was published; run the same command again later"
        )
    return f"the Hub didn't take it ({'HTTP ' + str(status) + ', ' if status else ''}{message}); nothing was published"


def listing(files: dict[str, int]) -> Sequence[tuple[str, str]]:
    """Write down names and sizes, the largest first, for people."""
    rows = sorted(files.items(), key=lambda item: (-item[1], item[0]))
    return [(name, f"{size:,} bytes") for name, size in [*rows, ("in all", sum(files.values()))]]


__all__ = ["Published", "listing", "push_to_hub"]
