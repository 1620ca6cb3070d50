# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""int8 inference on the CPU: every linear layer multiplies 8-bit integers.

Weights have a scale per output feature, inputs a scale per position (row), so that a translation does not depend on
the sentences it is batched with. Products are accumulated in int32 and are exact; only the rounding of weights and
inputs to 8 bits differs from fp32.

`quantize` converts a loaded model. `from_pretrained(…, quantization_config=Int8Config())` converts while it loads, and
loads what `save_pretrained` wrote of a converted model.
"""

# Shapes: R rows (positions) · I input features · O output features

import copy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "vanilla_transformer_int8"  # `quant_method` in config.json

_LARGEST = 127  # of a quantized input
# Largest weight where products saturate. Processors without VNNI add two neighboring products in 16 bits, after the
# inputs were shifted to 1…255: 2 · 255 · 64 fits, 2 · 255 · 127 does not.
_LARGEST_WEIGHT_WITHOUT_VNNI = 64
# From this many output features on (the output projection) oneDNN's fused product is used: it converts to fp32 and
# scales while it multiplies, and its packed weight is read faster. It takes 18 µs to start, so not for small layers.
_WIDE = 4096


def _product(inputs: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """Multiply int8 (R, I) by int8 (O, I) transposed, and scale the columns: fp32 (R, O)."""
    return torch._int_mm(inputs, weight.t()).to(torch.float32).mul_(weight_scale)


def _pack(weight: Tensor) -> Tensor:
    """Return an int8 weight (O, I) in the layout of `_packed_product`."""
    return torch.ops.onednn.qlinear_prepack(weight, None)


def _packed_product(inputs: Tensor, packed: Tensor, weight_scale: Tensor) -> Tensor:
    """Compute `_product` with a packed weight, by the kernel for which torch.compile quantizes linear layers."""
    shifted = inputs.view(torch.uint8) ^ 128  # x + 128 in 8 bits: the kernel takes unsigned inputs and a zero point
    zero_points = torch.zeros_like(weight_scale, dtype=torch.int32)
    return torch.ops.onednn.qlinear_pointwise(
        shifted, 1.0, 128, packed, weight_scale, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
    )


def _is_exact(largest_weight: int, in_features: int, packed: bool) -> bool:
    """Return whether products of the largest numbers are equal to those of int32 arithmetic, for 1 row and for 128."""
    weight = torch.full((64, in_features), largest_weight, dtype=torch.int8)
    weight[1::4] *= -1
    weight[2::4, ::2] *= -1
    scale = torch.ones(len(weight))
    for rows in (1, 128):
        inputs = torch.full((rows, in_features), _LARGEST, dtype=torch.int8)
        inputs[1::2] *= -1
        product = _packed_product(inputs, _pack(weight), scale) if packed else _product(inputs, weight, scale)
        if not torch.equal(product, (inputs.int() @ weight.int().t()).float()):
            return False
    return True


@lru_cache
def largest_exact_weight(in_features: int) -> int:
    """Return the largest int8 weight whose products are exact on this processor: 127, or 64 where it has no VNNI.

    Args:
        in_features: the largest number of input features of a layer.

    Raises:
        ValueError: If products are wrong with either.
    """
    try:
        for largest in (_LARGEST, _LARGEST_WEIGHT_WITHOUT_VNNI):
            if _is_exact(largest, in_features, packed=False):
                return largest
    except RuntimeError as error:
        raise ValueError(f"torch cannot multiply int8 matrices here ({error}); use precision fp32 or bf16") from error
    raise ValueError("torch's int8 matrix products are wrong on this processor; use precision fp32 or bf16")


@lru_cache
def _has_packed_product(largest_weight: int, in_features: int) -> bool:
    """Return whether this torch has the packed product, and it is exact."""
    try:
        return _is_exact(largest_weight, in_features, packed=True)
    except (AttributeError, RuntimeError, TypeError):  # built without oneDNN, or another signature
        return False


class Int8Linear(nn.Module):
    """A linear layer with int8 weights that quantizes its input row by row.

    Attributes:
        weight: (O, I) int8.
        weight_scale: (O,) fp32; weight · weight_scale is the weight that was quantized.
        bias: (O,) fp32 or None.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, device: Any = None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        weight = torch.empty(out_features, in_features, dtype=torch.int8, device=device)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(out_features, device=device), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features, device=device), requires_grad=False) if bias else None
        self._packed: tuple[tuple[int, int], Tensor] | None = None  # identity of the weight, and the weight packed

    @classmethod
    @torch.no_grad()
    def of(cls, linear: nn.Linear, largest_weight: int) -> "Int8Linear":
        """Quantize a linear layer; ``largest_weight`` is the largest absolute value of the int8 weights."""
        quantized = cls(linear.in_features, linear.out_features, bias=linear.bias is not None)
        quantized.set_weight(linear.weight.float(), largest_weight)
        if quantized.bias is not None:
            quantized.bias.copy_(linear.bias)
        return quantized

    @torch.no_grad()
    def set_weight(self, weight: Tensor, largest_weight: int) -> None:
        """Quantize a weight (O, I) in fp32."""
        scale = _largest_of_rows(weight) / largest_weight
        self.weight.copy_((weight / scale).round_())
        self.weight_scale.copy_(scale.squeeze(-1))

    def dequantized_weight(self) -> Tensor:
        """Return the weight (O, I) in fp32."""
        return self.weight.float() * self.weight_scale.unsqueeze(-1)

    def forward(self, states: Tensor) -> Tensor:
        """Map (…, I) to (…, O) in fp32.

        Raises:
            ValueError: If the input is not on the CPU.
        """
        if states.device.type != "cpu":
            raise ValueError(f"int8 models run on the CPU only, not on {states.device.type}; use precision bf16 there")
        rows = states.reshape(-1, self.in_features)
        scale = _largest_of_rows(rows).div_(_LARGEST)  # (R, 1)
        inputs = (rows / scale).round_().to(torch.int8)
        packed = self._packed_weight() if self.out_features >= _WIDE else None
        if packed is None:
            output = _product(inputs, self.weight, self.weight_scale)
        else:
            output = _packed_product(inputs, packed, self.weight_scale)
        output = output.mul_(scale) if self.bias is None else torch.addcmul(self.bias, output, scale, out=output)
        return output.view(*states.shape[:-1], self.out_features)

    def _packed_weight(self) -> Tensor | None:
        """Return the weight packed, or None where the packed product is not exact."""
        identity = self.weight.data_ptr(), self.weight._version
        if self._packed is None or self._packed[0] != identity:
            if not _has_packed_product(int(self.weight.abs().max()), self.in_features):
                return None
            self._packed = identity, _pack(self.weight)
        return self._packed[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the packed weight out of copies and pickles."""
        return {**self.__dict__, "_packed": None}

    def extra_repr(self) -> str:
        """Describe the layer as `nn.Linear` does."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def _largest_of_rows(rows: Tensor) -> Tensor:
    """Return the largest absolute value of each row (R, 1), at least the smallest positive number, to divide by."""
    return rows.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-30)


