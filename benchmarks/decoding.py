"""Translating: the paper's beam search and greedy search beside MarianMT's `generate` and CTranslate2.

Models have random weights and a bias that keeps the EOS token away, so every contender writes the same number of
tokens. CTranslate2 runs our own weights, exported, on as many threads as torch uses.
"""

# Shapes: B batch · S source length · V vocabulary

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from machine import DTYPES, matrix_rate, memory_bandwidth
from side_by_side import OURS, Goal, Options, Result, Row, per_second, take_turns
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from training_step import base_config, example_batch, marian_config, profile_of
from transformers import MarianMTModel, PreTrainedTokenizerFast

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    export_checkpoint,
    paper_beam_search,
)

MARIAN = "transformers MarianMT generate"
NEVER = -1e4  # logit bias of the EOS token: every hypothesis runs to the limit
Decode = Callable[[], Any]


def our_model(config: VanillaTransformerConfig, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """Build our model with random weights that never end a sentence."""
    torch.manual_seed(0)
    fields = {**config.to_dict(), "output_bias": True}
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig.from_dict(fields))
    with torch.no_grad():
        model.lm_head.bias[config.eos_token_id] = NEVER
    return model.eval().to(device=device, dtype=dtype)


def marian_model(config: VanillaTransformerConfig, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """Build a MarianMT of the same size, likewise."""
    torch.manual_seed(0)
    model = MarianMTModel(marian_config(config))
    model.final_logits_bias[0, model.config.eos_token_id] = NEVER
    return model.eval().to(device=device, dtype=dtype)


def our_search(model: Any, source: dict[str, Tensor], beams: int, tokens: int) -> Decode:
    """Return the paper's beam search on ``source``, writing ``tokens`` tokens per sentence."""
    return lambda: paper_beam_search(
        model, **source, config=BeamSearchConfig(num_beams=beams, max_target_tokens=tokens)
    )


def generate(model: Any, source: dict[str, Tensor], beams: int, tokens: int) -> Decode:
    """Return Hugging Face's `generate` on ``source``, writing ``tokens`` tokens per sentence."""
    return lambda: model.generate(
        **source, num_beams=beams, do_sample=False, max_length=None, max_new_tokens=tokens, early_stopping=False
    )


def check_lengths(decode: Decode, tokens: int, name: str) -> None:
    """Make sure that a contender writes what its figure is divided by."""
    output = decode()
    sequences = getattr(output, "sequences", output)
    if sequences.shape[1] != 1 + tokens:  # with the decoder start token
        raise RuntimeError(f"{name} wrote {sequences.shape[1] - 1} tokens instead of {tokens}")


def decoding_floor(model: Any, decode: Decode, tokens: int, rate: float, bandwidth: float) -> dict[str, float]:
    """Compute the least time of a search: its products at the machine's rate, or its weights read at each step.

    Returns:
        ``operations``, ``bytes`` of weights, the seconds of each, and ``seconds``, the larger of the two: while one row
        is multiplied the next weights can be on their way.
    """
    with FlopCounterMode(display=False) as counter:
        decode()
    decoder = [*model.model.decoder.layers.parameters(), model.lm_head.weight]
    read = tokens * sum(weight.numel() * weight.element_size() for weight in decoder)
    read += sum(weight.numel() * weight.element_size() for weight in model.model.encoder.layers.parameters())
    products, traffic = counter.get_total_flops() / rate, read / bandwidth
    return {
        "operations": counter.get_total_flops(),
        "matrix_rate": round(rate),
        "seconds_of_products": products,
        "bytes": read,
        "bandwidth": round(bandwidth),
        "seconds_of_traffic": traffic,
        "seconds": max(products, traffic),
    }


# --------------------------------------------------------------------------- CTranslate2


def ctranslate2_folder(config: VanillaTransformerConfig, folder: Path) -> Path:
    """Write our model in CTranslate2's format and return where."""
    checkpoint = folder / "checkpoint"
    our_model(config, torch.float32).save_pretrained(checkpoint)
    word_tokenizer(config).save_pretrained(checkpoint)
    return export_checkpoint("ctranslate2", checkpoint, folder / "ctranslate2")


def word_tokenizer(config: VanillaTransformerConfig) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one word for each id, since the model has no real one."""
    words = _words(config.vocab_size, end=config.eos_token_id)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[3]))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=words[0], bos_token=words[1], eos_token="</s>", unk_token=words[3]
    )


def _words(size: int, end: Any) -> list[str]:
    return ["</s>" if index == end else f"w{index}" for index in range(size)]


def ctranslate2_decode(folder: Path, compute_type: str, source: dict[str, Tensor], beams: int, tokens: int) -> Decode:
    """Return CTranslate2's translation of ``source``, writing ``tokens`` tokens per sentence."""
    import ctranslate2

    translator = ctranslate2.Translator(
        str(folder), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=torch.get_num_threads()
    )
    lengths = source["attention_mask"].sum(dim=1).tolist()
    rows = [
        [f"w{index}" for index in ids[:length]]
        for ids, length in zip(source["input_ids"].tolist(), lengths, strict=True)
    ]

    def decode() -> Any:
        results = translator.translate_batch(
            rows, beam_size=beams, max_decoding_length=tokens, min_decoding_length=tokens, return_scores=False
        )
        written = {len(result.hypotheses[0]) for result in results}
        if written != {tokens}:
            raise RuntimeError(f"CTranslate2 wrote {sorted(written)} tokens instead of {tokens}")
        return results

    return decode


# --------------------------------------------------------------------------- the measurement


def measure(options: Options) -> Result:
    """Decode a batch with beam 4, and one sentence greedily."""
    config = base_config(options.quick)
    tokens = 6 if options.quick else 24
    rounds = options.rounds or (2 if options.quick else 5)
    precisions = sorted({options.precision, "fp32"})
    skipped, table = [], []
    if options.precision != "bf16":
        skipped.append(f"decoding in bf16: {options.precision_reason}")
    headline = options.precision
    model = our_model(config, DTYPES[headline])
    marians = {precision: marian_model(config, DTYPES[precision]) for precision in precisions}
    rate, bandwidth = matrix_rate(DTYPES[headline], quick=options.quick), memory_bandwidth(quick=options.quick)
    profile: dict[str, Any] = {"floor": {}, "operators": {}}

    with TemporaryDirectory() as temporary:
        folder = None
        try:
            folder = ctranslate2_folder(config, Path(temporary))
        except ImportError as error:  # it is an extra
            skipped.append(f"CTranslate2: {error}")
        cases = {  # beams and sentences of each; the goal against Marian, against CTranslate2 int8
            f"beam 4, batch {4 if options.quick else 32}": (4, 4 if options.quick else 32, 2.5, 1.0),
            "greedy, batch 1": (1, 1, 1.5, 1.0),
        }
        for case, (beams, sentences, goal_marian, goal_int8) in cases.items():
            batch = example_batch(config.vocab_size, sentences, 8 if options.quick else 24)
            source = {name: batch[name] for name in ("input_ids", "attention_mask")}
            plain = f"{OURS} generate"
            contenders: dict[str, Decode] = {OURS: our_search(model, source, beams, tokens)}
            contenders[plain] = generate(model, source, beams, tokens)
            for precision, marian in marians.items():
                contenders[f"{MARIAN}, {precision}"] = generate(marian, source, beams, tokens)
            for name, decode in contenders.items():
                check_lengths(decode, tokens, name)
            if folder is not None:
                for compute_type in ("float32", "int8"):
                    decode = ctranslate2_decode(folder, compute_type, source, beams, tokens)
                    contenders[f"CTranslate2 {compute_type}, the same weights"] = decode
            seconds = take_turns(contenders, rounds)
            speeds = {name: per_second(sentences * tokens, runs) for name, runs in seconds.items()}
            what = f"{case}, {tokens} tokens out"
            profile["floor"][what] = decoding_floor(model, contenders[OURS], tokens, rate, bandwidth)
            profile["operators"][f"{OURS}, {what}"] = profile_of(contenders[OURS])
            for name, speed in speeds.items():
                if name == plain:
                    peer = f"{MARIAN}, {headline}"
                    title = f"{what}, plain generate(), {headline}"
                    table.append(Row(title, "tokens/s", speed, speeds[peer], peer))
                elif name != OURS:
                    goal = None
                    if name == f"{MARIAN}, {headline}":
                        goal = Goal(least=goal_marian)
                    elif "int8" in name:
                        goal = Goal(least=goal_int8)
                    table.append(Row(f"{what}, {headline}", "tokens/s", speeds[OURS], speed, name, goal=goal))
    return Result(
        "decoding",
        "Tokens written per second by models of preset base's size with random weights.",
        table,
        profile,
        settings={
            "precision": headline,
            "vocab_size": config.vocab_size,
            "source_tokens": "24, every second row 18" if not options.quick else "8, every second row 6",
            "rounds": rounds,
        },
        skipped=skipped,
    )
