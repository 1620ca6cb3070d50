# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""A recipe, carried out: text in, a directory out that `from_pretrained` loads, and a record of how it came to be."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from transformers import (
    AutoModelForSeq2SeqLM,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from ..atomic_files import replace_files
from ..checkpoints.averaging import PROVENANCE_NAME, average_checkpoints
from ..checkpoints.loading import load_tokenizers
from ..checkpoints.weight_index import INDEX, WEIGHTS, other_weight_files
from ..data.batching import example_lengths
from ..data.collator import DataCollatorForTranslation
from ..data.corpora import ParallelCorpus
from ..data.encoding import encode_corpus
from ..data.splits import SPLITS, EmbeddedPairs, HubDataset, SplitSource, Tables, TextFiles, load_splits
from ..data.tokenization import train_tokenizer
from ..json_object import read_json_object
from ..metrics import TranslationMetric, default_bleu_tokenizer
from ..model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..model.tokenizers_vanilla_transformer import TARGET_TOKENIZER, TranslationTokenizers
from ..model_card import CARD_NAME, RESULTS_NAME, write_card
from ..plausibility import doubtful_translations, few_pairs
from ..presets import preset
from ..translation import translate
from ..version import __version__
from .checkpointing import clear_leftovers
from .guards import check_finite
from .preflight import PlausibilityWatch, check_settings
from .recipe import Recipe
from .recipe_arguments import EMBEDDED, DataArguments
from .record import (
    commit,
    data_record,
    decoding_record,
    hardware,
    versions,
    without_folder,
    write_json,
    write_translations,
)
from .run_lock import LOCK_NAME, run_lock
from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)

RECIPE_NAME = "recipe.json"  # what marks a directory as a run's, and tells whether another run may continue it
_AVERAGED = "averaged"
_TRANSLATIONS = "translations"
_OF_A_RUN = (RECIPE_NAME, RESULTS_NAME, CARD_NAME, _AVERAGED, PROVENANCE_NAME, TARGET_TOKENIZER)  # and more by pattern
_CHECKPOINT = re.compile(r"checkpoint-\d+|\.checkpoint-\d+\.(saving|replaced|deleting)")
_OF_A_START = re.compile(re.escape(LOCK_NAME) + r".*|\.?recipe(\.json)?(\.\d+)?\.tmp")  # of one that had not yet begun


@dataclass
class TrainingResult:
    """What a run has made.

    Attributes:
        output_dir: the directory, with the final model, its tokenizer, checkpoints, translations and ``results.json``.
        model: the final model, in evaluation mode.
        tokenizer: its tokenizer; where the target has a vocabulary of its own, both.
        record: what ``results.json`` says: data, model, training, scores, hardware, versions.
    """

    output_dir: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | TranslationTokenizers
    record: dict[str, Any] = field(repr=False)

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """The scores of each evaluated split, by name of the split."""
        return self.record["scores"]


def train(recipe: Recipe, callbacks: Sequence[TrainerCallback] = ()) -> TrainingResult:
    """Carry out a recipe.

    A directory that holds a run of the same recipe on the same data is continued from its last checkpoint.

    Args:
        recipe: from `read_recipe`.
        callbacks: Trainer's, besides its own.

    Returns:
        The final model, which ``output_dir`` holds too, and the record. Under torchrun every process gets the model;
        translations and scores are those of process 0 alone.

    Raises:
        ValueError: If text, tokenizer, model and output directory don't go together, or another process trains into the
            directory.
    """
    check_settings(recipe)
    metric = _metric(recipe)  # an unknown tokenizer is refused now, not after the training
    with run_lock(str(recipe.training.output_dir), holding=recipe.training.process_index == 0):
        return _carry_out(recipe, metric, callbacks)


