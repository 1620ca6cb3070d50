"""CTranslate2: the same log-probabilities, the same translations, and clear words where the formats differ."""

# ruff: noqa: E402 (what is optional is asked for first)

import json
import logging
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

pytest.importorskip("ctranslate2", reason="needs the extra ctranslate2")

import ctranslate2

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    export_checkpoint,
    load_engine,
    paper_beam_search,
    translate,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.export.ctranslate2 import build_spec, refused_fields, write_ctranslate2
from hf_vanilla_transformer.export.exported_model import ExportRecord
from hf_vanilla_transformer.model.special_tokens_vanilla_transformer import SpecialTokens

FIELDS = dict(vocab_size=23, d_model=16, d_ff=24, num_heads=2, encoder_layers=2, decoder_layers=3)
SOURCES = [[5, 6, 7, 8, 2], [9, 10, 2]]
TARGETS = [[4, 9, 11, 6], [13, 5, 4, 4, 8, 7]]


def random_model(**fields) -> VanillaTransformerForConditionalGeneration:
    torch.manual_seed(0)
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**{**FIELDS, **fields})).eval()
    with torch.no_grad():  # biases and norms away from 0 and 1, so that leaving one out shows
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def exported(checkpoint):
    return export_checkpoint("ctranslate2", checkpoint, checkpoint.parent / "exported")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"final_norm": True},
        {"norm_position": "pre"},
        {"norm_position": "pre", "final_norm": True},
        {"attention_bias": True, "output_bias": True},
        {"position_embedding_type": "sinusoidal_t2t", "position_offset": 2},
        {"position_embedding_type": "learned", "max_position_embeddings": 30, "position_offset": 2},
        {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 29, "tie_word_embeddings": False},
        {"tie_word_embeddings": False},
        {"scale_embedding": False, "layer_norm_eps": 1e-2},
        {"activation_function": "swish"},
        {"activation_function": "gelu"},
        {"d_k": 4, "d_v": 4},
        {"d_k": 12, "d_v": 12},
    ],
    ids=lambda fields: ",".join(fields) or "paper",
)
def test_log_probabilities_equal_ours(fields, tmp_path):
    model = random_model(**fields)
    source = [f"s{i}" for i in range(model.config.vocab_size)]
    target = (
        source
        if model.config.share_encoder_decoder_embeddings
        else [f"t{i}" for i in range(model.config.output_vocab_size)]
    )
    write_ctranslate2(model, source, target, tmp_path, None)
    runtime = ctranslate2.Translator(str(tmp_path), device="cpu", compute_type="float32", intra_threads=1)
    scored = runtime.score_batch(
        [[source[i] for i in ids] for ids in SOURCES], [[target[i] for i in t] for t in TARGETS]
    )
    for ids, tokens, result in zip(SOURCES, TARGETS, scored, strict=True):
        labels = torch.tensor([[*tokens, model.config.eos_token_id]])
        with torch.no_grad():
            logits = model(torch.tensor([ids]), labels=labels).logits
        ours = logits.log_softmax(dim=-1).gather(-1, labels[..., None])[0, :, 0]
        # Pre-norm without a norm behind it has logits of some 60 nats, of which fp32 keeps 5e-6.
        tolerance = 1e-5 if fields != {"norm_position": "pre"} else 3e-5
        assert (ours - torch.tensor(result.log_probs)).abs().max() <= tolerance


def test_greedy_translations_are_ours(checkpoint, exported):
    model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(exported)
    texts = [row["en"] for row in embedded_corpus("test", 12)["translation"]] + ["", "five 🇰🇷 <pad>"]
    options = dict(
        config=BeamSearchConfig(num_beams=1, max_extra_tokens=5), return_scores=True
    )  # a random model writes to the limit
    ours = translate(model, tokenizer, texts, **options)
    theirs = translate(load_engine("ctranslate2", exported), tokenizer, texts, **options)
    assert [row.text for row in theirs] == [row.text for row in ours]


