"""README and docs/ are true: Python blocks run, commands and links exist, tables match examples/results/."""

import argparse
import dataclasses
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    preset,
    read_recipe,
    train_tokenizer,
)
from hf_vanilla_transformer.cli import build_parser
from hf_vanilla_transformer.training import recipe as recipes
from hf_vanilla_transformer.training.recipe import find_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
OPTIONAL = {"ctranslate2", "matplotlib", "onnx", "onnxruntime", "onnxscript", "peft", "tensorboard"}  # of the extras
COMPILE_ONLY = "<!-- not run by the tests"  # in the line above a block that cannot run here, with the reason


def blocks(page: str, *languages: str) -> list[tuple[int, str, bool]]:
    """List a page's fenced blocks of some languages: line, text, and whether the block is to be run."""
    found, text = [], PAGES[page]
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1] in languages:
            above = text[: match.start()].rstrip().rsplit("\n", 1)[-1]
            found.append((text.count("\n", 0, match.start()) + 1, match[2], not above.startswith(COMPILE_ONLY)))
    return found


PYTHON_BLOCKS = [(page, *block) for page in PAGES for block in blocks(page, "python")]


# ------------------------------------------------------------------ Python blocks


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/demo as `make demo` leaves it, but trained for nothing: the smallest of models."""
    folder = tmp_path_factory.mktemp("readme")
    pairs = embedded_corpus("train", 200)["translation"]
    tokenizer = train_tokenizer((text for pair in pairs for text in pair.values()), 400)
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_ff": 32, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2}
    model = VanillaTransformerForConditionalGeneration(preset("small", vocab_size=len(tokenizer), **sizes))
    model.generation_config.max_new_tokens = 20  # untrained, it wouldn't stop by itself
    model.save_pretrained(folder / "runs" / "demo")
    tokenizer.save_pretrained(folder / "runs" / "demo")
    return folder


def test_there_are_python_blocks() -> None:
    assert sum(page == "README.md" and to_be_run for page, _, _, to_be_run in PYTHON_BLOCKS) >= 2
    assert len({page for page, *_ in PYTHON_BLOCKS}) >= 4


@pytest.mark.parametrize(
    ("page", "line", "code", "to_be_run"),
    PYTHON_BLOCKS,
    ids=[f"{page}:{line}" for page, line, *_ in PYTHON_BLOCKS],
)
def test_python_block_runs(
    page: str, line: int, code: str, to_be_run: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compile(code, f"{page} from line {line}", "exec")
    if not to_be_run:
        return
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        exec(program, {"__name__": "readme"})
    except ImportError as error:
        if error.name in OPTIONAL:
            pytest.skip(f"needs the optional package {error.name}")
        raise


# ------------------------------------------------------------------ shell blocks


def command_lines(page: str) -> list[tuple[int, list[str]]]:
    """List the commands of a page's shell blocks and of its inline code, split into words, with their lines."""
    found = []
    for line, text, _ in blocks(page, "", "bash", "sh", "console", "shell"):
        for number, command in enumerate(text.replace("\\\n", "  ").split("\n"), start=line + 1):
            for part in re.split(r"\s(?:\||&&|;)\s", command.removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                if words:
                    found.append((number, words))
    outside = re.sub(
        r"^```.*?^```$", lambda match: "\n" * match[0].count("\n"), PAGES[page], flags=re.MULTILINE | re.DOTALL
    )
    for match in re.finditer(r"`((?:make|vanilla-transformer) [^`…]+)`", outside):
        found.append((outside.count("\n", 0, match.start()) + 1, shlex.split(match[1])))
    return found


def wrong_with(words: list[str]) -> str | None:
    """Return what is wrong with a command; None for a valid one."""
    program = words[0].rsplit("/", 1)[-1]
    words = [word for word in words if "=" in word or not re.fullmatch(r"[<>].*", word)]
    missing = [word for word in words if word.startswith("examples/") and not (ROOT / word).exists()]
    if missing:
        return f"there is no {missing[0]}"
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"make has no target {unknown[0]}" if unknown else None
    if program != "vanilla-transformer":
        return None
    commands = next(action for action in build_parser()._actions if action.dest == "command").choices
    if len(words) < 2 or words[1] not in commands:
        return f"there is no command {' '.join(words[:2])}"
    parser: argparse.ArgumentParser = commands[words[1]]
    known = {name for action in parser._actions for name in action.option_strings}
    if parser.get_default("takes_overrides"):
        classes = (recipes.ModelArguments, recipes.DataArguments, recipes.RunArguments)
        keys = {item.name for kind in classes for item in dataclasses.fields(kind)}
        keys |= {item.name for item in dataclasses.fields(type(read_recipe("tiny").training))}
        known |= {f"--{key}" for key in keys} | {f"--{key.replace('_', '-')}" for key in keys} | {"--key"}
    if words[1] == "train" and words[2:] and re.fullmatch(r"[a-z0-9_.]+(?<!\.yaml)", words[2]):
        try:
            find_recipe(words[2])
        except ValueError as error:
            return str(error)
    for word in words[2:]:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            return f"{' '.join(words[:2])} has no {option}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_exists(page: str) -> None:
    lines = command_lines(page)
    if page == "README.md":
        assert {"make", "vanilla-transformer"} <= {words[0] for _, words in lines}
    wrong = [f"{page}:{line}: {problem}" for line, words in lines if (problem := wrong_with(words))]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_every_named_file_exists(page: str) -> None:
    text, folder = PAGES[page], (ROOT / page).parent
    linked = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in linked if target and not (folder / target).exists()]
    named = re.findall(r"\b(?:examples|benchmarks|tests|hf_vanilla_transformer)/[\w./-]*\w", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{page} names {', '.join(missing)}"


def test_readme_links_every_page_of_docs() -> None:
    unlinked = [page for page in PAGES if page != "README.md" and f"({page})" not in PAGES["README.md"]]
    assert not unlinked


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make demo TORCH_INDEX=x", None),
        ("make coffee", "make has no target coffee"),
        ("vanilla-transformer translate runs/demo < lines.txt", None),
        ("vanilla-transformer translate runs/demo --colour red", "vanilla-transformer translate has no --colour"),
        (".venv/bin/vanilla-transformer dance", "there is no command .venv/bin/vanilla-transformer dance"),
        ("vanilla-transformer train tiny --seed 2 --train-source my.en --train_target my.ko", None),
        (
            "vanilla-transformer train tinny",
            "there is no recipe tinny, neither a file nor in the package; did you mean 'tiny'?",
        ),
        ("vanilla-transformer train tiny --sead 2", "vanilla-transformer train has no --sead"),
        ("vanilla-transformer train examples/none.yaml", "there is no examples/none.yaml"),
        ("python examples/scan.py SCAN/simple", None),
    ],
)
def test_a_wrong_command_would_be_found(command: str, problem: str | None) -> None:
    assert wrong_with(shlex.split(command)) == problem


