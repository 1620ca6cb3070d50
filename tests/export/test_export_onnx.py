"""ONNX: the two graphs give our logits at every size, and greedy translation through onnxruntime gives our tokens."""

# ruff: noqa: E402 (what is optional is asked for first)

import json

import pytest
import torch
from transformers import AutoTokenizer

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

import onnxruntime

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
from hf_vanilla_transformer.export.onnx import DECODER_NAME, ENCODER_NAME, write_onnx

pytestmark = pytest.mark.slow  # an export takes ten seconds and more, whatever the model's size

FIELDS = dict(vocab_size=23, d_model=16, d_ff=24, num_heads=2, encoder_layers=1, decoder_layers=2)


@pytest.fixture(scope="module")
def exported(checkpoint):
    return export_checkpoint("onnx", checkpoint, checkpoint.parent / "exported")


@pytest.mark.parametrize(
    "fields",
    [
        {"d_k": 6, "d_v": 10},
        {"norm_position": "pre", "final_norm": True, "attention_bias": True, "output_bias": True},
        {"position_embedding_type": "learned", "max_position_embeddings": 30, "share_encoder_decoder_embeddings": False,
         "decoder_vocab_size": 29, "tie_word_embeddings": False},
    ],
    ids=lambda fields: ",".join(fields),
)  # fmt: skip
def test_logits_equal_ours_at_other_sizes_than_the_examples(fields, tmp_path):
    torch.manual_seed(0)
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**FIELDS, **fields)).eval()
    write_onnx(model, tmp_path, None)
    encoder, decoder = (onnxruntime.InferenceSession(str(tmp_path / name)) for name in (ENCODER_NAME, DECODER_NAME))
    ids = torch.randint(4, 23, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, :4] = 0  # padding on the left moves no position
    targets = torch.randint(4, 23, (3, 9))
    with torch.no_grad():
        ours = model(ids, attention_mask=mask, decoder_input_ids=targets).logits.numpy()
    names = [output.name for output in encoder.get_outputs()]
    outputs = dict(
        zip(names, encoder.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}), strict=True)
    )
    inputs = {name.replace("present", "past_key_values"): value for name, value in outputs.items() if "present" in name}
    inputs["encoder_attention_mask"] = mask.numpy()
    for layer in range(2):
        for kind, width in (("key", model.config.key_dim), ("value", model.config.value_dim)):
            inputs[f"past_key_values.{layer}.decoder.{kind}"] = torch.zeros(3, 2, 0, width).numpy()
    names = [output.name for output in decoder.get_outputs()]
    done = 0
    for step in (4, 1, 1, 3):  # a prefix, single tokens, several tokens behind a cache
        found = decoder.run(None, {**inputs, "decoder_input_ids": targets[:, done : done + step].numpy()})
        found = dict(zip(names, found, strict=True))
        assert abs(found.pop("logits") - ours[:, done : done + step]).max() < 1e-5
        inputs |= {name.replace("present", "past_key_values"): value for name, value in found.items()}
        done += step


def test_greedy_translations_are_ours(checkpoint, exported):
    model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(exported)
    texts = [row["en"] for row in embedded_corpus("test", 12)["translation"]] + ["", "five 🇰🇷 <pad>"]
    options = dict(config=BeamSearchConfig(num_beams=1, max_extra_tokens=5), return_scores=True)
    ours = translate(model, tokenizer, texts, **options)
    theirs = translate(load_engine("onnx", exported), tokenizer, texts, **options)
    assert [row.text for row in theirs] == [row.text for row in ours]
    assert [row.score for row in theirs] == pytest.approx([row.score for row in ours], abs=1e-4)


def test_start_and_ends_are_those_of_generation_config(own_decoding, tmp_path):
    folder, sources, ours = own_decoding
    engine = load_engine("onnx", export_checkpoint("onnx", folder, tmp_path / "out"))
    theirs = engine.beam_search(sources, torch.ones_like(sources), BeamSearchConfig(num_beams=1))
    assert theirs.hypotheses() == ours.hypotheses()
    torch.testing.assert_close(theirs.sequences, ours.sequences)  # the start token and padding, too
    record = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    special = record["special_tokens"]
    assert special["decoder_start_token_id"] == 9 and len(special["eos_token_id"]) == 2


def test_greedy_translations_with_restrictions_are_ours(checkpoint, exported):
    model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint).eval()
    engine = load_engine("onnx", exported)
    sources = torch.randint(4, 400, (3, 6), generator=torch.Generator().manual_seed(1))
    free = paper_beam_search(model, sources, None, BeamSearchConfig(num_beams=1, max_extra_tokens=3)).hypotheses()
    liked = free[0][0][0]
    for settings in (
        {"min_length": 8},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2, "bad_words_ids": [[liked], [5, 6]]},
        {"min_new_tokens": 7, "bad_words_ids": [[liked, liked]]},
    ):
        config = BeamSearchConfig(num_beams=1, max_extra_tokens=3, **settings)
        for prefixes in (None, [[9, 4, 9], [], [liked]]):
            ours = paper_beam_search(model, sources, None, config, prefixes=prefixes)
            theirs = paper_beam_search(engine, sources, None, config, prefixes=prefixes)
            assert theirs.hypotheses() == ours.hypotheses()
            torch.testing.assert_close(theirs.sequences_scores, ours.sequences_scores, rtol=0, atol=1e-4)


def test_a_beam_is_refused(checkpoint, exported):
    with pytest.raises(ValueError, match="num_beams=4 is not supported by the ONNX engine"):
        translate(load_engine("onnx", exported), AutoTokenizer.from_pretrained(checkpoint), ["five"])


def test_quantization_is_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="quantization='int8' is not supported for ONNX"):
        export_checkpoint("onnx", checkpoint, tmp_path / "out", quantization="int8")
    assert not (tmp_path / "out").exists()
