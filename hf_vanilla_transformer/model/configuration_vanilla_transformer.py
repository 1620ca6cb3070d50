# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The architecture of the original Transformer as a Hugging Face configuration.

Only the architecture lives here. Optimisation belongs to the training arguments, decoding to the generation
configuration, label smoothing to whoever asks for it. Every default is the paper's base model (Table 3, first row);
every deviation is a named field whose comment says who needs it.
"""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

FORMAT = 1  # of config.json; raised when a checkpoint can't be read by older versions of this code any more
FORMAT_KEY = "vanilla_transformer_format"
SUCCESSORS: dict[str, str] = {}  # keys that earlier versions wrote into config.json → what they are called now

MAX_PARAMETERS = 10**11  # parameters; refused above it before anything is allocated

NORM_POSITIONS = ("post", "pre")
POSITION_EMBEDDINGS = ("sinusoidal", "sinusoidal_t2t", "learned")

# What transformers itself writes into config.json or hands over beside the fields. As an argument anything else is a
# typing error; in a file it is another tool's or a later version's, and is kept.
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
        vocab_size: rows of the source embedding, and of the target's where both share one vocabulary (§3.4, §5.1).
        decoder_vocab_size: rows of the target embedding and of the output projection; None shares ``vocab_size``.
        d_model: width of every sub-layer's input and output (§3.1).
        d_ff: inner width of the feed-forward network (§3.3).
        num_heads: attention heads h (§3.2.2).
        d_k: width of a head's queries and keys; None is ``d_model / num_heads`` (§3.2.2; Table 3 B varies it).
        d_v: width of a head's values; None is ``d_model / num_heads``.
        encoder_layers: identical layers N of the encoder stack (§3.1).
        decoder_layers: identical layers N of the decoder stack (§3.1).
        dropout: probability on each sub-layer's output and on the sums of embedding and position (§5.4).
        attention_dropout: probability on the attention weights; not in the paper, so 0.
        activation_dropout: probability inside the feed-forward network; not in the paper, so 0.
        activation_function: the feed-forward network's non-linearity: ReLU (§3.3, Eq. 2); Marian uses "swish".
        norm_position: "post" is the paper's LayerNorm(x + Dropout(Sublayer(x))) (§3.1, §5.4); "pre" normalises the
            sub-layer's input, as later toolkits do.
        final_norm: one more LayerNorm after each stack; later pre-norm toolkits and torch.nn.Transformer have it.
        layer_norm_eps: added to the variance; 1e-6 is Tensor2Tensor's value, 1e-5 torch's.
        attention_bias: biases in the four attention projections; the paper writes none.
        output_bias: a bias on the logits; the paper writes none, Marian has one.
        scale_embedding: multiply embeddings by √d_model (§3.4).
        position_embedding_type: "sinusoidal" interleaves sine and cosine (§3.5); "sinusoidal_t2t" is the variant of
            Tensor2Tensor and fairseq (halves, other frequencies); "learned" is Table 3 E.
        max_position_embeddings: positions a learned table holds; sinusoids have no limit.
        position_offset: index of the first position; fairseq starts at padding index + 1.
        share_encoder_decoder_embeddings: one matrix for source and target embedding (§3.4); needs one shared vocabulary.
        tie_word_embeddings: one matrix for target embedding and output projection (§3.4).
        pad_token_id: id that fills short rows; never attended to.
        bos_token_id: id that starts a sequence.
        eos_token_id: id that ends a sequence.
        unk_token_id: id of what the vocabulary lacks.
        decoder_start_token_id: first decoder input; the outputs are shifted right behind it (§3.1).
        use_cache: whether decoding keeps the keys and values of earlier steps.

    Raises:
        ValueError: If a field is unknown, out of range or at odds with another; the message names the way out.
    """

    model_type: ClassVar[str] = "vanilla_transformer"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache", "past_key_values", "nll"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "encoder_layers",
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
        kwargs.pop("custom_pipelines", None)  # the same for every model, see there
        kwargs.pop(FORMAT_KEY, None)
        if not type(self).__module__.startswith("transformers_modules."):
            kwargs.pop("auto_map", None)  # names code beside the weights, which the installed classes save without
        super().__post_init__(**kwargs)
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size == self.vocab_size:
            self.decoder_vocab_size = None  # one shared vocabulary has one size, which resizing may then change
        self.validate_architecture()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from what config.json holds; see `PreTrainedConfig.from_dict`.

        Keys that neither this class nor transformers knows belong to another tool or a later version: they are kept,
        written again by `to_dict`, and reported once.

        Raises:
            ValueError: If the file's format is newer than this code reads, a key has been superseded, or a keyword
                argument resembles a field and is none.
        """
        _check_format(config_dict)
        known = {field.name for field in dataclasses.fields(cls)} | _KNOWN_EXTRA_KEYS | set(cls.attribute_map)
        foreign = {key: value for key, value in config_dict.items() if key not in known}
        for key in sorted(set(kwargs) - known):
            if near := difflib.get_close_matches(key, _OWN_FIELDS, n=1, cutoff=0.8):
                raise ValueError(f"{cls.__name__} has no field {key!r}; did you mean {near[0]!r}?")
        if foreign:
            logger.warning_once(
                f"config.json has keys that {cls.__name__} doesn't read and keeps as they are: {', '.join(foreign)}"
            )
        built = super().from_dict({key: value for key, value in config_dict.items() if key in known}, **kwargs)
        config = built[0] if isinstance(built, tuple) else built  # with the keywords that are left over
        config._foreign_keys = foreign
        return built

    @classmethod
    def from_json_file(cls, json_file: Any) -> Any:
        """Build a configuration from a JSON file; see `from_dict`."""
        return cls.from_dict(json.loads(Path(json_file).read_text(encoding="utf-8")))

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds: the fields, the format's number, and the keys of others that were read.

        ``custom_pipelines`` names a file, and is written only by who puts that file beside config.json.
        """
        known = ({field.name for field in dataclasses.fields(self)} | _KNOWN_EXTRA_KEYS) - {"custom_pipelines"}
        fields = {name: value for name, value in super().to_dict().items() if name in known}
        return {**getattr(self, "_foreign_keys", {}), **fields, FORMAT_KEY: FORMAT}

    @property
    def custom_pipelines(self) -> dict[str, dict[str, Any]]:
        """What brings pipeline("translation") back, which transformers 5 has removed; a new copy each time.

        transformers puts classes in place of the names, after which config.json could not be written any more.
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
        """Rows of the target embedding and of the output projection."""
        return self.decoder_vocab_size if self.decoder_vocab_size is not None else self.vocab_size

    def count_parameters(self) -> int:
        """Count the parameters of the full model by arithmetic, tied matrices once, without allocating anything."""
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
        """Refuse what the base class would store silently: a misspelt field would leave its default in force."""
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

    def validate_architecture(self) -> None:
        """Check every field alone, then the fields against each other.

        Raises:
            ValueError: Naming the field, its value and what to choose instead.
        """
        super().validate_architecture()
        self._validate_types_and_ranges()
        self._validate_heads_and_positions()
        self._validate_vocabularies()
        if (parameters := self.count_parameters()) > MAX_PARAMETERS:
            raise ValueError(
                f"this configuration has {parameters:,} parameters, more than the {MAX_PARAMETERS:,} that are allowed; "
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
                raise ValueError(f"{name}={getattr(self, name)!r} is not a truth value; choose True or False")
        _check_choice("norm_position", self.norm_position, NORM_POSITIONS)
        _check_choice("position_embedding_type", self.position_embedding_type, POSITION_EMBEDDINGS)
        from transformers.activations import ACT2FN  # here: the import needs torch, reading a config does not

        if self.activation_function not in ACT2FN:
            raise ValueError(
                f"activation_function={self.activation_function!r} is not known to transformers; choose 'relu' (the "
                "paper's), 'gelu' or 'swish'"
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
                f"d_model={self.d_model} is odd, but sinusoids come in pairs of sine and cosine; choose "
                f"{self.d_model + 1} or position_embedding_type='learned'"
            )
        if self.position_embedding_type == "sinusoidal_t2t" and self.d_model < 4:
            raise ValueError(
                f"d_model={self.d_model} is too small for position_embedding_type='sinusoidal_t2t'; choose ≥ 4"
            )
        if self.position_embedding_type == "learned" and self.position_offset >= self.max_position_embeddings:
            raise ValueError(
                f"position_offset={self.position_offset} leaves no position of max_position_embeddings="
                f"{self.max_position_embeddings}; choose a smaller offset or a larger table"
            )

    def _validate_vocabularies(self) -> None:
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size is not None:
            raise ValueError(
                f"share_encoder_decoder_embeddings=True shares one matrix, but decoder_vocab_size={self.decoder_vocab_size} differs "
                f"from vocab_size={self.vocab_size}; choose share_encoder_decoder_embeddings=False or leave decoder_vocab_size out"
            )
        both = min(self.vocab_size, self.output_vocab_size)
        limits = {  # which vocabulary an id has to be in
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
    """Refuse a file of a newer format, and keys of an older one, which would leave a default in force."""
    number = config_dict.get(FORMAT_KEY, FORMAT)
    if not isinstance(number, int) or isinstance(number, bool) or number > FORMAT:
        raise ValueError(
            f"config.json has {FORMAT_KEY} {number!r}, and this version reads up to {FORMAT}; update "
            "hf_vanilla_transformer, or load the repository's own code with trust_remote_code=True"
        )
    superseded = {key: SUCCESSORS[key] for key in config_dict if key in SUCCESSORS}
    if superseded:
        renamed = ", ".join(f"{old!r} is now {new!r}" for old, new in superseded.items())
        raise ValueError(f"config.json was written by an earlier version: {renamed}; rename it in the file")


def _check_whole_number(name: str, value: Any, minimum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is not a whole number; choose an integer ≥ {minimum}")
    if value < minimum:
        raise ValueError(f"{name}={value} is too small; choose an integer ≥ {minimum}")


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is not a number")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}")


__all__ = ["VanillaTransformerConfig"]
