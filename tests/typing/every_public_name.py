"""A user's program that calls every public name. Type checkers read it in strict mode; it is never executed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import hf_vanilla_transformer as vt
from hf_vanilla_transformer.alignment.heads import AlignmentHeads
from hf_vanilla_transformer.conversion.convert import convert_checkpoint
from hf_vanilla_transformer.export.exported_model import ExportedModel
from hf_vanilla_transformer.hub.publish import Published
from hf_vanilla_transformer.model.beam_search_vanilla_transformer import BeamSearchOutput, TargetScores
from hf_vanilla_transformer.self_check.report import SelfCheckReport
from hf_vanilla_transformer.training.recipe import Recipe
from hf_vanilla_transformer.training.run import TrainingResult
from hf_vanilla_transformer.translation.score import PairScore
from hf_vanilla_transformer.translation.texts import ScoredTranslation
from hf_vanilla_transformer.visualization.maps import AttentionMaps

assert_type(vt.__version__, str)


def build() -> tuple[vt.VanillaTransformerForConditionalGeneration, PreTrainedTokenizerFast]:
    """Configuration, models and tokenizers."""
    corpus = vt.embedded_corpus("train", 100)
    print(corpus["translation"])
    tokenizer = vt.train_tokenizer(["one two", "하나 둘"], 300)
    assert_type(tokenizer, PreTrainedTokenizerFast)
    config = vt.preset("tiny", vocab_size=300)
    assert_type(config, vt.VanillaTransformerConfig)
    assert_type(config.d_model, int)
    assert_type(config.encoder_layers, int)
    assert_type(config.output_vocab_size, int)
    model = vt.VanillaTransformerForConditionalGeneration(config)
    bare = vt.VanillaTransformerModel(vt.VanillaTransformerConfig(d_model=64, num_heads=4))
    encoder = vt.VanillaTransformerEncoderModel(config)
    models: list[vt.VanillaTransformerPreTrainedModel] = [model, bare, encoder]
    assert_type(models[0].config, vt.VanillaTransformerConfig)
    tokenizers = vt.TranslationTokenizers(tokenizer)
    assert_type(tokenizers.encode_sources(["one"]), list[list[int]])
    return model, tokenizer


def search(model: vt.VanillaTransformerForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Translate and score."""
    config = vt.BeamSearchConfig(num_beams=2, length_penalty=0.6)
    assert_type(config.replace(num_beams=4), vt.BeamSearchConfig)
    assert_type(vt.translate(model, tokenizer, "one"), str)
    assert_type(vt.translate(model, tokenizer, ["one", "two"], config, batch_size=2), list[str])
    assert_type(vt.translate(model, tokenizer, (text for text in ["one"])), Iterator[str])
    assert_type(vt.translate(model, tokenizer, "one", return_scores=True), ScoredTranslation)
    assert_type(vt.translate(model, tokenizer, ["one"], return_scores=True), list[ScoredTranslation])
    assert_type(vt.translate(model, tokenizer, iter(["one"]), return_scores=True), Iterator[ScoredTranslation])
    mbr = vt.MBRConfig(num_samples=16)
    assert_type(vt.translate(model, tokenizer, ["one"], mbr=mbr), list[str])
    found_links = vt.translate(model, tokenizer, "one", return_scores=True, alignments=True).alignment
    assert_type(found_links, tuple[tuple[int, int], ...] | None)
    links = vt.align_words(model, tokenizer, ["one"], ["하나"], "0.1")
    assert_type(links, list[list[tuple[int, int]]])
    assert_type(vt.WordAligner(model, tokenizer, "0.1").align(["one"], ["하나"]), list[list[tuple[int, int]]])
    assert_type(vt.alignment_error_rate(links, ["0-0"]), float)
    assert_type(vt.choose_alignment_head(model, tokenizer, ["one"], ["하나"]).errors, dict[AlignmentHeads, float])
    assert_type(vt.score(model, tokenizer, "one", "하나"), PairScore)
    assert_type(vt.score(model, tokenizer, ["one"], ["하나"], batch_size=2), list[PairScore])
    assert_type(vt.score(model, tokenizer, iter(["one"]), iter(["하나"])), Iterator[PairScore])
    assert_type(vt.quantize(model), vt.VanillaTransformerForConditionalGeneration)
    print(vt.Int8Config())
    engine = vt.load_engine("ctranslate2", "runs/export")
    assert_type(engine, ExportedModel)
    assert_type(vt.translate(engine, tokenizer, "one"), str)
    ids = torch.tensor([[5, 6, 2]])
    found = vt.paper_beam_search(model, ids, None, config)
    assert_type(found, BeamSearchOutput)
    assert_type(found.hypotheses(), list[list[list[int]]])
    assert_type(vt.score_targets(model, ids, None, ids), TargetScores)
    maps = vt.attention_maps(model, tokenizer, "one", "하나")
    assert_type(maps, AttentionMaps)
    assert_type(maps.target, str)
    assert_type(vt.translate(vt.Ensemble([model, model]), tokenizer, "one", prefixes="하나", banned=["둘"]), str)
    terms = vt.Terminology({"one": "하나"})
    assert_type(vt.translate(model, tokenizer, ["one"], constraints=[["하나"]], terminology=terms), list[str])
    assert_type(vt.score_targets([model, model], ids, None, ids), TargetScores)
    pipeline = vt.TranslationPipeline(model=model, tokenizer=tokenizer)
    print(pipeline("one"))
    custom_generate: Callable[..., Any] = vt.generate_with_paper_beam_search
    print(custom_generate)
    metric = vt.TranslationMetric("char", lowercase=True)
    assert_type(metric.compute(predictions=["one"], references=["one"]), dict[str, Any])
    assert_type(metric.compute_by_group(["one"], ["one"], ["numbers"]), dict[str, dict[str, Any]])


