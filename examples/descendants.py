"""Take the Transformer apart: its encoder alone, towards BERT, and its decoder alone, towards GPT.

You learn: that both descendants are made of the paper's layers and nothing else (an encoder that sees both sides of a
gap, a decoder that sees only what is already written), what each is good for, and what a translation model gains if it
starts from an encoder that has read text before.

    python examples/descendants.py

The text is English and Korean dates, times, amounts and numbers in words, without telling which belong together.
Minutes: 6. Hardware: two CPU cores. Results: results.json in --output. The last line is
"descendants: fill=… (words filled rightly) nll=… (nats per token) pretrained=… scratch=… output=…", the last two being
the held-out likelihood, in nats per token, of translation models after the same updates on the same few pairs.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments, set_seed
from transformers.modeling_outputs import MaskedLMOutput

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerEncoderModel,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
    VanillaTransformerPreTrainedModel,
    VanillaTransformerTrainer,
    VanillaTransformerTrainingArguments,
    embedded_corpus,
    train_tokenizer,
)

SENTENCES = 20_000
UPDATES = 900
SENTENCES_PER_UPDATE = 64
PEAK_RATE = 2e-3
MASKED = 0.15  # share of tokens that are hidden, as in BERT
PAIRS = 1_500  # for translation: few, so that what was read before can help
TRANSLATION_UPDATES = 250
IGNORED = -100  # label of a token that carries no loss

GAPS = ("March fifth, nineteen ___ nine", "three o'clock ___", "two ___ won", "오후 세 ___ 십 분", "칠 달러 십 ___")
BEGINNINGS = ("March fifth,", "twelve oh", "one million", "천구백", "오전 열한")


class EncoderForMaskedLM(VanillaTransformerPreTrainedModel):
    """The encoder with a projection to the vocabulary: every position sees all others, and guesses what is hidden."""

    _tied_weights_keys = {"lm_head.weight": "encoder.embed_tokens.weight"}

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.encoder = VanillaTransformerEncoderModel(config).encoder
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.lm_head.weight = self.encoder.embed_tokens.weight  # one matrix, as in §3.4
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Name what is tied to what."""
        return dict(self._tied_weights_keys)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> MaskedLMOutput:
        """Score every token of the vocabulary at every place: (B, S) → (B, S, V)."""
        logits = self.lm_head(self.encoder(input_ids, attention_mask).last_hidden_state)
        loss = None if labels is None else cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return MaskedLMOutput(loss=loss, logits=logits)


class DecoderForCausalLM(VanillaTransformerPreTrainedModel):
    """The decoder without encoder-decoder attention: every position sees what is before it, and guesses the next."""

    _tied_weights_keys = {"lm_head.weight": "decoder.embed_tokens.weight"}

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.decoder = VanillaTransformerModel(config).decoder
        for layer in self.decoder.layers:  # nothing to look at: these would never learn
            del layer.cross_attn, layer.cross_attn_norm
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.lm_head.weight = self.decoder.embed_tokens.weight
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Name what is tied to what."""
        return dict(self._tied_weights_keys)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> MaskedLMOutput:
        """Score every token of the vocabulary as the next one: (B, T) → (B, T, V)."""
        logits = self.lm_head(self.decoder(input_ids, attention_mask).last_hidden_state)
        loss = None if labels is None else cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return MaskedLMOutput(loss=loss, logits=logits)


# --------------------------------------------------------------------------- batches


class HideSome:
    """Makes a batch for the encoder: some tokens become <unk>, which no text has, and are what has to be guessed."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self.tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        hidden = (torch.rand(ids.shape) < MASKED) & (mask == 1)
        hidden[:, 0] |= ~hidden.any(dim=1)  # each sentence asks at least one question
        return {
            "input_ids": ids.masked_fill(hidden, self.tokenizer.unk_token_id),
            "attention_mask": mask,
            "labels": ids.masked_fill(~hidden, IGNORED),
        }