def test_the_code_map_matches_the_package() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "render_code_map.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------ tables


@pytest.fixture(scope="module")
def renderer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_results", ROOT / "examples" / "render_results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_match_the_results(renderer: ModuleType, page: str) -> None:
    text = PAGES[page]
    assert renderer.render(text, ROOT / "examples" / "results") == text, "run python examples/render_results.py"


def run_record(seed: int, bleu: float, **scores: Any) -> dict[str, Any]:
    scores = {"bleu": bleu, "chrf": 60.0, "exact": 0.125, "bleu_signature": "a|b", "chrf_signature": "c|d", **scores}
    return {
        "recipe": {"name": "tiny", "settings": {"preset": "tiny", "seed": str(seed)}},
        "data": {"test": {"name": "text/test.en + text/test.de", "pairs": 1000, "sha256": "0"}},
        "model": {"parameters": 3_210_000},
        "training": {"updates": 8000, "seconds": 1800.0, "seed": seed, "precision": "bf16"},
        "scores": {"test": scores},
        "hardware": "2 cores of X",
    }


def write(folder: Path, records: dict[str, dict[str, Any]]) -> Path:
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def experiment_run(**changes: Any) -> dict[str, Any]:
    run = run_record(1, 0.0) | {"data": {"train": {"pairs": 1000}}} | changes
    run["training"]["max_tokens_per_batch"] = 1024
    run["recipe"]["settings"]["data_license"] = "CC0"
    return run


