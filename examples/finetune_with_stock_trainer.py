"""Fine-tune a checkpoint on your own two text files with transformers' own Seq2SeqTrainer.

You learn: the model is an ordinary Hugging Face model. Nothing of ours trains here but the collator, which shifts the
target to the right; label smoothing, the learning rate, gradient accumulation and logging are the stock Trainer's.

    make demo
    python examples/finetune_with_stock_trainer.py runs/demo my.en my.ko runs/fine-tuned

Hardware: two CPU cores do. Minutes: two for the demo's checkpoint and the 200 updates below.
The last line is "finetune_with_stock_trainer: loss before=… after=… model=runs/fine-tuned"; the second loss is lower.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_vanilla_transformer import DataCollatorForTranslation, TranslationTokenizers, translate

UPDATES = 200
BATCH = 32  # sentences
ACCUMULATION = 2  # batches an update: the loss is divided by the tokens of all of them, so this changes memory only
LEARNING_RATE = 1e-4  # constant after the warm-up; a tenth of the peak of a training from scratch
HELD_OUT = 50  # last lines, for the loss before and after


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line."""
    return [line.removesuffix("\r") for line in path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--updates", type=int, default=UPDATES)
    options = parser.parse_args(arguments)

    # Importing hf_vanilla_transformer, above, is what makes the Auto classes know the model.
    model = AutoModelForSeq2SeqLM.from_pretrained(options.checkpoint)
    # One tokenizer for both sides, or two: this knows which one encodes which side, and saves what there is.
    tokenizers = TranslationTokenizers.of(model, AutoTokenizer.from_pretrained(options.checkpoint))
    sources, targets = read_lines(options.source), read_lines(options.target)
    if len(sources) != len(targets):
        parser.error(f"{options.source} has {len(sources)} lines and {options.target} has {len(targets)}")
    pairs = [(source, target) for source, target in zip(sources, targets, strict=True) if source and target]
    encoded = zip(
        tokenizers.encode_sources([source for source, _ in pairs]),
        tokenizers.encode_targets([target for _, target in pairs]),
        strict=True,
    )
    examples = [{"input_ids": source, "labels": target} for source, target in encoded]
    if len(examples) <= HELD_OUT:
        parser.error(f"{len(examples)} pairs are too few: {HELD_OUT} are held out")

    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(options.output),
            max_steps=options.updates,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=min(20, options.updates),
            label_smoothing_factor=0.1,  # by the stock Trainer itself, as for any other model
            logging_steps=20,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=examples[:-HELD_OUT],
        eval_dataset=examples[-HELD_OUT:],
        data_collator=DataCollatorForTranslation(tokenizers, model.config.decoder_start_token_id),
        processing_class=tokenizers,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    trainer.save_model()  # the tokenizer too: the directory loads by itself
    for source, translation in zip(sources[-3:], translate(model.eval(), tokenizers, sources[-3:]), strict=True):
        print(f"  {source} → {translation}")
    print(f"finetune_with_stock_trainer: loss before={before:.3f} after={after:.3f} model={options.output}")


if __name__ == "__main__":
    main()
