"""Fine-tuning can extend the vocabulary: new text becomes short, and what the model had learned stays as it was."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import hf_vanilla_transformer as vt
from hf_vanilla_transformer.checkpoints.loading import load_any_tokenizers, load_checkpoint
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.model.tokenizers_vanilla_transformer import TranslationTokenizers
from hf_vanilla_transformer.training.vocabulary_extension import (
    ExtensionRequest,
    extend_tokenizers,
    grow_vocabulary,
)

PAIRS = vt.embedded_corpus("train", 300)["translation"]
ENGLISH, KOREAN = [pair["en"] for pair in PAIRS], [pair["ko"] for pair in PAIRS]


def byte_level(folder: Path) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(ENGLISH, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def word_piece(folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(ENGLISH, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def sentence_piece(folder: Path) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece")
    (folder / "text").write_text("\n".join(ENGLISH))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "m"),
        vocab_size=100,
        character_coverage=1.0,
        minloglevel=2,
    )
    return folder / "m.model"


def ours(model: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        vt.train_tokenizer(ENGLISH, 400, model=model, extra_tokens=["<2ko>"]).save_pretrained(folder / "t")
        return folder / "t"

    return build


BUILDERS = {
    "our BPE": ours("bpe"),
    "our unigram": ours("unigram"),
    "byte-level BPE": byte_level,
    "WordPiece": word_piece,
    "SentencePiece": sentence_piece,
}


def extend(old: TranslationTokenizers, value: str | None, *extra: str) -> TranslationTokenizers:
    texts = {"source": ENGLISH, "target": KOREAN, "both": [*ENGLISH, *KOREAN]}
    request = None if value is None else ExtensionRequest.parse(value)
    return extend_tokenizers(old, request, extra, texts.__getitem__, "old")


def small_model(tokenizer: object, **fields: object) -> vt.VanillaTransformerForConditionalGeneration:
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id")}
    torch.manual_seed(1)
    sizes = {"d_model": 32, "d_ff": 48, "encoder_layers": 1, "decoder_layers": 1, "num_heads": 2}
    start = ids["pad_token_id"]
    config = vt.preset("tiny", **{"vocab_size": len(tokenizer), "decoder_start_token_id": start} | sizes | ids | fields)
    return vt.VanillaTransformerForConditionalGeneration(config).eval()


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
def test_new_text_becomes_short_and_old_text_keeps_its_ids(build: Callable[[Path], Path], tmp_path: Path) -> None:
    old = load_any_tokenizers(build(tmp_path))
    new = extend(old, "120", "<2de>")
    assert len(old) + 121 == len(new)
    for token, index in old.source.get_vocab().items():
        assert new.source.get_vocab()[token] == index
    assert new.encode_sources(ENGLISH) == old.encode_sources(ENGLISH)
    before, after = (sum(map(len, tokenizers.encode_sources(KOREAN))) for tokenizers in (old, new))
    lossy = old.count_unknown(old.encode_sources(KOREAN), "source") > 0
    assert after < before / 2 or (lossy and new.count_unknown(new.encode_sources(KOREAN), "source") == 0)
    new.save_pretrained(tmp_path / "new")
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert reloaded(KOREAN)["input_ids"] == new.encode_sources(KOREAN)
    for text in KOREAN:
        assert reloaded.decode(reloaded(text)["input_ids"], skip_special_tokens=True) == text
    ids = reloaded("<2de> three")["input_ids"]
    assert ids[0] == len(new) - 1 and reloaded.decode(ids, skip_special_tokens=True).strip() == "three"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tie_word_embeddings": False, "output_bias": True},
        {"share_encoder_decoder_embeddings": False},
        {"vocab_size": 448},  # padded to a multiple of 64
    ],
    ids=["tied", "untied with bias", "separate matrices", "padded"],
)
def test_old_logits_stay_and_new_rows_are_the_means_of_the_old_pieces(fields: dict, tmp_path: Path) -> None:
    old = load_any_tokenizers(ours("bpe")(tmp_path))
    new = extend(old, "120", "<2de>")
    model = small_model(old.source, **fields)
    grown = grow_vocabulary(model, old, new)
    assert grown.config.vocab_size == (576 if fields.get("vocab_size") else 521)  # 521 rounded up to 9 · 64
    batch = {"input_ids": torch.tensor(old.encode_sources(ENGLISH[:1])), "labels": torch.tensor([[7, 300, 2]])}
    with torch.no_grad():
        before, after = (found(**batch).logits[..., :400] for found in (model, grown))
    assert torch.equal(before, after)
    added = new.source.get_vocab().keys() - old.source.get_vocab().keys() - {"<2de>"}
    token = max(added, key=len)
    ids = [piece.id for piece in old.source.backend_tokenizer.model.tokenize(token)]
    assert len(ids) >= 3
    place = new.source.convert_tokens_to_ids(token)
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
        rows, now = model.state_dict()[name], grown.state_dict()[name]
        assert torch.equal(rows[:400], now[:400])
        torch.testing.assert_close(now[place], rows[ids].mean(dim=0))
    tied = grown.lm_head.weight is grown.model.encoder.embed_tokens.weight
    assert tied == (fields.get("tie_word_embeddings", True) and fields.get("share_encoder_decoder_embeddings", True))


def test_each_side_of_two_vocabularies_grows_by_its_own_text(tmp_path: Path) -> None:
    english, numbers = vt.train_tokenizer(ENGLISH, 400), vt.train_tokenizer(KOREAN[:20], 350)
    old = TranslationTokenizers(english, numbers)
    new = extend_tokenizers(
        old,
        ExtensionRequest.parse("30"),
        (),
        {"source": KOREAN, "target": ["Grüße über Öl"] * 30}.__getitem__,
        "old",
    )
    model = small_model(english, decoder_vocab_size=len(numbers), share_encoder_decoder_embeddings=False)
    grown = grow_vocabulary(model, old, new)
    assert (grown.config.vocab_size, grown.config.decoder_vocab_size) == (len(new.source), len(new.target))
    assert len(new.source) == 430 and len(numbers) < len(new.target) <= len(numbers) + 30
    assert grown.lm_head.weight.shape[0] == len(new.target)


def test_tokens_of_a_file_are_one_token_and_decode_with_their_spaces(tmp_path: Path) -> None:
    old = load_any_tokenizers(ours("bpe")(tmp_path))
    (tmp_path / "words.txt").write_text("foobar\n서울시\n", encoding="utf-8")
    new = extend(old, str(tmp_path / "words.txt")).source
    for text in ("three foobar hundred", "foobar", "one 서울시"):
        ids = new(text)["input_ids"]
        assert sum(index >= len(old) for index in ids) == 1
        assert new.decode(ids, skip_special_tokens=True) == text
    assert new(ENGLISH)["input_ids"] == old.source(ENGLISH)["input_ids"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", "extend_vocabulary=0 is out of range"),
        ("-3", "out of range"),
        ("some", "neither a number of new subwords, nor 'text', nor a file"),
        ("empty", "contains no tokens"),
        ("twice", "contains the token 'a b' twice"),
        ("latin", "is not UTF-8 text"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(
    value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n \n")
    Path("twice").write_text("a b\nc\na b\n")
    Path("latin").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        ExtensionRequest.parse(value)
    assert "\n" not in str(caught.value)


def test_text_that_needs_no_new_token_is_refused(tmp_path: Path) -> None:
    old = TranslationTokenizers(vt.train_tokenizer([*ENGLISH, *KOREAN], 500, character_coverage=1.0))
    with pytest.raises(ValueError, match="the vocabulary of old already covers the training text"):
        extend(old, "text")


RECIPE = """
preset: tiny
config_overrides: {encoder_layers: 1, decoder_layers: 1, d_model: 32, d_ff: 64, num_heads: 2, dropout: 0.0}
vocab_size: 400
source_lang: en
target_lang: ko
label_smoothing_factor: 0.0
max_tokens_per_batch: 2048
learning_rate: 0.01
warmup_steps: 10
max_steps: 100
precision: fp32
use_cpu: true
report_to: none
disable_tqdm: true
save_steps: 50
"""
DIGITS = {"one": "하나", "two": "둘", "three": "셋", "four": "넷", "five": "다섯", "six": "여섯"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model that copies English words, in a vocabulary without Hangul."""
    folder = tmp_path_factory.mktemp("extension")
    lines = [f"{a} {b}" for a in DIGITS for b in DIGITS]
    (folder / "copy.en").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "copy.ko").write_text("\n".join(lines) + "\n", encoding="utf-8")
    hangul = [" ".join(DIGITS[word] for word in line.split()) for line in lines]
    (folder / "new.ko").write_text("\n".join(hangul) + "\n", encoding="utf-8")
    (folder / "my.yaml").write_text(RECIPE)
    words = ["--train_source", str(folder / "copy.en"), "--train_target", str(folder / "copy.ko")]
    vt.train(vt.read_recipe(folder / "my.yaml", ["--output_dir", str(folder / "old"), "--max_steps", "20", *words]))
    return folder


