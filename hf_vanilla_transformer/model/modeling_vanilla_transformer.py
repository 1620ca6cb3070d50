# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The Transformer of the layers file as Hugging Face models: inputs, masks, caches, tying, initialisation, loss.

What the paper says stands in the layers file; here stands what `from_pretrained`, `generate`, Trainer and accelerate
ask of a model. The paper's §3.4 (embeddings) and §5.4 (dropout on the sums) are in `_InputRepresentation`.
"""

# Shapes: B batch · S source length · T target length · P cached positions · D d_model · H heads · K d_k · V vocabulary

import difflib
import inspect
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_flash_attention_utils import FlashAttentionKwargs
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_vanilla_transformer import VanillaTransformerConfig
from .layers_vanilla_transformer import (
    DecoderLayer,
    Dropout,
    EncoderLayer,
    MultiHeadAttention,
    PositionalEncoding,
    scaled_dot_product_attention,
)
from .loss_vanilla_transformer import IGNORE_INDEX, linear_cross_entropy, token_cross_entropy, waits_for_device

DEFAULT_MAX_LENGTH = 512  # tokens that plain generate() may write, the start symbol included

# The name of the cache in the outputs and mask functions of the installed transformers. 5.24 renamed
# `past_key_values`; constructing or reading an output with the other name fails before it and warns after it.
CACHE_NAME = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"


@dataclass
class VanillaTransformerSeq2SeqLMOutput(Seq2SeqLMOutput):
    """Hugging Face's output with the true negative log-likelihood beside the loss.

    Attributes:
        nll: negative log-likelihood of the labels in nats, divided by what the loss is divided by, without label
            smoothing and without a gradient; exp(nll) is the paper's perplexity. None without labels.
    """

    nll: Tensor | None = None


class _LossKwargs(TransformersKwargs, total=False):
    """Keywords of the head's forward. Trainer takes every *parameter* with "label" in its name for a column of labels
    and, not finding it in a batch, reports no evaluation loss; a keyword in here it doesn't see.
    """

    label_smoothing: float
    return_logits: bool


# --------------------------------------------------------------------------- keywords

# What callers pass to `forward` beside its parameters; anything else is a typing error that would change nothing.
_KNOWN_KEYWORDS = frozenset(
    {
        *TransformersKwargs.__annotations__,
        *FlashAttentionKwargs.__annotations__,
        *_LossKwargs.__annotations__,
        "return_dict",  # everybody; `can_return_tuple` takes it where it is called first
        "shift_labels",  # Trainer's context parallelism, which shifts labels itself
        "debug_io",  # these three: transformers' model_debugging_utils, read by `merge_with_config_defaults`
        "debug_io_dir",
        "prune_layers",
    }
)


def _refuse_unknown_keywords(forward: Callable, keywords: Mapping[str, Any]) -> None:
    """Refuse keywords that nobody reads; one whose value is None asks for nothing and passes.

    Raises:
        ValueError: Naming each of them, and the known keyword that it resembles.
    """
    unknown = [name for name, value in keywords.items() if name not in _KNOWN_KEYWORDS and value is not None]
    if not unknown:
        return
    known = {*inspect.signature(forward).parameters, *_KNOWN_KEYWORDS} - {"self", "kwargs"}
    near = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    named = [f"{name!r}" + (f" (did you mean {found[0]!r}?)" if found else "") for name, found in near.items()]
    raise ValueError(f"forward() has no argument {', '.join(named)}; leave it out, or drop that column from the batch")


# --------------------------------------------------------------------------- attention with caches and fast kernels


def _one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """Return the cache that was given under either of its two names.

    Under `generate` of 5.24, PEFT (0.21) adds its tuned prefix under the old name at every step, beside the cache that
    `generate` keeps. The prefix counts at the first step, where that cache is still empty; later ones hold it already.

    Raises:
        ValueError: If both names were given with different objects, other than such a prefix.
    """
    if past_key_values is None:
        return cache
    if cache is not None and cache is not past_key_values:
        if not _is_tuned_prefix(past_key_values):
            raise ValueError("cache and past_key_values are two names of one argument; give only one of them")
        return past_key_values if cache.get_seq_length() == 0 else cache
    if CACHE_NAME == "cache" and not torch.compiler.is_compiling():
        warnings.warn("`past_key_values` is deprecated; use `cache` instead", FutureWarning, stacklevel=2)
    return past_key_values


def _is_tuned_prefix(cache: Cache) -> bool:
    """Return whether a cache holds target positions that no step of a decoder has filled in."""
    return isinstance(cache, EncoderDecoderCache) and cache.get_seq_length() > 0 and not any(cache.is_updated.values())


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Run the paper's attention (§3.2.1) behind the signature of transformers' attention functions."""
    context, weights = scaled_dot_product_attention(query, key, value, attention_mask, dropout, scaling)
    return context.transpose(1, 2), weights  # (B, T, H, K)