def _carry_out(recipe: Recipe, metric: Any, callbacks: Sequence[TrainerCallback]) -> TrainingResult:
    arguments = recipe.training
    output_dir = Path(str(arguments.output_dir))
    corpora = load_corpora(recipe.data)
    for corpus in corpora.values():
        logger.info(str(corpus.report))
    trained_on = corpora["train"].report
    if (
        trained_on.complete
        and recipe.model.model_name_or_path is None
        and (warning := few_pairs(trained_on.pairs_kept))
    ):
        logger.warning(warning)

    with arguments.main_process_first(desc="tokenizer"):
        checkpoint = _prepare_output(recipe, output_dir, corpora, writing=arguments.process_index == 0)
        tokenizers = _tokenizers(recipe, corpora["train"], output_dir, resuming=checkpoint is not None)
        if arguments.process_index == 0 and checkpoint is None:
            replace_files(output_dir, tokenizers.save_pretrained)
    set_seed(arguments.seed)
    model = _model(recipe, tokenizers)
    config = model.config
    if config.position_embedding_type == "learned":
        limit = config.max_position_embeddings
        arguments.max_sentence_tokens = min(arguments.max_sentence_tokens or limit, limit)

    encoded = {split: encode_corpus(corpus, tokenizers) for split, corpus in corpora.items()}
    tokenizer: Any = tokenizers if tokenizers.separate else tokenizers.source
    if recipe.run.early_stopping_patience:
        callbacks = [*callbacks, EarlyStoppingCallback(recipe.run.early_stopping_patience)]
        arguments.restore_callback_states_from_checkpoint = True  # how long its patience lasts already
    trainer = VanillaTransformerTrainer(
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
        compute_metrics=_metric_while_training(metric, tokenizers) if arguments.predict_with_generate else None,
        callbacks=[PlausibilityWatch(), *callbacks],
    )
    # The newest checkpoint may be broken, then the trainer takes the newest whole one.
    named = _named_checkpoint(recipe)
    trainer.train(resume_from_checkpoint=named if named is not None else checkpoint is not None)

    final = _choose_final(recipe, trainer, output_dir)
    model.load_state_dict(final.state_dict())
    record: dict[str, Any] = {
        "recipe": {"name": recipe.name, "settings": _published(recipe)},
        "data": {split: data_record(corpus) for split, corpus in corpora.items()},
        "model": {
            "preset": None if recipe.model.model_name_or_path else recipe.model.preset,
            "started_from": without_folder(recipe.model.model_name_or_path),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "vocabulary": len(tokenizer),
            **({"target_vocabulary": len(tokenizers.target)} if tokenizers.separate else {}),
        },
        "training": _training_record(recipe, trainer, encoded["train"], trainer.resumed_from),
        "scores": {},
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }
    for split in SPLITS[1:]:
        if split in encoded:
            metrics = trainer.evaluate(encoded[split], metric_key_prefix=split)
            scores = {"loss": metrics[f"{split}_loss"], "perplexity": metrics[f"{split}_perplexity"]}
            record["scores"][split] = scores
    # As a user loads it: without the autocast that training has put around forward.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    model.__dict__.pop("forward", None)
    if trainer.is_world_process_zero():
        check_finite(model)
        _save_final(model, output_dir)
        replace_files(output_dir, tokenizer.save_pretrained)
        for split in record["scores"]:
            scores = _translation_scores(recipe, metric, model, tokenizers, corpora[split], output_dir, split)
            record["scores"][split].update(scores)
            logger.info(f"{split}: {json.dumps(record['scores'][split], ensure_ascii=False)}")
        write_json(output_dir / RESULTS_NAME, record)
        write_card(output_dir)
    if arguments.push_to_hub:  # once more: the final model may be an average, and now there are scores for the card
        trainer.push_to_hub()
    return TrainingResult(output_dir, model, tokenizer, record)


# ---------------------------------------------------------------------------------------------- text


def load_corpora(data: DataArguments, splits: Sequence[str] = SPLITS) -> dict[str, ParallelCorpus]:
    """Load the splits that a recipe names.

    Args:
        data: names files or a dataset.
        splits: the splits to load, of "train", "validation" and "test"; those without data are skipped.
    """
    named = {split: source for split in splits if (source := _split_source(data, split)) is not None}
    return load_splits(named, source_lang=data.source_lang, target_lang=data.target_lang, streaming=data.streaming)


def _split_source(data: DataArguments, split: str) -> SplitSource | None:
    columns = (data.source_column, data.target_column)
    source, target, table = (getattr(data, f"{split}_{side}") for side in ("source", "target", "file"))
    if source is not None:
        return TextFiles(source, target)
    if table is not None:
        return Tables(table, *columns)
    name = getattr(data, f"{split}_split")
    if data.dataset_name == EMBEDDED and name is not None:
        return EmbeddedPairs(getattr(data, f"embedded_{split}"), data.embedded_seed)
    if data.dataset_name is not None and name is not None:
        return HubDataset(data.dataset_name, data.dataset_config, name, *columns)
    return None


# ---------------------------------------------------------------------------------------------- tokenizer, model


