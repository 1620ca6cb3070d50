"""Word alignments against a computation by loops from the attention weights that the model returns."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from hf_vanilla_transformer import TranslationTokenizers, align_words, translate
from hf_vanilla_transformer.alignment.heads import AlignmentHeads, store_heads, stored_heads
from hf_vanilla_transformer.alignment.words import TokenizedText, tokenize_words

PAIRS = [
    ("three million and five", "삼백만 오"),
    ("nine o'clock a.m.", "오전 아홉 시"),
    ("March fifth, nineteen ninety-nine", "천구백구십구년 삼월 오일"),
    ("two", "이"),
]
SOURCES, TARGETS = [source for source, _ in PAIRS], [target for _, target in PAIRS]


def words_of_tokens(tokenizer: Any, text: str) -> list[int]:
    """The word of each token, by encoding one word after the other: the tokenizer splits at white space."""
    return [place for place, word in enumerate(text.split()) for _ in tokenizer.tokenize(word)]


def by_loops(model: Any, tokenizer: Any, source: str, target: str, heads: AlignmentHeads) -> list[tuple[int, int]]:
    ids = torch.tensor([tokenizer(source)["input_ids"]])
    labels = tokenizer(text_target=target)["input_ids"]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=ids, labels=torch.tensor([labels]), output_attentions=True)
    model.set_attn_implementation("sdpa")
    weights = output.cross_attentions[heads.layer][0]  # (H, T, S)
    weights = weights.mean(0) if heads.head is None else weights[heads.head]
    source_words, target_words = words_of_tokens(tokenizer, source), words_of_tokens(tokenizer, target)
    links = set()
    for token, word in enumerate(target_words):
        largest = int(weights[token + heads.shift].argmax())
        if largest < len(source_words):  # else EOS
            links.add((source_words[largest], word))
    return sorted(links)


@pytest.mark.parametrize("heads", ["1", "2", "0.1", "2.3", "1.2+1", "0+1"])
def test_alignments_are_the_largest_weights_of_the_chosen_heads(model: Any, tokenizer: Any, heads: str) -> None:
    expected = [by_loops(model, tokenizer, *pair, AlignmentHeads.parse(heads)) for pair in PAIRS]
    assert any(expected)
    for batch_size in (1, 3, 64):
        assert align_words(model, tokenizer, SOURCES, TARGETS, heads, batch_size=batch_size) == expected
    assert align_words(model, tokenizer, SOURCES, TARGETS, heads, batch_tokens=20) == expected


def test_the_model_is_left_as_it_was(model: Any, tokenizer: Any) -> None:
    model.train()
    align_words(model, tokenizer, SOURCES, TARGETS)
    assert model.training and model.config._attn_implementation == "sdpa"
    assert not any(layer.cross_attn._forward_hooks for layer in model.model.decoder.layers)


def test_empty_texts_have_no_links(model: Any, tokenizer: Any) -> None:
    found = align_words(model, tokenizer, ["", "two", "  ", "two"], ["이", "", "", "이"])
    assert found[:3] == [[], [], []] and found[3] == align_words(model, tokenizer, ["two"], ["이"])[0]
    assert align_words(model, tokenizer, [], []) == []


def test_without_a_head_the_stored_one_is_taken_else_the_mean_over_the_last_layer_but_one(
    model: Any, tokenizer: Any, tmp_path: Any
) -> None:
    assert align_words(model, tokenizer, SOURCES, TARGETS) == align_words(model, tokenizer, SOURCES, TARGETS, "1")
    for text in ("2.3", "0", "0.1+1"):
        store_heads(model, AlignmentHeads.parse(text))
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        assert str(stored_heads(again)) == text
        found = align_words(again, tokenizer, SOURCES, TARGETS)
        assert found == align_words(model, tokenizer, SOURCES, TARGETS, text)
    model.generation_config.alignment_heads = [[0, 1], [1, 1]]
    with pytest.raises(ValueError, match=r"alignment_heads=\[\[0, 1\], \[1, 1\]\] in generation_config.json are not"):
        align_words(model, tokenizer, SOURCES, TARGETS)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ("3", "alignment_head='3' is not in the model, which has layers 0 to 2 with heads 0 to 3"),
        ("0.4", "alignment_head='0.4' is not in the model"),
        ("last", "alignment_head='last' is not LAYER.HEAD; write e.g. 2.1"),
        ("1.", "is not LAYER.HEAD"),
    ],
)
def test_heads_that_the_model_does_not_have_are_rejected(model: Any, tokenizer: Any, heads: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align_words(model, tokenizer, SOURCES, TARGETS, heads)


def test_numbers_of_texts_that_differ_are_rejected(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="2 sources but 1 targets"):
        align_words(model, tokenizer, ["one", "two"], ["일"])


def test_translate_aligns_each_hypothesis_with_its_text(model: Any, tokenizer: Any) -> None:
    texts = [*SOURCES, "", "one"]
    found = translate(model, tokenizer, texts, return_scores=True, alignments=True, alignment_head="0.2", window=4)
    expected = align_words(model, tokenizer, texts, [translation.text for translation in found], "0.2")
    assert [list(translation.alignment or ()) for translation in found] == expected
    assert found[4].alignment == ()
    assert translate(model, tokenizer, "two", return_scores=True).alignment is None
    with pytest.raises(ValueError, match="alignments=True needs return_scores=True"):
        translate(model, tokenizer, texts, alignments=True)
    with pytest.raises(ValueError, match=r"alignment_head=0.2 has no effect without alignments"):
        translate(model, tokenizer, texts, alignment_head="0.2")


def test_of_an_ensemble_the_first_model_aligns(model: Any, tokenizer: Any) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for layer in other.model.decoder.layers:
            layer.cross_attn.q_proj.weight.mul_(-1)
    found = translate([model, other], tokenizer, SOURCES, return_scores=True, alignments=True)
    targets = [translation.text for translation in found]
    assert [list(best.alignment or ()) for best in found] == align_words(model, tokenizer, SOURCES, targets)
    assert align_words(other, tokenizer, SOURCES, targets) != align_words(model, tokenizer, SOURCES, targets)


def test_a_source_tag_is_read_by_the_model_but_is_no_word(model: Any, tokenizer: Any) -> None:
    tagged = align_words(model, tokenizer, SOURCES, TARGETS, source_tag="o n")
    as_words = align_words(model, tokenizer, [f"o n {source}" for source in SOURCES], TARGETS)
    assert tagged == [[(source - 2, target) for source, target in links if source >= 2] for links in as_words]
    assert tagged != align_words(model, tokenizer, SOURCES, TARGETS)


# --------------------------------------------------------------------------- words of tokens


def test_tokens_of_a_word_belong_to_it_and_eos_to_none(tokenizer: Any) -> None:
    tokenizers = TranslationTokenizers(tokenizer)
    for side, texts in (("source", SOURCES), ("target", TARGETS)):
        for text, tokenized in zip(texts, tokenize_words(tokenizers, side, texts), strict=True):
            assert tokenized.size == len(text.split())
            assert [list(words) for words in tokenized.words] == [
                *([word] for word in words_of_tokens(tokenizer, text)),
                [],
            ]


def test_white_space_around_and_between_words_does_not_shift_them(tokenizer: Any) -> None:
    tokenizers = TranslationTokenizers(tokenizer)
    plain, spaced = tokenize_words(tokenizers, "source", ["two won and", "  two   won\tand "])
    assert spaced.size == 3
    kept = [words for words in spaced.words if words]
    assert [words[0] for words in kept if words] == sorted(words[0] for words in kept)
    assert {words[0] for words in kept} == {words[0] for words in plain.words if words}


class SlowTokenizer:
    """A SentencePiece tokenizer without offsets, as transformers' Marian tokenizer."""

    is_fast = False
    all_special_ids = (2, 3)
    unk_token_id = 3
    eos_token_id = 2
    bos_token_id = None
    pieces = {4: "▁zwei", 5: "▁Hun", 6: "de", 7: "▁", 2: "</s>", 3: "<unk>", 8: "bel@@"}

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def __call__(self, text: Any = None, text_target: Any = None, **_: Any) -> dict[str, Any]:
        return {"input_ids": [self.ids for _ in (text or text_target)]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[index] for index in ids]


def test_words_of_a_slow_sentencepiece_tokenizer_begin_at_its_marks() -> None:
    tokenizers = TranslationTokenizers(SlowTokenizer([4, 5, 6, 7, 3, 2]))
    (found,) = tokenize_words(tokenizers, "source", ["zwei Hunde ☃"])
    assert found == TokenizedText(
        [4, 5, 6, 7, 3, 2], [range(0, 1), range(1, 2), range(1, 2), range(2, 3), range(2, 3), range(0)], 3
    )


def test_a_slow_tokenizer_without_marks_is_explained() -> None:
    tokenizers = TranslationTokenizers(SlowTokenizer([8, 6, 2]))
    with pytest.raises(ValueError, match="does not mark where words begin; load a fast tokenizer"):
        tokenize_words(tokenizers, "source", ["belde"])


def test_autotokenizer_of_a_saved_tokenizer_gives_the_same_words(tokenizer: Any, tmp_path: Any) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = TranslationTokenizers(AutoTokenizer.from_pretrained(tmp_path))
    assert tokenize_words(again, "target", TARGETS) == tokenize_words(
        TranslationTokenizers(tokenizer), "target", TARGETS
    )
