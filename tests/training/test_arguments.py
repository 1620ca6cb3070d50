"""The paper's values are the defaults, contradictions are refused, and precision follows the hardware."""

import dataclasses

import pytest
import torch
from transformers import HfArgumentParser

from hf_vanilla_transformer.training import arguments
from hf_vanilla_transformer.training.arguments import VanillaTransformerTrainingArguments, best_precision


def test_defaults_are_the_papers(tmp_path):
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.98, 1e-9)  # §5.3
    assert (args.warmup_steps, args.learning_rate_factor, args.weight_decay) == (4000, 1.0, 0.0)
    assert args.max_grad_norm == 0.0  # the paper names no clipping
    assert (args.label_smoothing, args.label_smoothing_factor) == (0.1, 0.0)  # §5.4, in the model's loss only
    assert args.max_tokens_per_batch == 25_000  # §5.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "set label_smoothing=0.1 instead"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 is no probability"),
        ({"learning_rate": 5e-4}, "scale it with learning_rate_factor"),
        ({"learning_rate_factor": 0.0}, "learning_rate_factor=0.0 must be above 0"),
        ({"warmup_steps": 0}, "warmup_steps=0 leaves Equation 3 undefined"),
        ({"max_tokens_per_batch": 0}, "max_tokens_per_batch=0 leaves no room"),
        ({"precision": "int8"}, "choose one of auto, fp32, bf16, fp16"),
        ({"precision": "fp32", "bf16": True}, "bf16=True contradicts precision='fp32'"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy='group_by_length'"),
    ],
)
def test_contradictions_are_refused_with_a_way_out(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        VanillaTransformerTrainingArguments(output_dir=tmp_path, **fields)


def cpu_with(monkeypatch, tmp_path, flags):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: fpu sse {flags}\nprocessor\t: 1\nflags\t\t: fpu sse {flags}\n")
    monkeypatch.setattr(arguments, "CPU_INFO", info)
    monkeypatch.setattr(arguments.platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx512f avx512_vnni", "fp32"),  # no bf16 arithmetic at all: emulating it would be slower
        ("avx512f avx512_bf16", "bf16"),
        ("avx512f avx512_bf16 amx_bf16 amx_tile amx_int8", "bf16"),
        ("avx2", "fp32"),
    ],
)
def test_precision_follows_the_processor(monkeypatch, tmp_path, flags, expected):
    cpu_with(monkeypatch, tmp_path, flags)
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert (args.precision, args.bf16, args.fp16) == (expected, expected == "bf16", False)
    assert args.mixed_precision == ("bf16" if expected == "bf16" else "no")


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_follows_the_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    precision, reason = best_precision()
    assert precision == expected
    assert reason.startswith("a GPU")


def test_the_users_precision_wins_over_the_hardwares(monkeypatch, tmp_path):
    cpu_with(monkeypatch, tmp_path, "amx_bf16")
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True, precision="fp32")
    assert (args.precision, args.bf16) == ("fp32", False)


def test_a_launchers_precision_wins_over_the_hardwares(monkeypatch, tmp_path):
    cpu_with(monkeypatch, tmp_path, "amx_bf16")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert (args.bf16, args.mixed_precision) == (False, "fp16")


def test_arguments_survive_a_copy_and_the_command_line(tmp_path):
    (parsed,) = HfArgumentParser(VanillaTransformerTrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--use_cpu", "--label_smoothing", "0.2", "--precision", "fp32"]
    )
    copy = dataclasses.replace(parsed, seed=7)
    assert (copy.label_smoothing, copy.precision, copy.seed) == (0.2, "fp32", 7)