class VanillaTransformerAttention(MultiHeadAttention):
    """The paper's multi-head attention (§3.2.2) with transformers' attention kernels and caches."""

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool = False, layer_idx: int = 0) -> None:
        super().__init__(config, is_causal, layer_idx)
        self.config = config  # names the attention implementation

    def forward(
        self,
        query_states: Tensor,
        key_value_states: Tensor | None = None,
        attention_mask: Any = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from (B, T, D) to (B, S, D); see `MultiHeadAttention.forward`.

        Args:
            query_states: where the queries come from.
            key_value_states: the encoder's output in encoder-decoder attention, else None.
            attention_mask: in the form that the chosen attention implementation takes.
            cache: keys and values of earlier steps, and the encoder's after the first step.
            past_key_values: the same, under the name that transformers had for it before 5.24.
            **kwargs: for the attention function.

        Returns:
            The attended states (B, T, D) and the weights, or None where the kernel keeps none.
        """
        query = self.project_query(query_states)
        cache = cache if past_key_values is None else past_key_values
        key, value = self._keys_and_values(query_states, key_value_states, cache)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        context, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.out_proj(context.flatten(2)), weights

    def _keys_and_values(
        self, query_states: Tensor, key_value_states: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor]:
        if cache is None:
            return self.project_key_value(query_states if key_value_states is None else key_value_states)
        if key_value_states is None:
            own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
            return own.update(*self.project_key_value(query_states), self.layer_idx)
        if not isinstance(cache, EncoderDecoderCache):
            return self.project_key_value(key_value_states)
        # The encoder's keys and values don't change from step to step: project them once.
        encoders = cache.cross_attention_cache
        if cache.is_updated.get(self.layer_idx):
            layer: Any = encoders.layers[self.layer_idx]  # of keys and values; other kinds have none
            return layer.keys, layer.values
        key_value = encoders.update(*self.project_key_value(key_value_states), self.layer_idx)
        cache.is_updated[self.layer_idx] = True
        return key_value


class VanillaTransformerEncoderLayer(GradientCheckpointingLayer, EncoderLayer):
    """The paper's encoder layer (§3.1), which can recompute itself in the backward pass."""

    attention_class = VanillaTransformerAttention


class VanillaTransformerDecoderLayer(GradientCheckpointingLayer, DecoderLayer):
    """The paper's decoder layer (§3.1), which can recompute itself in the backward pass."""

    attention_class = VanillaTransformerAttention


# --------------------------------------------------------------------------- inputs


def shift_tokens_right(labels: Tensor, pad_token_id: int, decoder_start_token_id: int) -> Tensor:
    """Make decoder inputs from labels: the start symbol first, everything one place later (§3.1).

    Args:
        labels: (B, T), −100 where there is no label; not changed.
        pad_token_id: written where a label was −100.
        decoder_start_token_id: the first input.

    Returns:
        (B, T), the same dtype.
    """
    shifted = labels.new_full(labels.shape, decoder_start_token_id)
    shifted[:, 1:] = labels[:, :-1]
    return shifted.masked_fill(shifted == IGNORE_INDEX, pad_token_id)


def _positions_from_mask(attention_mask: Tensor) -> Tensor:
    """Number the real tokens of each row from 0, so that padding on the left moves nothing: (B, S) → (B, S)."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


class _InputRepresentation(nn.Module):
    """Dropout(embedding × √d_model + position) (§3.4, §3.5, §5.4), with the checks that inputs need."""

    def __init__(self, config: VanillaTransformerConfig, vocab_size: int, side: str) -> None:
        super().__init__()
        self.side = side  # "source" or "target", for messages
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.positions = PositionalEncoding(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, embeddings: Tensor, attention_mask: Tensor | None, past_length: int | Tensor = 0) -> Tensor:
        """Scale embeddings (B, T, D) and add their positions.

        Args:
            embeddings: from ids or the caller's own; the scale applies to both.
            attention_mask: (B, P + T), 1 keeps, 0 is padding; None or a prepared mask numbers positions 0, 1, 2, …
            past_length: P, positions already in the cache.
        """
        length = embeddings.shape[1]
        self._check_length(length, past_length)
        steps = torch.arange(length, device=embeddings.device)
        if attention_mask is None or attention_mask.dim() != 2:
            encoding = self.positions(steps + past_length, embeddings.dtype)  # (T, D)
        else:
            # The rows share one table of sinusoids; after the first step each row is encoded by itself.
            positions = _positions_from_mask(attention_mask.to(embeddings.device))[:, -length:]
            if attention_mask.shape[1] == length:
                encoding = self.positions(steps, embeddings.dtype)[positions]  # (B, T, D)
            else:
                encoding = self.positions(positions, embeddings.dtype)
        return self.dropout(embeddings * self.scale + encoding)

    def _check_length(self, length: int, past_length: int | Tensor) -> None:
        limit = self.positions.most_tokens
        if limit is None or not isinstance(past_length, int):
            return
        if past_length + length > limit:
            raise ValueError(
                f"the {self.side} has {past_length + length} positions, but the learned positions end at {limit} "
                f"(max_position_embeddings={self.positions.max_positions}); shorten it, or use a model with "
                "position_embedding_type='sinusoidal', which has no limit"
            )


def _mask_of_source(
    module: Any, inputs_embeds: Tensor, attention_mask: Tensor | None, encoder_hidden_states: Tensor | None = None
) -> Any:
    """Return what hides padding of the source, in the form that the chosen attention takes.

    transformers looks whether anything is padded at all, since an unmasked kernel is faster. On a GPU that look makes
    the host wait, twice an update; and training batches have padding, nearly all of them.
    """
    if (
        module.training
        and module.config._attn_implementation == "sdpa"
        and attention_mask is not None
        and attention_mask.dim() == 2
        and waits_for_device(attention_mask)
    ):
        return attention_mask.to(inputs_embeds.device).bool()[:, None, None, :]  # (B, 1, 1, S)
    return create_bidirectional_mask(
        config=module.config,
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        encoder_hidden_states=encoder_hidden_states,
    )


def _rows_of(embedding: nn.Module, vocab_size: int) -> int:
    """Return an embedding's number of rows; an adapter's wrapper around one may not tell, the configuration does."""
    return getattr(embedding, "num_embeddings", vocab_size)


def _check_token_ids(ids: Tensor, vocab_size: int, name: str, ignored: int | None = None) -> None:
    """Refuse an empty source and ids outside the vocabulary in one sentence instead of an index error from inside.

    On other devices than the CPU the look would cost a synchronisation; there the collator and translation check.
    """
    if ids.shape[-1] == 0:
        raise ValueError(f"{name} has no tokens; give every sentence at least its end-of-sentence token")
    if waits_for_device(ids) or torch.compiler.is_compiling() or torch.jit.is_tracing() or ids.numel() == 0:
        return
    if type(ids) is not Tensor:  # a fake or traced tensor has no values to look at
        return
    if ignored is not None:
        ids = ids.masked_fill(ids == ignored, 0)
    lowest, highest = (int(bound) for bound in ids.aminmax())
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(
            f"{name} holds the id {lowest if lowest < 0 else highest}, outside the vocabulary of {vocab_size} tokens; "
            "use the tokenizer that belongs to this model"
        )


# --------------------------------------------------------------------------- models


class VanillaTransformerPreTrainedModel(PreTrainedModel):
    """What all models here share: initialisation, tying, and what transformers may do with them."""

    config: VanillaTransformerConfig
    config_class = VanillaTransformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["VanillaTransformerEncoderLayer", "VanillaTransformerDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    def post_init(self) -> None:
        """Finish the construction; see `PreTrainedModel.post_init`.

        The configuration's plan for tensor parallelism names the modules of the full model, and transformers hands it
        to each stack as well: keep the entries whose modules are here.
        """
        super().post_init()
        modules = {re.sub(r"\.\d+\.", ".*.", name) for name, _ in self.named_modules()}
        self._tp_plan = {name: style for name, style in (self._tp_plan or {}).items() if name in modules}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise; the paper doesn't say how. Glorot for products, those of residual branches by `start_small`.

        Embeddings have standard deviation 1/√d_model: times √d_model that is unit variance, as a sinusoid's is about,
        and the first logits' too.
        """
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.d_model**-0.5)
        elif isinstance(module, nn.Linear):
            if module is getattr(self, "lm_head", None):
                init.normal_(module.weight, mean=0.0, std=self.config.d_model**-0.5)
            else:
                init.xavier_uniform_(module.weight, gain=getattr(module, "initial_gain", 1.0))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint; see `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: If the weights are no whole safetensors file, beside what transformers raises.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except Exception as error:
            if type(error).__name__ != "SafetensorError":  # by name: a checkpoint's code may not import safetensors
                raise
            raise ValueError(
                f"model.safetensors in {pretrained_model_name_or_path} is truncated or no safetensors file "
                f"({str(error).strip()}); fetch or save it again"
            ) from error

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Smallest inputs that run: two sentences, one padded."""
        pad = self.config.pad_token_id or 0
        ids = torch.tensor([[4, 5, 2], [4, 2, pad]], device=self.device) % self.config.vocab_size
        mask = torch.tensor([[1, 1, 1], [1, 1, 0]], device=self.device)
        return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids}

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Say which parameter is tied to which, from the configuration as it is now (§3.4).

        The class-level mapping is the paper's three-way tying. The base class drops all of it where
        ``tie_word_embeddings`` is False; here that field unties the output projection only.
        """
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        tied = {}
        for target, source in (type(self)._tied_weights_keys or {}).items():
            if target == "lm_head.weight":
                if self.config.tie_word_embeddings:
                    tied[target] = (
                        source if self.config.share_encoder_decoder_embeddings else "model.decoder.embed_tokens.weight"
                    )
            elif self.config.share_encoder_decoder_embeddings:
                tied[target] = source
        return tied


class VanillaTransformerEncoder(VanillaTransformerPreTrainedModel):
    """Embedding, positions and N encoder layers (§3.1)."""

    _can_record_outputs = {
        "hidden_states": VanillaTransformerEncoderLayer,
        "attentions": VanillaTransformerAttention,
    }

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.represent = _InputRepresentation(config, config.vocab_size, "source")
        self.layers = nn.ModuleList(
            VanillaTransformerEncoderLayer(config, layer_idx) for layer_idx in range(config.encoder_layers)
        )
        self.final_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps) if config.final_norm else None
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Encode the source.

        Args:
            input_ids: (B, S) source tokens.
            attention_mask: (B, S), 1 keeps, 0 is padding, on either side; None hides what equals ``pad_token_id``.
            inputs_embeds: (B, S, D) instead of ids, before the √d_model scale.
            **kwargs: ``output_attentions``, ``output_hidden_states`` and what the attention function takes.

        Returns:
            ``last_hidden_state`` (B, S, D).

        Raises:
            ValueError: If both or neither input is given, a source is empty or longer than learned positions allow,
                or an id is outside the vocabulary.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, not both and not neither")
        if inputs_embeds is None:
            assert input_ids is not None
            _check_token_ids(input_ids, _rows_of(self.embed_tokens, self.config.vocab_size), "input_ids")
            if attention_mask is None and self.config.pad_token_id is not None:
                attention_mask = input_ids.ne(self.config.pad_token_id).long()
            inputs_embeds = self.embed_tokens(input_ids)
        hidden_states = self.represent(inputs_embeds, attention_mask)
        mask = _mask_of_source(self, hidden_states, attention_mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, **kwargs)
        if self.final_norm is not None:
            hidden_states = self.final_norm(hidden_states)
        return BaseModelOutput(last_hidden_state=hidden_states)


class VanillaTransformerDecoder(VanillaTransformerPreTrainedModel):
    """Embedding, positions and N decoder layers that look at the encoder's output (§3.1)."""

    _can_record_outputs = {
        "hidden_states": VanillaTransformerDecoderLayer,
        "attentions": OutputRecorder(VanillaTransformerAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(VanillaTransformerAttention, index=1, layer_name="cross_attn"),
    }

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.output_vocab_size, config.d_model)
        self.represent = _InputRepresentation(config, config.output_vocab_size, "target")
        self.layers = nn.ModuleList(
            VanillaTransformerDecoderLayer(config, layer_idx) for layer_idx in range(config.decoder_layers)
        )
        self.final_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps) if config.final_norm else None
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode the target, or its next positions if the earlier ones are cached.

        Args:
            input_ids: (B, T) target tokens, shifted right.
            attention_mask: (B, P + T), 1 keeps, 0 is padding; None keeps all, which is right for targets padded on the
                right: no earlier position sees them, and they carry no loss.
            encoder_hidden_states: (B, S, D); None leaves encoder-decoder attention out.
            encoder_attention_mask: (B, S), 1 keeps, 0 is padding.
            cache: keys and values of P positions.
            inputs_embeds: (B, T, D) instead of ids, before the √d_model scale.
            use_cache: make and return a cache.
            past_key_values: the cache, under the name that transformers had for it before 5.24.
            **kwargs: ``output_attentions``, ``output_hidden_states`` and what the attention function takes.

        Returns:
            ``last_hidden_state`` (B, T, D) and the cache.

        Raises:
            ValueError: As the encoder's.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either decoder_input_ids or decoder_inputs_embeds, not both and not neither")
        if inputs_embeds is None:
            assert input_ids is not None
            rows = _rows_of(self.embed_tokens, self.config.output_vocab_size)
            _check_token_ids(input_ids, rows, "decoder_input_ids")
            inputs_embeds = self.embed_tokens(input_ids)
        cache = _one_cache(cache, past_key_values)
        if use_cache and cache is None:
            cache = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        self_attention_cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        past_length = 0 if self_attention_cache is None else self_attention_cache.get_seq_length()

        hidden_states = self.represent(inputs_embeds, attention_mask, past_length)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            **{CACHE_NAME: self_attention_cache},
        )
        encoder_mask = None
        if encoder_hidden_states is not None:
            encoder_mask = _mask_of_source(self, hidden_states, encoder_attention_mask, encoder_hidden_states)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                encoder_hidden_states,  # positional: checkpointing sends gradients through positional arguments
                attention_mask=mask,
                encoder_attention_mask=encoder_mask,
                **{CACHE_NAME: cache},  # the name under which a checkpointed layer looks for it, to leave it out
                **kwargs,
            )
        if self.final_norm is not None:
            hidden_states = self.final_norm(hidden_states)
        named_cache: dict[str, Any] = {CACHE_NAME: cache}
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden_states, **named_cache)


class VanillaTransformerModel(VanillaTransformerPreTrainedModel):
    """Encoder and decoder without the output projection (§3.1, Figure 1)."""

    _tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.encoder = VanillaTransformerEncoder(config)
        self.decoder = VanillaTransformerDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the source embedding, which is the target's too where they are tied."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the source embedding, and the target's where they are tied."""
        self.encoder.embed_tokens = value
        if self.config.share_encoder_decoder_embeddings:
            # Parameters are tied, never modules: the decoder keeps a module of its own around the same weight.
            self.decoder.embed_tokens.weight = value.weight
            self.decoder.embed_tokens.num_embeddings = value.num_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: tuple[Tensor] | BaseModelOutput | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """Encode the source, unless ``encoder_outputs`` has it, and decode the target.

        Args:
            input_ids: (B, S) source tokens.
            attention_mask: (B, S), 1 keeps, 0 is padding of the source; None hides what equals ``pad_token_id``.
            decoder_input_ids: (B, T) target tokens, shifted right.
            decoder_attention_mask: (B, P + T), 1 keeps, 0 is padding of the target; None is right for right padding.
            encoder_outputs: an earlier call's encoder output.
            cache: the decoder's keys and values of earlier positions.
            inputs_embeds: (B, S, D) instead of source ids, before the √d_model scale.
            decoder_inputs_embeds: (B, T, D) instead of target ids, before the √d_model scale.
            use_cache: make and return a cache.
            past_key_values: the cache, under the name that transformers had for it before 5.24.
            **kwargs: handed to both stacks.

        Returns:
            ``last_hidden_state`` (B, T, D), the cache, and the encoder's output.

        Raises:
            ValueError: If a keyword is unknown, beside what encoder and decoder refuse.
        """
        _refuse_unknown_keywords(type(self).forward, kwargs)
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            attention_mask = input_ids.ne(self.config.pad_token_id).long()  # the decoder needs it as well
        if encoder_outputs is None:
            encoded: BaseModelOutput = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
            )
        elif isinstance(encoder_outputs, BaseModelOutput):
            encoded = encoder_outputs
        else:
            encoded = BaseModelOutput(*encoder_outputs[:3])
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask,
            cache=_one_cache(cache, past_key_values),
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
            **{CACHE_NAME: decoder_outputs.get(CACHE_NAME)},
        )


class VanillaTransformerForConditionalGeneration(VanillaTransformerPreTrainedModel, GenerationMixin):
    """The whole Transformer: encoder, decoder, and the projection to the vocabulary (§3.1, §3.4)."""

    _tied_weights_keys = {
        "model.decoder.embed_tokens.weight": "model.encoder.embed_tokens.weight",
        "lm_head.weight": "model.encoder.embed_tokens.weight",
    }
    _tp_plan = {"lm_head": "colwise_gather_output"}
    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch where Trainer gives it

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.model = VanillaTransformerModel(config)
        self.lm_head = nn.Linear(config.d_model, config.output_vocab_size, bias=config.output_bias)
        # transformers stops after 20 tokens where nothing is said; the weights' generation_config.json overrides this.
        # Of a learned table the last position gives one token more, which is never read.
        table = self.model.decoder.represent.positions.most_tokens
        self.generation_config.max_length = DEFAULT_MAX_LENGTH if table is None else min(DEFAULT_MAX_LENGTH, table + 1)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the output projection."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output projection."""
        self.lm_head = new_embeddings

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Resize the shared vocabulary; see `PreTrainedModel.resize_token_embeddings`.

        Raises:
            ValueError: If source and target have vocabularies of their own sizes, so that one number can't mean both.
        """
        if self.config.decoder_vocab_size is not None and new_num_tokens is not None:
            raise ValueError(
                f"source and target have vocabularies of their own ({self.config.vocab_size} and "
                f"{self.config.decoder_vocab_size} tokens); resizing both to {new_num_tokens} would be a guess: build a "
                "model with the new sizes and copy the rows"
            )
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if not self.config.share_encoder_decoder_embeddings and new_num_tokens is not None:
            decoder = self.model.decoder
            decoder.embed_tokens = self._get_resized_embeddings(
                decoder.embed_tokens, embeddings.num_embeddings, mean_resizing=mean_resizing
            )
            self.tie_weights()
        return embeddings

    @can_return_tuple
    def forward(  # type: ignore[misc]  # transformers' keywords name num_items_in_batch once more
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: tuple[Tensor] | BaseModelOutput | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[_LossKwargs],
    ) -> VanillaTransformerSeq2SeqLMOutput:
        """Translate with the answer at hand: logits for every target position, and the loss if labels are given.

        Args:
            input_ids: (B, S) source tokens.
            attention_mask: (B, S), 1 keeps, 0 is padding of the source; None hides what equals ``pad_token_id``.
            decoder_input_ids: (B, T) target tokens, shifted right; None shifts the labels.
            decoder_attention_mask: (B, P + T), 1 keeps, 0 is padding of the target; None is right for right padding.
            encoder_outputs: an earlier call's encoder output.
            cache: the decoder's keys and values of earlier positions.
            inputs_embeds: (B, S, D) instead of source ids, before the √d_model scale.
            decoder_inputs_embeds: (B, T, D) instead of target ids, before the √d_model scale.
            labels: (B, T) target tokens, not shifted; −100 carries no loss.
            use_cache: make and return a cache; never with labels.
            logits_to_keep: the last so many positions get logits, or those that a tensor names; 0 is all.
            num_items_in_batch: real tokens of the whole update, over all micro-batches and devices; the loss is the sum
                over tokens divided by it. None divides by the real tokens here.
            past_key_values: the cache, under the name that transformers had for it before 5.24.
            **kwargs: ``label_smoothing``, ε of §5.4 (0.0 where it isn't given), shapes ``loss`` only;
                ``return_logits=True`` returns logits while training, too; the others are handed to both stacks.

        Returns:
            ``loss`` and ``nll`` (nats per token) if labels are given, ``logits`` (B, T, V), the cache, the encoder's
            output. While training with labels ``logits`` is None unless ``return_logits`` asks for them: the loss
            computes them in chunks and never keeps the (tokens × vocabulary) matrix.

        Raises:
            ValueError: If a keyword is unknown or a label is outside the vocabulary, beside what encoder and decoder
                refuse.
        """
        _refuse_unknown_keywords(type(self).forward, kwargs)
        label_smoothing = kwargs.pop("label_smoothing", None) or 0.0
        return_logits = kwargs.pop("return_logits", None) or False
        if labels is not None:
            _check_token_ids(labels, self.config.output_vocab_size, "labels", ignored=IGNORE_INDEX)
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs: Seq2SeqModelOutput = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            cache=_one_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs[0]  # (B, T, D)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else slice(None)
        hidden_states = hidden_states[:, keep if isinstance(logits_to_keep, int) else logits_to_keep, :]

        loss: Tensor | None = None
        nll: Tensor | None = None
        logits: Tensor | None = None
        if labels is not None and self.training and not return_logits and self._can_chunk_the_loss():
            loss, nll = linear_cross_entropy(
                hidden_states, self.lm_head.weight, self.lm_head.bias, labels, label_smoothing
            )
        else:
            logits = self.lm_head(hidden_states)
            if labels is not None:
                loss, nll = token_cross_entropy(logits, labels.to(logits.device), label_smoothing)
        if labels is not None and loss is not None and nll is not None:
            if num_items_in_batch is None:
                num_items_in_batch = labels.ne(IGNORE_INDEX).sum()
            # At least 1: where all labels are ignored the sums are 0, and so must be the loss and its gradient.
            if isinstance(num_items_in_batch, Tensor):
                num_items_in_batch = num_items_in_batch.to(loss.device).clamp(min=1)
            else:
                num_items_in_batch = max(num_items_in_batch, 1)
            loss, nll = loss / num_items_in_batch, nll / num_items_in_batch

        return VanillaTransformerSeq2SeqLMOutput(
            loss=loss,
            logits=logits,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
            nll=nll,
            **{CACHE_NAME: outputs.get(CACHE_NAME)},
        )

    def _can_chunk_the_loss(self) -> bool:
        """Whether the output projection is a plain matrix now: not adapted, quantised, sharded or offloaded."""
        head = self.lm_head
        plain = type(head) is nn.Linear and type(head.weight) is nn.Parameter and not hasattr(head, "_hf_hook")
        same_shape = plain and head.weight.shape == (head.out_features, head.in_features)
        # fp16 gradients of single logits would underflow before a gradient scaler sees them; tracing can't chunk.
        narrow = head.weight.dtype == torch.float16 or (
            torch.is_autocast_enabled(self.device.type) and torch.get_autocast_dtype(self.device.type) == torch.float16
        )
        hooked = bool(head._forward_hooks or head._forward_pre_hooks)
        return same_shape and not narrow and not hooked and not torch.compiler.is_compiling()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Shift labels (B, T) right behind the start symbol (§3.1); −100 becomes padding, in a copy."""
        start = self.config.decoder_start_token_id
        if start is None:
            raise ValueError("decoder_start_token_id is not set, and the decoder starts with it; set it in the config")
        return shift_tokens_right(labels, self.config.pad_token_id or 0, start)


class VanillaTransformerEncoderModel(VanillaTransformerPreTrainedModel):
    """The encoder alone, for representations of sentences; loads from the full model's checkpoints."""

    _keys_to_ignore_on_load_unexpected = [r"decoder\.", r"lm_head\."]

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.encoder = VanillaTransformerEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the source embedding."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the source embedding."""
        self.encoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Encode the source; see `VanillaTransformerEncoder.forward`."""
        _refuse_unknown_keywords(type(self).forward, kwargs)
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)


__all__ = [
    "VanillaTransformerEncoderModel",
    "VanillaTransformerForConditionalGeneration",
    "VanillaTransformerModel",
    "VanillaTransformerPreTrainedModel",
]
