"""The recipe `tiny` on Multi30k English-German, three seeds side by side on one GPU, for the time there is.

Each seed is a process of its own. It first makes a few updates to see how many fit into its time, and then trains the
recipe with that many, its cooldown and checkpoints in proportion. What came of each seed is written as it comes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import torch
from progress import Budget, Progress
from recipe_lengths import scaled_to
from transformers import TrainerCallback
from transformers.utils import logging

from hf_vanilla_transformer import read_recipe, train

HERE = Path(__file__).resolve().parent
RECIPE = "tiny"  # of the package
RECORDS = HERE.parents[1] / "examples" / "results"
SEEDS = (1, 2, 3)
TOKENS = 4096  # source, and target, positions of an update, as in the recipe
CALIBRATION = (40, 160)  # updates: those before the first number warm up
POSITIONS = 480 * 1024  # of a side in an epoch, as the recipe counts them
MANY_TOKENS = 65_000_000  # target tokens; ten times and more what each sentence is seen in the recipe
SHARE_OF_CALIBRATION = 0.92  # of the updates that would fit, since logs and checkpoints take time as well
AFTERWARDS = 35.0  # seconds for averaging, evaluation, translation and scores
LONG = 60  # epochs from which on the preset's own dropout is right
# Multi30k is tokenized already, and papers score it as it is.
_CORPUS = "--source_lang en --target_lang de --metric_tokenize none".split()
_QUICK = (
    "--dataset_name embedded --embedded_train 300 --embedded_validation 8 --embedded_test 12 --vocab_size 360 "
    "--num_beams 2 --metric_tokenize none"
).split()
_QUICK_SIZES = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}


class Pace(TrainerCallback):
    """Notes how fast updates are made, says so, and ends the training in time.

    Args:
        progress: where to say it; None says nothing.
        seconds: after which the training ends, whatever was planned; None never ends it.
        device: what computes.
    """

    def __init__(self, progress: Progress | None, seconds: float | None, device: str) -> None:
        self.progress, self.seconds, self.device = progress, seconds, device
        self.started = self.last_said = time.monotonic()
        self.marks: dict[int, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in CALIBRATION:
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.marks[state.global_step] = time.monotonic()
        now = time.monotonic()
        if self.progress is not None and now - self.last_said > 3.0:
            self.last_said = now
            nll = next((entry["nll"] for entry in reversed(state.log_history) if "nll" in entry), None)
            self.progress.add(updates=state.global_step, planned=state.max_steps, nll=nll)
        if self.seconds is not None and now - self.started > self.seconds:
            control.should_training_stop = True

    @property
    def seconds_per_update(self) -> float:
        """Seconds of an update behind the warm-up."""
        first, last = CALIBRATION
        return (self.marks[last] - self.marks[first]) / (last - first)


def train_seed(asked: argparse.Namespace) -> None:
    """Train with one seed, and write what came of it."""
    budget, seed = Budget(asked.seconds), asked.seed
    progress = Progress(asked.output, seed=seed, updates=0)
    logging.set_verbosity_error()
    common = _overrides(asked)
    with tempfile.TemporaryDirectory() as folder:
        if asked.quick:
            updates = 6
        else:
            pace = Pace(None, budget.left / 3, asked.device)
            plan = _plan(CALIBRATION[1], dropout=0.15)
            unread = [word for key in _FILES if not key.startswith("train") for word in (f"--{key}", "null")]
            _carry_out([*common, *plan, *unread, "--output_dir", f"{folder}/pace"], pace)
            left = budget.left - AFTERWARDS
            updates = max(200, int(SHARE_OF_CALIBRATION * left / pace.seconds_per_update))
            progress.add(planned=updates, seconds_per_update=round(pace.seconds_per_update, 5))
        lines = _lines(asked)
        epochs = 0.0 if asked.quick else updates * asked.tokens / POSITIONS
        pace = Pace(progress, None if asked.quick else budget.left - AFTERWARDS, asked.device)
        plan = _plan(updates, dropout=0.3 if epochs > LONG else 0.15, sizes=_QUICK_SIZES if asked.quick else {})
        result = _carry_out([*common, *plan, "--output_dir", f"{folder}/run"], pace)
        record, scores = result.record["training"], result.scores["test"]
        an_epoch = sum(map(len, result.tokenizer(text_target=lines)["input_ids"])) if lines else 0
        progress.add(
            complete=True,
            ok=True,
            updates=record["updates"],
            epochs=record["epochs"],
            target_tokens=round(an_epoch * record["epochs"]),
            tokens_per_second=record["tokens_per_second"],
            train_seconds=record["seconds"],
            precision=record["precision"],
            dropout=result.model.config.dropout,
            bleu=scores["bleu"],
            bleu_signature=scores["bleu_signature"],
            chrf=scores["chrf"],
            perplexity=scores["perplexity"],
            hardware=result.record["hardware"],
            seconds=round(budget.used, 1),
        )


def _carry_out(words: list[str], pace: Pace) -> Any:
    recipe = read_recipe(RECIPE, words)
    return train(recipe, callbacks=[pace])


def _plan(updates: int, dropout: float, sizes: dict[str, Any] | None = None) -> list[str]:
    """Return a run of ``updates`` updates in the recipe's proportions."""
    recipe = read_recipe(RECIPE)
    words = {
        **scaled_to(updates, recipe),
        "save_total_limit": recipe.run.average_last,
        "eval_strategy": "no",
        "config_overrides": json.dumps({"dropout": dropout, **(sizes or {})}),
    }
    return [word for key, value in words.items() for word in (f"--{key}", str(value))]


