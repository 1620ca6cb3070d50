"""Every way of tying weights survives saving, loading and resizing."""

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration

WAYS = {
    "three-way": ({}, {"source=target", "target=output", "source=output"}),
    "target and output": ({"share_encoder_decoder_embeddings": False}, {"target=output"}),
    "source and target": ({"tie_word_embeddings": False}, {"source=target"}),
    "none": ({"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}, set()),
    "two vocabularies": ({"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 19}, {"target=output"}),
    "two vocabularies, none": (
        {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 19, "tie_word_embeddings": False},
        set(),
    ),
}


def build(fields):
    torch.manual_seed(0)
    sizes = dict(vocab_size=23, d_model=12, d_ff=10, num_heads=3, encoder_layers=1, decoder_layers=1)
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**sizes, **fields)).eval()


def shared(model):
    weights = {
        "source": model.model.encoder.embed_tokens.weight,
        "target": model.model.decoder.embed_tokens.weight,
        "output": model.lm_head.weight,
    }
    pairs = (("source", "target"), ("target", "output"), ("source", "output"))
    return {f"{a}={b}" for a, b in pairs if weights[a] is weights[b]}


def answers(model):
    return model(torch.tensor([[4, 5, 2]]), decoder_input_ids=torch.tensor([[1, 7, 8]])).logits


@pytest.mark.parametrize(("fields", "expected"), WAYS.values(), ids=WAYS.keys())
def test_tying_survives_saving_and_loading(fields, expected, tmp_path):
    model = build(fields)
    assert shared(model) == expected
    model.save_pretrained(tmp_path)
    again, report = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert shared(again) == expected
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(answers(again), answers(model))
    assert model.config.count_parameters() == sum(parameter.numel() for parameter in again.parameters())


@pytest.mark.parametrize("size", [31, 15])
@pytest.mark.parametrize(
    ("fields", "expected"), [way for name, way in WAYS.items() if "two" not in name],
    ids=[name for name in WAYS if "two" not in name],
)  # fmt: skip
def test_tying_survives_resizing(fields, expected, size, tmp_path):
    model = build(fields)
    before = answers(model)
    model.resize_token_embeddings(size)
    kept = min(size, 23)
    assert shared(model) == expected
    assert model.config.vocab_size == model.lm_head.out_features == size
    assert model.model.encoder.embed_tokens.num_embeddings == model.model.decoder.embed_tokens.num_embeddings == size
    after = answers(model)  # the √d_model scale is still there, or these would differ
    torch.testing.assert_close(after[..., :kept], before[..., :kept])
    assert after.shape[-1] == size
    model.save_pretrained(tmp_path)
    again = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(answers(again), after) and shared(again) == expected


def test_sizes_can_be_rounded_up():
    model = build({})
    model.resize_token_embeddings(24, pad_to_multiple_of=16)
    assert model.config.vocab_size == 32 and answers(model).shape[-1] == 32


def test_one_size_for_two_vocabularies_is_refused():
    with pytest.raises(ValueError, match="separate vocabularies"):
        build({"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 19}).resize_token_embeddings(30)


def test_training_updates_the_shared_matrix():
    model = build({}).train()
    model(torch.tensor([[4, 5, 2]]), labels=torch.tensor([[7, 8, 2]])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert shared(model) == {"source=target", "target=output", "source=output"}
