"""`vanilla-transformer check`: a correct installation passes, and each fault fails the checks of its topic."""

import functools
import json
import random
import socket
import time

import numpy
import pytest
import torch
from torch.nn import functional
from transformers import EncoderDecoderCache
from transformers.utils import logging

from hf_vanilla_transformer import BeamSearchConfig, check_installation
from hf_vanilla_transformer.cli import main
from hf_vanilla_transformer.model import attention_vanilla_transformer as attention_file
from hf_vanilla_transformer.model import beam_search_vanilla_transformer as beam_search
from hf_vanilla_transformer.model import dropout_vanilla_transformer as dropout_file
from hf_vanilla_transformer.model import layers_vanilla_transformer as layers
from hf_vanilla_transformer.model import loss_vanilla_transformer as losses
from hf_vanilla_transformer.model import modeling_vanilla_transformer as modeling
from hf_vanilla_transformer.self_check import comparison, installation, measurement, runner, small_model
from hf_vanilla_transformer.self_check.check import Check, Skipped

LOSSES = {"loss_fp64", "loss_fp32", "loss_bf16_autocast", "loss_bf16", "loss_fp16"}
CPU = torch.device("cpu")
Model = modeling.VanillaTransformerForConditionalGeneration


def failed(report):
    return {result.name for result in report.failed}


# --------------------------------------------------------------------------- a correct installation


def test_a_correct_installation_passes_every_check_in_seconds_without_network_or_files(monkeypatch, tmp_path):
    def refuse(*arguments):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    report = check_installation("cpu")
    assert time.process_time() - start < 30  # seconds; about 2 on the slowest machine so far
    assert report.passed, str(report)
    assert {result.name for result in report.results if result.status == "skipped"} <= {"versions", "loss_fp16"}
    assert {result.name for result in report.results} > LOSSES
    assert list(tmp_path.iterdir()) == []


def test_the_small_model_has_no_near_ties_and_ends_some_sentences_early():
    """Tokens can be compared exactly only if rounding never decides between two of them."""
    model = small_model.small_model(CPU)
    source, mask = small_model.pad(small_model.SOURCES, CPU)
    written = small_model.greedy_by_full_passes(model, source, mask)
    with torch.no_grad():
        best = model(source, mask, decoder_input_ids=written[:, :-1]).logits.topk(2).values
    rounding = comparison.LONGEST_PATH * torch.finfo(torch.float32).eps * best.max()
    assert (best[..., 0] - best[..., 1]).min() > 20 * rounding
    lengths = {len(row) for row in comparison.until_end(written)}
    assert min(lengths) < 10 and max(lengths) == small_model.MAX_TOKENS and len(lengths) > 1


def test_the_checks_restore_the_callers_state_and_do_not_depend_on_it():
    def state():
        return [
            torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist(),
            torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision(), logging.is_progress_bar_enabled(),
        ]  # fmt: skip

    logging.enable_progress_bar()
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.device("meta"), torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            before = state()
            report = check_installation("cpu")
            assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
    assert report.passed, str(report)


# --------------------------------------------------------------------------- faults


def swallowed_cache(monkeypatch):
    """transformers 5.24 passed the cache as `cache`, and a forward with **kwargs ignored it."""
    original = Model.forward

    @functools.wraps(original)
    def forward(self, *arguments, cache=None, past_key_values=None, **options):
        return original(self, *arguments, **options)

    monkeypatch.setattr(Model, "forward", forward)


def positions_that_restart(monkeypatch):
    original = modeling.VanillaTransformerStack.add_positions

    def add_positions(self, embeddings, attention_mask, past_length=0):
        if attention_mask is not None:
            attention_mask = attention_mask[:, -embeddings.shape[1] :]
        return original(self, embeddings, attention_mask, 0)

    monkeypatch.setattr(modeling.VanillaTransformerStack, "add_positions", add_positions)


