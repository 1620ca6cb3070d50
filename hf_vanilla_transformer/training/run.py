# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Train from a recipe: read text, write a directory with a `from_pretrained` checkpoint and a record of results."""

import html
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from transformers import (
    AutoModelForSeq2SeqLM,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.utils import logging

from ..checkpoints.loading import load_any_tokenizers, load_tokenizers
from ..data.batching import example_lengths
from ..data.bpe_dropout import encode_with_bpe_dropout
from ..data.collator import DataCollatorForTranslation
from ..data.corpora import ParallelCorpus
from ..data.corpus_warnings import corpus_warnings
from ..data.encoding import encode_corpus
from ..data.splits import SPLITS
from ..data.tokenization import add_extra_tokens, train_tokenizer
from ..messages import messages_shown, other_progress_bars_hidden
from ..metrics import TranslationMetric, default_bleu_tokenizer
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER, TranslationTokenizers
from ..plausibility import few_pairs, tally_translations, validation_verdict
from ..presets import preset
from .display import (
    RunDisplay,
    describe_average,
    describe_model,
    describe_text,
    describe_vocabulary,
    show,
    show_result,
    show_scores,
)
from .evaluation import load_corpora, score_corpus, translate_corpus
from .non_finite import check_finite
from .preflight import PlausibilityWatch, check_settings
from .progress import Progress
from .recipe import Recipe
from .record import commit, data_record, decoding_record, hardware, versions, without_folder
from .run_directory import RunDirectory, named_checkpoint
from .run_lock import run_lock
from .score_table import score_html, score_text
from .trainer import VanillaTransformerTrainer
from .vocabulary_extension import ExtensionRequest, extend_tokenizers, grow_vocabulary

logger = logging.get_logger(__name__)

_PRIVATE_SETTINGS = ("output_dir", "overwrite", "resume_from_checkpoint", "hub_token")  # not in the published record


@dataclass(repr=False)
class TrainingResult:
    """Result of a run.

    Attributes:
        output_dir: the directory with the final model, its tokenizer, checkpoints, translations and ``results.json``.
        model: the final model, in evaluation mode.
        tokenizer: its tokenizer; a `TranslationTokenizers` if the target has a vocabulary of its own.
        record: the content of ``results.json``: data, model, training, scores, hardware, versions.
    """

    output_dir: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | TranslationTokenizers
    record: dict[str, Any]

    def __repr__(self) -> str:
        scores = "".join(f", {split}: {score_text(scores)}" for split, scores in self.scores.items())
        return f"TrainingResult({str(self.output_dir)!r}{scores})"

    def _repr_html_(self) -> str:
        """Return the scores as a table, with the directory below it, for a notebook."""
        return f"{score_html(self.scores)}<div>{html.escape(str(self.output_dir))}</div>"

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """The scores of each evaluated split, by name of the split."""
        return self.record["scores"]


def train(
    recipe: Recipe,
    callbacks: Sequence[TrainerCallback] = (),
    trainer_class: type[VanillaTransformerTrainer] = VanillaTransformerTrainer,
) -> TrainingResult:
    """Train by a recipe: load text, train a tokenizer, train a model, average checkpoints, evaluate, save.

    If ``output_dir`` contains a run of the same recipe on the same data, that run is resumed from its last checkpoint.
    A header, the progress, evaluations and scores are logged as INFO messages, which go to standard error unless the
    caller has set up logging; ``logging.getLogger("hf_vanilla_transformer").setLevel("WARNING")`` hides them.

    Args:
        recipe: from `read_recipe`.
        callbacks: Trainer callbacks, in addition to the run's own.
        trainer_class: a subclass of `VanillaTransformerTrainer`, e.g. with another loss (``compute_loss``) or optimizer
            (``create_optimizer``).

    Returns:
        The final model, which is also in ``output_dir``, and the record. Under torchrun every process returns the
        model; only process 0 translates, scores and writes files.

    Raises:
        ValueError: If text, tokenizer, model and output directory do not fit together, or another process is training
            in the directory.
    """
    return train_and_show(recipe, callbacks, trainer_class=trainer_class)


def train_and_show(
    recipe: Recipe,
    callbacks: Sequence[TrainerCallback] = (),
    output_dir: Path | None = None,
    trainer_class: type[VanillaTransformerTrainer] = VanillaTransformerTrainer,
) -> TrainingResult:
    """Train as `train` does.

    Args:
        recipe: see `train`.
        callbacks: see `train`.
        output_dir: directory that the header names, if the run's own is a temporary one.
        trainer_class: see `train`.
    """
    check_settings(recipe)
    metric = _metric(recipe)  # raises for an unknown tokenizer now, not after the training
    directory, is_first = RunDirectory(str(recipe.training.output_dir)), recipe.training.process_index == 0
    with (
        messages_shown(INFO if is_first else WARNING),
        run_lock(str(directory.path), holding=is_first),
        ExitStack() as until_the_end,
    ):
        if recipe.summary:
            show("settings", recipe.summary)
        corpora = _load_text(recipe)
        checkpoint, tokenizers = _start(recipe, directory, corpora)
        model = _build_model(recipe, tokenizers)
        show("vocabulary", describe_vocabulary(tokenizers, _tokenizer_origin(recipe, checkpoint)))
        show("model", describe_model(model, recipe.model.model_name_or_path or f"preset {recipe.model.preset}"))
        until_the_end.enter_context(other_progress_bars_hidden())  # not before: downloads have some
        encoded = {split: encode_corpus(corpus, tokenizers) for split, corpus in corpora.items()}
        passes = 1  # over the training text, in one epoch of the trainer
        if recipe.data.bpe_dropout:
            passes = _leave_out_merges(recipe, corpora["train"], tokenizers, encoded)
        trainer = _build_trainer(recipe, model, tokenizers, encoded, metric, callbacks, trainer_class)
        trainer.passes_per_epoch = passes
        display = _show_instead_of_trainer(trainer, output_dir or directory.path)
        until_the_end.callback(display.close)
        # The last checkpoint may be damaged; given True, the trainer resumes from the last valid one.
        trainer.train(resume_from_checkpoint=named_checkpoint(recipe) or checkpoint is not None)

        _load_final_weights(recipe, directory, trainer, model)
        record = _record(recipe, directory, corpora, tokenizers, model, trainer, encoded["train"])
        record["scores"] = _losses(trainer, encoded)
        final = _unwrap(trainer)
        if trainer.is_world_process_zero():
            check_finite(final)
            directory.save_model(final)
            directory.save_tokenizer(_tokenizer_of(tokenizers))
            for split, scores in record["scores"].items():
                scores.update(_translation_scores(recipe, directory, metric, final, tokenizers, split, corpora[split]))
                trainer.log(_entry_of_scores(split, scores))
            directory.write_results(record)
            show_scores(record["scores"])
            if output_dir is None:
                show_result(directory.path)
        if recipe.training.push_to_hub:  # again: the final model may be an average, and the card now has scores
            trainer.push_to_hub()
    return TrainingResult(directory.path, final, _tokenizer_of(tokenizers), record)


# ---------------------------------------------------------------------------------------------- text and tokenizer


def _load_text(recipe: Recipe) -> dict[str, ParallelCorpus]:
    """Load the splits, and report what was read and left out."""
    corpora = load_corpora(recipe.data)
    for split, corpus in corpora.items():
        show("training" if split == "train" else split, describe_text(corpus.report))
    training = corpora["train"].report
    from_scratch = recipe.model.model_name_or_path is None
    if training.complete and from_scratch and (warning := few_pairs(training.pairs_kept)):
        logger.warning(warning)
    if recipe.training.process_index == 0:
        for warning in corpus_warnings(corpora):
            logger.warning(warning)
    return corpora


def _start(
    recipe: Recipe, directory: RunDirectory, corpora: dict[str, ParallelCorpus]
) -> tuple[str | None, TranslationTokenizers]:
    """Prepare the directory; return the checkpoint to resume from, or None, and the tokenizers."""
    is_first = recipe.training.process_index == 0
    with recipe.training.main_process_first(desc="tokenizer"):
        checkpoint = directory.start(recipe, corpora, writing=is_first)
        if checkpoint is not None or not is_first:  # they were saved before, or just now by process 0
            return checkpoint, load_tokenizers(directory.path)
        tokenizers = _new_tokenizers(recipe, corpora["train"])
        directory.save_tokenizer(tokenizers)
    return checkpoint, tokenizers


def _new_tokenizers(recipe: Recipe, corpus: ParallelCorpus) -> TranslationTokenizers:
    """Load the tokenizers that the recipe names, or train one on the training text."""
    data = recipe.data
    name = data.tokenizer or recipe.model.model_name_or_path
    extra_tokens = data.special_tokens
    if recipe.model.model_name_or_path is not None and (recipe.model.extend_vocabulary or extra_tokens):
        tokenizers = _extended_tokenizers(recipe, corpus)
    elif name is not None:
        tokenizers = load_any_tokenizers(name)
        for side in (tokenizers.source, tokenizers.target):
            add_extra_tokens(side, extra_tokens)
    else:
        trained = train_tokenizer(
            corpus.sentences(),
            data.vocab_size,
            model=data.tokenizer_model,
            normalization=data.normalization,
            lowercase=data.lowercase,
            extra_tokens=extra_tokens,
        )
        tokenizers = TranslationTokenizers(trained)
    if recipe.model.overrides.get("decoder_vocab_size") is not None and not tokenizers.separate:
        # A model with a vocabulary per side has a tokenizer per side, although both are the same here.
        tokenizers = TranslationTokenizers(tokenizers.source, tokenizers.target)
    return tokenizers


def _extended_tokenizers(recipe: Recipe, corpus: ParallelCorpus) -> TranslationTokenizers:
    """Extend the tokenizers of the checkpoint by what the recipe asks for."""
    name, asked = str(recipe.model.model_name_or_path), recipe.model.extend_vocabulary

    def texts(side: str) -> Iterator[str]:
        if side == "both":
            return corpus.sentences()
        language = corpus.languages[side == "target"]
        return (row["translation"][language] for row in corpus.dataset)

    request = None if asked is None else ExtensionRequest.parse(asked)
    return extend_tokenizers(load_any_tokenizers(name), request, recipe.data.special_tokens, texts, name)


def _tokenizer_origin(recipe: Recipe, checkpoint: str | None) -> str:
    """Return where the tokenizers come from, as text."""
    name = recipe.data.tokenizer or recipe.model.model_name_or_path
    if checkpoint is not None:
        return "of the run that is resumed"
    return f"learned from the training text ({recipe.data.tokenizer_model.upper()})" if name is None else f"of {name}"


def _tokenizer_of(tokenizers: TranslationTokenizers) -> Any:
    """Return the one tokenizer of a shared vocabulary, or both as they are."""
    return tokenizers if tokenizers.separate else tokenizers.source


# ---------------------------------------------------------------------------------------------- model and trainer


def _build_model(recipe: Recipe, tokenizers: TranslationTokenizers) -> Any:
    """Load the model that the recipe names, or initialize a new one."""
    set_seed(recipe.training.seed)
    name = recipe.model.model_name_or_path
    if name is not None:
        # In fp32 whatever the stored dtype is, so that small updates are not rounded away.
        dtype = "auto" if recipe.training.keep_weight_dtype else torch.float32
        model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=dtype)
        if model.config.decoder_vocab_size is not None and not tokenizers.separate:
            raise ValueError(
                f"{name} has a separate target vocabulary of {model.config.decoder_vocab_size} tokens, but only one "
                f"tokenizer; save the target's tokenizer in its folder {TARGET_TOKENIZER}"
            )
        if recipe.model.extend_vocabulary or recipe.data.special_tokens:
            before = load_any_tokenizers(name)
            before.check_fit(model.config)
            model = grow_vocabulary(model, before, tokenizers)
    else:
        fields = {**_vocabulary_fields(tokenizers), **recipe.model.overrides}
        model = VanillaTransformerForConditionalGeneration(preset(recipe.model.preset, **fields))
    tokenizers.check_fit(model.config)
    return model


