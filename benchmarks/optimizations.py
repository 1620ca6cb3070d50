"""Measure optimizations that the package does not use, each beside the current code, in turns.

A ratio below 1 means that the optimization is faster; the note of the row says why it is not used. Training:
preset base on the batch of `training_step`, preset tiny on one of tiny.yaml's size. Decoding: as in `decoding`.
"""

# Shapes: B batch · T length · D d_model · H heads · K d_k

import time
from collections.abc import Callable
from typing import Any

import torch
from decoding import our_model, our_search
from machine import DTYPES
from side_by_side import OURS, Options, Result, Row, take_turns
from torch import Tensor, nn
from training_step import base_config, example_batch, our_step

from hf_vanilla_transformer import VanillaTransformerConfig, preset

CURRENT = f"{OURS} as it is"

# --------------------------------------------------------------------------- training


def one_product(model: Any) -> Any:
    """Compute Q, K and V of self-attention in one product, K and V of encoder-decoder attention in another."""
    for layer in model.model.encoder.layers:
        _join(layer.self_attn, ("q_proj", "k_proj", "v_proj"))
    for layer in model.model.decoder.layers:
        _join(layer.self_attn, ("q_proj", "k_proj", "v_proj"))
        _join(layer.cross_attn, ("k_proj", "v_proj"))
    return model


def _join(attention: Any, names: tuple[str, ...]) -> None:
    weight = nn.Parameter(torch.cat([getattr(attention, name).weight.detach() for name in names]))
    for name in names:
        delattr(attention, name)
    attention.joined = weight
    kept: list[Tensor] = []

    def project(states: Tensor) -> list[Tensor]:
        joined = nn.functional.linear(states, weight)  # (B, T, n·D)
        parts = joined.unflatten(-1, (len(names), -1, attention.key_dim)).unbind(-3)
        return [part.transpose(1, 2) for part in parts]  # each (B, H, T, K)

    def project_query(states: Tensor) -> Tensor:
        query, *kept[:] = project(states)
        return query

    def project_key_value(states: Tensor) -> tuple[Tensor, ...]:
        return tuple(kept) if len(names) == 3 else tuple(project(states))

    if len(names) == 3:
        attention.project_query = project_query  # comes first, with the same states
    attention.project_key_value = project_key_value


def with_plain_attention(config: VanillaTransformerConfig) -> VanillaTransformerConfig:
    """Use plain matrix products and a softmax instead of the fused attention kernel."""
    return VanillaTransformerConfig.from_dict(config.to_dict(), attn_implementation="eager")


def seconds_of(run: Callable[[], object]) -> float:
    """Time one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


# --------------------------------------------------------------------------- decoding


def with_transposed_weights(model: Any) -> Any:
    """Store the decoder's weights transposed, which favours products of few rows."""
    products = [module for module in model.model.decoder.modules() if type(module) is nn.Linear]
    for module in [*products, model.lm_head]:
        # The same values in another order of memory: linear() multiplies by the transposed weight, now contiguous.
        module.weight = nn.Parameter(module.weight.detach().t().contiguous().t(), requires_grad=False)
    return model


# --------------------------------------------------------------------------- the measurement


def training_optimizations(
    what: str, config: VanillaTransformerConfig, rows: int, length: int, precision: str, rounds: int
) -> list[Row]:
    """Time a training step with each optimization, on ``rows`` sentences of ``length`` tokens."""
    batch = example_batch(config.vocab_size, rows, length)
    real = int(batch["attention_mask"].sum())
    full = {name: tensor[1::2].repeat(2, 1)[: real // length] for name, tensor in batch.items()}
    steps = {
        CURRENT: our_step(config, batch, precision),
        "Q, K and V as one product": our_step(config, batch, precision, one_product),
        "plain products instead of the attention kernel": our_step(with_plain_attention(config), batch, precision),
        "no padding to compute": our_step(config, full, precision),
        "torch.compile": our_step(config, batch, precision, torch.compile),
    }
    torch.compiler.config.force_disable_caches = True  # or a second run of this benchmark wouldn't compile
    compiling = seconds_of(steps["torch.compile"])
    notes = {
        "Q, K and V as one product": "W^Q, W^K and W^V, which the paper and all converters name, would be one",
        "plain products instead of the attention kernel": "memory grows with the squared length; set "
        "attn_implementation='eager' where sentences are short",
        "no padding to compute": f"an upper bound: {real} real tokens in rows without padding. Training batches by "
        "length, which leaves almost none",
        "torch.compile": f"the first step took {compiling:.0f} s; Trainer's torch_compile does the same",
    }
    seconds = take_turns(steps, rounds)
    return [
        Row(
            f"training step, {what}, {rows}×{length}, {precision}",
            "s",
            seconds[CURRENT],
            seconds[name],
            name,
            "lower",
            note=notes[name],
        )
        for name in steps
        if name != CURRENT
    ]


def measure(options: Options) -> Result:
    """Time each optimization."""
    config, precision = base_config(options.quick), options.precision
    rounds = options.rounds or (2 if options.quick else 5)
    rows, length = (8, 8) if options.quick else (32, 32)
    table = training_optimizations("preset base", config, rows, length, precision, rounds)
    if not options.quick:  # tiny.yaml's model on as many tokens as its updates have
        table += training_optimizations("preset tiny", preset("tiny", vocab_size=6000), 64, 16, precision, rounds)

    tokens = 6 if options.quick else 24
    plain = our_model(config, DTYPES[precision])
    other = our_model(config, DTYPES[precision])
    copying = seconds_of(lambda: with_transposed_weights(other))
    for beams, sentences in ((1, 1), (1, 8), (4, 4 if options.quick else 32)):
        batch = example_batch(config.vocab_size, sentences, 8 if options.quick else 24)
        source = {name: batch[name] for name in ("input_ids", "attention_mask")}
        name = "weights stored transposed"
        seconds = take_turns(
            {
                CURRENT: our_search(plain, source, beams, tokens),
                name: our_search(other, source, beams, tokens),
            },
            rounds,
        )
        note = f"copying them took {copying:.2f} s, which the search would pay each time or keep beside the weights"
        what = f"decoding, beam {beams}, batch {sentences}, {tokens} tokens out, {precision}"
        table.append(Row(what, "s", seconds[CURRENT], seconds[name], name, "lower", note=note))
    return Result(
        "optimizations",
        "Optimizations that are not used, beside the current code: a ratio below 1 means that it would be faster.",
        table,
        settings={"precision": precision, "vocab_size": config.vocab_size, "rounds": rounds},
    )
