"""chrF of all pairs, against sacrebleu."""

import random

import numpy as np
import pytest
import sacrebleu

from hf_vanilla_transformer.minimum_bayes_risk import pairwise_chrf as module
from hf_vanilla_transformer.minimum_bayes_risk.pairwise_chrf import pairwise_chrf


def by_sacrebleu(texts: list[str]) -> np.ndarray:
    return np.array([[sacrebleu.sentence_chrf(hypothesis, [text]).score for text in texts] for hypothesis in texts])


@pytest.mark.parametrize("seed", range(4))
def test_all_scores_equal_those_of_sacrebleu(seed: int) -> None:
    generator = random.Random(seed)
    texts = ["".join(generator.choice("aab c  한글.é🙂") for _ in range(generator.randrange(14))) for _ in range(10)]
    texts += ["", "  ", texts[0], "a" * 20, "one two three four five", "one two, three four!"]
    assert np.array_equal(pairwise_chrf(texts), by_sacrebleu(texts))


def test_many_ngrams_are_counted_in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["the quick brown fox", "the quick red fox jumps", "a lazy dog", "the the the"]
    whole = pairwise_chrf(texts)
    monkeypatch.setattr(module, "_COLUMNS", 7)
    assert np.array_equal(pairwise_chrf(texts), whole)


def test_few_and_empty_texts_have_scores() -> None:
    assert pairwise_chrf([]).shape == (0, 0)
    assert pairwise_chrf([""]).tolist() == [[0.0]]
    assert pairwise_chrf(["a"]).tolist() == [[100.0]]
