"""Back-translation: text of the target language alone becomes training pairs (Sennrich et al. 2016).

You learn: to train a model of the opposite direction, to translate monolingual text with it, and to mix the synthetic
pairs with the real ones. Their sources begin with the tag <bt> (Caswell et al. 2019), so that the model can tell them
apart. The same training without them, at equal updates, shows whether they helped.

    python examples/back_translation.py data/koen ChatbotData.csv --also data/tatoeba/kor-eng

The folder holds train and test, each as .en and .ko, line by line, and test.source, each line's origin. The second
argument is Korean text, one sentence per line, or a CSV file with the columns Q and A. --also adds a test set.
Hardware and minutes: two hours of one CPU core. A step whose output is complete is skipped when it is run again.
The last line is "back_translation: test bleu=… without bleu=… model=runs/back_translation/augmented".
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import BeamSearchConfig, TranslationMetric, read_recipe, train, translate

RECIPE = "tiny"  # of the package, made shorter:
SETTINGS = [
    *("--config_overrides", '{"encoder_layers": 3, "decoder_layers": 3, "dropout": 0.1}', "--vocab_size", "8000"),
    *("--max_sentence_tokens", "128", "--max_steps", "10000", "--warmup_steps", "1000", "--cooldown_steps", "4000"),
    *("--learning_rate", "0.003", "--eval_strategy", "no", "--save_steps", "100", "--save_total_limit", "5"),
    *("--average_last", "5"),
]
REVERSE = ["--max_steps", "5000", "--cooldown_steps", "2000"]  # its translations need not be as good
TAG = "<bt>"
COLUMNS = ("Q", "A")  # of a CSV file


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line."""
    return [line.removesuffix("\r") for line in path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")]


def monolingual_text(path: Path) -> list[str]:
    """Return the different sentences of a text file, or of the columns of a CSV file."""
    texts = read_lines(path)
    if path.suffix == ".csv":
        rows = csv.DictReader(path.open(encoding="utf-8-sig", newline=""), strict=True)
        texts = [row.get(column) or "" for row in rows for column in COLUMNS]
    return list(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip()))


def trained(folder: Path, words: Sequence[str]) -> tuple[Any, Any]:
    """Train a model unless the folder has a complete one; return it with its tokenizer."""
    if not (folder / "results.json").is_file():
        train(read_recipe(RECIPE, ["--output_dir", str(folder), *SETTINGS, *words]))
    return AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def scores_by_origin(model: Any, tokenizer: Any, test: Path) -> dict[str, Any]:
    """Translate a test set and score it, and the lines of each origin by themselves."""
    sources, references = read_lines(Path(f"{test}.en")), read_lines(Path(f"{test}.ko"))
    translations = translate(model, tokenizer, sources, read_recipe(RECIPE, SETTINGS).search, workers=None)
    metric, labels = TranslationMetric("korean"), Path(f"{test}.source")
    scores = {"all": metric.compute(predictions=translations, references=references)}
    if labels.is_file():
        scores |= metric.compute_by_group(translations, references, read_lines(labels))
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with train and test")
    parser.add_argument("monolingual", type=Path, help="text of the target language, or a CSV file")
    parser.add_argument("--also", type=Path, help="path of another test set, without .en and .ko")
    parser.add_argument("--output", type=Path, default=Path("runs/back_translation"))
    options, overrides = parser.parse_known_args(arguments)

    output, tests = options.output, [options.corpus / "test", *([options.also] if options.also else [])]
    files = [Path(f"{path}.{side}") for path in (options.corpus / "train", *tests) for side in ("en", "ko")]
    if missing := [str(file) for file in (*files, options.monolingual) if not file.is_file()]:
        parser.error(f"there is no {', '.join(missing)}; --help lists the files")  # now, not after an hour of training
    if not (texts := monolingual_text(options.monolingual)):
        parser.error(f"{options.monolingual} has no text; a CSV file needs the columns {' and '.join(COLUMNS)}")

    english, korean = map(str, files[:2])
    forward = ["--source_lang", "en", "--target_lang", "ko", *overrides]
    baseline = trained(
        output / "baseline", ["--train_source", english, "--train_target", korean, "--extra_tokens", TAG, *forward]
    )
    forward += ["--tokenizer", f"{output}/baseline"]  # all models have the same vocabulary
    words = ["--train_source", korean, "--train_target", english, *REVERSE, *forward]
    reverse = trained(output / "reverse", [*words, "--source_lang", "ko", "--target_lang", "en"])
    pairs = [output / "synthetic.en", output / "synthetic.ko"]
    if not pairs[1].is_file():
        translations = translate(*reverse, texts, BeamSearchConfig(num_beams=1), workers=None)
        for path, lines in zip(pairs, (translations, texts), strict=True):
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    mixed = ["--train_source", english, str(pairs[0]), "--train_target", korean, str(pairs[1])]
    augmented = trained(output / "augmented", [*mixed, "--train_source_tags", "", TAG, *forward])

    scores: dict[str, Any] = {"baseline": {}, "augmented": {}}
    for test in tests:
        before, after = (scores_by_origin(*model, test) for model in (baseline, augmented))
        scores["baseline"][test.name], scores["augmented"][test.name] = before, after
        for origin, row in before.items():
            bleu, chrf = (f"{row[key]:6.2f} → {after[origin][key]:6.2f}" for key in ("bleu", "chrf"))
            print(f"{test.name:10} {origin:22} {row['sentences']:6} lines  BLEU {bleu}  chrF {chrf}")
    runs = {name: json.loads((output / name / "results.json").read_bytes()) for name in (*scores, "reverse")}
    text = json.dumps({"scores": scores, "runs": runs}, indent=2, ensure_ascii=False)
    (output / "back_translation.json").write_text(text + "\n", encoding="utf-8")
    bleu = [scores[name]["test"]["all"]["bleu"] for name in ("augmented", "baseline")]
    print(f"back_translation: test bleu={bleu[0]:.2f} without bleu={bleu[1]:.2f} model={output / 'augmented'}")


if __name__ == "__main__":
    main()
