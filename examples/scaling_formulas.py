"""Three formulas for the cost of an update, each compared with a measurement on this machine.

What you learn: what one update costs in arithmetic, memory and traffic, before you rent hardware. `docs/scaling.md`
uses the same formulas. Minutes: one or two. Hardware: two CPU cores, Linux. Run:

    python examples/scaling_formulas.py --output examples/results/scaling.json

Last line: `scaling: memory … of predicted, traffic … of predicted, step … of predicted`
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

import hf_vanilla_transformer as vt

PROCESSES = 2
SENTENCES, LENGTH = 16, 32  # of one process and update
UPDATES = 12
MODEL = dict(vocab_size=8000, d_model=256, d_ff=1024, num_heads=4, encoder_layers=3, decoder_layers=3, dropout=0.0)


def model_and_batch() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = vt.VanillaTransformerForConditionalGeneration(vt.VanillaTransformerConfig(**MODEL))
    ids = torch.randint(4, MODEL["vocab_size"], (SENTENCES, LENGTH))
    return model, {"input_ids": ids, "labels": ids.clone()}


def flops_an_update(model: torch.nn.Module) -> float:
    """Multiply-adds count twice; backward is two forwards. Every parameter meets every token of its side once."""
    decoder = sum(p.numel() for p in model.model.decoder.layers.parameters())
    encoder = sum(p.numel() for p in model.model.encoder.layers.parameters())
    output = MODEL["vocab_size"] * MODEL["d_model"]
    return 3 * 2 * SENTENCES * LENGTH * (encoder + decoder + output)


def activations() -> int:
    """Count the numbers that backward needs.

    In an encoder layer 8 vectors of d_model and 2 of d_ff a token, in a decoder layer 14 and 2.
    """
    d_model, d_ff = MODEL["d_model"], MODEL["d_ff"]
    encoder = MODEL["encoder_layers"] * (8 * d_model + 2 * d_ff)
    decoder = MODEL["decoder_layers"] * (14 * d_model + 2 * d_ff)
    return SENTENCES * LENGTH * (encoder + decoder)


def activation_bytes() -> int:
    """The loss adds a chunk of logits (32 MiB at most), and a gradient of the output projection."""
    logits = SENTENCES * LENGTH * MODEL["vocab_size"]
    return 4 * (activations() + min(logits, 2**23) + MODEL["vocab_size"] * MODEL["d_model"])


def bytes_moved(parameters: int) -> int:
    """Count the reads and writes of one update outside the matrix products, in bytes.

    A parameter's gradient is written by backward, copied into DDP's bucket and back (4), read with the weight and two
    moments by Adam, which writes the latter three (7), and cleared: 13. An activation is written and read going
    forward, read going back, and its gradient is written and read: 5. A logit is written, read for the maximum, read
    and written for the exponential, read for the sum, read and written for the gradient, read by two products: 9.
    """
    logits = SENTENCES * LENGTH * MODEL["vocab_size"]
    return 4 * (13 * parameters + 5 * activations() + 9 * logits)


def matrix_rate() -> float:
    """Operations a second of the three products of the model's widest layer: forward, and two going back."""
    x = torch.randn(SENTENCES * LENGTH, MODEL["d_model"])
    gradient, weight = torch.randn(SENTENCES * LENGTH, MODEL["d_ff"]), torch.randn(MODEL["d_model"], MODEL["d_ff"])

    def products() -> None:
        x @ weight
        gradient @ weight.T
        x.T @ gradient

    return 3 * 2 * x.numel() * MODEL["d_ff"] / median_seconds(products)


def memory_rate() -> float:
    """Bytes a second of an elementwise sum of arrays larger than the caches."""
    a, b, total = (torch.ones(2**24) for _ in range(3))
    return 3 * 4 * a.numel() / median_seconds(lambda: torch.add(a, b, out=total))


def traffic_rate(processes: int) -> float:
    """Bytes a second that one process sends in a reduction of 25 MiB, which is DDP's bucket."""
    bucket = torch.zeros(25 * 2**20 // 4)
    sent = 2 * (processes - 1) / processes * 4 * bucket.numel()
    return sent / median_seconds(lambda: distributed.all_reduce(bucket))


def median_seconds(work) -> float:
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    raise ValueError("there is no loopback device in /proc/net/dev; run this on Linux")


def run(rank: int, processes: int, port: int, results) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    before = resident_bytes()
    model, batch = model_and_batch()
    parameters = sum(p.numel() for p in model.parameters())
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(ddp.parameters(), lr=1e-4, fused=True)
    seconds, traffic = [], []
    for _ in range(UPDATES):
        distributed.barrier()
        sent, start = loopback_bytes(), time.perf_counter()
        ddp(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        distributed.barrier()
        seconds.append(time.perf_counter() - start)
        traffic.append(loopback_bytes() - sent)
    state = resident_bytes() - before
    rates = {}
    for name, rate in (("matrix", matrix_rate), ("memory", memory_rate), ("traffic", lambda: traffic_rate(processes))):
        distributed.barrier()  # all processes at once, as in an update
        rates[name] = rate()
    if rank == 0:
        sent = 2 * (processes - 1) / processes * 4 * parameters
        parts = {
            "products": flops_an_update(model) / rates["matrix"],
            "memory": bytes_moved(parameters) / rates["memory"],
            "traffic": sent / rates["traffic"],
        }
        results.put({
            "parameters": parameters,
            # weights, gradients, two moments of Adam, and the buckets in which DDP sends gradients: 4 bytes each
            "memory_bytes": {"predicted": 5 * 4 * parameters + activation_bytes(), "measured": state},
            # a ring sends every gradient 2 (N − 1) / N times from each process; the loopback device sees all of them
            "traffic_bytes": {"predicted": 2 * (processes - 1) * 4 * parameters, "measured": min(traffic)},
            "step_seconds": {"predicted": sum(parts.values()), "measured": sorted(seconds)[len(seconds) // 2]},
            "step_parts": parts,
            "rates": rates,
            "all_seconds": seconds,
        })  # fmt: skip
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--port", type=int, default=29531)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    workers = multiprocessing.spawn(run, (PROCESSES, options.port, results), nprocs=PROCESSES, join=False)
    record = results.get()
    workers.join()
    record["hardware"] = f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}"
    record["processes"] = PROCESSES
    ratios = {}
    for name in ("memory_bytes", "traffic_bytes", "step_seconds"):
        predicted, measured = record[name]["predicted"], record[name]["measured"]
        ratios[name] = record[name]["ratio"] = measured / predicted
        print(f"{name}: predicted {predicted:.4g}, measured {measured:.4g}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(record, indent=2) + "\n")
    print(
        f"scaling: memory {ratios['memory_bytes']:.2f} of predicted, traffic {ratios['traffic_bytes']:.2f} of "
        f"predicted, step {ratios['step_seconds']:.2f} of predicted"
    )


if __name__ == "__main__":
    main()
