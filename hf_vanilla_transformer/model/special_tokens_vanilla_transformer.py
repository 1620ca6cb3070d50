# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The special token ids used in beam search, read once from a model and its generation configuration."""

from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids that have a meaning for a search. Names are those of transformers' `GenerationConfig`.

    Attributes:
        decoder_start_token_id: the first decoder input.
        eos_token_id: the ids that end a hypothesis, one or more.
        pad_token_id: fills short rows of a result.
        suppress_tokens: ids that a search never generates: padding, the decoder start token and the BOS token, unless
            they are EOS tokens as well.
    """

    decoder_start_token_id: int
    eos_token_id: tuple[int, ...]
    pad_token_id: int
    suppress_tokens: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, generation_config: GenerationConfig | None = None) -> "SpecialTokens":
        """Read the special tokens of a model.

        Args:
            model: a model with ``generation_config`` and ``config``. A token that one lacks is read from the next.
            generation_config: read before the model's own.

        Raises:
            ValueError: If there is no decoder start token or no EOS token.
        """

        def read(name: str) -> Any:
            for source in (generation_config, model.generation_config, model.config):
                if getattr(source, name, None) is not None:
                    return getattr(source, name)
            return None

        bos, pad, start = read("bos_token_id"), read("pad_token_id"), read("decoder_start_token_id")
        start = bos if start is None else start
        eos = read("eos_token_id")
        eos = () if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (eos,)
        if start is None or not eos:
            missing = "decoder_start_token_id" if start is None else "eos_token_id"
            raise ValueError(f"beam search needs a {missing}; set it in the model's generation_config")
        vocabulary = range(model.config.output_vocab_size)
        suppressed = {token for token in (pad, start, bos) if token in vocabulary and token not in eos}
        return cls(start, eos, eos[0] if pad is None else pad, tuple(sorted(suppressed)))


__all__ = ["SpecialTokens"]
