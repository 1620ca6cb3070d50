"""torch.nn.Transformer of the same size in a plain training loop."""

# Shapes: B batch · S source length · T target length · V vocabulary · N beams

import math
import random
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence

from .job import Contender, Job, Measurements, TrainingClock, best_length_penalty
from .task import BATCH, MAX_EXTRA_TOKENS, Task

NUM_BEAMS = 5
LENGTH_PENALTIES = (0.6, 1.0, 1.4)
POSITIONS = 512
# Kernels of scaled_dot_product_attention: torch's choice, or plain products, which can be faster on a CPU.
ATTENTION = {"sdpa": nullcontext, "math": lambda: sdpa_kernel(SDPBackend.MATH)}
POOL = 100  # batches whose sentences are sorted by length together


class Translator(nn.Module):
    """torch.nn.Transformer with sinusoidal positions, and one matrix for both embeddings and the output."""

    positions: Tensor  # (POSITIONS, D)

    def __init__(self, sizes: dict[str, Any], vocab_size: int, pad: int) -> None:
        super().__init__()
        width = sizes["d_model"]
        self.pad, self.scale = pad, math.sqrt(width)
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=pad)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        angles = torch.arange(POSITIONS)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        positions = torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)
        self.register_buffer("positions", positions, persistent=False)
        self.dropout = nn.Dropout(sizes["dropout"])
        self.transformer = nn.Transformer(
            width,
            sizes["num_heads"],
            sizes["encoder_layers"],
            sizes["decoder_layers"],
            sizes["d_ff"],
            sizes["dropout"],
            batch_first=True,
        )

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids (B, T) as (B, T, D)."""
        return self.dropout(self.embedding(ids) * self.scale + self.positions[: ids.shape[1]])

    def encode(self, source: Tensor) -> Tensor:
        """Encode ids (B, S)."""
        return self.transformer.encoder(self.embed(source), src_key_padding_mask=source == self.pad)

    def decode(self, target: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        """Return the decoder's states (B, T, D)."""
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1]).isinf()
        return self.transformer.decoder(
            self.embed(target),
            memory,
            tgt_mask=causal,
            tgt_is_causal=True,
            memory_key_padding_mask=source == self.pad,
        )

    def logits(self, states: Tensor) -> Tensor:
        """Return scores of the next token."""
        return nn.functional.linear(states, self.embedding.weight)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return logits (B, T, V)."""
        return self.logits(self.decode(target, self.encode(source), source))


def batches(task: Task, tokens: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield padded sources and targets without end; neither side of a batch has more than ``tokens`` positions."""
    sources = [torch.tensor(ids) for ids in task.training_ids["input_ids"]]
    targets = [torch.tensor(ids) for ids in task.training_ids["labels"]]
    lengths = [(len(source), len(target)) for source, target in zip(sources, targets, strict=True)]
    pad, generator = task.tokenizer.pad_token_id, random.Random(seed)
    while True:
        order = list(range(len(sources)))
        generator.shuffle(order)
        order = [
            place
            for first in range(0, len(order), POOL * BATCH)
            for place in sorted(order[first : first + POOL * BATCH], key=lambda place: lengths[place])
        ]
        groups: list[list[int]] = [[]]
        longest = 0
        for place in order:
            longest = max(longest, *lengths[place])
            if groups[-1] and longest * (len(groups[-1]) + 1) > tokens:
                groups.append([])
                longest = max(lengths[place])
            groups[-1].append(place)
        generator.shuffle(groups)
        for group in groups:
            yield tuple(  # type: ignore[misc]
                pad_sequence([side[place] for place in group], batch_first=True, padding_value=pad)
                for side in (sources, targets)
            )


def translate(
    model: Translator, task: Task, texts: list[str], num_beams: int, length_penalty: float = 1.0
) -> list[str]:
    """Translate by beam search with GNMT's length penalty, in batches of like length; one beam is greedy."""
    ids = task.tokenizer(texts)["input_ids"]
    translations = [""] * len(texts)
    order = sorted(range(len(texts)), key=lambda place: len(ids[place]))
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        source = pad_sequence([torch.tensor(ids[place]) for place in places], batch_first=True, padding_value=model.pad)
        with torch.inference_mode():
            found = beam_search(model, task, source, num_beams, length_penalty)
        for place, text in zip(places, task.tokenizer.batch_decode(found, skip_special_tokens=True), strict=True):
            translations[place] = text
    return translations


