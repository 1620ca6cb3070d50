"""A run: the directory that it writes, how it is resumed, and what it rejects. Seconds on one core."""

import io
import json
import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import TranslationTokenizers, attention_maps
from hf_vanilla_transformer.checkpoints.loading import load_checkpoint, load_tokenizers
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.data.corpora import load_embedded, load_pairs
from hf_vanilla_transformer.data.encoding import encode_corpus
from hf_vanilla_transformer.training import evaluation
from hf_vanilla_transformer.training import run as run_module
from hf_vanilla_transformer.training.evaluation import load_corpora
from hf_vanilla_transformer.training.recipe import read_recipe
from hf_vanilla_transformer.training.record import hardware
from hf_vanilla_transformer.training.run import TrainingResult, train
from hf_vanilla_transformer.training.run_directory import RunDirectory

RECIPE = """
dataset_name: embedded
embedded_train: 200
embedded_validation: 12
embedded_test: 8
preset: tiny
config_overrides: {encoder_layers: 1, decoder_layers: 1, d_model: 16, d_ff: 32, num_heads: 2}
vocab_size: 512
max_tokens_per_batch: 1024
warmup_steps: 4
max_steps: 6
precision: fp32
use_cpu: true
report_to: none
disable_tqdm: true
logging_steps: 2
eval_strategy: steps
eval_steps: 2
save_steps: 2
save_total_limit: 3
average_last: 2
num_beams: 2
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """Run the recipe once; tests that change its directory work on a copy."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "my.yaml").write_text(RECIPE)
    result = train(read_recipe(folder / "my.yaml", ["--output_dir", str(folder / "out")]))
    return folder, result


def again(folder: Path, output_dir: Path, *words: str) -> TrainingResult:
    return train(read_recipe(folder / "my.yaml", ["--output_dir", str(output_dir), *words]))


def test_the_directory_loads_as_any_checkpoint_and_is_the_average(finished: tuple[Path, TrainingResult]) -> None:
    folder, result = finished
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder / "out")
    assert len(tokenizer) == model.config.vocab_size == 512
    assert model.config.decoder_start_token_id == tokenizer.bos_token_id
    members = [AutoModelForSeq2SeqLM.from_pretrained(folder / "out" / f"checkpoint-{step}") for step in (4, 6)]
    for name, tensor in model.state_dict().items():
        mean = sum(member.state_dict()[name].double() for member in members) / 2
        assert torch.allclose(tensor.double(), mean, atol=1e-7), name
        assert torch.equal(tensor, result.model.state_dict()[name]), name
    provenance = json.loads((folder / "out" / "averaging.json").read_text())
    assert [member["step"] for member in provenance["checkpoints"]] == [4, 6]


def test_the_record_describes_the_run(finished: tuple[Path, TrainingResult]) -> None:
    folder, result = finished
    record = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))
    assert record == result.record
    assert record["data"]["train"]["pairs"] == 200
    assert record["data"]["train"]["sha256"] == load_embedded("train", 200).report.sha256
    assert record["data"]["test"]["pairs"] == 8
    training = record["training"]
    assert (training["updates"], training["precision"], training["seed"]) == (6, "fp32", 42)
    assert training["best_checkpoint"] in ("checkpoint-2", "checkpoint-4", "checkpoint-6")
    assert training["seconds"] > 0
    assert (training["lr_scheduler_type"], training["label_smoothing_factor"]) == ("noam", 0.1)
    assert training["learning_rate"] == pytest.approx(1 / 8)  # Equation 3's own peak, 1/√(16 · 4)
    assert training["tokens"] > 0
    assert record["versions"]["torch"] == torch.__version__
    assert training["averaged"] == ["checkpoint-4", "checkpoint-6"]
    assert record["recipe"]["settings"]["vocab_size"] == "512"
    assert str(folder) not in json.dumps(record)
    for split, lines in (("validation", 12), ("test", 8)):
        scores = record["scores"][split]
        assert scores["perplexity"] == pytest.approx(torch.tensor(scores["loss"]).exp().item(), rel=1e-5)
        assert 0 <= scores["bleu"] <= 100
        assert 0 <= scores["chrf"] <= 100
        assert "version:" in scores["bleu_signature"]
        assert "tok:13a" not in scores["bleu_signature"]  # Korean is split into morphemes or characters
        text = (folder / "out" / "translations" / f"{split}.ko").read_text(encoding="utf-8")
        assert text.count("\n") == lines


