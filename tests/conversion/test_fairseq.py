"""fairseq to our format: against transformers' FSMT model, and torch's layers for pre-norm fairseq."""

import argparse
import math
import shutil
from pathlib import Path

import pytest
import torch
from peers_beam_search import skip_where_it_needs_one_vocabulary
from small_fsmt import CONFIGURATIONS, EOS, PAD, batch, beams_of_fsmt, fsmt_model, logits_difference, refusal
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, FSMTForConditionalGeneration

from hf_vanilla_transformer import BeamSearchConfig, TranslationPipeline, export_checkpoint, load_engine
from hf_vanilla_transformer.checkpoints.loading import load_checkpoint
from hf_vanilla_transformer.conversion.convert import convert_checkpoint
from hf_vanilla_transformer.translation.translate import translate


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
    piped = TranslationPipeline(ours, tokenizer, device="cpu")(texts, num_beams=2, max_extra_tokens=5)
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
    with pytest.raises(ValueError, match="has no directory target_tokenizer; save the target's tokenizer there"):
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


def test_everything_inexpressible_in_fairseq_is_listed_at_once(tmp_path):
    options = dict(
        encoder_normalize_before=True, layernorm_embedding=True, adaptive_softmax_cutoff="100,200",
        activation_fn="linear", decoder_output_dim=8, decoder_ffn_embed_dim=24,
    )  # fmt: skip
    write_fairseq(tmp_path / "fairseq", fairseq_state(fsmt_model("two vocabularies")), **options)
    message = refusal("fairseq", tmp_path)
    for part in (
        "encoder_normalize_before is True and decoder_normalize_before is False",
        "encoder_ffn_embed_dim is 20 and decoder_ffn_embed_dim is 24",
        "layernorm_embedding=True",
        "adaptive_softmax_cutoff='100,200'",
        "decoder_output_dim is 8",
        "activation_fn='linear'",
    ):
        assert part in message


def test_a_dictionary_of_another_model_is_refused(tmp_path):
    write_fairseq(tmp_path / "fairseq", fairseq_state(fsmt_model("two vocabularies")), "args", (23, 30))
    assert "has 31 rows, but its dictionary has 30 tokens" in refusal("fairseq", tmp_path)


def test_fairseq_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "fairseq").mkdir()
    assert "has no model.pt" in refusal("fairseq", tmp_path)
    torch.save({"args": None, "cfg": {"model": Path("x")}, "model": {}}, tmp_path / "fairseq" / "model.pt")
    assert "which could run code" in refusal("fairseq", tmp_path)
    torch.save({"weights": {}}, tmp_path / "fairseq" / "model.pt")
    assert "not a checkpoint of fairseq" in refusal("fairseq", tmp_path)
    torch.save({"model": {}}, tmp_path / "fairseq" / "model.pt")
    assert "neither 'args' nor 'cfg'" in refusal("fairseq", tmp_path)
