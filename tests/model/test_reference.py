"""The model equals the naive fp64 reference: outputs, loss and every gradient to 1e-10."""

import math

import naive_transformer
import pytest
import torch
from tolerances import rounding

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration

SIZES = dict(vocab_size=23, d_model=12, d_ff=10, num_heads=3, encoder_layers=2, decoder_layers=3)
CONFIGURATIONS = {
    "paper": {},
    "d_k and d_v free": {"d_k": 5, "d_v": 2},
    "pre-norm, final norm": {"norm_position": "pre", "final_norm": True},
    "biases": {"attention_bias": True, "output_bias": True, "activation_function": "swish"},
    "learned positions": {"position_embedding_type": "learned", "max_position_embeddings": 16, "position_offset": 2},
    "Tensor2Tensor's positions": {"position_embedding_type": "sinusoidal_t2t", "position_offset": 1},
    "untied": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False, "scale_embedding": False},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 19},
}
# Sources and labels of different lengths, all different from the sizes of other axes.
PAIRS = [([4, 9, 17, 5, 2], [8, 3, 11, 2]), ([6, 2], [7, 18, 10, 4, 12, 9, 2]), ([13, 14, 2], [2])]


def build(fields, implementation="sdpa", **more):
    torch.manual_seed(0)
    config = VanillaTransformerConfig(**{**SIZES, "dropout": 0.0, **fields, **more})
    config._attn_implementation = implementation
    model = VanillaTransformerForConditionalGeneration(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)  # so that biases are not 0 and norms not 1
    return model


def batch(pairs, left=False):
    longest, most = max(len(s) for s, _ in pairs), max(len(t) for _, t in pairs)
    pads = [[0] * (longest - len(s)) for s, _ in pairs]
    ones = [[1] * len(s) for s, _ in pairs]
    rows = zip(pads, ones, pairs, strict=True)
    source = [(p + s if left else s + p, p + o if left else o + p) for p, o, (s, _) in rows]
    return {
        "input_ids": torch.tensor([ids for ids, _ in source]),
        "attention_mask": torch.tensor([mask for _, mask in source]),
        "labels": torch.tensor([t + [-100] * (most - len(t)) for _, t in pairs]),
    }


