# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's beam search (§6.1), on a decoder that keeps what it can from step to step.

`paper_beam_search` searches; `score_targets` scores targets that are given. Both count the length of a target in tokens
with its end symbol, and both divide log-probabilities by `length_divisor`. The search runs the model's own sub-modules
one position at a time (`_IncrementalDecoder`); what it knows of open and finished hypotheses is in `_Search`.

The beams of a sentence stand side by side on the axis on which training has target positions. So they share the
sentence's encoder keys and values without copies, and self-attention's keys and values stay where they were written:
a mask says which of them belong to a beam's own past, and only that mask is reordered.
"""

# Shapes: B batch · S source length · T target length · W beam width · C candidates · N hypotheses returned a sentence
#         P positions written · L most tokens of any hypothesis · D d_model · H heads · K d_k · V vocabulary

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig
from transformers.generation import LogitsProcessorList, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from .beam_search_config_vanilla_transformer import BeamSearchConfig
from .layers_vanilla_transformer import scaled_dot_product_attention
from .loss_vanilla_transformer import IGNORE_INDEX

_IMPOSSIBLE = -1e4  # nats; at the length limit an end symbol of probability 0 counts as this, so that hypotheses rank
_NOT_FOR_BEAMS = {  # what generate() may be asked for and gets from itself only, with the value that asks for nothing
    "do_sample": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
}
_FIELDS = tuple(field.name for field in dataclasses.fields(BeamSearchConfig))
_USED_BY_GENERATE_ITSELF = {"encoder_outputs", "cache", "past_key_values", "use_cache", "logits_to_keep"}


@dataclass
class BeamSearchOutput(ModelOutput):
    """The best hypotheses of every sentence, best first; rows i·N to i·N + N − 1 belong to sentence i.

    A row whose sentence has fewer than N hypotheses (vocabularies of a few tokens) has length 0 and score −inf.

    Attributes:
        sequences: (B·N, 1 + T) token ids: the start symbol, the tokens up to the end symbol, padding.
        sequences_scores: (B·N,) log-probability in nats divided by `length_divisor`, plus the coverage term.
        token_log_probs: (B·N, T) log-probability in nats of each token after the start symbol; 0 at padding.
        lengths: (B·N,) tokens with the end symbol and without the start symbol.
        num_return_sequences: N.
    """

    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    token_log_probs: Tensor | None = None
    lengths: Tensor | None = None
    num_return_sequences: int | None = None

    def hypotheses(self) -> list[list[list[int]]]:
        """List, for each sentence, its hypotheses as token ids, best first: no start symbol, the end symbol last."""
        assert self.sequences is not None and self.lengths is not None and self.num_return_sequences is not None
        rows = [row[1 : 1 + n] for row, n in zip(self.sequences.tolist(), self.lengths.tolist(), strict=True)]
        return [rows[i : i + self.num_return_sequences] for i in range(0, len(rows), self.num_return_sequences)]


@dataclass
class TargetScores(ModelOutput):
    """Scores of given targets.

    Attributes:
        scores: (B,) log-probability in nats divided by `length_divisor`, as the search ranks; no coverage term.
        log_probs: (B,) log-probability of the whole target, in nats.
        token_log_probs: (B, T) log-probability of each token, in nats; 0 where there is no label.
        lengths: (B,) tokens scored, the end symbol included.
    """

    scores: Tensor | None = None
    log_probs: Tensor | None = None
    token_log_probs: Tensor | None = None
    lengths: Tensor | None = None


def paper_beam_search(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    config: BeamSearchConfig | None = None,
    *,
    generation_config: GenerationConfig | None = None,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    inputs_tensor: Tensor | None = None,
    **from_generate: Any,
) -> BeamSearchOutput | Tensor:
    """Translate by beam search as in §6.1: beam 4, GNMT length penalty α = 0.6, at most source + 50 tokens.

    Call it with a batch of sources, or hand it to ``model.generate(**inputs, custom_generate=paper_beam_search)`` with
    the keywords below. There ``num_beams`` and ``num_return_sequences``, given or of the generation configuration, are
    honoured as ``num_beams`` and ``num_return_sequences``, ``renormalize_logits`` gives the share of the tokens that are never
    written to the others, and the result is what `generate` returns: the tensor of sequences, or all of it with
    ``return_dict_in_generate=True``.

    At each step the (number of end symbols + 1)·W best continuations of a sentence's W open hypotheses are looked at:
    those among the first W that end are finished, the best W that don't end stay open. A sentence is done when no open
    hypothesis can still beat its N finished ones. That is exact: log-probabilities only fall, so the best a hypothesis
    can come to is what it has now over the largest divisor still ahead. At the length limit every open hypothesis is
    ended by force, at the cost of its end symbol, so each sentence has a result and each result ends. With a beam of 1
    the search is greedy: the first end symbol that wins ends it. Padding and the start symbol are never written; their
    share of the probability is not given to other tokens, unless `generate` is asked for ``renormalize_logits``.

    Args:
        model: `VanillaTransformerForConditionalGeneration`; runs in evaluation mode, whatever mode it is in.
        input_ids: (B, S) source tokens, padded on either side. (From `generate`: the decoder's start symbols.)
        attention_mask: (B, S), 1 keeps, 0 is padding; None takes what equals the padding id for padding.
        config: settings of the search; None takes the paper's.
        generation_config: names the special tokens; None takes the model's.
        logits_processor, stopping_criteria, inputs_tensor, from_generate: what `generate` hands over.

    Returns:
        The hypotheses with their scores; see `BeamSearchOutput`.

    Raises:
        ValueError: If an argument is out of range, a source is empty, `generate` was asked for something that this
            search doesn't do, or the model's logits are not numbers.
    """
    model = _plain_model(model)
    flat = {name: from_generate.pop(name) for name in _FIELDS if name in from_generate}
    if flat and config is not None:
        raise ValueError(f"config and {', '.join(flat)} were both given; give only one of them")
    given = BeamSearchConfig() if config is None else config
    if unknown := sorted(set(from_generate) - _USED_BY_GENERATE_ITSELF):
        raise ValueError(f"paper_beam_search has no argument {', '.join(unknown)}; see its documentation")
    source, encoder_outputs = input_ids, from_generate.get("encoder_outputs")
    renormalize = False
    if inputs_tensor is not None:
        source = inputs_tensor  # generate() calls: input_ids are the decoder's
        assert generation_config is not None  # generate() always hands one over
        for name in ("num_beams", "num_return_sequences"):
            asked = getattr(generation_config, name, None)
            if asked not in (None, 1):
                if flat.get(name, asked) != asked:
                    raise ValueError(
                        f"{name}={asked} of generate and {name}={flat[name]} contradict each other; give one"
                    )
                flat[name] = asked
        given = given.replace(**flat)
        max_target_tokens = _limit_from_generate(
            model, input_ids, generation_config, logits_processor, stopping_criteria, given.max_target_tokens
        )
        given = given.replace(max_target_tokens=max_target_tokens)
        renormalize = bool(getattr(generation_config, "renormalize_logits", False))
        encoder_outputs = _without_copies(encoder_outputs, copies=input_ids.shape[0] // source.shape[0])
    elif flat:
        given = given.replace(**flat)
    with torch.no_grad(), _evaluation_mode(model):
        states, attention_mask = _encode(model, source, attention_mask, encoder_outputs)
        limits = [int(length) + given.max_extra_tokens for length in attention_mask.sum(dim=-1).tolist()]
        for cap in (given.max_target_tokens, model.model.decoder.embed_positions.max_length):
            limits = limits if cap is None else [min(limit, cap) for limit in limits]
        search = _Search(
            config=given,
            limits=limits,
            special=_SpecialTokens.of(model, generation_config),
            renormalize=renormalize,
            source_mask=attention_mask,
            dtype=torch.promote_types(states.dtype, torch.float32),
        )
        output = search.run(
            _IncrementalDecoder(model, states, attention_mask, given.num_beams, max(limits)), model.lm_head
        )
    if inputs_tensor is None or getattr(generation_config, "return_dict_in_generate", False):
        return output
    assert output.sequences is not None
    return output.sequences


def score_targets(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor,
    config: BeamSearchConfig | None = None,
) -> TargetScores:
    """Score given targets as the search scores its own, with no coverage term.

    Args:
        model: `VanillaTransformerForConditionalGeneration`; runs in evaluation mode, whatever mode it is in.
        input_ids: (B, S) source tokens.
        attention_mask: (B, S), 1 keeps, 0 is padding; None takes what equals the padding id for padding.
        labels: (B, T) target tokens with their end symbols, padded on the right with −100 or the padding id.
        config: its length normalization is used; None takes the paper's.

    Returns:
        See `TargetScores`.

    Raises:
        ValueError: If an argument is out of range or a target has no tokens.
    """
    config = BeamSearchConfig() if config is None else config
    model = _plain_model(model)
    if model.config.pad_token_id is not None:
        labels = labels.masked_fill(labels == model.config.pad_token_id, IGNORE_INDEX)
    scored = labels != IGNORE_INDEX  # (B, T)
    if not bool(scored.any(dim=-1).all()):
        raise ValueError("a target has no tokens to score; give it at least its end symbol")
    with torch.no_grad(), _evaluation_mode(model):
        states = model.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
        ).last_hidden_state
        # 1,024 positions at a time: logits of a whole batch can be larger than the model.
        token_log_probs = torch.cat(
            [
                _log_probs_of(model.lm_head(chunk), ids)
                for chunk, ids in zip(
                    states.flatten(0, 1).split(1024), labels.clamp(min=0).flatten().split(1024), strict=True
                )
            ]
        ).view(labels.shape)
    token_log_probs = token_log_probs.masked_fill(~scored, 0.0)
    log_probs, lengths = token_log_probs.sum(dim=-1), scored.sum(dim=-1)
    return TargetScores(
        scores=log_probs / config.length_divisor(lengths.to(log_probs.dtype)),
        log_probs=log_probs,
        token_log_probs=token_log_probs,
        lengths=lengths,
    )


def _log_probs_of(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities (rows,) of one id each, from logits (rows, V)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)


# --------------------------------------------------------------------------- arguments


def _plain_model(model: Any) -> Any:
    """Return the model that the search can run, out of an adapter's wrapper.

    Raises:
        ValueError: If it is another kind of model, is spread over devices, or has an adapter that lives outside of the
            model's modules, as prompt and prefix tuning do: the search would leave it out.
    """
    adapters: Any = getattr(model, "peft_config", None)
    if hasattr(model, "get_base_model"):
        for name in model.active_adapters:
            if getattr(adapters[name], "is_prompt_learning", False):
                raise ValueError(
                    f"adapter {name!r} ({adapters[name].peft_type.value}) adds virtual tokens outside of the model's "
                    "modules, which beam search here can't apply; use generate(), or an adapter of weights such as LoRA"
                )
        model = model.get_base_model()
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind != "vanilla_transformer" or not hasattr(model, "lm_head"):
        raise ValueError(
            f"paper_beam_search needs a VanillaTransformerForConditionalGeneration, not {type(model).__name__} ({kind})"
        )
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) > 1 or torch.device("meta") in devices:
        raise ValueError("paper_beam_search needs the whole model on one device; move it there or use plain generate()")
    return model


def _without_copies(encoder_outputs: Any, copies: int) -> Any:
    """Undo what `generate` did for its own beam search: every sentence's row `copies` times in a row."""
    if encoder_outputs is None or copies == 1:
        return encoder_outputs
    return BaseModelOutput(encoder_outputs[0][::copies])


def _limit_from_generate(
    model: Any,
    start_ids: Tensor,
    config: GenerationConfig,
    processors: LogitsProcessorList | None,
    criteria: StoppingCriteriaList | None,
    max_tokens: int | None,
) -> int | None:
    """Refuse what `generate` was asked for in vain, and return the caller's limit in tokens, None if there is none."""
    for name, nothing in _NOT_FOR_BEAMS.items():
        value = getattr(config, name, None)
        if value is not None and value != nothing:
            raise ValueError(f"paper_beam_search doesn't take {name}={value}; leave it out or use plain generate()")
    if start_ids.shape[1] != 1:
        raise ValueError("paper_beam_search starts from the start symbol alone; leave decoder_input_ids out")
    special = _SpecialTokens.of(model, config)
    own_words = [[token_id] for token_id in special.never]
    forced = getattr(config, "forced_eos_token_id", None)
    banned = getattr(config, "bad_words_ids", None)
    done_here = {  # what Marian's generation configurations ask for and the search does anyway
        "NoBadWordsLogitsProcessor": all(word in own_words for word in banned or []),  # padding is never written
        "ForcedEOSTokenLogitsProcessor": {*(forced if isinstance(forced, list) else [forced])} <= {*special.end},
        "LogitNormalization": True,  # renormalize_logits
    }
    for processor in processors or []:
        if done_here.get(type(processor).__name__, False):
            continue
        raise ValueError(
            f"paper_beam_search applies no {type(processor).__name__}; take its setting out of the generation "
            "configuration or use plain generate()"
        )
    for criterion in criteria or []:
        if type(criterion).__name__ not in ("MaxLengthCriteria", "EosTokenCriteria"):
            raise ValueError(f"paper_beam_search applies no {type(criterion).__name__}; leave it out")
    # The model's default max_length is there so that plain generate() doesn't stop at 20; only another one is a wish.
    if config.max_length is None or config.max_length == model.generation_config.max_length:
        return max_tokens
    limit = max(1, config.max_length - 1)  # it counts the start symbol
    return limit if max_tokens is None else min(limit, max_tokens)


@dataclass(frozen=True)
class _SpecialTokens:
    """The ids that mean something to the search.

    Attributes:
        start: first decoder input.
        end: ids that end a hypothesis.
        pad: fills short rows.
        never: ids that are not written: padding and the start symbol, unless they are end symbols.
    """

    start: int
    end: tuple[int, ...]
    pad: int
    never: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, generation_config: GenerationConfig | None) -> "_SpecialTokens":
        """Read them from the generation configuration, and what it lacks from the model's configuration."""

        def read(name: str) -> Any:
            for source in (generation_config, model.generation_config, model.config):
                if getattr(source, name, None) is not None:
                    return getattr(source, name)
            return None

        start, end, pad, begin = (
            read(f"{name}_token_id") for name in ("decoder_start", "eos", "pad", "bos")
        )  # any may be None
        start = begin if start is None else start
        end = () if end is None else tuple(end) if isinstance(end, (list, tuple)) else (end,)
        if start is None or not end:
            missing = "decoder_start_token_id" if start is None else "eos_token_id"
            raise ValueError(f"beam search needs a {missing}; set it in the model's generation_config")
        vocabulary = model.config.output_vocab_size
        never = {token_id for token_id in (pad, start, begin) if token_id is not None and token_id not in end}
        return cls(start, end, end[0] if pad is None else pad, tuple(sorted(i for i in never if 0 <= i < vocabulary)))


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _encode(model: Any, source: Tensor, attention_mask: Tensor | None, encoder_outputs: Any) -> tuple[Tensor, Tensor]:
    """Encode the source once, unless `generate` has done it; returns the states (B, S, D) and the mask (B, S)."""
    is_ids = not source.is_floating_point()
    absent = is_ids and bool((source < 0).all())  # what generate() makes up where only encoder_outputs are given
    derived = torch.ones(source.shape[:2], dtype=torch.long, device=source.device)
    if is_ids and not absent and model.config.pad_token_id is not None:
        derived = (source != model.config.pad_token_id).long()
    # generate() hands a mask that we name to us alone, so its encoder used the derived one.
    mask = derived if attention_mask is None else attention_mask.to(source.device)
    if mask.shape != source.shape[:2]:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, the source {tuple(source.shape[:2])}; they have to agree"
        )
    mask = mask.long()
    if source.shape[0] == 0 or source.shape[1] == 0 or not bool(mask.any(dim=-1).all()):
        raise ValueError("a source has no tokens; give every sentence at least its end symbol")
    if encoder_outputs is not None and (absent or bool((mask == derived).all())):
        if not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(encoder_outputs[0])
        states = encoder_outputs.last_hidden_state
        return states, mask.to(states.device)
    mask = mask.to(model.device)
    inputs = {"input_ids" if is_ids else "inputs_embeds": source.to(model.device)}
    return model.model.encoder(attention_mask=mask, **inputs).last_hidden_state, mask


