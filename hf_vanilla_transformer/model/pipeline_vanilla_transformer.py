# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""pipeline("translation", …) with the paper's beam search (§6.1).

transformers 5 removed its translation pipeline. This one takes the same inputs and returns the same outputs, but
decodes with `paper_beam_search`.
"""

# Shapes: B batch · S source length · T target length · N translations per text

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.utils import logging

from .beam_search_config_vanilla_transformer import BeamSearchConfig, check_integer
from .beam_search_vanilla_transformer import paper_beam_search
from .constraints_vanilla_transformer import MBR_IS_UNRESTRICTED
from .remote_code_vanilla_transformer import write_code
from .terminology_vanilla_transformer import Terminology
from .tokenizers_vanilla_transformer import TranslationTokenizers

logger = logging.get_logger(__name__)

_SEARCH_FIELDS = tuple(field.name for field in dataclasses.fields(BeamSearchConfig))
_OTHER_KEYWORDS = ("banned", "terminology", "mbr", "aligner", "max_source_tokens", "return_scores")
_HINTS = {  # keywords of other translation pipelines, of `generate` and of earlier versions → what to use instead
    "max_length": "use max_extra_tokens (relative to the source) or max_target_tokens",
    "max_new_tokens": "use max_extra_tokens (relative to the source) or max_target_tokens",
    "max_tokens": "use max_target_tokens",
    "beam_size": "use num_beams",
    "num_return": "use num_return_sequences",
    "alpha": "use length_penalty, the exponent α",
    "do_sample": "it translates with beam search; use generate() of the model for sampling",
    "src_lang": "the model translates in one direction; leave it out",
    "prefixes": "give it in a call",
    "constraints": "give it in a call",
    "prefix": "use prefixes",
    "tgt_lang": "the model translates in one direction; leave it out",
}


@dataclasses.dataclass(frozen=True)
class _Input:
    """A text with what is given for its translation.

    Attributes:
        text: the source.
        prefix: how the translation begins.
        phrases: what the translation contains.
    """

    text: Any
    prefix: str = ""
    phrases: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class _Restrictions:
    """The token ids of a target's prefix and of the phrases that it contains."""

    prefix: list[int]
    phrases: list[list[int]]


class MinimumBayesRisk(Protocol):
    """What the pipeline needs of an `MBRConfig`, which a repository with the model's code alone does not have."""

    def check(self, model: Any, search: BeamSearchConfig) -> None:
        """Raise ValueError if the model cannot give the candidates."""

    def search(
        self,
        model: Any,
        tokenizers: TranslationTokenizers,
        input_ids: Tensor,
        attention_mask: Tensor,
        search: BeamSearchConfig,
    ) -> tuple[list[list[list[int]]], list[list[float]]]:
        """Return hypotheses of each source as token ids, best first, and their scores."""


