# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The small model used by the checks, its inputs, and its reference results computed naively."""

# Shapes: B batch · S source length · T target length · V vocabulary

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

PAD, START, END, VOCABULARY = 0, 1, 2, 32
SOURCES = ([17, 28, END], [30, 5, 22, 9, 14, 26, 11, 7, END], [8, 19, 6, 31, 12, END], [23, 4, 10, 27, END])
TARGETS = ([13, 29, 6, 21, END], [18, 9, END], [25, 8, 30, 11, 5, 16, END], [7, 24, 15, END])
DECODER_INPUTS = [[START, *target[:-1]] for target in TARGETS]
MAX_TOKENS = 12  # maximum length of a translation
SEED = 2  # its model ends some translations early and others not at all, and has no near-ties between tokens


def small_model(device: torch.device, **fields: Any) -> Any:
    """Build a small model in evaluation mode, without dropout.

    The weights depend on the seed only, not on the initialization of models. They are large enough for each token to
    depend on source, position and earlier tokens. The output vector of a word is the embedding of another word, so that
    greedy decoding does not repeat one word. PAD and START have the logit 0, far below the largest.
    """
    sizes = {"vocab_size": VOCABULARY, "d_model": 32, "d_ff": 64, "num_heads": 4}
    layers = {"encoder_layers": 1, "decoder_layers": 2}
    config = VanillaTransformerConfig(**{**sizes, **layers, "dropout": 0.0, "tie_word_embeddings": False, **fields})
    model: Any = VanillaTransformerForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                scale = 0.1 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        if not config.tie_word_embeddings:
            model.lm_head.weight.copy_(2 * model.get_input_embeddings().weight.roll(5, dims=0))
            model.lm_head.weight[: START + 1] = 0.0
    return model.eval().to(device)


def pad(
    rows: Sequence[Sequence[int]], device: torch.device, left: bool = False, value: int = PAD
) -> tuple[Tensor, Tensor]:
    """Pad rows of token ids to a matrix and return it with its mask (1 for tokens, 0 for padding)."""
    longest = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        gap = longest - len(row)
        ids.append([*[value] * gap, *row] if left else [*row, *[value] * gap])
        mask.append([*[0] * gap, *[1] * len(row)] if left else [*[1] * len(row), *[0] * gap])
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def batches(device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """Return two batches of the same shape, so that a cache that keeps anything of the first one is noticed."""
    *words, end = max(SOURCES, key=len)
    unpadded = [[*words[start:], *words[:start], end] for start in range(len(SOURCES))]
    return {"padded on the left": pad(SOURCES, device, left=True), "unpadded": pad(unpadded, device)}


def logits_of(model: Any, source: Tensor, mask: Tensor | None, inputs: Tensor, **options: Any) -> Tensor:
    """Return the logits (B, T, V) of one pass over source (B, S) and decoder inputs (B, T), without a cache."""
    return model(source, attention_mask=mask, decoder_input_ids=inputs, use_cache=False, **options).logits


@torch.no_grad()
def greedy_by_full_passes(model: Any, source: Tensor, mask: Tensor) -> Tensor:
    """Decode greedily, with a full pass over all earlier tokens for each token."""
    written = torch.full((len(source), 1), START, device=source.device)
    for _ in range(MAX_TOKENS):
        logits = logits_of(model, source, mask, written)[:, -1]
        written = torch.cat([written, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return written


def scores_by_full_pass(model: Any, source: Tensor, mask: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """Return the log-probabilities of targets of one source, over the paper's length penalty."""
    inputs, _ = pad([[START, *target[:-1]] for target in targets], source.device)
    sources, masks = (row.expand(len(targets), -1) for row in (source, mask))
    log_probs = functional.log_softmax(logits_of(model, sources, masks, inputs), dim=-1)
    totals = [
        sum(log_probs[row, position, token] for position, token in enumerate(target)) / ((5 + len(target)) / 6) ** 0.6
        for row, target in enumerate(targets)
    ]
    return torch.stack(totals)


def generate(model: Any, source: Tensor, mask: Tensor, num_beams: int = 1, cache: str | None = None) -> Any:
    """Call `generate` with a cache implementation, or without a cache."""
    return model.generate(
        source,
        attention_mask=mask,
        do_sample=False,
        num_beams=num_beams,
        max_length=1 + MAX_TOKENS,
        use_cache=cache is not None,
        cache_implementation=cache,
        disable_compile=True,
        return_dict_in_generate=True,
    )


__all__ = [
    "DECODER_INPUTS",
    "END",
    "MAX_TOKENS",
    "PAD",
    "SEED",
    "SOURCES",
    "START",
    "TARGETS",
    "VOCABULARY",
    "batches",
    "generate",
    "greedy_by_full_passes",
    "logits_of",
    "pad",
    "scores_by_full_pass",
    "small_model",
]