@pytest.fixture(scope="module")
def extended(trained: Path) -> Path:
    recipe = trained / "extend.yaml"
    recipe.write_text("\n".join(line for line in RECIPE.split("\n") if not line.startswith(("preset", "config"))))
    words = ["train", recipe, "--model_name_or_path", trained / "old", "--output_dir", trained / "new"]
    words += ["--train_source", trained / "copy.en", "--train_target", trained / "new.ko"]
    assert main([*map(str, words), "--extend-vocabulary", "40", "--extra-tokens", "<2ko>"]) == 0
    return trained / "new"


def test_a_fine_tuned_model_with_new_tokens_translates_after_reloading(trained: Path, extended: Path) -> None:
    model, tokenizer = load_checkpoint(extended)
    old = AutoTokenizer.from_pretrained(trained / "old")
    assert model.config.vocab_size == len(tokenizer) > len(old)
    assert tokenizer("<2ko> one")["input_ids"][0] == len(tokenizer) - 1
    assert len(tokenizer("다섯 하나")["input_ids"]) <= 4 < len(old("다섯 하나")["input_ids"])
    assert vt.translate(model, tokenizer, ["three five", "one six"]) == ["셋 다섯", "하나 여섯"]
    assert isinstance(AutoModelForSeq2SeqLM.from_pretrained(extended), vt.VanillaTransformerForConditionalGeneration)


