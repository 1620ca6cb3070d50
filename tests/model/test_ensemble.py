"""Ensembles: the mean of the models' probabilities at each step, and what cannot be combined."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from small_search_models import END, half_trained_model, make_model, make_sources

from hf_vanilla_transformer import (
    BeamSearchConfig,
    Ensemble,
    TranslationPipeline,
    VanillaTransformerForConditionalGeneration,
    paper_beam_search,
    preset,
    quantize,
    score,
    score_targets,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.cli import main

TEXTS = ["one two three", "", "two", "three two one three"]


def mean_log_probs(models, input_ids, mask, target: list[int]) -> torch.Tensor:
    """Log-probabilities (T,) of a target's tokens under the mean of the models' probabilities; input (1, S)."""
    probabilities = []
    for model in models:
        with torch.no_grad():
            logits = model(
                input_ids=input_ids, attention_mask=mask, decoder_input_ids=torch.tensor([[1, *target[:-1]]])
            ).logits
        probabilities.append(logits[0].softmax(-1)[torch.arange(len(target)), torch.tensor(target)])
    return (sum(probabilities) / len(probabilities)).log()


def test_scores_are_those_of_the_mean_of_probabilities_computed_by_hand() -> None:
    models = [half_trained_model(0), half_trained_model(1), make_model(2, encoder_layers=1, num_heads=4)]
    input_ids, mask = make_sources([6, 3, 8])
    output = paper_beam_search(models, input_ids, mask, BeamSearchConfig(num_return_sequences=4, max_extra_tokens=6))
    for row, hypotheses in enumerate(output.hypotheses()):
        for rank, target in enumerate(hypotheses):
            expected = mean_log_probs(models, input_ids[[row]], mask[[row]], target)
            place = row * 4 + rank
            torch.testing.assert_close(output.token_log_probs[place, : len(target)], expected, rtol=0, atol=1e-10)
            score = expected.sum() / ((5 + len(target)) / 6) ** 0.6
            torch.testing.assert_close(output.sequences_scores[place], score, rtol=0, atol=1e-10)
    labels = output.sequences[::4, 1:].masked_fill(output.token_log_probs[::4] == 0, -100)
    scored = score_targets(models, input_ids, mask, labels)
    torch.testing.assert_close(scored.scores, output.sequences_scores[::4], rtol=0, atol=1e-10)


def test_a_wide_beam_finds_what_an_exhaustive_search_over_the_mean_finds() -> None:
    models = [make_model(seed, vocab_size=6, end_bias=1.0) for seed in (0, 1)]
    input_ids, mask = make_sources([3, 5], vocab_size=6)
    config = BeamSearchConfig(num_beams=40, num_return_sequences=40, max_target_tokens=4)
    output = paper_beam_search(Ensemble(models), input_ids, mask, config)
    for row in range(2):
        scored = []
        for length in range(1, 5):
            for words in itertools.product([3, 4, 5], repeat=length - 1):
                target = [*words, END]
                total = float(mean_log_probs(models, input_ids[[row]], mask[[row]], target).sum())
                scored.append((total / ((5 + length) / 6) ** 0.6, target))
        assert output.hypotheses()[row] == [target for _, target in sorted(scored, reverse=True)]
    alone = paper_beam_search(models[0], input_ids, mask, config)
    assert alone.hypotheses() != output.hypotheses()


def test_equal_models_find_what_one_finds() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    config = BeamSearchConfig(num_return_sequences=4, coverage_penalty=0.2, no_repeat_ngram_size=2)
    one = paper_beam_search(model, input_ids, mask, config, prefixes=[[5], [], []])
    for models in ([model], [model, copy.deepcopy(model), model]):
        several = paper_beam_search(models, input_ids, mask, config, prefixes=[[5], [], []])
        assert several.hypotheses() == one.hypotheses()
        torch.testing.assert_close(several.sequences_scores, one.sequences_scores, rtol=0, atol=1e-10)


def test_the_shortest_of_the_models_limits_holds() -> None:
    fields = {"position_embedding_type": "learned", "end_bias": -40.0}
    ensemble = Ensemble([make_model(max_position_embeddings=size, **fields) for size in (30, 9)])
    assert ensemble.max_sequence_length == 9
    assert paper_beam_search(ensemble, *make_sources([4])).lengths.tolist() == [9]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 29}, r"models 1 and 2 of the ensemble have different source vocabularies \(23 and 29 tokens\)"),
        (
            {"decoder_vocab_size": 19, "share_encoder_decoder_embeddings": False},
            r"models 1 and 2 of the ensemble have different target vocabularies \(23 and 19 tokens\)",
        ),
        ({"eos_token_id": 5}, "models 1 and 2 of the ensemble have different special tokens"),
    ],
)
def test_models_that_differ_in_vocabulary_or_special_tokens_are_refused(fields: dict, message: str) -> None:
    models = [make_model(), make_model(**fields)]
    for call in (lambda: Ensemble(models), lambda: paper_beam_search(models, *make_sources([3]))):
        with pytest.raises(ValueError, match=message):
            call()


def test_other_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="an ensemble has no models"):
        Ensemble([])
    with pytest.raises(ValueError, match="needs a VanillaTransformerForConditionalGeneration, not Linear"):
        Ensemble([make_model(), torch.nn.Linear(2, 2)])
    with pytest.raises(ValueError, match="needs the whole model on one device|are on cpu and meta"):
        Ensemble([make_model(), make_model().to("meta")])


# --------------------------------------------------------------------------- texts


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["one two three", "하나 둘 셋"], 300)


@pytest.fixture(scope="module")
def models(tokenizer):
    built = []
    for seed, width in ((0, 16), (1, 24)):
        torch.manual_seed(seed)
        sizes = {"d_model": width, "d_ff": 24, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
        config = preset("tiny", vocab_size=len(tokenizer), tie_word_embeddings=False, output_bias=True, **sizes)
        model = VanillaTransformerForConditionalGeneration(config).eval()
        with torch.no_grad():
            model.lm_head.weight.mul_(8.0)
            model.lm_head.bias[2] = 3.0
        built.append(model)
    return built


@pytest.fixture(scope="module")
def checkpoints(models, tokenizer, tmp_path_factory) -> list[str]:
    folders = [tmp_path_factory.mktemp("ensemble") / name for name in ("a", "b")]
    for model, folder in zip(models, folders, strict=True):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return list(map(str, folders))


def test_translate_and_the_pipeline_take_ensembles(models, tokenizer, tmp_path: Path) -> None:
    expected = translate(models, tokenizer, TEXTS)
    assert expected not in [translate(model, tokenizer, TEXTS) for model in models]
    assert translate(Ensemble(models), tokenizer, TEXTS * 20, workers=2) == expected * 20
    pipeline = TranslationPipeline(Ensemble(models), tokenizer, device="cpu")
    assert [result["translation_text"] for result in pipeline(TEXTS, batch_size=2)] == expected
    with pytest.raises(ValueError, match="an ensemble cannot be saved"):
        pipeline.save_pretrained(tmp_path)
    quantized = translate([quantize(models[0]), models[1]], tokenizer, TEXTS)  # precisions may differ
    assert len(quantized) == len(TEXTS)


@pytest.mark.parametrize("how", ["directories", "option"])
def test_the_command_takes_several_models(models, tokenizer, checkpoints, tmp_path: Path, how: str) -> None:
    source = tmp_path / "source"
    source.write_text("".join(text + "\n" for text in TEXTS), encoding="utf-8")
    words = [*checkpoints, str(source)] if how == "directories" else [checkpoints[0], str(source)]
    words += [] if how == "directories" else ["--ensemble", checkpoints[1]]
    assert main(["translate", *words, "--output", str(tmp_path / "out")]) == 0
    found = (tmp_path / "out").read_text(encoding="utf-8").split("\n")[:-1]
    assert found == translate(models, tokenizer, TEXTS)


def test_the_command_refuses_what_cannot_be_combined(models, checkpoints, tmp_path: Path, capsys) -> None:
    source = tmp_path / "source"
    source.write_text("one\n", encoding="utf-8")
    other = train_tokenizer(["one two three", "eins zwei drei"], 300)
    models[0].save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "export.json").write_text('{"format": "onnx"}', encoding="utf-8")
    for words, message in (
        ([str(tmp_path / "other")], f"{checkpoints[0]} and {tmp_path}/other have different source vocabularies; an"),
        ([str(tmp_path / "export")], f"{tmp_path}/export is an export for onnx; an ensemble is made of checkpoints"),
        (["--ensemble", str(tmp_path / "none")], f"there is no directory {tmp_path}/none"),
        (["--output", checkpoints[1], "--overwrite", "--ensemble", checkpoints[1]], "would replace the source"),
    ):
        assert main(["translate", checkpoints[0], str(source), *words]) == 2
        assert message in capsys.readouterr().err


def test_a_model_is_no_list_of_models_and_an_ensemble_no_model() -> None:
    model = make_model(0)
    with pytest.raises(ValueError, match="an ensemble is made of a list of models"):
        Ensemble(model)
    with pytest.raises(ValueError, match="quantize the models of an ensemble first"):
        quantize(Ensemble([model]))
    for models in ([model], Ensemble([model])):
        with pytest.raises(ValueError, match="score takes one model"):
            score(models, None, "one", "one")