def _leave_out_merges(
    recipe: Recipe,
    corpus: ParallelCorpus,
    tokenizers: TranslationTokenizers,
    encoded: dict[str, Dataset | IterableDataset],
) -> int:
    """Replace the training text by segmentations with BPE-dropout, one per pass; return the number of passes."""
    seed = recipe.training.seed if recipe.training.data_seed is None else recipe.training.data_seed
    pairs = len(encoded["train"])
    # The same in every process, and in a longer run: it depends on text, tokenizer and seed only.
    encoded["train"] = encode_with_bpe_dropout(corpus, tokenizers, recipe.data.bpe_dropout, seed)
    return len(encoded["train"]) // pairs


def _vocabulary_fields(tokenizers: TranslationTokenizers) -> dict[str, Any]:
    """Return the configuration fields of a new model that depend on its tokenizers."""
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id")
    ids, target_ids = ({name: getattr(side, name) for name in names} for side in (tokenizers.source, tokenizers.target))
    for name in ("pad_token_id", "eos_token_id"):
        token = name.removesuffix("_id")
        if ids[name] is None:
            raise ValueError(
                f"the tokenizer has no {token}, which training needs; add it with "
                f'tokenizer.add_special_tokens({{"{token}": "<{token[:3]}>"}}) and save the tokenizer again'
            )
        if ids[name] != target_ids[name]:
            raise ValueError(
                f"{name} is {ids[name]} in the source's tokenizer and {target_ids[name]} in the target's, but a model "
                "has one for both; train the two tokenizers with the same special tokens"
            )
    start = target_ids["bos_token_id"] if target_ids["bos_token_id"] is not None else ids["pad_token_id"]
    fields: dict[str, Any] = dict(ids)  # None where there is no such token: the default is the id of another token
    if fields["unk_token_id"] is None:  # as in GPT-2: nothing is unknown, but export formats need an id
        fields["unk_token_id"] = ids["eos_token_id"]
    fields |= {"vocab_size": len(tokenizers.source), "decoder_start_token_id": start}
    if tokenizers.separate:
        fields |= {"decoder_vocab_size": len(tokenizers.target), "share_encoder_decoder_embeddings": False}
    return fields


