# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Read sentence pairs from two files, or from one with tab-separated columns, and write their scores in order."""

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..data.text_lines import count_lines, read_lines, stream_lines
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .line_sources import STANDARD_INPUT, LineDecoder
from .output_formats import Progress
from .score import PairScore, score


class PairFiles:
    """Sentence pairs from files.

    Args:
        source: file of sources, or of pairs with a tab between source and target; "-" is the stream.
        target: file of targets; None if ``source`` has the pairs.
        stream: standard input, if one of the files is "-".

    Attributes:
        pairs: number of pairs; None for a stream, which can be read only once.
        pending: pairs that were read and whose scores are not written yet.

    Raises:
        ValueError: If the files have different numbers of lines, or both are "-".
        OSError: If a file cannot be read.
    """

    def __init__(self, source: str, target: str | None = None, stream: IO[bytes] | None = None) -> None:
        self.pending: deque[tuple[str, str]] = deque()
        self._decoder = LineDecoder("scores")
        self._source, self._target, self._stream = source, target, stream
        if source == target == STANDARD_INPUT:
            raise ValueError(
                "only one of the two files can be standard input; for pairs from a pipe, name one file, -, with a tab "
                "between source and target"
            )
        files = [name for name in (source, target) if name is not None]
        for name in files:
            if name != STANDARD_INPUT and not Path(name).exists():
                raise FileNotFoundError(f"there is no file {name}")
            if Path(name).is_dir():
                raise IsADirectoryError(f"{name} is a directory; name a file")
        lines = [
            None if name == STANDARD_INPUT or not Path(name).is_file() else count_lines(Path(name)) for name in files
        ]
        self.pairs = None if None in lines else lines[0]
        if self.pairs is not None and len(set(lines)) > 1:
            raise ValueError(
                f"{source} has {lines[0]:,} lines and {target} has {lines[1]:,}; line n of both has to be one pair"
            )

    def sources(self) -> Iterator[str]:
        """Yield the sources; read together with `targets`."""
        if self._target is None:
            for source, target in self._pairs_of_one_file():
                self._next_target = target
                self.pending.append((source, target))
                yield source
        else:
            for source in self._texts(self._source):
                self.pending.append((source, ""))
                yield source

    def targets(self) -> Iterator[str]:
        """Yield the targets, each after its source."""
        if self._target is None:
            while self._next_target is not None:
                target, self._next_target = self._next_target, None
                yield target
        else:
            for target in self._texts(self._target):
                if self.pending:  # else there are more targets than sources, which is an error of `score`
                    self.pending[-1] = (self.pending[-1][0], target)
                yield target

    _next_target: str | None = None

    def warning(self) -> str | None:
        """Return a warning if there were lines that are not UTF-8."""
        return self._decoder.warning()

    def _pairs_of_one_file(self) -> Iterator[tuple[str, str]]:
        for number, line in enumerate(self._texts(self._source), start=1):
            columns = line.split("\t")
            if len(columns) < 2:
                raise ValueError(
                    f"{self._name(self._source)}:{number} has no tab between source and target; give the targets as a "
                    "second file, or separate the columns by a tab"
                )
            yield columns[0], columns[1]

    def _texts(self, file: str) -> Iterator[str]:
        if file == STANDARD_INPUT and self._stream is not None:
            lines = stream_lines(self._stream, "standard input")
        else:
            lines = read_lines(Path(file))
        for number, line in enumerate(lines, start=1):
            yield self._decoder.decode(line, partial("{}:{}".format, self._name(file), number))

    def _name(self, file: str) -> str:
        return "standard input" if file == STANDARD_INPUT else file


def score_files(
    model: Any,
    tokenizer: Any,
    pairs: PairFiles,
    output: IO[bytes],
    *,
    output_format: str = "text",
    normalize: bool = False,
    per_token: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> None:
    """Score the pairs of files and write one line for each.

    Args:
        model, tokenizer: see `score`.
        pairs: the pairs.
        output: binary stream to write to.
        output_format: "text": the score. "tsv": source, target, score. "jsonl": one object.
        normalize: divide each log-probability by the number of tokens.
        per_token: also write the log-probability of each token, in the last column.
        progress: shows the progress.
        options: see `score`.

    Raises:
        ValueError: If the files are not text or have different numbers of lines, or `score` rejects an argument.
    """
    progress = Progress(None) if progress is None else progress
    tokenizers = TranslationTokenizers.of(model, tokenizer)
    write_format = FORMATS[output_format]
    try:
        scores = score(
            model, tokenizers, pairs.sources(), pairs.targets(), on_batch=progress.translated, **options
        )  # fmt: skip
        for found in scores:
            number = found.mean_log_prob if normalize else found.log_prob
            source, target = pairs.pending.popleft()
            tokens = tokenizers.target.convert_ids_to_tokens(list(found.token_ids)) if per_token else None
            output.write(write_format(source, target, number, found, tokens).encode("utf-8", errors="replace"))
            progress.written()
        progress.close()
    except BaseException:
        progress.clear()
        raise


def format_text(source: str, target: str, number: float, found: PairScore, tokens: Sequence[str] | None) -> str:
    """Return the score and, with ``tokens``, a tab and the log-probabilities of the tokens."""
    return "\t".join([f"{number:.4f}", *_token_column(found, tokens)]) + "\n"


def format_tsv(source: str, target: str, number: float, found: PairScore, tokens: Sequence[str] | None) -> str:
    """Return source, target, score and, with ``tokens``, the log-probabilities of the tokens."""
    cells = [text.replace("\t", " ").replace("\r", " ").replace("\n", " ") for text in (source, target)]
    return "\t".join([*cells, f"{number:.4f}", *_token_column(found, tokens)]) + "\n"


def format_jsonl(source: str, target: str, number: float, found: PairScore, tokens: Sequence[str] | None) -> str:
    """Return one object; the score of a pair that is not scored is null, because JSON has no infinity."""
    row: dict[str, Any] = {
        "source": source,
        "target": target,
        "score": round(number, 6) if math.isfinite(number) else None,
        "num_tokens": len(found.token_ids),
    }
    if tokens is not None:
        row["tokens"] = list(tokens)
        row["token_log_probs"] = [round(value, 6) for value in found.token_log_probs]
    return json.dumps(row, ensure_ascii=False) + "\n"


def _token_column(found: PairScore, tokens: Sequence[str] | None) -> list[str]:
    return [] if tokens is None else [" ".join(f"{value:.4f}" for value in found.token_log_probs)]


FORMATS: dict[str, Callable[[str, str, float, PairScore, Sequence[str] | None], str]] = {
    "text": format_text,
    "tsv": format_tsv,
    "jsonl": format_jsonl,
}

__all__ = ["FORMATS", "PairFiles", "format_jsonl", "format_text", "format_tsv", "score_files"]
