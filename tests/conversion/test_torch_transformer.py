"""State dicts around torch.nn.Transformer, in and out: against the live module in fp64, at several shapes."""

import json
import math
from pathlib import Path

import pytest
import torch
from peers_beam_search import skip_where_it_needs_one_vocabulary
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM

import hf_vanilla_transformer  # noqa: F401  (registers the classes)
from hf_vanilla_transformer.conversion.convert import convert_checkpoint, restore_checkpoint

PAD, START, END = 0, 1, 2


class Translator(nn.Module):
    """A model as tutorials build it: embeddings × √d, interleaved sinusoids as a stored buffer, a generator."""

    def __init__(self, one_vocabulary=False, generator_bias=True, no_generator=False, learned=False, **options) -> None:
        super().__init__()
        settings = dict(
            d_model=12, nhead=3, num_encoder_layers=2, num_decoder_layers=1, dim_feedforward=20, dropout=0.0,
            batch_first=True,
        )  # fmt: skip
        self.transformer = nn.Transformer(**settings | options)
        self.src_tok_emb = nn.Embedding(19, 12)
        self.tgt_tok_emb = self.src_tok_emb if one_vocabulary else nn.Embedding(23, 12)
        rows = self.tgt_tok_emb.num_embeddings
        self.generator = None if no_generator else nn.Linear(12, rows, bias=generator_bias)
        table = [
            [f(p / 10000 ** (2 * i / 12)) for i in range(6) for f in (math.sin, math.cos)] for p in range(30)
        ]  # fmt: skip
        if learned:
            self.positions = nn.Parameter(torch.randn(30, 12))
        else:
            self.register_buffer("positions", torch.tensor(table, dtype=torch.float64))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        hidden, length = attention_mask == 0, decoder_input_ids.shape[1]
        states = self.transformer(
            self.src_tok_emb(input_ids) * math.sqrt(12) + self.positions[: input_ids.shape[1]],
            self.tgt_tok_emb(decoder_input_ids) * math.sqrt(12) + self.positions[:length],
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
        )
        return states @ self.tgt_tok_emb.weight.T if self.generator is None else self.generator(states)


NAMES = dict(num_heads=3, embedding="src_tok_emb.weight", target_embedding="tgt_tok_emb.weight", prefix="transformer.")
CONFIGURATIONS = {  # arguments of the model, options of the conversion
    "post-norm, two vocabularies": ({}, dict(generator="generator", ignore="positions")),
    "pre-norm, gelu, other epsilon": (
        dict(norm_first=True, activation="gelu", layer_norm_eps=1e-3),
        dict(generator="generator", ignore="positions", norm_first=True, activation="gelu", layer_norm_eps=1e-3),
    ),
    "one vocabulary, no generator": (dict(one_vocabulary=True, no_generator=True), dict(ignore="positions")),
    "one vocabulary, generator without bias": (
        dict(one_vocabulary=True, generator_bias=False),
        dict(generator="generator", ignore="positions"),
    ),
    "learned positions": (
        dict(learned=True),
        dict(generator="generator", positions="positions", position_embedding_type="learned"),
    ),
    "no biases": (dict(bias=False), dict(generator="generator", ignore="positions")),
}


def translator(name: str, dtype: torch.dtype = torch.float64) -> Translator:
    """A model whose every number is random, biases and normalisations too."""
    torch.manual_seed(0)
    model = Translator(**CONFIGURATIONS[name][0]).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def options_of(name: str) -> dict:
    return NAMES | CONFIGURATIONS[name][1]


