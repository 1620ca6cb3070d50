"""SCAN: from commands ("jump twice and look left") to actions. One right answer each, so exactness is the score.

You learn: that translation is just two columns of text, and what an exactness check is good for: a model that is wrong
anywhere (a mask, a position, a cache) doesn't get here. The data is at github.com/brendenlake/SCAN (Lake & Baroni,
2018); the split `simple` is drawn at random, `length` tests longer answers than it trains on: Transformers fail there.

    python examples/scan.py SCAN/simple        # a folder with train.cmd, train.act, test.cmd and test.act
    python examples/scan.py SCAN/length --output runs/scan_length --max_steps 5000   # any key of the recipe may follow

Hardware: two CPU cores do. Minutes and the score are those of the recipe `scan`; the goal is 99.8 % exact.
The last line is "scan: exact=… of 4182 model=runs/scan".
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hf_vanilla_transformer import read_recipe, train

RECIPE = "scan"  # of the package; its comments explain each setting
SHOWN = 5  # wrong answers


def read_lines(path: Path) -> list[str]:
    """Read a text file; only a line feed ends a line."""
    return [line.removesuffix("\r") for line in path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with train.cmd, train.act, test.cmd and test.act")
    parser.add_argument("--output", default="runs/scan")
    options, overrides = parser.parse_known_args(arguments)

    words = ["--output_dir", options.output, "--source_lang", "cmd", "--target_lang", "act"]
    words += ["--data_license", "SCAN: BSD", "--metric_tokenize", "none"]  # an action is a word already
    for split in ("train", "test"):
        words += [f"--{split}_source", str(options.corpus / f"{split}.cmd")]
        words += [f"--{split}_target", str(options.corpus / f"{split}.act")]
    result = train(read_recipe(RECIPE, [*words, *overrides]))

    commands, references = (read_lines(options.corpus / f"test.{side}") for side in ("cmd", "act"))
    answers = read_lines(result.output_dir / "translations" / "test.act")
    wrong = [row for row in zip(commands, references, answers, strict=True) if row[1].strip() != row[2]]
    for command, reference, answer in wrong[:SHOWN]:
        print(f"\n  command  {command}\n  right    {reference}\n  answer   {answer}")
    scores = result.scores["test"]
    print(f"scan: exact={scores['exact']:.4f} of {scores['sentences']} model={result.output_dir}")


if __name__ == "__main__":
    main()
