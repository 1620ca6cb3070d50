# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The splits of a corpus: training text is checked and filtered, evaluation text is kept complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from .corpora import ParallelCorpus, load_embedded, load_hub_dataset, load_table, load_text_files
from .file_names import Files
from .held_out import hold_out

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TextFiles:
    """Two aligned text files, or two lists of them; see `load_text_files`."""

    source: Files
    target: Files
    source_tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tables:
    """TSV, CSV, JSON lines or Parquet files with two columns of text; see `load_table`."""

    files: Files
    source_column: str | None = None
    target_column: str | None = None


@dataclass(frozen=True)
class HubDataset:
    """A split of a dataset on the Hugging Face Hub; see `load_hub_dataset`."""

    name: str
    config: str | None = None
    split: str = "train"
    source_column: str | None = None
    target_column: str | None = None


@dataclass(frozen=True)
class EmbeddedPairs:
    """Generated pairs of the embedded corpus; see `load_embedded`."""

    size: int
    seed: int = 0


@dataclass(frozen=True)
class HoldOut:
    """Training text of which some pairs are held out; see `hold_out`.

    As the split "train", it is the text without these pairs; as any other split, it is these pairs.
    """

    text: TextFiles | Tables | HubDataset | EmbeddedPairs
    pairs: int


SplitSource: TypeAlias = TextFiles | Tables | HubDataset | EmbeddedPairs | HoldOut


def load_splits(
    sources: Mapping[str, SplitSource], *, source_lang: str, target_lang: str, streaming: bool = False
) -> dict[str, ParallelCorpus]:
    """Load the splits of a corpus.

    Args:
        sources: the origin of each split, by its name: "train", "validation" or "test".
        source_lang, target_lang: names of the two sides in the ``translation`` column.
        streaming: read the training split during training instead of before it.

    Returns:
        A corpus for each split. "train" leaves out pairs that have a problem; the other splits keep every pair.

    Raises:
        ValueError: If a split can't be loaded; see the functions that load each kind of source.
    """
    corpora: dict[str, ParallelCorpus] = {}
    parts: dict[str, tuple[ParallelCorpus, ParallelCorpus]] = {}  # so that two splits of one text read it once
    for split, source in sources.items():
        if not isinstance(source, HoldOut):
            corpora[split] = _load_split(split, source, source_lang, target_lang, streaming and split == "train")
            continue
        if repr(source) not in parts:
            text = _load_split("train", source.text, source_lang, target_lang, streaming)
            tags = source.text.source_tags if isinstance(source.text, TextFiles) else ()
            parts[repr(source)] = hold_out(text, source.pairs, source_tags=tags)
        corpora[split] = parts[repr(source)][0 if split == "train" else 1]
    return corpora


def _load_split(split: str, source: Any, source_lang: str, target_lang: str, streaming: bool) -> ParallelCorpus:
    common: dict[str, Any] = {"source_lang": source_lang, "target_lang": target_lang, "keep_all": split != "train"}
    if isinstance(source, EmbeddedPairs):
        return load_embedded(split, source.size, seed=source.seed, **common)
    common["streaming"] = streaming
    if isinstance(source, TextFiles):
        return load_text_files(source.source, source.target, source_tags=source.source_tags, **common)
    columns = (source.source_column, source.target_column)
    if isinstance(source, Tables):
        return load_table(source.files, *columns, **common)
    return load_hub_dataset(source.name, source.config, source.split, *columns, **common)


__all__ = ["SPLITS", "EmbeddedPairs", "HoldOut", "HubDataset", "SplitSource", "Tables", "TextFiles", "load_splits"]