def test_an_interrupted_run_with_new_tokens_resumes(trained: Path, extended: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(extended, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "checkpoint-100")
    words = ["--model_name_or_path", str(trained / "old"), "--output_dir", str(tmp_path / "out")]
    words += ["--train_source", str(trained / "copy.en"), "--train_target", str(trained / "new.ko")]
    words += ["--extend-vocabulary", "40", "--extra-tokens", "<2ko>"]
    resumed = vt.train(vt.read_recipe(trained / "extend.yaml", words))
    assert resumed.record["training"]["resumed_from"] == "checkpoint-50"
    uninterrupted, _ = load_checkpoint(extended)
    for name, tensor in uninterrupted.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_the_extended_vocabulary_is_exported_for_ctranslate2(extended: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    vt.export_checkpoint("ctranslate2", extended, tmp_path / "ct2")
    engine, (_, tokenizer) = vt.load_engine("ctranslate2", tmp_path / "ct2"), load_checkpoint(extended)
    config = vt.BeamSearchConfig(num_beams=1)
    assert vt.translate(engine, tokenizer, ["three five"], config) == ["셋 다섯"]


@pytest.mark.usefixtures("extended")  # writes extend.yaml
def test_extending_without_a_model_or_with_another_tokenizer_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(trained / "my.yaml"), "--output_dir", str(tmp_path), "--extend-vocabulary", "9"]
    assert main(words) == 2
    assert "extend_vocabulary adds tokens to the vocabulary of a trained model" in capsys.readouterr().err
    words[1] = str(trained / "extend.yaml")
    text = ["--train_source", str(trained / "copy.en"), "--train_target", str(trained / "new.ko")]
    assert main([*words, *text, "--model_name_or_path", str(trained / "old"), "--tokenizer", "x"]) == 2
    assert "leave tokenizer out" in capsys.readouterr().err
