# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Validate the arguments of `VanillaTransformerTrainer` before training starts."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from .arguments import VanillaTransformerTrainingArguments

# Metrics of evaluation without compute_metrics, after "eval_" and the name of one of several datasets.
_EVALUATION_METRICS = ("loss", "perplexity", "runtime", "samples_per_second", "steps_per_second")
# Arguments that a custom optimizer, and a custom scheduler, replace.
_OPTIMIZER_ARGUMENTS = (
    "optim", "optim_args", "optim_target_modules", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
)  # fmt: skip
_SCHEDULE_ARGUMENTS = ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate", "warmup_steps", "cooldown_steps")


def check_passed_arguments(
    args: Any, optimizer: Optimizer | None, scheduler: Any, compute_loss_func: Callable | None
) -> None:
    """Check the training arguments, and that a custom optimizer, scheduler and loss fit them.

    Raises:
        ValueError: If they do not.
    """
    check_argument_type(args)
    args.check()
    check_custom_optimizer(args, optimizer, scheduler)
    check_custom_loss(args, compute_loss_func)


def check_argument_type(args: Any) -> None:
    """Check that the arguments are this package's.

    Raises:
        ValueError: If they are not.
    """
    if not isinstance(args, VanillaTransformerTrainingArguments):
        raise ValueError(
            f"args is a {type(args).__name__}, which has neither token budgets nor Equation 3; use "
            "VanillaTransformerTrainingArguments, or the stock Seq2SeqTrainer"
        )


def check_custom_optimizer(
    args: VanillaTransformerTrainingArguments, optimizer: Optimizer | None, scheduler: Any
) -> None:
    """Check that no argument is set that the user's own optimizer or scheduler would leave without effect.

    Raises:
        ValueError: If one is; the message contains its name.
    """
    if optimizer is None and scheduler is not None:
        raise ValueError("optimizers has a scheduler without its optimizer; pass both, or only the optimizer")
    replaced = {
        **dict.fromkeys(() if optimizer is None else _OPTIMIZER_ARGUMENTS, "optimizer"),
        **dict.fromkeys(() if scheduler is None else _SCHEDULE_ARGUMENTS, "scheduler"),
    }
    for name, what in replaced.items():
        value = getattr(args, name)
        default_rate = name == "learning_rate" and args.has_default_learning_rate
        if value != args.default(name) and not default_rate:
            raise ValueError(f"{name}={value!r} has no effect with a custom {what}; leave it out")
    if optimizer is not None and scheduler is None and not args.has_default_learning_rate:
        rates = {float(group["lr"]) for group in optimizer.param_groups}
        if rates != {args.learning_rate}:
            raise ValueError(
                f"learning_rate={args.learning_rate} differs from the custom optimizer's "
                f"{', '.join(map(str, sorted(rates)))}; leave learning_rate out: the custom optimizer's own learning "
                "rate is the peak of the schedule"
            )


def check_custom_loss(args: VanillaTransformerTrainingArguments, compute_loss_func: Callable | None) -> None:
    """Check that label smoothing and R-Drop are off if the loss is the user's own.

    Raises:
        ValueError: If one is on.
    """
    if compute_loss_func is not None and args.r_drop:
        raise ValueError(f"r_drop={args.r_drop:g} has no effect with compute_loss_func; leave one of them out")
    if compute_loss_func is not None and args.label_smoothing_factor:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor} applies to the model's own loss and has no effect "
            "with compute_loss_func; set it to 0 and smooth in compute_loss_func"
        )


def check_model_type(model: Any) -> None:
    """Check that the model is a Vanilla Transformer; by ``model_type``, because remote code has classes of its own.

    Raises:
        ValueError: If it is another model.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type != VanillaTransformerConfig.model_type:
        raise ValueError(
            f"VanillaTransformerTrainer trains {VanillaTransformerConfig.model_type} models, not {model_type}, whose "
            "loss has no label_smoothing; use the stock Seq2SeqTrainer"
        )


def check_r_drop(args: VanillaTransformerTrainingArguments, model: Any) -> None:
    """Check that two passes differ if R-Drop compares them.

    Raises:
        ValueError: If the model has no dropout.
    """
    rates = [getattr(model.config, name) for name in ("dropout", "attention_dropout", "activation_dropout")]
    if args.r_drop and not any(rates):
        raise ValueError(
            f"r_drop={args.r_drop:g} compares two passes with different dropout, and the model has no dropout; set its "
            "dropout, e.g. to 0.1, or leave r_drop out"
        )


def check_parallelism(tensor: int, context: int, sequence: int) -> None:
    """Check that only data parallelism is used.

    Args:
        tensor: size of the tensor parallel group.
        context: size of the context parallel group.
        sequence: size of the sequence parallel group.

    Raises:
        ValueError: If another kind of parallelism is configured.
    """
    if tensor * context * sequence > 1:
        raise ValueError(
            "the model or accelerate is configured for tensor, context or sequence parallelism, but batches are "
            "sharded for data parallelism only; train with DDP or FSDP"
        )


def check_best_metric(args: VanillaTransformerTrainingArguments, has_compute_metrics: bool) -> None:
    """Check that evaluation will report ``metric_for_best_model``, before the first evaluation fails on it.

    Raises:
        ValueError: If it will not.
    """
    metric = args.metric_for_best_model
    if metric is None or args.eval_strategy == "no" or has_compute_metrics:
        return
    if not metric.endswith(_EVALUATION_METRICS):
        raise ValueError(
            f"metric_for_best_model={metric!r} is not reported by evaluation without compute_metrics (and "
            "predict_with_generate for scores of translations); choose loss or perplexity, or pass compute_metrics"
        )


def checked_search_space(
    hp_space: Callable[[Any], dict[str, Any]] | None, args: VanillaTransformerTrainingArguments
) -> Callable[[Any], dict[str, Any]]:
    """Return a search space that checks its names.

    Raises:
        ValueError: If there is none; when it is called, if a name is not a training argument.
    """
    if hp_space is None:
        raise ValueError(
            "the default search space of transformers has learning rates for fine-tuning and batch sizes in sentences, "
            "which do not apply here; pass hp_space, e.g. lambda trial: "
            '{"learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-3, log=True)}'
        )

    def checked(trial: Any) -> dict[str, Any]:
        space = hp_space(trial)
        names = space.get("parameters", space)  # Weights & Biases nests them
        unknown = [name for name in names if not hasattr(type(args), name) and not hasattr(args, name)]
        if unknown:
            raise ValueError(f"hp_space contains {', '.join(map(repr, unknown))}, which are not training arguments")
        return space

    return checked


__all__ = [
    "check_argument_type",
    "check_best_metric",
    "check_custom_loss",
    "check_custom_optimizer",
    "check_model_type",
    "check_parallelism",
    "check_passed_arguments",
    "check_r_drop",
    "checked_search_space",
]
