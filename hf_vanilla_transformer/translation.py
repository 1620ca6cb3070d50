# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Translate texts with the paper's beam search (§6.1)."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from transformers.utils import logging

from .alignment.heads import AlignmentHeads
from .alignment.pharaoh import Link
from .alignment.word_alignment import WordAligner
from .minimum_bayes_risk.config import MBRConfig
from .minimum_bayes_risk.decoding import check_minimum_bayes_risk, minimum_bayes_risk_search
from .model.beam_search_config_vanilla_transformer import BeamSearchConfig, check_integer
from .model.beam_search_vanilla_transformer import check_beam_search, paper_beam_search
from .model.constraints_vanilla_transformer import NO_CONSTRAINTS, contains_phrase
from .model.ensemble_vanilla_transformer import Ensemble
from .model.terminology_vanilla_transformer import Terminology
from .model.tokenizers_vanilla_transformer import TranslationTokenizers
from .worker_processes import WorkerProcesses, workers_are_supported

logger = logging.get_logger(__name__)

_MOST_CHOSEN_WORKERS = 16  # each needs the memory of a batch
_MAX_TAGS_LISTED = 20  # in an error
_MAX_LINES_LISTED = 10  # in a warning; further lines are only counted


@dataclass(frozen=True)
class ScoredTranslation:
    """A translation with its score.

    Attributes:
        text: the translation.
        score: see `BeamSearchOutput.sequences_scores`, or `MBRConfig`; 0 for a text that was not translated.
        alignment: links (word of the source, word of the translation), see `align_words`; None if not asked for.
    """

    text: str
    score: float
    alignment: tuple[Link, ...] | None = None


