# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The files of a checkpoint directory: their names, how they are read, and what is checked before they are trusted.

Weights are looked up in the order in which ``from_pretrained`` does: model.safetensors comes before an index, whichever
was saved later. Code that averages, publishes or checks a directory thus takes the weights that a user would load.

Another person may have made the directory. No code in it is run, pickle files are read on request only and as plain
tensors, and the sizes in config.json are compared with the weights before memory is allocated for them.
"""

import json
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from ..json_object import read_json_object
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig, with_current_names
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER, TranslationTokenizers
from .manifest import has_manifest, verify

TRAINER_STATE_NAME = "trainer_state.json"
# Patterns of all weight files and indices that transformers has written or writes.
WEIGHT_PATTERNS = ("*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "pytorch_model*.bin", WEIGHTS_INDEX_NAME)

_SIDES = ("source", "target")
_MODEL_TYPE = VanillaTransformerConfig.model_type
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
_PICKLE_PATTERNS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler)\.pt|rng_state(_\d+)?\.pth")  # pickle files without weights
_RUN_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_MAX_CONFIG_BYTES = 2**20
_MAX_HEADER_BYTES = 100 * 2**20  # the limit of the safetensors library
# Configuration fields that determine the size or number of tensors.
_SIZES = "vocab_size decoder_vocab_size d_model d_ff num_heads d_k d_v encoder_layers decoder_layers".split()


class CheckpointDirectory:
    """A directory with a model's configuration, weights and tokenizers.

    Args:
        path: the directory.
        name: its name in messages, e.g. the Hub id it was downloaded from; None: the path.

    Raises:
        FileNotFoundError: If there is no such directory.
    """

    def __init__(self, path: str | Path, name: str | Path | None = None) -> None:
        self.path = Path(path)
        self.name = str(path if name is None else name)
        if not self.path.is_dir():
            raise FileNotFoundError(f"there is no directory {self.name}")

    # ------------------------------------------------------------------ configuration and training state

    def read_config(self, model_type: str | None = _MODEL_TYPE) -> dict[str, Any]:
        """Read config.json.

        Args:
            model_type: the type that the model must have; None accepts any.

        Raises:
            ValueError: If the file is missing or damaged, or the model is of another type.
        """
        path = self.path / CONFIG_NAME
        if not path.is_file():
            raise ValueError(f"{self.name} has no {CONFIG_NAME}; choose the directory of a checkpoint")
        config = read_json_object(path, _MAX_CONFIG_BYTES)
        found = config.get("model_type")
        if model_type is not None and found != model_type:
            hint = (
                "; `vanilla-transformer convert --from` imports checkpoints of Marian, FSMT, fairseq and "
                "torch.nn.Transformer"
            )
            raise ValueError(
                f"{self.name} holds a model of type {found!r}, not {model_type!r}"
                + (hint if model_type == _MODEL_TYPE else "")
            )
        return config

    def read_generation_config(self) -> GenerationConfig:
        """Read generation_config.json, or the generation settings in config.json that older checkpoints have."""
        name = GENERATION_CONFIG_NAME if (self.path / GENERATION_CONFIG_NAME).is_file() else CONFIG_NAME
        return GenerationConfig.from_pretrained(self.path, config_file_name=name)

    def read_trainer_state(self) -> dict[str, Any]:
        """Read Trainer's state: step, log and more; empty if the directory has none."""
        path = self.path / TRAINER_STATE_NAME
        return read_json_object(path) if path.is_file() else {}

    # ------------------------------------------------------------------ weight files

    def weight_files(self, allow_pickle: bool = False) -> list[Path]:
        """Return the files that ``from_pretrained`` loads the weights from.

        Args:
            allow_pickle: return PyTorch's pickle files if there are no safetensors files.

        Returns:
            One file; or an index, followed by its shards; or nothing if there are no weights.

        Raises:
            ValueError: If an index is damaged or lists a file that is missing.
        """
        config = read_json_object(self.path / CONFIG_NAME) if (self.path / CONFIG_NAME).is_file() else {}
        named = config.get("transformers_weights")
        if isinstance(named, str) and (Path(named).name != named or not (self.path / named).is_file()):
            raise ValueError(
                f"{CONFIG_NAME} in {self.name} names the weights {named!r}, which is no file of its folder"
            )
        names = [named] if isinstance(named, str) else [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME]
        for name in [*names, *([WEIGHTS_NAME, WEIGHTS_INDEX_NAME] if allow_pickle else [])]:
            path = self.path / name
            if path.is_file():
                return [path, *sorted(set(read_weight_index(path).values()))] if path.suffix == ".json" else [path]
        return []

    def require_weight_files(self) -> list[Path]:
        """Return the safetensors files as `weight_files` does.

        Raises:
            ValueError: If there are none.
        """
        if files := self.weight_files():
            return files
        pickle_files = sorted(
            path.name
            for pattern in _PICKLE_PATTERNS
            for path in self.path.glob(pattern)
            if not _TRAINING_STATE.fullmatch(path.name)
        )
        if pickle_files:
            raise ValueError(
                f"{self.name} has weights in pickle files only ({pickle_files[0]}), which can run code when they are "
                "loaded; save the model as safetensors first (save_pretrained)"
            )
        raise ValueError(f"{self.name} has no {SAFE_WEIGHTS_NAME}; it contains no model, or saving it was interrupted")

    def tensor_files(self) -> dict[str, Path]:
        """Return the safetensors file of each tensor, by the tensor's name; empty if there are no such files."""
        files = self.weight_files()
        if files and files[0].suffix == ".json":
            return read_weight_index(files[0])
        return {name: path for path in files for name in read_safetensors_header(path)}

    def stale_weight_files(self, written: Collection[str]) -> list[Path]:
        """Return the weight files of an earlier save, which has left them beside the files just written.

        Args:
            written: names of the files just written.
        """
        return [path for path in self.path.iterdir() if _SAFETENSORS.fullmatch(path.name) and path.name not in written]

    # ------------------------------------------------------------------ checks

    def verify_manifest(self, suffixes: tuple[str, ...] | None = None) -> None:
        """Compare the files with the manifest, if there is one.

        Args:
            suffixes: compare only files that end in one of them.

        Raises:
            BrokenCheckpointError: If a file is missing or differs.
        """
        if has_manifest(self.path):
            verify(self.path, suffixes)

    def check(self) -> None:
        """Check that the configuration and the weights agree in size, without loading any tensor.

        Raises:
            ValueError: If a file is missing or damaged, the model is of another type, or the configuration describes a
                model that is larger than its weights.
        """
        config = with_current_names(self.read_config())
        for key, value in config.items():
            if "attn_implementation" in key and isinstance(value, str) and "/" in value:
                raise ValueError(
                    f"{CONFIG_NAME} in {self.name} sets {key}={value!r}, which is code on the Hub; code that a "
                    "checkpoint names is not run: remove the field"
                )
        shards = [path for path in self.require_weight_files() if path.suffix == ".safetensors"]
        tensors = {name for shard in shards for name in read_safetensors_header(shard)}
        self._check_sizes(config, len(tensors), sum(shard.stat().st_size for shard in shards))

    def _check_sizes(self, config: dict[str, Any], tensors: int, total: int) -> None:
        """Compare the configuration with the number of tensors and bytes; bytes limit any number of elements."""
        where = f"{CONFIG_NAME} in {self.name} says"
        sizes = {key: config[key] for key in _SIZES if isinstance(config.get(key), int)}
        defaults = VanillaTransformerConfig()
        for key in _SIZES:
            if sizes.setdefault(key, getattr(defaults, key) or 0) > total:
                raise ValueError(f"{where} {key}={sizes[key]}, but its weights have only {total:,} bytes")
        layers = sizes["encoder_layers"] + sizes["decoder_layers"]
        if layers > tensors:
            raise ValueError(f"{where} {layers} layers, but its weights have only {tensors} tensors")
        for left, right in (("vocab_size", "d_model"), ("decoder_vocab_size", "d_model"), ("d_model", "d_ff")):
            if sizes[left] * sizes[right] > total:
                raise ValueError(
                    f"{where} {left}={sizes[left]} and {right}={sizes[right]}, a matrix larger than the {total:,} "
                    "bytes of its weights"
                )
        for width in ("d_k", "d_v"):
            if sizes["num_heads"] * max(sizes[width], 1) * sizes["d_model"] > max(total, sizes["d_model"] ** 2):
                raise ValueError(
                    f"{where} num_heads={sizes['num_heads']} and {width}={sizes[width]}, a projection larger than the "
                    f"{total:,} bytes of its weights"
                )

    # ------------------------------------------------------------------ loading

    def load_model(self) -> PreTrainedModel:
        """Check the directory, load the model from its safetensors files and set it to evaluation mode.

        Raises:
            ValueError: If the model cannot be loaded, or the weights are not exactly those that config.json describes.
        """
        self.check()
        try:
            model, report = VanillaTransformerForConditionalGeneration.from_pretrained(
                self.path, use_safetensors=True, output_loading_info=True
            )
        except ImportError:
            raise
        except BaseException as error:  # a panic of a library in Rust is no Exception
            self._fail("model", error)
        problems = [f"{name} is missing" for name in sorted(report["missing_keys"])]
        problems += [f"{name} is not part of the model" for name in sorted(report["unexpected_keys"])]
        problems += [f"{name} has another shape" for name in sorted(map(str, report["mismatched_keys"]))]
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise ValueError(
                f"the weights in {self.name} do not match its {CONFIG_NAME}: {', '.join(problems[:3])}{more}"
            )
        return model.eval()

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load one tokenizer, without custom code.

        Raises:
            ValueError: If it is missing or damaged.
        """
        return load_tokenizer_files(self.path, self.name)

    def load_target_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer of the target's own vocabulary.

        Raises:
            ValueError: If it is missing or damaged.
        """
        if not (self.path / TARGET_TOKENIZER).is_dir():
            raise ValueError(
                f"the model has a separate target vocabulary, but {self.name} has no directory {TARGET_TOKENIZER}; "
                "save the target's tokenizer there"
            )
        return self._load_half(TARGET_TOKENIZER)

    def load_tokenizers(self, config: Any = None) -> TranslationTokenizers:
        """Load the tokenizers of source and target.

        Two tokenizers are in the directories ``source`` and ``target``, as ``vanilla-transformer tokenizer`` writes
        them, or the target's is in ``target_tokenizer``, as in a checkpoint.

        Args:
            config: the model's, which determines whether the target has its own tokenizer; None: load what is there.

        Raises:
            ValueError: If a tokenizer is missing or damaged, or has no EOS token.
        """
        return TranslationTokenizers(*self.load_raw_tokenizers(config))

    def load_raw_tokenizers(self, config: Any = None) -> list[PreTrainedTokenizerBase]:
        """Load the tokenizers as `load_tokenizers` does, the source's and, if it is separate, the target's."""
        if config is None and self.has_a_tokenizer_per_side():
            return [self._load_half(side) for side in _SIDES]
        separate = (self.path / TARGET_TOKENIZER).is_dir() if config is None else config.decoder_vocab_size is not None
        return [self.load_tokenizer(), *([self.load_target_tokenizer()] if separate else [])]

    def has_a_tokenizer_per_side(self) -> bool:
        """Return whether the tokenizers are in the directories ``source`` and ``target``."""
        has_sides = all((self.path / side).is_dir() for side in _SIDES)
        return has_sides and not (self.path / "tokenizer_config.json").is_file()

    def _load_half(self, folder: str) -> PreTrainedTokenizerBase:
        return CheckpointDirectory(self.path / folder, f"{self.name}/{folder}").load_tokenizer()

    def _fail(self, part: str, error: BaseException) -> NoReturn:
        _fail(f"the {part} in {self.name}", error, replace=(str(self.path), self.name))


