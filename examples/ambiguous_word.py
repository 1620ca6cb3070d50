"""배 is a belly, a pear or a boat: watch attention find the word that tells which.

You learn: how attention to one other word gives the same word another meaning in another sentence (an embedding alone
can't), which heads do it, how many of them, and what one head instead of four changes on the same budget.

    python examples/ambiguous_word.py

The corpus is made by rule: in every sentence only one word, before or after 배 and near or far, decides between the
three. Pairs of that word and the sentence's main clause are held out, so that no held-out context was ever seen whole.

Two measurements say which heads decide. First, how much of its attention a head gives to the deciding word: in the
encoder from 배, between decoder and encoder as belly, pear or boat is being written. Second, what silencing does. One
head alone is hardly missed, since others look there, too; so heads are silenced one after another, once beginning with
those that look at the deciding word most and once with those that look there least. Accuracy falls in the first order
and stays in the second: attention to that word is what decides, not just what can be seen.

Minutes: 4 in all, under 2 a model. Hardware: two CPU cores. Results in --output: results.json, attention.png, the page
attention.html with the head that looks at the deciding word most, and the model. The last line is
"ambiguous_word: accuracy=… (held-out contexts) one_head=… output=…".
"""

import argparse
import functools
import hashlib
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers import set_seed

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    attention_maps,
    preset,
    train_tokenizer,
    translate,
)

SENSES = ("belly", "pear", "boat")
# 배가 + clue, "because the … was …": the clue follows 배.
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
WHO = {
    "": "I",  # Korean leaves it out
    "민수는": "Minsu", "지수는": "Jisu", "선생님은": "the teacher", "아이는": "the child", "할머니는": "grandmother",
}  # fmt: skip
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
SHOWN = (  # the same sentence three times, but for one word
    "어제 밤에 배가 고파서 피자를 먹었다",
    "어제 밤에 배가 달아서 피자를 먹었다",
    "어제 밤에 배가 늦어서 피자를 먹었다",
)


class Sentence(NamedTuple):
    """A sentence with 배 in it, the word that decides its meaning, and its main clause."""

    ko: str
    en: str
    sense: str
    clue: str
    main: str


def all_sentences() -> Iterator[Sentence]:
    """Make every sentence of the rule."""
    frames = list(itertools.product(WHEN.items(), WHO.items(), MAIN.items()))
    for sense in SENSES:
        for (clue, fact), (adverb, degree) in itertools.product(BECAUSE[sense].items(), ADVERBS.items()):
            for (when, at), (who, name), (main, did) in frames:
                ko = " ".join(f"{when} {who} 배가 {adverb} {clue} {main}".split())
                en = " ".join(f"{at} {name} {did} because the {sense} {fact} {degree}".split())
                yield Sentence(ko, en, sense, clue, main)
        for (clue, place), (adjective, kind) in itertools.product(PLACES[sense].items(), ADJECTIVES.items()):
            for (when, at), (who, name), (main, did) in frames:
                ko = " ".join(f"{clue} {when} {who} {adjective} 배를 보고 {main}".split())
                en = f"{place} {at} {name} saw the {kind}{sense} and {did}"
                yield Sentence(ko, en, sense, clue, main)


@functools.cache
def bucket_of(clue: str, main: str) -> int:
    """Draw 0 to 99 for a context, always the same."""
    return int.from_bytes(hashlib.sha256(f"{clue}/{main}".encode()).digest()[:4], "big") % 100


