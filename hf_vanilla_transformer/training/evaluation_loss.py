# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation loss per token: the negative log-likelihood of all target tokens divided by their number.

Trainer averages the mean losses of batches, whose numbers of tokens differ.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer
from transformers.trainer_utils import EvalLoopOutput

from ..model.loss_vanilla_transformer import IGNORE_INDEX
from .meters import TrainingMeter, perplexity, sum_dtype
from .precision import restored_weights


class EvaluationLossPerToken(Seq2SeqTrainer):
    """A Trainer whose ``eval_loss`` is the mean over tokens, in nats, with ``eval_perplexity`` beside it."""

    _meter: TrainingMeter
    _evaluated: Tensor | None = None  # nats and target tokens of the running evaluation, on this rank

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, Any, Any]:
        """Run `Seq2SeqTrainer.prediction_step`, and count nats and tokens."""
        step: tuple[Any, Any, Any] = super().prediction_step(
            model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs
        )
        loss, sums = step[0], self._evaluated
        if loss is not None and sums is not None and "labels" in inputs:
            tokens = (inputs["labels"] != IGNORE_INDEX).sum().to(sums)
            sums += torch.stack((loss.to(sums) * tokens, tokens))
        return step

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Run `Trainer.evaluation_loop`, and replace its loss by the mean over tokens."""
        self._evaluated = sums = torch.zeros(2, dtype=sum_dtype(self.args.device), device=self.args.device)
        converts = (self.args.bf16_full_eval or self.args.fp16_full_eval) and not self.is_in_train
        model: Any = self.model
        with self._meter.paused(), restored_weights(model) if converts else nullcontext():
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        nats, tokens = self.accelerator.reduce(sums, "sum").tolist()
        if tokens and output.metrics is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = nats / tokens
            output.metrics[f"{metric_key_prefix}_perplexity"] = perplexity(nats / tokens)
        return output


__all__ = ["EvaluationLossPerToken"]
