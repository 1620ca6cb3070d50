"""pipeline("translation"): every form of input gives what `translate` gives, and bad values are refused."""

import dataclasses
import json

import datasets
import pytest
import torch
from transformers import BertConfig, BertModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_vanilla_transformer import (
    BeamSearchConfig,
    MBRConfig,
    TranslationPipeline,
    TranslationTokenizers,
    VanillaTransformerForConditionalGeneration,
    WordAligner,
    preset,
    train_tokenizer,
    translate,
)

TEXTS = [
    "one two three",
    "",
    "two",
    " \t ",
    "three two one three two one",
    "하나 둘",
    "</s> <pad>",
    "\ud800",
    "one " * 60,
]


def build(tokenizer, end_bias=3.0, **fields):
    """Build a tiny random model whose translations differ between texts and end; ``end_bias`` is in nats."""
    torch.manual_seed(3)
    sizes = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    untied = {"tie_word_embeddings": False, "output_bias": True}
    config = preset("tiny", **{"vocab_size": len(tokenizer), **sizes, **untied, **fields})
    model = VanillaTransformerForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)
        model.lm_head.bias[2] = end_bias
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["one two three", "하나 둘 셋"], 300)


@pytest.fixture(scope="module")
def translator(tokenizer):
    return TranslationPipeline(build(tokenizer), tokenizer, task="translation", device="cpu")


def texts_of(results):
    return [result["translation_text"] for result in results]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_lists_are_translated_as_by_translate(translator, batch_size):
    expected = translate(translator.model, translator.tokenizer, TEXTS)
    assert len(set(expected)) > 3  # else equality would be trivial
    assert texts_of(translator(TEXTS, batch_size=batch_size)) == expected