def test_start_and_ends_are_those_of_generation_config(own_decoding, tmp_path):
    folder, sources, ours = own_decoding
    engine = load_engine("ctranslate2", export_checkpoint("ctranslate2", folder, tmp_path / "out"))
    theirs = engine.beam_search(sources, torch.ones_like(sources), BeamSearchConfig(num_beams=1))
    assert theirs.hypotheses() == ours.hypotheses()
    torch.testing.assert_close(theirs.sequences, ours.sequences)  # the start token and padding, too
    same = paper_beam_search(engine, sources, config=BeamSearchConfig(num_beams=1))
    assert torch.equal(same.sequences, theirs.sequences) and torch.equal(same.sequences_scores, theirs.sequences_scores)
    record = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    special = record["special_tokens"]
    assert special["decoder_start_token_id"] == 9 and len(special["eos_token_id"]) == 2


def engine_of(model, folder):
    """Export a model of 23 tokens and load it."""
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *(f"s{i}" for i in range(19))]
    notes = write_ctranslate2(model, tokens, tokens, folder, None)
    limit = notes.pop("max_sequence_length")
    ExportRecord("ctranslate2", model.config.to_dict(), SpecialTokens.of(model), limit, notes).write(folder)
    return load_engine("ctranslate2", folder)


def test_a_beam_with_the_power_penalty_is_ranked_as_ours(tmp_path):
    model = random_model(tie_word_embeddings=False, output_bias=True)
    with torch.no_grad():
        model.lm_head.bias[2] += 2.0  # nats: some hypotheses end before the limit
    engine = engine_of(model, tmp_path)
    ids = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
    output = engine.beam_search(
        ids,
        (ids != 0).long(),
        BeamSearchConfig(
            num_beams=3, num_return_sequences=3, length_normalization="power", length_penalty=1.0, max_extra_tokens=4
        ),
    )
    assert output.sequences_scores.shape == (6,)
    compared = 0
    for row, score in enumerate(output.sequences_scores.tolist()):
        source, length = ids[row // 3][ids[row // 3] != 0], int(output.lengths[row])
        labels = output.sequences[row, 1 : 1 + length][None]
        with torch.no_grad():
            logits = model(source[None], labels=labels).logits
        logits[..., [0, 1]] = -torch.inf  # CTranslate2 shares out the probability of what is never written
        total = logits.log_softmax(dim=-1).gather(-1, labels[..., None]).sum()
        if length < len(source) + 4:  # those at the limit are ended by force here, without the EOS token's cost there
            assert score == pytest.approx(float(total) / length, abs=1e-4)
            compared += 1
    assert compared
    assert output.sequences_scores[0] >= output.sequences_scores[1] >= output.sequences_scores[2]


RESTRICTIONS = [
    {"min_length": 6},
    {"min_new_tokens": 6},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": [[2], [11], [9, 4]]},
]


@pytest.mark.parametrize("settings", RESTRICTIONS, ids=str)
@pytest.mark.parametrize("prefixes", [None, [[9, 4, 9], []]])
def test_greedy_translations_with_restrictions_are_ours(settings, prefixes, tmp_path):
    model = random_model(tie_word_embeddings=False, output_bias=True)
    with torch.no_grad():
        model.lm_head.bias[2] += 2.0
    engine = engine_of(model, tmp_path)
    sources = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
    config = BeamSearchConfig(num_beams=1, max_extra_tokens=6, **settings)
    if prefixes is not None and "min_new_tokens" in settings:
        with pytest.raises(ValueError, match="min_new_tokens=6 is not possible together with prefixes"):
            paper_beam_search(engine, sources, None, config, prefixes=prefixes)
        return
    ours = paper_beam_search(model, sources, None, config, prefixes=prefixes)
    theirs = paper_beam_search(engine, sources, None, config, prefixes=prefixes)
    assert theirs.hypotheses() == ours.hypotheses()
    torch.testing.assert_close(theirs.sequences_scores, ours.sequences_scores, rtol=0, atol=1e-4)


def test_a_beam_keeps_prefixes_and_bans(tmp_path):
    engine = engine_of(random_model(tie_word_embeddings=False, output_bias=True), tmp_path)
    sources, prefixes = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]]), [[9, 4, 9], [12]]
    config = BeamSearchConfig(
        length_normalization="power", num_return_sequences=4, bad_words_ids=[[4], [12, 12]], max_extra_tokens=5
    )
    output = paper_beam_search(engine, sources, None, config, prefixes=prefixes)
    for prefix, hypotheses in zip(prefixes, output.hypotheses(), strict=True):
        for hypothesis in hypotheses:
            rest = hypothesis[len(prefix) :]
            assert hypothesis[: len(prefix)] == prefix and 4 not in rest
            assert all(pair != (12, 12) for pair in zip(hypothesis, rest, strict=False))