def test_the_same_recipe_resumes_where_it_stopped(finished: tuple[Path, TrainingResult], tmp_path: Path) -> None:
    folder, result = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "checkpoint-6")
    resumed = again(folder, tmp_path / "out")
    assert resumed.record["training"]["resumed_from"] == "checkpoint-4"
    assert resumed.record["training"]["updates"] == 6
    saved = json.loads((folder / "out" / "checkpoint-4" / "trainer_state.json").read_text())
    before = saved["stateful_callbacks"]["Stopwatch"]["attributes"]
    for clock in ("seconds", "processor_seconds"):  # of both parts
        assert resumed.record["training"][clock] >= round(before[f"saved_{clock}"], 1) > 0
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, result.model.state_dict()[name]), name


def test_a_longer_run_is_resumed_too(finished: tuple[Path, TrainingResult], tmp_path: Path) -> None:
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    longer = again(folder, tmp_path / "out", "--max_steps", "8")
    assert longer.record["training"]["resumed_from"] == "checkpoint-6"
    assert longer.record["training"]["updates"] == 8


def test_a_run_with_bpe_dropout_resumes_with_the_same_segmentations(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(RECIPE)
    words = ["--bpe-dropout", "0.2", "--average-last", "0"]
    whole = again(tmp_path, tmp_path / "whole", *words)
    again(tmp_path, tmp_path / "parts", *words, "--max-steps", "4")
    parts = again(tmp_path, tmp_path / "parts", *words)
    assert parts.record["training"]["resumed_from"] == "checkpoint-4"
    for name, tensor in parts.model.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[name]), name
    training = whole.record["training"]
    tokens = training["tokens"] / training["epochs"]  # of one pass
    plain = again(tmp_path, tmp_path / "plain", "--average-last", "0").record["training"]
    assert tokens > 1.05 * plain["tokens"] / plain["epochs"]  # fewer merges, more tokens
    assert json.loads((tmp_path / "whole" / "tokenizer.json").read_text())["model"]["dropout"] is None


def test_another_recipe_or_other_data_need_another_directory(
    finished: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    with pytest.raises(ValueError, match=r"differs in warmup_steps \(4 there, 5 now\); choose another --output_dir"):
        again(folder, tmp_path / "out", "--warmup_steps", "5")
    mark = tmp_path / "out" / "recipe.json"
    mark.write_text(mark.read_text().replace(load_embedded("train", 200).report.sha256, "0" * 64))
    with pytest.raises(ValueError, match="differs in data of train;"):
        again(folder, tmp_path / "out")


def test_overwriting_deletes_the_run_and_nothing_else(finished: tuple[Path, TrainingResult], tmp_path: Path) -> None:
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    words = ("--overwrite", "--warmup_steps", "5", "--max_steps", "2", "--average_last", "0")
    result = again(folder, tmp_path / "out", *words)
    assert result.record["training"]["resumed_from"] is None
    assert result.record["training"]["updates"] == 2
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (tmp_path / "out" / "averaging.json").exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_run_that_made_no_update_locks_nothing(finished: tuple[Path, TrainingResult], tmp_path: Path) -> None:
    folder, _ = finished
    (tmp_path / "out").mkdir()
    for name in ("recipe.json", "tokenizer.json", "tokenizer_config.json"):  # what a failed start leaves
        shutil.copyfile(folder / "out" / name, tmp_path / "out" / name)
    (tmp_path / "out" / ".checkpoint-2.saving").mkdir()
    changed = again(folder, tmp_path / "out", "--warmup_steps", "5", "--vocab_size", "500", "--max_steps", "2")
    assert changed.record["training"]["resumed_from"] is None
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["settings"]["warmup_steps"] == "5"
    assert len(changed.tokenizer) == 500


def test_overwriting_spares_what_only_looks_like_the_run(finished: tuple[Path, TrainingResult], tmp_path: Path) -> None:
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    kept = ["checkpoint-notes.txt", "checkpoint-best/model.safetensors", "translations/by_hand.ko"]
    for name in kept:
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    RunDirectory(tmp_path / "out").delete_run()
    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(kept) <= left and not any(name.startswith(("checkpoint-2", "averag", "results")) for name in left)
    assert "translations/test.ko" not in left


def test_a_final_model_is_loaded_and_not_the_weights_of_an_earlier_save(
    finished: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    model = finished[1].model
    shards: Any = model.save_pretrained
    model.save_pretrained(tmp_path)  # one file, as an earlier run saved it
    first = tmp_path / "model.safetensors"
    before = first.read_bytes()
    first.write_bytes(before[:-4] + b"\0\0\0\0")
    model.save_pretrained = lambda folder: shards(folder, max_shard_size="8KB")
    try:
        RunDirectory(tmp_path).save_model(model)
    finally:
        del model.save_pretrained
    assert not first.exists() and (tmp_path / "model.safetensors.index.json").is_file()
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    RunDirectory(tmp_path).save_model(model)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_a_second_start_leaves_the_first_one_alone(
    finished: tuple[Path, TrainingResult], tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "out" / ".checkpoint-8.saving").mkdir()
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    parent = psutil.Process(os.getppid())  # a living process that is not this one
    owner = {"pid": parent.pid, "started": parent.create_time(), "host": socket.gethostname(), "since": "today"}
    (tmp_path / "out" / ".run.lock").write_text(json.dumps(owner))
    with pytest.raises(ValueError, match=rf"out is in use: process {parent.pid} on .* \(since today\)"):
        again(folder, tmp_path / "out", *words)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*before, ".run.lock"])


