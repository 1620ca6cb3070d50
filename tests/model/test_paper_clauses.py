"""One test per statement of the paper about the model; Table 3 is in tests/test_presets.py."""

import math

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.model import layers_vanilla_transformer as layers
from hf_vanilla_transformer.model.dropout_vanilla_transformer import Dropout
from hf_vanilla_transformer.model.loss_vanilla_transformer import token_cross_entropy


def build(**fields):
    torch.manual_seed(0)
    sizes = dict(vocab_size=23, d_model=12, d_ff=10, num_heads=3, encoder_layers=2, decoder_layers=2, dropout=0.0)
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**{**sizes, **fields})).double().eval()


def test_3_1_defaults_are_the_base_model():
    config = VanillaTransformerConfig()
    assert (config.encoder_layers, config.decoder_layers, config.d_model, config.d_ff) == (6, 6, 512, 2048)
    assert (config.num_heads, config.key_dim, config.value_dim, config.dropout) == (8, 64, 64, 0.1)
    assert (config.norm_position, config.final_norm, config.activation_function) == ("post", False, "relu")


def test_3_1_sublayers_are_normalized_after_the_residual_and_stacks_have_no_other_norm():
    model = build()
    output = model.model(torch.tensor([[4, 5, 6, 2]]), decoder_input_ids=torch.tensor([[1, 7, 8]]))
    for states in (output.encoder_last_hidden_state, output.last_hidden_state):
        # A new LayerNorm has weight 1 and bias 0, so the output is normalized if nothing follows the last LayerNorm.
        torch.testing.assert_close(states.mean(-1), torch.zeros_like(states[..., 0]), atol=1e-12, rtol=0)
        torch.testing.assert_close(states.var(-1, unbiased=False), torch.ones_like(states[..., 0]), atol=1e-4, rtol=0)
    assert model.model.encoder.final_norm is None and model.model.decoder.final_norm is None


def test_3_1_targets_are_shifted_right_after_the_decoder_start_token():
    labels = torch.tensor([[7, 8, 2, -100]])
    assert build().prepare_decoder_input_ids_from_labels(labels).tolist() == [[1, 7, 8, 2]]
    labels = torch.tensor([[7, 2, -100, -100]])
    assert build().prepare_decoder_input_ids_from_labels(labels).tolist() == [[1, 7, 2, 0]]
    assert labels.tolist() == [[7, 2, -100, -100]]


def test_3_2_1_products_are_divided_by_the_root_of_d_k():
    query, key = (
        torch.tensor([[[[1.0, 1.0, 0.0, 2.0]]]]),
        torch.tensor([[[[2.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]]),
    )
    _, weights = layers.scaled_dot_product_attention(query, key, torch.zeros(1, 1, 2, 3))
    # q·k = 4 and 0; √d_k = 2: softmax(2, 0).
    expected = math.exp(2) / (math.exp(2) + 1)
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor([expected, 1 - expected]))


def test_3_2_1_query_and_key_of_different_width_are_refused():
    with pytest.raises(ValueError, match="different widths, 4 and 5"):
        layers.scaled_dot_product_attention(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 3, 5), torch.ones(1, 1, 3, 2))


def test_3_2_2_projections_have_the_papers_shapes_and_no_biases():
    attention = build(d_k=5, d_v=2).model.encoder.layers[0].self_attn
    assert attention.q_proj.weight.shape == attention.k_proj.weight.shape == (3 * 5, 12)
    assert attention.v_proj.weight.shape == (3 * 2, 12) and attention.out_proj.weight.shape == (12, 3 * 2)
    assert all(getattr(attention, f"{name}_proj").bias is None for name in ("q", "k", "v", "out"))


def test_3_2_3_a_decoder_position_cannot_see_later_tokens_but_the_encoder_sees_all():
    model = build()
    source, target = torch.tensor([[4, 5, 6, 2]]), torch.tensor([[1, 7, 8, 9, 10]])
    changed = target.clone()
    changed[0, 3] = 15
    before = model(source, decoder_input_ids=target).logits
    after = model(source, decoder_input_ids=changed).logits
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])
    encoder = model.model.encoder
    other = torch.tensor([[4, 5, 6, 20]])
    assert not torch.allclose(encoder(source).last_hidden_state[:, 0], encoder(other).last_hidden_state[:, 0])


@pytest.mark.parametrize("left", [False, True])
def test_3_2_3_padding_is_masked_everywhere_on_either_side(left):
    model = build()
    source, target = torch.tensor([[4, 5, 2]]), torch.tensor([[1, 7, 8]])
    alone = model(source, decoder_input_ids=target).logits
    padding = torch.tensor([[0, 0]])
    padded = torch.cat([padding, source] if left else [source, padding], dim=1)
    for mask in (None, (padded != 0).long()):  # without a mask, padding is recognized by its id
        neighbours = model(padded, attention_mask=mask, decoder_input_ids=target).logits
        torch.testing.assert_close(neighbours, alone, atol=1e-12, rtol=0)
    visible = model(padded, attention_mask=torch.ones_like(padded), decoder_input_ids=target).logits
    assert not torch.allclose(visible, alone)  # so it is the mask that hides padding


