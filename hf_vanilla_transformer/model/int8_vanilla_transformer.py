# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""int8 inference on the CPU: every linear layer multiplies 8-bit integers.

Weights have a scale per output feature, inputs a scale per position (row), so that a translation does not depend on
the sentences it is batched with; only a single row is rounded differently, see `_FbgemmProduct`. Products are
accumulated in int32 and are exact; only the rounding of weights and inputs to 8 bits differs from fp32.

`quantize` converts a loaded model. `from_pretrained(…, quantization_config=Int8Config())` converts while it loads, and
loads what `save_pretrained` wrote of a converted model.
"""

# Shapes: R rows (positions) · I input features · O output features. Products also take (…, I) and return (…, O).

import copy
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

ModelT = TypeVar("ModelT", bound=PreTrainedModel)

METHOD = "vanilla_transformer_int8"  # `quant_method` in config.json

_LARGEST = 127  # of a quantized input
# Largest weight where products saturate. Processors without VNNI add two neighboring products in 16 bits, after the
# inputs were shifted to 1…255: 2 · 255 · 64 fits, 2 · 255 · 127 does not.
_LARGEST_WEIGHT_WITHOUT_VNNI = 64
# From this many output features on (the output projection) oneDNN's fused product is used: it converts to fp32 and
# scales while it multiplies, and its packed weight is read faster. It takes 18 µs to start, so not for small layers.
_WIDE = 4096


# --------------------------------------------------------------------------- products


def _quantize_rows(states: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize fp32 (…, I) to int8 (R, I); also return the scale of each row (R, 1)."""
    rows = states.reshape(-1, states.shape[-1])
    scale = _largest_of_rows(rows).div_(_LARGEST)
    return (rows / scale).round_().to(torch.int8), scale


def _largest_of_rows(rows: Tensor) -> Tensor:
    """Return the largest absolute value of each row (…, 1), at least a small positive number, to divide by."""
    return rows.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-30)


