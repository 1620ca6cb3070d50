# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Check the paper's beam search."""

from typing import Any

import torch
from torch import Tensor

from ..model import beam_search_vanilla_transformer as beam_search
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.loss_vanilla_transformer import IGNORE_INDEX
from .check import Check
from .comparison import require_close, require_same, require_same_tokens
from .small_model import (
    END,
    MAX_TOKENS,
    PAD,
    SOURCES,
    START,
    VOCABULARY,
    batches,
    generate,
    pad,
    scores_by_full_pass,
    small_model,
)


def search_greedy(device: torch.device) -> None:
    """Compare the search with one beam with greedy `generate`."""
    model = small_model(device)
    for batch, (source, mask) in batches(device).items():
        expected = generate(model, source, mask).sequences
        # The search ends every hypothesis at its limit; one token more keeps the limit away from the tokens compared.
        found = search(model, source, mask, BeamSearchConfig(num_beams=1, max_target_tokens=MAX_TOKENS + 1)).sequences
        require_same_tokens(batch, found[:, : 1 + MAX_TOKENS], expected)


@torch.no_grad()
def search_scores(device: torch.device) -> None:
    """Compare the search with an exhaustive one, and its scores with those of full passes and `score_targets`."""
    model = small_model(device)
    source, mask = pad(SOURCES, device, left=True)
    _compare_with_exhaustive_search(model, source, mask)
    output = search(model, source, mask, BeamSearchConfig(num_beams=4, max_extra_tokens=3, num_return_sequences=3))
    for row, (found, scores) in enumerate(zip(output.hypotheses(), output.sequences_scores.view(-1, 3), strict=True)):
        for tokens in found:
            if tokens.index(END) != len(tokens) - 1 or len(tokens) > len(SOURCES[row]) + 3:
                raise AssertionError(f"sentence {row}: {tokens} does not end at its first EOS token within the limit")
        expected = scores_by_full_pass(model, source[row], mask[row], found)
        require_close(f"scores of the hypotheses of sentence {row}", scores, expected)
        labels, _ = pad(found, device, value=IGNORE_INDEX)
        again: Any = beam_search.score_targets(model, source[row].expand(3, -1), mask[row].expand(3, -1), labels)
        require_close(f"score_targets of the hypotheses of sentence {row}", again.scores, expected)


def _compare_with_exhaustive_search(model: Any, source: Tensor, mask: Tensor) -> None:
    """Compare the four best hypotheses of a very wide beam with the four best of all targets of up to two tokens."""
    words = [token for token in range(VOCABULARY) if token not in (PAD, START, END)]
    every_target = [[END], *([word, END] for word in words)]
    config = BeamSearchConfig(num_beams=VOCABULARY, max_target_tokens=2, num_return_sequences=4)
    for row, found in enumerate(search(model, source, mask, config).hypotheses()):
        scores = scores_by_full_pass(model, source[row], mask[row], every_target).tolist()
        best = [target for _, target in sorted(zip(scores, every_target, strict=True), reverse=True)[:4]]
        require_same(f"sentence {row}: the best targets of up to two tokens", found, best)


def search(model: Any, source: Tensor, mask: Tensor, config: BeamSearchConfig) -> Any:
    """Call `paper_beam_search`."""
    return beam_search.paper_beam_search(model, source, mask, config)


CHECKS = (
    Check("search_greedy", "The beam search with one beam gives the tokens of greedy generate()", search_greedy),
    Check(
        "search_scores",
        "The beam search finds the best hypotheses and ranks them by log-probability over ((5 + n) / 6)^alpha",
        search_scores,
    ),
)

__all__ = ["CHECKS", "search"]
