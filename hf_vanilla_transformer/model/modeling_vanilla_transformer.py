# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The Transformer as Hugging Face models: encoder and decoder stacks, initialization, weight tying, caches, loss.

The paper's layers are in the layers file, their attention kernels and caches in the attention file, checks and masks of
the inputs in the inputs file. Of the paper, §3.4 (embeddings) and §5.4 (dropout on the sums) are in
`VanillaTransformerStack`.
"""

# Shapes: B batch · S source length · T target length · P cached positions · D d_model · V vocabulary

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_vanilla_transformer import (
    CACHE_NAME,
    VanillaTransformerAttention,
    VanillaTransformerDecoderLayer,
    VanillaTransformerEncoderLayer,
    resolve_cache,
)
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .dropout_vanilla_transformer import Dropout
from .inputs_vanilla_transformer import (
    check_token_ids,
    default_attention_mask,
    positions_from_mask,
    shift_tokens_right,
    source_padding_mask,
)
from .int8_vanilla_transformer import Int8Linear
from .keywords_vanilla_transformer import LossKwargs, check_keywords
from .layers_vanilla_transformer import positional_encoding
from .linear_kernels_vanilla_transformer import is_plain_linear
from .loss_vanilla_transformer import IGNORE_INDEX, linear_cross_entropy, token_cross_entropy
from .shared_matrix_vanilla_transformer import is_shared_matrix, look_up_source_and_target

# Parameters that were renamed: pattern of the old name → new name, in the form of from_pretrained's ``key_mapping``.
RENAMED_PARAMETERS = {r"represent\.positions\.table\.weight": "embed_positions.weight"}

DEFAULT_MAX_LENGTH = 512  # default max_length of generate(), in tokens with the decoder start token


@dataclass
class VanillaTransformerSeq2SeqLMOutput(Seq2SeqLMOutput):
    """Hugging Face's output, with the negative log-likelihood in addition to the loss.

    Attributes:
        nll: negative log-likelihood of the labels in nats, without label smoothing and without a gradient, divided by
            the same number as the loss; exp(nll) is the paper's perplexity. None without labels.
    """

    nll: Tensor | None = None


class VanillaTransformerPreTrainedModel(PreTrainedModel):
    """Base class of all models: initialization, tying, loading, and the features of transformers they support."""

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

        The configuration's plan for tensor parallelism lists the modules of the full model, and transformers applies it
        to each stack as well: keep only the entries whose modules this model has.
        """
        super().post_init()
        modules = {re.sub(r"\.\d+\.", ".*.", name) for name, _ in self.named_modules()}
        self._tp_plan = {name: style for name, style in (self._tp_plan or {}).items() if name in modules}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize a module; the paper does not specify how.

        Linear layers use Glorot's uniform initialization, in residual branches with the gain of `set_initial_gain`.
        Embeddings and the output projection have standard deviation 1/√d_model, so that the scaled embeddings and the
        first logits have unit variance; that of the sinusoids is about the same.
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
            ValueError: If a weights file is damaged or has old parameter names, in addition to what transformers
                raises.
        """
        with_info = kwargs.pop("output_loading_info", False)
        try:
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        except Exception as error:
            if type(error).__name__ != "SafetensorError":  # by name, because remote code may not import safetensors
                raise
            raise ValueError(
                f"model.safetensors in {pretrained_model_name_or_path} is truncated or not a safetensors file "
                f"({str(error).strip()}); download or save it again"
            ) from error
        model, info = loaded
        old = [key for key in info["unexpected_keys"] for pattern in RENAMED_PARAMETERS if re.search(pattern, key)]
        if old:
            raise ValueError(
                f"{pretrained_model_name_or_path} was saved by an earlier version and has the old parameter name "
                f"{old[0]!r}; load it once with key_mapping={RENAMED_PARAMETERS}, and save it with "
                "save_pretrained(…, save_original_format=False)"
            )
        return (model, info) if with_info else model

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Small example inputs: two sentences, one of them padded."""
        pad = self.config.pad_token_id or 0
        ids = torch.tensor([[4, 5, 2], [4, 2, pad]], device=self.device) % self.config.vocab_size
        mask = torch.tensor([[1, 1, 1], [1, 1, 0]], device=self.device)
        return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids}

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return which parameter is tied to which under the current configuration (§3.4).

        The class attribute ``_tied_weights_keys`` is the paper's three-way tying. The base class ignores all of it if
        ``tie_word_embeddings`` is False; here that field unties the output projection only.
        """
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        tied = {}
        for target, source in (type(self)._tied_weights_keys or {}).items():
            if target == "lm_head.weight":
                if self.config.tie_word_embeddings and not isinstance(getattr(self, "lm_head", None), Int8Linear):
                    tied[target] = (
                        source if self.config.share_encoder_decoder_embeddings else "model.decoder.embed_tokens.weight"
                    )
            elif self.config.share_encoder_decoder_embeddings:
                tied[target] = source
        return tied


class VanillaTransformerStack(VanillaTransformerPreTrainedModel):
    """Base class of encoder and decoder: embedding, positions and N layers (§3.1, §3.4, §3.5)."""

    side: str  # "source" or "target", for messages
    argument_prefix: str  # prefix of this stack's inputs among the arguments of the full model, for messages
    layer_class: type[nn.Module]

    def __init__(self, config: VanillaTransformerConfig, vocab_size: int, num_layers: int) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(vocab_size, config.d_model)
        self.embed_positions = positional_encoding(config)
        self.embed_scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(self.layer_class(config, layer_idx) for layer_idx in range(num_layers))
        self.final_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps) if config.final_norm else None
        self.gradient_checkpointing = False
        self.post_init()

    def embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, vocab_size: int) -> Tensor:
        """Return the embeddings (B, T, D) of token ids (B, T), or ``inputs_embeds`` if given.

        Raises:
            ValueError: If both or neither is given, there are no tokens, or an id is outside the vocabulary.
        """
        prefix = self.argument_prefix
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(f"give either {prefix}input_ids or {prefix}inputs_embeds, not both and not neither")
        if input_ids is None:
            assert inputs_embeds is not None
            return inputs_embeds
        self.check_ids(input_ids, vocab_size)
        return self.embed_tokens(input_ids)

    def check_ids(self, input_ids: Tensor, vocab_size: int) -> None:
        """Raise ValueError if there are no tokens (B, T), or one is outside the vocabulary."""
        # An adapter that wraps the embedding may not have `num_embeddings`.
        vocab_size = getattr(self.embed_tokens, "num_embeddings", vocab_size)
        check_token_ids(input_ids, vocab_size, f"{self.argument_prefix}input_ids")

    def add_positions(self, embeddings: Tensor, attention_mask: Tensor | None, past_length: int | Tensor = 0) -> Tensor:
        """Compute Dropout(embedding × √d_model + position) (§3.4, §3.5, §5.4).

        Args:
            embeddings: (B, T, D), looked up or given by the caller; both are scaled.
            attention_mask: (B, P + T), 1 keeps, 0 is padding; None or a prepared mask numbers positions 0, 1, 2, …
            past_length: P, number of positions in the cache.

        Raises:
            ValueError: If there are more positions than a learned table has.
        """
        length = embeddings.shape[1]
        self._check_length(length, past_length)
        steps = torch.arange(length, device=embeddings.device)
        if attention_mask is None or attention_mask.dim() != 2:
            encoding = self.embed_positions(steps + past_length, embeddings.dtype)  # (T, D)
        else:
            positions = positions_from_mask(attention_mask.to(embeddings.device))[:, -length:]
            if attention_mask.shape[1] == length:  # all rows share the encodings of positions 0 to T − 1
                encoding = self.embed_positions(steps, embeddings.dtype)[positions]  # (B, T, D)
            else:
                encoding = self.embed_positions(positions, embeddings.dtype)
        return self.dropout(embeddings * self.embed_scale + encoding)

    def _check_length(self, length: int, past_length: int | Tensor) -> None:
        limit = self.embed_positions.max_length
        if limit is None or not isinstance(past_length, int):
            return
        if past_length + length > limit:
            raise ValueError(
                f"the {self.side} has {past_length + length} positions, but the learned positions end at {limit} "
                f"(max_position_embeddings={self.config.max_position_embeddings}); shorten it, or use a model with "
                "position_embedding_type='sinusoidal', which has no limit"
            )


class VanillaTransformerEncoder(VanillaTransformerStack):
    """The encoder: N layers of self-attention and feed-forward network (§3.1)."""

    side = "source"
    argument_prefix = ""
    layer_class = VanillaTransformerEncoderLayer
    _can_record_outputs = {
        "hidden_states": VanillaTransformerEncoderLayer,
        "attentions": VanillaTransformerAttention,
    }

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config, config.vocab_size, config.encoder_layers)

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
            attention_mask: (B, S), 1 keeps, 0 is padding, on either side; None hides tokens equal to ``pad_token_id``.
            inputs_embeds: (B, S, D) instead of ids, before the √d_model scale.
            **kwargs: ``output_attentions``, ``output_hidden_states``, and keywords of the attention function.

        Returns:
            ``last_hidden_state`` (B, S, D).

        Raises:
            ValueError: If both or neither input is given, a source is empty or longer than learned positions allow,
                or an id is outside the vocabulary.
        """
        embeddings = self.embed(input_ids, inputs_embeds, self.config.vocab_size)
        attention_mask = default_attention_mask(input_ids, attention_mask, self.config.pad_token_id)
        hidden_states = self.add_positions(embeddings, attention_mask)
        mask = source_padding_mask(self, hidden_states, attention_mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, **kwargs)
        if self.final_norm is not None:
            hidden_states = self.final_norm(hidden_states)
        return BaseModelOutput(last_hidden_state=hidden_states)


