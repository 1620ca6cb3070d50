# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Translate texts in windows of like length, one batch after the other or side by side in worker processes."""

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from transformers.utils import logging

from ..alignment.word_alignment import WordAligner
from ..minimum_bayes_risk.config import MBRConfig
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.beam_search_vanilla_transformer import paper_beam_search
from ..model.constraints_vanilla_transformer import contains_phrase
from ..model.terminology_vanilla_transformer import Terminology
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .batches import Batches, Lines, padded
from .texts import PerText, ScoredTranslation, TextSource

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class _Input:
    """The token ids of what a translation is searched for.

    Attributes:
        source: with EOS.
        prefix: first tokens of the target.
        phrases: constraints of the target.
    """

    source: list[int]
    prefix: list[int] = field(default_factory=list)
    phrases: list[list[int]] = field(default_factory=list)


@dataclass
class _Problems:
    """What a user has to know about the translations.

    Attributes:
        max_source_tokens: most tokens per text.
        too_long: the texts that have more.
        impossible: texts without a target that fits their restrictions.
        unknown: constraints with characters that the vocabulary lacks.
        tags: of languages, that the vocabulary has.
        other_tags: texts without such a tag, or with one beside ``source_tag``.
    """

    max_source_tokens: int
    too_long: Lines = field(default_factory=Lines)
    impossible: Lines = field(default_factory=Lines)
    unknown: dict[str, None] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    other_tags: Lines = field(default_factory=Lines)

    def warn(self) -> None:
        """Log a warning for each kind of problem."""
        if self.too_long.count:
            logger.warning(
                f"{self.too_long.count} text(s) of more than {self.max_source_tokens} tokens have empty translations: "
                f"{self.too_long}; split them into sentences, or raise max_source_tokens"
            )
        if self.impossible.count:
            logger.warning(
                f"{self.impossible.count} text(s) have empty translations because no target fits their restrictions: "
                f"{self.impossible}; allow more words, or use a wider beam"
            )
        if self.other_tags.count:
            logger.warning(
                f"{self.other_tags.count} text(s) have no tag of a language, or several, and the model has "
                f"{', '.join(self.tags)}: {self.other_tags}; set source_tag, or begin each text with a tag"
            )
        if self.unknown:
            listed = ", ".join(map(repr, list(self.unknown)[:3])) + (", …" if len(self.unknown) > 3 else "")
            logger.warning(f"{len(self.unknown)} constraint(s) are ignored; the vocabulary cannot write {listed}")


