# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""What a resumed run must share with the run that saved the checkpoint: data, tokenizer, optimizer and layout.

With the same identity, the weights of a resumed run are bit-identical to those of an uninterrupted one.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .arguments import VanillaTransformerTrainingArguments

_OPTIMIZER_ARGUMENTS = ("optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")


def run_identity(
    args: VanillaTransformerTrainingArguments, dataset: Any, tokenizer: Any, custom_optimizer: str | None = None
) -> dict[str, Any]:
    """Return the identity of a run, which is written into the manifests of its checkpoints.

    Args:
        args: the training arguments.
        dataset: the training data; of a stream only the settings are part of the identity.
        tokenizer: the Trainer's ``processing_class``.
        custom_optimizer: class name of an optimizer that the user has passed; None if ``args.optim`` names it.

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
        data["loader_workers"] = args.dataloader_num_workers  # each worker reads its own part of the stream
    return {
        "data": data,
        "tokenizer": {"sha256": tokenizer_sha256(tokenizer)},
        "optimizer": optimizer_settings(args, custom_optimizer),
        "layout": {"processes": args.world_size, "gradient_accumulation_steps": args.gradient_accumulation_steps},
    }


def optimizer_settings(args: VanillaTransformerTrainingArguments, custom_optimizer: str | None) -> dict[str, Any]:
    """Return the settings that are also part of the saved optimizer and scheduler state.

    Loading a checkpoint silently replaces the arguments of the resumed run by these.
    """
    kind = args.lr_scheduler_type
    settings = {
        "lr_scheduler_type": str(getattr(kind, "value", kind)),
        "learning_rate": None if args.has_default_learning_rate else args.learning_rate,
    }
    if custom_optimizer is not None:
        return {"optim": f"{custom_optimizer} (custom)", **settings}
    own = {name: getattr(args, name) for name in _OPTIMIZER_ARGUMENTS}
    return {"optim": str(getattr(args.optim, "value", args.optim)), **own, **settings}


def data_sha256(dataset: Any, columns: tuple[str, ...] = ("input_ids", "labels")) -> str | None:
    """Return the SHA-256 of all token ids in their order; None for a stream, which hashing would exhaust.

    A list of rows and a `datasets.Dataset` with the same ids have the same digest.
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
    if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):  # Arrow lists are not copied
        for table in dataset.with_format("arrow", columns=[column]).iter(batch_size=10_000):
            chunks = table[column].combine_chunks()
            yield chunks.value_lengths().to_numpy(zero_copy_only=False), chunks.flatten().to_numpy(zero_copy_only=False)
        return
    for start in range(0, len(dataset), 10_000):
        rows = [dataset[index][column] for index in range(start, min(start + 10_000, len(dataset)))]
        ids = [token for row in rows for token in row]
        yield np.array([len(row) for row in rows], dtype=np.int64), np.array(ids, dtype=np.int64)


def tokenizer_sha256(tokenizer: Any) -> str | None:
    """Return the SHA-256 of a fast tokenizer as saved, of separate tokenizers that of both; None for other kinds.

    Padding and truncation are excluded, because every call of the tokenizer may change them.
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


__all__ = ["data_sha256", "optimizer_settings", "run_identity", "tokenizer_sha256"]