@pytest.mark.parametrize("batch_size", [1, 4])
def test_n_best_and_scores_are_translates(translator, batch_size):
    settings = {
        "num_beams": 3,
        "length_penalty": 1.0,
        "length_normalization": "power",
        "num_return_sequences": 2,
        "max_extra_tokens": 5,
    }
    found = translator(TEXTS, batch_size=batch_size, return_scores=True, **settings)
    expected = translate(
        translator.model, translator.tokenizer, TEXTS, BeamSearchConfig(**settings), return_scores=True
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert texts_of(ours) == [one.text for one in theirs]
        assert [one["score"] for one in ours] == pytest.approx([one.score for one in theirs], abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("mbr", [MBRConfig(num_samples=8, epsilon_cutoff=0), MBRConfig(num_best=6)])
def test_minimum_bayes_risk_is_translates(translator, batch_size, mbr):
    config = BeamSearchConfig(num_return_sequences=2, max_extra_tokens=5)
    expected = translate(*parts(translator), TEXTS, config, mbr=mbr, return_scores=True)
    settings = {"num_return_sequences": 2, "max_extra_tokens": 5, "return_scores": True, "batch_size": batch_size}
    for ours, theirs in zip(translator(TEXTS, mbr=mbr, **settings), expected, strict=True):
        assert texts_of(ours) == [one.text for one in theirs]
        assert [one["score"] for one in ours] == pytest.approx([one.score for one in theirs], abs=1e-4)
    plain = translator(TEXTS, **settings)
    assert [texts_of(one) for one in plain] != [[two.text for two in one] for one in expected]
    assert translator("one", **{**settings, "num_return_sequences": 1})[0]["score"] < 0  # mbr was of that call only


def test_minimum_bayes_risk_can_be_a_setting_of_the_pipeline(tokenizer):
    settings = {"mbr": MBRConfig(num_best=6), "max_extra_tokens": 5, "return_scores": True, "device": "cpu"}
    built = TranslationPipeline(build(tokenizer), tokenizer, **settings)
    assert built("one two")[0]["score"] > 0
    assert built("one two", mbr=None)[0]["score"] < 0
    with pytest.raises(ValueError, match="without prefixes, constraints and terminology"):
        built("one two", prefixes="하나")
    with pytest.raises(ValueError, match="without prefixes, constraints and terminology"):
        built("one two", terminology={"one": "하나"})


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mbr": {"num_best": 4}}, r"is of another type; give hf_vanilla_transformer.MBRConfig\("),
        ({"mbr": MBRConfig(num_samples=4), "min_length": 3}, "samples don't follow"),
        ({"mbr": MBRConfig(num_samples=4), "banned": ["하나"]}, "samples don't follow"),
        ({"mbr": MBRConfig(num_best=4), "num_beams": 8, "num_return_sequences": 5}, "more than the num_best=4"),
        ({"mbr": MBRConfig(num_best=4), "constraints": [["하나"]]}, "without prefixes, constraints"),
        ({"aligner": True}, r"is of another type; give hf_vanilla_transformer.WordAligner\("),
    ],
)
def test_what_minimum_bayes_risk_and_alignments_cannot_do_is_one_sentence(translator, keywords, message):
    with pytest.raises(ValueError, match=message):
        translator(["one two"], **keywords)


def test_a_call_without_an_aligner_compares_no_vocabularies(translator, monkeypatch):
    monkeypatch.setattr(TranslationTokenizers, "difference", lambda *_: pytest.fail("compared"))
    translator("one")


def test_an_aligner_of_a_model_with_another_vocabulary_is_refused(translator):
    tokenizer = train_tokenizer(["four five"], 290)
    with pytest.raises(ValueError, match="aligner is of a model with other source vocabularies"):
        translator("one", aligner=WordAligner(build(tokenizer), tokenizer))
    with pytest.raises(ValueError, match="words are aligned by one model"):
        WordAligner([translator.model], translator.tokenizer)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_alignments_are_translates(translator, batch_size):
    config = BeamSearchConfig(num_return_sequences=2, max_extra_tokens=5)
    expected = translate(*parts(translator), TEXTS, config, return_scores=True, alignments=True, alignment_head="0.1")
    assert any(one.alignment for of_text in expected for one in of_text)  # else equality would be trivial
    aligner = WordAligner(*parts(translator), "0.1")
    settings = {"num_return_sequences": 2, "max_extra_tokens": 5, "batch_size": batch_size}
    found = translator(TEXTS, aligner=aligner, **settings)
    assert [[one["alignment"] for one in of_text] for of_text in found] == [
        [list(one.alignment) for one in of_text] for of_text in expected
    ]
    assert "alignment" not in translator("one")[0]
    assert translator("one two three", aligner=aligner, max_extra_tokens=5)[0]["alignment"] == found[0][0]["alignment"]


def test_one_text_gives_a_list_of_one(translator):
    assert translator("one two three") == [{"translation_text": translate(*parts(translator), "one two three")}]
    assert translator("  ") == [{"translation_text": ""}]


def parts(translator):
    return translator.model, translator.tokenizer


def test_no_texts_give_no_translations(translator):
    assert translator([]) == [] and translator(()) == []
    assert list(translator(text for text in [])) == []


def test_tuples_are_lists(translator):
    assert translator(("one", "two")) == translator(["one", "two"])


def test_generators_are_read_as_they_are_needed(translator):
    read = []

    def endless():
        while True:
            read.append("one two")
            yield "one two"

    results = iter(translator(endless(), batch_size=2))
    assert next(results) == translator("one two")
    assert 1 <= len(read) <= 4


def test_datasets_are_streamed(translator):
    rows = datasets.Dataset.from_dict({"en": TEXTS[:3], "other": [1, 2, 3]})
    expected = [[{"translation_text": text}] for text in translate(*parts(translator), TEXTS[:3])]
    assert list(translator(KeyDataset(rows, "en"), batch_size=2)) == expected
    assert list(translator(rows["en"], batch_size=2)) == expected
    assert list(translator(row["en"] for row in rows.to_iterable_dataset())) == expected


def test_keywords_of_a_call_override_those_of_the_pipeline(tokenizer):
    model = build(tokenizer)
    translator = TranslationPipeline(model, tokenizer, device="cpu", num_return_sequences=2, return_scores=True)
    assert [len(result) for result in translator(["one", "two"])] == [2, 2]
    assert set(translator(["one"], num_return_sequences=1)[0]) == {"translation_text", "score"}


def test_left_padding_changes_nothing(translator, tokenizer):
    expected = translator(TEXTS)
    tokenizer.padding_side = "left"
    try:
        assert translator(TEXTS, batch_size=4) == expected
    finally:
        tokenizer.padding_side = "right"


def test_too_long_texts_get_an_empty_translation_and_a_warning(translator, caplog):
    from transformers.utils import logging

    logging.enable_propagation()
    try:
        assert texts_of(translator(["one two", "one " * 30], max_source_tokens=20))[1] == ""
    finally:
        logging.disable_propagation()
    assert "more than 20" in caplog.text and "raise max_source_tokens" in caplog.text


def test_learned_positions_limit_the_source(tokenizer):
    model = build(tokenizer, position_embedding_type="learned", max_position_embeddings=12)
    translator = TranslationPipeline(model, tokenizer, device="cpu")
    texts = ["one two", "one " * 30]
    assert texts_of(translator(texts)) == translate(model, tokenizer, texts)


def test_pipeline_class_works_without_remote_code(translator, tokenizer, tmp_path):
    translator.save_pretrained(tmp_path)
    loaded = pipeline("translation", model=str(tmp_path), pipeline_class=TranslationPipeline, device="cpu")
    assert loaded(TEXTS) == translator(TEXTS)
    # transformers replaces names by classes in the configuration, which can still be saved.
    loaded.save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))
    assert config["custom_pipelines"]["translation"]["impl"] == "pipeline_vanilla_transformer.TranslationPipeline"
    assert config["custom_pipelines"]["translation"]["pt"] == ["AutoModelForSeq2SeqLM"]


