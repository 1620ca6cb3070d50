# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's beam search (§6.1): `paper_beam_search` runs it, `score_targets` scores existing translations.

Both count the length of a target in tokens with its EOS token, and divide its log-probability by
`BeamSearchConfig.length_divisor`. `_BeamSearch.run` is the loop over positions; its state is in the state file.
"""

# Shapes: B batch · S source length · T target length · W beam width · C candidates · N hypotheses returned per sentence
#         L longest hypothesis allowed, in tokens · D d_model · V vocabulary

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from .beam_search_config_vanilla_transformer import BeamSearchConfig
from .beam_search_state_vanilla_transformer import (
    ChosenContinuations,
    Continuations,
    FinishedHypotheses,
    OpenHypotheses,
    Sentences,
    gather_beams,
)
from .constraints_vanilla_transformer import Constraints, checked_constraints
from .ensemble_vanilla_transformer import NextTokenLogits, evaluation_mode, log_mean_exp, models_of, shortest_limit
from .loss_vanilla_transformer import IGNORE_INDEX
from .special_tokens_vanilla_transformer import SpecialTokens
from .token_rules_vanilla_transformer import Phrase, PrefixLogits, TokenRules, check_banned_words, checked_prefixes

# At the length limit an EOS token of probability 0 counts as e^−10,000, so that hypotheses can still be ranked.
_LOWEST_FORCED_LOG_PROB = -1e4  # nats
_CHUNK = 64  # tokens of the vocabulary, whose best is found first


@dataclass
class BeamSearchOutput(ModelOutput):
    """The best hypotheses of every sentence, best first; rows i·N to i·N + N − 1 belong to sentence i.

    A row whose sentence has fewer than N hypotheses (vocabularies of a few tokens) has length 0 and score −inf.

    Attributes:
        sequences: (B·N, 1 + T) token ids: the decoder start token, the tokens up to the EOS token, padding.
        sequences_scores: (B·N,) log-probability in nats divided by `BeamSearchConfig.length_divisor`, plus the coverage
            penalty.
        token_log_probs: (B·N, T) log-probability in nats of each token after the decoder start token; 0 at padding.
            None from exported models.
        lengths: (B·N,) tokens with the EOS token and without the decoder start token.
        num_return_sequences: N.
    """

    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    token_log_probs: Tensor | None = None
    lengths: Tensor | None = None
    num_return_sequences: int | None = None

    def hypotheses(self) -> list[list[list[int]]]:
        """List the hypotheses of each sentence as token ids, best first, without the decoder start token."""
        assert self.sequences is not None and self.lengths is not None and self.num_return_sequences is not None
        rows = [row[1 : 1 + n] for row, n in zip(self.sequences.tolist(), self.lengths.tolist(), strict=True)]
        return [rows[i : i + self.num_return_sequences] for i in range(0, len(rows), self.num_return_sequences)]


@dataclass
class TargetScores(ModelOutput):
    """Scores of given targets.

    Attributes:
        scores: (B,) log-probability in nats divided by `BeamSearchConfig.length_divisor`; no coverage penalty.
        log_probs: (B,) log-probability of the target, in nats.
        token_log_probs: (B, T) log-probability of each token, in nats; 0 where there is no label.
        lengths: (B,) tokens scored, the EOS token included.
    """

    scores: Tensor | None = None
    log_probs: Tensor | None = None
    token_log_probs: Tensor | None = None
    lengths: Tensor | None = None


# --------------------------------------------------------------------------- public functions


def paper_beam_search(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    config: BeamSearchConfig | None = None,
    *,
    prefixes: Sequence[Phrase | None] | None = None,
    constraints: Sequence[Sequence[Phrase] | None] | None = None,
) -> BeamSearchOutput:
    """Translate by beam search as in §6.1: beam 4, GNMT length penalty α = 0.6, at most source + 50 tokens.

    At each step, the (number of EOS tokens + 1)·W best continuations of a sentence's W open hypotheses are considered.
    Those of the first W that end are finished hypotheses; the best W that don't end stay open. A sentence is finished
    when no open hypothesis can still score higher than its N best finished ones. This stop is exact: log-probabilities
    never increase, so the highest score that a hypothesis can reach is its log-probability over the largest divisor
    that is still possible. (``early_stopping=True`` stops earlier.) At the length limit every open hypothesis is ended,
    at the cost of its EOS token, so each sentence has a result and each result has an EOS token. With a beam of 1 the
    search is greedy: the first EOS token ends it. Padding and the decoder start token are never generated; other tokens
    don't get their share of the probability.

    Prefixes, constraints and the settings that ban tokens restrict the targets; log-probabilities stay the model's. A
    target may be ``max_extra_tokens`` longer than its prefix and constraints together. A sentence whose restrictions
    contradict each other, or are lost from a narrow beam, has a result without tokens and the score −∞.

    `generate_with_paper_beam_search` runs the same search in ``model.generate(custom_generate=…)``.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, in evaluation or training mode (dropout is off); with PEFT
            adapters of weights, such as LoRA, or without. Or an `Ensemble` or a list of such models, or an exported
            model from `load_engine`.
        input_ids: (B, S) source tokens, padded on either side.
        attention_mask: (B, S), 1 keeps, 0 is padding; None hides what equals ``pad_token_id``.
        config: settings of the search; None uses the paper's.
        prefixes: first tokens of each target, one sequence per source, [] or None where it has none. They are part of
            the hypothesis, its length and its score.
        constraints: phrases that each target contains, one list of token sequences per source, [] or None where it has
            none. Phrases may overlap; one that is given twice need occur only once. Use a beam that is at least as wide
            as a target's constraints have tokens.

    Returns:
        The hypotheses with their scores; see `BeamSearchOutput`.

    Raises:
        ValueError: If a source is empty, the model or the settings are not supported, a prefix or constraint does not
            fit, or the model's logits are NaN.
    """
    config = BeamSearchConfig() if config is None else config
    if hasattr(model, "beam_search"):
        return model.beam_search(input_ids, attention_mask, config, prefixes=prefixes, constraints=constraints)
    models = models_of(model)
    device = models[0].device
    mask = source_padding_mask(input_ids, attention_mask, models[0].config.pad_token_id).to(device)
    source = {"inputs_embeds" if input_ids.is_floating_point() else "input_ids": input_ids.to(device)}
    with torch.no_grad(), evaluation_mode(models):
        encoder_states = [one.model.encoder(attention_mask=mask, **source).last_hidden_state for one in models]
    return search_encoded(models, encoder_states, mask, config, prefixes=prefixes, constraints=constraints)


def search_encoded(
    models: Sequence[Any],
    encoder_states: Sequence[Tensor],
    attention_mask: Tensor,
    config: BeamSearchConfig,
    special_tokens: SpecialTokens | None = None,
    renormalize_logits: bool = False,
    prefixes: Sequence[Phrase | None] | None = None,
    constraints: Sequence[Sequence[Phrase] | None] | None = None,
) -> BeamSearchOutput:
    """Run `paper_beam_search` on sources that are already encoded.

    Args:
        models: `VanillaTransformerForConditionalGeneration` models; several are an ensemble.
        encoder_states: of each model, (B, S, D), the encoder's output.
        attention_mask: (B, S), 1 keeps, 0 is padding.
        config: settings of the search.
        special_tokens: None reads the first model's.
        renormalize_logits: whether other tokens get the probability of those that are never generated.
        prefixes: first tokens of each target.
        constraints: phrases of each target.
    """
    special_tokens = SpecialTokens.of(models[0]) if special_tokens is None else special_tokens
    vocabulary, device = models[0].config.output_vocab_size, attention_mask.device
    check_banned_words(config, vocabulary)
    given = checked_prefixes(prefixes, attention_mask.shape[0], vocabulary, special_tokens)
    phrases = checked_constraints(constraints, attention_mask.shape[0], vocabulary, special_tokens, config)
    source_tokens = attention_mask.sum(dim=-1).tolist()
    limits = target_limits(source_tokens, config, shortest_limit(models), given, phrases)
    dtype = torch.float32
    for states in encoder_states:
        dtype = torch.promote_types(dtype, states.dtype)
    with torch.no_grad(), evaluation_mode(models):
        logits = NextTokenLogits(models, encoder_states, attention_mask, config.num_beams, max_steps=max(limits))
        sentences = Sentences.of(config, limits, attention_mask, dtype)
        rules = TokenRules(config, special_tokens, given, device)
        tracked = None if phrases is None else Constraints.of(phrases, limits, config.num_beams, special_tokens, device)
        search = _BeamSearch(config, special_tokens, renormalize_logits, rules, tracked, vocabulary, device)
        return search.run(logits, sentences, dtype)


def score_targets(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor,
    config: BeamSearchConfig | None = None,
) -> TargetScores:
    """Score given targets as the search scores its hypotheses, without a coverage penalty.

    Args:
        model: `VanillaTransformerForConditionalGeneration`, in evaluation or training mode (dropout is off), or an
            `Ensemble` or a list of such models.
        input_ids: (B, S) source tokens.
        attention_mask: (B, S), 1 keeps, 0 is padding; None hides what equals ``pad_token_id``.
        labels: (B, T) target tokens with their EOS tokens, padded on the right with −100 or the padding id.
        config: its length normalization is used; None uses the paper's.

    Returns:
        See `TargetScores`.

    Raises:
        ValueError: If the model is not supported or a target has no tokens.
    """
    config = BeamSearchConfig() if config is None else config
    models = models_of(model)
    pad = models[0].config.pad_token_id
    if pad is not None:
        labels = labels.masked_fill(labels == pad, IGNORE_INDEX)
    scored = labels != IGNORE_INDEX  # (B, T)
    if not bool(scored.any(dim=-1).all()):
        raise ValueError("a target has no tokens to score; give it at least its EOS token")
    with torch.no_grad(), evaluation_mode(models):
        token_log_probs = log_mean_exp([_label_log_probs(one, input_ids, attention_mask, labels) for one in models])
    token_log_probs = token_log_probs.view(labels.shape).masked_fill(~scored, 0.0)
    log_probs, lengths = token_log_probs.sum(dim=-1), scored.sum(dim=-1)
    return TargetScores(
        scores=log_probs / config.length_divisor(lengths.to(log_probs.dtype)),
        log_probs=log_probs,
        token_log_probs=token_log_probs,
        lengths=lengths,
    )


def _label_log_probs(model: Any, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> Tensor:
    """Compute a model's log-probability of each label (B, T); return (B·T,)."""
    states = model.model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        use_cache=False,
    ).last_hidden_state
    # 1,024 positions at a time: the logits of a whole batch can be larger than the model.
    chunks = zip(states.flatten(0, 1).split(1024), labels.clamp(min=0).flatten().split(1024), strict=True)
    return torch.cat([_log_probs_of(model.lm_head(chunk), ids) for chunk, ids in chunks])


