"""English to Korean on documentation and everyday sentences, scored by where each sentence comes from.

You learn: how a recipe serves another language pair by its paths alone, how Korean is scored (BLEU on morphemes where
mecab-ko is installed, `pip install 'hf_vanilla_transformer[korean]'`, else on characters; chrF on characters anyway),
and why one number is not enough: manuals and small talk are learned very differently.

    python examples/english_korean.py data/koen

The folder holds train, dev and test, each as .en and .ko, line by line; dev and test with .source, each line's origin.
Hardware and minutes: the recipe `small`, 2,000 updates of 2 × 2,048 tokens; docs/results.md has the minutes.
The last line is "english_korean: dev bleu=… chrf=… test bleu=… chrf=… model=runs/english_korean".
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from hf_vanilla_transformer import TranslationMetric, read_recipe, train

RECIPE = "small"  # of the package; its comments explain each setting
SPLITS = {"train": "train", "validation": "dev", "test": "test"}  # the recipe's name → the files'
LICENSES = {  # of the origins of our corpus; others have none in the record
    "django-docs-ko": "BSD-3-Clause",
    "gnome-user-docs-ko": "CC BY-SA 3.0",
    "iwslt23-formality": "CDLA-Sharing-1.0",
    "mozilla-www-ko": "MPL-2.0",
    "python-docs-ko-union": "PSF-2.0",
    "talpco": "CC BY 4.0",
    "tatoeba-anki-ko": "CC BY 2.0 FR",
    "tldr-ko": "CC BY 4.0",
}
FILES = ("train.en", "train.ko", "dev.en", "dev.ko", "dev.source", "test.en", "test.ko", "test.source")


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line."""
    return [line.removesuffix("\r") for line in path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with train, dev and test")
    parser.add_argument("--output", default="runs/english_korean")
    options, overrides = parser.parse_known_args(arguments)

    missing = [name for name in FILES if not (options.corpus / name).is_file()]
    if missing:  # said now, and not when an hour of training is over
        parser.error(f"{options.corpus} has no {', '.join(missing)}; --help says what it must hold")
    for name in list(SPLITS.values())[1:]:
        origins, lines = (len(read_lines(options.corpus / f"{name}.{suffix}")) for suffix in ("source", "ko"))
        if origins != lines:
            parser.error(f"{name}.source has {origins:,} lines, but {name}.ko has {lines:,}; give each line its origin")

    words = ["--output_dir", options.output, "--source_lang", "en", "--target_lang", "ko"]
    for split, name in SPLITS.items():
        words += [f"--{split}_source", str(options.corpus / f"{name}.en")]
        words += [f"--{split}_target", str(options.corpus / f"{name}.ko")]
    result = train(read_recipe(RECIPE, [*words, *overrides]))

    totals = []
    for split, name in list(SPLITS.items())[1:]:
        scores = result.scores[split]
        scores["by_group"] = TranslationMetric("korean").compute_by_group(
            read_lines(result.output_dir / "translations" / f"{split}.ko"),
            read_lines(options.corpus / f"{name}.ko"),
            read_lines(options.corpus / f"{name}.source"),
        )
        print(f"\n{name}: {scores['bleu_signature']}\n{'origin':28} {'lines':>6} {'BLEU':>6} {'chrF':>6}")
        for origin, found in scores["by_group"].items():
            if origin in LICENSES:
                found["license"] = LICENSES[origin]
            print(f"{origin:28} {found['sentences']:6} {found['bleu']:6.2f} {found['chrf']:6.2f}")
        totals.append(f"{name} bleu={scores['bleu']:.2f} chrf={scores['chrf']:.2f}")
    # The run's record, now with the origins; a copy in examples/results/ becomes a row of README's table.
    record = json.dumps(result.record, indent=2, ensure_ascii=False) + "\n"
    (result.output_dir / "results.json").write_text(record, encoding="utf-8")
    print(f"english_korean: {' '.join(totals)} model={result.output_dir}")


if __name__ == "__main__":
    main()