def _build_trainer(
    recipe: Recipe,
    model: Any,
    tokenizers: TranslationTokenizers,
    encoded: dict[str, Dataset | IterableDataset],
    metric: Any,
    callbacks: Sequence[TrainerCallback],
    trainer_class: type[VanillaTransformerTrainer],
) -> VanillaTransformerTrainer:
    arguments, config, tokenizer = recipe.training, model.config, _tokenizer_of(tokenizers)
    if config.position_embedding_type == "learned":
        limit = config.max_position_embeddings
        arguments.max_sentence_tokens = min(arguments.max_sentence_tokens or limit, limit)
    if recipe.run.early_stopping_patience:
        callbacks = [*callbacks, EarlyStoppingCallback(recipe.run.early_stopping_patience)]
        arguments.restore_callback_states_from_checkpoint = True  # so that a resumed run continues its count
    return trainer_class(
        model=model,
        args=arguments,
        train_dataset=encoded["train"],
        eval_dataset=encoded.get("validation"),
        processing_class=tokenizer,
        data_collator=DataCollatorForTranslation(
            tokenizer,
            config.decoder_start_token_id,
            vocab_size=config.vocab_size,
            decoder_vocab_size=config.output_vocab_size,
        ),
        compute_metrics=_metric_during_training(metric, tokenizers) if arguments.predict_with_generate else None,
        callbacks=[PlausibilityWatch(), *callbacks],
    )


