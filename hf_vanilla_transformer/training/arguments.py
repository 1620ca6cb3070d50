# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Training arguments whose defaults are the paper's (§5), on top of the stock ones."""

import math
import os
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import SchedulerType
from transformers.utils import logging

from .schedule import noam_learning_rate

logger = logging.get_logger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Environment variable: what "auto" means instead of the hardware's answer.
AUTO_PRECISION = "VANILLA_TRANSFORMER_AUTO_PRECISION"
EQUATION_3 = "noam"  # the value of lr_scheduler_type that means the paper's schedule


class PaperSchedule(StrEnum):
    """The schedule beside those of `SchedulerType`; Trainer's model card asks each for its ``value``."""

    NOAM = EQUATION_3


SCHEDULERS = (EQUATION_3, *(kind.value for kind in SchedulerType))
# Metrics of which less is better, by the last word of their name.
LOWER_IS_BETTER = ("loss", "perplexity", "nll")

# Inherited arguments that VanillaTransformerTrainer can't honour: another value than the default is an error, and why.
REFUSED = {
    "per_device_train_batch_size": "training batches are filled by tokens, not by sentences; set max_tokens_per_batch",
    "auto_find_batch_size": "it lowers a number of sentences; lower max_tokens_per_batch, or raise "
    "gradient_accumulation_steps, which changes no result",
    "train_sampling_strategy": "it makes batches of a fixed number of sentences; leave it out, training batches are "
    "filled by max_tokens_per_batch",
    "length_column_name": "lengths are counted from input_ids and labels; leave it out",
    "sortish_sampler": "batches are made of sentences of similar length already; leave it out",
    "dataloader_drop_last": "every sentence is trained on and evaluated; leave it out",
    "label_names": "the loss is that of the column labels; leave it out",
    "logging_nan_inf_filter": "it would hide that training has failed; leave it out, an update that is not finite is "
    "skipped and reported",
    "use_liger_kernel": "there are no Liger kernels for this model; leave it out, its loss is fused already",
    "liger_kernel_config": "there are no Liger kernels for this model; leave it out",
    "enable_jit_checkpoint": "SIGTERM saves a checkpoint without it; leave it out",
    "parallelism_config": "batches are shared out by data parallelism alone; leave it out, and start with torchrun or "
    "accelerate launch (DDP or FSDP)",
    "deepspeed": "DeepSpeed makes its update inside the backward pass, where one that is not finite can't be skipped "
    "any more; use FSDP instead, e.g. accelerate launch --use_fsdp",
}
# These make the update of a layer during the backward pass, as DeepSpeed does.
_OPTIMIZERS_INSIDE_BACKWARD = ("lomo", "adalomo")


