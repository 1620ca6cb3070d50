"""The choice of the alignment head, where one head aligns by construction."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from hf_vanilla_transformer import align_words, choose_alignment_head, embedded_corpus
from hf_vanilla_transformer.alignment.statistical import intersected_links
from hf_vanilla_transformer.alignment.word_alignment import WordAligner

# Each English word has one Korean translation, in reversed order.
VOCABULARY = {
    "one": "일",
    "two": "이",
    "three": "삼",
    "four": "사",
    "five": "오",
    "six": "육",
    "seven": "칠",
    "eight": "팔",
}


def reversed_pairs(number: int) -> tuple[list[str], list[str]]:
    torch.manual_seed(0)
    words = list(VOCABULARY)
    rows = [[words[index] for index in torch.randint(len(words), (3 + row % 4,))] for row in range(number)]
    return [" ".join(row) for row in rows], [" ".join(VOCABULARY[word] for word in reversed(row)) for row in rows]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head 2 of layer 1 attends to the translation when it reads a token; the others have random weights."""

    def weights(self: Any, pairs: dict[int, Any], layers: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        torch.manual_seed(1)
        for place, (source, target) in pairs.items():
            found = [torch.rand(4, len(target.ids), len(source.ids)) for _ in layers]
            for token, words in enumerate(target.words):
                for word in words:
                    wanted = source.size - 1 - word
                    first = next(index for index, of_token in enumerate(source.words) if wanted in of_token)
                    if 1 in layers:
                        found[list(layers).index(1)][2, token + 1] = torch.eye(len(source.ids))[first]
            yield place, found

    monkeypatch.setattr(WordAligner, "weights", weights)


def test_the_statistical_aligner_finds_translations_in_any_order() -> None:
    sources, targets = reversed_pairs(300)
    ids = {word: place for place, word in enumerate([*VOCABULARY, *VOCABULARY.values()])}
    links = intersected_links(
        *([[ids[word] for word in text.split()] for text in texts] for texts in (sources, targets))
    )
    right = total = 0
    for source, target, found in zip(sources, targets, links, strict=True):
        total += len(found)
        right += sum(VOCABULARY[source.split()[i]] == target.split()[j] for i, j in found)
    assert right == total > 300 * 3


@pytest.mark.usefixtures("planted")
def test_the_head_is_found_without_gold_alignments(model: Any, tokenizer: Any) -> None:
    choice = choose_alignment_head(model, tokenizer, *reversed_pairs(200))
    assert str(choice.best) == "1.2+1" and choice.pairs == 200 and not choice.with_gold
    assert list(choice.errors.values()) == sorted(choice.errors.values())
    assert len(choice.errors) == 2 * 3 * 5  # with and without shift, 3 layers, 4 heads and their mean


@pytest.mark.usefixtures("planted")
def test_the_head_is_found_with_gold_alignments(model: Any, tokenizer: Any) -> None:
    sources, targets = reversed_pairs(10)
    lengths = [len(source.split()) for source in sources]
    gold = [" ".join(f"{length - 1 - place}-{place}" for place in range(length)) for length in lengths]
    choice = choose_alignment_head(model, tokenizer, [*sources, ""], [*targets, ""], [*gold, ""])
    assert str(choice.best) == "1.2+1" and choice.errors[choice.best] == 0.0 and choice.with_gold
    assert align_words(model, tokenizer, sources, targets, choice.best)[0] == sorted(
        (lengths[0] - 1 - place, place) for place in range(lengths[0])
    )


def test_real_weights_are_compared(model: Any, tokenizer: Any) -> None:
    rows = embedded_corpus("validation", 40)["translation"]
    choice = choose_alignment_head(model, tokenizer, [row["en"] for row in rows], [row["ko"] for row in rows])
    assert choice.best in choice.errors and all(0 <= error <= 1 for error in choice.errors.values())


def test_nothing_to_compare_is_explained(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="no sentence pairs to choose the alignment head on"):
        choose_alignment_head(model, tokenizer, ["", "one"], ["일", " "])
    with pytest.raises(ValueError, match="1 gold alignments but 2 pairs"):
        choose_alignment_head(model, tokenizer, ["one", "two"], ["일", "이"], ["0-0"])
    with pytest.raises(ValueError, match="1 sources but 2 targets"):
        choose_alignment_head(model, tokenizer, ["one"], ["일", "이"])