def test_int8_is_smaller(checkpoint, exported, tmp_path):
    small = export_checkpoint("ctranslate2", checkpoint, tmp_path / "int8", quantization="int8")
    record = json.loads((small / "export.json").read_text(encoding="utf-8"))
    assert record["quantization"] == "int8"

    def weights(folder):  # without the position table, which stays fp32: 4,096 rows of 32 numbers
        return (folder / "model.bin").stat().st_size - 4096 * 32 * 4

    assert weights(small) < 0.4 * weights(exported)


@pytest.mark.skipif(
    "ONEDNN_MAX_CPU_ISA" in os.environ or not torch.cpu._is_vnni_supported(),
    reason="CTranslate2's int8 products saturate in 16 bits on processors without VNNI",
)
def test_int8_is_close(checkpoint, exported, tmp_path):
    small = export_checkpoint("ctranslate2", checkpoint, tmp_path / "int8", quantization="int8")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokens = [tokenizer.convert_ids_to_tokens(tokenizer("three million and five")["input_ids"])]
    target = [tokenizer.convert_ids_to_tokens(tokenizer("삼백만 오")["input_ids"][:-1])]
    both = [
        ctranslate2.Translator(str(folder), device="cpu", intra_threads=1).score_batch(tokens, target)[0].log_probs
        for folder in (small, exported)
    ]
    assert max(abs(a - b) for a, b in zip(*both, strict=True)) < 0.05


def test_ctranslate2s_own_converter_reads_our_checkpoints(checkpoint, exported, tmp_path):
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(checkpoint)).convert(str(tmp_path / "theirs"))
    assert (tmp_path / "theirs" / "model.bin").read_bytes() == (exported / "model.bin").read_bytes()


# --------------------------------------------------------------------------- what is refused


def test_early_stopping_sets_the_patience(exported, monkeypatch):
    engine = load_engine("ctranslate2", exported)
    patience = []

    class Translator:
        def translate_batch(self, sources, **options):
            patience.append(options["patience"])
            return translator.translate_batch(sources, **options)

    translator = engine._translator
    monkeypatch.setattr(engine, "_translator", Translator())
    for early_stopping in (False, "never", True):
        engine.beam_search(
            torch.tensor([[5, 6, 2]]),
            config=BeamSearchConfig(length_normalization="power", early_stopping=early_stopping),
        )
    assert patience == [2, 2, 1]  # 1 stops after as many finished hypotheses as beams, as transformers does for True


def test_everything_that_cannot_be_expressed_is_named_at_once():
    config = VanillaTransformerConfig(**FIELDS, d_k=4, activation_function="tanh", unk_token_id=None)
    assert len(refused_fields(config)) == 3
    model = VanillaTransformerForConditionalGeneration(config)
    with pytest.raises(ValueError, match=r"d_k=4 and d_v=8 differ.*'tanh'.*unk_token_id is missing"):
        build_spec(model)