def _show_instead_of_trainer(trainer: VanillaTransformerTrainer, output_dir: Path) -> RunDisplay:
    """Replace the callbacks with which Trainer shows progress and log entries."""
    for callback in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback, Progress):
        trainer.remove_callback(callback)
    display = RunDisplay(trainer, output_dir)
    trainer.add_callback(display)
    return display


# ---------------------------------------------------------------------------------------------- final model


def _load_final_weights(
    recipe: Recipe, directory: RunDirectory, trainer: VanillaTransformerTrainer, model: Any
) -> None:
    """Load the average that the recipe asks for; without one, the weights stay those of the last or best checkpoint."""
    taken = [_final_update(trainer)]
    if not (recipe.run.average_last or recipe.run.average_best):
        final = trainer.accelerator.unwrap_model(trainer.model)
    else:
        with recipe.training.main_process_first(desc="average"):
            if recipe.training.process_index == 0:
                directory.write_average(recipe.run.average_last, recipe.run.average_best)
                taken = directory.averaged_updates()
                show("averaged", describe_average(taken))
            final = directory.load_average()
    model.load_state_dict(final.state_dict())
    losses = [(int(entry["step"]), entry["eval_loss"]) for entry in trainer.state.log_history if "eval_loss" in entry]
    verdict = validation_verdict(losses, taken)
    if verdict is not None and trainer.is_world_process_zero():
        show("convergence", verdict)