def _product(states: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """Multiply fp32 (…, I) by the quantized weight (O, I) transposed: fp32 (…, O)."""
    inputs, scale = _quantize_rows(states)
    output = torch._int_mm(inputs, weight.t()).to(torch.float32).mul_(weight_scale).mul_(scale)
    return output.view(*states.shape[:-1], len(weight))


class _FusedProduct:
    """The product by oneDNN's kernel for torch.compile's quantized linear layers."""

    def __init__(self, weight: Tensor, weight_scale: Tensor) -> None:
        self.weight_scale = weight_scale
        self.zero_points = torch.zeros_like(weight_scale, dtype=torch.int32)
        self.packed = torch.ops.onednn.qlinear_prepack(weight, None)

    def __call__(self, states: Tensor) -> Tensor:
        inputs, scale = _quantize_rows(states)
        shifted = inputs.view(torch.uint8) ^ 128  # x + 128 in 8 bits: the kernel takes unsigned inputs and a zero point
        output: Tensor = torch.ops.onednn.qlinear_pointwise(
            shifted, 1.0, 128, self.packed, self.weight_scale, self.zero_points,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return output.mul_(scale).view(*states.shape[:-1], len(self.weight_scale))


class _FbgemmProduct:
    """The product by FBGEMM, with a packed weight.

    It quantizes a single row itself, with a zero point, and reads the weight twice as fast as `torch._int_mm` does.
    Several rows would share one scale; each is divided by its own before, so that the common one is 1.
    """

    def __init__(self, weight: Tensor, weight_scale: Tensor) -> None:
        zero_points = torch.zeros_like(weight_scale, dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch intends to remove quantized tensors; the other products remain then
            quantized = torch._make_per_channel_quantized_tensor(weight, weight_scale.double(), zero_points, 0)
            self.packed = torch.ops.quantized.linear_prepack(quantized, None)

    def __call__(self, states: Tensor) -> Tensor:
        output: Tensor
        if states.numel() == states.shape[-1]:
            output = torch.ops.quantized.linear_dynamic(states, self.packed, False)
            return output
        scale = _largest_of_rows(states).div_(_LARGEST)
        scaled = states / scale
        output = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(scaled, 1.0, 128, self.packed)
        return output.mul_(scale)


# --------------------------------------------------------------------------- which products are exact here


@lru_cache
def int_mm_is_fast() -> bool:
    """Return whether the processor has VNNI. Without it, `torch._int_mm` takes many times as long as fp32."""
    return bool(torch.cpu._is_vnni_supported())


def _packed_products(rows: int, out_features: int) -> list[Any]:
    """List the products with packed weights to use, the best first; `_product` is used where none is exact."""
    fast = int_mm_is_fast()
    kinds: list[Any] = [_FbgemmProduct] if rows == 1 or not fast else []
    return [*kinds, _FusedProduct] if out_features >= _WIDE or not fast else kinds


def _extremes(rows: int, in_features: int, largest_weight: int, lowest: int) -> tuple[Tensor, Tensor]:
    """Return an input (R, I) and a weight (64, I) of the largest int8 numbers, which make the largest sums.

    The input's scale is 1, so that it is not rounded; ``lowest`` is its lowest number.
    """
    weight = torch.full((64, in_features), largest_weight, dtype=torch.int8)
    weight[1::4] *= -1
    weight[2::4, ::2] *= -1
    inputs = torch.full((rows, in_features), _LARGEST, dtype=torch.int8)
    inputs[1::2] *= -1
    inputs[:, -1] = lowest
    return inputs, weight


def _is_exact(kind: Any, largest_weight: int, in_features: int, rows: int) -> bool:
    """Return whether a product of the largest numbers is that of int32 arithmetic, but for the rounding to fp32."""
    lowest = -_LARGEST - 1 if kind is _FbgemmProduct and rows == 1 else -_LARGEST  # with a zero point, or symmetric
    inputs, weight = _extremes(rows, in_features, largest_weight, lowest)
    scale = torch.ones(len(weight))
    expected = (inputs.int() @ weight.int().t()).float()
    if kind is None:
        product = _product(inputs.float(), weight, scale)
    else:
        product = kind(weight, scale)(inputs.float())
    return torch.allclose(product, expected, rtol=1e-6, atol=0.1)


@lru_cache
def _is_available(kind: Any, largest_weight: int, in_features: int) -> bool:
    """Return whether this torch has a packed product, and it is exact."""
    try:
        return all(_is_exact(kind, largest_weight, in_features, rows) for rows in (1, 128))
    except (AttributeError, RuntimeError, TypeError):  # removed, not built in, or another signature
        return False


@lru_cache
def largest_exact_weight(in_features: int) -> int:
    """Return the largest int8 weight whose products are exact on this processor: 127, or 64 where it has no VNNI.

    Args:
        in_features: the largest number of input features of a layer.

    Raises:
        ValueError: If products are wrong with either.
    """
    ranges = (_LARGEST, _LARGEST_WEIGHT_WITHOUT_VNNI)
    if not int_mm_is_fast():
        for kind in (_FbgemmProduct, _FusedProduct):
            for largest in ranges:
                if _is_available(kind, largest, in_features):
                    return largest
    try:
        for largest in ranges:
            if all(_is_exact(None, largest, in_features, rows) for rows in (1, 128)):
                return largest
    except RuntimeError as error:
        raise ValueError(f"torch cannot multiply int8 matrices here ({error}); use precision fp32 or bf16") from error
    raise ValueError("torch's int8 matrix products are wrong on this processor; use precision fp32 or bf16")


# --------------------------------------------------------------------------- the layer


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
        self._packed: dict[Any, Any] = {}  # products with packed weights, and the identity of the weight

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
        for kind in _packed_products(states.numel() // self.in_features, self.out_features):
            if (product := self._packed_product(kind)) is not None:
                output = product(states)
                break
        else:
            output = _product(states, self.weight, self.weight_scale)
        if self.bias is not None:
            output += self.bias
        return output

    def _packed_product(self, kind: Any) -> Callable[[Tensor], Tensor] | None:
        """Return the product of that kind with this layer's weight, or None where it is not exact."""
        identity = self.weight.data_ptr(), self.weight._version
        if self._packed.get("identity") != identity:
            self._packed = {"identity": identity}
        if kind not in self._packed:
            available = _is_available(kind, int(self.weight.abs().max()), self.in_features)
            self._packed[kind] = kind(self.weight, self.weight_scale) if available else None
        product: Callable[[Tensor], Tensor] | None = self._packed[kind]
        return product

    def __getstate__(self) -> dict[str, Any]:
        """Exclude packed weights from copies and pickle files; they are packed again when they are needed."""
        return {**self.__dict__, "_packed": {}}

    def extra_repr(self) -> str:
        """Describe the layer as `nn.Linear` does."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


# --------------------------------------------------------------------------- whole models


def quantize(model: ModelT) -> ModelT:
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
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"quantize takes a model, not a {type(model).__name__}; quantize the models of an ensemble first"
        )
    if getattr(model, "is_quantized", False):
        raise ValueError("the model is quantized already")
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices != {"cpu"}:
        raise ValueError(f"int8 models run on the CPU only; this model is on {', '.join(sorted(devices))}")
    # Parameters of the copy have the data of the model's, so that only what is quantized needs more memory.
    shared = {
        id(parameter): nn.Parameter(parameter.detach().float(), requires_grad=False) for parameter in model.parameters()
    }
    quantized: Any = copy.deepcopy(model, shared)
    quantizer = Int8Quantizer(Int8Config(), pre_quantized=False)
    quantized.hf_quantizer = quantizer
    quantized.is_quantized = True
    quantized.quantization_method = METHOD
    quantizer.postprocess_model(quantized)
    result: ModelT = quantized
    return result


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
                raise ValueError(f"int8 models run on the CPU only; device_map places it on {place}")

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
        layers: list[Any] = [module for module in model.modules() if isinstance(module, Int8Linear)]
        widest = max(layer.in_features for layer in layers or [linear for *_, linear in _linear_layers(model)])
        largest = largest_exact_weight(widest)
        stored = self.quantization_config.largest_weight or _LARGEST
        if largest < stored:  # the weights were quantized on another machine
            for layer in layers:
                layer.set_weight(layer.dequantized_weight(), largest)
        for parent, name, linear in _linear_layers(model):
            setattr(parent, name, Int8Linear.of(linear, largest))
        _untie_output_projection(model)
        self.quantization_config.largest_weight = min(largest, stored)
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
