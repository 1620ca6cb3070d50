"""Small figures for a lesson on the Transformer, each drawn from the paper's formula or from the package's own model.

What you see: the sinusoids and what their dot products say about distance (§3.5), the decoder's mask (§3.2.3), the
learning rate for several warm-ups (Equation 3), label smoothing's target (§5.4), and where the parameters are.

    python examples/small_figures.py runs/small_figures

Seconds on any computer; needs matplotlib, which comes with the package. The last line:
    small_figures: 5 pictures in runs/small_figures
"""

import math
import sys
from collections import Counter
from pathlib import Path

import torch
from matplotlib.figure import Figure

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, VanillaTransformerModel, preset

POSITIONS, WIDTH = 100, 128  # of the sinusoid table; d_model of the paper is 512
TOKENS = ["<s>", "the", "cat", "sat", "down"]
WARMUPS, UPDATES = (1000, 4000, 8000), 20_000
SMOOTHING = 0.1
MODELS = ("tiny", "small", "base", "big")
DRAWN_PARTS = {  # part of a parameter's name → its place in the model
    "embed": "embedding (shared)",
    "self_attn.": "self-attention",
    "cross_attn.": "encoder-decoder attention",
    "feed_forward.": "feed-forward",
}
# Told apart by lightness as well as by hue, so also without colour vision and in print.
COLOURS = ("#08306b", "#2171b5", "#6baed6", "#c6dbef")


def sinusoids() -> Figure:
    """The table of sinusoids, and the dot products of positions with one position."""
    sizes = {"num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    model = VanillaTransformerModel(preset("tiny", vocab_size=8, d_model=WIDTH, **sizes))
    table = model.encoder.embed_positions(torch.arange(POSITIONS), torch.float32)  # (positions, d_model)
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    image = left.imshow(table.numpy(), aspect="auto", cmap="cividis", vmin=-1, vmax=1)
    left.set(
        title=f"Sinusoidal positional encoding PE(pos, i), d_model = {WIDTH}",
        xlabel="dimension i (sine and cosine alternate)",
        ylabel="position pos",
    )
    figure.colorbar(image, ax=left, label="value of PE(pos, i)")
    for colour, position in zip(COLOURS, (10, 50, 80), strict=False):
        products = (table @ table[position]).numpy()
        right.plot(products, color=colour, label=f"k = {position}")
    right.axhline(WIDTH / 2, color="0.6", linewidth=0.8, linestyle=":", label=f"d_model / 2 = {WIDTH // 2}")
    right.set(title="PE(pos) · PE(k) depends only on the distance", xlabel="position pos",
              ylabel="dot product PE(pos) · PE(k)")  # fmt: skip
    right.margins(y=0.28)
    right.legend(loc="upper right", ncols=4, fontsize=8, columnspacing=1.0, handlelength=1.2)
    return figure


def causal_mask() -> Figure:
    """Which tokens each token may attend to in the decoder's self-attention."""
    allowed = torch.ones(len(TOKENS), len(TOKENS)).tril()
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(allowed.numpy(), cmap="Blues", vmin=0, vmax=1.6)
    for row in range(len(TOKENS)):
        for column in range(len(TOKENS)):
            axes.text(column, row, "0" if column <= row else "−∞", ha="center", va="center")
    axes.set_xticks(range(len(TOKENS)), TOKENS)
    axes.set_yticks(range(len(TOKENS)), TOKENS)
    axes.set(
        title="Decoder mask, added to Q Kᵀ / √d_k", xlabel="attended token (key)", ylabel="token that attends (query)"
    )
    return figure


def learning_rate() -> Figure:
    """Equation 3 for several warm-ups: a straight rise, then a fall with the square root of the update's number."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    updates = range(1, UPDATES + 1)
    for colour, style, warmup in zip(COLOURS, ("--", "-", "-."), WARMUPS, strict=False):
        rates = [512**-0.5 * min(update**-0.5, update * warmup**-1.5) for update in updates]
        axes.plot(updates, rates, color=colour, linestyle=style, label=f"{warmup:,}")
        axes.annotate(f"{max(rates):.5f}", (warmup, max(rates)), (6, 3), textcoords="offset points", fontsize=8)
    axes.set(title="Learning rate by Equation 3, d_model = 512", xlabel="update",
             ylabel="learning rate", ylim=(0, None))  # fmt: skip
    axes.margins(y=0.12)
    axes.legend(title="warm-up updates")
    return figure


def label_smoothing() -> Figure:
    """The target of one token over a vocabulary of ten, without and with smoothing."""
    words, right_word = 10, 3
    one_hot = [float(word == right_word) for word in range(words)]
    smoothed = [(1 - SMOOTHING) * share + SMOOTHING / words for share in one_hot]
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.bar([word - 0.2 for word in range(words)], one_hot, 0.4, color=COLOURS[2], label="one-hot")
    axes.bar([word + 0.2 for word in range(words)], smoothed, 0.4, color=COLOURS[0], label=f"smoothed, ε = {SMOOTHING}")
    axes.annotate(f"1 − ε + ε / V = {smoothed[right_word]:.2f}", (right_word + 0.45, smoothed[right_word]), va="center")
    axes.annotate(f"ε / V = {smoothed[0]:.2f}", (7, smoothed[0] + 0.04), ha="center")
    entropy = -sum(share * math.log(share) for share in smoothed)
    axes.set(title=f"Label smoothing (§5.4): the lowest possible loss is {entropy:.2f} nats per token",
             xlabel=f"token id, vocabulary of V = {words}", ylabel="target probability",
             xticks=range(words))  # fmt: skip
    axes.legend()
    return figure


def parameter_budget() -> Figure:
    """Where the parameters of several models are, counted from the models themselves."""
    parts = {**DRAWN_PARTS, "norm": "layer normalization"}
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    not_drawn = 0.0
    for row, name in enumerate(MODELS):
        with torch.device("meta"):  # shapes without memory
            model = VanillaTransformerForConditionalGeneration(preset(name))
        model.tie_weights()
        counts: Counter[str] = Counter()
        for parameter_name, parameter in model.named_parameters():  # a shared matrix is named once
            counts[next(title for part, title in parts.items() if part in parameter_name)] += parameter.numel()
        total, left = sum(counts.values()), 0.0
        for colour, title in zip(COLOURS, DRAWN_PARTS.values(), strict=True):
            share = counts[title] / total
            axes.barh(row, share, left=left, color=colour, edgecolor="white", label=title if row == 0 else None)
            dark = colour in COLOURS[:2]
            axes.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", color="w" if dark else "k")
            left += share
        not_drawn = max(not_drawn, 1 - left)
        axes.text(1.01, row, f"{total / 1e6:.2f} M", va="center")
    axes.set_yticks(range(len(MODELS)), MODELS)
    axes.invert_yaxis()
    axes.set(title="Parameters of the presets by part, vocabulary of 37,000 tokens", xlim=(0, 1.16), ylabel="preset",
             xlabel=f"share of all parameters; layer normalization, at most {not_drawn:.1%}, is not drawn")  # fmt: skip
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("give the folder for the pictures, e.g. runs/small_figures")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    drawings = (sinusoids, causal_mask, learning_rate, label_smoothing, parameter_budget)
    for draw in drawings:
        draw().savefig(folder / f"{draw.__name__}.png", dpi=120)
    print(f"small_figures: {len(drawings)} pictures in {folder}")


if __name__ == "__main__":
    main()