def _tokenizers(recipe: Recipe, corpus: ParallelCorpus, output_dir: Path, resuming: bool) -> TranslationTokenizers:
    """Load the tokenizers that the recipe or its checkpoint names, or learn one from the training text."""
    if resuming or recipe.training.process_index:  # process 0 has just saved them
        return load_tokenizers(output_dir)
    name = recipe.data.tokenizer or recipe.model.model_name_or_path
    if name is not None:
        tokenizers = load_tokenizers(name)
    else:
        data = recipe.data
        learned = train_tokenizer(
            corpus.sentences(),
            data.vocab_size,
            model=data.tokenizer_model,
            normalization=data.normalization,
            lowercase=data.lowercase,
        )
        logger.info(f"learned a vocabulary of {len(learned)} subwords ({data.tokenizer_model})")
        tokenizers = TranslationTokenizers(learned)
    if recipe.model.overrides.get("decoder_vocab_size") is not None and not tokenizers.separate:
        # Two matrices, one vocabulary: what writes the target stands where it is looked for.
        tokenizers = TranslationTokenizers(tokenizers.source, tokenizers.target)
    return tokenizers


def _model(recipe: Recipe, tokenizers: TranslationTokenizers) -> Any:
    if recipe.model.model_name_or_path is not None:
        # In fp32, whatever it is stored in, so that nothing is rounded but the stored numbers.
        dtype = "auto" if recipe.training.keep_weight_dtype else torch.float32
        model = AutoModelForSeq2SeqLM.from_pretrained(recipe.model.model_name_or_path, dtype=dtype)
        if model.config.decoder_vocab_size is not None and not tokenizers.separate:
            raise ValueError(
                f"the target of {recipe.model.model_name_or_path} has a vocabulary of its own "
                f"({model.config.decoder_vocab_size} tokens), but there is only one tokenizer; save the target's in its "
                f"folder {TARGET_TOKENIZER}"
            )
    else:
        model = VanillaTransformerForConditionalGeneration(
            preset(recipe.model.preset, **{**_vocabulary_fields(tokenizers), **recipe.model.overrides})
        )
    tokenizers.check_fit(model.config)
    return model


def _vocabulary_fields(tokenizers: TranslationTokenizers) -> dict[str, Any]:
    """Return the fields of a new model's configuration that the vocabularies decide."""
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id")
    ids, of_target = ({name: getattr(side, name) for name in names} for side in (tokenizers.source, tokenizers.target))
    for name in ("pad_token_id", "eos_token_id"):
        token = name.removesuffix("_id")
        if ids[name] is None:
            raise ValueError(
                f"the tokenizer has no {token}, and training needs one; add it with "
                f'tokenizer.add_special_tokens({{"{token}": "<{token[:3]}>"}}) and save the tokenizer again'
            )
        if ids[name] != of_target[name]:
            raise ValueError(
                f"the source's tokenizer has {name} {ids[name]}, the target's {of_target[name]}; a model has one for "
                "both, so learn the two vocabularies with the same special tokens first"
            )
    start = of_target["bos_token_id"] if of_target["bos_token_id"] is not None else ids["pad_token_id"]
    fields = {name: value for name, value in ids.items() if value is not None}
    fields |= {"vocab_size": len(tokenizers.source), "decoder_start_token_id": start}
    if tokenizers.separate:
        fields |= {"decoder_vocab_size": len(tokenizers.target), "share_encoder_decoder_embeddings": False}
    return fields


def _choose_final(recipe: Recipe, trainer: VanillaTransformerTrainer, output_dir: Path) -> PreTrainedModel:
    """Return the average that the recipe asks for, else the model that Trainer has: the best if asked, or the last."""
    run, arguments = recipe.run, recipe.training
    wanted = run.average_last or run.average_best
    if not wanted:
        return trainer.accelerator.unwrap_model(trainer.model)
    with arguments.main_process_first(desc="average"):
        if arguments.process_index == 0:
            there = len(list(output_dir.glob("checkpoint-*")))
            if there < wanted:
                logger.warning(f"the run has {there} checkpoints, fewer than the {wanted} to be averaged; taking all")
            number = min(wanted, there)
            by = {"last": number} if run.average_last else {"best": number, "metric": "eval_loss"}
            average_checkpoints(output_dir, output_dir / _AVERAGED, overwrite=True, **by)  # type: ignore[arg-type]
            shutil.copyfile(output_dir / _AVERAGED / PROVENANCE_NAME, output_dir / PROVENANCE_NAME)
        return AutoModelForSeq2SeqLM.from_pretrained(output_dir / _AVERAGED)


