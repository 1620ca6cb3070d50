"""FSMT from and to our format, against transformers' FSMT model."""

import json
import math
from pathlib import Path

import pytest
import torch
from peers_beam_search import skip_where_it_needs_one_vocabulary
from safetensors.torch import load_file, save_file
from small_fsmt import CONFIGURATIONS, EOS, PAD, batch, beams_of_fsmt, fsmt_model, logits_difference, refusal
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, FSMTConfig, FSMTForConditionalGeneration
from transformers.models.fsmt import modeling_fsmt

from hf_vanilla_transformer.conversion.convert import convert_checkpoint, restore_checkpoint
from hf_vanilla_transformer.translation.translate import translate


def exact_positions(model: FSMTForConditionalGeneration) -> None:
    """Replace the table by fp64 sinusoids of fairseq's formula; the angles of the table are fp32."""
    for stack in (model.model.encoder, model.model.decoder):
        positions, width = stack.embed_positions.weight.shape
        rates = [10000 ** (-i / (width // 2 - 1)) for i in range(width // 2)]
        table = [[math.sin(p * r) for r in rates] + [math.cos(p * r) for r in rates] for p in range(positions)]
        table[PAD] = [0.0] * width
        stack.embed_positions.weight = nn.Parameter(torch.tensor(table, dtype=torch.float64), False)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_and_beams_are_fsmts(name, tmp_path):
    model = fsmt_model(name)
    model.save_pretrained(tmp_path / "fsmt")
    convert_checkpoint("fsmt", tmp_path / "fsmt", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    inputs = batch(ours.config)
    assert logits_difference(ours, model, inputs) <= 1e-5
    del inputs["decoder_input_ids"]
    # Trained models never write padding, whose position FSMT doesn't count; random ones have to be told.
    # They also like to say one word over and over; forbidding that makes the search choose.
    skip_where_it_needs_one_vocabulary(ours.config.vocab_size, ours.config.output_vocab_size)
    for options in (dict(length_penalty=0.8), dict(early_stopping=True)):
        options |= dict(num_beams=4, max_length=11, min_length=8, bad_words_ids=[[PAD]], no_repeat_ngram_size=1)
        written = ours.generate(**inputs, **options)
        theirs = beams_of_fsmt(model, inputs, options, written)
        assert torch.equal(written, theirs)
        assert theirs.shape[1] > 8  # tokens, so that there was something to choose


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_in_fp64_differ_by_rounding_only(name, tmp_path, monkeypatch):
    # FSMT's own mask of later positions overflows where the type is fp64.
    monkeypatch.setattr(modeling_fsmt, "fill_with_neg_inf", lambda zeros: zeros - 1e30)
    model = fsmt_model(name, torch.float64)
    model.save_pretrained(tmp_path / "fsmt")
    exact_positions(model)
    convert_checkpoint("fsmt", tmp_path / "fsmt", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    assert logits_difference(ours, model, batch(ours.config)) <= 1e-10


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_way_back_gives_every_bit_again(name, tmp_path):
    model = fsmt_model(name)
    model.save_pretrained(tmp_path / "fsmt")
    convert_checkpoint("fsmt", tmp_path / "fsmt", tmp_path / "ours")
    restore_checkpoint("fsmt", tmp_path / "ours", tmp_path / "back")
    back = FSMTForConditionalGeneration.from_pretrained(tmp_path / "back")
    before, after = model.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    for key in before:
        assert torch.equal(before[key], after[key]), key
    assert back.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert back.generation_config.num_beams == model.generation_config.num_beams


def test_equal_matrices_are_tied_and_stored_once(tmp_path):
    flags = {}
    for name in CONFIGURATIONS:
        fsmt_model(name).save_pretrained(tmp_path / name / "fsmt")
        convert_checkpoint("fsmt", tmp_path / name / "fsmt", tmp_path / name / "ours")
        config = json.loads((tmp_path / name / "ours" / "config.json").read_text())
        flags[name] = (config["share_encoder_decoder_embeddings"], config["tie_word_embeddings"])
        stored = load_file(tmp_path / name / "ours" / "model.safetensors")
        assert ("lm_head.weight" in stored) != config["tie_word_embeddings"]
    assert list(flags.values()) == [(False, False), (False, True), (True, True), (False, False)]


# --------------------------------------------------------------------------- tokenizers

WORDS = {"en": ["low", "lower", "new", "newer", "wide", ",", "."], "de": ["tief", "tiefer", "neu", "neuer", "."]}


def write_vocabularies(folder: Path) -> None:
    """Two vocabularies and common merges, as FSMT's checkpoints have them."""
    merges = ["l o", "lo w</w>", "lo w", "low e", "n e", "ne w</w>", "t i", "ti e", "tie f</w>", "n e", "ne u</w>"]
    for side, language in (("src", "en"), ("tgt", "de")):
        letters = sorted({letter for word in WORDS[language] for letter in word})
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(f"{letter}</w>" for letter in letters)]
        tokens += [merge.replace(" ", "") for merge in dict.fromkeys(merges)]
        (folder / f"vocab-{side}.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(dict.fromkeys(merges)) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"langs": ["en", "de"], "do_lower_case": False}))


def test_text_out_is_fsmts_text(tmp_path):
    pytest.importorskip("sacremoses", reason="FSMT's own tokenizer needs it")
    pytest.importorskip("joblib", reason="sacremoses needs it")
    from transformers import FSMTTokenizer

    (tmp_path / "fsmt").mkdir()
    write_vocabularies(tmp_path / "fsmt")
    sizes = [len(json.loads((tmp_path / "fsmt" / f"vocab-{side}.json").read_text())) for side in ("src", "tgt")]
    assert sizes[0] != sizes[1]
    model = fsmt_model("two vocabularies", src_vocab_size=sizes[0], tgt_vocab_size=sizes[1])
    model.save_pretrained(tmp_path / "fsmt")
    theirs = FSMTTokenizer.from_pretrained(tmp_path / "fsmt")
    convert_checkpoint("fsmt", tmp_path / "fsmt", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    texts = ["lower, wider new.", "newer low", "unknown Ünknown"]
    encoded = theirs(texts, padding=True, return_tensors="pt")
    assert torch.equal(encoded["input_ids"], tokenizer(texts, padding=True, return_tensors="pt")["input_ids"])
    options = dict(num_beams=4, max_length=12, bad_words_ids=[[0], [PAD], [3]], no_repeat_ngram_size=1)
    skip_where_it_needs_one_vocabulary(*sizes)
    written = ours.generate(**encoded, **options)
    expected = theirs.batch_decode(beams_of_fsmt(model, encoded, options, written), skip_special_tokens=True)
    found = tokenizer.batch_decode(written, skip_special_tokens=True)
    assert found == expected and all(expected)
    assert all(isinstance(text, str) for text in translate(ours, tokenizer, texts))  # the stock class fits translate()
    # References are encoded by the target's own tokenizer, with the target's ids.
    target = AutoTokenizer.from_pretrained(tmp_path / "ours" / "target_tokenizer")
    ids = target("tiefer neu.")["input_ids"]
    assert ids[-1] == EOS and 3 not in ids and target.decode(ids, skip_special_tokens=True) == "tiefer neu."
    restore_checkpoint("fsmt", tmp_path / "ours", tmp_path / "back")
    back = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert type(back) is FSMTTokenizer and back(texts)["input_ids"] == theirs(texts)["input_ids"]
    assert FSMTConfig.from_pretrained(tmp_path / "back").langs == ["en", "de"]


# --------------------------------------------------------------------------- refusals


def test_everything_inexpressible_in_fsmt_is_listed_at_once(tmp_path):
    model = fsmt_model("two vocabularies", decoder_attention_heads=2, decoder_ffn_dim=24)
    model.save_pretrained(tmp_path / "fsmt")
    weights = load_file(tmp_path / "fsmt" / "model.safetensors")
    weights["model.encoder.layers.1.fc1.bias"][3] = math.inf
    weights["model.decoder.layer_norm.weight"] = torch.ones(12)
    save_file(weights, tmp_path / "fsmt" / "model.safetensors", metadata={"format": "pt"})
    message = refusal("fsmt", tmp_path)
    for part in (
        "encoder_attention_heads is 3 and decoder_attention_heads is 2",
        "encoder_ffn_dim is 20 and decoder_ffn_dim is 24",
        "there is no counterpart for model.decoder.layer_norm.weight",
        "finite in model.encoder.layers.1.fc1.bias",
    ):
        assert part in message
