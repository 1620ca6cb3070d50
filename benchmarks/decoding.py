"""Translating: the paper's beam search and greedy search beside MarianMT's `generate` and CTranslate2.

Models have random weights and a bias that keeps the EOS token away, so every contender writes the same number of
tokens. CTranslate2 runs our own weights, exported, on as many threads as torch uses, either all of them on one batch or
each on a part of it; the faster way counts. Every row compares one precision.
"""

# Shapes: B batch · S source length · V vocabulary

import math
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ctranslate2_process import TranslatorProcess
from machine import DTYPES, matrix_rate, memory_bandwidth
from side_by_side import OURS, Goal, Options, Result, Row, fastest, per_second, take_turns
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
    quantize,
    translate,
)

MARIAN = "transformers MarianMT generate"
CTRANSLATE2 = {"fp32": "float32", "int8": "int8"}  # its names of our precisions
SAME_WEIGHTS = "the same weights"
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}  # per weight
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


def our_search_in_workers(model: Any, source: dict[str, Tensor], beams: int, tokens: int, workers: int) -> Decode:
    """Return `translate` with worker processes, which it starts at each call: a part of the batch for each."""
    config = BeamSearchConfig(num_beams=beams, max_target_tokens=tokens)
    tokenizer = word_tokenizer(model.config)
    lengths = source["attention_mask"].sum(dim=1).tolist()
    rows = [ids[:length] for ids, length in zip(source["input_ids"].tolist(), lengths, strict=True)]
    texts = [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in rows]
    return lambda: translate(model, tokenizer, texts, config, batch_size=-(-len(texts) // workers), workers=workers)


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


def count_operations(run: Callable[[], object]) -> int:
    """Count the operations of all products and of attention: a multiplication and an addition are two.

    torch does not count oneDNN's linear layer and the attention kernel of the CPU by itself.
    """

    def linear(states: Any, weight: Any, *_: Any, **__: Any) -> int:
        return int(2 * math.prod(states) * weight[0])

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(2 * math.prod(query[:-1]) * key[-2] * (key[-1] + value[-1]))

    mapping = {
        torch.ops.mkldnn._linear_pointwise: linear,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return int(counter.get_total_flops())


def decoding_floor(
    model: Any, decode: Decode, tokens: int, precision: str, rate: float, bandwidth: float
) -> dict[str, Any]:
    """Compute the least time of a search: its products at the machine's rate, or its weights read at each step.

    Args:
        model: ours with floating-point weights.
        decode: the search by ``model``, whose products are counted.
        tokens: written per sentence.
        precision: "fp32", "bf16" or "int8", of the search that the limit is for.
        rate: measured operations per second at that precision.
        bandwidth: measured bytes per second, read and written together.

    Returns:
        ``operations``, ``bytes`` of weights, the seconds of each, and ``seconds``, the larger of the two: while one row
        is multiplied the next weights can be on their way.
    """
    operations = count_operations(decode)
    decoder = [*model.model.decoder.layers.parameters(), model.lm_head.weight]
    weights = tokens * sum(weight.numel() for weight in decoder)
    weights += sum(weight.numel() for weight in model.model.encoder.layers.parameters())
    read = weights * BYTES[precision]
    products, traffic = operations / rate, read / bandwidth
    return {
        "precision": precision,
        "operations": operations,
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


def ctranslate2_decode(
    folder: Path, compute_type: str, source: dict[str, Tensor], beams: int, tokens: int, workers: int = 1
) -> Decode:
    """Return CTranslate2's translation of ``source``, writing ``tokens`` tokens per sentence.

    Args:
        folder: from `ctranslate2_folder`.
        compute_type: arithmetic, by CTranslate2's names.
        source: from `example_batch`.
        beams: per sentence.
        tokens: written per sentence.
        workers: parts of the batch that are translated at the same time; they share torch's number of threads.
    """
    translator = TranslatorProcess(folder, compute_type, workers, torch.get_num_threads())
    lengths = source["attention_mask"].sum(dim=1).tolist()
    rows = [
        [f"w{index}" for index in ids[:length]]
        for ids, length in zip(source["input_ids"].tolist(), lengths, strict=True)
    ]

    def decode() -> Any:
        results = translator.translate_batch(
            rows,
            max_batch_size=-(-len(rows) // workers),
            beam_size=beams,
            max_decoding_length=tokens,
            min_decoding_length=tokens,
            return_scores=False,
        )
        written = set(map(len, results))
        if written != {tokens}:
            raise RuntimeError(f"CTranslate2 wrote {sorted(written)} tokens instead of {tokens}")
        return results

    return decode


# --------------------------------------------------------------------------- the measurement


def our_models(config: VanillaTransformerConfig, options: Options) -> tuple[dict[str, Any], list[str]]:
    """Build our model in every precision that this processor has, and list why others are left out."""
    models = {precision: our_model(config, DTYPES[precision]) for precision in options.precisions}
    skipped = []
    if "bf16" not in models:
        skipped.append(f"decoding in bf16: {options.precision_reason}")
    try:
        models["int8"] = quantize(models["fp32"])
    except ValueError as error:
        skipped.append(f"decoding in int8: {error}")
    return models, skipped


def measure(options: Options) -> Result:
    """Decode a batch with beam 4, and one sentence greedily."""
    config = base_config(options.quick)
    tokens = 6 if options.quick else 24
    rounds = options.rounds or (2 if options.quick else 5)
    models, skipped = our_models(config, options)
    marians = {precision: marian_model(config, DTYPES[precision]) for precision in options.precisions}
    rates = {precision: matrix_rate(DTYPES.get(precision, torch.int8), quick=options.quick) for precision in models}
    bandwidth = memory_bandwidth(quick=options.quick)
    profile: dict[str, Any] = {"floor": {}, "operators": {}}
    table: list[Row] = []

    with TemporaryDirectory() as temporary:
        folder = None
        try:
            folder = ctranslate2_folder(config, Path(temporary))
        except ImportError as error:  # it is an extra
            skipped.append(f"CTranslate2: {error}")
        many = 4 if options.quick else 32
        cases = {  # beams and sentences of each; the goals against CTranslate2 by precision
            f"beam 4, batch {many}": (4, many, {"int8": 1.3, "fp32": 1.1}),
            "greedy, batch 1": (1, 1, {"int8": 1.2}),
        }
        for case, (beams, sentences, goals) in cases.items():
            batch = example_batch(config.vocab_size, sentences, 8 if options.quick else 24)
            source = {name: batch[name] for name in ("input_ids", "attention_mask")}
            contenders: dict[str, Decode] = {}
            our_ways: dict[str, dict[str, int]] = {}  # by precision: name -> workers
            for precision, model in models.items():
                contenders[f"{OURS}, {precision}"] = our_search(model, source, beams, tokens)
                our_ways[precision] = {f"{OURS}, {precision}": 1}
            for precision, marian in marians.items():
                contenders[f"{OURS} generate, {precision}"] = generate(models[precision], source, beams, tokens)
                contenders[f"{MARIAN}, {precision}"] = generate(marian, source, beams, tokens)
            for name, decode in contenders.items():
                check_lengths(decode, tokens, name)
            workers = min(torch.get_num_threads(), sentences)
            if workers > 1 and sys.platform == "linux":
                for precision, model in models.items():
                    name = f"{OURS}, {precision}, workers: {workers}"
                    contenders[name] = our_search_in_workers(model, source, beams, tokens, workers)
                    our_ways[precision][name] = workers
            ways: dict[str, dict[str, int]] = {precision: {} for precision in CTRANSLATE2}  # name -> workers
            if folder is not None:
                for precision, compute_type in CTRANSLATE2.items():
                    for workers in sorted({1, min(torch.get_num_threads(), sentences)}):
                        name = f"CTranslate2 {compute_type}, workers: {workers}"
                        contenders[name] = ctranslate2_decode(folder, compute_type, source, beams, tokens, workers)
                        ways[precision][name] = workers
            seconds = take_turns(contenders, rounds)
            speeds = {name: per_second(sentences * tokens, runs) for name, runs in seconds.items()}

            what = f"{case}, {tokens} tokens out"
            if "int8" not in models and ways["int8"]:
                best = fastest(seconds, ways["int8"])
                ours = fastest(seconds, [name for names in our_ways.values() for name in names])
                title, peer = f"{what}, int8 beside our best precision", f"CTranslate2 int8, {SAME_WEIGHTS}"
                note = f"{ours}, which has no int8 here"
                table.append(
                    Row(title, "tokens/s", speeds[ours], speeds[best], peer, goal=Goal(least=goals["int8"]), note=note)
                )
            for precision in sorted(models, reverse=True):  # int8, fp32, bf16
                ours = fastest(seconds, our_ways[precision])
                title, marian = f"{what}, {precision}", f"{MARIAN}, {precision}"
                workers_note = f"our workers: {our_ways[precision][ours]}"
                if ways.get(precision):
                    best = fastest(seconds, ways[precision])
                    table.append(
                        Row(
                            title,
                            "tokens/s",
                            speeds[ours],
                            speeds[best],
                            f"CTranslate2 {CTRANSLATE2[precision]}, {SAME_WEIGHTS}",
                            goal=Goal(least=goals[precision]) if precision in goals else None,
                            note=f"{workers_note}; CTranslate2's: {ways[precision][best]}; the fastest of each",
                        )
                    )
                if precision in marians:
                    table.append(Row(title, "tokens/s", speeds[ours], speeds[marian], marian, note=workers_note))
                    generated = speeds[f"{OURS} generate, {precision}"]
                    plain = f"{what}, plain generate(), {precision}"
                    table.append(Row(plain, "tokens/s", generated, speeds[marian], marian))
                elif not ways.get(precision):
                    table.append(Row(title, "tokens/s", speeds[ours], note=workers_note))
                profile["floor"][title] = decoding_floor(
                    models["fp32"], contenders[f"{OURS}, fp32"], tokens, precision, rates[precision], bandwidth
                )
                profile["operators"][f"{OURS}, {precision}, {what}"] = profile_of(contenders[f"{OURS}, {precision}"])
    return Result(
        "decoding",
        "Tokens written per second by models of preset base's size with random weights.",
        table,
        profile,
        settings={
            "precision": ", ".join(models),
            "vocab_size": config.vocab_size,
            "source_tokens": "24, every second row 18" if not options.quick else "8, every second row 6",
            "rounds": rounds,
        },
        skipped=skipped,
    )
