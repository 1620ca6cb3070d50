# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of this installation: whether the model computes the right numbers with the installed torch and transformers.

Each check is a function of the device that returns nothing, or raises an exception that says what differs. They share
one tiny model whose weights depend on a seed alone, and compare what the package computes with the same thing written
out in the plainest way: no cache, no chunks, no padding, fp64. Nothing is downloaded, and nothing is written but a
temporary directory.
"""

# Shapes: B batch · S source length · T target length · N tokens · D d_model · V vocabulary

import html
import importlib.metadata
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache, StaticCache
from transformers.utils import logging

from .device import processor_name
from .model import beam_search_vanilla_transformer as decoding
from .model import loss_vanilla_transformer as losses
from .model.attention_vanilla_transformer import CACHE_NAME
from .model.beam_search_config_vanilla_transformer import BeamSearchConfig
from .model.configuration_vanilla_transformer import VanillaTransformerConfig
from .model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .version import __version__

PACKAGE = "hf_vanilla_transformer"
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "datasets", "evaluate")

_PAD, _START, _END, _VOCABULARY = 0, 1, 2, 32
_SOURCES = ([17, 28, _END], [30, 5, 22, 9, 14, 26, 11, 7, _END], [8, 19, 6, 31, 12, _END], [23, 4, 10, 27, _END])
_TARGETS = ([13, 29, 6, 21, _END], [18, 9, _END], [25, 8, 30, 11, 5, 16, _END], [7, 24, 15, _END])
_DECODER_INPUTS = [[_START, *target[:-1]] for target in _TARGETS]
_MAX_TOKENS = 12  # that a test translation may have
_SEED = 2  # its model ends some translations early and others not at all, and has no near-ties between tokens
_LONGEST_PATH = (2 + 2 * 3) * 64  # sub-layers of one encoder and two decoder layers × d_ff, the longest sum in each


# --------------------------------------------------------------------------- report


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: of the check's function, with the precision where there are several.
        title: what was checked, in one sentence.
        status: "ok", "FAILED" or "skipped".
        milliseconds: wall time.
        detail: what differs, or why the check was skipped; "" if it passed.
        advice: what to do if it failed, unless the detail says so; else "".
    """

    name: str
    title: str
    status: str
    milliseconds: float
    detail: str = ""
    advice: str = ""


@dataclass(frozen=True, repr=False)
class SelfCheckReport:
    """What `check_installation` found. `str()` is what the command prints; notebooks show it as a table.

    Attributes:
        versions: library → version.
        hardware: processor, cores, threads, support of bf16, and the GPU if there is one.
        device: the checks ran on it.
        precision: what ``precision="auto"`` stands for here, and why.
        results: in the order in which the checks ran.
    """

    versions: dict[str, str]
    hardware: dict[str, str]
    device: str
    precision: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.status == "FAILED")

    @property
    def summary(self) -> str:
        """Return the last line: how many checks passed, failed and were skipped, and the seconds they took."""
        count = {status: sum(result.status == status for result in self.results) for status in _STATUSES}
        seconds = sum(result.milliseconds for result in self.results) / 1000
        return f"check: {count['ok']} ok, {count['FAILED']} failed, {count['skipped']} skipped in {seconds:.1f} s"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {**asdict(self), "passed": self.passed}

    def _facts(self) -> dict[str, str]:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return {"versions": versions, **self.hardware, "precision": self.precision, "checked on": self.device}

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self._facts().items()]
        for result in self.results:
            reason = f" ({result.detail})" if result.status == "skipped" else ""
            lines.append(f"{result.status:<7} {result.milliseconds:6.0f} ms  {result.title}{reason}")
            if result.status == "FAILED":
                lines.append(f"{'':19}{result.detail}")
            if result.advice:
                lines.append(f"{'':19}What to do: {result.advice}")
        return "\n".join([*lines, self.summary])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        facts = "".join(f"<div>{html.escape(f'{name}: {value}')}</div>" for name, value in self._facts().items())
        rows = []
        for result in self.results:
            text = html.escape(result.title)
            for more in filter(None, (result.detail, result.advice)):
                text += f"<br><small>{html.escape(more)}</small>"
            status = f"<b>{result.status}</b>" if result.status == "FAILED" else result.status
            rows.append(
                f'<tr><td>{status}</td><td style="text-align:right">{result.milliseconds:.0f} ms</td>'
                f'<td style="text-align:left">{text}</td></tr>'
            )
        return f"{facts}<table>{''.join(rows)}</table><div>{html.escape(self.summary)}</div>"


