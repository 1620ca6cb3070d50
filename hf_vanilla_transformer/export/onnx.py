# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Export our models as two ONNX graphs: the encoder, and one decoder step with a key-value cache.

`encoder_model.onnx` takes ``input_ids`` and ``attention_mask`` (B, S) and returns ``last_hidden_state`` and, for each
decoder layer i, ``present.i.encoder.key`` and ``.value`` (B, H, S, K): the keys and values of encoder-decoder
attention. `decoder_with_past_model.onnx` takes ``decoder_input_ids`` (B, T), ``encoder_attention_mask``
(B, S), ``past_key_values.i.decoder.key`` and ``.value`` (B, H, P, K; P is 0 at the first step) and
``past_key_values.i.encoder.…``, and returns ``logits`` (B, T, V) and ``present.i.decoder.key`` and ``.value``
(B, H, P + T, K). The batch and all lengths are dynamic.
"""

# Shapes: B batch · S source length · T target length · P cached positions · D d_model · H heads · K d_k · V vocabulary

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..model.token_rules_vanilla_transformer import TokenRules
from .exported_model import ExportedModel

ENCODER_NAME = "encoder_model.onnx"
DECODER_NAME = "decoder_with_past_model.onnx"
OPSET = 20


def write_onnx(model: Any, directory: Path, quantization: str | None) -> dict[str, Any]:
    """Write both graphs to an existing directory.

    Args:
        model: `VanillaTransformerForConditionalGeneration`; a copy in fp32 is exported.
        directory: an existing directory for the files.
        quantization: None or "float32"; the graphs are fp32, and onnxruntime.quantization can quantize them.

    Returns:
        ``max_sequence_length``, in tokens, None without a limit, and notes for the record: the versions.

    Raises:
        ValueError: If ``quantization`` is another one.
    """
    if quantization not in (None, "float32"):
        raise ValueError(
            f"quantization={quantization!r} is not supported for ONNX; leave it out and quantize the graphs with "
            "onnxruntime.quantization"
        )
    plain = VanillaTransformerForConditionalGeneration._from_config(model.config, attn_implementation="eager")
    plain.load_state_dict(model.state_dict())
    plain = plain.float().eval().requires_grad_(False)
    layers, heads = model.config.decoder_layers, model.config.num_heads

    # Example inputs whose sizes all differ, so that the exporter can't confuse two of them.
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
    return {"max_sequence_length": model.max_sequence_length, "onnxruntime": onnxruntime.__version__, "opset": OPSET}


def _export(
    module: nn.Module, inputs: tuple[Any, ...], path: Path, input_names: list[str], output_names: list[str], sizes: Any
) -> None:
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        exporter_log.setLevel(logging.ERROR)  # it warns that torchvision is missing
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
    """Make an additive mask, 0 or the dtype's minimum, from one that is 1 where it keeps."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)


class _EncoderGraph(nn.Module):
    """The encoder, and the keys and values of its output for each decoder layer."""

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
    """The decoder on T new positions after P cached ones."""

    def __init__(self, model: VanillaTransformerForConditionalGeneration) -> None:
        super().__init__()
        self.decoder: Any = model.model.decoder
        self.lm_head = model.lm_head

    def forward(
        self, input_ids: Tensor, encoder_attention_mask: Tensor, past: list[Tensor], cross: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Decode (B, T): logits (B, T, V), then keys (B, H, P + T, d_k) and values (B, H, P + T, d_v) of each layer."""
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


class OnnxModel(ExportedModel):
    """A checkpoint that is exported for onnxruntime; greedy search only."""

    target_format = "onnx"

    def __init__(self, directory: str | Path, *, threads: int = 0) -> None:
        """Load an export.

        Args:
            directory: written by `export_checkpoint`.
            threads: threads per operation; 0 uses onnxruntime's default.
        """
        super().__init__(directory)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(Path(directory) / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER_NAME, DECODER_NAME)
        )

    def check_beam_search(self, config: BeamSearchConfig) -> None:
        """See `ExportedModel.check_beam_search`."""
        if config.num_beams > 1:
            raise ValueError(
                f"num_beams={config.num_beams} is not supported by the ONNX engine, which is greedy; choose 1"
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
        eos_ids, batch = self.special_tokens.eos_token_id, list(range(len(limits)))
        rules = TokenRules(config, self.special_tokens, prefixes, self.device)
        inputs = self._encode(input_ids, attention_mask)
        names = [output.name for output in self._decoder.get_outputs()][1:]  # the first are the logits
        tokens = torch.full((len(limits), 1), self.special_tokens.decoder_start_token_id)
        chosen = torch.empty(len(limits), 1, 0, dtype=torch.long)  # (B, 1, T)
        hypotheses: list[list[int]] = [[] for _ in limits]
        totals = [0.0 for _ in limits]
        open_rows = batch
        while open_rows:
            logits, *present = self._decoder.run(None, {**inputs, "decoder_input_ids": tokens.numpy()})
            log_probs = torch.from_numpy(logits)[:, -1:].log_softmax(dim=-1)  # (B, 1, V)
            allowed = log_probs.clone()
            allowed[..., list(self.special_tokens.suppress_tokens)] = -torch.inf
            if rules:
                prefix = rules.prefix_logits(log_probs, batch, chosen.shape[-1] + 1)
                rules.ban(allowed, chosen, batch, limits)
                if prefix is not None:
                    prefix.force(allowed)
            best, tokens = allowed[:, 0].max(dim=-1, keepdim=True)
            chosen = torch.cat([chosen, tokens.unsqueeze(1)], dim=-1)
            still_open = []
            for row in open_rows:
                token = int(tokens[row])
                if len(hypotheses[row]) + 1 == limits[row] and token not in eos_ids:
                    token = eos_ids[int(log_probs[row, 0, list(eos_ids)].argmax())]  # as `paper_beam_search` there
                elif best[row] == -torch.inf:
                    hypotheses[row], totals[row] = [], -math.inf
                    continue
                hypotheses[row].append(token)
                totals[row] += float(log_probs[row, 0, token])
                if token not in eos_ids:
                    still_open.append(row)
            open_rows = still_open
            inputs |= {_as_input(name): value for name, value in zip(names, present, strict=True)}
        return hypotheses, totals

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        """Run the encoder; return the decoder's inputs at the first step, without its tokens."""
        mask = attention_mask.long().numpy()
        outputs = self._encoder.run(None, {"input_ids": input_ids.numpy(), "attention_mask": mask})
        names = [output.name for output in self._encoder.get_outputs()]
        inputs = {_as_input(name): value for name, value in zip(names[1:], outputs[1:], strict=True)}
        inputs["encoder_attention_mask"] = mask
        for layer in range(self.config.decoder_layers):
            for kind, width in (("key", self.config.key_dim), ("value", self.config.value_dim)):
                empty = torch.zeros(input_ids.shape[0], self.config.num_heads, 0, width)
                inputs[f"past_key_values.{layer}.decoder.{kind}"] = empty.numpy()
        return inputs


def _as_input(name: str) -> str:
    """Return the decoder's input for an output ``present.…`` of either graph."""
    return name.replace("present", "past_key_values")


__all__ = ["DECODER_NAME", "ENCODER_NAME", "OnnxModel", "write_onnx"]
