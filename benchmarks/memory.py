"""Memory of training: of a whole step, of what the loss adds, and how it grows with the length of a sentence.

Every figure is the peak of a process that does nothing else (this file, called with a task), minus what the process
held before: after its imports, after the same step without the loss, or after a short warm-up. Beside the whole step
stands what it is made of: what every contender of that size holds, and what the forward pass keeps for the backward.
"""

# Shapes: B batch · T length of source and target · V vocabulary

import argparse
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from machine import memory_available
from side_by_side import MEBIBYTE, OURS, Goal, Options, Result, Row, Skipped
from training_step import (
    MARIAN,
    SMOOTHING,
    Step,
    base_config,
    example_batch,
    marian_config,
    marian_step,
    our_step,
)
from transformers import MarianMTModel
from transformers.trainer_pt_utils import LabelSmoother

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset

_STATUS = Path("/proc/self/status")
# glibc keeps freed blocks of up to 32 MiB for later, more of them the longer a process runs. With a fixed threshold
# the peak is what was asked for at one time.
_PLAIN_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}


# --------------------------------------------------------------------------- in the process that is measured


def resident() -> float:
    """Bytes this process holds in memory now."""
    return _status("VmRSS:")


def peak() -> float:
    """The most bytes this process has ever held in memory."""
    if _STATUS.is_file():
        return _status("VmHWM:")
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _status(key: str) -> float:
    if not _STATUS.is_file():
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return float(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def training_step(who: str, precision: str, quick: bool) -> Step:
    """Return the step that `training_step.py` times, of one contender."""
    config = base_config(quick)
    batch = example_batch(config.vocab_size, *((4, 8) if quick else (32, 32)))
    return (our_step if who == "ours" else marian_step)(config, batch, precision)


def peak_of_step(who: str, precision: str, quick: bool) -> float:
    """Bytes that model, gradients, optimizer and a step add to the imports, at their peak."""
    before = resident()
    step = training_step(who, precision, quick)
    for _ in range(3):
        step()
    return peak() - before


def kept_for_backward(who: str, precision: str, quick: bool) -> float:
    """Bytes that a step's forward pass keeps for its backward pass, parameters not counted."""
    step = training_step(who, precision, quick)
    kept: dict[int, int] = {}  # bytes of each storage, by its address: several tensors may lie in one

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor if tensor._base is None else tensor._base, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return float(sum(kept.values()))


def added_by_loss(who: str, precision: str, quick: bool, tokens: int) -> float:
    """Bytes that the loss of a step adds to the same step with a trivial one.

    The trivial loss takes one position of each sentence through the output projection, so that the projection has a
    gradient as well; what differs is the rest of the logits and what is made of them.
    """
    config = base_config(quick)
    config.encoder_layers = config.decoder_layers = 1
    config.d_ff = 64  # small layers: the loss is what this is about
    batch = example_batch(config.vocab_size, tokens // 32, 32)
    labels = batch["labels"]
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if who == "ours":
        model: Any = VanillaTransformerForConditionalGeneration(config)
    else:
        model = MarianMTModel(marian_config(config))
    smoother = LabelSmoother(SMOOTHING)
    model.train()

    def run(with_loss: bool) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            if not with_loss:
                loss = model.lm_head(model.model(**inputs, use_cache=False).last_hidden_state[:, :1]).float().sum()
            elif who == "ours":
                loss = model(**batch, label_smoothing=SMOOTHING).loss
            else:
                loss = smoother(model(**inputs, use_cache=False), labels)
        loss.backward()

    for _ in range(2):
        run(with_loss=False)
    before = peak()
    run(with_loss=True)
    return peak() - before


def added_by_length(who: str, precision: str, quick: bool, length: int) -> float:
    """Bytes that a step on sentences of ``length`` tokens adds to one on short ones."""
    config = preset("base", encoder_layers=2, decoder_layers=2, vocab_size=1000)
    if quick:
        config = preset("tiny", encoder_layers=1, decoder_layers=1, vocab_size=100)
    batches = [example_batch(config.vocab_size, 2, size) for size in (32, length)]
    model: Any
    if who == "ours":
        model = VanillaTransformerForConditionalGeneration(config).train()
    else:
        model = MarianMTModel(marian_config(config, attn_implementation="eager")).train()
    before = 0.0
    for batch in batches:  # the first is the warm-up
        before = resident()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch).loss
        loss.backward()
    return peak() - before


# --------------------------------------------------------------------------- in the process that asks


def in_process(
    task: str, who: str, options: Options, plain: bool = False, precision: str | None = None, **size: int
) -> float:
    """Measure in a fresh process, with freed blocks given back at once if ``plain``, and return bytes.

    ``precision`` is the headline's if it is None.
    """
    precision = precision or options.precision
    command = [sys.executable, __file__, task, who, precision, *(["--quick"] if options.quick else [])]
    command += [word for name, value in size.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, **(_PLAIN_ALLOCATION if plain else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-1000:]}")
    measured = float(json.loads(done.stdout.splitlines()[-1]))
    note = f", {precision} {size or ''}{' freed blocks given back' if plain else ''}"
    print(f"  {task} {who}{note}: {measured / MEBIBYTE:,.0f} MiB", file=sys.stderr)
    return measured


def _parts(who: str, options: Options) -> dict[str, float]:
    """What the memory of a step is made of, in MiB."""
    # Each parameter is there four times: itself, its gradient and Adam's two moments, all in fp32.
    state = 4 * 4 * base_config(options.quick).count_parameters()
    parts = {
        "parameters_gradients_and_moments_MiB": state,
        "kept_for_the_backward_pass_MiB": in_process("kept", who, options),
        "peak_if_freed_blocks_are_given_back_MiB": in_process("step", who, options, plain=True),
    }
    return {name: round(amount / MEBIBYTE, 1) for name, amount in parts.items()}


def growth_exponent(lengths: list[int], amounts: list[float]) -> float:
    """Fit p in ``amount(T) − amount(T₀) ∝ (T − T₀)^p``, by least squares on logarithms; T₀ is the shortest length.

    Exactly 1 where memory is a constant plus something linear; towards 2 as attention's T × T matrices take over.
    """
    points = [
        (math.log(length - lengths[0]), math.log(max(amount - amounts[0], 1.0)))
        for length, amount in zip(lengths[1:], amounts[1:], strict=True)
    ]
    mean_x, mean_y = (sum(point[axis] for point in points) / len(points) for axis in (0, 1))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def measure(options: Options) -> Result:
    """Measure all three."""
    if not sys.platform.startswith("linux"):
        raise Skipped("memory: resident memory is read from /proc, which this system has not")
    rounds = options.rounds or (1 if options.quick else 3)
    rows = []

    for precision in options.precisions:
        step: dict[str, list[float]] = {"ours": [], "marian": []}
        for _ in range(rounds):
            for who, runs in step.items():
                runs.append(in_process("step", who, options, precision=precision) / MEBIBYTE)
        rows.append(
            Row(
                f"peak resident memory of the training step, {precision}",
                "MiB",
                step["ours"],
                step["marian"],
                MARIAN,
                "lower",
                share=True,
                goal=Goal(most=0.75),
            )
        )

    skipped: list[str] = []
    vocab_size = base_config(options.quick).vocab_size
    for tokens in (256, 512) if options.quick else (4096, 16384):
        runs = [in_process("loss", "ours", options, plain=True, tokens=tokens) / MEBIBYTE for _ in range(rounds)]
        peer: list[float] = []
        if memory_available() > tokens * vocab_size * 4 * 8:
            peer = [in_process("loss", "marian", options, plain=True, tokens=tokens) / MEBIBYTE for _ in range(rounds)]
        else:
            skipped.append(f"memory of the peer's loss at {tokens:,} tokens: this machine has too little")
        goal = Goal("ours", most=64) if tokens == 16384 else None
        title = f"memory that the loss adds at {tokens:,} tokens, V = {vocab_size:,}"
        rows.append(Row(title, "MiB", runs, peer, MARIAN, "lower", share=True, goal=goal))

    lengths = [64, 128, 256] if options.quick else [64, 128, 256, 512, 1024, 2048]
    growth = {
        who: [in_process("length", who, options, plain=True, length=length) for length in lengths]
        for who in ("ours", "marian")
    }
    rows.append(
        Row(
            f"training memory as T grows {lengths[0]} → {lengths[-1]:,}",
            "exponent of T",
            [growth_exponent(lengths, growth["ours"])],
            [growth_exponent(lengths, growth["marian"])],
            "transformers MarianMT, eager attention",
            "lower",
            share=True,
            goal=Goal("ours", most=1.1),
            note="1 is linear, 2 quadratic",
        )
    )
    profile = {
        "memory": {name: _parts(who, options) for name, who in ((OURS, "ours"), (MARIAN, "marian"))},
        "lengths": lengths,
        **{f"{who}_MiB": [round(amount / MEBIBYTE, 1) for amount in amounts] for who, amounts in growth.items()},
    }
    return Result(
        "memory",
        "Peak resident memory of processes that do nothing else, minus what they held before.",
        rows,
        profile,
        {"precision": options.precision, "vocab_size": vocab_size, "rounds": rounds, "ours": OURS},
        skipped,
    )


def main() -> None:
    """Measure one thing in this process and print its bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("step", "kept", "loss", "length"))
    parser.add_argument("who", choices=("ours", "marian"))
    parser.add_argument("precision", choices=("fp32", "bf16"))
    parser.add_argument("--tokens", type=int, default=0, help="target tokens of the batch (loss)")
    parser.add_argument("--length", type=int, default=0, help="tokens of a sentence (length)")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    torch.manual_seed(0)
    who, precision, quick = asked.who, asked.precision, asked.quick
    if asked.task == "step":
        amount = peak_of_step(who, precision, quick)
    elif asked.task == "kept":
        amount = kept_for_backward(who, precision, quick)
    elif asked.task == "loss":
        amount = added_by_loss(who, precision, quick, asked.tokens)
    else:
        amount = added_by_length(who, precision, quick, asked.length)
    print(json.dumps(amount))


if __name__ == "__main__":
    main()