def _final_update(trainer: VanillaTransformerTrainer) -> int:
    """Return the update of the checkpoint whose weights the trainer's model has after the training."""
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    return trainer.state.global_step if best is None else int(best.rpartition("-")[2])


def _unwrap(trainer: VanillaTransformerTrainer) -> Any:
    """Return the model as `from_pretrained` would: without the autocast that training adds around forward."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    model.__dict__.pop("forward", None)
    return model


# ---------------------------------------------------------------------------------------------- scores


def _metric(recipe: Recipe) -> Any:
    """Construct the metric of the recipe or its target language; it ignores case if the tokenizer lower-cases."""
    tokenize = recipe.run.metric_tokenize or default_bleu_tokenizer(recipe.data.target_lang)
    return TranslationMetric(tokenize, lowercase=recipe.data.lowercase)


def _metric_during_training(metric: Any, tokenizers: TranslationTokenizers) -> Any:
    """Return Trainer's ``compute_metrics``, which scores the output of ``predict_with_generate``."""
    padding = 0 if tokenizers.pad_token_id is None else tokenizers.pad_token_id

    def compute(predicted: Any) -> dict[str, float]:
        sides = []
        for ids in (predicted.predictions, predicted.label_ids):
            ids = torch.as_tensor(ids)
            ids = ids.masked_fill(ids < 0, padding)  # -100 marks padding
            sides.append(tokenizers.batch_decode(ids))
        if warning := tally_translations(sides[1], sides[0]).warning():  # Trainer passes no sources
            logger.warning(f"evaluation: {warning}")
        scores = metric.compute(predictions=sides[0], references=sides[1])
        return {name: value for name, value in scores.items() if isinstance(value, float)}

    return compute


def _losses(
    trainer: VanillaTransformerTrainer, encoded: dict[str, Dataset | IterableDataset]
) -> dict[str, dict[str, Any]]:
    """Compute loss and perplexity of the final model on each evaluation split."""
    losses = {}
    for split in SPLITS[1:]:
        if split in encoded:
            metrics = trainer.evaluate(encoded[split], metric_key_prefix=split)
            losses[split] = {name: metrics[f"{split}_{name}"] for name in ("loss", "perplexity")}
    return losses


