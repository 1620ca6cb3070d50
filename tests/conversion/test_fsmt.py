"""FSMT in and out, fairseq in: against the live FSMT model, and torch's layers for pre-norm fairseq."""

import argparse
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from peers_beam_search import skip_where_it_needs_one_vocabulary
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, FSMTConfig, FSMTForConditionalGeneration
from transformers.models.fsmt import modeling_fsmt

from hf_vanilla_transformer import BeamSearchConfig, TranslationPipeline, export_checkpoint, load_engine
from hf_vanilla_transformer.checkpoints.loading import load_checkpoint
from hf_vanilla_transformer.conversion.convert import convert_checkpoint, restore_checkpoint
from hf_vanilla_transformer.translation import translate

PAD, EOS = 1, 2
FIELDS = dict(
    langs=["en", "de"], src_vocab_size=23, tgt_vocab_size=31, d_model=12, encoder_layers=2, decoder_layers=1,
    encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=20, decoder_ffn_dim=20,
    max_position_embeddings=40,
)  # fmt: skip
CONFIGURATIONS = {
    "two vocabularies": {},
    "two vocabularies, output tied": {},
    "one vocabulary, three-way": dict(src_vocab_size=27, tgt_vocab_size=27, tie_word_embeddings=True),
    "one size, untied, unscaled": dict(src_vocab_size=27, tgt_vocab_size=27, scale_embedding=False, decoder_layers=2),
}


def fsmt_model(name: str, dtype: torch.dtype = torch.float32, **fields) -> FSMTForConditionalGeneration:
    """A model whose every number is random, biases and normalisations too."""
    torch.manual_seed(0)
    model = FSMTForConditionalGeneration(FSMTConfig(**{**FIELDS, **CONFIGURATIONS[name], **fields})).eval()
    decoder = model.model.decoder
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "embed_positions" not in parameter_name:
                parameter.normal_(std=0.4)
        if (
            name == "two vocabularies, output tied"
        ):  # fairseq's share_decoder_input_output_embed, which FSMT stores twice
            decoder.output_projection.weight.copy_(decoder.embed_tokens.weight)
    return model.to(dtype)


