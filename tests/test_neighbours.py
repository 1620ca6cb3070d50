"""Libraries that users reach for: adapters by PEFT, int8 on the processor, device_map, hyperparameter search."""

import copy
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForSeq2SeqLM
from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS, HyperParamSearchBackendBase
from transformers.integrations import integration_utils
from transformers.trainer_utils import BestRun, HPSearchBackend

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    paper_beam_search,
    preset,
    train_tokenizer,
)

SOURCE = torch.tensor([[4, 9, 17, 5, 2], [6, 8, 2, 0, 0]])
TARGET = torch.tensor([[7, 8, 3, 2], [18, 10, 2, -100]])
SIZES = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}


def build(**fields):
    torch.manual_seed(0)
    untied = {"tie_word_embeddings": False, "output_bias": True}  # random tied weights write one token for ever
    model = VanillaTransformerForConditionalGeneration(
        preset("tiny", **{"vocab_size": 23, **SIZES, **untied, **fields})
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(4.0)
    return model.eval()


def hypotheses(model):
    return paper_beam_search(model, SOURCE, config=BeamSearchConfig(max_extra_tokens=5)).hypotheses()


# ---------------------------------------------------------------------------------------------- PEFT


def adapted(tied: bool):
    peft = pytest.importorskip("peft", reason="peft is not installed; it comes with the extra `test` or `peft`")
    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj", "v_proj", "w_1"])
    return peft.get_peft_model(build(tie_word_embeddings=tied), config)


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_its_adapter_alone(tied):
    model = adapted(tied).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.05)
    losses = []
    for _ in range(20):
        loss = model(input_ids=SOURCE, labels=TARGET).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    # 2 encoder and 2 decoder layers: q_proj, v_proj of 2 + 4 attentions and w_1 of 4 networks, A and B each
    assert len(changed) == 2 * (2 * 6 + 4) and all("lora_" in name for name in changed)


def test_an_adapter_translates_is_saved_and_merged(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed; it comes with the extra `test` or `peft`")
    model = adapted(tied=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    model.eval()
    expected = hypotheses(model)
    assert expected != hypotheses(build())  # the adapter counts
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(build(), tmp_path).eval()
    assert hypotheses(again) == expected
    logits = model(input_ids=SOURCE, labels=TARGET).logits
    merged = again.merge_and_unload()
    assert type(merged) is VanillaTransformerForConditionalGeneration
    torch.testing.assert_close(merged(input_ids=SOURCE, labels=TARGET).logits, logits, atol=1e-5, rtol=1e-5)
    assert hypotheses(merged) == expected


# ---------------------------------------------------------------------------------------------- int8


def test_dynamic_int8_runs_forward_generate_and_the_papers_search():
    model = build(d_model=64, d_ff=96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces torchao as the successor
        quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    assert not any(type(module) is nn.Linear for module in quantized.modules())
    with torch.no_grad():
        logits = quantized(input_ids=SOURCE, labels=TARGET).logits
        exact = model(input_ids=SOURCE, labels=TARGET).logits
    # 8 bits keep 1 part in 127 of the largest value of a matrix and of an activation; a few layers add up to some %
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max()
    assert quantized.generate(SOURCE, max_length=8).shape[0] == 2
    assert len(hypotheses(quantized)) == 2


# ---------------------------------------------------------------------------------------------- device_map


def test_device_map_auto_loads_the_same_model(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, device_map="auto").eval()
    assert hypotheses(loaded.cpu()) == hypotheses(model)


def test_a_model_that_is_partly_on_disk_runs_forward_and_refuses_the_papers_search(tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "model")
    places = {
        "model.encoder": "cpu",
        "model.decoder.embed_tokens": "cpu",
        "model.decoder.embed_positions": "cpu",
        "model.decoder.layers.0": "cpu",
        "model.decoder.layers.1": "disk",
        "lm_head": "cpu",
    }
    loaded = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    )
    with torch.no_grad():
        logits = loaded(input_ids=SOURCE, labels=TARGET).logits
    torch.testing.assert_close(logits, model(input_ids=SOURCE, labels=TARGET).logits, atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="whole model on one device; move it there or use plain generate"):
        hypotheses(loaded)


# ---------------------------------------------------------------------------------------------- hyperparameters


class TwoTrials(HyperParamSearchBackendBase):
    """A search over given settings, with dictionaries for trials as the Weights & Biases backend has them."""

    name = "two"

    @staticmethod
    def is_available():
        return True

    def run(self, trainer, n_trials, direction, **kwargs):
        runs = []
        for number, settings in enumerate([{"learning_rate": 0.0001}, {"learning_rate": 0.1}][:n_trials]):
            trainer.objective = None
            trainer.train(resume_from_checkpoint=None, trial=settings)
            objective = trainer.compute_objective(trainer.evaluate())
            runs.append(BestRun(str(number), objective, settings))
        return (min if direction == "minimize" else max)(runs, key=lambda run: run.objective)

    def default_hp_space(self, trial):
        return {}


def test_hyperparameter_search_sets_our_arguments_and_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.WANDB, TwoTrials)
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: True)  # else dictionaries are no trials
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=SimpleNamespace(id="1")))  # which names the folders
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 300)
    words = [("one", "하나"), ("two", "둘"), ("three", "셋")] * 4
    rows = [{"input_ids": tokenizer(en)["input_ids"], "labels": tokenizer(ko)["input_ids"]} for en, ko in words]
    made = []

    def model_init():
        torch.manual_seed(0)
        made.append(VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **SIZES)))
        return made[-1]

    arguments = VanillaTransformerTrainingArguments(
        str(tmp_path),
        max_steps=12,
        warmup_steps=4,
        max_tokens_per_batch=60,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
    )
    trainer = VanillaTransformerTrainer(
        args=arguments,
        model_init=model_init,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:3]),
        processing_class=tokenizer,
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {},  # the backend has its own
        n_trials=2,
        direction="minimize",
        backend="wandb",
        compute_objective=lambda metrics: metrics["eval_loss"],
    )
    assert best.hyperparameters == {"learning_rate": 0.1}  # a thousandth of it learns nothing in 12 updates
    assert len({id(model) for model in made}) >= 2
