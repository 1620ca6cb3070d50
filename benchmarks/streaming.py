"""How fast pairs pass through the streaming pipeline, and that its memory stays flat (data only, no model).

    python benchmarks/streaming.py --pairs 5000000 --output examples/results/bench-streaming-neither.json

Synthetic pairs of token ids with the lengths of translation go through `TokenBudgetStream` (pool, sort, batch, shuffle)
and the collator's padding. Speed is counted by the processor's seconds, so that it is no matter what else the machine
does; the seconds on the wall are in the file too. Last line:
`streaming: … pairs per second of one core, resident memory grew by … MiB after the first tenth`
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from machine import hardware, versions
from torch.utils.data import DataLoader

import hf_vanilla_transformer as vt

CHUNK = 10_000  # pairs drawn at a time
TOKENS_AN_UPDATE = 25_000


class SyntheticPairs:
    """Pairs of token ids that are made while they are read, so that none of them is kept."""

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        rng = np.random.default_rng(0)
        ids = rng.integers(4, 32_000, 1000).tolist()
        for start in range(0, self.pairs, CHUNK):
            number = min(CHUNK, self.pairs - start)
            source = np.minimum(np.exp(rng.normal(3.0, 0.5, number)).astype(int) + 2, 200)
            target = np.minimum((source * rng.uniform(0.8, 1.3, number)).astype(int) + 1, 200)
            first = rng.integers(0, 800, number)
            for s, t, begin in zip(source.tolist(), target.tolist(), first.tolist(), strict=True):
                yield {"input_ids": ids[begin : begin + s], "labels": ids[begin : begin + t]}


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    def pad(column: str, value: int) -> torch.Tensor:
        longest = max(len(row[column]) for row in rows)
        return torch.tensor([row[column] + [value] * (longest - len(row[column])) for row in rows])

    return {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100)}


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    stream = vt.TokenBudgetStream(SyntheticPairs(options.pairs), TOKENS_AN_UPDATE)
    memory: list[tuple[int, float]] = []
    seen = tokens = positions = 0
    start, start_cpu = time.perf_counter(), time.process_time()
    for batch in DataLoader(stream, batch_size=None, collate_fn=collate):
        seen += len(batch["labels"])
        tokens += int((batch["labels"] != -100).sum() + (batch["input_ids"] != 0).sum())
        positions += batch["labels"].numel() + batch["input_ids"].numel()
        if seen >= (len(memory) + 1) * options.pairs / 20:
            print(f"{seen:,} pairs, {resident_mib():.0f} MiB", flush=True)
            memory.append((seen, round(resident_mib(), 1)))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    if seen != options.pairs:
        raise SystemExit(f"{seen} of {options.pairs} pairs came out")
    settled = [mib for pairs, mib in memory if pairs >= options.pairs / 10]
    grown = max(settled) - settled[0]
    record = {
        "name": "streaming",
        "what": f"Streaming {seen:,} synthetic pairs through batching and padding, one core",
        "rows": [
            {"measure": "pairs per second", "ours": round(seen / cpu_seconds)},
            {"measure": "growth of resident memory after the first tenth", "ours": round(grown, 1), "unit": "MiB"},
            {"measure": "padding", "ours": round(100 * (1 - tokens / positions), 2), "unit": "%"},
        ],
        "hardware": hardware(),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "resident_mib": memory,
    }
    if options.output:
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(
        f"streaming: {seen / cpu_seconds:,.0f} pairs per second of one core, resident memory grew by {grown:.0f} MiB "
        "after the first tenth"
    )


if __name__ == "__main__":
    main()