def batch() -> dict[str, Tensor]:
    """Three sources of 9, 6 and 2 tokens, padded on the right, and targets of 7 tokens."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 6, 2)])
    target = torch.randint(3, 19, (3, 7), generator=generator)
    target[:, 0] = START
    source = torch.randint(3, 19, (3, 9), generator=generator).masked_fill(mask == 0, PAD)
    return dict(input_ids=source, attention_mask=mask, decoder_input_ids=target)


def greedy(model: Translator, input_ids: Tensor, attention_mask: Tensor, length: int) -> Tensor:
    """Extend the targets by the best token at a time, never by padding, and pad after EOS."""
    target = torch.full((len(input_ids), 1), START)
    ended = torch.zeros(len(input_ids), dtype=torch.bool)
    while target.shape[1] < length and not ended.all():
        logits = model(input_ids, attention_mask, target)[:, -1]
        logits[:, PAD] = -math.inf
        best = logits.argmax(-1).masked_fill(ended, PAD)
        target, ended = torch.cat([target, best.unsqueeze(-1)], dim=1), ended | (best == END)
    return target


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_and_greedy_tokens_are_torchs(name, tmp_path):
    model = translator(name)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    convert_checkpoint("torch", tmp_path / "model.pt", tmp_path / "ours", options=options_of(name))
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    inputs = batch()
    with torch.no_grad():
        assert (ours(**inputs).logits - model(**inputs)).abs().max() <= 1e-10
        del inputs["decoder_input_ids"]
        found = ours.generate(**inputs, max_length=14, bad_words_ids=[[PAD]])
        assert torch.equal(found, greedy(model, **inputs, length=14))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_in_fp32_are_torchs(name, tmp_path):
    model = translator(name, torch.float32)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    convert_checkpoint("torch", tmp_path / "model.pt", tmp_path / "ours", options=options_of(name))
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert (ours(**batch()).logits - model(**batch())).abs().max() <= 1e-5


def test_beam_search_is_that_of_the_same_numbers(tmp_path):
    # torch has no beam search: the beams of the converted model are held against scores by the live module.
    name = "post-norm, two vocabularies"
    model = translator(name)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    convert_checkpoint("torch", tmp_path / "model.pt", tmp_path / "ours", options=options_of(name))
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    inputs = batch()
    del inputs["decoder_input_ids"]
    skip_where_it_needs_one_vocabulary(ours.config.vocab_size, ours.config.output_vocab_size)
    found = ours.generate(
        **inputs, num_beams=4, max_new_tokens=6, bad_words_ids=[[PAD]], return_dict_in_generate=True, output_scores=True
    )
    with torch.no_grad():
        log_probs = model(**inputs, decoder_input_ids=found.sequences[:, :-1]).log_softmax(-1)
    tokens = found.sequences[:, 1:]
    chosen = log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).masked_fill(tokens == PAD, 0.0)
    lengths = (tokens != PAD).sum(-1)
    torch.testing.assert_close(found.sequences_scores, (chosen.sum(-1) / lengths).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name not in ("no biases", "learned positions")])
def test_the_way_back_gives_every_bit_again(name, tmp_path):
    model = translator(name, torch.float32)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items() if key != "positions"}
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "model.pt")
    options = {key: value for key, value in options_of(name).items() if key != "ignore"}
    convert_checkpoint("torch", tmp_path / "model.pt", tmp_path / "ours", options=options)
    restore_checkpoint("torch", tmp_path / "ours", tmp_path / "back", options=options)
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == state.keys()
    for key in state:
        assert torch.equal(back[key], state[key]), key


def test_a_model_without_biases_gets_zeros_and_no_attention_biases(tmp_path):
    torch.save(translator("no biases").state_dict(), tmp_path / "model.pt")
    convert_checkpoint("torch", tmp_path / "model.pt", tmp_path / "ours", options=options_of("no biases"))
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["attention_bias"] is False
    assert not stored["model.encoder.layers.1.feed_forward.w_1.bias"].any()
    assert not any("_proj.bias" in name for name in stored)


def test_safetensors_and_a_folder_with_one_file_are_read(tmp_path):
    name = "one vocabulary, no generator"
    state = {key: value for key, value in translator(name).state_dict().items() if key != "tgt_tok_emb.weight"}
    (tmp_path / "folder").mkdir()
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "folder" / "w.safetensors")
    options = options_of(name)
    del options["target_embedding"]  # one name is enough where there is one matrix
    convert_checkpoint("torch", tmp_path / "folder", tmp_path / "ours", options=options)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["share_encoder_decoder_embeddings"] and config["tie_word_embeddings"] and config["final_norm"]


def refusal(source: Path, **options) -> str:
    with pytest.raises(ValueError) as caught:
        convert_checkpoint("torch", source, source.parent / "ours", options=options)
    assert [path.name for path in source.parent.iterdir()] == [source.name]  # nothing half-written
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path):
    state = translator("post-norm, two vocabularies").state_dict()
    state["transformer.encoder.layers.0.linear1.weight"][0, 0] = math.nan
    torch.save(state, tmp_path / "model.pt")
    message = refusal(tmp_path / "model.pt", **NAMES | dict(generator="head"))
    assert "has no tensor named head.weight" in message
    assert "there is no counterpart for positions, generator.weight, generator.bias" in message
    assert "finite in transformer.encoder.layers.0.linear1.weight" in message


def test_missing_layers_and_norms_are_listed(tmp_path):
    state = translator("post-norm, two vocabularies").state_dict()
    del state["transformer.encoder.layers.1.linear2.bias"], state["transformer.decoder.norm.bias"], state["positions"]
    torch.save(state, tmp_path / "model.pt")
    message = refusal(tmp_path / "model.pt", **NAMES | dict(generator="generator"))
    assert "model.encoder.layers.1.feed_forward.w_2.bias" in message and "model.decoder.final_norm.bias" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a state dict does not contain num_heads"),
        (dict(num_heads="three"), "num_heads='three' is not a number"),
        (dict(num_heads=3, heads=3), "there is no option heads; the options are: num_heads, embedding"),
        (dict(num_heads=3, norm_first="yes"), "norm_first='yes' is not a boolean"),
        (dict(num_heads=3, embedding=5), "embedding=5 is not a name"),
        (NAMES | dict(generator="generator", ignore="positions", num_heads=5), "not divisible by num_heads=5"),
        (
            NAMES | dict(generator="generator", ignore="positions", prefix=""),
            "there is no counterpart for transformer.encoder",
        ),
        (NAMES | dict(generator="generator", position_embedding_type="learned"), "positions=…, and the reverse"),
    ],
)
def test_bad_options_are_refused(options, message, tmp_path):
    torch.save(translator("post-norm, two vocabularies").state_dict(), tmp_path / "model.pt")
    assert message in refusal(tmp_path / "model.pt", **options)


def test_what_torch_cannot_express_is_listed_at_once(tmp_path):
    from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration

    config = VanillaTransformerConfig(
        vocab_size=23, d_model=12, d_ff=20, num_heads=3, d_v=5, encoder_layers=1, decoder_layers=1, output_bias=True
    )
    VanillaTransformerForConditionalGeneration(config).save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError) as caught:
        restore_checkpoint("torch", tmp_path / "ours", tmp_path / "back")
    for part in ("value_dim is 5", "attention_bias is False", "bias needs a name"):
        assert part in str(caught.value)
    assert not (tmp_path / "back").exists()