def test_a_saved_pipeline_loads_with_its_own_code(translator, tmp_path):
    translator.save_pretrained(tmp_path)
    loaded = pipeline("translation", model=str(tmp_path), trust_remote_code=True, device="cpu")
    assert type(loaded) is not TranslationPipeline and type(loaded).__name__ == "TranslationPipeline"  # from the folder
    assert loaded(TEXTS) == translator(TEXTS)
    loaded.save_pretrained(tmp_path / "again")
    names = {path.name for path in tmp_path.glob("*_vanilla_transformer.py")}
    assert {path.name for path in (tmp_path / "again").glob("*_vanilla_transformer.py")} == names != set()
    with pytest.raises(ValueError, match="push_to_hub=True pushes no code"):
        translator.save_pretrained(tmp_path / "pushed", push_to_hub=True)


def test_config_json_has_the_pipeline_only_beside_its_code(translator, tokenizer, tmp_path):
    translator.save_pretrained(tmp_path / "pipeline")
    model = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "pipeline")
    model.save_pretrained(tmp_path / "model")
    model.config.save_pretrained(tmp_path / "config")
    for folder in ("pipeline", "model", "config"):
        config = json.loads((tmp_path / folder / "config.json").read_text(encoding="utf-8"))
        classes = [entry["impl"] for entry in config.get("custom_pipelines", {}).values()]
        for name in [*config.get("auto_map", {}).values(), *classes]:
            assert (tmp_path / folder / f"{name.partition('.')[0]}.py").is_file()
        assert ("custom_pipelines" in config) == (folder == "pipeline")
    tokenizer.save_pretrained(tmp_path / "model")  # the installed class needs no entry
    loaded = pipeline("translation", model=str(tmp_path / "model"), pipeline_class=TranslationPipeline, device="cpu")
    assert loaded(TEXTS) == translator(TEXTS)


def test_scores_have_the_precision_of_the_search(translator):
    # MPS has no float64; the scores of the search are float32 on all devices.
    encoded = {name: value for name, value in translator.preprocess("one two").items()}
    assert translator._forward(encoded)["scores"].dtype == torch.float32


