# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The format of CTranslate2, a C++ library for translation with 8-bit weights: writing it and running it.

Importing this module also registers our configuration class with CTranslate2's own `TransformersConverter`. Model
options that the format does not have are refused, all of them in one message.
"""

# Shapes: B batch · S source length

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from ctranslate2.converters import utils
from ctranslate2.converters.transformers import ModelLoader, register_loader
from ctranslate2.specs import common_spec, transformer_spec
from torch import Tensor, nn

from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.layers_vanilla_transformer import MultiHeadAttention
from ..model.special_tokens_vanilla_transformer import SpecialTokens
from .exported_model import ExportedModel

# Rows of the exported table of sinusoids, so the most tokens of a source or a target.
POSITIONS = 4096
# CTranslate2 finishes a sentence after num_beams · patience finished hypotheses. With 2 it hardly ever misses one that
# the exact stop of `paper_beam_search` finds; with 1, transformers' early_stopping=True, often.
_EXACT_PATIENCE = 2
QUANTIZATIONS = ("float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16", "int8_bfloat16")

_ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "gelu": common_spec.Activation.GELU,
    "gelu_new": common_spec.Activation.GELUTanh,
    "gelu_pytorch_tanh": common_spec.Activation.GELUTanh,
    "quick_gelu": common_spec.Activation.GELUSigmoid,
    "silu": common_spec.Activation.SWISH,
    "swish": common_spec.Activation.SWISH,
}


def write_ctranslate2(
    model: Any, source_tokens: Sequence[str], target_tokens: Sequence[str], directory: Path, quantization: str | None
) -> dict[str, Any]:
    """Write model.bin, its configuration and its vocabularies to an existing directory.

    Args:
        model: `VanillaTransformerForConditionalGeneration`.
        source_tokens: the source vocabulary in the order of its ids; may be shorter than the embedding.
        target_tokens: the target vocabulary, likewise.
        directory: an existing directory for the files.
        quantization: how weights are stored, one of `QUANTIZATIONS`; None is "float32".

    Returns:
        Entries of export.json: ``max_sequence_length`` in tokens, ``quantization``, and the version of CTranslate2.

    Raises:
        ValueError: If the format does not support the model, or ``quantization`` is unknown.
    """
    quantization = quantization or "float32"
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization={quantization!r} is unknown; choose one of {', '.join(QUANTIZATIONS)}")
    spec = build_spec(model)
    spec.register_source_vocabulary(_fill(source_tokens, model.config.vocab_size))
    spec.register_target_vocabulary(_fill(target_tokens, model.config.output_vocab_size))
    _set_config(spec.config, model, source_tokens, target_tokens)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(directory))
    return {
        "max_sequence_length": _positions(model),
        "quantization": quantization,
        "ctranslate2": ctranslate2.__version__,
    }


def refused_fields(config: VanillaTransformerConfig) -> list[str]:
    """List the fields of a configuration that CTranslate2 does not support, with their values."""
    refused = []
    if config.key_dim != config.value_dim:
        refused.append(f"d_k={config.key_dim} and d_v={config.value_dim} differ, but it has one width per head")
    if config.activation_function not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        refused.append(f"activation_function={config.activation_function!r} is none of {known}")
    if config.unk_token_id is None:
        refused.append("unk_token_id is missing")
    return refused


@torch.no_grad()
def build_spec(model: Any) -> transformer_spec.TransformerSpec:
    """Build CTranslate2's specification of the model with its weights, but without vocabularies and special tokens.

    Raises:
        ValueError: If CTranslate2 does not support the configuration; all reasons are listed.
    """
    config = model.config
    if refused := refused_fields(config):
        raise ValueError(f"CTranslate2 does not support this model: {'; '.join(refused)}")
    options = {
        "num_heads": config.num_heads,
        # True allocates the norms after the stacks, which models with post-norm can have as well.
        "pre_norm": config.norm_position == "pre" or config.final_norm,
        "no_final_norm": not config.final_norm,
        "activation": _ACTIVATIONS[config.activation_function],
        # Written only where it is not CTranslate2's default.
        "head_dim": None if config.num_heads * config.key_dim == config.d_model else config.key_dim,
    }
    encoder = transformer_spec.TransformerEncoderSpec(config.encoder_layers, **options)
    decoder = transformer_spec.TransformerDecoderSpec(config.decoder_layers, **options)
    for spec, stack in ((encoder, model.model.encoder), (decoder, model.model.decoder)):
        spec.pre_norm = config.norm_position == "pre"
        spec.scale_embeddings = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        spec.position_encodings.encodings = stack.embed_positions(torch.arange(_positions(model)), torch.float32)
        embeddings = spec.embeddings[0] if isinstance(spec.embeddings, list) else spec.embeddings
        embeddings.weight = _plain(stack.embed_tokens.weight)
        if stack.final_norm is not None:
            _set_norm(spec.layer_norm, stack.final_norm)
        for layer_spec, layer in zip(spec.layer, stack.layers, strict=True):
            _set_attention(layer_spec.self_attention, layer.self_attn)
            _set_norm(layer_spec.self_attention.layer_norm, layer.self_attn_norm)
            if stack is model.model.decoder:
                _set_attention(layer_spec.attention, layer.cross_attn)
                _set_norm(layer_spec.attention.layer_norm, layer.cross_attn_norm)
            _set_linear(layer_spec.ffn.linear_0, layer.feed_forward.w_1)
            _set_linear(layer_spec.ffn.linear_1, layer.feed_forward.w_2)
            _set_norm(layer_spec.ffn.layer_norm, layer.feed_forward_norm)
    _set_linear(decoder.projection, model.lm_head)
    return transformer_spec.TransformerSpec(encoder, decoder)


def _positions(model: Any) -> int:
    """Return the number of positions of the exported table."""
    return POSITIONS if model.max_sequence_length is None else model.max_sequence_length


def _set_config(written: Any, model: Any, source_tokens: Sequence[str], target_tokens: Sequence[str]) -> None:
    config, special = model.config, SpecialTokens.of(model)
    written.unk_token = source_tokens[config.unk_token_id]
    written.eos_token = target_tokens[special.eos_token_id[0]]  # the file has one; the others are in export.json
    written.decoder_start_token = target_tokens[special.decoder_start_token_id]
    written.bos_token = written.decoder_start_token
    written.layer_norm_epsilon = config.layer_norm_eps


def _fill(tokens: Sequence[str], size: int) -> list[str]:
    """Add names for the rows of the embedding that have no token."""
    if len(tokens) > size:
        raise ValueError(
            f"the tokenizer has {len(tokens)} tokens, the model's vocabulary only {size}; use the tokenizer that was "
            "saved with the model"
        )
    return [*tokens, *(f"<unused {index}>" for index in range(len(tokens), size))]


def _set_attention(spec: Any, attention: MultiHeadAttention) -> None:
    """Fuse the projections of the same states: all three in self-attention, keys and values in cross-attention."""
    projections = []
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projections.append(common_spec.LinearSpec())
        _set_linear(projections[-1], projection)
    if len(spec.linear) == 2:
        utils.fuse_linear(spec.linear[0], projections)
    else:
        utils.fuse_linear(spec.linear[0], projections[:1])
        utils.fuse_linear(spec.linear[1], projections[1:])
    _set_linear(spec.linear[-1], attention.out_proj)


def _set_linear(spec: Any, linear: nn.Linear) -> None:
    spec.weight = _plain(linear.weight)
    if linear.bias is not None:
        spec.bias = _plain(linear.bias)


def _set_norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _plain(norm.weight), _plain(norm.bias)


def _plain(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32)


@register_loader("VanillaTransformerConfig")
class VanillaTransformerLoader(ModelLoader):
    """Loads our checkpoints in `ctranslate2.converters.TransformersConverter`."""

    @property
    def architecture_name(self) -> str:
        """Return the name of the transformers class that loads the checkpoint."""
        return "AutoModelForSeq2SeqLM"

    def get_model_spec(self, model: Any) -> transformer_spec.TransformerSpec:
        """See `build_spec`."""
        return build_spec(model)

    def set_vocabulary(self, spec: Any, tokens: list[str]) -> None:
        """Register one vocabulary for source and target."""
        spec.register_source_vocabulary(_fill(tokens, spec.get_source_vocabulary_size()[0]))
        spec.register_target_vocabulary(_fill(tokens, spec.get_target_vocabulary_size()))

    def set_config(self, config: Any, model: Any, tokenizer: Any) -> None:
        """Set the special tokens and the ε of layer normalization."""
        tokens = self.get_vocabulary(model, tokenizer)
        _set_config(config, model, tokens, tokens)


class CTranslate2Model(ExportedModel):
    """A checkpoint that is exported for CTranslate2.

    Its length penalty is n^α ("power"); the paper's GNMT penalty is refused where it would change the result, which is
    with a beam and α ≠ 0. Its beam search stops after a number of finished hypotheses, so it occasionally returns
    another translation than `paper_beam_search` with torch. Its scores differ in the third digit: it gives the
    probability of tokens that are never generated to the others. In a beam, so does the ranking where words are banned,
    n-grams are not repeated, or a minimum length is set.
    """

    target_format = "ctranslate2"

    def __init__(self, directory: str | Path, *, compute_type: str = "default", threads: int = 0) -> None:
        """Load an export.

        Args:
            directory: written by `export_checkpoint`.
            compute_type: arithmetic type, by CTranslate2's names; "default" is that of the stored weights.
            threads: threads per translation; 0 uses CTranslate2's default.
        """
        super().__init__(directory)
        self._translator = ctranslate2.Translator(
            str(directory), device="cpu", compute_type=compute_type, intra_threads=threads
        )
        sides = [Path(directory) / f"{side}_vocabulary.json" for side in ("source", "target")]
        if not sides[0].is_file():
            sides = [Path(directory) / "shared_vocabulary.json"] * 2
        self._source_tokens, target_tokens = (json.loads(side.read_text(encoding="utf-8")) for side in sides)
        self._eos_ids = self.special_tokens.eos_token_id
        self._target_tokens = target_tokens
        self._target_ids = {token: index for index, token in enumerate(target_tokens)}
        self._suppressed = [[target_tokens[token]] for token in self.special_tokens.suppress_tokens]
        self._eos_tokens = [target_tokens[token] for token in self._eos_ids]

    def check_beam_search(self, config: BeamSearchConfig) -> None:
        """See `ExportedModel.check_beam_search`."""
        if config.length_normalization == "gnmt" and config.length_penalty and config.num_beams > 1:
            raise ValueError(
                "CTranslate2 divides scores by n^α and has no GNMT length penalty ((5 + n) / 6)^α: choose "
                "length_normalization='power', which divides by n^α in both, with "
                f"length_penalty={config.length_penalty:g}, or num_beams=1"
            )
        super().check_beam_search(config)

    def _search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        limits: list[int],
        config: BeamSearchConfig,
        prefixes: list[list[int]] | None,
    ) -> tuple[list[list[int]], list[float]]:
        sources = [ids[kept.bool()].tolist() for ids, kept in zip(input_ids, attention_mask, strict=True)]
        written = [[self._source_tokens[token] for token in source] for source in sources]
        settings: dict[str, Any] = {}
        if prefixes is not None and config.min_new_tokens:
            raise ValueError(
                f"min_new_tokens={config.min_new_tokens} is not possible together with prefixes in CTranslate2, whose "
                "minimum includes the prefix; use min_length"
            )
        if prefixes is not None:
            settings["target_prefix"] = [[self._target_tokens[token] for token in prefix] for prefix in prefixes]
        banned = [word for word in config.bad_words_ids or () if word not in {(end,) for end in self._eos_ids}]
        results = self._translator.translate_batch(
            written,
            beam_size=config.num_beams,
            length_penalty=config.length_penalty,
            patience=1 if config.early_stopping is True else _EXACT_PATIENCE,
            num_hypotheses=config.num_return_sequences,
            max_input_length=0,  # no truncation; the default is 1,024 tokens
            min_decoding_length=max(config.min_length - 1, config.min_new_tokens),
            max_decoding_length=max(limits),
            no_repeat_ngram_size=config.no_repeat_ngram_size,
            suppress_sequences=[
                *self._suppressed,
                *([self._target_tokens[token] for token in word] for word in banned),
            ],
            end_token=self._eos_tokens,
            return_end_token=True,
            return_scores=True,
            **settings,
        )
        hypotheses, totals, sources_of = [], [], []
        # CTranslate2 has one limit per batch, that of the longest source.
        for source, limit, result in zip(written, limits, results, strict=True):
            for tokens, score in zip(result.hypotheses, result.scores, strict=True):
                hypotheses.append(self._end_within(limit, tokens, source))
                totals.append(score * len(tokens) ** config.length_penalty)
                sources_of.append(source)
        if prefixes is not None or config.restricts_tokens:
            totals = self._log_probs(sources_of, hypotheses)
        return hypotheses, totals

    def _log_probs(self, sources: list[list[str]], hypotheses: list[list[int]]) -> list[float]:
        """Compute the log-probabilities of hypotheses.

        The scores of a restricted search leave out the prefix, and give the probability of banned tokens to the others.
        """
        targets = [[self._target_tokens[token] for token in hypothesis] for hypothesis in hypotheses]
        scored = self._translator.score_batch(sources, targets, max_input_length=0)
        return [sum(result.log_probs[: len(hypothesis)]) for result, hypothesis in zip(scored, hypotheses, strict=True)]

    def _end_within(self, limit: int, tokens: list[str], source: list[str]) -> list[int]:
        """Truncate a hypothesis to ``limit`` tokens, and append the likeliest EOS token if it has none."""
        ids = [self._target_ids[token] for token in tokens[:limit]]
        if ids and ids[-1] in self._eos_ids:
            return ids
        ids = ids[: limit - 1]
        if len(self._eos_ids) == 1:
            return [*ids, self._eos_ids[0]]
        scored = self._translator.score_batch(
            [source] * len(self._eos_ids), [[*tokens[: len(ids)], end] for end in self._eos_tokens], max_input_length=0
        )
        return [*ids, max(zip(self._eos_ids, scored, strict=True), key=lambda pair: pair[1].log_probs[len(ids)])[0]]


__all__ = ["POSITIONS", "QUANTIZATIONS", "CTranslate2Model", "build_spec", "refused_fields", "write_ctranslate2"]
