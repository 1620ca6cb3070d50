# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Translate lines with a torch or an exported model and write the translations, in order."""

from collections.abc import Mapping
from typing import IO, Any

from ..alignment.heads import AlignmentHeads
from ..minimum_bayes_risk.config import MBRConfig
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..plausibility import TranslationTally
from .line_sources import LineSource
from .output_formats import FORMATS, Progress
from .translate import translate


def translate_stream(
    model: Any,
    tokenizer: Any,
    source: LineSource,
    target: IO[bytes],
    config: BeamSearchConfig | None = None,
    *,
    output_format: str = "text",
    scores: bool = False,
    flush: bool = True,
    progress: Progress | None = None,
    batch_size: int = 64,
    max_source_tokens: int = 1024,
    source_tag: str = "",
    workers: int | None = None,
    restrictions: Mapping[str, Any] | None = None,
    mbr: MBRConfig | None = None,
    alignments: bool = False,
    alignment_head: AlignmentHeads | str | None = None,
) -> list[str]:
    """Translate each line of a source and write the translations in UTF-8.

    With one translation per line, "text" and "tsv" write exactly one line per line of the source. A line break inside a
    translation becomes a space. Translations are written as soon as the lines that were read together are translated.

    Args:
        model, tokenizer, config, batch_size, max_source_tokens, source_tag, workers: see `translate`.
        mbr, alignments, alignment_head: see `translate`.
        source: the lines.
        target: binary stream to write to; one call of its `write` has all translations of a line.
        output_format: a key of `output_formats.FORMATS`.
        scores: also write the scores; "jsonl" always contains them.
        flush: make the translations available to the reader of ``target`` before more lines are awaited.
        progress: shows the progress; give it to ``source`` as well.
        restrictions: the arguments ``prefixes``, ``constraints``, ``terminology`` and ``banned`` of `translate`, which
            `RestrictionFiles` reads.

    Returns:
        Warnings for the user: lines that were not UTF-8, and translations that look useless.

    Raises:
        ValueError: If the source is not text, or `translate` rejects an argument.
    """
    progress = Progress(None) if progress is None else progress
    config = BeamSearchConfig() if config is None else config
    tally, write_format = TranslationTally(), FORMATS[output_format]
    found = translate(
        model,
        tokenizer,
        source,
        config,
        batch_size=batch_size,
        max_source_tokens=max_source_tokens,
        source_tag=source_tag,
        return_scores=True,
        workers=workers,
        **(restrictions or {}),
        mbr=mbr,
        alignments=alignments,
        alignment_head=alignment_head,
    )
    try:
        for hypotheses in found:
            translations = hypotheses if isinstance(hypotheses, list) else [hypotheses]
            text, line = source.next_written()
            target.write(write_format(text, translations, scores).encode("utf-8", errors="replace"))
            tally.add(text, translations[0].text, line)
            progress.written()
            if flush and not source.pending:
                target.flush()
    except BaseException:
        progress.clear()
        raise
    return [warning for warning in (source.warning(), tally.warning()) if warning]


__all__ = ["translate_stream"]
