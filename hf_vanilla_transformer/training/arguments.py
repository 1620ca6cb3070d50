# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Training arguments whose defaults are the paper's (§5), on top of the stock ones."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments
from transformers.utils import logging

logger = logging.get_logger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
AUTO_PRECISION = (
    "VANILLA_TRANSFORMER_AUTO_PRECISION"  # environment variable: what "auto" means instead of the hardware's
)


@dataclass
class VanillaTransformerTrainingArguments(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the paper's optimiser, schedule, smoothing and batches (§5.1, §5.3, §5.4).

    Whatever is not named here is Trainer's. How long to train has no default of its own: the paper's base models took
    ``max_steps=100_000``, its big ones 300,000.

    Raises:
        ValueError: If a field is out of range or contradicts another; the message names the way out.
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
    label_smoothing: float = field(
        default=0.1, metadata={"help": "Epsilon of section 5.4, inside the model's loss while training."}
    )
    learning_rate_factor: float = field(
        default=1.0,
        metadata={"help": "Factor on Equation 3; the peak rate is factor / sqrt(d_model * warmup_steps)."},
    )
    cooldown_steps: int = field(
        default=0,
        metadata={
            "help": "Last updates, over which the learning rate falls to 0; the paper has none, short runs gain by it."
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

    # Trainer's fields with the paper's values.
    adam_beta2: float = field(default=0.98, metadata={"help": "Beta 2 of Adam (section 5.3)."})
    adam_epsilon: float = field(default=1e-9, metadata={"help": "Epsilon of Adam (section 5.3)."})
    warmup_steps: float = field(
        default=4000, metadata={"help": "Updates over which the learning rate rises (section 5.3); below 1 a ratio."}
    )
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Gradients are clipped to this norm; 0, as in the paper, never."}
    )
    learning_rate: float = field(
        default=1.0, metadata={"help": "What Equation 3 multiplies: leave it, and set learning_rate_factor."}
    )
    optim: str = field(
        default="adamw_torch_fused", metadata={"help": "The optimizer; AdamW without weight decay is Adam."}
    )

    # Trainer's fields with other defaults than its own.
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
        if self.max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch={self.max_tokens_per_batch} leaves no room for a token; raise it")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing={self.label_smoothing} is no probability in [0, 1); the paper's is 0.1")
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={self.label_smoothing_factor} would go over all logits a second time and make "
                f"eval_loss a smoothed loss; set label_smoothing={self.label_smoothing_factor} instead"
            )
        if self.learning_rate != 1.0:
            raise ValueError(
                f"learning_rate={self.learning_rate} has no meaning beside Equation 3, which gives the rate of every "
                "update; scale it with learning_rate_factor, or train with the stock Seq2SeqTrainer"
            )
        if not self.learning_rate_factor > 0.0:
            raise ValueError(f"learning_rate_factor={self.learning_rate_factor} must be above 0; the paper's is 1")
        if self.warmup_steps == 0:
            raise ValueError("warmup_steps=0 leaves Equation 3 undefined; the paper's value is 4000, the least is 1")
        if self.cooldown_steps < 0:
            raise ValueError(f"cooldown_steps={self.cooldown_steps} is no number of updates; the paper's is 0")
        if self.max_skipped_updates < 0:
            raise ValueError(f"max_skipped_updates={self.max_skipped_updates} must be 0, for no limit, or more")
        if self.train_sampling_strategy != "random":
            raise ValueError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} makes batches of a fixed number of "
                "sentences; leave it out, training batches are filled by max_tokens_per_batch"
            )
        if not torch.accelerator.is_available():
            # Unless told that the CPU is meant, accelerate runs each of several processes for itself there, as if it
            # were alone, and Trainer refuses bf16.
            self.use_cpu = True
        self._choose_precision()
        super().__post_init__()

    def __getstate__(self) -> dict[str, Any]:
        """Return what Trainer pickles as training_args.bin and pushes: everything but the token."""
        return {**self.__dict__, "hub_token": None}

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
                logger.info(f"precision: {launched_with}, as accelerate was launched")
                return
            else:
                self.precision, reason = best_precision(self.use_cpu)
            logger.info(f"precision: {self.precision} ({reason})")
        self.bf16 = self.precision == "bf16"
        self.fp16 = self.precision == "fp16"


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


__all__ = ["VanillaTransformerTrainingArguments", "best_precision"]
