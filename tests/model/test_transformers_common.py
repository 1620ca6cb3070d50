"""transformers' own common modeling tests, run on our classes.

They come from the source distribution of the installed transformers, see `transformers_sdist.py`. No test is
overridden: a skipped test skips itself, with the reason that transformers gives.
"""

import unittest
from typing import Any

import pytest
import torch
import transformers_sdist

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerEncoderModel,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
)

try:
    common = transformers_sdist.import_tests("test_modeling_common")
except transformers_sdist.Unavailable as error:
    pytest.skip(f"transformers' own tests are not available: {error}", allow_module_level=True)


# transformers' tests look up by class name which models compute a loss and which labels they take: add our classes.
common.MODEL_MAPPING_NAMES = common.MODEL_MAPPING_NAMES | {
    "vanilla_transformer": (VanillaTransformerModel.__name__, VanillaTransformerEncoderModel.__name__)
}
common.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES = common.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES | {
    "vanilla_transformer": VanillaTransformerForConditionalGeneration.__name__
}


class VanillaTransformerModelTester:
    """Sizes and inputs under the names that transformers' tests use."""

    batch_size = 13
    seq_length = 7
    vocab_size = 99
    hidden_size = 16
    num_hidden_layers = 2
    num_attention_heads = 4
    is_training = True

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self) -> VanillaTransformerConfig:
        """Return a configuration that is small enough for transformers' tests."""
        return VanillaTransformerConfig(
            vocab_size=self.vocab_size,
            d_model=self.hidden_size,
            d_ff=4,
            num_heads=self.num_attention_heads,
            encoder_layers=self.num_hidden_layers,
            decoder_layers=self.num_hidden_layers,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[VanillaTransformerConfig, dict[str, Any]]:
        """Return the configuration and one batch."""
        config = self.get_config()
        inputs = {}
        for name in ("input_ids", "decoder_input_ids"):
            ids = common.ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
            ids = ids.clamp(min=config.unk_token_id + 1)  # only the last is a special token
            ids[:, -1] = config.eos_token_id
            inputs[name] = ids
            inputs[name.replace("input_ids", "attention_mask")] = torch.ones_like(ids)
        return config, inputs


class EncoderModelTester(VanillaTransformerModelTester):
    """Sizes and inputs of the encoder alone, which has no decoder inputs."""

    def get_config(self) -> VanillaTransformerConfig:
        """Return a configuration for which transformers' tests expect the outputs of an encoder."""
        config = super().get_config()
        config.is_encoder_decoder = False
        return config

    def prepare_config_and_inputs_for_common(self) -> tuple[VanillaTransformerConfig, dict[str, Any]]:
        """Return the configuration and one batch of sources."""
        config, inputs = super().prepare_config_and_inputs_for_common()
        return config, {name: ids for name, ids in inputs.items() if not name.startswith("decoder")}


class VanillaTransformerModelTest(common.ModelTesterMixin, common.GenerationTesterMixin, unittest.TestCase):
    """The full model, without and with the output projection."""

    all_model_classes = (VanillaTransformerModel, VanillaTransformerForConditionalGeneration)
    is_encoder_decoder = True

    def setUp(self) -> None:
        self.model_tester = VanillaTransformerModelTester(self)


class VanillaTransformerEncoderModelTest(common.ModelTesterMixin, unittest.TestCase):
    """The encoder alone."""

    all_model_classes = (VanillaTransformerEncoderModel,)
    is_encoder_decoder = False

    def setUp(self) -> None:
        self.model_tester = EncoderModelTester(self)