class VanillaTransformerDecoder(VanillaTransformerStack):
    """The decoder: N layers of masked self-attention, encoder-decoder attention and feed-forward network (§3.1)."""

    side = "target"
    argument_prefix = "decoder_"
    layer_class = VanillaTransformerDecoderLayer
    _can_record_outputs = {
        "hidden_states": VanillaTransformerDecoderLayer,
        "attentions": OutputRecorder(VanillaTransformerAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(VanillaTransformerAttention, index=1, layer_name="cross_attn"),
    }

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config, config.output_vocab_size, config.decoder_layers)

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
        """Decode the target, or its next positions if earlier ones are cached.

        Args:
            input_ids: (B, T) target tokens, shifted right.
            attention_mask: (B, P + T), 1 keeps, 0 is padding; None keeps all, which is correct for right padding: no
                earlier position attends to it, and its labels are ignored by the loss.
            encoder_hidden_states: (B, S, D); None skips encoder-decoder attention.
            encoder_attention_mask: (B, S), 1 keeps, 0 is padding.
            cache: keys and values of P positions.
            inputs_embeds: (B, T, D) instead of ids, before the √d_model scale.
            use_cache: whether to make and return a cache.
            past_key_values: the cache, under its name in transformers before 5.24.
            **kwargs: ``output_attentions``, ``output_hidden_states``, and keywords of the attention function.

        Returns:
            ``last_hidden_state`` (B, T, D) and the cache.

        Raises:
            ValueError: If both or neither input is given, a target is empty or longer than learned positions allow,
                or an id is outside the vocabulary.
        """
        embeddings = self.embed(input_ids, inputs_embeds, self.config.output_vocab_size)
        cache = resolve_cache(cache, past_key_values)
        if use_cache and cache is None:
            cache = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        self_attention_cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        past_length = 0 if self_attention_cache is None else self_attention_cache.get_seq_length()

        hidden_states = self.add_positions(embeddings, attention_mask, past_length)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            **{CACHE_NAME: self_attention_cache},
        )
        encoder_mask = None
        if encoder_hidden_states is not None:
            encoder_mask = source_padding_mask(self, hidden_states, encoder_attention_mask, encoder_hidden_states)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                encoder_hidden_states,  # positional: checkpointing passes gradients to positional arguments only
                attention_mask=mask,
                encoder_attention_mask=encoder_mask,
                **{CACHE_NAME: cache},  # under this name a checkpointed layer finds the cache and removes it
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
        """Return the source embedding."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the source embedding, and the target embedding if they share a matrix."""
        self.encoder.embed_tokens = value
        if self.config.share_encoder_decoder_embeddings:
            # Only the weight is shared; encoder and decoder have separate modules.
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
        """Encode the source, unless ``encoder_outputs`` is given, and decode the target.

        Args:
            input_ids: (B, S) source tokens.
            attention_mask: (B, S), 1 keeps, 0 is padding of the source; None hides tokens equal to ``pad_token_id``.
            decoder_input_ids: (B, T) target tokens, shifted right.
            decoder_attention_mask: (B, P + T), 1 keeps, 0 is padding of the target; None suffices for right padding.
            encoder_outputs: the encoder's output of an earlier call.
            cache: the decoder's keys and values at earlier positions.
            inputs_embeds: (B, S, D) instead of source ids, before the √d_model scale.
            decoder_inputs_embeds: (B, T, D) instead of target ids, before the √d_model scale.
            use_cache: whether to make and return a cache.
            past_key_values: the cache, under its name in transformers before 5.24.
            **kwargs: passed to both stacks.

        Returns:
            ``last_hidden_state`` (B, T, D), the cache, and the encoder's output.

        Raises:
            ValueError: If a keyword is unknown, or encoder or decoder rejects its inputs.
        """
        check_keywords(type(self).forward, kwargs)
        # The encoder would make the same mask, but the decoder needs it too.
        attention_mask = default_attention_mask(input_ids, attention_mask, self.config.pad_token_id)
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
            cache=resolve_cache(cache, past_key_values),
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
    """The full Transformer: encoder, decoder, and output projection (§3.1, §3.4)."""

    _tied_weights_keys = {
        "model.decoder.embed_tokens.weight": "model.encoder.embed_tokens.weight",
        "lm_head.weight": "model.encoder.embed_tokens.weight",
    }
    _tp_plan = {"lm_head": "colwise_gather_output"}
    accepts_loss_kwargs = True  # the loss is divided by Trainer's num_items_in_batch

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.model = VanillaTransformerModel(config)
        self.lm_head = nn.Linear(config.d_model, config.output_vocab_size, bias=config.output_bias)
        # transformers' default is 20 tokens. The checkpoint's generation_config.json overrides this value. With learned
        # positions a sequence may be one token longer than the table, because the last token is never an input.
        limit = self.max_sequence_length
        self.generation_config.max_length = DEFAULT_MAX_LENGTH if limit is None else min(DEFAULT_MAX_LENGTH, limit + 1)
        self.post_init()

    @property
    def max_sequence_length(self) -> int | None:
        """Tokens that a source or a target may have; None where positions set no limit."""
        return self.model.decoder.embed_positions.max_length

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
            ValueError: If source and target have separate vocabularies, which one number cannot resize.
        """
        if self.config.decoder_vocab_size is not None and new_num_tokens is not None:
            raise ValueError(
                f"source and target have separate vocabularies ({self.config.vocab_size} and "
                f"{self.config.decoder_vocab_size} tokens), which cannot both be resized to {new_num_tokens}; build a "
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
    def forward(  # type: ignore[misc]  # TransformersKwargs also has num_items_in_batch
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
        **kwargs: Unpack[LossKwargs],
    ) -> VanillaTransformerSeq2SeqLMOutput:
        """Compute the logits of the target positions (teacher forcing), and the loss if labels are given.

        Args:
            input_ids: (B, S) source tokens.
            attention_mask: (B, S), 1 keeps, 0 is padding of the source; None hides tokens equal to ``pad_token_id``.
            decoder_input_ids: (B, T) target tokens, shifted right; None makes them from the labels.
            decoder_attention_mask: (B, P + T), 1 keeps, 0 is padding of the target; None suffices for right padding.
            encoder_outputs: the encoder's output of an earlier call.
            cache: the decoder's keys and values at earlier positions.
            inputs_embeds: (B, S, D) instead of source ids, before the √d_model scale.
            decoder_inputs_embeds: (B, T, D) instead of target ids, before the √d_model scale.
            labels: (B, T) target tokens, not shifted; −100 is ignored by the loss.
            use_cache: whether to make and return a cache; False if labels are given.
            logits_to_keep: number of last positions to compute logits for, or a tensor of their indices; 0 is all.
            num_items_in_batch: number of labels in the update, over all micro-batches and devices; the loss is the sum
                over tokens divided by it. None divides by the number of labels in this batch.
            past_key_values: the cache, under its name in transformers before 5.24.
            **kwargs: ``label_smoothing`` is ε of §5.4 (default 0.0) and affects ``loss`` only, as does ``r_drop``, α of
                R-Drop for a batch whose second half has the examples of the first (default 0.0); ``return_logits=True``
                returns the logits in training as well; all others are passed to both stacks.

        Returns:
            ``loss`` and ``nll`` (nats per token) if labels are given, ``logits`` (B, T, V), the cache and the encoder's
            output. In training with labels ``logits`` is None unless ``return_logits=True``: the loss computes them in
            chunks and never stores the (tokens × vocabulary) matrix.

        Raises:
            ValueError: If a keyword is unknown, a label is outside the vocabulary, or encoder or decoder rejects its
                inputs.
        """
        check_keywords(type(self).forward, kwargs)
        label_smoothing = kwargs.pop("label_smoothing", None) or 0.0
        r_drop = kwargs.pop("r_drop", None) or 0.0
        return_logits = kwargs.pop("return_logits", None) or False
        if labels is not None:
            check_token_ids(labels, self.config.output_vocab_size, "labels", ignored=IGNORE_INDEX)
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        chunked = labels is not None and self.training and not return_logits and self._can_chunk_loss()
        projection = self.lm_head.weight if chunked else None
        embedded = any(given is not None for given in (inputs_embeds, decoder_inputs_embeds, encoder_outputs))
        encoder, decoder = self.model.encoder, self.model.decoder
        if (
            chunked
            and input_ids is not None
            and decoder_input_ids is not None
            and not embedded
            and is_shared_matrix(self.lm_head.weight, encoder.embed_tokens, decoder.embed_tokens)
        ):
            encoder.check_ids(input_ids, self.config.vocab_size)
            decoder.check_ids(decoder_input_ids, self.config.output_vocab_size)
            attention_mask = default_attention_mask(input_ids, attention_mask, self.config.pad_token_id)
            inputs_embeds, decoder_inputs_embeds, projection = look_up_source_and_target(
                self.lm_head.weight, input_ids, decoder_input_ids
            )
            input_ids = decoder_input_ids = None
        outputs: Seq2SeqModelOutput = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            cache=resolve_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = _select_positions(outputs[0], logits_to_keep)  # (B, T, D)
        logits = None if chunked else self.lm_head(hidden_states)
        loss, nll = None, None
        if labels is not None:
            loss, nll = self._compute_loss(
                hidden_states, projection, logits, labels, num_items_in_batch, label_smoothing, r_drop
            )
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

    def _compute_loss(
        self,
        hidden_states: Tensor,
        projection: Tensor | None,
        logits: Tensor | None,
        labels: Tensor,
        num_items_in_batch: int | Tensor | None,
        label_smoothing: float,
        r_drop: float,
    ) -> tuple[Tensor, Tensor]:
        """Compute loss and negative log-likelihood from the logits, or if None in chunks, by the projection (V, D)."""
        if num_items_in_batch is None:
            num_items_in_batch = labels.ne(IGNORE_INDEX).sum()
        # At least 1: if all labels are ignored, the sums are 0, and the loss and its gradient have to be 0 as well.
        if isinstance(num_items_in_batch, Tensor):
            device = hidden_states.device if logits is None else logits.device
            num_items_in_batch = num_items_in_batch.to(device).clamp(min=1)
        else:
            num_items_in_batch = max(num_items_in_batch, 1)
        if logits is not None:
            labels = labels.to(logits.device)
            return token_cross_entropy(logits, labels, label_smoothing, r_drop, num_items_in_batch)
        assert projection is not None
        return linear_cross_entropy(
            hidden_states, projection, self.lm_head.bias, labels, label_smoothing, r_drop, num_items_in_batch
        )

    def _can_chunk_loss(self) -> bool:
        """Return whether the output projection is a plain matrix: not adapted, quantized, sharded or offloaded."""
        head: Any = self.lm_head
        # In fp16 the gradients of single logits would underflow before a gradient scaler is applied to them.
        narrow = head.weight.dtype == torch.float16 or (
            torch.is_autocast_enabled(self.device.type) and torch.get_autocast_dtype(self.device.type) == torch.float16
        )
        # `torch.compile` cannot trace the loop over chunks.
        return is_plain_linear(head) and not narrow and not torch.compiler.is_compiling()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the labels (B, T) shifted right, with the decoder start token first (§3.1) and −100 as padding."""
        start = self.config.decoder_start_token_id
        if start is None:
            raise ValueError(
                "decoder_start_token_id is None, but it is the first decoder input; set it in the configuration"
            )
        return shift_tokens_right(labels, self.config.pad_token_id or 0, start)


def _select_positions(hidden_states: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Return the states (B, T, D) at the positions whose logits are asked for; see ``logits_to_keep`` of `forward`."""
    if isinstance(logits_to_keep, int):
        return hidden_states[:, slice(-logits_to_keep, None) if logits_to_keep else slice(None), :]
    return hidden_states[:, logits_to_keep, :]


class VanillaTransformerEncoderModel(VanillaTransformerPreTrainedModel):
    """The encoder alone, for sentence representations; it also loads from checkpoints of the full model."""

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
        check_keywords(type(self).forward, kwargs)
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)


__all__ = [
    "VanillaTransformerEncoderModel",
    "VanillaTransformerForConditionalGeneration",
    "VanillaTransformerModel",
    "VanillaTransformerPreTrainedModel",
]
