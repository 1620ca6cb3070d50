"""One training step of the paper's base model beside MarianMT and torch.nn.Transformer of the same size.

A step is forward, loss with label smoothing 0.1, backward and a fused Adam update. Every contender gets the same batch
and trains the same way; the loss is its own: ours inside the model, transformers' `LabelSmoother` for Marian, torch's
cross-entropy for torch.nn.Transformer. The peers run with torch's attention kernel and with plain products, which can
be faster on a CPU, and the faster one counts; ours chooses by itself. All are measured twice: as torch runs by default,
and with freed memory kept in the process, which our Trainer does.
"""

# Shapes: B batch · S source length · T target length · V vocabulary

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from machine import DTYPES, matrix_rate, memory_bandwidth
from side_by_side import OURS, Goal, Options, Result, Row, take_turns
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import MarianConfig, MarianMTModel
from transformers.trainer_pt_utils import LabelSmoother

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    freed_memory_kept,
    preset,
)

SMOOTHING = 0.1
MARIAN, TORCH = "transformers MarianMT + LabelSmoother", "torch.nn.Transformer"
ATTENTIONS = ("sdpa", "eager")  # of the peers, as transformers names them: torch's kernel, and plain products
Step = Callable[[], Tensor]


def example_batch(
    vocab_size: int, rows: int, length: int, device: torch.device | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Make a batch of random sentences whose every second row is padded by a quarter, on both sides of the model.

    Returns:
        ``input_ids``, ``attention_mask`` (B, S), ``decoder_input_ids``, ``labels`` (B, T) as Trainer's collators give
        them: −100 where there is no label.
    """
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[::2, 3 * length // 4 :] = 0
    # Ids from 4 to V − 2 are plain words for every model here.
    source, target = (torch.randint(4, vocab_size - 1, (rows, length), generator=generator) for _ in range(2))
    labels = target.masked_fill(mask == 0, -100)
    inputs = torch.ones_like(target)
    inputs[:, 1:] = target[:, :-1] * mask[:, :-1]
    batch = {"input_ids": source * mask, "attention_mask": mask, "decoder_input_ids": inputs, "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def marian_config(config: VanillaTransformerConfig, **fields: Any) -> MarianConfig:
    """Describe a MarianMT of the same sizes; its special ids lie where OPUS-MT has them, padding last."""
    last = config.vocab_size - 1
    sizes: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.d_ff,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "dropout": config.dropout,
        "activation_function": "relu",
        "scale_embedding": True,
        "max_position_embeddings": 2048,
        "pad_token_id": last,
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "decoder_start_token_id": last,
    }
    return MarianConfig(**{**sizes, **fields})


class TorchTransformer(nn.Module):
    """torch.nn.Transformer with one matrix for both embeddings and the output, as the paper ties them."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.scale = config.d_model**0.5
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.transformer = nn.Transformer(
            config.d_model,
            config.num_heads,
            config.encoder_layers,
            config.decoder_layers,
            config.d_ff,
            config.dropout,
            batch_first=True,
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """Return logits (B, T, V)."""
        padded = attention_mask == 0
        causal = nn.Transformer.generate_square_subsequent_mask(decoder_input_ids.shape[1], device=input_ids.device)
        states = self.transformer(
            self.embedding(input_ids) * self.scale,
            self.embedding(decoder_input_ids) * self.scale,
            tgt_mask=causal,
            src_key_padding_mask=padded,
            memory_key_padding_mask=padded,
            tgt_is_causal=True,
        )
        return nn.functional.linear(states, self.embedding.weight)


def our_step(
    config: VanillaTransformerConfig,
    batch: dict[str, Tensor],
    precision: str,
    change: Callable[[Any], Any] = lambda model: model,
    compiled: str | None = None,
) -> Step:
    """Return a function that makes one step of our model, after ``change``, on ``batch`` and returns its loss."""
    model = change(VanillaTransformerForConditionalGeneration(config))
    return _step(model, batch, precision, lambda: model(**batch, label_smoothing=SMOOTHING).loss, compiled)


def marian_step(
    config: VanillaTransformerConfig,
    batch: dict[str, Tensor],
    precision: str,
    attention: str | None = None,
    compiled: str | None = None,
) -> Step:
    """Return a function that makes one step of MarianMT as the stock Trainer makes it with label smoothing.

    Args:
        config: whose sizes Marian takes.
        batch: from `example_batch`.
        precision: "fp32" or "bf16", the latter by autocast.
        attention: transformers' name of the attention; None is Marian's default.
        compiled: backend that compiles model and loss; None compiles nothing.
    """
    model = MarianMTModel(marian_config(config, attn_implementation=attention) if attention else marian_config(config))
    smoother = LabelSmoother(SMOOTHING)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    return _step(model, batch, precision, lambda: smoother(model(**inputs, use_cache=False), batch["labels"]), compiled)


def torch_step(
    config: VanillaTransformerConfig,
    batch: dict[str, Tensor],
    precision: str,
    attention: str | None = None,
    compiled: str | None = None,
) -> Step:
    """Return a function that makes one step of torch.nn.Transformer; its attention is "eager" by torch's context."""
    model = TorchTransformer(config)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}

    def loss() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH) if attention == "eager" else nullcontext():
            logits = model(**inputs).flatten(0, 1)
        return nn.functional.cross_entropy(logits, batch["labels"].flatten(), label_smoothing=SMOOTHING)

    return _step(model, batch, precision, loss, compiled)


