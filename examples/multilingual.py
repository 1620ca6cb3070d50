"""One model for two directions: a tag at the start of the source names the target language (Johnson et al. 2017).

You learn: how several pairs of files train one model, with a tag for each, and what that costs. The joint model has
the size and the updates of the two single models together, which are trained beside it.

    python examples/multilingual.py multi30k/train multi30k/test_2016_flickr --languages en de

The arguments are paths without the language: multi30k/train.en and multi30k/train.de, line by line.
Hardware and minutes: 40 minutes of one CPU core. A step whose output is complete is skipped when it is run again.
The last line is "multilingual: en-de bleu=… single bleu=… de-en bleu=… single bleu=… model=runs/multilingual/joint".
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from hf_vanilla_transformer import (
    TranslationMetric,
    VanillaTransformerForConditionalGeneration,
    read_recipe,
    train,
    translate,
)

RECIPE = "tiny"  # of the package, made shorter:
SETTINGS = [
    *("--config_overrides", '{"encoder_layers": 3, "decoder_layers": 3, "dropout": 0.1}', "--vocab_size", "3000"),
    *("--warmup_steps", "200", "--eval_strategy", "no", "--save_steps", "50", "--save_total_limit", "5"),
    *("--average_last", "5"),
]
UPDATES = 3000  # of a single model; the joint model has those of both
KEPT = ("recipe", "data", "model", "training", "hardware", "versions", "commit")  # of the record of a run


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line."""
    return [line.removesuffix("\r") for line in path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")]


def trained(folder: Path, updates: int, words: Sequence[str]) -> tuple[Any, Any]:
    """Train a model unless the folder has a complete one; return it with its tokenizer."""
    if not (folder / "results.json").is_file():
        length = ["--max_steps", str(updates), "--cooldown_steps", str(updates * 2 // 5)]
        train(read_recipe(RECIPE, ["--output_dir", str(folder), *SETTINGS, *length, *words]))
    return VanillaTransformerForConditionalGeneration.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="path of the training text, without the language")
    parser.add_argument("test", type=Path, help="path of the test text, without the language")
    parser.add_argument("--languages", nargs=2, default=("en", "de"))
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--tokenize", default="none", help="sacreBLEU's tokenizer; none is for text that is tokenized")
    parser.add_argument("--output", type=Path, default=Path("runs/multilingual"))
    options, overrides = parser.parse_known_args(arguments)

    first, second = options.languages
    files = {lang: (Path(f"{options.train}.{lang}"), Path(f"{options.test}.{lang}")) for lang in (first, second)}
    if missing := [str(file) for pair in files.values() for file in pair if not file.is_file()]:
        parser.error(f"there is no {', '.join(missing)}; give the paths without the language")

    # The joint model: each direction has its pair of files and its tag. The names of the two sides are not languages.
    train_files = [str(files[lang][0]) for lang in (first, second)]
    words = ["--train_source", *train_files, "--train_target", *reversed(train_files)]
    words += ["--train_source_tags", f"<2{second}>", f"<2{first}>"]
    joint = trained(options.output / "joint", 2 * options.updates, [*words, *overrides])

    scores: dict[str, dict[str, Any]] = {}
    for source, target in ((first, second), (second, first)):
        name = f"{source}-{target}"
        words = ["--train_source", str(files[source][0]), "--train_target", str(files[target][0])]
        words += ["--source_lang", source, "--target_lang", target, "--tokenizer", str(options.output / "joint")]
        single = trained(options.output / name, options.updates, [*words, *overrides])
        sources, references = read_lines(files[source][1]), read_lines(files[target][1])
        search = read_recipe(RECIPE, [*SETTINGS, *overrides]).search
        scores[name] = {}
        for kind, model, tag in (("single", single, ""), ("joint", joint, f"<2{target}>")):
            translations = translate(*model, sources, search, source_tag=tag, workers=None)
            found = TranslationMetric(options.tokenize).compute(predictions=translations, references=references)
            keys = ("bleu", "chrf", "sentences", "bleu_signature", "chrf_signature")
            scores[name][kind] = {key: found[key] for key in keys}
            print(f"{name} {kind}: bleu={found['bleu']:.2f} chrf={found['chrf']:.2f}")

    runs = {
        name: json.loads((options.output / name / "results.json").read_text("utf-8")) for name in ("joint", *scores)
    }
    record = {"scores": scores, "runs": {name: {key: run[key] for key in KEPT} for name, run in runs.items()}}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (options.output / "multilingual.json").write_text(text, encoding="utf-8")
    shown = [
        f"{name} bleu={of['joint']['bleu']:.2f} single bleu={of['single']['bleu']:.2f}" for name, of in scores.items()
    ]
    print(f"multilingual: {' '.join(shown)} model={options.output / 'joint'}")


if __name__ == "__main__":
    main()
