"""Averages of checkpoints: values, selection, the output directory, and rejected inputs."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from hf_vanilla_transformer.checkpoints.averaging import average_checkpoints
from hf_vanilla_transformer.checkpoints.manifest import MANIFEST_NAME, write_manifest
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.model.configuration_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

FIELDS = dict(vocab_size=11, d_model=8, d_ff=12, num_heads=2, encoder_layers=1, decoder_layers=1)


def save_checkpoint(folder: Path, seed: int, **options) -> VanillaTransformerForConditionalGeneration:
    torch.manual_seed(seed)
    fields = {**FIELDS, **options.pop("fields", {})}
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**fields))
    model.to(options.pop("dtype", torch.float32)).save_pretrained(folder, **options)
    return model


@pytest.fixture
def run(tmp_path) -> Path:
    """A run as Trainer writes it: six checkpoints with scores, the optimizer's state, a tokenizer."""
    folder = tmp_path / "run"
    scores = {100: 3.0, 200: 1.5, 300: 1.0, 400: 2.0, 1000: 1.2, 1100: math.nan}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")), unk_token="<unk>"
    )
    for number, step in enumerate(scores):
        path = folder / f"checkpoint-{step}"
        save_checkpoint(path, seed=number)
        tokenizer.save_pretrained(path)
        history = [
            {"step": done, "eval_loss": scores[done], "eval_bleu": 10.0 * scores[done]}
            for done in scores
            if done <= step
        ]
        (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": history}))
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (path / name).write_bytes(b"\x80pickle")
    (folder / "runs").mkdir()
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def chosen(folder: Path) -> list[int]:
    provenance = json.loads((folder / "averaging.json").read_text(encoding="utf-8"))
    return [checkpoint["step"] for checkpoint in provenance["checkpoints"]]


def test_weights_are_the_mean_in_fp64(run, tmp_path):
    folders = [run / "checkpoint-100", run / "checkpoint-300", run / "checkpoint-400"]
    average_checkpoints(folders, tmp_path / "mean")
    sources = [weights(folder) for folder in folders]
    result = weights(tmp_path / "mean")
    assert result.keys() == sources[0].keys()
    for name, value in result.items():
        expected = torch.stack([source[name].double() for source in sources]).mean(dim=0)
        assert torch.equal(value, expected.float())


def test_small_steps_are_not_lost_in_half_precision(tmp_path):
    # 1 and 1 + 2^-7 are neighbours in bf16; summing 16 such numbers in bf16 would lose the small ones.
    for number in range(16):
        save_checkpoint(tmp_path / f"c{number}", seed=0, dtype=torch.bfloat16)
        tensors = weights(tmp_path / f"c{number}")
        value = 1.0 if number % 2 else 1.0 + 4 * 2**-7
        save_file(
            {name: torch.full_like(tensor, value) for name, tensor in tensors.items()},
            tmp_path / f"c{number}" / "model.safetensors",
            metadata={"format": "pt"},
        )
    average_checkpoints([tmp_path / f"c{number}" for number in range(16)], tmp_path / "mean")
    for tensor in weights(tmp_path / "mean").values():
        assert tensor.dtype == torch.bfloat16
        assert (tensor == 1.0 + 2 * 2**-7).all()


def test_result_is_an_ordinary_model_directory(run, tmp_path):
    settings = GenerationConfig.from_pretrained(run / "checkpoint-1100")
    settings.max_length = 77
    settings.save_pretrained(run / "checkpoint-1100")
    target = average_checkpoints(run, tmp_path / "deep" / "mean")
    assert target == tmp_path / "deep" / "mean"
    model = VanillaTransformerForConditionalGeneration.from_pretrained(target)
    assert model.lm_head.weight is model.model.encoder.embed_tokens.weight  # still tied
    assert model.generation_config.max_length == 77  # from the latest checkpoint
    assert AutoTokenizer.from_pretrained(target)("a")["input_ids"] == [1]
    names = {file.name for file in target.iterdir()}
    assert not {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"} & names
    assert [path.name for path in target.parent.iterdir()] == ["mean"]  # no staging directory left


def test_a_run_gives_its_last_five_by_number_not_by_name(run, tmp_path):
    average_checkpoints(run, tmp_path / "mean")
    assert chosen(tmp_path / "mean") == [200, 300, 400, 1000, 1100]
    average_checkpoints(run, tmp_path / "two", last=2)
    assert chosen(tmp_path / "two") == [1000, 1100]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("eval_loss", [200, 300, 1000]), ("eval_bleu", [100, 200, 400])],  # 1.0 1.2 1.5 are lowest; 30 20 15 are highest
)
def test_the_best_are_the_lowest_losses_or_the_highest_scores(run, tmp_path, metric, expected):
    average_checkpoints(run, tmp_path / "mean", best=3, metric=metric)
    assert chosen(tmp_path / "mean") == expected