@dataclass
class VanillaTransformerTrainingArguments(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the paper's optimiser, schedule, smoothing and batches (§5.1, §5.3, §5.4).

    Arguments that are not named here have the meaning that they have in Trainer; those that `VanillaTransformerTrainer`
    can't honour are refused. The stock Trainer can't use these arguments and refuses them.

    The schedule is Equation 3, ``lr_scheduler_type="noam"``, and ``learning_rate`` is the peak of its curve; None is
    the paper's peak, 1 / √(d_model · warmup_steps), a number once training starts. Any other ``lr_scheduler_type`` is
    Trainer's schedule of that name and needs a ``learning_rate``.

    How long to train has no default of its own: the paper's base models took ``max_steps=100_000``, its big ones
    300,000.

    Raises:
        ValueError: If a field is out of range, contradicts another or can't be honoured; the message names the way out.
    """

    max_tokens_per_batch: int = field(
        default=25_000,
        metadata={
            "help": "Source tokens, and target tokens, of one update, padding included: all devices and all "
            "accumulation steps together (section 5.1)."
        },
    )
    max_sentence_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Training examples with more source or target tokens are left out, counted and reported; unset "
            "leaves out only what can't fit a batch."
        },
    )
    cooldown_steps: int = field(
        default=0,
        metadata={
            "help": "Last updates, over which the learning rate falls to 0; the paper has none, short runs gain by it. "
            "Only with Equation 3."
        },
    )
    precision: str = field(
        default="auto",
        metadata={
            "help": "fp32, bf16 or fp16 arithmetic; auto takes bf16 where the hardware has matrix units for it, "
            "else fp32.",
            "choices": PRECISIONS,
        },
    )
    max_skipped_updates: int = field(
        default=5,
        metadata={
            "help": "An update whose loss or gradients aren't finite is skipped; so many in a row end the run. 0 never."
        },
    )
    resume_anyway: bool = field(
        default=False,
        metadata={
            "help": "Go on from a checkpoint although data, tokenizer or configuration have changed, state is missing, "
            "or it has no manifest."
        },
    )
    keep_weight_dtype: bool = field(
        default=False,
        metadata={
            "help": "Train the weights in the bf16 or fp16 that the model comes in; by default they are converted to "
            "fp32 first, because most updates are smaller than a step of bf16."
        },
    )

    # Trainer's fields with the paper's values.
    label_smoothing_factor: float = field(
        default=0.1,
        metadata={"help": "Epsilon of label smoothing (section 5.4), inside the model's loss while training."},
    )
    lr_scheduler_type: str = field(
        default=EQUATION_3,
        metadata={
            "help": "The schedule; noam is Equation 3 of the paper, the others are Trainer's and need a learning_rate.",
            "choices": SCHEDULERS,
        },
    )
    adam_beta2: float = field(default=0.98, metadata={"help": "Beta 2 of Adam (section 5.3)."})
    adam_epsilon: float = field(default=1e-9, metadata={"help": "Epsilon of Adam (section 5.3)."})
    warmup_steps: float = field(
        default=4000, metadata={"help": "Updates over which the learning rate rises (section 5.3); below 1 a ratio."}
    )
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Gradients are clipped to this norm; 0, as in the paper, never."}
    )
    learning_rate: float | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "The schedule's highest rate; unset, Equation 3's own, 1 / sqrt(d_model * warmup_steps)."},
    )
    optim: str = field(
        default="adamw_torch_fused", metadata={"help": "The optimizer; AdamW without weight decay is Adam."}
    )

    # Trainer's fields with other defaults than its own.
    per_device_train_batch_size: int = field(
        default=0, metadata={"help": "Has no meaning here: training batches are filled by max_tokens_per_batch."}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Sentences a device evaluates at a time."})
    logging_steps: float = field(default=100, metadata={"help": "Updates from log entry to log entry."})
    save_steps: float = field(default=1000, metadata={"help": "Updates from checkpoint to checkpoint."})
    save_total_limit: int | None = field(
        default=5, metadata={"help": "Checkpoints that are kept, the last ones: as many as the paper averages."}
    )
    label_names: list[str] | None = field(
        # Trainer guesses by the word in forward's signature, and would wait for a column "label_smoothing".
        default_factory=lambda: ["labels"],
        metadata={"help": "The columns that hold the answer."},
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Log a loss that isn't finite as 0, which hides that training has failed."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Look for parameters without a gradient in every update; there are none."}
    )
    hub_private_repo: bool | None = field(
        default=True, metadata={"help": "Nobody else sees the repository that push_to_hub makes."}
    )

    def __post_init__(self) -> None:
        self.check()
        if not torch.accelerator.is_available():
            # Unless told that the CPU is meant, accelerate runs each of several processes for itself there, as if it
            # were alone, and Trainer refuses bf16.
            self.use_cpu = True
        self._choose_precision()
        metric = self.metric_for_best_model
        if self.greater_is_better is None and metric is not None and metric.endswith(LOWER_IS_BETTER):
            self.greater_is_better = False
        by_equation_3 = self.lr_scheduler_type == EQUATION_3
        if by_equation_3:
            self.lr_scheduler_type = SchedulerType.LINEAR  # the parent's check knows only its own
        super().__post_init__()
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
        """Check the values of the fields; called again before training, because a field may have been set since.

        Raises:
            ValueError: If a field is out of range, contradicts another or can't be honoured.
        """
        if self.max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch={self.max_tokens_per_batch} leaves no room for a token; raise it")
        if not 0.0 <= self.label_smoothing_factor < 1.0:
            raise ValueError(
                f"label_smoothing_factor={self.label_smoothing_factor} is no probability in [0, 1); the paper's is 0.1"
            )
        if self.learning_rate is not None and not 0.0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be above 0; leave it out for the peak of Equation 3, "
                "1 / sqrt(d_model * warmup_steps)"
            )
        if self.lr_scheduler_type not in SCHEDULERS:
            raise ValueError(
                f"lr_scheduler_type={self.lr_scheduler_type!r} is unknown; choose one of {', '.join(SCHEDULERS)}"
            )
        if self.lr_scheduler_type == EQUATION_3:
            if self.warmup_steps == 0:
                raise ValueError(
                    "warmup_steps=0 leaves Equation 3 undefined; the paper's value is 4000, the least is 1"
                )
            if self.lr_scheduler_kwargs:
                raise ValueError(
                    f"lr_scheduler_kwargs={self.lr_scheduler_kwargs} belong to a schedule of Trainer's, and Equation 3 "
                    "has none; leave them out or name an lr_scheduler_type"
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
                    f"cooldown_steps={self.cooldown_steps} is an end for Equation 3, and lr_scheduler_type={kind!r} "
                    "has one of its own; leave one of them out"
                )
        if self.cooldown_steps < 0:
            raise ValueError(f"cooldown_steps={self.cooldown_steps} is no number of updates; the paper's is 0")
        if self.max_skipped_updates < 0:
            raise ValueError(f"max_skipped_updates={self.max_skipped_updates} must be 0, for no limit, or more")
        optim = str(getattr(self.optim, "value", self.optim))
        if optim in _OPTIMIZERS_INSIDE_BACKWARD or optim.endswith("layerwise"):
            raise ValueError(
                f"optim={optim!r} makes its updates inside the backward pass, where one that is not finite can't be "
                "skipped any more; choose another, e.g. adamw_torch_fused"
            )
        for name, reason in REFUSED.items():
            value = getattr(self, name)
            if value != self.default(name):
                raise ValueError(f"{name}={value!r} can't be honoured: {reason}")

    @classmethod
    def default(cls, name: str) -> Any:
        """Return the default of a field."""
        spec = next(spec for spec in fields(cls) if spec.name == name)
        return spec.default if spec.default is not MISSING else spec.default_factory()  # type: ignore[misc, operator]

    def _check_accelerate(self) -> None:
        """Refuse what accelerate's own settings would do to the batches or the update."""
        for name in ("split_batches", "dispatch_batches"):
            if getattr(self.accelerator_config, name, None):
                raise ValueError(
                    f"accelerator_config has {name}=True, which would share out again the batches that "
                    "max_tokens_per_batch has shared out; leave it out"
                )
        if self.deepspeed_plugin is not None:  # accelerate launch with a DeepSpeed configuration
            raise ValueError(f"accelerate was launched with DeepSpeed: {REFUSED['deepspeed']}")

    def resolve_learning_rate(self, d_model: int, total_steps: int) -> float:
        """Return ``learning_rate``, and set it to Equation 3's own peak where it was left open.

        Args:
            d_model: width of the model.
            total_steps: updates of the run; only needed where ``warmup_steps`` is a share of them.

        Raises:
            ValueError: If the number of updates is needed and not known.
        """
        if self.learning_rate is None or self.learning_rate_is_equation_3s:
            warmup_steps = self.get_warmup_steps(total_steps)
            if warmup_steps < 1:
                raise ValueError(
                    f"warmup_steps={self.warmup_steps} is a share of the run's updates, which are not known yet; set "
                    "max_steps, or give warmup_steps as a number of updates"
                )
            self.learning_rate = noam_learning_rate(warmup_steps, d_model, warmup_steps)
            self._peak_of_equation_3 = self.learning_rate
        return self.learning_rate

    @property
    def learning_rate_is_equation_3s(self) -> bool:
        """Whether ``learning_rate`` was left open: it is None, or the number that `resolve_learning_rate` has set."""
        return self.learning_rate is None or self.learning_rate == self.__dict__.get("_peak_of_equation_3")

    @property
    def train_batch_size(self) -> int:
        """Return 0: a training batch has no fixed number of sentences.

        Every Trainer asks for it while it is built. This is where the stock one is refused, which knows neither token
        budgets nor Equation 3, and would report a smoothed eval_loss.
        """
        if not self.__dict__.get("_in_our_trainer"):
            raise ValueError(
                "VanillaTransformerTrainingArguments are for VanillaTransformerTrainer: the stock Trainer knows "
                "neither token budgets nor Equation 3; give it Seq2SeqTrainingArguments"
            )
        return 0

    def to_sanitized_dict(self) -> dict[str, Any]:
        """See `TrainingArguments.to_sanitized_dict`, which asks for ``train_batch_size``, too."""
        before = self.__dict__.get("_in_our_trainer", False)
        self._in_our_trainer = True
        try:
            return super().to_sanitized_dict()
        finally:
            self._in_our_trainer = before

    def __getstate__(self) -> dict[str, Any]:
        """Return what Trainer pickles as training_args.bin and pushes: everything but the token."""
        return {**self.__dict__, "hub_token": None, "_in_our_trainer": False}

    def _choose_precision(self) -> None:
        """Set Trainer's bf16 and fp16 from ``precision``, and ``precision`` from them where it was left open."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
        asked = "bf16" if self.bf16 else "fp16" if self.fp16 else None
        if asked and self.precision not in ("auto", asked):
            raise ValueError(f"{asked}=True contradicts precision={self.precision!r}; set only precision")
        if self.precision == "auto":
            launched_with = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            if asked:
                self.precision, reason = asked, f"{asked}=True"
            elif launched_with != "no":  # accelerate launch --mixed_precision; it may name what we don't
                if launched_with == "fp16":
                    self._refuse_fp16_on_cpu("accelerate was launched with mixed_precision fp16")
                logger.info(f"precision: {launched_with}, as accelerate was launched")
                return
            else:
                self.precision, reason = best_precision(self.use_cpu)
            logger.info(f"precision: {self.precision} ({reason})")
        if self.precision == "fp16":
            self._refuse_fp16_on_cpu("precision='fp16'")
        self.bf16 = self.precision == "bf16"
        self.fp16 = self.precision == "fp16"

    def _refuse_fp16_on_cpu(self, asked: str) -> None:
        if self.use_cpu:  # accelerate would train in fp32 there, and save checkpoints without a gradient scaler
            raise ValueError(f"{asked} needs a GPU, and training is on the CPU; set precision to bf16, fp32 or auto")


def best_precision(use_cpu: bool = False) -> tuple[str, str]:
    """Return the precision that ``precision="auto"`` stands for on this machine.

    Args:
        use_cpu: whether training stays on the CPU although there is a GPU.

    Returns:
        "bf16" where the device has matrix units for it, else "fp32"; and the reason in words. The environment variable
        VANILLA_TRANSFORMER_AUTO_PRECISION overrides the hardware.

    Raises:
        ValueError: If that variable is set to something else than fp32 or bf16.
    """
    if forced := os.environ.get(AUTO_PRECISION):
        if forced not in ("fp32", "bf16"):
            raise ValueError(f"{AUTO_PRECISION}={forced!r} is unknown; set it to fp32 or bf16, or unset it")
        return forced, f"set by {AUTO_PRECISION}"
    if torch.cuda.is_available() and not use_cpu:
        name = torch.cuda.get_device_name()
        major, minor = torch.cuda.get_device_capability()
        if torch.version.hip or major >= 8:
            return "bf16", f"{name} has matrix units for it"
        return "fp32", f"{name} has compute capability {major}.{minor}, bf16 needs 8.0"
    if torch.accelerator.is_available() and not use_cpu:
        return "fp32", f"not measured on {torch.accelerator.current_accelerator()}; choose with precision"
    units = cpu_bf16_units()
    if units:
        return "bf16", f"the processor has {', '.join(units)}"
    return "fp32", "torch finds neither AMX nor AVX512-bf16 in this processor"


def cpu_bf16_units() -> list[str]:
    """List the processor's bf16 instructions that torch uses; empty where bf16 would be emulated.

    oneDNN, which computes the matrix products, has to know of them too: ONEDNN_MAX_CPU_ISA can forbid them. It alone
    does not tell either, since it accepts bf16 on every AVX512 processor and emulates it where instructions lack.
    """
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return []
    except (AttributeError, RuntimeError):  # a torch built without oneDNN
        return []
    units = {"AMX": torch.cpu._is_amx_tile_supported(), "AVX512-bf16": torch.cpu._is_avx512_bf16_supported()}
    return [name for name, found in units.items() if found]


__all__ = ["EQUATION_3", "LOWER_IS_BETTER", "REFUSED", "VanillaTransformerTrainingArguments", "best_precision"]
