"""Which tokenizer encodes which side, where the EOS token comes from, and what is saved."""

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_vanilla_transformer import DataCollatorForTranslation, TranslationTokenizers, train_tokenizer
from hf_vanilla_transformer.checkpoints.loading import load_tokenizers

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "one", "two", "a"]


def word_tokenizer(template: str | None = None, words: list[str] = WORDS, **tokens: str) -> Any:
    """Make a tokenizer of whole words that adds the special tokens of the template to a sentence."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **tokens}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def test_a_missing_eos_token_is_appended() -> None:
    tokenizers = TranslationTokenizers(word_tokenizer())  # as GPT-2's
    assert tokenizers.source("one two")["input_ids"] == [4, 5]
    assert tokenizers.encode_sources(["one two", "one"]) == [[4, 5, 2], [4, 2]]
    assert tokenizers.encode_targets(["one two", "one"]) == [[4, 5, 2], [4, 2]]
    ids, spans = tokenizers.encode_with_offsets("target", ["one two"])
    assert ids == [[4, 5, 2]] and spans == [[(0, 3), (4, 7), (0, 0)]]


def test_an_eos_token_of_the_tokenizer_is_not_added_again() -> None:
    tokenizers = TranslationTokenizers(word_tokenizer("$A </s>"))
    assert tokenizers.encode_sources(["one"]) == tokenizers.encode_targets(["one"]) == [[4, 2]]
    assert tokenizers.encode_sources([]) == []


def test_a_bos_token_is_kept_in_sources_and_removed_from_labels() -> None:
    tokenizers = TranslationTokenizers(word_tokenizer("<s> $A </s>"))  # as BART's
    assert tokenizers.encode_sources(["one"]) == [[1, 4, 2]]
    assert tokenizers.encode_targets(["one"]) == [[4, 2]]
    assert tokenizers.encode_with_offsets("target", ["one"]) == ([[4, 2]], [[(0, 3), (0, 0)]])


class TwoSides(PreTrainedTokenizerFast):
    """Encodes targets with other words, as Marian's tokenizer does."""

    def __call__(self, text: Any = None, text_target: Any = None, **settings: Any) -> Any:
        if text_target is None:
            return super().__call__(text, **settings)
        return super().__call__([" ".join("two" for _ in sentence.split()) for sentence in text_target], **settings)


def test_targets_are_encoded_as_text_target() -> None:
    tokenizer = word_tokenizer("$A </s>")
    tokenizer.__class__ = TwoSides
    assert TranslationTokenizers(tokenizer).encode_targets(["하나 둘"]) == [[5, 5, 2]]
    # A tokenizer of both sides may also be the separate target tokenizer, as in converted models with untied matrices.
    assert TranslationTokenizers(tokenizer, tokenizer).encode_targets(["하나 둘"]) == [[5, 5, 2]]


def test_two_tokenizers_are_saved_and_found_again(tmp_path: Any) -> None:
    source, target = word_tokenizer("$A </s>"), word_tokenizer("$A </s>", [*WORDS[:4], "하나", "둘"])
    TranslationTokenizers(source, target).save_pretrained(tmp_path / "checkpoint")
    source.save_pretrained(tmp_path / "command" / "source")
    target.save_pretrained(tmp_path / "command" / "target")
    for folder in ("checkpoint", "command"):
        found = load_tokenizers(tmp_path / folder)
        assert found.separate and (len(found.source), len(found.target)) == (7, 6)
        assert found.encode_targets(["둘"]) == [[5, 2]] and found.decode([5, 2]) == "둘"
        assert found.count_unknown(found.encode_sources(["one 둘"]), "source") == 1
    model = SimpleNamespace(config=SimpleNamespace(
        vocab_size=7, decoder_vocab_size=6, output_vocab_size=6, pad_token_id=0, eos_token_id=2,
        name_or_path=str(tmp_path / "checkpoint"),
    ))  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    assert len(TranslationTokenizers.of(model, tokenizer).target) == 6  # from the checkpoint's folder
    assert TranslationTokenizers.of(model, found).target is found.target
    model.config.output_vocab_size = 5
    with pytest.raises(ValueError, match="the target tokenizer has 6 tokens, the model's vocabulary only 5"):
        TranslationTokenizers.of(model, tokenizer)


def test_one_tokenizer_is_saved_once(tmp_path: Any) -> None:
    TranslationTokenizers(word_tokenizer()).save_pretrained(tmp_path)
    assert not (tmp_path / "target_tokenizer").exists()
    assert not load_tokenizers(tmp_path).separate


def test_the_collator_takes_both_and_knows_each_size() -> None:
    pair = TranslationTokenizers(word_tokenizer(), word_tokenizer(words=[*WORDS, "three"]))
    batch = DataCollatorForTranslation(pair)([{"input_ids": [4, 2], "labels": [7, 2]}])
    assert batch["labels"].tolist() == [[7, 2]]
    with pytest.raises(ValueError, match="has the id 7 in input_ids, outside the vocabulary of 7 tokens"):
        DataCollatorForTranslation(pair)([{"input_ids": [7, 2], "labels": [4, 2]}])


def test_a_tokenizer_without_an_eos_token_is_refused() -> None:
    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"the target tokenizer has no eos_token.*add_special_tokens"):
        TranslationTokenizers(train_tokenizer(["one"], 300), tokenizer)
