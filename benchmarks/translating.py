"""Translating Multi30k's test text with a trained model of preset tiny: lines in, lines out, beside CTranslate2.

Both sides get the same 1,000 lines of text and tokenize, sort, batch, search and join the tokens again. Both run the
same weights with beam 5 and length penalty 1.0, each with the batch size and workers that were fastest in a trial of
several. CTranslate2 ends the search of a sentence when as many hypotheses as beams have ended, so ours does the same
here (``early_stopping=True``); our exact search, the default, has rows of its own. The record contains BLEU of every
contender, and the share of lines that int8 translates as fp32 does, so that no speed is bought by quality. The first
checkpoint is timed; what int8 changes is the mean over all checkpoints.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ctranslate2_process import TranslatorProcess
from decoding import CTRANSLATE2, count_operations
from machine import DTYPES, matrix_rate
from side_by_side import OURS, Goal, Options, Result, Row, Skipped, fastest, per_second, take_turns
from training_loop import DATA_LICENSE, DATA_VARIABLE
from training_step import profile_of
from transformers import AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    TranslationMetric,
    VanillaTransformerForConditionalGeneration,
    embedded_corpus,
    export_checkpoint,
    preset,
    quantize,
    train_tokenizer,
    translate,
)

CHECKPOINT_VARIABLE = "VANILLA_TRANSFORMER_CHECKPOINT"
TEXT = "multi30k/lc.norm.tok/test_2016_flickr"  # .en and .de, in the folder that --data names
SEARCH = BeamSearchConfig(num_beams=5, length_penalty=1.0, early_stopping=True)
EXACT_SEARCH = SEARCH.replace(early_stopping=False)
OUR_BATCHES = (64, 128, 256)  # sentences; 64 is the default
THEIR_BATCHES = (
    ("examples", 32),
    ("examples", 64),
    ("examples", 128),
    ("examples", 256),
    ("tokens", 2048),
    ("tokens", 4096),
)
Translate = Callable[[], list[str]]


@dataclass(frozen=True)
class Contender:
    """One way to translate the text.

    Attributes:
        who: ours or the peer's name, with the precision.
        way: batch size and workers, in words.
        run: translates all lines.
        batches: of ours, batch size and workers.
    """

    who: str
    way: str
    run: Translate
    batches: tuple[int, int] = (0, 0)


def our_contenders(model: Any, tokenizer: Any, lines: Sequence[str], precision: str) -> list[Contender]:
    """Return `translate` with several batch sizes and one worker per thread, and with one worker."""
    most = torch.get_num_threads() if sys.platform == "linux" else 1
    ways = [(size, most) for size in OUR_BATCHES] + [(OUR_BATCHES[0], 1)] * (most > 1)
    return [
        Contender(
            f"{OURS}, {precision}",
            f"batch {size}, {workers} worker{'s' if workers > 1 else ''}",
            our_translate(model, tokenizer, lines, SEARCH, size, workers),
            (size, workers),
        )
        for size, workers in ways
    ]


def our_translate(
    model: Any, tokenizer: Any, lines: Sequence[str], search: BeamSearchConfig, size: int, workers: int
) -> Translate:
    """Return `translate`; no batch is split because of its tokens: Multi30k's sentences have fewer than 64."""
    options: Any = {"batch_size": size, "batch_tokens": 64 * size, "workers": workers}
    return lambda: translate(model, tokenizer, list(lines), search, **options)


def ctranslate2_contenders(folder: Path, tokenizer: Any, lines: Sequence[str], compute_type: str) -> list[Contender]:
    """Return CTranslate2's Python API with several batch sizes and numbers of workers, which share torch's threads."""
    threads = torch.get_num_threads()
    found = []
    for workers in sorted({1, threads}):
        translator = TranslatorProcess(folder, compute_type, workers, threads)

        def run(translator: Any = translator, kind: str = "", size: int = 0) -> list[str]:
            ids = tokenizer(list(lines))["input_ids"]
            results = translator.translate_batch(
                [tokenizer.convert_ids_to_tokens(row) for row in ids],
                max_batch_size=size,  # it sorts by length itself
                batch_type=kind,
                beam_size=SEARCH.num_beams,
                length_penalty=SEARCH.length_penalty,
                max_decoding_length=max(map(len, ids)) + SEARCH.max_extra_tokens,
            )
            written = [tokenizer.convert_tokens_to_ids(words) for words in results]
            return tokenizer.batch_decode(written, skip_special_tokens=True)

        for kind, size in THEIR_BATCHES:
            way = f"batch {size}{' tokens' if kind == 'tokens' else ''}, {workers} worker{'s' if workers > 1 else ''}"
            run_so = lambda run=run, kind=kind, size=size: run(kind=kind, size=size)  # noqa: E731
            found.append(Contender(f"CTranslate2 {compute_type}", way, run_so))
    return found