def test_a_joint_model_is_compared_with_the_single_ones(renderer: ModuleType, tmp_path: Path) -> None:
    page = "<!-- multilingual:start --><!-- multilingual:end -->"
    assert renderer.NO_RESULTS in renderer.render(page, tmp_path)
    scores = {"single": 20.0, "joint": 20.25}
    found = {
        kind: {"bleu": bleu, "chrf": 40.0, "sentences": 1000, "bleu_signature": "a|b"} for kind, bleu in scores.items()
    }
    write(tmp_path, {"multilingual": {"scores": {"en-de": found}, "runs": {"joint": experiment_run()}}})
    assert renderer.render(page, tmp_path).splitlines()[1:-1] == [
        "| direction | lines | BLEU, single | chrF, single | BLEU, joint | chrF, joint | BLEU, difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| en→de | 1,000 | 20.00 | 40.00 | 20.25 | 40.00 | +0.25 |",
        "",
        "Updates: joint 8,000, of at most 1,024 tokens per side; 3.2 M parameters each; seed 1; 2 cores of X, bf16; "
        "data licence: CC0. BLEU: `a|b`.",
    ]


def test_scores_with_synthetic_pairs_are_beside_those_without(renderer: ModuleType, tmp_path: Path) -> None:
    page = "<!-- back-translation:start --><!-- back-translation:end -->"
    assert renderer.NO_RESULTS in renderer.render(page, tmp_path)
    row = {"chrf": 40.0, "sentences": 10, "bleu_signature": "a|b"}
    scores = {
        name: {"test": {"manual": row | {"bleu": bleu + 1}, "all": row | {"bleu": bleu}}}
        for name, bleu in (("baseline", 20.0), ("augmented", 20.5))
    }
    runs = {"baseline": experiment_run(), "augmented": experiment_run(data={"train": {"pairs": 1200}})}
    write(tmp_path, {"back_translation": {"scores": scores, "runs": runs}})
    lines = renderer.render(page, tmp_path).splitlines()
    assert lines[3:5] == [
        "| test | 10 | 20.00 → 20.50 | 40.00 → 40.00 |",
        "| test: manual | 10 | 21.00 → 21.50 | 40.00 → 40.00 |",
    ]
    assert lines[6].startswith(
        "1,000 real and 200 synthetic pairs. Updates: baseline 8,000, augmented 8,000, of at most"
    )


