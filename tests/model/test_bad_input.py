"""Bad input raises an error with one clear sentence, and never gives NaN."""

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration


def build(**fields):
    torch.manual_seed(0)
    sizes = dict(vocab_size=23, d_model=12, d_ff=10, num_heads=3, encoder_layers=1, decoder_layers=1)
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**{**sizes, **fields})).eval()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [[]], "decoder_input_ids": [[1]]}, "input_ids has no tokens"),
        ({"input_ids": [[4, 23]], "decoder_input_ids": [[1]]}, "the id 23, which is outside the vocabulary of 23"),
        ({"input_ids": [[4, -1]], "decoder_input_ids": [[1]]}, "the id -1, which is outside the vocabulary of 23"),
        ({"input_ids": [[4, 2]], "decoder_input_ids": [[1, 99]]}, "decoder_input_ids contains the id 99"),
        ({"decoder_input_ids": [[1]]}, "give either input_ids or inputs_embeds"),
        ({"input_ids": [[4, 2]]}, "give either decoder_input_ids or decoder_inputs_embeds"),
    ],
)
def test_invalid_inputs_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        build()(**{name: torch.tensor(ids, dtype=torch.long) for name, ids in inputs.items()})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("label", [23, -1])
def test_labels_outside_the_vocabulary_are_refused(label, training):
    model = build().train(training)
    with pytest.raises(ValueError, match=rf"labels contains the id {label}, which is outside the vocabulary of 23"):
        model(torch.tensor([[4, 2]]), labels=torch.tensor([[7, label]]), decoder_input_ids=torch.tensor([[1, 7]]))


def test_more_tokens_than_learned_positions_are_refused():
    model = build(position_embedding_type="learned", max_position_embeddings=6, position_offset=2)
    ids = torch.full((1, 4), 5)
    model(ids, decoder_input_ids=ids)
    with pytest.raises(ValueError, match="the source has 5 positions, but the learned positions end at 4"):
        model(torch.full((1, 5), 5), decoder_input_ids=ids)
    with pytest.raises(ValueError, match="the target has 5 positions"):
        model(ids, decoder_input_ids=torch.full((1, 5), 5))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_row_of_padding_gives_no_nan_and_does_not_change_other_rows(implementation):
    model = build()
    model.set_attn_implementation(implementation)
    source = torch.tensor([[4, 5, 2], [0, 0, 0]])
    target = torch.tensor([[1, 7], [1, 7]])
    logits = model(source, attention_mask=(source != 0).long(), decoder_input_ids=target).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[:1], model(source[:1], decoder_input_ids=target[:1]).logits)
    model.train()
    model(source, attention_mask=(source != 0).long(), labels=torch.tensor([[7, 2], [-100, -100]])).loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