# --------------------------------------------------------------------------- the decoder, one position at a time


class _IncrementalDecoder:
    """The model's decoder for W beams a sentence, one position a step.

    It calls the layers' own sub-modules (so adapters, biases and both norm positions are honoured) and keeps, for each
    layer, the encoder's keys and values (B, H, S, K) and those of earlier positions (B, H, P·W, K).
    """

    def __init__(self, model: Any, encoder_states: Tensor, source_mask: Tensor, num_beams: int, most_steps: int):
        self.decoder = model.model.decoder
        self.num_beams, self.most_steps = num_beams, most_steps
        self.steps = 0  # positions written
        self.sentences = encoder_states.shape[0]  # those still searched: the first so many rows of every tensor
        device, dtype = encoder_states.device, encoder_states.dtype
        self.cross = [
            [states.contiguous() for states in layer.cross_attn.project_key_value(encoder_states)]
            for layer in self.decoder.layers
        ]
        # 0 keeps, −inf hides; no mask at all where nothing is padded.
        padded = not bool(source_mask.all())
        hidden = torch.zeros(source_mask.shape, dtype=dtype, device=device).masked_fill(source_mask == 0, -math.inf)
        self.source_mask = hidden[:, None, None, :] if padded else None  # (B, 1, 1, S)
        steps = torch.arange(most_steps, device=device)
        self.positions = self.decoder.embed_positions(steps, dtype)  # (L, D)
        # Most translations are about as long as their source: room for that, and more when it is needed.
        self.room = min(most_steps, source_mask.shape[1] + 8)
        self.past = [
            [
                states.new_empty(states.shape[0], states.shape[1], self.room * num_beams, states.shape[3])
                for states in key_value
            ]
            for key_value in self.cross
        ]
        # Which written positions are a beam's own past: 0 keeps, −inf hides.
        self.past_mask = torch.full(
            (self.sentences, num_beams, self.room * num_beams), -math.inf, dtype=dtype, device=device
        )
        self.own_position = torch.full((num_beams, num_beams), -math.inf, dtype=dtype, device=device)
        self.own_position.fill_diagonal_(0.0)

    def step(self, tokens: Tensor, parents: Tensor | None, with_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Decode one position.

        Args:
            tokens: (B, W) the latest token of every beam.
            parents: (B, W) the beam of the step before that each beam continues; None at the first step.
            with_attention: whether to return the attention over the source.

        Returns:
            The decoder's output (B, W, D), and the last layer's encoder-decoder attention (B, W, S) averaged over heads
            if asked for.
        """
        if self.steps == self.room:
            self._make_room()
        width = self.num_beams
        start, stop = self.steps * width, (self.steps + 1) * width
        past_mask = self.past_mask[: self.sentences]
        if parents is not None and width > 1:
            own = past_mask[:, :, :start]
            past_mask[:, :, :start] = own.gather(1, parents.unsqueeze(-1).expand(-1, -1, start))
        past_mask[:, :, start:stop] = self.own_position
        mask = past_mask[:, None, :, :stop] if width > 1 else None  # (B, 1, W, P·W)
        states = self.decoder.embed_tokens(tokens) * self.decoder.embed_scale + self.positions[self.steps]
        attention = None
        for index in range(len(self.decoder.layers)):
            wanted = with_attention and index == len(self.decoder.layers) - 1
            states, attention = self._run_layer(index, states, mask, start, stop, wanted)
        self.steps += 1
        if self.decoder.final_norm is not None:
            states = self.decoder.final_norm(states)
        return states, attention

    def _run_layer(
        self, index: int, states: Tensor, mask: Tensor | None, start: int, stop: int, with_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        layer, count = self.decoder.layers[index], self.sentences
        attention: Tensor | None = None

        def self_attention(states: Tensor) -> Tensor:
            module = layer.self_attn
            past = []
            for cache, new in zip(self.past[index], module.project_key_value(states), strict=True):
                cache[:count, :, start:stop] = new
                past.append(cache[:count, :, :stop])
            return _attend(module, module.project_query(states), past[0], past[1], mask)

        def cross_attention(states: Tensor) -> Tensor:
            nonlocal attention
            module = layer.cross_attn
            query, (key, value) = module.project_query(states), (cache[:count] for cache in self.cross[index])
            source_mask = None if self.source_mask is None else self.source_mask[:count]
            if with_attention:
                attention = scaled_dot_product_attention(query, key, value, source_mask, scale=module.scaling)[1]
            return _attend(module, query, key, value, source_mask)

        states = layer.add_and_norm(states, self_attention, layer.self_attn_norm)
        states = layer.add_and_norm(states, cross_attention, layer.cross_attn_norm)
        states = layer.add_and_norm(states, layer.feed_forward, layer.feed_forward_norm)
        return states, None if attention is None else attention.mean(dim=1)

    def _make_room(self) -> None:
        more = min(self.most_steps, 2 * self.room) - self.room
        self.room += more
        columns = more * self.num_beams
        for caches in self.past:
            for number, cache in enumerate(caches):
                caches[number] = functional.pad(cache[: self.sentences], (0, 0, 0, columns))
        self.past_mask = functional.pad(self.past_mask[: self.sentences], (0, columns), value=-math.inf)

    def keep(self, rows: list[int]) -> None:
        """Keep these rows of the batch, which then are the first; a row that keeps its place costs nothing."""
        moved = [(new, old) for new, old in enumerate(rows) if new != old]
        self.sentences = len(rows)
        if not moved:
            return
        new, old = (torch.tensor(side, device=self.past_mask.device) for side in zip(*moved, strict=True))
        tensors = [self.past_mask, *([] if self.source_mask is None else [self.source_mask])]
        for tensor in tensors + [cache for caches in self.cross for cache in caches]:
            tensor[new] = tensor[old]
        written = self.steps * self.num_beams
        for cache in (cache for caches in self.past for cache in caches):
            cache[new, :, :written] = cache[old, :, :written]


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with the beams (B, H, W, K) to (B, H, S, K): (B, W, D)."""
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=module.scaling)
    return module.out_proj(context.transpose(1, 2).flatten(2))