def beam_search(
    model: Translator, task: Task, source: Tensor, num_beams: int, length_penalty: float
) -> list[list[int]]:
    """Return the best translation of each source (B, S); every step runs the decoder on the whole prefix."""
    start, end, vocab = task.tokenizer.bos_token_id, task.tokenizer.eos_token_id, len(task.tokenizer)
    rows = source.shape[0]
    memory = model.encode(source).repeat_interleave(num_beams, dim=0)
    source = source.repeat_interleave(num_beams, dim=0)
    prefixes = torch.full((rows * num_beams, 1), start)  # (B·N, T)
    scores = torch.full((rows, num_beams), -math.inf)
    scores[:, 0] = 0.0  # all beams are the same at first
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(rows)]
    offsets = torch.arange(rows)[:, None] * num_beams
    for length in range(1, source.shape[1] + MAX_EXTRA_TOKENS + 1):
        open_rows = [row for row in range(rows) if len(finished[row]) < num_beams]
        if not open_rows:
            break
        states = model.decode(prefixes, memory, source)[:, -1]
        following = model.logits(states).float().log_softmax(-1)
        following[:, model.pad] = -math.inf
        candidates = (scores.view(-1, 1) + following).view(rows, num_beams * vocab)
        best, places = candidates.topk(2 * num_beams, dim=1)  # enough if every beam ends
        beams, tokens = places // vocab, places % vocab
        divisor = ((5 + length) / 6) ** length_penalty
        for row in open_rows:
            for rank in range(num_beams):
                if tokens[row, rank] == end and best[row, rank] > -math.inf:
                    prefix = prefixes[row * num_beams + beams[row, rank], 1:].tolist()
                    finished[row].append((best[row, rank].item() / divisor, prefix))
        best = best.masked_fill(tokens == end, -math.inf)
        scores, chosen = best.topk(num_beams, dim=1)
        prefixes = torch.cat(
            (prefixes[(beams.gather(1, chosen) + offsets).flatten()], tokens.gather(1, chosen).view(-1, 1)), dim=1
        )
    return [max(found)[1] if found else prefixes[row * num_beams, 1:].tolist() for row, found in enumerate(finished)]


def schedule(update: int, warm_up: int, total: int) -> float:
    """Return the share of the peak learning rate: a linear rise, then a linear fall to 0."""
    return min(update / warm_up, max(total - update + 1, 0) / max(total - warm_up, 1), 1.0)


def run(job: Job, task: Task) -> dict[str, Any]:
    """Train in a plain loop."""
    torch.manual_seed(job.seed)
    settings, tokenizer = job.settings, task.tokenizer
    model = Translator(job.architecture, len(tokenizer), tokenizer.pad_token_id)
    criterion = nn.CrossEntropyLoss(ignore_index=tokenizer.pad_token_id, label_smoothing=0.1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings["learning_rate"], betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: schedule(done + 1, job.warm_up, job.total_updates)
    )
    autocast = torch.autocast("cpu", torch.bfloat16) if settings["precision"] == "bf16" else nullcontext()
    measurements = Measurements(job, task.validation_bleu)
    sources = {split: task.lines(split, 0) for split in ("validation", "test")}
    tokens_seen, losses = 0, torch.zeros(())
    since = 0

    def add_point() -> None:
        nonlocal losses, since
        model.eval()
        translations = translate(model, task, sources["validation"], 1)
        measurements.add_point(translations, tokens_seen, losses.item() / max(since, 1))
        losses, since = torch.zeros(()), 0
        model.train()

    model.train()
    clock = TrainingClock()
    attention = ATTENTION[settings["attention"]]
    for updates, (source, target) in enumerate(batches(task, settings["tokens"], job.seed), start=1):
        start = torch.full((len(target), 1), tokenizer.bos_token_id)
        with autocast, attention():
            logits = model(source, torch.cat((start, target[:, :-1]), dim=1))
            loss = criterion(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses += loss.detach()
        since += 1
        tokens_seen += int((target != tokenizer.pad_token_id).sum())
        if measurements.after_update(updates, clock.seconds) or updates >= job.total_updates:
            break
        if measurements.point_is_due:
            with clock.paused():
                add_point()
    model.eval()
    if job.purpose != "speed":
        add_point()
        model.eval()
    found = measurements.record(
        evaluation_seconds=round(clock.paused_seconds, 1),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    if job.purpose == "final":
        found["final"] = best_length_penalty(
            lambda split, penalty: translate(model, task, sources[split], NUM_BEAMS, penalty),
            task.scores, LENGTH_PENALTIES, NUM_BEAMS,
        )  # fmt: skip
    return found


CONTENDER = Contender(
    "torch",
    "torch.nn.Transformer, plain loop",
    run,
    rates=(0.001, 0.002, 0.004),
    choices={"tokens": (1024, 2048, 4096)},
    kernels=tuple(
        {"precision": precision, "attention": attention} for precision in ("fp32", "bf16") for attention in ATTENTION
    ),
    fixed="batches by length, fused AdamW with betas 0.9 and 0.98, no weight decay, label smoothing 0.1, gradient norm "
    "clipped at 1, linear warm-up and decay to 0; its dropout also acts on attention weights and inside the "
    "feed-forward network; the last weights are the final model",
)