def stale_cross_attention(monkeypatch):
    """Keys and values of the source are those of the first batch of the same shape."""
    original, seen = modeling.VanillaTransformerAttention.forward, {}

    @functools.wraps(original)
    def forward(self, query_states, key_value_states=None, attention_mask=None, **options):
        if key_value_states is not None and (options.get("cache") or options.get("past_key_values")) is not None:
            key_value_states = seen.setdefault((self.layer_idx, key_value_states.shape), key_value_states)
        return original(self, query_states, key_value_states, attention_mask, **options)

    monkeypatch.setattr(modeling.VanillaTransformerAttention, "forward", forward)


def beams_without_their_past(monkeypatch):
    monkeypatch.setattr(EncoderDecoderCache, "reorder_cache", lambda self, beam_idx: None)


def wrong_length_in_search(monkeypatch):
    """The EOS token is not counted, in the search and in `score_targets` alike."""
    original = BeamSearchConfig.length_divisor
    monkeypatch.setattr(BeamSearchConfig, "length_divisor", lambda config, length: original(config, length - 1))


def search_past_its_limit(monkeypatch):
    original = beam_search.paper_beam_search

    def search(model, source, mask, config):
        return original(model, source, mask, config.replace(max_extra_tokens=config.max_extra_tokens + 5))

    monkeypatch.setattr(beam_search, "paper_beam_search", search)


def search_that_is_not_greedy(monkeypatch):
    original = beam_search.paper_beam_search

    def search(model, source, mask, config):
        return original(model, source, mask, config.replace(num_beams=max(config.num_beams, 2)))

    monkeypatch.setattr(beam_search, "paper_beam_search", search)


def ignored_encoder_mask(monkeypatch):
    original = modeling.VanillaTransformerEncoder.forward

    @functools.wraps(original)
    def forward(self, input_ids=None, attention_mask=None, **options):
        return original(self, input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **options)

    monkeypatch.setattr(modeling.VanillaTransformerEncoder, "forward", forward)


def wrong_attention_kernel(monkeypatch):
    original = attention_file.eager_attention_forward

    def attention(*arguments, scaling=None, **options):
        return original(*arguments, scaling=1.01 * scaling, **options)

    monkeypatch.setattr(attention_file, "eager_attention_forward", attention)


def ignored_num_items_in_batch(monkeypatch):
    original = Model.forward

    @functools.wraps(original)
    def forward(self, *arguments, num_items_in_batch=None, **options):
        return original(self, *arguments, **options)

    monkeypatch.setattr(Model, "forward", forward)


def dropout_in_evaluation(monkeypatch):
    monkeypatch.setattr(
        dropout_file.Dropout, "forward", lambda self, states: functional.dropout(states, self.p, training=True)
    )


def dropout_that_drops_nothing(monkeypatch):
    monkeypatch.setattr(dropout_file.Dropout, "forward", lambda self, states: states)


class RoundedSoftmax(torch.autograd.Function):
    """Cross-entropy whose gradient is P, rounded to the dtype of the logits, minus the target."""

    @staticmethod
    def forward(ctx, logits, labels, smoothing):
        real = labels != losses.IGNORE_INDEX
        gradient = logits.softmax(dim=-1) - smoothing / logits.shape[-1]
        gradient[real] -= (1 - smoothing) * functional.one_hot(labels[real], logits.shape[-1]).to(logits.dtype)
        gradient[~real] = 0.0
        ctx.save_for_backward(gradient)
        loss, nll = losses.token_cross_entropy(logits, labels, smoothing)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx, grad_loss, _):
        return ctx.saved_tensors[0] * grad_loss, None, None


def rounded_softmax(monkeypatch):
    def loss(hidden, weight, bias, labels, label_smoothing=0.0):
        logits = functional.linear(hidden, weight, bias).flatten(0, -2)
        with torch.autocast("cpu", enabled=False):  # it computes a softmax in fp32
            return RoundedSoftmax.apply(logits, labels.flatten(), label_smoothing)

    monkeypatch.setattr(losses, "linear_cross_entropy", loss)


def ignored_label_smoothing(monkeypatch):
    original = losses.token_cross_entropy
    monkeypatch.setattr(losses, "token_cross_entropy", lambda logits, labels, smoothing: original(logits, labels))


