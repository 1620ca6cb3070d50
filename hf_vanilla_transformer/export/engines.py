# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Exported checkpoints, run by other runtimes in the place of a model: `translate` takes them as it takes one of torch.

`export_checkpoint` writes what is loaded here. Greedy translations are the same; how far beam search agrees each class
says.
"""

# Shapes: B batch · S source length · T target length

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..json_object import read_json_object
from ..model.beam_search_config_vanilla_transformer import BeamSearchConfig
from ..model.beam_search_vanilla_transformer import BeamSearchOutput
from ..model.configuration_vanilla_transformer import VanillaTransformerConfig

ENGINES = ("torch", "ctranslate2", "onnx")

# CTranslate2 stops a sentence's search after num_beams · patience finished hypotheses, whatever is still open. Ours
# stops when nothing open can win; with a patience of 1 theirs often misses what ours finds, with 2 hardly ever.
_PATIENCE = 2


class ExportedModel:
    """What both kinds share: the configuration of the model that was exported, and what was noted about it.

    Attributes:
        config: the model's.
        device: where token ids are wanted: on the CPU, whatever the runtime does with them.
        positions: tokens that a source or a target may have; None sets no limit.
    """

    def __init__(self, directory: str | Path, expected_format: str) -> None:
        record = _read_record(Path(directory), expected_format)
        self.config = VanillaTransformerConfig.from_dict(record["config"])
        self.config.name_or_path = str(directory)  # where a second tokenizer is looked for
        self.device = torch.device("cpu")
        self.positions: int | None = record["positions"]
        special = record.get("special_tokens") or _special_tokens_of(self.config)
        self._start: int = special["start"]
        self._ends: list[int] = special["end"]
        self._pad: int = special["pad"]
        self._never: list[int] = special["never"]  # padding and start symbols: no translation holds them

    def check_search(self, config: BeamSearchConfig) -> None:
        """Refuse settings that the runtime has not.

        Raises:
            ValueError: If the runtime would do something else than what is asked for.
        """
        if config.coverage_penalty:
            raise ValueError(
                f"coverage_penalty={config.coverage_penalty:g} is for the torch engine alone; leave it at 0"
            )

    def beam_search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        config: BeamSearchConfig | None = None,
    ) -> BeamSearchOutput:
        """Translate a batch; see `paper_beam_search`, whose arguments these are.

        Raises:
            ValueError: If the runtime doesn't do what was asked for.
        """
        config = BeamSearchConfig() if config is None else config
        self.check_search(config)
        limits = [self._limit(n, config) for n in attention_mask.sum(dim=-1).tolist()]
        hypotheses, totals = self._search(input_ids, attention_mask, limits, config)
        scores = [total / config.length_divisor(len(tokens)) for total, tokens in zip(totals, hypotheses, strict=True)]
        return _as_output(hypotheses, scores, self._start, self._pad, config.num_return_sequences)

    def _search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        limits: list[int],
        config: BeamSearchConfig,
    ) -> tuple[list[list[int]], list[float]]:
        """Let the runtime search.

        Args:
            limits: by source, how many tokens a hypothesis may have, its end symbol included.
            input_ids, attention_mask, config: see `beam_search`; passed by `check_search`.

        Returns:
            ``config.num_return_sequences`` hypotheses per source, and the log-probability of each in nats.
        """
        raise NotImplementedError

    def _limit(self, source_tokens: int, config: BeamSearchConfig) -> int:
        """Say how many tokens a translation may have, its end symbol included."""
        limits = (source_tokens + config.max_extra_tokens, config.max_target_tokens, self.positions)
        return min(limit for limit in limits if limit is not None)


class CTranslate2Model(ExportedModel):
    """A checkpoint exported for CTranslate2.

    Its length penalty is n^α ("power"); the paper's GNMT form is refused where it would matter, which is with a beam
    and α ≠ 0. Its search stops by rules of its own, so a beam may now and then end in another translation than ours.
    Scores differ in the third digit: it shares out the probability of the symbols that are never written.
    """

    def __init__(self, directory: str | Path, *, compute_type: str = "default", threads: int = 0) -> None:
        """Load an export.

        Args:
            directory: what `export_checkpoint` has written.
            compute_type: arithmetic, in CTranslate2's words; "default" is that of the stored weights.
            threads: of one translation; 0 leaves it to CTranslate2.
        """
        super().__init__(directory, "ctranslate2")
        import ctranslate2

        self._translator = ctranslate2.Translator(
            str(directory), device="cpu", compute_type=compute_type, intra_threads=threads
        )
        sides = [Path(directory) / f"{side}_vocabulary.json" for side in ("source", "target")]
        if not sides[0].is_file():
            sides = [Path(directory) / "shared_vocabulary.json"] * 2
        self._source_tokens, target_tokens = (json.loads(side.read_text(encoding="utf-8")) for side in sides)
        self._target_ids = {token: index for index, token in enumerate(target_tokens)}
        self._suppressed = [[target_tokens[token]] for token in self._never]
        self._end_tokens = [target_tokens[token] for token in self._ends]

    def check_search(self, config: BeamSearchConfig) -> None:
        """See `ExportedModel.check_search`."""
        if config.length_normalization == "gnmt" and config.length_penalty and config.num_beams > 1:
            raise ValueError(
                "CTranslate2 divides scores by n^α and has no GNMT length penalty ((5 + n) / 6)^α: choose "
                f"length_normalization='power', which divides by n^α in both, with length_penalty={config.length_penalty:g}, "
                "or num_beams=1"
            )
        super().check_search(config)

    def _search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        limits: list[int],
        config: BeamSearchConfig,
    ) -> tuple[list[list[int]], list[float]]:
        sources = [ids[kept.bool()].tolist() for ids, kept in zip(input_ids, attention_mask, strict=True)]
        written = [[self._source_tokens[token] for token in source] for source in sources]
        results = self._translator.translate_batch(
            written,
            beam_size=config.num_beams,
            length_penalty=config.length_penalty,
            patience=_PATIENCE,
            num_hypotheses=config.num_return_sequences,
            max_input_length=0,  # else the runtime cuts what is longer than 1,024 tokens
            min_decoding_length=0,
            max_decoding_length=max(limits),
            suppress_sequences=self._suppressed,
            end_token=self._end_tokens,
            return_end_token=True,
            return_scores=True,
        )
        hypotheses, totals = [], []
        for source, limit, result in zip(written, limits, results, strict=True):  # the longest source has set another
            for tokens, score in zip(result.hypotheses, result.scores, strict=True):
                hypotheses.append(self._end_within(limit, tokens, source))
                totals.append(score * len(tokens) ** config.length_penalty)
        return hypotheses, totals

    def _end_within(self, limit: int, tokens: list[str], source: list[str]) -> list[int]:
        """Cut what is longer than ``limit`` tokens, and close with the best end symbol what has none."""
        ids = [self._target_ids[token] for token in tokens[:limit]]
        if ids and ids[-1] in self._ends:
            return ids
        ids = ids[: limit - 1]
        if len(self._ends) == 1:
            return [*ids, self._ends[0]]
        scored = self._translator.score_batch(
            [source] * len(self._ends), [[*tokens[: len(ids)], end] for end in self._end_tokens], max_input_length=0
        )
        return [*ids, max(zip(self._ends, scored, strict=True), key=lambda pair: pair[1].log_probs[len(ids)])[0]]


class OnnxModel(ExportedModel):
    """A checkpoint exported for onnxruntime. Greedy search only: its decoder graph keeps one hypothesis a sentence."""

    def __init__(self, directory: str | Path, *, threads: int = 0) -> None:
        """Load an export.

        Args:
            directory: what `export_checkpoint` has written.
            threads: of one operation; 0 leaves it to onnxruntime.
        """
        super().__init__(directory, "onnx")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(Path(directory) / name), options, providers=["CPUExecutionProvider"])
            for name in ("encoder_model.onnx", "decoder_with_past_model.onnx")
        )

    def check_search(self, config: BeamSearchConfig) -> None:
        """See `ExportedModel.check_search`."""
        if config.num_beams > 1:
            raise ValueError(
                f"num_beams={config.num_beams} is more than the ONNX engine does, which is greedy; choose 1"
            )
        super().check_search(config)

    def _search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        limits: list[int],
        config: BeamSearchConfig,
    ) -> tuple[list[list[int]], list[float]]:
        encoded = self._encoder.run(
            None, {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.long().numpy()}
        )
        names = [output.name for output in self._encoder.get_outputs()]
        step = {
            name.replace("present", "past_key_values"): value
            for name, value in zip(names[1:], encoded[1:], strict=True)
        }
        step["encoder_attention_mask"] = attention_mask.long().numpy()
        rows, config = len(limits), self.config
        for layer in range(config.decoder_layers):
            for kind, width in (("key", config.key_dim), ("value", config.value_dim)):
                empty = torch.zeros(rows, config.num_heads, 0, width)
                step[f"past_key_values.{layer}.decoder.{kind}"] = empty.numpy()
        token = torch.full((rows, 1), self._start, dtype=torch.long)
        hypotheses: list[list[int]] = [[] for _ in limits]
        totals = [0.0] * rows
        names = [output.name for output in self._decoder.get_outputs()]
        open_rows = set(range(rows))
        while open_rows:
            logits, *present = self._decoder.run(None, {**step, "decoder_input_ids": token.numpy()})
            log_probs = torch.from_numpy(logits)[:, -1].log_softmax(dim=-1)
            allowed = log_probs.clone()
            allowed[:, self._never] = -torch.inf
            token = allowed.argmax(dim=-1, keepdim=True)
            for row in sorted(open_rows):
                chosen = int(token[row])
                if len(hypotheses[row]) + 1 == limits[row] and chosen not in self._ends:
                    # At the limit every hypothesis is ended by force, at the best end, as in ours.
                    chosen = self._ends[int(log_probs[row, self._ends].argmax())]
                hypotheses[row].append(chosen)
                totals[row] += float(log_probs[row, chosen])
                if chosen in self._ends:
                    open_rows.remove(row)
            step.update(
                (name.replace("present", "past_key_values"), value)
                for name, value in zip(names[1:], present, strict=True)
            )
        return hypotheses, totals


def load_engine(engine: str, directory: str | Path) -> ExportedModel:
    """Load an exported checkpoint for `translate`.

    Args:
        engine: "ctranslate2" or "onnx".
        directory: what `export_checkpoint` has written.

    Raises:
        ValueError: If the folder holds no such export.
        ImportError: If the runtime is not installed.
    """
    if engine not in ENGINES[1:]:
        raise ValueError(f"engine={engine!r} is unknown; choose one of {', '.join(ENGINES)}")
    package = {"onnx": "onnxruntime"}.get(engine, engine)
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"engine={engine!r} needs {package}; run `pip install 'hf_vanilla_transformer[{engine}]'`")
    _read_record(Path(directory), engine)
    try:
        return CTranslate2Model(directory) if engine == "ctranslate2" else OnnxModel(directory)
    except Exception as error:  # runtimes raise what their libraries raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the export in {directory} can't be loaded ({reason}); write it again with --overwrite"
        ) from error


def _read_record(directory: Path, expected_format: str) -> dict[str, Any]:
    way_out = f"write one with `vanilla-transformer convert --to {expected_format} CHECKPOINT {directory}`"
    path = directory / "export.json"
    if not path.is_file():
        raise ValueError(f"{directory} holds no exported checkpoint (there is no export.json); {way_out}")
    try:
        record = read_json_object(path)
        found, _, _ = record["format"], record["positions"], record["config"].items()
        if (special := record.get("special_tokens")) is not None:
            _ = special["start"] + special["pad"] + sum(special["end"]) + sum(special["never"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {way_out}") from error
    if found != expected_format:
        raise ValueError(f"{directory} was exported for {found}, not for {expected_format}; {way_out}")
    return record


def _special_tokens_of(config: VanillaTransformerConfig) -> dict[str, Any]:
    """Return what exports of earlier versions don't note, from the configuration alone."""
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = [2 if end is None else end for end in ends]
    start = ends[0] if config.decoder_start_token_id is None else config.decoder_start_token_id
    never = {config.pad_token_id, config.bos_token_id, start} - {None, *ends}
    return {"start": start, "end": ends, "pad": config.pad_token_id or 0, "never": sorted(never)}


def _as_output(
    hypotheses: list[list[int]], scores: list[float], start: int, pad: int, num_return_sequences: int
) -> BeamSearchOutput:
    longest = max(map(len, hypotheses))
    return BeamSearchOutput(
        sequences=torch.tensor([[start, *tokens, *[pad] * (longest - len(tokens))] for tokens in hypotheses]),
        sequences_scores=torch.tensor(scores),
        lengths=torch.tensor([len(tokens) for tokens in hypotheses]),
        num_return_sequences=num_return_sequences,
    )


__all__ = ["ENGINES", "CTranslate2Model", "ExportedModel", "OnnxModel", "load_engine"]
