"""`make bench` at tiny sizes: every measurement runs, the results files have their form, the table agrees with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
ROW_KEYS = {
    "measure", "ours", "peer", "peer_name", "unit", "ratio", "goal", "met", "median", "better", "note", "runs",
}  # fmt: skip
RESULT_KEYS = {
    "name", "what", "quick", "date", "precision", "hardware", "versions", "commit", "settings", "rows", "skipped",
    "profile",
}  # fmt: skip


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder's modules, importable as its own script imports them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


def check_result(result):
    """The form that README's table is rendered from."""
    assert set(result) == RESULT_KEYS
    assert result["rows"] and result["what"].endswith(".")
    assert result["hardware"]["processor"] and result["hardware"]["cores"] >= 1
    assert {"hf_vanilla_transformer", "torch", "transformers", "python"} <= set(result["versions"])
    for row in result["rows"]:
        assert set(row) == ROW_KEYS
        ours, peer = row["runs"]["ours"], row["runs"]["peer"]
        best = max if row["better"] == "higher" else min
        assert row["ours"] == best(ours) and row["peer"] == (best(peer) if peer else None), row
        assert row["unit"] and row["measure"]


def check_table(text, results):
    for row in (row for result in results for row in result["rows"]):
        assert any(row["measure"] in line and (row["goal"] or "") in line for line in text.splitlines()), row["measure"]


@pytest.mark.slow
def test_every_measurement_runs_and_writes_its_results(tmp_path):
    done = run("--quick", "--output", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(tmp_path.glob("bench-*.json"))]
    expected = {
        "import_time", "training_step", "memory", "training_loop", "decoding", "translating", "attention_kernels",
        "optimizations",
    }  # fmt: skip
    assert {result["name"] for result in results} == expected
    for result in results:
        check_result(result)
    check_table(done.stdout, results)
    step = next(result for result in results if result["name"] == "training_step")
    for floor in step["profile"]["floor"].values():
        assert floor["seconds"] == pytest.approx(floor["seconds_of_products"] + floor["seconds_of_traffic"])
    decoding = next(result for result in results if result["name"] == "decoding")
    for floor in decoding["profile"]["floor"].values():
        assert floor["seconds"] == max(floor["seconds_of_products"], floor["seconds_of_traffic"])
        assert floor["bytes"] % {"fp32": 4, "bf16": 2, "int8": 1}[floor["precision"]] == 0
        assert 0 < floor["seconds_of_products"] != floor["seconds_of_traffic"] > 0
    translating = next(result for result in results if result["name"] == "translating")
    for floor in translating["profile"]["floor"].values():
        assert floor["seconds"] == pytest.approx(floor["operations"] / floor["matrix_rate"], rel=1e-3)
    for profile in (step["profile"], decoding["profile"], translating["profile"]):
        assert profile["operators"] and all(operators for operators in profile["operators"].values())
    assert done.stdout.splitlines()[-1].startswith(f"bench: {len(expected)} measured, ")


def test_one_measurement_by_name(tmp_path):
    done = run("--quick", "--only", "training_step", "--output", tmp_path, "--rounds", "3")
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == f"bench-training-step-{result['hardware']['kind']}.json"
    check_result(result)
    check_table(done.stdout, [result])
    assert all(len(runs) == 3 for row in result["rows"] for runs in row["runs"].values())
    assert f"precision of the headline: {result['precision']['headline']} (" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "weather"], "there is no measurement weather"),
        (["--quick"], "give --output"),
        (["--quick", "--output", "x", "--rounds", "0"], "--rounds 0 measures nothing"),
    ],
    ids=["unknown", "quick", "rounds"],
)
def test_wrong_options_are_refused(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_the_training_loop_is_skipped_visibly_without_its_data(tmp_path, benchmarks):
    import training_loop
    from side_by_side import Options, Skipped

    with pytest.raises(Skipped, match="VANILLA_TRANSFORMER_DATA"):
        training_loop.measure(Options(False, "fp32", "", data=tmp_path))


def test_translating_is_skipped_visibly_without_text_or_checkpoint(tmp_path, benchmarks):
    import translating
    from side_by_side import Options, Skipped

    with pytest.raises(Skipped, match="no test_2016_flickr.en of Multi30k; .* VANILLA_TRANSFORMER_DATA"):
        translating.measure(Options(False, "fp32", "", data=tmp_path))
    folder = tmp_path / "multi30k" / "lc.norm.tok"
    folder.mkdir(parents=True)
    for language in ("en", "de"):
        (folder / f"test_2016_flickr.{language}").write_text("a\n", encoding="utf-8")
    with pytest.raises(Skipped, match="no trained model in .*missing; .* VANILLA_TRANSFORMER_CHECKPOINT"):
        translating.measure(Options(False, "fp32", "", data=tmp_path, checkpoints=[tmp_path / "missing"]))


def test_rows_compare_best_runs_and_judge_their_goal(benchmarks):
    from side_by_side import Goal, Row

    faster = Row("step", "s", [2.0, 1.0, 1.5], [3.0, 4.0], "peer", "lower", goal=Goal(least=2.5)).as_dict()
    assert (faster["ours"], faster["peer"], faster["ratio"], faster["met"]) == (1.0, 3.0, 3.0, True)
    assert faster["median"] == {"ours": 1.5, "peer": 3.5, "ratio": pytest.approx(3.5 / 1.5, rel=1e-5)}
    speed = Row("speed", "tokens/s", [10.0, 30.0], [20.0], "peer", goal=Goal(least=2.5)).as_dict()
    assert (speed["ratio"], speed["met"], speed["goal"]) == (1.5, False, "≥ 2.5×")
    memory = Row("memory", "MiB", [60.0], [80.0], "peer", "lower", share=True, goal=Goal(most=0.75)).as_dict()
    assert (memory["ratio"], memory["met"], memory["goal"]) == (0.75, True, "≤ 0.75×")
    added = Row("import", "s", [3.1], [3.0], "peer", "lower", share=True, goal=Goal("difference", most=0.2)).as_dict()
    assert (added["met"], added["goal"]) == (True, "peer + ≤ 0.2 s")
    kept = Row("BLEU", "BLEU", [40.0], [40.05], "fp32", goal=Goal("difference", least=-0.1)).as_dict()
    assert (kept["met"], kept["goal"]) == (True, "≥ peer − 0.1 BLEU")
    alone = Row("loss", "MiB", [65.0], goal=Goal("ours", most=64)).as_dict()
    assert (alone["peer"], alone["ratio"], alone["met"]) == (None, None, False)


def test_contenders_take_turns(benchmarks):
    from side_by_side import take_turns

    calls = []
    seconds = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warm_up=1)
    assert calls == ["a", "b"] * 3
    assert {name: len(runs) for name, runs in seconds.items()} == {"a": 2, "b": 2}