class TextSource:
    """Texts for `translate` that decide themselves how many are translated together, e.g. those that a user types.

    Attributes:
        lines_before: number of lines of the input before those that `take` returned last, for messages; None: `take`
            returns all lines in order.
    """

    lines_before: int | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield the texts one by one."""
        while texts := self.take(1):
            yield from texts

    def take(self, most: int) -> list[str]:
        """Wait for texts and return up to ``most`` of them, which are translated at once; [] after the last one."""
        raise NotImplementedError

    def on_batch(self, texts: int) -> None:
        """Called after each batch with the number of its texts."""


class TranslateOptions(TypedDict, total=False):
    """The other keyword arguments of `translate`, for its overloads."""

    batch_size: int
    batch_tokens: int
    window: int
    max_source_tokens: int
    source_tag: str
    target_tokenizer: Any
    workers: int | None
    prefixes: str | Iterable[str] | None
    constraints: Iterable[Any] | None
    terminology: Terminology | Mapping[str, str] | None
    banned: Iterable[str]
    mbr: MBRConfig | None
    alignments: bool
    alignment_head: AlignmentHeads | str | None


# Types of the results for num_return_sequences=1, which is the default.
@overload
def translate(  # type: ignore[overload-overlap]  # a string is a sequence of strings as well
    model: Any, tokenizer: Any, texts: str, config: BeamSearchConfig | None = None, *,
    return_scores: Literal[False] = False, **options: Unpack[TranslateOptions],
) -> str: ...  # fmt: skip
@overload
def translate(  # type: ignore[overload-overlap]
    model: Any, tokenizer: Any, texts: str, config: BeamSearchConfig | None = None, *,
    return_scores: Literal[True], **options: Unpack[TranslateOptions],
) -> ScoredTranslation: ...  # fmt: skip
@overload
def translate(  # type: ignore[overload-overlap]
    model: Any, tokenizer: Any, texts: Sequence[str], config: BeamSearchConfig | None = None, *,
    return_scores: Literal[False] = False, **options: Unpack[TranslateOptions],
) -> list[str]: ...  # fmt: skip
@overload
def translate(  # type: ignore[overload-overlap]
    model: Any, tokenizer: Any, texts: Sequence[str], config: BeamSearchConfig | None = None, *,
    return_scores: Literal[True], **options: Unpack[TranslateOptions],
) -> list[ScoredTranslation]: ...  # fmt: skip
@overload
def translate(
    model: Any, tokenizer: Any, texts: Iterable[str], config: BeamSearchConfig | None = None, *,
    return_scores: Literal[False] = False, **options: Unpack[TranslateOptions],
) -> Iterator[str]: ...  # fmt: skip
@overload
def translate(
    model: Any, tokenizer: Any, texts: Iterable[str], config: BeamSearchConfig | None = None, *,
    return_scores: Literal[True], **options: Unpack[TranslateOptions],
) -> Iterator[ScoredTranslation]: ...  # fmt: skip
def translate(
    model: Any,
    tokenizer: Any,
    texts: str | Iterable[str],
    config: BeamSearchConfig | None = None,
    *,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    window: int = 1024,
    max_source_tokens: int = 1024,
    source_tag: str = "",
    return_scores: bool = False,
    target_tokenizer: Any = None,
    workers: int | None = 1,
    prefixes: str | Iterable[str] | None = None,
    constraints: Iterable[Any] | None = None,
    terminology: Terminology | Mapping[str, str] | None = None,
    banned: Iterable[str] = (),
    mbr: MBRConfig | None = None,
    alignments: bool = False,
    alignment_head: AlignmentHeads | str | None = None,
) -> Any:
    """Translate texts with the paper's beam search.

    Texts of similar length are translated in one batch; results are in the order of the texts. An empty or blank text
    has an empty translation. So has a text with too many tokens; a warning counts these texts and lists their lines.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, on the device to use; an `Ensemble` or a list of such
            models; or an exported model from `load_engine`.
        tokenizer: the model's tokenizer, which the models of an ensemble share, or `TranslationTokenizers` with both.
        texts: one text, a list, a `TextSource`, or any other iterable, which is read ``window`` texts at a time.
        config: settings of the search; None uses the paper's.
        batch_size: most texts per batch.
        batch_tokens: most source tokens per batch, with padding; one text with more tokens is a batch by itself.
        window: texts that are read, and sorted by length, at a time.
        max_source_tokens: most tokens per text, with the EOS token; a text with more is not translated.
        source_tag: put before each text, e.g. "<2de>" for a model that was trained with such tags; its words must be
            tokens of the model.
        return_scores: return `ScoredTranslation` objects instead of strings.
        target_tokenizer: decodes the translations where source and target have separate vocabularies; None loads the
            directory target_tokenizer beside the weights.
        workers: processes that translate batches side by side, each with one thread; for a torch model on the CPU, on
            Linux. They are forked where the texts fill more than one batch. None starts one per thread of torch where
            that is possible.
        prefixes: how each translation begins, one text per text, "" where its beginning is free; for one text, one
            prefix. An iterable is read together with the texts. A prefix should end at the end of a word.
        constraints: phrases that each translation contains, one list of phrases per text, [] where there is none; for
            one text, one list. An iterable is read together with the texts. Needs a torch model.
        terminology: source term -> target phrase; the phrases of the terms in a text are its constraints, with those of
            ``constraints``. See `Terminology`.
        banned: words or phrases that no translation contains in their usual tokens: at the beginning and after another
            word. They are added to ``bad_words_ids`` of the settings.
        mbr: choose each translation by minimum Bayes risk among many candidates; see `MBRConfig`. Its score is then
            the expected chrF, 0 to 100.
        alignments: also align the words of each translation with those of its text; needs ``return_scores``, because
            the links are in the `ScoredTranslation` objects. Not for exported models.
        alignment_head: the attention that aligns them, see `align_words`.

    Returns:
        A translation for one text, a list for a list, and an iterator for other iterables. With
        ``num_return_sequences`` > 1, each text has a list of translations, best first.

    Raises:
        ValueError: If the tokenizer doesn't fit the model, the model doesn't support the settings, an argument is out
            of range, ``source_tag`` is not in the vocabulary, a text is not a string, there are more or fewer prefixes
            or constraints than texts, or a constraint contains a banned word.
        ChildProcessError: If a worker process was killed.
    """
    check_integer("batch_size", batch_size, minimum=1)
    check_integer("batch_tokens", batch_tokens, minimum=1)
    check_integer("window", window, minimum=1)
    check_integer("max_source_tokens", max_source_tokens, minimum=1)
    if isinstance(model, (list, tuple)):
        model = Ensemble(model)
    workers = number_of_workers(model, workers)
    config = BeamSearchConfig() if config is None else config
    tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
    check_source_tag(tokenizers.source, source_tag)
    vocabulary = model.config.output_vocab_size
    if config.num_beams > vocabulary:
        raise ValueError(
            f"num_beams={config.num_beams} is more than the {vocabulary} tokens of the vocabulary; choose fewer (the "
            "paper's is 4)"
        )
    if banned_ids := tokenizers.encode_banned(banned):
        config = config.replace(bad_words_ids=[*(config.bad_words_ids or ()), *banned_ids])
    check_beam_search(model, config)
    terms = Terminology(terminology) if isinstance(terminology, Mapping) else terminology
    if (constraints is not None or terms is not None) and not isinstance(model, torch.nn.Module):
        raise ValueError(NO_CONSTRAINTS)
    if mbr is not None:
        if prefixes is not None or constraints is not None or terms is not None:
            raise ValueError(
                "mbr chooses among candidates that are drawn without prefixes and constraints; leave out one of them"
            )
        check_minimum_bayes_risk(model, config, mbr)
    if alignments and not return_scores:
        raise ValueError(
            "alignments=True needs return_scores=True, because the links are in the ScoredTranslation objects"
        )
    if alignment_head is not None and not alignments:
        raise ValueError(f"alignment_head={alignment_head} has no effect without alignments=True; set it as well")
    aligner = None
    if alignments:
        aligner = WordAligner(model, tokenizers, alignment_head, batch_size, batch_tokens, source_tag)
    if model.max_sequence_length is not None:
        max_source_tokens = min(max_source_tokens, model.max_sequence_length)
    translator = _Translator(
        model,
        tokenizers,
        config,
        window,
        batch_size,
        batch_tokens,
        max_source_tokens,
        source_tag,
        workers,
        terms,
        mbr,
        aligner,
    )

    def as_requested(hypotheses: list[ScoredTranslation]) -> Any:
        results: list[Any] = hypotheses if return_scores else [hypothesis.text for hypothesis in hypotheses]
        return results if config.num_return_sequences > 1 else results[0]

    if isinstance(texts, str):
        if prefixes is not None and not isinstance(prefixes, str):
            raise ValueError(f"prefixes={prefixes!r} is not one prefix for one text; give a string")
        one_prefix = None if prefixes is None else [prefixes]
        one_list = None if constraints is None else [constraints]
        (translation,) = map(as_requested, translator.translate([texts], one_prefix, one_list))
        return translation
    if isinstance(prefixes, str):
        raise ValueError(f"prefixes={prefixes!r} is one string for several texts; give a list with one prefix per text")
    translations = map(as_requested, translator.translate(texts, prefixes, constraints))
    return list(translations) if isinstance(texts, Sequence) else translations


def check_source_tag(tokenizer: Any, source_tag: str) -> None:
    """Check that each word of a tag is a token of the source vocabulary.

    Raises:
        ValueError: If one is not; it would be split into subwords that the model was not trained with.
    """
    if not isinstance(source_tag, str):
        raise ValueError(f"source_tag={source_tag!r} is not a string; give a tag such as '<2de>'")
    vocabulary = tokenizer.get_vocab() if source_tag.split() else {}
    for word in source_tag.split():
        if word not in vocabulary:
            standard = {getattr(tokenizer, f"{name}_token", None) for name in ("pad", "bos", "eos", "unk")}
            known = [token for token in tokenizer.get_added_vocab() if token not in standard]
            has = f"it has {', '.join(known[:_MAX_TAGS_LISTED])}" if known else "it has no tags"
            raise ValueError(f"source_tag: {word!r} is not a token of the model's vocabulary; {has}")


def number_of_workers(model: Any, workers: int | None) -> int:
    """Return the number of worker processes, checked or chosen."""
    if workers is None:
        possible = workers_are_supported() and isinstance(model, torch.nn.Module) and model.device.type == "cpu"
        return min(torch.get_num_threads(), _MOST_CHOSEN_WORKERS) if possible else 1
    check_integer("workers", workers, minimum=1)
    if workers == 1:
        return 1
    if not workers_are_supported():
        raise ValueError(f"workers={workers}: worker processes need Linux; leave workers out")
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"workers={workers} is for torch models; an exported model has threads of its own")
    if model.device.type != "cpu":
        raise ValueError(f"workers={workers} is for the CPU; the model is on {model.device}, so leave workers out")
    return workers


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


class _PerText:
    """Values that are given for each text.

    Args:
        name: of the argument.
        values: one per text: a sequence, of which any part can be taken, or an iterable, which is read together with
            the texts; None if they are not given.
        default: the value of each text if they are not given.
    """

    def __init__(self, name: str, values: Iterable[Any] | None, default: Any) -> None:
        self._name, self._default = name, default
        self._sequence = values if isinstance(values, Sequence) else None
        self._iterator = None if values is None or self._sequence is not None else iter(values)
        self._count = 0

    def take(self, number: int, first: int) -> list[Any]:
        """Return the values of the next texts.

        Args:
            number: of texts.
            first: texts before them.

        Raises:
            ValueError: If there are fewer.
        """
        if self._sequence is not None:
            values = list(self._sequence[first : first + number])
            self._count = first + len(values)
        elif self._iterator is not None:
            values = list(islice(self._iterator, number))
            self._count += len(values)
        else:
            return [self._default] * number
        if len(values) < number:
            raise ValueError(f"there are more texts than {self._name} ({self._count}); give one for each text")
        return values

    def check_end(self) -> None:
        """Raise ValueError if there are values after the last text."""
        sequence = () if self._sequence is None else self._sequence
        if self._count < len(sequence) or next(self._iterator or iter(()), None) is not None:
            raise ValueError(f"there are more {self._name} than texts ({self._count}); give one for each text")


@dataclass
class _Lines:
    """Lines of which a warning tells the number and the first ones.

    Attributes:
        count: number of lines.
        first: the first of them, numbered from 1.
    """

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """Count a line."""
        self.count += 1
        if len(self.first) < _MAX_LINES_LISTED:
            self.first.append(line)

    def __str__(self) -> str:
        """Return "line 3, 5"; after the last one listed "…" if there are more."""
        return "line " + ", ".join(map(str, self.first)) + (", …" if self.count > len(self.first) else "")


@dataclass
class _Problems:
    """What a user has to know about the translations.

    Attributes:
        max_source_tokens: most tokens per text.
        too_long: the texts that have more.
        impossible: texts without a target that fits their restrictions.
        unknown: constraints with characters that the vocabulary lacks.
    """

    max_source_tokens: int
    too_long: _Lines = field(default_factory=_Lines)
    impossible: _Lines = field(default_factory=_Lines)
    unknown: dict[str, None] = field(default_factory=dict)

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
        if self.unknown:
            listed = ", ".join(map(repr, list(self.unknown)[:3])) + (", …" if len(self.unknown) > 3 else "")
            logger.warning(f"{len(self.unknown)} constraint(s) are ignored; the vocabulary cannot write {listed}")


@dataclass
class _Translator:
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
        all_prefixes = _PerText("prefixes", prefixes, default="")
        all_constraints = _PerText("constraints", constraints, default=())
        problems = _Problems(self.max_source_tokens)
        iterator, lines_before = iter(texts), 0
        source = texts if isinstance(texts, TextSource) else None
        empty = [ScoredTranslation("", 0.0)] * self.config.num_return_sequences
        with ExitStack() as stack:
            stack.callback(problems.warn)  # also where the caller stops reading
            workers: WorkerProcesses | None = None
            while window := list(islice(iterator, self.window)) if source is None else source.take(self.window):
                if source is not None and source.lines_before is not None:
                    lines_before = source.lines_before
                prefixes_here, constraints_here = (
                    values.take(len(window), lines_before) for values in (all_prefixes, all_constraints)
                )
                inputs = self._encode(window, prefixes_here, constraints_here, lines_before, problems)
                if self.workers > 1 and workers is None and len(inputs) > self.batch_size:
                    workers = stack.enter_context(WorkerProcesses(self._search, self.workers))
                batches = list(self._batches(inputs, shared_by=1 if workers is None else self.workers))
                in_batches = [[inputs[place] for place in batch] for batch in batches]
                found = map(self._search, in_batches) if workers is None else workers.map(in_batches)
                translations = [empty for _ in window]
                for batch, (hypotheses, scores) in zip(batches, found, strict=True):
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
        sources: dict[int, list[int]] = {}
        for place, ids in zip(places, encoded, strict=True):
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
                    f"the constraints of line {lines_before + place + 1} are {own!r}, not a list of phrases"
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

    def _batches(self, inputs: dict[int, _Input], shared_by: int) -> Iterator[list[int]]:
        """Yield batches of places, the longest sources first, so that the first batch uses the most memory.

        Args:
            inputs: token ids by place.
            shared_by: number of processes, each of which gets at least one batch.
        """
        batch: list[int] = []
        size = min(self.batch_size, math.ceil(len(inputs) / shared_by))
        lengths = {place: len(given.source) for place, given in inputs.items()}
        for place in sorted(inputs, key=lambda place: (-lengths[place], place)):
            if batch and (len(batch) == size or (len(batch) + 1) * lengths[batch[0]] > self.batch_tokens):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _search(self, inputs: list[_Input]) -> tuple[list[list[list[int]]], list[list[float]]]:
        """Return the hypotheses of each source as token ids, best first, and their scores."""
        sources = [given.source for given in inputs]
        longest, device = max(map(len, sources)), self.model.device
        pad = 0 if self.tokenizers.pad_token_id is None else self.tokenizers.pad_token_id
        ids = torch.tensor([[*source, *[pad] * (longest - len(source))] for source in sources], device=device)
        mask = torch.tensor([[1] * len(source) + [0] * (longest - len(source)) for source in sources], device=device)
        if self.mbr is not None:
            return minimum_bayes_risk_search(self.model, self.tokenizers, ids, mask, self.config, self.mbr)
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


__all__ = ["ScoredTranslation", "TextSource", "number_of_workers", "translate"]