_STATUSES = ("ok", "FAILED", "skipped")


class _Skipped(Exception):
    """A check can't run on this device; the message says why."""


@dataclass(frozen=True)
class _Check:
    """A check.

    Attributes:
        name, title: as in `CheckResult`.
        run: raises an exception if something is wrong; AssertionError if it is a number.
        library: the one to reinstall then; "" if the exception says what to do.
        meanwhile: what works until the fault is mended; "" for nothing.
        all_threads: use as many threads as the caller does. Thousands of operations on a few hundred numbers each
            would wait for threads most of the time, minutes on a busy machine.
    """

    name: str
    title: str
    run: Callable[[torch.device], None]
    library: str
    meanwhile: str = ""
    all_threads: bool = False

    @property
    def advice(self) -> str:
        """Say what to do if the check fails."""
        if not self.library:
            return ""
        wanted = f"{self.library}{getattr(_requirements().get(self.library), 'specifier', '')}"
        advice = (
            f'run `pip install --force-reinstall "{wanted}"` and check again; if it fails again, report this output.'
        )
        return f"{advice} Until then {self.meanwhile}." if self.meanwhile else advice


_CHECKS: list[_Check] = []


def _check(
    title: str, library: str = "transformers", meanwhile: str = "", all_threads: bool = False
) -> Callable[[Callable], Callable]:
    """Add a function to the checks; the arguments are those of `_Check`."""

    def register(function: Callable[[torch.device], None]) -> Callable[[torch.device], None]:
        _CHECKS.append(_Check(function.__name__, title, function, library, meanwhile, all_threads))
        return function

    return register


def check_installation(device: str | torch.device | None = None) -> SelfCheckReport:
    """Check that this installation computes the right numbers; takes seconds, and needs neither data nor network.

    Random state, default dtype and the like are the same afterwards as before.

    Args:
        device: where to compute, as "cpu" or "cuda:1"; None takes the accelerator if there is one.

    Returns:
        The report; its ``passed`` is False if a check failed.

    Raises:
        ValueError: If torch can't compute on the device.
    """
    device = _usable_device(device)
    results = []
    for check in _CHECKS:
        start, status, detail = time.perf_counter(), "ok", ""
        try:
            with _own_state(device, check.all_threads):
                check.run(device)
        except _Skipped as reason:
            status, detail = "skipped", str(reason)
        except Exception as error:  # of any kind: an incompatible library may raise anything
            kind = "" if type(error) is AssertionError else f"{type(error).__name__}: "
            status, detail = "FAILED", kind + " ".join(str(error).split())
        milliseconds = (time.perf_counter() - start) * 1000
        advice = check.advice if status == "FAILED" else ""
        results.append(CheckResult(check.name, check.title, status, milliseconds, detail, advice))
    return SelfCheckReport(_versions(), _hardware(), str(device), _precision(device), tuple(results))


# --------------------------------------------------------------------------- versions and hardware


