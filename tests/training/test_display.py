"""What a run shows: few lines, each once, in a command, in Python and on a terminal; everything with --verbose."""

import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_run import RECIPE
from test_trainer import Collator, arguments, examples, tiny_model
from transformers import TrainerCallback

from hf_vanilla_transformer.data.corpus_report import CorpusReport
from hf_vanilla_transformer.training import display
from hf_vanilla_transformer.training.recipe import read_recipe
from hf_vanilla_transformer.training.run import TrainingResult, train
from hf_vanilla_transformer.training.score_table import perplexity_text, score_html, score_table, score_text
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer

HEADER = "training validation test vocabulary model batch length learning loss device output".split()
SCORES = {
    "validation": {"loss": 1.2345, "perplexity": 3.4366, "bleu": 39.94, "chrf": 64.36, "exact": 0.0764,
                   "sentences": 1014, "bleu_signature": "nrefs:1|tok:13a", "chrf_signature": "nrefs:1|nc:6"},
    "test": {"loss": 1.5, "perplexity": 4.4817, "bleu": 8.0, "chrf": 30.0, "exact": 0.0, "sentences": 1000,
             "bleu_signature": "nrefs:1|tok:13a", "chrf_signature": "nrefs:1|nc:6"},
}  # fmt: skip


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[list[str], list[str], Path]]:
    """Return a function that runs `train`, and returns the lines of its standard error and output, and its folder."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "my.yaml").write_text(RECIPE.replace("disable_tqdm: true\n", ""))

    def run(name: str, *words: str) -> tuple[list[str], list[str], Path]:
        options = ["--output-dir", str(folder / name), *words]
        done = subprocess.run(
            [sys.executable, "-m", "hf_vanilla_transformer", "train", str(folder / "my.yaml"), *options],
            capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        # A bar that is drawn again and again in a file counts as many lines.
        error = done.stderr.decode().replace("\r", "\n")
        return error.splitlines(), done.stdout.decode().splitlines(), folder / name

    return run


def test_a_run_of_200_updates_shows_at_most_40_lines_and_none_of_transformers(command: Any) -> None:
    error, output, folder = command("long", "--max-steps", "200", "--eval-steps", "50", "--save-steps", "50")
    assert len(error) + len(output) <= 40, "\n".join(error)
    header = [line for line in error if not line.startswith("warning: ")][: len(HEADER)]
    assert [line.split()[0] for line in header] == HEADER
    assert re.match(r"training +200 pairs of ", header[0]) and str(folder) in header[-1]
    text = "\n".join(error)
    for unwanted in ("[transformers]", "Writing model shards", "encoding", "batch size per device", "Config {", "{'"):
        assert unwanted not in text
    assert not re.search(r"\d\.\d{7}", text)  # numbers as a person reads them
    assert len(set(error)) == len(error)  # nothing twice
    training = r"update \d+ of 200: training loss [\d.]+, perplexity [\d.,]+"
    progress = training + r", [\d,]+ target tokens/s(, \d+ (s|min \d\d s) left)?"
    validation = (
        training + r"; validation loss [\d.]+, perplexity [\d.,]+( \(best so far\))?(; \d+ (s|min \d\d s) left)?"
    )
    lines = [line for line in error if re.fullmatch(f"{progress}|{validation}", line)]
    # One for each tenth of the run and for each evaluation; that of update 100 is both.
    assert [int(line.split()[1]) for line in lines] == [20, 40, 50, 60, 80, 100, 120, 140, 150, 160, 180, 200]
    evaluated = [int(line.split()[1]) for line in lines if re.fullmatch(validation, line)]
    assert evaluated == [50, 100, 150, 200]
    assert error.index(lines[-1]) + 1 == next(place for place, line in enumerate(error) if line.startswith("trained "))
    table = next(place for place, line in enumerate(error) if line.split()[:3] == ["BLEU", "chrF", "exact"])
    names = [line.split()[0] for line in error[table - 1 :]]
    assert names == ["scores", "BLEU", "validation", "test", "BLEU", "chrF", "final", "next"]  # two signatures
    assert error[-1].endswith(f"vanilla-transformer translate {folder} FILE")
    assert output == [f"train: output={folder}"]


def test_verbose_brings_everything_back(command: Any) -> None:
    error, output, folder = command("verbose", "--max-steps", "4", "--verbose")
    text = "\n".join(error)
    for wanted in (
        "[transformers] ***** Running training",
        "Writing model shards",
        "checkpoint-4 is complete",
        "encoding: 100%",
        "learning rate by Equation 3",
        "update 4: eval_loss",
        "update 4: test_bleu",
    ):
        assert wanted in text, wanted
    assert output == [f"train: output={folder}"]


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    (tmp_path / "my.yaml").write_text(RECIPE)
    return tmp_path / "my.yaml"


def trained(recipe_file: Path, *words: str, callbacks: Any = ()) -> TrainingResult:
    output_dir = str(recipe_file.parent / "out")
    return train(read_recipe(recipe_file, ["--output_dir", output_dir, *words]), callbacks)


@contextmanager
def unconfigured_logging() -> Iterator[logging.Logger]:
    """Take back what another test's command has set up."""
    logger = logging.getLogger("hf_vanilla_transformer")
    before = logger.level, logger.handlers[:]
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()
    try:
        yield logger
    finally:
        logger.setLevel(before[0])
        logger.handlers[:] = before[1]