def fastest_way(contenders: Sequence[Contender], trials: int) -> Contender:
    """Try each way ``trials`` times in turns, and return the one with the shortest run."""
    seconds = take_turns({f"{one.who}, {one.way} (trial)": one.run for one in contenders}, trials, warm_up=0)
    best = fastest(seconds)
    return next(one for one in contenders if best == f"{one.who}, {one.way} (trial)")


# --------------------------------------------------------------------------- text and checkpoint


def text_and_checkpoints(options: Options, folder: Path) -> tuple[list[str], list[str], list[Path]]:
    """Return source lines, reference lines and checkpoints; ``--quick`` makes some that mean nothing.

    Raises:
        Skipped: If text or checkpoint is missing.
    """
    if options.quick:
        rows = embedded_corpus("train", size=12, seed=0)["translation"]
        source, reference = [row["en"] for row in rows], [row["ko"] for row in rows]
        tokenizer = train_tokenizer([*source, *reference], 400)
        sizes = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
        model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes))
        model.save_pretrained(folder / "random")
        tokenizer.save_pretrained(folder / "random")
        return source, reference, [folder / "random"] * 2
    data = options.data or Path(os.environ.get(DATA_VARIABLE, "data"))
    paths = [data / f"{TEXT}.{language}" for language in ("en", "de")]
    if not all(path.is_file() for path in paths):
        raise Skipped(f"translating: no {paths[0].name} of Multi30k; give its folder with --data or {DATA_VARIABLE}")
    checkpoints = list(options.checkpoints) or [Path(os.environ.get(CHECKPOINT_VARIABLE, "checkpoint"))]
    for checkpoint in checkpoints:
        if not (checkpoint / "config.json").is_file():
            raise Skipped(
                f"translating: no trained model in {checkpoint}; give its directory with --checkpoint or "
                f"{CHECKPOINT_VARIABLE}"
            )
    source, reference = (path.read_text(encoding="utf-8").removesuffix("\n").split("\n") for path in paths)
    return source, reference, checkpoints


# --------------------------------------------------------------------------- what int8 changes


