"""The text that every contender trains on, its subword tokenizer, and the score of translations."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where they are needed, so that missing text is reported at once
    from transformers import PreTrainedTokenizerBase

DATA_VARIABLE = "VANILLA_TRANSFORMER_DATA"
FOLDER = Path("multi30k") / "lc.norm.tok"  # in the folder that --data names
FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
LANGUAGES = ("en", "de")
NAME = "Multi30k English-German, lower-cased and Moses-tokenized"
DATA_LICENSE = "Multi30k: no licence stated; the text and weights trained on it may not be redistributed"
TOKENIZER = "tokenizer"
MAX_EXTRA_TOKENS = 50  # of a translation, beyond the length of its source; the paper's limit
BATCH = 64  # sentences that are translated together


@dataclass
class Task:
    """Text and tokenizer, in a folder: train.en, train.de, …, tokenizer/.

    Attributes:
        folder: where it is.
        languages: of source and target.
        tokenizer: one for both.
    """

    folder: Path
    languages: tuple[str, str]
    tokenizer: "PreTrainedTokenizerBase"

    @classmethod
    def load(cls, folder: Path) -> "Task":
        """Load what `prepare` has written."""
        from transformers import AutoTokenizer

        target = next(path.suffix[1:] for path in folder.glob("train.*") if path.suffix != ".en")
        return cls(folder, ("en", target), AutoTokenizer.from_pretrained(folder / TOKENIZER))

    def path(self, split: str, side: int) -> Path:
        """Return the file of a split's source (0) or target (1)."""
        return self.folder / f"{split}.{self.languages[side]}"

    def lines(self, split: str, side: int) -> list[str]:
        """Return the sentences of a split's source (0) or target (1)."""
        return read_lines(self.path(split, side))

    @cached_property
    def training_ids(self) -> dict[str, list[list[int]]]:
        """Token ids of the training text, with the EOS token: ``input_ids`` and ``labels``."""
        return {
            "input_ids": self.tokenizer(self.lines("train", 0))["input_ids"],
            "labels": self.tokenizer(self.lines("train", 1))["input_ids"],
        }

    @property
    def training_tokens(self) -> int:
        """Target tokens of an epoch, with EOS tokens."""
        return sum(map(len, self.training_ids["labels"]))

    def scores(self, split: str, translations: list[str]) -> dict[str, Any]:
        """Return BLEU of the translations of a split, with its signature."""
        from sacrebleu.metrics import BLEU

        metric = BLEU(tokenize="none", force=True)  # the text is tokenized
        score = metric.corpus_score(translations, [self.lines(split, 1)])
        return {
            "bleu": round(score.score, 3),
            "bleu_signature": str(metric.get_signature()),
            "brevity_penalty": round(score.bp, 4),
            "sentences": len(translations),
        }

    def validation_bleu(self, translations: list[str]) -> float:
        """Return BLEU of the translations of the validation text."""
        return float(self.scores("validation", translations)["bleu"])


def read_lines(path: Path) -> list[str]:
    """Read one sentence per line."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def find_text(data: Path | None, quick: bool) -> dict[str, tuple[list[str], list[str]]] | None:
    """Read training, validation and test text, or return None where it isn't; ``quick`` makes some by rule."""
    if quick:
        from hf_vanilla_transformer import embedded_corpus

        found = {}
        for split, size in (("train", 300), ("validation", 12), ("test", 12)):
            rows = embedded_corpus(split, size=size, seed=0)["translation"]
            found[split] = ([row["en"] for row in rows], [row["ko"] for row in rows])
        return found
    folder = (data or Path(os.environ.get(DATA_VARIABLE, "data"))) / FOLDER
    paths = {split: [folder / f"{name}.{language}" for language in LANGUAGES] for split, name in FILES.items()}
    if not all(path.is_file() for both in paths.values() for path in both):
        return None
    return {split: (read_lines(source), read_lines(target)) for split, (source, target) in paths.items()}


def prepare(
    folder: Path, text: dict[str, tuple[list[str], list[str]]], languages: tuple[str, str], vocab_size: int
) -> None:
    """Write the text and a tokenizer trained on it to a folder."""
    from hf_vanilla_transformer import train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    for split, sides in text.items():
        for language, lines in zip(languages, sides, strict=True):
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source, target = text["train"]
    train_tokenizer([*source, *target], vocab_size).save_pretrained(folder / TOKENIZER)


def fingerprint(text: dict[str, tuple[list[str], list[str]]]) -> str:
    """Return a hash of the text."""
    digest = hashlib.sha256()
    for split in sorted(text):
        for lines in text[split]:
            digest.update("\n".join(lines).encode() + b"\0")
    return digest.hexdigest()


__all__ = [
    "BATCH",
    "DATA_LICENSE",
    "DATA_VARIABLE",
    "FILES",
    "LANGUAGES",
    "MAX_EXTRA_TOKENS",
    "NAME",
    "TOKENIZER",
    "Task",
    "find_text",
    "fingerprint",
    "prepare",
    "read_lines",
]
