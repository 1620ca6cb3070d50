"""Errors of torch are explained: out of memory, a lost process."""

import pytest
import torch
from test_trainer import Collator, arguments, examples, tiny_model
from transformers import TrainerCallback

from hf_vanilla_transformer.training.memory import is_out_of_memory
from hf_vanilla_transformer.training.processes import is_lost_process
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer


def test_errors_of_lost_processes_and_of_memory_are_recognized():
    assert is_lost_process(RuntimeError("[../pair.cc:534] Connection closed by peer [127.0.0.1]:4711"))
    assert not is_lost_process(RuntimeError("shape mismatch"))
    assert not is_lost_process(ValueError("connection refused"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_out_of_memory_in_a_micro_batch_reports_its_size_and_what_to_lower(tmp_path, monkeypatch):
    def no_memory(*args, **kwargs):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried …"
        )

    model = tiny_model()
    args = arguments(tmp_path, max_steps=1, max_tokens_per_batch=80, gradient_accumulation_steps=2)
    trainer = VanillaTransformerTrainer(model, args, Collator(), examples(16, length=5))
    monkeypatch.setattr(trainer.accelerator, "backward", no_memory)
    # 80 tokens over 2 micro-batches are 40 per micro-batch: 8 sentences of 5.
    expected = (
        r"out of memory in update 1: the micro-batch has 8 sentences, the longest source with 5 tokens and the longest "
        r"target with 5, within a budget of 40 tokens per side .* raise gradient_accumulation_steps"
    )
    with pytest.raises(MemoryError, match=expected):
        trainer.train()


def test_out_of_memory_in_the_optimizer_reports_what_to_lower(tmp_path):
    class NoMemory(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = VanillaTransformerTrainer(
        tiny_model(), arguments(tmp_path, max_steps=1), Collator(), examples(16), callbacks=[NoMemory()]
    )
    with pytest.raises(MemoryError, match="out of memory after update 0, in the optimizer, .* lower per_device_eval"):
        trainer.train()