def test_growth_exponent_of_lines_and_squares(benchmarks):
    pytest.importorskip("resource", reason="the memory benchmark needs POSIX's resource module")
    from memory import growth_exponent

    lengths = [64, 128, 256, 512]
    assert growth_exponent(lengths, [1e6 + 500.0 * length for length in lengths]) == pytest.approx(1.0)
    # (T − T₀)² behind a constant has the exponent 2 exactly.
    assert growth_exponent(lengths, [1e6 + 7.0 * (length - 64) ** 2 for length in lengths]) == pytest.approx(2.0)


def test_operations_of_a_step_are_three_forward_passes_of_products(benchmarks):
    from training_step import base_config, step_floor, step_operations

    config = base_config(quick=True)  # one layer each, d_model 32, d_ff 64, V 500
    rows, length, d, d_ff, vocab = 4, 8, 32, 64, 500
    # A position passes 4 (encoder), 4 + 4 (decoder) attention matrices d × d, twice two matrices d × d_ff, one d × V;
    # each of three attentions makes two products with S = T = 8 keys of d numbers.
    per_position = 12 * d * d + 2 * 2 * d * d_ff + d * vocab + 3 * 2 * length * d
    assert step_operations(config, rows, length) == 3 * 2 * per_position * rows * length
    floor = step_floor(config, operations=1e9, precision="fp32", rate=2e9, bandwidth=1e9)
    assert floor["seconds_of_products"] == 0.5
    assert floor["bytes_of_parameters_moved"] == 32 * config.count_parameters()


def test_products_of_a_search_are_all_counted(benchmarks):
    """torch's counter ignores two operators that a search on the CPU uses."""
    import torch
    from decoding import count_operations

    states, weight = torch.randn(3, 5, 16), torch.randn(40, 16)
    linear = torch.nn.functional.linear
    assert count_operations(lambda: linear(states, weight)) == 2 * 15 * 16 * 40
    if torch.backends.mkldnn.is_available():
        with torch.no_grad():
            onednn = torch.ops.mkldnn._linear_pointwise
            assert count_operations(lambda: onednn(states, weight, None, "none", [], "")) == 2 * 15 * 16 * 40
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 10, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert count_operations(lambda: attention(query, key, key)) == 2 * 2 * (2 * 4 * 6 * 10 * 8)


def test_processors_are_of_three_kinds(benchmarks):
    from machine import KINDS, kind_of

    assert kind_of({"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8"}) == "amx"
    assert kind_of({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}) == "avx512-bf16"
    assert kind_of({"avx2", "avx512f", "avx512_vnni"}) == kind_of(set()) == "neither"
    assert {kind_of(units) for units in ({"amx_bf16"}, {"avx512_bf16"}, ())} == set(KINDS)


def test_the_shapes_where_a_rule_selects_the_slower_attention_kernel_are_listed(benchmarks):
    from attention_kernels import Shape, Timing, disagreements

    short, long = (Shape("training", "fp32", 1024 // keys, 4, 32, keys, keys) for keys in (16, 256))
    close = Shape("search", "fp32", 1, 4, 32, 1, 64)
    timings = [Timing(short, 10.0, 20.0), Timing(long, 300.0, 100.0), Timing(close, 1.05, 1.0)]
    assert disagreements(timings, lambda shape: shape.keys <= 64) == []  # 5 % is noise
    (wrong,) = disagreements(timings, lambda shape: False)
    assert (wrong.timing.shape, wrong.plain, wrong.loss) == (short, False, 2.0)
    assert [choice.timing.shape for choice in disagreements(timings, lambda shape: not shape.keys <= 64)] == [
        long,
        short,
    ]
    assert Timing.from_dict(timings[0].as_dict()) == timings[0]
    query, key = Shape("search", "bf16", 2, 3, 8, 5, 7).query_and_key()
    assert (query.shape, key.shape, str(query.dtype)) == ((2, 3, 5, 8), (2, 3, 7, 8), "torch.bfloat16")


def test_both_attention_kernels_compute_the_same(benchmarks):
    import torch
    from attention_kernels import Shape, all_shapes, call, fused_attention, plain_attention

    assert len(set(all_shapes(quick=False))) == len(all_shapes(quick=False))
    for use in ("training", "encoding", "search"):
        results = []
        for attention in (plain_attention, fused_attention):
            torch.manual_seed(0)
            result = call(attention, Shape(use, "fp32", 2, 3, 8, 5, 7))()
            results.append(result if isinstance(result, tuple) else (result,))
        torch.testing.assert_close(*results)
