"""Training and decoding on one GPU in bf16, beside MarianMT and torch.nn.Transformer as their users would tune them.

Rows are in order of importance and share a budget of seconds: a row that no longer fits is named as left out. Results
in bf16 are held against fp32's on the same weights before anything is timed. What is written is what `make bench`
writes of a measurement (bench-*.json), and it is written after every row.
"""

import argparse
import contextlib
import copy
import gc
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import torch
from decoding import MARIAN as MARIAN_GENERATE
from decoding import check_lengths, generate, marian_model, our_model, our_search, word_tokenizer
from progress import Budget, Progress
from side_by_side import OURS, Goal, Row, per_second, wait_for
from torch import Tensor
from training_step import (
    MARIAN,
    SMOOTHING,
    TORCH,
    Step,
    base_config,
    example_batch,
    marian_config,
    marian_step,
    our_step,
    profile_of,
    step_floor,
    step_operations,
    torch_step,
)
from transformers import (
    DataCollatorForSeq2Seq,
    MarianMTModel,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)
from transformers.utils import logging

from hf_vanilla_transformer import (
    DataCollatorForTranslation,
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    preset,
)

LOSS_TOLERANCE = 2e-2  # relative; bf16 keeps 8 bits, and a sum over tokens averages most of that out
GRADIENT_COSINE = 0.99  # least cosine between the gradients of bf16 and fp32
SCORE_TOLERANCE = 1e-2  # nats, between scores of the device's search in fp32 and the CPU's
FIRST = ("results are those of fp32", "step big")  # with these the question is answered that a minute is spent on
MARIAN_LOOP = "transformers MarianMT, Seq2SeqTrainer, group_by_length"
COMPILING = 35  # seconds that it takes to compile a step of twelve layers
WARM_UP_UPDATES = 5  # of a loop, not counted


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        tokens: source, and target, positions of a training batch.
        length: of its sentences.
        batches: sentences that are translated at a time.
        source, written: tokens of a sentence that is translated, and of its translation.
        updates: of a training loop, behind its warm-up.
        seconds: that the runs of one row may take together, beside building and warming up.
    """

    tokens: int
    length: int
    batches: tuple[int, ...]
    source: int
    written: int
    updates: int
    seconds: float


IN_EARNEST = Sizes(tokens=25_000, length=64, batches=(32, 1, 256), source=24, written=24, updates=40, seconds=5.0)
QUICK = Sizes(tokens=32, length=8, batches=(4, 1, 2), source=8, written=6, updates=2, seconds=0.05)


class Speed:
    """The measurements, and what they found so far."""

    def __init__(self, device: torch.device, quick: bool, budget: Budget, progress: Progress) -> None:
        self.device, self.quick, self.budget, self.progress = device, quick, budget, progress
        self.sizes = QUICK if quick else IN_EARNEST
        self.rows: list[Row] = []
        self.skipped: list[str] = []
        self.profile: dict[str, Any] = {"checks": {}, "floor": {}, "operators": {}, "rates": {}}

    # ------------------------------------------------------------------ rows

    def plan(self) -> dict[str, tuple[float, Callable[[], None]]]:
        """Return the rows by name, the most important first: seconds on an H100, and the measurement.

        The seconds are reckoned from 700 TFLOP/s and 3 TB/s for products and traffic, from 10 ms a step and model for a
        `generate` that launches kernels one by one, and from half a minute for compiling twelve layers.
        """
        first, *others = self.sizes.batches
        return {
            "results are those of fp32": (10, self.check),
            "step big": (25, lambda: self.step("big")),
            f"search base {first}": (12, lambda: self.search("base", first)),
            "loop base": (30, lambda: self.loop("base")),
            **{f"search base {batch}": (12, lambda batch=batch: self.search("base", batch)) for batch in others},
            "step base": (12, lambda: self.step("base")),
            f"search big {first}": (14, lambda: self.search("big", first)),
            "step big, compiled": (COMPILING + 15, lambda: self.step("big", compiled=True)),
            "step base, compiled": (COMPILING + 15, lambda: self.step("base", compiled=True)),
        }

    def run(self, which: str) -> None:
        """Measure the rows that were asked for, as long as the budget lasts."""
        for name, (seconds, measure) in self.plan().items():
            if which != "all" and (name in FIRST) != (which == "first"):
                continue
            if self.budget.left < (0 if self.quick else seconds):
                self.skipped.append(f"{name}: takes about {seconds} s, and {max(self.budget.left, 0):.0f} s were left")
            else:
                started = time.monotonic()
                try:
                    measure()
                except Exception as error:  # the other rows are worth having
                    traceback.print_exc()
                    self.skipped.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
                print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
                self._forget()
            self.write(complete=False)
        failed = [line for line in self.skipped if "were left" not in line]
        self.write(complete=True, ok=not failed and bool(self.rows))

    def write(self, complete: bool, ok: bool = False) -> None:
        """Write what there is."""
        rows = [row.as_dict() for row in self.rows]
        goals = [row for row in rows if row["met"] is not None]
        said = ", ".join(f"{_short(row)} {'met' if row['met'] else 'NOT met'}" for row in goals) or "no goal measured"
        self.progress.add(
            rows=rows,
            skipped=self.skipped,
            profile=self.profile,
            summary=f"{len(rows)} rows, {len(self.skipped)} left out; "
            f"{'tiny sizes, whose figures mean nothing' if self.quick else said}",
            complete=complete,
            ok=ok,
        )

    def config(self, name: str) -> VanillaTransformerConfig:
        return base_config(quick=True) if self.quick else preset(name, vocab_size=37000)

    def _forget(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        torch._dynamo.reset()

    def _rate(self) -> float:
        """Return the rate of bf16 products, measured once."""
        if "bf16" not in self.profile["rates"]:
            self.profile["rates"] = {
                "bf16": machine.matrix_rate(torch.bfloat16, self.device, self.quick),
                "bytes": machine.memory_bandwidth(self.device, self.quick),
            }
        return self.profile["rates"]["bf16"]

    # ------------------------------------------------------------------ is it right?

    def check(self) -> None:
        """Compare bf16 with fp32, and the device's search with the CPU's."""
        config = self.config("base")
        batch = example_batch(config.vocab_size, 8, self.sizes.length, self.device)
        self.profile["checks"] = check_against_fp32(config, batch)
        self.profile["checks"] |= check_search_against_cpu(config, batch, self.sizes.written)

    # ------------------------------------------------------------------ a training step

    def step(self, name: str, compiled: bool = False) -> None:
        """Time a step of each."""
        config, sizes = self.config(name), self.sizes
        rows = sizes.tokens // sizes.length
        batch = example_batch(config.vocab_size, rows, sizes.length, self.device)
        makers = {OURS: our_step, TORCH: torch_step, MARIAN: marian_step}
        backend = None if not compiled else "eager" if self.quick else "inductor"
        steps: dict[str, Step] = {}
        for contender, make in makers.items():
            if compiled and not self.quick and self.budget.left < COMPILING:
                self.skipped.append(f"step {name}, compiled, {contender}: {self.budget.left:.0f} s were left")
                continue
            try:
                steps[contender] = make(config, batch, "bf16", compiled=backend)
                for _ in range(1 if self.quick else 3):
                    steps[contender]()
            except Exception as error:
                if contender == OURS:
                    raise
                steps.pop(contender, None)
                self.skipped.append(f"step {name}, {contender}: {type(error).__name__}: {str(error)[:200]}")
        seconds = timed(steps, sizes.seconds, self.device)
        target_tokens = int((batch["labels"] != -100).sum())
        speeds = {contender: per_second(target_tokens, runs) for contender, runs in seconds.items()}
        how = ", compiled" if compiled else ""
        what = f"training step, preset {name}, bf16, {rows * sizes.length:,} tokens{how}"
        goals = {MARIAN: Goal(least=2.0), TORCH: Goal(least=1.3)}
        for peer in (peer for peer in (MARIAN, TORCH) if peer in speeds):
            title = f"{peer}{how}, bf16, fused AdamW"
            self.rows.append(Row(what, "target tokens/s", speeds[OURS], speeds[peer], title, goal=goals[peer]))
        rate = self._rate()
        operations = step_operations(config, rows, sizes.length)
        shares = {contender: [operations / run / rate for run in runs] for contender, runs in seconds.items()}
        self.rows.append(
            Row(
                f"share of the measured bf16 matrix rate, preset {name}{how}",
                f"of {rate / 1e12:,.1f} TFLOP/s",
                shares[OURS],
                shares.get(MARIAN, []),
                MARIAN if MARIAN in shares else None,
                goal=Goal("ours", least=0.45) if name == "big" else None,
                note=f"{operations / 1e12:,.2f} TFLOP a step, counted over all positions",
            )
        )
        bandwidth = self.profile["rates"]["bytes"]
        self.profile["floor"][what] = step_floor(config, operations, "bf16", rate, bandwidth)
        for contender, run in steps.items():
            self.profile["operators"][f"{contender}, {what}"] = profile_of(run)

    # ------------------------------------------------------------------ a training loop

    def loop(self, name: str) -> None:
        """Time whole loops on sentences of many lengths: batches, padding, copies, updates and logging."""
        config, sizes = self.config(name), self.sizes
        data = sentences(config.vocab_size, 200 if self.quick else 60_000)
        tokenizer = word_tokenizer(config)
        mean = sum(len(row["labels"]) for row in data) / len(data)
        updates = WARM_UP_UPDATES + sizes.updates
        speeds = {}
        for contender, make in ((OURS, our_loop), (MARIAN_LOOP, marian_loop)):
            with tempfile.TemporaryDirectory() as folder:
                collator, clock = Counted(), Clock(self.device)
                trainer = make(config, data, tokenizer, collator, updates, sizes.tokens, mean, folder, self.device)
                trainer.remove_callback(PrinterCallback)
                trainer.add_callback(clock)
                trainer.train()
            tokens = sum(collator.tokens[WARM_UP_UPDATES:updates])
            speeds[contender] = [tokens / (clock.ended[-1] - clock.ended[0])]
            del trainer
            self._forget()
        what = f"training loop, preset {name}, bf16, about {sizes.tokens:,} tokens per update"
        self.rows.append(
            Row(what, "target tokens/s", speeds[OURS], speeds[MARIAN_LOOP], MARIAN_LOOP, goal=Goal(least=2.0))
        )

    # ------------------------------------------------------------------ search

    def search(self, name: str, batch_size: int) -> None:
        """Time beam search of ours and `generate` of MarianMT, which write equally many tokens."""
        config, sizes = self.config(name), self.sizes
        batch = example_batch(config.vocab_size, batch_size, sizes.source, self.device)
        source = {key: batch[key] for key in ("input_ids", "attention_mask")}
        contenders = {
            OURS: our_search(our_model(config, torch.bfloat16, self.device), source, 4, sizes.written),
            MARIAN_GENERATE: generate(marian_model(config, torch.bfloat16, self.device), source, 4, sizes.written),
        }
        for contender, decode in contenders.items():
            check_lengths(decode, sizes.written, contender)  # this warms up, too
        seconds = timed(contenders, sizes.seconds, self.device)
        speeds = {contender: per_second(batch_size * sizes.written, runs) for contender, runs in seconds.items()}
        what = f"beam 4, batch {batch_size}, preset {name}, bf16, {sizes.written} tokens out"
        self.rows.append(
            Row(
                what,
                "tokens/s",
                speeds[OURS],
                speeds[MARIAN_GENERATE],
                f"{MARIAN_GENERATE}, bf16",
                goal=Goal(least=4.0) if batch_size == sizes.batches[0] else None,
            )
        )
        self.profile["operators"][f"{OURS}, {what}"] = profile_of(contenders[OURS])


# --------------------------------------------------------------------------- pieces


def timed(
    contenders: Mapping[str, Callable[[], object]], seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Time contenders in turns until they have used ``seconds`` together, at least twice each."""
    runs: dict[str, list[float]] = {name: [] for name in contenders}
    while any(len(own) < 2 for own in runs.values()) or sum(map(sum, runs.values())) < seconds:
        for name, run in contenders.items():
            wait_for(device)
            started = time.perf_counter()
            run()
            wait_for(device)
            runs[name].append(time.perf_counter() - started)
    return runs


