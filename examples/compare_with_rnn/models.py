"""Two translation models from before the Transformer, built from torch's own recurrent layers.

`RecurrentForTranslation` without attention is Sutskever et al. (2014): an LSTM reads the source backwards, and its last
state is all that the decoder gets. With attention it is Bahdanau et al. (2015): a bidirectional GRU annotates every
source word, and at each step the decoder looks at all annotations again. Both take and give what the Transformer of the
package takes and gives, so that one training loop and one measurement serve all three.
"""

# Shapes: B batch · S source length · T target length · D width of embeddings and states · V vocabulary

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput


class RecurrentConfig(PreTrainedConfig):
    """Sizes of a recurrent translation model.

    Args:
        vocab_size: tokens of the shared vocabulary.
        d_model: width of embeddings and of the decoder's state.
        layers: LSTM layers a side; with attention there is one, as in the paper of 2015.
        attention: additive attention over a bidirectional encoder.
    """

    model_type = "recurrent_translation"

    vocab_size: int = 400
    d_model: int = 128
    layers: int = 2
    attention: bool = False
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    decoder_start_token_id: int | None = 1
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False


class RecurrentForTranslation(PreTrainedModel):
    """An RNN encoder-decoder, with or without attention."""

    config: RecurrentConfig
    config_class = RecurrentConfig
    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch where Trainer gives it

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        d = config.d_model
        self.embed_tokens = nn.Embedding(config.vocab_size, d)
        if config.attention:
            self.encoder = nn.GRU(d, d // 2, batch_first=True, bidirectional=True)
            self.first_state = nn.Linear(d // 2, d)
            self.score_state, self.score_annotation = nn.Linear(d, d), nn.Linear(d, d, bias=False)
            self.score = nn.Linear(d, 1, bias=False)
            self.decoder = nn.GRUCell(2 * d, d)
            self.lm_head = nn.Linear(3 * d, config.vocab_size)
        else:
            self.encoder = nn.LSTM(d, d, config.layers, batch_first=True)
            self.decoder = nn.LSTM(d, d, config.layers, batch_first=True)
            self.lm_head = nn.Linear(d, config.vocab_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.d_model**-0.5)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        # torch's own start for recurrent layers: uniform within ±1/√D

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Translate with the answer at hand.

        Args:
            input_ids: (B, S) source tokens, padded on the right.
            attention_mask: (B, S), 1 keeps, 0 is padding.
            decoder_input_ids: (B, T) target tokens, shifted right.
            labels: (B, T) target tokens, −100 where there is none.
            inputs_embeds: (B, S, D) instead of source ids.
            num_items_in_batch: tokens that the summed loss is divided by; None: those of this batch.
            **kwargs: keywords that Trainer passes to every model; unused.

        Returns:
            ``loss`` in nats per token if labels are given, and ``logits`` (B, T, V).
        """
        embedded = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones(embedded.shape[:2], dtype=torch.long)
        state = self.encode(embedded, attention_mask)
        inputs = self.embed_tokens(decoder_input_ids)
        if self.config.attention:
            outputs = []
            for step in inputs.unbind(dim=1):  # one after the other: each step needs the state before it
                output, state = self._attentive_step(step, state)
                outputs.append(output)
            logits = self.lm_head(torch.stack(outputs, dim=1))
        else:
            logits = self.lm_head(self.decoder(inputs, state)[0])
        loss = None
        if labels is not None:
            total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            loss = total / ((labels >= 0).sum() if num_items_in_batch is None else num_items_in_batch)
        return Seq2SeqLMOutput(loss=loss, logits=logits)

    def encode(self, embedded: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Read the source (B, S, D) and return what the decoder starts from."""
        lengths = attention_mask.sum(dim=-1).long()
        if not self.config.attention:
            embedded = _backwards(embedded, lengths)
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, last = self.encoder(packed)
        if not self.config.attention:
            return last
        states = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=embedded.shape[1])[0]
        hidden = attention_mask == 0
        # The backward half has read everything when it reaches the first word.
        return torch.tanh(self.first_state(last[1])), states, self.score_annotation(states), hidden

    def _attentive_step(self, embedded: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take one word (B, D): e = vᵀ tanh(W s + U h), softmax over the source, a weighted sum, the next state."""
        before, states, projected, hidden = state
        scores = self.score(torch.tanh(self.score_state(before).unsqueeze(1) + projected)).squeeze(-1)  # (B, S)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
        context = (weights.unsqueeze(1) @ states).squeeze(1)  # (B, D)
        after = self.decoder(torch.cat([embedded, context], dim=-1), before)
        return torch.cat([after, context, embedded], dim=-1), (after, states, projected, hidden)

    @torch.no_grad()
    def translate_greedily(self, input_ids: Tensor, attention_mask: Tensor, max_tokens: int) -> Tensor:
        """Write the likeliest word at each step, at most ``max_tokens`` (B, ≤ max_tokens); padding behind the end."""
        state = self.encode(self.embed_tokens(input_ids), attention_mask)
        word = torch.full((len(input_ids),), self.config.decoder_start_token_id)
        written, done = [], torch.zeros(len(input_ids), dtype=torch.bool)
        for _ in range(max_tokens):
            embedded = self.embed_tokens(word)
            if self.config.attention:
                output, state = self._attentive_step(embedded, state)
            else:
                output, state = self.decoder(embedded.unsqueeze(1), state)
                output = output.squeeze(1)
            word = self.lm_head(output).argmax(dim=-1).masked_fill(done, self.config.pad_token_id)
            written.append(word)
            done |= word == self.config.eos_token_id
            if bool(done.all()):
                break
        return torch.stack(written, dim=1)


def _backwards(states: Tensor, lengths: Tensor) -> Tensor:
    """Turn each row (B, S, D) around within its own length: the first words then stand next to the decoder."""
    steps = torch.arange(states.shape[1])
    places = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)  # (B, S)
    return states.gather(1, places.unsqueeze(-1).expand_as(states))
