# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The models that a search runs: one, or several as an ensemble whose probabilities are averaged at each step."""

# Shapes: B batch · S source length · W beam width · D d_model · V vocabulary

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .incremental_decoder_vanilla_transformer import IncrementalDecoder
from .linear_kernels_vanilla_transformer import project
from .special_tokens_vanilla_transformer import SpecialTokens


class Ensemble(nn.Module):
    """Several models that translate together: the probability of a token is the mean of the models' probabilities.

    The models may differ in size and architecture, but have the same vocabularies and special tokens. `translate`,
    `paper_beam_search`, `score_targets` and `TranslationPipeline` take an ensemble like a model; the first three also
    take a list of models. An ensemble has no `forward` and is not saved: save its models, and combine them again.

    Attributes:
        models: the models, PEFT wrappers removed.
        config: configuration of the first model.
        generation_config: of the first model.
        max_sequence_length: the smallest of the models' maximum lengths in tokens; None if none has one.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        """Combine models.

        Args:
            models: `VanillaTransformerForConditionalGeneration` models on one device, with PEFT adapters of weights or
                without.

        Raises:
            ValueError: If there is none, one is of another kind, or their vocabularies, special tokens or devices
                differ.
        """
        super().__init__()
        if isinstance(models, nn.Module) or not isinstance(models, Iterable):
            raise ValueError(f"an ensemble is made of a list of models, not of a {type(models).__name__}; use [model]")
        if not models:
            raise ValueError("an ensemble has no models; give at least one")
        if any(hasattr(model, "beam_search") for model in models):
            raise ValueError("an exported model cannot be part of an ensemble; combine the checkpoints")
        self.models: Any = nn.ModuleList(map(unwrap_model, models))
        self.config: Any = self.models[0].config
        self.generation_config: Any = self.models[0].generation_config
        self.max_sequence_length = shortest_limit(self.models)
        for number, model in enumerate(self.models[1:], start=2):
            self._check_same(number, model)

    def _check_same(self, number: int, model: Any) -> None:
        """Check that a model has the first one's vocabularies, special tokens and device."""
        first = self.models[0]
        for name, ours, theirs in (
            ("source vocabularies", first.config.vocab_size, model.config.vocab_size),
            ("target vocabularies", first.config.output_vocab_size, model.config.output_vocab_size),
        ):
            if ours != theirs:
                raise ValueError(
                    f"models 1 and {number} of the ensemble have different {name} ({ours} and {theirs} tokens); "
                    "combine models that were trained with the same tokenizer"
                )
        if (ours := SpecialTokens.of(first)) != (theirs := SpecialTokens.of(model)):
            raise ValueError(
                f"models 1 and {number} of the ensemble have different special tokens ({ours} and {theirs}); combine "
                "models that were trained with the same tokenizer"
            )
        if first.device != model.device:
            raise ValueError(
                f"models 1 and {number} of the ensemble are on {first.device} and {model.device}; move them to one "
                "device"
            )

    @property
    def device(self) -> torch.device:
        """Return the device of the models."""
        return self.models[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the first model."""
        return self.models[0].dtype

    @property
    def input_modalities(self) -> tuple[str, ...]:
        """Return the kinds of input; transformers' `Pipeline` reads it."""
        return ("text",)

    def can_generate(self) -> bool:
        """Return whether there is `generate`, which an ensemble doesn't have; `Pipeline` calls this."""
        return False

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Raise ValueError: an ensemble has no file format."""
        raise ValueError("an ensemble cannot be saved; save its models one by one")


class NextTokenLogits:
    """Run one or more models step by step, and combine their logits."""

    def __init__(
        self,
        models: Sequence[Any],
        encoder_states: Sequence[Tensor],
        source_mask: Tensor,
        num_beams: int,
        max_steps: int,
    ) -> None:
        """Prepare the decoders.

        Args:
            models: `VanillaTransformerForConditionalGeneration` models.
            encoder_states: of each model, (B, S, D).
            source_mask: (B, S), 1 keeps, 0 is padding.
            num_beams: W.
            max_steps: upper limit of the number of steps.
        """
        self._members = [
            (IncrementalDecoder(model.model.decoder, states, source_mask, num_beams, max_steps), model.lm_head)
            for model, states in zip(models, encoder_states, strict=True)
        ]

    def step(self, tokens: Tensor, parents: Tensor | None, with_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Decode one position; see `IncrementalDecoder.step`.

        Returns:
            The logits (B, W, V), whose softmax is the mean of the models' probabilities, and the mean of their
            attention (B, W, S) where it was requested.
        """
        if len(self._members) == 1:
            decoder, lm_head = self._members[0]
            states, attention = decoder.step(tokens, parents, with_attention)
            return project(lm_head, states), attention
        log_probs, attentions = [], []
        for decoder, lm_head in self._members:
            states, attention = decoder.step(tokens, parents, with_attention)
            log_probs.append(_log_softmax(project(lm_head, states).detach()))
            attentions.append(attention)
        mean = log_mean_exp(log_probs)
        return mean, torch.stack([one for one in attentions if one is not None]).mean(dim=0) if with_attention else None

    def select(self, rows: list[int]) -> None:
        """Keep these rows of the batch; see `IncrementalDecoder.select`."""
        for decoder, _ in self._members:
            decoder.select(rows)


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)