def test_3_3_feed_forward_is_two_biased_products_around_relu():
    network = build().model.encoder.layers[0].feed_forward
    with torch.no_grad():
        network.w_1.bias.copy_(torch.linspace(-1, 1, 10))
    x = torch.randn(2, 3, 12, dtype=torch.float64)
    inner = x @ network.w_1.weight.T + network.w_1.bias
    expected = torch.maximum(inner, torch.zeros(())) @ network.w_2.weight.T + network.w_2.bias
    torch.testing.assert_close(network(x), expected)
    assert (inner < 0).any()


def test_3_4_one_matrix_three_times_scaled_by_the_root_of_d_model():
    model = build()
    matrix = model.model.encoder.embed_tokens.weight
    assert model.model.decoder.embed_tokens.weight is matrix and model.lm_head.weight is matrix
    assert model.lm_head.bias is None
    represented = model.model.encoder.add_positions(matrix[[4, 5]].unsqueeze(0), None)
    expected = matrix[[4, 5]] * math.sqrt(12) + layers.sinusoidal_position_encoding(
        torch.arange(2), 12, dtype=torch.float64
    )
    torch.testing.assert_close(represented[0], expected)


def test_3_4_scale_applies_to_ids_and_to_embeddings_alike():
    model = build()
    source, target = torch.tensor([[4, 5, 2]]), torch.tensor([[1, 7]])
    by_ids = model(source, decoder_input_ids=target).logits
    by_embeddings = model(
        inputs_embeds=model.model.encoder.embed_tokens(source),
        decoder_inputs_embeds=model.model.decoder.embed_tokens(target),
    ).logits
    torch.testing.assert_close(by_embeddings, by_ids)


def test_3_5_sine_and_cosine_alternate():
    encoding = layers.sinusoidal_position_encoding(torch.tensor([0, 1, 7]), 4, dtype=torch.float64)
    # Frequencies 1 and 10000^(-2/4) = 1/100.
    expected = [[math.sin(p), math.cos(p), math.sin(p / 100), math.cos(p / 100)] for p in (0, 1, 7)]
    torch.testing.assert_close(encoding, torch.tensor(expected, dtype=torch.float64))


def test_3_5_sinusoids_have_no_limit_and_stay_exact_far_out_in_every_dtype():
    encoding = layers.sinusoidal_position_encoding(torch.tensor([100_000]), 4, dtype=torch.float32)
    assert encoding[0, 0] == pytest.approx(math.sin(100_000), abs=1e-6)
    model = build(max_position_embeddings=4)
    model(torch.full((1, 50), 4), decoder_input_ids=torch.full((1, 30), 5))
    half = build().bfloat16()
    assert half.model.encoder.embed_positions(torch.tensor([900]), torch.float32)[0, 0] == pytest.approx(
        math.sin(900), abs=1e-6
    )


def test_5_4_dropout_acts_on_sublayers_and_on_the_sums_of_both_stacks_and_nowhere_else():
    config = VanillaTransformerConfig()
    assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.1, 0.0, 0.0)
    model = build(dropout=0.5).train()
    for stack in (model.model.encoder, model.model.decoder):
        sums = stack.add_positions(torch.ones(1, 400, 12, dtype=torch.float64), None)
        assert 0.4 < (sums == 0).double().mean() < 0.6
    layer = model.model.encoder.layers[0]
    identity = torch.nn.Identity()
    added = layer.add_and_norm(torch.zeros(1, 400, 12), torch.ones_like, identity)
    assert set(added.unique().tolist()) == {0.0, 2.0}  # dropped, or scaled by 1/(1 - 0.5)
    states = torch.randn(1, 5, 12, dtype=torch.float64)
    assert torch.equal(layer.self_attn(states)[0], layer.self_attn(states)[0])
    assert torch.equal(layer.feed_forward(states), layer.feed_forward(states))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.75])
def test_5_4_dropout_drops_the_right_share_and_keeps_the_expectation(p):
    torch.manual_seed(1)
    x = torch.ones(501, 1003, requires_grad=True)  # a size that is no multiple of four
    y = Dropout(p).train()(x)
    # 502,503 draws: the share's standard deviation is below 0.0007.
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.004)
    assert y.mean().item() == pytest.approx(1.0, abs=0.012)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert Dropout(p).eval()(x) is x


def test_5_4_label_smoothing_by_hand():
    logits = torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)]], dtype=torch.float64)
    loss, nll = token_cross_entropy(logits, torch.tensor([0]), label_smoothing=0.3)
    # Target: 0.7 + 0.1 on the label, 0.1 on each of the other two.
    expected = -(0.8 * math.log(0.7) + 0.1 * math.log(0.2) + 0.1 * math.log(0.1))
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert nll.item() == pytest.approx(-math.log(0.7), abs=1e-12)