def _save_final(model: PreTrainedModel, output_dir: Path) -> None:
    """Save the final model where an earlier one may be, whose files of weights must not be loaded instead."""
    written: list[str] = []

    def save(folder: str) -> None:
        model.save_pretrained(folder)
        written.extend(path.name for path in Path(folder).iterdir())

    replace_files(output_dir, save)
    for path in other_weight_files(output_dir, written):
        path.unlink()


# ---------------------------------------------------------------------------------------------- output directory


def _prepare_output(recipe: Recipe, output_dir: Path, corpora: dict[str, ParallelCorpus], writing: bool) -> str | None:
    """Refuse a directory with something else in it; return the checkpoint to go on from, or None to start.

    Args:
        recipe: says whether to overwrite and from where to resume.
        output_dir: the directory.
        corpora: their hashes belong to the run's identity.
        writing: whether this process is the one that writes.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"output_dir {output_dir} is a file; name a directory")
    mark = output_dir / RECIPE_NAME
    asked = _named_checkpoint(recipe)
    if asked is not None and not Path(asked).is_dir():
        raise ValueError(f"there is no checkpoint directory {asked} to resume from")
    identity = {
        "settings": recipe.identity,
        "data": {split: corpus.report.sha256 for split, corpus in corpora.items() if corpus.report.complete},
    }
    if not writing:  # process 0 has prepared everything
        return asked or get_last_checkpoint(str(output_dir))
    checkpoint = asked
    if output_dir.is_dir() and any(not _OF_A_START.fullmatch(path.name) for path in output_dir.iterdir()):
        if not mark.is_file():
            raise ValueError(
                f"output_dir {output_dir} holds something that is no run of a recipe; choose an empty or new directory"
            )
        if recipe.run.overwrite:
            _delete_run(output_dir)
        elif asked is None:
            if _has_trained(output_dir):
                _check_same_run(output_dir, read_json_object(mark), identity, recipe.training.resume_anyway)
            clear_leftovers(output_dir)
            checkpoint = get_last_checkpoint(str(output_dir))
            if checkpoint is not None:
                logger.warning(f"{output_dir} holds this recipe's run; going on from {checkpoint}")
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(mark, {**identity, "hf_vanilla_transformer": __version__})
    return checkpoint


def _has_trained(output_dir: Path) -> bool:
    """Whether a run has left anything that another one could lose: a checkpoint, a final model, results."""
    names = [path.name for path in output_dir.iterdir()]
    half_written = (".saving", ".deleting")
    return any(
        name in (RESULTS_NAME, WEIGHTS, INDEX) or (_CHECKPOINT.fullmatch(name) and not name.endswith(half_written))
        for name in names
    )


def _named_checkpoint(recipe: Recipe) -> str | None:
    """Return the checkpoint that the recipe names to go on from; the last one is what is resumed anyway."""
    asked = recipe.training.resume_from_checkpoint
    return None if asked is None or asked.lower() in ("true", "yes", "last") else asked


def _check_same_run(output_dir: Path, earlier: dict[str, Any], identity: dict[str, Any], anyway: bool) -> None:
    differences = []
    for part, what in (("settings", ""), ("data", "data of ")):
        before, now = earlier.get(part), identity[part]
        if not isinstance(before, dict):
            raise ValueError(f"{output_dir / RECIPE_NAME} says no {part} of the run; choose another --output_dir")
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                values = f" ({before.get(key)} there, {now.get(key)} now)" if part == "settings" else ""
                differences.append(f"{what}{key}{values}")
    if differences:
        text = f"output_dir {output_dir} holds another run, which differs in {', '.join(differences)}"
        if anyway:
            logger.warning(f"{text}; going on nevertheless")
            return
        raise ValueError(f"{text}; choose another --output_dir, or --overwrite to delete that run")


def _delete_run(output_dir: Path) -> None:
    """Delete what a run has left; the directory itself and what else somebody put there stays."""
    translations = output_dir / _TRANSLATIONS
    written = [path for split in SPLITS for path in translations.glob(f"{split}.*")]
    for path in [*output_dir.iterdir(), *written]:
        of_the_run = path.name in _OF_A_RUN or (_CHECKPOINT.fullmatch(path.name) and path.is_dir()) or path in written
        if of_the_run:
            logger.warning(f"deleting {path}")
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


# ---------------------------------------------------------------------------------------------- scores


def _translation_scores(
    recipe: Recipe,
    metric: Any,
    model: PreTrainedModel,
    tokenizers: TranslationTokenizers,
    corpus: ParallelCorpus,
    output_dir: Path,
    split: str,
) -> dict[str, Any]:
    """Translate a split as §6.1 does, write the translations down a line each, and score them."""
    data, run = recipe.data, recipe.run
    sources, references = corpus.sides()
    translations = translate(
        model,
        tokenizers,
        sources,
        recipe.search,
        max_source_tokens=run.max_source_tokens,
    )
    write_translations(output_dir / _TRANSLATIONS / f"{split}.{data.target_lang}", translations)
    if warning := doubtful_translations(sources, translations):
        logger.warning(f"{split}: {warning}")
    return metric.compute(predictions=translations, references=references)


def _metric(recipe: Recipe) -> Any:
    """Make the metric that the recipe or its target language asks for; a model without capitals is scored without."""
    tokenize = recipe.run.metric_tokenize or default_bleu_tokenizer(recipe.data.target_lang)
    return TranslationMetric(tokenize, lowercase=recipe.data.lowercase)


def _metric_while_training(metric: Any, tokenizers: TranslationTokenizers) -> Any:
    """Return what Trainer calls with the sentences that ``predict_with_generate`` makes."""
    padding = 0 if tokenizers.pad_token_id is None else tokenizers.pad_token_id

    def compute(predicted: Any) -> dict[str, float]:
        sides = []
        for ids in (predicted.predictions, predicted.label_ids):
            ids = torch.as_tensor(ids)
            ids = ids.masked_fill(ids < 0, padding)  # −100 stands for padding
            sides.append(tokenizers.batch_decode(ids))
        scores = metric.compute(predictions=sides[0], references=sides[1])
        return {name: value for name, value in scores.items() if isinstance(value, float)}

    return compute


# ---------------------------------------------------------------------------------------------- the record


def _published(recipe: Recipe) -> dict[str, Any]:
    """Return the settings as they may be shown to others: of absolute paths only the name, no word on where it ran."""

    hidden = ("output_dir", "overwrite", "resume_from_checkpoint", "hub_token")
    return {key: without_folder(value) for key, value in recipe.settings.items() if key not in hidden}


def _training_record(
    recipe: Recipe,
    trainer: VanillaTransformerTrainer,
    encoded: Dataset | IterableDataset,
    resumed_from: str | None,
) -> dict[str, Any]:
    """Say what the training cost and how it went."""
    state, arguments = trainer.state, recipe.training
    provenance = Path(str(arguments.output_dir)) / PROVENANCE_NAME
    averaged = []
    if recipe.run.average_last or recipe.run.average_best:
        averaged = [member["name"] for member in json.loads(provenance.read_text(encoding="utf-8"))["checkpoints"]]
    speeds = [entry["tokens_per_second"] for entry in state.log_history if "tokens_per_second" in entry]
    processor_seconds = trainer.processor_seconds
    record: dict[str, Any] = {
        "updates": state.global_step,
        "epochs": round(state.epoch or 0.0, 3),
        "seconds": round(trainer.seconds, 1),
        "processor_seconds": None if processor_seconds is None else round(processor_seconds, 1),
        "tokens_per_second": round(sum(speeds) / len(speeds)) if speeds else None,
        "tokens": None,
        "precision": arguments.precision,
        "seed": arguments.seed,
        "max_tokens_per_batch": arguments.max_tokens_per_batch,
        "warmup_steps": arguments.warmup_steps,
        "lr_scheduler_type": str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        "learning_rate": arguments.learning_rate,
        "cooldown_steps": arguments.cooldown_steps,
        "label_smoothing_factor": arguments.label_smoothing_factor,
        "devices": arguments.world_size,
        "resumed_from": None if resumed_from is None else Path(resumed_from).name,
        "best_checkpoint": None if state.best_model_checkpoint is None else Path(state.best_model_checkpoint).name,
        "best_validation_loss": state.best_metric,
        "averaged": averaged,
        "decoding": decoding_record(recipe.search),
    }
    if isinstance(encoded, Dataset):  # what an epoch holds times how often it was seen
        an_epoch = sum(int(example_lengths(encoded, column).sum()) for column in ("input_ids", "labels"))
        record["tokens"] = round(an_epoch * (state.epoch or 0.0))
    return record


__all__ = ["TrainingResult", "load_corpora", "train"]
