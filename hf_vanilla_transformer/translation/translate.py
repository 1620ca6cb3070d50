# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Translate texts with the paper's beam search (§6.1)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

import torch

from ..alignment.heads import AlignmentHeads
from ..alignment.word_alignment import WordAligner
from ..minimum_bayes_risk.config import MBRConfig
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig, check_integer
from ..model.beam_search_vanilla_transformer import check_beam_search
from ..model.constraints_vanilla_transformer import MBR_IS_UNRESTRICTED, NO_CONSTRAINTS
from ..model.ensemble_vanilla_transformer import Ensemble
from ..model.terminology_vanilla_transformer import Terminology
from ..model.tokenizers_vanilla_transformer import TranslationTokenizers
from .batches import number_of_workers
from .texts import ScoredTranslation
from .translator import Translator


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
    _check_types(texts, config, mbr)
    workers = number_of_workers(model, workers)
    config = BeamSearchConfig() if config is None else config
    tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
    tokenizers.check_source_tag(source_tag)
    vocabulary = model.config.output_vocab_size
    if config.num_beams > vocabulary:
        raise ValueError(
            f"num_beams={config.num_beams} is more than the {vocabulary} tokens of the vocabulary; choose fewer (the "
            "paper's is 4)"
        )
    config = config.banning(tokenizers.encode_banned(banned))
    check_beam_search(model, config)
    terms = None if terminology is None else Terminology.of(terminology)
    if (constraints is not None or terms is not None) and not isinstance(model, torch.nn.Module):
        raise ValueError(NO_CONSTRAINTS)
    if mbr is not None:
        if prefixes is not None or constraints is not None or terms is not None:
            raise ValueError(MBR_IS_UNRESTRICTED)
        mbr.check(model, config)
    if alignments and not return_scores:
        raise ValueError(
            "alignments=True needs return_scores=True, because the links are in the ScoredTranslation objects"
        )
    if alignment_head is not None and not alignments:
        raise ValueError(f"alignment_head={alignment_head} has no effect without alignments=True; set it as well")
    aligner = None
    if alignments:
        aligner = WordAligner(
            model,
            tokenizers,
            alignment_head,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            source_tag=source_tag,
        )
    if model.max_sequence_length is not None:
        max_source_tokens = min(max_source_tokens, model.max_sequence_length)
    translator = Translator(
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


def _check_types(texts: Any, config: Any, mbr: Any) -> None:
    """Raise ValueError for arguments of the wrong type, which would fail in the middle of the search."""
    if not isinstance(texts, Iterable) or isinstance(texts, (bytes, Mapping)):
        raise ValueError(f"texts is of type {type(texts).__name__}; give a string, or an iterable of strings")
    if config is not None and not isinstance(config, BeamSearchConfig):
        raise ValueError(f"config={config!r} is not a BeamSearchConfig; give BeamSearchConfig(num_beams=4)")
    if mbr is not None and not isinstance(mbr, MBRConfig):
        raise ValueError(f"mbr={mbr!r} is not an MBRConfig; give MBRConfig(num_samples=64)")


__all__ = ["TranslateOptions", "translate"]
