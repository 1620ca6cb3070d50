"""Minimum Bayes risk decoding against a computation by sacrebleu."""

from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch

from hf_vanilla_transformer import (
    BeamSearchConfig,
    MBRConfig,
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    export_checkpoint,
    load_engine,
    preset,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.minimum_bayes_risk.decoding import choose_by_utility

TEXTS = ["three million and five", "", "nine o'clock a.m.", "two"]


@pytest.fixture(scope="module")
def checkpoint() -> tuple[Any, Any]:
    torch.manual_seed(0)
    rows = embedded_corpus("train", 200)["translation"]
    tokenizer = train_tokenizer((text for row in rows for text in row.values()), 400)
    sizes = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    config = preset("tiny", vocab_size=len(tokenizer), output_bias=True, tie_word_embeddings=False, **sizes)
    model = VanillaTransformerForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(4)
        model.lm_head.bias[:260] = -20.0  # translations of letters, not of bytes or symbols
        model.lm_head.bias[tokenizer.eos_token_id] = 1.0
    return model, tokenizer


def utility(candidate: str, candidates: list[str]) -> float:
    return sum(sacrebleu.sentence_chrf(candidate, [text]).score for text in candidates) / len(candidates)


def test_the_candidate_most_like_all_the_others_is_chosen() -> None:
    candidates = ["a cat sat", "a dog ran far", "the cat sat", "a cat sat down", "a cat sat", ""]
    places, utilities = choose_by_utility(candidates, 3)
    expected = sorted(set(candidates), key=lambda text: -utility(text, candidates))[:3]
    assert [candidates[place] for place in places] == expected
    assert 0 in places and 4 not in places  # of two equal candidates the first
    assert utilities == pytest.approx([utility(text, candidates) for text in expected])


def test_few_different_candidates_are_repeated() -> None:
    assert choose_by_utility(["a", "a", "b"], 3)[0] == [0, 2, 2]


def test_the_n_best_list_is_chosen_from_by_mean_chrf(checkpoint: tuple[Any, Any]) -> None:
    found = translate(*checkpoint, TEXTS, mbr=MBRConfig(num_best=6), return_scores=True)
    n_best = translate(*checkpoint, TEXTS, BeamSearchConfig(num_beams=6, num_return_sequences=6))
    for text, best, candidates in zip(TEXTS, found, n_best, strict=True):
        if not text:
            assert (best.text, best.score) == ("", 0.0)
            continue
        assert best.text in candidates
        assert best.score == pytest.approx(max(utility(candidate, candidates) for candidate in candidates))


def test_samples_give_translations_and_expected_chrf(checkpoint: tuple[Any, Any]) -> None:
    search = BeamSearchConfig(num_beams=4, num_return_sequences=3, max_extra_tokens=5)
    mbr = MBRConfig(num_samples=12)
    found = translate(*checkpoint, TEXTS, search, mbr=mbr, return_scores=True)
    for hypotheses in found:
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert (
            len(scores) == 3 and scores == sorted(scores, reverse=True) and all(0 <= score <= 100 for score in scores)
        )
    assert translate(*checkpoint, TEXTS, search, mbr=mbr, return_scores=True, batch_size=1) == found


def test_an_exported_model_gives_n_best_lists_but_no_samples(checkpoint: tuple[Any, Any], tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    model, tokenizer = checkpoint
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    export_checkpoint("ctranslate2", tmp_path / "checkpoint", tmp_path / "export")
    engine = load_engine("ctranslate2", tmp_path / "export")
    search = BeamSearchConfig(length_normalization="power")
    mbr = MBRConfig(num_best=4)
    assert translate(engine, tokenizer, TEXTS, search, mbr=mbr) == translate(model, tokenizer, TEXTS, search, mbr=mbr)
    with pytest.raises(ValueError, match="num_samples=4 needs a checkpoint"):
        translate(engine, tokenizer, TEXTS, search, mbr=MBRConfig(num_samples=4))
    with pytest.raises(ValueError, match="an exported model returns no attention weights"):
        translate(engine, tokenizer, TEXTS, search, return_scores=True, alignments=True)


def test_an_ensemble_gives_n_best_lists_but_no_samples(checkpoint: tuple[Any, Any]) -> None:
    model, tokenizer = checkpoint
    mbr = MBRConfig(num_best=4)
    assert translate([model, model], tokenizer, TEXTS, mbr=mbr) == translate(model, tokenizer, TEXTS, mbr=mbr)
    with pytest.raises(ValueError, match="num_samples=4 is for one model, because an ensemble draws no samples"):
        translate([model, model], tokenizer, TEXTS, mbr=MBRConfig(num_samples=4))


def test_restrictions_of_the_search_hold_for_n_best_lists_and_are_rejected_for_samples(
    checkpoint: tuple[Any, Any],
) -> None:
    search = BeamSearchConfig(min_length=9)
    found = translate(*checkpoint, "two", search, mbr=MBRConfig(num_best=4))
    assert found in translate(*checkpoint, "two", search.replace(num_return_sequences=4))
    with pytest.raises(ValueError, match="min_length=9 is a setting of the beam search that samples don't follow"):
        translate(*checkpoint, TEXTS, search, mbr=MBRConfig(num_samples=4))
    with pytest.raises(ValueError, match="a list of banned words is a restriction"):
        translate(*checkpoint, TEXTS, banned=["two"], mbr=MBRConfig(num_samples=4))
    with pytest.raises(ValueError, match="without prefixes, constraints and terminology"):
        translate(*checkpoint, TEXTS, terminology={"two": "둘"}, mbr=MBRConfig(num_best=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "set one of num_samples"),
        ({"num_samples": 4, "num_best": 4}, "set one of num_samples"),
        ({"num_samples": 1}, "num_samples=1 is not an integer ≥ 2"),
        ({"num_best": 2.5}, "num_best=2.5 is not an integer ≥ 2"),
        ({"num_best": 4, "temperature": 0.5}, "temperature=0.5 is for samples"),
        ({"num_samples": 4, "temperature": 0}, "temperature=0 must be more than 0"),
        ({"num_samples": 4, "epsilon_cutoff": 1.0}, "epsilon_cutoff=1 must be from 0 to less than 1"),
        ({"num_samples": 4, "top_p": 0}, "top_p=0 must be more than 0"),
        ({"num_samples": 4, "top_p": float("nan")}, "top_p=nan is not a finite number"),
        ({"num_samples": 4, "top_k": -1}, "top_k=-1 is not an integer ≥ 0"),
    ],
)
def test_settings_out_of_range_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MBRConfig(**settings)


def test_more_translations_than_candidates_are_rejected(checkpoint: tuple[Any, Any]) -> None:
    search = BeamSearchConfig(num_beams=4, num_return_sequences=4)
    with pytest.raises(ValueError, match="num_return_sequences=4 is more than the num_samples=3 candidates"):
        translate(*checkpoint, TEXTS, search, mbr=MBRConfig(num_samples=3))
