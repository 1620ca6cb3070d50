"""`translate`: the order of the results, odd lines, streams."""

import copy
import itertools
import multiprocessing
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    paper_beam_search,
)
from hf_vanilla_transformer.data.tokenization import train_tokenizer
from hf_vanilla_transformer.translation import batches, translator
from hf_vanilla_transformer.translation.texts import ScoredTranslation
from hf_vanilla_transformer.translation.translate import translate
from hf_vanilla_transformer.worker_processes import WorkerProcesses, workers_are_supported

SENTENCES = [
    "a cat sat on the mat",
    "the dog",
    "no",
    "a dog and a cat sat on the mat and the dog sat",
    "고양이가 매트 위에 앉았다",
    "the mat",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(SENTENCES, vocab_size=320)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    """A random model whose translations depend on its source and end soon."""
    torch.manual_seed(0)
    config = VanillaTransformerConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        d_ff=24,
        num_heads=2,
        encoder_layers=2,
        decoder_layers=2,
        output_bias=True,
        tie_word_embeddings=False,
    )
    model = VanillaTransformerForConditionalGeneration(config).double()
    with torch.no_grad():
        model.lm_head.weight.mul_(6.0)
        model.lm_head.bias[4:260] = -20.0  # single bytes seldom make a text
        model.lm_head.bias[tokenizer.eos_token_id] = 1.0
    return model


def translate_alone(model: Any, tokenizer: Any, text: str, **settings: Any) -> list[str]:
    output = paper_beam_search(model, torch.tensor([tokenizer(text)["input_ids"]]), config=BeamSearchConfig(**settings))
    return [tokenizer.decode(hypothesis, skip_special_tokens=True) for hypothesis in output.hypotheses()[0]]


# --------------------------------------------------------------------------- translate


@pytest.mark.parametrize("batching", [{}, {"batch_size": 2}, {"batch_tokens": 20}, {"window": 2}, {"batch_tokens": 1}])
def test_translations_come_back_in_order_whatever_the_batches(
    model: Any, tokenizer: Any, batching: dict[str, int]
) -> None:
    expected = [translate_alone(model, tokenizer, text)[0] for text in SENTENCES]
    assert len(set(expected)) > 1  # or order would not be seen
    assert translate(model, tokenizer, SENTENCES, **batching) == expected


