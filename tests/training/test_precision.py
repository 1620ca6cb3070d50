"""The precision that "auto" selects: a table by processor and model size, one decision per run, repeated on resume."""

import logging

import pytest
import torch
from test_arguments import cpu_with
from test_trainer import Collator, arguments, examples, logged, tiny_model

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset
from hf_vanilla_transformer.checkpoints.manifest import verify
from hf_vanilla_transformer.training.arguments import VanillaTransformerTrainingArguments
from hf_vanilla_transformer.training.precision import AUTO_PRECISION, best_precision
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer

SIZES = {  # fields of preset tiny
    "toy": {"vocab_size": 400, "d_model": 32, "d_ff": 64, "num_heads": 2},
    "tiny": {"vocab_size": 6000},
    "base": {"vocab_size": 6000, "d_model": 512, "d_ff": 2048, "encoder_layers": 6, "decoder_layers": 6},
}


def model_of(size: str, attention: str) -> VanillaTransformerForConditionalGeneration:
    with torch.device("meta"):
        model = VanillaTransformerForConditionalGeneration(preset("tiny", **SIZES[size]))
    model.set_attn_implementation(attention)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager", "fused"])
@pytest.mark.parametrize(
    ("units", "size", "expected", "expected_with_fused"),
    [
        ("none", "base", "fp32", "fp32"),
        ("AVX512-bf16", "toy", "fp32", "fp32"),
        ("AVX512-bf16", "tiny", "bf16", "fp32"),
        ("AVX512-bf16", "base", "bf16", "bf16"),
        ("AMX", "toy", "bf16", "bf16"),
        ("AMX", "tiny", "bf16", "bf16"),
    ],
)
def test_auto_follows_the_table_of_processors_and_model_sizes(
    monkeypatch, units, size, expected, expected_with_fused, attention
):
    cpu_with(monkeypatch, units != "none", units != "none", units == "AMX")
    precision, reason = best_precision(True, model_of(size, attention))
    assert precision == (expected_with_fused if attention == "fused" else expected)
    if precision == "fp32" and units != "none":
        assert "parameters" in reason and "trains faster in fp32" in reason


@pytest.fixture(params=["bf16", "fp32"])
def forced(request, monkeypatch):
    """A processor for which "auto" selects bf16, and one for which it selects fp32."""
    cpu_with(monkeypatch, True, True, request.param == "bf16")  # AMX: bf16 for a model of any size
    return request.param


def test_the_trainer_chooses_for_its_model_and_writes_the_choice_into_its_checkpoints(tmp_path, forced):
    args = arguments(tmp_path, max_steps=1, precision="auto", save_strategy="steps", save_steps=1)
    assert args.precision == "bf16"  # as for a large model
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(20))
    trainer.train()
    assert (args.precision, args.used_precision, args.bf16) == (forced, forced, forced == "bf16")
    assert trainer.accelerator.mixed_precision == ("bf16" if forced == "bf16" else "no")
    assert verify(tmp_path / "checkpoint-1")["precision"] == forced


def test_arguments_that_two_trainers_share_choose_for_each_of_the_models(tmp_path, monkeypatch):
    cpu_with(monkeypatch, True, True, False)
    args = arguments(tmp_path, max_steps=1, precision="auto")
    for size, expected in (("toy", "no"), ("tiny", "bf16"), ("toy", "no")):
        model = VanillaTransformerForConditionalGeneration(preset("tiny", **SIZES[size]))
        trainer = VanillaTransformerTrainer(model, args, Collator(), examples(20))
        assert trainer.accelerator.mixed_precision == expected


def run(folder, precision, resume=None, evaluate=False, **fields):
    args = arguments(folder, max_steps=4, precision=precision, save_strategy="steps", save_steps=2, **fields)
    model = tiny_model()
    model.set_attn_implementation("eager")  # with "sdpa", the kernel depends on the processor as well
    trainer = VanillaTransformerTrainer(model, args, Collator(), examples(20), examples(7))
    if evaluate:
        trainer.evaluate()
    trainer.train(resume_from_checkpoint=None if resume is None else str(folder / resume))
    return trainer


@pytest.mark.parametrize("evaluate", [False, True], ids=["", "evaluated before"])
def test_a_run_resumes_in_the_precision_that_auto_chose_at_its_start(tmp_path, forced, monkeypatch, evaluate):
    before = run(tmp_path, "auto")
    cpu_with(monkeypatch, True, True, forced == "fp32")  # now "auto" would choose the other one
    resumed = run(tmp_path, "auto", resume="checkpoint-2", evaluate=evaluate)
    assert resumed.args.used_precision == forced
    assert logged(resumed, "nll") == logged(before, "nll")
    assert verify(tmp_path / "checkpoint-4")["precision"] == forced
    for name, weight in before.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_a_precision_given_by_hand_wins_over_that_of_the_checkpoint(tmp_path, forced, caplog):
    run(tmp_path, "auto")
    other = "fp32" if forced == "bf16" else "bf16"
    logger = logging.getLogger("hf_vanilla_transformer")
    logger.addHandler(caplog.handler)
    try:
        resumed = run(tmp_path, other, resume="checkpoint-2")
    finally:
        logger.removeHandler(caplog.handler)
    assert resumed.args.used_precision == other
    assert f"was trained in {forced}; resuming in {other}, because precision is set to it" in caplog.text


def test_a_bf16_run_is_not_resumed_by_auto_where_bf16_is_emulated(tmp_path, monkeypatch):
    cpu_with(monkeypatch, True, True, True)
    run(tmp_path, "auto")
    cpu_with(monkeypatch, False, False, False)
    message = (
        r"checkpoint-2 was trained in bf16, .*neither AMX nor AVX512-bf16.*; set precision to fp32 to resume in fp32"
    )
    with pytest.raises(ValueError, match=message):
        run(tmp_path, "auto", resume="checkpoint-2")
    assert run(tmp_path, "fp32", resume="checkpoint-2").args.used_precision == "fp32"
    monkeypatch.setenv(AUTO_PRECISION, "bf16")
    assert run(tmp_path, "auto", resume="checkpoint-2").args.used_precision == "bf16"


def test_fp32_given_by_hand_wins_over_the_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True, precision="fp32")
    assert (args.mixed_precision, args.used_precision) == ("no", "fp32")
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert (args.mixed_precision, args.used_precision) == ("bf16", "bf16")
