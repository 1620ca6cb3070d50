"""The Transformer against what came before: four of the claims made for it, each with a figure and a number.

You learn: what training in parallel is worth and where (claim 1), what happens to quality and gradients as sentences
grow (claim 2), how deep a post-norm stack can be before it stops learning (claim 4), and what is left without positions
(claim 7). Sutskever's encoder-decoder, Bahdanau's with attention, and the Transformer see the same sentences, through
the same Trainer, for the same minutes.

    python examples/compare_with_rnn/run.py

The task is a translation by rule: lists of numbers in English words → the same in Korean words ("forty two , seven"
→ "사 십 이 , 칠"), 1 to 10 numbers in training and up to 40 in the test. Minutes: under 20. Hardware: two CPU cores,
where a recurrent net suffers less from being sequential than on a GPU. Figures and results.json go to --output. The
last line is "compare_with_rnn: claim_1=… claim_2=… claim_4=… claim_7=… minutes=… output=…": for each claim the number
that speaks for or against it; results.json says what it means.
"""

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, set_seed

from hf_vanilla_transformer import (
    BeamSearchConfig,
    DataCollatorForTranslation,
    TokenBudgetSampler,
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    paper_beam_search,
    train_tokenizer,
)

sys.path.insert(0, str(Path(__file__).parent))
from models import RecurrentConfig, RecurrentForTranslation  # noqa: E402 (the file beside this one)

D_MODEL = 128
NAMES = ("rnn", "rnn+attention", "transformer")
COLOURS = {"rnn": "#d95f02", "rnn+attention": "#7570b3", "transformer": "#1b9e77"}  # told apart by the colour-blind
OTHER_COLOURS = ("#0072b2", "#e69f00", "#56b4e9", "#d55e00", "#cc79a7", "#000000", "#999999", "#009e73")  # likewise
TRAINED, UNTRAINED = ", trained", ", untrained"
TITLES = {  # in the legends
    "rnn": "RNN",
    "rnn+attention": "RNN with attention",
    "transformer": "Transformer",
    "self-attention": "self-attention",
    "recurrent": "recurrent (LSTM)",
    "large start, 12 + 12 layers": "post-norm, 12 + 12 layers, Glorot gain everywhere",
    "no positions, 2 + 2 layers": "post-norm, 2 + 2 layers, no positions",
}
# Of Adam; round numbers, not searched for: whoever claims more for one of the three should search for all three alike.
PEAK_RATE = {"rnn": 2e-3, "rnn+attention": 2e-3, "transformer": 1.5e-3}
TRAINED_ON = (1, 10)  # numbers a list


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        train_seconds: of each of the three models, evaluations not counted.
        evaluations: of each model on the way.
        depth_updates: of each depth; the same for with and without positions.
        depths: layers of encoder and decoder.
        lists: of training.
        tests: lists a length.
        test_lengths: numbers a list.
        speed_lengths: tokens per sentence.
        speed_tokens: source tokens per batch, and as many target tokens.
        layer_lengths: n of Table 1.
        gradient_length: source words.
    """

    train_seconds: float = 120.0
    evaluations: int = 8
    depth_updates: int = 300
    depths: tuple[int, ...] = (2, 4, 6, 8, 12)
    lists: int = 40_000
    tests: int = 60
    test_lengths: tuple[int, ...] = (1, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40)
    speed_lengths: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    speed_tokens: int = 2048
    layer_lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    gradient_length: int = 24


QUICK = Plan(
    train_seconds=1.0,
    evaluations=1,
    depth_updates=2,
    depths=(2, 3),
    lists=300,
    tests=3,
    test_lengths=(1, 4),
    speed_lengths=(8, 16),
    speed_tokens=64,
    layer_lengths=(16, 32),
    gradient_length=5,
)


# --------------------------------------------------------------------------- the data

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()  # fmt: skip  # noqa: E501
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_KOREAN = " 일이삼사오육칠팔구"


def in_english(number: int) -> str:
    """Write 1 … 99."""
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")


def in_korean(number: int) -> str:
    """Write 1 … 99 in Sino-Korean, syllables apart."""
    tens, ones = divmod(number, 10)
    syllables = ([] if tens < 2 else [_KOREAN[tens]]) + (["십"] if tens else []) + ([_KOREAN[ones]] if ones else [])
    return " ".join(syllables)


def make_lists(count: int, lengths: tuple[int, int], seed: int) -> list[tuple[str, str]]:
    """Draw lists of numbers in both languages, of lengths within bounds."""
    generator = random.Random(seed)
    rows = []
    for _ in range(count):
        numbers = [generator.randint(1, 99) for _ in range(generator.randint(*lengths))]
        rows.append((" , ".join(map(in_english, numbers)), " , ".join(map(in_korean, numbers))))
    return rows


# --------------------------------------------------------------------------- the models


def transformer(tokenizer: Any, layers: int = 2, **fields: Any) -> VanillaTransformerForConditionalGeneration:
    """Build the paper's model, small."""
    config = VanillaTransformerConfig(
        vocab_size=len(tokenizer), d_model=D_MODEL, d_ff=2 * D_MODEL, num_heads=4, encoder_layers=layers,
        decoder_layers=layers, dropout=0.0, **fields,
    )  # fmt: skip
    return VanillaTransformerForConditionalGeneration(config)


