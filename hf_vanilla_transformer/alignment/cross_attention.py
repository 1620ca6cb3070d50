# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The cross-attention weights of a batch of sentence pairs, by teacher forcing."""

# Shapes: L layers · B batch · H heads · T target length · S source length

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Switch to evaluation mode and to the attention that returns its weights; restore both at the end."""
    before, was_training = model.config._attn_implementation, model.training
    model.eval()
    try:
        if before != "eager":
            model.set_attn_implementation("eager")
        yield
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)
        model.train(was_training)


def cross_attention(
    model: Any, sources: Sequence[list[int]], targets: Sequence[list[int]], layers: Sequence[int]
) -> Iterator[list[Tensor]]:
    """Yield the cross-attention weights of each sentence pair, of the wanted layers.

    The decoder reads the start token and the whole target: row t predicts target token t, and row t + 1 reads it.

    Args:
        model: `VanillaTransformerForConditionalGeneration` with `eager_attention`.
        sources: token ids of each source, with the EOS token.
        targets: token ids of each target, with the EOS token.
        layers: of the decoder, counted from 0.

    Yields:
        For each pair, the weights (H, T, S) of each wanted layer, in fp32 on the CPU.
    """
    decoder = model.get_decoder()
    input_ids, attention_mask = _padded(sources, model.device)
    start = model.config.decoder_start_token_id
    decoder_input_ids, _ = _padded([[start, *target[:-1]] for target in targets], model.device)
    weights: dict[int, Tensor] = {}
    with torch.no_grad(), ExitStack() as hooks:
        for layer in layers:

            def keep(module: Any, inputs: Any, output: Any, layer: int = layer) -> None:
                weights[layer] = output[1].detach().float().cpu()  # (B, H, T, S)

            hooks.callback(decoder.layers[layer].cross_attn.register_forward_hook(keep).remove)
        encoded = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
        decoder(
            input_ids=decoder_input_ids,
            encoder_hidden_states=encoded[0],
            encoder_attention_mask=attention_mask,
            use_cache=False,
        )
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        yield [weights[layer][row, :, : len(target), : len(source)] for layer in layers]


def _padded(rows: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return token ids with padding on the right, and their mask. The padding is masked, so its id doesn't matter."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, mask


__all__ = ["cross_attention", "eager_attention"]