def test_provenance_lists_steps_scores_and_hashes_but_no_paths(run, tmp_path):
    average_checkpoints(run, tmp_path / "mean", best=1)
    text = (tmp_path / "mean" / "averaging.json").read_text(encoding="utf-8")
    (source,) = json.loads(text)["checkpoints"]
    assert (source["name"], source["step"]) == ("checkpoint-300", 300)
    assert source["scores"] == {"eval_loss": 1.0, "eval_bleu": 10.0}
    assert len(source["sha256"]["model.safetensors"]) == 64
    assert json.loads(text)["selected_by"] == "eval_loss"
    assert str(tmp_path) not in text


def test_shards_are_read(tmp_path):
    original = save_checkpoint(tmp_path / "a", seed=1, max_shard_size="2KB").state_dict()
    assert (tmp_path / "a" / "model.safetensors.index.json").is_file()
    save_checkpoint(tmp_path / "b", seed=1)  # the same weights in one file
    average_checkpoints([tmp_path / "a", tmp_path / "b"], tmp_path / "mean")
    for name, value in weights(tmp_path / "mean").items():
        torch.testing.assert_close(value, original[name], rtol=0, atol=0)
    assert not (tmp_path / "mean" / "model.safetensors.index.json").exists()


# --------------------------------------------------------------------------- existing directories