def without_positions(tokenizer: Any) -> VanillaTransformerForConditionalGeneration:
    """Build the model with a table of positions that is zero and stays so."""
    model = transformer(tokenizer, position_embedding_type="learned")
    for name, parameter in model.named_parameters():
        if "positions" in name:
            nn.init.zeros_(parameter)
            parameter.requires_grad_(False)
    return model


def with_glorot_gain(model: VanillaTransformerForConditionalGeneration) -> VanillaTransformerForConditionalGeneration:
    """Undo the smaller initialization of residual branches: all matrices get Glorot's gain."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.div_(getattr(module, "initial_gain", 1.0))
    return model


def build(name: str, tokenizer: Any) -> Any:
    """Build one of `NAMES`; all three have about as many parameters."""
    if name == "transformer":
        return transformer(tokenizer)
    # Widths with which all three have about 700,000 parameters.
    width = {"rnn": 136, "rnn+attention": 160}[name]
    return RecurrentForTranslation(
        RecurrentConfig(vocab_size=len(tokenizer), d_model=width, attention=name == "rnn+attention")
    )


def greedy(model: Any, input_ids: Tensor, attention_mask: Tensor, max_tokens: int) -> list[list[int]]:
    """Translate a batch greedily; return lists of ids without the EOS token."""
    if isinstance(model, RecurrentForTranslation):
        rows = model.translate_greedily(input_ids, attention_mask, max_tokens).tolist()
    else:
        output = paper_beam_search(
            model, input_ids, attention_mask, BeamSearchConfig(num_beams=1, max_target_tokens=max_tokens)
        )
        rows = [hypotheses[0] for hypotheses in output.hypotheses()]
    return [row[: row.index(2)] if 2 in row else row for row in rows]


# --------------------------------------------------------------------------- training


class BudgetTrainer(Seq2SeqTrainer):
    """The stock Trainer, with batches filled by tokens."""

    def get_train_dataloader(self) -> DataLoader:
        """Return batches of 1,000 source and target tokens."""
        lengths = [[len(row) for row in self.train_dataset[key]] for key in ("input_ids", "labels")]
        sampler = TokenBudgetSampler(*lengths, 1_000, seed=self.args.seed)
        return DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)


class Clock(TrainerCallback):
    """Stops training after a number of seconds and measures quality in between, which is not counted."""

    def __init__(self, seconds: float, looks: int, look: Callable[[], dict[str, float]]) -> None:
        self.seconds, self.looks, self.look = seconds, looks, look
        self.spent, self.resumed, self.history = 0.0, 0.0, []  # seconds, seconds, what was seen

    def share(self) -> float:
        """Return the share of the time budget that is spent."""
        return min(1.0, (self.spent + time.perf_counter() - self.resumed) / self.seconds) if self.resumed else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.resumed = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        spent = self.spent + time.perf_counter() - self.resumed
        if spent >= self.seconds * (len(self.history) + 1) / self.looks:
            self.spent = spent
            self.history.append({"seconds": round(spent, 1), "updates": state.global_step, **self.look()})
            self.resumed = time.perf_counter()
        control.should_training_stop = len(self.history) >= self.looks


def train(
    model: Any, dataset: Dataset, tokenizer: Any, folder: Path, rate: float, updates: int, clock: Clock | None = None
) -> list[dict[str, float]]:
    """Train by updates, or by the clock where there is one; return the logged losses."""
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder), max_steps=updates, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_steps=max(1, min(updates, 300) // 10), max_grad_norm=1.0, use_cpu=True, seed=1,
        remove_unused_columns=False,
    )  # fmt: skip
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=rate, betas=(0.9, 0.98), eps=1e-9)

    def scale(step: int) -> float:  # a rise over 50 updates, then down to 0 by the end
        done = step / updates if clock is None else clock.share()
        return min(1.0, (step + 1) / 50) * (1.0 - done)

    trainer = BudgetTrainer(
        model, arguments, data_collator=DataCollatorForTranslation(tokenizer), train_dataset=dataset,
        optimizers=(optimizer, LambdaLR(optimizer, scale)), callbacks=[clock] if clock else None,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.eval()
    return [{"updates": row["step"], "loss": row["loss"]} for row in trainer.state.log_history if "loss" in row]


def quality(model: Any, tokenizer: Any, rows: list[tuple[str, str]]) -> float:
    """Share of the words that are right and in their place, as in the reference."""
    model.eval()
    batch = tokenizer([source for source, _ in rows], padding=True, return_tensors="pt")
    longest = max(len(ids) for ids in tokenizer([target for _, target in rows])["input_ids"])
    found = greedy(model, batch["input_ids"], batch["attention_mask"], longest + 10)
    right = total = 0
    for ids, (_, reference) in zip(found, rows, strict=True):
        ours, theirs = tokenizer.decode(ids, skip_special_tokens=True).split(), reference.split()
        right += sum(a == b for a, b in zip(ours, theirs, strict=False))
        total += max(len(ours), len(theirs))
    model.train()
    return right / total


# --------------------------------------------------------------------------- measurements


def median_seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Time a piece of work, after one run that doesn't count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def measure_speed(tokenizer: Any, plan: Plan) -> dict[str, list[float]]:
    """Measure training tokens per second at each sentence length, source and target together."""
    speeds: dict[str, list[float]] = {}
    for name in NAMES:
        model, speeds[name] = build(name, tokenizer).train(), []
        for length in plan.speed_lengths:
            rows = max(1, plan.speed_tokens // length)
            ids = torch.randint(4, len(tokenizer), (rows, length))

            def step(model: Any = model, ids: Tensor = ids) -> None:
                model(
                    input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=ids, labels=ids
                ).loss.backward()

            speeds[name].append(round(2 * rows * length / median_seconds(step), 1))
    return speeds


def measure_layers(plan: Plan) -> dict[str, list[float]]:
    """Milliseconds of one layer, forward and backward, for one sentence of n positions (Table 1)."""
    costs: dict[str, list[float]] = {"self-attention": [], "recurrent": []}
    attention = nn.MultiheadAttention(D_MODEL, 4, batch_first=True)
    recurrent = nn.LSTM(D_MODEL, D_MODEL, batch_first=True)
    for length in plan.layer_lengths:
        states = torch.randn(1, length, D_MODEL)
        work = {
            "self-attention": lambda states=states: (
                attention(states, states, states, need_weights=False)[0].sum().backward()
            ),
            "recurrent": lambda states=states: recurrent(states)[0].sum().backward(),
        }
        for name, run in work.items():
            costs[name].append(round(1000 * median_seconds(run), 3))
    return costs


def gradient_norms(model: Any, tokenizer: Any, length: int) -> list[float]:
    """Gradient norm from the last number's first word to each source position, mean of 16 lists, the largest 1."""
    numbers = [[random.Random(seed * 100 + place).randint(1, 9) for place in range(length)] for seed in range(16)]
    sources = [" , ".join(map(in_english, row)) for row in numbers]
    targets = [" , ".join(map(in_korean, row)) for row in numbers]
    last = 2 * length - 2  # where the last number stands, on both sides: a token a number, a token a comma
    batch = DataCollatorForTranslation(tokenizer)(
        [
            {"input_ids": source, "labels": target}
            for source, target in zip(tokenizer(sources)["input_ids"], tokenizer(targets)["input_ids"], strict=True)
        ]
    )
    embeddings = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_(True)
    model.train()  # dropout is 0; torch's recurrent layers give gradients in this mode only on some devices
    output = model(
        inputs_embeds=embeddings, attention_mask=batch["attention_mask"], decoder_input_ids=batch["decoder_input_ids"]
    )
    assert batch["labels"].shape[1] == last + 2, "every word is a token of its own"
    log_probs = output.logits[:, last].log_softmax(dim=-1).gather(-1, batch["labels"][:, last : last + 1])
    (gradients,) = torch.autograd.grad(log_probs.sum(), embeddings)
    norms = gradients.norm(dim=-1)[:, : last + 1].mean(dim=0)
    return [round(float(norm), 6) for norm in norms / norms.max().clamp(min=1e-30)]


