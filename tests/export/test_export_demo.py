"""The demo's checkpoint in other runtimes: 500 held-out expressions, the same greedy translations."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    export_checkpoint,
    load_engine,
    translate,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.training.demo import RECIPE, run_demo

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "runs" / "demo"
PAGE = (ROOT / "docs" / "converters.md").read_text(encoding="utf-8")
EXPRESSIONS = 500


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """The checkpoint of `make demo` where there is one, else one that is trained for a third of its updates."""
    if (DEMO / "model.safetensors").is_file():
        return DEMO
    folder = tmp_path_factory.mktemp("demo")
    recipe = RECIPE.read_text(encoding="utf-8")
    for name, value in {"max_steps": "400", "warmup_steps": "100", "cooldown_steps": "150"}.items():
        lines = [f"{name}: {value}" if line.startswith(f"{name}:") else line for line in recipe.splitlines()]
        recipe = "\n".join(lines)
    (folder / "short.yaml").write_text(recipe, encoding="utf-8")
    run_demo(folder / "checkpoint", folder / "short.yaml")
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [row["en"] for row in embedded_corpus("test", EXPRESSIONS, seed=11)["translation"]]


@pytest.fixture(scope="module")
def ours(checkpoint, texts) -> list[str]:
    model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    return translate(model, AutoTokenizer.from_pretrained(checkpoint), texts, BeamSearchConfig(num_beams=1))


def _needs(target_format: str) -> None:
    for package in {"ctranslate2": ["ctranslate2"], "onnx": ["onnx", "onnxruntime", "onnxscript"]}[target_format]:
        pytest.importorskip(package, reason=f"needs the extra {target_format}")


def test_int8_keeps_the_quality(checkpoint, texts, ours, tmp_path):
    _needs("ctranslate2")
    import sacrebleu

    references = [row["ko"] for row in embedded_corpus("test", EXPRESSIONS, seed=11)["translation"]]
    exported = export_checkpoint("ctranslate2", checkpoint, tmp_path / "int8", quantization="int8")
    theirs = translate(
        load_engine("ctranslate2", exported),
        AutoTokenizer.from_pretrained(exported),
        texts,
        BeamSearchConfig(num_beams=1),
    )
    scores = [sacrebleu.corpus_bleu(output, [references], tokenize="char").score for output in (ours, theirs)]
    assert scores[1] >= scores[0] - 0.5


# The commands of docs/converters.md, by format.
COMMANDS = {
    "ctranslate2": "vanilla-transformer convert --to ctranslate2 runs/demo runs/demo-ct2",
    "onnx": "vanilla-transformer convert --to onnx runs/demo runs/demo-onnx",
}
TRANSLATE = {
    "ctranslate2": "vanilla-transformer translate runs/demo-ct2 lines.txt",
    "onnx": "vanilla-transformer translate runs/demo-onnx lines.txt",
}


@pytest.mark.parametrize("target_format", COMMANDS)
def test_the_commands_of_the_page_export_and_translate_alike(
    target_format, checkpoint, texts, ours, tmp_path, monkeypatch, capfdbinary
):
    _needs(target_format)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(checkpoint, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")

    assert main(COMMANDS[target_format].split()[1:]) == 0
    capfdbinary.readouterr()
    assert main([*TRANSLATE[target_format].split()[1:], "--num-beams", "1"]) == 0  # ONNX has greedy search only
    assert capfdbinary.readouterr().out.decode().splitlines() == ours
    assert main(COMMANDS[target_format].split()[1:]) == 2  # nothing is overwritten without --overwrite
    assert b"already exists" in capfdbinary.readouterr().err


def test_the_page_has_these_commands():
    lines = [line.partition("#")[0].partition("<")[0].strip() for line in PAGE.splitlines()]
    assert {*COMMANDS.values(), *TRANSLATE.values()} <= {*lines}
