"""The functions for all formats, and the command: where results are written, and what is never overwritten."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.checkpoints import download
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.conversion.convert import convert_checkpoint, restore_checkpoint
from hf_vanilla_transformer.overwriting import RECORD_NAME, output_folder, write_folder_record

OPTIONS = dict(num_heads=2, embedding="emb.weight", prefix="net.")
AS_WORDS = [word for name, value in OPTIONS.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def source(tmp_path) -> Path:
    """A state dict of one shared vocabulary."""
    torch.manual_seed(0)
    net, embedding = nn.Transformer(8, 2, 1, 1, 12), nn.Embedding(11, 8)
    state = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save(state | {"emb.weight": embedding.weight.detach()}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_result_is_an_ordinary_directory(source, tmp_path):
    convert_checkpoint("torch", source, tmp_path / "deep" / "ours", options=OPTIONS)
    names = ("config.json", "generation_config.json", "model.safetensors", RECORD_NAME)
    assert files(tmp_path / "deep") == {f"ours/{name}" for name in names}
    model = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "deep" / "ours")
    assert model.config.tie_word_embeddings and model.generation_config.max_length == 512
    assert (tmp_path / "deep" / "ours").stat().st_mode & 0o777 == (tmp_path / "deep").stat().st_mode & 0o777


def test_nothing_is_overwritten_without_force(source, tmp_path):
    target = tmp_path / "ours"
    convert_checkpoint("torch", source, target, options=OPTIONS)
    before = (target / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="already exists"):
        convert_checkpoint("torch", source, target, options=OPTIONS)
    changed = torch.load(source, weights_only=True)
    changed["emb.weight"] += 1
    torch.save(changed, source)
    convert_checkpoint("torch", source, target, options=OPTIONS, overwrite=True)
    assert (target / "model.safetensors").read_bytes() != before
    assert files(tmp_path) == {"model.pt", *(f"ours/{name}" for name in files(target))}


def test_force_replaces_checkpoints_only_and_never_the_source(source, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something other than a converted checkpoint"):
        convert_checkpoint("torch", source, tmp_path / "thesis", options=OPTIONS, overwrite=True)
    with pytest.raises(ValueError, match="would replace the source"):
        convert_checkpoint("torch", source, source.parent, options=OPTIONS, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        convert_checkpoint("torch", source, tmp_path / "thesis" / "chapter.txt", options=OPTIONS, overwrite=True)
    assert files(tmp_path) == {"model.pt", "thesis/chapter.txt"}


def test_a_failure_while_writing_leaves_what_was_there(tmp_path):
    target = tmp_path / "ours"
    target.mkdir()
    (target / "config.json").write_text("{}")
    write_folder_record(target, "conversion")
    written = output_folder(target, "conversion", overwrite=True)
    with pytest.raises(RuntimeError, match="the disk is full"), written as staging:
        (staging / "config.json").write_text("half")
        raise RuntimeError("the disk is full")
    assert (
        files(tmp_path) == {"ours/config.json", f"ours/{RECORD_NAME}"} and (target / "config.json").read_text() == "{}"
    )


def test_unknown_formats_and_options_of_others_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match="no converter for 'sockeye'; choose one of marian, fsmt, fairseq, torch"):
        convert_checkpoint("sockeye", source, tmp_path / "ours")
    with pytest.raises(ValueError, match="the format marian takes no options; leave out num_heads"):
        convert_checkpoint("marian", source, tmp_path / "ours", options={"num_heads": 3})
    with pytest.raises(ValueError, match="no converter for 'fairseq'; choose one of marian, fsmt, torch"):
        restore_checkpoint("fairseq", source, tmp_path / "ours")


@pytest.mark.parametrize("source_format", ["marian", "fsmt", "fairseq", "torch"])
def test_a_source_that_is_not_there_is_named(source_format, tmp_path):
    options = {"num_heads": 2} if source_format == "torch" else None
    with pytest.raises(FileNotFoundError, match="no/such/place"):
        convert_checkpoint(source_format, "no/such/place", tmp_path / "ours", options=options)
    assert files(tmp_path) == set()


def test_only_our_checkpoints_go_out(tmp_path):
    (tmp_path / "bart").mkdir()
    (tmp_path / "bart" / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(ValueError, match="holds a model of type 'bart', not 'vanilla_transformer'"):
        restore_checkpoint("marian", tmp_path / "bart", tmp_path / "back")
    assert files(tmp_path) == {"bart/config.json"}


def test_a_name_on_the_hub_is_fetched_and_a_failure_is_one_sentence(tmp_path, monkeypatch):
    asked = []

    def fetch(name, revision, allow_patterns):
        asked.append((name, "*.safetensors" in allow_patterns and "*.bin" in allow_patterns))
        (tmp_path / "cache").mkdir()
        return str(tmp_path / "cache")

    monkeypatch.setattr(download, "hub_or_cache", nullcontext)
    monkeypatch.setattr(download, "snapshot_download", fetch)
    with pytest.raises(ValueError, match="cache has no config.json"):
        convert_checkpoint("marian", "someone/opus-mt-en-ko", tmp_path / "ours")
    assert asked == [("someone/opus-mt-en-ko", True)]

    def fail(name, revision, allow_patterns):
        raise OSError("no\n\nnetwork")

    monkeypatch.setattr(download, "snapshot_download", fail)
    with pytest.raises(OSError, match="there is no directory someone/wmt, and the Hub cannot be reached"):
        convert_checkpoint("fsmt", "someone/wmt", tmp_path / "ours")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no directory ../x"):
        convert_checkpoint("fsmt", "../x", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_weights_outside_of_the_folder_are_not_read(tmp_path):
    (tmp_path / "marian").mkdir()
    (tmp_path / "marian" / "config.json").write_text('{"model_type": "marian"}')
    index = '{"weight_map": {"a": "../../other.safetensors"}}'
    (tmp_path / "marian" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match="which is no file of its folder"):
        convert_checkpoint("marian", tmp_path / "marian", tmp_path / "ours")


# --------------------------------------------------------------------------- the command


def test_command_converts_there_and_back(source, tmp_path, capsys):
    assert main(["convert", "--from", "torch", *AS_WORDS, str(source), str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"convert: output={tmp_path / 'ours'}"
    assert main(["convert", "--to", "torch", *AS_WORDS, str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    back, before = load_file(tmp_path / "back" / "model.safetensors"), torch.load(source, weights_only=True)
    assert back.keys() == before.keys() and all(torch.equal(back[name], before[name]) for name in back)
    again = ["convert", "--to", "torch", *AS_WORDS, str(tmp_path / "ours"), str(tmp_path / "back")]
    assert main(again) == 2 and main([*again, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "torch", *AS_WORDS, "{source}", "{full}"], "already exists"),
        (["--from", "torch", "--set", "num_heads", "{source}", "{new}"], "argument --set: num_heads is not NAME=VALUE"),
        (["--from", "torch", "--set", "colour=red", "{source}", "{new}"], "there is no option colour"),
        (["--from", "torch", *AS_WORDS, "--quantization", "int8", "{source}", "{new}"], "--quantization"),
        (["--from", "fairseq", "{full}", "{new}"], "has no model.pt"),
        (["--to", "marian", "{full}", "{new}"], "has no config.json"),
        (["--to", "ctranslate2", *AS_WORDS, "{full}", "{new}"], "--set"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_status_2(words, message, source, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    places = {"source": source, "full": tmp_path / "full", "new": tmp_path / "new"}
    assert main(["convert", *(word.format(**places) for word in words)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vanilla-transformer convert: error: ") and message in error
    assert files(tmp_path) == {"model.pt", "full/note.txt"}


@pytest.mark.parametrize("words", [[], ["--from", "torch", "--to", "onnx"], ["--from", "onnx"], ["--to", "fairseq"]])
def test_one_direction_has_to_be_named(words, capsys):
    assert main(["convert", *words, "a", "b"]) == 2
