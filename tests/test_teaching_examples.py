"""The teaching examples run from beginning to end, say what their docstrings promise, and write their results."""

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    attention_maps,
    preset,
    train_tokenizer,
)

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def load(path: str) -> ModuleType:
    """Import an example as a module."""
    name = path.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run_quickly(path: str, output: Path) -> str:
    """Run an example with --quick and return its last line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / path), "--quick", "--output", str(output)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "last_line", "files"),
    [
        (
            "ambiguous_word.py",
            r"ambiguous_word: accuracy=[\d.]+ \(held-out contexts\) one_head=[\d.]+ output=.+",
            ["attention.png", "attention.html", "model/model.safetensors"],
        ),
        (
            "compare_with_rnn/run.py",
            r"compare_with_rnn: claim_1=\S+ claim_2=\S+ claim_4=\S+ claim_7=\S+ minutes=[\d.]+ output=.+",
            [
                "speed.png", "layer_cost.png", "quality_by_length.png", "quality_by_time.png", "gradients.png",
                "depth.png",
            ],
        ),
        (
            "descendants.py",
            r"descendants: fill=[\d.]+ nll=[\d.]+ pretrained=[\d.]+ scratch=[\d.]+ output=.+",
            [],
        ),
    ],
)  # fmt: skip
def test_an_example_runs_to_its_last_line(path: str, last_line: str, files: list[str], tmp_path: Path) -> None:
    if path != "descendants.py":
        pytest.importorskip("matplotlib", reason="needs the extra viz")
    assert re.fullmatch(last_line, run_quickly(path, tmp_path))
    assert isinstance(json.loads((tmp_path / "results.json").read_text(encoding="utf-8")), dict)
    for name in files:
        assert (tmp_path / name).stat().st_size > 0, name


# --------------------------------------------------------------------------- 배


def test_no_held_out_context_was_seen_and_only_the_clue_tells_the_meaning() -> None:
    example = load("ambiguous_word.py")
    train, held_out = example.split_contexts(seed=1)
    assert len(train) + len(held_out) == len({sentence.ko for sentence in [*train, *held_out]})

    def contexts(sentences: list) -> set[tuple[str, str]]:
        return {(s.clue, s.main) for s in sentences}

    assert not contexts(train) & contexts(held_out)
    assert {s.clue for s in held_out} <= {s.clue for s in train}
    # Without its clue a sentence says nothing: the rest of it stands in the data with each of the three meanings.
    meanings: dict[str, set[str]] = {}
    for sentence in [*train, *held_out]:
        meanings.setdefault(sentence.ko.replace(sentence.clue, "…"), set()).add(sentence.sense)
    assert all(senses == set(example.SENSES) for senses in meanings.values())
    assert all(s.ko.endswith(s.main) and s.clue in s.ko.split() for s in held_out)
    for sentence in held_out:
        assert {sense for sense in example.SENSES if sense in sentence.en.split()} == {sentence.sense}


@pytest.fixture(scope="module")
def ambiguous() -> tuple[ModuleType, Any, Any]:
    """The example with an untrained model of its kind and a tokenizer."""
    example = load("ambiguous_word.py")
    rows = list(itertools.islice(example.all_sentences(), 0, 40_000, 400))
    tokenizer = train_tokenizer((text for row in rows for text in (row.ko, row.en)), 500)
    torch.manual_seed(0)
    sizes = {**example.SIZES, "d_model": 16, "d_ff": 16}
    model = VanillaTransformerForConditionalGeneration(
        preset("tiny", vocab_size=len(tokenizer), num_heads=4, **sizes)
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name:
                parameter.mul_(8.0)  # far from uniform, so that heads differ
    return example, model, tokenizer


def test_what_heads_look_at_is_summed_by_word(ambiguous: tuple) -> None:
    example, model, tokenizer = ambiguous
    text, translation = example.SHOWN[0], "last night I ate pizza because the belly was empty"
    looks = example.looks_at_words(model, tokenizer, text, translation)
    for weights in looks.values():
        assert weights.shape == (2, 4, len(text.split()) + 1)  # layers, heads, words and </s>
        np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)
    # By hand, for the last word, which is </s>: the mean over the tokens of 배가.
    maps = attention_maps(model, tokenizer, text, translation)
    starts = [index for index, token in enumerate(maps.source_tokens) if token.starts_word]
    first, after = starts[text.split().index("배가")], starts[text.split().index("배가") + 1]
    np.testing.assert_allclose(looks["encoder"][..., -1], maps.encoder[:, :, first:after, -1].mean(axis=-1), rtol=1e-5)
    assert set(example.looks_at_words(model, tokenizer, text, "something else")) == {"encoder"}


@pytest.mark.parametrize("kind", ["encoder", "cross"])
def test_a_silenced_head_adds_nothing_and_comes_back(ambiguous: tuple, kind: str) -> None:
    example, model, tokenizer = ambiguous
    ids = tokenizer(example.SHOWN[0], return_tensors="pt")["input_ids"]
    inputs = {"input_ids": ids, "decoder_input_ids": torch.tensor([[1, 9, 10]])}
    stack = model.get_encoder() if kind == "encoder" else model.get_decoder()
    layer = stack.layers[1].self_attn if kind == "encoder" else stack.layers[1].cross_attn
    with torch.no_grad():
        before = model(**inputs).logits
        with example.silenced(model, kind, 1, 2):
            without = model(**inputs).logits
        assert torch.equal(model(**inputs).logits, before) and not torch.allclose(without, before)
        # The same by its weights: 16 / 4 = 4 columns a head of the matrix that mixes the heads.
        layer.out_proj.weight[:, 8:12], kept = 0.0, layer.out_proj.weight[:, 8:12].clone()
        try:
            torch.testing.assert_close(model(**inputs).logits, without)
        finally:
            layer.out_proj.weight[:, 8:12] = kept


# --------------------------------------------------------------------------- the recurrent models


def recurrent(attention: bool) -> torch.nn.Module:
    models = load("compare_with_rnn/models.py")
    torch.manual_seed(0)
    return models.RecurrentForTranslation(models.RecurrentConfig(vocab_size=17, d_model=8, attention=attention)).eval()


@pytest.mark.parametrize("attention", [False, True])
def test_padding_changes_nothing_in_a_recurrent_model(attention: bool) -> None:
    model = recurrent(attention)
    ids, targets = torch.tensor([[5, 6, 2, 0, 0], [7, 8, 9, 10, 2]]), torch.tensor([[1, 4], [1, 5]])
    together = model(input_ids=ids, attention_mask=(ids != 0).long(), decoder_input_ids=targets).logits
    alone = model(
        input_ids=ids[:1, :3], attention_mask=torch.ones(1, 3, dtype=torch.long), decoder_input_ids=targets[:1]
    ).logits
    assert torch.allclose(together[:1], alone, atol=1e-6)


@pytest.mark.parametrize("attention", [False, True])
def test_greedy_steps_of_a_recurrent_model_agree_with_its_forward_pass(attention: bool) -> None:
    model = recurrent(attention)
    ids = torch.tensor([[5, 6, 2, 0], [7, 8, 9, 2]])
    mask = (ids != 0).long()
    written = model.translate_greedily(ids, mask, 6)
    inputs = torch.cat([torch.ones(2, 1, dtype=torch.long), written[:, :-1]], dim=1)
    chosen = model(input_ids=ids, attention_mask=mask, decoder_input_ids=inputs).logits.argmax(dim=-1)
    still_open = (written != 2).long().cumprod(dim=1).roll(1, dims=1)
    still_open[:, 0] = 1
    assert torch.equal(chosen * still_open, written * still_open)


def test_the_loss_of_a_recurrent_model_is_divided_by_what_trainer_counts() -> None:
    model = recurrent(True)
    ids, labels = torch.tensor([[5, 6, 2]]), torch.tensor([[4, 2, -100]])
    batch = dict(input_ids=ids, decoder_input_ids=torch.tensor([[1, 4, 0]]), labels=labels)
    # Two labels: divided by 8 instead, the loss is a quarter.
    assert model(**batch, num_items_in_batch=8).loss.item() == pytest.approx(model(**batch).loss.item() / 4, rel=1e-5)


def test_the_source_is_turned_around_within_its_own_length() -> None:
    models = load("compare_with_rnn/models.py")
    states = torch.arange(1.0, 9.0).view(2, 4, 1)
    turned = models._backwards(states, torch.tensor([4, 2]))
    assert turned.squeeze(-1).tolist() == [[4, 3, 2, 1], [6, 5, 7, 8]]


def test_quality_counts_words_in_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = load("compare_with_rnn/run.py")
    rows = [("one , two", "일 , 이"), ("twenty", "이 십")]
    tokenizer = train_tokenizer((text for row in rows * 5 for text in row), 300)
    written = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("일 , 삼", "이")]
    monkeypatch.setattr(comparison, "greedy", lambda *arguments: written)
    # 일 and the comma of three words, 이 of two.
    assert comparison.quality(torch.nn.Identity(), tokenizer, rows) == pytest.approx(3 / 5)


def test_claims_are_read_off_the_results() -> None:
    comparison = load("compare_with_rnn/run.py")
    plan = comparison.Plan(test_lengths=(1, 10, 40), speed_lengths=(8, 256), depths=(2, 12))
    depth = {"post-norm, 2 + 2 layers": 0.9, "post-norm, 12 + 12 layers": 0.2, "pre-norm, 12 + 12 layers": 0.8}
    results = {
        "tokens_per_second": {"rnn": [2.0, 2.0], "rnn+attention": [1.0, 2.0], "transformer": [4.0, 6.0]},
        "quality_by_length": {name: [1.0, 0.95, 0.3] for name in comparison.NAMES},
        "quality_by_time": {name: [{"seconds": 5.0, "quality": 0.6}] for name in comparison.NAMES},
        "gradient_norms": {name: {"untrained": [1.0], "trained": [0.5]} for name in comparison.NAMES},
        "depth": {name: {"quality": value} for name, value in {**depth, "no positions, 2 + 2 layers": 0.1}.items()},
    }
    found = comparison.claims(results, plan)
    assert found["claim_1"]["number"] == 3.0  # 6 / 2 at the longest
    assert found["claim_1"]["by_length"]["rnn"] == {"8": 2.0, "256": 3.0}
    assert found["claim_1"]["seconds_to_quality"] == {
        "0.5": dict.fromkeys(comparison.NAMES, 5.0), "0.9": dict.fromkeys(comparison.NAMES)
    }  # fmt: skip
    assert found["claim_2"]["number"] == -0.05 and found["claim_2"]["beyond"]["transformer"] == 0.3
    assert found["claim_4"]["number"] == -0.7 and found["claim_7"]["number"] == 0.1


# --------------------------------------------------------------------------- descendants


def test_the_encoder_sees_both_sides_and_the_decoder_only_what_is_before() -> None:
    example = load("descendants.py")
    config = example.VanillaTransformerConfig(
        vocab_size=23, d_model=16, d_ff=24, num_heads=2, encoder_layers=1, decoder_layers=2
    )
    torch.manual_seed(0)
    encoder, decoder = example.EncoderForMaskedLM(config).eval(), example.DecoderForCausalLM(config).eval()
    assert not any("cross_attn" in name for name, _ in decoder.named_parameters())
    for model in (encoder, decoder):
        assert (
            model.lm_head.weight
            is model.get_submodule("encoder" if model is encoder else "decoder").embed_tokens.weight
        )
    ids, mask = torch.tensor([[5, 6, 7, 8]]), torch.ones(1, 4, dtype=torch.long)
    changed = torch.tensor([[5, 6, 7, 9]])
    assert not torch.allclose(encoder(ids, mask).logits[:, 0], encoder(changed, mask).logits[:, 0])
    assert torch.allclose(decoder(ids, mask).logits[:, :3], decoder(changed, mask).logits[:, :3], atol=1e-6)
