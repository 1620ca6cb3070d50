"""The first lines of the training log: what is trained, and the estimated time."""

import logging

from test_trainer import Collator, arguments, examples, tiny_model

from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer


def test_the_first_lines_report_what_is_trained_and_the_estimated_time(tmp_path, caplog):
    args = arguments(tmp_path, max_steps=8, max_tokens_per_batch=60, gradient_accumulation_steps=2, precision="fp32")
    trainer = VanillaTransformerTrainer(tiny_model(), args, Collator(), examples(40))
    with caplog.at_level(logging.INFO, logger="hf_vanilla_transformer.training.progress"):
        trainer.train()
    assert (
        "1 process on cpu, precision float32, at most 60 source and 60 target tokens per update (2 micro-batches "
        "of 30), updates 1 to 8; the estimated time follows after 6 updates"
    ) in caplog.text
    assert "for the remaining 2 updates, at " in caplog.text