class ShiftRight:
    """Makes a decoder batch: the decoder start token and all tokens but the last predict all tokens (§3.1)."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self.tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        start = torch.full((len(ids), 1), self.tokenizer.bos_token_id)
        return {
            "input_ids": torch.cat([start, ids[:, :-1]], dim=1),
            "attention_mask": mask,
            "labels": ids.masked_fill(mask == 0, IGNORED),
        }


def train_language_model(
    model: Any, collator: Any, train: Dataset, held_out: Dataset, updates: int, folder: Path
) -> float:
    """Train with the stock Trainer; return the held-out loss in nats per token."""
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=updates, per_device_train_batch_size=SENTENCES_PER_UPDATE,
        per_device_eval_batch_size=200, learning_rate=PEAK_RATE, warmup_steps=updates // 10, adam_beta2=0.98,
        weight_decay=0.0, logging_steps=max(1, updates // 4), save_strategy="no", report_to="none", disable_tqdm=True,
        remove_unused_columns=False, use_cpu=True, seed=1,
    )  # fmt: skip
    trainer = Trainer(model, arguments, data_collator=collator, train_dataset=train, eval_dataset=held_out)
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    model.eval()
    return loss


# --------------------------------------------------------------------------- what they can do


@torch.no_grad()
def fill(model: EncoderForMaskedLM, tokenizer: Any, text: str, guesses: int = 3) -> list[str]:
    """Fill the gap, written as ___, with one token; the best guesses first."""
    before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split("___"))
    ids = torch.tensor([[*before, tokenizer.unk_token_id, *after, tokenizer.eos_token_id]])
    best = model(ids, torch.ones_like(ids)).logits[0, len(before)].topk(guesses).indices
    return [tokenizer.decode([token]).strip() for token in best.tolist()]


@torch.no_grad()
def fill_accuracy(model: EncoderForMaskedLM, collator: HideSome, rows: Dataset) -> float:
    """Share of the hidden tokens of held-out sentences that the first guess gets."""
    set_seed(2)
    batch = collator([rows[number] for number in range(len(rows))])
    guesses = model(batch["input_ids"], batch["attention_mask"]).logits.argmax(dim=-1)
    asked = batch["labels"] != IGNORED
    return float((guesses == batch["labels"])[asked].float().mean())


@torch.no_grad()
def continue_text(model: DecoderForCausalLM, tokenizer: Any, text: str, most_tokens: int = 30) -> str:
    """Continue a text with the most likely token at each step, up to the EOS token."""
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    for _ in range(most_tokens):
        token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
    return tokenizer.decode(ids, skip_special_tokens=True)


def translation_loss(
    start_from: EncoderForMaskedLM | None, config: Any, tokenizer: Any, updates: int, folder: Path
) -> float:
    """Train English to Korean on a few pairs; return the held-out likelihood in nats per token."""
    set_seed(1)
    model = VanillaTransformerForConditionalGeneration(config)
    if start_from is not None:
        model.get_encoder().load_state_dict(start_from.encoder.state_dict())  # the shared embedding comes with it
    columns = []
    for split, size in (("train", PAIRS), ("validation", 200)):
        pairs = embedded_corpus(split, size, seed=5)["translation"]
        sources, targets = ([pair[side] for pair in pairs] for side in ("en", "ko"))
        columns.append(
            {"input_ids": tokenizer(sources)["input_ids"], "labels": tokenizer(text_target=targets)["input_ids"]}
        )
    warmup_steps = max(1, updates // 5)
    arguments = VanillaTransformerTrainingArguments(
        output_dir=str(folder), max_steps=updates, max_tokens_per_batch=800, warmup_steps=warmup_steps,
        learning_rate=0.1 / (config.d_model * warmup_steps) ** 0.5, precision="fp32", save_strategy="no",
        logging_steps=max(1, updates // 2), report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = VanillaTransformerTrainer(
        model, arguments, train_dataset=Dataset.from_dict(columns[0]), eval_dataset=Dataset.from_dict(columns[1]),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return trainer.evaluate()["eval_loss"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/results/descendants"))
    parser.add_argument("--quick", action="store_true", help="a few updates, to see that everything runs")
    options = parser.parse_args(arguments)
    updates, translation_updates = (6, 4) if options.quick else (UPDATES, TRANSLATION_UPDATES)
    options.output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    pairs = embedded_corpus("train", 600 if options.quick else SENTENCES // 2, seed=1)["translation"]
    texts = [text for pair in pairs for text in pair.values()]
    tokenizer = train_tokenizer(texts, 600)
    train = Dataset.from_dict({"input_ids": tokenizer(texts)["input_ids"]})
    pairs = embedded_corpus("test", 200, seed=1)["translation"]
    held_out = Dataset.from_dict(
        {"input_ids": tokenizer([text for pair in pairs for text in pair.values()])["input_ids"]}
    )
    config = VanillaTransformerConfig(
        vocab_size=len(tokenizer), d_model=128, d_ff=256, num_heads=4, encoder_layers=2, decoder_layers=2, dropout=0.0
    )

    set_seed(1)
    reader, collator = EncoderForMaskedLM(config), HideSome(tokenizer)
    train_language_model(reader, collator, train, held_out, updates, options.output / "run")
    filled = fill_accuracy(reader, collator, held_out)
    print(f"\nThe encoder alone, towards BERT: {filled:.3f} of the hidden tokens filled rightly")
    for text in GAPS:
        print(f"  {text:36} {' | '.join(fill(reader, tokenizer, text))}")

    set_seed(1)
    writer = DecoderForCausalLM(config)
    nll = train_language_model(writer, ShiftRight(tokenizer), train, held_out, updates, options.output / "run")
    print(f"\nThe decoder alone, towards GPT: {nll:.3f} nats per token")
    for text in BEGINNINGS:
        print(f"  {text:14} → {continue_text(writer, tokenizer, text)}")

    losses = {
        name: translation_loss(encoder, config, tokenizer, translation_updates, options.output / "run")
        for name, encoder in (("pretrained", reader), ("scratch", None))
    }
    print(f"\nTranslation after {translation_updates} updates on {PAIRS} pairs, nats a held-out token: {losses}\n")
    results = {"fill": filled, "nll": nll, **losses, "updates": updates, "seconds": round(time.perf_counter() - start)}
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(
        f"descendants: fill={filled:.3f} nll={nll:.3f} pretrained={losses['pretrained']:.3f} "
        f"scratch={losses['scratch']:.3f} output={options.output}"
    )


if __name__ == "__main__":
    main()
