# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Training arguments with the paper's values (§5) as defaults."""

import math
import os
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

import torch
from accelerate.state import AcceleratorState
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames
from transformers.utils import logging

from .muon import MUON
from .precision import PRECISIONS, best_precision
from .processes import from_first_rank
from .schedule import noam_learning_rate

logger = logging.get_logger(__name__)

EQUATION_3 = "noam"  # the value of lr_scheduler_type that selects the paper's schedule


class PaperSchedule(StrEnum):
    """The schedule in addition to those of `SchedulerType`; Trainer's model card reads its ``value``."""

    NOAM = EQUATION_3


class FurtherOptimizer(StrEnum):
    """The optimizer in addition to those of `OptimizerNames`."""

    MUON = MUON


OPTIMIZERS = (MUON, *(kind.value for kind in OptimizerNames))
SCHEDULERS = (EQUATION_3, *(kind.value for kind in SchedulerType))
# Last words of the names of metrics whose lower values are better.
LOWER_IS_BETTER = ("loss", "perplexity", "nll")

# Inherited arguments that VanillaTransformerTrainer does not support, and why: setting one is an error.
UNSUPPORTED = {
    "per_device_train_batch_size": "training batches are filled by tokens, not by sentences; set max_tokens_per_batch",
    "auto_find_batch_size": "it lowers a batch size in sentences; lower max_tokens_per_batch, or raise "
    "gradient_accumulation_steps, which does not change the result",
    "train_sampling_strategy": "it makes batches of a fixed number of sentences; leave it out, training batches are "
    "filled by max_tokens_per_batch",
    "length_column_name": "lengths are counted from input_ids and labels; leave it out",
    "sortish_sampler": "batches already have sentences of similar length; leave it out",
    "dataloader_drop_last": "every sentence is trained on and evaluated; leave it out",
    "label_names": "the loss is computed from the column labels; leave it out",
    "logging_nan_inf_filter": "it would hide that training has failed; leave it out, an update that is not finite is "
    "skipped and reported",
    "use_liger_kernel": "there are no Liger kernels for this model; leave it out, its loss is fused already",
    "liger_kernel_config": "there are no Liger kernels for this model; leave it out",
    "enable_jit_checkpoint": "SIGTERM saves a checkpoint without it; leave it out",
    "parallelism_config": "batches are sharded for data parallelism only; leave it out, and start with torchrun or "
    "accelerate launch (DDP or FSDP)",
    "deepspeed": "DeepSpeed updates the weights inside the backward pass, too early to skip an update that is not "
    "finite; use FSDP instead, e.g. accelerate launch --use_fsdp",
}
# These optimizers update a layer during the backward pass, as DeepSpeed does.
_OPTIMIZERS_INSIDE_BACKWARD = ("lomo", "adalomo")


