"""What can't be published is refused in one sentence, before anything is sent; nothing in the directory changes."""

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
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 300)
    sizes = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    torch.manual_seed(0)
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "checkpoint"))


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


def keep_pickles_only(folder):
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
        (shutil.rmtree, "there is no directory"),
        (remove("config.json"), "has no config.json"),
        (write("config.json", b"{"), "is not valid JSON"),
        (write("config.json", b"\xff"), "is not valid JSON"),
        (write("config.json", b"[]"), "holds no JSON object"),
        (change_config(model_type="marian"), "is of model type 'marian', not 'vanilla_transformer'; .* convert"),
        (change_config(d_model=-4), "d_model=-4"),
        (remove("model.safetensors"), "has no model.safetensors"),
        (keep_pickles_only, "in pickles only"),
        (write("model.safetensors", b"not tensors"), "can't be loaded: .*model.safetensors"),
        (write("model.safetensors", b""), "can't be loaded"),
        (change_config(d_ff=20), "can't be loaded: .*(mismatch|fit)"),
        (change_config(encoder_layers=2), "don't fit its config.json: it lacks model.encoder.layers.1"),
        (change_weights(lambda w: w.update(extra=torch.ones(2))), "it has, and the model doesn't, extra"),
        (change_weights(lambda w: next(iter(w.values())).fill_(float("nan"))), "not finite"),
        (index_of({"weight_map": {"a": "model-00002-of-00002.safetensors"}}), "00002.safetensors is missing"),
        (index_of({"weight_map": {"a": "../secrets.safetensors"}}), "names '../secrets.safetensors'"),
        (index_of({}), "names no files of weights"),
        (remove_tokenizer, "has no tokenizer"),
        (write("tokenizer.json", b"{}"), "has no tokenizer"),
        (write("README.md", b"---\nlicense: [\n---\n# x\n"), r"README.md:\d+: the header is not valid YAML"),
        (write("README.md", b"---\n- a\n---\n# x\n"), "is not that of a model card"),
        (write("README.md", b"\xff\xfe"), "is not UTF-8"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(checkpoint, damage, message):
    damage(checkpoint)
    before = {path.name: path.stat().st_mtime_ns for path in checkpoint.glob("*")}
    with pytest.raises(ValueError, match=message) as caught:
        dry_run(checkpoint)
    assert "\n" not in str(caught.value)
    assert {path.name: path.stat().st_mtime_ns for path in checkpoint.glob("*")} == before


@pytest.mark.parametrize("name", ["..", "someone/..", "../toy", "a/b/c", "", "someone/", "some one/toy", "-x", 7, None])
def test_what_can_be_no_name_is_refused_before_any_work(name):
    with pytest.raises(ValueError, match="can't be a repository's name") as caught:
        dry_run("no/such/directory", name)
    assert "\n" not in str(caught.value)


def test_a_model_without_tokenizer_is_refused(checkpoint):
    model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match="is pushed with its tokenizer"):
        dry_run(model)


def test_another_model_is_refused():
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(ValueError, match="not a bert"):
        dry_run(BertModel(config))


def test_a_tokenizer_of_another_model_is_refused(checkpoint):
    bigger = train_tokenizer([" ".join(chr(code) for code in range(0xAC00, 0xAC80))], 600)
    with pytest.raises(ValueError, match="the model's vocabulary only"):
        dry_run(checkpoint, tokenizer=bigger)


def test_the_command_says_it_in_one_line(checkpoint, capsys):
    (checkpoint / "model.safetensors").unlink()
    assert main(["push", str(checkpoint), "someone/toy"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vanilla-transformer push: error: ") and "has no model.safetensors" in error


@pytest.mark.slow
def test_code_that_does_not_load_alone_is_not_sent(checkpoint, monkeypatch):
    def write_broken_code(folder):
        publish_code(folder)
        (folder / "layers_vanilla_transformer.py").write_text("import no_such_module\n", encoding="utf-8")

    publish_code = publish.write_model_code
    monkeypatch.setattr(publish, "write_model_code", write_broken_code)
    with pytest.raises(ValueError, match="doesn't load without this package, so it was not sent: .*no_such_module"):
        push_to_hub(checkpoint, "someone/toy", dry_run=True)


@pytest.mark.slow
def test_code_that_computes_something_else_is_not_sent(checkpoint, monkeypatch):
    def write_other_code(folder):
        publish_code(folder)
        path = folder / "layers_vanilla_transformer.py"
        path.write_text(path.read_text(encoding="utf-8").replace("10000", "9000"), encoding="utf-8")

    publish_code = publish.write_model_code
    monkeypatch.setattr(publish, "write_model_code", write_other_code)
    with pytest.raises(ValueError, match="differently .*, so it was not sent"):
        push_to_hub(checkpoint, "someone/toy", dry_run=True)
