"""The vocabulary keeps every character, and what is saved is a stock tokenizer."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.utils import logging

from hf_vanilla_transformer import embedded_corpus, train_tokenizer
from hf_vanilla_transformer.data.tokenization import BYTE_TOKENS, check_tokenizer_fits, normalize_text
from hf_vanilla_transformer.model.tokenizers_vanilla_transformer import TranslationTokenizers


@pytest.fixture(scope="module")
def texts():
    pairs = embedded_corpus("train", 2000)["translation"]
    return [pair[language] for pair in pairs for language in ("en", "ko")]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request, texts):
    return train_tokenizer(texts, 500, model=request.param)


def round_trip(tokenizer, text):
    return tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)


TEXTS = {
    "Hangul": "나는 학교에 간다. 배가 고파서 피자를 먹었다",
    "rare Hangul": "퀡뷁쀍",
    "Hangul from letters": "\u1112\u1161\u11ab\u1100\u1173\u11af",  # composed by NFC: 한글
    "Latin": "The quick brown fox — naïve café!",
    "digits": "1,234.5678 %",
    "emoji": "👩‍👩‍👧‍👦 👍🏽 🇰🇷",
    "right to left": "שלום עולם مرحبا",
    "combining marks": "e\u0301 a\u0323\u0300 q\u0307\u0323",
    "several spaces": "a   b",
    "white space at the ends": "  a b \n",
    "controls": "a\x00b\x07c\td\ne",
    "special tokens written out": "</s> <s> <unk><pad>",
    "bytes written out": "<0x41><0xFF>",
    "word start": "a▁b ▁",
    "no character": "a\ufdd0b \ufdd0/s>",
    "nothing": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_decoding_returns_the_normalised_text(tokenizer, text):
    assert round_trip(tokenizer, text) == normalize_text(tokenizer, text)


def test_normalised_means_nfc_stripped_and_without_the_word_start(tokenizer):
    assert normalize_text(tokenizer, TEXTS["Hangul from letters"]) == "한글"
    assert normalize_text(tokenizer, " e\u0301  x▁ ") == "é  x_"
    assert normalize_text(tokenizer, "</s> \ufdd0") == "</s> \ufffd"


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_survives(texts, text):
    tokenizer = _cached(texts)
    assert round_trip(tokenizer, text) == normalize_text(tokenizer, text)


_CACHE = {}


def _cached(texts):
    if "tokenizer" not in _CACHE:
        _CACHE["tokenizer"] = train_tokenizer(texts, 500)
    return _CACHE["tokenizer"]


def test_every_sentence_ends_with_the_end_token_and_has_no_other_special_token(tokenizer):
    for ids in tokenizer(["one two", " </s>", "a</s>", "</s> <s>", ""])["input_ids"]:
        assert ids[-1] == tokenizer.eos_token_id == 2
        assert not {0, 1, 2, 3} & set(ids[:-1])
    assert tokenizer(text_target="삼백")["input_ids"][-1] == 2


@pytest.mark.parametrize("text", ["</s>", "<unk>", " <pad> ", "<s>", "＜/s＞", "</S>"])
def test_a_text_that_is_a_special_tokens_name_is_text_wherever_the_package_encodes(texts, text):
    for tokenizer in (_cached(texts), train_tokenizer(texts, 500, lowercase=True, normalization="NFKC")):
        tokenizers = TranslationTokenizers(tokenizer)
        for ids in (tokenizers.encode_sources([text])[0], tokenizers.encode_targets([text])[0]):
            assert ids[-1] == 2 and not {0, 1, 2, 3} & set(ids[:-1])
            assert tokenizers.decode(ids) == normalize_text(tokenizer, f" {text}")


@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens", "add_tokens"])
def test_special_tokens_that_are_added_later_stay_whole(texts, key, tmp_path):
    tokenizer = train_tokenizer(texts, 500)
    if key == "add_tokens":
        tokenizer.add_tokens(["<2ko>"], special_tokens=True)
    else:
        tokenizer.add_special_tokens({key: ["<2ko>"]})
    tokenizer.save_pretrained(tmp_path)
    for found in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert found.convert_tokens_to_ids("<2ko>") == 500
        for text, place in (("<2ko> three hundred", 0), ("three <2ko> hundred", None), ("a </s><2ko>", -2)):
            ids = found(text)["input_ids"]
            assert ids.count(500) == 1 and not {0, 1, 2, 3} & set(ids[:-1])
            assert place is None or ids[place] == 500
            assert found.decode(ids, skip_special_tokens=True).split() == text.replace("<2ko>", " ").split()


@pytest.mark.parametrize("model", ["bpe", "unigram"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_extra_tokens_are_one_token_anywhere_and_not_decoded(texts, model, lowercase, tmp_path):
    tokenizer = train_tokenizer(texts, 500, model=model, lowercase=lowercase, extra_tokens=["<2ko>", "<2DE>"])
    tokenizer.save_pretrained(tmp_path)
    for found in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert len(found) == 500 and {"<2ko>", "<2DE>"} <= set(found.all_special_tokens)
        expected = found("three")["input_ids"][:-1], found("hundred")["input_ids"][:-1]
        for text in ("three <2DE> hundred", "three<2DE>hundred", "three <2DE>hundred"):
            ids = found(text)["input_ids"]
            assert ids == [*expected[0], 499, *expected[1], 2]
            assert found.decode(ids, skip_special_tokens=True) == "three hundred"
        assert found("<2ko> three")["input_ids"] == [498, *expected[0], 2] == found("<2ko>three")["input_ids"]
        assert TranslationTokenizers(found).encode_sources(["<2ko>"]) == [[498, 2]]
    if model == "bpe":  # the same subwords as without them
        assert train_tokenizer(texts, 498, lowercase=lowercase).get_vocab().items() <= found.get_vocab().items()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("<2ko>", "extra_tokens is one string; give a list"),
        ([""], "extra token '' is empty or has white space"),
        (["<2 ko>"], "extra token '<2 ko>' is empty or has white space"),
        (["x"], "extra token 'x' is a single character"),
        (["</s>"], "extra token '</s>' is built in"),
        (["<0x41>"], "extra token '<0x41>' is built in"),
        (["<a>", "<b>", "<a>"], "extra token '<a>' is given twice"),
    ],
)
def test_impossible_extra_tokens_are_refused(texts, tokens, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(texts, 500, extra_tokens=tokens)


def test_a_tokenizer_that_splits_its_special_tokens_is_named(texts, caplog):
    tokenizer = train_tokenizer(texts, 500)
    tokenizer.split_special_tokens = True  # as this package saved them before
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    logging.enable_propagation()
    try:
        TranslationTokenizers(tokenizer)
    finally:
        logging.disable_propagation()
    assert "splits its special tokens" in caplog.text and "<2de>" in caplog.text


def test_special_ids_are_the_configurations_defaults(tokenizer):
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert ids == (0, 1, 2, 3)


def test_vocabulary_has_the_size_asked_for(texts):
    for size in (450, 600):
        assert len(train_tokenizer(texts, size)) == size


def test_same_texts_give_the_same_file(texts, tmp_path):
    for name in "ab":
        train_tokenizer(texts, 500).save_pretrained(tmp_path / name)
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_loads_through_auto_tokenizer_without_this_package(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    program = (
        "import sys\n"
        "from transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path)!r})\n"
        "assert not any(name.startswith('hf_vanilla') for name in sys.modules)\n"
        "print(tokenizer('삼백이십만 오 </s>')['input_ids'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip().splitlines()[-1] == str(tokenizer("삼백이십만 오 </s>")["input_ids"])


def test_lower_case_and_compatibility_forms_are_options(texts):
    tokenizer = train_tokenizer(texts, 500, lowercase=True, normalization="NFKC")
    assert round_trip(tokenizer, "ABC ﬁ １２") == "abc fi 12"


def test_rare_characters_go_in_bytes():
    texts = ["the cat sat on the mat"] * 200 + ["힣"]
    tokenizer = train_tokenizer(texts, 300, character_coverage=0.999)
    assert "힣" not in tokenizer.get_vocab()
    assert tokenizer.tokenize("힣")[-3:] == ["<0xED>", "<0x9E>", "<0xA3>"]  # its UTF-8 bytes
    assert round_trip(tokenizer, "힣") == "힣"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_tokenizer([], 500), "there is no text"),
        (lambda: train_tokenizer(["  "], 500), "there is no text"),
        (lambda: train_tokenizer(["abc"], 100), r"vocab_size=100 is too small: .* need 264"),  # 4 + 256 + 3 + 1
        (lambda: train_tokenizer(["abc"], 500, model="wordpiece"), "choose 'bpe' or 'unigram'"),
        (lambda: train_tokenizer(["abc"], 500, normalization="NFX"), "choose 'NFC', 'NFKC' or None"),
        (lambda: train_tokenizer(["abc"], 500, character_coverage=0), "choose 0 < coverage"),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_tokenizer_of_another_model_is_refused(tokenizer):
    fits = SimpleNamespace(vocab_size=500, pad_token_id=0, eos_token_id=2)
    check_tokenizer_fits(tokenizer, fits)
    with pytest.raises(ValueError, match="has 500 tokens, the model's vocabulary only 499"):
        check_tokenizer_fits(tokenizer, SimpleNamespace(**{**vars(fits), "vocab_size": 499}))
    with pytest.raises(ValueError, match="eos_token_id is 2, the model's is 3"):
        check_tokenizer_fits(tokenizer, SimpleNamespace(**{**vars(fits), "eos_token_id": 3}))


def test_all_bytes_are_in_the_vocabulary(tokenizer):
    vocabulary = tokenizer.get_vocab()
    assert [vocabulary[token] for token in BYTE_TOKENS] == list(range(4, 260))


def test_every_space_of_unicode_is_a_space():
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 300)
    expected = tokenizer("one two three")["input_ids"]
    for space in "\u00a0\u2009\u202f\u3000":
        assert tokenizer(f"one{space}two three")["input_ids"] == expected
        assert normalize_text(tokenizer, f"one{space}two three") == "one two three"