def test_batches_keep_to_both_limits_and_hold_texts_of_like_length(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []

    def spy(model: Any, ids: torch.Tensor, mask: torch.Tensor, **settings: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return paper_beam_search(model, ids, mask, **settings)

    monkeypatch.setattr(translator, "paper_beam_search", spy)
    texts = ["the mat " * n for n in (1, 9, 2, 8, 1, 9)]
    translate(model, tokenizer, texts, BeamSearchConfig(num_beams=1, max_extra_tokens=0), batch_size=3, batch_tokens=60)
    assert sum(rows for rows, _ in shapes) == 6
    assert all(rows <= 3 and rows * width <= 60 for rows, width in shapes)
    lengths = sorted((len(ids) for ids in tokenizer(texts)["input_ids"]), reverse=True)
    assert [width for _, width in shapes] == sorted((width for _, width in shapes), reverse=True)
    assert shapes[0][1] == lengths[0]


def test_one_text_gives_one_translation_and_n_best_gives_lists(model: Any, tokenizer: Any) -> None:
    text = SENTENCES[0]
    assert translate(model, tokenizer, text) == translate_alone(model, tokenizer, text)[0]
    best = translate(model, tokenizer, text, BeamSearchConfig(num_return_sequences=3), return_scores=True)
    assert [scored.text for scored in best] == translate_alone(model, tokenizer, text, num_return_sequences=3)
    assert [scored.score for scored in best] == sorted((t.score for t in best), reverse=True)
    assert translate(model, tokenizer, [""], BeamSearchConfig(num_return_sequences=2), return_scores=True) == [
        [ScoredTranslation("", 0.0)] * 2
    ]


def test_settings_reach_the_search(model: Any, tokenizer: Any) -> None:
    settings = {
        "num_beams": 3,
        "length_penalty": 2.0,
        "length_normalization": "power",
        "max_extra_tokens": 2,
        "coverage_penalty": 0.5,
    }
    translations = translate(model, tokenizer, SENTENCES, BeamSearchConfig(**settings))
    assert translations == [translate_alone(model, tokenizer, text, **settings)[0] for text in SENTENCES]


@pytest.mark.parametrize("blank", ["", "   ", "\t\n", "\u3000\u00a0"])
def test_a_blank_text_is_empty_without_the_model(
    tokenizer: Any, model: Any, blank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = translate(model, tokenizer, SENTENCES[:2])
    assert translate(model, tokenizer, [SENTENCES[0], blank, SENTENCES[1]]) == [expected[0], "", expected[1]]
    monkeypatch.setattr(translator, "paper_beam_search", lambda *_, **__: pytest.fail("the model was asked"))
    assert translate(model, tokenizer, blank) == ""
    assert translate(model, tokenizer, []) == []


def test_texts_that_are_too_long_become_empty_and_are_counted_by_line(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(translator.logger, "warning", warnings.append)
    expected = translate(model, tokenizer, SENTENCES[1])
    length = len(tokenizer(SENTENCES[1])["input_ids"])
    texts = ["mat " * 400, SENTENCES[1], "", "cat " * 100_000]
    # window=2: lines are counted over all windows.
    assert translate(model, tokenizer, texts, max_source_tokens=length, window=2) == ["", expected, "", ""]
    assert len(warnings) == 1 and "2 text(s)" in warnings[0] and "line 1, 4;" in warnings[0]
    assert translate(model, tokenizer, SENTENCES[1], max_source_tokens=length - 1) == ""


def test_learned_positions_limit_the_source(tokenizer: Any) -> None:
    config = VanillaTransformerConfig(
        vocab_size=len(tokenizer),
        d_model=8,
        d_ff=8,
        num_heads=1,
        encoder_layers=1,
        decoder_layers=1,
        position_embedding_type="learned",
        max_position_embeddings=6,
    )
    model = VanillaTransformerForConditionalGeneration(config)
    translations = translate(model, tokenizer, ["no", "mat " * 10])
    assert len(translations) == 2 and translations[1] == ""


def test_hostile_texts_give_one_translation_each(model: Any, tokenizer: Any) -> None:
    texts = ["\ud800", "\x00", "</s> <pad> <s>", "\u200b", "🙂" * 50, "\r", "a\nb", "\ufeff", "ㅤ", "%s {} \\"]
    translations = translate(model, tokenizer, texts, BeamSearchConfig(num_beams=2, max_extra_tokens=2))
    assert len(translations) == len(texts) and all(isinstance(text, str) for text in translations)


def test_a_generator_is_read_window_by_window(model: Any, tokenizer: Any) -> None:
    read: list[str] = []

    def texts() -> Iterator[str]:
        for text in itertools.cycle(SENTENCES):  # endless
            read.append(text)
            yield text

    stream = translate(model, tokenizer, texts(), BeamSearchConfig(num_beams=1), window=4)
    assert read == []
    expected = translate(model, tokenizer, SENTENCES, BeamSearchConfig(num_beams=1))
    assert list(itertools.islice(stream, 5)) == expected[:5]
    assert len(read) == 8


def test_bad_arguments_are_refused_at_once(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="line 2 is of type NoneType"):
        translate(model, tokenizer, ["a", None])
    with pytest.raises(ValueError, match="batch_size=0"):
        translate(model, tokenizer, iter(["a"]), batch_size=0)
    with pytest.raises(ValueError, match="num_return_sequences=5"):
        translate(model, tokenizer, iter(["a"]), BeamSearchConfig(num_return_sequences=5))
    larger = train_tokenizer([*SENTENCES, "quite some other words to learn"], vocab_size=len(tokenizer) + 10)
    with pytest.raises(ValueError, match="tokenizer"):
        translate(model, larger, iter(["a"]))


@pytest.mark.skipif(not workers_are_supported(), reason="worker processes need Linux")
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("number", [1, 2])
def test_worker_processes_translate_as_one_process_does(
    model: Any, tokenizer: Any, workers: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*SENTENCES, "", *reversed(SENTENCES)]
    search = BeamSearchConfig(num_return_sequences=number)
    expected = translate(model, tokenizer, texts, search, return_scores=True)
    started = []
    monkeypatch.setattr(batches, "WorkerProcesses", lambda *options: started.append(1) or WorkerProcesses(*options))
    found = translate(model, tokenizer, texts, search, return_scores=True, workers=workers, batch_size=2, window=5)
    assert started == [1]  # once, for all windows
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(*([ours], [theirs]) if number == 1 else (ours, theirs), strict=True):
            assert one.text == other.text and one.score == pytest.approx(other.score)


@pytest.mark.skipif(not workers_are_supported(), reason="worker processes need Linux")
def test_one_batch_needs_no_worker_processes(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WorkerProcesses", lambda *_: pytest.fail("started"))
    assert translate(model, tokenizer, SENTENCES, workers=2) == translate(model, tokenizer, SENTENCES)


@pytest.mark.skipif(not workers_are_supported(), reason="worker processes need Linux")
def test_workers_end_with_the_iterator(model: Any, tokenizer: Any) -> None:
    before = set(multiprocessing.active_children())
    translations = translate(model, tokenizer, iter(SENTENCES * 20), workers=2, batch_size=2, window=6)
    next(translations)
    assert set(multiprocessing.active_children()) - before
    del translations  # as where a caller stops reading
    assert not set(multiprocessing.active_children()) - before


def test_workers_are_refused_where_they_cannot_help(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = SimpleNamespace(config=model.config, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="workers=2 is for torch models"):
        translate(exported, tokenizer, SENTENCES, workers=2)
    with pytest.raises(ValueError, match="workers"):
        translate(model, tokenizer, SENTENCES, workers=0)
    meta = copy.deepcopy(model).to("meta")
    with pytest.raises(ValueError, match="the model is on meta"):
        translate(meta, tokenizer, SENTENCES, workers=2)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match="worker processes need Linux"):
        translate(model, tokenizer, SENTENCES, workers=2)


def test_the_chosen_number_of_workers_is_that_of_torch_s_threads_where_workers_can_help(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = SimpleNamespace(config=model.config, device=torch.device("cpu"))
    monkeypatch.setattr(batches, "workers_are_supported", lambda: True)
    for threads, workers in ((1, 1), (3, 3), (64, 16)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert batches.number_of_workers(model, None) == workers
    assert batches.number_of_workers(exported, None) == 1
    assert batches.number_of_workers(copy.deepcopy(model).to("meta"), None) == 1
    monkeypatch.setattr(batches, "workers_are_supported", lambda: False)
    assert batches.number_of_workers(model, None) == 1