def _overrides(asked: argparse.Namespace) -> list[str]:
    words = ["--seed", str(asked.seed), "--disable_tqdm", "true", "--report_to", "none", "--save_only_model", "true"]
    words += ["--max_tokens_per_batch", str(asked.tokens), "--use_cpu", str(asked.device == "cpu").lower()]
    if asked.quick:
        return [*words, *_QUICK]
    words += [*_CORPUS, "--data_license", "Multi30k: no licence stated; weights trained on it may not be redistributed"]
    for key, name in _FILES.items():
        words += [f"--{key}", str(asked.data / name)]
    return words


_FILES = {
    f"{split}_{side}": f"multi30k/lc.norm.tok/{name}.{language}"
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test_2016_flickr"))
    for side, language in (("source", "en"), ("target", "de"))
}


def _lines(asked: argparse.Namespace) -> list[str]:
    if asked.quick:
        return []
    return (asked.data / _FILES["train_target"]).read_text(encoding="utf-8").removesuffix("\n").split("\n")


# --------------------------------------------------------------------------- all seeds


def cpu_recipe() -> dict[str, Any]:
    """Return what the recipe reached on the CPU, from its committed results."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDS.glob("multi30k-tiny-*.json"))]
    bleu = [record["scores"]["test"]["bleu"] for record in found]
    tokens = [record["training"]["tokens"] for record in found]
    return {"bleu": bleu, "mean_bleu": sum(bleu) / len(bleu), "tokens_of_both_sides": tokens}


def summary(seeds: dict[str, dict[str, Any]]) -> str:
    """Format the results of all seeds as one line."""
    parts = []
    for name, seed in seeds.items():
        if seed.get("complete"):
            parts.append(f"seed {name} BLEU {seed['bleu']:.2f} at {seed['target_tokens'] / 1e6:.1f} M target tokens")
        else:
            loss = f", nll {seed['nll']:.3f}" if seed.get("nll") else ""
            parts.append(f"seed {name} at update {seed.get('updates', 0)} of {seed.get('planned', '?')}{loss}")
    done = [seed["bleu"] for seed in seeds.values() if seed.get("complete")]
    mean = f"; mean BLEU {sum(done) / len(done):.2f}" if done else ""
    return "; ".join(parts) + mean


def goals(seeds: dict[str, dict[str, Any]], reference: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge the goals that the tokens seen allow to be judged."""
    done = [seed for seed in seeds.values() if seed.get("complete")]
    if not done:
        return []
    bleu = sum(seed["bleu"] for seed in done) / len(done)
    tokens = min(seed["target_tokens"] for seed in done)
    recipes = min(reference["tokens_of_both_sides"]) / 2  # English and German have about as many
    wanted = []
    if tokens >= recipes:
        wanted.append(("at least the CPU recipe's BLEU", reference["mean_bleu"]))
    if tokens >= MANY_TOKENS:
        wanted.append((f"BLEU at {MANY_TOKENS:,} target tokens", 41.5))
    return [{"goal": text, "least": least, "found": bleu, "met": bleu >= least} for text, least in wanted]


def train_all(asked: argparse.Namespace) -> bool:
    """Start a process per seed, gather what they write, and say whether all came to their end."""
    budget = Budget(asked.seconds)
    numbers = SEEDS[:1] if asked.quick else SEEDS
    seeds: dict[str, dict[str, Any]] = {}
    progress = Progress(
        asked.output,
        part="quality",
        what="The recipe tiny on Multi30k en-de (lc.norm.tok), test_2016_flickr.",
        hardware=machine.hardware(),
        versions=machine.versions(),
        commit=machine.commit(),
        settings={"max_tokens_per_batch": asked.tokens, "seconds": asked.seconds, "seeds": list(numbers)},
        cpu_recipe=cpu_recipe(),
        seeds=seeds,
    )
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for number in numbers:
            words = [sys.executable, __file__, "--seed", str(number), "--output", f"{folder}/{number}.json"]
            words += ["--seconds", str(budget.left - 3.0), "--device", asked.device, "--data", str(asked.data)]
            words += ["--tokens", str(asked.tokens), *(["--quick"] if asked.quick else [])]
            running[number] = subprocess.Popen(words)
        try:
            while True:
                ended = all(process.poll() is not None for process in running.values())
                for number in numbers:
                    path = Path(folder) / f"{number}.json"
                    if path.is_file():
                        seeds[str(number)] = json.loads(path.read_text(encoding="utf-8"))
                ok = ended and len(seeds) == len(numbers) and all(seed["complete"] for seed in seeds.values())
                progress.add(
                    summary=summary(seeds) or "no seed has begun",
                    goals=goals(seeds, progress.facts["cpu_recipe"]),
                    complete=ended,
                    ok=ok,
                )
                if ended:
                    return ok
                time.sleep(0.2 if asked.quick else 1.0)
        finally:
            for process in running.values():
                process.kill()


def main() -> None:
    """Train all seeds, or, as started by that, one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="file for the results")
    parser.add_argument("--seconds", type=float, required=True, help="budget")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds multi30k/")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="source, and target, positions of an update")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--seed", type=int, help="train this one only")
    asked = parser.parse_args()
    if asked.seed is not None:
        train_seed(asked)
        return
    asked.tokens = 400 if asked.quick else asked.tokens
    absent = [] if asked.quick else [name for name in _FILES.values() if not (asked.data / name).is_file()]
    if asked.device == "cuda" and not torch.cuda.is_available():
        problem = f"torch {torch.__version__} finds no CUDA device"
    else:
        problem = f"there is no {asked.data / absent[0]}; --data names the folder" if absent else None
    if problem:
        Progress(asked.output, part="quality").add(summary=problem, complete=True)
        sys.exit(1)
    sys.exit(0 if train_all(asked) else 1)


if __name__ == "__main__":
    main()
