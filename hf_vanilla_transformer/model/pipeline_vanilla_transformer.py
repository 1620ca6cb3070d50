# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""pipeline("translation", …) on the paper's beam search (§6.1).

transformers 5 has no translation pipeline any more; a checkpoint whose config.json names this one brings it back. It
takes and gives what the old one did, but decodes as `paper_beam_search` does and takes that function's keywords.
"""

# Shapes: B batch · S source length · T target length · N hypotheses returned a sentence

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.utils import logging

from .beam_search_config_vanilla_transformer import BeamSearchConfig
from .beam_search_vanilla_transformer import paper_beam_search
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration, VanillaTransformerModel
from .tokenizers_vanilla_transformer import TranslationTokenizers

logger = logging.get_logger(__name__)

AUTO_MAP = {  # which class of the code beside the weights loads what
    name: f"{loaded.__module__.rpartition('.')[2]}.{loaded.__name__}"
    for name, loaded in {
        "AutoConfig": VanillaTransformerConfig,
        "AutoModel": VanillaTransformerModel,
        "AutoModelForSeq2SeqLM": VanillaTransformerForConditionalGeneration,
    }.items()
}
_SEARCH = tuple(field.name for field in dataclasses.fields(BeamSearchConfig))
_WAYS_OUT = {  # words of Hugging Face's generate() that the old pipeline took
    "max_length": "give max_extra_tokens, the tokens a translation may have beyond its source's",
    "max_new_tokens": "give max_extra_tokens, the tokens a translation may have beyond its source's",
    "src_lang": "a model of this kind translates in one direction; leave it out",
    "tgt_lang": "a model of this kind translates in one direction; leave it out",
}


class TranslationPipeline(Pipeline):
    """Translate by the paper's beam search: one text, a list, a generator or a data set.

    ``pipeline("translation", model=NAME, trust_remote_code=True)`` loads this class from the repository;
    ``pipeline("translation", model=NAME, pipeline_class=TranslationPipeline)`` takes the installed one. The keywords
    below can be given there, or call by call.

    Args:
        num_beams, length_normalization, length_penalty, coverage_penalty, max_extra_tokens: see `paper_beam_search`.
        num_return_sequences: translations a text, at most ``num_beams``.
        max_source_tokens: a text with more tokens, its end symbol included, becomes an empty translation, with a
            warning.
        return_scores: add ``score``, the log-probability in nats over the length penalty.
        target_tokenizer: writes the translations where source and target have vocabularies of their own; None takes the
            folder target_tokenizer beside the weights.
        batch_size: texts a batch, in the order given; lists are quickest if texts of like length are neighbours.

    Returns (from a call):
        A list of dictionaries with ``translation_text``, best first, for one text; for a list of texts a dictionary
        a text (a list of them if ``num_return_sequences`` > 1); for anything else an iterator over such lists, read as it goes.
        An empty text, or one of white space, becomes an empty translation.

    Raises:
        ValueError: If the model is another, the tokenizer is missing, a keyword is unknown or out of range, or an input
            is no string.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True
    tokenizer: Any
    _pipeline_calls_generate = False  # so that generate()'s keywords reach us and can be refused with a way out

    def __init__(self, model: Any, tokenizer: Any = None, *, target_tokenizer: Any = None, **kwargs: Any) -> None:
        kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if kind != "vanilla_transformer":
            raise ValueError(f"TranslationPipeline translates with a vanilla_transformer model, not with {kind}")
        if tokenizer is None:
            raise ValueError("TranslationPipeline needs the model's tokenizer; give tokenizer=AutoTokenizer.…")
        self._tokenizers = TranslationTokenizers.of(model, tokenizer, target_tokenizer)
        super().__init__(model=model, tokenizer=self._tokenizers.source, **kwargs)
        self.target_tokenizer = self._tokenizers.target

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Translate; see the class."""
        if isinstance(inputs, str):
            return super().__call__(inputs, **kwargs)
        if isinstance(inputs, (list, tuple)):
            results = super().__call__(list(inputs), **kwargs) if inputs else []
            single = {**self._forward_params, **kwargs}.get("num_return_sequences", 1) == 1
            return [result[0] for result in results] if single else results
        if not isinstance(inputs, Dataset) and isinstance(inputs, Iterable) and not isinstance(inputs, (bytes, dict)):
            inputs = (text for text in inputs)  # columns of a data set, files, …: read as it goes
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Share the keywords out among `preprocess`, `_forward` and `postprocess`."""
        for name in sorted(set(parameters) - {*_SEARCH, "max_source_tokens", "return_scores"}):
            hint = _WAYS_OUT.get(name, f"it takes {', '.join(_SEARCH)}, max_source_tokens and return_scores")
            raise ValueError(f"TranslationPipeline doesn't take {name}; {hint}")
        limit = parameters.get("max_source_tokens", 1)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ValueError(f"max_source_tokens={limit!r} is not a whole number ≥ 1")
        reading = {name: parameters[name] for name in ("max_source_tokens",) if name in parameters}
        searching = {name: parameters[name] for name in _SEARCH if name in parameters}
        writing = {name: parameters[name] for name in ("return_scores",) if name in parameters}
        return reading, searching, writing

    def preprocess(self, text: Any, max_source_tokens: int = 1024) -> dict[str, Tensor]:
        """Encode one text.

        Args:
            text: the text.
            max_source_tokens: the most tokens with the end symbol.

        Returns:
            ``input_ids`` and ``attention_mask`` (1, S), and ``wanted`` (1,): whether there is something to translate.
        """
        if not isinstance(text, str):
            raise ValueError(f"TranslationPipeline translates strings, not {type(text).__name__}")
        ids = self._tokenizers.encode_sources([text])[0] if text.strip() else []
        config = self.model.config
        if config.position_embedding_type == "learned":
            max_source_tokens = min(max_source_tokens, config.max_position_embeddings - config.position_offset)
        too_long = len(ids) > max_source_tokens
        if too_long:
            logger.warning(
                f"a text of {len(ids)} tokens, more than {max_source_tokens}, became an empty translation: "
                f"{text[:40]!r}…; split it into sentences, or raise max_source_tokens"
            )
        special = {self.tokenizer.pad_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        wanted = not too_long and bool(set(ids) - special)
        input_ids = torch.tensor([ids if wanted else [self.tokenizer.eos_token_id or 0]])
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "wanted": torch.tensor([wanted])}

    def _forward(self, model_inputs: dict[str, Tensor], **search: Any) -> dict[str, Tensor]:
        """Search.

        Returns:
            ``sequences`` (B, N, T) without start symbols, their ``lengths`` (B, N) and ``scores`` (B, N); all 0 for a
            text with nothing to translate.
        """
        wanted = model_inputs["wanted"]
        config = BeamSearchConfig(**search)
        output: Any = None
        if bool(wanted.any()):
            output = paper_beam_search(
                self.model, model_inputs["input_ids"][wanted], model_inputs["attention_mask"][wanted], config
            )
        number = config.num_return_sequences
        tokens = 0 if output is None else output.sequences.shape[1] - 1
        sequences = torch.zeros((len(wanted), number, tokens), dtype=torch.long, device=wanted.device)
        lengths = torch.zeros((len(wanted), number), dtype=torch.long, device=wanted.device)
        precise = torch.float32 if output is None else output.sequences_scores.dtype  # never fp64 where there is none
        scores = torch.zeros((len(wanted), number), dtype=precise, device=wanted.device)
        if output is not None:
            sequences[wanted] = output.sequences[:, 1:].view(-1, number, tokens).to(wanted.device)
            lengths[wanted] = output.lengths.view(-1, number).to(wanted.device)
            scores[wanted] = output.sequences_scores.view(-1, number).to(wanted.device)
        return {"sequences": sequences, "lengths": lengths, "scores": scores}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model, its tokenizers and its code, so that `pipeline` loads the folder with or without the package.

        Args:
            save_directory: the folder.
            kwargs: of the model's and the tokenizers' ``save_pretrained``.

        Raises:
            ValueError: If ``push_to_hub`` is set, which would send the weights before the code.
        """
        if kwargs.pop("push_to_hub", False):
            raise ValueError("push_to_hub=True sends no code; save to a folder, or call push_to_hub of this pipeline")
        super().save_pretrained(save_directory, **kwargs)
        self._tokenizers.save_pretrained(save_directory)
        write_code(save_directory)

    def postprocess(self, model_outputs: dict[str, Tensor], return_scores: bool = False) -> list[dict[str, Any]]:
        """Decode the hypotheses of one text, best first."""
        translations = []
        hypotheses = zip(*(model_outputs[name][0] for name in ("sequences", "lengths", "scores")), strict=True)
        for sequence, length, score in hypotheses:
            text = self._tokenizers.decode(sequence[: int(length)].tolist())
            translations.append({"translation_text": text, **({"score": float(score)} if return_scores else {})})
        return translations


def write_code(folder: str | os.PathLike) -> list[Path]:
    """Copy the model's code into a checkpoint's folder and name its classes in config.json.

    Args:
        folder: the checkpoint; its config.json is rewritten.

    Returns:
        The code files, where they are now.
    """
    copied = copy_code(folder)
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"auto_map": dict(AUTO_MAP), "custom_pipelines": VanillaTransformerConfig().custom_pipelines}
    staged = path.with_suffix(".json.tmp")
    staged.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(staged, path)
    return copied


def copy_code(folder: str | os.PathLike) -> list[Path]:
    """Copy the files of model code, of which this is one, into a folder."""
    sources = sorted(Path(__file__).resolve().parent.glob("*_vanilla_transformer.py"))
    return [Path(shutil.copyfile(source, Path(folder) / source.name)) for source in sources]


__all__ = ["AUTO_MAP", "TranslationPipeline", "copy_code", "write_code"]
