"""The paper's values are the defaults, contradictions are refused, and precision follows the hardware."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from transformers import HfArgumentParser, Seq2SeqTrainingArguments, TrainingArguments

from hf_vanilla_transformer.training.arguments import UNSUPPORTED, VanillaTransformerTrainingArguments
from hf_vanilla_transformer.training.precision import AUTO_PRECISION, best_precision

# Every inherited field, by who supports it. Fields of some supported versions of transformers only are included.
BY_US = """
    label_smoothing_factor learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps bf16 fp16 bf16_full_eval
    fp16_full_eval dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order remove_unused_columns seed data_seed
    gradient_accumulation_steps max_steps num_train_epochs output_dir use_cpu save_total_limit save_only_model
    save_on_each_node metric_for_best_model greater_is_better accelerator_config push_to_hub resume_from_checkpoint
    load_best_model_at_end
""".split()
BY_TRAINER = """
    optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules average_tokens_across_devices
    max_grad_norm tf32 activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing
    gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode use_cache neftune_noise_alpha
    torch_empty_cache_steps logging_strategy logging_steps logging_first_step log_on_each_node
    include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id
    trackio_bucket_id trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size
    prediction_loss_only eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps
    include_for_metrics batch_eval_metrics save_strategy save_steps hub_token hub_private_repo hub_model_id hub_strategy
    hub_always_push hub_revision ignore_data_skip restore_callback_states_from_checkpoint full_determinism
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp
    fsdp_config debug skip_memory_metrics local_rank predict_with_generate generation_max_length generation_num_beams
    generation_config
""".split()
FOR_SCRIPTS = ["do_train", "do_eval", "do_predict"]  # not read by Trainer; recipes refuse them


def test_defaults_are_the_papers(tmp_path):
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.98, 1e-9)  # §5.3
    assert (args.warmup_steps, args.weight_decay, args.lr_scheduler_type) == (4000, 0.0, "noam")
    assert args.learning_rate is None  # the peak of Equation 3: (512 · 4000)^−0.5
    assert args.resolve_learning_rate(512, 0) == args.learning_rate == pytest.approx(6.9877124e-4, rel=1e-7)
    assert args.max_grad_norm == 0.0  # the paper does not mention clipping
    assert args.label_smoothing_factor == 0.1  # §5.4
    assert args.max_tokens_per_batch == 25_000  # §5.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"deepspeed": {"zero_optimization": {"stage": 2}}},
            "deepspeed=.* updates the weights inside the backward",
        ),
        ({"per_device_train_batch_size": 8}, "per_device_train_batch_size=8 is not supported: .*max_tokens_per_batch"),
        ({"label_smoothing_factor": 1.0}, "label_smoothing_factor=1.0 must be in"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be above 0"),
        ({"lr_scheduler_type": "linear"}, "lr_scheduler_type='linear' needs a learning_rate"),
        (
            {"lr_scheduler_type": "cosin", "learning_rate": 1e-3},
            "lr_scheduler_type='cosin' is unknown; choose one of noam",
        ),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "cannot be used with Equation 3"),
        (
            {"lr_scheduler_type": "cosine", "learning_rate": 1e-3, "cooldown_steps": 5},
            "cooldown_steps=5 applies to Equation 3 only, and not to lr_scheduler_type='cosine'",
        ),
        ({"precision": "fp16", "use_cpu": True}, "precision='fp16' needs a GPU, and training is on the CPU"),
        ({"fp16": True, "use_cpu": True}, "precision='fp16' needs a GPU"),
        ({"optim": "lomo"}, "optim='lomo' updates the weights inside the backward pass"),
        ({"accelerator_config": {"split_batches": True}}, "accelerator_config has split_batches=True"),
        ({"warmup_steps": 0}, "warmup_steps=0 leaves Equation 3 undefined"),
        ({"max_tokens_per_batch": 0}, "max_tokens_per_batch=0 must be at least 1"),
        ({"precision": "int8"}, "choose one of auto, fp32, bf16, fp16"),
        ({"precision": "fp32", "bf16": True}, "bf16=True contradicts precision='fp32'"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy='group_by_length'"),
    ],
)
def test_contradictions_are_refused_and_the_message_says_what_to_set(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        VanillaTransformerTrainingArguments(output_dir=tmp_path, **fields)


def test_every_inherited_field_is_supported_or_refused():
    inherited = {spec.name for spec in dataclasses.fields(Seq2SeqTrainingArguments)}
    listed = [*BY_US, *BY_TRAINER, *FOR_SCRIPTS, *UNSUPPORTED]
    assert len(listed) == len(set(listed)), "a field is listed twice"
    assert not inherited - set(listed), "the installed transformers has new fields; list each above or in UNSUPPORTED"
    # Only in some of the versions 5.17 to 5.24:
    assert set(listed) - inherited <= {"activation_checkpointing", "activation_checkpointing_kwargs"}


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_an_unsupported_argument_is_refused_whenever_it_is_set(tmp_path, name):
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    value = args.default(name)
    setattr(args, name, not value if isinstance(value, bool) else "something else")
    with pytest.raises(ValueError, match=f"{name}=.* is not supported: .*; "):
        args.check()


@pytest.mark.parametrize(
    ("metric", "greater"),
    [("perplexity", False), ("eval_perplexity", False), ("eval_news_nll", False), ("loss", False), ("bleu", True)],
)
def test_lower_perplexity_is_better(tmp_path, metric, greater):
    fields = dict(output_dir=tmp_path, use_cpu=True, metric_for_best_model=metric)
    assert VanillaTransformerTrainingArguments(**fields).greater_is_better is greater
    assert VanillaTransformerTrainingArguments(**fields, greater_is_better=True).greater_is_better is True


def test_one_gpu_of_several_is_used_without_a_launcher(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        TrainingArguments, "n_gpu", property(lambda self: self.__dict__.get("_n_gpu", 3) or 3), raising=True
    )
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert args.n_gpu == 1  # so that Trainer doesn't wrap the model in nn.DataParallel
    assert "there are 3 GPUs and one process: training uses only cpu; to use all of them, start with torchrun" in (
        caplog.text
    )


def test_a_launch_with_deepspeed_is_refused(tmp_path, monkeypatch):
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    args.deepspeed_plugin = object()  # what the parent makes under accelerate launch --use_deepspeed
    with pytest.raises(ValueError, match="accelerate was launched with DeepSpeed: .*; use FSDP instead"):
        args._check_accelerate()


def test_a_warmup_ratio_of_an_unknown_number_of_updates_is_refused(tmp_path):
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True, warmup_steps=0.1)
    with pytest.raises(ValueError, match="warmup_steps=0.1 is a ratio of the run's updates, whose number is not"):
        args.resolve_learning_rate(64, 0)
    assert args.resolve_learning_rate(64, 1000) == pytest.approx(1 / 80)  # 1/√(64 · 100)
    assert args.resolve_learning_rate(64, 4000) == pytest.approx(1 / 160)  # another run: the default is resolved again
    args.learning_rate = 0.5
    assert args.resolve_learning_rate(64, 4000) == 0.5


def cpu_with(monkeypatch, onednn: bool, avx512_bf16: bool, amx: bool) -> None:
    """Patch torch to report these instruction sets."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.delenv(AUTO_PRECISION, raising=False)


