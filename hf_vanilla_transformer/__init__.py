# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The original Transformer ("Attention Is All You Need", 2017) for the Hugging Face world.

Importing this package makes AutoConfig, AutoModel and AutoModelForSeq2SeqLM know the classes. What needs heavier
libraries (training, data, evaluation) is imported when it is first asked for.
"""

import importlib
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from .model.configuration_vanilla_transformer import VanillaTransformerConfig
from .model.modeling_vanilla_transformer import (
    VanillaTransformerEncoderModel,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
    VanillaTransformerPreTrainedModel,
)
from .version import __version__

_LAZY = {  # public name → module that has it
    "BeamSearchConfig": "model.beam_search_config_vanilla_transformer",
    "DataCollatorForTranslation": "data.collator",
    "TokenBudgetSampler": "data.batching",
    "TokenBudgetStream": "data.batching",
    "TranslationMetric": "metrics",
    "TranslationPipeline": "model.pipeline_vanilla_transformer",
    "TranslationTokenizers": "model.tokenizers_vanilla_transformer",
    "VanillaTransformerTrainer": "training.trainer",
    "VanillaTransformerTrainingArguments": "training.arguments",
    "attention_maps": "visualization.maps",
    "average_checkpoints": "checkpoints.averaging",
    "check_installation": "self_check",
    "convert_checkpoint": "conversion.convert",
    "embedded_corpus": "data.embedded_corpus",
    "export_checkpoint": "export.writing",
    "load_engine": "export.engines",
    "paper_beam_search": "model.beam_search_vanilla_transformer",
    "preset": "presets",
    "push_to_hub": "hub.publish",
    "score_targets": "model.beam_search_vanilla_transformer",
    "read_recipe": "training.recipe",
    "train": "training.run",
    "train_tokenizer": "data.tokenization",
    "translate": "translation",
}

__all__ = [
    "VanillaTransformerConfig",
    "VanillaTransformerEncoderModel",
    "VanillaTransformerForConditionalGeneration",
    "VanillaTransformerModel",
    "VanillaTransformerPreTrainedModel",
    "__version__",
    *_LAZY,
]

AutoConfig.register(VanillaTransformerConfig.model_type, VanillaTransformerConfig, exist_ok=True)
AutoModel.register(VanillaTransformerConfig, VanillaTransformerModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(VanillaTransformerConfig, VanillaTransformerForConditionalGeneration, exist_ok=True)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