class Entries(TrainerCallback):
    """Collects the names in the log entries, as an experiment tracker gets them."""

    def __init__(self) -> None:
        self.entries: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Collect the entry."""
        self.entries |= logs


def test_python_shows_the_same_lines_and_trackers_get_the_final_scores(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Entries()
    with unconfigured_logging() as logger:
        result = trained(recipe_file, callbacks=[tracker])
        assert logger.level == logging.NOTSET and not logger.handlers  # as before
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert [line.split()[0] for line in lines if line.split()[0] in HEADER][: len(HEADER)] == HEADER
    assert any(re.match(r"update 2 of 6: .*; validation loss .* \(best so far\)", line) for line in lines)
    assert "Writing model shards" not in shown.err and "Loading weights" not in shown.err
    for split in ("validation", "test"):
        for name in ("bleu", "chrf", "exact", "loss"):
            assert tracker.entries[f"{split}_{name}"] == result.scores[split][name]


def test_a_level_of_the_package_s_logger_hides_the_lines(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with unconfigured_logging() as logger:
        logger.setLevel(logging.ERROR)
        trained(recipe_file)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_one_progress_line_is_updated_in_place(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "can_update_in_place", lambda stream: True)
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_REFRESHES", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    with unconfigured_logging():
        trained(recipe_file, "--disable_tqdm", "false")
    text = capsys.readouterr().err
    assert re.search(
        r"\rupdate 3 of 6: training loss [\d.]+, perplexity [\d.,]+, [\d,]+ target tokens/s, \d+ s left \|", text
    )
    assert "1 batches evaluated" in text
    kept = [line.rpartition("\r")[2] for line in text.split("\n")]  # what is left on the terminal
    assert not any("target tokens/s, " in line for line in kept)
    assert sum(line.startswith("update 6 of 6: ") for line in kept) == 1
    assert sum(line.startswith("update 4 of 6: ") and "; validation loss " in line for line in kept) == 1


def test_progress_shows_the_values_of_the_log(tmp_path: Path) -> None:
    class Compare(TrainerCallback):
        found: list[tuple[Any, dict[str, float]]] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:
                self.found.append((trainer._meter.recent(world_size=1), dict(logs)))
                trainer._meter.end_line(world_size=1)

    trainer = VanillaTransformerTrainer(
        tiny_model(), arguments(tmp_path, max_steps=24, logging_steps=12, max_tokens_per_batch=60), Collator(),
        examples(40), callbacks=[Compare()],
    )  # fmt: skip
    trainer.train()
    assert len(Compare.found) == 2
    for recent, logs in Compare.found:
        assert recent.loss == pytest.approx(logs["loss"])
        assert recent.nll == pytest.approx(logs["nll"])
        assert recent.perplexity == pytest.approx(logs["perplexity"])
        assert 0 < recent.target_tokens_per_second < 2 * logs["tokens_per_second"]  # which counts both sides


def test_saving_shows_no_bar_inside_the_trainer_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = arguments(tmp_path, max_steps=2, save_strategy="steps", save_steps=1, disable_tqdm=False)
    VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40)).train()
    error = capsys.readouterr().err
    assert "2/2" in error and "Writing model shards" not in error


def test_deleting_an_earlier_run_is_one_line(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with unconfigured_logging():
        trained(recipe_file)
        trained(recipe_file, "--overwrite", "true")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("deleting")]
    assert lines == [f"deleting the earlier run in {recipe_file.parent / 'out'}"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_that_is_shown_is_that_of_its_perplexity_with_and_without_label_smoothing(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], smoothing: float
) -> None:
    with unconfigured_logging():
        trained(recipe_file, "--label_smoothing_factor", str(smoothing))
    error = capsys.readouterr().err
    assert ("without the label smoothing of 0.1 that training adds" in error) == bool(smoothing)
    values = re.findall(r"loss ([\d.]+), perplexity ([\d.,]+)", error)
    assert len(values) >= 6
    for loss, perplexity in values:
        assert math.exp(float(loss)) == pytest.approx(float(perplexity.replace(",", "")), rel=0.01)


def test_the_epochs_of_the_header_are_those_of_the_end_and_of_the_record(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with unconfigured_logging():
        result = trained(recipe_file)
    error = capsys.readouterr().err
    planned = re.search(r"^length +6 updates = ([\d.]+) epochs of", error, re.MULTILINE)
    made = re.search(r"^trained +6 updates = ([\d.]+) epochs in", error, re.MULTILINE)
    assert planned and made
    assert planned[1] == made[1] == f"{result.record['training']['epochs']:.3g}"


def test_text_without_problems_is_described_by_its_number_of_pairs() -> None:
    report = CorpusReport("a.en + a.de", pairs_read=2850, pairs_kept=2850, complete=True)
    assert display.describe_text(report) == "2,850 pairs of a.en + a.de"
    report = CorpusReport("150 held-out pairs of a.en + a.de", pairs_read=150, pairs_kept=150, complete=True)
    assert display.describe_text(report) == "150 held-out pairs of a.en + a.de"
    report = CorpusReport(
        "a.en + a.de",
        pairs_read=9,
        pairs_kept=8,
        problems={"empty side": 1},
        examples={"empty side": ["a.en:3"]},
        complete=True,
    )
    assert display.describe_text(report) == str(report)


def test_the_next_command_can_be_pasted_into_a_shell(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hf_vanilla_transformer.training.display"):
        display.show_result(Path("my runs/a"))
    assert caplog.messages[-1].endswith("vanilla-transformer translate 'my runs/a' FILE")


def test_updates_are_listed_with_separators() -> None:
    assert display.listed([160]) == "160" and display.listed([980, 990, 1000]) == "980, 990 and 1,000"


# --------------------------------------------------------------------------- scores


def test_scores_are_a_table_with_the_signatures_below() -> None:
    assert score_table(SCORES) == [
        "            BLEU  chrF  exact   loss  perplexity  sentences",
        "validation  39.9  64.4  7.6 %  1.234         3.4      1,014",
        "test         8.0  30.0  0.0 %  1.500         4.5      1,000",
        "BLEU by sacreBLEU, nrefs:1|tok:13a",
        "chrF by sacreBLEU, nrefs:1|nc:6",
    ]
    assert score_table({}) == [] and score_html({}) == ""


def test_perplexities_have_few_digits() -> None:
    assert [perplexity_text(value) for value in (4.4817, 1234.5, 3.2e9, float("inf"))] == [
        "4.5", "1,234", "3.2e+09", "inf",
    ]  # fmt: skip


def test_a_result_is_one_line_in_python_and_a_table_in_a_notebook() -> None:
    result = TrainingResult(Path("runs/<mine>"), None, None, {"scores": SCORES})  # type: ignore[arg-type]
    assert repr(result) == (
        f"TrainingResult({str(Path('runs/<mine>'))!r}, validation: BLEU 39.9, chrF 64.4, exact 7.6 %, "
        "test: BLEU 8.0, chrF 30.0, exact 0.0 %)"
    )
    page = result._repr_html_()
    assert page.count("<tr>") == 3 and ">39.9<" in page and "BLEU by sacreBLEU, nrefs:1|tok:13a" in page
    assert "runs/&lt;mine&gt;" in page
    assert score_text({"loss": 1.0}) == ""
