# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The original Transformer ("Attention Is All You Need", 2017) for Hugging Face transformers.

Importing this package registers its classes with AutoConfig, AutoModel and AutoModelForSeq2SeqLM. Each public name is
imported from its module on first access, so that the import of the package loads nothing that is not used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .auto_registration import register_when_auto_classes_are_imported
from .version import __version__

if TYPE_CHECKING:  # what type checkers and editors read; _MODULES says the same at run time
    from .alignment.head_choice import choose_alignment_head
    from .alignment.pharaoh import alignment_error_rate
    from .alignment.word_alignment import WordAligner, align_words
    from .checkpoints.averaging import average_checkpoints
    from .conversion.convert import convert_checkpoint
    from .data.batching import TokenBudgetSampler, TokenBudgetStream
    from .data.collator import DataCollatorForTranslation
    from .data.embedded_corpus import embedded_corpus
    from .data.tokenization import train_tokenizer
    from .export.formats import export_checkpoint, load_engine
    from .freed_memory import freed_memory_kept
    from .hub.publish import push_to_hub
    from .metrics import TranslationMetric
    from .minimum_bayes_risk.config import MBRConfig
    from .model.beam_search_config_vanilla_transformer import BeamSearchConfig
    from .model.beam_search_vanilla_transformer import paper_beam_search, score_targets
    from .model.configuration_vanilla_transformer import VanillaTransformerConfig
    from .model.ensemble_vanilla_transformer import Ensemble
    from .model.generate_vanilla_transformer import generate_with_paper_beam_search
    from .model.int8_vanilla_transformer import Int8Config, quantize
    from .model.modeling_vanilla_transformer import (
        VanillaTransformerEncoderModel,
        VanillaTransformerForConditionalGeneration,
        VanillaTransformerModel,
        VanillaTransformerPreTrainedModel,
    )
    from .model.pipeline_vanilla_transformer import TranslationPipeline
    from .model.terminology_vanilla_transformer import Terminology
    from .model.tokenizers_vanilla_transformer import TranslationTokenizers
    from .presets import preset
    from .self_check.runner import check_installation
    from .training.arguments import VanillaTransformerTrainingArguments
    from .training.recipe import read_recipe
    from .training.run import train
    from .training.trainer import VanillaTransformerTrainer
    from .translation.score import score
    from .translation.translate import translate
    from .visualization.maps import attention_maps

_MODULES = {  # public name -> module that defines it
    "BeamSearchConfig": "model.beam_search_config_vanilla_transformer",
    "DataCollatorForTranslation": "data.collator",
    "Ensemble": "model.ensemble_vanilla_transformer",
    "Int8Config": "model.int8_vanilla_transformer",
    "MBRConfig": "minimum_bayes_risk.config",
    "Terminology": "model.terminology_vanilla_transformer",
    "TokenBudgetSampler": "data.batching",
    "TokenBudgetStream": "data.batching",
    "TranslationMetric": "metrics",
    "TranslationPipeline": "model.pipeline_vanilla_transformer",
    "TranslationTokenizers": "model.tokenizers_vanilla_transformer",
    "VanillaTransformerConfig": "model.configuration_vanilla_transformer",
    "VanillaTransformerEncoderModel": "model.modeling_vanilla_transformer",
    "VanillaTransformerForConditionalGeneration": "model.modeling_vanilla_transformer",
    "VanillaTransformerModel": "model.modeling_vanilla_transformer",
    "VanillaTransformerPreTrainedModel": "model.modeling_vanilla_transformer",
    "VanillaTransformerTrainer": "training.trainer",
    "VanillaTransformerTrainingArguments": "training.arguments",
    "WordAligner": "alignment.word_alignment",
    "align_words": "alignment.word_alignment",
    "alignment_error_rate": "alignment.pharaoh",
    "attention_maps": "visualization.maps",
    "average_checkpoints": "checkpoints.averaging",
    "check_installation": "self_check.runner",
    "choose_alignment_head": "alignment.head_choice",
    "convert_checkpoint": "conversion.convert",
    "embedded_corpus": "data.embedded_corpus",
    "export_checkpoint": "export.formats",
    "freed_memory_kept": "freed_memory",
    "generate_with_paper_beam_search": "model.generate_vanilla_transformer",
    "load_engine": "export.formats",
    "paper_beam_search": "model.beam_search_vanilla_transformer",
    "preset": "presets",
    "push_to_hub": "hub.publish",
    "quantize": "model.int8_vanilla_transformer",
    "read_recipe": "training.recipe",
    "score": "translation.score",
    "score_targets": "model.beam_search_vanilla_transformer",
    "train": "training.run",
    "train_tokenizer": "data.tokenization",
    "translate": "translation.translate",
}

__all__ = [
    "BeamSearchConfig",
    "DataCollatorForTranslation",
    "Ensemble",
    "Int8Config",
    "MBRConfig",
    "Terminology",
    "TokenBudgetSampler",
    "TokenBudgetStream",
    "TranslationMetric",
    "TranslationPipeline",
    "TranslationTokenizers",
    "VanillaTransformerConfig",
    "VanillaTransformerEncoderModel",
    "VanillaTransformerForConditionalGeneration",
    "VanillaTransformerModel",
    "VanillaTransformerPreTrainedModel",
    "VanillaTransformerTrainer",
    "VanillaTransformerTrainingArguments",
    "WordAligner",
    "__version__",
    "align_words",
    "alignment_error_rate",
    "attention_maps",
    "average_checkpoints",
    "check_installation",
    "choose_alignment_head",
    "convert_checkpoint",
    "embedded_corpus",
    "export_checkpoint",
    "freed_memory_kept",
    "generate_with_paper_beam_search",
    "load_engine",
    "paper_beam_search",
    "preset",
    "push_to_hub",
    "quantize",
    "read_recipe",
    "score",
    "score_targets",
    "train",
    "train_tokenizer",
    "translate",
]

register_when_auto_classes_are_imported()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
