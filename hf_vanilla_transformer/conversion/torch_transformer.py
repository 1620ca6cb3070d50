# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""State dicts of models around torch.nn.Transformer, in and out.

torch.nn.Transformer is the two stacks alone. Embeddings, positions and the projection to the vocabulary belong to the
model around it and have whatever names its author gave them, so the caller names them; a state dict doesn't hold the
number of heads or the order of normalisation either.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig

from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.modeling_vanilla_transformer import DEFAULT_MAX_LENGTH
from .importing import ImportedCheckpoint, read_own, read_pickle, read_weight_file
from .key_map import (
    OUTPUT_BIAS,
    OUTPUT_PROJECTION,
    SOURCE_EMBEDDING,
    TARGET_EMBEDDING,
    KeyMap,
    check_complete,
    detect_tying,
    expected_shapes,
    refuse,
    rename_keys,
    restore_keys,
    untie,
    with_prefix,
)

_STACKS: KeyMap = {
    "encoder.layers.*.self_attn.q_proj.weight": "model.encoder.layers.*.self_attn.q_proj.weight",
    "encoder.layers.*.self_attn.q_proj.bias": "model.encoder.layers.*.self_attn.q_proj.bias",
    "encoder.layers.*.self_attn.k_proj.weight": "model.encoder.layers.*.self_attn.k_proj.weight",
    "encoder.layers.*.self_attn.k_proj.bias": "model.encoder.layers.*.self_attn.k_proj.bias",
    "encoder.layers.*.self_attn.v_proj.weight": "model.encoder.layers.*.self_attn.v_proj.weight",
    "encoder.layers.*.self_attn.v_proj.bias": "model.encoder.layers.*.self_attn.v_proj.bias",
    "encoder.layers.*.self_attn.out_proj.weight": "model.encoder.layers.*.self_attn.out_proj.weight",
    "encoder.layers.*.self_attn.out_proj.bias": "model.encoder.layers.*.self_attn.out_proj.bias",
    "encoder.layers.*.linear1.weight": "model.encoder.layers.*.feed_forward.w_1.weight",
    "encoder.layers.*.linear1.bias": "model.encoder.layers.*.feed_forward.w_1.bias",
    "encoder.layers.*.linear2.weight": "model.encoder.layers.*.feed_forward.w_2.weight",
    "encoder.layers.*.linear2.bias": "model.encoder.layers.*.feed_forward.w_2.bias",
    "encoder.layers.*.norm1.weight": "model.encoder.layers.*.self_attn_norm.weight",
    "encoder.layers.*.norm1.bias": "model.encoder.layers.*.self_attn_norm.bias",
    "encoder.layers.*.norm2.weight": "model.encoder.layers.*.feed_forward_norm.weight",
    "encoder.layers.*.norm2.bias": "model.encoder.layers.*.feed_forward_norm.bias",
    "encoder.norm.weight": "model.encoder.final_norm.weight",
    "encoder.norm.bias": "model.encoder.final_norm.bias",
    "decoder.layers.*.self_attn.q_proj.weight": "model.decoder.layers.*.self_attn.q_proj.weight",
    "decoder.layers.*.self_attn.q_proj.bias": "model.decoder.layers.*.self_attn.q_proj.bias",
    "decoder.layers.*.self_attn.k_proj.weight": "model.decoder.layers.*.self_attn.k_proj.weight",
    "decoder.layers.*.self_attn.k_proj.bias": "model.decoder.layers.*.self_attn.k_proj.bias",
    "decoder.layers.*.self_attn.v_proj.weight": "model.decoder.layers.*.self_attn.v_proj.weight",
    "decoder.layers.*.self_attn.v_proj.bias": "model.decoder.layers.*.self_attn.v_proj.bias",
    "decoder.layers.*.self_attn.out_proj.weight": "model.decoder.layers.*.self_attn.out_proj.weight",
    "decoder.layers.*.self_attn.out_proj.bias": "model.decoder.layers.*.self_attn.out_proj.bias",
    "decoder.layers.*.multihead_attn.q_proj.weight": "model.decoder.layers.*.cross_attn.q_proj.weight",
    "decoder.layers.*.multihead_attn.q_proj.bias": "model.decoder.layers.*.cross_attn.q_proj.bias",
    "decoder.layers.*.multihead_attn.k_proj.weight": "model.decoder.layers.*.cross_attn.k_proj.weight",
    "decoder.layers.*.multihead_attn.k_proj.bias": "model.decoder.layers.*.cross_attn.k_proj.bias",
    "decoder.layers.*.multihead_attn.v_proj.weight": "model.decoder.layers.*.cross_attn.v_proj.weight",
    "decoder.layers.*.multihead_attn.v_proj.bias": "model.decoder.layers.*.cross_attn.v_proj.bias",
    "decoder.layers.*.multihead_attn.out_proj.weight": "model.decoder.layers.*.cross_attn.out_proj.weight",
    "decoder.layers.*.multihead_attn.out_proj.bias": "model.decoder.layers.*.cross_attn.out_proj.bias",
    "decoder.layers.*.linear1.weight": "model.decoder.layers.*.feed_forward.w_1.weight",
    "decoder.layers.*.linear1.bias": "model.decoder.layers.*.feed_forward.w_1.bias",
    "decoder.layers.*.linear2.weight": "model.decoder.layers.*.feed_forward.w_2.weight",
    "decoder.layers.*.linear2.bias": "model.decoder.layers.*.feed_forward.w_2.bias",
    "decoder.layers.*.norm1.weight": "model.decoder.layers.*.self_attn_norm.weight",
    "decoder.layers.*.norm1.bias": "model.decoder.layers.*.self_attn_norm.bias",
    "decoder.layers.*.norm2.weight": "model.decoder.layers.*.cross_attn_norm.weight",
    "decoder.layers.*.norm2.bias": "model.decoder.layers.*.cross_attn_norm.bias",
    "decoder.layers.*.norm3.weight": "model.decoder.layers.*.feed_forward_norm.weight",
    "decoder.layers.*.norm3.bias": "model.decoder.layers.*.feed_forward_norm.bias",
    "decoder.norm.weight": "model.decoder.final_norm.weight",
    "decoder.norm.bias": "model.decoder.final_norm.bias",
}
_SOURCE_POSITIONS = "model.encoder.embed_positions.weight"
_TARGET_POSITIONS = "model.decoder.embed_positions.weight"
_WRAPPERS = ("model_state_dict", "state_dict", "model")  # what training scripts call it in what they save