def fit(model: vt.VanillaTransformerForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, dataset: Any) -> None:
    """Train, with Trainer and by a recipe."""
    arguments = vt.VanillaTransformerTrainingArguments(output_dir="runs/mine", max_tokens_per_batch=1000)
    assert_type(arguments.max_tokens_per_batch, int)
    collator = vt.DataCollatorForTranslation(tokenizer, 1)
    trainer = vt.VanillaTransformerTrainer(
        model=model, args=arguments, data_collator=collator, train_dataset=dataset, processing_class=tokenizer
    )
    trainer.train()
    with vt.freed_memory_kept(torch.device("cpu")) as kept:
        assert_type(kept, bool)
    sampler = vt.TokenBudgetSampler([3, 4, 5], [3, 4, 5], max_tokens_per_batch=8)
    for batch in sampler:
        assert_type(batch, list[int])
    for examples in vt.TokenBudgetStream([{"input_ids": [5, 2], "labels": [6, 2]}], max_tokens_per_batch=8):
        print(examples)
    recipe = vt.read_recipe("tiny", ["--max_steps", "10"])
    assert_type(recipe, Recipe)
    result = vt.train(recipe)
    assert_type(result, TrainingResult)
    assert_type(result.model, PreTrainedModel)
    assert_type(result.output_dir, Path)


def publish() -> None:
    """Files in, files out."""
    assert_type(vt.average_checkpoints("runs/mine", "runs/average", last=5), Path)
    assert_type(vt.convert_checkpoint("marian", "opus", "runs/opus"), Path)
    assert vt.convert_checkpoint is convert_checkpoint
    assert_type(vt.export_checkpoint("ctranslate2", "runs/mine", "runs/export", quantization="int8"), Path)
    assert_type(vt.push_to_hub("runs/mine", "user/name", dry_run=True), Published)
    report = vt.check_installation("cpu")
    assert_type(report, SelfCheckReport)
    assert_type(report.passed, bool)