def test_useless_translations_and_few_pairs_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(run_module.logger, "warning", messages.append)
    monkeypatch.setattr(evaluation.logger, "warning", messages.append)
    monkeypatch.setattr(evaluation, "translate", lambda model, tokenizer, sources, *_, **__: [""] * len(sources))
    (tmp_path / "my.yaml").write_text(RECIPE)
    again(tmp_path, tmp_path / "out", "--max_steps", "1", "--average_last", "0", "--eval_strategy", "no")
    text = "\n".join(messages)
    assert "validation: 12 of 12 translations are empty" in text and "test: 8 of 8 translations are empty" in text
    assert "only 200 training pairs" in text


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_a_directory_with_something_else_is_left_alone(
    finished: tuple[Path, TrainingResult], tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder, _ = finished
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="contains files that no training run has written"):
        again(folder, tmp_path, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match="is a file; name a directory"):
        again(folder, tmp_path / "thesis.tex")
    with pytest.raises(ValueError, match="there is no checkpoint directory .*nowhere"):
        again(folder, tmp_path / "new", "--resume_from_checkpoint", str(tmp_path / "nowhere"))


def test_text_files_train_from_a_finished_checkpoint_with_its_tokenizer(
    finished: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    folder, result = finished
    rows = [row["translation"] for row in load_embedded("train", 60).dataset]
    for language in ("en", "ko"):
        lines = [row[language] for row in rows]
        lines[5] = "" if language == "en" else lines[5]  # one problem
        (tmp_path / f"train.{language}").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "fine.yaml").write_text(
        f"train_source: {tmp_path}/train.en\ntrain_target: {tmp_path}/train.ko\nsource_lang: en\ntarget_lang: ko\n"
        f"model_name_or_path: {folder}/out\nmax_steps: 1\nwarmup_steps: 10\nuse_cpu: true\nprecision: fp32\n"
        "report_to: none\ndisable_tqdm: true\n"
    )
    tuned = train(read_recipe(tmp_path / "fine.yaml", ["--output_dir", str(tmp_path / "out")]))
    assert str(folder) not in json.dumps(tuned.record)
    assert str(tmp_path) not in json.dumps(tuned.record)
    assert tuned.record["data"]["train"]["name"] == "train.en + train.ko"
    assert tuned.record["data"]["train"]["pairs"] == 59
    assert tuned.record["data"]["train"]["problems"] == {"empty side": 1}
    assert tuned.record["scores"] == {}
    assert tuned.tokenizer.get_vocab() == result.tokenizer.get_vocab()
    moved = [
        (tuned.model.state_dict()[name] - tensor).abs().max() for name, tensor in result.model.state_dict().items()
    ]
    assert 0 < max(moved) < 0.05  # one update of a warm-up away from where it started


