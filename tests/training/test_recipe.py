"""Recipes: the package's are readable, overrides win, and errors name file and line."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_vanilla_transformer.model.beam_search_config_vanilla_transformer import BeamSearchConfig
from hf_vanilla_transformer.model.configuration_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.presets import preset
from hf_vanilla_transformer.training.recipe import PACKAGE_RECIPES, package_recipes, read_recipe
from hf_vanilla_transformer.training.recipe_hints import COMMON_MISTAKES, FIELDS_OF_THE_MODEL
from hf_vanilla_transformer.training.recipe_yaml import MAX_RECIPE_BYTES

RECIPES = sorted(PACKAGE_RECIPES.glob("*.yaml"))
RESULTS = Path(__file__).parents[2] / "examples" / "results"
DATA_KEYS = {
    "dataset_config", "source_lang", "target_lang", "source_column", "target_column", "metric_tokenize", "tokenizer",
    *(f"{split}_{side}" for split in ("train", "validation", "test") for side in ("source", "target", "file", "split")),
}  # fmt: skip

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes lines, text or bytes to a recipe; without training data it adds the embedded."""

    def write_recipe(content: str | bytes, data: str = "dataset_name: embedded\n") -> Path:
        path = tmp_path / "my.yaml"
        path.write_bytes(content if isinstance(content, bytes) else (data + content).encode())
        return path

    return write_recipe


# ------------------------------------------------------------------ the package's recipes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_of_the_package_reads_and_fits_on_a_page(path: Path) -> None:
    recipe = read_recipe(path, ["--precision", "fp32"])
    preset(recipe.model.preset, vocab_size=recipe.data.vocab_size)
    assert recipe.training.max_steps > recipe.training.warmup_steps
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) <= 31  # 30 and what is after the last line feed
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_of_the_package_gives_a_reason_for_each_setting_and_names_no_data(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.stem != "demo":  # whose data is generated
        assert not DATA_KEYS & set(read_recipe(path).settings)
    reasons = re.findall(r"^(\w+): .*\S +# \S", re.sub(r",\n +", ", ", text), re.MULTILINE)
    assert {"preset", "vocab_size", "max_tokens_per_batch", "warmup_steps", "learning_rate", "precision"} <= set(
        reasons
    )
    unexplained = set(read_recipe(path).settings) - set(reasons) - {"source_lang", "target_lang"}
    assert unexplained <= {"config_overrides"} if path.stem == "small" else not unexplained  # in the line above it


def test_a_recipe_says_that_it_was_not_run_unless_there_are_results() -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")]
    run = {record["recipe"]["name"] for record in records if "training" in record and "recipe" in record} | {"demo"}
    for path in RECIPES:
        assert ("Not run" in path.read_text(encoding="utf-8")) == (path.stem not in run), path.name


def test_a_bare_name_is_looked_up_in_the_package_unless_it_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert package_recipes() == ["base", "big", "chat_ko", "demo", "ls0", "ls0.2", "scan", "small", "tiny"]
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe("ls0.2")
    assert recipe.path == PACKAGE_RECIPES / "ls0.2.yaml"
    assert (recipe.name, recipe.training.output_dir) == ("ls0.2", str(Path("runs") / "ls0.2"))
    (tmp_path / "tiny").mkdir()  # a folder is not a recipe
    assert read_recipe("tiny").model.preset == "tiny"
    (tmp_path / "small").write_text("preset: big\n")
    assert read_recipe("small").model.preset == "big"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", "there is no recipe tinny, neither a file nor in the package; did you mean 'tiny'?"),
        ("xyz", "there is no recipe xyz, .*; the package has base, big, chat_ko"),
        ("tiny.yaml", "there is no recipe tiny.yaml; the package has base"),
        ("examples/configs/tiny", "there is no recipe examples/configs/tiny; the package has base"),
        ("", "there is no recipe"),
    ],
)
def test_an_unknown_recipe_is_refused_with_the_names_of_the_packages(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_recipe(name)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("tiny", 0.006),  # Wu et al. 2021 take 0.005, with Adam
        ("small", 0.003),  # half of tiny's: twice as wide
        ("base", 0.0006987712429686843),  # (512 · 4000)^−0.5
        ("big", 0.0004941058844013093),  # (1024 · 4000)^−0.5
    ],
)
def test_the_peak_learning_rate_is_the_one_that_the_recipe_names(name: str, peak: float) -> None:
    recipe = read_recipe(name)
    rate = recipe.training.resolve_learning_rate(preset(recipe.model.preset).d_model, recipe.training.max_steps)
    assert math.isclose(rate, peak, rel_tol=0.002)


def test_the_smoothing_rows_of_table_3_differ_from_base_in_smoothing_and_averaging_alone() -> None:
    base, *rows = map(read_recipe, ("base", "ls0", "ls0.2"))
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
    assert recipe.search == BeamSearchConfig() and (recipe.search.num_beams, recipe.search.length_penalty) == (4, 0.6)
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


@pytest.mark.parametrize(
    "words",
    [
        ["--max-steps", "9"],
        ["--max_steps", "9"],
        ["--max-steps=9"],
        ["--max_steps=9"],
        ["--max-steps", "1", "--max_steps=9"],
    ],
)
def test_keys_are_written_with_hyphens_or_underscores_and_values_behind_a_space_or_an_equals_sign(
    write: Write, words: list[str]
) -> None:
    recipe = read_recipe(write(""), words)
    assert recipe.training.max_steps == 9
    assert recipe.settings["max_steps"] == "9" and "max-steps" not in recipe.settings


