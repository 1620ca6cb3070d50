"""Does minimum Bayes risk decoding help? Beam search and MBR side by side on a test set, in BLEU and chrF.

You learn: that a model's single likeliest translation and the one most like all its samples are different things, and
that a metric which chooses the translations (chrF) gains more than one that doesn't (BLEU).

    python examples/minimum_bayes_risk.py CHECKPOINT --source test.en --reference test.de --target-lang de \
        --record examples/results/minimum-bayes-risk-NAME.json

Hardware: one CPU core translates about 1 sentence per second with 64 samples of a `tiny` model. The last line is the
last row of the table, e.g. "64 samples, ancestral                     BLEU 36.90  chrF 62.10  12.3 min".
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from this_machine import this_machine
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import BeamSearchConfig, MBRConfig, TranslationMetric, translate

SYSTEMS = {
    "beam search, beam 4": None,
    "MBR, 16-best list": MBRConfig(num_best=16),
    "MBR, 16 samples, epsilon 0.02": MBRConfig(num_samples=16),
    "MBR, 64 samples, epsilon 0.02": MBRConfig(num_samples=64),
    "MBR, 64 samples, ancestral": MBRConfig(num_samples=64, epsilon_cutoff=0.0),
}


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line."""
    return path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")


def spread(lines: list[str], number: int | None) -> list[str]:
    """Return some of the lines, evenly spread; None returns all."""
    return lines if number is None else [lines[place * len(lines) // number] for place in range(number)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--source", type=Path, required=True, help="text file with one sentence per line")
    parser.add_argument("--reference", type=Path, required=True, help="the translation of each line")
    parser.add_argument("--tokenize", default="13a", help="sacrebleu's tokenizer; none for tokenized text")
    parser.add_argument("--lines", type=int, help="only so many lines, evenly spread over the test set")
    parser.add_argument("--workers", type=int, default=1, help="processes that translate side by side")
    parser.add_argument("--record", type=Path, help="write the scores to this JSON file")
    options = parser.parse_args(arguments)

    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint)
    model = AutoModelForSeq2SeqLM.from_pretrained(options.checkpoint).eval()
    sources, references = (spread(read_lines(path), options.lines) for path in (options.source, options.reference))
    metric = TranslationMetric(tokenize=options.tokenize)
    rows = []
    for name, mbr in SYSTEMS.items():
        started = time.monotonic()
        translations = translate(model, tokenizer, sources, BeamSearchConfig(), mbr=mbr, workers=options.workers)
        seconds = time.monotonic() - started
        scores = metric.compute(predictions=translations, references=references)
        rows.append({"system": name, "bleu": scores["bleu"], "chrf": scores["chrf"], "seconds": round(seconds, 1)})
        print(f"{name:32} BLEU {scores['bleu']:.2f}  chrF {scores['chrf']:.2f}  {seconds / 60:.1f} min", flush=True)
        if options.record is not None:
            record = {
                "measurement": "minimum Bayes risk decoding",
                "checkpoint": options.checkpoint.name,
                "text": f"{options.source.name} + {options.reference.name}",
                "sentences": len(sources),
                "systems": rows,
                "signatures": [scores["bleu_signature"], scores["chrf_signature"]],
                "machine": {**this_machine(), "workers": options.workers},
            }
            options.record.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
