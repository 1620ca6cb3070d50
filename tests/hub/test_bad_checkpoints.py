"""A checkpoint that cannot be published is rejected in one sentence; its directory stays unchanged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    preset,
    push_to_hub,
    train_tokenizer,
)
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.hub import publish


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 300)
    sizes = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    torch.manual_seed(0)
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(intact, tmp_path):
    return Path(shutil.copytree(intact, tmp_path / "checkpoint"))


def dry_run(source, repo_id="someone/toy", **options):
    return push_to_hub(source, repo_id, dry_run=True, check=False, **options)


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def change_config(**fields):
    def change(folder):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, **fields}), encoding="utf-8")

    return change


def change_weights(change):
    def rewrite(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def keep_pickle_files_only(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def index_of(content):
    def replace(folder):
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")

    return replace


def remove_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "has no config.json"),
        (write("config.json", b"{"), "is not valid JSON"),
        (write("config.json", b"\xff"), "is not valid JSON"),
        (write("config.json", b"[]"), "holds no JSON object"),
        (change_config(model_type="marian"), "holds a model of type 'marian', not 'vanilla_transformer'; .* convert"),
        (change_config(d_model=-4), "d_model=-4"),
        (remove("model.safetensors"), "has no model.safetensors"),
        (keep_pickle_files_only, "in pickle files only"),
        (write("model.safetensors", b"not tensors"), "model.safetensors cannot be read as safetensors"),
        (write("model.safetensors", b""), "cannot be read as safetensors"),
        (change_config(d_ff=20), "checkpoint cannot be loaded: .*(mismatch|fit)"),
        (change_config(d_ff=10**9), "d_ff=1000000000, but its weights have only"),
        (change_config(encoder_layers=2), "do not match its config.json: model.encoder.layers.1.* is missing"),
        (
            change_weights(lambda w: w.update(extra=torch.ones(2))),
            "do not match its config.json: extra is not part of the model",
        ),
        (change_weights(lambda w: next(iter(w.values())).fill_(float("nan"))), "not finite"),
        (index_of({"weight_map": {"a": "model-00002-of-00002.safetensors"}}), "00002.safetensors is missing"),
        (index_of({"weight_map": {"a": "../secrets.safetensors"}}), "lists '../secrets.safetensors'"),
        (index_of({}), "lists no weight files"),
        (remove_tokenizer, "the tokenizer in .*checkpoint cannot be loaded"),
        (write("tokenizer.json", b"{}"), "the tokenizer in .*checkpoint cannot be loaded"),
        (write("README.md", b"---\nlicense: [\n---\n# x\n"), r"README.md:\d+: the header is not valid YAML"),
        (write("README.md", b"---\n- a\n---\n# x\n"), "is not that of a model card"),
        (write("README.md", b"\xff\xfe"), "is not UTF-8"),
    ],
)
def test_an_incomplete_or_damaged_checkpoint_is_rejected(checkpoint, damage, message):
    damage(checkpoint)
    before = {path.name: path.stat().st_mtime_ns for path in checkpoint.glob("*")}
    with pytest.raises(ValueError, match=message) as caught:
        dry_run(checkpoint)
    assert "\n" not in str(caught.value) and "vanilla-transformer-push" not in str(caught.value)
    assert {path.name: path.stat().st_mtime_ns for path in checkpoint.glob("*")} == before


def test_a_missing_directory_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no directory .*gone"):
        dry_run(tmp_path / "gone")


@pytest.mark.parametrize("name", ["..", "someone/..", "../toy", "a/b/c", "", "someone/", "some one/toy", "-x", 7, None])
def test_an_invalid_name_is_rejected_before_any_work(name):
    with pytest.raises(ValueError, match="is not a valid repository name") as caught:
        dry_run("no/such/directory", name)
    assert "\n" not in str(caught.value)


def test_a_model_without_tokenizer_is_rejected(checkpoint):
    model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match="is pushed with its tokenizer"):
        dry_run(model)


def test_another_model_is_rejected():
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(ValueError, match="not a bert"):
        dry_run(BertModel(config))


def test_a_tokenizer_of_another_model_is_rejected(checkpoint):
    bigger = train_tokenizer([" ".join(chr(code) for code in range(0xAC00, 0xAC80))], 600)
    with pytest.raises(ValueError, match="the model's vocabulary only"):
        dry_run(checkpoint, tokenizer=bigger)


def test_the_command_prints_one_line(checkpoint, capsys):
    (checkpoint / "model.safetensors").unlink()
    assert main(["push", str(checkpoint), "someone/toy"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vanilla-transformer push: error: ") and "has no model.safetensors" in error


@pytest.mark.slow
def test_code_that_needs_this_package_is_not_uploaded(checkpoint, monkeypatch):
    def write_broken_code(folder):
        publish_code(folder)
        (folder / "layers_vanilla_transformer.py").write_text("import no_such_module\n", encoding="utf-8")

    publish_code = publish.write_model_code
    monkeypatch.setattr(publish, "write_model_code", write_broken_code)
    with pytest.raises(ValueError, match="cannot be loaded without this package, so it was not sent: .*no_such_module"):
        push_to_hub(checkpoint, "someone/toy", dry_run=True)


@pytest.mark.slow
def test_code_with_different_results_is_not_uploaded(checkpoint, monkeypatch):
    def write_other_code(folder):
        publish_code(folder)
        path = folder / "layers_vanilla_transformer.py"
        path.write_text(path.read_text(encoding="utf-8").replace("10000", "9000"), encoding="utf-8")

    publish_code = publish.write_model_code
    monkeypatch.setattr(publish, "write_model_code", write_other_code)
    with pytest.raises(ValueError, match="differently .*, so it was not sent"):
        push_to_hub(checkpoint, "someone/toy", dry_run=True)
