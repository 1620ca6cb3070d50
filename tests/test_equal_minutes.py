"""`benchmarks/equal_minutes.py` at tiny sizes, and the parts that decide what it measures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
RECORD_KEYS = {
    "name", "what", "quick", "date", "minutes", "data", "settings", "contenders", "skipped", "hardware", "versions",
    "commit",
}  # fmt: skip
CONTENDER_KEYS = {
    "name", "label", "fixed", "tried", "contender", "purpose", "settings", "seed", "limit_seconds", "planned_updates",
    "updates", "seconds", "updates_per_second", "ended_by", "points", "evaluation_seconds", "parameters", "final",
    "date", "versions", "commit",
}  # fmt: skip


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder's modules, importable as its own script imports them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "equal_minutes.py"), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def read_record(output):
    (path,) = output.glob("equal-minutes-*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == f"equal-minutes-{record['hardware']['kind']}.json"
    return record


def check_contender(found):
    assert found.keys() >= CONTENDER_KEYS and found["name"] == found["contender"]
    assert found["points"][-1]["updates"] == found["updates"] > 0
    minutes = [point["minutes"] for point in found["points"]]
    assert minutes == sorted(minutes)
    for split in ("validation", "test"):
        assert found["final"][split]["bleu"] >= 0 and "tok:none" in found["final"][split]["bleu_signature"]
    assert found["final"]["num_beams"] == 5


@pytest.mark.slow
def test_one_contender_and_then_a_second_in_the_same_work_folder(tmp_path):
    done = run("--quick", "--output", tmp_path, "--only", "torch", "--threads", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "equal_minutes: 1 contenders, 0 skipped"
    record = read_record(tmp_path)
    assert set(record) == RECORD_KEYS and record["quick"] and record["hardware"]["threads"] == 1
    (found,) = record["contenders"]
    check_contender(found)
    assert len({entry["settings"]["learning_rate"] for entry in found["tried"]}) >= 3
    assert found["settings"] in [entry["settings"] for entry in found["tried"]]
    assert (tmp_path / "equal_minutes.png").read_bytes().startswith(b"\x89PNG")

    # What is there isn't run again, a contender of the record is kept, and one that can't run is named.
    elsewhere = {**found, "name": "marian", "label": "from another work folder"}
    (path,) = tmp_path.glob("equal-minutes-*.json")
    path.write_text(json.dumps({**record, "contenders": [elsewhere]}), encoding="utf-8")
    done = run("--quick", "--output", tmp_path, "--only", "torch,joeynmt", "--threads", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "updates planned" not in done.stderr
    assert read_record(tmp_path)["contenders"] == [elsewhere, found]
    assert "skipped: JoeyNMT: no --joeynmt-python" in done.stdout
    done = run("--quick", "--output", tmp_path, "--only", "torch", "--threads", 1, "--seed", 2)
    assert done.returncode == 2 and "has runs with another seed" in done.stderr and "Traceback" not in done.stderr
    settings = json.loads((tmp_path / "work" / "settings.json").read_text(encoding="utf-8"))
    (tmp_path / "work" / "settings.json").write_text(json.dumps({**settings, "processor": "another"}), encoding="utf-8")
    done = run("--quick", "--output", tmp_path, "--only", "torch", "--threads", 1)
    assert done.returncode == 2 and "has runs with another processor" in done.stderr


@pytest.mark.slow
def test_ours_and_marian_run_at_tiny_sizes(tmp_path):
    done = run("--quick", "--output", tmp_path, "--only", "ours,marian", "--threads", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, marian = read_record(tmp_path)["contenders"]
    check_contender(ours)
    check_contender(marian)
    assert ours["tried"] == [] and ours["averaged"] >= 1 and "max_steps" in ours["recipe"]
    runs = tmp_path / "work" / "runs"
    for found in (ours, marian):  # the updates that fill the time, by the pace of the short runs
        screens = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob(f"{found['name']}-screen*.json")]
        pace = sum(screen["updates"] for screen in screens) / sum(screen["seconds"] for screen in screens)
        assert found["planned_updates"] == int(0.95 * 60 * 0.05 * pace)
    assert marian["settings"]["sentences"] == 64
    assert [row.split("  ")[0] for row in done.stdout.splitlines()[1:3]] == [ours["label"], marian["label"]]


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own_writes_its_record_when_it_is_complete(tmp_path, benchmarks):
    from contenders.job import Job
    from contenders.task import find_text, prepare

    prepare(tmp_path / "task", find_text(None, quick=True), ("en", "ko"), 400)
    sizes = {
        "d_model": 16, "d_ff": 32, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.1,
    }  # fmt: skip
    settings = {"tokens": 512, "learning_rate": 0.002, "precision": "fp32", "attention": "math"}
    Job("torch", "screen", 20.0, 5, [], settings, sizes, str(tmp_path / "task"), str(tmp_path / "run"), 1).write(
        tmp_path / "job"
    )
    done = run("--job", tmp_path / "job", tmp_path / "record.json", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert (record["updates"], record["ended_by"]) == (5, "updates") and len(record["points"]) == 1
    assert "5 updates" in done.stdout


def test_contenders_of_the_record_are_kept_if_their_settings_are_the_same(tmp_path, benchmarks):
    from equal_minutes import Unusable, _all_contenders, _earlier

    settings = {"minutes": 30.0, "seed": 1, "text": "abc", "processor": "X"}
    path = tmp_path / "equal-minutes-neither.json"
    assert _earlier(path, settings, ["ours"]) == {}
    contenders = [{"name": "ours", "seed": 1}, {"name": "joeynmt", "seed": 1}]
    record = {
        "settings": {"minutes": 30.0, "seed": 1}, "data": {"sha256": "abc"}, "hardware": {"processor": "X"},
        "contenders": contenders,
    }  # fmt: skip
    path.write_text(json.dumps(record), encoding="utf-8")
    kept = _earlier(path, settings, ["ours", "torch"])
    assert kept == {"joeynmt": contenders[1]}
    (tmp_path / "ours.json").write_text('{"name": "ours", "seed": 7}', encoding="utf-8")
    assert _all_contenders(tmp_path, kept) == [{"name": "ours", "seed": 7}, contenders[1]]  # in the picture's order

    for changed in ("seed", "text", "processor"):
        with pytest.raises(Unusable, match=f"has ours, joeynmt with another {changed}; run these as well, or give"):
            _earlier(path, {**settings, changed: 2}, ["torch"])
    assert _earlier(path, {**settings, "seed": 2}, ["ours", "joeynmt"]) == {}  # all are replaced
    for broken in ("{", "[]", '{"contenders": []}'):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(Unusable, match="is not a record of this benchmark"):
            _earlier(path, settings, ["ours"])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_sentence_of_the_torch_contender_does_not_change_after_its_end(num_beams, benchmarks):
    """Others of its batch are still searched then."""
    from contenders.torch_loop import beam_search

    class Scripted:
        """After as many tokens as the source's first id, the EOS token 2 is the likeliest, before that token 5."""

        def encode(self, source):
            return source

        def decode(self, prefixes, memory, source):
            ends = prefixes.shape[1] >= memory[:, 0]
            return ends.long()[:, None].expand(-1, prefixes.shape[1])

        def logits(self, ends):
            # Log-probabilities are near 0 from the end on, so that a hypothesis that began there would be the best.
            going_on, at_end = torch.tensor([-9.0, -9, 0, 2, 1, 3]), torch.tensor([-9.0, -9, 9, 0, 0, 1])
            return torch.where(ends[:, None] == 1, at_end, going_on)

        pad = 0

    class Ids:
        bos_token_id, eos_token_id = 1, 2

        def __len__(self):
            return 6

    class Texts:
        tokenizer = Ids()

    source = torch.tensor([[2, 9], [7, 9], [4, 9]])
    together = beam_search(Scripted(), Texts(), source, num_beams, 1.0)
    alone = [beam_search(Scripted(), Texts(), source[row : row + 1], num_beams, 1.0)[0] for row in range(3)]
    assert together == alone
    assert [len(found) for found in together] == [1, 6, 3]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "weather"], "there is no contender weather"),
        (["--quick"], "give --output"),
        (["--minutes", "0"], "--minutes 0 trains nothing"),
        (["--threads", "100000"], "--threads 100000: there are"),
    ],
    ids=["unknown", "quick", "minutes", "threads"],
)
def test_wrong_options_are_refused(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_missing_text_is_reported(tmp_path):
    done = run("--data", tmp_path, "--work", tmp_path / "work", "--output", tmp_path)
    assert done.returncode == 2 and "VANILLA_TRANSFORMER_DATA" in done.stderr and "Traceback" not in done.stderr


def test_the_best_learning_rate_is_not_an_end_of_the_row(benchmarks):
    from equal_minutes import MOST_RATES, best_rate

    tried = []

    def bleu(best):
        def score(rate):
            tried.append(rate)
            return 30 - abs(rate - best), 0.0

        return score

    assert best_rate([1, 2, 4], bleu(2)) == 2 and tried == [1, 2, 4]
    tried.clear()
    assert best_rate([1, 2, 4], bleu(8)) == 8 and tried == [1, 2, 4, 8, 16]
    tried.clear()
    assert best_rate([1, 2, 4], bleu(1000)) == 16 and len(tried) == MOST_RATES
    tried.clear()
    assert best_rate([1, 2, 4], bleu(1)) == 1 and tried == [1, 2, 4, 0.5]


def test_runs_of_very_low_bleu_are_ranked_by_their_loss(benchmarks):
    from equal_minutes import _quality

    points = [(12.0, 4.0), (6.0, 3.5), (0.2, 4.5), (0.4, 4.6), (0.3, None)]  # best first
    ranks = [_quality({"bleu": bleu, "loss": loss}) for bleu, loss in points]
    assert ranks == sorted(ranks, reverse=True)


def test_the_clock_counts_training_only(benchmarks, monkeypatch):
    from contenders import job

    now = [100.0]
    monkeypatch.setattr(job.time, "perf_counter", lambda: now[0])
    clock = job.TrainingClock()
    now[0] = 110.0
    with clock.paused():
        now[0] = 150.0
    assert clock.seconds == 10.0
    clock.discount(4.0)
    assert (clock.seconds, clock.paused_seconds) == (6.0, 44.0)


def make_job(**fields):
    from contenders.job import Job

    defaults = {
        "contender": "torch", "purpose": "final", "seconds": 100.0, "updates": 50, "points": [10.0, 20.0],
        "settings": {}, "architecture": {}, "task": "", "folder": "", "seed": 1,
    }  # fmt: skip
    return Job(**{**defaults, **fields})


def test_points_lie_at_fixed_times_and_the_pace_leaves_out_the_start(benchmarks, capsys):
    from contenders.job import Measurements

    measurements = Measurements(make_job(), lambda translations: float(len(translations)))
    assert not measurements.after_update(1, 9.0) and not measurements.point_is_due
    assert not measurements.after_update(2, 21.0) and measurements.point_is_due
    measurements.add_point(["a", "b"], tokens=200, loss=5.0)
    assert not measurements.point_is_due  # a slow update has passed both points
    assert measurements.after_update(42, 101.0)
    record = measurements.record(parameters=7)
    assert record["points"] == [{"minutes": 0.35, "updates": 2, "tokens": 200, "loss": 5.0, "bleu": 2.0}]
    assert record["updates_per_second"] == 0.5  # 40 updates in the 80 seconds after the first fifth
    assert (record["ended_by"], record["updates"], record["parameters"]) == ("time limit", 42, 7)
    measurements.after_update(50, 99.0)
    assert measurements.record()["ended_by"] == "updates"


def test_trainers_own_evaluation_is_left_out(benchmarks, monkeypatch, capsys):
    from types import SimpleNamespace

    from contenders import job

    now = [0.0]
    monkeypatch.setattr(job.time, "perf_counter", lambda: now[0])
    measurements = job.Measurements(make_job(points=[8.0]), lambda translations: 1.0)

    def translate(model):
        now[0] += 5.0
        return ["x"]

    monkeypatch.setattr(job, "weights_copy", lambda model: model)
    budget = job.TrainerBudget(measurements, translate, tokens_per_epoch=1000)
    state = SimpleNamespace(global_step=0, epoch=0.5)
    arguments, control = SimpleNamespace(max_steps=50), SimpleNamespace(should_training_stop=False)
    budget.on_train_begin(arguments, state, control)
    state.global_step, now[0] = 1, 4.0
    budget.on_step_end(arguments, state, control, model=None)
    budget.on_log(arguments, state, control, logs={"loss": 3.0})
    now[0] = 24.0  # 20 seconds of evaluation
    budget.on_log(arguments, state, control, logs={"eval_loss": 2.0})
    budget.on_evaluate(arguments, state, control)
    assert budget.clock.seconds == 4.0
    state.global_step, now[0] = 2, 29.0  # 5 seconds more
    budget.on_step_end(arguments, state, control, model=None)  # a point, whose 5 seconds aren't counted
    assert budget.clock.seconds == 9.0
    assert measurements.points == [{"minutes": 0.15, "updates": 2, "tokens": 500, "loss": 3.0, "bleu": 1.0}]
    state.global_step, now[0] = 3, 34.0 + 100.0
    budget.on_step_end(arguments, state, control, model=None)
    assert control.should_training_stop


def test_the_recipe_is_scaled_to_the_updates_that_fit_the_minutes(benchmarks):
    from contenders.ours import RECIPE
    from recipe_lengths import scaled_to

    from hf_vanilla_transformer import read_recipe

    recipe = read_recipe(RECIPE)
    same = scaled_to(recipe.training.max_steps, recipe)
    assert same["max_steps"] == recipe.training.max_steps and same["cooldown_steps"] == recipe.training.cooldown_steps
    assert same["warmup_steps"] == recipe.training.warmup_steps and same["save_steps"] == recipe.training.save_steps
    half = scaled_to(recipe.training.max_steps // 2, recipe)
    assert half["cooldown_steps"] == round(recipe.training.cooldown_steps / 2)
    for key in ("save_steps", "eval_steps"):
        assert same[key] == getattr(recipe.training, key) and half[key] == same[key] // 2
    assert scaled_to(50, recipe)["warmup_steps"] == 12  # a quarter of the run
    assert scaled_to(50, recipe, longest_warmup=0.1)["warmup_steps"] == 5
    words = [word for key, value in scaled_to(50, recipe).items() for word in (f"--{key}", str(value))]
    assert read_recipe(RECIPE, words).training.max_steps == 50  # the scaled settings fit together
    recipe.training.max_steps = -1
    with pytest.raises(ValueError, match="no max_steps"):
        scaled_to(50, recipe)


def test_the_schedule_of_the_plain_loop_rises_and_falls_linearly(benchmarks):
    from contenders.torch_loop import schedule

    assert [schedule(update, 2, 6) for update in range(1, 8)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_batches_of_the_plain_loop_have_at_most_so_many_positions_and_every_sentence_once(tmp_path, benchmarks):
    from contenders.task import Task, find_text, prepare
    from contenders.torch_loop import batches

    text = find_text(None, quick=True)
    prepare(tmp_path, text, ("en", "ko"), 400)
    task = Task.load(tmp_path)
    assert task.languages == ("en", "ko") and task.lines("test", 1) == text["test"][1]
    seen = 0
    for source, target in batches(task, 256, seed=1):
        assert max(source.numel(), target.numel()) <= 256 and len(source) == len(target)
        seen += len(source)
        if seen >= 300:
            break
    assert seen == 300
    assert task.scores("test", text["test"][1])["bleu"] == pytest.approx(100.0)


def test_beam_search_of_the_plain_loop_finds_the_likeliest_translations(tmp_path, benchmarks, monkeypatch):
    import torch
    from contenders import torch_loop
    from contenders.task import Task, find_text, prepare
    from contenders.torch_loop import Translator, beam_search

    prepare(tmp_path, find_text(None, quick=True), ("en", "ko"), 400)
    task = Task.load(tmp_path)
    torch.manual_seed(0)
    sizes = {
        "d_model": 8, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0,
    }  # fmt: skip
    model = Translator(sizes, len(task.tokenizer), task.tokenizer.pad_token_id).eval()
    source = torch.tensor([[5, 6, 7, 2], [8, 9, 2, 0]])

    def log_probability(row, ids):
        target = torch.tensor([[1, *ids]])
        logits = model(source[row : row + 1], target)[0].log_softmax(-1)
        return sum(logits[place, token].item() for place, token in enumerate([*ids, 2]))

    monkeypatch.setattr(torch_loop, "MAX_EXTRA_TOKENS", 10)
    with torch.inference_mode():
        greedy, best = beam_search(model, task, source, 1, 0.0), beam_search(model, task, source, 5, 0.0)
        for row in range(2):
            assert log_probability(row, best[row]) >= log_probability(row, greedy[row]) - 1e-4
        torch_loop.MAX_EXTRA_TOKENS += 1  # the limit counts the positions of the sources, which are one fewer
        alone = beam_search(model, task, source[1:, :3], 5, 0.0)
    assert alone[0] == best[1]  # padding changes nothing


def test_the_length_penalty_is_chosen_on_validation(benchmarks):
    from contenders.job import best_length_penalty

    found = best_length_penalty(
        lambda split, penalty: [split, str(penalty)],
        lambda split, translations: {"bleu": {"0.6": 3.0, "1.0": 5.0, "1.4": 4.0}[translations[1]], "of": translations},
        (0.6, 1.0, 1.4),
        num_beams=5,
    )
    assert (found["length_penalty"], found["test"]["of"]) == (1.0, ["test", "1.0"])
    assert found["length_penalties_tried"] == {"0.6": 3.0, "1.0": 5.0, "1.4": 4.0}


def test_a_program_ends_with_the_block_that_started_it(benchmarks):
    from contenders.processes import call, started

    with started([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        assert process.poll() is None
    assert process.poll() is not None
    assert call([sys.executable, "-c", "raise SystemExit(3)"]) == 3


JOEYNMT_LOG = """\
2026-01-01 10:00:00,000 - INFO - joeynmt.model - Total params: 2094848
2026-01-01 10:00:05,000 - INFO - joeynmt.training - EPOCH 1
2026-01-01 10:00:15,000 - INFO - joeynmt.training - Epoch   1, Step:       10, Batch Loss:     5.500000, \
Batch Acc: 0.1, Tokens per Sec:     1000, Lr: 0.000100
2026-01-01 10:00:25,000 - INFO - joeynmt.training - Epoch   1, Step:       20, Batch Loss:     5.000000, \
Batch Acc: 0.1, Tokens per Sec:     1000, Lr: 0.000200
2026-01-01 10:00:25,001 - INFO - joeynmt.prediction - Predicting 12 example(s)... (Greedy decoding with ...)
2026-01-01 10:00:45,000 - INFO - joeynmt.prediction - Generation took 20.0[sec].
2026-01-01 10:00:45,500 - INFO - joeynmt.training - Hooray! New best validation result [bleu]!
2026-01-01 10:00:46,001 - INFO - joeynmt.training - 	Hypothesis: a b
"""


def test_the_log_of_joeynmt_is_read_without_its_validations(benchmarks):
    from contenders.joeynmt import read_log

    state = read_log(JOEYNMT_LOG)
    assert state.validating and state.validations == [pytest.approx(20.001)]
    assert [(step, loss) for step, _, loss in state.steps] == [(10, 5.5), (20, 5.0)]
    assert state.tokens_per_update == 1000  # 10 seconds with 1,000 tokens each for 10 updates
    assert state.seconds(now=state.started + 1000) == pytest.approx(20.001)  # the clock stands still
    after = JOEYNMT_LOG + (
        "2026-01-01 10:00:50,001 - INFO - joeynmt.training - Epoch   1, Step:       30, Batch Loss:     4.0, "
        "Batch Acc: 0.1, Tokens per Sec:     1000, Lr: 0.0003\n"
        "2026-01-01 10:00:50,002 - INFO - joeynmt.training - Epoch   1, total training loss: 9.0, num. of seqs: 9, "
        "num. of tokens: 15000, 9.0[sec]\n"
    )
    state = read_log(after)
    assert not state.validating and state.paused == pytest.approx(21.0)
    assert state.steps[-1][:2] == (30, pytest.approx(24.001))
    assert state.tokens_per_update == 500


@pytest.mark.skipif("JOEYNMT_PYTHON" not in os.environ, reason="set JOEYNMT_PYTHON: Python with JoeyNMT")
@pytest.mark.slow
def test_joeynmt_runs_at_tiny_sizes(tmp_path):
    program = os.environ["JOEYNMT_PYTHON"]
    done = run("--quick", "--output", tmp_path, "--only", "joeynmt", "--threads", 1, "--joeynmt-python", program)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = read_record(tmp_path)["contenders"]
    check_contender(found)
    assert found["versions"]["joeynmt"] == "2.3.0"


def test_an_environment_without_joeynmt_is_reported(benchmarks):
    from contenders.joeynmt import problem

    assert problem(None).startswith("JoeyNMT: no --joeynmt-python")
    assert "cannot be started" in problem("/nowhere/python")
    without = shutil.which("python3")
    if without is not None:
        assert problem(without) is None or "JoeyNMT" in problem(without)


def test_labels_of_lines_that_end_together_are_moved_apart(benchmarks):
    from contenders.picture import label_places

    assert label_places([10.0, 20.0], 2.0) == [10.0, 20.0]
    assert label_places([11.0, 10.0], 2.0) == [11.5, 9.5]
    moved = label_places([10.0, 10.5, 11.0, 30.0], 2.0)
    assert moved == [8.5, 10.5, 12.5, 30.0]
    assert label_places([], 2.0) == []


def test_the_picture_has_a_labelled_line_for_each_contender(benchmarks):
    from contenders.picture import STYLES, draw

    contenders = [
        {
            "name": name,
            "label": f"contender {name}",
            "points": [{"minutes": 2.5, "bleu": 10.0 + rank}, {"minutes": 5.0, "bleu": 20.0 + rank}],
            "final": {"test": {"bleu": 21.25}},
        }
        for rank, name in enumerate(STYLES)
    ]
    record = {
        "contenders": contenders,
        "minutes": 5.0,
        "data": {"name": "text"},
        "hardware": {"threads": 2, "processor": "CPU"},
    }
    (axes,) = draw(record).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.0, 10.0 + rank, 20.0 + rank] for rank in range(4)]
    assert [text.get_text() for text in axes.texts] == [f"contender {name}\ntest 21.2 BLEU (beam 5)" for name in STYLES]
    assert axes.get_xlim() == (0.0, 5.0)