def _step(
    model: nn.Module, batch: dict[str, Tensor], precision: str, loss_of: Callable[[], Tensor], compiled: str | None
) -> Step:
    device = batch["input_ids"].device
    model.to(device).train()
    loss_of = torch.compile(loss_of, backend=compiled) if compiled else loss_of
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, fused=True
    )

    def step() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def step_operations(config: VanillaTransformerConfig, rows: int, length: int) -> float:
    """Count a step's floating-point operations over all positions, padding included: three forward passes' worth.

    Every matrix product of the built model counts, attention's and the output projection's as well, a multiplication
    and an addition as two.
    """
    config = VanillaTransformerConfig.from_dict(config.to_dict(), attn_implementation="eager")
    with torch.device("meta"):
        model = VanillaTransformerForConditionalGeneration(config).eval()
        states = torch.empty(rows, length, config.d_model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs_embeds=states, decoder_inputs_embeds=states, use_cache=False)
    return 3.0 * counter.get_total_flops()


def step_floor(
    config: VanillaTransformerConfig, operations: float, precision: str, rate: float, bandwidth: float
) -> dict[str, Any]:
    """Compute the least time of a step: its products at the measured rate, its parameters' traffic at the measured
    bandwidth.

    Args:
        config: the model.
        operations: of a step; see `step_operations`.
        precision: with bf16 each parameter is cast once.
        rate: measured operations per second at that precision.
        bandwidth: measured bytes per second, read and written together.
    """
    parameters = config.count_parameters()
    # Adam reads parameter, gradient and two moments and writes three of them; a gradient is written once. A cast reads
    # 4 bytes and writes 2.
    bytes_moved = parameters * (4 * (4 + 3) + 4 + (6 if precision == "bf16" else 0))
    return {
        "precision": precision,
        "operations": operations,
        "matrix_rate": round(rate),
        "seconds_of_products": operations / rate,
        "parameters": parameters,
        "bytes_of_parameters_moved": bytes_moved,
        "bandwidth": round(bandwidth),
        "seconds_of_traffic": bytes_moved / bandwidth,
        "seconds": operations / rate + bytes_moved / bandwidth,
    }


def profile_of(step: Callable[[], Any]) -> list[dict[str, Any]]:
    """Profile one step, or one search; see `dearest`."""
    with profiler() as profile:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return dearest(profile)


def profiler() -> torch.profiler.profile:
    """Make a profiler of the processor, and of the GPU where there is one."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    return torch.profiler.profile(activities=activities)


def dearest(profile: torch.profiler.profile, most: int = 14) -> list[dict[str, Any]]:
    """List the operators that cost most by themselves, dearest first.

    Returns:
        A dictionary an operator: ``operator``, ``calls``, ``milliseconds`` and ``share`` of all that was profiled.
    """
    averages = profile.key_averages()

    def microseconds(entry: Any) -> float:
        return entry.self_device_time_total if torch.cuda.is_available() else entry.self_cpu_time_total

    total = sum(map(microseconds, averages)) or 1.0
    return [
        {
            "operator": entry.key,
            "calls": entry.count,
            "milliseconds": round(microseconds(entry) / 1e3, 2),
            "share": round(microseconds(entry) / total, 4),
        }
        for entry in sorted(averages, key=microseconds, reverse=True)[:most]
    ]


@dataclass(frozen=True)
class Setting:
    """How a contender is run; ``attention`` is that of a peer."""

    name: str
    precision: str
    attention: str = ""

    def __str__(self) -> str:
        """Name it as the record's profiles do."""
        return f"{self.name} {self.precision}" + (f" attention {self.attention}" if self.attention else "")