def test_an_existing_directory_is_kept_unless_overwriting(run, tmp_path):
    average_checkpoints(run, tmp_path / "mean", last=2)
    with pytest.raises(FileExistsError, match="already exists; choose another directory or set overwrite"):
        average_checkpoints(run, tmp_path / "mean")
    assert chosen(tmp_path / "mean") == [1000, 1100]
    average_checkpoints(run, tmp_path / "mean", last=1, overwrite=True)
    assert chosen(tmp_path / "mean") == [1100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mean", "run"]


def test_only_an_average_is_overwritten(run, tmp_path):
    (tmp_path / "thesis" / ".git").mkdir(parents=True)
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds something other than an average .* \(\.git, thesis\.tex\)"):
        average_checkpoints(run, tmp_path / "thesis", overwrite=True)
    average_checkpoints(run, tmp_path / "mean")
    (tmp_path / "mean" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds other files beside an average .* \(thesis\.tex\)"):
        average_checkpoints(run, tmp_path / "mean", overwrite=True)
    assert (tmp_path / "mean" / "thesis.tex").read_text() == "years of work"


def test_a_stale_index_beside_the_weights_is_ignored_as_from_pretrained_does(run, tmp_path):
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(weights(run / "checkpoint-400"), "model-00001-of-00001.safetensors"),
    }
    for step in (400, 1000):  # of an earlier save in shards, of which one is gone
        (run / f"checkpoint-{step}" / "model.safetensors.index.json").write_text(json.dumps(index))
    spoiled = {name: torch.full_like(tensor, 9.0) for name, tensor in weights(run / "checkpoint-400").items()}
    save_file(spoiled, run / "checkpoint-400" / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    folders = [run / "checkpoint-400", run / "checkpoint-1000"]
    average_checkpoints(folders, tmp_path / "mean")
    loaded = [VanillaTransformerForConditionalGeneration.from_pretrained(folder).state_dict() for folder in folders]
    for name, value in weights(tmp_path / "mean").items():
        assert torch.equal(value, torch.stack([one[name].double() for one in loaded]).mean(dim=0).float())


@pytest.mark.parametrize("target", ["run", "run/checkpoint-300"])
def test_a_source_is_never_overwritten(run, tmp_path, target):
    before = weights(run / "checkpoint-300")
    with pytest.raises(ValueError, match="would replace the source"):
        average_checkpoints(run, tmp_path / target, overwrite=True)
    assert weights(run / "checkpoint-300").keys() == before.keys()


def test_a_failure_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    average_checkpoints(run, tmp_path / "mean", last=1)
    monkeypatch.setattr("hf_vanilla_transformer.checkpoints.averaging._provenance", fail)
    with pytest.raises(OSError, match="no space left"):
        average_checkpoints(run, tmp_path / "mean", overwrite=True)
    assert chosen(tmp_path / "mean") == [1100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mean", "run"]


# --------------------------------------------------------------------------- rejected inputs


def spoil(folder: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = weights(folder)
    del tensors[name]
    if value is not None:
        tensors[name] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_values_that_are_not_finite_are_rejected(run, tmp_path):
    name = sorted(weights(run / "checkpoint-400"))[0]
    spoil(run / "checkpoint-400", name, torch.full_like(weights(run / "checkpoint-400")[name], math.inf))
    with pytest.raises(ValueError, match=r"in .*checkpoint-400 holds a value that is not finite"):
        average_checkpoints(run, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_other_shapes_are_rejected(run, tmp_path):
    name = sorted(weights(run / "checkpoint-400"))[0]
    spoil(run / "checkpoint-400", name, torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"is \(3, 5\) torch.float32 in .*checkpoint-400"):
        average_checkpoints(run, tmp_path / "mean")


def test_missing_tensors_are_rejected(run, tmp_path):
    name = sorted(weights(run / "checkpoint-400"))[0]
    spoil(run / "checkpoint-400", name, None)
    with pytest.raises(ValueError, match="is in only one of .*checkpoint-200 and .*checkpoint-400"):
        average_checkpoints(run, tmp_path / "mean")


def test_other_tokenizers_are_rejected(run, tmp_path):
    path = run / "checkpoint-400" / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(content))  # a setting of the last call, and not of the vocabulary
    folders = [run / "checkpoint-300", run / "checkpoint-400"]
    average_checkpoints(folders, tmp_path / "mean")
    content["model"]["vocab"] = {"<unk>": 0, "b": 1}
    path.write_text(json.dumps(content))
    for allow in (False, True):
        with pytest.raises(ValueError, match="checkpoint-400/tokenizer.json differs from .*the same id is another tok"):
            average_checkpoints(folders, tmp_path / "other", allow_different_runs=allow)


def test_checkpoints_of_different_runs_are_averaged_only_on_request(run, tmp_path, capsys):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    folders = [run / "checkpoint-300", other / "checkpoint-400"]
    facts = {"data": {"seed": 1}, "tokenizer": {"sha256": "t"}, "optimizer": {"optim": "adamw"}, "layout": {"n": 1}}
    for folder, changed in zip(folders, ({}, {"layout": {"n": 2}}), strict=True):
        write_manifest(folder, facts | changed)
    average_checkpoints(folders, tmp_path / "resumed")  # on another number of processes
    (folders[1] / MANIFEST_NAME).unlink()
    write_manifest(folders[1], facts | {"data": {"seed": 2}})
    with pytest.raises(ValueError, match=r"are of different runs \(data: .*seed.* 2.* and .*--allow-different-runs"):
        average_checkpoints(folders, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    assert main(["average", *map(str, folders), "--output", str(tmp_path / "mean")]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert str(folders[1]) in error
    words = ["average", *map(str, folders), "--output", str(tmp_path / "mean"), "--allow-different-runs"]
    assert main(words) == 0
    assert chosen(tmp_path / "mean") == [300, 400]


def test_the_command_prints_directory_updates_and_scores_of_what_it_took(run, tmp_path, capsys):
    assert main(["average", str(run), "--best", "2", "--metric", "eval_bleu", "--output", str(tmp_path / "mean")]) == 0
    header, _, *lines, last = capsys.readouterr().out.splitlines()
    assert re.split(" {2,}", header) == ["checkpoint", "updates", "validation loss", "eval_bleu"]
    assert [line.split() for line in lines] == [
        [str(run / "checkpoint-100"), "100", "3.0000", "30.0000"],
        [str(run / "checkpoint-400"), "400", "2.0000", "20.0000"],
    ]
    assert last == f"average: output={tmp_path / 'mean'} checkpoints=2"
    (run / "checkpoint-1000" / "trainer_state.json").unlink()
    assert (
        main(["average", str(run / "checkpoint-1000"), str(run / "checkpoint-300"), "--output", str(tmp_path / "b")])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()[2:4]
    assert [line.split()[1:] for line in lines] == [["1,000", "unknown"], ["300", "1.0000"]]


def test_other_configurations_are_rejected(run, tmp_path):
    save_checkpoint(run / "checkpoint-400", seed=1, fields={"norm_position": "pre"})
    with pytest.raises(ValueError, match="checkpoint-400 has norm_position='pre', .*checkpoint-200 has .*'post'"):
        average_checkpoints(run, tmp_path / "mean")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "in pickle files only"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x10" + bytes(40)),
            "cannot be read as safetensors",
        ),
    ],
)
def test_incomplete_checkpoints_are_rejected(run, tmp_path, damage, message):
    damage(run / "checkpoint-400")
    with pytest.raises(ValueError, match=message):
        average_checkpoints(run, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_truncated_checkpoint_is_rejected(run, tmp_path):
    file = run / "checkpoint-400" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="was saving it interrupted"):
        average_checkpoints(run, tmp_path / "mean")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last": 7}, r"last=7 asks for more checkpoints than the 6 there are"),
        ({"best": 7}, r"best=7 asks for more checkpoints than the 6 there are"),
        ({"last": 0}, "last=0 is not positive"),
        ({"last": 2, "best": 2}, "choose one of them"),
        ({"best": 2, "metric": "eval_chrf"}, r"has no eval_chrf to choose by \(it has eval_bleu, eval_loss\)"),
    ],
)
def test_impossible_choices_are_rejected(run, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        average_checkpoints(run, tmp_path / "mean", **options)


def test_missing_or_repeated_folders_are_rejected(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        average_checkpoints(tmp_path / "nowhere", tmp_path / "mean")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint folder"):
        average_checkpoints([run / "checkpoint-7"], tmp_path / "mean")
    with pytest.raises(ValueError, match="named twice"):
        average_checkpoints([run / "checkpoint-100", run / "runs" / ".." / "checkpoint-100"], tmp_path / "mean")
    with pytest.raises(ValueError, match="holds no checkpoint-<step> folder"):
        average_checkpoints(run / "runs", tmp_path / "mean")
    with pytest.raises(ValueError, match="no checkpoint is given"):
        average_checkpoints([], tmp_path / "mean")
    shutil.rmtree(run / "checkpoint-100")
    average_checkpoints(run, tmp_path / "mean")
