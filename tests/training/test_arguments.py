"""The paper's values are the defaults, contradictions are refused, and precision follows the hardware."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from transformers import HfArgumentParser

from hf_vanilla_transformer.training import arguments
from hf_vanilla_transformer.training.arguments import VanillaTransformerTrainingArguments, best_precision


def test_defaults_are_the_papers(tmp_path):
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.98, 1e-9)  # §5.3
    assert (args.warmup_steps, args.weight_decay, args.lr_scheduler_type) == (4000, 0.0, "noam")
    assert args.learning_rate is None  # Equation 3 as it stands: (512 · 4000)^−0.5
    assert args.resolve_learning_rate(512, 0) == args.learning_rate == pytest.approx(6.9877124e-4, rel=1e-7)
    assert args.max_grad_norm == 0.0  # the paper names no clipping
    assert args.label_smoothing_factor == 0.1  # §5.4
    assert args.max_tokens_per_batch == 25_000  # §5.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing_factor": 1.0}, "label_smoothing_factor=1.0 is no probability"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be above 0"),
        ({"lr_scheduler_type": "linear"}, "lr_scheduler_type='linear' needs a learning_rate"),
        ({"lr_scheduler_type": "cosin", "learning_rate": 1e-3}, "lr_scheduler_type='cosin' is unknown; choose one of noam"),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "belong to a schedule of Trainer's"),
        (
            {"lr_scheduler_type": "cosine", "learning_rate": 1e-3, "cooldown_steps": 5},
            "cooldown_steps=5 is an end for Equation 3, and lr_scheduler_type='cosine' has one of its own",
        ),
        ({"precision": "fp16", "use_cpu": True}, "precision='fp16' needs a GPU, and training is on the CPU"),
        ({"fp16": True, "use_cpu": True}, "precision='fp16' needs a GPU"),
        ({"optim": "lomo"}, "optim='lomo' makes its updates inside the backward pass"),
        ({"accelerator_config": {"split_batches": True}}, "accelerator_config has split_batches=True"),
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


def cpu_with(monkeypatch, onednn: bool, avx512_bf16: bool, amx: bool) -> None:
    """Let torch find these units in the processor."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.delenv(arguments.AUTO_PRECISION, raising=False)


@pytest.mark.parametrize(
    ("onednn", "avx512_bf16", "amx", "expected"),
    [
        (True, False, False, "fp32"),  # AVX512 alone: oneDNN accepts bf16 and emulates it
        (True, True, False, "bf16"),
        (True, True, True, "bf16"),
        (False, True, True, "fp32"),  # ONEDNN_MAX_CPU_ISA=AVX2 on any of these processors
        (False, False, False, "fp32"),
    ],
)
def test_precision_follows_what_torch_uses_of_the_processor(monkeypatch, tmp_path, onednn, avx512_bf16, amx, expected):
    cpu_with(monkeypatch, onednn, avx512_bf16, amx)
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert (args.precision, args.bf16, args.fp16) == (expected, expected == "bf16", False)
    assert args.mixed_precision == ("bf16" if expected == "bf16" else "no")


def test_precision_is_fp32_with_a_torch_without_onednn(monkeypatch):
    cpu_with(monkeypatch, True, True, True)

    def lacks():
        raise RuntimeError("mkldnn is not built in")

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lacks)
    assert best_precision(use_cpu=True)[0] == "fp32"


def test_bf16_is_not_chosen_where_onednn_may_not_use_it():
    code = "from hf_vanilla_transformer.training.arguments import best_precision; print(*best_precision(use_cpu=True))"
    environment = {name: value for name, value in os.environ.items() if name != arguments.AUTO_PRECISION}
    environment |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("fp32 "), done.stderr


@pytest.mark.parametrize("expected", ["fp32", "bf16"])
def test_an_environment_variable_wins_over_the_hardware(monkeypatch, tmp_path, expected):
    cpu_with(monkeypatch, True, expected == "fp32", expected == "fp32")
    monkeypatch.setenv(arguments.AUTO_PRECISION, expected)
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert (args.precision, args.bf16) == (expected, expected == "bf16")


def test_an_unknown_precision_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv(arguments.AUTO_PRECISION, "int8")
    with pytest.raises(ValueError, match="AUTO_PRECISION='int8' is unknown; set it to fp32 or bf16, or unset it"):
        best_precision()


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_follows_the_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv(arguments.AUTO_PRECISION, raising=False)
    precision, reason = best_precision()
    assert precision == expected
    assert reason.startswith("a GPU")


def test_the_users_precision_wins_over_the_hardwares(monkeypatch, tmp_path):
    cpu_with(monkeypatch, True, True, True)
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True, precision="fp32")
    assert (args.precision, args.bf16) == ("fp32", False)


def test_a_launchers_precision_wins_over_the_hardwares(monkeypatch, tmp_path):
    cpu_with(monkeypatch, True, True, True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert (args.bf16, args.mixed_precision) == (False, "fp8")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="accelerate was launched with mixed_precision fp16 needs a GPU"):
        VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)


def test_arguments_survive_a_copy_and_the_command_line(tmp_path):
    (parsed,) = HfArgumentParser(VanillaTransformerTrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--use_cpu", "--label_smoothing_factor", "0.2", "--precision", "fp32"]
    )
    copy = dataclasses.replace(parsed, seed=7)
    assert (copy.label_smoothing_factor, copy.precision, copy.seed) == (0.2, "fp32", 7)
