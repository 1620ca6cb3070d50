# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Hold out pairs of the training text for validation.

The choice depends on the text alone: the pairs with the smallest hashes are held out, whatever the order of the lines.
No source and no target of a held-out pair stays in the training text; with source tags, in no direction.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from datasets import Dataset

from .corpora import ParallelCorpus
from .corpus_report import CorpusReport

_BATCH_ROWS = 10_000
_CANDIDATES = 8  # candidates per pair to hold out; those whose texts occur once are preferred


def hold_out(
    corpus: ParallelCorpus, pairs: int, source_tags: Sequence[str] = ()
) -> tuple[ParallelCorpus, ParallelCorpus]:
    """Split a corpus into training pairs and held-out pairs.

    Pairs whose source and target occur once are preferred, so that few other pairs have to leave the training text.

    Args:
        corpus: the training text; not streamed.
        pairs: number of pairs to hold out.
        source_tags: tags that the sources may begin with. With tags, the text of a held-out pair stays on neither side
            of the training text, because the same pairs may be in it in the opposite direction.

    Returns:
        The remaining corpus and the held-out pairs, both in the order of the text.

    Raises:
        ValueError: If the corpus is streamed, or no training pair would be left.
    """
    if not isinstance(corpus.dataset, Dataset):
        raise ValueError(
            "held_out_pairs needs text that is read before the training, and streaming is set; name validation text "
            "(validation_source and validation_target), or set held_out_pairs: 0"
        )
    prefixes = tuple(sorted({f"{tag} " for tag in source_tags if tag}, key=len, reverse=True))
    chosen = _choose(corpus, pairs, prefixes)
    sources, targets = ({keys[side] for keys in chosen} for side in (0, 1))
    if prefixes:
        sources = targets = sources | targets
    kept, held, seen = [], [], set()
    for place, keys in enumerate(_keys(corpus, prefixes)):
        if keys in chosen and keys not in seen:
            seen.add(keys)
            held.append(place)
        elif keys[0] not in sources and keys[1] not in targets:
            kept.append(place)
    if not kept or not held:
        raise ValueError(
            f"held_out_pairs={pairs} leaves no training pair of the {corpus.report.pairs_kept:,} pairs in "
            f"{corpus.report.name}; lower it, or set eval_strategy: no and held_out_pairs: 0"
        )
    name = corpus.report.name
    read = corpus.report.pairs_read - len(held)
    training = replace(corpus.report, name=f"{name} without {len(held):,} held-out pairs", pairs_read=read)
    validation = CorpusReport(f"{len(held):,} held-out pairs of {name}", pairs_read=len(held), complete=True)
    return _part(corpus, kept, training), _part(corpus, held, validation)


def _choose(corpus: ParallelCorpus, pairs: int, prefixes: tuple[str, ...]) -> set[tuple[bytes, bytes]]:
    """Return the keys of the pairs to hold out."""
    candidates = _smallest(_keys(corpus, prefixes), _CANDIDATES * pairs)
    candidate_sources, candidate_targets = ({keys[side] for keys in candidates} for side in (0, 1))
    source_counts: Counter[bytes] = Counter()
    target_counts: Counter[bytes] = Counter()
    for source, target in _keys(corpus, prefixes):
        if source in candidate_sources:
            source_counts[source] += 1
        if target in candidate_targets:
            target_counts[target] += 1
    ranked = sorted(candidates, key=lambda keys: (source_counts[keys[0]] + target_counts[keys[1]], keys))
    return set(ranked[:pairs])


def _smallest(items: Iterable[tuple[bytes, bytes]], number: int) -> set[tuple[bytes, bytes]]:
    """Return the smallest different items, without holding all of them in memory."""
    found: set[tuple[bytes, bytes]] = set()
    bound = None
    for item in items:
        if bound is None or item < bound:
            found.add(item)
            if len(found) > 2 * number:
                found = set(heapq.nsmallest(number, found))
                bound = max(found)
    return set(heapq.nsmallest(number, found))


def _keys(corpus: ParallelCorpus, prefixes: tuple[str, ...]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the hashes of source and target of each pair; case, white space and prefixes do not count."""
    for source, target in _texts(corpus):
        prefix = next(filter(source.startswith, prefixes), "")
        yield _key(source.removeprefix(prefix)), _key(target)


def _key(text: str) -> bytes:
    return hashlib.blake2b(" ".join(text.casefold().split()).encode(), digest_size=8).digest()


def _texts(corpus: ParallelCorpus) -> Iterator[tuple[str, str]]:
    source_lang, target_lang = corpus.languages
    for batch in corpus.dataset.iter(_BATCH_ROWS):
        for row in batch["translation"]:
            yield row[source_lang], row[target_lang]


def _part(corpus: ParallelCorpus, places: list[int], report: CorpusReport) -> ParallelCorpus:
    """Return some rows of a corpus; their number and hash complete the report."""
    part = ParallelCorpus(corpus.dataset.select(places), report)
    digest = hashlib.sha256()
    for source, target in _texts(part):
        digest.update(f"{source}\t{target}\n".encode())
    return replace(part, report=replace(report, pairs_kept=len(places), sha256=digest.hexdigest()))


__all__ = ["hold_out"]
