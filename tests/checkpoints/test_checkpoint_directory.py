"""A checkpoint directory: which files are its weights, what is read from it, and what is rejected."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset, train_tokenizer
from hf_vanilla_transformer.checkpoints.checkpoint_directory import (
    CheckpointDirectory,
    read_safetensors_header,
    run_checkpoints,
)
from hf_vanilla_transformer.checkpoints.download import is_hub_id, local_directory
from hf_vanilla_transformer.checkpoints.loading import load_checkpoint, load_tokenizers
from hf_vanilla_transformer.checkpoints.manifest import BrokenCheckpointError, write_manifest

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 280)
    sizes = {"d_model": 8, "d_ff": 12, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def change_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def shard(folder: Path) -> dict[str, torch.Tensor]:
    """Replace the weights by two shards and an index; return them."""
    weights = load_file(folder / "model.safetensors")
    model = VanillaTransformerForConditionalGeneration.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    return weights


def test_a_missing_directory_is_rejected_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no directory someone/toy"):
        CheckpointDirectory(tmp_path / "gone", name="someone/toy")


def test_one_file_of_weights_comes_before_an_index(folder: Path) -> None:
    directory = CheckpointDirectory(folder)
    assert directory.weight_files() == [folder / "model.safetensors"]
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))  # shard is gone
    assert directory.weight_files() == [folder / "model.safetensors"]
    assert set(directory.tensor_files()) == set(load_file(folder / "model.safetensors"))


def test_shards_follow_their_index(folder: Path) -> None:
    weights = shard(folder)
    directory = CheckpointDirectory(folder)
    files = directory.weight_files()
    assert files[0] == folder / INDEX and len(files) > 2 and files[1:] == sorted(folder.glob("model-*.safetensors"))
    found = directory.tensor_files()
    assert set(found) == set(weights)
    assert all(name in read_safetensors_header(path) for name, path in found.items())
    directory.check()


def test_the_files_of_an_earlier_save_are_stale(folder: Path) -> None:
    shard(folder)
    for name in ("adapter_model.safetensors", "notes.txt"):
        (folder / name).touch()
    stale = {path.name for path in CheckpointDirectory(folder).stale_weight_files(["model.safetensors"])}
    assert stale == {INDEX, *(path.name for path in folder.glob("model-*.safetensors"))}


def test_pickle_files_are_weights_on_request_only(folder: Path) -> None:
    directory = CheckpointDirectory(folder)
    (folder / "pytorch_model.bin").touch()
    assert directory.weight_files(allow_pickle=True) == [folder / "model.safetensors"]
    (folder / "model.safetensors").unlink()
    assert directory.weight_files() == [] and directory.tensor_files() == {}
    assert directory.weight_files(allow_pickle=True) == [folder / "pytorch_model.bin"]
    with pytest.raises(ValueError, match=r"has weights in pickle files only \(pytorch_model.bin\)"):
        directory.require_weight_files()


@pytest.mark.parametrize("name", ["model_last.pt", "weights.pth", "epoch.ckpt", "pytorch_model-00001-of-00002.bin"])
def test_weights_of_older_tools_are_reported_as_pickle_files(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ValueError, match=f"in pickle files only .{name}"):
        CheckpointDirectory(folder).require_weight_files()


def test_the_state_of_training_is_no_file_of_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_1.pth"):
        (folder / name).touch()
    with pytest.raises(ValueError, match="has no model.safetensors; it contains no model"):
        CheckpointDirectory(folder).require_weight_files()


def test_the_configuration_is_read_for_the_expected_type_only(folder: Path) -> None:
    directory = CheckpointDirectory(folder, "someone/toy")
    assert directory.read_config()["d_model"] == 8
    with pytest.raises(ValueError, match="someone/toy holds a model of type 'vanilla_transformer', not 'marian'$"):
        directory.read_config("marian")
    change_config(folder, model_type="marian")
    assert directory.read_config("marian") == directory.read_config(model_type=None)
    with pytest.raises(ValueError, match="of type 'marian', not 'vanilla_transformer'; .*convert --from"):
        directory.read_config()


def test_generation_settings_come_from_their_own_file_or_from_an_old_config(folder: Path) -> None:
    directory = CheckpointDirectory(folder)
    change_config(folder, max_length=77, model_type="marian")
    assert directory.read_generation_config().max_length != 77
    (folder / "generation_config.json").unlink()
    assert directory.read_generation_config().max_length == 77


def test_a_manifest_is_verified_where_there_is_one(folder: Path) -> None:
    directory = CheckpointDirectory(folder)
    directory.verify_manifest()
    write_manifest(folder, {})
    directory.verify_manifest()
    change_config(folder, dropout=0.5)
    directory.verify_manifest(suffixes=(".safetensors",))
    with pytest.raises(BrokenCheckpointError, match="config.json"):
        directory.verify_manifest()


def test_weights_that_do_not_match_are_named(folder: Path) -> None:
    change_config(folder, final_norm=True)
    with pytest.raises(ValueError, match=r"weights in .*checkpoint do not match its config.json: .* is missing"):
        CheckpointDirectory(folder).load_model()


def test_messages_use_the_name_instead_of_the_path(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="the tokenizer in someone/toy cannot be loaded") as caught:
        CheckpointDirectory(folder, "someone/toy").load_tokenizers()
    assert str(folder) not in str(caught.value)


def test_a_target_tokenizer_is_loaded_where_the_model_needs_it(folder: Path, tmp_path: Path) -> None:
    directory = CheckpointDirectory(folder)
    shared, separate = preset("tiny"), preset("tiny", decoder_vocab_size=280, share_encoder_decoder_embeddings=False)
    assert not directory.load_tokenizers().separate
    with pytest.raises(ValueError, match="has a separate target vocabulary, but .* has no directory target_tokenizer"):
        directory.load_tokenizers(separate)
    directory.load_tokenizer().save_pretrained(folder / "target_tokenizer")
    assert directory.load_tokenizers().separate and directory.load_tokenizers(separate).separate
    assert not directory.load_tokenizers(shared).separate
    for side in ("source", "target"):
        directory.load_tokenizer().save_pretrained(tmp_path / "vocabularies" / side)
    assert load_tokenizers(tmp_path / "vocabularies").separate


def test_a_checkpoint_loads_with_its_one_tokenizer(folder: Path) -> None:
    model, tokenizer = load_checkpoint(folder)
    assert not model.training and tokenizer("one")["input_ids"]


def test_checkpoints_of_a_run_are_sorted_by_step(tmp_path: Path) -> None:
    for name in (
        "checkpoint-1000",
        "checkpoint-200",
        "checkpoint-0",
        "checkpoint-best",
        ".checkpoint-7.saving",
        "runs",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-5").touch()
    assert [path.name for path in run_checkpoints(tmp_path)] == ["checkpoint-0", "checkpoint-200", "checkpoint-1000"]
    assert run_checkpoints(tmp_path / "gone") == []


def test_a_path_that_exists_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("someone/toy") and not is_hub_id(Path("someone/toy")) and not is_hub_id("../toy")
    (tmp_path / "someone" / "toy").mkdir(parents=True)
    assert not is_hub_id("someone/toy") and local_directory("someone/toy") == Path("someone/toy")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="there is no directory file; it is a file"):
        local_directory("file")