def weights_changed_on_loading(monkeypatch):
    """One weight differs in its last bit."""
    original = Model.from_pretrained.__func__

    def from_pretrained(cls, *arguments, **options):
        model, info = original(cls, *arguments, **options)
        with torch.no_grad():
            weight = model.model.decoder.layers[-1].feed_forward.w_1.weight
            weight[0, 0] = weight[0, 0].nextafter(torch.tensor(9.0))
        return model, info

    monkeypatch.setattr(Model, "from_pretrained", classmethod(from_pretrained))


def unfilled_buffers(monkeypatch):
    """A table of sinusoids that is not saved, and that nothing fills after loading on the meta device."""
    original = layers.SinusoidalPositionalEncoding.__init__

    def __init__(self, config):
        original(self, config)
        table = layers.sinusoidal_position_encoding(torch.arange(64), config.d_model)
        self.register_buffer("sinusoids", table, persistent=False)

    monkeypatch.setattr(layers.SinusoidalPositionalEncoding, "__init__", __init__)
    monkeypatch.setattr(
        layers.SinusoidalPositionalEncoding, "forward", lambda self, positions, dtype: self.sinusoids[positions]
    )
    # Memory that nothing was written to holds anything, the right numbers of a freed tensor included.
    monkeypatch.setattr(torch, "empty_like", lambda tensor, **options: torch.full_like(tensor, torch.nan, **options))


def missing_library(monkeypatch):
    original = installation.installed_version
    monkeypatch.setattr(
        installation, "installed_version", lambda name: None if name == "accelerate" else original(name)
    )


