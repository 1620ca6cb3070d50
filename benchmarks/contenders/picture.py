"""BLEU against minutes as a picture: one labelled line for each contender."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Readable without colour vision (Okabe and Ito 2008); each has a marker of its own.
STYLES = {
    "ours": ("#0072B2", "o"),
    "marian": ("#D55E00", "s"),
    "torch": ("#009E73", "^"),
    "joeynmt": ("#8B5A8C", "D"),
}
_GREY = "#555555"
_LABEL_HEIGHT = 0.09  # of the axis: labels keep this distance


def label_places(values: list[float], distance: float) -> list[float]:
    """Return a height for each label, close to its value and at least ``distance`` from the next.

    Labels that would touch are moved apart evenly around their mean; their order is that of the values.
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    groups: list[tuple[float, int]] = []  # mean of the values, and their number
    for place in order:
        groups.append((values[place], 1))
        while len(groups) > 1:
            (low, below), (high, above) = groups[-2:]
            if high - low >= distance * (below + above) / 2:
                break
            groups[-2:] = [((low * below + high * above) / (below + above), below + above)]
    heights = [mean + distance * (rank - (size - 1) / 2) for mean, size in groups for rank in range(size)]
    places = [0.0] * len(values)
    for place, height in zip(order, heights, strict=True):
        places[place] = height
    return places


def draw(record: dict[str, Any]) -> Figure:
    """Draw the validation BLEU of each contender's points, and the test BLEU beside its line."""
    figure = Figure(figsize=(9.0, 4.8), layout="constrained")
    axes = figure.subplots()
    contenders = record["contenders"]
    top = max((point["bleu"] for found in contenders for point in found["points"]), default=1.0)
    top = max(top, 1.0) * 1.08
    ends = [found["points"][-1]["bleu"] for found in contenders]
    heights = label_places(ends, _LABEL_HEIGHT * top)
    for found, height in zip(contenders, heights, strict=True):
        color, marker = STYLES.get(found["name"], (_GREY, "x"))
        minutes = [0.0, *(point["minutes"] for point in found["points"])]
        bleu = [0.0, *(point["bleu"] for point in found["points"])]
        axes.plot(
            minutes, bleu, color=color, marker=marker, markersize=4.5, linewidth=2.6 if found["name"] == "ours" else 1.6
        )
        text = found["label"] + (
            f"\ntest {found['final']['test']['bleu']:.1f} BLEU (beam 5)" if "final" in found else ""
        )
        axes.annotate(
            text, (minutes[-1], bleu[-1]), xytext=(1.02, height), textcoords=("axes fraction", "data"), color=color,
            va="center", fontsize=9, fontweight="bold" if found["name"] == "ours" else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip
    axes.set_xlim(0.0, record["minutes"])
    axes.set_ylim(0.0, top)
    hardware = record["hardware"]
    axes.set_xlabel(
        f"minutes of training on {hardware['threads']} cores ({hardware['processor']}), evaluation not counted"
    )
    axes.set_ylabel("BLEU, validation, greedy")
    axes.set_title(record["data"]["name"], fontsize=11)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def save(record: dict[str, Any], path: Path) -> None:
    """Draw and write the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(record).savefig(path, dpi=150)


__all__ = ["STYLES", "draw", "label_places", "save"]
