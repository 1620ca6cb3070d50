"""Attention maps: their shapes and rows, the model left as it was, the heads' numbers, and errors of one sentence."""

import base64
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tolerances import rounding

from hf_vanilla_transformer import attention_maps, paper_beam_search
from hf_vanilla_transformer.visualization.maps import AttentionMaps, Token

SOURCE, TARGET = "two hundred and five won", "이백오 원"


@pytest.fixture(scope="module")
def maps(model: Any, tokenizer: Any) -> AttentionMaps:
    return attention_maps(model, tokenizer, SOURCE, TARGET)


def test_every_layer_and_head_is_there(maps: AttentionMaps) -> None:
    source, target = len(maps.source_tokens), len(maps.target_tokens)
    assert source != target
    assert maps.encoder.shape == (1, 3, source, source)
    assert maps.decoder.shape == (2, 3, target, target)
    assert maps.cross.shape == (2, 3, target, source)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
def test_each_row_of_weights_sums_to_one(maps: AttentionMaps, kind: str) -> None:
    np.testing.assert_allclose(maps.weights(kind).sum(axis=-1), 1.0, atol=1e-6)


def test_the_decoder_looks_at_nothing_later(maps: AttentionMaps) -> None:
    assert np.triu(maps.decoder, k=1).max() == 0.0
    assert maps.encoder.min() > 0.0  # the encoder looks everywhere


def test_target_is_shifted_right(maps: AttentionMaps) -> None:
    read, written = maps.decoder_input_tokens, maps.target_tokens
    assert read[0] == Token("<s>", True, True) and written[-1] == Token("</s>", True, True)
    assert [token.text for token in read[1:]] == [token.text for token in written[:-1]]


def test_tokens_spell_the_sentence(maps: AttentionMaps) -> None:
    # "▁" alone is a token where the vocabulary has no piece that begins a word with this letter.
    texts = [" " * token.starts_word + token.text.strip("▁") for token in maps.source_tokens if not token.special]
    spelled = "".join(texts)
    assert spelled.strip() == SOURCE


def test_weights_are_those_of_the_model(model: Any, tokenizer: Any, maps: AttentionMaps) -> None:
    # The encoder's first head by hand: softmax(q · k / √8) of the embedded tokens, 24 / 3 = 8 wide.
    attention = model.model.encoder.layers[0].self_attn
    ids = torch.tensor([tokenizer(SOURCE)["input_ids"]])
    model.eval()
    with torch.no_grad():
        states = model.model.encoder.add_positions(model.model.encoder.embed_tokens(ids), None)[0]
        query, key = states @ attention.q_proj.weight[:8].T, states @ attention.k_proj.weight[:8].T
    scores = query @ key.T / math.sqrt(8)
    # Two projections of 24 terms and a product of 8; the softmax's slope is at most 1.
    size = float((query.abs() @ key.abs().T).max()) / math.sqrt(8)
    atol = rounding(torch.float32, 24, 24, 8, size=size)
    np.testing.assert_allclose(maps.encoder[0, 0], scores.softmax(dim=-1).numpy(), atol=atol)


def test_probabilities_are_those_of_the_written_tokens(model: Any, tokenizer: Any, maps: AttentionMaps) -> None:
    labels = torch.tensor([tokenizer(text_target=TARGET)["input_ids"]])
    with torch.no_grad():
        nll = model.eval()(torch.tensor([tokenizer(SOURCE)["input_ids"]]), labels=labels).nll
    assert -np.log(maps.target_probabilities.astype(float)).mean() == pytest.approx(nll.item(), rel=1e-5)


def test_without_a_target_the_models_own_translation_is_shown(model: Any, tokenizer: Any) -> None:
    own = attention_maps(model, tokenizer, "two won")
    hypothesis = paper_beam_search(model, torch.tensor([tokenizer("two won")["input_ids"]])).hypotheses()[0][0]
    assert own.target_is_own and len(own.target_tokens) == len(hypothesis)
    assert own.target == tokenizer.decode(hypothesis, skip_special_tokens=True)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(model: Any, tokenizer: Any, implementation: str, training: bool) -> None:
    model.set_attn_implementation(implementation)
    model.train(training)
    attention_maps(model, tokenizer, SOURCE, TARGET)
    assert model.config._attn_implementation == implementation and model.training is training


def test_the_model_is_left_as_it_was_after_an_error(model: Any, tokenizer: Any, monkeypatch: Any) -> None:
    model.set_attn_implementation("sdpa")
    monkeypatch.setattr(model, "set_attn_implementation", lambda name: None)  # a model that can't switch
    with pytest.raises(ValueError, match="returns no weights; load it with .* attn_implementation='eager'"):
        attention_maps(model, tokenizer, SOURCE, TARGET)
    assert model.config._attn_implementation == "sdpa"


