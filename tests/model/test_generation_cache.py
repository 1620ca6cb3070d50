"""Stepwise decoding equals one full forward pass for all kinds of padding, batches, and names of the cache."""

import warnings

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
)
from hf_vanilla_transformer.model.attention_vanilla_transformer import CACHE_NAME


@pytest.fixture(scope="module", params=["sinusoidal", "learned"])
def model(request):
    torch.manual_seed(0)
    config = VanillaTransformerConfig(
        vocab_size=23, d_model=12, d_ff=10, num_heads=3, encoder_layers=2, decoder_layers=3,
        position_embedding_type=request.param, max_position_embeddings=64,
    )  # fmt: skip
    return VanillaTransformerForConditionalGeneration(config).double().eval()


SOURCE = torch.tensor([[4, 9, 17, 5, 2], [6, 8, 2, 0, 0]])
MASK = (SOURCE != 0).long()
TARGET = torch.tensor([[1, 7, 8, 3, 12, 9, 11], [1, 18, 10, 4, 12, 9, 5]])
SIZES_OF_SHARP = {
    "vocab_size": 23, "d_model": 12, "d_ff": 10, "num_heads": 3, "encoder_layers": 2, "decoder_layers": 3,
    "max_position_embeddings": 64, "tie_word_embeddings": False, "output_bias": True,
}  # fmt: skip


def caches(model, kind):
    if kind == "dynamic":
        return EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))
    return EncoderDecoderCache(
        StaticCache(config=model.config, max_cache_len=20), StaticCache(config=model.config, max_cache_len=5)
    )


@pytest.mark.parametrize("steps", [[1] * 7, [3, 1, 3], [6, 1]], ids=str)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_cached_logits_equal_the_full_forward(model, kind, steps):
    full = model(SOURCE, attention_mask=MASK, decoder_input_ids=TARGET).logits
    cache, start, pieces = caches(model, kind), 0, []
    encoder_outputs = model.model.encoder(SOURCE, attention_mask=MASK)
    for step in steps:
        ids = TARGET[:, start : start + step]
        output = model(
            encoder_outputs=encoder_outputs, attention_mask=MASK, decoder_input_ids=ids, cache=cache,
            use_cache=True,
        )  # fmt: skip
        pieces.append(output.logits)
        start += step
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
@pytest.mark.parametrize("part", ["head", "model", "decoder"])
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")
def test_the_cache_is_used_under_either_name(model, part, name):
    encoded = model.model.encoder(SOURCE, attention_mask=MASK)
    full = model.model(encoder_outputs=encoded, attention_mask=MASK, decoder_input_ids=TARGET).last_hidden_state
    cache = caches(model, "dynamic")

    def run(ids):
        if part == "decoder":
            states = {"encoder_hidden_states": encoded.last_hidden_state, "encoder_attention_mask": MASK}
            return model.model.decoder(ids, **states, **{name: cache}, use_cache=True)
        inputs = {"encoder_outputs": encoded, "attention_mask": MASK, "decoder_input_ids": ids, "use_cache": True}
        return (model if part == "head" else model.model)(**inputs, **{name: cache})

    outputs = [run(TARGET[:, :3]), run(TARGET[:, 3:4]), run(TARGET[:, 4:])]
    assert outputs[-1][CACHE_NAME] is cache and cache.get_seq_length() == 7
    expected = model.lm_head(full) if part == "head" else full
    pieces = [output.logits if part == "head" else output.last_hidden_state for output in outputs]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=0, atol=1e-12)


def test_the_same_cache_under_both_names_is_accepted_and_two_caches_are_refused(model):
    inputs = {"input_ids": SOURCE, "decoder_input_ids": TARGET, "use_cache": True}
    cache = caches(model, "dynamic")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model(**inputs, cache=cache, past_key_values=cache)
        assert cache.get_seq_length() == TARGET.shape[1]
        for refusing in (model, model.model):
            with pytest.raises(ValueError, match="cache and past_key_values are two names of one argument"):
                refusing(**inputs, cache=cache, past_key_values=caches(model, "dynamic"))


