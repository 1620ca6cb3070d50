"""How well does cross-attention align words? The alignment error rate of a checkpoint, by gold alignments.

You learn: that some heads of a Transformer align words without ever being told to, how to find them with and without
gold alignments, and why it matters which decoder step is read: the one that predicts a word or the one after it.

    python examples/alignment_error.py runs/demo --embedded          # gold by rule: the demo's numbers, dates, amounts
    python examples/alignment_error.py CHECKPOINT --gold examples/gold_alignments.tsv --held-out val.en val.de

gold_alignments.tsv has 24 short English-German pairs, lowercase and tokenized, aligned by hand: source, target and
alignment, "0-0" for a sure and "1p2" for a possible link. Hardware: a minute on one CPU core. The last line is
"alignment_error: …" with the error rate of the head that was chosen without gold alignments.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from this_machine import this_machine
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import align_words, alignment_error_rate, choose_alignment_head, embedded_corpus

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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--embedded", action="store_true", help="measure on the embedded corpus")
    parser.add_argument("--gold", type=Path, help="source, target and alignment, separated by tabs")
    parser.add_argument("--held-out", type=Path, nargs=2, help="source and target file to choose the head without gold")
    parser.add_argument("--record", type=Path, help="write the error rates to this JSON file")
    options = parser.parse_args(arguments)
    if options.embedded:
        sources, targets, gold = of_embedded_corpus("test", 500)
        held_out = of_embedded_corpus("validation", 500)
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
        ("the default: mean of the last layer but one", str(max(0, last - 1))),
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
        print(f"{row['which']:50} {row['head'] or '':6} AER {row['aer']:.3f}")
    if options.record is not None:
        record = {
            "measurement": "alignment error rate of cross-attention",
            "checkpoint": options.checkpoint.name,
            "gold": "embedded corpus, test" if options.embedded else options.gold.name,
            "pairs": len(sources),
            "layers": last + 1,
            "heads": model.config.num_heads,
            "rows": results,
            "machine": this_machine(),
        }
        options.record.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    error = alignment_error_rate(align_words(model, tokenizer, sources, targets, chosen.best), gold)
    print(f"alignment_error: checkpoint={options.checkpoint} head={chosen.best} aer={error:.4f} pairs={len(sources)}")


if __name__ == "__main__":
    main()