def named(model):
    return dict(model.named_parameters(remove_duplicate=False))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("fields", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_logits_equal_the_reference(fields, implementation):
    model = build(fields, implementation).eval()
    inputs = batch(PAIRS)
    ours = model(**inputs).logits
    for row, (source, labels) in enumerate(PAIRS):
        theirs = naive_transformer.logits(model.config, named(model), source, [1, *labels[:-1]])
        torch.testing.assert_close(ours[row, : len(labels)], theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", ["train", "eval"])  # in training the loss is computed in chunks, without logits
@pytest.mark.parametrize("left", [False, True], ids=["right padding", "left padding"])
@pytest.mark.parametrize("fields", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_loss_and_every_gradient_equal_the_reference(fields, left, mode):
    model = build(fields).train(mode == "train")
    output = model(**batch(PAIRS, left), label_smoothing=0.1)
    assert (output.logits is None) == (mode == "train")
    output.loss.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    smoothed, nll = naive_transformer.loss(model.config, named(model), PAIRS, 0.1)
    smoothed.backward()
    torch.testing.assert_close(output.loss, smoothed, rtol=0, atol=1e-10)
    torch.testing.assert_close(output.nll, nll.detach(), rtol=0, atol=1e-10)
    for name, parameter in model.named_parameters():
        # Unused learned positions have no gradient, in the reference as well.
        torch.testing.assert_close(ours[name], parameter.grad, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_gradient_accumulation_gives_the_same_gradient(parts):
    pairs = [([4 + i % 9] * (1 + i % 4) + [2], [5 + i % 7] * (1 + i % 5) + [2]) for i in range(8)]
    tokens = sum(len(labels) for _, labels in pairs)
    model = build({}).train()
    model(**batch(pairs), label_smoothing=0.1).loss.backward()
    whole = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    for part in range(parts):
        chosen = pairs[part * 8 // parts : (part + 1) * 8 // parts]
        model(**batch(chosen, left=part % 2 == 1), label_smoothing=0.1, num_items_in_batch=tokens).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=0, atol=1e-10)


def test_a_loss_without_labels_is_zero_and_not_nan():
    for training in (True, False):
        model = build({}).train(training)
        inputs = batch(PAIRS)
        inputs["labels"] = torch.full_like(inputs["labels"], -100)
        output = model(**inputs, label_smoothing=0.1)
        output.loss.backward()
        assert output.loss == 0 and output.nll == 0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_chunks_of_any_size_give_the_same_loss(rows, monkeypatch):
    from hf_vanilla_transformer.model import loss_vanilla_transformer as loss

    torch.manual_seed(0)
    hidden = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(7, 6, dtype=torch.float64, requires_grad=True), torch.randn(7, dtype=torch.float64)
    bias.requires_grad_()
    labels = torch.randint(0, 7, (3, 4))
    labels[1, 2:] = -100
    plain, plain_nll = loss.token_cross_entropy(hidden @ weight.T + bias, labels, 0.1)
    expected = torch.autograd.grad(plain * 0.3, (hidden, weight, bias))
    monkeypatch.setattr(loss, "_CHUNK_BYTES", rows * 7 * hidden.dtype.itemsize)
    chunked, nll = loss.linear_cross_entropy(hidden, weight, bias, labels, 0.1)
    torch.testing.assert_close((chunked, nll), (plain, plain_nll), rtol=0, atol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(chunked * 0.3, (hidden, weight, bias)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_torch_nn_transformer_with_the_same_weights():
    """torch.nn.Transformer has biases, epsilon 1e-5 and final norms; with the same fields both are equal."""
    model = build({"attention_bias": True, "final_norm": True, "layer_norm_eps": 1e-5}, decoder_layers=2).eval()
    c = model.config
    theirs = torch.nn.Transformer(
        c.d_model, c.num_heads, c.encoder_layers, c.decoder_layers, c.d_ff, 0.0, "relu", batch_first=True,
        dtype=torch.float64,
    ).eval()  # fmt: skip
    ours = named(model)

    def fill(module, name):
        with torch.no_grad():
            module.weight.copy_(ours[name + ".weight"])
            module.bias.copy_(ours[name + ".bias"])

    for side, torch_side in (("encoder", theirs.encoder), ("decoder", theirs.decoder)):
        for index, layer in enumerate(torch_side.layers):
            name = f"model.{side}.layers.{index}"
            attentions = [("self_attn", layer.self_attn)]
            norms = [("self_attn_norm", layer.norm1), ("feed_forward_norm", layer.norm2)]
            if side == "decoder":
                attentions.append(("cross_attn", layer.multihead_attn))
                norms = [*norms[:1], ("cross_attn_norm", layer.norm2), ("feed_forward_norm", layer.norm3)]
            for part, module in attentions:
                with torch.no_grad():
                    for kind in ("weight", "bias"):
                        packed = torch.cat([ours[f"{name}.{part}.{p}_proj.{kind}"] for p in "qkv"])
                        getattr(module, f"in_proj_{kind}").copy_(packed)
                fill(module.out_proj, f"{name}.{part}.out_proj")
            for part, module in norms:
                fill(module, f"{name}.{part}")
            fill(layer.linear1, f"{name}.feed_forward.w_1")
            fill(layer.linear2, f"{name}.feed_forward.w_2")
        fill(torch_side.norm, f"model.{side}.final_norm")

    inputs = batch(PAIRS)
    target = model.prepare_decoder_input_ids_from_labels(inputs["labels"])
    encoder, decoder = model.model.encoder, model.model.decoder
    source_states = encoder.add_positions(encoder.embed_tokens(inputs["input_ids"]), None)
    target_states = decoder.add_positions(decoder.embed_tokens(target), None)
    hidden = inputs["attention_mask"] == 0
    causal = torch.nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=torch.float64)
    expected = theirs(
        source_states, target_states, tgt_mask=causal, src_key_padding_mask=hidden, memory_key_padding_mask=hidden
    )
    output = model.model(inputs["input_ids"], inputs["attention_mask"], target).last_hidden_state
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)


# --------------------------------------------------------------------------- the chunked loss in half precision


def peaked(likelihood: float, words: int = 2000, width: int = 64, tokens: int = 384):
    """Draw hidden states whose labels have about the given probability, as in a trained model."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(words, width, generator=generator) / width**0.5
    labels = torch.randint(0, words, (tokens,), generator=generator)
    # h = c · W_label / |W_label|² gives the label the logit c; the others have a variance of about c² / width.
    logit = math.log(words * likelihood / (1 - likelihood)) * 1.3
    hidden = logit * weight[labels] / weight[labels].square().sum(dim=-1, keepdim=True)
    return hidden + 0.3 * torch.randn(tokens, width, generator=generator), weight, labels


def with_gradients(loss, hidden, weight):
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    value, nll = loss(hidden, weight)
    value.backward()
    return [nll.double(), hidden.grad.double(), weight.grad.double()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("likelihood", [0.01, 0.5, 0.9, 0.99, 0.999])
def test_half_precision_loses_no_more_than_the_rounded_logits_do(dtype, smoothing, likelihood, monkeypatch):
    from hf_vanilla_transformer.model import loss_vanilla_transformer as loss

    monkeypatch.setattr(loss, "_CHUNK_BYTES", 100 * 2000 * dtype.itemsize)  # 100 tokens: four chunks
    monkeypatch.setattr(loss, "_UPCAST_ELEMENTS", 7 * 2000)
    monkeypatch.setattr(loss, "_ADDED_ELEMENTS", 9000)  # parts of the weight, the last of them smaller
    hidden, weight, labels = peaked(likelihood)

    def exact(h, w):
        return loss.token_cross_entropy(h.double() @ w.double().T, labels, smoothing)

    def rounded_logits(h, w):  # as autocast computes it: logits in half precision, softmax in fp32
        return loss.token_cross_entropy(h.to(dtype) @ w.to(dtype).T, labels, smoothing)

    def chunked(h, w):
        with torch.autocast("cpu", dtype):
            return loss.linear_cross_entropy(h, w, None, labels, smoothing)

    truth, reference, ours = (with_gradients(run, hidden, weight) for run in (exact, rounded_logits, chunked))
    for name, true, expected, found in zip(("nll", "states", "weight"), truth, reference, ours, strict=True):
        allowed = (expected - true).norm() * 1.1 + torch.finfo(dtype).eps * true.norm() / 4
        if name == "nll":  # both subtract logits of up to 20 in fp32 and sum the differences
            allowed += rounding(torch.float32, len(labels), size=20.0)
        assert (found - true).norm() <= allowed, name
