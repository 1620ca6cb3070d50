# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Draw many translations of each source from a model.

transformers' `generate` continues all samples until the longest one has ended, and draws from the whole vocabulary.
Here a sample leaves the batch when it ends, and is drawn among the tokens that the settings leave.
"""

# Shapes: B batch · S source length · N samples per source · R samples that have not ended · V vocabulary
#         C tokens that can be drawn

import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.ensemble_vanilla_transformer import unwrap_model
from ..model.incremental_decoder_vanilla_transformer import IncrementalDecoder
from ..model.linear_kernels_vanilla_transformer import project
from ..model.special_tokens_vanilla_transformer import SpecialTokens

if TYPE_CHECKING:
    from .config import MBRConfig

_MOST_ROWS = 512  # samples that are drawn side by side, of one or more sources


def draw_samples(
    model: Any, input_ids: Tensor, attention_mask: Tensor, search: BeamSearchConfig, config: "MBRConfig"
) -> list[list[list[int]]]:
    """Draw ``config.num_samples`` translations of each source.

    The random numbers of a source depend only on the seed and its tokens, so its samples do not depend on the batch.

    Args:
        model: `VanillaTransformerForConditionalGeneration`.
        input_ids: (B, S), padded on the right.
        attention_mask: (B, S), 1 keeps, 0 is padding.
        search: the maximum lengths.
        config: how tokens are drawn.

    Returns:
        For each source, the samples as token ids with EOS, which is missing at the maximum length.

    Raises:
        ValueError: If the model's logits are NaN.
    """
    assert config.num_samples is not None
    model = unwrap_model(model)
    at_once = max(1, _MOST_ROWS // config.num_samples)
    samples: list[list[list[int]]] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(input_ids), at_once):
                chunk = slice(start, start + at_once)
                samples += _draw(model, input_ids[chunk], attention_mask[chunk], search, config)
    finally:
        model.train(was_training)
    return samples


def _draw(
    model: Any, input_ids: Tensor, attention_mask: Tensor, search: BeamSearchConfig, config: "MBRConfig"
) -> Iterator[list[list[int]]]:
    """Draw the samples of a few sources; see `draw_samples`."""
    number, device = config.candidates, input_ids.device
    special = SpecialTokens.of(model)
    limits = [_limit(model, source_tokens, search) for source_tokens in attention_mask.sum(dim=-1).tolist()]
    uniform = torch.cat([  # (B·N, steps) what decides each token
        _uniform(ids[mask.bool()], config.seed, number, max(limits))
        for ids, mask in zip(input_ids, attention_mask, strict=True)
    ]).to(device)  # fmt: skip
    encoder_states = model.model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    decoder = IncrementalDecoder(
        model.model.decoder,
        encoder_states.repeat_interleave(number, dim=0),
        attention_mask.repeat_interleave(number, dim=0),
        num_beams=1,
        max_steps=max(limits),
    )
    suppressed = torch.tensor(special.suppress_tokens, dtype=torch.long, device=device)
    samples: list[list[int]] = [[] for _ in range(len(input_ids) * number)]
    rows = list(range(len(samples)))  # the sample of each row of the decoder
    tokens = torch.full((len(rows), 1), special.decoder_start_token_id, device=device)
    while rows:
        states, _ = decoder.step(tokens, None, with_attention=False)
        logits = project(model.lm_head, states)[:, 0].float().index_fill_(-1, suppressed, -math.inf)  # (R, V)
        drawn = draw_tokens(logits, uniform[rows, decoder.steps - 1], config)
        ended = []
        for row, (sample, token) in enumerate(zip(rows, drawn.tolist(), strict=True)):
            samples[sample].append(token)
            if token in special.eos_token_id or len(samples[sample]) == limits[sample // number]:
                ended.append(row)
        if ended:
            kept = _kept_rows(len(rows), ended)
            decoder.select(kept)
            rows, drawn = [rows[row] for row in kept], drawn[kept]
        tokens = drawn.unsqueeze(1)
    for start in range(0, len(samples), number):
        yield samples[start : start + number]


def draw_tokens(logits: Tensor, uniform: Tensor, config: "MBRConfig") -> Tensor:
    """Draw one token per row.

    The distribution is that of `generate`: temperature, then the largest ``top_k``, then ``top_p``, then
    ``epsilon_cutoff``; the most probable token is always kept.

    Args:
        logits: (R, V).
        uniform: (R,) random numbers, 0 to less than 1.
        config: how tokens are drawn.

    Raises:
        ValueError: If the logits are NaN.
    """
    logits = logits / config.temperature
    largest = logits.shape[-1]
    if config.top_k:
        largest = min(largest, config.top_k)
    if config.epsilon_cutoff and config.top_p == 1.0 and not config.top_k:
        largest = min(largest, int(1 / config.epsilon_cutoff) + 1)  # no more tokens have this probability
    everything = largest == logits.shape[-1] and config.top_p == 1.0
    if everything:
        ids: Tensor | None = None
        probabilities = logits.softmax(dim=-1)
    elif config.top_k:
        kept, ids = logits.topk(largest, dim=-1)  # (R, C)
        probabilities = kept.softmax(dim=-1)
    else:
        probabilities, ids = logits.softmax(dim=-1).topk(largest, dim=-1)
    if bool(probabilities.isnan().any()):
        raise ValueError("the model's logits are NaN, so its weights are damaged; load a valid checkpoint")
    if config.top_p < 1.0:  # keep tokens until their sum reaches it
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= config.top_p, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if config.epsilon_cutoff:
        best = probabilities.amax(dim=-1, keepdim=True)
        probabilities = probabilities.masked_fill((probabilities < config.epsilon_cutoff) & (probabilities < best), 0.0)
    sums = probabilities.cumsum(dim=-1)
    wanted = uniform.to(sums.dtype).unsqueeze(-1) * sums[:, -1:]
    place = torch.searchsorted(sums, wanted, right=True)  # the first token whose sum is larger
    # Rounding may leave none; then the most probable token is drawn.
    place = torch.where(place < sums.shape[-1], place, probabilities.argmax(dim=-1, keepdim=True))
    return (place if ids is None else ids.gather(1, place)).squeeze(1)


def _uniform(ids: Tensor, seed: int, number: int, steps: int) -> Tensor:
    """Return the random numbers (N, steps) of one source.

    Args:
        ids: its tokens.
        seed: of all sources.
        number: N.
        steps: most tokens of a sample. The numbers of the first steps do not depend on it.
    """
    text = f"{seed} {ids.tolist()}".encode()
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:7], "big"))
    return torch.rand(steps, number, generator=generator).T


def _limit(model: Any, source_tokens: int, search: BeamSearchConfig) -> int:
    """Compute the most tokens of a sample."""
    limits = (source_tokens + search.max_extra_tokens, search.max_target_tokens, model.max_sequence_length)
    return min(int(limit) for limit in limits if limit is not None)


def _kept_rows(rows: int, ended: list[int]) -> list[int]:
    """List the rows to keep; the last ones fill the gaps, so that few rows are moved."""
    gone = set(ended)
    left = rows - len(gone)
    kept = list(range(left))
    last = (row for row in range(rows - 1, left - 1, -1) if row not in gone)
    for gap in (row for row in ended if row < left):
        kept[gap] = next(last)
    return kept


__all__ = ["draw_samples", "draw_tokens"]
