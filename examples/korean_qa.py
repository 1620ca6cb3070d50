"""Answer Korean questions: the chatbot of the Korean Transformer tutorials, with a held-out test.

You learn: question answering is translation with other columns: the source is the question, the target the answer, and
the recipe names them. The data is ChatbotData.csv of github.com/songys/Chatbot_data (11,823 pairs, MIT). It has no test
set, so one is drawn here by a digest of the question: the same question is never in both.

    python examples/korean_qa.py ChatbotData.csv

Hardware and minutes: see the recipe `chat_ko` of the package. A question has many good answers and the data has only
one, so BLEU is low whatever the model; read the answers. The last line is
"korean_qa: bleu=… chrf=… model=runs/korean_qa".
"""

import argparse
import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

from hf_vanilla_transformer import read_recipe, train, translate

RECIPE = "chat_ko"  # of the package; its comments explain each setting
# Any two columns of a table: this is all that makes it question answering. BLEU is that of Korean morphemes (ko-mecab)
# where that is installed, else of characters.
COLUMNS = "--source_column question --target_column answer --source_lang question --target_lang answer"
METRIC = "--metric_tokenize korean"
PERCENT = {"validation": 5, "test": 5}  # of the questions; the rest is for training
QUESTIONS = ("안녕하세요", "오늘 너무 피곤해", "영화 추천해줘", "짝사랑이 힘들어")


def split_of(question: str) -> str:
    """Return the split of a question, chosen by its digest so that it never changes."""
    place = int.from_bytes(hashlib.sha256("".join(question.split()).encode()).digest()[:4], "big") % 100
    if place < PERCENT["validation"]:
        return "validation"
    return "test" if place < PERCENT["validation"] + PERCENT["test"] else "train"


def split_file(path: Path, folder: Path, question: str, answer: str) -> dict[str, Path]:
    """Deal the rows out to a CSV file a split; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))  # an unbalanced quotation mark would swallow the rows after it
    if not rows or question not in rows[0] or answer not in rows[0]:
        raise SystemExit(f"{path} has no rows with columns {question} and {answer}; name them by --question, --answer")
    paths = {}
    for split in ("train", *PERCENT):
        paths[split] = folder / f"{split}.csv"
        with paths[split].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("question", "answer"))
            writer.writerows((row[question], row[answer]) for row in rows if split_of(row[question]) == split)
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="CSV file with a header")
    parser.add_argument("--question", default="Q", help="its column of questions")
    parser.add_argument("--answer", default="A", help="its column of answers")
    parser.add_argument("--output", default="runs/korean_qa")
    options, overrides = parser.parse_known_args(arguments)

    files = split_file(options.corpus, Path(f"{options.output}-text"), options.question, options.answer)
    words = f"{COLUMNS} {METRIC}".split()
    words += [word for split, path in files.items() for word in (f"--{split}_file", str(path))]
    words += ["--data_license", "MIT"]  # of Chatbot_data
    result = train(read_recipe(RECIPE, ["--output_dir", options.output, *words, *overrides]))

    for question, answer in zip(QUESTIONS, translate(result.model, result.tokenizer, list(QUESTIONS)), strict=True):
        print(f"  {question} → {answer}")
    scores = result.scores["test"]
    print(f"korean_qa: bleu={scores['bleu']:.2f} chrf={scores['chrf']:.2f} model={result.output_dir}")


if __name__ == "__main__":
    main()
