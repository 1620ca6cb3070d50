# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run that goes on from a checkpoint has to share with the run that wrote it, and what the checkpoint must hold.

Data, tokenizer and architecture must be the same, and the training state be there; else "the same bytes as never
stopping" would be an empty promise.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from torch.utils.data import IterableDataset
from transformers import PretrainedConfig
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from ..checkpoints.manifest import has_manifest, read_manifest
from ..checkpoints.weight_index import read_weight_index
from ..json_object import read_json_object
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .arguments import VanillaTransformerTrainingArguments

logger = logging.get_logger(__name__)

_TRAINER_STATE = "trainer_state.json"
# Any of these is the optimizer's state: plain, and FSDP's two kinds.
_OPTIMIZER_FILES = ("optimizer.pt", "optimizer.bin", "optimizer_0")
_OPTIMIZER_ARGUMENTS = ("optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
_SAME_STATE = {"adamw_torch", "adamw_torch_fused"}  # optimizers that can read each other's state
_NOT_ARCHITECTURE = {"_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype", "architectures"}


def run_identity(
    args: VanillaTransformerTrainingArguments, dataset: Any, tokenizer: Any, handed_in: str | None = None
) -> dict[str, Any]:
    """Say what a run that goes on from here has to share: data, tokenizer, optimizer and how they are laid out.

    Args:
        args: of the training.
        dataset: what is trained on; of a stream only the settings count.
        tokenizer: the Trainer's ``processing_class``.
        handed_in: name of the class of an optimizer that was handed in; None if the arguments name it.

    Returns:
        JSON values under "data", "tokenizer", "optimizer" and "layout".
    """
    data = {
        "sha256": data_sha256(dataset),
        "seed": args.seed if args.data_seed is None else args.data_seed,
        "max_tokens_per_batch": args.max_tokens_per_batch,
        "max_sentence_tokens": args.max_sentence_tokens,
    }
    if isinstance(dataset, IterableDataset) and args.dataloader_num_workers > 1:
        data["loader_workers"] = args.dataloader_num_workers  # they share the stream out
    return {
        "data": data,
        "tokenizer": {"sha256": tokenizer_sha256(tokenizer)},
        "optimizer": optimizer_settings(args, handed_in),
        "layout": {"processes": args.world_size, "gradient_accumulation_steps": args.gradient_accumulation_steps},
    }


def optimizer_settings(args: VanillaTransformerTrainingArguments, handed_in: str | None) -> dict[str, Any]:
    """Return the settings that a checkpoint holds in its optimizer's and scheduler's state.

    Where they differ from those of the run that goes on, the ones in the checkpoint win, without a word.
    """
    kind = args.lr_scheduler_type
    settings = {
        "lr_scheduler_type": str(getattr(kind, "value", kind)),
        "learning_rate": None if args.learning_rate_is_equation_3s else args.learning_rate,
    }
    if handed_in is not None:
        return {"optim": f"{handed_in}, handed in", **settings}
    own = {name: getattr(args, name) for name in _OPTIMIZER_ARGUMENTS}
    return {"optim": str(getattr(args.optim, "value", args.optim)), **own, **settings}


def check_resumable(
    checkpoint: Path,
    identity: dict[str, Any],
    config: PretrainedConfig,
    args: VanillaTransformerTrainingArguments,
    needs_scaler: bool = False,
) -> None:
    """Refuse to go on with something else than the checkpoint was trained with, or without its state.

    Its files are verified already: hashing them a second time would take as long again.

    Args:
        checkpoint: the folder.
        identity: `run_identity` of the run that would go on.
        config: of its model.
        args: of its training; ``resume_anyway`` makes warnings of refusals.
        needs_scaler: whether it trains with an fp16 gradient scaler.

    Raises:
        ValueError: If the two don't fit together, with all that differs.
    """
    step = saved_update(checkpoint)
    before = read_manifest(checkpoint)["facts"] if has_manifest(checkpoint) else {}
    layout = before.get("layout", identity["layout"])
    problems = [
        f"{part}: {difference}"
        for part in ("data", "tokenizer", "optimizer")
        for difference in differences(before.get(part, identity[part]), identity[part])
    ]
    saved = checkpoint / "config.json"
    if saved.is_file():
        there, here = (architecture(one.to_dict()) for one in (type(config).from_dict(read_json_object(saved)), config))
        problems += [f"configuration: {difference}" for difference in differences(there, here)]
    ranks = layout.get("processes", 1)
    states = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
    problems += [f"without {what}" for what in missing_state(checkpoint, states, needs_scaler)]
    _check_optimizer(checkpoint, before.get("optimizer"), identity["optimizer"])
    if problems:
        text = f"{checkpoint} is not what this run would go on with: {'; '.join(problems)}"
        if not args.resume_anyway:
            raise ValueError(f"{text}; start a new run, or set resume_anyway to go on nevertheless")
        logger.warning(f"{text}; going on nevertheless")
    moved = differences(layout, identity["layout"])
    if moved:
        logger.warning(
            f"{checkpoint} was saved by another layout: {', '.join(moved)}; going on after {step} updates, with "
            "other random numbers for dropout"
        )


def _check_optimizer(checkpoint: Path, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Refuse, whatever ``resume_anyway`` says, an optimizer that can't read the state of the one before."""
    if before is None:  # of an older version
        return
    was, is_now = before.get("optim"), now["optim"]
    if was != is_now and not {was, is_now} <= _SAME_STATE:
        raise ValueError(
            f"{checkpoint} was saved by optim={was!r}, whose state optim={is_now!r} can't go on with; set optim to "
            f"{was} again, or start a new run from its weights (model_name_or_path) in another output_dir"
        )


def check_weights(checkpoint: Path, model: Any) -> None:
    """Refuse weights that don't fill the model, which Trainer only warns of.

    Raises:
        ValueError: If one has a tensor that the other hasn't; the message names them.
    """
    index, single = checkpoint / f"{SAFE_WEIGHTS_NAME}.index.json", checkpoint / SAFE_WEIGHTS_NAME
    if single.is_file():
        with safe_open(single, framework="pt") as file:
            there = set(file.keys())
    elif index.is_file():
        there = set(read_weight_index(index))
    else:
        return  # sharded by FSDP, or an adapter
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    here = set(model.state_dict())
    wrong = sorted(here - there - tied) + sorted(there - here)
    if wrong:
        raise ValueError(
            f"the checkpoint's weights are not this model's: {', '.join(wrong[:5])} are in only one of them; start a "
            "new run"
        )


def missing_state(checkpoint: Path, rank_states: Iterable[str], needs_scaler: bool) -> list[str]:
    """Name the training state that a checkpoint lacks.

    Args:
        checkpoint: the folder.
        rank_states: the files of random number generators that it should have.
        needs_scaler: whether an fp16 gradient scaler's state belongs to it.
    """
    missing = []
    if not any((checkpoint / name).exists() for name in _OPTIMIZER_FILES):
        missing.append("the optimizer's state (optimizer.pt)")
    if not (checkpoint / "scheduler.pt").exists():
        missing.append("the learning rate's state (scheduler.pt)")
    absent = [name for name in rank_states if not (checkpoint / name).exists()]
    if absent:
        missing.append(f"the random numbers' state ({', '.join(absent)})")
    if needs_scaler and not (checkpoint / "scaler.pt").exists():
        missing.append("the gradient scaler's state (scaler.pt)")
    return missing


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two dictionaries of JSON values, as "data.seed (1 there, 2 now)".

    A key that only one side has counts; digests are named without their digits.
    """
    found = []
    for key in sorted(before.keys() | now.keys()):
        one, two = before.get(key), now.get(key)
        if one == two:
            continue
        if isinstance(one, dict) and isinstance(two, dict):
            found += differences(one, two, f"{prefix}{key}.")
        elif key.endswith("sha256"):
            found.append(f"{prefix}{key.removesuffix('sha256').rstrip('_.') or 'content'}".rstrip("."))
        else:
            found.append(f"{prefix}{key} ({one} there, {two} now)")
    return found


def architecture(fields: dict[str, Any]) -> dict[str, Any]:
    """Keep the fields of a configuration that describe the model."""
    plain = json.loads(json.dumps(fields, default=str))  # as the file has it: tuples are lists, keys are texts
    return {key: value for key, value in plain.items() if key not in _NOT_ARCHITECTURE}


def saved_update(checkpoint: Path) -> int:
    """Read the number of updates behind a checkpoint from Trainer's state.

    Raises:
        ValueError: If the state is missing or not readable; without it nothing says where the data stood.
    """
    path = checkpoint / _TRAINER_STATE
    if not path.is_file():
        raise ValueError(f"{checkpoint} has no {_TRAINER_STATE}, which says where the data stood; start a new run")
    step = read_json_object(path).get("global_step")
    if type(step) is not int or step < 0:
        raise ValueError(f"{path} says global_step={step!r}, which is no number of updates")
    return step


def data_sha256(dataset: Any, columns: tuple[str, ...] = ("input_ids", "labels")) -> str | None:
    """Return the digest of all token ids in their order; None for a stream, which would be read up.

    The same ids give the same digest, whether they come as a list of rows or as a `datasets.Dataset`.
    """
    if not hasattr(dataset, "__len__"):
        return None
    digest = hashlib.sha256()
    for column in columns:
        for lengths, ids in _arrays(dataset, column):
            digest.update(np.ascontiguousarray(lengths, dtype=np.int64).tobytes())
            digest.update(np.ascontiguousarray(ids, dtype=np.int64).tobytes())
    return digest.hexdigest()


def _arrays(dataset: Any, column: str) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Yield lengths and concatenated ids of 10,000 rows at a time."""
    if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):  # lists stay in Arrow, uncopied
        for table in dataset.with_format("arrow", columns=[column]).iter(batch_size=10_000):
            chunks = table[column].combine_chunks()
            yield chunks.value_lengths().to_numpy(zero_copy_only=False), chunks.flatten().to_numpy(zero_copy_only=False)
        return
    for start in range(0, len(dataset), 10_000):
        rows = [dataset[index][column] for index in range(start, min(start + 10_000, len(dataset)))]
        ids = [token for row in rows for token in row]
        yield np.array([len(row) for row in rows], dtype=np.int64), np.array(ids, dtype=np.int64)


def tokenizer_sha256(tokenizer: Any) -> str | None:
    """Return the digest of a fast tokenizer as it would be saved, of two separate ones that of both; None for others.

    Padding and truncation are left out: they change whenever the tokenizer is called with them.
    """
    if isinstance(tokenizer, TranslationTokenizers):
        digests = [tokenizer_sha256(side) for side in (tokenizer.source, tokenizer.target)]
        if not tokenizer.separate or None in digests:
            return digests[0]
        return hashlib.sha256("".join(map(str, digests)).encode("ascii")).hexdigest()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    content = json.loads(backend.to_str())
    content.pop("padding", None)
    content.pop("truncation", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()


__all__ = [
    "architecture",
    "check_resumable",
    "check_weights",
    "data_sha256",
    "differences",
    "missing_state",
    "optimizer_settings",
    "run_identity",
    "saved_update",
    "tokenizer_sha256",
]