def log_mean_exp(log_probs: Sequence[Tensor]) -> Tensor:
    """Compute the logarithm of the mean of probabilities from their logarithms, nats, all of one shape."""
    total = log_probs[0]
    for other in log_probs[1:]:
        total = torch.logaddexp(total, other)
    return total - math.log(len(log_probs)) if len(log_probs) > 1 else total


def shortest_limit(models: Iterable[Any]) -> int | None:
    """Return the smallest of the models' maximum sequence lengths in tokens; None if none has one."""
    return min((model.max_sequence_length for model in models if model.max_sequence_length is not None), default=None)


def models_of(model: Any) -> list[Any]:
    """Return the models that a search runs.

    Args:
        model: a `VanillaTransformerForConditionalGeneration`, with PEFT adapters of weights or without, an `Ensemble`,
            or a list of models.

    Raises:
        ValueError: If `unwrap_model` or `Ensemble` refuses them.
    """
    if isinstance(model, (list, tuple)):
        return list(Ensemble(model).models)
    if isinstance(model, Ensemble):
        return list(map(unwrap_model, model.models))
    return [unwrap_model(model)]


def unwrap_model(model: Any) -> Any:
    """Return the `VanillaTransformerForConditionalGeneration` inside a PEFT wrapper, or the model itself.

    Raises:
        ValueError: If it is another model, is not on one device, or has an adapter outside of the model's modules
            (prompt and prefix tuning), which the search would not apply.
    """
    if hasattr(model, "get_base_model"):
        adapters: Any = getattr(model, "peft_config", None)
        for name in model.active_adapters:
            if getattr(adapters[name], "is_prompt_learning", False):
                raise ValueError(
                    f"adapter {name!r} ({adapters[name].peft_type.value}) adds virtual tokens outside of the model's "
                    "modules, which paper_beam_search does not support; use generate(), or an adapter of weights such "
                    "as LoRA"
                )
        model = model.get_base_model()
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind != "vanilla_transformer" or not hasattr(model, "lm_head"):
        raise ValueError(
            f"paper_beam_search needs a VanillaTransformerForConditionalGeneration, not {type(model).__name__} ({kind})"
        )
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) > 1 or torch.device("meta") in devices:
        raise ValueError("paper_beam_search needs the whole model on one device; move it there or use plain generate()")
    return model


@contextmanager
def evaluation_mode(models: Sequence[nn.Module]) -> Iterator[None]:
    """Turn the dropout of models off inside the context."""
    training = [module for model in models for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


__all__ = [
    "Ensemble",
    "NextTokenLogits",
    "evaluation_mode",
    "log_mean_exp",
    "models_of",
    "shortest_limit",
    "unwrap_model",
]