def outputs_in_int8_and_fp32(checkpoint: Path, source: Sequence[str], exported: Path | None) -> dict[str, list[str]]:
    """Translate with another checkpoint as the contenders of the same names do.

    Args:
        checkpoint: a trained model.
        source: lines.
        exported: folder for CTranslate2's model; None leaves CTranslate2 out.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    outputs = {}
    for precision, of_precision in (("fp32", model), ("int8", quantize(model))):
        for name, search in ((f"{OURS}, {precision}", SEARCH), (f"{OURS}, exact search, {precision}", EXACT_SEARCH)):
            outputs[name] = our_translate(of_precision, tokenizer, source, search, OUR_BATCHES[0], 1)()
    if exported is not None:
        folder = export_checkpoint("ctranslate2", checkpoint, exported)
        for compute_type in CTRANSLATE2.values():
            first, *_ = ctranslate2_contenders(folder, tokenizer, source, compute_type)
            outputs[first.who] = first.run()
    return outputs


def int8_rows(
    outputs: Sequence[dict[str, list[str]]], reference: Sequence[str], metric: TranslationMetric
) -> list[Row]:
    """Return rows of BLEU and of equal lines of int8 beside fp32, means over the checkpoints.

    Args:
        outputs: of each checkpoint, the translations of each contender by name.
        reference: lines.
        metric: computes BLEU.
    """
    references = [[line] for line in reference]

    def bleu(name: str) -> list[float]:
        return [metric.compute(predictions=found[name], references=references)["bleu"] for found in outputs]

    def equal(name: str, other: str) -> list[float]:
        return [_equal(found[name], found[other]) for found in outputs]

    def differences(name: str, other: str) -> str:
        return ", ".join(f"{mine - theirs:+.2f}" for mine, theirs in zip(bleu(name), bleu(other), strict=True))

    of_all = f", mean of {len(outputs)} checkpoints" if len(outputs) > 1 else ""
    peer, exact_peer = (f"CTranslate2 {CTRANSLATE2[precision]}" for precision in ("int8", "fp32"))
    rows = []
    for kind in ("", "exact search, "):
        ours, exact = (f"{OURS}, {kind}{precision}" for precision in ("int8", "fp32"))
        note = f"by checkpoint: {differences(ours, exact)}"
        if not kind and peer in outputs[0]:
            note += f"; {peer} beside its {CTRANSLATE2['fp32']}: {differences(peer, exact_peer)}"
        rows.append(
            Row(
                f"BLEU, {kind.replace('exact', 'our exact')}int8 beside our fp32{of_all}",
                "BLEU",
                [mean(bleu(ours))],
                [mean(bleu(exact))],
                exact,
                goal=Goal("difference", least=-0.1),
                note=note,
            )
        )
    ours, exact = f"{OURS}, int8", f"{OURS}, fp32"
    theirs = [mean(equal(peer, exact_peer))] if peer in outputs[0] else []
    rows.append(
        Row(
            f"lines that int8 translates as fp32 does{of_all}",
            "%",
            [mean(equal(ours, exact))],
            theirs,
            f"{peer} beside its {CTRANSLATE2['fp32']}",
            goal=Goal(least=1.0) if theirs else None,
        )
    )
    return rows


# --------------------------------------------------------------------------- where the time goes


def translating_floor(run: Translate, precision: str, rate: float, workers: int) -> dict[str, Any]:
    """Compute the least time of translating: its products, with padding, at the machine's rate.

    Args:
        run: translates in this process with floating-point weights; its products are counted.
        precision: "fp32", "bf16" or "int8", of the contender that the limit is for.
        rate: measured operations per second at that precision, of all threads.
        workers: processes that share the threads.

    Returns:
        ``operations`` and ``seconds``. The weights stay in the cache, so that reading them sets no limit.
    """
    operations = count_operations(run)
    return {
        "precision": precision,
        "workers": workers,
        "operations": operations,
        "matrix_rate": round(rate),
        "seconds_of_products": operations / rate,
        "seconds": operations / rate,
    }


def profiles(
    models: dict[str, Any],
    tokenizer: Any,
    lines: Sequence[str],
    batches: dict[str, tuple[int, int]],
    quick: bool,
) -> dict[str, Any]:
    """Profile what one worker does with all lines, and compute the least time of each precision.

    Args:
        models: ours, by precision.
        tokenizer: of the models.
        lines: to translate.
        batches: batch size and workers of each precision.
        quick: measure the matrix rate briefly.
    """
    found: dict[str, Any] = {"operators": {}, "floor": {}}
    rates = {precision: matrix_rate(DTYPES.get(precision, torch.int8), quick=quick) for precision in models}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        for precision, (size, workers) in batches.items():
            name = f"{OURS}, {precision}, one of {workers} workers" if workers > 1 else f"{OURS}, {precision}"
            run = our_translate(models[precision], tokenizer, lines, SEARCH, size, 1)
            found["operators"][name] = profile_of(run)
            counted = run if precision != "int8" else our_translate(models["fp32"], tokenizer, lines, SEARCH, size, 1)
            found["floor"][f"{precision}, all lines"] = translating_floor(counted, precision, rates[precision], workers)
    finally:
        torch.set_num_threads(threads)
    return found


# --------------------------------------------------------------------------- the measurement


def measure(options: Options) -> Result:
    """Translate the text by every contender, in turns."""
    rounds = options.rounds or (1 if options.quick else 5)
    skipped = []
    with TemporaryDirectory() as temporary:
        source, reference, (checkpoint, *others) = text_and_checkpoints(options, Path(temporary))
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        load = VanillaTransformerForConditionalGeneration.from_pretrained
        models = {precision: load(checkpoint, dtype=DTYPES[precision]).eval() for precision in options.precisions}
        if "bf16" not in models:
            skipped.append(f"translating in bf16: {options.precision_reason}")
        try:
            models["int8"] = quantize(models["fp32"])
        except ValueError as error:
            skipped.append(f"translating in int8: {error}")
        trials = [our_contenders(model, tokenizer, source, precision) for precision, model in models.items()]
        try:
            exported = export_checkpoint("ctranslate2", checkpoint, Path(temporary) / "ctranslate2")
            trials += [ctranslate2_contenders(exported, tokenizer, source, name) for name in CTRANSLATE2.values()]
        except ImportError as error:  # it is an extra
            skipped.append(f"CTranslate2: {error}")
        contenders = {ways[0].who: fastest_way(ways, 1) for ways in trials}
        for precision, model in models.items():
            name, way = f"{OURS}, exact search, {precision}", contenders[f"{OURS}, {precision}"]
            run = our_translate(model, tokenizer, source, EXACT_SEARCH, *way.batches)
            contenders[name] = Contender(name, way.way, run)
        outputs = {name: contender.run() for name, contender in contenders.items()}
        seconds = take_turns({name: contender.run for name, contender in contenders.items()}, rounds, warm_up=0)
        outputs_of_all = [outputs]
        if "int8" in models:
            peer_too = any(name.startswith("CTranslate2") for name in contenders)
            for number, other in enumerate(others):
                exported = Path(temporary) / f"other-{number}" if peer_too else None
                outputs_of_all.append(outputs_in_int8_and_fp32(other, source, exported))
        batches = {precision: contenders[f"{OURS}, {precision}"].batches for precision in models}
        profile = profiles(models, tokenizer, source, batches, options.quick)

    speeds = {name: per_second(len(source), runs) for name, runs in seconds.items()}
    metric = TranslationMetric(tokenize="none")
    scores = {
        name: metric.compute(predictions=lines, references=[[line] for line in reference])
        for name, lines in outputs.items()
    }
    ours = {precision: f"{OURS}, {precision}" for precision in models}
    peers = {precision: f"CTranslate2 {name}" for precision, name in CTRANSLATE2.items()}
    peers = {precision: name for precision, name in peers.items() if name in contenders}
    best = fastest(seconds, ours.values())
    what = f"translating {len(source):,} lines{'' if options.quick else ' of Multi30k'}, tiny, beam 5"

    def ways(mine: str, peer: str) -> str:
        return f"{mine.removeprefix(OURS + ', ')}, {contenders[mine].way}; peer {contenders[peer].way}"

    table = [
        Row(
            f"{what}, our best precision",
            "sentences/s",
            speeds[best],
            speeds[peer],
            peer,
            goal=Goal(least=1.0),
            note=f"ours {ways(best, peer)}",
        )
        for peer in peers.values()
    ]
    for precision, name in ours.items():
        peer = peers.get(precision)
        note = ways(name, peer) if peer else contenders[name].way
        table.append(
            Row(f"{what}, {precision}", "sentences/s", speeds[name], speeds[peer] if peer else [], peer, note=note)
        )
    for precision in ours:
        name, peer = f"{OURS}, exact search, {precision}", peers.get(precision)
        title = f"{what}, our exact search, {precision}"
        theirs = speeds[peer] if peer else []
        table.append(Row(title, "sentences/s", speeds[name], theirs, peer, note=contenders[name].way))
        bleu = [scores[name]["bleu"]]
        table.append(
            Row(f"BLEU, our exact search, {precision}", "BLEU", bleu, [scores[peer]["bleu"]] if peer else [], peer)
        )
    for precision, name in ours.items():
        peer, bleu = peers.get(precision), [scores[name]["bleu"]]
        table.append(Row(f"BLEU, {precision}", "BLEU", bleu, [scores[peer]["bleu"]] if peer else [], peer))
    if "int8" in ours:
        table += int8_rows(outputs_of_all, reference, metric)
    return Result(
        "translating",
        "Sentences translated per second by a trained model of preset tiny, text in and text out, and their quality.",
        table,
        profile=profile
        | {
            "contenders": {
                name: {
                    "way": contender.way,
                    "seconds": round(min(seconds[name]), 4),
                    "bleu": round(scores[name]["bleu"], 3),
                    "lines_equal_to_our_fp32": _equal(outputs[name], outputs[ours["fp32"]]),
                }
                for name, contender in contenders.items()
            }
        },
        settings={
            "precision": best.removeprefix(f"{OURS}, "),
            "num_beams": SEARCH.num_beams,
            "length_penalty": SEARCH.length_penalty,
            "lines": len(source),
            "checkpoints": len(outputs_of_all),
            "rounds": rounds,
            "bleu_signature": scores[best]["bleu_signature"],
            "data_license": DATA_LICENSE,
        },
        skipped=skipped,
    )


def _equal(lines: Sequence[str], others: Sequence[str]) -> float:
    """Return the percentage of equal lines."""
    return 100 * sum(line == other for line, other in zip(lines, others, strict=True)) / len(lines)