class Aligner(Protocol):
    """What the pipeline needs of a `WordAligner`."""

    def align(self, sources: Sequence[str], targets: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Return the links of the words of each pair."""


class TranslationPipeline(Pipeline):
    """Translate with the paper's beam search: one text, a list, a generator or a dataset.

    ``pipeline("translation", model=NAME, trust_remote_code=True)`` loads this class from the repository;
    ``pipeline("translation", model=NAME, pipeline_class=TranslationPipeline)`` uses the installed one. The following
    keywords can be given when the pipeline is built, and in each call. An `Ensemble` is translated with like a model.

    Args:
        num_beams, num_return_sequences, length_penalty, length_normalization, early_stopping, coverage_penalty,
            max_extra_tokens, max_target_tokens, min_length, min_new_tokens, no_repeat_ngram_size, bad_words_ids: see
            `BeamSearchConfig`.
        banned: words or phrases that no translation contains; see `translate`.
        terminology: source term -> target phrase that a translation contains where its text has the term; a mapping or
            a `Terminology`.
        prefixes: only in a call: how each translation begins; one string for one text, else one string per text.
        constraints: only in a call: phrases that each translation contains; one list for one text, else one list per
            text.
        mbr: an `MBRConfig`: choose each translation by minimum Bayes risk among many candidates; its score is then the
            expected chrF, 0 to 100. Not with prefixes, constraints and terminology.
        aligner: a `WordAligner`: add ``alignment``, the links (word of the text, word of the translation).
        max_source_tokens: a text with more tokens, the EOS token included, gets an empty translation and a warning.
        return_scores: add ``score``, the log-probability in nats divided by the length normalization.
        target_tokenizer: the tokenizer of the translations if source and target have separate vocabularies; None loads
            it from the folder target_tokenizer of the checkpoint. Only when the pipeline is built.
        batch_size: texts per batch, in the given order; lists are fastest if neighbouring texts have similar lengths.

    Returns (from a call):
        For one text a list of dictionaries with ``translation_text``, best first. For a list of texts one dictionary
        per text, or one such list per text if ``num_return_sequences`` > 1. For other iterables an iterator over such
        lists, which reads its input as needed. A text without visible characters gets an empty translation.

    Raises:
        ValueError: If the model is of another type, the tokenizer is missing, a keyword is unknown or its value
            invalid, or an input is not a string.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True
    tokenizer: Any
    _pipeline_calls_generate = False  # so that `_sanitize_parameters` sees the keywords of generate()

    def __init__(self, model: Any, tokenizer: Any = None, *, target_tokenizer: Any = None, **kwargs: Any) -> None:
        model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if model_type != "vanilla_transformer":
            raise ValueError(f"TranslationPipeline needs a vanilla_transformer model, not {model_type}")
        if tokenizer is None:
            raise ValueError(
                "TranslationPipeline needs the model's tokenizer; "
                "pass tokenizer=AutoTokenizer.from_pretrained(CHECKPOINT)"
            )
        self._tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
        super().__init__(model=model, tokenizer=self._tokenizers.source, **kwargs)
        self.target_tokenizer = self._tokenizers.target

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Translate; see the class."""
        prefixes, constraints = kwargs.pop("prefixes", None), kwargs.pop("constraints", None)
        if prefixes is not None or constraints is not None:
            if kwargs.get("mbr", self._forward_params.get("mbr")) is not None:
                raise ValueError(MBR_IS_UNRESTRICTED)
            inputs = _with_restrictions(inputs, prefixes, constraints)
        if isinstance(inputs, (str, _Input)):
            return super().__call__(inputs, **kwargs)
        if isinstance(inputs, (list, tuple)):
            results = super().__call__(list(inputs), **kwargs) if inputs else []
            default = self._forward_params["config"].num_return_sequences
            single = kwargs.get("num_return_sequences", default) == 1
            return [result[0] for result in results] if single else results
        if not isinstance(inputs, Dataset) and isinstance(inputs, Iterable) and not isinstance(inputs, (bytes, dict)):
            inputs = (text for text in inputs)  # a column of a dataset, a file, …: read as needed
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Check the keywords and return those of `preprocess`, `_forward` and `postprocess`.

        The base class calls it when the pipeline is built and in each call.
        """
        for name in sorted(set(parameters) - {*_SEARCH_FIELDS, *_OTHER_KEYWORDS}):
            hint = _HINTS.get(name, f"it takes {', '.join((*_SEARCH_FIELDS, *_OTHER_KEYWORDS))}")
            raise ValueError(f"TranslationPipeline has no keyword {name}; {hint}")
        check_integer("max_source_tokens", parameters.get("max_source_tokens", 1), minimum=1)
        if not isinstance(parameters.get("return_scores", False), bool):
            raise ValueError(f"return_scores={parameters['return_scores']!r} is not a boolean; choose True or False")
        config = getattr(self, "_forward_params", {}).get("config", BeamSearchConfig())  # as the pipeline was built
        config = config.replace(**{name: parameters[name] for name in _SEARCH_FIELDS if name in parameters})
        preprocess = {name: parameters[name] for name in ("max_source_tokens",) if name in parameters}
        if "terminology" in parameters:
            terms = parameters["terminology"]
            preprocess["terminology"] = None if terms is None else Terminology.of(terms)
        for name, method, example in (
            ("mbr", "search", "MBRConfig(num_samples=64)"),
            ("aligner", "align", "WordAligner(model, tokenizer)"),
        ):
            if parameters.get(name) is not None and not hasattr(parameters[name], method):
                raise ValueError(
                    f"{name}={parameters[name]!r} is of another type; give hf_vanilla_transformer.{example}"
                )
        others = getattr(parameters.get("aligner"), "tokenizers", None)
        if others is not None and (difference := self._tokenizers.difference(others)):
            raise ValueError(f"aligner is of a model with other {difference}; make one with this pipeline's model")
        postprocess = {name: parameters[name] for name in ("return_scores",) if name in parameters}
        forward: dict[str, Any] = {"config": config}
        if "banned" in parameters:
            forward["banned_ids"] = self._tokenizers.encode_banned(parameters["banned"])
        forward |= {name: parameters[name] for name in ("mbr", "aligner") if name in parameters}
        self._check_mbr({**getattr(self, "_preprocess_params", {}), **preprocess}, forward)
        return preprocess, forward, postprocess

    def _check_mbr(self, preprocess: dict[str, Any], forward: dict[str, Any]) -> None:
        """Raise ValueError if minimum Bayes risk is asked for and the other keywords exclude it."""
        forward = {**getattr(self, "_forward_params", {}), **forward}
        mbr: MinimumBayesRisk | None = forward.get("mbr")
        if mbr is None:
            return
        if preprocess.get("terminology") is not None:
            raise ValueError(MBR_IS_UNRESTRICTED)
        mbr.check(self.model, forward["config"].banning(forward.get("banned_ids", ())))

    def preprocess(
        self, text: Any, max_source_tokens: int = 1024, terminology: Terminology | None = None
    ) -> dict[str, Any]:
        """Encode one text.

        Args:
            text: the text.
            max_source_tokens: maximum number of tokens, the EOS token included.
            terminology: the phrases of its terms are constraints.

        Returns:
            ``text``, ``input_ids`` and ``attention_mask`` (1, S), ``translatable`` (1,), which is False for an empty or
            too long text, and ``restrictions`` where there are prefixes, constraints or terms.
        """
        is_restricted = isinstance(text, _Input) or terminology is not None
        given = text if isinstance(text, _Input) else _Input(text)
        text, restrictions = given.text, {}
        if not isinstance(text, str):
            raise ValueError(f"TranslationPipeline translates strings, not {type(text).__name__}")
        if is_restricted:
            restrictions["restrictions"] = self._encode_restrictions(given, terminology)
        ids = self._tokenizers.encode_sources([text])[0] if text.strip() else []
        limit: Any = self.model.max_sequence_length  # None: no limit
        max_source_tokens = max_source_tokens if limit is None else min(max_source_tokens, limit)
        too_long = len(ids) > max_source_tokens
        if too_long:
            logger.warning(
                f"a text of {len(ids)} tokens, more than {max_source_tokens}, gets an empty translation: "
                f"{text[:40]!r}…; split it into sentences, or raise max_source_tokens"
            )
        special = {self.tokenizer.pad_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        translatable = not too_long and bool(set(ids) - special)
        input_ids = torch.tensor([ids if translatable else [self.tokenizer.eos_token_id or 0]])
        return {
            "text": text,
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "translatable": torch.tensor([translatable]),
            **restrictions,
        }

    def _encode_restrictions(self, given: _Input, terminology: Terminology | None) -> _Restrictions:
        """Return the token ids of a text's prefix, constraints and terms."""
        terms = [] if terminology is None else terminology.phrases(given.text)
        phrases = [phrase.strip() for phrase in dict.fromkeys((*given.phrases, *terms)) if phrase.strip()]
        encoded = [variants[0] for variants in self._tokenizers.encode_phrases(phrases)]
        if unknown := [
            phrase
            for phrase, ids in zip(phrases, encoded, strict=True)
            if not ids or self._tokenizers.count_unknown([ids], "target")
        ]:
            logger.warning(f"the constraint {unknown[0]!r} is ignored; the vocabulary cannot write it")
        kept = [ids for phrase, ids in zip(phrases, encoded, strict=True) if phrase not in unknown]
        return _Restrictions(self._tokenizers.encode_prefixes([given.prefix])[0] if given.prefix else [], kept)

    def _forward(
        self,
        model_inputs: dict[str, Any],
        config: BeamSearchConfig | None = None,
        banned_ids: list[list[int]] | None = None,
        mbr: MinimumBayesRisk | None = None,
        aligner: Aligner | None = None,
    ) -> dict[str, Any]:
        """Search the translations of a batch.

        Returns:
            ``sequences`` (B, N, T) without the decoder start token, their ``lengths`` (B, N) and ``scores`` (B, N); all
            are 0 for a text that is not translatable. With an aligner also ``alignments``, links of each text's
            translations.
        """
        translatable = model_inputs["translatable"]
        config = (BeamSearchConfig() if config is None else config).banning(banned_ids or ())
        found = None
        if bool(translatable.any()):
            ids, mask = (model_inputs[name][translatable] for name in ("input_ids", "attention_mask"))
            if mbr is None:
                restrictions = _search_arguments(model_inputs.get("restrictions"), translatable.tolist())
                output: Any = paper_beam_search(self.model, ids, mask, config, **restrictions)
                found = output.sequences[:, 1:], output.lengths, output.sequences_scores
            else:
                found = _as_tensors(*mbr.search(self.model, self._tokenizers, ids, mask, config))
        number = config.num_return_sequences
        tokens = 0 if found is None else found[0].shape[1]
        device = translatable.device
        sequences = torch.zeros((len(translatable), number, tokens), dtype=torch.long, device=device)
        lengths = torch.zeros((len(translatable), number), dtype=torch.long, device=device)
        dtype = torch.float32 if found is None else found[2].dtype  # not fp64, which MPS doesn't have
        scores = torch.zeros((len(translatable), number), dtype=dtype, device=device)
        if found is not None:
            sequences[translatable] = found[0].view(-1, number, tokens).to(device)
            lengths[translatable] = found[1].view(-1, number).to(device)
            scores[translatable] = found[2].view(-1, number).to(device)
        outputs: dict[str, Any] = {"sequences": sequences, "lengths": lengths, "scores": scores}
        if aligner is not None:
            # A batch of texts is a list; one text that is not batched is not, and its output is not taken apart.
            texts = model_inputs["text"]
            alignments = self._align(aligner, [texts] if isinstance(texts, str) else texts, sequences, lengths)
            outputs["alignments"] = alignments[0] if isinstance(texts, str) else alignments
        return outputs

    def _align(
        self, aligner: Aligner, texts: list[str], sequences: Tensor, lengths: Tensor
    ) -> list[list[list[tuple[int, int]]]]:
        """Return the links of each text's translations."""
        number = sequences.shape[1]
        targets = self._texts(sequences.flatten(0, 1), lengths.flatten())
        links = aligner.align([text for text in texts for _ in range(number)], targets)
        return [links[first : first + number] for first in range(0, len(links), number)]

    def _texts(self, sequences: Tensor, lengths: Tensor) -> list[str]:
        """Decode the sequences (N, T) of the given lengths (N,)."""
        pairs = zip(sequences.tolist(), lengths.tolist(), strict=True)
        return [self._tokenizers.decode(ids[:length]) for ids, length in pairs]

    def postprocess(self, model_outputs: dict[str, Any], return_scores: bool = False) -> list[dict[str, Any]]:
        """Decode the translations of one text, best first."""
        sequences, lengths, scores = (model_outputs[name][0] for name in ("sequences", "lengths", "scores"))
        translations: list[dict[str, Any]] = [{"translation_text": text} for text in self._texts(sequences, lengths)]
        if return_scores:
            for translation, length, score in zip(translations, lengths.tolist(), scores.tolist(), strict=True):
                translation["score"] = score if length else 0.0
        for translation, links in zip(translations, model_outputs.get("alignments", ()), strict=False):
            translation["alignment"] = links
        return translations

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model, its tokenizers and its code, so that `pipeline` loads the folder with or without the package.

        Args:
            save_directory: the folder.
            kwargs: passed to ``save_pretrained`` of the model and the tokenizer.

        Raises:
            ValueError: If ``push_to_hub`` is set, which would push the weights without the code.
        """
        if kwargs.pop("push_to_hub", False):
            raise ValueError("push_to_hub=True pushes no code; save to a folder, or call push_to_hub of this pipeline")
        super().save_pretrained(save_directory, **kwargs)
        self._tokenizers.save_pretrained(save_directory)
        write_code(save_directory)


def _with_restrictions(inputs: Any, prefixes: Any, constraints: Any) -> Any:
    """Join texts with the prefixes and constraints of their translations; None where they are not given.

    Raises:
        ValueError: If there are more or fewer than texts, or one is of another type.
    """
    if isinstance(inputs, str):
        given = (None if value is None else [value] for value in (prefixes, constraints))
        return _with_restrictions([inputs], *given)[0]
    if not isinstance(inputs, (list, tuple)):
        raise ValueError("prefixes and constraints are for one text or a list of texts; use a list")
    prefixes = [""] * len(inputs) if prefixes is None else prefixes
    constraints = [()] * len(inputs) if constraints is None else constraints
    if isinstance(prefixes, str) or not all(isinstance(prefix, str) for prefix in prefixes):
        raise ValueError("prefixes is one string for one text, or a list of strings for a list of texts")
    if isinstance(constraints, str) or not all(_is_phrases(phrases) for phrases in constraints):
        raise ValueError("constraints is a list of phrases for one text, or one such list for each of a list of texts")
    for name, values in (("prefixes", prefixes), ("constraints", constraints)):
        if len(values) != len(inputs):
            raise ValueError(f"there are {len(values)} {name} for {len(inputs)} texts; give one for each")
    return [_Input(*given) for given in zip(inputs, prefixes, constraints, strict=True)]


def _as_tensors(hypotheses: list[list[list[int]]], scores: list[list[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return hypotheses (B·N, T), padded with 0, their lengths (B·N,) and scores (B·N,)."""
    flat = [torch.tensor(ids, dtype=torch.long) for of_source in hypotheses for ids in of_source]
    lengths = torch.tensor([len(ids) for ids in flat])
    return torch.nn.utils.rnn.pad_sequence(flat, batch_first=True), lengths, torch.tensor(scores).flatten()


def _is_phrases(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(phrase, str) for phrase in value)


def _search_arguments(restrictions: Any, translatable: list[bool]) -> dict[str, Any]:
    """Return the arguments of `paper_beam_search` for the translatable texts of a batch.

    Args:
        restrictions: a `_Restrictions`, or a list of them where texts are collated to a batch; None if there are none.
        translatable: for each text of the batch.
    """
    if restrictions is None:
        return {}
    batch = restrictions if isinstance(restrictions, list) else [restrictions]
    kept = [one for one, is_translatable in zip(batch, translatable, strict=True) if is_translatable]
    return {"prefixes": [one.prefix for one in kept], "constraints": [one.phrases for one in kept]}


__all__ = ["TranslationPipeline"]