def test_a_checkpoint_stored_in_bf16_is_trained_in_fp32_and_the_result_computes_in_it(
    finished: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    folder, _ = finished
    stored = AutoModelForSeq2SeqLM.from_pretrained(folder / "out").bfloat16()
    stored.save_pretrained(tmp_path / "stored")
    AutoTokenizer.from_pretrained(folder / "out").save_pretrained(tmp_path / "stored")
    words = ("--model_name_or_path", str(tmp_path / "stored"), "--config_overrides", "null", "--max_steps", "1")
    words += ("--precision", "bf16", "--warmup_steps", "4000", "--average_last", "0", "--bf16_full_eval")
    tuned = again(folder, tmp_path / "out", *words)
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    # The rate of update 1 is 4e-6, far below half a step of bf16 for most of the weights: none of them is lost.
    assert all(not torch.equal(tensor, stored.state_dict()[name].float()) for name, tensor in saved.items())
    assert "forward" not in vars(tuned.model)  # no autocast around it, which training in bf16 needs
    ids = torch.tensor([[5, 6, 2]])
    assert tuned.model(input_ids=ids, labels=ids).logits.dtype == torch.float32


def test_bleu_can_be_watched_while_training(finished: tuple[Path, TrainingResult], tmp_path: Path) -> None:
    folder, _ = finished
    words = ("--predict_with_generate", "--generation_max_length", "6", "--max_steps", "2", "--metric_tokenize", "char")
    again(folder, tmp_path / "out", *words, "--average_last", "0", "--metric_for_best_model", "chrf")
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    evaluated = next(entry for entry in state["log_history"] if "eval_loss" in entry)
    assert 0 <= evaluated["eval_bleu"] <= 100
    assert state["best_metric"] == evaluated["eval_chrf"]


def test_an_unknown_tokenizer_of_the_metric_is_refused_before_any_work(
    finished: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="tokenize='klingon' is unknown"):
        again(finished[0], tmp_path / "out", "--metric_tokenize", "klingon")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_smaller_than_the_alphabet_is_refused(
    finished: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    folder, _ = finished
    with pytest.raises(ValueError, match="vocab_size=100 is too small"):
        again(folder, tmp_path / "out", "--vocab_size", "100")


def test_a_stream_trains_to_the_same_number_of_updates(tmp_path: Path) -> None:
    for split, size in (("train", 100), ("test", 4)):
        rows = [row["translation"] for row in load_embedded(split, size).dataset]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "s.yaml").write_text(
        RECIPE.replace(
            "dataset_name: embedded", f"train_file: {tmp_path}/train.jsonl\ntest_file: {tmp_path}/test.jsonl"
        )
        .replace("eval_strategy: steps", "eval_strategy: no")
        .replace("max_steps: 6", "max_steps: 3")
        + "streaming: true\nsource_lang: en\ntarget_lang: ko\n"
    )
    result = train(read_recipe(tmp_path / "s.yaml", ["--output_dir", str(tmp_path / "out")]))
    assert result.record["training"]["updates"] == 3
    assert list(result.scores) == ["test"]


# ------------------------------------------------------------------ its parts


def test_each_split_is_loaded_from_the_files_that_the_recipe_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("q,a\n,empty\nwho,you\n")
    (tmp_path / "r.yaml").write_text(
        f"train_file: {tmp_path}/a.csv\nvalidation_file: {tmp_path}/b.csv\nsource_column: q\ntarget_column: a\n"
    )
    corpora = load_corpora(read_recipe(tmp_path / "r.yaml").data)
    assert list(corpora) == ["train", "validation"]
    assert corpora["train"].report.pairs_kept == 1
    assert corpora["validation"].report.pairs_kept == 2  # evaluation keeps every row


def test_encoding_adds_the_eos_token_keeps_the_direction_and_truncates_nothing(
    finished: tuple[Path, TrainingResult],
) -> None:
    tokenizer: Any = finished[1].tokenizer
    corpus = load_pairs([("three " * 400, "삼")], "list", source_lang="en", target_lang="ko")
    row = encode_corpus(corpus, tokenizer)[0]
    assert set(row) == {"input_ids", "labels"}
    assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == ("three " * 400).strip()
    assert tokenizer.decode(row["labels"], skip_special_tokens=True) == "삼"
    assert row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id


def test_the_hardware_is_named_without_the_host() -> None:
    name = hardware()
    assert " cores of " in name or " × " in name
    assert len(name) > len("1 cores of ")


# ------------------------------------------------------------------ two vocabularies


@pytest.fixture(scope="module")
def two_vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text files, and what `vanilla-transformer tokenizer --source … --target …` writes."""
    folder = tmp_path_factory.mktemp("two")
    rows = [row["translation"] for row in load_embedded("train", 120).dataset]
    for split, chosen in (("train", rows[:-8]), ("test", rows[-8:])):
        for side, language in (("source", "en"), ("target", "ko")):
            text = "".join(row[language] + "\n" for row in chosen)
            (folder / f"{split}.{side}").write_text(text, encoding="utf-8")
    words = ["--source", f"{folder}/train.source", "--target", f"{folder}/train.target", "--vocab-size", "340"]
    assert main(["tokenizer", *words, "--output", str(folder / "tokenizer")]) == 0
    recipe = RECIPE.replace("dataset_name: embedded\n", "").replace("eval_strategy: steps", "eval_strategy: no")
    files = "".join(
        f"{split}_{side}: {folder}/{split}.{side}\n" for split in ("train", "test") for side in ("source", "target")
    )
    recipe += f"{files}source_lang: en\ntarget_lang: ko\ntokenizer: {folder}/tokenizer\nmetric_tokenize: char\n"
    (folder / "two.yaml").write_text(recipe)
    result = train(read_recipe(folder / "two.yaml", ["--output_dir", str(folder / "out"), "--max_steps", "4"]))
    assert result.record["model"]["target_vocabulary"] == 340
    return folder


def test_two_vocabularies_train_resume_and_are_saved_wherever_the_weights_are(two_vocabularies: Path) -> None:
    out = two_vocabularies / "out"
    for folder in (out, out / "averaged", out / "checkpoint-4"):
        model, tokenizers = load_checkpoint(folder)
        assert isinstance(tokenizers, TranslationTokenizers) and tokenizers.separate
        assert (model.config.vocab_size, model.config.decoder_vocab_size) == (340, 340)
        assert not model.config.share_encoder_decoder_embeddings
        assert any("삼" in token for token in tokenizers.target.get_vocab())
        assert not any("삼" in token for token in tokenizers.source.get_vocab())
    again = train(read_recipe(two_vocabularies / "two.yaml", ["--output_dir", str(out), "--max_steps", "6"]))
    assert again.record["training"]["updates"] == 6
    assert again.record["training"]["resumed_from"] == "checkpoint-4"
    tuned = read_recipe(
        two_vocabularies / "two.yaml",
        ["--output_dir", f"{out}-tuned", "--tokenizer", "null", "--config_overrides", "null", "--max_steps", "1",
         "--model_name_or_path", str(out), "--average_last", "0"],
    )  # fmt: skip
    assert train(tuned).model.config.decoder_vocab_size == 340


def test_labels_are_encoded_by_the_targets_tokenizer(two_vocabularies: Path) -> None:
    tokenizers = load_tokenizers(two_vocabularies / "tokenizer")
    corpus = load_pairs([("three hundred", "삼백")], "list", source_lang="en", target_lang="ko")
    row = encode_corpus(corpus, tokenizers)[0]
    assert row["input_ids"] == tokenizers.source("three hundred")["input_ids"]
    assert row["labels"] == tokenizers.target("삼백")["input_ids"] != tokenizers.source("삼백")["input_ids"]


def test_one_vocabulary_over_two_matrices_is_saved_for_both(two_vocabularies: Path, tmp_path: Path) -> None:
    fields = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "d_ff": 32, "num_heads": 2}
    fields |= {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 340}
    words = ["--output_dir", str(tmp_path), "--tokenizer", "null", "--vocab_size", "340", "--max_steps", "1"]
    words += ["--config_overrides", json.dumps(fields), "--average_last", "0"]
    train(read_recipe(two_vocabularies / "two.yaml", words))
    _, tokenizers = load_checkpoint(tmp_path)  # "translate" failed here
    assert tokenizers.source.get_vocab() == tokenizers.target.get_vocab()


@pytest.mark.slow
def test_two_vocabularies_work_in_every_command(
    two_vocabularies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, source, target = (str(two_vocabularies / name) for name in ("out", "test.source", "test.target"))
    scored = ["--source", source, "--reference", target, "--tokenize", "char", "--translations", str(tmp_path / "t")]
    assert main(["evaluate", out, *scored]) == 0
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path(source).read_bytes())))
    capsys.readouterr()
    assert main(["translate", out]) == 0
    assert capsys.readouterr().out == (tmp_path / "t").read_text(encoding="utf-8")
    page = ["--output", str(tmp_path / "page.html"), "--figure", str(tmp_path / "figure.png")]
    assert main(["visualize", out, "--source", "three hundred", "--target", "삼백", *page]) == 0
    _, tokenizers = load_checkpoint(out)
    maps = attention_maps(*load_checkpoint(out), "three hundred", "삼백")
    assert "".join(token.text for token in maps.target_tokens if not token.special) == "삼백"
    assert len(maps.target_tokens) == len(tokenizers.target("삼백")["input_ids"])
    assert main(["push", out, "user/two", "--dry-run"]) == 0  # loads it in a process without the package
    assert "target_tokenizer/tokenizer.json" in capsys.readouterr().out