@dataclass
class VanillaTransformerTrainingArguments(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the paper's optimizer, schedule, label smoothing and batches (§5.1, §5.3, §5.4).

    Inherited arguments have the meaning that they have in Trainer. Those that `VanillaTransformerTrainer` does not
    support raise an error if they are set. Only `VanillaTransformerTrainer` accepts these arguments.

    The default schedule is Equation 3, ``lr_scheduler_type="noam"``, with ``learning_rate`` as its peak. A
    ``learning_rate`` of None is the paper's peak, 1 / √(d_model · warmup_steps), and is set to that number when
    training starts. Any other ``lr_scheduler_type`` is Trainer's schedule of that name and needs a ``learning_rate``.

    Set the length of the training with ``max_steps`` or ``num_train_epochs``: the paper trains its base models for
    100,000 updates and its big ones for 300,000.

    Raises:
        ValueError: If a field is out of range, contradicts another or is not supported.
    """

    max_tokens_per_batch: int = field(
        default=25_000,
        metadata={
            "help": "Maximum number of source tokens, and of target tokens, per update, padding included, over all "
            "devices and accumulation steps together (section 5.1)."
        },
    )
    max_sentence_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Leave out training examples with more source or target tokens than this, and report their "
            "number. If unset, only examples that do not fit in a batch are left out."
        },
    )
    cooldown_steps: int = field(
        default=0,
        metadata={
            "help": "Number of last updates over which the learning rate falls to 0. The paper has none; short runs "
            "reach a lower loss with it. Only with lr_scheduler_type noam."
        },
    )
    precision: str = field(
        default="auto",
        metadata={
            "help": "Precision of the arithmetic: fp32, bf16 or fp16; auto selects the faster of fp32 and bf16 by "
            "hardware and model size; a resumed run keeps the precision of its checkpoint.",
            "choices": PRECISIONS,
        },
    )
    r_drop: float = field(
        default=0.0,
        metadata={
            "help": "Alpha of R-Drop (Liang et al. 2021): each batch goes through the model twice, with different "
            "dropout, and alpha / 2 times the divergence of the two predictions is added to the mean loss; 0, "
            "as in the paper: off."
        },
    )
    max_skipped_updates: int = field(
        default=5,
        metadata={
            "help": "An update whose loss or gradients are not finite is skipped; end the run after this number of "
            "consecutive skipped updates. 0: never."
        },
    )
    resume_anyway: bool = field(
        default=False,
        metadata={
            "help": "Resume from a checkpoint even if data, tokenizer or configuration have changed, training state is "
            "missing, or it has no manifest."
        },
    )
    keep_weight_dtype: bool = field(
        default=False,
        metadata={
            "help": "Train bf16 or fp16 weights in their own dtype. By default they are converted to fp32 first, "
            "because most updates are smaller than the difference between adjacent bf16 values."
        },
    )

    # Trainer's fields with the paper's values.
    label_smoothing_factor: float = field(
        default=0.1,
        metadata={"help": "Label smoothing epsilon (section 5.4), applied in training inside the model's loss."},
    )
    lr_scheduler_type: str = field(
        default=EQUATION_3,
        metadata={
            "help": "Learning rate schedule: noam is Equation 3 of the paper; the others are Trainer's and need a "
            "learning_rate.",
            "choices": SCHEDULERS,
        },
    )
    adam_beta2: float = field(default=0.98, metadata={"help": "Beta2 of Adam (section 5.3)."})
    adam_epsilon: float = field(default=1e-9, metadata={"help": "Epsilon of Adam (section 5.3)."})
    warmup_steps: float = field(
        default=4000,
        metadata={
            "help": "Number of updates over which the learning rate rises (section 5.3); below 1, a ratio of "
            "all updates."
        },
    )
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Maximum gradient norm, for clipping; 0, as in the paper: no clipping."}
    )
    learning_rate: float | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Peak learning rate; if unset, that of Equation 3, 1 / sqrt(d_model * warmup_steps)."},
    )
    optim: str = field(
        default="adamw_torch_fused",
        metadata={
            "help": "Optimizer; AdamW without weight decay is Adam. muon: Muon for the matrices of the layers, a "
            "departure from the paper that needs fewer updates; Adam for the rest."
        },
    )

    # Trainer's fields with other defaults.
    per_device_train_batch_size: int = field(
        default=0, metadata={"help": "Not supported: training batches are filled by max_tokens_per_batch."}
    )
    per_device_eval_batch_size: int = field(
        default=64, metadata={"help": "Number of sentences per evaluation batch and device."}
    )
    logging_steps: float = field(
        default=100, metadata={"help": "Number of updates between log entries; below 1, a ratio of all updates."}
    )
    save_steps: float = field(
        default=1000, metadata={"help": "Number of updates between checkpoints; below 1, a ratio of all updates."}
    )
    save_total_limit: int | None = field(
        default=5, metadata={"help": "Number of checkpoints to keep, the last ones; the paper averages 5."}
    )
    label_names: list[str] | None = field(
        # Trainer takes every parameter of forward with "label" in its name for a column, "label_smoothing" as well.
        default_factory=lambda: ["labels"],
        metadata={"help": "Names of the label columns."},
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Not supported: it logs another value for a loss that is not finite."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False,
        metadata={"help": "Search for parameters without a gradient in every update; this model has none."},
    )
    hub_private_repo: bool | None = field(
        default=True, metadata={"help": "Create a private repository when pushing to the Hub."}
    )

    def __post_init__(self) -> None:
        self.check()
        if not torch.accelerator.is_available():
            # Without use_cpu, accelerate runs each of several CPU processes as if it were the only one, and Trainer
            # rejects bf16.
            self.use_cpu = True
        self._choose_precision()
        metric = self.metric_for_best_model
        if self.greater_is_better is None and metric is not None and metric.endswith(LOWER_IS_BETTER):
            self.greater_is_better = False
        by_equation_3 = self.lr_scheduler_type == EQUATION_3
        if by_equation_3:
            self.lr_scheduler_type = SchedulerType.LINEAR  # the parent accepts only its own
        by_muon = self.optim == MUON
        if by_muon:
            self.optim = self.default("optim")  # likewise
        super().__post_init__()
        if by_muon:
            self.optim = FurtherOptimizer.MUON
        if self.precision != "auto":  # otherwise accelerate launch --mixed_precision would override it
            self.mixed_precision = "no" if self.precision == "fp32" else self.precision
        if by_equation_3:
            self.lr_scheduler_type = PaperSchedule.NOAM
        self._check_accelerate()
        if self.n_gpu > 1:
            logger.warning(
                f"there are {self.n_gpu} GPUs and one process: training uses only {self.device}; to use all of them, "
                f"start with torchrun --nproc_per_node {self.n_gpu} or accelerate launch"
            )
            # nn.DataParallel would divide the loss by the tokens of a part of the batch.
            self._n_gpu = 1

    def check(self) -> None:
        """Check the fields; called again before training, because a field may have been set in between.

        Raises:
            ValueError: If a field is out of range, contradicts another or is not supported.
        """
        if self.max_tokens_per_batch < 1:
            raise ValueError(
                f"max_tokens_per_batch={self.max_tokens_per_batch} must be at least 1; the paper's is 25,000"
            )
        if not 0.0 <= self.label_smoothing_factor < 1.0:
            raise ValueError(
                f"label_smoothing_factor={self.label_smoothing_factor} must be in [0, 1); the paper's is 0.1"
            )
        if not 0.0 <= self.r_drop < math.inf:
            raise ValueError(f"r_drop={self.r_drop} must be 0 (off) or more, e.g. 5")
        if self.learning_rate is not None and not 0.0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be above 0; leave it out for the peak of Equation 3, "
                "1 / sqrt(d_model * warmup_steps)"
            )
        self._check_schedule()
        if self.cooldown_steps < 0:
            raise ValueError(f"cooldown_steps={self.cooldown_steps} must be 0 or more; the paper's is 0")
        if self.max_skipped_updates < 0:
            raise ValueError(f"max_skipped_updates={self.max_skipped_updates} must be 0 (no limit) or more")
        optim = str(getattr(self.optim, "value", self.optim))
        if optim not in OPTIMIZERS:
            close = get_close_matches(optim, OPTIMIZERS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(OPTIMIZERS)}"
            raise ValueError(f"optim={optim!r} is unknown; {hint}")
        if optim in _OPTIMIZERS_INSIDE_BACKWARD or optim.endswith("layerwise"):
            raise ValueError(
                f"optim={optim!r} updates the weights inside the backward pass, too early to skip an update that is "
                "not finite; choose another, e.g. adamw_torch_fused"
            )
        for name, reason in UNSUPPORTED.items():
            value = getattr(self, name)
            if value != self.default(name):
                raise ValueError(f"{name}={value!r} is not supported: {reason}")

    def _check_schedule(self) -> None:
        """Check that schedule, learning rate, warm-up and cooldown fit together."""
        if self.lr_scheduler_type not in SCHEDULERS:
            raise ValueError(
                f"lr_scheduler_type={self.lr_scheduler_type!r} is unknown; choose one of {', '.join(SCHEDULERS)}"
            )
        if self.lr_scheduler_type == EQUATION_3:
            if self.warmup_steps == 0:
                raise ValueError("warmup_steps=0 leaves Equation 3 undefined; set at least 1, the paper's is 4000")
            if self.lr_scheduler_kwargs:
                raise ValueError(
                    f"lr_scheduler_kwargs={self.lr_scheduler_kwargs} cannot be used with Equation 3, which is set "
                    "by warmup_steps and learning_rate; leave them out, or choose one of Trainer's schedules"
                )
        else:
            kind = SchedulerType(self.lr_scheduler_type).value
            if self.learning_rate is None:
                raise ValueError(
                    f"lr_scheduler_type={kind!r} needs a learning_rate; set one, or leave lr_scheduler_type out for "
                    "Equation 3"
                )
            if self.cooldown_steps:
                raise ValueError(
                    f"cooldown_steps={self.cooldown_steps} applies to Equation 3 only, and not to "
                    f"lr_scheduler_type={kind!r}; leave one of them out"
                )

    @classmethod
    def default(cls, name: str) -> Any:
        """Return the default of a field."""
        spec = next(spec for spec in fields(cls) if spec.name == name)
        return spec.default if spec.default is not MISSING else spec.default_factory()  # type: ignore[misc, operator]

    def _check_accelerate(self) -> None:
        """Check that accelerate's own settings change neither the batches nor the update."""
        for name in ("split_batches", "dispatch_batches"):
            if getattr(self.accelerator_config, name, None):
                raise ValueError(
                    f"accelerator_config has {name}=True, which would divide the batches among the processes a second "
                    "time; leave it out"
                )
        if self.deepspeed_plugin is not None:  # accelerate launch with a DeepSpeed configuration
            raise ValueError(f"accelerate was launched with DeepSpeed: {UNSUPPORTED['deepspeed']}")

    def resolve_learning_rate(self, d_model: int, total_steps: int) -> float:
        """Return ``learning_rate``; if it is None, set it to the peak of Equation 3 first.

        Args:
            d_model: width of the model.
            total_steps: number of updates of the run; only used if ``warmup_steps`` is a ratio.

        Raises:
            ValueError: If ``warmup_steps`` is a ratio and the number of updates is unknown.
        """
        if self.learning_rate is None or self.has_default_learning_rate:
            warmup_steps = self.get_warmup_steps(total_steps)
            if warmup_steps < 1:
                raise ValueError(
                    f"warmup_steps={self.warmup_steps} is a ratio of the run's updates, whose number is not known yet; "
                    "set max_steps, or set warmup_steps to a number of updates"
                )
            self.learning_rate = noam_learning_rate(warmup_steps, d_model, warmup_steps)
            self._peak_of_equation_3 = self.learning_rate
        return self.learning_rate

    @property
    def has_default_learning_rate(self) -> bool:
        """Whether ``learning_rate`` was not set: it is None, or the number that `resolve_learning_rate` has set."""
        return self.learning_rate is None or self.learning_rate == self.__dict__.get("_peak_of_equation_3")

    @property
    def train_batch_size(self) -> int:
        """Return 0: a training batch has no fixed number of sentences.

        Every Trainer reads this property when it is made. The stock Trainer, which has neither token budgets nor
        Equation 3 and would report a smoothed eval_loss, is rejected here.
        """
        if not self.__dict__.get("_used_by_our_trainer"):
            raise ValueError(
                "VanillaTransformerTrainingArguments are for VanillaTransformerTrainer: the stock Trainer has neither "
                "token budgets nor Equation 3; pass it Seq2SeqTrainingArguments"
            )
        return 0

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Return `TrainingArguments.to_sanitized_dict`, which reads ``train_batch_size`` as well."""
        before = self.__dict__.get("_used_by_our_trainer", False)
        self._used_by_our_trainer = True
        try:
            return super().to_sanitized_dict()
        finally:
            self._used_by_our_trainer = before

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, without the Hub token, because Trainer pushes training_args.bin."""
        return {**self.__dict__, "hub_token": None, "_used_by_our_trainer": False}

    def _choose_precision(self) -> None:
        """Set Trainer's bf16 and fp16 from ``precision``, or ``precision`` from them if it is "auto"."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
        asked = "bf16" if self.bf16 else "fp16" if self.fp16 else None
        if asked and self.precision not in ("auto", asked):
            raise ValueError(f"{asked}=True contradicts precision={self.precision!r}; set only precision")
        self._has_auto_precision, self._precision_reason = False, ""
        if self.precision == "auto":
            launched_with = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            if asked:
                self.precision, self._precision_reason = asked, f"{asked}=True"
            elif launched_with != "no":  # accelerate launch --mixed_precision, which also has fp8
                if launched_with == "fp16":
                    self._check_fp16_device("accelerate launch --mixed_precision fp16")
                self._precision_reason = "accelerate launch --mixed_precision"
                return
            else:
                self.precision, self._precision_reason = best_precision(self.use_cpu)
                self._has_auto_precision = True
        if self.precision == "fp16":
            self._check_fp16_device("precision='fp16'")
        self.bf16 = self.precision == "bf16"
        self.fp16 = self.precision == "fp16"

    @property
    def has_auto_precision(self) -> bool:
        """Whether ``precision`` was "auto", and neither Trainer's arguments nor the launcher set it."""
        return bool(self.__dict__.get("_has_auto_precision"))

    @property
    def precision_reason(self) -> str:
        """Why ``precision`` has its value; "" if it was set."""
        return str(self.__dict__.get("_precision_reason", ""))

    @property
    def used_precision(self) -> str:
        """Precision of the training: ``precision``, or that of ``accelerate launch --mixed_precision``."""
        return "fp32" if self.mixed_precision == "no" else str(self.mixed_precision)

    def choose_precision_for(self, model: Any) -> None:
        """Choose the precision for a model, if ``precision`` was "auto"; process 0 decides for all processes."""
        if self.has_auto_precision:
            self.use_precision(*from_first_rank(best_precision(self.use_cpu, model)))

    def use_precision(self, precision: str, reason: str) -> None:
        """Replace the precision before the accelerator is made, and keep the reason."""
        if precision == self.used_precision:
            return
        self._precision_reason = reason
        self.precision, self.bf16, self.fp16 = precision, precision == "bf16", precision == "fp16"
        self.mixed_precision = "no" if precision == "fp32" else precision
        AcceleratorState._reset_state()  # it has the precision of the first accelerator of this process

    def _check_fp16_device(self, asked: str) -> None:
        if self.use_cpu:  # accelerate would silently train in fp32, without a gradient scaler
            raise ValueError(f"{asked} needs a GPU, and training is on the CPU; set precision to bf16, fp32 or auto")


__all__ = ["EQUATION_3", "LOWER_IS_BETTER", "UNSUPPORTED", "VanillaTransformerTrainingArguments"]