@pytest.mark.parametrize(
    ("onednn", "avx512_bf16", "amx", "expected"),
    [
        (True, False, False, "fp32"),  # AVX512 alone: oneDNN accepts bf16 and emulates it
        (True, True, False, "bf16"),
        (True, True, True, "bf16"),
        (False, True, True, "fp32"),  # with ONEDNN_MAX_CPU_ISA=AVX2
        (False, False, False, "fp32"),
    ],
)
def test_precision_follows_the_instruction_sets_that_torch_uses(
    monkeypatch, tmp_path, onednn, avx512_bf16, amx, expected
):
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


def test_bf16_is_not_chosen_if_onednn_is_restricted():
    code = "from hf_vanilla_transformer.training.precision import best_precision; print(*best_precision(use_cpu=True))"
    environment = {name: value for name, value in os.environ.items() if name != AUTO_PRECISION}
    environment |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("fp32 "), done.stderr


@pytest.mark.parametrize("expected", ["fp32", "bf16"])
def test_an_environment_variable_overrides_the_hardware(monkeypatch, tmp_path, expected):
    cpu_with(monkeypatch, True, expected == "fp32", expected == "fp32")
    monkeypatch.setenv(AUTO_PRECISION, expected)
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert (args.precision, args.bf16) == (expected, expected == "bf16")


def test_an_unknown_precision_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv(AUTO_PRECISION, "int8")
    with pytest.raises(ValueError, match="AUTO_PRECISION='int8' is unknown; set it to fp32 or bf16, or unset it"):
        best_precision()


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_follows_the_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv(AUTO_PRECISION, raising=False)
    precision, reason = best_precision()
    assert precision == expected
    assert reason.startswith("a GPU")


def test_the_precision_argument_overrides_the_hardware(monkeypatch, tmp_path):
    cpu_with(monkeypatch, True, True, True)
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True, precision="fp32")
    assert (args.precision, args.bf16) == ("fp32", False)


def test_the_launchers_precision_overrides_the_hardware(monkeypatch, tmp_path):
    cpu_with(monkeypatch, True, True, True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    args = VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)
    assert (args.bf16, args.mixed_precision) == (False, "fp8")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="accelerate launch --mixed_precision fp16 needs a GPU"):
        VanillaTransformerTrainingArguments(output_dir=tmp_path, use_cpu=True)


def test_arguments_are_equal_after_copying_and_parsing(tmp_path):
    (parsed,) = HfArgumentParser(VanillaTransformerTrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--use_cpu", "--label_smoothing_factor", "0.2", "--precision", "fp32"]
    )
    assert (parsed.learning_rate, parsed.lr_scheduler_type) == (None, "noam")
    for copy in (
        VanillaTransformerTrainingArguments(**json.loads(parsed.to_json_string())),
        pickle.loads(pickle.dumps(parsed)),
        dataclasses.replace(parsed),
    ):
        assert (copy.learning_rate, copy.lr_scheduler_type, copy.label_smoothing_factor) == (None, "noam", 0.2)
    (stock,) = HfArgumentParser(VanillaTransformerTrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--use_cpu", "--learning_rate", "3e-4", "--lr_scheduler_type", "linear"]
    )
    assert (stock.learning_rate, stock.lr_scheduler_type) == (3e-4, "linear")
    copy = dataclasses.replace(parsed, seed=7)
    assert (copy.label_smoothing_factor, copy.precision, copy.seed) == (0.2, "fp32", 7)