def test_our_own_calls_use_the_names_that_the_installed_transformers_has(model):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*past_key_values.*")
        for how in ({}, {"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}):
            model.generate(SOURCE, attention_mask=MASK, max_length=6, do_sample=False, **how)
        output = VanillaTransformerModel(model.config)(SOURCE, decoder_input_ids=TARGET, use_cache=True)
    assert CACHE_NAME in output


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str)
def test_generation_with_and_without_a_cache_gives_the_same_tokens(model, how):
    # Random weights would repeat one token. These are scaled up, so that an error in the cache changes the tokens.
    torch.manual_seed(4)
    sharp = VanillaTransformerForConditionalGeneration(
        VanillaTransformerConfig(**{**SIZES_OF_SHARP, "position_embedding_type": model.config.position_embedding_type})
    )
    sharp = sharp.double().eval()
    with torch.no_grad():
        sharp.lm_head.weight.mul_(4.0)
    settings = {"attention_mask": MASK, "max_length": 16, "do_sample": False}
    cached = sharp.generate(SOURCE, **settings, **how)
    assert len(set(cached.flatten().tolist())) > 4
    without = {name: value for name, value in how.items() if name != "cache_implementation"}
    assert torch.equal(cached, sharp.generate(SOURCE, **settings, **without, use_cache=False))


@pytest.mark.parametrize("amount", [1, 4])
def test_target_prompts_can_be_padded_on_the_left(model, amount):
    alone = model(SOURCE[:1], decoder_input_ids=TARGET[:1]).logits
    padded = torch.cat([torch.zeros(1, amount, dtype=torch.long), TARGET[:1]], dim=1)
    mask = torch.cat([torch.zeros(1, amount, dtype=torch.long), torch.ones_like(TARGET[:1])], dim=1)
    full = model(SOURCE[:1], decoder_input_ids=padded, decoder_attention_mask=mask).logits
    torch.testing.assert_close(full[:, amount:], alone, rtol=0, atol=1e-12)
    first = model(
        SOURCE[:1], decoder_input_ids=padded[:, :-2], decoder_attention_mask=mask[:, :-2], use_cache=True
    )  # fmt: skip
    last = model(SOURCE[:1], decoder_input_ids=padded[:, -2:], decoder_attention_mask=mask, cache=first[CACHE_NAME])
    torch.testing.assert_close(last.logits, alone[:, -2:], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "how",
    [dict(num_beams=1), dict(num_beams=4), dict(num_beams=3, length_penalty=0.6), dict(cache_implementation="static")],
    ids=str,
)
def test_generated_text_does_not_depend_on_padding_or_neighbours(model, how):
    how = {"max_length": 12, "do_sample": False, **how}
    alone = [model.generate(SOURCE[row : row + 1, : MASK[row].sum()], **how)[0].tolist() for row in range(len(SOURCE))]
    left = torch.tensor([[4, 9, 17, 5, 2], [0, 0, 6, 8, 2]])
    for source in (SOURCE, left, torch.cat([torch.zeros(2, 3, dtype=torch.long), left], dim=1)):
        together = model.generate(source, attention_mask=(source != 0).long(), **how).tolist()
        for ids, expected in zip(together, alone, strict=True):
            assert ids[: len(expected)] == expected
            assert not {*ids[len(expected) :]} - {0, 2}  # beam search fills with </s> where padding has the id 0


def test_sampling_runs_and_obeys_the_seed(model):
    torch.manual_seed(3)
    first = model.generate(SOURCE, attention_mask=MASK, do_sample=True, max_length=15)
    torch.manual_seed(3)
    assert torch.equal(first, model.generate(SOURCE, attention_mask=MASK, do_sample=True, max_length=15))


def test_generation_does_not_stop_at_twenty_tokens(tmp_path):
    torch.manual_seed(0)
    config = VanillaTransformerConfig(vocab_size=9, d_model=8, d_ff=8, num_heads=2, encoder_layers=1, decoder_layers=1)
    model = VanillaTransformerForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None  # only the length ends it
    model.save_pretrained(tmp_path)
    again = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert model.generate(torch.tensor([[4, 2]])).shape == (1, 512)
    assert again.generation_config.max_length == 512


@pytest.mark.parametrize("offset", [0, 2])
def test_plain_generation_stops_where_learned_positions_end(offset):
    torch.manual_seed(0)
    config = VanillaTransformerConfig(
        vocab_size=9, d_model=8, d_ff=8, num_heads=2, encoder_layers=1, decoder_layers=1,
        position_embedding_type="learned", max_position_embeddings=12, position_offset=offset,
    )  # fmt: skip
    model = VanillaTransformerForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None  # only the length ends it
    # Every position is used once; the token generated at the last position is not an input.
    assert model.generate(torch.tensor([[4, 2]])).shape == (1, 12 - offset + 1)


def test_source_reaches_the_output(model):
    other = SOURCE.clone()
    other[0, 1] = 20
    assert not torch.allclose(
        model(SOURCE, decoder_input_ids=TARGET).logits[0], model(other, decoder_input_ids=TARGET).logits[0]
    )