def _log_probs_of(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probabilities (rows,) of one id per row of logits (rows, V)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)


# --------------------------------------------------------------------------- models and inputs


def check_beam_search(model: Any, config: BeamSearchConfig) -> None:
    """Check that `paper_beam_search` can run this model with these settings.

    Raises:
        ValueError: If it can't; the message contains the reason and what to change.
    """
    if hasattr(model, "check_beam_search"):
        model.check_beam_search(config)
    else:
        models_of(model)


def source_padding_mask(source: Tensor, attention_mask: Tensor | None, pad_token_id: int | None) -> Tensor:
    """Return the padding mask of a batch of sources, and check it.

    Args:
        source: (B, S) token ids or (B, S, D) embeddings.
        attention_mask: (B, S), 1 keeps, 0 is padding; None hides the ids that equal ``pad_token_id``.
        pad_token_id: None if there is no padding token.

    Returns:
        (B, S) int64 on the device of ``source``, 1 keeps, 0 is padding.

    Raises:
        ValueError: If the mask has another shape than the source, or a source is empty.
    """
    if attention_mask is not None:
        mask = attention_mask.to(source.device).long()
    elif source.is_floating_point() or pad_token_id is None:
        mask = torch.ones(source.shape[:2], dtype=torch.long, device=source.device)
    else:
        mask = (source != pad_token_id).long()
    if mask.shape != source.shape[:2]:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, but the source has {tuple(source.shape[:2])}; give both "
            "the same shape"
        )
    if source.shape[0] == 0 or source.shape[1] == 0 or not bool(mask.any(dim=-1).all()):
        raise ValueError("a source has no tokens; give every sentence at least its EOS token")
    return mask


