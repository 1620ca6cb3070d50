# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of a run's settings before any data is read, and warnings at its start."""

import math
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.utils import logging

from ..data.file_names import existing_files, paired_files
from ..data.splits import SPLITS, EmbeddedPairs, TextFiles
from ..data.text_lines import count_lines
from ..languages import doubtful_language
from ..overwriting import check_writable
from ..plausibility import odd_peak_rate, run_inside_warmup
from ..presets import preset
from .recipe import Recipe
from .vocabulary_extension import ExtensionRequest

logger = logging.get_logger(__name__)

_ALWAYS_MEASURED = ("loss", "perplexity")
_PACKAGES_OF_TRACKERS = {"azure_ml": "azureml-core", "flyte": "flytekit"}  # the others have the tracker's name
_MEASURED_WITH_GENERATION = ("bleu", "chrf", "exact", "brevity_penalty")


def check_settings(recipe: Recipe) -> None:
    """Check a recipe for everything that would make its run fail later; log a warning for a doubtful language code.

    Raises:
        ValueError: If a setting is out of range, contradicts another, or needs something that is missing.
        OSError: If the output directory is not writable.
    """
    training = recipe.training
    output_dir = Path(str(training.output_dir))
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"output_dir {output_dir} is a file; name a directory")
    check_writable(output_dir)
    recipe.data.check_has_training_text()
    for split in SPLITS:
        source, target, table = (getattr(recipe.data, f"{split}_{side}") for side in ("source", "target", "file"))
        if source is not None:
            paired_files(source, target)
        elif table is not None:
            existing_files(table)
    if recipe.model.extend_vocabulary is not None:
        ExtensionRequest.parse(recipe.model.extend_vocabulary)
        if recipe.data.tokenizer is not None:
            raise ValueError("extend_vocabulary extends the checkpoint's own tokenizer; leave tokenizer out")
    if recipe.model.model_name_or_path is None:
        preset(recipe.model.preset, **recipe.model.overrides)
    _check_cooldown(recipe)
    for name in ("source_lang", "target_lang"):
        if warning := doubtful_language(getattr(recipe.data, name), name):
            logger.warning(warning)
    _warn_of_unknown_target(recipe)
    _check_best_metric(recipe)
    _check_loggers(training.report_to)
    if training.push_to_hub and not (training.hub_token or get_token()):
        raise ValueError(
            "push_to_hub is set, but there is no token for the Hub; run `hf auth login`, or set HF_TOKEN to a token "
            "with write permission"
        )


def _warn_of_unknown_target(recipe: Recipe) -> None:
    """Log a warning if BLEU is about to split words at spaces only because the target language is not set."""
    is_scored = any(recipe.data.split_source(split) is not None for split in SPLITS[1:])
    if is_scored and recipe.data.target_lang == "target" and recipe.run.metric_tokenize is None:
        logger.warning(
            "target_lang is not set, so BLEU splits words at spaces (13a), which is wrong for Korean, Japanese and "
            "Chinese; set it, e.g. --target-lang ko, or name the files by their language (my.ko)"
        )


def _check_cooldown(recipe: Recipe) -> None:
    """Check that the cooldown is not longer than the run, as far as that is known before the text is read."""
    training = recipe.training
    if 0 < training.max_steps < training.cooldown_steps:
        raise ValueError(
            f"cooldown_steps={training.cooldown_steps} is more than the run's {training.max_steps:,} updates; lower "
            "it, or raise max_steps"
        )
    text = recipe.data.text_of("train")
    if training.max_steps > 0 or not training.cooldown_steps:
        return
    if isinstance(text, TextFiles):
        pairs = sum(count_lines(source) for source, _ in paired_files(text.source, text.target))
    elif isinstance(text, EmbeddedPairs):
        pairs = text.size
    else:
        return
    updates = math.ceil(pairs * training.num_train_epochs)
    if updates < training.cooldown_steps:
        raise ValueError(
            f"cooldown_steps={training.cooldown_steps} is more than the run's updates: {training.num_train_epochs:g} "
            f"epochs of {pairs:,} pairs are at most {updates:,}; lower it, or raise num_train_epochs or set max_steps"
        )


def _check_best_metric(recipe: Recipe) -> None:
    """Check that there is text to evaluate on and that the metric for the best checkpoint is measured on it."""
    training, data = recipe.training, recipe.data
    if training.eval_strategy == "no":
        return
    if data.split_source("validation") is None:
        raise ValueError(
            f"eval_strategy={getattr(training.eval_strategy, 'value', training.eval_strategy)} needs text to evaluate "
            "on; set validation_source and validation_target, or validation_file, or held_out_pairs, or eval_strategy: "
            "no"
        )
    name = (training.metric_for_best_model or "loss").removeprefix("eval_")
    measured = _ALWAYS_MEASURED + (_MEASURED_WITH_GENERATION if training.predict_with_generate else ())
    if name in measured:
        return
    if name in _MEASURED_WITH_GENERATION:
        raise ValueError(
            f"metric_for_best_model: {name} is only measured during training with predict_with_generate: true; set "
            f"it, or choose one of {', '.join(measured)}"
        )
    raise ValueError(f"metric_for_best_model: {name} is never measured; choose one of {', '.join(measured)}")


def _check_loggers(report_to: Any) -> None:
    """Construct each experiment tracker's callback as Trainer will, which fails if it is unknown or not installed."""
    for name in [report_to] if isinstance(report_to, str) else report_to or ():
        try:
            for callback in get_reporting_integration_callbacks(name):
                callback()
        except ValueError as error:
            raise ValueError(f"report_to: {' '.join(str(error).split())}") from error
        except (RuntimeError, ImportError) as error:
            package = _PACKAGES_OF_TRACKERS.get(name, name)
            raise ValueError(
                f"report_to: {name} needs the package {package}, which is not installed or does not work; install it "
                f"with `pip install {package}`, or set report_to: none"
            ) from error


class PlausibilityWatch(TrainerCallback):
    """Log a warning at the start of a run that ends during its warmup or has an unusual peak learning rate."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See `TrainerCallback`."""
        if not state.is_world_process_zero:
            return
        warmup = args.get_warmup_steps(state.max_steps)
        scheduler, model = kwargs.get("lr_scheduler"), kwargs.get("model")
        found = [run_inside_warmup(state.max_steps, warmup)]
        d_model = getattr(getattr(model, "config", None), "d_model", None)
        if isinstance(scheduler, LambdaLR) and d_model:
            peak = scheduler.base_lrs[0] * scheduler.lr_lambdas[0](max(min(warmup, state.max_steps), 1) - 1)
            found.append(None if found[0] else odd_peak_rate(float(peak), d_model, warmup))
        for warning in filter(None, found):
            logger.warning(warning)


__all__ = ["PlausibilityWatch", "check_settings"]