def _versions() -> dict[str, str]:
    found = {PACKAGE: __version__, "Python": platform.python_version()}
    for name in _LIBRARIES:
        version = _version(name)
        if version is not None:
            found[name] = version
    return found


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> dict[str, Any]:
    """Return what this package needs, library → `Requirement`; nothing where it runs from a folder, not installed."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(line) for line in lines]
    return {item.name: item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})}


def _hardware() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = {"AMX": "_is_amx_tile_supported", "AVX512-bf16": "_is_avx512_bf16_supported"}
    units = [name for name, flag in flags.items() if getattr(torch.cpu, flag, lambda: False)()]
    found = {
        "processor": f"{processor_name()}, {cores} cores, {torch.get_num_threads()} threads in use",
        "bf16 on the processor": ", ".join(units) or "no instructions that torch reports",
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        major, minor = torch.cuda.get_device_capability()
        found["GPU"] = f"{', '.join(names)}, compute capability {major}.{minor}"
        found["bf16 on the GPU"] = "yes" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    elif torch.accelerator.is_available():
        found["accelerator"] = str(torch.accelerator.current_accelerator())
    return found


def _precision(device: torch.device) -> str:
    try:
        from .training.precision import best_precision

        return "auto is {} ({})".format(*best_precision(use_cpu=device.type == "cpu"))
    except Exception as error:  # what training needs may be missing where a model is only used
        return f"unknown ({type(error).__name__}: {error})"


def _usable_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        device = torch.device(device or "cpu")
        if device.type == "meta":
            raise RuntimeError("it computes no numbers")
        torch.ones(1, device=device).add_(1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"torch can't compute on device {str(device)!r}: {error}; choose cpu or another one"
        ) from error
    return device


@contextmanager
def _own_state(device: torch.device, all_threads: bool) -> Iterator[None]:
    """Run with torch's default settings, and leave the caller's settings and random state as they were."""
    default_dtype, bars = torch.get_default_dtype(), logging.is_progress_bar_enabled()
    backends: Any = torch.backends
    products = [(each, each.fp32_precision) for each in (backends.cuda.matmul, backends.mkldnn.matmul)]
    with ExitStack() as stack:
        if device.index is not None and device.type != "cpu":
            stack.enter_context(torch.accelerator.device_index(device.index))
        generators: list[Any] = [torch]
        if device.type != "cpu":
            generators.append(torch.get_device_module(device))
        for generator in generators:
            stack.callback(generator.set_rng_state, generator.get_rng_state())
        if not all_threads:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        stack.callback(torch.set_default_dtype, default_dtype)
        for each, precision in products:  # fp32 may stand for TF32 or bf16
            stack.callback(setattr, each, "fp32_precision", precision)
            each.fp32_precision = "ieee"
        stack.callback(logging.enable_progress_bar if bars else logging.disable_progress_bar)
        torch.set_default_dtype(torch.float32)
        logging.disable_progress_bar()
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


# --------------------------------------------------------------------------- the model, its inputs, comparisons


def _tiny_model(device: torch.device, **fields: Any) -> Any:
    """Make a small model in evaluation mode, without dropout.

    Its weights depend on the seed alone, not on how models are initialized, and are large enough for each token to
    depend on source, position and earlier tokens. A word's output vector is another word's embedding, so that greedy
    decoding doesn't repeat one word for ever. Padding and the start symbol have the logit 0, far from the largest.
    """
    sizes = {"vocab_size": _VOCABULARY, "d_model": 32, "d_ff": 64, "num_heads": 4}
    layers = {"encoder_layers": 1, "decoder_layers": 2}
    config = VanillaTransformerConfig(**{**sizes, **layers, "dropout": 0.0, "tie_word_embeddings": False, **fields})
    model: Any = VanillaTransformerForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                scale = 0.1 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        if not config.tie_word_embeddings:
            model.lm_head.weight.copy_(2 * model.get_input_embeddings().weight.roll(5, dims=0))
            model.lm_head.weight[: _START + 1] = 0.0
    return model.eval().to(device)


def _pad(
    rows: Sequence[Sequence[int]], device: torch.device, left: bool = False, value: int = _PAD
) -> tuple[Tensor, Tensor]:
    """Return rows of token ids as a padded matrix, and its mask: 1 keeps, 0 is padding."""
    longest = max(map(len, rows))
    fill = [[value] * (longest - len(row)) for row in rows]
    ids = [[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, fill, strict=True)]
    places = range(longest)
    kept = [[(longest - 1 - place if left else place) < len(row) for place in places] for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(kept, device=device).long()


def _batches(device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """Return two batches of one shape, so that whatever a cache keeps of the first is noticed in the second."""
    *words, end = max(_SOURCES, key=len)
    unpadded = [[*words[start:], *words[:start], end] for start in range(len(_SOURCES))]
    return {"padded on the left": _pad(_SOURCES, device, left=True), "unpadded": _pad(unpadded, device)}


def _logits(model: Any, source: Tensor, mask: Tensor | None, inputs: Tensor, **options: Any) -> Tensor:
    """Return the logits of one pass over source (B, S) and decoder inputs (B, T) without a cache: (B, T, V)."""
    return model(source, attention_mask=mask, decoder_input_ids=inputs, use_cache=False, **options).logits


def _caches(model: Any, source_length: int) -> dict[str, EncoderDecoderCache]:
    def both(make: Callable[[int], Any]) -> EncoderDecoderCache:
        return EncoderDecoderCache(make(_MAX_TOKENS), make(source_length))

    return {
        "dynamic": both(lambda _: DynamicCache(config=model.config)),
        "static": both(lambda length: StaticCache(config=model.config, max_cache_len=length)),
    }


def _require_close(what: str, found: Tensor, expected: Tensor) -> None:
    """Raise AssertionError if the largest difference is more than rounding explains.

    At worst, every addition on the longest path through the model loses one unit of the largest value.
    """
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    unit = torch.finfo(found.dtype).eps
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    difference = (found - expected).abs().max().item()
    _require_within(f"{what}: the largest difference", difference, _LONGEST_PATH * unit * expected.abs().max().item())


def _require_within(what: str, error: float, bound: float) -> None:
    if not error <= bound:  # NaN is above every bound
        raise AssertionError(f"{what} is {error:.2g}; rounding explains {bound:.2g} at most")


def _require_same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {found}, expected {expected}")


def _require_same_tokens(what: str, found: Tensor, expected: Tensor) -> None:
    """Raise AssertionError if two batches of translations differ in more than padding, written as 0 or end symbols."""
    for row, tokens in enumerate(zip(_until_end(found), _until_end(expected), strict=True)):
        _require_same(f"{what}: tokens of sentence {row}", *tokens)


def _until_end(sequences: Tensor) -> list[list[int]]:
    """Return each row's tokens after the start symbol, up to its end symbol."""
    rows = [row[1:] for row in sequences.tolist()]
    return [row[: row.index(_END) + 1] if _END in row else row for row in rows]


