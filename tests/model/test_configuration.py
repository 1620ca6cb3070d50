"""The configuration rejects invalid values; the message has the field, the value and what to choose instead."""

import json
import logging
import time

import pytest
from transformers import AutoConfig

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.model import configuration_vanilla_transformer as configuration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 500, "num_heads": 8}, "d_model=500 is not divisible by num_heads=8; .* 496 or 504"),
        ({"d_model": 33, "num_heads": 3}, "d_model=33 is odd"),
        ({"d_model": 0}, "d_model=0 is too small"),
        ({"d_ff": -1}, "d_ff=-1 is too small"),
        ({"vocab_size": -3}, "vocab_size=-3 is too small"),
        ({"num_heads": 2.0}, "num_heads=2.0 is not an integer"),
        ({"num_heads": True}, "num_heads=True is not an integer"),
        ({"encoder_layers": 0}, "encoder_layers=0 is too small"),
        ({"decoder_layers": "six"}, "decoder_layers='six' is not an integer"),
        ({"d_k": 0}, "d_k=0 is too small"),
        ({"d_v": -2}, "d_v=-2 is too small"),
        ({"dropout": 1.0}, "dropout=1.0 is not a probability"),
        ({"attention_dropout": -0.1}, "attention_dropout=-0.1 is not a probability"),
        ({"activation_dropout": "x"}, "activation_dropout='x' is not a number"),
        ({"activation_function": "rely"}, "activation_function='rely' is not an activation function"),
        ({"norm_position": "before"}, "norm_position='before' is unknown; choose one of 'post', 'pre'"),
        ({"position_embedding_type": "rotary"}, "position_embedding_type='rotary' is unknown"),
        ({"max_position_embeddings": 0}, "max_position_embeddings=0 is too small"),
        ({"position_offset": -1}, "position_offset=-1 is too small"),
        ({"position_embedding_type": "learned", "position_offset": 1024}, "position_offset=1024 leaves no position"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps=0.0 must be small and positive"),
        ({"final_norm": "yes"}, "final_norm='yes' is not a boolean"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings=1 is not a boolean"),
        (
            {"decoder_vocab_size": 5},
            "share_encoder_decoder_embeddings=True needs one vocabulary, but decoder_vocab_size=5",
        ),
        ({"pad_token_id": 37000}, "pad_token_id=37000 is outside a vocabulary of 37000"),
        ({"eos_token_id": [2, 40000]}, "eos_token_id=40000 is outside"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id=-1 is too small"),
        ({"num_encoder_layers": 3}, "has no field 'num_encoder_layers'; did you mean 'encoder_layers'\\? the fields"),
        (
            {"label_smoothing": 0.1},
            "has no field 'label_smoothing'; the fields are: .*belong to the training arg",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_invalid_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VanillaTransformerConfig(**fields)


@pytest.mark.parametrize("fields", [{"vocab_size": 10**10}, {"d_ff": 10**12}, {"encoder_layers": 10**8}])
def test_huge_models_are_refused_before_memory_is_allocated(fields):
    start = time.perf_counter()
    with pytest.raises(ValueError, match="more than the limit of 100,000,000,000"):
        VanillaTransformerConfig(**fields)
    assert time.perf_counter() - start < 5


def test_saved_and_loaded_it_is_the_same(tmp_path):
    config = VanillaTransformerConfig(
        d_k=16, norm_position="pre", dropout=0.2, position_embedding_type="sinusoidal_t2t"
    )
    config.save_pretrained(tmp_path)
    again = VanillaTransformerConfig.from_pretrained(tmp_path)
    ours, theirs = config.to_dict(), again.to_dict()
    for values in (ours, theirs):
        values.pop("transformers_version", None)
    assert ours == theirs


FOREIGN = {
    "transformers.js_config": {"dtype": "q8"},
    "unsloth_fixed": True,
    "tokenizer_class": "TokenizersBackend",
    "max_length": 7,
    "d_modle": 5,
}


def saved_with(tmp_path, **keys):
    """Save a small configuration, and write more keys into its file."""
    VanillaTransformerConfig(vocab_size=9, d_model=8, d_ff=8, num_heads=2, encoder_layers=1).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return path


@pytest.mark.parametrize("load", [VanillaTransformerConfig.from_pretrained, AutoConfig.from_pretrained])
def test_keys_of_other_tools_in_a_file_are_kept_and_change_nothing(tmp_path, load):
    config = load(saved_with(tmp_path, **FOREIGN).parent)
    assert (config.d_model, getattr(config, "max_length", None)) == (8, None)
    assert config.to_dict().items() >= FOREIGN.items()
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()).items() >= FOREIGN.items()
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig.from_dict(config.to_dict()))
    assert model.generation_config.max_length == 512  # the file's 7 is not read


def test_keys_of_other_tools_are_reported_once(tmp_path, caplog, monkeypatch):
    path = saved_with(tmp_path, another_tools_key=1)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    configuration.logger.warning_once.cache_clear()
    for _ in range(2):
        assert VanillaTransformerConfig.from_json_file(path).to_dict()["another_tools_key"] == 1
    reports = [record for record in caplog.records if "another_tools_key" in record.getMessage()]
    assert len(reports) == 1 and "does not use and keeps unchanged: another_tools_key" in reports[0].getMessage()


def test_a_misspelt_keyword_of_from_pretrained_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no field 'd_modle'; did you mean 'd_model'"):
        VanillaTransformerConfig.from_pretrained(saved_with(tmp_path).parent, d_modle=16)


def test_the_file_has_the_formats_number_and_a_newer_one_is_refused(tmp_path):
    path = saved_with(tmp_path)
    assert json.loads(path.read_text())["vanilla_transformer_format"] == 1
    saved_with(tmp_path, vanilla_transformer_format=2)
    with pytest.raises(ValueError, match="vanilla_transformer_format 2, but this version supports up to 1; update hf_"):
        AutoConfig.from_pretrained(tmp_path)


def test_a_file_without_the_formats_number_is_of_the_first(tmp_path):
    path = saved_with(tmp_path)
    fields = json.loads(path.read_text())
    del fields["vanilla_transformer_format"]
    path.write_text(json.dumps(fields))
    assert VanillaTransformerConfig.from_pretrained(tmp_path).d_model == 8


OLD = {"position_embedding": "learned", "target_vocab_size": 7, "tie_source_target": False}


@pytest.mark.parametrize("load", [VanillaTransformerConfig.from_pretrained, AutoConfig.from_pretrained])
def test_a_file_with_old_names_is_read_and_logged_once(tmp_path, caplog, monkeypatch, load):
    path = saved_with(tmp_path, **OLD)
    written = json.loads(path.read_text())
    for name in configuration.SUCCESSORS.values():
        written.pop(name, None)
    path.write_text(json.dumps(written))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    configuration.logger.warning_once.cache_clear()
    for _ in range(2):
        config = load(tmp_path)
    assert config.position_embedding_type == "learned" and not config.share_encoder_decoder_embeddings
    assert (config.decoder_vocab_size, config.output_vocab_size) == (7, 7)
    assert not set(config.to_dict()) & set(OLD)
    reports = [record.getMessage() for record in caplog.records if "earlier version" in record.getMessage()]
    assert len(reports) == 1 and "'tie_source_target' is now 'share_encoder_decoder_embeddings'" in reports[0]


@pytest.mark.parametrize("key", OLD)
def test_an_old_name_as_an_argument_is_refused_with_the_new_one(tmp_path, key):
    message = f"has no field '{key}'; it is called '{configuration.SUCCESSORS[key]}' now"
    with pytest.raises(ValueError, match=message):
        VanillaTransformerConfig(**{key: OLD[key]})
    with pytest.raises(ValueError, match=message):
        VanillaTransformerConfig.from_pretrained(saved_with(tmp_path).parent, **{key: OLD[key]})


@pytest.mark.parametrize("key", ["position_embedding", "hidden_size"])
def test_two_names_of_one_field_with_different_values_are_refused(tmp_path, key):
    name = {**configuration.SUCCESSORS, **VanillaTransformerConfig.attribute_map}[key]
    saved_with(tmp_path, **{key: "learned"})
    with pytest.raises(ValueError, match=f"config.json has {key}='learned' and {name}=.*two names of one field"):
        VanillaTransformerConfig.from_pretrained(tmp_path)


def test_hugging_face_names_mean_the_papers_fields():
    config = VanillaTransformerConfig(hidden_size=256, num_attention_heads=4, num_hidden_layers=3)
    assert (config.d_model, config.num_heads, config.encoder_layers) == (256, 4, 3)
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (256, 4, 3)
    config = VanillaTransformerConfig(
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64
    )
    assert (config.num_heads, config.d_ff, config.encoder_attention_heads, config.decoder_ffn_dim) == (4, 64, 4, 64)


@pytest.mark.parametrize(
    "fields",
    [
        {"encoder_attention_heads": 4, "decoder_attention_heads": 8},
        {"encoder_attention_heads": 8, "decoder_attention_heads": 4},
        {"num_heads": 4, "num_attention_heads": 2},
    ],
)
def test_different_values_for_one_field_are_refused(fields):
    with pytest.raises(ValueError, match="are two names for the same field and conflict; give only num_heads"):
        VanillaTransformerConfig(**fields)


def test_one_shared_vocabulary_given_twice_is_one():
    assert VanillaTransformerConfig(vocab_size=50, decoder_vocab_size=50).decoder_vocab_size is None


@pytest.mark.parametrize("fields", [{}, {"decoder_vocab_size": 19, "share_encoder_decoder_embeddings": False}])
def test_the_configuration_of_one_side_has_its_vocabulary(fields):
    config = VanillaTransformerConfig(vocab_size=50, **fields)
    assert config.get_text_config(encoder=True).vocab_size == config.get_text_config().vocab_size == 50
    assert config.get_text_config(decoder=True).vocab_size == config.output_vocab_size
