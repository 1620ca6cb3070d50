"""배 is a belly, a pear or a boat: watch attention find the word that tells which.

You learn: that an encoder gives one and the same word another meaning in another sentence (an embedding alone can't),
which heads do it, which words they look at, and what one head instead of four changes on the same budget.

    python examples/ambiguous_word.py

The corpus is made by rule: in every sentence only one word, before or after 배 and near or far, decides between the
three. Pairs of that word and the sentence's main clause are held out, so that no held-out context was ever seen whole.
A head "decides" if silencing it, all others left alone, costs the most accuracy.

Minutes: 4 in all, under 2 a model. Hardware: two CPU cores. Results: results.json, attention.png and
the model in --output. The last line is "ambiguous_word: accuracy=… (held-out contexts) one_head=… output=…".
"""

import argparse
import hashlib
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import set_seed

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    preset,
    train_tokenizer,
    translate,
)

SENSES = ("belly", "pear", "boat")
# 배가 + clue, "because the … was …": the clue stands behind 배.
BECAUSE = {
    "belly": {
        "고파서": "was empty", "아파서": "hurt", "불러서": "was full",
        "차가워서": "was cold", "따뜻해서": "was warm",
    },
    "pear": {
        "달아서": "was sweet", "익어서": "was ripe", "썩어서": "was rotten",
        "셔서": "was sour", "싱싱해서": "was fresh",
    },
    "boat": {
        "떠나서": "left", "가라앉아서": "sank", "흔들려서": "rocked",
        "늦어서": "was late", "멈춰서": "stopped",
    },
}  # fmt: skip
# Clue + … + 배를 + 보고, "saw the …": the clue stands before 배, further away.
PLACES = {
    "belly": {"병원에서": "at the hospital", "거울에서": "in the mirror", "목욕탕에서": "at the bath"},
    "pear": {"시장에서": "at the market", "과수원에서": "at the orchard", "부엌에서": "in the kitchen"},
    "boat": {"항구에서": "at the harbour", "바다에서": "at sea", "섬에서": "on the island"},
}
WHEN = {"어제 밤에": "last night", "오늘 아침에": "this morning", "지난 주에": "last week", "일요일에": "on Sunday"}
WHO = {"민수는": "Minsu", "지수는": "Jisu", "선생님은": "the teacher", "아이는": "the child", "할머니는": "grandmother"}
ADVERBS = {"": "", "너무": "so much", "정말": "really", "조금": "a little", "갑자기": "suddenly"}
ADJECTIVES = {"": "", "작은": "small ", "큰": "big ", "하얀": "white ", "예쁜": "pretty "}
MAIN = {
    "피자를 먹었다": "ate pizza", "집에 갔다": "went home", "웃었다": "laughed", "친구를 불렀다": "called a friend",
    "노래를 불렀다": "sang a song", "사진을 찍었다": "took a picture", "전화를 했다": "made a call", "쉬었다": "rested",
}  # fmt: skip
HELD_OUT_PERCENT = 15  # of the pairs of clue and main clause

SIZES = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 64, "d_ff": 128, "dropout": 0.0}
HEADS = 4
TRAIN_SENTENCES = 6_000
TEST_SENTENCES = 600
UPDATES = 600
KOREAN_FONTS = (
    "NanumGothic",
    "NanumBarunGothic",
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",
    "Malgun Gothic",
    "AppleGothic",
)
SHOWN = "어제 밤에 민수는 배가 너무 고파서 피자를 먹었다"


class Sentence(NamedTuple):
    """A sentence with 배 in it, and what decides its meaning."""

    ko: str
    en: str
    sense: str
    clue: str


def all_sentences() -> Iterator[Sentence]:
    """Make every sentence of the rule."""
    frames = list(itertools.product(WHEN.items(), WHO.items(), MAIN.items()))
    for sense in SENSES:
        for (clue, fact), (adverb, degree) in itertools.product(BECAUSE[sense].items(), ADVERBS.items()):
            for (when, at), (who, name), (main, did) in frames:
                ko = " ".join(f"{when} {who} 배가 {adverb} {clue} {main}".split())
                en = " ".join(f"{at} {name} {did} because the {sense} {fact} {degree}".split())
                yield Sentence(ko, en, sense, clue)
        for (clue, place), (adjective, kind) in itertools.product(PLACES[sense].items(), ADJECTIVES.items()):
            for (when, at), (who, name), (main, did) in frames:
                ko = " ".join(f"{clue} {when} {who} {adjective} 배를 보고 {main}".split())
                en = f"{place} {at} {name} saw the {kind}{sense} and {did}"
                yield Sentence(ko, en, sense, clue)