@dataclass
class Translator:
    """Translate texts, a window at a time. Attributes are the arguments of `translate`."""

    model: Any
    tokenizers: TranslationTokenizers
    config: BeamSearchConfig
    window: int
    batch_size: int
    batch_tokens: int
    max_source_tokens: int
    source_tag: str
    workers: int
    terminology: Terminology | None = None
    mbr: MBRConfig | None = None
    aligner: WordAligner | None = None

    def translate(
        self, texts: Iterable[str], prefixes: Iterable[str] | None = None, constraints: Iterable[Any] | None = None
    ) -> Iterator[list[ScoredTranslation]]:
        """Yield the hypotheses of each text, best first."""
        all_prefixes = PerText("prefixes", prefixes, default="")
        all_constraints = PerText("constraints", constraints, default=())
        problems = _Problems(self.max_source_tokens, tags=self.tokenizers.language_tags())
        iterator, lines_before = iter(texts), 0
        source = texts if isinstance(texts, TextSource) else None
        empty = [ScoredTranslation("", 0.0)] * self.config.num_return_sequences
        with ExitStack() as stack:
            stack.callback(problems.warn)  # also where the caller stops reading
            batches = Batches(
                self._search,
                lambda given: (len(given.source),),
                self.batch_size,
                self.batch_tokens,
                self.workers,
                stack,
            )
            while window := list(islice(iterator, self.window)) if source is None else source.take(self.window):
                if source is not None and source.lines_before is not None:
                    lines_before = source.lines_before
                prefixes_here, constraints_here = (
                    values.take(len(window), lines_before) for values in (all_prefixes, all_constraints)
                )
                inputs = self._encode(window, prefixes_here, constraints_here, lines_before, problems)
                translations = [empty for _ in window]
                for batch, (hypotheses, scores) in batches.results(inputs):
                    decoded = self._decode(hypotheses, scores)
                    for place, best, their_scores in zip(batch, decoded, scores, strict=True):
                        translations[place] = best
                        if their_scores[0] == -math.inf:
                            problems.impossible.add(lines_before + place + 1)
                    if source is not None:
                        source.on_batch(len(batch))
                yield from translations if self.aligner is None else self._aligned(window, translations)
                lines_before += len(window)
            if source is None or source.lines_before is None:  # else other processes take the other texts
                all_prefixes.check_end()
                all_constraints.check_end()

    def _encode(
        self, texts: list[str], prefixes: list[Any], constraints: list[Any], lines_before: int, problems: _Problems
    ) -> dict[int, _Input]:
        """Return the token ids of the texts that can be translated, by their place in ``texts``."""
        for line, (text, prefix) in enumerate(zip(texts, prefixes, strict=True), start=lines_before + 1):
            if not isinstance(text, str):
                raise ValueError(f"line {line} is of type {type(text).__name__}, not a string")
            if not isinstance(prefix, str):
                raise ValueError(f"the prefix of line {line} is of type {type(prefix).__name__}, not a string")
        places = [place for place, text in enumerate(texts) if text.strip()]
        tag = f"{self.source_tag} " if self.source_tag else ""
        encoded = self.tokenizers.encode_sources([tag + texts[place] for place in places])
        special = {self.tokenizers.pad_token_id, self.tokenizers.source.bos_token_id, self.tokenizers.eos_token_id}
        if self.source_tag:
            special.update(self.tokenizers.source.convert_tokens_to_ids(self.source_tag.split()))
        languages = set(self.tokenizers.source.convert_tokens_to_ids(problems.tags))
        sources: dict[int, list[int]] = {}
        for place, ids in zip(places, encoded, strict=True):
            if languages and sum(token in languages for token in ids) != 1:
                problems.other_tags.add(lines_before + place + 1)
            if len(ids) > self.max_source_tokens:
                problems.too_long.add(lines_before + place + 1)
            elif set(ids) - special:  # a text can be empty after the tokenizer's normalization
                sources[place] = ids
        prefixed = [place for place in sources if prefixes[place]]
        encoded = self.tokenizers.encode_prefixes([prefixes[place] for place in prefixed])
        prefix_ids = dict(zip(prefixed, encoded, strict=True))
        phrase_ids = self._encode_constraints(texts, constraints, lines_before, problems)
        return {
            place: _Input(ids, prefix_ids.get(place, []), phrase_ids.get(place, [])) for place, ids in sources.items()
        }

    def _encode_constraints(
        self, texts: list[str], constraints: list[Any], lines_before: int, problems: _Problems
    ) -> dict[int, list[list[int]]]:
        """Return the token ids of each text's constraints and terms, by the place of the text."""
        phrases: dict[int, list[str]] = {}
        for place, (text, own) in enumerate(zip(texts, constraints, strict=True)):
            if own is not None and (isinstance(own, str) or not all(isinstance(phrase, str) for phrase in own)):
                raise ValueError(
                    f"the constraints of line {lines_before + place + 1} are {own!r}, not a list of phrases; give one "
                    'list for one text, as ["a phrase"], and one list per text for several'
                )
            terms = [] if self.terminology is None else self.terminology.phrases(text)
            if found := [phrase.strip() for phrase in (*(own or ()), *terms) if phrase.strip()]:
                phrases[place] = list(dict.fromkeys(found))
        if not phrases:
            return {}
        different = list(dict.fromkeys(phrase for of_text in phrases.values() for phrase in of_text))
        ids = {
            phrase: variants[0]
            for phrase, variants in zip(different, self.tokenizers.encode_phrases(different), strict=True)
        }
        for phrase, tokens in list(ids.items()):
            if not tokens or self.tokenizers.count_unknown([tokens], "target"):
                problems.unknown[phrase] = None
                del ids[phrase]
            elif any(contains_phrase(tokens, word) for word in self.config.bad_words_ids or ()):
                raise ValueError(f"the constraint {phrase!r} contains a banned word; allow the word, or leave it out")
        return {place: [ids[phrase] for phrase in of_text if phrase in ids] for place, of_text in phrases.items()}

    def _search(self, inputs: list[_Input]) -> tuple[list[list[list[int]]], list[list[float]]]:
        """Return the hypotheses of each source as token ids, best first, and their scores."""
        sources = [given.source for given in inputs]
        ids = padded(sources, self.tokenizers.pad_token_id or 0, self.model.device)
        mask = padded([[1] * len(source) for source in sources], 0, self.model.device)
        if self.mbr is not None:
            return self.mbr.search(self.model, self.tokenizers, ids, mask, self.config)
        given_values: dict[str, list[Any]] = {
            "prefixes": [given.prefix for given in inputs],
            "constraints": [given.phrases for given in inputs],
        }
        restrictions: dict[str, Any] = {name: values for name, values in given_values.items() if any(values)}
        output = paper_beam_search(self.model, ids, mask, config=self.config, **restrictions)
        assert output.sequences_scores is not None
        return output.hypotheses(), output.sequences_scores.view(len(sources), -1).tolist()

    def _decode(
        self, hypotheses: list[list[list[int]]], scores: list[list[float]]
    ) -> Iterator[list[ScoredTranslation]]:
        """Yield the hypotheses of each source as text, best first."""
        for of_source, their_scores in zip(hypotheses, scores, strict=True):
            texts = self.tokenizers.batch_decode(of_source)
            # The score is −∞ where restrictions leave fewer targets; such a hypothesis has no tokens.
            found = zip(texts, their_scores, strict=True)
            yield [ScoredTranslation(text, score if score > -math.inf else 0.0) for text, score in found]

    def _aligned(
        self, texts: list[str], translations: list[list[ScoredTranslation]]
    ) -> Iterator[list[ScoredTranslation]]:
        """Yield the hypotheses of each text with their alignments."""
        assert self.aligner is not None
        sources = [text for text, hypotheses in zip(texts, translations, strict=True) for _ in hypotheses]
        targets = [found.text for hypotheses in translations for found in hypotheses]
        alignments = iter(self.aligner.align(sources, targets))
        for hypotheses in translations:
            yield [replace(found, alignment=tuple(next(alignments))) for found in hypotheses]


__all__ = ["Translator"]
