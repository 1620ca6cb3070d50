"""Run the commands of README's section on the Hub, word for word, against a double of the Hub."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_double import TOKENS, Hub

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    preset,
    train_tokenizer,
    translate,
)

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## On the Hub\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)

pytestmark = [
    pytest.mark.slow,  # a process for each command
    pytest.mark.skipif(SECTION is None, reason="README has no section on the Hub yet"),
]


def blocks(language: str) -> list[str]:
    assert SECTION is not None
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION[1], re.MULTILINE | re.DOTALL)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with runs/demo as `make demo` writes it, but untrained, and lines.txt."""
    tokenizer = train_tokenizer(
        (text for row in embedded_corpus("train", 200)["translation"] for text in row.values()), 400
    )
    torch.manual_seed(3)
    sizes = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "output_bias": True}
    config = preset("tiny", vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes)
    model = VanillaTransformerForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)
        model.lm_head.bias[2] = 3.0  # so that translations end
    model.save_pretrained(tmp_path / "runs" / "demo")
    tokenizer.save_pretrained(tmp_path / "runs" / "demo")
    (tmp_path / "lines.txt").write_text("two hundred and seven\n", encoding="utf-8")
    hidden = tmp_path / "hidden" / "hf_vanilla_transformer"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not installed here')\n", encoding="utf-8")
    return tmp_path


def test_the_section_works_word_for_word(home, monkeypatch):
    monkeypatch.setitem(TOKENS, "hf_yourSecret", ("your-name", "write"))
    with Hub() as hub:

        def run(words: list[str], installed: bool = True) -> str:
            path = str(ROOT if installed else home / "hidden")
            environment = {**os.environ, **hub.environment(home / "cache", "hf_yourSecret"), "PYTHONPATH": path}
            with (home / "lines.txt").open() as lines:
                done = subprocess.run(words, cwd=home, env=environment, stdin=lines, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            assert "Secret" not in done.stdout + done.stderr
            return done.stdout

        printed = []
        for line in blocks("")[0].splitlines():
            words = shlex.split(line.partition("<")[0], comments=True)
            if words[0] == "vanilla-transformer":  # the login is the variable HF_TOKEN here
                printed.append(run([sys.executable, "-m", "hf_vanilla_transformer", *words[1:]]))
        dry, pushed, translated = printed
        assert "nothing was sent to your-name/numbers" in dry and "model.safetensors" in dry
        assert hub.repositories["your-name/numbers"].private and "revision=" in pushed
        model = VanillaTransformerForConditionalGeneration.from_pretrained(home / "runs" / "demo").eval()
        from transformers import AutoTokenizer

        expected = translate(model, AutoTokenizer.from_pretrained(home / "runs" / "demo"), "two hundred and seven")
        assert translated == expected + "\n" and expected
        alone, installed = blocks("python")
        assert repr([{"translation_text": expected}]) in run([sys.executable, "-c", alone], installed=False)
        assert repr(expected) in run([sys.executable, "-c", installed])
        # The sentence on revisions and on offline mode.
        revision = pushed.strip().rpartition("revision=")[2]
        pinned = alone.replace("trust_remote_code=True", f'trust_remote_code=True, revision="{revision}"')
        assert pinned != alone
        assert repr(expected) in run([sys.executable, "-c", pinned], installed=False)
        asked = len(hub.requests)
        offline = "import os\nos.environ['HF_HUB_OFFLINE'] = '1'\n" + alone
        assert repr(expected) in run([sys.executable, "-c", offline], installed=False)
        assert len(hub.requests) == asked
