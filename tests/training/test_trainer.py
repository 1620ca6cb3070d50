"""The Trainer with a tiny model: Equation 3, unsmoothed likelihood, every example, exact accumulation and resuming."""

import ast
import inspect
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from datasets import Dataset, IterableDataset
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
    set_seed,
)
from transformers.trainer_pt_utils import LabelSmoother

from hf_vanilla_transformer.data.batching import TokenBudgetSampler
from hf_vanilla_transformer.model.configuration_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.training import checkpointing
from hf_vanilla_transformer.training import trainer as trainer_module
from hf_vanilla_transformer.training.arguments import VanillaTransformerTrainingArguments
from hf_vanilla_transformer.training.batches import SamplerEpoch
from hf_vanilla_transformer.training.stopwatch import Stopwatch
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer

VOCABULARY = 23


def tiny_model(dropout: float = 0.0) -> VanillaTransformerForConditionalGeneration:
    set_seed(1)
    config = VanillaTransformerConfig(
        vocab_size=VOCABULARY, d_model=16, d_ff=24, num_heads=2, encoder_layers=1, decoder_layers=1, dropout=dropout
    )
    return VanillaTransformerForConditionalGeneration(config)


def examples(number: int, length: int | None = None) -> list[dict[str, list[int]]]:
    """Return examples of copying, with 2 to 9 tokens: ids of 4 and above, then the EOS token 2."""
    generator = torch.Generator().manual_seed(5)

    def draw(low: int, high: int, size: int) -> list[int]:
        return torch.randint(low, high, (size,), generator=generator).tolist()

    rows = []
    for _ in range(number):
        words = draw(4, VOCABULARY, (length - 1) if length else draw(1, 9, 1)[0])
        rows.append({"input_ids": [*words, 2], "labels": [*words, 2]})
    return rows


class Collator:
    """Pads with 0 and −100, and records the sources it has collated."""

    def __init__(self, decoder_input_ids: bool = False) -> None:
        self.decoder_input_ids = decoder_input_ids
        self.seen: list[list[int]] = []

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        self.seen += [row["input_ids"] for row in rows]

        def pad(column: str, value: int) -> torch.Tensor:
            longest = max(len(row[column]) for row in rows)
            return torch.tensor([row[column] + [value] * (longest - len(row[column])) for row in rows])

        batch = {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100)}
        batch["attention_mask"] = (batch["input_ids"] != 0).long()
        if self.decoder_input_ids:
            batch["decoder_input_ids"] = tiny_model().prepare_decoder_input_ids_from_labels(batch["labels"])
        return batch


def arguments(folder: Path, **fields) -> VanillaTransformerTrainingArguments:
    """Return arguments of a small run on the CPU, in fp32 unless another precision is given."""
    defaults = dict(
        max_tokens_per_batch=60,
        warmup_steps=10,
        use_cpu=True,
        precision="fp32",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
    )
    return VanillaTransformerTrainingArguments(output_dir=folder, **{**defaults, **fields})


def logged(trainer: Seq2SeqTrainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


# --------------------------------------------------------------------------- learning rate and optimizer


def test_updates_one_to_three_have_the_rates_of_equation_3(tmp_path):
    used = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            used.extend(group["lr"] for group in kwargs["optimizer"].param_groups[:1])

    args = arguments(tmp_path, max_steps=3, learning_rate=2 / math.sqrt(16 * 10))
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40), callbacks=[Rates()])
    trainer.train()
    # Twice the paper's peak, 1/√(16 · 10): 2 · 16^-0.5 · step · 10^-1.5 = 0.5 · step · 0.0316227766
    expected = [0.0158113883, 0.0316227766, 0.0474341649]
    assert used == pytest.approx(expected, rel=1e-8)
    assert logged(trainer, "learning_rate") == pytest.approx(expected, rel=1e-8)  # as used


def test_optimizer_is_adam_with_the_papers_numbers(tmp_path):
    trainer = VanillaTransformerTrainer(tiny_model(), arguments(tmp_path), Collator(), examples(8))
    optimizer = trainer.create_optimizer()
    assert optimizer.defaults["betas"] == (0.9, 0.98)
    assert optimizer.defaults["eps"] == 1e-9
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}  # AdamW without decay is Adam


