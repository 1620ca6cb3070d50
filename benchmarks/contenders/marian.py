"""MarianMT of the same size under the stock Seq2SeqTrainer."""

from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)

from .job import Contender, Job, Measurements, TrainerBudget, best_length_penalty, weights_copy
from .task import BATCH, MAX_EXTRA_TOKENS, Task

NUM_BEAMS = 5
LENGTH_PENALTIES = (0.6, 1.0, 1.4)


def marian_model(job: Job, task: Task) -> MarianMTModel:
    """Make a new MarianMT of the task's sizes and special tokens; its decoder starts with padding, as OPUS-MT's do."""
    sizes, tokenizer = job.architecture, task.tokenizer
    return MarianMTModel(
        MarianConfig(
            vocab_size=len(tokenizer),
            d_model=sizes["d_model"],
            encoder_layers=sizes["encoder_layers"],
            decoder_layers=sizes["decoder_layers"],
            encoder_ffn_dim=sizes["d_ff"],
            decoder_ffn_dim=sizes["d_ff"],
            encoder_attention_heads=sizes["num_heads"],
            decoder_attention_heads=sizes["num_heads"],
            dropout=sizes["dropout"],
            activation_function="relu",
            scale_embedding=True,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=None,
            decoder_start_token_id=tokenizer.pad_token_id,
            attn_implementation=job.settings["attention"],
        )
    )


def generate(model: Any, task: Task, texts: list[str], num_beams: int, length_penalty: float = 1.0) -> list[str]:
    """Translate by `generate`, in batches of like length."""
    translations = [""] * len(texts)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        batch = task.tokenizer([texts[place] for place in places], padding=True, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                num_beams=num_beams,
                length_penalty=length_penalty if num_beams > 1 else None,
                max_new_tokens=batch["input_ids"].shape[1] + MAX_EXTRA_TOKENS,
                do_sample=False,
            )
        for place, text in zip(places, task.tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            translations[place] = text
    return translations


def run(job: Job, task: Task) -> dict[str, Any]:
    """Train by Trainer, evaluate by generate."""
    set_seed(job.seed)
    model, settings = marian_model(job, task), job.settings
    measurements = Measurements(job, task.validation_bleu)
    sources = {split: task.lines(split, 0) for split in ("validation", "test")}
    budget = TrainerBudget(
        measurements, lambda trained: generate(trained, task, sources["validation"], 1), task.training_tokens
    )
    trainer = Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(
            output_dir=job.folder,
            max_steps=job.total_updates,
            per_device_train_batch_size=settings["sentences"],
            train_sampling_strategy="group_by_length",
            learning_rate=settings["learning_rate"],
            lr_scheduler_type=settings["schedule"],
            warmup_steps=job.warm_up,
            label_smoothing_factor=0.1,
            adam_beta2=0.98,
            optim="adamw_torch_fused",
            bf16=settings["precision"] == "bf16",
            seed=job.seed,
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        data_collator=DataCollatorForSeq2Seq(task.tokenizer, model=model),
        train_dataset=Dataset.from_dict(task.training_ids),
        processing_class=task.tokenizer,
        callbacks=[budget],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    found = measurements.record(
        evaluation_seconds=round(budget.clock.paused_seconds, 1), parameters=model.num_parameters(only_trainable=True)
    )
    if job.purpose == "final":
        trained = weights_copy(model)
        found["final"] = best_length_penalty(
            lambda split, penalty: generate(trained, task, sources[split], NUM_BEAMS, penalty),
            task.scores, LENGTH_PENALTIES, NUM_BEAMS,
        )  # fmt: skip
    return found


CONTENDER = Contender(
    "marian",
    "transformers MarianMT, Seq2SeqTrainer",
    run,
    rates=(0.001, 0.002, 0.004),
    choices={"sentences": (64, 128, 256), "schedule": ("linear", "inverse_sqrt")},
    kernels=tuple(
        {"precision": precision, "attention": attention}
        for precision in ("fp32", "bf16")
        for attention in ("sdpa", "eager")
    ),
    fixed="batches grouped by length, fused AdamW with betas 0.9 and 0.98, no weight decay, label smoothing 0.1, "
    "gradient norm clipped at 1; the last weights are the final model",
)
