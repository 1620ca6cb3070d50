"""What ensembles, constraints, prefixes and repeated n-grams change: scores and processor time on your test set.

You learn: how much an ensemble of runs with different seeds gains, and how a constraint or prefix moves a translation.
Constraints and prefixes come from the references here, to see what they can do; in use, they come from a terminology
or a translator.

    python examples/decoding_options.py runs/a runs/b --source test.en --reference test.ko
    python examples/decoding_options.py runs/a runs/b runs/c --source test.en --reference test.de
    python examples/decoding_options.py --render docs/decoding.md    # the table, from the records in examples/results/

Hardware: one CPU core. Minutes: about five for 1,000 sentences and `tiny` models. The last line is
"decoding_options: bleu=… ensemble=… record=…", of the first model and of all together.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from records import add_record_options, between, read_records, render_page, this_machine, write_record
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import BeamSearchConfig, Ensemble, TranslationMetric, score, translate

RECORDS = Path(__file__).resolve().parent / "results" / "decoding_options"
START, END = "<!-- decoding-options:start -->", "<!-- decoding-options:end -->"
LEAST_LETTERS = 4  # of a word that becomes a constraint


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line."""
    return path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")


def missing_words(translations: Sequence[str], references: Sequence[str]) -> list[list[str]]:
    """Choose a word of each reference that the translation lacks, at random; [] where there is none."""
    chooser, chosen = random.Random(0), []
    for translation, reference in zip(translations, references, strict=True):
        words = [word for word in reference.split() if word.isalpha() and len(word) >= LEAST_LETTERS]
        words = [word for word in words if word not in translation.split()]
        chosen.append([chooser.choice(words)] if words else [])
    return chosen


def table(folder: Path) -> str:
    """Return a table for each record."""
    lines: list[str] = []
    for record in read_records(folder):
        text = f"{record['text']}, {record['sentences']:,} sentences, one core of {record['machine']['processor']}"
        lines += ["", f"{text}:", "", "| decoding | BLEU | chrF | processor seconds |", "|---|---|---|---|"]
        for row in record["systems"]:
            quality = f"{row['bleu']:.1f} | {row['chrf']:.1f}" if "bleu" in row else "– | –"
            lines.append(f"| {row['system']} | {quality} | {row['seconds']:.1f} |")
    return "\n".join(lines[1:])


def render(text: str, folder: Path = RECORDS) -> str:
    """Return a page with the table of the records between its markers."""
    return between(text, START, END, table(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="*", help="models with the same tokenizer")
    parser.add_argument("--source", type=Path, help="text file with one sentence per line")
    parser.add_argument("--reference", type=Path, help="the translation of each line")
    parser.add_argument("--tokenize", default="13a", help="sacrebleu's tokenizer; none for tokenized text")
    add_record_options(parser, RECORDS)
    options = parser.parse_args(arguments)
    if render_page(options, render):
        return
    if not options.checkpoints or options.source is None or options.reference is None:
        parser.error("give checkpoints, --source and --reference")

    torch.set_num_threads(1)  # processor seconds of several threads include their waiting
    tokenizer = AutoTokenizer.from_pretrained(options.checkpoints[0])
    models = [AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval() for checkpoint in options.checkpoints]
    sources, references = read_lines(options.source), read_lines(options.reference)
    metric, rows = TranslationMetric(tokenize=options.tokenize), []

    def measure(name: str, run: Callable[[], list[str]], scored: bool = True) -> list[str]:
        started = time.process_time()
        found = run()
        row: dict[str, Any] = {"system": name, "seconds": round(time.process_time() - started, 1)}
        if scored:
            scores = metric.compute(predictions=found, references=references)
            row |= {key: scores[key] for key in ("bleu", "chrf", "bleu_signature", "chrf_signature")}
        rows.append(row)
        print(f"{name:58} {row.get('bleu', float('nan')):6.2f} {row['seconds']:7.1f} s", flush=True)
        return found

    first, search = models[0], BeamSearchConfig()
    plain = measure("one model", lambda: translate(first, tokenizer, sources, search))
    for number, model in enumerate(models[1:], start=2):
        measure(f"model {number}", lambda model=model: translate(model, tokenizer, sources, search))
    if len(models) > 1:
        ensemble = Ensemble(models)
        measure(f"ensemble of {len(models)} models", lambda: translate(ensemble, tokenizer, sources, search))
    wide = search.replace(num_beams=8)
    measure("one model, beam 8", lambda: translate(first, tokenizer, sources, wide))
    words = missing_words(plain, references)
    for beam in (search, wide):
        name = f"beam {beam.num_beams}, a missing word of the reference as constraint"
        found = measure(name, lambda beam=beam: translate(first, tokenizer, sources, beam, constraints=words))
        pairs = [(text, chosen[0]) for text, chosen in zip(found, words, strict=True) if chosen]
        rows[-1] |= {"constraints": len(pairs), "contained": sum(word in text for text, word in pairs)}
        rows[-1]["as_a_word"] = sum(word in text.split() for text, word in pairs)
    prefixes = [" ".join(reference.split()[:2]) for reference in references]
    measure(
        "the first two words of the reference as prefix",
        lambda: translate(first, tokenizer, sources, search, prefixes=prefixes),
    )
    without = search.replace(no_repeat_ngram_size=3)
    measure("no repeated 3-grams", lambda: translate(first, tokenizer, sources, without))
    measure(
        "log-probabilities of the references (`score`)",
        lambda: [str(pair.log_prob) for pair in score(first, tokenizer, sources, references)],
        scored=False,
    )

    record = {
        "text": options.text or options.name,
        "sentences": len(sources),
        "systems": rows,
        "machine": this_machine(),
    }
    path = write_record(options, record)
    of_ensemble = next((row["bleu"] for row in rows if row["system"].startswith("ensemble")), rows[0]["bleu"])
    print(f"decoding_options: bleu={rows[0]['bleu']:.2f} ensemble={of_ensemble:.2f} record={path}")


if __name__ == "__main__":
    main()
