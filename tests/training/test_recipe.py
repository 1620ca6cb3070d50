"""Recipes: every example parses, overrides win, and what is wrong is said with file and line."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_vanilla_transformer.presets import preset
from hf_vanilla_transformer.training.recipe import MAX_RECIPE_BYTES, read_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = sorted((EXAMPLES / "configs").glob("*.yaml"))
RESULTS = EXAMPLES / "results"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes lines, text or bytes to a recipe; without training data it adds the embedded."""

    def write_recipe(content: str | bytes, data: str = "dataset_name: embedded\n") -> Path:
        path = tmp_path / "my.yaml"
        path.write_bytes(content if isinstance(content, bytes) else (data + content).encode())
        return path

    return write_recipe


# ------------------------------------------------------------------ the examples


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_recipe_of_the_examples_reads_and_fits_on_a_page(path: Path) -> None:
    recipe = read_recipe(path, ["--precision", "fp32"])
    preset(recipe.model.preset, vocab_size=recipe.data.vocab_size)
    assert recipe.training.max_steps > recipe.training.warmup_steps
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) <= 31  # 30 and what is after the last line feed
    assert lines[0].startswith("# ")


def test_a_recipe_says_that_it_was_not_run_unless_there_are_results() -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")]
    run = {record["recipe"]["name"] for record in records if "training" in record and "recipe" in record}
    for path in CONFIGS:
        assert ("Not run" in path.read_text(encoding="utf-8")) == (path.stem not in run), path.name


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("tiny", 0.004),  # Wu et al. 2021 take 0.005 for larger updates
        ("small", 0.0015),  # narrow, but deeper than tiny
        ("base", 0.0006987712429686843),  # (512 · 4000)^−0.5
        ("big", 0.0004941058844013093),  # (1024 · 4000)^−0.5
    ],
)
def test_the_peak_learning_rate_is_the_one_that_the_recipe_names(name: str, peak: float) -> None:
    recipe = read_recipe(next(path for path in CONFIGS if path.stem == name))
    rate = recipe.training.resolve_learning_rate(preset(recipe.model.preset).d_model, recipe.training.max_steps)
    assert math.isclose(rate, peak, rel_tol=0.002)


def test_the_smoothing_rows_of_table_3_differ_from_base_in_smoothing_and_averaging_alone() -> None:
    base, *rows = (
        read_recipe(next(path for path in CONFIGS if path.stem == name)) for name in ("base", "ls0", "ls0.2")
    )
    for row, smoothing in zip(rows, (0.0, 0.2), strict=True):
        assert row.training.label_smoothing_factor == smoothing
        assert row.run.average_last == 0
        same = ("max_steps", "warmup_steps", "max_tokens_per_batch", "learning_rate", "adam_beta2", "seed")
        assert [getattr(row.training, key) for key in same] == [getattr(base.training, key) for key in same]
        assert row.model == base.model


# ------------------------------------------------------------------ values


def test_values_are_read_by_the_type_of_their_field(write: Write) -> None:
    # YAML 1.1 alone would read 1e-3 as a text, `no` as False and 25_000 as a number.
    recipe = read_recipe(
        write(
            "weight_decay: 1e-3\neval_strategy: no\nmax_tokens_per_batch: 25_000\nlowercase: yes\ntrain_split: '007'\n"
        )
    )
    assert recipe.training.weight_decay == 0.001
    assert recipe.training.eval_strategy == "no"
    assert recipe.training.max_tokens_per_batch == 25_000
    assert recipe.data.lowercase is True
    assert recipe.data.train_split == "007"


def test_what_is_not_named_has_the_papers_value(write: Write) -> None:
    recipe = read_recipe(write(""))
    assert recipe.model.preset == "base"
    assert recipe.data.vocab_size == 37_000
    assert (recipe.training.label_smoothing_factor, recipe.training.warmup_steps, recipe.training.adam_beta2) == (
        0.1,
        4000,
        0.98,
    )
    assert (recipe.run.num_beams, recipe.run.length_penalty) == (4, 0.6)
    assert recipe.training.output_dir == str(Path("runs") / "my")
    assert (recipe.data.source_lang, recipe.data.target_lang) == ("en", "ko")  # what the embedded corpus has


def test_overrides_win_in_either_spelling_and_null_unsets(write: Write) -> None:
    path = write("seed: 1\nwarmup_steps: 100\nsave_total_limit: 3\n")
    words = ["--seed", "7", "--warmup-steps=200", "--save_total_limit", "null", "--lowercase", "--output_dir", "-odd"]
    recipe = read_recipe(path, words)
    assert recipe.training.seed == 7
    assert recipe.training.warmup_steps == 200
    assert recipe.training.save_total_limit is None
    assert recipe.data.lowercase is True
    assert recipe.training.output_dir == "-odd"
    assert recipe.settings["seed"] == "7"


def test_lists_and_dictionaries_can_be_written_in_both_places(write: Write) -> None:
    content = (
        "train_source: [a.en, b.en]\ntrain_target:\n  - a.ko\n  - b.ko\nconfig_overrides: {d_ff: 512, dropout: 1e-1}\n"
    )
    recipe = read_recipe(write(content, data=""))
    assert recipe.data.train_source == ["a.en", "b.en"]
    assert recipe.data.train_target == ["a.ko", "b.ko"]
    assert recipe.model.overrides == {"d_ff": 512, "dropout": 0.1}
    words = ["--train_source", "c.en", "--train_target", "c.ko", "--config_overrides", '{"d_ff": 64}']
    recipe = read_recipe(write(content, data=""), words)
    assert recipe.data.train_source == ["c.en"]
    assert recipe.model.overrides == {"d_ff": 64}