@pytest.mark.parametrize(
    ("inject", "expected"),
    [
        (swallowed_cache, {"cached_logits", "cached_generation"}),
        (positions_that_restart, {"cached_logits", "cached_generation"}),
        (stale_cross_attention, {"cached_generation"}),
        pytest.param(beams_without_their_past, {"cached_generation"}, marks=pytest.mark.slow),
        (wrong_length_in_search, {"search_scores"}),
        pytest.param(search_past_its_limit, {"search_scores"}, marks=pytest.mark.slow),
        pytest.param(search_that_is_not_greedy, {"search_greedy"}, marks=pytest.mark.slow),
        (ignored_encoder_mask, {"padding"}),
        pytest.param(wrong_attention_kernel, {"attention_implementations"}, marks=pytest.mark.slow),
        (ignored_num_items_in_batch, {"accumulation"}),
        (dropout_in_evaluation, {"dropout"}),
        pytest.param(dropout_that_drops_nothing, {"dropout"}, marks=pytest.mark.slow),
        (rounded_softmax, {"loss_bf16_autocast", "loss_bf16", "loss_fp16"}),
        pytest.param(ignored_label_smoothing, LOSSES, marks=pytest.mark.slow),
        (weights_changed_on_loading, {"save_and_load"}),
        (unfilled_buffers, {"save_and_load"}),
        pytest.param(missing_library, {"versions"}, marks=pytest.mark.slow),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_fault_fails_the_checks_of_its_topic_and_no_others(monkeypatch, inject, expected):
    inject(monkeypatch)
    report = check_installation("cpu")
    assert failed(report) == expected, str(report)


# --------------------------------------------------------------------------- the report and the command


@pytest.fixture
def two_checks(monkeypatch):
    """In place of the real ones: a check that passes, one that fails and one that is skipped."""

    def fails(device):
        raise AssertionError("1 < 2 & more")

    def breaks(device):
        raise KeyError("cache")

    def skips(device):
        raise Skipped("there is no fp64 here")

    checks = [
        Check("good", "Good numbers", lambda device: None, "torch", ""),
        Check("bad", "Bad numbers", fails, "transformers", "use something else"),
        Check("broken", "Broken calls", breaks, "transformers", ""),
        Check("absent", "Absent numbers", skips, "torch", ""),
    ]
    monkeypatch.setattr(runner, "CHECKS", checks)
    return monkeypatch


def test_the_command_prints_a_line_for_each_check_and_exits_with_1_if_one_fails(two_checks, capsys):
    assert main(["check", "--device", "cpu"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("versions: hf_vanilla_transformer ") and f"torch {torch.__version__}" in lines[0]
    assert lines[1].startswith("processor: ") and "threads" in lines[1]
    assert any(line.startswith("precision: auto is ") for line in lines)
    (good,) = (line for line in lines if "Good numbers" in line)
    assert good.startswith("ok ") and " ms " in good
    bad = next(index for index, line in enumerate(lines) if "Bad numbers" in line)
    assert lines[bad].startswith("FAILED ") and lines[bad + 1].strip() == "1 < 2 & more"
    assert 'pip install --force-reinstall "transformers' in lines[bad + 2]
    assert lines[bad + 2].endswith("report this output. Until then use something else.")
    assert "KeyError: 'cache'" in "\n".join(lines)  # an exception of another kind is no traceback
    assert any(line.startswith("skipped ") and "there is no fp64 here" in line for line in lines)
    assert lines[-1].startswith("check: 1 ok, 2 failed, 1 skipped in ")


def test_the_command_exits_with_0_if_none_fails(two_checks, capsys):
    two_checks.setattr(runner, "CHECKS", runner.CHECKS[:1])
    assert main(["check"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("check: 1 ok, 0 failed, 0 skipped in ")


def test_the_report_as_json_has_everything_in_the_text(two_checks, capsys):
    assert main(["check", "--json", "--device", "cpu"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False and report["device"] == "cpu"
    assert report["versions"]["torch"] == torch.__version__
    assert set(report) == {"versions", "hardware", "device", "precision", "results", "passed"}
    bad = next(result for result in report["results"] if result["name"] == "bad")
    assert (bad["status"], bad["detail"]) == ("FAILED", "1 < 2 & more") and "transformers" in bad["advice"]


def test_measuring_reports_each_comparison_and_what_to_set(two_checks, capsys):
    two_checks.setattr(measurement, "_SECONDS", 0.0)
    assert main(["check", "--measure", "--device", "cpu"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("measured ")]
    assert lines[0].startswith("measured a training step of preset tiny, 64 × 16 tokens: fp32 ")
    assert all(" ms; selected: " in line and ("agrees" in line or "slower here: " in line) for line in lines)
    assert len(lines) in (1 + 4, 1 + 8)  # shapes in fp32, and in bf16 if the processor has it
    assert main(["check", "--measure", "--json", "--device", "cpu"]) == 1
    measured = json.loads(capsys.readouterr().out)["measurements"]
    assert [set(one["milliseconds"]) for one in measured] == [{"fp32", "bf16"}] + [{"plain", "fused"}] * len(lines[1:])


def test_a_choice_that_is_clearly_slower_comes_with_advice(monkeypatch):
    advice = {"quick": "set quick", "slow": "set slow"}
    ways = dict.fromkeys(advice, lambda: None)
    for seconds, chosen, expected in (
        ({"quick": 1.0, "slow": 1.3}, "slow", "set quick"),
        ({"quick": 1.0, "slow": 1.2}, "slow", ""),  # noise
        ({"quick": 1.0, "slow": 9.0}, "quick", ""),
    ):
        monkeypatch.setattr(measurement, "_best_seconds", lambda ways, seconds=seconds: seconds)
        assert measurement.compare("x", chosen, ways, advice).advice == expected


def test_a_notebook_shows_the_report_as_a_table_with_escaped_text(two_checks):
    page = check_installation("cpu")._repr_html_()
    assert "<b>FAILED</b>" in page and "1 &lt; 2 &amp; more" in page and page.count("<tr>") == 4


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "--device gpu is not the name of a device; "),
        ("cuda:99", "--device cuda:99 is not available; "),
        ("meta", "torch cannot compute on --device meta (it has no numbers); choose cpu or another one"),
    ],
)
def test_a_device_that_cannot_compute_is_one_sentence(device, message, capsys):
    assert main(["check", "--device", device]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vanilla-transformer check: error: {message}") and error.count("\n") == 1


def test_the_advice_names_the_versions_that_this_package_declares():
    check = Check("x", "X", lambda device: None, "transformers", "")
    requirement = installation.requirements().get("transformers")
    if requirement is None:
        pytest.skip("the package runs from a folder without being installed")
    assert str(requirement) in check.advice.replace(" ", "")