# --------------------------------------------------------------------------- checks: installation


@_check("The installed libraries have the versions that this package needs", library="")
def versions(device: torch.device) -> None:
    requirements = _requirements()
    if not requirements:
        raise _Skipped("the package runs from a folder without being installed")
    installed = {name: _version(name) for name in requirements}
    wrong = [
        (name, version, str(requirements[name]))
        for name, version in installed.items()
        if version is None or not requirements[name].specifier.contains(version, prereleases=True)
    ]
    if wrong:
        found = ", ".join(f"{name} {version or 'is not installed'}" for name, version, _ in wrong)
        install = " ".join(f'"{requirement}"' for *_, requirement in wrong)
        raise AssertionError(f"{found}; run `pip install {install}` and check again")


# --------------------------------------------------------------------------- checks: decoding


@_check(
    "Decoding step by step with a cache gives the logits of one full pass",
    meanwhile="decode with paper_beam_search, or with generate(use_cache=False)",
)
@torch.no_grad()
def cached_logits(device: torch.device) -> None:
    model = _tiny_model(device)
    source, source_mask = _pad(_SOURCES, device, left=True)
    for left in (False, True):
        target, target_mask = _pad(_DECODER_INPUTS, device, left=left)
        full = _logits(model, source, source_mask, target, decoder_attention_mask=target_mask)
        for kind, cache in _caches(model, source.shape[1]).items():
            encoded = model.get_encoder()(source, attention_mask=source_mask)
            pieces, start = [], 0
            for width in (3, *[1] * (target.shape[1] - 3)):  # a prompt, then one token after the other
                output = model(
                    attention_mask=source_mask,
                    decoder_input_ids=target[:, start : start + width],
                    decoder_attention_mask=target_mask[:, : start + width],
                    encoder_outputs=encoded,
                    use_cache=True,
                    **{CACHE_NAME: cache},
                )
                cache = getattr(output, CACHE_NAME)
                pieces.append(output.logits)
                start += width
            kept = target_mask.bool()  # a padded position has no earlier position to attend to
            side = "left" if left else "right"
            what = f"logits with a {kind} cache, targets padded on the {side}"
            _require_close(what, torch.cat(pieces, dim=1)[kept], full[kept])


@_check(
    "generate() writes the same tokens with a dynamic cache, a static cache and none, greedily and with beams",
    meanwhile="decode with paper_beam_search, or with generate(use_cache=False)",
)
def cached_generation(device: torch.device) -> None:
    model = _tiny_model(device)
    for batch, (source, mask) in _batches(device).items():
        expected = _greedy_by_full_passes(model, source, mask)
        for beams in (1, 3):
            for cache in (None, "dynamic", "static"):
                output = _generate(model, source, mask, num_beams=beams, cache=cache)
                if beams > 1 and cache is None:
                    expected = output.sequences
                what = f"{beams} beams, {cache or 'no'} cache, {batch}"
                _require_same_tokens(what, output.sequences, expected)