def test_a_run_keeps_its_best_checkpoint_when_it_evaluates(write: Write) -> None:
    assert read_recipe(write("eval_strategy: steps\neval_steps: 5\n")).training.metric_for_best_model == "loss"
    assert read_recipe(write("")).training.metric_for_best_model is None


def test_only_what_changes_the_result_belongs_to_the_identity(write: Write) -> None:
    one = read_recipe(write("seed: 1\nlogging_steps: 5\n"))
    other = read_recipe(write("logging_steps: 9\nseed: 1\n"), ["--output_dir", "elsewhere", "--max_steps", "9"])
    assert one.identity == other.identity == {"dataset_name": "embedded", "seed": "1"}
    assert read_recipe(write("seed: 2\n")).identity != one.identity


# ------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("warmup_step: 5\n", r"my\.yaml:2: there is no setting 'warmup_step'; did you mean 'warmup_steps'\?"),
        ("seed: 1\nfactor_on_nothing_known: 5\n", r"my\.yaml:3: there is no setting 'factor_on_nothing_known'"),
        ("seed: 1\nmax_steps: many\n", r"my\.yaml:3: max_steps: invalid int value: 'many'"),
        ("max_steps: 1.5\n", r"my\.yaml:2: max_steps: invalid int value: '1.5'"),
        ("streaming: perhaps\n", r"my\.yaml:2: streaming: .*perhaps"),
        ("precision: int3\n", r"my\.yaml:2: precision: .*int3"),
        ("seed: [1, 2]\n", r"my\.yaml:2: seed takes one value, not 2"),
        ("seed: null\n", r"my\.yaml:2: seed can't be null"),
        ("do_predict: true\n", r"my\.yaml:2: do_predict has no meaning in a recipe"),
        ("auto_find_batch_size: true\n", r"my\.yaml: auto_find_batch_size=True can't be honoured"),
        ("seed: 1\nseed: 2\n", r"my\.yaml:3: seed is set a second time; it stands at .*my\.yaml:2 already"),
        ("report_to: []\n", r"my\.yaml:2: an empty list"),
        ("train_source: [[a]]\n", r"my\.yaml:2: a recipe is flat"),
        ("label_smoothing_factor: 1.5\n", r"my\.yaml: label_smoothing_factor=1.5 is no probability"),
        ("config_overrides: [1]\n", "config_overrides '1' is no dictionary"),
        ("config_overrides: {a: 1}\nmodel_name_or_path: x\n", "leave one of them out"),
        ("train_source: a\n", "train_target is missing; text files come in pairs"),
        ("train_file: a.csv\n", "both dataset_name and training files are set"),
        ("source_lang: en\ntarget_lang: de\n", "the embedded corpus has en and ko, not en and de"),
        ("vocab_size: 0\n", "vocab_size=0 must be at least 1"),
        ("num_beams: 0\n", "num_beams=0 must be at least 1"),
        (
            "average_last: 20\nsave_total_limit: 5\n",
            "save_total_limit=5 keeps too few checkpoints for an average of 20",
        ),
        ("average_best: 2\n", "average_best and early_stopping_patience go by the validation loss"),
        ("average_best: 2\naverage_last: 3\n", "one final model is one average"),
    ],
)
def test_wrong_settings_are_named_with_the_way_out(write: Write, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(write(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "a recipe is a list of `key: value` lines"),
        (b"just words\n", "a recipe is a list of `key: value` lines"),
        (b"seed: 1\nmax_steps: [1, 2\n", r"my\.yaml:\d: not valid YAML"),
        (b"seed: 1\n\tmax_steps: 1\n", r"my\.yaml:2: not valid YAML"),
        (b"seed: 1\nname: \xff\n", r"my\.yaml:2: not UTF-8"),
        (b"seed: 1\n\nname: a\0b\n", r"my\.yaml:3: a NUL character"),
        (b"seed: \x07\n", "not valid YAML"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\n", r"my\.yaml:1: anchors and aliases"),
        (b"seed: 1\nb: *a\n", r"my\.yaml:2: anchors and aliases"),
        (
            b"seed: !!python/object/apply:os.system ['false']\n",
            r"my\.yaml:1: the YAML tag !!python/object/apply:os.system",
        ),
        (b"config_overrides: {a: !!python/name:os.system }\n", r"my\.yaml:1: the YAML tag !!python/name"),
        (b"seed: !mine 1\n", "the YAML tag !mine"),
        (b"a: " + b"[" * 20_000, "nested too deeply"),
        (b"#" * (MAX_RECIPE_BYTES + 1), "a recipe has at most 100,000"),
        (b"seed: 1\n", "there is nothing to train on; set train_source"),
        (b"train_source: a\ntrain_target: b\nsource_lang: en\ntarget_lang: en\n", "are both 'en'"),
        (b"train_source: a\ntrain_target: b\nstreaming: true\n", "set max_steps"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[:20].decode(errors="replace"),
)
def test_files_that_are_no_recipes_are_refused(write: Write, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(write(content))
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_and_stray_words_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no recipe .*nowhere.yaml"):
        read_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match="command line: 'seed' follows no key"):
        read_recipe(write(""), ["seed", "3"])
    with pytest.raises(ValueError, match="command line: there is no setting 'sed'; did you mean 'seed'"):
        read_recipe(write(""), ["--sed", "3"])
    with pytest.raises(ValueError, match="command line: seed: expected one argument"):
        read_recipe(write(""), ["--seed"])