def test_one_update_is_adams_first_step_unclipped(tmp_path):
    model = tiny_model().double()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    data = examples(6, length=5)
    reference = tiny_model().double()
    reference(**Collator()(data), label_smoothing=0.1).loss.backward()
    VanillaTransformerTrainer(model, arguments(tmp_path, max_steps=1), Collator(), data).train()
    rate = 16**-0.5 * 10**-1.5
    for name, weight in reference.named_parameters():
        # After bias correction Adam's first step is lr · g / (|g| + ε), for any betas.
        expected = before[name] - rate * weight.grad / (weight.grad.abs() + 1e-9)
        torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=0, atol=1e-10)


class Rates(TrainerCallback):
    """Records the learning rate of every update."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.used.append(kwargs["optimizer"].param_groups[0]["lr"])


def test_the_default_learning_rate_is_a_number_before_the_optimizer_is_made(tmp_path):
    trainer = VanillaTransformerTrainer(tiny_model(), arguments(tmp_path), Collator(), examples(8))
    assert trainer.create_optimizer().defaults["lr"] == trainer.args.learning_rate == pytest.approx(160**-0.5)
    trainer.args.warmup_steps, trainer.optimizer = 40, None  # 1/√(16 · 10), then 1/√(16 · 40)
    assert trainer.create_optimizer().defaults["lr"] == trainer.args.learning_rate == pytest.approx(640**-0.5)


def test_a_warmup_ratio_gives_the_peak_of_its_number_of_updates(tmp_path):
    rates = Rates()
    args = arguments(tmp_path, max_steps=8, warmup_steps=0.25)
    VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40), callbacks=[rates]).train()
    peak = (16 * 2) ** -0.5  # at update 2 of 8
    assert rates.used[:3] == pytest.approx([peak / 2, peak, peak * (2 / 3) ** 0.5])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_schedule_of_transformers_is_used_unchanged(tmp_path, kind):
    rates = Rates()
    args = arguments(tmp_path, max_steps=6, warmup_steps=2, learning_rate=0.01, lr_scheduler_type=kind)
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(60), callbacks=[rates])
    trainer.train()
    if kind == "linear":  # up in two updates, then down to 0 after the last
        expected = [0.0, 0.005, 0.01, 0.0075, 0.005, 0.0025]
    else:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
        reference = get_cosine_schedule_with_warmup(optimizer, 2, 6)
        expected = []
        for _ in range(6):
            expected += reference.get_last_lr()
            optimizer.step()
            reference.step()
    assert rates.used == pytest.approx(expected, abs=1e-12)


def test_a_custom_optimizer_keeps_its_rate_as_the_peak(tmp_path):
    model, rates = tiny_model(), Rates()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    args = arguments(tmp_path, max_steps=12)
    trainer = VanillaTransformerTrainer(
        model, args, Collator(), examples(60), callbacks=[rates], optimizers=(optimizer, None)
    )
    trainer.train()
    assert rates.used[:10] == pytest.approx([0.003 * step for step in range(1, 11)])  # the warm-up has 10 updates
    assert rates.used[11] == pytest.approx(0.03 * (10 / 12) ** 0.5)
    assert args.learning_rate is None


@pytest.mark.parametrize(
    ("fields", "scheduled", "message"),
    [
        (
            {"learning_rate": 0.1},
            False,
            "learning_rate=0.1 differs from the custom optimizer's 0.03; leave",
        ),
        ({"adam_beta2": 0.9}, False, "adam_beta2=0.9 has no effect with a custom optimizer"),
        ({"optim": "adafactor"}, False, "optim=.* has no effect with a custom optimizer"),
        (
            {"cooldown_steps": 3, "warmup_steps": 4000},
            True,
            "cooldown_steps=3 has no effect with a custom scheduler",
        ),
        ({}, True, "warmup_steps=10 has no effect with a custom scheduler"),
    ],
)
def test_arguments_without_effect_with_a_custom_optimizer_are_refused(tmp_path, fields, scheduled, message):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0) if scheduled else None
    with pytest.raises(ValueError, match=message):
        VanillaTransformerTrainer(
            model, arguments(tmp_path, **fields), Collator(), examples(8), optimizers=(optimizer, scheduler)
        )


def test_a_custom_optimizer_and_scheduler_are_used_as_they_are(tmp_path):
    model, rates = tiny_model(), Rates()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    args = arguments(tmp_path, max_steps=3, warmup_steps=4000)
    VanillaTransformerTrainer(
        model, args, Collator(), examples(60), callbacks=[rates], optimizers=(optimizer, scheduler)
    ).train()
    assert rates.used == pytest.approx([0.03, 0.015, 0.01])


def test_a_hyperparameter_search_needs_a_space_of_training_arguments(tmp_path):
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=1)
    trainer = VanillaTransformerTrainer(
        args=args,
        data_collator=Collator(),
        train_dataset=examples(8),
        eval_dataset=examples(3),
        model_init=lambda: tiny_model(),
    )
    with pytest.raises(ValueError, match="the default search space of transformers has .* pass hp_space"):
        trainer.hyperparameter_search(n_trials=1)
    args.label_smoothing_factor = 1.5  # as a trial sets it, after the arguments were made
    with pytest.raises(ValueError, match="label_smoothing_factor=1.5 must be in"):
        trainer.train()


# --------------------------------------------------------------------------- batches


def test_every_example_is_seen_once_per_epoch(tmp_path):
    data, collator = examples(61), Collator()
    args = arguments(tmp_path, num_train_epochs=2, gradient_accumulation_steps=3)
    trainer = VanillaTransformerTrainer(tiny_model(), args, collator, Dataset.from_list(data))
    assert isinstance(trainer.get_train_dataloader().batch_sampler, TokenBudgetSampler)
    trainer.train()
    expected = sorted(2 * [row["input_ids"] for row in data])
    assert sorted(collator.seen) == expected


def test_accumulation_steps_share_the_budget(tmp_path):
    args = arguments(tmp_path, max_tokens_per_batch=90, gradient_accumulation_steps=3)
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(60))
    for batch in trainer.get_train_dataloader():
        assert batch["input_ids"].numel() <= 30
        assert batch["labels"].numel() <= 30


def test_sentences_that_are_too_long_are_left_out_of_training(tmp_path):
    data, collator = examples(50), Collator()
    args = arguments(tmp_path, num_train_epochs=1, max_sentence_tokens=5)
    VanillaTransformerTrainer(tiny_model(), args, collator, data).train()
    assert sorted(collator.seen) == sorted(row["input_ids"] for row in data if len(row["input_ids"]) <= 5)


def test_streamed_data_is_batched_by_budget_and_read_once_per_epoch(tmp_path):
    data = examples(50)
    stream = IterableDataset.from_generator(lambda: iter(data))
    trainer = VanillaTransformerTrainer(tiny_model(), arguments(tmp_path, max_steps=3), Collator(), stream)
    rows = []
    for batch in trainer.get_train_dataloader():
        assert batch["input_ids"].numel() <= 60
        rows += [[token for token in row if token] for row in batch["input_ids"].tolist()]
        if len(rows) >= len(data):
            break
    assert sorted(rows) == sorted(row["input_ids"] for row in data)


@pytest.mark.parametrize("streamed", [False, True])
def test_columns_that_the_model_does_not_take_are_removed_before_the_collator(tmp_path, streamed):
    rows = [{**row, "comment": "a text", "length": 3} for row in examples(40)]
    data: Any = IterableDataset.from_generator(lambda: iter(rows)) if streamed else Dataset.from_list(rows)
    for remove, expected in ((True, {"input_ids", "labels"}), (False, {"input_ids", "labels", "comment", "length"})):
        seen: list[set[str]] = []

        def collate(batch, seen=seen):
            seen += [set(row) for row in batch]
            return Collator()(batch)

        args = arguments(tmp_path, max_steps=2, remove_unused_columns=remove)
        trainer = VanillaTransformerTrainer(tiny_model(), args, collate, data)
        next(iter(trainer.get_train_dataloader()))
        assert seen and all(columns == expected for columns in seen)


def test_the_collator_is_made_from_the_tokenizer(tmp_path):
    words = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, VOCABULARY)}}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    data = examples(20)
    trainer = VanillaTransformerTrainer(
        tiny_model(),
        arguments(tmp_path, max_steps=2),
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
    )
    trainer.train()
    assert math.isfinite(trainer.evaluate()["eval_perplexity"])

    def other_start() -> VanillaTransformerForConditionalGeneration:
        model = tiny_model()
        model.config.decoder_start_token_id = 2
        return model

    by_init = VanillaTransformerTrainer(
        args=arguments(tmp_path), model_init=other_start, train_dataset=data, processing_class=tokenizer
    )
    assert next(iter(by_init.get_train_dataloader()))["decoder_input_ids"][:, 0].unique().tolist() == [2]


# --------------------------------------------------------------------------- loss and likelihood


@pytest.mark.parametrize("steps", [2, 4])
def test_accumulation_gives_the_update_of_the_whole_batch(tmp_path, steps):
    # 8 sentences of 5 tokens are one update of 40 tokens: one micro-batch of 8, two of 4, or four of 2.
    data = examples(8, length=5)
    for row in data[::2]:
        row["labels"] = row["labels"][-3:]  # unequal numbers of real tokens in the micro-batches

    def weights_after_two_updates(accumulation: int) -> dict[str, torch.Tensor]:
        model = tiny_model().double()
        args = arguments(
            tmp_path, max_tokens_per_batch=40, max_steps=2, gradient_accumulation_steps=accumulation, optim="sgd"
        )  # SGD, because Adam's g / |g| would hide a wrong scale
        VanillaTransformerTrainer(model, args, Collator(), data).train()
        return model.state_dict()

    whole = weights_after_two_updates(1)
    for name, weight in weights_after_two_updates(steps).items():
        torch.testing.assert_close(weight, whole[name], rtol=0, atol=1e-10)


def test_the_training_log_has_the_unsmoothed_likelihood_beside_the_smoothed_loss(tmp_path):
    data = examples(12, length=5)
    batch = Collator()(data)
    outputs = tiny_model()(**batch, label_smoothing=0.1)
    for accumulation in (1, 2):
        args = arguments(
            tmp_path, max_tokens_per_batch=60, max_steps=1, gradient_accumulation_steps=accumulation
        )  # all 12 sentences are one update
        trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), data)
        trainer.train()
        assert logged(trainer, "loss") == pytest.approx([outputs.loss.item()], rel=1e-5)
        assert logged(trainer, "nll") == pytest.approx([outputs.nll.item()], rel=1e-5)
        assert logged(trainer, "perplexity") == pytest.approx([math.exp(outputs.nll.item())], rel=1e-5)
        assert logged(trainer, "tokens_per_second")[0] > 0
    assert outputs.loss.item() != pytest.approx(outputs.nll.item(), rel=1e-4)


def test_the_loss_is_smoothed_exactly_once(tmp_path):
    data = examples(12, length=5)
    batch = Collator()(data)
    logits = tiny_model().eval()(**batch).logits
    expected = LabelSmoother(epsilon=0.3)({"logits": logits}, batch["labels"]).item()  # that of the stock Trainer
    args = arguments(tmp_path, max_steps=1, label_smoothing_factor=0.3)
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), data)
    trainer.train()
    assert trainer.label_smoother is None
    assert logged(trainer, "loss") == pytest.approx([expected], rel=1e-5)


def test_the_stock_trainer_refuses_our_arguments(tmp_path):
    args = arguments(tmp_path)
    with pytest.raises(ValueError, match="are for VanillaTransformerTrainer.* pass it Seq2SeqTrainingArguments"):
        Seq2SeqTrainer(tiny_model(), args, Collator(), examples(8))
    assert args.to_sanitized_dict()["max_tokens_per_batch"] == 60  # what loggers get
    with pytest.raises(ValueError, match="are for VanillaTransformerTrainer"):
        Seq2SeqTrainer(tiny_model(), args, Collator(), examples(8))


def test_a_custom_loss_and_label_smoothing_are_refused_together(tmp_path):
    def loss(outputs, labels, num_items_in_batch=None):
        return (
            torch.nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten(), reduction="sum")
            / num_items_in_batch
        )

    with pytest.raises(ValueError, match="label_smoothing_factor=0.1 .* no effect with compute_loss_func; set it to"):
        VanillaTransformerTrainer(tiny_model(), arguments(tmp_path), Collator(True), compute_loss_func=loss)
    data = examples(12, length=5)
    nll = tiny_model()(**Collator()(data)).nll.item()
    args = arguments(tmp_path, max_steps=1, label_smoothing_factor=0.0)
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(True), data, compute_loss_func=loss)
    trainer.train()
    assert logged(trainer, "loss") == pytest.approx([nll], rel=1e-5)
    assert logged(trainer, "tokens_per_second")[0] > 0


def test_the_model_returns_logits_to_a_subclass_that_requests_outputs(tmp_path):
    asked = []

    class Reads(VanillaTransformerTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            return (loss, outputs) if return_outputs else loss

    for kind in (Reads, VanillaTransformerTrainer):
        model = tiny_model()
        model.register_forward_pre_hook(lambda module, args, kwargs: asked.append(dict(kwargs)), with_kwargs=True)
        kind(model, arguments(tmp_path, max_steps=1), Collator(), examples(6)).train()
    assert [kwargs.get("return_logits", False) for kwargs in asked] == [True, False]


def test_the_error_of_a_subclass_that_reads_missing_logits_says_how_to_get_them(tmp_path):
    class Reads(VanillaTransformerTrainer):
        more: dict[str, Any] = {}

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            logits = model(**inputs, **self.more).logits
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten())

    def train():
        Reads(tiny_model(), arguments(tmp_path, max_steps=1), Collator(), examples(6)).train()

    with pytest.raises(ValueError, match=r"outputs.logits is None, .* call model\(\*\*inputs, return_logits=True\)"):
        train()
    Reads.more = {"return_logits": True}
    train()


def test_a_second_trainer_changes_nothing_in_the_directory_of_the_first(tmp_path):
    staging = tmp_path / ".checkpoint-8.saving"
    staging.mkdir()
    parent = psutil.Process(os.getppid())  # a running process other than this one
    owner = {"pid": parent.pid, "started": parent.create_time(), "host": socket.gethostname(), "since": "today"}
    (tmp_path / ".run.lock").write_text(json.dumps(owner))
    trainer = VanillaTransformerTrainer(tiny_model(), arguments(tmp_path, max_steps=1), Collator(), examples(6))
    with pytest.raises(ValueError, match=f"is in use: process {parent.pid} on"):
        trainer.train()
    assert staging.is_dir()
    (tmp_path / ".run.lock").unlink()
    trainer.train()
    assert not staging.exists()


@pytest.mark.parametrize("generate", [False, True])
def test_evaluation_loss_is_the_likelihood_of_all_tokens_without_smoothing(tmp_path, generate):
    data = examples(11)
    model = tiny_model().eval()
    nats = tokens = 0.0
    for row in data:  # one at a time: without padding or batches
        logits = model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).logits
        nats -= logits.log_softmax(-1)[0, torch.arange(len(row["labels"])), row["labels"]].sum().item()
        tokens += len(row["labels"])
    # Batches of 4, 4 and 3 sentences with different numbers of tokens: the mean of batch means differs.
    args = arguments(
        tmp_path, per_device_eval_batch_size=4, label_smoothing_factor=0.3, predict_with_generate=generate,
        generation_max_length=6,
    )  # fmt: skip
    lengths = []

    def metrics(prediction) -> dict[str, float]:
        lengths.append(len(prediction.label_ids))
        return {"score": 1.0}

    trainer = VanillaTransformerTrainer(model, args, Collator(), None, data, compute_metrics=metrics)
    result = trainer.evaluate()
    assert result["eval_loss"] == pytest.approx(nats / tokens, rel=1e-6)
    assert result["eval_perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-6)
    assert (result["eval_score"], lengths) == (1.0, [11])
    assert trainer.predict(data, metric_key_prefix="test").metrics["test_loss"] == pytest.approx(nats / tokens)


def test_bf16_keeps_weights_and_optimizer_in_fp32(tmp_path):
    args = arguments(tmp_path, max_steps=2, precision="bf16")
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(20))
    trainer.train()
    assert math.isfinite(logged(trainer, "loss")[-1])
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
    assert {state["exp_avg"].dtype for state in trainer.optimizer.state.values()} == {torch.float32}


def test_training_is_equal_to_rounding_in_either_precision_of_auto(tmp_path, monkeypatch):
    curves = {}
    for precision in ("fp32", "bf16"):
        monkeypatch.setenv("VANILLA_TRANSFORMER_AUTO_PRECISION", precision)
        args = arguments(tmp_path / precision, max_steps=3, precision="auto")
        assert args.precision == precision
        trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(20), examples(7))
        trainer.train()
        curves[precision] = [*logged(trainer, "nll"), trainer.evaluate()["eval_loss"]]
    # About one nat per token, from about sixteen sums that are each rounded to 8 bits.
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=16 * torch.finfo(torch.bfloat16).eps)
    assert curves["bf16"] != curves["fp32"]  # bf16 was used


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("by_init", [False, True])
def test_half_precision_weights_are_trained_in_fp32(tmp_path, stored, by_init):
    def make() -> VanillaTransformerForConditionalGeneration:
        return tiny_model().to(stored)

    given: dict[str, Any] = {"model_init": make} if by_init else {"model": make()}
    args = arguments(tmp_path, max_steps=2, warmup_steps=1000)
    trainer = VanillaTransformerTrainer(args=args, data_collator=Collator(), train_dataset=examples(40), **given)
    trainer.train()
    rounded = dict(make().named_parameters())
    for name, weight in trainer.model.named_parameters():
        assert weight.dtype == torch.float32
        assert not torch.equal(weight, rounded[name].float())  # with this learning rate, bf16 weights would not change
        torch.testing.assert_close(weight, rounded[name].float(), atol=0.01, rtol=0)  # starting from the stored values
    trainer.save_model(str(tmp_path / "final"))
    assert {tensor.dtype for tensor in load_file(tmp_path / "final" / "model.safetensors").values()} == {torch.float32}


def test_weights_stay_in_bf16_with_keep_weight_dtype(tmp_path):
    args = arguments(tmp_path, max_steps=1, keep_weight_dtype=True)
    trainer = VanillaTransformerTrainer(tiny_model().bfloat16(), args, Collator(), examples(20))
    trainer.train()
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.bfloat16}


def test_evaluation_in_bf16_does_not_change_the_weights(tmp_path):
    args = arguments(tmp_path, max_steps=1, bf16_full_eval=True)
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(20), examples(7))
    trainer.train()
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    used = []
    trainer.model.register_forward_pre_hook(lambda module, args: used.append(next(module.parameters()).dtype))
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    assert set(used) == {torch.bfloat16}
    for name, weight in trainer.model.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, before[name])
    assert trainer.model.lm_head.weight is trainer.model.get_input_embeddings().weight  # still tied


def test_the_checkpoint_with_the_lowest_perplexity_is_the_best(tmp_path):
    args = arguments(
        tmp_path, max_steps=6, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        metric_for_best_model="perplexity", load_best_model_at_end=True,
    )  # fmt: skip
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40), examples(9))
    trainer.train()
    measured = logged(trainer, "eval_perplexity")
    assert len(set(measured)) == 3
    assert trainer.state.best_metric == min(measured)
    assert trainer.state.best_global_step == 2 * (1 + measured.index(min(measured)))


def test_a_metric_that_evaluation_will_not_report_is_refused_at_the_start(tmp_path):
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=2, metric_for_best_model="bleu")
    with pytest.raises(ValueError, match="metric_for_best_model='bleu' is not reported by evaluation without compute"):
        VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(8), examples(4))


def test_the_speed_of_training_excludes_evaluation_and_saving(tmp_path, monkeypatch):
    class Slow(TrainerCallback):
        def on_prediction_step(self, args, state, control, **kwargs):
            time.sleep(0.5)

    monkeypatch.setattr(checkpointing, "rotate", lambda *args: time.sleep(0.5))
    args = arguments(
        tmp_path, max_steps=6, logging_steps=3, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2
    )
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40), examples(4), callbacks=[Slow()])
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    speeds = logged(trainer, "tokens_per_second")
    # 6 updates of at most 120 tokens; evaluation and saving sleep for 3 s of the run.
    tokens = sum(2 * len(row["labels"]) for row in examples(40)) * 6 / len(trainer.get_train_dataloader())
    trained = sum(tokens / 2 / speed for speed in speeds)
    assert trained < seconds - 2.5


def test_a_loss_that_is_not_finite_is_logged_as_nan(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = math.nan
    trainer = VanillaTransformerTrainer(model, arguments(tmp_path, max_steps=1), Collator(), examples(8))
    trainer.train()
    assert math.isnan(logged(trainer, "loss")[0])  # Trainer's own filter would have logged 0.0


# --------------------------------------------------------------------------- resuming


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_training_stop = control.should_save = True


class SaveAtEnd(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = state.global_step == state.max_steps


def assert_same_checkpoint(one: Path, two: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    states = [torch.load(checkpoint / "optimizer.pt")["state"] for checkpoint in (one, two)]
    assert states[0].keys() == states[1].keys()
    for parameter, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][parameter][name])


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_streaming_ends_with_bit_identical_weights(tmp_path, workers):
    data = examples(30)  # three updates; the stream starts again twice

    def rows(parts: list[int]) -> Iterator[dict[str, list[int]]]:
        for part in parts:
            yield from data[part::2]

    def train(folder: str, callbacks: list[TrainerCallback], resume: str | None) -> None:
        stream = IterableDataset.from_generator(rows, gen_kwargs={"parts": [0, 1]})
        args = arguments(tmp_path / folder, max_steps=8, logging_steps=50, dataloader_num_workers=workers)
        trainer = VanillaTransformerTrainer(tiny_model(0.3), args, Collator(), stream, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=resume)

    train("whole", [SaveAtEnd()], None)
    train("stopped", [StopAt(5)], None)
    train("stopped", [SaveAtEnd()], str(tmp_path / "stopped" / "checkpoint-5"))
    assert_same_checkpoint(tmp_path / "whole" / "checkpoint-8", tmp_path / "stopped" / "checkpoint-8")


@pytest.mark.parametrize("where", ["inside the second epoch", "at its end"])
def test_resumed_training_ends_with_bit_identical_weights(tmp_path, where):
    data = Dataset.from_list(examples(60))

    def train(folder: str, callbacks: list[TrainerCallback], resume: str | None) -> int:
        args = arguments(
            tmp_path / folder, max_tokens_per_batch=120, num_train_epochs=3, gradient_accumulation_steps=2,
            save_strategy="no", logging_steps=50,
        )  # fmt: skip
        trainer = VanillaTransformerTrainer(tiny_model(0.3), args, Collator(), data, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=resume)
        return len(trainer.get_train_dataloader())

    batches = train("whole", [SaveAtEnd()], None)
    updates = math.ceil(batches / 2)  # per epoch
    assert updates >= 3
    stop = updates + 2 if where == "inside the second epoch" else 2 * updates
    train("stopped", [StopAt(stop)], None)
    train("stopped", [SaveAtEnd()], str(tmp_path / "stopped" / f"checkpoint-{stop}"))
    last = f"checkpoint-{3 * updates}"
    assert_same_checkpoint(tmp_path / "whole" / last, tmp_path / "stopped" / last)


def test_the_epoch_reaches_the_sampler_of_a_resumed_run_on_several_ranks(tmp_path):
    # As Trainer wraps it on each of two ranks: our sampler, in a shard that passes all batches, in one that skips some.
    lengths = [len(row["labels"]) for row in examples(90)]
    sampler = TokenBudgetSampler(lengths, lengths, 120, num_ranks=2, rank=1)
    loader = DataLoaderShard(list(range(90)), batch_sampler=BatchSamplerShard(sampler, 1, 0), collate_fn=list)
    resumed = skip_first_batches(loader, 2)
    state = TrainerState(global_step=len(sampler) + 2)  # two updates into the second epoch
    SamplerEpoch().on_epoch_begin(arguments(tmp_path), state, None, train_dataloader=loader)
    resumed.set_epoch(1)
    assert list(resumed) == sampler.plan(1)[1::2][2:]


# --------------------------------------------------------------------------- the stock Trainer


def test_another_model_is_refused(tmp_path):
    config = MarianConfig(
        vocab_size=8, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="trains vanilla_transformer models, not marian"):
        VanillaTransformerTrainer(MarianMTModel(config), arguments(tmp_path), Collator(), examples(4))


def test_private_methods_of_trainer_have_the_parameters_that_are_relied_on():
    for name, parameters in trainer_module.PRIVATE_METHODS.items():
        assert tuple(inspect.signature(getattr(Seq2SeqTrainer, name)).parameters) == parameters, name


def test_no_other_private_name_of_trainer_is_used():
    theirs = {
        node.attr
        for kind in Seq2SeqTrainer.__mro__[:2]
        for node in ast.walk(ast.parse(Path(inspect.getfile(kind)).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    } | set(dir(Seq2SeqTrainer))
    used = set()
    for path in Path(trainer_module.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "name", "")
            if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
                used.add(name)
    assert used & theirs == set(trainer_module.PRIVATE_METHODS)


def test_stock_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="use VanillaTransformerTrainingArguments, or the stock Seq2SeqTrainer"):
        VanillaTransformerTrainer(tiny_model(), Seq2SeqTrainingArguments(output_dir=tmp_path, use_cpu=True))


@pytest.mark.parametrize(("factor", "generate"), [(0.0, True), (0.1, True), (0.1, False)])
def test_stock_trainer_trains_evaluates_and_generates(tmp_path, factor, generate):
    args = Seq2SeqTrainingArguments(
        output_dir=tmp_path, max_steps=20, learning_rate=1e-2, lr_scheduler_type="constant", use_cpu=True,
        disable_tqdm=True, save_strategy="no", logging_steps=1, label_smoothing_factor=factor,
        predict_with_generate=generate, generation_max_length=6, label_names=["labels"],
    )  # fmt: skip
    data = examples(32)
    collator = Collator(decoder_input_ids=factor > 0)  # Trainer removes the labels before forward
    trainer = Seq2SeqTrainer(tiny_model(), args, collator, data, data[:5], compute_metrics=lambda prediction: {})
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[-1] < losses[0] - 0.2
    assert math.isfinite(trainer.evaluate()["eval_loss"])


def test_stock_trainer_finds_the_labels_by_itself(tmp_path):
    args = Seq2SeqTrainingArguments(output_dir=tmp_path, use_cpu=True)
    trainer = Seq2SeqTrainer(tiny_model(), args, Collator(), None, examples(5))
    assert trainer.label_names == ["labels"]
    assert math.isfinite(trainer.evaluate()["eval_loss"])


def test_sentences_per_second_are_computed_from_real_batches(tmp_path):
    started = time.perf_counter()
    args = arguments(tmp_path, max_steps=20)
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40))
    result = trainer.train().metrics
    seconds = time.perf_counter() - started
    updates = len(trainer.get_train_dataloader())
    assert result["train_samples_per_second"] >= 0.9 * 20 * (40 / updates) / seconds  # not per_device_train_batch_size


def test_saved_model_loads_with_the_weights_that_were_trained(tmp_path):
    trainer = VanillaTransformerTrainer(tiny_model(), arguments(tmp_path, max_steps=1), Collator(), examples(20))
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "final")
    for name, weight in load_file(tmp_path / "final" / "model.safetensors").items():
        assert torch.equal(loaded.state_dict()[name], weight)
        assert torch.equal(trainer.model.state_dict()[name], weight)


def saved_by_stopwatch(**attributes: float) -> dict[str, Any]:
    return {"Stopwatch": {"args": {}, "attributes": attributes}}


@pytest.mark.parametrize(
    ("step", "callbacks", "wall", "processor"),
    [
        (4, saved_by_stopwatch(saved_seconds=1000.0, saved_processor_seconds=700.0), 1000.0, 700.0),
        (4, saved_by_stopwatch(saved_seconds=1000.0), 1000.0, 1000.0 * torch.get_num_threads()),  # at most
        (4, {}, 0.0, 0.0),  # the checkpoint is from an earlier version
        (0, saved_by_stopwatch(saved_seconds=1000.0), 0.0, 0.0),  # a new training with the same trainer
    ],
)
def test_the_stopwatch_includes_the_time_before_a_stop(
    step: int, callbacks: dict[str, Any], wall: float, processor: float
) -> None:
    stopwatch = Stopwatch()
    assert stopwatch.seconds == stopwatch.processor_seconds == 0.0
    state = TrainerState(global_step=step, stateful_callbacks=callbacks)
    stopwatch.on_train_begin(TrainingArguments(), state, TrainerControl())
    sum(range(100_000))  # takes time
    seconds, processor_seconds = stopwatch.seconds, stopwatch.processor_seconds
    assert wall < seconds < wall + 10 and processor < processor_seconds < processor + 10
    saved = stopwatch.state()["attributes"]
    assert saved["saved_seconds"] >= seconds and saved["saved_processor_seconds"] >= processor_seconds
    stopwatch.on_train_end(TrainingArguments(), state, TrainerControl())
    assert stopwatch.seconds == stopwatch.seconds > seconds
    assert stopwatch.processor_seconds == stopwatch.processor_seconds >= processor_seconds
