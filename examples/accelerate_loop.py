"""Train with a loop of your own: accelerate, no Trainer.

You learn: what a Trainer does for you. Batches are filled by tokens; the loss of an update is divided by the target
tokens of the whole update, over all processes and accumulated batches, so that neither changes what is learned; the
learning rate is the paper's Equation 3. The data is the embedded corpus: numbers, dates and times, English to Korean.

    python examples/accelerate_loop.py runs/loop
    accelerate launch --config_file examples/configs/accelerate/cpu.yaml examples/accelerate_loop.py runs/loop

Hardware: two CPU cores do. Minutes: about five on them.
The last line is "accelerate_loop: exact=… of 200 model=runs/loop"; exactness grows with UPDATES.
"""

import argparse
import itertools
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from hf_vanilla_transformer import (
    BeamSearchConfig,
    DataCollatorForTranslation,
    TokenBudgetSampler,
    TranslationMetric,
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    freed_memory_kept,
    preset,
    train_tokenizer,
    translate,
)

PAIRS, VOCABULARY = 20_000, 600
UPDATES, WARMUP = 800, 200
TOKENS_PER_UPDATE = 2048  # source, and target, tokens: all processes and accumulated batches together
ACCUMULATION = 2  # batches an update, each half as large
FACTOR = 0.35  # on Equation 3
SMOOTHING = 0.1  # section 5.4
SIZES = {"d_model": 192, "d_ff": 512, "num_heads": 8, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}


def learning_rate(step: int, d_model: int) -> float:
    """Equation 3; `step` counts from 1."""
    return FACTOR * d_model**-0.5 * min(step**-0.5, step * WARMUP**-1.5)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options = parser.parse_args(arguments)

    set_seed(1)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())  # or each process would train for itself
    pairs = embedded_corpus("train", options.pairs)["translation"]
    tokenizer = train_tokenizer((text for pair in pairs for text in pair.values()), VOCABULARY)
    examples = [
        {"input_ids": tokenizer(pair["en"])["input_ids"], "labels": tokenizer(text_target=pair["ko"])["input_ids"]}
        for pair in pairs
    ]
    config = preset("small", vocab_size=len(tokenizer), **SIZES)
    sampler = TokenBudgetSampler(
        [len(example["input_ids"]) for example in examples],
        [len(example["labels"]) for example in examples],
        TOKENS_PER_UPDATE,
        num_ranks=accelerator.num_processes,
        accumulation_steps=ACCUMULATION,
    )
    collator = DataCollatorForTranslation(tokenizer, config.decoder_start_token_id)
    loader = DataLoader(examples, batch_sampler=sampler, collate_fn=collator)
    model = VanillaTransformerForConditionalGeneration(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, betas=(0.9, 0.98), eps=1e-9)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    model.train()
    step = 0
    with freed_memory_kept(accelerator.device):
        for epoch in itertools.count():
            loader.set_epoch(epoch)
            batches = iter(loader)
            while step < options.updates and (update := list(itertools.islice(batches, ACCUMULATION))):
                step += 1
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, config.d_model)
                tokens = torch.stack([(batch["labels"] != -100).sum() for batch in update]).sum()
                tokens = accelerator.reduce(tokens, "sum")
                total = 0.0
                for number, batch in enumerate(update, start=1):
                    # Processes exchange gradients at the last batch only, and average them: hence the factor.
                    with accelerator.no_sync(model) if number < len(update) else nullcontext():
                        output = model(**batch, label_smoothing=SMOOTHING, num_items_in_batch=tokens)
                        accelerator.backward(output.loss * accelerator.num_processes)
                    total += output.loss.item()
                optimizer.step()
                optimizer.zero_grad()
                if step % 50 == 0:
                    accelerator.print(f"update {step}: loss {total:.3f}, this process's share of it")
            if step >= options.updates:
                break

    if accelerator.is_main_process:
        model = accelerator.unwrap_model(model).eval()
        model.save_pretrained(options.output)
        tokenizer.save_pretrained(options.output)
        test = embedded_corpus("test", 200)["translation"]
        translations = translate(model, tokenizer, [pair["en"] for pair in test], BeamSearchConfig(num_beams=1))
        scores = TranslationMetric("char").compute(predictions=translations, references=[pair["ko"] for pair in test])
        print(f"accelerate_loop: exact={scores['exact']:.3f} of {scores['sentences']} model={options.output}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