def _generate(model: Any, source: Tensor, mask: Tensor, num_beams: int = 1, cache: str | None = None) -> Any:
    return model.generate(
        source,
        attention_mask=mask,
        do_sample=False,
        num_beams=num_beams,
        max_length=1 + _MAX_TOKENS,
        use_cache=cache is not None,
        cache_implementation=cache,
        disable_compile=True,
        return_dict_in_generate=True,
    )


def _search(model: Any, source: Tensor, mask: Tensor, config: BeamSearchConfig) -> Any:
    return decoding.paper_beam_search(model, source, mask, config)


@torch.no_grad()
def _greedy_by_full_passes(model: Any, source: Tensor, mask: Tensor) -> Tensor:
    """Write the likeliest token, again and again, each from a full pass over everything written so far."""
    written = torch.full((len(source), 1), _START, device=source.device)
    for _ in range(_MAX_TOKENS):
        logits = _logits(model, source, mask, written)[:, -1]
        written = torch.cat([written, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return written


@_check("The search with a beam of one writes what generate() writes greedily")
def search_greedy(device: torch.device) -> None:
    model = _tiny_model(device)
    for batch, (source, mask) in _batches(device).items():
        expected = _generate(model, source, mask).sequences
        # The search ends every hypothesis at its limit; one token more leaves those before it free.
        found = _search(model, source, mask, BeamSearchConfig(num_beams=1, max_target_tokens=_MAX_TOKENS + 1)).sequences
        _require_same_tokens(batch, found[:, : 1 + _MAX_TOKENS], expected)


@_check("The search finds the best hypotheses, and ranks them by log-probability over ((5 + n) / 6)^alpha")
@torch.no_grad()
def search_scores(device: torch.device) -> None:
    model = _tiny_model(device)
    words = [token for token in range(_VOCABULARY) if token not in (_PAD, _START, _END)]
    every_target = [[_END], *([word, _END] for word in words)]  # that has no more than two tokens
    source, mask = _pad(_SOURCES, device, left=True)
    wide = _search(
        model, source, mask, BeamSearchConfig(num_beams=_VOCABULARY, max_target_tokens=2, num_return_sequences=4)
    ).hypotheses()
    for row, found in enumerate(wide):
        scores = _scores_by_full_pass(model, source[row], mask[row], every_target).tolist()
        best = [target for _, target in sorted(zip(scores, every_target, strict=True), reverse=True)[:4]]
        _require_same(f"sentence {row}: the best targets of up to two tokens", found, best)
    output = _search(model, source, mask, BeamSearchConfig(num_beams=4, max_extra_tokens=3, num_return_sequences=3))
    for row, (found, scores) in enumerate(zip(output.hypotheses(), output.sequences_scores.view(-1, 3), strict=True)):
        for tokens in found:
            if tokens.index(_END) != len(tokens) - 1 or len(tokens) > len(_SOURCES[row]) + 3:
                raise AssertionError(f"sentence {row}: {tokens} doesn't end where it should")
        expected = _scores_by_full_pass(model, source[row], mask[row], found)
        _require_close(f"scores of the hypotheses of sentence {row}", scores, expected)
        labels, _ = _pad(found, device, value=losses.IGNORE_INDEX)
        again = _scores(model, source[row].expand(3, -1), mask[row].expand(3, -1), labels)
        _require_close(f"score_targets of the hypotheses of sentence {row}", again, expected)


def _scores(model: Any, source: Tensor, mask: Tensor, labels: Tensor) -> Any:
    return decoding.score_targets(model, source, mask, labels).scores


def _scores_by_full_pass(model: Any, source: Tensor, mask: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """Return the log-probabilities of targets of one source, end symbols included, over the paper's length penalty."""
    inputs, _ = _pad([[_START, *target[:-1]] for target in targets], source.device)
    sources, masks = (row.expand(len(targets), -1) for row in (source, mask))
    log_probs = functional.log_softmax(_logits(model, sources, masks, inputs), dim=-1)
    totals = [
        sum(log_probs[row, position, token] for position, token in enumerate(target)) / ((5 + len(target)) / 6) ** 0.6
        for row, target in enumerate(targets)
    ]
    return torch.stack(totals)


# --------------------------------------------------------------------------- checks: inputs


@_check("Padding on either side and the other sentences of a batch change no logits")
@torch.no_grad()
def padding(device: torch.device) -> None:
    model = _tiny_model(device)
    target, _ = _pad(_DECODER_INPUTS, device)
    alone = [
        _logits(model, *_pad([source], device), _pad([inputs], device)[0])[0]
        for source, inputs in zip(_SOURCES, _DECODER_INPUTS, strict=True)
    ]
    for side, value in itertools.product(("left", "right"), (_PAD, 5)):
        # Where a mask is given, it alone says what padding is: there may be a word beneath it.
        source, mask = _pad(_SOURCES, device, left=side == "left", value=value)
        for given in (mask, None) if value == _PAD else (mask,):
            logits = _logits(model, source, given, target)
            for row, expected in enumerate(alone):
                what = f"sentence {row} in a batch padded on the {side} {'without' if given is None else 'with'} a mask"
                _require_close(what, logits[row, : len(expected)], expected)


@_check(
    "Attention by single operations (eager) and by torch's fused kernels (sdpa) agrees, gradients included",
    library="torch",
    meanwhile='load models with attn_implementation="eager"',
    all_threads=True,
)
def attention_implementations(device: torch.device) -> None:
    found = {}
    for implementation in ("eager", "sdpa"):
        model = _tiny_model(device)
        model.set_attn_implementation(implementation)
        found[implementation] = _loss_and_gradients(model, range(len(_SOURCES)))
    for name, expected in found["eager"].items():
        _require_close(name, found["sdpa"][name], expected)


# --------------------------------------------------------------------------- checks: training


def _loss_and_gradients(model: Any, *micro_batches: Sequence[int], **options: Any) -> dict[str, Tensor]:
    """Train on sentences in one or several batches, and return the sum of the losses and the gradients by name."""
    device, total = model.device, 0.0
    model.zero_grad()
    source, mask = _pad(_SOURCES, device, left=True)
    labels, _ = _pad(_TARGETS, device, value=losses.IGNORE_INDEX)
    for rows in map(list, micro_batches):
        loss = model(source[rows], mask[rows], labels=labels[rows], label_smoothing=0.1, **options).loss
        loss.backward()
        total = total + loss.detach()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": total, **gradients}


@_check("A batch in parts, divided by num_items_in_batch, has the loss and gradients of the whole, training or not")
def accumulation(device: torch.device) -> None:
    model = _tiny_model(device)
    whole = _loss_and_gradients(model, range(4))
    tokens = torch.tensor(sum(map(len, _TARGETS)), device=device)
    for training in (False, True):  # by the plain loss, by the loss in chunks
        parts = _loss_and_gradients(model.train(training), [0, 1], [2], [3], num_items_in_batch=tokens)
        for name, expected in whole.items():
            _require_close(f"{name} in {'training' if training else 'evaluation'} mode", parts[name], expected)


@_check("Dropout repeats itself from the same seed while training, and is off in evaluation", library="torch")
def dropout(device: torch.device) -> None:
    model = _tiny_model(device, dropout=0.3)
    without = _loss_and_gradients(_tiny_model(device), range(4))
    for name, value in _loss_and_gradients(model, range(4)).items():
        _require_close(f"{name} in evaluation mode, against a model without dropout", value, without[name])
    model.train()
    found = []
    for seed in (1, 1, 2):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        found.append(_loss_and_gradients(model, range(4)))
    first, again, other = found
    for name, expected in first.items():
        _require_close(f"{name} with the same seed", again[name], expected)
    if torch.equal(first["loss"], other["loss"]):
        raise AssertionError("training with two seeds has the same loss; nothing is dropped")
    source, mask = _pad(_SOURCES, device)
    searched = _search(model, source, mask, BeamSearchConfig(num_beams=2, max_target_tokens=_MAX_TOKENS)).sequences
    expected = _search(
        model.eval(), source, mask, BeamSearchConfig(num_beams=2, max_target_tokens=_MAX_TOKENS)
    ).sequences
    _require_same_tokens("the search with a model in training mode", searched, expected)


# --------------------------------------------------------------------------- checks: loss

_PRECISIONS = {  # name → dtype of the tensors, and of autocast
    "fp64": (torch.float64, None),
    "fp32": (torch.float32, None),
    "bf16 autocast": (torch.float32, torch.bfloat16),
    "bf16": (torch.bfloat16, None),
    "fp16": (torch.float16, None),
}
_INPUTS = ("hidden", "weight", "bias")
_Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]  # of _INPUTS, labels, smoothing


def loss(device: torch.device, precision: str) -> None:
    """Compare both losses of the package, and their gradients, with fp64.

    A gradient may be off by twice what torch's own cross-entropy is off on logits of this precision, with everything
    after them in fp32, and by what `_rounding` allows.
    """
    dtype, autocast = _PRECISIONS[precision]
    low = autocast or dtype
    _require_dtype(device, low)
    # Logits of an untrained model, and of trained ones whose labels have probabilities about 0.92 and 0.995: there,
    # probability minus target is a small difference.
    for label_logit, smoothing in ((0.0, 0.1), (9.5, 0.1), (13.0, 0.0)):
        inputs, labels = _loss_inputs(label_logit, low)
        loss_bound, nll_bound, gradient_bound = _rounding(inputs, labels, smoothing, low)
        exact = _with_gradients(_torch_loss, inputs, labels, smoothing)
        ways: dict[str, _Loss] = {
            "torch": _torch_loss,
            "token_cross_entropy": _plain_loss,
            "linear_cross_entropy": losses.linear_cross_entropy,
        }
        tensors = [tensor.to(device, dtype) for tensor in inputs]
        with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            found = {name: _with_gradients(way, tensors, labels.to(device), smoothing) for name, way in ways.items()}
        reference = found.pop("torch")
        for name, values in found.items():
            where = f"{name}, logits of labels {label_logit:g}, smoothing {smoothing:g}"
            for what, bound in (("loss", loss_bound), ("nll", nll_bound)):
                _require_within(f"{where}: the error of the {what}", (values[what] - exact[what]).abs().item(), bound)
            for what in _INPUTS:
                size = exact[what].norm()
                error, torchs = (((result[what] - exact[what]).norm() / size).item() for result in (values, reference))
                bound = 2 * torchs + gradient_bound
                _require_within(f"{where}: the relative error of the gradient of {what}", error, bound)


def _loss_inputs(label_logit: float, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Return hidden states (N, D), weight (V, D) and bias (V,) in fp64 that ``dtype`` can hold, and labels (N,).

    Args:
        label_logit: about the logit of every label, before the bias; 0 makes hidden states at random.
        dtype: the values are rounded to it, so that they are the same in every precision that is compared.
    """
    tokens, width, vocabulary = 64, 64, 512
    generator = torch.Generator().manual_seed(_SEED)
    weight = torch.randn(vocabulary, width, generator=generator)
    bias = 0.1 * torch.randn(vocabulary, generator=generator)
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    hidden = torch.randn(tokens, width, generator=generator) / width**0.5
    if label_logit:
        hidden = label_logit * weight[labels] / weight[labels].square().sum(dim=-1, keepdim=True)
    labels[::9] = losses.IGNORE_INDEX
    return [tensor.to(dtype).double() for tensor in (hidden, weight, bias)], labels


def _torch_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return torch's cross-entropy, summed over tokens and reduced in fp32 or wider: with label smoothing, without."""
    logits = functional.linear(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    cross_entropy = partial(functional.cross_entropy, logits, labels, ignore_index=losses.IGNORE_INDEX, reduction="sum")
    return cross_entropy(label_smoothing=smoothing), cross_entropy().detach()


def _plain_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    return losses.token_cross_entropy(functional.linear(hidden, weight, bias), labels, smoothing)


def _with_gradients(function: _Loss, inputs: Sequence[Tensor], labels: Tensor, smoothing: float) -> dict[str, Tensor]:
    """Return loss, nll and the gradients of the inputs, in fp64 on the CPU."""
    hidden, weight, bias = (tensor.clone().requires_grad_() for tensor in inputs)
    value, nll = function(hidden, weight, bias, labels, smoothing)
    value.backward()
    found = {"loss": value, "nll": nll, "hidden": hidden.grad, "weight": weight.grad, "bias": bias.grad}
    return {name: tensor.detach().cpu().double() for name, tensor in found.items() if tensor is not None}


def _rounding(
    inputs: Sequence[Tensor], labels: Tensor, smoothing: float, dtype: torch.dtype
) -> tuple[float, float, float]:
    """Return the largest errors by rounding of the loss, of the nll, and of gradients, relative to their norm.

    A logit may be off by one unit of its dtype per unit of |h|·|w|, and the loss then by that times |P − target|.
    After the logits all is fp32 or wider: a label's logit and logsumexp are off by a unit per unit of the largest
    logit, here and in what is compared with, and P is off by as much, however small P − target. Gradients are rounded
    once more when they are stored, and are sums of up to V products, whose errors grow with the root of their number.
    """
    hidden, weight, bias = inputs
    low, wide = torch.finfo(dtype).eps, torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    real = labels != losses.IGNORE_INDEX
    size = functional.linear(hidden.abs(), weight.abs(), bias.abs())[real]
    probabilities = functional.linear(hidden, weight, bias)[real].softmax(dim=-1)
    hard = functional.one_hot(labels[real], len(weight)).double()
    soft = (1 - smoothing) * hard + smoothing / len(weight)
    largest = size.amax(dim=-1)
    loss_bound, nll_bound = (
        (low * ((probabilities - target).abs() * size).sum() + wide * largest.sum()).item() for target in (soft, hard)
    )
    cancellation = probabilities.norm() / (probabilities - soft).norm()
    return loss_bound, nll_bound, (low + wide * (len(weight) ** 0.5 + 4 * largest.max() * cancellation)).item()


def _require_dtype(device: torch.device, dtype: torch.dtype) -> None:
    try:
        (torch.ones(2, 2, dtype=dtype, device=device) @ torch.ones(2, 2, dtype=dtype, device=device)).cpu()
    except (RuntimeError, TypeError) as error:
        raise _Skipped(f"torch has no matrix products in {dtype} on {device}: {error}") from error


for _name in _PRECISIONS:
    _CHECKS.append(
        _Check(
            f"loss_{_name.replace(' ', '_')}",
            f"The loss in chunks is the plain loss, gradients included, in {_name}",
            partial(loss, precision=_name),
            library="torch",
            meanwhile="train with precision: fp32" if "16" in _name else "",
            all_threads=True,
        )
    )


# --------------------------------------------------------------------------- checks: files


@_check("A saved model loads as it was: configurations, every bit of the weights, logits")
def save_and_load(device: torch.device) -> None:
    source, mask = _pad(_SOURCES, device, left=True)
    target, _ = _pad(_DECODER_INPUTS, device)
    for fields in ({"tie_word_embeddings": True}, {"output_bias": True}):
        model = _tiny_model(device, **fields)
        model.generation_config.num_beams = 3
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            loaded, problems = AutoModelForSeq2SeqLM.from_pretrained(directory, output_loading_info=True)
            loaded = loaded.to(device)
        if any(problems.values()):
            raise AssertionError(f"loading reports { ({name: keys for name, keys in problems.items() if keys}) }")
        for name in ("config", "generation_config"):
            _require_same(name, _settings(getattr(loaded, name)), _settings(getattr(model, name)))
        expected = {**model.state_dict(), **dict(model.named_buffers())}
        found = {**loaded.state_dict(), **dict(loaded.named_buffers())}
        _require_same("names of the weights", list(found), list(expected))
        for name, tensor in expected.items():
            if found[name].dtype != tensor.dtype or not torch.equal(found[name], tensor):
                raise AssertionError(f"{name} is not what was saved")
        _require_same("tied weights", _tied(loaded), _tied(model))
        with torch.no_grad():
            logits = [_logits(each, source, mask, target) for each in (loaded, model)]
        _require_close("logits", *logits)


def _settings(config: Any) -> dict[str, Any]:
    """Return a configuration without what loading adds to it: where it came from, and what wrote it."""
    added = ("_name_or_path", "_from_model_config", "_original_object_hash", "architectures", "dtype")
    return {name: value for name, value in config.to_dict().items() if name not in (*added, "transformers_version")}


def _tied(model: nn.Module) -> list[list[str]]:
    """Return the names of parameters that are one and the same, in groups."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return sorted(names for names in groups.values() if len(names) > 1)


__all__ = ["CheckResult", "SelfCheckReport", "check_installation"]
