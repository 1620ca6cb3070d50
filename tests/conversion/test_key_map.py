"""Key maps: renaming, dropping, copies, and every incompatibility listed in one message."""

import pytest
import torch

from hf_vanilla_transformer.conversion.fairseq import FAIRSEQ_KEYS
from hf_vanilla_transformer.conversion.fsmt import FSMT_KEYS
from hf_vanilla_transformer.conversion.key_map import (
    check_complete,
    count_layers,
    expected_shapes,
    list_names,
    rename_keys,
    restore_keys,
)
from hf_vanilla_transformer.conversion.marian import MODEL_AXIS, UNTIED_KEYS
from hf_vanilla_transformer.conversion.problems import raise_problems
from hf_vanilla_transformer.conversion.tied_matrices import detect_tying, untie
from hf_vanilla_transformer.conversion.torch_transformer import STACK_KEYS
from hf_vanilla_transformer.model.configuration_vanilla_transformer import VanillaTransformerConfig

SMALL = dict(vocab_size=11, d_model=8, d_ff=12, num_heads=2, encoder_layers=2, decoder_layers=1)
SOURCE, TARGET = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"


def test_layers_keep_their_numbers_and_none_drops():
    key_map = {"enc.layers.*.fc.weight": "model.layers.*.w_1.weight", "table": None, "head": "lm_head.weight"}
    tensors = {name: torch.zeros(1) for name in ("enc.layers.0.fc.weight", "enc.layers.11.fc.weight", "table", "head")}
    problems: list[str] = []
    renamed = rename_keys(tensors, key_map, problems)
    assert list(renamed) == ["model.layers.0.w_1.weight", "model.layers.11.w_1.weight", "lm_head.weight"]
    assert problems == []


def test_unknown_names_broken_numbers_and_differing_copies_are_all_reported():
    key_map = {"a": "x", "b": "x", "c": "y"}
    problems: list[str] = []
    tensors = {"a": torch.ones(2), "b": torch.zeros(2), "c": torch.tensor([1.0, float("inf")])}
    tensors |= {f"e.layers.{number}.u": torch.ones(1) for number in (0, 1, 5)}
    rename_keys(tensors, key_map, problems)
    assert problems == [
        "there is no counterpart for e.layers.{0,1,5}.u",
        "tensors that should be copies of one matrix differ: a and b",
        "some values are not finite in c",
    ]
    with pytest.raises(ValueError, match="^there can't be converted from X: there is .*u; tensors .* b; some .* c$"):
        raise_problems("there", "from X", problems)
    raise_problems("there", "from X", [])


def test_missing_surplus_and_misshapen_tensors_are_all_reported():
    config = VanillaTransformerConfig(**SMALL)
    tensors = {name: torch.zeros(shape) for name, shape in expected_shapes(config).items()}
    problems: list[str] = []
    check_complete(tensors, config, problems)
    assert problems == []
    del (
        tensors["model.encoder.layers.0.self_attn.q_proj.weight"],
        tensors["model.encoder.layers.1.self_attn.q_proj.weight"],
    )
    tensors["model.encoder.final_norm.weight"] = torch.zeros(8)
    tensors[SOURCE] = torch.zeros(11, 7)
    check_complete(tensors, config, problems)
    assert problems == [
        "there is no tensor for model.encoder.layers.{0,1}.self_attn.q_proj.weight",
        "a model of this configuration has no model.encoder.final_norm.weight",
        "model.encoder.embed_tokens.weight has shape (11, 7) instead of (11, 8)",
    ]


def test_tied_matrices_are_expected_once():
    three_way = expected_shapes(VanillaTransformerConfig(**SMALL))
    assert SOURCE in three_way and TARGET not in three_way and "lm_head.weight" not in three_way
    untied = expected_shapes(
        VanillaTransformerConfig(
            **SMALL, share_encoder_decoder_embeddings=False, tie_word_embeddings=False, decoder_vocab_size=13
        )
    )
    assert untied[TARGET] == untied["lm_head.weight"] == (13, 8)


@pytest.mark.parametrize(
    ("matrices", "expected", "kept"),
    [
        ("aaa", (True, True), 1),
        ("aab", (True, False), 2),
        ("abb", (False, True), 2),
        ("abc", (False, False), 3),
        ("aba", (False, False), 3),  # an output that equals only the source is not tied
    ],
)
def test_equal_matrices_are_tied(matrices, expected, kept):
    values = {letter: torch.full((2, 2), float(ord(letter))) for letter in "abc"}
    names = (SOURCE, TARGET, "lm_head.weight")
    tensors = {name: values[letter].clone() for name, letter in zip(names, matrices, strict=True)}
    before = dict(tensors)
    tying = detect_tying(tensors)
    assert (tying["share_encoder_decoder_embeddings"], tying["tie_word_embeddings"]) == expected
    assert len(tensors) == kept
    untied = untie(tensors, VanillaTransformerConfig(**SMALL, **tying))
    assert {name: untied[name][0, 0].item() for name in names} == {name: before[name][0, 0].item() for name in names}


def test_layers_are_counted_by_their_largest_number():
    names = ["encoder.layers.0.x", "net.encoder.layers.11.x", "decoder.layers.2.y", "encoder.norm"]
    assert [count_layers(names, stack) for stack in ("encoder", "decoder")] == [12, 3]
    assert count_layers([], "encoder") == 0


def test_names_come_back():
    key_map = {"e.layers.*.a": "m.layers.*.b", "one": "x", "two": "x", "gone": None}
    ours = {"m.layers.3.b": torch.ones(1), "x": torch.zeros(1)}
    assert set(restore_keys(ours, key_map)) == {"e.layers.3.a", "one", "two"}


def test_names_of_several_layers_are_one_entry():
    assert list_names(["a.layers.0.x", "b", "a.layers.2.x"]) == "a.layers.{0,2}.x, b"
    assert list_names(["a.layers.7.x"]) == "a.layers.7.x"


@pytest.mark.parametrize(
    "key_map", [FSMT_KEYS, FAIRSEQ_KEYS, UNTIED_KEYS, STACK_KEYS], ids=["fsmt", "fairseq", "marian", "torch"]
)
def test_maps_cover_every_layer_and_name_no_other_tensor(key_map):
    config = VanillaTransformerConfig(
        **SMALL, attention_bias=True, output_bias=True, final_norm=True, share_encoder_decoder_embeddings=False,
        tie_word_embeddings=False,
    )  # fmt: skip
    expected = {name.replace(".0.", ".*.").replace(".1.", ".*.") for name in expected_shapes(config)}
    named = {ours for ours in key_map.values() if ours is not None}
    assert named <= expected
    assert {name for name in expected if "layers" in name} <= named


def test_the_d_model_axis_of_every_tensor_is_known():
    config = VanillaTransformerConfig(
        **{**SMALL, "vocab_size": 7, "d_ff": 12}, attention_bias=True, output_bias=True, d_k=3, d_v=5
    )
    for name, shape in expected_shapes(config).items():
        axis = MODEL_AXIS[".".join(name.split(".")[-2:])]
        # d_model is 8 and no other size is, so the axis of length 8 is that of d_model.
        assert (shape.index(8) if 8 in shape else None) == axis, name
