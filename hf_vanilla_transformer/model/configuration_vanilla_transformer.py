# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The architecture of the original Transformer as a Hugging Face configuration.

The configuration holds the architecture only: optimization and label smoothing belong to the training arguments,
decoding to `BeamSearchConfig` and generation_config.json. The defaults are the paper's base model (Table 3, first row);
each deviation from the paper is a field of its own.
"""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

FORMAT = 1  # version of config.json; incremented when older versions of this code cannot read new checkpoints
FORMAT_KEY = "vanilla_transformer_format"

# Fields that were renamed: the old name is read from config.json; as an argument it raises an error.
SUCCESSORS: dict[str, str] = {
    "position_embedding": "position_embedding_type",
    "target_vocab_size": "decoder_vocab_size",
    "tie_source_target": "share_encoder_decoder_embeddings",
}

MAX_PARAMETERS = 10**11  # larger models are rejected before memory is allocated

NORM_POSITIONS = ("post", "pre")
POSITION_EMBEDDINGS = ("sinusoidal", "sinusoidal_t2t", "learned")

# What transformers writes into config.json or passes in addition to the fields. Any other argument is a typo; any other
# key in a file was written by another tool or a later version, and is kept.
_KNOWN_EXTRA_KEYS = frozenset(
    {
        FORMAT_KEY,
        "_attn_implementation",
        "_attn_implementation_internal",
        "_commit_hash",
        "_experts_implementation_internal",
        "_name_or_path",
        "attn_implementation",
        "auto_map",
        "custom_pipelines",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "per_layer_config",
        "quantization_config",
        "torch_dtype",
    }
)


class VanillaTransformerConfig(PreTrainedConfig):
    """Configuration of the Transformer of Vaswani et al. (2017).

    Args:
        vocab_size: number of source tokens, and of target tokens if both sides share one vocabulary (§3.4, §5.1).
        decoder_vocab_size: number of target tokens; None: source and target share one vocabulary of ``vocab_size``.
        d_model: width of every sub-layer's input and output (§3.1).
        d_ff: inner width of the feed-forward network (§3.3).
        num_heads: attention heads h (§3.2.2).
        d_k: width of a head's queries and keys; None is ``d_model / num_heads`` (§3.2.2; varied in Table 3, rows B).
        d_v: width of a head's values; None is ``d_model / num_heads``.
        encoder_layers: number N of encoder layers (§3.1).
        decoder_layers: number N of decoder layers (§3.1).
        dropout: dropout probability of each sub-layer's output and of the sums of embedding and position (§5.4).
        attention_dropout: dropout probability of the attention weights; 0 in the paper.
        activation_dropout: dropout probability inside the feed-forward network; 0 in the paper.
        activation_function: the feed-forward network's activation: ReLU (§3.3, Eq. 2); Marian uses "swish".
        norm_position: "post" is the paper's LayerNorm(x + Dropout(Sublayer(x))) (§3.1, §5.4); "pre" normalizes the
            sub-layer's input instead, as later toolkits do.
        final_norm: whether each stack ends with one more LayerNorm, as in later pre-norm toolkits and
            torch.nn.Transformer.
        layer_norm_eps: added to the variance; 1e-6 is Tensor2Tensor's value, 1e-5 torch's.
        attention_bias: whether the four attention projections have biases; the paper has none.
        output_bias: whether the output projection has a bias; the paper has none, Marian has one.
        scale_embedding: whether embeddings are multiplied by √d_model (§3.4).
        position_embedding_type: "sinusoidal" interleaves sine and cosine (§3.5); "sinusoidal_t2t" is the variant of
            Tensor2Tensor and fairseq (first sines, then cosines; other frequencies); "learned" is Table 3, row E.
        max_position_embeddings: number of learned positions; sinusoids have no limit.
        position_offset: index of the first position; fairseq starts at padding index + 1.
        share_encoder_decoder_embeddings: whether source and target embedding are one matrix (§3.4), which needs one
            shared vocabulary.
        tie_word_embeddings: whether target embedding and output projection are one matrix (§3.4).
        pad_token_id: padding; never attended to.
        bos_token_id: beginning of a sequence.
        eos_token_id: end of a sequence.
        unk_token_id: unknown token.
        decoder_start_token_id: first decoder input; the target is shifted right by one position (§3.1).
        use_cache: whether decoding reuses the keys and values of earlier steps.

    The names in ``attribute_map`` (of BART and Marian) are accepted for the same fields; encoder and decoder have one
    width and one number of heads.

    Raises:
        ValueError: If a field is unknown, out of range or in conflict with another; the message has a valid choice.
    """

    model_type: ClassVar[str] = "vanilla_transformer"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache", "past_key_values", "nll"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "encoder_layers",
        "encoder_attention_heads": "num_heads",
        "decoder_attention_heads": "num_heads",
        "encoder_ffn_dim": "d_ff",
        "decoder_ffn_dim": "d_ff",
    }
    base_model_tp_plan: ClassVar[dict[str, Any] | None] = {
        **{
            f"{stack}.layers.*.{attention}.{projection}": "rowwise" if projection == "out_proj" else "colwise"
            for stack, attention in (("encoder", "self_attn"), ("decoder", "self_attn"), ("decoder", "cross_attn"))
            for projection in ("q_proj", "k_proj", "v_proj", "out_proj")
        },
        **{f"{stack}.layers.*.feed_forward.w_1": "colwise" for stack in ("encoder", "decoder")},
        **{f"{stack}.layers.*.feed_forward.w_2": "rowwise" for stack in ("encoder", "decoder")},
    }

    vocab_size: int = 37000
    decoder_vocab_size: int | None = None
    d_model: int = 512
    d_ff: int = 2048
    num_heads: int = 8
    d_k: int | None = None
    d_v: int | None = None
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    activation_function: str = "relu"
    norm_position: str = "post"
    final_norm: bool = False
    layer_norm_eps: float = 1e-6
    attention_bias: bool = False
    output_bias: bool = False
    scale_embedding: bool = True
    position_embedding_type: str = "sinusoidal"
    max_position_embeddings: int = 1024
    position_offset: int = 0
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    unk_token_id: int | None = 3
    decoder_start_token_id: int | None = 1
    use_cache: bool = True
    is_encoder_decoder: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self._check_keywords(kwargs)
        self._set_aliased_fields(kwargs)
        kwargs.pop("custom_pipelines", None)  # a property with the same value for every model
        kwargs.pop(FORMAT_KEY, None)
        if not type(self).__module__.startswith("transformers_modules."):
            kwargs.pop("auto_map", None)  # refers to remote code, which the installed classes do not save
        super().__post_init__(**kwargs)
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size == self.vocab_size:
            self.decoder_vocab_size = None  # a shared vocabulary has one size, so that resizing changes both
        self.validate_architecture()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from the contents of config.json; see `PreTrainedConfig.from_dict`.

        Keys that neither this class nor transformers knows were written by another tool or a later version: they are
        kept, written again by `to_dict`, and logged once. Fields under an old name are read and logged once.

        Args:
            config_dict: the contents of config.json.
            **kwargs: fields to change, and arguments of `PreTrainedConfig.from_dict`.

        Raises:
            ValueError: If the file's format is newer than this code, two names of one field have different values, or
                a keyword argument is an old name or a misspelled field.
        """
        _check_format(config_dict)
        config_dict = with_current_names(config_dict)
        known = {field.name for field in dataclasses.fields(cls)} | _KNOWN_EXTRA_KEYS | set(cls.attribute_map)
        foreign = {key: value for key, value in config_dict.items() if key not in known}
        _check_renamed(cls.__name__, kwargs)
        for key in sorted(set(kwargs) - known):
            if near := difflib.get_close_matches(key, _OWN_FIELDS, n=1, cutoff=0.8):
                raise ValueError(f"{cls.__name__} has no field {key!r}; did you mean {near[0]!r}?")
        if foreign:
            logger.warning_once(
                f"config.json has keys that {cls.__name__} does not use and keeps unchanged: {', '.join(foreign)}"
            )
        built = super().from_dict({key: value for key, value in config_dict.items() if key in known}, **kwargs)
        config = built[0] if isinstance(built, tuple) else built  # in the tuple, with the unused keywords
        config._foreign_keys = foreign
        return built

    @classmethod
    def from_json_file(cls, json_file: Any) -> Any:
        """Build a configuration from a JSON file; see `from_dict`."""
        return cls.from_dict(json.loads(Path(json_file).read_text(encoding="utf-8")))

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of config.json: the fields, the format's version, and the unknown keys that were read.

        ``custom_pipelines`` refers to a file; it is added by `write_code`, which also copies that file.
        """
        known = ({field.name for field in dataclasses.fields(self)} | _KNOWN_EXTRA_KEYS) - {"custom_pipelines"}
        fields = {name: value for name, value in super().to_dict().items() if name in known}
        return {**getattr(self, "_foreign_keys", {}), **fields, FORMAT_KEY: FORMAT}

    @property
    def custom_pipelines(self) -> dict[str, dict[str, Any]]:
        """The entry that makes pipeline("translation") load `TranslationPipeline`; transformers 5 has none of its own.

        Each access returns a new dictionary, because transformers replaces the names in it by classes, which cannot be
        written to config.json.
        """
        implementation = "pipeline_vanilla_transformer.TranslationPipeline"
        return {"translation": {"impl": implementation, "pt": ["AutoModelForSeq2SeqLM"]}}

    # ------------------------------------------------------------------ derived sizes

    @property
    def key_dim(self) -> int:
        """Width d_k of one head's queries and keys."""
        return self.d_k if self.d_k is not None else self.d_model // self.num_heads

    @property
    def value_dim(self) -> int:
        """Width d_v of one head's values."""
        return self.d_v if self.d_v is not None else self.d_model // self.num_heads

    @property
    def output_vocab_size(self) -> int:
        """Number of target tokens: rows of the target embedding and of the output projection."""
        return self.decoder_vocab_size if self.decoder_vocab_size is not None else self.vocab_size

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """Return the configuration of one side; see `PreTrainedConfig.get_text_config`.

        For the decoder the base class copies ``decoder_vocab_size`` to ``vocab_size``, also if it is None.
        """
        config = super().get_text_config(decoder=decoder, encoder=encoder)
        if config.vocab_size is None:
            config.vocab_size = self.output_vocab_size
        return config

    def count_parameters(self) -> int:
        """Compute the number of parameters of the full model, tied matrices counted once, without building it."""
        d, h = self.d_model, self.num_heads
        attention = 2 * d * h * self.key_dim + 2 * d * h * self.value_dim
        if self.attention_bias:
            attention += 2 * h * self.key_dim + h * self.value_dim + d
        feed_forward = 2 * d * self.d_ff + self.d_ff + d
        layer_norm = 2 * d
        stacks = self.encoder_layers * (attention + feed_forward + 2 * layer_norm)
        stacks += self.decoder_layers * (2 * attention + feed_forward + 3 * layer_norm)
        stacks += 2 * layer_norm if self.final_norm else 0
        vocabularies = self.vocab_size * d
        vocabularies += 0 if self.share_encoder_decoder_embeddings else self.output_vocab_size * d
        vocabularies += 0 if self.tie_word_embeddings else self.output_vocab_size * d
        vocabularies += self.output_vocab_size if self.output_bias else 0
        positions = 2 * self.max_position_embeddings * d if self.position_embedding_type == "learned" else 0
        return stacks + vocabularies + positions

    # ------------------------------------------------------------------ validation

    def _check_keywords(self, kwargs: dict[str, Any]) -> None:
        """Reject unknown keywords, which the base class would store: a misspelled field would keep its default."""
        _check_renamed(type(self).__name__, kwargs)
        unknown = sorted(set(kwargs) - _KNOWN_EXTRA_KEYS - set(self.attribute_map))
        if unknown:
            known = [field.name for field in dataclasses.fields(type(self)) if field.name in _OWN_FIELDS]
            near = [name for key in unknown for name in difflib.get_close_matches(key, known, n=1)]
            hint = f"did you mean {' and '.join(map(repr, near))}? " if near else ""
            raise ValueError(
                f"{type(self).__name__} has no field {', '.join(map(repr, unknown))}; {hint}the fields are: "
                f"{', '.join(known)}. Training settings belong to the training arguments, decoding settings to "
                "generation_config.json."
            )

    def _set_aliased_fields(self, kwargs: dict[str, Any]) -> None:
        """Move the keywords that are in ``attribute_map`` to their fields."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: getattr(self, name) for name in defaults if getattr(self, name) != defaults[name]}
        for alias in sorted(set(kwargs) & set(self.attribute_map)):
            name, value = self.attribute_map[alias], kwargs.pop(alias)
            if given.setdefault(name, value) != value:
                raise ValueError(
                    f"{alias}={value!r} and {name}={given[name]!r} are two names for the same field and conflict; give "
                    f"only {name}"
                )
            setattr(self, name, value)

    def validate_architecture(self) -> None:
        """Check the value of each field, then that the fields fit together.

        Raises:
            ValueError: If a value is invalid; the message has the field, its value and what to choose instead.
        """
        super().validate_architecture()
        self._validate_types_and_ranges()
        self._validate_heads_and_positions()
        self._validate_vocabularies()
        if (parameters := self.count_parameters()) > MAX_PARAMETERS:
            raise ValueError(
                f"this configuration has {parameters:,} parameters, more than the limit of {MAX_PARAMETERS:,}; "
                "lower vocab_size, d_model, d_ff or the numbers of layers"
            )

    def _validate_types_and_ranges(self) -> None:
        for name in ("vocab_size", "d_model", "d_ff", "num_heads", "max_position_embeddings"):
            _check_whole_number(name, getattr(self, name), minimum=1)
        for name in ("encoder_layers", "decoder_layers", "position_offset"):
            _check_whole_number(name, getattr(self, name), minimum=0 if name == "position_offset" else 1)
        for name in ("decoder_vocab_size", "d_k", "d_v"):
            if getattr(self, name) is not None:
                _check_whole_number(name, getattr(self, name), minimum=1)
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            _check_number(name, getattr(self, name))
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)} is not a probability; choose 0 ≤ {name} < 1, e.g. 0.1")
        _check_number("layer_norm_eps", self.layer_norm_eps)
        if not 0.0 < self.layer_norm_eps <= 1.0:
            raise ValueError(f"layer_norm_eps={self.layer_norm_eps} must be small and positive; choose e.g. 1e-6")
        for name in _BOOLEAN_FIELDS:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} is not a boolean; choose True or False")
        _check_choice("norm_position", self.norm_position, NORM_POSITIONS)
        _check_choice("position_embedding_type", self.position_embedding_type, POSITION_EMBEDDINGS)
        from transformers.activations import ACT2FN  # imported here because it imports torch

        if self.activation_function not in ACT2FN:
            raise ValueError(
                f"activation_function={self.activation_function!r} is not an activation function of transformers; "
                "choose 'relu' (the paper's), 'gelu' or 'swish'"
            )

    def _validate_heads_and_positions(self) -> None:
        for name in ("d_k", "d_v"):
            if getattr(self, name) is None and self.d_model % self.num_heads:
                lower = self.d_model - self.d_model % self.num_heads
                nearest = " or ".join(str(n) for n in (lower, lower + self.num_heads) if n)
                raise ValueError(
                    f"d_model={self.d_model} is not divisible by num_heads={self.num_heads}; choose a multiple of "
                    f"{self.num_heads}, e.g. {nearest}, or give {name} itself"
                )
        if self.position_embedding_type != "learned" and self.d_model % 2:
            raise ValueError(
                f"d_model={self.d_model} is odd, but a sinusoidal encoding has as many sines as cosines; choose "
                f"{self.d_model + 1} or position_embedding_type='learned'"
            )
        if self.position_embedding_type == "sinusoidal_t2t" and self.d_model < 4:
            raise ValueError(
                f"d_model={self.d_model} is too small for position_embedding_type='sinusoidal_t2t'; choose ≥ 4"
            )
        if self.position_embedding_type == "learned" and self.position_offset >= self.max_position_embeddings:
            raise ValueError(
                f"position_offset={self.position_offset} leaves no position of max_position_embeddings="
                f"{self.max_position_embeddings}; choose a smaller offset or more positions"
            )

    def _validate_vocabularies(self) -> None:
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size is not None:
            raise ValueError(
                "share_encoder_decoder_embeddings=True needs one vocabulary, but decoder_vocab_size="
                f"{self.decoder_vocab_size} differs from vocab_size={self.vocab_size}; choose "
                "share_encoder_decoder_embeddings=False or decoder_vocab_size=None"
            )
        both = min(self.vocab_size, self.output_vocab_size)
        limits = {  # size of the vocabulary that the id belongs to
            "pad_token_id": both,
            "bos_token_id": both,
            "eos_token_id": both,
            "unk_token_id": both,
            "decoder_start_token_id": self.output_vocab_size,
        }
        for name, limit in limits.items():
            value = getattr(self, name)
            for token_id in value if isinstance(value, list) else [value]:
                if token_id is None:
                    continue
                _check_whole_number(name, token_id, minimum=0)
                if token_id >= limit:
                    raise ValueError(
                        f"{name}={token_id} is outside a vocabulary of {limit} tokens; choose one from 0 to {limit - 1}"
                    )


_OWN_FIELDS = frozenset(VanillaTransformerConfig.__annotations__)
_BOOLEAN_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(VanillaTransformerConfig)
    if field.name in _OWN_FIELDS and field.type is bool
)


def _check_format(config_dict: dict[str, Any]) -> None:
    """Reject a file of a newer format."""
    number = config_dict.get(FORMAT_KEY, FORMAT)
    if not isinstance(number, int) or isinstance(number, bool) or number > FORMAT:
        raise ValueError(
            f"config.json has {FORMAT_KEY} {number!r}, but this version supports up to {FORMAT}; update "
            "hf_vanilla_transformer, or load the repository's own code with trust_remote_code=True"
        )


def with_current_names(config_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json with renamed fields and aliases under the fields' current names.

    Raises:
        ValueError: If two names of one field have different values.
    """
    names = {**SUCCESSORS, **VanillaTransformerConfig.attribute_map}
    current = {key: value for key, value in config_dict.items() if key not in names}
    for key in (key for key in config_dict if key in names):
        name, value = names[key], config_dict[key]
        if current.setdefault(name, value) != value:
            raise ValueError(
                f"config.json has {key}={value!r} and {name}={current[name]!r}, two names of one field; remove {key!r}"
            )
    renamed = {key: SUCCESSORS[key] for key in config_dict if key in SUCCESSORS}
    if renamed:
        listed = ", ".join(f"{old!r} is now {new!r}" for old, new in renamed.items())
        logger.warning_once(
            f"config.json was written by an earlier version: {listed}; save the model again to update it"
        )
    return current


def _check_renamed(name: str, kwargs: dict[str, Any]) -> None:
    """Reject keyword arguments under an old name."""
    for key in sorted(set(kwargs) & set(SUCCESSORS)):
        raise ValueError(f"{name} has no field {key!r}; it is called {SUCCESSORS[key]!r} now")


def _check_whole_number(name: str, value: Any, minimum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is not an integer; choose an integer ≥ {minimum}")
    if value < minimum:
        raise ValueError(f"{name}={value} is too small; choose an integer ≥ {minimum}")


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is not a number")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}")


__all__ = ["VanillaTransformerConfig", "with_current_names"]