def split_contexts(seed: int) -> tuple[list[Sentence], list[Sentence]]:
    """Shuffle the sentences into training and held-out ones; no pair of clue and main clause is in both."""
    train, held_out = [], []
    for sentence in all_sentences():
        bucket = bucket_of(sentence.clue, sentence.main)
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
    warmup_steps = max(1, updates // 6)
    arguments = VanillaTransformerTrainingArguments(
        output_dir=str(folder),
        max_tokens_per_batch=1_000,
        max_steps=updates,
        warmup_steps=warmup_steps,
        cooldown_steps=updates // 2,
        learning_rate=0.3 / (model.config.d_model * warmup_steps) ** 0.5,  # 0.0038 = 0.3 / √(64 · 100)
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
    texts = translate(model, tokenizer, [sentence.ko for sentence in sentences], BeamSearchConfig(num_beams=1))
    named = [{sense for sense in SENSES if sense in text.split()} for text in texts]
    return sum(found == {s.sense} for found, s in zip(named, sentences, strict=True)) / len(sentences)


@contextmanager
def silenced(model: Any, kind: str, layer: int, head: int) -> Iterator[None]:
    """Take one head's share out of what a layer's attention writes."""
    if kind == "encoder":
        projection = model.get_encoder().layers[layer].self_attn.out_proj
    else:
        projection = model.get_decoder().layers[layer].cross_attn.out_proj
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


def word_numbers(tokens: Sequence[Any]) -> np.ndarray:
    """Return the index of the word that each token belongs to; the EOS token is a word of its own."""
    return np.cumsum([token.starts_word or token.special for token in tokens]) - 1


def tokens_in(tokenizer: Any, text: str) -> int:
    """Count the tokens of a text without the EOS token; a word has the same number alone and in a sentence."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def place_of_pear(text: str) -> int:
    """Return the index of the word 배 (with its particle) in a sentence."""
    return next(place for place, word in enumerate(text.split()) if word in ("배가", "배를"))


def looks_at_words(model: Any, tokenizer: Any, text: str, translation: str | None = None) -> dict[str, np.ndarray]:
    """Return where the heads attend for the tokens that decide the meaning, per source word.

    Args:
        model: the translation model.
        tokenizer: its own.
        text: a sentence with 배.
        translation: None takes the model's own.

    Returns:
        For "encoder" what 배 gives to each word, for "cross" what the decoder gives as it writes belly, pear or boat:
        each (layers, heads, words), the EOS token last. "cross" is absent if none of the three is written.
    """
    maps = attention_maps(model, tokenizer, text, translation)
    source = word_numbers(maps.source_tokens)
    rows = {"encoder": source == place_of_pear(text)}
    named = [place for place, word in enumerate(maps.target.split()) if word in SENSES]
    if named:
        rows["cross"] = word_numbers(maps.target_tokens) == named[0]
    return {
        kind: np.stack(
            [
                maps.weights(kind)[:, :, chosen][..., source == word].sum(axis=-1).mean(axis=-1)
                for word in range(source[-1] + 1)
            ],
            axis=-1,
        )
        for kind, chosen in rows.items()
    }


def deciding_heads(model: Any, tokenizer: Any, sentences: list[Sentence]) -> list[dict[str, Any]]:
    """Measure every head that could tell the meaning: accuracy without it, and its weight on the deciding word."""
    looks: dict[str, list[np.ndarray]] = {"encoder": [], "cross": []}
    for sentence in sentences:
        found = looks_at_words(model, tokenizer, sentence.ko, sentence.en)
        for kind, weights in found.items():
            looks[kind].append(weights[..., sentence.ko.split().index(sentence.clue)])
    heads = []
    for kind, of_sentences in looks.items():
        on_clue = np.mean(of_sentences, axis=0)  # (layers, heads)
        for layer, head in np.ndindex(*on_clue.shape):
            with silenced(model, kind, layer, head):
                accuracy = sense_accuracy(model, tokenizer, sentences)
            weight = round(float(on_clue[layer, head]), 4)
            row = {"kind": kind, "layer": layer, "head": head, "accuracy_without": accuracy, "weight_on_clue": weight}
            heads.append(row)
    return sorted(heads, key=lambda row: -row["weight_on_clue"])


def accuracy_as_silence_grows(
    model: Any, tokenizer: Any, sentences: list[Sentence], heads: list[dict[str, Any]]
) -> list[float]:
    """Silence heads one after another, each for good; the accuracy after each."""
    accuracies = []
    with ExitStack() as silences:
        for row in heads:
            silences.enter_context(silenced(model, row["kind"], row["layer"], row["head"]))
            accuracies.append(round(sense_accuracy(model, tokenizer, sentences), 4))
    return accuracies


@torch.no_grad()
def similarity_of_meanings(model: Any, tokenizer: Any, sentences: list[Sentence]) -> dict[str, float]:
    """Compare the vectors of 배가 behind the encoder: cosine, on average, within a meaning and between two.

    In front of the encoder the vector is the same in all of them but for its position.
    """
    chosen = [sentence for sentence in sentences if sentence.clue in BECAUSE[sentence.sense]]
    vectors = []
    for sentence in chosen:
        encoded = tokenizer(sentence.ko, return_tensors="pt")
        words = word_numbers(attention_maps(model, tokenizer, sentence.ko, sentence.en).source_tokens)
        states = model.get_encoder()(**encoded).last_hidden_state[0]
        vectors.append(states[torch.from_numpy(words == place_of_pear(sentence.ko))].mean(dim=0))
    unit = torch.nn.functional.normalize(torch.stack(vectors), dim=-1)
    cosines = unit @ unit.T
    same = torch.tensor([[a.sense == b.sense for b in chosen] for a in chosen])
    others = ~torch.eye(len(chosen), dtype=torch.bool)
    return {"same": round(float(cosines[same & others].mean()), 3), "other": round(float(cosines[~same].mean()), 3)}


# --------------------------------------------------------------------------- showing it


def draw(model: Any, tokenizer: Any, kind: str, layer: int, path: Path) -> None:
    """Draw, for one sentence a meaning, what every head of a layer looks at for 배."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager, pyplot

    installed = {font.name for font in font_manager.fontManager.ttflist}
    pyplot.rcParams["font.family"] = [*(name for name in KOREAN_FONTS if name in installed), "DejaVu Sans"]
    figure, axes = pyplot.subplots(1, len(SHOWN), figsize=(4 * len(SHOWN), 3.4), layout="constrained")
    image = None
    for axis, text in zip(axes, SHOWN, strict=True):
        found = looks_at_words(model, tokenizer, text)
        translation = translate(model, tokenizer, text, BeamSearchConfig(num_beams=1))
        spelled = [*text.split(), "</s>"]
        axis.set_xticks(range(len(spelled)), spelled, rotation=45, ha="right", fontsize=11)
        axis.set_title(f"“{translation}”", fontsize=9)
        if kind in found:
            image = axis.imshow(found[kind][layer], vmin=0, vmax=1, cmap="Blues", aspect="auto")
            heads = range(len(found[kind][layer]))
            axis.set_yticks(heads, [f"head {head}" for head in heads])
    name = "Encoder self-attention" if kind == "encoder" else "Cross-attention"
    query = "the word 배가 (belly, pear or boat)" if kind == "encoder" else "the predicted word belly, pear or boat"
    figure.suptitle(f"{name}, layer {layer}: what each head attends to for {query}", fontsize=11)
    figure.supxlabel("source word (key); above each map the model's translation", fontsize=10)
    if image is not None:
        figure.colorbar(image, ax=axes, label="attention weight", shrink=0.9)
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
        texts = translate(model, tokenizer, [sentence.ko for sentence in held_out], BeamSearchConfig(num_beams=1))
        whole = sum(text == sentence.en for text, sentence in zip(texts, held_out, strict=True)) / len(held_out)
        results["models"][heads] = {"accuracy": accuracy, "exact": whole, "train_seconds": round(seconds, 1)}
        right = f"right meaning in {accuracy:.4f} of the held-out contexts, every word in {whole:.4f}"
        print(f"{heads} head(s): {right}, {seconds:.0f} s of training")
    looked = held_out[: 15 if options.quick else 120]
    results["heads"] = deciding_heads(model, tokenizer, looked)
    print("head                     accuracy without it  weight on the deciding word")
    for row in results["heads"]:
        name = f"{row['kind']:8} layer {row['layer']} head {row['head']}"
        print(f"  {name:26} {row['accuracy_without']:.3f}  {row['weight_on_clue']:.3f}")
    shares = [tokens_in(tokenizer, s.clue) / (tokens_in(tokenizer, s.ko) + 1) for s in looked]  # + 1: </s>
    results["chance_weight"] = chance = round(sum(shares) / len(shares), 4)
    print(f"  (a head that looked at all tokens alike would give {chance:.3f})")
    half = len(results["heads"]) // 2
    for order, rows in (("most_first", results["heads"]), ("least_first", results["heads"][::-1])):
        growing = accuracy_as_silence_grows(model, tokenizer, looked, rows[:half])
        results[f"silenced_{order}"] = growing
        print(f"accuracy with 1 to {half} heads silenced, {order.replace('_', ' ')}: {growing}")
    results["cosine_of_meanings"] = alike = similarity_of_meanings(model, tokenizer, looked)
    print(
        f"배가 behind the encoder: cosine {alike['same']} within a meaning, {alike['other']} between two; before it, 1"
    )

    model.save_pretrained(options.output / "model")
    tokenizer.save_pretrained(options.output / "model")
    first = results["heads"][0]
    draw(model, tokenizer, first["kind"], first["layer"], options.output / "attention.png")
    page = ["--source", SHOWN[0], "--output", str(options.output / "attention.html"), "--attention", first["kind"]]
    place = ["--layer", str(first["layer"]), "--head", str(first["head"])]
    command = [sys.executable, "-m", "hf_vanilla_transformer", "visualize", str(options.output / "model")]
    subprocess.run([*command, *page, *place], check=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    several, one = (results["models"][heads]["accuracy"] for heads in (HEADS, 1))
    print(f"ambiguous_word: accuracy={several:.4f} (held-out contexts) one_head={one:.4f} output={options.output}")


if __name__ == "__main__":
    main()