def test_the_settings_of_the_search_are_one_object(write: Write) -> None:
    recipe = read_recipe(write("num_beams: 2\nlength_penalty: -1e-1\n"), ["--length-normalization", "power"])
    assert recipe.search == BeamSearchConfig(num_beams=2, length_penalty=-0.1, length_normalization="power")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("beam_size", "did you mean 'num_beams'?"),
        ("alpha", "did you mean 'length_penalty'?"),
        ("patience", "did you mean 'early_stopping_patience'?"),
        ("overwrite_output_dir", "did you mean 'overwrite'?"),
        ("lr", "did you mean 'learning_rate'?"),
        ("epochs", "did you mean 'num_train_epochs'?"),
        ("early_stopping", "did you mean 'early_stopping_patience'?"),
        ("batch_size", "did you mean 'max_tokens_per_batch'? It is a number of tokens, not of sentences."),
        ("d_model", 'it is a field of the configuration, so write config_overrides: {"d_model": …}'),
        ("hidden_size", "'d_model' is a field of the configuration, so write config_overrides: {\"d_model\": …}"),
        (
            "num_layers",
            "the number of layers is a field of the configuration, so write config_overrides: "
            '{"encoder_layers": …, "decoder_layers": …}',
        ),
        ("qwertyuiop", "`vanilla-transformer train --help` lists all settings"),
        ("dropout", 'it is a field of the configuration, so write config_overrides: {"dropout": …}'),
        ("encoder_layers", 'it is a field of the configuration, so write config_overrides: {"encoder_layers": …}'),
    ],
)
def test_former_names_and_other_tools_names_get_a_hint(write: Write, key: str, meant: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_recipe(write(f"{key}: 1\n"))
    assert str(caught.value).endswith(f"my.yaml:2: there is no setting {key!r}; {meant}")
    with pytest.raises(ValueError) as caught:
        read_recipe(write(""), [f"--{key.replace('_', '-')}", "1"])
    assert str(caught.value) == f"command line: there is no setting {key!r}; {meant}"


def test_every_hint_for_the_model_names_a_field_of_the_configuration() -> None:
    fields = VanillaTransformerConfig().to_dict()
    assert set(FIELDS_OF_THE_MODEL.values()) <= fields.keys()
    assert not fields.keys() & {*FIELDS_OF_THE_MODEL, *COMMON_MISTAKES}


def test_every_hint_is_for_an_unknown_name_and_suggests_a_known_one(write: Write) -> None:
    path = write("")
    for wrong, right in COMMON_MISTAKES.items():
        with pytest.raises(ValueError, match=f"there is no setting '{wrong}'; did you mean '{right}'?"):
            read_recipe(path, [f"--{wrong}", "x"])
        with pytest.raises(ValueError, match="^(?!.*there is no setting)"):  # known, though a list fits none of them
            read_recipe(path, [f"--{right}", "[", "[", "--seed", "x"])


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
        ("do_predict: true\n", r"my\.yaml:2: do_predict has no effect in a recipe"),
        ("auto_find_batch_size: true\n", r"my\.yaml: auto_find_batch_size=True is not supported"),
        ("seed: 1\nseed: 2\n", r"my\.yaml:3: seed is set a second time; the first is at .*my\.yaml:2"),
        ("report_to: []\n", r"my\.yaml:2: an empty list"),
        ("train_source: [[a]]\n", r"my\.yaml:2: a recipe is flat"),
        ("label_smoothing_factor: 1.5\n", r"my\.yaml: label_smoothing_factor=1.5 must be in"),
        ("config_overrides: [1]\n", "config_overrides '1' is not a dictionary"),
        ("config_overrides: {a: 1}\nmodel_name_or_path: x\n", "set only one of them"),
        ("train_source: a\n", "train_target is missing; give both files"),
        ("train_file: a.csv\n", "both dataset_name and training files are set"),
        ("source_lang: en\ntarget_lang: de\n", "the embedded corpus has en and ko, not en and de"),
        ("vocab_size: 0\n", "vocab_size=0 must be at least 1"),
        ("num_beams: 0\n", r"my\.yaml: num_beams=0 is not an integer ≥ 1"),
        (
            "average_last: 20\nsave_total_limit: 5\n",
            "save_total_limit=5 keeps too few checkpoints for an average of 20",
        ),
        ("length_penalty: nan\n", r"my\.yaml: length_penalty=nan is not a finite number"),
        ("length_normalization: wu\n", r"my\.yaml:2: length_normalization: .*wu"),
        ("average_best: 2\n", "average_best and early_stopping_patience need the validation loss"),
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
        (b"train_source: a\ntrain_target: b\nsource_lang: en\ntarget_lang: en\n", "are both 'en'"),
        (b"train_source: a\ntrain_target: b\nstreaming: true\n", "set max_steps"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[:20].decode(errors="replace"),
)
def test_files_that_are_no_recipes_are_refused(write: Write, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(write(content))
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_and_words_without_a_key_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no recipe .*nowhere.yaml"):
        read_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match="command line: 'seed' follows no key"):
        read_recipe(write(""), ["seed", "3"])
    with pytest.raises(ValueError, match="command line: there is no setting 'sed'; did you mean 'seed'"):
        read_recipe(write(""), ["--sed", "3"])
    with pytest.raises(ValueError, match="command line: seed: expected one argument"):
        read_recipe(write(""), ["--seed"])