# --------------------------------------------------------------------------- whole models


def quantize(model: Any) -> Any:
    """Return an int8 copy of a model for inference on the CPU; the model itself is not changed.

    All linear layers are quantized, the output projection included; embeddings and layer normalization stay in fp32.
    The copy can be saved by `save_pretrained`.

    Args:
        model: any model of this package, on the CPU.

    Raises:
        ValueError: If the model is not on the CPU, has adapters, or is quantized already, or if the processor's int8
            products are wrong.
    """
    if hasattr(model, "peft_config"):
        raise ValueError("the model has adapters, which cannot be quantized; merge them first (merge_and_unload)")
    if getattr(model, "is_quantized", False):
        raise ValueError("the model is quantized already")
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices != {"cpu"}:
        raise ValueError(f"int8 models run on the CPU only; this model is on {', '.join(sorted(devices))}")
    # Parameters of the copy have the data of the model's, so that only what is quantized needs more memory.
    shared = {
        id(parameter): nn.Parameter(parameter.detach().float(), requires_grad=False) for parameter in model.parameters()
    }
    quantized = copy.deepcopy(model, shared)
    quantizer = Int8Quantizer(Int8Config(), pre_quantized=False)
    quantized.hf_quantizer = quantizer
    quantized.is_quantized = True
    quantized.quantization_method = METHOD
    quantizer.postprocess_model(quantized)
    return quantized


class Int8Config(QuantizationConfigMixin):
    """Settings of int8 inference, for ``from_pretrained(…, quantization_config=Int8Config())``.

    Args:
        largest_weight: largest absolute value of the int8 weights; set when a model is quantized.
        quant_method: the name of the method in config.json.
    """

    def __init__(self, largest_weight: int | None = None, quant_method: str = METHOD) -> None:
        self.quant_method = quant_method  # type: ignore[assignment]  # transformers' own methods are an enum
        self.largest_weight = largest_weight


class Int8Quantizer(HfQuantizer):
    """Quantizes a model when transformers has loaded it, or prepares its layers for weights that are quantized."""

    quantization_config: Int8Config

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Reject other devices than the CPU."""
        places = device_map.values() if isinstance(device_map, dict) else [device_map]
        for place in places:
            if place is not None and str(place) != "cpu":
                raise ValueError(f"int8 models run on the CPU only; device_map={place!r} is not supported")

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return fp32, the dtype of everything that is not quantized."""
        return torch.float32

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        if self.pre_quantized:
            for parent, name, linear in _linear_layers(model):
                bias = linear.bias is not None
                setattr(parent, name, Int8Linear(linear.in_features, linear.out_features, bias, linear.weight.device))
            _untie_output_projection(model)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        layers = [module for module in model.modules() if isinstance(module, Int8Linear)]
        widest = max(layer.in_features for layer in layers or [linear for *_, linear in _linear_layers(model)])
        largest = largest_exact_weight(widest)
        for layer in layers:  # they were quantized on another machine
            if largest < (self.quantization_config.largest_weight or _LARGEST):
                layer.set_weight(layer.dequantized_weight(), largest)
        for parent, name, linear in _linear_layers(model):
            setattr(parent, name, Int8Linear.of(linear, largest))
        _untie_output_projection(model)
        self.quantization_config.largest_weight = min(largest, self.quantization_config.largest_weight or _LARGEST)
        model.config.dtype = torch.float32
        for parameter in model.parameters():
            parameter.requires_grad_(False)

    def is_serializable(self) -> bool:
        """Return True: `save_pretrained` writes the int8 weights."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Return False: Trainer rejects int8 models."""
        return False


def _linear_layers(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """List the linear layers, each with its parent module and its name there."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]


def _untie_output_projection(model: Any) -> None:
    """Remove the output projection from the tied weights: its int8 weight is its own."""
    model.all_tied_weights_keys.pop("lm_head.weight", None)


if METHOD not in AUTO_QUANTIZER_MAPPING:  # another copy of this file, as remote code, may have registered it
    register_quantizer(METHOD)(Int8Quantizer)
if METHOD not in AUTO_QUANTIZATION_CONFIG_MAPPING:
    register_quantization_config(METHOD)(Int8Config)

__all__ = ["Int8Config", "Int8Linear", "Int8Quantizer", "largest_exact_weight", "quantize"]