@dataclass(frozen=True)
class TorchOptions:
    """What a state dict around torch.nn.Transformer doesn't say by itself.

    Attributes:
        num_heads: ``nhead`` of the model; no tensor's shape shows it.
        embedding: name of the source embedding, and of the target's if that isn't named.
        target_embedding: name of the target embedding where it is another matrix.
        generator: name of the projection to the vocabulary, without ".weight" or ".bias"; None where the target
            embedding is used again.
        prefix: what stands before "encoder.layers…".
        ignore: names of further tensors that are to be dropped, such as a stored table of sinusoids; commas between.
        norm_first: as the model had it; False normalises after each sub-layer, as the paper does.
        activation: "relu" or "gelu", the model's own.
        layer_norm_eps: the model's own; torch's default is 1e-5.
        dropout: probability, for further training; torch's default is 0.1.
        scale_embedding: whether embeddings are multiplied by √d_model before positions are added.
        position_embedding_type: "sinusoidal" (the paper's; most tutorials'), "sinusoidal_t2t" or "learned".
        positions: name of the learned table of positions, and of the target's if that isn't named.
        target_positions: name of the target's table where it is another matrix.
        position_offset: index of the first position.
        pad_token_id, bos_token_id, eos_token_id, unk_token_id: special ids of the vocabulary; -1 where there is none.
        decoder_start_token_id: first decoder input; None is ``bos_token_id``.
    """

    num_heads: int = 8
    embedding: str = "embedding.weight"
    target_embedding: str | None = None
    generator: str | None = None
    prefix: str = ""
    ignore: str = ""
    norm_first: bool = False
    activation: str = "relu"
    layer_norm_eps: float = 1e-5
    dropout: float = 0.1
    scale_embedding: bool = True
    position_embedding_type: str = "sinusoidal"
    positions: str | None = None
    target_positions: str | None = None
    position_offset: int = 0
    pad_token_id: int = 0
    bos_token_id: int = 1
    eos_token_id: int = 2
    unk_token_id: int = 3
    decoder_start_token_id: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "TorchOptions":
        """Make options of names and values, which may be strings, as a command line has them.

        Raises:
            ValueError: If a name is unknown or a value is of the wrong kind.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(f"there is no option {', '.join(unknown)}; the options are: {', '.join(fields)}")
        if "num_heads" not in values:
            raise ValueError("num_heads is not in a state dict; give it as an option, e.g. num_heads=8")
        return cls(**{name: _parse(name, value, fields[name].type) for name, value in values.items()})


def read_torch(source: Path, options: Mapping[str, Any]) -> ImportedCheckpoint:
    """Read a state dict of a model around torch.nn.Transformer.

    Args:
        source: a file of torch.save or safetensors, or a directory with only one.
        options: see `TorchOptions`.

    Raises:
        ValueError: If something in it can't be expressed or is missing; the message lists everything.
    """
    chosen = TorchOptions.of(options)
    path = _state_dict_file(source)
    tensors = _unwrap(path)
    problems: list[str] = []
    named = [chosen.embedding, chosen.target_embedding, chosen.positions, chosen.target_positions]
    named += [chosen.generator and f"{chosen.generator}.weight", *_ignored(chosen)]
    absent = [name for name in named if name and name not in tensors]
    if absent:
        problems.append(f"it has no tensor named {', '.join(absent)}")
    renamed = rename_keys(_split_fused(tensors), _key_map(chosen), problems)
    learned = chosen.position_embedding_type == "learned"
    if learned != (chosen.positions is not None):
        problems.append("position_embedding_type='learned' and the name of a table, positions=…, go together")
    if not problems:
        if TARGET_EMBEDDING not in renamed:
            renamed[TARGET_EMBEDDING] = renamed[SOURCE_EMBEDDING]
        if learned:
            renamed.setdefault(_TARGET_POSITIONS, renamed[_SOURCE_POSITIONS].clone())
        sizes = _sizes(renamed, problems)
    if not problems:
        vocabularies = len(renamed[SOURCE_EMBEDDING]), len(renamed[TARGET_EMBEDDING])
        tying = detect_tying(renamed)
        try:
            start = chosen.bos_token_id if chosen.decoder_start_token_id is None else chosen.decoder_start_token_id
            config = VanillaTransformerConfig(
                vocab_size=vocabularies[0],
                decoder_vocab_size=None if tying["share_encoder_decoder_embeddings"] else vocabularies[1],
                num_heads=chosen.num_heads,
                dropout=chosen.dropout,
                attention_dropout=chosen.dropout,  # torch's layers use the one number in all three places
                activation_dropout=chosen.dropout,
                activation_function=chosen.activation,
                norm_position="pre" if chosen.norm_first else "post",
                final_norm="model.encoder.final_norm.weight" in renamed,
                layer_norm_eps=chosen.layer_norm_eps,
                attention_bias="model.encoder.layers.0.self_attn.q_proj.bias" in renamed,
                output_bias=OUTPUT_BIAS in renamed,
                scale_embedding=chosen.scale_embedding,
                position_embedding_type=chosen.position_embedding_type,
                position_offset=chosen.position_offset,
                max_position_embeddings=len(renamed[_SOURCE_POSITIONS]) if learned else 1024,
                pad_token_id=_or_none(chosen.pad_token_id),
                bos_token_id=_or_none(chosen.bos_token_id),
                eos_token_id=_or_none(chosen.eos_token_id),
                unk_token_id=_or_none(chosen.unk_token_id),
                decoder_start_token_id=_or_none(start),
                **sizes,
                **tying,
            )
            _fill_absent_biases(renamed, config)
            check_complete(renamed, config, problems)
        except ValueError as error:
            problems.append(str(error))
    refuse(path, "from torch.nn.Transformer", problems)
    generation = GenerationConfig(
        max_length=DEFAULT_MAX_LENGTH,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    return ImportedCheckpoint(config, {name: tensor.contiguous() for name, tensor in renamed.items()}, generation)


def write_torch(source: Path, directory: Path, options: Mapping[str, Any]) -> None:
    """Write one of our checkpoints as ``model.safetensors`` under the names of a model around torch.nn.Transformer.

    Args:
        source: our checkpoint.
        directory: an empty one.
        options: the names, as in `TorchOptions`; what the checkpoint itself says must agree with the others.

    Raises:
        ValueError: If torch.nn.Transformer can't express it; the message lists everything.
    """
    own = read_own(source)
    save_file(
        {name: tensor.clone() for name, tensor in to_torch_state_dict(own.config, own.tensors, options).items()},
        directory / "model.safetensors",
    )


def to_torch_state_dict(
    config: VanillaTransformerConfig, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Give our tensors the names of a model around torch.nn.Transformer, with its fused projections.

    Args:
        config: of the checkpoint.
        tensors: our names, tied matrices once or several times.
        options: the names, as in `TorchOptions`.

    Returns:
        A state dict; without attention biases its attentions have none, but the rest has.

    Raises:
        ValueError: If torch.nn.Transformer can't express it; the message lists everything.
    """
    chosen = TorchOptions.of({"num_heads": config.num_heads, **options})
    problems = []
    heads_width = config.d_model / config.num_heads
    for name, value in {"key_dim": heads_width, "value_dim": heads_width, "attention_bias": True}.items():
        if getattr(config, name) != value:
            problems.append(f"{name} is {getattr(config, name)!r}, which in torch.nn.Transformer is {value!r}")
    if chosen.generator is None and not config.tie_word_embeddings:
        problems.append("the output projection is a matrix of its own and needs a name, generator=…")
    if chosen.generator is None and config.output_bias:
        problems.append("the output's bias needs a name, generator=…")
    if chosen.target_embedding is None and not config.share_encoder_decoder_embeddings:
        problems.append("the target embedding is a matrix of its own and needs a name, target_embedding=…")
    if config.position_embedding_type == "learned" and (chosen.positions is None or chosen.target_positions is None):
        problems.append("the learned positions need names, positions=… and target_positions=…")
    refuse("the checkpoint", "to torch.nn.Transformer", problems)
    spelled = untie({name: tensors[name] for name in expected_shapes(config)}, config)
    if chosen.target_embedding is None:
        del spelled[TARGET_EMBEDDING]
    if chosen.generator is None:
        spelled.pop(OUTPUT_PROJECTION, None)
    return _fuse(restore_keys(spelled, _key_map(chosen)))


