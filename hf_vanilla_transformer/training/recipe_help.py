# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The help text of all keys of a recipe, grouped by topic.

`train --help` prints it from recipe_keys.txt, since its modules take seconds to import. To write that file again:
``python -m hf_vanilla_transformer.training.recipe_help > hf_vanilla_transformer/training/recipe_keys.txt``
"""

import re
import textwrap
from dataclasses import MISSING, Field, fields
from typing import Any

from .arguments import UNSUPPORTED, VanillaTransformerTrainingArguments
from .recipe import FOR_SCRIPTS
from .recipe_arguments import DataArguments, ModelArguments, RunArguments

_TOKENIZER = ("tokenizer", "vocab_size", "tokenizer_model", "lowercase", "normalization")
# Topics of the training arguments: the first pattern that matches the beginning of a key decides.
_TOPICS = (
    ("Length of the run", r"max_steps|num_train_epochs"),
    ("Batches", r"max_tokens_per_batch|max_sentence_tokens|gradient_accumulation_steps|dataloader_|group_by|data_seed"),
    (
        "Learning rate, optimizer and loss",
        r"learning_rate|lr_scheduler|warmup|cooldown|label_smoothing|adam_|optim|weight_decay|max_grad_norm|seed"
        r"|max_skipped|neftune",
    ),
    (
        "Precision and memory",
        r"precision|keep_weight_dtype|bf16|fp16|tf32|gradient_checkpointing|activation_checkpointing|use_cpu|torch_|full_determinism|use_cache",
    ),
    (
        "Evaluation during training",
        r"eval_|per_device_eval|metric_for_best|greater_is_better|load_best|predict_with|generation_|batch_eval"
        r"|include_|prediction_loss_only",
    ),
    ("Checkpoints, output and resuming", r"output_dir|overwrite|save_|resume_|restore_|ignore_data_skip"),
    ("Log", r"logging_|log_|report_to|run_name|disable_tqdm|project|trackio|skip_memory"),
    ("Hub", r"push_to_hub|hub_"),
    ("Several processes", r"ddp_|fsdp|local_rank|accelerator_config|average_tokens"),
)
_OTHER = "Other arguments of transformers' Trainer"
_SHOWN_ELSEWHERE = {"overwrite": "Checkpoints, output and resuming"}
_WIDTH = 118
# Inherited arguments whose own help is about batches in sentences, scripts, or other models.
_INHERITED = {
    "max_steps": "Number of updates; -1: as many as num_train_epochs needs.",
    "num_train_epochs": "Number of passes over the training text, if max_steps is not set.",
    "gradient_accumulation_steps": "Number of parts that each batch is divided into, to save memory; the result is the "
    "same.",
    "output_dir": "Directory of the run: final model, tokenizer, checkpoints, scores; unset, runs/NAME.",
    "resume_from_checkpoint": "Checkpoint to resume from; unset, the last one in output_dir.",
    "eval_strategy": "When to compute the validation loss: no, steps or epoch.",
    "metric_for_best_model": "Metric that decides which checkpoint is the best; unset, loss if there is an evaluation.",
    "predict_with_generate": "Translate the validation text at every evaluation, and score the translations.",
    "bf16": "Set precision instead.",
    "fp16": "Set precision instead.",
    "seed": "Seed of the initial weights, of dropout and of the order of the batches.",
}


def settings_help() -> str:
    """Return a paragraph per topic, with a line or two per key: its name, its default and what it does."""
    groups: dict[str, list[Field]] = {
        "Text": [item for item in fields(DataArguments) if item.name not in _TOKENIZER],
        "Tokenizer": [item for item in fields(DataArguments) if item.name in _TOKENIZER],
        "Model": list(fields(ModelArguments)),
        **{topic: [] for topic, _ in _TOPICS},
        "Final model and its evaluation": [item for item in fields(RunArguments) if item.name not in _SHOWN_ELSEWHERE],
        _OTHER: [],
    }
    for item in fields(RunArguments):
        if item.name in _SHOWN_ELSEWHERE:
            groups[_SHOWN_ELSEWHERE[item.name]].append(item)
    own = VanillaTransformerTrainingArguments.__annotations__
    for item in sorted(fields(VanillaTransformerTrainingArguments), key=lambda item: item.name not in own):
        is_setting = item.init and item.name not in UNSUPPORTED and item.name not in FOR_SCRIPTS
        if is_setting and not _help_of(item).startswith("Deprecated"):
            groups[_topic(item.name)].append(item)
    lines = [
        "Keys of a recipe, with their defaults (transformers 5.24). Without a recipe, those that depend on the",
        "amount of text are chosen; --print-recipe shows the choice. - and _ are equivalent.",
    ]
    for topic, items in groups.items():
        lines += ["", f"{topic}:", *(line for item in items for line in _key_help(item))]
    return "\n".join(lines) + "\n"


def _topic(name: str) -> str:
    return next((topic for topic, pattern in _TOPICS if re.match(pattern, name)), _OTHER)


def _key_help(item: Field) -> list[str]:
    name = f"  --{item.name.replace('_', '-')} {_default(item)}"
    text = _help_of(item)
    text = re.split(r"(?<=[a-z)\]`])\. (?=[A-Z])", text)[0].rstrip(".") if len(text) > 240 else text.rstrip(".")
    choices = item.metadata.get("choices")
    if choices:
        text += f" [{', '.join(map(str, choices))}]"
    indent = " " * 38
    if len(name) >= len(indent) - 1:
        return [name, *textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)]
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{name:<{len(indent)}}", subsequent_indent=indent) or [name]


def _help_of(item: Field) -> str:
    text = _INHERITED.get(item.name) or str(item.metadata.get("help", "")).replace("%%", "%")
    return " ".join(text.split())


def _default(item: Field) -> str:
    value: Any = item.default
    if value is MISSING:
        make = item.default_factory
        value = make() if callable(make) else None
    value = getattr(value, "value", value)
    return "(unset)" if value is None else f"({str(value).lower() if isinstance(value, bool) else value})"


__all__ = ["settings_help"]

if __name__ == "__main__":
    print(settings_help(), end="")