def _translation_scores(
    recipe: Recipe,
    directory: RunDirectory,
    metric: Any,
    model: PreTrainedModel,
    tokenizers: TranslationTokenizers,
    split: str,
    corpus: ParallelCorpus,
) -> dict[str, Any]:
    """Translate a split by beam search, write the translations and score them."""
    beam_search = f"beam size {recipe.search.num_beams}, length penalty {recipe.search.length_penalty:g}"
    show("translating", f"{corpus.report.pairs_kept:,} sentences of {split}, {beam_search}")
    translations = translate_corpus(
        model, tokenizers, corpus, recipe.search, max_source_tokens=recipe.run.max_source_tokens
    )
    directory.write_translations(split, recipe.data.target_lang, translations)
    return score_corpus(metric, corpus, translations, name=split)


def _entry_of_scores(split: str, scores: dict[str, Any]) -> dict[str, float]:
    """Return the log entry with the scores of the translations; loss and perplexity have one already."""
    return {f"{split}_{name}": scores[name] for name in ("bleu", "chrf", "exact") if name in scores}


# ---------------------------------------------------------------------------------------------- record


def _record(
    recipe: Recipe,
    directory: RunDirectory,
    corpora: dict[str, ParallelCorpus],
    tokenizers: TranslationTokenizers,
    model: Any,
    trainer: VanillaTransformerTrainer,
    encoded: Dataset | IterableDataset,
) -> dict[str, Any]:
    """Describe the run but for its scores. The record may be published: it contains no paths of this machine."""
    settings = {key: without_folder(value) for key, value in recipe.settings.items() if key not in _PRIVATE_SETTINGS}
    averaged = recipe.run.average_last or recipe.run.average_best
    training = _training_record(recipe, trainer, encoded)
    return {
        "recipe": {"name": recipe.name, "settings": settings},
        "data": {split: data_record(corpus) for split, corpus in corpora.items()},
        "model": {
            "preset": None if recipe.model.model_name_or_path else recipe.model.preset,
            "started_from": without_folder(recipe.model.model_name_or_path),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "vocabulary": len(_tokenizer_of(tokenizers)),
            **({"target_vocabulary": len(tokenizers.target)} if tokenizers.separate else {}),
        },
        "training": {
            **training,
            "averaged": directory.averaged_checkpoints() if averaged else [],
            "decoding": decoding_record(recipe.search),
        },
        "scores": {},
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }


def _training_record(
    recipe: Recipe, trainer: VanillaTransformerTrainer, encoded: Dataset | IterableDataset
) -> dict[str, Any]:
    """Describe the training: updates, time, tokens, and the settings that decide the result."""
    state, arguments = trainer.state, recipe.training
    speeds = [entry["tokens_per_second"] for entry in state.log_history if "tokens_per_second" in entry]
    processor_seconds, resumed_from, best = trainer.processor_seconds, trainer.resumed_from, state.best_model_checkpoint
    tokens = None  # unknown for a stream
    if isinstance(encoded, Dataset):
        per_epoch = sum(int(example_lengths(encoded, column).sum()) for column in ("input_ids", "labels"))
        tokens = round(per_epoch * (state.epoch or 0.0))
    return {
        "updates": state.global_step,
        "epochs": round((state.epoch or 0.0) * trainer.passes_per_epoch, 3),
        "seconds": round(trainer.seconds, 1),
        "processor_seconds": None if processor_seconds is None else round(processor_seconds, 1),
        "tokens_per_second": round(sum(speeds) / len(speeds)) if speeds else None,
        "tokens": tokens,
        "precision": arguments.used_precision,
        "seed": arguments.seed,
        "max_tokens_per_batch": arguments.max_tokens_per_batch,
        "warmup_steps": arguments.warmup_steps,
        "lr_scheduler_type": str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        "learning_rate": arguments.learning_rate,
        "cooldown_steps": arguments.cooldown_steps,
        "label_smoothing_factor": arguments.label_smoothing_factor,
        **({"r_drop": arguments.r_drop} if arguments.r_drop else {}),
        "devices": arguments.world_size,
        "resumed_from": None if resumed_from is None else Path(resumed_from).name,
        "best_checkpoint": None if best is None else Path(best).name,
        "best_validation_loss": state.best_metric,
    }


__all__ = ["TrainingResult", "train"]
