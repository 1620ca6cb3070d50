"""Tiny fp64 models, sources and scores for tests of the beam search.

Random models have their output weights scaled up, so that hypotheses differ in more than the last digits. Where
hypotheses have to end by themselves, a model half trained to copy its source is used: it is unsure, and its lengths
follow its sources.
"""

import copy
import functools

import torch
from torch import Tensor

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration

PAD, START, END = 0, 1, 2


def make_model(seed: int = 0, end_bias: float = 0.0, sharpness: float = 3.0, **fields: object):
    """Build a tiny fp64 model; ``end_bias`` (nats) makes the EOS token likelier at every position."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 23,
        "d_model": 16,
        "d_ff": 24,
        "num_heads": 2,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "output_bias": True,
        "tie_word_embeddings": False,  # random tied weights write the same token for ever
    }
    config = VanillaTransformerConfig(**(settings | fields))
    model = VanillaTransformerForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(sharpness)
        if model.lm_head.bias is not None:
            model.lm_head.bias[END] = end_bias
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):  # so that a norm left out or done twice is seen
                module.weight.add_(0.1 * torch.randn_like(module.weight))
                module.bias.add_(0.1 * torch.randn_like(module.bias))
    return model


@functools.cache
def train_to_copy(seed: int):
    torch.manual_seed(seed)
    config = VanillaTransformerConfig(
        vocab_size=23,
        d_model=32,
        d_ff=48,
        num_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        dropout=0.0,
        output_bias=True,
        tie_word_embeddings=False,
    )
    model = VanillaTransformerForConditionalGeneration(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(80):
        lengths, place = torch.randint(1, 8, (32, 1)), torch.arange(8)
        ids = torch.randint(4, 23, (32, 8)).masked_fill(place >= lengths, PAD).scatter(1, lengths, END)
        model(input_ids=ids, labels=ids.masked_fill(ids == PAD, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.double().eval()


def half_trained_model(seed: int = 0):
    """A model of its own for each caller, half trained to copy."""
    return copy.deepcopy(train_to_copy(seed))


def make_sources(lengths: list[int], seed: int = 1, vocab_size: int = 23, left: bool = False) -> tuple[Tensor, Tensor]:
    """Random sources that end, with their masks, padded on the right, or on the left."""
    torch.manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        place = slice(max(lengths) - length, None) if left else slice(0, length)
        ids[row, place] = torch.tensor([*torch.randint(4, vocab_size, (length - 1,)).tolist(), END])
        mask[row, place] = 1
    return ids, mask


def log_probs_by_full_forward(model, input_ids: Tensor, mask: Tensor, target: list[int]) -> Tensor:
    """Log-probabilities (T,) of a target's tokens from one uncached forward call; input (1, S)."""
    decoder_input_ids = torch.tensor([[START, *target[:-1]]])
    with torch.no_grad():
        logits = model(input_ids=input_ids, attention_mask=mask, decoder_input_ids=decoder_input_ids).logits
    return logits[0].log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)]
