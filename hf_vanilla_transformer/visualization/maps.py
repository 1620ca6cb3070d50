# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The attention weights of every layer and head for one sentence pair, with what they have in common as numbers."""

# Shapes: L layers · H heads · S source tokens · T target tokens · Q queries, R keys (S or T each)

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging

from ..model.beam_search_vanilla_transformer import BeamSearchOutput, paper_beam_search
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers

KINDS = ("encoder", "decoder", "cross")
MAX_TOKENS = 200  # a side: more is neither readable as a picture nor quick as a page

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Token:
    """One token as people read it.

    Attributes:
        text: its characters, without the vocabulary's mark for a word's beginning.
        starts_word: whether white space, or nothing, stands before it.
        special: whether it is no text: the start or the end of a sentence.
    """

    text: str
    starts_word: bool
    special: bool


@dataclass(frozen=True)
class HeadStatistics:
    """What one head does on one sentence pair, averaged over its queries.

    Attributes:
        kind: "encoder", "decoder" or "cross".
        layer: counted from 0.
        head: counted from 0.
        entropy: of a query's weights, in nats: 0 looks at one token only, ln(R) at all R alike.
        distance: weighted distance from the query to what it looks at, in tokens; None in cross-attention, where
            positions are of two sentences.
        previous: share of the queries, the first left out, whose largest weight is on the token before them; None in
            cross-attention and for a single token.
        aligned: share of the source's tokens, special ones left out, that are what some query looks at most: 1 for a
            head that reads all of the source in turn, 0 for one that rests on the end symbol. Cross-attention only.
    """

    kind: str
    layer: int
    head: int
    entropy: float
    distance: float | None
    previous: float | None
    aligned: float | None


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention weights of one sentence pair; layers and heads count from 0, each row of weights sums to 1.

    Row t of ``decoder`` and ``cross`` belongs to the decoder's position t, which reads ``decoder_input_tokens[t]`` and
    writes ``target_tokens[t]``: the target is shifted right by one (§3.1).

    Attributes:
        source: the source sentence.
        target: the target sentence, given or the model's own.
        target_is_own: whether the target is the model's own beam output (§6.1).
        source_tokens: S tokens.
        decoder_input_tokens: T tokens, the start symbol first.
        target_tokens: T tokens, the end symbol last.
        target_probabilities: (T,) the model's probability of each target token, given those before it.
        encoder: (L, H, S, S) encoder self-attention, from row to column.
        decoder: (L, H, T, T) masked decoder self-attention.
        cross: (L, H, T, S) encoder-decoder attention.
    """

    source: str
    target: str
    target_is_own: bool
    source_tokens: list[Token]
    decoder_input_tokens: list[Token]
    target_tokens: list[Token]
    target_probabilities: NDArray[np.float32]
    encoder: NDArray[np.float32]
    decoder: NDArray[np.float32]
    cross: NDArray[np.float32]

    def weights(self, kind: str, layer: int | None = None, head: int | None = None) -> NDArray[np.float32]:
        """Take weights by name: all layers (L, H, Q, R), one layer (H, Q, R), or one head (Q, R).

        Raises:
            ValueError: If there is no such kind, layer or head.
        """
        if kind not in KINDS:
            raise ValueError(f"there is no attention {kind!r}; choose one of {', '.join(KINDS)}")
        weights: NDArray[np.float32] = getattr(self, kind)
        if layer is None:
            if head is not None:
                raise ValueError(f"head {head} needs a layer; choose one of 0 to {len(weights) - 1}")
            return weights
        weights = weights[_checked("layer", layer, len(weights), kind)]
        return weights if head is None else weights[_checked("head", head, len(weights), kind)]

    def axes(self, kind: str) -> tuple[list[Token], list[Token]]:
        """Name the rows and the columns of a kind: who looks, and at what.

        A row of the decoder is named by the token that is written there, since that is what the look decides.
        """
        rows = self.source_tokens if kind == "encoder" else self.target_tokens
        return rows, self.decoder_input_tokens if kind == "decoder" else self.source_tokens

    def statistics(self) -> list[HeadStatistics]:
        """Measure every head: encoder, decoder, cross; layer by layer."""
        measured = []
        for kind in KINDS:
            special = [token.special for token in self.source_tokens]
            for layer, heads in enumerate(self.weights(kind)):
                measured += [_measure(kind, layer, head, weights, special) for head, weights in enumerate(heads)]
        return measured


def _checked(name: str, index: int, count: int, kind: str) -> int:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        choices = "only 0" if count == 1 else f"one of 0 to {count - 1}"
        raise ValueError(f"there is no {name} {index!r} in {kind} attention; choose {choices}")
    return index


def _measure(kind: str, layer: int, head: int, weights: NDArray[np.float32], special: list[bool]) -> HeadStatistics:
    precise = weights.astype(np.float64)
    entropy = -(precise * np.log(np.where(precise > 0, precise, 1.0))).sum(axis=-1).mean()
    looked_at = precise.argmax(axis=-1)
    distance = previous = aligned = None
    if kind == "cross":
        words = {column for column, is_special in enumerate(special) if not is_special}
        aligned = len(words & set(looked_at.tolist())) / len(words) if words else None
    else:
        places = np.arange(len(precise))
        distance = float((precise * np.abs(places[:, None] - places)).sum(axis=-1).mean())
        previous = float((looked_at[1:] == places[:-1]).mean()) if len(places) > 1 else None
    return HeadStatistics(kind, layer, head, float(entropy), distance, previous, aligned)


# --------------------------------------------------------------------------- from a model


def attention_maps(
    model: Any,
    tokenizer: Any,
    source: str,
    target: str | None = None,
    *,
    max_tokens: int = MAX_TOKENS,
    target_tokenizer: Any = None,
) -> AttentionMaps:
    """Run one sentence pair through the model and keep every attention weight.

    The model is switched to the attention implementation that keeps weights ("eager") and to evaluation mode, and both
    are put back. Take ``maps.cross[layer, head]`` for one head, ``maps.cross[layer].mean(axis=0)`` for their average.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, on any device.
        tokenizer: the model's own, or both of them as one `TranslationTokenizers`.
        source: one sentence.
        target: its translation; None takes the model's own, by the paper's beam search (§6.1).
        max_tokens: most tokens a side, special ones included.
        target_tokenizer: the target's, where it has a vocabulary of its own; None takes the folder target_tokenizer
            beside the weights.

    Returns:
        The weights with their tokens.

    Raises:
        ValueError: If a sentence is empty or too long, the tokenizer doesn't fit, or the model gives no weights.
    """
    if not hasattr(model, "lm_head") or not hasattr(model, "get_encoder"):
        raise ValueError(
            f"{type(model).__name__} can't translate; load the checkpoint with AutoModelForSeq2SeqLM.from_pretrained"
        )
    tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
    source_ids = _encode(tokenizers.encode_sources, source, "source", max_tokens)
    inputs = torch.tensor([source_ids], device=model.device)
    if target is None:
        found = paper_beam_search(model, inputs, torch.ones_like(inputs))
        assert isinstance(found, BeamSearchOutput)  # the other form is for generate()
        target_ids = found.hypotheses()[0][0]
        _check_length("model's own translation", len(target_ids), max_tokens)
    else:
        target_ids = _encode(tokenizers.encode_targets, target, "target", max_tokens)
    reads = [model.config.decoder_start_token_id, *target_ids[:-1]]
    with weights_kept(model), torch.no_grad():
        output = model(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            decoder_input_ids=torch.tensor([reads], device=model.device),
            output_attentions=True,
            use_cache=False,
        )
    probabilities = output.logits[0].float().softmax(dim=-1).cpu()
    return AttentionMaps(
        source=source,
        target=tokenizers.decode(target_ids) if target is None else target,
        target_is_own=target is None,
        source_tokens=_readable(tokenizers.source, source_ids),
        decoder_input_tokens=_readable(tokenizers.target, reads),
        target_tokens=_readable(tokenizers.target, target_ids),
        target_probabilities=probabilities[range(len(target_ids)), target_ids].numpy(),
        encoder=_stack(output.encoder_attentions),
        decoder=_stack(output.decoder_attentions),
        cross=_stack(output.cross_attentions),
    )


def _encode(encode: Callable[[list[str]], list[list[int]]], text: str, side: str, max_tokens: int) -> list[int]:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the {side} is empty; give a sentence")
    ids = encode([text])[0]
    if not ids:
        raise ValueError(f"nothing is left of the {side} after the tokenizer's normalisation; give a sentence")
    _check_length(side, len(ids), max_tokens)
    return ids


def _check_length(side: str, length: int, max_tokens: int) -> None:
    if length > max_tokens:
        raise ValueError(
            f"the {side} has {length} tokens, more than max_tokens={max_tokens}, which a picture can show; give a "
            "shorter sentence"
        )


@contextmanager
def weights_kept(model: Any) -> Iterator[None]:
    """Switch to evaluation mode and to the attention that keeps its weights; put both back."""
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


def _stack(layers: Any) -> NDArray[np.float32]:
    """Stack the layers' (1, H, Q, R) into (L, H, Q, R)."""
    if not layers or any(weights is None for weights in layers):
        raise ValueError(
            "the model's attention keeps no weights; load it with "
            "AutoModelForSeq2SeqLM.from_pretrained(…, attn_implementation='eager')"
        )
    return torch.cat([weights.float().cpu() for weights in layers]).numpy()


def _readable(tokenizer: Any, ids: list[int]) -> list[Token]:
    special = set(tokenizer.all_special_ids)
    tokens = []
    for place, (index, raw) in enumerate(zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)):
        marked = raw[:1] in ("▁", "Ġ")  # SentencePiece's and byte-level BPE's mark for the space before a word
        text = tokenizer.decode([index]).strip()
        if not text or "\ufffd" in text:  # white space, or some bytes of a character
            text = raw[1:] if marked and len(raw) > 1 else raw
        starts = marked or index in special or place == 0
        tokens.append(Token(text, starts, index in special))
    return tokens
