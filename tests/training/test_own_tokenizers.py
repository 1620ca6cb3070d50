"""Training with a tokenizer that was made elsewhere: translations end, also where it appended no EOS token."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

import hf_vanilla_transformer as vt

SOURCES = ["one two", "two three four", "five", "six seven one", "three"]
TARGETS = ["uno dos", "dos tres cuatro", "cinco", "seis siete uno", "tres"]
RECIPE = """
preset: tiny
config_overrides: {encoder_layers: 1, decoder_layers: 1, d_model: 32, d_ff: 64, num_heads: 2, dropout: 0.0}
label_smoothing_factor: 0.0
max_tokens_per_batch: 1024
learning_rate: 0.01
warmup_steps: 10
max_steps: 120
precision: fp32
use_cpu: true
report_to: none
disable_tqdm: true
save_strategy: "no"
"""


def gpt2_style(folder: Path) -> Path:
    """Build a tokenizer that appends no EOS token, and has no padding, BOS or unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*SOURCES, *TARGETS], trainer)
    tokenizer.save(str(folder / "gpt2.json"))
    return folder / "gpt2.json"


def sentencepiece_without_special_tokens(folder: Path) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece")
    (folder / "text").write_text("\n".join([*SOURCES, *TARGETS] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "m"),
        vocab_size=40,
        bos_id=-1,
        eos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder / "m.model"


@pytest.mark.parametrize("build", [gpt2_style, sentencepiece_without_special_tokens])
def test_translations_end(build: object, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.en").write_text("\n".join(SOURCES) + "\n")
    (tmp_path / "a.es").write_text("\n".join(TARGETS) + "\n")
    (tmp_path / "my.yaml").write_text(RECIPE)
    words = ["--train_source", str(tmp_path / "a.en"), "--train_target", str(tmp_path / "a.es")]
    words += ["--tokenizer", str(build(tmp_path)), "--output_dir", str(tmp_path / "out")]  # type: ignore[operator]
    logging.enable_propagation()
    try:
        result = vt.train(vt.read_recipe(tmp_path / "my.yaml", words))
    finally:
        logging.disable_propagation()
    assert "unknown to the tokenizer" not in caplog.text
    assert vt.translate(result.model, result.tokenizer, SOURCES) == TARGETS
    # and with transformers alone, whose inputs end in EOS because the post-processor was saved
    model, tokenizer = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModelForSeq2SeqLM, AutoTokenizer))
    batch = tokenizer(SOURCES, padding=True, return_tensors="pt")
    generated = model.eval().generate(**batch, max_length=40)
    assert generated.shape[1] < 40
    for row, text in zip(generated[:, 1:], TARGETS, strict=True):
        end = row.tolist().index(tokenizer.eos_token_id)
        assert tokenizer.decode(row[:end]) == text
        assert torch.all(row[end + 1 :] == tokenizer.pad_token_id)
    # no token of the text is taken for a special one that the tokenizer lacks
    assert model.config.bos_token_id is None or model.config.bos_token_id == tokenizer.bos_token_id


def test_a_file_that_is_no_tokenizer_ends_the_command_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hf_vanilla_transformer.cli import main

    for name in ("a.en", "a.es"):
        (tmp_path / name).write_text("one\ntwo\n")
    (tmp_path / "my.yaml").write_text(RECIPE)
    (tmp_path / "junk.model").write_bytes(b"\n\x99junk")
    words = ["train", tmp_path / "my.yaml", "--train_source", tmp_path / "a.en", "--train_target", tmp_path / "a.es"]
    words += ["--output_dir", tmp_path / "out", "--tokenizer", tmp_path / "junk.model"]
    assert main(list(map(str, words))) == 2
    error = capsys.readouterr().err
    assert "junk.model is not a SentencePiece model" in error and "Traceback" not in error