def split_contexts(seed: int) -> tuple[list[Sentence], list[Sentence]]:
    """Shuffle the sentences into training and held-out ones; no pair of clue and main clause is in both."""
    train, held_out = [], []
    for sentence in all_sentences():
        main = next(main for main in MAIN if sentence.ko.endswith(main))
        bucket = int.from_bytes(hashlib.sha256(f"{sentence.clue}/{main}".encode()).digest()[:4], "big") % 100
        (held_out if bucket < HELD_OUT_PERCENT else train).append(sentence)
    for sentences in (train, held_out):
        random.Random(seed).shuffle(sentences)
    return train, held_out


def train_model(sentences: list[Sentence], tokenizer: Any, heads: int, updates: int, folder: Path) -> tuple[Any, float]:
    """Train one model; return it with the seconds that took."""
    set_seed(1)
    model = VanillaTransformerForConditionalGeneration(
        preset("tiny", vocab_size=len(tokenizer), num_heads=heads, **SIZES)
    )
    columns = {
        "input_ids": tokenizer([sentence.ko for sentence in sentences])["input_ids"],
        "labels": tokenizer(text_target=[sentence.en for sentence in sentences])["input_ids"],
    }
    arguments = VanillaTransformerTrainingArguments(
        output_dir=str(folder),
        max_tokens_per_batch=1_000,
        max_steps=updates,
        warmup_steps=max(1, updates // 6),
        cooldown_steps=updates // 2,
        learning_rate_factor=0.3,  # peak 0.0038 = 0.3 / √(64 · 100)
        save_strategy="no",
        logging_steps=max(1, updates // 4),
        precision="fp32",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = VanillaTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer
    )
    start = time.perf_counter()
    trainer.train()
    return model.eval(), time.perf_counter() - start


# --------------------------------------------------------------------------- how well, and by which heads


def sense_accuracy(model: Any, tokenizer: Any, sentences: list[Sentence]) -> float:
    """Share of the sentences whose translation names the right one of belly, pear and boat, and neither other."""
    texts = translate(model, tokenizer, [sentence.ko for sentence in sentences], beam_size=1)
    named = [{sense for sense in SENSES if sense in text.split()} for text in texts]
    return sum(found == {s.sense} for found, s in zip(named, sentences, strict=True)) / len(sentences)


@contextmanager
def silenced(model: Any, layer: int, head: int) -> Iterator[None]:
    """Take one head's share out of what an encoder layer's attention writes."""
    projection = model.get_encoder().layers[layer].self_attn.out_proj
    width = projection.in_features // model.config.num_heads

    def silence(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        states = inputs[0].clone()
        states[..., head * width : (head + 1) * width] = 0.0
        return (states,)

    hook = projection.register_forward_pre_hook(silence)
    try:
        yield
    finally:
        hook.remove()


def words_of(tokenizer: Any, ids: list[int]) -> list[int]:
    """Say, for each token, which word of the sentence it belongs to; the end symbol is a word of its own."""
    words, word = [], -1
    for token in tokenizer.convert_ids_to_tokens(ids):
        word += token.startswith("▁") or token == tokenizer.eos_token
        words.append(word)
    return words


def looks_at_clue(model: Any, tokenizer: Any, sentences: list[Sentence]) -> torch.Tensor:
    """Weight that 배 gives to its clue in the encoder, on average: (layers, heads)."""
    model.set_attn_implementation("eager")  # the implementation that keeps weights
    total = torch.zeros(model.config.encoder_layers, model.config.num_heads)
    for sentence in sentences:
        ids = tokenizer(sentence.ko)["input_ids"]
        words, spelled = torch.tensor(words_of(tokenizer, ids)), sentence.ko.split()
        at_pear = words == next(place for place, word in enumerate(spelled) if word in ("배가", "배를"))
        at_clue = words == spelled.index(sentence.clue)
        with torch.no_grad():
            attentions = model.get_encoder()(torch.tensor([ids]), output_attentions=True).attentions
        for layer, weights in enumerate(attentions):
            total[layer] += weights[0][:, at_pear][:, :, at_clue].sum(dim=-1).mean(dim=-1)
    return total / len(sentences)


def deciding_heads(model: Any, tokenizer: Any, sentences: list[Sentence]) -> list[dict[str, Any]]:
    """Measure every encoder head: accuracy without it, and how much of 배's attention it gives to the clue."""
    looks = looks_at_clue(model, tokenizer, sentences)
    heads = []
    for layer, head in itertools.product(range(looks.shape[0]), range(looks.shape[1])):
        with silenced(model, layer, head):
            accuracy = sense_accuracy(model, tokenizer, sentences)
        row = {"layer": layer, "head": head, "accuracy_without": accuracy, "weight_on_clue": float(looks[layer, head])}
        heads.append(row)
    return sorted(heads, key=lambda row: (row["accuracy_without"], -row["weight_on_clue"]))


# --------------------------------------------------------------------------- showing it


def draw(model: Any, tokenizer: Any, layer: int, path: Path) -> None:
    """Draw, for one sentence a sense, what 배 looks at in every head of a layer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager, pyplot

    installed = {font.name for font in font_manager.fontManager.ttflist}
    pyplot.rcParams["font.family"] = [*(name for name in KOREAN_FONTS if name in installed), "DejaVu Sans"]
    shown = [
        SHOWN,
        "어제 밤에 민수는 배가 너무 달아서 피자를 먹었다",
        "어제 밤에 민수는 배가 너무 늦어서 피자를 먹었다",
    ]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(4 * len(shown), 3.2), layout="constrained")
    for axis, text in zip(axes, shown, strict=True):
        ids = tokenizer(text)["input_ids"]
        words = torch.tensor(words_of(tokenizer, ids))
        with torch.no_grad():
            weights = model.get_encoder()(torch.tensor([ids]), output_attentions=True).attentions[layer][0]
        spelled = [*text.split(), "</s>"]
        place = next(place for place, word in enumerate(spelled) if word in ("배가", "배를"))
        rows = weights[:, words == place].mean(dim=1)  # (H, S)
        by_word = torch.stack([rows[:, words == word].sum(dim=-1) for word in range(len(spelled))], dim=-1)
        axis.imshow(by_word, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axis.set_xticks(range(len(spelled)), spelled, rotation=60, ha="right")
        axis.set_yticks(range(len(by_word)), [f"head {head}" for head in range(len(by_word))])
        axis.set_title(translate(model, tokenizer, text, beam_size=1), fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/results/ambiguous_word"))
    parser.add_argument("--quick", action="store_true", help="a few updates, to see that everything runs")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    updates = 12 if options.quick else UPDATES

    train, held_out = split_contexts(seed=1)
    train, held_out = train[:TRAIN_SENTENCES], held_out[: 30 if options.quick else TEST_SENTENCES]
    tokenizer = train_tokenizer((text for s in train for text in (s.ko, s.en)), 700)
    print(f"{len(train)} sentences to learn from, {len(held_out)} with held-out contexts, e.g.")
    for sense in SENSES:
        sentence = next(sentence for sentence in held_out if sentence.sense == sense)
        print(f"  {sentence.ko} → {sentence.en}")

    results: dict[str, Any] = {"updates": updates, "held_out_sentences": len(held_out), "models": {}}
    for heads in (1, HEADS):
        model, seconds = train_model(train, tokenizer, heads, updates, options.output / "run")
        accuracy = sense_accuracy(model, tokenizer, held_out)
        results["models"][heads] = {"accuracy": accuracy, "train_seconds": round(seconds, 1)}
        print(f"{heads} head(s): right meaning in {accuracy:.4f} of the held-out contexts, {seconds:.0f} s of training")
    looked = held_out[: 15 if options.quick else 120]
    results["heads"] = deciding_heads(model, tokenizer, looked)
    print("encoder head  accuracy without it  weight from 배 to the deciding word")
    for row in results["heads"]:
        print(f"  layer {row['layer']} head {row['head']}  {row['accuracy_without']:.3f}  {row['weight_on_clue']:.3f}")
    lengths = sum(len(tokenizer(s.ko)["input_ids"]) for s in looked) / len(looked)
    results["chance_weight"] = 1 / lengths
    print(f"  (a head that looked at all tokens alike would give each {1 / lengths:.3f})")

    draw(model, tokenizer, results["heads"][0]["layer"], options.output / "attention.png")
    model.save_pretrained(options.output / "model")
    tokenizer.save_pretrained(options.output / "model")
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    several, one = (results["models"][heads]["accuracy"] for heads in (HEADS, 1))
    print(f"See it: vanilla-transformer visualize {options.output}/model '{SHOWN}'")
    print(f"ambiguous_word: accuracy={several:.4f} (held-out contexts) one_head={one:.4f} output={options.output}")


if __name__ == "__main__":
    main()