def load_tokenizer_files(source: str | Path, name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer that needs no custom code.

    Args:
        source: a directory, or a Hub id, which transformers downloads.
        name: its name in messages.

    Raises:
        ValueError: If it is missing or damaged.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        tokenizer("a")  # some damage shows only in use
    except ImportError:
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        _fail(f"the tokenizer in {name}", error, replace=(str(source), name))
    return tokenizer


def _fail(what: str, error: BaseException, replace: tuple[str, str]) -> NoReturn:
    """Raise a ValueError of one line, unless the process is being stopped."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    reason = " ".join(str(error).replace(*replace).split())[:300]
    raise ValueError(f"{what} cannot be loaded: {type(error).__name__}: {reason}") from error


# --------------------------------------------------------------------------- single files


def read_weight_index(path: Path) -> dict[str, Path]:
    """Read the index of sharded weights.

    Args:
        path: "model.safetensors.index.json" or "pytorch_model.bin.index.json".

    Returns:
        The file of each tensor, by the tensor's name. All files are in the directory of the index.

    Raises:
        ValueError: If the index is damaged, or lists a file that is missing or in another directory.
    """
    names = read_json_object(path).get("weight_map")
    if not isinstance(names, dict):
        raise ValueError(f"{path} lists no weight files; was saving it interrupted?")
    files = {}
    for tensor, name in names.items():
        plain = isinstance(name, str) and Path(name).name == name
        if plain and not (path.parent / name).exists():
            raise ValueError(f"{path.parent / name} is missing, although {path.name} lists it")
        if not plain or not (path.parent / name).is_file():
            raise ValueError(f"{path} lists {name!r}, which is no file of its folder")
        files[tensor] = path.parent / name
    return files


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file, but no tensor.

    Returns:
        Dtype, shape and offsets of each tensor, by the tensor's name.

    Raises:
        ValueError: If the file is not a safetensors file, or is shorter than its header.
    """
    problem = f"{path} cannot be read as safetensors"
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"{problem}: its header is longer than the file allows; was saving it interrupted?")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{problem}: its header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError(f"{problem}: its header is not a dictionary")
    header.pop("__metadata__", None)
    return header


# --------------------------------------------------------------------------- the checkpoints of a run


def checkpoint_step(path: Path) -> int | None:
    """Return the number of updates in the name ``checkpoint-<step>``; None for other names."""
    match = _RUN_CHECKPOINT.fullmatch(path.name)
    return int(match[1]) if match else None


def run_checkpoints(run_dir: Path) -> list[Path]:
    """Return the ``checkpoint-<step>`` directories of a run, sorted by step; they may be incomplete."""
    if not run_dir.is_dir():
        return []
    steps = {path: checkpoint_step(path) for path in run_dir.iterdir() if path.is_dir()}
    return [path for path, step in sorted(steps.items(), key=lambda item: item[1] or 0) if step is not None]


__all__ = [
    "TRAINER_STATE_NAME",
    "WEIGHT_PATTERNS",
    "CheckpointDirectory",
    "checkpoint_step",
    "load_tokenizer_files",
    "read_safetensors_header",
    "read_weight_index",
    "run_checkpoints",
]
