"""The small teaching examples on attention: the worked example, its notebook, the small figures."""

import contextlib
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hf_vanilla_transformer.model.loss_vanilla_transformer import token_cross_entropy
from hf_vanilla_transformer.presets import built_parameters, preset
from hf_vanilla_transformer.training.schedule import noam_learning_rate

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    """Import an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The worked example.


@pytest.fixture(scope="module")
def notebook() -> dict:
    return json.loads((EXAMPLES / "attention_by_hand.ipynb").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def printed(notebook: dict) -> str:
    """What the notebook's cells print, run in order; the script's text is the same, as a test below checks."""
    output, namespace = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(output):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                exec(compile(cell["source"], "cell", "exec"), namespace)
    return output.getvalue()


def numbers_below(title: str, text: str) -> list[list[float]]:
    """Read the matrix that is printed below the first line which begins with a title."""
    lines = text[text.index(f"\n{title}") :].splitlines()[2:]
    rows = []
    for line in lines:
        found = re.findall(r"-?(?:\d+\.\d+|inf)", line)
        if found:
            rows.append([float(number) for number in found])
        elif rows:
            break
    return rows


def test_the_first_row_of_products_is_the_true_one(printed: str) -> None:
    # q · k by hand: 0.1·0.5 + 0.2·0.6 + 0.3·0.7 + 0.4·0.8 = 0.70, and 0.1 more for each next key.
    assert numbers_below("Q Kᵀ: ", printed)[0] == [0.7, 0.8, 0.9, 1.0]
    # √4 = 2
    assert numbers_below("Q Kᵀ / √d_k", printed)[0] == [0.35, 0.4, 0.45, 0.5]


def test_the_articles_slips_are_named(printed: str) -> None:
    assert "0.5 0.53 0.56 0.59: a slip" in printed
    assert "leaves out ÷√d_k" in printed and "calls the softmax a sigmoid" in printed


def test_projections_lead_to_the_articles_numbers(printed: str) -> None:
    assert numbers_below("K = X W_K", printed)[3] == [0.8, 0.9, 1.0, 1.1]
    x, w_q = (torch.tensor(numbers_below(title, printed)) for title in ("X, the word vectors", "W_Q"))
    torch.testing.assert_close(x @ w_q, torch.tensor(numbers_below("Q = X W_Q", printed)), rtol=0, atol=3e-4)


def test_the_layer_prints_what_the_hand_printed(printed: str) -> None:
    by_hand = numbers_below("Concat(head 0, head 1) W_O", printed)
    assert numbers_below("two heads, from the layer", printed) == by_hand and len(by_hand) == 4
    # A masked first word sees itself alone: its context is its own value.
    assert numbers_below("one head, masked, from the layer", printed)[0] == [0.9, 1.0, 1.1, 1.2]
    assert printed.strip().splitlines()[-1] == (
        "The package's layer gives the same numbers: largest difference below 1e-5."
    )


def test_the_notebook_is_made_from_the_script() -> None:
    script = (EXAMPLES / "attention_by_hand.py").read_text(encoding="utf-8")
    written = (EXAMPLES / "attention_by_hand.ipynb").read_text(encoding="utf-8")
    assert written == load("to_notebook").notebook_of(script), "run examples/to_notebook.py on the script again"
    assert len(script.splitlines()) <= 160


def test_the_notebook_has_a_notebooks_form(notebook: dict) -> None:
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown"] + ["code"] * (len(notebook["cells"]) - 1)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


# The small figures.


@pytest.fixture(scope="module")
def small_figures() -> ModuleType:
    return load("small_figures")


def test_small_figures_are_written(
    small_figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["small_figures.py", str(tmp_path / "new")])
    small_figures.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"small_figures: 5 pictures in {tmp_path / 'new'}"
    names = "causal_mask label_smoothing learning_rate parameter_budget sinusoids".split()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [f"{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "new").iterdir())


def test_the_drawn_learning_rate_is_the_packages(small_figures: ModuleType) -> None:
    lines = small_figures.learning_rate().axes[0].get_lines()
    for line, warmup in zip(lines, small_figures.WARMUPS, strict=True):
        for update in (1, warmup, 20_000):
            assert line.get_ydata()[update - 1] == pytest.approx(noam_learning_rate(update, 512, warmup))


def test_the_drawn_target_is_the_packages(small_figures: ModuleType) -> None:
    axes = small_figures.label_smoothing().axes[0]
    smoothed = torch.tensor([bar.get_height() for bar in axes.containers[1]], dtype=torch.float64)
    assert smoothed.sum().item() == pytest.approx(1.0)
    logits = torch.randn(1, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = token_cross_entropy(logits, torch.tensor([3]), label_smoothing=small_figures.SMOOTHING)[0]
    assert -(smoothed * logits[0].log_softmax(-1)).sum().item() == pytest.approx(loss.item())


def test_the_drawn_table_has_the_papers_dot_products(small_figures: ModuleType) -> None:
    table, products = small_figures.sinusoids().axes[:2]
    assert table.get_images()[0].get_array()[0].tolist() == [0.0, 1.0] * 64  # sin 0, cos 0
    first, second = (line.get_ydata() for line in products.get_lines()[:2])
    # sin² + cos² = 1 for each of the 64 frequencies, and the same for the same distance.
    assert first[10] == pytest.approx(64) and first[10 + 7] == pytest.approx(second[50 - 7], rel=1e-4)


def test_the_drawn_budget_adds_up(small_figures: ModuleType) -> None:
    axes = small_figures.parameter_budget().axes[0]
    ends = {round(bar.get_y() + bar.get_height() / 2): bar.get_x() + bar.get_width() for bar in axes.patches}
    assert all(end == pytest.approx(1.0, abs=2e-3) for end in ends.values())
    texts = [text.get_text() for text in axes.texts]
    assert f"{built_parameters(preset('base')) / 1e6:.2f} M" in texts
