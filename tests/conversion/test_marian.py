"""Marian in and out: against the live MarianMTModel, logits, beams, text, and the way back to the last bit."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from peers_beam_search import skip_where_it_needs_one_vocabulary
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, MarianMTModel, MarianTokenizer

import hf_vanilla_transformer  # noqa: F401  (registers the classes)
from hf_vanilla_transformer import BeamSearchConfig
from hf_vanilla_transformer.checkpoints.loading import load_tokenizers
from hf_vanilla_transformer.conversion.convert import convert_checkpoint, restore_checkpoint
from hf_vanilla_transformer.conversion.marian import halves_to_pairs
from hf_vanilla_transformer.data.corpora import load_pairs
from hf_vanilla_transformer.data.encoding import encode_corpus
from hf_vanilla_transformer.translation.translate import translate

PAD = 22
FIELDS = dict(
    vocab_size=23, d_model=12, encoder_layers=2, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=3,
    encoder_ffn_dim=20, decoder_ffn_dim=20, max_position_embeddings=40, activation_function="swish",
    scale_embedding=True, pad_token_id=PAD, decoder_start_token_id=PAD, eos_token_id=0, forced_eos_token_id=0,
)  # fmt: skip
CONFIGURATIONS = {
    "three-way": {},
    "two vocabularies": dict(share_encoder_decoder_embeddings=False, decoder_vocab_size=31),
    "untied": dict(share_encoder_decoder_embeddings=False, decoder_vocab_size=31, tie_word_embeddings=False),
    "shared, untied in the code": dict(tie_word_embeddings=False),
    "unscaled gelu": dict(scale_embedding=False, activation_function="gelu", decoder_layers=2),
}


def marian_model(seed: int = 0, dtype: torch.dtype = torch.float32, **fields) -> MarianMTModel:
    """A model whose every number is random, biases and normalisations too."""
    torch.manual_seed(seed)
    model = MarianMTModel(MarianConfig(**{**FIELDS, **fields})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.normal_(std=0.5)
        model.final_logits_bias.normal_(std=0.5)
    return model.to(dtype)


def exact_positions(model: MarianMTModel) -> None:
    """Replace Marian's table of sinusoids, which is fp32 for every dtype of the model, by fp64 values."""
    for stack in (model.model.encoder, model.model.decoder):
        positions, width = stack.embed_positions.weight.shape
        table = [
            [math.sin(p / 10000 ** (2 * i / width)) for i in range(width // 2)]
            + [math.cos(p / 10000 ** (2 * i / width)) for i in range(width // 2)]
            for p in range(positions)
        ]
        stack.embed_positions.weight = torch.nn.Parameter(torch.tensor(table, dtype=torch.float64), False)


def batch(target_vocab: int) -> dict[str, torch.Tensor]:
    """Three sources of 9, 6 and 1 tokens, padded on the right, and targets that start with the padding symbol."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(1, PAD, (3, 9), generator=generator)
    mask = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 6, 1)])
    target = torch.randint(1, min(target_vocab, PAD), (3, 7), generator=generator)
    target[:, 0] = PAD
    return dict(input_ids=source.masked_fill(mask == 0, PAD), attention_mask=mask, decoder_input_ids=target)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_and_beams_are_marians(name, tmp_path):
    model = marian_model(**CONFIGURATIONS[name])
    model.save_pretrained(tmp_path / "marian")
    convert_checkpoint("marian", tmp_path / "marian", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    assert ours.config.model_type == "vanilla_transformer"
    inputs = batch(ours.config.output_vocab_size)
    with torch.no_grad():
        difference = (ours(**inputs).logits - model(**inputs).logits).abs().max()
    assert difference <= 1e-5
    del inputs["decoder_input_ids"]
    skip_where_it_needs_one_vocabulary(ours.config.vocab_size, ours.config.output_vocab_size)
    for options in (dict(length_penalty=0.8), dict(early_stopping=True)):
        # Random models like to say one word over and over; forbidding that makes the search choose.
        options |= dict(num_beams=4, max_length=11, min_length=8, no_repeat_ngram_size=1)
        theirs = model.generate(**inputs, **options)
        assert torch.equal(ours.generate(**inputs, **options), theirs)
        assert theirs.shape[1] > 8  # tokens, so that there was something to choose


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_in_fp64_differ_by_rounding_only(name, tmp_path):
    model = marian_model(dtype=torch.float64, **CONFIGURATIONS[name])
    model.save_pretrained(tmp_path / "marian")
    exact_positions(model)
    convert_checkpoint("marian", tmp_path / "marian", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    assert ours.dtype == torch.float64
    inputs = batch(ours.config.output_vocab_size)
    with torch.no_grad():
        assert (ours(**inputs).logits - model(**inputs).logits).abs().max() <= 1e-10


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_way_back_gives_every_bit_again(name, tmp_path):
    model = marian_model(**CONFIGURATIONS[name])
    model.save_pretrained(tmp_path / "marian")
    convert_checkpoint("marian", tmp_path / "marian", tmp_path / "ours")
    restore_checkpoint("marian", tmp_path / "ours", tmp_path / "back")
    back, info = MarianMTModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    before, after = model.state_dict(), back.state_dict()
    dead = {"model.shared.weight"} if name == "shared, untied in the code" else set()  # nothing reads it there
    assert before.keys() - dead == after.keys() - dead
    for key in after.keys() - dead:
        assert torch.equal(before[key], after[key]), key
    if not dead:
        assert back.config.to_dict() | {"dtype": None} == MarianConfig.from_pretrained(
            tmp_path / "marian"
        ).to_dict() | {"dtype": None, "_name_or_path": back.config._name_or_path}


def test_vocabulary_matrices_are_stored_once_where_marian_ties_them(tmp_path):
    for name, vocabulary in {
        "three-way": {"model.encoder.embed_tokens.weight"},
        "two vocabularies": {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"},
    }.items():
        marian_model(**CONFIGURATIONS[name]).save_pretrained(tmp_path / name / "marian")
        convert_checkpoint("marian", tmp_path / name / "marian", tmp_path / name / "ours")
        stored = load_file(tmp_path / name / "ours" / "model.safetensors")
        assert {key for key in stored if "layers" not in key} == vocabulary | {"lm_head.bias"}


def test_order_of_the_axis_in_an_example():
    # d_model 6: Marian has sin0 sin1 sin2 cos0 cos1 cos2, the paper sin0 cos0 sin1 cos1 sin2 cos2.
    assert halves_to_pairs(6).tolist() == [0, 3, 1, 4, 2, 5]


def test_decoding_settings_come_along(tmp_path):
    model = marian_model()
    model.save_pretrained(tmp_path / "marian")
    (tmp_path / "marian" / "generation_config.json").unlink()
    config = json.loads((tmp_path / "marian" / "config.json").read_text())
    config |= {"num_beams": 6, "max_length": 512, "bad_words_ids": [[PAD]]}  # where OPUS-MT's first releases keep them
    (tmp_path / "marian" / "config.json").write_text(json.dumps(config))
    convert_checkpoint("marian", tmp_path / "marian", tmp_path / "ours")
    settings = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").generation_config
    assert (settings.num_beams, settings.max_length, settings.bad_words_ids) == (6, 512, [[PAD]])
    assert (settings.forced_eos_token_id, settings.decoder_start_token_id) == (0, PAD)


# --------------------------------------------------------------------------- the tokenizer

TEXTS = [
    "one two three", "the train leaves at noon", "a train to the sea", "three boats, two nets", "noon at the sea",
    "하나 둘 셋", "기차는 정오에 떠난다", "바다로 가는 기차", "배 셋, 그물 둘", "바다의 정오",
]  # fmt: skip


@pytest.fixture(scope="module")
def opus_folder(tmp_path_factory) -> Path:
    """A folder as OPUS-MT has it: two sentencepiece models, one vocabulary over both, and a model."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("opus")
    vocabulary = {"</s>": 0, "<unk>": 1}
    for side, texts in (("source", TEXTS[:5]), ("target", TEXTS[5:])):
        (folder / "text").write_text("\n".join(texts * 20), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text"), model_prefix=str(folder / side), vocab_size=45, character_coverage=1.0,
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
        for line in (folder / f"{side}.vocab").read_text(encoding="utf-8").splitlines():
            vocabulary.setdefault(line.split("\t")[0], len(vocabulary))
        (folder / f"{side}.vocab").unlink()
    (folder / "text").unlink()
    vocabulary["<pad>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    # OPUS-MT names no class here; only the model's type says that it is Marian's.
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "ko"}))
    pad = vocabulary["<pad>"]
    ids = dict(vocab_size=len(vocabulary), pad_token_id=pad, decoder_start_token_id=pad)
    model = marian_model(**ids, bos_token_id=0)
    with torch.no_grad():
        model.final_logits_bias[0, pad] = -30.0  # trained models never write padding
    model.save_pretrained(folder)
    return folder


def test_text_out_is_marians_text(opus_folder, tmp_path):
    convert_checkpoint("marian", opus_folder, tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert type(tokenizer) is MarianTokenizer
    assert ours.config.unk_token_id == tokenizer.unk_token_id == 1
    model, theirs = MarianMTModel.from_pretrained(opus_folder).eval(), MarianTokenizer.from_pretrained(opus_folder)
    texts = [*TEXTS[:5], "unseen wörds, too", ">>kor<< a train"]
    encoded = theirs(texts, padding=True, return_tensors="pt")
    assert torch.equal(encoded["input_ids"], tokenizer(texts, padding=True, return_tensors="pt")["input_ids"])
    options = dict(num_beams=4, max_length=10, no_repeat_ngram_size=1)
    expected = theirs.batch_decode(model.generate(**encoded, **options), skip_special_tokens=True)
    written = ours.generate(**encoded, **options)
    assert tokenizer.batch_decode(written, skip_special_tokens=True) == expected
    assert len(set(expected)) > 1 and any(expected)
    targets = theirs(text_target=TEXTS[5:])["input_ids"]
    assert tokenizer(text_target=TEXTS[5:])["input_ids"] == targets
    # translate() takes that tokenizer, too: greedily, at most as long as the source, it gives Marian's words.
    greedy = model.generate(**encoded, num_beams=1, max_length=encoded["input_ids"].shape[1] + 1).tolist()
    wanted = []
    for row, length in zip(greedy, encoded["attention_mask"].sum(dim=1).tolist(), strict=True):
        words = row[1:length]  # without the decoder start token; the last token is EOS
        wanted.append(theirs.decode(words[: words.index(0)] if 0 in words else words, skip_special_tokens=True))
    assert translate(ours, tokenizer, texts, BeamSearchConfig(num_beams=1, max_extra_tokens=0)) == wanted


def test_labels_for_fine_tuning_are_of_the_targets_sentencepiece_model(opus_folder, tmp_path):
    convert_checkpoint("marian", opus_folder, tmp_path / "ours")
    tokenizers = load_tokenizers(tmp_path / "ours")
    corpus = load_pairs(list(zip(TEXTS[:5], TEXTS[5:], strict=True)), "list", source_lang="en", target_lang="ko")
    rows = encode_corpus(corpus, tokenizers)
    theirs = MarianTokenizer.from_pretrained(opus_folder)
    assert list(rows["input_ids"]) == theirs(TEXTS[:5])["input_ids"]
    assert list(rows["labels"]) == theirs(text_target=TEXTS[5:])["input_ids"]
    assert tokenizers.count_unknown(rows["labels"], "target") == 0
    # Encoded as a source, which was done here once, hardly anything but "▁" is known of the target.
    assert tokenizers.count_unknown(tokenizers.encode_sources(TEXTS[5:]), "source") > len(TEXTS[5:])


def test_tokenizer_goes_back(opus_folder, tmp_path):
    convert_checkpoint("marian", opus_folder, tmp_path / "ours")
    restore_checkpoint("marian", tmp_path / "ours", tmp_path / "back")
    back, before = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "back", opus_folder))
    assert type(back) is MarianTokenizer and back(TEXTS)["input_ids"] == before(TEXTS)["input_ids"]


def test_two_vocabularies_keep_both_sides_text(opus_folder, tmp_path):
    shutil.copytree(opus_folder, tmp_path / "marian")
    pieces = list(json.loads((opus_folder / "vocab.json").read_text(encoding="utf-8")))
    target = ["</s>", "<unk>", "<pad>", *(piece for piece in pieces if any("가" <= letter <= "힣" for letter in piece))]
    source = ["</s>", "<unk>", "<pad>", *(piece for piece in pieces[2:-1] if piece not in target)]
    for name, tokens in (("vocab", source), ("target_vocab", target)):
        numbers = {token: number for number, token in enumerate(tokens)}
        (tmp_path / "marian" / f"{name}.json").write_text(json.dumps(numbers), encoding="utf-8")
    settings = {"source_lang": "en", "target_lang": "ko", "separate_vocabs": True}
    (tmp_path / "marian" / "tokenizer_config.json").write_text(json.dumps(settings))
    sizes = dict(vocab_size=len(source), decoder_vocab_size=len(target), share_encoder_decoder_embeddings=False)
    marian_model(**sizes, pad_token_id=2, decoder_start_token_id=2).save_pretrained(tmp_path / "marian")
    convert_checkpoint("marian", tmp_path / "marian", tmp_path / "ours")
    theirs = MarianTokenizer.from_pretrained(tmp_path / "marian")
    ours = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert ours(TEXTS[:5])["input_ids"] == theirs(TEXTS[:5])["input_ids"]
    # The target's own tokenizer reads and writes the target's ids as the pair does.
    ids = theirs(text_target=TEXTS[5:])["input_ids"]
    alone = AutoTokenizer.from_pretrained(tmp_path / "ours" / "target_tokenizer")
    assert alone(TEXTS[5:])["input_ids"] == ours(text_target=TEXTS[5:])["input_ids"] == ids
    assert alone.batch_decode(ids) == ours.batch_decode(ids) == theirs.batch_decode(ids)


# --------------------------------------------------------------------------- refusals


def refusal(tmp_path: Path, **options) -> str:
    with pytest.raises(ValueError) as caught:
        convert_checkpoint("marian", tmp_path / "marian", tmp_path / "ours", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["marian"]  # nothing half-written
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_everything_inexpressible_is_listed_at_once(tmp_path):
    marian_model(decoder_attention_heads=2, decoder_ffn_dim=24).save_pretrained(tmp_path / "marian")
    config = json.loads((tmp_path / "marian" / "config.json").read_text())
    (tmp_path / "marian" / "config.json").write_text(json.dumps(config | {"normalize_before": True}))
    weights = load_file(tmp_path / "marian" / "model.safetensors")
    weights["model.encoder.layers.0.fc1.weight"][0, 0] = math.nan
    weights["model.encoder.layernorm_embedding.weight"] = torch.ones(12)
    save_file(weights, tmp_path / "marian" / "model.safetensors", metadata={"format": "pt"})
    message = refusal(tmp_path)
    for part in (
        "encoder_attention_heads is 3 and decoder_attention_heads is 2",
        "encoder_ffn_dim is 20 and decoder_ffn_dim is 24",
        "normalize_before is True",
        "there is no counterpart for model.encoder.layernorm_embedding.weight",
        "finite in model.encoder.layers.0.fc1.weight",
    ):
        assert part in message


def test_missing_and_misshapen_weights_are_listed_at_once(tmp_path):
    marian_model().save_pretrained(tmp_path / "marian")
    weights = load_file(tmp_path / "marian" / "model.safetensors")
    for layer in (0, 1):
        del weights[f"model.encoder.layers.{layer}.fc2.bias"]
    weights["final_logits_bias"] = torch.zeros(1, 5)
    save_file(weights, tmp_path / "marian" / "model.safetensors", metadata={"format": "pt"})
    message = refusal(tmp_path)
    assert "there is no tensor for model.encoder.layers.{0,1}.feed_forward.w_2.bias" in message
    assert "lm_head.bias has shape (5,) instead of (23,)" in message


def test_another_model_and_a_folder_without_weights_are_refused(tmp_path):
    marian_model().save_pretrained(tmp_path / "marian")
    (tmp_path / "marian" / "model.safetensors").unlink()
    assert "has no weights" in refusal(tmp_path)
    (tmp_path / "marian" / "config.json").write_text(json.dumps({"model_type": "bart"}))
    assert "holds a model of type 'bart', not 'marian'" in refusal(tmp_path)
    (tmp_path / "marian" / "config.json").unlink()
    assert "no config.json" in refusal(tmp_path)


def test_a_pickle_of_tensors_is_read_and_one_that_runs_code_is_refused(tmp_path):
    model = marian_model()
    model.save_pretrained(tmp_path / "marian")
    (tmp_path / "marian" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "marian" / "pytorch_model.bin")
    convert_checkpoint("marian", tmp_path / "marian", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert (ours(**batch(23)).logits - model(**batch(23)).logits).abs().max() <= 1e-5
    shutil.rmtree(tmp_path / "ours")
    torch.save({"model": Path("x")}, tmp_path / "marian" / "pytorch_model.bin")
    assert "which could run code" in refusal(tmp_path)
    (tmp_path / "marian" / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut off")
    assert "pytorch_model.bin" in refusal(tmp_path)


def test_what_marian_cannot_express_is_listed_at_once(tmp_path):
    from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration

    config = VanillaTransformerConfig(
        vocab_size=23, d_model=12, d_ff=20, num_heads=3, d_v=5, encoder_layers=1, decoder_layers=1, norm_position="pre"
    )
    VanillaTransformerForConditionalGeneration(config).save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError) as caught:
        restore_checkpoint("marian", tmp_path / "ours", tmp_path / "back")
    for part in ("norm_position is 'pre'", "layer_norm_eps is 1e-06", "attention_bias is False", "value_dim is 5"):
        assert part in str(caught.value)
    assert not (tmp_path / "back").exists()
