# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Translate a stream of lines with a torch or an exported model, one output line per input line."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from .checkpoints.loading import load_checkpoint, load_tokenizer
from .data.text_lines import decode_line, stream_lines
from .export.formats import load_engine
from .inference import check_precision, prepare_for_inference
from .model.beam_search_config_vanilla_transformer import BeamSearchConfig
from .plausibility import TranslationTally
from .translation import translate


def load_translator(
    engine: str, checkpoint: str | Path, device: str | torch.device | None = None, precision: str = "auto"
) -> tuple[Any, Any]:
    """Load what `translate` needs.

    Args:
        engine: "torch", or the runtime for which the checkpoint was exported: "ctranslate2" or "onnx".
        checkpoint: directory of the checkpoint or the export; for "torch" also an id on the Hub.
        device: device of a torch model; None selects the accelerator if there is one. Not for exported models.
        precision: of a torch model; see `prepare_for_inference`. Not for exported models.

    Returns:
        The model and its tokenizer.

    Raises:
        ValueError: If the checkpoint is invalid, or a device or precision is given for an exported model.
        OSError: If there is no such checkpoint.
        ImportError: If the runtime is not installed.
    """
    if engine == "torch":
        check_precision(precision, device)
        model, tokenizer = load_checkpoint(checkpoint)
        return prepare_for_inference(model, device, precision), tokenizer
    if device is not None:
        raise ValueError(f"device={str(device)!r} is for the torch engine; {engine} runs on the CPU")
    if precision != "auto":
        raise ValueError(
            f"precision={precision!r} is for the torch engine; an exported model runs in the precision of its export"
        )
    return load_engine(engine, checkpoint), load_tokenizer(checkpoint)


def translate_stream(
    model: Any,
    tokenizer: Any,
    source: IO[bytes],
    target: IO[bytes],
    config: BeamSearchConfig | None = None,
    *,
    name: str = "standard input",
    batch_size: int = 64,
    max_source_tokens: int = 1024,
) -> list[str]:
    """Translate each line of one stream into one line of another, in UTF-8.

    A translation is written as soon as its window of lines is translated; a line break inside it becomes a space.

    Args:
        model, tokenizer, config, batch_size, max_source_tokens: see `translate`.
        source: binary stream to read; see `stream_lines` for encodings and line ends.
        target: binary stream to write to.
        name: what messages call the source.

    Returns:
        Warnings for the user: lines that were not UTF-8, and translations that look useless.

    Raises:
        ValueError: If the source is not text, or `translate` rejects an argument.
    """
    lines = _Lines(source, name)
    tally = TranslationTally()
    translations = translate(
        model, tokenizer, lines, config, batch_size=batch_size, max_source_tokens=max_source_tokens
    )
    for translation in translations:
        one_line = translation.replace("\r", " ").replace("\n", " ")
        target.write(one_line.encode("utf-8", errors="replace") + b"\n")
        target.flush()
        tally.add(lines.pending.popleft(), translation)
    return [warning for warning in (lines.warning(), tally.warning()) if warning]


class _Lines:
    """The lines of a stream as text.

    Attributes:
        pending: lines that were read and are not translated yet.
        invalid: how many lines were not UTF-8.
        first_invalid: number of the first of them, counted from 1.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        self.pending: deque[str] = deque()
        self.invalid = self.first_invalid = 0

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(stream_lines(self._stream, self._name), start=1):
            text, valid = decode_line(line)
            if not valid:
                self.invalid += 1
                self.first_invalid = self.first_invalid or number
            self.pending.append(text)
            yield text

    def warning(self) -> str | None:
        """Return a warning if there were lines that are not UTF-8."""
        if not self.invalid:
            return None
        return (
            f"{self.invalid:,} line(s) are not UTF-8, the first is line {self.first_invalid}; invalid bytes were "
            "replaced, so these translations are unreliable: convert the text, e.g. with iconv -f LATIN1 -t UTF-8"
        )


__all__ = ["load_translator", "translate_stream"]
