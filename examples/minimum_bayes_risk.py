"""Does minimum Bayes risk decoding help? Beam search and MBR side by side on a test set, in BLEU and chrF.

You learn: that a model's single likeliest translation and the one most like all its samples are different things, and
that a metric which chooses the translations (chrF) gains more than one that doesn't (BLEU).

    python examples/minimum_bayes_risk.py runs/demo --source test.en --reference test.ko
    python examples/minimum_bayes_risk.py CHECKPOINT --source test.en --reference test.de --name mine
    python examples/minimum_bayes_risk.py --render docs/decoding.md   # the table, from the records in examples/results/

Hardware: two CPU cores. Minutes: 20 for 1,000 sentences and a model of size `tiny`, most of them for the samples.
The last line is "minimum_bayes_risk: bleu=… chrf=… record=…", of the last row of the table.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from records import add_record_options, between, read_records, render_page, this_machine, write_record
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import BeamSearchConfig, MBRConfig, TranslationMetric, translate

RECORDS = Path(__file__).resolve().parent / "results" / "minimum_bayes_risk"
START, END = "<!-- minimum-bayes-risk:start -->", "<!-- minimum-bayes-risk:end -->"
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


def table(folder: Path) -> str:
    """Return the table of all records: a row per system, two columns per text."""
    records = read_records(folder)
    texts = [f"{record['text']}, {record['sentences']:,} sentences" for record in records]
    rows = [["", *(f"{text}: BLEU | chrF" for text in texts)], ["---"] * (1 + 2 * len(records))]
    for name in SYSTEMS:
        found = [row for record in records for row in record["systems"] if row["system"] == name]
        rows.append([name, *(f"{row['bleu']:.1f} | {row['chrf']:.1f}" for row in found)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def render(text: str, folder: Path = RECORDS) -> str:
    """Return a page with the table of the records between its markers."""
    return between(text, START, END, table(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--source", type=Path, help="text file with one sentence per line")
    parser.add_argument("--reference", type=Path, help="the translation of each line")
    parser.add_argument("--tokenize", default="13a", help="sacrebleu's tokenizer; none for tokenized text")
    parser.add_argument("--lines", type=int, help="number of lines, evenly spread over the test set (default: all)")
    parser.add_argument("--workers", type=int, default=1, help="processes that translate side by side")
    add_record_options(parser, RECORDS)
    options = parser.parse_args(arguments)
    if render_page(options, render):
        return
    if None in (options.checkpoint, options.source, options.reference):
        parser.error("give a checkpoint, --source and --reference")

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
    record = {
        "text": options.text or options.name,
        "sentences": len(sources),
        "systems": rows,
        "signatures": [scores["bleu_signature"], scores["chrf_signature"]],
        "machine": {**this_machine(), "workers": options.workers},
    }
    path = write_record(options, record)
    print(f"minimum_bayes_risk: bleu={scores['bleu']:.2f} chrf={scores['chrf']:.2f} record={path}")


if __name__ == "__main__":
    main()