def check_against_fp32(config: VanillaTransformerConfig, batch: dict[str, Tensor]) -> dict[str, float]:
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
    if not (found["relative_difference"] < LOSS_TOLERANCE and found["gradient_cosine"] > GRADIENT_COSINE):
        raise RuntimeError(f"bf16 differs from fp32 by more than rounding: {found}")
    return found


def check_search_against_cpu(
    config: VanillaTransformerConfig, batch: dict[str, Tensor], tokens: int
) -> dict[str, float]:
    """Compare the scores of the device's beam search in fp32 with the CPU's, for two sentences.

    Raises:
        RuntimeError: If a score differs by more than rounding.
    """
    device = batch["input_ids"].device
    source = {name: batch[name][:2] for name in ("input_ids", "attention_mask")}
    model = our_model(config, torch.float32, device)
    on_device = our_search(model, source, 4, tokens)().sequences_scores.cpu()
    on_cpu = our_search(model.cpu(), {name: tensor.cpu() for name, tensor in source.items()}, 4, tokens)()
    difference = float((on_device - on_cpu.sequences_scores).abs().max())
    if not difference < SCORE_TOLERANCE:
        raise RuntimeError(f"beam search scores differ between devices by {difference} nats")
    return {"search_score_difference_nats": difference}


def sentences(vocab_size: int, number: int) -> list[dict[str, list[int]]]:
    """Make random sentences with the lengths of news text: a median of 24 tokens, one in a hundred above 75."""
    generator = torch.Generator().manual_seed(0)
    sides = []
    for _ in range(2):
        lengths = (torch.randn(number, generator=generator) * 0.5).exp().mul(24).long().clamp(4, 150)
        ids = torch.randint(4, vocab_size - 1, (int(lengths.sum()),), generator=generator)
        sides.append([[*words, 2] for words in (part.tolist() for part in ids.split(lengths.tolist()))])
    return [{"input_ids": source, "labels": target} for source, target in zip(*sides, strict=True)]