def test_a_refused_model_leaves_nothing_behind(checkpoint, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = random_model(vocab_size=len(tokenizer), d_k=4)
    model.save_pretrained(tmp_path / "narrow")
    tokenizer.save_pretrained(tmp_path / "narrow")
    with pytest.raises(ValueError, match="d_k=4 and d_v=8 differ"):
        export_checkpoint("ctranslate2", tmp_path / "narrow", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["narrow"]


def test_the_gnmt_penalty_is_refused_with_the_way_out(checkpoint, exported, capsys):
    engine, tokenizer = load_engine("ctranslate2", exported), AutoTokenizer.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match=r"no GNMT length penalty.*length_normalization='power'.*length_penalty=0.6"):
        translate(engine, tokenizer, ["five"])
    assert translate(engine, tokenizer, [""], BeamSearchConfig(length_normalization="power")) == [""]
    assert translate(engine, tokenizer, [""], BeamSearchConfig(length_penalty=0.0)) == [
        ""
    ]  # both are the plain log-probability
    assert main(["translate", str(exported), "--length-normalization", "gnmt"]) == 2
    assert "no GNMT length penalty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("onnx-runtime", "{source}", "{out}"), "target_format='onnx-runtime' is unknown"),
        (("ctranslate2", "{source}", "{source}"), "would replace the source"),
        (("ctranslate2", "{source}", "{exported}"), "already exists"),
    ],
)
def test_bad_arguments_are_refused(words, message, checkpoint, exported, tmp_path):
    places = {"source": checkpoint, "exported": exported, "out": tmp_path / "out"}
    with pytest.raises((ValueError, OSError), match=message):
        export_checkpoint(*(word.format(**places) for word in words))
    assert not (tmp_path / "out").exists()


def test_an_unknown_quantization_is_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="quantization='int4' is unknown; choose one of float32"):
        export_checkpoint("ctranslate2", checkpoint, tmp_path / "out", quantization="int4")


def test_what_is_no_export_is_refused(checkpoint, exported, tmp_path):
    with pytest.raises(ValueError, match="is not an exported checkpoint"):
        load_engine("ctranslate2", checkpoint)
    with pytest.raises(ValueError, match="exported for ctranslate2, not for onnx"):
        load_engine("onnx", exported)
    (tmp_path / "export.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        load_engine("ctranslate2", tmp_path)
    (tmp_path / "export.json").write_text('{"format": "ctranslate2", "config": {}}', encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged .*special_tokens"):
        load_engine("ctranslate2", tmp_path)
    shutil.copytree(exported, tmp_path / "cut")
    (tmp_path / "cut" / "model.bin").write_bytes((exported / "model.bin").read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot load the export in .*cut .*write it again with --overwrite"):
        load_engine("ctranslate2", tmp_path / "cut")


def test_overwriting_replaces_the_folder(checkpoint, tmp_path):
    export_checkpoint("ctranslate2", checkpoint, tmp_path / "out")
    before = (tmp_path / "out").stat().st_ino
    export_checkpoint("ctranslate2", checkpoint, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").stat().st_ino != before
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="holds other files beside an exported checkpoint"):
        export_checkpoint("ctranslate2", checkpoint, tmp_path / "out", overwrite=True)


def test_overwriting_replaces_exports_only(checkpoint, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something other than an exported checkpoint"):
        export_checkpoint("ctranslate2", checkpoint, tmp_path / "thesis", overwrite=True)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_a_failure_leaves_the_export_that_was_there(checkpoint, tmp_path, monkeypatch):
    out = export_checkpoint("ctranslate2", checkpoint, tmp_path / "out")
    before = (out / "model.bin").read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("hf_vanilla_transformer.export.ctranslate2.build_spec", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export_checkpoint("ctranslate2", checkpoint, out, overwrite=True)
    assert (out / "model.bin").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_weights_that_are_missing_are_not_made_up(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    weights = load_file(broken / "model.safetensors")
    del weights["model.encoder.layers.1.self_attn.q_proj.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="do not match its config.json: model.encoder.layers.1.self_attn.q_proj"):
        export_checkpoint("ctranslate2", broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_beyond_the_position_table_become_empty_with_a_warning(checkpoint, exported, caplog):
    engine, tokenizer = load_engine("ctranslate2", exported), AutoTokenizer.from_pretrained(checkpoint)
    engine.max_sequence_length = 6
    texts = ["five", "five " * 40]
    caplog.set_level(logging.WARNING)
    logging.getLogger("transformers").propagate = True  # HF's and our loggers keep their records to themselves
    logging.getLogger("hf_vanilla_transformer").propagate = True
    output = translate(engine, tokenizer, texts, BeamSearchConfig(num_beams=1), max_source_tokens=10**6)
    assert output[1] == "" and "1 text(s) of more than 6 tokens" in caplog.text