def base_config(quick: bool) -> VanillaTransformerConfig:
    """The paper's base model with 37,000 words, or something tiny of the same form."""
    if not quick:
        return preset("base")
    return preset("base", vocab_size=500, d_model=32, d_ff=64, num_heads=2, encoder_layers=1, decoder_layers=1)


def measure(options: Options) -> Result:
    """Time the step in each precision; the headline compares the fastest setting of each contender."""
    config = base_config(options.quick)
    rows, length = (4, 8) if options.quick else (32, 32)
    rounds = options.rounds or (2 if options.quick else 7)
    batch = example_batch(config.vocab_size, rows, length)
    precisions = options.precisions
    steps: dict[Setting, Step] = {}
    for precision in precisions:
        steps[Setting(OURS, precision)] = our_step(config, batch, precision)
        for attention in ATTENTIONS:
            steps[Setting(MARIAN, precision, attention)] = marian_step(config, batch, precision, attention)
            steps[Setting(TORCH, precision, attention)] = torch_step(config, batch, precision, attention)
    warm_up = 1 if options.quick else 2
    rates = {precision: matrix_rate(DTYPES[precision], quick=options.quick) for precision in precisions}
    seconds = take_turns(steps, rounds, warm_up)

    def fastest(name: str, *among: str) -> Setting:
        settings = [setting for setting in steps if setting.name == name and setting.precision in among]
        return min(settings, key=lambda setting: min(seconds[setting]))

    best = {name: fastest(name, *precisions) for name in (OURS, MARIAN, TORCH)}

    what = f"training step, preset base, {rows}×{length}, half the rows padded"
    table = [
        Row(
            f"{what}, best precision of each",
            "s",
            seconds[best[OURS]],
            seconds[best[peer]],
            peer,
            "lower",
            goal=Goal(least=least),
            note=f"ours {best[OURS].precision}, peer {best[peer].precision}, attention {best[peer].attention}",
        )
        for peer, least in ((MARIAN, 1.8), (TORCH, 1.4))
    ]
    for precision in precisions:
        for peer in (MARIAN, TORCH):
            theirs = fastest(peer, precision)
            table.append(
                Row(
                    f"{what}, {precision}",
                    "s",
                    seconds[Setting(OURS, precision)],
                    seconds[theirs],
                    f"{peer}, {precision}",
                    "lower",
                    note=f"peer's attention {theirs.attention}",
                )
            )

    # Each contender in its best setting, all under the setting of our Trainer.
    with freed_memory_kept(torch.device("cpu")) as kept:
        kept_seconds = take_turns({name: steps[setting] for name, setting in best.items()}, rounds, warm_up)
    suffix = ", freed memory kept" if kept else ""
    if kept:
        table += [
            Row(
                f"{what}, best precision of each, freed memory kept for both",
                "s",
                kept_seconds[OURS],
                kept_seconds[peer],
                peer,
                "lower",
            )
            for peer in (MARIAN, TORCH)
        ]
    operations = step_operations(config, rows, length)
    # Measured before the steps and after them: the machine may have been slower at one of the two times.
    rates = {
        precision: max(rates[precision], matrix_rate(DTYPES[precision], quick=options.quick))
        for precision in precisions
    }
    bandwidth = memory_bandwidth(quick=options.quick)
    table.append(
        Row(
            f"share of the measured matrix rate of its precision that the step reaches{suffix}",
            "of the rate",
            [operations / run / rates[best[OURS].precision] for run in kept_seconds[OURS]],
            [operations / run / rates[best[MARIAN].precision] for run in kept_seconds[MARIAN]],
            MARIAN,
            goal=Goal("ours", least=0.75),
            note=f"{operations / 1e9:,.0f} GFLOP per step, counted over all positions; measured rate "
            + ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in rates.items()),
        )
    )
    profile = {
        "floor": {
            precision: step_floor(config, operations, precision, rates[precision], bandwidth)
            for precision in precisions
        },
        "operators": {str(setting): profile_of(step) for setting, step in steps.items()},
    }
    skipped = []
    if "bf16" not in precisions:
        skipped.append(f"training step in bf16: {options.precision_reason}")
    return Result(
        "training_step",
        "One training step of preset base beside MarianMT and torch.nn.Transformer of the same size: forward, loss "
        "with label smoothing 0.1, backward, fused Adam.",
        table,
        profile,
        {
            "precision": best[OURS].precision,
            "vocab_size": config.vocab_size,
            "rows": rows,
            "length": length,
            "rounds": rounds,
        },
        skipped,
    )
