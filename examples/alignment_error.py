"""How well does cross-attention align words? The alignment error rate of a checkpoint, by gold alignments.

You learn: that some heads of a Transformer align words without ever being told to, how to find them with and without
gold alignments, and why it matters which decoder step is read: the one that predicts a word or the one after it.

    python examples/alignment_error.py runs/demo --embedded          # gold by rule: the demo's numbers, dates, amounts
    python examples/alignment_error.py CHECKPOINT --gold examples/gold_alignments.tsv --held-out val.en val.de
    python examples/alignment_error.py --render docs/attention.md    # the table, from the records in examples/results/

gold_alignments.tsv has 24 short English-German pairs, lowercase and tokenized, aligned by hand: source, target and
alignment, "0-0" for a sure and "1p2" for a possible link. Hardware: one CPU core. Minutes: less than one. The last line
is "alignment_error: head=… aer=… record=…", of the head that was chosen without gold alignments.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from records import add_record_options, between, read_records, render_page, this_machine, write_record
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import align_words, alignment_error_rate, choose_alignment_head, embedded_corpus

RECORDS = Path(__file__).resolve().parent / "results" / "alignment_error"
START, END = "<!-- alignment-error:start -->", "<!-- alignment-error:end -->"
TEST_PAIRS = 500  # of the embedded corpus, and as many held-out ones
Texts = list[str]


def read_lines(path: Path) -> Texts:
    """Read a text file; only a line feed ends a line."""
    return path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")


def of_embedded_corpus(split: str, size: int) -> tuple[Texts, Texts, Texts]:
    """Return sources, targets and gold alignments."""
    rows = embedded_corpus(split, size, alignments=True)
    return (
        [row["en"] for row in rows["translation"]],
        [row["ko"] for row in rows["translation"]],
        list(rows["alignment"]),
    )


def diagonal(sources: Texts, targets: Texts) -> list[list[tuple[int, int]]]:
    """Align each target word with the source word at the same place of its sentence, which needs no attention."""
    lengths = [(len(source.split()), len(target.split())) for source, target in zip(sources, targets, strict=True)]
    return [[(place * width // height, place) for place in range(height)] for width, height in lengths]


def table(folder: Path) -> str:
    """Return the table of all records: a row per choice of the head, a column per checkpoint."""
    records = read_records(folder)
    rows = [["alignment error rate (head)"] + [f"{record['text']}, {record['pairs']} pairs" for record in records]]
    rows.append(["---"] * len(rows[0]))
    for which in dict.fromkeys(row["which"] for record in records for row in record["rows"]):
        cells = []
        for record in records:
            found = next((row for row in record["rows"] if row["which"] == which), None)
            head = f" ({found['head']})" if found and found["head"] else ""
            cells.append(f"{found['aer']:.3f}{head}" if found else "")
        rows.append([which, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def render(text: str, folder: Path = RECORDS) -> str:
    """Return a page with the table of the records between its markers."""
    return between(text, START, END, table(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--embedded", action="store_true", help="measure on the embedded corpus")
    parser.add_argument("--gold", type=Path, help="source, target and alignment, separated by tabs")
    parser.add_argument("--held-out", type=Path, nargs=2, help="source and target file to choose the head without gold")
    add_record_options(parser, RECORDS)
    options = parser.parse_args(arguments)
    if render_page(options, render):
        return
    if options.checkpoint is None:
        parser.error("give a checkpoint")
    if options.embedded:
        sources, targets, gold = of_embedded_corpus("test", TEST_PAIRS)
        held_out = of_embedded_corpus("validation", TEST_PAIRS)
    elif options.gold is not None and options.held_out is not None:
        sources, targets, gold = map(list, zip(*(line.split("\t") for line in read_lines(options.gold)), strict=True))
        held_out = (*(read_lines(path) for path in options.held_out), None)
    else:
        parser.error("give --embedded, or --gold and --held-out")

    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint)
    model = AutoModelForSeq2SeqLM.from_pretrained(options.checkpoint).eval()
    chosen = choose_alignment_head(model, tokenizer, held_out[0], held_out[1])
    by_gold = choose_alignment_head(model, tokenizer, sources, targets, gold)
    shifted = next(heads for heads in by_gold.errors if heads.shift)
    last = model.config.decoder_layers - 1
    rows = [
        ("the default: mean of the last layer but one (of two: the last)", str(last - 1 if last > 1 else last)),
        ("mean of the last layer", str(last)),
        ("chosen on held-out text without gold alignments", str(chosen.best)),
    ]
    if held_out[2] is not None:
        best = choose_alignment_head(model, tokenizer, *held_out).best
        rows.append(("chosen on held-out text by gold alignments", str(best)))
    rows += [
        ("best on this test set", str(by_gold.best)),
        ("best on this test set, step that reads the word", str(shifted)),
    ]
    error = alignment_error_rate(diagonal(sources, targets), gold)
    results = [{"which": "no attention: words at the same place", "head": None, "aer": error}]
    for which, head in rows:
        error = alignment_error_rate(align_words(model, tokenizer, sources, targets, head), gold)
        results.append({"which": which, "head": head, "aer": error})
    for row in results:
        print(f"{row['which']:64} {row['head'] or '':6} AER {row['aer']:.3f}")
    record = {
        "text": options.text or options.name,
        "pairs": len(sources),
        "layers": last + 1,
        "heads": model.config.num_heads,
        "rows": results,
        "machine": this_machine(),
    }
    path = write_record(options, record)
    error = next(row["aer"] for row in results if row["head"] == str(chosen.best))
    print(f"alignment_error: head={chosen.best} aer={error:.4f} record={path}")


if __name__ == "__main__":
    main()