def test_separate_vocabularies_use_the_target_tokenizer_of_the_checkpoint(tokenizer, tmp_path):
    target = train_tokenizer(["uno dos tres cuatro"], 290)
    model = build(tokenizer, end_bias=0.0, decoder_vocab_size=len(target), share_encoder_decoder_embeddings=False)
    with torch.no_grad():
        model.lm_head.bias[: target.unk_token_id + 1] = -100.0  # words, not special tokens, which decode to nothing
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no folder target_tokenizer"):
        pipeline("translation", model=str(tmp_path), pipeline_class=TranslationPipeline, device="cpu")
    target.save_pretrained(tmp_path / "target_tokenizer")
    found = pipeline("translation", model=str(tmp_path), pipeline_class=TranslationPipeline, device="cpu")(TEXTS)
    assert found == TranslationPipeline(model, tokenizer, target_tokenizer=target, device="cpu")(TEXTS)
    assert found != TranslationPipeline(model, tokenizer, target_tokenizer=tokenizer, device="cpu")(TEXTS)
    both = TranslationPipeline(model, TranslationTokenizers(tokenizer, target), device="cpu")
    assert both(TEXTS) == found
    both.save_pretrained(tmp_path / "saved")
    assert pipeline("translation", model=str(tmp_path / "saved"), trust_remote_code=True, device="cpu")(TEXTS) == found


BAD_KEYWORDS = [
    ({"max_length": 40}, "no keyword max_length; use max_extra_tokens"),
    ({"beam_size": 2}, "no keyword beam_size; use num_beams"),
    ({"alpha": 0.6}, "no keyword alpha; use length_penalty"),
    ({"src_lang": "en"}, "one direction"),
    ({"beams": 2}, "no keyword beams; it takes num_beams"),
    ({"num_beams": 0}, "num_beams=0 is not an integer"),
    ({"num_return_sequences": 5}, "num_return_sequences=5 is more than num_beams=4"),
    ({"length_normalization": "none"}, "length_normalization='none' is unknown"),
    ({"max_source_tokens": 0}, "max_source_tokens=0 is not an integer"),
    ({"return_scores": "yes"}, "return_scores='yes' is not a boolean"),
]


@pytest.mark.parametrize(("keywords", "message"), BAD_KEYWORDS)
def test_bad_keywords_of_a_call_are_refused_with_what_to_use_instead(translator, keywords, message):
    with pytest.raises(ValueError, match=message):
        translator("one two", **keywords)


@pytest.mark.parametrize(("keywords", "message"), BAD_KEYWORDS)
def test_bad_keywords_are_refused_when_the_pipeline_is_built(tokenizer, keywords, message):
    with pytest.raises(ValueError, match=message):
        TranslationPipeline(build(tokenizer), tokenizer, device="cpu", **keywords)


def test_keywords_of_a_call_are_checked_together_with_those_of_the_pipeline(tokenizer):
    translator = TranslationPipeline(build(tokenizer), tokenizer, device="cpu", num_beams=6, num_return_sequences=5)
    assert len(translator("one", num_return_sequences=6)) == 6
    with pytest.raises(ValueError, match="num_return_sequences=5 is more than num_beams=2"):
        translator("one", num_beams=2)
    assert len(translator("one")) == 5  # a call's keywords hold for that call only


def test_every_field_of_the_search_is_a_keyword(translator):
    fields = dataclasses.asdict(BeamSearchConfig(num_beams=2, max_target_tokens=7, early_stopping=True))
    expected = translate(translator.model, translator.tokenizer, TEXTS, BeamSearchConfig(**fields))
    assert texts_of(translator(TEXTS, **fields)) == expected


@pytest.mark.parametrize("text", [None, 3, b"one", {"en": "one"}, ["one", None]])
def test_inputs_that_are_not_strings_are_refused(translator, text):
    with pytest.raises(ValueError, match="translates strings, not"):
        translator(text)


def test_other_models_are_refused(tokenizer):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    with pytest.raises(ValueError, match="needs a vanilla_transformer model, not bert"):
        TranslationPipeline(BertModel(BertConfig(vocab_size=9, **sizes)), tokenizer)


def test_a_missing_tokenizer_is_refused(tokenizer):
    with pytest.raises(ValueError, match="needs the model's tokenizer"):
        TranslationPipeline(build(tokenizer))