def test_contenders_of_equal_minutes_are_listed_with_their_settings(renderer: ModuleType, tmp_path: Path) -> None:
    page = "<!-- equal-minutes:start --><!-- equal-minutes:end -->"
    assert renderer.NO_RESULTS in renderer.render(page, tmp_path)
    end = {"num_beams": 5, "validation": {"bleu": 31.0}, "test": {"bleu": 30.256, "bleu_signature": "a|b"}}
    contender = {
        "label": "peer", "settings": {"tokens": 1024, "learning_rate": 0.002, "precision": "bf16"}, "updates": 8120,
        "points": [{"minutes": 2.5, "tokens": 10}, {"minutes": 29.96, "tokens": 7000000}], "final": end,
    }  # fmt: skip
    record = {
        "name": "equal_minutes", "quick": False, "minutes": 30.0, "data": {"name": "text", "license": "CC0"},
        "settings": {"screen_minutes": 3.0, "seed": 1}, "contenders": [contender, {**contender, "settings": {}}],
        "hardware": {"processor": "X", "cores": 4, "threads": 2, "kind": "neither"}, "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    write(tmp_path, {"equal-minutes-neither": record})
    assert renderer.render(page, tmp_path).splitlines()[3:-1] == [
        "| peer | tokens 1,024, peak 0.002, bf16 | 30.0 | 8,120 | 7,000,000 | 31.00 | 30.26 |",
        "| peer | the recipe's | 30.0 | 8,120 | 7,000,000 | 31.00 | 30.26 |",
        "",
        "text; at most 30 minutes of training each, 3 minutes for each run that compares settings, seed 1; "
        "processor without bf16 units: 2 cores of X; torch 2.13.0. Beam size 5; BLEU: `a|b`. Data licence: CC0.",
    ]
    write(tmp_path, {"equal-minutes-neither": {**record, "quick": True}})
    with pytest.raises(ValueError, match="not the record of a full run"):
        renderer.render(page, tmp_path)


MARKED = (
    "head\n<!-- results:start -->\nold\n<!-- results:end -->\nmiddle\n<!-- bench:start --><!-- bench:end -->\ntail\n"
)


def test_runs_that_differ_in_the_seed_are_one_row(renderer: ModuleType, tmp_path: Path) -> None:
    other = run_record(3, 30.0)
    other["recipe"]["settings"]["preset"] = "small"
    other["recipe"]["name"] = "small"
    write(tmp_path, {"tiny-1": run_record(1, 41.0), "tiny-2": run_record(2, 42.0), "small-3": other})
    text = renderer.render(MARKED, tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `small` | test: test.en + test.de, 1,000 lines | 30.00 | 60.00 | 12.50 % | 3 | 3.2 M | 8,000 | 30 | "
        "2 cores of X, bf16 |",
        "| `tiny` | test: test.en + test.de, 1,000 lines | 41.50 (41.00, 42.00) | 60.00 (60.00, 60.00) | 12.50 % | "
        "1, 2 | 3.2 M | 8,000 | 30 | 2 cores of X, bf16 |",
    ]
    assert "- `tiny`, test: `a|b`, `c|d`" in text
    assert text.startswith("head\n") and "old" not in text and "\nmiddle\n" in text and text.endswith("tail\n")
    assert renderer.render(text, tmp_path) == text


def test_the_time_of_the_cores_stands_behind_the_wall_time(renderer: ModuleType, tmp_path: Path) -> None:
    records = {"tiny-1": run_record(1, 41.0), "tiny-2": run_record(2, 42.0)}
    for record, seconds in zip(records.values(), (600.0, 1200.0), strict=True):
        record["training"]["processor_seconds"] = seconds
    assert "| 8,000 | 30 (15 of one core) | 2 cores" in renderer.render(MARKED, write(tmp_path, records))
    records["tiny-2"]["training"]["processor_seconds"] = None  # not counted
    assert "| 8,000 | 30 | 2 cores" in renderer.render(MARKED, write(tmp_path, records))


def test_origins_have_a_table(renderer: ModuleType, tmp_path: Path) -> None:
    groups = {"talk": {"bleu": 20.0, "chrf": 30.0, "exact": 0.0, "sentences": 1200}}
    write(tmp_path, {"koen": run_record(1, 10.0, by_group=groups)})
    assert "| `tiny`, test | talk | 1,200 | 20.00 | 30.00 |" in renderer.render(MARKED, tmp_path)


def test_runs_with_several_settings_have_a_column_each(renderer: ModuleType, tmp_path: Path) -> None:
    page = "<!-- origins:start --><!-- origins:end -->"
    assert renderer.NO_RESULTS in renderer.render(page, tmp_path)
    (tmp_path / "origins").mkdir()
    for folder, name, rate, bleu in (
        (tmp_path / "origins", "adam", "0.001", 10.0),
        (tmp_path, "koen-small", "0.003", 11.0),
    ):
        groups = {"talk": {"bleu": bleu + 1, "chrf": 30.0, "exact": 0.0, "sentences": 1200}}
        if name == "adam":
            groups["manual"] = groups["talk"] | {"sentences": 7}
        record = run_record(1, bleu, by_group=groups)
        record["recipe"]["settings"]["learning_rate"] = rate
        record["scores"]["validation"] = {**record["scores"]["test"], "loss": 2.5}
        record["data"]["validation"] = record["data"]["test"]
        write(folder, {name: record})
    text = renderer.render(page, tmp_path)
    assert "| text | origin | lines | `adam`: BLEU / chrF | `koen-small`: BLEU / chrF |" in text
    assert "| test | talk | 1,200 | 11.00 / 30.00 | 12.00 / 30.00 |" in text
    assert "| test | manual | 7 | 11.00 / 30.00 |  |" in text  # of one run only
    assert "| test | all | 1,000 | 10.00 / 60.00 | 11.00 / 60.00 |" in text
    assert "- `adam`: learning_rate 0.001; validation loss 2.500, 30 minutes; 2 cores of X, bf16; seed 1; a|b" in text


def test_the_licence_of_the_data_is_in_the_tables(renderer: ModuleType, tmp_path: Path) -> None:
    groups = {"talk": {"bleu": 20.0, "chrf": 30.0, "exact": 0.0, "sentences": 1200, "license": "CC0"}}
    record = run_record(1, 10.0, by_group=groups)
    record["recipe"]["settings"]["data_license"] = "MIT"
    text = renderer.render(MARKED, write(tmp_path, {"koen": record}))
    assert "| hardware | data licence |" in text and "| 2 cores of X, bf16 | MIT |" in text
    assert "| `tiny`, test | talk | 1,200 | 20.00 | 30.00 | CC0 |" in text


def test_an_evaluation_is_a_row_without_training(renderer: ModuleType, tmp_path: Path) -> None:
    record = run_record(1, 41.0)
    del record["recipe"], record["training"]
    record |= {"checkpoint": "my-model", "precision": "float32"}
    row = (
        "| `my-model` | test: test.en + test.de, 1,000 lines | 41.00 | 60.00 | 12.50 % | 3.2 M | "
        "2 cores of X, float32 |"
    )
    assert row in renderer.render(MARKED, write(tmp_path, {"evaluation": record}))


BENCH_ROWS = [
    {"measure": "a|b", "ours": 12345.6, "peer": 0.51234, "peer_name": "P", "unit": "t/s", "ratio": 2.5, "goal": "≥ 2×"},
    {"measure": "c", "ours": 1.0, "peer": None, "peer_name": None, "unit": "s", "ratio": None, "goal": None},
]


def test_measurements_have_a_table(renderer: ModuleType, tmp_path: Path) -> None:
    rows = [BENCH_ROWS[0] | {"met": True}, BENCH_ROWS[1]]
    write(tmp_path, {"bench-x-amx": bench_record("amx", rows)})
    text = renderer.render(MARKED, tmp_path)
    assert "**Speed**" in text and "2 cores of X; torch 2" in text and "No results yet." in text  # no runs
    assert "| a\\|b | P | **2.50×** (12,346 vs 0.5123 t/s); goal ≥ 2× met |" in text
    assert "| c |  | 1 s |" in text
    write(tmp_path, {"bench-x-amx": bench_record("amx", rows, quick=True)})
    with pytest.raises(ValueError, match="bench-x-amx.json is from a quick trial"):
        renderer.render(MARKED, tmp_path)


def bench_record(kind: str, rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    hardware = {"cores": 2, "processor": "X", "kind": kind}
    return {"name": "x", "what": "Speed", "hardware": hardware, "versions": {"torch": "2"}, "rows": rows, **fields}


def test_each_kind_of_processor_has_a_column(renderer: ModuleType, tmp_path: Path) -> None:
    first, second = BENCH_ROWS[0] | {"met": True, "note": "n"}, BENCH_ROWS[1]
    slower = first | {"ratio": 0.5, "met": False, "note": "m"}
    write(tmp_path, {"bench-x-neither": bench_record("neither", [slower])})
    write(tmp_path, {"bench-x-amx": bench_record("amx", [second, first], date="2026-01-02")})
    text = renderer.render(MARKED, tmp_path)
    assert text.index("| c |") < text.index("| a\\|b |")  # in the order of the newest record
    assert "| measure | compared with | with AMX | without bf16 units |" in text
    assert "goal ≥ 2× met; n | **0.50×** (12,346 vs 0.5123 t/s); goal ≥ 2× missed; m |" in text
    assert "| c |  | 1 s | – |" in text
    assert "Processor with AMX: 2 cores of X; torch 2" in text
    assert "Processor without bf16 units: 2 cores of X; torch 2" in text
    (tmp_path / "bench-x-amx.json").rename(tmp_path / "bench-x-avx512-bf16.json")
    with pytest.raises(ValueError, match="bench-x-avx512-bf16.json is the record of measurement x .* of kind amx"):
        renderer.render(MARKED, tmp_path)


def test_the_summary_has_published_figures_for_the_same_text(renderer: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, {"tiny-1": run_record(1, 41.0), "tiny-2": run_record(2, 42.0)})
    page = "<!-- summary:start --><!-- summary:end -->\n"
    row = "| `tiny` | test.en + test.de, 1,000 lines | 41.50 (41.00, 42.00) | 60.00 | 12.50 % | "
    assert row + "– |" in renderer.render(page, tmp_path)
    published = [{"run": "tiny", "text": "test.en + test.de", "bleu": 40.0, "source": "A 2020"},
                 {"run": "tiny", "text": "other.en + other.de", "bleu": 39.0, "source": "B 2021"}]  # fmt: skip
    write(tmp_path, {"published": {"published": published}})
    assert row + "40.00 BLEU (A 2020) |" in renderer.render(page, tmp_path)


def test_the_speed_table_has_the_headline_rows(renderer: ModuleType, tmp_path: Path) -> None:
    page = "<!-- speed:start --><!-- speed:end -->\n"
    assert "No results yet." in renderer.render(page, tmp_path)
    row = {"measure": "training step, preset base, fp32", "ours": 1.0, "unit": "s", "goal": None}
    rows = [row | {"peer": 3.0, "peer_name": "torch.nn.Transformer", "ratio": 3.0},
            row | {"peer": 2.0, "peer_name": "transformers MarianMT", "ratio": 2.0}]  # fmt: skip
    record = bench_record("neither", rows, name="training_step")
    write(tmp_path, {"bench-training-step-neither": record})
    rendered = renderer.render(page, tmp_path)
    assert "| training step, preset base | 1 s | 2 s (transformers MarianMT) | 2.00× |" in rendered
    assert "2 cores of X; torch 2" in rendered


def test_the_speed_table_is_of_the_newest_kind_with_the_most_headlines(renderer: ModuleType, tmp_path: Path) -> None:
    page = "<!-- speed:start --><!-- speed:end -->\n"
    step = {"measure": "training step, preset base, best precision of each", "ours": 1.0, "unit": "s", "peer": 2.0,
            "peer_name": "transformers MarianMT", "ratio": 2.0, "note": "ours bf16, peer fp32"}  # fmt: skip
    memory = {"ours": 60.0, "peer": 80.0, "peer_name": "P", "unit": "MiB", "ratio": 0.75}
    rows = [memory | {"measure": f"peak resident memory of the training step, {name}"} for name in ("fp32", "bf16")]
    rows[1]["ours"] = 50.0
    for kind, date in (("neither", "2026-01-01"), ("avx512-bf16", "2026-01-02")):
        fields = {"date": date, "settings": {"precision": "bf16"}}
        write(tmp_path, {f"bench-training-step-{kind}": bench_record(kind, [step], name="training_step", **fields)})
        write(tmp_path, {f"bench-memory-{kind}": bench_record(kind, rows, name="memory", **fields)})
    newest = bench_record("amx", [step], name="training_step", date="2026-01-03")
    write(tmp_path, {"bench-training-step-amx": newest | {"hardware": {"cores": 9, "processor": "Y", "kind": "amx"}}})
    rendered = renderer.render(page, tmp_path)
    assert "| training step, preset base | 1 s | 2 s (transformers MarianMT; ours bf16, peer fp32) | 2.00×" in rendered
    assert "| peak memory of that step | 50 MiB | 80 MiB (P) | 0.75× |" in rendered  # of the step's precision
    assert "2 cores of X" in rendered and "9 cores" not in rendered  # amx has one of the two rows


def test_without_markers_nothing_changes_and_half_a_pair_is_refused(renderer: ModuleType, tmp_path: Path) -> None:
    assert renderer.render("no tables here\n", tmp_path) == "no tables here\n"
    with pytest.raises(ValueError, match="must appear once each"):
        renderer.render("<!-- results:end --> <!-- results:start -->", tmp_path)
    with pytest.raises(ValueError, match="must appear once each"):
        renderer.render("<!-- bench:start -->", tmp_path)


def test_the_command_writes_checks_and_refuses(
    renderer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results"
    results.mkdir()
    readme.write_text(MARKED, encoding="utf-8")
    words = ["--pages", str(readme), "--results", str(results)]
    assert renderer.main([*words, "--check"]) == 1 and readme.read_text(encoding="utf-8") == MARKED
    assert renderer.main(words) == 0 and renderer.main([*words, "--check"]) == 0
    (results / "other-experiment.json").write_text('{"answer": 42}')
    assert renderer.main([*words, "--check"]) == 0
    (results / "bench-odd.json").write_text('{"answer": 42}')
    assert renderer.main(words) == 2
    assert "bench-odd.json has no 'rows'" in capsys.readouterr().err
