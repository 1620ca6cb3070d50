# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Our models as two ONNX graphs: the encoder, and a step of the decoder that keeps keys and values.

`encoder_model.onnx` takes ``input_ids`` and ``attention_mask`` (B, S) and gives ``last_hidden_state`` and, for each
decoder layer i, ``present.i.encoder.key`` and ``.value`` (B, H, S, K): what encoder-decoder attention needs of the
source, computed once. `decoder_with_past_model.onnx` takes ``decoder_input_ids`` (B, T), ``encoder_attention_mask``
(B, S), ``past_key_values.i.decoder.key`` and ``.value`` (B, H, P, K; P is 0 at the first step) and
``past_key_values.i.encoder.…``, and gives ``logits`` (B, T, V) and ``present.i.decoder.key`` and ``.value``
(B, H, P + T, K). Every length and the batch are free.
"""

# Shapes: B batch · S source length · T target length · P cached positions · D d_model · H heads · K d_k · V vocabulary

import logging
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

ENCODER_NAME = "encoder_model.onnx"
DECODER_NAME = "decoder_with_past_model.onnx"
OPSET = 20


def write_onnx(model: Any, directory: Path, quantization: str | None) -> dict[str, Any]:
    """Write both graphs into a folder that exists.

    Args:
        model: `VanillaTransformerForConditionalGeneration`; a copy in fp32 is exported.
        directory: where to.
        quantization: None or "float32"; the graphs are fp32, onnxruntime has tools of its own to make them smaller.

    Returns:
        What a runtime has to know beside the files: ``positions``, the longest sentence in tokens, None without limit.

    Raises:
        ValueError: If ``quantization`` asks for something else.
    """
    if quantization not in (None, "float32"):
        raise ValueError(
            f"quantization={quantization!r} is not done here for ONNX; leave it out and quantise the graphs with "
            "onnxruntime.quantization"
        )
    plain = VanillaTransformerForConditionalGeneration._from_config(model.config, attn_implementation="eager")
    plain.load_state_dict(model.state_dict())
    plain = plain.float().eval().requires_grad_(False)
    layers, heads = model.config.decoder_layers, model.config.num_heads

    # Examples of sizes that all differ, so that no size is taken for another.
    source = torch.full((2, 5), model.config.eos_token_id if isinstance(model.config.eos_token_id, int) else 0)
    source_mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    encoder = _EncoderGraph(plain)
    cross = encoder(source, source_mask)[1:]
    past: list[Tensor] = []
    for _ in range(layers):
        past += [torch.zeros(2, heads, 7, width) for width in (model.config.key_dim, model.config.value_dim)]
    cross_names = [f"{i}.encoder.{kind}" for i in range(layers) for kind in ("key", "value")]
    past_names = [f"{i}.decoder.{kind}" for i in range(layers) for kind in ("key", "value")]
    batch, source_length = torch.export.Dim("batch"), torch.export.Dim("source_length")
    target_length, past_length = torch.export.Dim("target_length"), torch.export.Dim("past_length")
    _export(
        encoder,
        (source, source_mask),
        directory / ENCODER_NAME,
        ["input_ids", "attention_mask"],
        ["last_hidden_state", *(f"present.{name}" for name in cross_names)],
        ({0: batch, 1: source_length}, {0: batch, 1: source_length}),
    )
    _export(
        _DecoderGraph(plain),
        (torch.full((2, 3), 1), source_mask, past, list(cross)),
        directory / DECODER_NAME,
        [
            "decoder_input_ids",
            "encoder_attention_mask",
            *(f"past_key_values.{name}" for name in past_names),
            *(f"past_key_values.{name}" for name in cross_names),
        ],
        ["logits", *(f"present.{name}" for name in past_names)],
        (
            {0: batch, 1: target_length},
            {0: batch, 1: source_length},
            [{0: batch, 2: past_length} for _ in past],
            [{0: batch, 2: source_length} for _ in cross],
        ),
    )
    return {"positions": _positions(model.config), "onnxruntime": onnxruntime.__version__, "opset": OPSET}


def _positions(config: Any) -> int | None:
    if config.position_embedding_type != "learned":
        return None
    return config.max_position_embeddings - config.position_offset


def _export(
    module: nn.Module, inputs: tuple[Any, ...], path: Path, input_names: list[str], output_names: list[str], sizes: Any
) -> None:
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        exporter_log.setLevel(logging.ERROR)  # it warns that torchvision isn't there
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=sizes,
            verbose=False,
        )
    exporter_log.setLevel(level)
    assert program is not None
    program.save(str(path))


def _hide(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Make an additive mask from one that is 1 where it keeps: 0 and the dtype's minimum."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)


class _EncoderGraph(nn.Module):
    """The encoder, and the keys and values that each decoder layer takes from its output."""

    def __init__(self, model: VanillaTransformerForConditionalGeneration) -> None:
        super().__init__()
        self.encoder: Any = model.model.encoder
        self.cross_attentions = nn.ModuleList(layer.cross_attn for layer in model.model.decoder.layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Encode (B, S): the states (B, S, D), then key and value (B, H, S, K) of each decoder layer."""
        states = self.encoder.add_positions(self.encoder.embed_tokens(input_ids), attention_mask)
        mask = _hide(attention_mask[:, None, None, :], states.dtype)  # (B, 1, 1, S)
        for layer in self.encoder.layers:
            states = layer(states, mask)
        if self.encoder.final_norm is not None:
            states = self.encoder.final_norm(states)
        outputs = [states]
        attentions: Any = self.cross_attentions
        for attention in attentions:
            outputs += attention.project_key_value(states)
        return tuple(outputs)


class _DecoderGraph(nn.Module):
    """The decoder on T new positions behind P cached ones."""

    def __init__(self, model: VanillaTransformerForConditionalGeneration) -> None:
        super().__init__()
        self.decoder: Any = model.model.decoder
        self.lm_head = model.lm_head

    def forward(
        self, input_ids: Tensor, encoder_attention_mask: Tensor, past: list[Tensor], cross: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Decode (B, T): the logits (B, T, V), then key and value (B, H, P + T, K) of each layer's self-attention."""
        new, before = input_ids.shape[1], past[0].shape[2]
        embedded = self.decoder.embed_tokens(input_ids)
        places = torch.arange(new) + before
        encoding = self.decoder.embed_positions(places, embedded.dtype)
        states = embedded * self.decoder.embed_scale + encoding
        causal = _hide(torch.arange(before + new)[None, :] <= places[:, None], states.dtype)  # (T, P + T)
        source = _hide(encoder_attention_mask[:, None, None, :], states.dtype)
        present: list[Tensor] = []
        for i, layer in enumerate(self.decoder.layers):
            layer_past = past[2 * i : 2 * i + 2]

            def update_past(*new: Tensor, layer_past: list[Tensor] = layer_past) -> tuple[Tensor, Tensor]:
                key, value = (torch.cat(pair, dim=2) for pair in zip(layer_past, new, strict=True))
                present.extend((key, value))
                return key, value

            states, _ = layer.step(states, update_past, (cross[2 * i], cross[2 * i + 1]), causal, source)
        if self.decoder.final_norm is not None:
            states = self.decoder.final_norm(states)
        return self.lm_head(states), *present


__all__ = ["DECODER_NAME", "ENCODER_NAME", "write_onnx"]