def target_limits(
    source_tokens: list[int],
    config: BeamSearchConfig,
    max_sequence_length: int | None,
    prefixes: list[list[int]] | None = None,
    constraints: list[list[Phrase]] | None = None,
) -> list[int]:
    """Compute for each sentence the most tokens of a target, EOS included.

    Args:
        source_tokens: length of each source.
        config: settings of the search.
        max_sequence_length: of the model; None sets no limit.
        prefixes: of the targets, or None.
        constraints: of the targets, or None.

    Raises:
        ValueError: If prefix and constraints leave no room for EOS.
    """
    required = [0] * len(source_tokens)  # tokens that a target has at least, without EOS
    if prefixes is not None:
        required = [tokens + len(prefix) for tokens, prefix in zip(required, prefixes, strict=True)]
    if constraints is not None:
        required = [tokens + sum(map(len, phrases)) for tokens, phrases in zip(required, constraints, strict=True)]
    limits = []
    for source, tokens in zip(source_tokens, required, strict=True):
        limit = max(int(source), tokens + 1) + config.max_extra_tokens
        for maximum in (config.max_target_tokens, max_sequence_length):
            limit = limit if maximum is None else min(limit, maximum)
        if limit <= tokens:
            raise ValueError(
                f"prefix and constraints of a target have {tokens} tokens, but it may have only {limit} with EOS; "
                "shorten them, or raise max_target_tokens"
            )
        limits.append(limit)
    return limits


