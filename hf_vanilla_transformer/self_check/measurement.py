# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Time the precisions and attention kernels on this machine, and compare the result with the package's choices."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional

from ..model.attention_kernels_vanilla_transformer import plain_attention, prefers_plain_products
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..presets import preset
from ..training.precision import best_precision, bf16_hardware
from .isolation import default_settings

_NOISE = 1.25  # a choice is wrong if the other takes less time by more than this factor
_SECONDS = 1.0  # per comparison
# (sentences, heads, queries, keys, width of a head): training steps of presets tiny and base, a long sentence, and a
# step of a beam search.
_SHAPES = ((64, 4, 16, 16, 32), (32, 8, 32, 32, 64), (2, 8, 256, 256, 64), (64, 4, 4, 32, 32))
_SEARCH_QUERIES = 8  # up to this number of queries, only the forward pass is timed


@dataclass(frozen=True)
class Measurement:
    """Two ways to compute the same, timed.

    Attributes:
        title: what was computed.
        chosen: the way that the package selects.
        milliseconds: way → best time.
        advice: what to set if the other way is clearly faster; else "".
    """

    title: str
    chosen: str
    milliseconds: dict[str, float]
    advice: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary that JSON can represent."""
        return asdict(self)

    def __str__(self) -> str:
        times = ", ".join(f"{way} {milliseconds:.2f} ms" for way, milliseconds in self.milliseconds.items())
        verdict = f"slower here: {self.advice}" if self.advice else "agrees"
        return f"measured {self.title}: {times}; selected: {self.chosen}, {verdict}"


def measure(device: torch.device) -> list[Measurement]:
    """Time fp32 against bf16 in a training step of preset tiny, and plain against fused attention on a CPU."""
    with default_settings(device, all_threads=True):
        found = [_precision(device)]
        if device.type == "cpu":
            has_bf16, _ = bf16_hardware(use_cpu=True)
            dtypes = (torch.float32, torch.bfloat16) if has_bf16 else (torch.float32,)
            found += [_attention(shape, dtype) for dtype in dtypes for shape in _SHAPES]
        return found


def compare(title: str, chosen: str, ways: dict[str, Callable[[], Any]], advice: dict[str, str]) -> Measurement:
    """Time the ways alternately, and compare the fastest with the chosen one.

    Args:
        title: see `Measurement`.
        chosen: see `Measurement`.
        ways: way → function that computes it once and waits for the result.
        advice: way → what to set to select it.
    """
    times = {way: 1000 * seconds for way, seconds in _best_seconds(ways).items()}
    fastest = min(times, key=times.__getitem__)
    is_wrong = times[chosen] > _NOISE * times[fastest]
    return Measurement(title, chosen, times, advice[fastest] if is_wrong else "")


def _best_seconds(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    for compute in ways.values():
        compute()  # warm-up
    best = dict.fromkeys(ways, float("inf"))
    end = time.perf_counter() + _SECONDS
    while True:
        for way, compute in ways.items():
            start = time.perf_counter()
            compute()
            best[way] = min(best[way], time.perf_counter() - start)
        if time.perf_counter() > end:
            return best


def _precision(device: torch.device) -> Measurement:
    config = preset("tiny", vocab_size=2000)
    model: Any = VanillaTransformerForConditionalGeneration(config)
    model = model.to(device).train()
    ids = torch.randint(4, 2000, (64, 16), device=device)

    def step(precision: str) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        model.zero_grad()
        float(loss.detach())  # waits for the device

    chosen = best_precision(device.type == "cpu", model)[0]
    ways = {"fp32": lambda: step("fp32"), "bf16": lambda: step("bf16")}
    advice = {name: f"train small models with precision: {name}" for name in ways}
    return compare("a training step of preset tiny, 64 × 16 tokens", chosen, ways, advice)


def _attention(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> Measurement:
    batch, heads, queries, keys, width = shape
    training = queries > _SEARCH_QUERIES
    query = torch.randn(batch, heads, queries, width, dtype=dtype, requires_grad=training)
    key, value = (torch.randn(batch, heads, keys, width, dtype=dtype, requires_grad=training) for _ in range(2))
    mask = torch.zeros(batch, 1, 1, keys, dtype=dtype)

    def plain() -> None:
        _backward(plain_attention(query, key, value, mask, 0.0, query.shape[-1] ** -0.5))

    def fused() -> None:
        _backward(functional.scaled_dot_product_attention(query, key, value, mask))

    name = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    what = "forward and backward" if training else "forward"
    title = f"attention in {name}, {what}, {batch} sentences, {heads} heads, {queries} queries, {keys} keys"
    chosen = "plain" if prefers_plain_products(query, key) else "fused"
    advice = {
        "plain": 'load models with attn_implementation="eager" for such batches',
        "fused": 'load models with attn_implementation="fused" for such batches',
    }
    if not training:  # the search has no setting for it
        advice = dict.fromkeys(advice, "report this line with the name of the processor, so that the rule is corrected")
    return compare(title, chosen, {"plain": plain, "fused": fused}, advice)


def _backward(context: torch.Tensor) -> None:
    if context.requires_grad:
        context.sum().backward()


__all__ = ["Measurement", "compare", "measure"]
