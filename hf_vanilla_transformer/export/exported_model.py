# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Parts shared by all export formats: export.json, and the class that runs an exported model."""

# Shapes: B batch · S source length

import dataclasses
import json
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..json_object import read_json_object
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.beam_search_vanilla_transformer import BeamSearchOutput, source_padding_mask, target_limits
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig
from ..model.constraints_vanilla_transformer import NO_CONSTRAINTS
from ..model.special_tokens_vanilla_transformer import SpecialTokens
from ..model.token_rules_vanilla_transformer import Phrase, check_banned_words, checked_prefixes
from ..version import __version__

RECORD_NAME = "export.json"
_FIELDS = {"format", "config", "special_tokens", "max_sequence_length"}  # the other entries are details


@dataclass(frozen=True)
class ExportRecord:
    """The contents of export.json.

    Attributes:
        target_format: "ctranslate2" or "onnx".
        config: the fields of the model's configuration.
        special_tokens: those of the model's generation configuration.
        max_sequence_length: tokens that a source or a target may have; None sets no limit.
        details: versions of the libraries that wrote the export, and other notes for the reader.
    """

    target_format: str
    config: dict[str, Any]
    special_tokens: SpecialTokens
    max_sequence_length: int | None
    details: dict[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Write export.json to a directory."""
        record = {
            "format": self.target_format,
            "hf_vanilla_transformer": __version__,
            **self.details,
            "max_sequence_length": self.max_sequence_length,
            "special_tokens": dataclasses.asdict(self.special_tokens),
            "config": self.config,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        (directory / RECORD_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, directory: Path, target_format: str) -> "ExportRecord":
        """Read export.json.

        Raises:
            ValueError: If it is missing, damaged, or of another format.
        """
        fix = f"write one with `vanilla-transformer convert --to {target_format} CHECKPOINT {directory}`"
        path = directory / RECORD_NAME
        if not path.is_file():
            raise ValueError(f"{directory} is not an exported checkpoint (it has no {RECORD_NAME}); {fix}")
        try:
            fields = read_json_object(path)
            special = fields["special_tokens"]
            record = cls(
                target_format=fields["format"],
                config=dict(fields["config"].items()),
                special_tokens=SpecialTokens(
                    decoder_start_token_id=operator.index(special["decoder_start_token_id"]),
                    eos_token_id=tuple(map(operator.index, special["eos_token_id"])),
                    pad_token_id=operator.index(special["pad_token_id"]),
                    suppress_tokens=tuple(map(operator.index, special["suppress_tokens"])),
                ),
                max_sequence_length=fields["max_sequence_length"],
                details={name: value for name, value in fields.items() if name not in _FIELDS},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}); {fix}") from error
        if record.target_format != target_format:
            raise ValueError(f"{directory} was exported for {record.target_format}, not for {target_format}; {fix}")
        return record


class ExportedModel:
    """An exported checkpoint, run by another library. `translate` and `paper_beam_search` take it like a torch model.

    Attributes:
        config: the model's configuration.
        device: where token ids are expected: the CPU.
        max_sequence_length: tokens that a source or a target may have; None sets no limit.
        precision: type of the stored weights, e.g. "float32" or "int8".
    """

    target_format: str

    def __init__(self, directory: str | Path) -> None:
        record = ExportRecord.read(Path(directory), self.target_format)
        self.config = VanillaTransformerConfig.from_dict(record.config)
        self.config.name_or_path = str(directory)  # `TranslationTokenizers` looks for a target tokenizer there
        self.device = torch.device("cpu")
        self.max_sequence_length = record.max_sequence_length
        self.special_tokens = record.special_tokens
        self.precision = str(record.details.get("quantization", "float32"))

    def check_beam_search(self, config: BeamSearchConfig) -> None:
        """Check that the library can search with these settings.

        Raises:
            ValueError: If a setting is not supported.
        """
        if config.coverage_penalty:
            raise ValueError(
                f"coverage_penalty={config.coverage_penalty:g} is supported by the torch engine only; leave it at 0"
            )

    def beam_search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        config: BeamSearchConfig | None = None,
        *,
        prefixes: Sequence[Phrase | None] | None = None,
        constraints: Sequence[Sequence[Phrase] | None] | None = None,
    ) -> BeamSearchOutput:
        """Translate a batch; see `paper_beam_search`, which calls this method.

        Raises:
            ValueError: If a source is empty, a setting is not supported, a prefix does not fit, or there are
                constraints.
        """
        if constraints is not None and any(constraints):
            raise ValueError(NO_CONSTRAINTS)
        config = BeamSearchConfig() if config is None else config
        self.check_beam_search(config)
        mask = source_padding_mask(input_ids, attention_mask, self.config.pad_token_id)
        vocabulary = self.config.output_vocab_size
        check_banned_words(config, vocabulary)
        given = checked_prefixes(prefixes, mask.shape[0], vocabulary, self.special_tokens)
        limits = target_limits(mask.sum(dim=-1).tolist(), config, self.max_sequence_length, given)
        hypotheses, totals = self._search(input_ids, mask, limits, config, given)
        scores = [
            total / config.length_divisor(len(tokens)) if tokens else -math.inf
            for total, tokens in zip(totals, hypotheses, strict=True)
        ]
        longest = max(map(len, hypotheses))
        start, pad = self.special_tokens.decoder_start_token_id, self.special_tokens.pad_token_id
        return BeamSearchOutput(
            sequences=torch.tensor([[start, *tokens, *[pad] * (longest - len(tokens))] for tokens in hypotheses]),
            sequences_scores=torch.tensor(scores),
            lengths=torch.tensor([len(tokens) for tokens in hypotheses]),
            num_return_sequences=config.num_return_sequences,
        )

    def _search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        limits: list[int],
        config: BeamSearchConfig,
        prefixes: list[list[int]] | None,
    ) -> tuple[list[list[int]], list[float]]:
        """Search with the library.

        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 1 keeps, 0 is padding.
            limits: for each source, the most tokens of a hypothesis, with its EOS token.
            config: settings that `check_beam_search` accepts.
            prefixes: first tokens of each target, [] where its beginning is free; None where all are.

        Returns:
            ``config.num_return_sequences`` hypotheses per source, and the log-probability of each in nats. A hypothesis
            without tokens where the restrictions leave none.
        """
        raise NotImplementedError


__all__ = ["RECORD_NAME", "ExportRecord", "ExportedModel"]