def test_maps_print_their_sentences_and_sizes_instead_of_arrays(maps: AttentionMaps) -> None:
    sizes = "1 encoder layers, 2 decoder layers, 3 heads"
    assert repr(maps) == f"AttentionMaps({SOURCE!r} → {TARGET!r}, {sizes})"


def test_odd_sentences_are_shown(model: Any, tokenizer: Any) -> None:
    maps = attention_maps(model, tokenizer, "漢 </s> \ud800 🇰🇷", "<pad>")
    shown = [token.text for token in maps.source_tokens]
    assert all(shown) and shown.count("</s>") == 1  # the one written in the sentence is text, in pieces
    assert "<0xE6>" in shown  # the first byte of 漢, which the vocabulary lacks


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("  ", None, "the source is empty"),
        ("one", "", "the target is empty"),
        ("one " * 500, None, " tokens, more than max_tokens=200; give a shorter sentence"),
        ("one", "일 " * 500, " tokens, more than max_tokens=200; give a shorter sentence"),
    ],
    ids=["empty source", "empty target", "long source", "long target"],
)
def test_bad_sentences_are_refused_in_one_sentence(
    model: Any, tokenizer: Any, source: str, target: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        attention_maps(model, tokenizer, source, target)


def test_an_encoder_alone_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="VanillaTransformerEncoder can't translate; load"):
        attention_maps(model.model.encoder, tokenizer, SOURCE)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("sideways",), "there is no attention 'sideways'; choose one of encoder, decoder, cross"),
        (("encoder", 1), "there is no layer 1 in encoder attention; choose only 0"),
        (("cross", 2), "there is no layer 2 in cross attention; choose one of 0 to 1"),
        (("cross", -1), "there is no layer -1"),
        (("cross", 1, 3), "there is no head 3 in cross attention; choose one of 0 to 2"),
        (("cross", None, 1), "head 1 needs a layer"),
    ],
)
def test_a_layer_or_head_that_is_not_there_is_named(maps: AttentionMaps, place: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        maps.weights(*place)


# The heads' numbers, on weights made by hand.


def made_up(cross: list[list[float]], decoder: list[list[float]]) -> AttentionMaps:
    words = [Token("a", True, False), Token("b", True, False), Token("</s>", True, True)]
    as_one_head = [np.array(weights, dtype=np.float32)[None, None] for weights in (np.eye(3), decoder, cross)]
    return AttentionMaps("a b", "c d", False, words, words, words, np.ones(3, np.float32), *as_one_head)


def test_numbers_of_heads_by_hand() -> None:
    maps = made_up(
        cross=[[1, 0, 0], [0, 0, 1], [0, 0.5, 0.5]],  # the tie of row 2 goes to the first, b
        decoder=[[1, 0, 0], [0.75, 0.25, 0], [0.6, 0.4, 0]],
    )
    of = {statistics.kind: statistics for statistics in maps.statistics()}
    # Of a and b both are looked at most by some row.
    assert of["cross"].aligned == 1.0 and of["cross"].distance is None and of["cross"].previous is None
    # Rows 0 and 1 look at one token: 0 nats. Row 2 at two alike: ln 2.
    assert of["cross"].entropy == pytest.approx(math.log(2) / 3)
    # Distances 0, 0.75 · 1, 0.6 · 2 + 0.4 · 1.
    assert of["decoder"].distance == pytest.approx((0.75 + 1.6) / 3)
    # Row 1 looks most at 0, the token before; row 2 looks most at 0, too, not at 1.
    assert of["decoder"].previous == 0.5 and of["decoder"].aligned is None
    assert of["encoder"].entropy == 0.0 and of["encoder"].distance == 0.0 and of["encoder"].previous == 0.0


def test_a_head_that_rests_on_the_end_symbol_is_not_aligned() -> None:
    maps = made_up(cross=[[0.1, 0, 0.9]] * 3, decoder=np.eye(3).tolist())
    assert maps.statistics()[-1].aligned == 0.0


def test_one_token_has_no_previous_one() -> None:
    maps = made_up(cross=np.eye(3).tolist(), decoder=np.eye(3).tolist())
    alone = replace(maps, encoder=np.ones((1, 1, 1, 1), np.float32))
    assert alone.statistics()[0].previous is None


def test_maps_are_one_line_in_python_and_a_picture_in_a_notebook(maps: AttentionMaps) -> None:
    changed = replace(maps, source="a <b>")
    assert repr(changed) == f"AttentionMaps('a <b>' → {TARGET!r}, 1 encoder layers, 2 decoder layers, 3 heads)"
    page = changed._repr_html_()
    assert "a &lt;b&gt;" in page and "<b>" not in page
    assert "Encoder-decoder attention, mean over all layers and heads" in page
    found = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert found is not None and base64.b64decode(found[1]).startswith(b"\x89PNG")