# --------------------------------------------------------------------------- names


def _key_map(options: TorchOptions) -> KeyMap:
    key_map = dict(with_prefix(options.prefix, _STACKS))
    key_map[options.embedding] = SOURCE_EMBEDDING
    if options.target_embedding is not None:
        key_map[options.target_embedding] = TARGET_EMBEDDING
    if options.generator is not None:
        key_map[f"{options.generator}.weight"] = OUTPUT_PROJECTION
        key_map[f"{options.generator}.bias"] = OUTPUT_BIAS
    if options.positions is not None:
        key_map[options.positions] = _SOURCE_POSITIONS
    if options.target_positions is not None:
        key_map[options.target_positions] = _TARGET_POSITIONS
    return key_map | dict.fromkeys(_ignored(options))


def _ignored(options: TorchOptions) -> list[str]:
    return [name.strip() for name in options.ignore.split(",") if name.strip()]


def _split_fused(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split in_proj_weight (3D, D) and in_proj_bias (3D,) into query, key and value."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for kind in ("weight", "bias"):
            if name.endswith(f".in_proj_{kind}") and len(tensor) % 3 == 0:
                stem = name.removesuffix(f"in_proj_{kind}")
                for projection, part in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
                    split[f"{stem}{projection}.{kind}"] = part
                break
        else:
            split[name] = tensor
    return split


def _fuse(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `_split_fused`."""
    fused: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        if stem.endswith("_attn.q_proj"):
            stem = stem.removesuffix("q_proj")
            parts = [tensors[f"{stem}{projection}.{kind}"] for projection in ("q_proj", "k_proj", "v_proj")]
            fused[f"{stem}in_proj_{kind}"] = torch.cat(parts)
        elif not stem.endswith(("_attn.k_proj", "_attn.v_proj")):
            fused[name] = tensor
    return fused


# --------------------------------------------------------------------------- what the tensors show


def _sizes(renamed: Mapping[str, Tensor], problems: list[str]) -> dict[str, Any]:
    """Read the architecture's sizes off the tensors."""
    layers = {
        stack: 1
        + max(
            (int(name.split(".")[3]) for name in renamed if name.startswith(f"model.{stack}.layers.")),
            default=-1,
        )
        for stack in ("encoder", "decoder")
    }
    inner = renamed.get("model.encoder.layers.0.feed_forward.w_1.weight")
    if inner is None or 0 in layers.values():
        problems.append("it has no layers of torch.nn.Transformer; what stands before encoder.layers… is the prefix")
        return {}
    return {
        "d_model": inner.shape[1],
        "d_ff": inner.shape[0],
        "encoder_layers": layers["encoder"],
        "decoder_layers": layers["decoder"],
    }


def _fill_absent_biases(renamed: dict[str, Tensor], config: VanillaTransformerConfig) -> None:
    """Add zeros where torch.nn.Transformer(bias=False) has no biases and our layers always have."""
    if any(name.endswith(("w_1.bias", "w_2.bias", "_norm.bias")) for name in renamed):
        return
    dtype = renamed[SOURCE_EMBEDDING].dtype
    for name, shape in expected_shapes(config).items():
        if name.endswith(("w_1.bias", "w_2.bias", "_norm.bias")):
            renamed.setdefault(name, torch.zeros(shape, dtype=dtype))


def _state_dict_file(source: Path) -> Path:
    if not source.exists():
        raise FileNotFoundError(f"there is no file or directory {source}")
    if source.is_file():
        return source
    found = sorted(path for path in source.iterdir() if path.suffix in {".pt", ".pth", ".bin", ".safetensors"})
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(f"{source} has not one file of weights but {names}; name the file itself")
    return found[0]


def _unwrap(path: Path) -> dict[str, Tensor]:
    """Read a state dict, also where it lies under a usual name among a training script's other things."""
    if path.suffix == ".safetensors":
        return read_weight_file(path)
    content = read_pickle(path)
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds something else than tensors by name; save the model's state_dict()")
    return dict(content)


def _or_none(token_id: int) -> int | None:
    return None if token_id == -1 else token_id


def _parse(name: str, value: Any, kind: Any) -> Any:
    """Turn a command line's string into what the field takes, and check the others."""
    if isinstance(value, str) and kind is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{name}={value!r} is not a truth value; choose true or false")
        return value.lower() == "true"
    number = int if kind in (int, int | None) else float if kind is float else None
    if number is not None and value is not None:
        if isinstance(value, bool):
            raise ValueError(f"{name}={value!r} is not a number")
        try:
            return number(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}={value!r} is not a number") from error
    if number is None and not isinstance(value, bool if kind is bool else str) and value is not None:
        raise ValueError(f"{name}={value!r} is not {'a truth value' if kind is bool else 'a name'}")
    return value


__all__ = ["TorchOptions", "read_torch", "to_torch_state_dict", "write_torch"]
