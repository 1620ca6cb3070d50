"""Plain matrix products beside torch's fused attention kernel on the CPU, for the shapes of training and of search.

The record holds the time of both for every shape (``profile.shapes``). The table in the model that selects between them
follows from it: `disagreements` lists the shapes where a rule selects the slower one. To print the times of a record,
and where a function ``(query, key) -> bool`` selects the slower kernel:

    python benchmarks/attention_kernels.py RECORD.json --rule MODULE:FUNCTION
"""

# Shapes: B batch · T queries · S keys · H heads · K d_k

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from machine import DTYPES
from side_by_side import Options, Result, Row
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

REGISTER = {"AVX512": 64, "AVX2": 32}.get(torch.backends.cpu.get_cpu_capability(), 16)  # bytes
HEADS = ((4, 32), (8, 64))  # H and K of presets tiny and base
TOKENS = 1024  # of a training batch: its sentences are TOKENS / length
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
# Of search. Self-attention has one query for each hypothesis, and few keys in the first steps; cross-attention has one
# for each hypothesis of a sentence.
QUERIES, SENTENCES, KEYS = (1, 4, 8), (1, 8, 16, 32, 64, 256), (4, 8, 12, 15, 16, 24, 32, 48, 64, 128)
MARGIN = 1.1  # a difference below this factor is noise: either choice is right
Attention = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Shape:
    """One call of attention: what a rule may look at to select a kernel.

    Attributes:
        use: "training" (forward and backward), "encoding" (forward of as many queries as keys) or "search" (forward of
            few queries, whose keys and values are the filled part of a larger cache).
        dtype: "fp32" or "bf16".
        sentences: B; in search one sentence has as many queries as it has beams.
        heads: H.
        key_dim: K.
        queries: T.
        keys: S.
    """

    use: str
    dtype: str
    sentences: int
    heads: int
    key_dim: int
    queries: int
    keys: int

    @property
    def backward(self) -> bool:
        """Whether gradients are computed."""
        return self.use == "training"

    def query_and_key(self) -> tuple[Tensor, Tensor]:
        """Return a query (B, H, T, K) and a key (B, H, S, K) for a rule to look at; they take no memory."""
        one = torch.zeros((), dtype=DTYPES[self.dtype])
        sizes = self.sentences, self.heads
        return one.expand(*sizes, self.queries, self.key_dim), one.expand(*sizes, self.keys, self.key_dim)


