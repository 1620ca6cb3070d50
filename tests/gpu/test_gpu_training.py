"""Trainer on the device: the CPU's updates, non-finite updates, exact resuming, one synchronization per update."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import build, collate, examples, relative_error, waits
from transformers import TrainerCallback

from hf_vanilla_transformer import VanillaTransformerTrainer, VanillaTransformerTrainingArguments


def arguments(folder: Path, device: torch.device, **fields: Any) -> VanillaTransformerTrainingArguments:
    defaults = dict(
        max_tokens_per_batch=60,
        warmup_steps=10,
        use_cpu=device.type == "cpu",
        precision="fp32",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
    )
    return VanillaTransformerTrainingArguments(output_dir=str(folder), **{**defaults, **fields})


def trainer(model: Any, folder: Path, device: torch.device, callbacks: Any = (), **fields: Any) -> Any:
    args = arguments(folder, device, **fields)
    assert args.device.type == device.type
    return VanillaTransformerTrainer(model, args, collate, examples(60), callbacks=list(callbacks))


def logged(run: Any, key: str) -> list[float]:
    return [entry[key] for entry in run.state.log_history if key in entry]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


CPU = torch.device("cpu")
# Plain gradient steps: Adam would turn rounding of a gradient near 0 into a whole step.
PLAIN = dict(optim="sgd", lr_scheduler_type="constant", learning_rate=0.1, max_steps=4)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_updates_in_fp64_are_those_of_the_cpu(device, tmp_path, accumulation):
    fields = dict(PLAIN, gradient_accumulation_steps=accumulation)
    expected = trainer(build(torch.float64), tmp_path / "cpu", CPU, **PLAIN)
    found = trainer(build(torch.float64), tmp_path / "device", device, **fields)
    expected.train()
    found.train()
    for name, weight in expected.model.state_dict().items():
        assert relative_error(found.model.state_dict()[name], weight) < 1e-9, name
    assert logged(found, "nll") == pytest.approx(logged(expected, "nll"), rel=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_goes_down_as_in_fp64(device, tmp_path, precision):
    fields = dict(max_steps=12, learning_rate=2e-3)
    expected = trainer(build(torch.float64), tmp_path / "cpu", CPU, **fields)
    found = trainer(build(), tmp_path / "device", device, precision=precision, **fields)
    expected.train()
    found.train()
    curve, exact = logged(found, "nll"), logged(expected, "nll")
    assert len(curve) == len(exact) == 12 and exact[-1] < exact[0] - 0.2
    # Adam's direction is exact to rounding but where a gradient is near 0: a curve is off by a fraction of its fall.
    assert max(abs(a - b) for a, b in zip(curve, exact, strict=True)) < 0.1 * (exact[0] - exact[-1])
    assert next(found.model.parameters()).dtype == torch.float32


@pytest.mark.only_on_gpu("Trainer has no gradient scaler on the CPU")
def test_fp16_lowers_its_scale_until_updates_are_made(device, tmp_path):
    model = build()
    run = trainer(model, tmp_path, device, precision="fp16", max_steps=24, logging_steps=24)
    assert run.accelerator.scaler is not None
    run.accelerator.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**26)  # far beyond fp16's 65,504
    before = {name: weight.cpu() for name, weight in weights(model).items()}
    run.train()
    assert run.accelerator.scaler.get_scale() < 2.0**26
    assert run.skipped_updates == 0  # the scaler's own trials are no failed updates
    moved = [name for name, weight in weights(run.model).items() if not torch.equal(weight.cpu(), before[name])]
    assert len(moved) == len(before)
    assert all(weight.isfinite().all() for weight in run.model.state_dict().values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_update_that_is_not_finite_is_skipped(device, tmp_path, precision):
    model = build()
    calls = 0

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        nonlocal calls
        calls += module.training
        if module.training and calls == 2:
            output.loss = output.loss * math.nan
        return output

    class Weights(TrainerCallback):
        def __init__(self) -> None:
            self.seen: list[dict[str, torch.Tensor]] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seen.append(weights(kwargs["model"]))

    model.register_forward_hook(spoil)
    after = Weights()
    run = trainer(model, tmp_path, device, [after], precision=precision, max_steps=3)
    run.train()
    assert run.skipped_updates == 1 and logged(run, "skipped_updates")[-1] == 1
    one, two, three = after.seen
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(two[name], three[name]) for name in one)
    assert all(weight.isfinite().all() for weight in three.values())


@pytest.fixture
def deterministic_afterwards_no_more():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_in_the_same_bits(device, tmp_path, precision, deterministic_afterwards_no_more):
    """With full_determinism: attention's backward pass on a GPU adds up in no fixed order otherwise."""
    fields = dict(
        max_steps=6, save_strategy="steps", save_steps=3, save_total_limit=9, precision=precision, full_determinism=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # torch names an operation that isn't deterministic by a warning
        warnings.filterwarnings("ignore", message="(?!.*deterministic)")
        whole = trainer(build(dropout=0.2), tmp_path / "whole", device, **fields)
        whole.train()
        resumed = trainer(build(dropout=0.2), tmp_path / "whole", device, **fields)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    assert logged(resumed, "nll") == logged(whole, "nll")


class Watch(TrainerCallback):
    """Notes how often the host waits for the device inside one update."""

    def __init__(self, device: torch.device, update: int) -> None:
        self.device, self.update = device, update
        self.found: list[str] = []
        self.watching: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.update - 1:
            self.watching = waits(self.device, self.found)
            self.watching.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.update:
            self.watching.__exit__(None, None, None)


@pytest.mark.parametrize("attention", ["sdpa", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_update_looks_at_the_device_once(device, tmp_path, precision, attention):
    watch, model = Watch(device, update=3), build(dropout=0.1)
    model.set_attn_implementation(attention)
    trainer(model, tmp_path, device, [watch], precision=precision, max_steps=4, logging_steps=4).train()
    assert len(watch.found) == 1, watch.found  # the gradients' norm: is it finite?


def test_evaluation_is_that_of_the_cpu(device, tmp_path):
    losses = []
    for where in (CPU, device):
        run = trainer(build(), tmp_path / where.type, where)
        losses.append(run.evaluate(examples(33))["eval_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