# --------------------------------------------------------------------------- the search


class _Search:
    """Open and finished hypotheses of a batch; row i of every tensor belongs to sentence ``self.rows[i]``."""

    def __init__(
        self,
        config: BeamSearchConfig,
        limits: list[int],
        special: _SpecialTokens,
        renormalize: bool,
        source_mask: Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.config = config
        self.num_beams, self.num_return_sequences = config.num_beams, config.num_return_sequences
        self.coverage_penalty = config.coverage_penalty
        num_beams, num_return_sequences = self.num_beams, self.num_return_sequences
        self.special, self.renormalize = special, renormalize
        batch, device = len(limits), source_mask.device
        self.rows = list(range(batch))
        self.limits = limits  # tokens, by sentence
        most = max(limits)
        # By sentence and length, the largest divisor still ahead. A score is a total ≤ 0 over a divisor that rises or
        # falls with length, so it is the first one or the last.
        lengths = range(1, most + 1)
        divisors = torch.tensor([config.length_divisor(n) for n in lengths], dtype=torch.float64)
        last = torch.tensor(limits).unsqueeze(-1)
        following = torch.minimum(torch.arange(2, most + 2), last)
        self.largest_divisor = torch.maximum(divisors[following - 1], divisors[last - 1]).to(dtype).to(device)  # (B, L)
        self.end_ids = torch.tensor(special.end, device=device)
        self.never_ids = torch.tensor(special.never, dtype=torch.long, device=device)
        self.source_mask = source_mask

        def of_open(*shape: int, fill: float, dtype: torch.dtype = dtype) -> Tensor:
            return torch.full((batch, num_beams, *shape), fill, dtype=dtype, device=device)

        def of_finished(*shape: int, fill: float, dtype: torch.dtype = dtype) -> Tensor:
            return torch.full((batch, num_return_sequences, *shape), fill, dtype=dtype, device=device)

        # All beams start alike; only the first counts, or the search would find everything W times.
        self.totals = of_open(fill=-math.inf)  # (B, W) log-probability so far, nats, best first
        self.totals[:, 0] = 0.0
        self.last = of_open(fill=special.start, dtype=torch.long)
        self.tokens = of_open(most, fill=special.pad, dtype=torch.long)  # (B, W, L)
        self.log_probs = of_open(most, fill=0.0)
        self.covered = of_open(source_mask.shape[1], fill=0.0)  # (B, W, S) attention that a source token had so far
        self.finished_scores = of_finished(fill=-math.inf)  # (B, N), best first
        self.finished_lengths = of_finished(fill=0, dtype=torch.long)
        self.finished_tokens = of_finished(most, fill=special.pad, dtype=torch.long)
        self.finished_log_probs = of_finished(most, fill=0.0)
        self.by_sentence = (
            "source_mask largest_divisor totals last tokens log_probs covered "
            "finished_scores finished_lengths finished_tokens finished_log_probs"
        ).split()
        self.kept = self.rows  # rows that the last `_let_go` kept, in their new order
        self.results: dict[int, list[Tensor]] = {}  # by sentence: scores, lengths, tokens, log-probabilities

    def run(self, decoder: _IncrementalDecoder, lm_head: nn.Module) -> BeamSearchOutput:
        """Search until every sentence is done."""
        parents: Tensor | None = None
        length = 0
        while self.rows:
            length += 1
            states, attention = decoder.step(self.last, parents, with_attention=self.coverage_penalty > 0)
            if attention is not None:
                self.covered = self.covered + attention
            parents, ended, keep = self._extend(lm_head(states), length)
            any_ended, done, failed = self._look(length, ended)
            if any_ended:
                keep()
            self._let_go(done, failed, decoder)
            parents = parents if len(self.rows) == parents.shape[0] else parents[self.kept]
        return self._output()

    def _extend(self, logits: Tensor, length: int) -> tuple[Tensor, Tensor, Callable[[], None]]:
        """Choose each sentence's best continuations of its open beams.

        Args:
            logits: (B, W, V); overwritten.
            length: tokens of a hypothesis with this one.

        Returns:
            The beam that each new open beam continues (B, W), whether a hypothesis of the sentence ended (B,), and what
            is to be called if any did: it keeps the tokens of those that are among the sentence's N best.
        """
        width = self.num_beams
        logits = logits.detach()
        if self.renormalize:
            logits.index_fill_(-1, self.never_ids, -math.inf)
        normalizer = _logsumexp(logits).to(self.totals.dtype)  # (B, W)
        logits.index_fill_(-1, self.never_ids, -math.inf)
        self._force_the_end(logits, normalizer, length)
        candidates = (1 + len(self.special.end)) * width  # so many that W stay open even if all others end
        values, ids = _top_of_rows(logits, min(candidates, logits.shape[-1]))
        each = ids.shape[-1]
        log_probs = values.to(self.totals.dtype) - normalizer.unsqueeze(-1)  # (B, W, C)
        totals = (self.totals.unsqueeze(-1) + log_probs).flatten(1)  # (B, W·C)
        best, chosen = totals.topk(min(candidates, totals.shape[1]))  # (B, C), best first
        beams = chosen // each
        ids = ids.flatten(1).gather(1, chosen)
        log_probs = log_probs.flatten(1).gather(1, chosen)
        ends = torch.isin(ids, self.end_ids)
        finished = (ends & (best > -math.inf))[:, :width]  # an end further down is no result: it lost to W others
        ended = (beams[:, :width], ids[:, :width], log_probs[:, :width])
        chosen = self._rank_finished(best[:, :width], ended[0], finished, length)
        keep = functools.partial(self._keep, self.tokens, self.log_probs, *ended, finished, chosen, length)
        self.totals, order = best.masked_fill(ends, -math.inf).topk(width)
        parents = beams.gather(1, order)
        self.last = ids.gather(1, order)
        self.tokens = _of_beams(self.tokens, parents)
        self.log_probs = _of_beams(self.log_probs, parents)
        self.tokens[:, :, length - 1] = self.last
        self.log_probs[:, :, length - 1] = log_probs.gather(1, order)
        if self.coverage_penalty > 0:
            self.covered = _of_beams(self.covered, parents)
        return parents, finished.any(dim=1), keep

    def _force_the_end(self, logits: Tensor, normalizer: Tensor, length: int) -> None:
        """Leave only the end symbols to the sentences whose limit this length is."""
        at_limit = [row for row, sentence in enumerate(self.rows) if self.limits[sentence] == length]
        if not at_limit:
            return
        ends = logits[at_limit][..., self.end_ids]
        least = (normalizer[at_limit] + _IMPOSSIBLE).unsqueeze(-1).to(ends.dtype)
        forced = torch.full_like(logits[at_limit], -math.inf)
        forced[..., self.end_ids] = torch.maximum(ends, least)
        logits[at_limit] = forced

    def _rank_finished(self, totals: Tensor, beams: Tensor, finished: Tensor, length: int) -> Tensor:
        """Put the scores of the continuations (B, W) that are ``finished`` among the sentence's N best.

        Returns:
            Where each of these N comes from (B, N): below N from those of before, from N on from the continuations.
        """
        scores = totals / self.config.length_divisor(length)
        if self.coverage_penalty > 0:
            scores = scores + self.coverage_penalty * self._coverage().gather(1, beams)
        scores = scores.masked_fill(~finished, -math.inf)
        self.finished_scores, chosen = torch.cat([self.finished_scores, scores], dim=1).topk(self.num_return_sequences)
        return chosen

    def _keep(
        self,
        tokens: Tensor,
        log_probs: Tensor,
        beams: Tensor,
        ids: Tensor,
        token_log_probs: Tensor,
        finished: Tensor,
        chosen: Tensor,
        length: int,
    ) -> None:
        """Keep the tokens of the N best.

        Args:
            tokens, log_probs: (B, W, L) of the open beams of the step before.
            beams, ids, token_log_probs: (B, W), of each continuation the beam, the token and its log-probability.
            finished, chosen, length: see `_rank_finished`.
        """
        tokens, log_probs = _of_beams(tokens, beams), _of_beams(log_probs, beams)
        tokens[:, :, length - 1] = ids
        log_probs[:, :, length - 1] = token_log_probs
        lengths = torch.full_like(ids, length).masked_fill(~finished, 0)
        self.finished_lengths = torch.cat([self.finished_lengths, lengths], dim=1).gather(1, chosen)
        self.finished_tokens = _of_beams(torch.cat([self.finished_tokens, tokens], dim=1), chosen)
        self.finished_log_probs = _of_beams(torch.cat([self.finished_log_probs, log_probs], dim=1), chosen)

    def _coverage(self) -> Tensor:
        """Σ_source log(min(Σ_target p, 1)) of every open beam (B, W); attention can underflow to 0, its log may not."""
        smallest = torch.finfo(self.covered.dtype).tiny
        terms = self.covered.clamp(min=smallest, max=1.0).log()
        return terms.masked_fill((self.source_mask == 0).unsqueeze(1), 0.0).sum(dim=-1)

    def _look(self, length: int, ended: Tensor) -> tuple[bool, list[bool], list[bool]]:
        """Read what the search has to know of this step; the one place in a step where it waits for the device.

        Returns:
            Whether any hypothesis ended, which sentences have nothing more to gain, and which have NaN for a total.
        """
        best = self.totals[:, 0]
        # Log-probabilities only fall and the coverage term is at most 0, so no open hypothesis can come to more.
        hopeless = ~(best / self.largest_divisor[:, length - 1] > self.finished_scores[:, -1])
        if self.num_beams == 1:
            hopeless = hopeless | ended
        ends, lost, failed = torch.stack([ended, hopeless, best.isnan()]).tolist()
        limits = [self.limits[sentence] for sentence in self.rows]
        done = [hope_lost or limit == length for hope_lost, limit in zip(lost, limits, strict=True)]
        return any(ends), done, failed

    def _let_go(self, done: list[bool], failed: list[bool], decoder: _IncrementalDecoder) -> None:
        """Take the sentences that are done out of the batch; the last rows move into the gaps."""
        if not any(done):
            return
        for row in (row for row, is_done in enumerate(done) if is_done):
            if failed[row]:
                raise ValueError(
                    "the model's logits are not numbers (NaN), so its weights are; load a sound checkpoint"
                )
            self.results[self.rows[row]] = [
                self.finished_scores[row],
                self.finished_lengths[row],
                self.finished_tokens[row],
                self.finished_log_probs[row],
            ]
        alive = [row for row, is_done in enumerate(done) if not is_done]
        gaps = [row for row in range(len(alive)) if done[row]]
        self.kept = list(range(len(alive)))
        for gap in gaps:
            self.kept[gap] = alive.pop()
        self.rows = [self.rows[row] for row in self.kept]
        if self.rows:
            for name in self.by_sentence:
                setattr(self, name, getattr(self, name)[self.kept])
            decoder.keep(self.kept)

    def _output(self) -> BeamSearchOutput:
        results = [self.results[sentence] for sentence in range(len(self.results))]
        scores, lengths, tokens, log_probs = (torch.cat(parts) for parts in zip(*results, strict=True))
        longest = int(lengths.max())
        start = torch.full((tokens.shape[0], 1), self.special.start, dtype=torch.long, device=tokens.device)
        return BeamSearchOutput(
            sequences=torch.cat([start, tokens[:, :longest]], dim=1),
            sequences_scores=scores,
            token_log_probs=log_probs[:, :longest],
            lengths=lengths,
            num_return_sequences=self.num_return_sequences,
        )


def _of_beams(values: Tensor, beams: Tensor) -> Tensor:
    """Gather rows (B, W, …) → (B, any, …) by ``beams`` (B, any)."""
    return values.gather(1, beams.unsqueeze(-1).expand(*beams.shape, values.shape[-1]))


def _logsumexp(logits: Tensor) -> Tensor:
    """log Σ exp over the vocabulary in at least fp32: (B, W, V) → (B, W).

    On the CPU a few rows at a time, so that what lies between stays in the processor's cache.
    """
    precise = torch.promote_types(logits.dtype, torch.float32)
    if logits.device.type != "cpu":
        return logits.to(precise).logsumexp(dim=-1)
    rows = max(1, 2**17 // logits.shape[-1])
    parts = [part.to(precise).logsumexp(dim=-1) for part in logits.flatten(0, 1).split(rows)]
    return torch.cat(parts).view(logits.shape[:2])


def _top_of_rows(logits: Tensor, k: int, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """`logits.topk(k)` in one pass over (B, W, V): the k best lie in the k chunks with the largest maxima."""
    vocabulary = logits.shape[-1]
    chunks = vocabulary // chunk
    if chunks <= 4 * k:
        best = logits.topk(k)
        return best.values, best.indices
    whole = logits[..., : chunks * chunk].unflatten(-1, (chunks, chunk))
    chosen = whole.amax(dim=-1).topk(k, sorted=False).indices.unsqueeze(-1)  # (B, W, k, 1)
    values = whole.gather(-2, chosen.expand(*chosen.shape[:-1], chunk)).flatten(-2)
    ids = (chosen * chunk + torch.arange(chunk, device=logits.device)).flatten(-2)
    rest = torch.arange(chunks * chunk, vocabulary, device=logits.device).expand(*logits.shape[:-1], -1)
    best = torch.cat([values, logits[..., chunks * chunk :]], dim=-1).topk(k)
    return best.values, torch.cat([ids, rest], dim=-1).gather(-1, best.indices)


__all__ = [
    "BeamSearchOutput",
    "TargetScores",
    "paper_beam_search",
    "score_targets",
]
