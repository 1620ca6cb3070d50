"""One CUDA GPU: training and decoding of preset big in bf16, beside MarianMT and torch.nn.Transformer.

Before anything is timed, results in bf16 are held against fp32's on the same weights.
"""

import copy
from typing import Any

import torch
from decoding import MARIAN as MARIAN_GENERATE
from decoding import generate, marian_model, our_model, our_search
from machine import matrix_rate, memory_bandwidth
from side_by_side import OURS, Goal, Options, Result, Row, Skipped, per_second, take_turns
from training_step import (
    MARIAN,
    SMOOTHING,
    TORCH,
    base_config,
    example_batch,
    marian_step,
    our_step,
    profile_of,
    step_floor,
    step_operations,
    torch_step,
)

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset

LOSS_TOLERANCE = 2e-2  # relative; bf16 keeps 8 bits, and a sum over tokens averages most of that out
GRADIENT_COSINE = 0.99  # least cosine between the gradients of bf16 and fp32


def check_against_fp32(config: Any, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Compare loss and gradient in bf16 with fp32's, without dropout, on the same weights.

    Returns:
        ``loss_fp32``, ``loss_bf16``, ``relative_difference`` and ``gradient_cosine``.

    Raises:
        RuntimeError: If they differ by more than rounding.
    """
    torch.manual_seed(0)
    device = batch["input_ids"].device
    config = copy.deepcopy(config)
    config.dropout = 0.0
    model = VanillaTransformerForConditionalGeneration(config).to(device).train()
    losses, gradients = {}, {}
    for precision in ("fp32", "bf16"):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch, label_smoothing=SMOOTHING).loss
        loss.backward()
        losses[precision] = float(loss.detach())
        parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
        gradients[precision] = torch.cat([parameter.grad.flatten().float() for parameter in parameters])
        model.zero_grad()
    found = {
        "loss_fp32": losses["fp32"],
        "loss_bf16": losses["bf16"],
        "relative_difference": abs(losses["bf16"] / losses["fp32"] - 1.0),
        "gradient_cosine": float(torch.nn.functional.cosine_similarity(gradients["fp32"], gradients["bf16"], dim=0)),
    }
    if found["relative_difference"] > LOSS_TOLERANCE or found["gradient_cosine"] < GRADIENT_COSINE:
        raise RuntimeError(f"bf16 differs from fp32 by more than rounding: {found}")
    return found


def check_search_against_cpu(config: Any, batch: dict[str, torch.Tensor], tokens: int) -> dict[str, float]:
    """Compare the scores of the GPU's beam search in fp32 with the CPU's, for two sentences.

    Raises:
        RuntimeError: If a score differs by more than rounding.
    """
    device = batch["input_ids"].device
    source = {name: batch[name][:2] for name in ("input_ids", "attention_mask")}
    model = our_model(config, torch.float32, device)
    on_device = our_search(model, source, 4, tokens)().sequences_scores.cpu()
    on_cpu = our_search(model.cpu(), {name: tensor.cpu() for name, tensor in source.items()}, 4, tokens)()
    difference = float((on_device - on_cpu.sequences_scores).abs().max())
    if difference > 1e-2:
        raise RuntimeError(f"beam search scores differ between devices by {difference} nats")
    return {"search_score_difference_nats": difference}


def measure_on(device: torch.device, options: Options) -> Result:
    """Measure on ``device``; a GPU in earnest, the CPU only to see whether this runs."""
    config = base_config(True) if options.quick else preset("big", vocab_size=37000)
    length = 8 if options.quick else 64
    sentences = 4 if options.quick else 25_000 // length
    tokens = 6 if options.quick else 24
    rounds = options.rounds or (2 if options.quick else 10)
    batch = example_batch(config.vocab_size, sentences, length, device)
    checks = {
        **check_against_fp32(config, {name: tensor[:8] for name, tensor in batch.items()}),
        **check_search_against_cpu(config, batch, tokens),
    }

    steps = {
        OURS: our_step(config, batch, "bf16"),
        MARIAN: marian_step(config, batch, "bf16"),
        TORCH: torch_step(config, batch, "bf16"),
    }
    seconds = take_turns(steps, rounds, warm_up=1 if options.quick else 4, device=device)
    target_tokens = int((batch["labels"] != -100).sum())
    speeds = {name: per_second(target_tokens, runs) for name, runs in seconds.items()}
    operations = step_operations(config, sentences, length)
    rate = matrix_rate(torch.bfloat16, device, options.quick)
    bandwidth = memory_bandwidth(device, options.quick)
    what = f"training step on a GPU, preset big, bf16, {sentences * length:,} tokens"
    table = [
        Row(what, "target tokens/s", speeds[OURS], speeds[name], name, goal=Goal(least=2.0)) for name in (MARIAN, TORCH)
    ]
    table.append(
        Row(
            "share of the GPU's measured bf16 matrix rate",
            f"of {rate / 1e12:,.1f} TFLOP/s",
            [operations / run / rate for run in seconds[OURS]],
            [operations / run / rate for run in seconds[MARIAN]],
            MARIAN,
            goal=Goal("ours", least=0.45),
        )
    )
    profile = {
        "checks": checks,
        "floor": {"bf16": step_floor(config, operations, "bf16", rate, bandwidth)},
        "operators": {name: profile_of(step) for name, step in steps.items()},
    }
    steps.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()

    batch = example_batch(config.vocab_size, 4 if options.quick else 32, 8 if options.quick else 24, device)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    rows = source["input_ids"].shape[0]
    contenders = {
        OURS: our_search(our_model(config, torch.bfloat16, device), source, 4, tokens),
        MARIAN_GENERATE: generate(marian_model(config, torch.bfloat16, device), source, 4, tokens),
    }
    runs = take_turns(contenders, rounds, device=device)
    written = {name: per_second(rows * tokens, each) for name, each in runs.items()}
    title = f"beam 4 on a GPU, preset big, bf16, batch {rows}, {tokens} tokens out"
    table.append(
        Row(
            title,
            "tokens/s",
            written[OURS],
            written[MARIAN_GENERATE],
            f"{MARIAN_GENERATE}, bf16",
            goal=Goal(least=4.0),
        )
    )
    return Result(
        "gpu",
        "Training steps and beam search of preset big on one GPU; bf16 results are checked against fp32 first.",
        table,
        profile,
        {"precision": "bf16", "vocab_size": config.vocab_size, "sentences": sentences, "length": length},
    )


def measure(options: Options) -> Result:
    """Measure on the CUDA GPU that is here."""
    if not torch.cuda.is_available():
        raise Skipped("gpu: no CUDA device here")
    return measure_on(torch.device("cuda"), options)