def exact_positions(model: FSMTForConditionalGeneration) -> None:
    """Put fp64 sinusoids by fairseq's formula in place of its table, whose angles are fp32."""
    for stack in (model.model.encoder, model.model.decoder):
        positions, width = stack.embed_positions.weight.shape
        rates = [10000 ** (-i / (width // 2 - 1)) for i in range(width // 2)]
        table = [[math.sin(p * r) for r in rates] + [math.cos(p * r) for r in rates] for p in range(positions)]
        table[PAD] = [0.0] * width
        stack.embed_positions.weight = nn.Parameter(torch.tensor(table, dtype=torch.float64), False)


def batch(config) -> dict[str, torch.Tensor]:
    """Three sources of 9, 6 and 2 tokens and targets of 7, 7 and 4, padded on the right; targets start with "</s>"."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, config.vocab_size, (3, 9), generator=generator)
    mask = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 6, 2)])
    target = torch.randint(4, config.output_vocab_size, (3, 7), generator=generator)
    target[:, 0], target[2, 4:] = EOS, PAD
    return dict(input_ids=source.masked_fill(mask == 0, PAD), attention_mask=mask, decoder_input_ids=target)


def logits_difference(ours, theirs, inputs: dict[str, torch.Tensor]) -> float:
    """The largest difference where the target isn't padding."""
    with torch.no_grad():
        difference = (ours(**inputs).logits - theirs(**inputs, use_cache=False).logits).abs()
    return difference[inputs["decoder_input_ids"] != PAD].max().item()


def beams_of_fsmt(model, inputs, options, ours: torch.Tensor) -> torch.Tensor:
    """What FSMT's beam search writes; where its cache changes that, what it writes as ours does, or a skip."""
    options = {**options, "return_dict_in_generate": True, "output_scores": True}
    found = [model.generate(**inputs, **options, use_cache=use_cache) for use_cache in (True, False)]
    for theirs in found:
        if torch.equal(theirs.sequences, ours):
            return theirs.sequences
    if not torch.allclose(*(theirs.sequences_scores for theirs in found), rtol=0, atol=1e-6):
        pytest.skip("this transformers' FSMT contradicts itself, with a cache and without; logits are equal to ours")
    return found[0].sequences


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_and_beams_are_fsmts(name, tmp_path):
    model = fsmt_model(name)
    model.save_pretrained(tmp_path / "fsmt")
    convert_checkpoint("fsmt", tmp_path / "fsmt", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    inputs = batch(ours.config)
    assert logits_difference(ours, model, inputs) <= 1e-5
    del inputs["decoder_input_ids"]
    # Trained models never write padding, whose position FSMT doesn't count; random ones have to be told.
    # They also like to say one word over and over; forbidding that makes the search choose.
    skip_where_it_needs_one_vocabulary(ours.config.vocab_size, ours.config.output_vocab_size)
    for options in (dict(length_penalty=0.8), dict(early_stopping=True)):
        options |= dict(num_beams=4, max_length=11, min_length=8, bad_words_ids=[[PAD]], no_repeat_ngram_size=1)
        written = ours.generate(**inputs, **options)
        theirs = beams_of_fsmt(model, inputs, options, written)
        assert torch.equal(written, theirs)
        assert theirs.shape[1] > 8  # tokens, so that there was something to choose


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_in_fp64_differ_by_rounding_only(name, tmp_path, monkeypatch):
    # FSMT's own mask of later positions overflows where the type is fp64.
    monkeypatch.setattr(modeling_fsmt, "fill_with_neg_inf", lambda zeros: zeros - 1e30)
    model = fsmt_model(name, torch.float64)
    model.save_pretrained(tmp_path / "fsmt")
    exact_positions(model)
    convert_checkpoint("fsmt", tmp_path / "fsmt", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    assert logits_difference(ours, model, batch(ours.config)) <= 1e-10


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_way_back_gives_every_bit_again(name, tmp_path):
    model = fsmt_model(name)
    model.save_pretrained(tmp_path / "fsmt")
    convert_checkpoint("fsmt", tmp_path / "fsmt", tmp_path / "ours")
    restore_checkpoint("fsmt", tmp_path / "ours", tmp_path / "back")
    back = FSMTForConditionalGeneration.from_pretrained(tmp_path / "back")
    before, after = model.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    for key in before:
        assert torch.equal(before[key], after[key]), key
    assert back.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert back.generation_config.num_beams == model.generation_config.num_beams


def test_equal_matrices_are_tied_and_stored_once(tmp_path):
    flags = {}
    for name in CONFIGURATIONS:
        fsmt_model(name).save_pretrained(tmp_path / name / "fsmt")
        convert_checkpoint("fsmt", tmp_path / name / "fsmt", tmp_path / name / "ours")
        config = json.loads((tmp_path / name / "ours" / "config.json").read_text())
        flags[name] = (config["share_encoder_decoder_embeddings"], config["tie_word_embeddings"])
        stored = load_file(tmp_path / name / "ours" / "model.safetensors")
        assert ("lm_head.weight" in stored) != config["tie_word_embeddings"]
    assert list(flags.values()) == [(False, False), (False, True), (True, True), (False, False)]


# --------------------------------------------------------------------------- tokenizers

WORDS = {"en": ["low", "lower", "new", "newer", "wide", ",", "."], "de": ["tief", "tiefer", "neu", "neuer", "."]}


def write_vocabularies(folder: Path) -> None:
    """Two vocabularies and common merges, as FSMT's checkpoints have them."""
    merges = ["l o", "lo w</w>", "lo w", "low e", "n e", "ne w</w>", "t i", "ti e", "tie f</w>", "n e", "ne u</w>"]
    for side, language in (("src", "en"), ("tgt", "de")):
        letters = sorted({letter for word in WORDS[language] for letter in word})
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(f"{letter}</w>" for letter in letters)]
        tokens += [merge.replace(" ", "") for merge in dict.fromkeys(merges)]
        (folder / f"vocab-{side}.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(dict.fromkeys(merges)) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"langs": ["en", "de"], "do_lower_case": False}))


def test_text_out_is_fsmts_text(tmp_path):
    pytest.importorskip("sacremoses", reason="FSMT's own tokenizer needs it")
    pytest.importorskip("joblib", reason="sacremoses needs it")
    from transformers import FSMTTokenizer

    (tmp_path / "fsmt").mkdir()
    write_vocabularies(tmp_path / "fsmt")
    sizes = [len(json.loads((tmp_path / "fsmt" / f"vocab-{side}.json").read_text())) for side in ("src", "tgt")]
    assert sizes[0] != sizes[1]
    model = fsmt_model("two vocabularies", src_vocab_size=sizes[0], tgt_vocab_size=sizes[1])
    model.save_pretrained(tmp_path / "fsmt")
    theirs = FSMTTokenizer.from_pretrained(tmp_path / "fsmt")
    convert_checkpoint("fsmt", tmp_path / "fsmt", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    texts = ["lower, wider new.", "newer low", "unknown Ünknown"]
    encoded = theirs(texts, padding=True, return_tensors="pt")
    assert torch.equal(encoded["input_ids"], tokenizer(texts, padding=True, return_tensors="pt")["input_ids"])
    options = dict(num_beams=4, max_length=12, bad_words_ids=[[0], [PAD], [3]], no_repeat_ngram_size=1)
    skip_where_it_needs_one_vocabulary(*sizes)
    written = ours.generate(**encoded, **options)
    expected = theirs.batch_decode(beams_of_fsmt(model, encoded, options, written), skip_special_tokens=True)
    found = tokenizer.batch_decode(written, skip_special_tokens=True)
    assert found == expected and all(expected)
    assert all(isinstance(text, str) for text in translate(ours, tokenizer, texts))  # the stock class fits translate()
    # References are encoded by the target's own tokenizer, with the target's ids.
    target = AutoTokenizer.from_pretrained(tmp_path / "ours" / "target_tokenizer")
    ids = target("tiefer neu.")["input_ids"]
    assert ids[-1] == EOS and 3 not in ids and target.decode(ids, skip_special_tokens=True) == "tiefer neu."
    restore_checkpoint("fsmt", tmp_path / "ours", tmp_path / "back")
    back = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert type(back) is FSMTTokenizer and back(texts)["input_ids"] == theirs(texts)["input_ids"]
    assert FSMTConfig.from_pretrained(tmp_path / "back").langs == ["en", "de"]


# --------------------------------------------------------------------------- fairseq


def write_fairseq(
    folder: Path, state: dict, form: str = "args", dictionaries: tuple[int, int] | None = None, **options
):
    """Write a checkpoint as fairseq does, "args" before 0.10 and "cfg" since, and its dictionaries."""
    folder.mkdir(exist_ok=True)
    both = dict(embed_dim=12, ffn_embed_dim=20, attention_heads=3, normalize_before=False, learned_pos=False)
    arguments = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
    arguments |= dict(source_lang="en", target_lang="de", activation_fn="relu", dropout=0.1) | options
    saved = {"model": state, "extra_state": {"epoch": 3}, "optimizer_history": [{"num_updates": 7}]}
    if form == "args":
        saved["args"] = argparse.Namespace(arch="transformer", **arguments)
    else:
        languages = {"source_lang": arguments.pop("source_lang"), "target_lang": arguments.pop("target_lang")}
        saved |= {"args": None, "cfg": {"model": argparse.Namespace(**arguments), "task": languages}}
    torch.save(saved, folder / "model.pt")
    for language, size in zip(("en", "de"), dictionaries or (), strict=False):
        lines = [f"{language}{number} {99 - number}" for number in range(size - 4)]
        (folder / f"dict.{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def fairseq_state(model: FSMTForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The names that fairseq gives the same numbers."""
    state = {
        name.removeprefix("model."): tensor
        for name, tensor in model.state_dict().items()
        if "embed_positions" not in name
    }
    for side in ("encoder", "decoder"):
        state[f"{side}.version"] = torch.tensor([3.0])
        state[f"{side}.embed_positions._float_tensor"] = torch.zeros(1)
    return state


@pytest.mark.parametrize(("name", "form"), zip(CONFIGURATIONS, ("args", "cfg", "cfg", "args"), strict=True))
def test_fairseq_is_what_fsmt_ported(name, form, tmp_path):
    model = fsmt_model(name)
    sizes = (model.config.src_vocab_size, model.config.tgt_vocab_size)
    state = fairseq_state(model)
    shared = {}
    if name == "two vocabularies, output tied":  # before fairseq 0.10 the tied output was not stored
        del state["decoder.output_projection.weight"]
        shared = dict(share_decoder_input_output_embed=True)
    unscaled = dict(no_scale_embedding=not model.config.scale_embedding)
    write_fairseq(tmp_path / "fairseq", state, form, sizes, **shared, **unscaled)
    convert_checkpoint("fairseq", tmp_path / "fairseq", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    inputs = batch(ours.config)
    assert logits_difference(ours, model, inputs) <= 1e-5
    # Without BPE codes, text is what fairseq-interactive takes: tokens with white space between them.
    source = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert source("en0 en5 what")["input_ids"] == [4, 9, 3, EOS]  # four special symbols come first
    target = AutoTokenizer.from_pretrained(tmp_path / "ours" / "target_tokenizer")
    assert target.decode([4, 6, EOS], skip_special_tokens=True) == "de0 de2"
    skip_where_it_needs_one_vocabulary(*sizes)
    del inputs["decoder_input_ids"]
    options = dict(num_beams=4, max_length=8, bad_words_ids=[[PAD]], no_repeat_ngram_size=1)
    options |= dict(forced_eos_token_id=EOS, early_stopping=True)
    written = ours.generate(**inputs, **options)
    assert torch.equal(written, beams_of_fsmt(model, inputs, options, written))


@pytest.mark.parametrize("one_dictionary", [False, True])
def test_translations_are_written_in_the_targets_words(one_dictionary, tmp_path):
    model = fsmt_model("one size, untied, unscaled")
    write_fairseq(tmp_path / "fairseq", fairseq_state(model), "cfg", (27, 27), no_scale_embedding=True)
    if one_dictionary:  # with two matrices of embeddings, as fairseq's --joined-dictionary alone has it
        shutil.copy(tmp_path / "fairseq" / "dict.en.txt", tmp_path / "fairseq" / "dict.de.txt")
    convert_checkpoint("fairseq", tmp_path / "fairseq", tmp_path / "ours")
    ours, tokenizer = load_checkpoint(tmp_path / "ours")
    texts, settings = ["en0 en5 en7", "en3"], BeamSearchConfig(num_beams=2, max_extra_tokens=5)
    found = translate(ours, tokenizer, texts, settings)
    words = {word[:2] for text in found for word in text.split() if word != "<unk>"}
    assert words == {"en" if one_dictionary else "de"}
    piped = TranslationPipeline(ours, tokenizer, device="cpu")(texts, settings)
    assert [result["translation_text"] for result in piped] == found
    shutil.rmtree(tmp_path / "ours" / "target_tokenizer")
    with pytest.raises(ValueError, match="has no folder target_tokenizer; give target_tokenizer"):
        translate(ours, AutoTokenizer.from_pretrained(tmp_path / "ours"), texts)
    assert translate(ours, tokenizer, texts, settings) == found  # both were read before


def test_two_vocabularies_are_exported_with_both_tokenizers(tmp_path):
    pytest.importorskip("ctranslate2", reason="needs the extra ctranslate2")
    model = fsmt_model("two vocabularies")
    write_fairseq(tmp_path / "fairseq", fairseq_state(model), "cfg", (23, 31))
    convert_checkpoint("fairseq", tmp_path / "fairseq", tmp_path / "ours")
    ours, tokenizer = load_checkpoint(tmp_path / "ours")
    export_checkpoint("ctranslate2", tmp_path / "ours", tmp_path / "exported")
    texts, settings = ["en0 en5 en7", "en3", "what en1"], BeamSearchConfig(num_beams=1, max_extra_tokens=5)
    engine = load_engine("ctranslate2", tmp_path / "exported")
    found = translate(engine, AutoTokenizer.from_pretrained(tmp_path / "exported"), texts, settings)
    assert found == translate(ours, tokenizer, texts, settings) and any("de" in text for text in found)
    shutil.rmtree(tmp_path / "ours" / "target_tokenizer")
    with pytest.raises(ValueError, match="has no folder target_tokenizer; save the target's tokenizer there"):
        export_checkpoint("ctranslate2", tmp_path / "ours", tmp_path / "again")
    assert not (tmp_path / "again").exists()


class PreNormReference(nn.Module):
    """fairseq's transformer with normalisation first, put together from torch's own layers."""

    def __init__(self, source_size: int, target_size: int) -> None:
        super().__init__()
        self.transformer = nn.Transformer(12, 3, 2, 1, 20, 0.0, batch_first=True, norm_first=True)
        self.source, self.target = nn.Embedding(source_size, 12), nn.Embedding(target_size, 12)
        self.output = nn.Linear(12, target_size, bias=False)
        self.source_table: torch.Tensor | None = None
        self.target_table: torch.Tensor | None = None

    def embed(self, embedding: nn.Embedding, ids: torch.Tensor, table: torch.Tensor | None) -> torch.Tensor:
        positions = torch.arange(ids.shape[1]) + PAD + 1
        if table is None:
            rates = torch.tensor([10000 ** (-i / 5) for i in range(6)], dtype=torch.float64)
            angles = positions.double().unsqueeze(-1) * rates
            encoded = torch.cat([angles.sin(), angles.cos()], dim=-1)
        else:
            encoded = table[positions]
        return embedding(ids) * math.sqrt(12) + encoded

    def forward(self, input_ids, attention_mask, decoder_input_ids):
        hidden = attention_mask == 0
        length = decoder_input_ids.shape[1]
        states = self.transformer(
            self.embed(self.source, input_ids, self.source_table),
            self.embed(self.target, decoder_input_ids, self.target_table),
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
        )
        return self.output(states)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("version", [3.0, 2.0])
def test_fairseq_with_normalisation_first(version, learned, tmp_path):
    torch.manual_seed(0)
    reference = PreNormReference(23, 31).double().eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(std=0.4)
    renamed = {
        "multihead_attn": "encoder_attn", "linear1": "fc1", "linear2": "fc2", "norm1": "self_attn_layer_norm",
        "encoder.norm": "encoder.layer_norm", "decoder.norm": "decoder.layer_norm", "norm3": "final_layer_norm",
    }  # fmt: skip
    state = {}
    for name, tensor in reference.transformer.state_dict().items():
        for before, after in renamed.items():
            name = name.replace(before, after)
        name = name.replace("norm2", "encoder_attn_layer_norm" if name.startswith("decoder") else "final_layer_norm")
        if "in_proj_" in name:
            for projection, part in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("in_proj_", f"{projection}_proj.")] = part.clone()
        else:
            state[name] = tensor
    state |= {
        "encoder.embed_tokens.weight": reference.source.weight.detach(),
        "decoder.embed_tokens.weight": reference.target.weight.detach(),
        "decoder.output_projection.weight": reference.output.weight.detach(),
        "encoder.version": torch.tensor([version]),
        "decoder.version": torch.tensor([version]),
    }
    if learned:
        reference.source_table, reference.target_table = torch.randn(2, 14, 12, dtype=torch.float64)
        state["encoder.embed_positions.weight"] = reference.source_table
        state["decoder.embed_positions.weight"] = reference.target_table
    if version < 3:  # such checkpoints' stacks end without a normalisation, whatever is stored
        reference.transformer.encoder.norm = reference.transformer.decoder.norm = None
    flags = {f"{side}_{name}": True for side in ("encoder", "decoder") for name in ("normalize_before", "learned_pos")}
    if not learned:
        flags = {name: value for name, value in flags.items() if "learned" not in name}
    write_fairseq(tmp_path / "fairseq", state, **flags)
    convert_checkpoint("fairseq", tmp_path / "fairseq" / "model.pt", tmp_path / "ours")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    assert ours.config.final_norm == (version >= 3) and ours.config.norm_position == "pre"
    inputs = batch(ours.config)
    with torch.no_grad():
        difference = (ours(**inputs).logits - reference(**inputs)).abs()
    assert difference[inputs["decoder_input_ids"] != PAD].max() <= 1e-10


def test_fairseq_with_bpe_codes_takes_text(tmp_path):
    pytest.importorskip("sacremoses", reason="Moses' rules are in it")
    pytest.importorskip("joblib", reason="sacremoses needs it")
    model = fsmt_model("two vocabularies", src_vocab_size=10, tgt_vocab_size=9)
    write_fairseq(tmp_path / "fairseq", fairseq_state(model))
    (tmp_path / "fairseq" / "dict.en.txt").write_text("low@@ 9\ner 8\nlow 7\n. 6\nn@@ 5\new 4\n")
    (tmp_path / "fairseq" / "dict.de.txt").write_text("tief@@ 9\ner 8\ntief 7\n. 6\nneu 4\n")
    (tmp_path / "fairseq" / "bpecodes").write_text("#version: 0.2\nl o\nlo w</w>\nlo w\ne r</w>\ne w</w>\n")
    convert_checkpoint("fairseq", tmp_path / "fairseq", tmp_path / "ours")
    source = AutoTokenizer.from_pretrained(tmp_path / "ours")
    # "lower" is low@@ er and "new" is n@@ ew; the numbers are places in the dictionary plus four.
    assert source("lower low new.")["input_ids"] == [4, 5, 6, 8, 9, 7, EOS]
    assert source.decode([4, 5, 8, 7, EOS], skip_special_tokens=True) == "tiefer neu."


# --------------------------------------------------------------------------- refusals


def refusal(source_format: str, tmp_path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        convert_checkpoint(source_format, tmp_path / source_format, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == [source_format]  # nothing half-written
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_inexpressible_in_fsmt_is_listed_at_once(tmp_path):
    model = fsmt_model("two vocabularies", decoder_attention_heads=2, decoder_ffn_dim=24)
    model.save_pretrained(tmp_path / "fsmt")
    weights = load_file(tmp_path / "fsmt" / "model.safetensors")
    weights["model.encoder.layers.1.fc1.bias"][3] = math.inf
    weights["model.decoder.layer_norm.weight"] = torch.ones(12)
    save_file(weights, tmp_path / "fsmt" / "model.safetensors", metadata={"format": "pt"})
    message = refusal("fsmt", tmp_path)
    for part in (
        "encoder_attention_heads is 3 and decoder_attention_heads 2",
        "encoder_ffn_dim is 20 and decoder_ffn_dim 24",
        "nothing here takes model.decoder.layer_norm.weight",
        "finite in model.encoder.layers.1.fc1.bias",
    ):
        assert part in message


def test_everything_inexpressible_in_fairseq_is_listed_at_once(tmp_path):
    options = dict(
        encoder_normalize_before=True, layernorm_embedding=True, adaptive_softmax_cutoff="100,200",
        activation_fn="linear", decoder_output_dim=8, decoder_ffn_embed_dim=24,
    )  # fmt: skip
    write_fairseq(tmp_path / "fairseq", fairseq_state(fsmt_model("two vocabularies")), **options)
    message = refusal("fairseq", tmp_path)
    for part in (
        "encoder_normalize_before is True and decoder_normalize_before False",
        "encoder_ffn_embed_dim is 20 and decoder_ffn_embed_dim 24",
        "layernorm_embedding is True",
        "adaptive_softmax_cutoff is '100,200'",
        "decoder_output_dim is 8",
        "activation_fn is 'linear'",
    ):
        assert part in message


def test_a_dictionary_of_another_model_is_refused(tmp_path):
    write_fairseq(tmp_path / "fairseq", fairseq_state(fsmt_model("two vocabularies")), "args", (23, 30))
    assert "has 31 rows, its dictionary 30 tokens" in refusal("fairseq", tmp_path)


def test_fairseq_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "fairseq").mkdir()
    assert "has no model.pt" in refusal("fairseq", tmp_path)
    torch.save({"args": None, "cfg": {"model": Path("x")}, "model": {}}, tmp_path / "fairseq" / "model.pt")
    assert "which could run code" in refusal("fairseq", tmp_path)
    torch.save({"weights": {}}, tmp_path / "fairseq" / "model.pt")
    assert "no checkpoint of fairseq" in refusal("fairseq", tmp_path)
    torch.save({"model": {}}, tmp_path / "fairseq" / "model.pt")
    assert "neither 'args' nor 'cfg'" in refusal("fairseq", tmp_path)