@dataclass(frozen=True)
class Timing:
    """Microseconds of one shape, the shortest of several runs."""

    shape: Shape
    plain: float
    fused: float

    @property
    def plain_is_faster(self) -> bool:
        """Whether plain products take less time."""
        return self.plain < self.fused

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of the record."""
        times = {"plain_us": round(self.plain, 1), "fused_us": round(self.fused, 1)}
        return {**asdict(self.shape), **times, "plain_is_faster": self.plain_is_faster}

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> "Timing":
        """Read an entry of a record."""
        return cls(
            Shape(**{name: entry[name] for name in Shape.__dataclass_fields__}), entry["plain_us"], entry["fused_us"]
        )


@dataclass(frozen=True)
class Choice:
    """What a rule selects for a measured shape.

    Attributes:
        timing: of the shape.
        plain: whether the rule selects plain products.
    """

    timing: Timing
    plain: bool

    @property
    def microseconds(self) -> float:
        """Time of what the rule selects."""
        return self.timing.plain if self.plain else self.timing.fused

    @property
    def loss(self) -> float:
        """Time of what the rule selects, divided by that of the faster kernel."""
        return self.microseconds / min(self.timing.plain, self.timing.fused)


def disagreements(
    timings: Iterable[Timing], prefers_plain: Callable[[Shape], bool], margin: float = MARGIN
) -> list[Choice]:
    """List the shapes for which a rule selects a kernel that is slower by more than ``margin``, the worst first."""
    choices = [Choice(timing, prefers_plain(timing.shape)) for timing in timings]
    return sorted((choice for choice in choices if choice.loss > margin), key=lambda choice: -choice.loss)


# --------------------------------------------------------------------------- the contenders


def plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Compute softmax(scale · Q Kᵀ + mask) V by two products and a softmax, whose rows fill a vector register."""
    scores = (query * scale) @ key.transpose(-2, -1) + mask
    keys = scores.shape[-1]
    missing = max(0, REGISTER // scores.element_size() - keys)
    return pad(scores, (0, missing), value=float("-inf")).softmax(dim=-1)[..., :keys] @ value


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Compute the same by torch's kernel."""
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def all_shapes(quick: bool) -> list[Shape]:
    """List the shapes to measure."""
    if quick:
        return [
            Shape("training", "fp32", 2, 2, 8, 4, 4),
            Shape("encoding", "fp32", 2, 2, 8, 4, 4),
            Shape("search", "bf16", 2, 2, 8, 1, 4),
        ]
    shapes = [
        Shape(use, dtype, max(TOKENS // length, 1), heads, key_dim, length, length)
        for use in ("training", "encoding")
        for dtype in DTYPES
        for heads, key_dim in HEADS
        for length in LENGTHS
    ]
    shapes += [
        Shape("search", dtype, sentences, heads, key_dim, queries, keys)
        for dtype in DTYPES
        for heads, key_dim in HEADS
        for sentences in SENTENCES
        for queries in QUERIES
        for keys in KEYS
    ]
    return shapes


def call(attention: Attention, shape: Shape) -> Callable[[], object]:
    """Return a function that runs ``attention`` once on random numbers of ``shape``; the last two keys are hidden."""
    dtype, scale = DTYPES[shape.dtype], shape.key_dim**-0.5
    sizes = (shape.sentences, shape.heads, shape.key_dim)
    mask = torch.zeros(shape.sentences, 1, shape.queries, shape.keys, dtype=dtype)
    mask[..., -2:] = torch.finfo(dtype).min
    # (B, T, H·K) as the projections write it, seen as (B, H, T, K)
    query, *others = (
        torch.randn(sizes[0], length, sizes[1] * sizes[2], dtype=dtype).unflatten(-1, sizes[1:]).transpose(1, 2)
        for length in (shape.queries, shape.keys, shape.keys)
    )
    if shape.use == "search":
        others = [torch.randn(*sizes[:2], 2 * shape.keys, sizes[2], dtype=dtype)[:, :, : shape.keys] for _ in range(2)]
    key, value = others
    if not shape.backward:

        def forward() -> Tensor:
            with torch.inference_mode():
                return attention(query, key, value, mask, scale)

        return forward
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
    gradient = torch.randn(*sizes[:2], shape.queries, sizes[2], dtype=dtype)
    return lambda: torch.autograd.grad(attention(*inputs, mask, scale), inputs, gradient)


def time_shape(shape: Shape, budget: float, plain: Attention = plain_attention) -> Timing:
    """Run both in turns until ``budget`` seconds are used, at least five times each, and keep the shortest run."""
    runs = [call(plain, shape), call(fused_attention, shape)]
    best = [float("inf")] * len(runs)
    for run in runs:
        run()
    began, turns = time.perf_counter(), 0
    while turns < 5 or time.perf_counter() - began < budget:
        for index, run in enumerate(runs):
            started = time.perf_counter()
            run()
            best[index] = min(best[index], time.perf_counter() - started)
        turns += 1
    return Timing(shape, *(1e6 * seconds for seconds in best))


# --------------------------------------------------------------------------- the measurement


def rows_of(timings: list[Timing]) -> list[Row]:
    """Sum up each use, dtype and size of heads: the faster kernel of each shape beside the fused one for all."""
    groups: dict[tuple[str, str, int, int], list[Timing]] = {}
    for timing in timings:
        shape = timing.shape
        groups.setdefault((shape.use, shape.dtype, shape.heads, shape.key_dim), []).append(timing)
    passes = {"training": "forward and backward", "encoding": "forward", "search": "forward, few queries"}
    rows = []
    for (use, dtype, heads, key_dim), members in groups.items():
        plain = [timing.shape for timing in members if timing.plain_is_faster]
        note = f"plain products are faster for {len(plain)} of {len(members)} shapes"
        if plain and use != "search":
            note += f", up to length {max(shape.keys for shape in plain)}"
        rows.append(
            Row(
                f"attention, {passes[use]}, {dtype}, {heads} heads of {key_dim}: the faster kernel of each shape",
                "ms",
                [sum(min(timing.plain, timing.fused) for timing in members) / 1e3],
                [sum(timing.fused for timing in members) / 1e3],
                "the fused kernel for every shape",
                "lower",
                note=note,
            )
        )
    return rows


def measure(
    options: Options, prefers_plain: Callable[[Shape], bool] | None = None, plain: Attention = plain_attention
) -> Result:
    """Time both kernels for every shape.

    Args:
        options: of the run; each shape gets 0.1 s times its rounds.
        prefers_plain: a rule to compare with the measurements; its disagreements are added to the profile.
        plain: the implementation of plain products to measure.
    """
    timings = []
    for shape in all_shapes(options.quick):
        timings.append(time_shape(shape, 0.0 if options.quick else 0.1 * (options.rounds or 2), plain))
        print(f"  {shape}: plain {timings[-1].plain:,.0f} µs, fused {timings[-1].fused:,.0f} µs", file=sys.stderr)
    profile: dict[str, Any] = {"shapes": [timing.as_dict() for timing in timings]}
    if prefers_plain is not None:
        profile["disagreements"] = [
            {**choice.timing.as_dict(), "selected": "plain" if choice.plain else "fused"}
            for choice in disagreements(timings, prefers_plain)
        ]
    return Result(
        "attention_kernels",
        "Attention on the CPU by plain matrix products and by torch's fused kernel, summed over the measured shapes.",
        rows_of(timings),
        profile,
        settings={"precision": ", ".join(DTYPES), "tokens": TOKENS, "lengths": LENGTHS, "margin": MARGIN},
    )


def report(timings: Iterable[Timing]) -> str:
    """Return a line for each shape with both times and the faster kernel."""
    lines = []
    for timing in timings:
        shape = timing.shape
        ratio = timing.fused / timing.plain
        faster = "either" if 1 / MARGIN < ratio < MARGIN else "plain" if ratio > 1 else "fused"
        lines.append(
            f"{shape.use:9} {shape.dtype} {shape.heads} × {shape.key_dim} B={shape.sentences:<4} T={shape.queries:<4} "
            f"S={shape.keys:<4} plain {timing.plain:10,.1f} µs  fused {timing.fused:10,.1f} µs  {faster}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the shapes of records, and the disagreements of a rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+", help="written by run.py --only attention_kernels")
    parser.add_argument("--rule", metavar="MODULE:FUNCTION", help="returns whether plain products are preferred")
    options = parser.parse_args()
    for path in options.records:
        entries = json.loads(path.read_text(encoding="utf-8"))["profile"]["shapes"]
        timings = [Timing.from_dict(entry) for entry in entries]
        print(f"{path.name}\n{report(timings)}")
        if options.rule:
            module, _, name = options.rule.partition(":")
            rule = getattr(importlib.import_module(module), name)
            wrong = disagreements(timings, lambda shape, rule=rule: rule(*shape.query_and_key()))
            selected = sum(Choice(timing, rule(*timing.shape.query_and_key())).microseconds for timing in timings)
            least = sum(min(timing.plain, timing.fused) for timing in timings)
            print(f"the rule selects the slower kernel, by more than {MARGIN:g}×, for {len(wrong)} shapes:")
            for choice in wrong:
                print(f"{choice.loss:5.2f}× {'plain' if choice.plain else 'fused'} for {report([choice.timing])}")
            print(f"over all shapes it takes {selected / least:.3f}× the time of the faster kernel of each")


if __name__ == "__main__":
    main()