# --------------------------------------------------------------------------- figures


def save_plot(
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    lines: dict[str, tuple[list, list]],
    x_ticks: Sequence[int] = (),
    **scales: str,
) -> None:
    """Draw lines, each with a marker of its own beside its colour; the ticks of logarithmic axes are plain numbers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axis = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    axis.set_prop_cycle(color=OTHER_COLOURS)
    for marker, (name, (x, y)) in zip("osD^v*PX", lines.items(), strict=False):
        of_model = name.removesuffix(UNTRAINED).removesuffix(TRAINED)
        style = "--" if name.endswith(UNTRAINED) else "-"
        colour = {"color": COLOURS[of_model]} if of_model in COLOURS else {}
        label = TITLES.get(of_model, of_model) + name.removeprefix(of_model)
        axis.plot(x, y, style, marker=marker, markersize=4, label=label, **colour)
    axis.set(title=title, xlabel=x_label, ylabel=y_label, **scales)
    if x_ticks:
        axis.set_xticks(x_ticks, [f"{tick:,}" for tick in x_ticks])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.yaxis.set_minor_locator(ticker.NullLocator())
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


# --------------------------------------------------------------------------- all of it


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/results/claims"))
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--redraw", action="store_true", help="draw the figures of results.json in --output again")
    options = parser.parse_args(arguments)
    plan, output = QUICK if options.quick else Plan(), options.output
    if options.redraw:
        draw(json.loads((output / "results.json").read_text(encoding="utf-8")), output)
        print(f"compare_with_rnn: figures drawn again in {output}")
        return
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    set_seed(1)
    # An RNN's gradients vanish over long sentences (the gradient figure shows it), into numbers so small that CPUs
    # compute with them ten times as slowly. That is arithmetic, not architecture: let them be zero.
    torch.set_flush_denormal(True)

    lists = make_lists(plan.lists, TRAINED_ON, seed=1)
    tokenizer = train_tokenizer((text for row in lists for text in row), 480)
    dataset = Dataset.from_dict(
        {
            "input_ids": tokenizer([source for source, _ in lists])["input_ids"],
            "labels": tokenizer(text_target=[target for _, target in lists])["input_ids"],
        }
    )
    tests = {length: make_lists(plan.tests, (length, length), seed=1000 + length) for length in plan.test_lengths}
    mixed = make_lists(plan.tests, TRAINED_ON, seed=999)
    results: dict[str, Any] = {
        "hardware": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, torch {torch.__version__}",
        "plan": asdict(plan),
        "trained_on_numbers": list(TRAINED_ON),
        "parameters": {name: sum(p.numel() for p in build(name, tokenizer).parameters()) for name in NAMES},
    }

    def tell(text: str) -> None:
        print(f"[{(time.perf_counter() - began) / 60:4.1f} min] {text}", flush=True)

    tell(f"parameters: {results['parameters']}")
    results["tokens_per_second"] = {"lengths": list(plan.speed_lengths), **measure_speed(tokenizer, plan)}
    tell(f"training tokens/s by length: {results['tokens_per_second']}")
    results["layer_milliseconds"] = {"n": list(plan.layer_lengths), **measure_layers(plan)}
    tell(f"milliseconds a layer by n: {results['layer_milliseconds']}")

    results["quality_by_length"] = {"numbers": list(plan.test_lengths)}
    results["quality_by_time"], results["gradient_norms"] = {}, {}
    for name in NAMES:
        set_seed(1)
        model = build(name, tokenizer)
        at_first = gradient_norms(model, tokenizer, plan.gradient_length)
        clock = Clock(
            plan.train_seconds, plan.evaluations, lambda model=model: {"quality": quality(model, tokenizer, mixed)}
        )
        train(model, dataset, tokenizer, output / "run", PEAK_RATE[name], 1_000_000, clock)
        results["quality_by_time"][name] = clock.history
        results["quality_by_length"][name] = [quality(model, tokenizer, rows) for rows in tests.values()]
        after = gradient_norms(model, tokenizer, plan.gradient_length)
        results["gradient_norms"][name] = {"untrained": at_first, "trained": after}
        tell(f"{name}: {clock.history[-1]}; by length {[round(q, 2) for q in results['quality_by_length'][name]]}")

    results["depth"] = {}
    settings: dict[str, Callable[[], Any]] = {
        f"post-norm, {layers} + {layers} layers": lambda layers=layers: transformer(tokenizer, layers)
        for layers in plan.depths
    }
    deepest = max(plan.depths)
    settings[f"pre-norm, {deepest} + {deepest} layers"] = lambda: transformer(
        tokenizer, deepest, norm_position="pre", final_norm=True
    )
    settings[f"large start, {deepest} + {deepest} layers"] = lambda: with_glorot_gain(transformer(tokenizer, deepest))
    settings["no positions, 2 + 2 layers"] = lambda: without_positions(tokenizer)
    for name, make in settings.items():
        set_seed(1)
        model = make()
        losses = train(model, dataset, tokenizer, output / "run", PEAK_RATE["transformer"], plan.depth_updates)
        results["depth"][name] = {"losses": losses, "quality": quality(model, tokenizer, mixed)}
        tell(f"{name}: loss {losses[-1]['loss']:.3f}, quality {results['depth'][name]['quality']:.3f}")

    results["claims"] = claims(results, plan)
    results["minutes"] = round((time.perf_counter() - began) / 60, 1)
    (output / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(results, output)
    spoken = " ".join(f"{name}={claim['number']}" for name, claim in results["claims"].items())
    print(f"compare_with_rnn: {spoken} minutes={results['minutes']} output={output}")


def claims(results: dict[str, Any], plan: Plan) -> dict[str, dict[str, Any]]:
    """Return each claim with the number that supports or limits it."""
    speeds, by_length, depth = results["tokens_per_second"], results["quality_by_length"], results["depth"]
    within = max(i for i, n in enumerate(plan.test_lengths) if n <= TRAINED_ON[1])
    shortest, longest_seen, longest = (plan.test_lengths[i] for i in (0, within, -1))
    post = {name: row["quality"] for name, row in depth.items() if name.startswith("post-norm")}
    ratios = {
        name: [round(a / b, 2) for a, b in zip(speeds["transformer"], speeds[name], strict=True)]
        for name in ("rnn", "rnn+attention")
    }
    return {
        "claim_1": {
            "claim": "all positions are computed at once, so training is parallel and takes less time",
            "number": ratios["rnn+attention"][-1],
            "meaning": f"training tokens/s, Transformer over RNN + attention, at {plan.speed_lengths[-1]} tokens per "
            "sentence; by_length has the others, and the RNN without attention, which torch computes in one call",
            "by_length": {
                name: dict(zip(map(str, plan.speed_lengths), row, strict=True)) for name, row in ratios.items()
            },
            "seconds_to_quality": {
                str(goal): {name: seconds_to(rows, goal) for name, rows in results["quality_by_time"].items()}
                for goal in (0.5, 0.9)
            },
            "figures": ["speed.png", "quality_by_time.png", "layer_cost.png"],
        },
        "claim_2": {
            "claim": "any two positions are one step apart, so quality hardly falls as inputs grow",
            "number": round(by_length["transformer"][within] - by_length["transformer"][0], 3),
            "meaning": f"the Transformer's quality on lists of {longest_seen} numbers, the longest of training, less "
            f"that on lists of {shortest}: 0 is no fall; beyond: quality on {longest}, never seen in training",
            "change_within_training_lengths": {
                name: round(by_length[name][within] - by_length[name][0], 3) for name in NAMES
            },
            "beyond": {name: round(by_length[name][-1], 3) for name in NAMES},
            "gradient_at_first_position": {
                name: both["trained"][0] for name, both in results["gradient_norms"].items()
            },
            "figures": ["quality_by_length.png", "gradients.png"],
        },
        "claim_4": {
            "claim": "deeper models still train well",
            "number": round(list(post.values())[-1] - list(post.values())[0], 3),
            "meaning": f"quality with {plan.depths[-1]} post-norm layers a side less that with {plan.depths[0]}, after "
            f"{plan.depth_updates} updates at the same learning rate; beside it the deepest pre-norm model, "
            "and the deepest post-norm model whose weights all start at Glorot's size",
            "quality": {name: round(row["quality"], 3) for name, row in depth.items()},
            "figures": ["depth.png"],
        },
        "claim_7": {
            "claim": "without positions the order is lost",
            "number": round(depth["no positions, 2 + 2 layers"]["quality"], 3),
            "meaning": f"quality without positions; {round(post['post-norm, 2 + 2 layers'], 3)} with them, all else "
            "equal. Some order is left: the decoder's mask lets it count what is written",
            "figures": ["depth.png"],
        },
    }


def seconds_to(rows: list[dict[str, float]], goal: float) -> float | None:
    """Return the seconds of training after which a quality was first reached; None if never."""
    return next((row["seconds"] for row in rows if row["quality"] >= goal), None)


def draw(results: dict[str, Any], output: Path) -> None:
    """Write the six figures."""
    log = {"xscale": "log", "yscale": "log"}
    speeds, costs, lengths = (results[key] for key in ("tokens_per_second", "layer_milliseconds", "quality_by_length"))
    save_plot(
        output / "speed.png", "Training speed by length of the sentences", "tokens per sentence", "tokens per second",
        {name: (speeds["lengths"], speeds[name]) for name in NAMES}, x_ticks=speeds["lengths"], **log,
    )  # fmt: skip
    save_plot(
        output / "layer_cost.png", "One layer on one sentence, forward and backward (Table 1)",
        "positions n", "milliseconds",
        {name: (costs["n"], costs[name]) for name in ("self-attention", "recurrent")}, x_ticks=costs["n"], **log,
    )  # fmt: skip
    shortest, longest = results["trained_on_numbers"]
    save_plot(
        output / "quality_by_length.png",
        f"Quality by length, after training on lists of {shortest} to {longest} numbers",
        "numbers per list", "share of correct words", {name: (lengths["numbers"], lengths[name]) for name in NAMES},
    )  # fmt: skip
    save_plot(
        output / "quality_by_time.png", "Quality by training time", "training time (seconds)", "share of correct words",
        {
            name: ([row["seconds"] for row in rows], [row["quality"] for row in rows])
            for name, rows in results["quality_by_time"].items()
        },
    )  # fmt: skip
    save_plot(
        output / "gradients.png", "Gradient of the last target word with respect to each source token",
        "position of the source token (norms below 10⁻⁶ are not drawn)", "norm, divided by the largest of its curve",
        {
            name + (TRAINED if when == "trained" else UNTRAINED): above_zero(norms)
            for name, both in results["gradient_norms"].items()
            for when, norms in both.items()
        },
        yscale="log",
    )  # fmt: skip
    save_plot(
        output / "depth.png", "Training loss by depth, normalization and positions", "updates",
        "training loss (nats per token)",
        {
            name: ([row["updates"] for row in found["losses"]], [row["loss"] for row in found["losses"]])
            for name, found in results["depth"].items()
        },
    )  # fmt: skip


def above_zero(norms: list[float]) -> tuple[list[int], list[float]]:
    """Return positions and norms without those that were rounded to 0, which a logarithmic axis does not have."""
    positions = [position for position, norm in enumerate(norms) if norm > 0]
    return positions, [norms[position] for position in positions]


if __name__ == "__main__":
    main()