class Counted:
    """A collator that notes how many real target tokens each batch had."""

    def __init__(self) -> None:
        self.collator: Callable[[list[Any]], Any] = lambda rows: rows
        self.tokens: list[int] = []

    def __call__(self, features: list[Any]) -> Any:
        batch = self.collator(features)
        self.tokens.append(int((batch["labels"] != -100).sum()))
        return batch


class Clock(TrainerCallback):
    """Notes when the warm-up and when the last update was done, on the device as well."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ended: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in (WARM_UP_UPDATES, state.max_steps):
            wait_for(self.device)
            self.ended.append(time.perf_counter())


def our_loop(
    config: VanillaTransformerConfig,
    data: list[dict[str, list[int]]],
    tokenizer: Any,
    collator: Counted,
    updates: int,
    tokens: int,
    mean: float,
    folder: str,
    device: torch.device,
) -> Any:
    """Build our trainer; see `marian_loop`, which has the same parameters."""
    collator.collator = DataCollatorForTranslation(tokenizer, config.decoder_start_token_id)
    arguments = VanillaTransformerTrainingArguments(
        **_common(folder, updates, device), max_tokens_per_batch=max(tokens, 400), precision="bf16"
    )
    model = VanillaTransformerForConditionalGeneration(config)
    return VanillaTransformerTrainer(
        model, arguments, data_collator=collator, train_dataset=data, processing_class=tokenizer
    )


def marian_loop(
    config: VanillaTransformerConfig,
    data: list[dict[str, list[int]]],
    tokenizer: Any,
    collator: Counted,
    updates: int,
    tokens: int,
    mean: float,
    folder: str,
    device: torch.device,
) -> Any:
    """Build the stock trainer with a MarianMT of the same size and batches of about ``tokens`` tokens."""
    model = MarianMTModel(marian_config(config))
    collator.collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    arguments = Seq2SeqTrainingArguments(
        **_common(folder, updates, device),
        per_device_train_batch_size=max(2, round(tokens / mean)),
        train_sampling_strategy="group_by_length",
        label_smoothing_factor=SMOOTHING,
        bf16=True,
        optim="adamw_torch_fused",
    )
    return Seq2SeqTrainer(model, arguments, data_collator=collator, train_dataset=data, processing_class=tokenizer)


def _common(folder: str, updates: int, device: torch.device) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": updates,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 20,
        "use_cpu": device.type == "cpu",
    }


def _short(row: dict[str, Any]) -> str:
    """Name a row and what came of it in a few words."""
    of_ours = row["goal"].endswith(row["unit"])
    figure = f"{row['ours']:.3g}" if of_ours or row["ratio"] is None else f"{row['ratio']:.2f}×"
    peer = "" if of_ours else row["peer_name"] or ""
    of = next((short for name, short in {MARIAN: " / Marian", TORCH: " / torch"}.items() if peer.startswith(name)), "")
    return f"{row['measure'].split(', bf16')[0]}{of} {figure} (goal {row['goal'].split(' of ')[0]})"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="file for the results")
    parser.add_argument("--seconds", type=float, required=True, help="budget")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rows", choices=("all", "first", "rest"), default="all", help="first: those of most interest")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    asked = parser.parse_args()
    budget = Budget(asked.seconds)
    progress = Progress(
        asked.output,
        part="speed",
        name="gpu",
        what="Training steps, loops and beam search on one GPU in bf16; bf16 results are checked against fp32 first.",
        quick=asked.quick,
        precision={"headline": "bf16", "why": "the usual training precision on such a GPU"},
        hardware=machine.hardware(),
        versions=machine.versions(),
        commit=machine.commit(),
        settings={"rows": asked.rows, "seconds": asked.seconds},
        rows=[],
        skipped=[],
    )
    logging.set_verbosity_error()
    if asked.device == "cuda" and not torch.cuda.is_available():
        progress.add(summary=f"torch {torch.__version__} finds no CUDA device", complete=True)
        raise SystemExit(1)
    speed = Speed(torch.device(asked.device), asked.quick, budget, progress)
    with contextlib.suppress(KeyboardInterrupt):
        speed.run(asked.rows)


if __name__ == "__main__":
    main()
