"""A small model, its batches and how far two tensors are apart, for the tests of this folder."""

# Shapes: B batch · S source length · T target length

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hf_vanilla_transformer.model import inputs_vanilla_transformer as inputs
from hf_vanilla_transformer.model import loss_vanilla_transformer as losses
from hf_vanilla_transformer.model.configuration_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

VOCABULARY = 67
PADDINGS = ("right", "left", "none")


def build(dtype: torch.dtype = torch.float32, **fields: Any) -> VanillaTransformerForConditionalGeneration:
    """Build a model on the CPU with the same weights each time; heads of 32, a width that every kernel takes."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=VOCABULARY, d_model=64, d_ff=96, num_heads=2, encoder_layers=2, decoder_layers=2)
    config = VanillaTransformerConfig(**{**sizes, "dropout": 0.0, **fields})
    return VanillaTransformerForConditionalGeneration(config).to(dtype)


def sharp(**fields: Any) -> VanillaTransformerForConditionalGeneration:
    """Build a model with clear preferences, so that rounding decides between no two tokens."""
    model = build(**fields)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(2.0)
    return model.eval()


def batch(device: torch.device, padding: str = "right", rows: int = 5) -> dict[str, Tensor]:
    """Make sentences of 4 to 9 tokens (all of 9 where there is no padding), the EOS token 2 last."""
    generator = torch.Generator().manual_seed(3)
    width = 9
    ids = torch.randint(4, VOCABULARY, (2, rows, width), generator=generator)
    lengths = torch.full((2, rows), width)
    if padding != "none":
        lengths[:, 1:] = torch.randint(4, width, (2, rows - 1), generator=generator)
    place = torch.arange(width)
    real = place < lengths.unsqueeze(-1)  # (2, B, 9)
    ids = ids.masked_fill(place == lengths.unsqueeze(-1) - 1, 2).masked_fill(~real, 0)
    source, mask = ids[0], real[0].long()
    if padding == "left":
        source, mask = (
            torch.stack([row.roll(width - int(length)) for row, length in zip(rows_of, lengths[0], strict=True)])
            for rows_of in (source, mask)
        )
    labels = ids[1].masked_fill(~real[1], -100)
    return {"input_ids": source.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖; NaN if either holds one."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm())


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return a copy of the gradient of every parameter."""
    return {name: parameter.grad.detach().clone() for name, parameter in model.named_parameters()}


def examples(number: int, length: int | None = None) -> list[dict[str, list[int]]]:
    """Copying, with sentences of 2 to 9 tokens or all of ``length``."""
    generator = torch.Generator().manual_seed(5)
    rows = []
    for _ in range(number):
        size = (length or int(torch.randint(2, 10, (1,), generator=generator))) - 1
        words = torch.randint(4, VOCABULARY, (size,), generator=generator).tolist()
        rows.append({"input_ids": [*words, 2], "labels": [*words, 2]})
    return rows


def collate(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad with 0 and −100."""

    def padded(column: str, value: int) -> Tensor:
        longest = max(len(row[column]) for row in rows)
        return torch.tensor([row[column] + [value] * (longest - len(row[column])) for row in rows])

    ids = padded("input_ids", 0)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": padded("labels", -100)}


# --------------------------------------------------------------------------- waiting for the device


class _Reads(TorchDispatchMode):
    """Notes operations whose result depends on values that the host has to read."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        by_mask = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )  # its kernel counts the True values
        reads = ("_local_scalar_dense", "is_nonzero", "nonzero", "aten.equal", "unique", "masked_select", "aten.item")
        if by_mask or any(read in name for read in reads):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    """Notes calls that on a GPU copy something to the device or from it, one after the other with what it computes."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        index = args[1] if func in (Tensor.__getitem__, Tensor.__setitem__) else ()
        by_list = any(isinstance(part, list) for part in (index if isinstance(index, tuple) else (index,)))
        with_number = func is torch.where and any(isinstance(value, bool | int | float) for value in args)
        if func in (Tensor.tolist, Tensor.cpu, Tensor.numpy, torch.tensor, torch.as_tensor) or by_list or with_number:
            self.found.append(getattr(func, "__name__", str(func)))
        return func(*args, **kwargs)


@contextmanager
def waits(device: torch.device, found: list[str]) -> Iterator[None]:
    """Note in ``found`` every time the host waits for the device.

    CUDA itself says when. On the CPU, code that looks at values there alone is told that it can't, and what reads
    values or makes tensors of Python's numbers is counted.
    """
    if device.type == "cuda":
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found += [
            f"{warning.filename}:{warning.lineno}"
            for warning in caught
            if "called a synchronizing" in str(warning.message)
        ]
        return
    before = losses.on_accelerator, inputs.on_accelerator
    losses.on_accelerator = inputs.on_accelerator = lambda tensor: True
    try:
        with _Reads(found), _Copies(found):
            yield
    finally:
        losses.on_accelerator, inputs.on_accelerator = before
