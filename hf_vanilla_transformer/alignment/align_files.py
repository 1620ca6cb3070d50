# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Align the words of two files with a checkpoint, and choose a checkpoint's alignment head."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ..atomic_files import replace_files, staged_file
from ..checkpoints.loading import load_checkpoint
from ..checkpoints.manifest import MANIFEST_NAME, has_manifest
from ..data.text_lines import decode_line, read_lines, read_valid_lines
from ..inference import prepare_for_inference
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from ..overwriting import check_file, check_writable
from .head_choice import AlignmentHeadChoice, choose_alignment_head
from .heads import store_heads
from .pharaoh import Alignment, GoldAlignment, alignment_error_rate, format_alignment
from .word_alignment import WordAligner

_WINDOW = 1024  # pairs that are read, and sorted by length, at a time


@dataclass(frozen=True)
class AlignmentRequest:
    """What to align.

    Attributes:
        model: directory of a checkpoint, or id on the Hub.
        source, target: text files with one sentence per line.
        gold: file with the gold alignment of each pair, or None.
        alignment_head: see `align_words`; None takes the stored one.
        output: file for the alignments; None is standard output.
        overwrite: whether an existing output may be replaced.
        batch_size: most pairs per batch.
        source_tag: put before each line of ``source``, e.g. "<2de>"; it is not one of the words.
    """

    model: str | Path
    source: str | Path
    target: str | Path
    gold: str | Path | None = None
    alignment_head: str | None = None
    output: str | Path | None = None
    overwrite: bool = False
    batch_size: int = 64
    source_tag: str = ""


def align_files(request: AlignmentRequest, device: torch.device | None = None) -> float | None:
    """Write the alignment of each pair of lines, one line each.

    Returns:
        The alignment error rate if there are gold alignments, else None.

    Raises:
        ValueError: If the files have different numbers of lines, or the checkpoint or an option is invalid.
        OSError: If a file cannot be read, or the output exists.
    """
    inputs = [file for file in (request.source, request.target, request.gold, request.model) if file is not None]
    if request.output is not None:
        check_file(request.output, "alignments", inputs=inputs, overwrite=request.overwrite)
    gold = None if request.gold is None else _read_gold(Path(request.gold))
    pairs = _pairs(Path(request.source), Path(request.target))
    first = list(itertools.islice(pairs, 1))  # the files are checked before the model is loaded
    model, tokenizer = load_checkpoint(request.model)
    model = prepare_for_inference(model, device)
    tokenizers = TranslationTokenizers.of(model, tokenizer)
    aligner = WordAligner(
        model, tokenizers, request.alignment_head, batch_size=request.batch_size, source_tag=request.source_tag
    )
    pairs = itertools.chain(first, pairs)
    found: list[Alignment] = []
    output = sys.stdout.buffer if request.output is None else None
    with nullcontext(output) if output is not None else staged_file(str(request.output)) as stream:
        while window := list(itertools.islice(pairs, _WINDOW)):
            alignments = aligner.align([source for source, _ in window], [target for _, target in window])
            stream.write("".join(format_alignment(links) + "\n" for links in alignments).encode("ascii"))
            stream.flush()
            if gold is not None:
                _check_gold(gold[len(found) : len(found) + len(window)], window, str(request.gold), len(found))
                found += alignments
        if gold is not None and len(gold) != len(found):
            raise ValueError(
                f"{request.gold} has {len(gold):,} lines, but {request.source} has {len(found):,}; give one gold "
                "alignment per pair"
            )
    return None if gold is None else alignment_error_rate(found, gold)


def choose_head_of_checkpoint(request: AlignmentRequest, device: torch.device | None = None) -> AlignmentHeadChoice:
    """Choose the alignment head by the pairs, and store it in the checkpoint's generation_config.json.

    Raises:
        ValueError: If the files have different numbers of lines, or the checkpoint is invalid or hashed by a manifest.
        OSError: If a file cannot be read, or the checkpoint cannot be written.
    """
    directory = Path(request.model)
    if not directory.is_dir():
        raise ValueError(f"{request.model} is no local directory that the head could be stored in; download it first")
    if has_manifest(directory):
        raise ValueError(
            f"{directory} is a checkpoint of a training run, whose files are hashed in {MANIFEST_NAME} and are not "
            "changed; use the directory of the run, or the output of `vanilla-transformer average`"
        )
    check_writable(directory / "generation_config.json")
    gold = None if request.gold is None else _read_gold(Path(request.gold))
    pairs = list(_pairs(Path(request.source), Path(request.target)))
    model, tokenizer = load_checkpoint(request.model)
    model = prepare_for_inference(model, device)
    if gold is not None:
        _check_gold(gold, pairs, str(request.gold))
    choice = choose_alignment_head(
        model,
        tokenizer,
        [source for source, _ in pairs],
        [target for _, target in pairs],
        gold,
        batch_size=request.batch_size,
        source_tag=request.source_tag,
    )
    store_heads(model, choice.best)
    replace_files(directory, model.generation_config.save_pretrained)
    return choice


def _pairs(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Yield the pairs of lines.

    Raises:
        ValueError: If a file has more lines than the other.
    """
    lines = itertools.zip_longest(read_lines(source), read_lines(target))
    for number, (source_line, target_line) in enumerate(lines):
        if source_line is None or target_line is None:
            shorter, longer = (source, target) if source_line is None else (target, source)
            raise ValueError(f"{shorter} has {number:,} lines, and {longer} has more; line n of one translates line n")
        yield decode_line(source_line)[0], decode_line(target_line)[0]


def _read_gold(path: Path) -> list[GoldAlignment]:
    """Read gold alignments.

    Raises:
        ValueError: If a line has another form.
    """
    gold = []
    for number, line in enumerate(read_valid_lines(path), start=1):
        try:
            gold.append(GoldAlignment.parse(line))
        except ValueError as error:
            raise ValueError(f"line {number} of {path}: {error}") from error
    return gold


def _check_gold(
    gold: Sequence[GoldAlignment], pairs: Sequence[tuple[str, str]], path: str, lines_before: int = 0
) -> None:
    """Raise ValueError if a gold alignment has a link of words that its pair does not have."""
    for number, (correct, texts) in enumerate(zip(gold, pairs, strict=False), start=lines_before + 1):
        words = [len(text.split()) for text in texts]
        for link in sorted(correct.possible):
            if link[0] >= words[0] or link[1] >= words[1]:
                raise ValueError(
                    f"line {number} of {path} has the link {link[0]}-{link[1]}, but the pair has {words[0]} and "
                    f"{words[1]} words, which are counted from 0 and separated by white space"
                )


__all__ = ["AlignmentRequest", "align_files", "choose_head_of_checkpoint"]
