"""Train a translation model from two text files, line n of one translating line n of the other.

You learn: how text becomes a vocabulary, batches filled by tokens, a model trained at the paper's learning rate, an
average of its last checkpoints, and a directory that `from_pretrained` loads. `vanilla-transformer train` does the same
from a YAML file, with validation and resuming; this is what it does, in the open.

    python examples/train_from_two_files.py my.en my.ko runs/mine

Hardware: two CPU cores do. Minutes: UPDATES × 8,000 tokens; a processor that trains 10,000 tokens per second takes 30
minutes for the 2,000 below, a GPU one or two.
The last line is "train_from_two_files: bleu=… chrf=… model=runs/mine/final".
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hf_vanilla_transformer import (
    DataCollatorForTranslation,
    TranslationMetric,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    average_checkpoints,
    preset,
    train_tokenizer,
    translate,
)

PRESET = "tiny"  # 4+4 layers, d_model 128: right for some 30,000 pairs; "small" for 100,000, "base" for millions
VOCABULARY = 8000  # subwords, shared by both languages
UPDATES = 2000
TOKENS_PER_UPDATE = 4096  # of the source, and as many of the target
WARMUP = 500  # updates; the paper's 4,000 are for 100,000 of them
PEAK_RATE = None  # highest learning rate; None is that of the paper's Equation 3, 1 / √(d_model · WARMUP)
AVERAGED = 3  # checkpoints (section 6.1)
HELD_OUT = 200  # last lines, never trained on


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line, whatever else Python's splitlines() would split at."""
    return [line.removesuffix("\r") for line in path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--updates", type=int, default=UPDATES)
    options = parser.parse_args(arguments)

    sources, targets = read_lines(options.source), read_lines(options.target)
    if len(sources) != len(targets):
        parser.error(f"{options.source} has {len(sources)} lines and {options.target} has {len(targets)}")
    pairs = [(source, target) for source, target in zip(sources, targets, strict=True) if source and target]
    if len(pairs) < 2 * HELD_OUT:
        parser.error(f"{len(pairs)} pairs are too few: {HELD_OUT} are held out, and as many at least must be left")
    training, test = pairs[:-HELD_OUT], pairs[-HELD_OUT:]

    tokenizer = train_tokenizer((text for pair in training for text in pair), VOCABULARY)
    dataset = [
        {"input_ids": tokenizer(source)["input_ids"], "labels": tokenizer(text_target=target)["input_ids"]}
        for source, target in training
    ]
    config = preset(PRESET, vocab_size=len(tokenizer))
    model = VanillaTransformerForConditionalGeneration(config)
    print(f"{len(training)} pairs, {len(tokenizer)} subwords, {config.count_parameters():,} parameters")

    settings = VanillaTransformerTrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        max_steps=options.updates,
        max_tokens_per_batch=TOKENS_PER_UPDATE,
        warmup_steps=WARMUP,
        learning_rate=PEAK_RATE,
        save_steps=max(1, options.updates // 20),
        save_total_limit=AVERAGED,
        report_to="none",
    )
    trainer = VanillaTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=dataset,
        data_collator=DataCollatorForTranslation(tokenizer, config.decoder_start_token_id),
        processing_class=tokenizer,
    )
    trainer.train()

    final = average_checkpoints(settings.output_dir, options.output / "final", last=AVERAGED, overwrite=True)
    model = VanillaTransformerForConditionalGeneration.from_pretrained(final)
    translations = translate(model, tokenizer, [source for source, _ in test])
    for (source, target), translation in list(zip(test, translations, strict=True))[:3]:
        print(f"\n  source       {source}\n  reference    {target}\n  translation  {translation}")
    # For Korean targets TranslationMetric("korean"), for Chinese "zh", for Japanese "char".
    scores = TranslationMetric().compute(predictions=translations, references=[target for _, target in test])
    print(f"\n{scores['bleu_signature']}")
    print(f"train_from_two_files: bleu={scores['bleu']:.2f} chrf={scores['chrf']:.2f} model={final}")


if __name__ == "__main__":
    main()
