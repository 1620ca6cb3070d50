"""A recipe for two files: what is chosen is written, is read back as the same settings, and resumes."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
import yaml

from hf_vanilla_transformer.data.embedded_corpus import draw_expressions
from hf_vanilla_transformer.training.recipe import print_recipe, read_recipe
from hf_vanilla_transformer.training.recipe_help import settings_help
from hf_vanilla_transformer.training.recipe_text import recipe_text
from hf_vanilla_transformer.training.recipe_yaml import parse_yaml
from hf_vanilla_transformer.training.run import train

Words = Callable[..., list[str]]


@pytest.fixture
def two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Words:
    """Write 120 pairs to my.en and my.ko in the current folder; return a function that names them."""
    monkeypatch.chdir(tmp_path)
    rows = list(draw_expressions("train", 120, 0))
    Path("my.en").write_text("".join(f"{row.en}\n" for row in rows), encoding="utf-8")
    Path("my.ko").write_text("".join(f"{row.ko}\n" for row in rows), encoding="utf-8")
    return lambda *words: ["--train-source", "my.en", "--train-target", "my.ko", *words]


def test_two_files_are_enough(two_files: Words) -> None:
    recipe = read_recipe(None, two_files())
    assert (recipe.data.source_lang, recipe.data.target_lang) == ("en", "ko")
    assert (recipe.model.preset, recipe.data.held_out_pairs) == ("tiny", 24)
    assert recipe.training.output_dir == "runs/my" and recipe.path == Path("runs/my/recipe.yaml")
    assert recipe.training.eval_strategy == "steps" and recipe.training.metric_for_best_model == "loss"
    assert re.fullmatch(
        r"chosen for 120 pairs \(\d+ kB en, \d+ kB ko\); reasons in runs/my/recipe\.yaml", recipe.summary
    )


def test_the_summary_lists_the_given_settings_that_would_have_been_chosen(two_files: Words) -> None:
    given = ["--vocab_size", "400", "--max_steps", "9", "--seed", "3", "--lowercase", "true"]
    assert ", except what is given (vocab_size, max_steps); reasons" in read_recipe(None, two_files(*given)).summary


def test_the_written_recipe_has_the_same_identity_as_the_choice(two_files: Words) -> None:
    words = two_files("--config_overrides", '{"d_ff":64}', "--data-license", "CC BY: 4.0, mine", "--lowercase")
    recipe = read_recipe(None, words)
    Path("again.yaml").write_text(recipe.chosen_text or "", encoding="utf-8")
    again = read_recipe("again.yaml")
    assert again.identity == recipe.identity and again.settings == recipe.settings
    assert again.data == recipe.data and again.model == recipe.model and again.data.lowercase is True
    assert again.data.data_license == "CC BY: 4.0, mine"
    assert read_recipe(None, words).identity == recipe.identity


def test_what_belongs_to_one_command_is_not_written(two_files: Words) -> None:
    recipe = read_recipe(None, two_files("--overwrite", "--resume-from-checkpoint", "x"))
    assert recipe.run.overwrite is True and recipe.training.resume_from_checkpoint == "x"
    assert not {"overwrite", "resume_from_checkpoint"} & yaml.safe_load(recipe.chosen_text or "").keys()


def test_given_settings_win(two_files: Words) -> None:
    recipe = read_recipe(None, two_files("--max-steps", "50", "--vocab-size", "400", "--target-lang", "xko"))
    assert (recipe.training.max_steps, recipe.training.warmup_steps) == (50, 5)
    assert (recipe.data.vocab_size, recipe.data.target_lang) == (400, "xko")
    assert "max_steps: 50                           # given\n" in (recipe.chosen_text or "")


def test_korean_is_recognized_in_a_file_without_a_language_in_its_name(two_files: Words) -> None:
    for name in ("en", "ko"):
        os.rename(f"my.{name}", f"{name}.txt")
    recipe = read_recipe(None, ["--train-source", "en.txt", "--train-target", "ko.txt"])
    assert (recipe.data.source_lang, recipe.data.target_lang) == ("source", "ko")


def test_languages_come_from_the_files_names_in_any_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("train_source: [a.en, b.en]\ntrain_target: [a.de, b.de]\n")
    assert (read_recipe(tmp_path / "r.yaml").data.source_lang, read_recipe(tmp_path / "r.yaml").data.target_lang) == (
        "en",
        "de",
    )
    given = read_recipe(tmp_path / "r.yaml", ["--target-lang", "gsw"]).data
    assert (given.source_lang, given.target_lang) == ("en", "gsw")


def test_a_recipe_of_the_package_holds_out_pairs_if_there_is_no_validation_text(two_files: Words) -> None:
    recipe = read_recipe("tiny", two_files())
    assert recipe.data.held_out_pairs == 24 and recipe.settings["held_out_pairs"] == "24"
    assert recipe.summary == "24 of 120 pairs are held out for validation, since no validation text is given"
    for words in (("--eval-strategy", "no"), ("--validation-source", "my.en", "--validation-target", "my.ko")):
        recipe = read_recipe("tiny", two_files(*words))
        assert recipe.data.held_out_pairs == 0 and recipe.summary == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is nothing to train on; set train_source and train_target"),
        (["--max-steps", "3"], "there is nothing to train on"),
        (["--train-source", "my.en"], "train_target is missing; give both files"),
        (["--train-source", "no.en", "--train-target", "my.ko"], "there is no file no.en"),
        (["--train-source", "my.en", "--train-target", "my.ko", "--max-tokens-per-batch", "0"], "must be at least 1"),
        (["--train-source", "my.en", "--train-target", "my.ko", "--config-overrides", "[1]"], "is not a dictionary"),
        (["--train-source", "my.en", "--train-target", "my.ko", "--preset", "huge"], "there is no preset 'huge'"),
        (["--train-source", "my.en", "--train-target", "my.ko", "--max-steps", "many"], "max_steps: invalid int value"),
        (["--dataset-name", "embedded"], "name a recipe, e.g. --recipe demo"),
        (["--dataset-name", "wmt14", "--source-lang", "en", "--target-lang", "de"], "e.g. --recipe small"),
    ],
)
def test_what_is_missing_without_a_recipe_is_named(two_files: Words, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(None, words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--validation-source", "my.en", "--validation-target", "my.ko"], "but there is validation text"),
        (["--streaming", "true", "--max-steps", "9"], "streaming is set"),
    ],
)
def test_held_out_pairs_need_text_of_their_own(two_files: Words, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe("tiny", two_files("--held-out-pairs", "5", *words))


def test_an_option_for_a_list_can_be_repeated_and_others_take_the_last_value(two_files: Words) -> None:
    words = [
        "--train-source",
        "a",
        "--train-target=c",
        "--train_source=b",
        "--train-target",
        "d",
        "--seed=1",
        "--seed=2",
    ]
    recipe = read_recipe("tiny", [*words, "--eval-strategy", "no"])
    assert (recipe.data.train_source, recipe.data.train_target) == (["a", "b"], ["c", "d"])
    assert recipe.training.seed == 2


def test_settings_written_as_yaml_are_read_back() -> None:
    words = {
        "train_source": ["a b.en", "c#d", "#e"], "empty": [""], "flag": [], "none": None, "text": ["null"],
        "quote": ["it's \"x\" \\ é"], "dash": ["-odd"], "colon": ["a: b"], "json": ['{"d_ff": 64}'], "no": ["no"],
    }  # fmt: skip
    text = recipe_text(["title"], words, {"dash": "a reason", "json": "long " * 30})
    read = {key: setting.words for key, setting in parse_yaml(text, Path("x.yaml")).items()}
    assert read == {**words, "flag": ["true"]}
    assert "# a reason" in text and max(map(len, text.split("\n"))) < 160


def test_print_recipe_shows_a_recipe_of_the_package_with_its_reasons_and_the_given_settings() -> None:
    words = ["--max-steps", "7", "--eval-strategy", "no"]
    text = print_recipe(read_recipe("tiny", words), words)
    assert "max_steps: 7                            # given\n" in text
    assert "# joint; each of 37,000 subwords" in text
    settings = {key: setting.text for key, setting in parse_yaml(text, Path("x.yaml")).items()}
    assert settings == read_recipe("tiny", words).settings


def test_the_help_of_the_command_line_is_that_of_the_fields() -> None:
    path = Path(read_recipe.__code__.co_filename).parent / "recipe_keys.txt"
    written, now = path.read_text(encoding="utf-8"), settings_help()
    assert "Text:" in written and "--max-tokens-per-batch (25000)" in written
    if transformers.__version__.startswith("5.24."):  # other versions have other arguments
        assert written == now, f"write {path} again: python -m hf_vanilla_transformer.training.recipe_help > {path}"
    assert written.count("\n  --train-source ") == now.count("\n  --train-source ") == 1


def test_the_same_command_resumes_and_so_does_the_recipe_that_it_wrote(two_files: Words) -> None:
    words = two_files("--max-steps", "4", "--vocab-size", "420", "--output-dir", "out", "--precision", "fp32")
    words += ["--config-overrides", '{"encoder_layers": 1, "decoder_layers": 1}', "--disable-tqdm", "true"]
    result = train(read_recipe(None, words))
    assert {split: data["pairs"] for split, data in result.record["data"].items()} == {"train": 96, "validation": 24}
    written = Path("out/recipe.yaml").read_text(encoding="utf-8")
    assert written == read_recipe(None, words).chosen_text
    for recipe in (read_recipe(None, words), read_recipe("out/recipe.yaml")):
        again = train(recipe)
        assert again.record["training"]["resumed_from"] == "checkpoint-4"
        assert again.scores["validation"]["loss"] == result.scores["validation"]["loss"]
    Path("out/recipe.yaml").write_text(written.replace("vocab_size: 420", "vocab_size: 430"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"differs in vocab_size \(420 there, 430 now\)"):
        train(read_recipe("out/recipe.yaml"))
    train(read_recipe(None, words))  # resumes, and keeps the edited file
    assert "vocab_size: 430" in Path("out/recipe.yaml").read_text(encoding="utf-8")