# --------------------------------------------------------------------------- the search


class _BeamSearch:
    """The search with one set of settings."""

    def __init__(
        self,
        config: BeamSearchConfig,
        special: SpecialTokens,
        renormalize_logits: bool,
        rules: TokenRules,
        constraints: Constraints | None,
        vocabulary: int,
        device: torch.device,
    ) -> None:
        self.config = config
        self.special = special
        self.renormalize_logits = renormalize_logits
        self.rules = rules if rules else None
        self.constraints = constraints
        self.eos_ids = torch.tensor(special.eos_token_id, device=device)
        self.vocabulary = vocabulary
        self.candidates = (1 + len(special.eos_token_id)) * config.num_beams  # C, of each sentence
        self.suppressed_ids = torch.tensor(special.suppress_tokens, dtype=torch.long, device=device)
        chunks = sorted({token // _CHUNK for token in special.suppress_tokens if token < vocabulary // _CHUNK * _CHUNK})
        self.suppressed_chunks = torch.tensor(chunks, dtype=torch.long, device=device)

    def run(self, next_logits: NextTokenLogits, sentences: Sentences, dtype: torch.dtype) -> BeamSearchOutput:
        """Search until every sentence is finished.

        Args:
            next_logits: at position 0, with a row for each sentence.
            sentences: all of them.
            dtype: of log-probabilities and scores.
        """
        # All beams are equal at first. One is enough where it has as many continuations as all beams together need.
        width = 1 if self.constraints is None and self.candidates <= self.vocabulary else self.config.num_beams
        open_hypotheses = OpenHypotheses.start(sentences, width, self.special, dtype)
        finished = FinishedHypotheses.start(
            open_hypotheses, self.config.num_return_sequences, self.special.pad_token_id
        )
        results: dict[int, FinishedHypotheses] = {}  # by place in the batch, one row each
        parents: Tensor | None = None
        with_attention = self.config.coverage_penalty > 0
        length = 0  # tokens of the hypotheses
        while sentences.places:
            length += 1
            logits, attention = next_logits.step(open_hypotheses.last_tokens, parents, with_attention)
            if attention is not None:
                open_hypotheses = open_hypotheses.add_attention(attention)
            chosen = self._choose(open_hypotheses, logits, sentences, length)
            first, ended = chosen.ending, chosen.ended
            scores = first.totals / self.config.length_divisor(length)
            if with_attention:
                coverage = open_hypotheses.log_coverage(sentences.source_mask).gather(1, first.beams)
                scores = scores + self.config.coverage_penalty * coverage
            scores = scores.masked_fill(~ended, -math.inf)
            best_scores, origins = torch.cat([finished.scores, scores], dim=1).topk(self.config.num_return_sequences)
            continued, parents = self._continue(open_hypotheses, chosen.kept, length), chosen.kept.beams
            any_ended, done = self._read_progress(continued, ended, best_scores, finished.counts, sentences, length)
            if any_ended:
                tokens, log_probs = open_hypotheses.extended(first, length)
                lengths = torch.full_like(first.tokens, length).masked_fill(~ended, 0)
                finished = finished.merge(best_scores, origins, lengths, tokens, log_probs)
            open_hypotheses = continued
            if any(done):
                for row in (row for row, is_done in enumerate(done) if is_done):
                    results[sentences.places[row]] = finished.select(slice(row, row + 1))
                kept = _unfinished_rows(done)
                sentences, parents = sentences.select(kept), parents[kept]
                open_hypotheses, finished = open_hypotheses.select(kept), finished.select(kept)
                next_logits.select(kept)
                if self.constraints is not None:
                    self.constraints = self.constraints.select(kept)
        return self._output([results[place] for place in range(len(results))])

    def _choose(
        self, open_hypotheses: OpenHypotheses, logits: Tensor, sentences: Sentences, length: int
    ) -> ChosenContinuations:
        """Choose among each sentence's C best continuations. At least W of them don't end, whatever the logits are.

        A continuation that a rule bans has the log-probability −∞.

        Args:
            open_hypotheses: to be continued.
            logits: (B, W, V); overwritten.
            sentences: their limits; at its limit a sentence has continuations with EOS tokens only.
            length: tokens of a continuation.
        """
        totals = open_hypotheses.totals
        logits = logits.detach()
        prefixes: PrefixLogits | None = None
        if self.rules is not None:
            prefixes = self.rules.prefix_logits(logits, sentences.places, length)
        if self.renormalize_logits:
            self._ban(logits, open_hypotheses, sentences, length)
        normalizer, maxima = _normalizer_and_maxima(logits)
        normalizer = normalizer.to(totals.dtype)  # (B, W)
        if not self.renormalize_logits:
            self._ban(logits, open_hypotheses, sentences, length)
        if prefixes is not None:
            prefixes.force(logits)
        at_limit = [row for row, limit in enumerate(sentences.limits) if limit == length]
        self._force_eos(logits, normalizer, at_limit)
        if self.constraints is not None:
            chosen, self.constraints = self.constraints.choose(logits, normalizer, totals, length)
            return chosen
        if self.rules is not None or at_limit:
            maxima = _chunk_maxima(logits)
        else:  # what was banned is in a few chunks
            maxima[..., self.suppressed_chunks] = _chunk_maxima(logits, self.suppressed_chunks)
        best = _best_of_all_beams(logits, maxima, normalizer, totals, min(self.candidates, logits[0].numel()))
        is_eos = torch.isin(best.tokens, self.eos_ids)  # (B, C)
        first = best.first(self.config.num_beams)
        ended = is_eos[:, : first.totals.shape[1]] & (first.totals > -math.inf)  # (B, W)
        open_totals, order = best.totals.masked_fill(is_eos, -math.inf).topk(self.config.num_beams)
        kept = Continuations(
            best.beams.gather(1, order), best.tokens.gather(1, order), best.log_probs.gather(1, order), open_totals
        )
        return ChosenContinuations(first, ended, kept)

    def _ban(self, logits: Tensor, open_hypotheses: OpenHypotheses, sentences: Sentences, length: int) -> None:
        """Set the logits of tokens that may not follow to −∞."""
        logits.index_fill_(-1, self.suppressed_ids, -math.inf)
        if self.rules is not None:
            self.rules.ban(logits, open_hypotheses.tokens[:, :, : length - 1], sentences.places, sentences.limits)

    def _force_eos(self, logits: Tensor, normalizer: Tensor, rows: list[int]) -> None:
        """Leave only the EOS tokens to these rows."""
        if not rows:
            return
        eos = logits[rows][..., self.eos_ids]
        lowest = (normalizer[rows] + _LOWEST_FORCED_LOG_PROB).unsqueeze(-1).to(eos.dtype)
        forced = torch.full_like(logits[rows], -math.inf)
        forced[..., self.eos_ids] = torch.maximum(eos, lowest)
        logits[rows] = forced

    def _continue(self, open_hypotheses: OpenHypotheses, kept: Continuations, length: int) -> OpenHypotheses:
        """Extend the open hypotheses by the continuations that are kept."""
        tokens, log_probs = open_hypotheses.extended(kept, length)
        coverage = open_hypotheses.coverage
        if self.config.coverage_penalty > 0:
            coverage = gather_beams(coverage, kept.beams)
        return OpenHypotheses(kept.totals, kept.tokens, tokens, log_probs, coverage)

    def _read_progress(
        self,
        continued: OpenHypotheses,
        ended: Tensor,
        best_scores: Tensor,
        counts: Tensor,
        sentences: Sentences,
        length: int,
    ) -> tuple[bool, list[bool]]:
        """Return whether any hypothesis ended in this step, and which sentences are finished.

        On a GPU this is the one place in a step where the host waits for the device.

        Raises:
            ValueError: If the model's logits are NaN.
        """
        highest = continued.totals[:, 0]
        # Log-probabilities never increase and the coverage penalty is at most 0: no open hypothesis can score higher.
        stopped = ~(highest / sentences.largest_divisor[:, length - 1] > best_scores[:, -1])
        any_ended = ended.any(dim=1)
        if self.config.num_beams == 1:
            stopped = stopped | any_ended
        elif self.config.early_stopping is True:
            stopped = stopped | (counts + ended.sum(dim=1) >= self.config.num_beams)
        ends, stops, failures = torch.stack([any_ended, stopped, highest.isnan()]).tolist()
        done = [stop or limit == length for stop, limit in zip(stops, sentences.limits, strict=True)]
        if any(is_done and failed for is_done, failed in zip(done, failures, strict=True)):
            raise ValueError("the model's logits are NaN, so its weights are damaged; load a valid checkpoint")
        return any(ends), done

    def _output(self, results: list[FinishedHypotheses]) -> BeamSearchOutput:
        tokens = torch.cat([result.tokens for result in results]).flatten(0, 1)  # (B·N, L)
        lengths = torch.cat([result.lengths for result in results]).flatten()
        longest = int(lengths.max())
        start = torch.full_like(tokens[:, :1], self.special.decoder_start_token_id)
        return BeamSearchOutput(
            sequences=torch.cat([start, tokens[:, :longest]], dim=1),
            sequences_scores=torch.cat([result.scores for result in results]).flatten(),
            token_log_probs=torch.cat([result.log_probs for result in results]).flatten(0, 1)[:, :longest],
            lengths=lengths,
            num_return_sequences=self.config.num_return_sequences,
        )


def _unfinished_rows(done: list[bool]) -> list[int]:
    """List the rows that are not done; the last ones fill the gaps, so that few rows change their place."""
    unfinished = [row for row, is_done in enumerate(done) if not is_done]
    kept = list(range(len(unfinished)))
    for gap in (row for row in range(len(kept)) if done[row]):
        kept[gap] = unfinished.pop()
    return kept


def _normalizer_and_maxima(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log Σ exp over the vocabulary (B, W), and `_chunk_maxima`, in one pass and in at least fp32.

    The CPU takes a few rows of the logits (B, W, V) at a time, so that intermediate results stay in its cache, and
    derives the sum from the softmax, which is one kernel: the highest probability of a row is
    exp(highest logit − logsumexp).
    """
    precise = torch.promote_types(logits.dtype, torch.float32)
    if logits.device.type != "cpu":
        return logits.to(precise).logsumexp(dim=-1), _chunk_maxima(logits)
    vocabulary = logits.shape[-1]
    normalizers, maxima = [], []
    for part in logits.flatten(0, 1).split(max(1, 2**18 // vocabulary)):
        part = part.to(precise)
        of_chunks = _chunk_maxima(part)
        highest = torch.cat([of_chunks, part[:, vocabulary // _CHUNK * _CHUNK :]], dim=-1).amax(dim=-1)
        # The highest probability is at least 1/V, so that its logarithm is finite.
        normalizers.append(highest - part.softmax(dim=-1).amax(dim=-1).log())
        maxima.append(of_chunks)
    return torch.cat(normalizers).view(logits.shape[:2]), torch.cat(maxima).unflatten(0, logits.shape[:2])


def _chunk_maxima(logits: Tensor, chunks: Tensor | None = None) -> Tensor:
    """Find the highest logit of each whole chunk of the vocabulary, in at least fp32.

    Args:
        logits: (…, V).
        chunks: of which chunks; None are all, V // 64.

    Returns:
        (…, number of chunks).
    """
    number, precise = logits.shape[-1] // _CHUNK, torch.promote_types(logits.dtype, torch.float32)
    whole = logits[..., : number * _CHUNK].unflatten(-1, (number, _CHUNK))
    if chunks is not None:
        whole = whole[..., chunks, :]
    if whole.device.type == "cpu":
        whole = whole.to(precise)  # faster than the maximum of short rows in bf16
    return whole.amax(dim=-1).to(precise)


def _best_of_all_beams(
    logits: Tensor, maxima: Tensor, normalizer: Tensor, totals: Tensor, number: int
) -> Continuations:
    """Find the best continuations of a sentence's hypotheses by one token.

    The best ``number`` = C of a sentence lie in the C chunks of the vocabulary with the highest maxima, of all beams
    together: only these chunks are sorted.

    Args:
        logits: (B, W, V).
        maxima: (B, W, V // 64), the highest logit of each chunk.
        normalizer: (B, W), log Σ exp of the logits.
        totals: (B, W), log-probability of each hypothesis so far.
        number: C, at most W·V.
    """
    (batch, width, vocabulary), device = logits.shape, logits.device
    normalizer, totals = normalizer.unsqueeze(-1), totals.unsqueeze(-1)
    chunks = vocabulary // _CHUNK
    if width * chunks <= 4 * number:
        chunks = 0  # sorting all tokens costs less than selecting chunks
    tail = logits[..., chunks * _CHUNK :].to(totals.dtype) - normalizer  # (B, W, fewer than a chunk)
    log_probs, candidates = tail.flatten(1), (totals + tail).flatten(1)
    if chunks:
        whole = logits[..., : chunks * _CHUNK].unflatten(-1, (chunks, _CHUNK))
        highest = totals + (maxima.to(totals.dtype) - normalizer)
        chosen = highest.flatten(1).topk(number, sorted=False).indices  # (B, C)
        sentences = torch.arange(batch, device=device).unsqueeze(-1)
        of_beam, of_chunk = chosen // chunks, chosen % chunks
        inside = whole[sentences, of_beam, of_chunk].to(totals.dtype) - normalizer[sentences, of_beam]
        log_probs = torch.cat([inside.flatten(1), log_probs], dim=1)
        candidates = torch.cat([(totals[sentences, of_beam] + inside).flatten(1), candidates], dim=1)
    best, order = candidates.topk(number)
    in_tail = order - (number * _CHUNK if chunks else 0)  # place in the tail, negative in a chunk
    beams, tokens = in_tail // max(1, tail.shape[-1]), in_tail % max(1, tail.shape[-1]) + chunks * _CHUNK
    if chunks:
        place = (order // _CHUNK).clamp(max=number - 1)  # of the chunk among the chosen
        beams = torch.where(in_tail < 0, of_beam.gather(1, place), beams)
        tokens = torch.where(in_tail < 0, of_chunk.gather(1, place) * _CHUNK + order % _CHUNK, tokens)
    return Continuations(beams, tokens, log_probs.gather(1, order), best)


__all__ = [
    "BeamSearchOutput",
    "TargetScores",
    "check_beam_search",
    "paper_beam_search",
    "score_targets",
    "search_encoded",
    "source_padding_mask",
    "target_limits",
]
