"""The paper's beam search (§6.1) against an exhaustive search, Hugging Face's own search, and arithmetic by hand.

Everything runs in fp64.
"""

import copy
import dataclasses
import inspect
import itertools
import math

import pytest
import torch
from small_search_models import (
    END,
    PAD,
    START,
    half_trained_model,
    log_probs_by_full_forward,
    make_model,
    make_sources,
)
from torch import Tensor
from transformers import GenerationConfig

from hf_vanilla_transformer import (
    BeamSearchConfig,
    generate_with_paper_beam_search,
    paper_beam_search,
    score_targets,
)
from hf_vanilla_transformer.model.beam_search_vanilla_transformer import (
    BeamSearchOutput,
    _best_of_all_beams,
    _chunk_maxima,
    _normalizer_and_maxima,
)


def assert_same(first: BeamSearchOutput, second: BeamSearchOutput) -> None:
    assert first.hypotheses() == second.hypotheses()
    torch.testing.assert_close(first.sequences_scores, second.sequences_scores, rtol=0, atol=1e-10)


# --------------------------------------------------------------------------- what the search finds


@pytest.mark.parametrize("early_stopping", [False, "never"])
@pytest.mark.parametrize(
    ("length_normalization", "length_penalty"), [("gnmt", 0.6), ("gnmt", 2.0), ("power", 1.0), ("gnmt", -0.5)]
)
def test_a_beam_as_wide_as_the_hypothesis_space_finds_what_an_exhaustive_search_finds(
    length_normalization: str, length_penalty: float, early_stopping: bool | str
) -> None:
    # 3 ordinary tokens and at most 4 tokens with the EOS token: 1 + 3 + 9 + 27 = 40 hypotheses, at most 27 open.
    model = make_model(vocab_size=6, end_bias=1.0)
    input_ids, mask = make_sources([3, 5], vocab_size=6)
    output = paper_beam_search(
        model,
        input_ids,
        mask,
        BeamSearchConfig(
            num_beams=40,
            num_return_sequences=40,
            max_target_tokens=4,
            length_normalization=length_normalization,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
        ),
    )
    for row in range(2):
        scored = []
        for length in range(1, 5):
            for tokens in itertools.product([3, 4, 5], repeat=length - 1):
                target = [*tokens, END]
                total = log_probs_by_full_forward(model, input_ids[[row]], mask[[row]], target).sum()
                divisor = (
                    ((5 + length) / 6) ** length_penalty if length_normalization == "gnmt" else length**length_penalty
                )
                scored.append((float(total) / divisor, target))
        scored.sort(reverse=True)
        assert output.hypotheses()[row] == [target for _, target in scored]
        expected = torch.tensor([score for score, _ in scored], dtype=torch.float64)
        torch.testing.assert_close(output.sequences_scores.view(2, 40)[row], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_return_sequences", [1, 3])
def test_the_exact_stop_loses_nothing(seed: int, num_return_sequences: int) -> None:
    """The n best are the first n of a search for all W, which stops later."""
    model = half_trained_model(seed % 2)
    input_ids, mask = make_sources([4, 7, 2], seed=seed)
    settings = {"num_beams": 6, "length_penalty": 1.5, "max_extra_tokens": 12}
    early = paper_beam_search(
        model, input_ids, mask, BeamSearchConfig(num_return_sequences=num_return_sequences, **settings)
    )
    late = paper_beam_search(model, input_ids, mask, BeamSearchConfig(num_return_sequences=6, **settings))
    assert early.hypotheses() == [best[:num_return_sequences] for best in late.hypotheses()]


def test_the_exact_stop_saves_steps() -> None:
    model = make_model(end_bias=8.0)
    steps = count_steps(model)
    output = paper_beam_search(model, *make_sources([4, 7]))
    # With an EOS token this likely the search must stop long before the limit of 57 tokens.
    assert int(output.lengths.max()) <= len(steps) < 30


def count_steps(model) -> list[tuple[int, ...]]:
    """Record the shape of every call of the output projection's input."""
    shapes: list[tuple[int, ...]] = []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("num_beams", "length_penalty"), [(2, 1.0), (4, 0.6), (5, 0.0)])
def test_power_penalty_agrees_with_hugging_face(seed: int, num_beams: int, length_penalty: float) -> None:
    # Hugging Face divides by n^α with n the tokens after the decoder start token, the EOS token counted: as we do.
    # early_stopping="never" bounds by the longest length (for α = 0 any length gives the same), as we do, but wants W
    # finished hypotheses better than every open one: so N = W here. It accumulates in fp32, and cuts a hypothesis off
    # at the limit where we end it: hence the loose tolerance, and a limit that no finished hypothesis reaches.
    model = half_trained_model(seed % 2)
    input_ids, mask = make_sources([5, 3, 4], seed=seed)
    ours = paper_beam_search(
        model,
        input_ids,
        mask,
        BeamSearchConfig(
            num_beams=num_beams,
            num_return_sequences=num_beams,
            length_normalization="power",
            length_penalty=length_penalty,
            max_target_tokens=40,
        ),
    )
    assert_same_as_hugging_face(model, input_ids, mask, ours, num_beams, num_beams, length_penalty, "never")


def assert_same_as_hugging_face(
    model,
    input_ids: Tensor,
    mask: Tensor,
    ours: BeamSearchOutput,
    num_beams: int,
    num_return_sequences: int,
    length_penalty: float,
    early_stopping: bool | str,
) -> None:
    """Compare with plain `generate`, for at most 40 tokens."""
    theirs = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        num_beams=num_beams,
        num_return_sequences=num_return_sequences,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        max_new_tokens=40,
        bad_words_ids=[[PAD], [START]],
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert int(ours.lengths.max()) < 40
    # Where the padding id is 0 Hugging Face pads beams with the EOS token: cut after the first.
    found = [row[: row.index(END, 1) + 1] for row in theirs.sequences.tolist()]
    assert [[START, *hypothesis] for hypothesis in itertools.chain(*ours.hypotheses())] == found
    torch.testing.assert_close(ours.sequences_scores.float(), theirs.sequences_scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(
    ("num_beams", "num_return_sequences", "length_penalty"), [(4, 4, 1.0), (4, 1, 2.0), (5, 2, 0.0), (2, 2, -0.5)]
)
def test_early_stopping_agrees_with_hugging_face(
    seed: int, trained: bool, num_beams: int, num_return_sequences: int, length_penalty: float
) -> None:
    model = half_trained_model(seed % 2) if trained else make_model(seed, end_bias=9.0)
    input_ids, mask = make_sources([5, 3, 4], seed=seed)
    config = BeamSearchConfig(
        num_beams=num_beams,
        num_return_sequences=num_return_sequences,
        length_normalization="power",
        length_penalty=length_penalty,
        early_stopping=True,
        max_target_tokens=40,
    )
    ours = paper_beam_search(model, input_ids, mask, config)
    assert_same_as_hugging_face(
        model, input_ids, mask, ours, num_beams, num_return_sequences, length_penalty, early_stopping=True
    )


def test_early_stopping_stops_when_as_many_hypotheses_as_beams_are_finished() -> None:
    # α = 3 rewards length so much that the exact stop waits for the limit, 16 tokens.
    config = BeamSearchConfig(length_normalization="power", length_penalty=3.0, max_target_tokens=16)
    steps = {}
    for early_stopping in (False, True):
        model = make_model(end_bias=3.0)
        shapes = count_steps(model)
        paper_beam_search(model, *make_sources([4, 7]), config=config.replace(early_stopping=early_stopping))
        steps[early_stopping] = len(shapes)
    assert steps[True] < steps[False] == 16


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    model = half_trained_model(seed % 2)
    input_ids, mask = make_sources([6, 3, 8], seed=seed)
    ours = paper_beam_search(model, input_ids, mask, BeamSearchConfig(num_beams=1, max_target_tokens=30))
    theirs = model.generate(
        input_ids=input_ids, attention_mask=mask, max_new_tokens=30, bad_words_ids=[[PAD], [START]], do_sample=False
    )
    for row, (hypothesis,) in enumerate(ours.hypotheses()):
        # At the limit Hugging Face cuts, we end: the last token differs there.
        kept = hypothesis if len(hypothesis) < 30 else hypothesis[:-1]
        assert theirs[row, 1 : 1 + len(kept)].tolist() == kept
    assert int(ours.lengths.min()) < 30


# --------------------------------------------------------------------------- scores


def test_gnmt_penalty_is_the_published_formula() -> None:
    assert BeamSearchConfig(length_penalty=0.6).length_divisor(1) == 1.0  # (6/6)^0.6
    assert BeamSearchConfig(length_penalty=1.0).length_divisor(7) == 2.0  # (12/6)^1
    assert BeamSearchConfig(length_normalization="power", length_penalty=0.5).length_divisor(4) == 2.0


@pytest.mark.parametrize("length_normalization", ["gnmt", "power"])
def test_scores_are_recomputable_from_the_full_forward(length_normalization: str) -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    output = paper_beam_search(
        model,
        input_ids,
        mask,
        BeamSearchConfig(num_return_sequences=4, length_normalization=length_normalization, length_penalty=0.7),
    )
    for row, hypotheses in enumerate(output.hypotheses()):
        for rank, target in enumerate(hypotheses):
            expected = log_probs_by_full_forward(model, input_ids[[row]], mask[[row]], target)
            place = row * 4 + rank
            torch.testing.assert_close(output.token_log_probs[place, : len(target)], expected, rtol=0, atol=1e-10)
            assert output.token_log_probs[place, len(target) :].abs().sum() == 0
            n = len(target)
            score = float(expected.sum()) / (((5 + n) / 6) ** 0.7 if length_normalization == "gnmt" else n**0.7)
            assert float(output.sequences_scores[place]) == pytest.approx(score, abs=1e-10)


def test_n_best_is_sorted_and_without_duplicates() -> None:
    output = paper_beam_search(
        half_trained_model(), *make_sources([6, 3, 8]), config=BeamSearchConfig(num_beams=5, num_return_sequences=5)
    )
    scores = output.sequences_scores.view(3, 5)
    assert (scores[:, :-1] >= scores[:, 1:]).all() and scores.isfinite().all()
    for hypotheses in output.hypotheses():
        assert len({tuple(hypothesis) for hypothesis in hypotheses}) == 5


def test_forced_scores_of_what_was_found_are_the_search_s_scores() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    output = paper_beam_search(model, input_ids, mask)
    for padding in (PAD, -100):
        labels = output.sequences[:, 1:].masked_fill(output.sequences[:, 1:] == PAD, padding)
        scored = score_targets(model, input_ids, mask, labels)
        torch.testing.assert_close(scored.scores, output.sequences_scores, rtol=0, atol=1e-10)
        torch.testing.assert_close(scored.token_log_probs, output.token_log_probs, rtol=0, atol=1e-10)
        torch.testing.assert_close(scored.log_probs, output.token_log_probs.sum(-1), rtol=0, atol=1e-10)
        assert scored.lengths.tolist() == output.lengths.tolist()
    with pytest.raises(ValueError, match="no tokens to score"):
        score_targets(model, input_ids, mask, torch.full((3, 2), -100))


def test_coverage_penalty_is_the_published_formula() -> None:
    model = half_trained_model()
    model.set_attn_implementation("eager")  # gives the attention weights to check with
    input_ids, mask = make_sources([6, 3, 8])
    plain = paper_beam_search(model, input_ids, mask)
    output = paper_beam_search(model, input_ids, mask, BeamSearchConfig(num_return_sequences=4, coverage_penalty=0.4))
    assert (
        output.hypotheses()[0][0] != plain.hypotheses()[0][0] or output.sequences_scores[0] != plain.sequences_scores[0]
    )
    for row, hypotheses in enumerate(output.hypotheses()):
        for rank, target in enumerate(hypotheses):
            with torch.no_grad():
                attentions = model(
                    input_ids=input_ids[[row]],
                    attention_mask=mask[[row]],
                    decoder_input_ids=torch.tensor([[START, *target[:-1]]]),
                    output_attentions=True,
                ).cross_attentions
            covered = attentions[-1][0].mean(0).sum(0)  # heads (H, T, S) → (T, S) → (S,)
            term = sum(math.log(min(float(covered[s]), 1.0)) for s in range(int(mask[row].sum())))
            place = row * 4 + rank
            total = float(output.token_log_probs[place].sum())
            expected = total / ((5 + len(target)) / 6) ** 0.6 + 0.4 * term
            assert float(output.sequences_scores[place]) == pytest.approx(expected, abs=1e-10)


# --------------------------------------------------------------------------- batches, padding, lengths


@pytest.mark.parametrize("num_beams", [1, 4])
def test_neighbours_in_the_batch_and_the_side_of_the_padding_don_t_matter(num_beams: int) -> None:
    """Also: sentences that are done leave the batch while others go on, which changes nothing for those."""
    model = half_trained_model()
    lengths = [6, 3, 8, 1, 5]
    input_ids, mask = make_sources(lengths)
    together = paper_beam_search(
        model, input_ids, mask, BeamSearchConfig(num_beams=num_beams, num_return_sequences=num_beams)
    )
    assert_same(
        together,
        paper_beam_search(
            model,
            *make_sources(lengths, left=True),
            config=BeamSearchConfig(num_beams=num_beams, num_return_sequences=num_beams),
        ),
    )
    assert len({len(hypotheses[0]) for hypotheses in together.hypotheses()}) > 1
    for row, length in enumerate(lengths):
        alone = paper_beam_search(
            model,
            input_ids[[row], :length],
            config=BeamSearchConfig(num_beams=num_beams, num_return_sequences=num_beams),
        )
        assert alone.hypotheses()[0] == together.hypotheses()[row]
        scores = together.sequences_scores.view(len(lengths), num_beams)[row]
        torch.testing.assert_close(alone.sequences_scores, scores, rtol=0, atol=1e-10)


def test_finished_sentences_leave_the_batch() -> None:
    model = make_model(end_bias=-40.0)
    shapes = count_steps(model)
    paper_beam_search(model, *make_sources([2, 4, 3]), config=BeamSearchConfig(max_extra_tokens=1))
    # Limits of 3, 5 and 4 tokens: three sentences for three steps, then two, then one.
    assert [shape[0] for shape in shapes] == [3, 3, 3, 2, 1]
    assert [shape[1] for shape in shapes] == [1, 4, 4, 4, 4]  # all beams are equal at the first step


def test_the_limit_is_each_sentence_s_own() -> None:
    model = make_model(end_bias=-40.0)  # never ends by itself
    for left in (False, True):
        output = paper_beam_search(
            model, *make_sources([2, 9, 5], left=left), config=BeamSearchConfig(max_extra_tokens=3)
        )
        assert output.lengths.tolist() == [5, 12, 8]
        assert all(hypothesis[-1] == END for (hypothesis,) in output.hypotheses())
    assert paper_beam_search(model, *make_sources([2, 9])).lengths.tolist() == [52, 59]  # §6.1: input + 50
    assert paper_beam_search(
        model, *make_sources([2, 9]), config=BeamSearchConfig(max_target_tokens=1)
    ).hypotheses() == [[[END]], [[END]]]


def test_a_model_that_can_never_end_gives_one_finite_hypothesis() -> None:
    model = make_model(end_bias=-math.inf)
    for num_beams in (1, 4):
        output = paper_beam_search(
            model, *make_sources([2, 4]), config=BeamSearchConfig(num_beams=num_beams, max_extra_tokens=2)
        )
        assert output.lengths.tolist() == [4, 6]
        assert output.sequences_scores.isfinite().all() and output.token_log_probs.isfinite().all()
        assert not torch.isin(output.sequences[:, 1:3], torch.tensor([PAD, START, END])).any()


def test_padding_and_the_start_symbol_are_never_written() -> None:
    model = make_model()
    with torch.no_grad():
        model.lm_head.bias[PAD] = 50.0
        model.lm_head.bias[START] = 60.0
    output = paper_beam_search(
        model, *make_sources([2, 4]), config=BeamSearchConfig(max_extra_tokens=2, num_return_sequences=4)
    )
    for hypothesis in itertools.chain(*output.hypotheses()):
        assert PAD not in hypothesis and START not in hypothesis


def test_any_of_several_end_symbols_ends_a_hypothesis() -> None:
    model = make_model(end_bias=3.0, eos_token_id=[END, 7])
    with torch.no_grad():
        model.lm_head.bias[7] = 3.0
    output = paper_beam_search(
        model, *make_sources([6, 3, 8]), config=BeamSearchConfig(num_beams=6, num_return_sequences=6)
    )
    hypotheses = list(itertools.chain(*output.hypotheses()))
    assert {hypothesis[-1] for hypothesis in hypotheses} == {END, 7}
    assert not any({END, 7} & set(hypothesis[:-1]) for hypothesis in hypotheses)


# --------------------------------------------------------------------------- every architecture

VARIANTS: list[dict[str, object]] = [
    {"norm_position": "pre"},
    {"norm_position": "pre", "final_norm": True},
    {"final_norm": True, "attention_bias": True},
    {"d_k": 5, "d_v": 3},
    {"num_heads": 1, "d_k": 16},
    {"position_embedding_type": "learned", "max_position_embeddings": 64},
    {"position_embedding_type": "sinusoidal_t2t", "position_offset": 2},
    {"scale_embedding": False, "activation_function": "swish"},
    {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 19},
    {"tie_word_embeddings": True, "output_bias": False},
    {"pad_token_id": 22, "decoder_start_token_id": 22},
    {"decoder_start_token_id": 2},
    {"encoder_layers": 1, "decoder_layers": 3},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=lambda fields: ",".join(f"{k}={v}" for k, v in fields.items()))
def test_every_architecture_scores_as_its_full_forward(fields: dict[str, object]) -> None:
    model = make_model(end_bias=1.0, **fields)
    input_ids, mask = make_sources([6, 3, 8], vocab_size=19)
    labels_padding = model.config.pad_token_id
    input_ids = input_ids.masked_fill(mask == 0, labels_padding)
    output = paper_beam_search(model, input_ids, mask, BeamSearchConfig(num_return_sequences=4, max_extra_tokens=4))
    labels = output.sequences[:, 1:].masked_fill(output.token_log_probs == 0, -100)
    repeated = (input_ids.repeat_interleave(4, 0), mask.repeat_interleave(4, 0))
    scored = score_targets(model, *repeated, labels)
    torch.testing.assert_close(scored.scores, output.sequences_scores, rtol=0, atol=1e-10)


def test_learned_positions_limit_the_target() -> None:
    model = make_model(end_bias=-40.0, position_embedding_type="learned", max_position_embeddings=12, position_offset=2)
    assert paper_beam_search(model, *make_sources([4, 10])).lengths.tolist() == [10, 10]


def test_half_precision_gives_finite_scores_in_single_precision() -> None:
    model = make_model(end_bias=2.0).to(torch.bfloat16)
    output = paper_beam_search(model, *make_sources([6, 3, 8]))
    assert output.sequences_scores.dtype == torch.float32 and output.sequences_scores.isfinite().all()


# --------------------------------------------------------------------------- through generate()


def test_generate_takes_it_as_custom_generate() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    direct = paper_beam_search(
        model,
        input_ids,
        mask,
        BeamSearchConfig(length_normalization="power", length_penalty=0.9, num_return_sequences=2),
    )
    settings = {
        "custom_generate": generate_with_paper_beam_search,
        "length_normalization": "power",
        "length_penalty": 0.9,
        "num_return_sequences": 2,
    }
    assert model.generate(input_ids=input_ids, attention_mask=mask, **settings).tolist() == direct.sequences.tolist()
    assert model.generate(input_ids, **settings).tolist() == direct.sequences.tolist()  # the mask is the padding's
    everything = model.generate(input_ids=input_ids, attention_mask=mask, return_dict_in_generate=True, **settings)
    assert_same(everything, direct)
    encoder_outputs = model.get_encoder()(input_ids=input_ids, attention_mask=mask)
    again = model.generate(encoder_outputs=encoder_outputs, attention_mask=mask, **settings)
    assert again.tolist() == direct.sequences.tolist()


def test_generate_passes_every_setting_of_the_search() -> None:
    parameters = inspect.signature(generate_with_paper_beam_search).parameters
    assert {field.name for field in dataclasses.fields(BeamSearchConfig)} <= set(parameters)
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    settings = {
        "num_beams": 3,
        "num_return_sequences": 2,
        "length_penalty": 1.5,
        "length_normalization": "power",
        "early_stopping": True,
        "coverage_penalty": 0.3,
        "max_extra_tokens": 4,
        "max_target_tokens": 9,
        "min_length": 4,
        "min_new_tokens": 5,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[7], [8, 9]],
    }
    assert set(settings) == {field.name for field in dataclasses.fields(BeamSearchConfig)}
    through = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        custom_generate=generate_with_paper_beam_search,
        return_dict_in_generate=True,
        **settings,
    )
    assert_same(through, paper_beam_search(model, input_ids, mask, BeamSearchConfig(**settings)))


# In an argument, 1.0 can't be told from the default that generate() fills in.
@pytest.mark.parametrize(("where", "exponent"), [("model", 1.0), ("model", 1.7), ("argument", 1.7)])
def test_a_length_penalty_of_the_generation_configuration_keeps_its_meaning(where: str, exponent: float) -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    inputs = {"input_ids": input_ids, "attention_mask": mask, "custom_generate": generate_with_paper_beam_search}
    set_options = {"length_penalty": exponent, "return_dict_in_generate": True}
    if where == "model":
        model.generation_config.update(**set_options)
    else:
        inputs["generation_config"] = GenerationConfig(**set_options)

    def direct(**settings) -> BeamSearchOutput:
        return paper_beam_search(model, input_ids, mask, BeamSearchConfig(**settings))

    power = direct(length_normalization="power", length_penalty=exponent)
    assert_same(model.generate(**inputs), power)
    assert_same(model.generate(**inputs, length_normalization="power"), power)
    # A keyword is the exponent of the paper's normalization, unless another one is given as well.
    assert_same(model.generate(**inputs, length_penalty=0.9), direct(length_penalty=0.9))
    assert_same(model.generate(**inputs, length_normalization="gnmt"), direct())


def test_keywords_replace_settings_of_the_generation_configuration() -> None:
    model = half_trained_model()
    model.generation_config.update(num_beams=6, num_return_sequences=3, early_stopping=True)
    input_ids, mask = make_sources([6, 3, 8])
    mask[0, 0] = 0
    inputs = {"input_ids": input_ids, "attention_mask": mask, "return_dict_in_generate": True}
    inputs["custom_generate"] = generate_with_paper_beam_search
    config = BeamSearchConfig(num_beams=6, num_return_sequences=3, early_stopping=True)
    assert_same(model.generate(**inputs), paper_beam_search(model, input_ids, mask, config))
    config = BeamSearchConfig(num_beams=2, num_return_sequences=1)  # while generate() repeats each row six times
    through = model.generate(**inputs, num_beams=2, num_return_sequences=1, early_stopping=False)
    assert_same(through, paper_beam_search(model, input_ids, mask, config))


def test_generate_settings_of_hugging_faces_search_are_honoured() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    direct = paper_beam_search(model, input_ids, mask, BeamSearchConfig(num_beams=3, num_return_sequences=2))
    inputs = {"input_ids": input_ids, "attention_mask": mask, "custom_generate": generate_with_paper_beam_search}
    through = model.generate(**inputs, num_beams=3, num_return_sequences=2, return_dict_in_generate=True)
    assert_same(through, direct)
    # The rows of encoder_outputs reach the search three times each.
    encoder_outputs = model.get_encoder()(input_ids=input_ids, attention_mask=mask)
    settings = {"num_beams": 3, "num_return_sequences": 2, "custom_generate": generate_with_paper_beam_search}
    again = model.generate(encoder_outputs=encoder_outputs, attention_mask=mask, **settings)
    assert again.tolist() == direct.sequences.tolist()


def test_the_generation_configuration_of_a_converted_marian_is_honoured() -> None:
    model = copy.deepcopy(half_trained_model())
    input_ids, mask = make_sources([6, 3, 8])
    expected = paper_beam_search(model, input_ids, mask, BeamSearchConfig(num_beams=6))
    marians = {"num_beams": 6, "bad_words_ids": [[PAD]], "forced_eos_token_id": END, "renormalize_logits": True}
    model.generation_config.update(**marians, max_length=512)
    inputs = {"input_ids": input_ids, "attention_mask": mask, "custom_generate": generate_with_paper_beam_search}
    assert model.generate(**inputs, renormalize_logits=False).tolist() == expected.sequences.tolist()
    # Renormalised: the probabilities of a step without padding and decoder start token, over their sum.
    output = model.generate(**inputs, return_dict_in_generate=True)
    (sequence, *_), (scores, *_) = output.sequences, output.token_log_probs
    logits = model(input_ids=input_ids[:1], attention_mask=mask[:1], decoder_input_ids=sequence[None, :-1]).logits[0]
    logits[:, [PAD, START]] = -math.inf
    length = int(output.lengths[0])
    reference = logits.log_softmax(dim=-1).gather(1, sequence[1:, None]).squeeze(1)[:length]
    torch.testing.assert_close(scores[:length], reference, rtol=0, atol=1e-10)


def test_generate_honours_a_mask_that_is_not_the_padding_s() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 5])
    mask[0, :2] = 0  # two real tokens hidden
    through = model.generate(input_ids=input_ids, attention_mask=mask, custom_generate=generate_with_paper_beam_search)
    assert through.tolist() == paper_beam_search(model, input_ids, mask).sequences.tolist()
    assert through.tolist() != paper_beam_search(model, input_ids).sequences.tolist()


def test_generate_encodes_once_and_its_limit_counts() -> None:
    model = make_model(end_bias=-40.0)
    calls: list[int] = []
    model.get_encoder().layers[0].register_forward_hook(lambda *_: calls.append(1))
    input_ids, mask = make_sources([6, 3])
    output = model.generate(input_ids=input_ids, attention_mask=mask, custom_generate=generate_with_paper_beam_search)
    assert len(calls) == 1 and output.shape == (2, 57)
    shorter = model.generate(
        input_ids=input_ids, attention_mask=mask, custom_generate=generate_with_paper_beam_search, max_new_tokens=5
    )
    assert shorter.shape == (2, 6)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"forced_eos_token_id": 7}, "ForcedEOSToken"),
        ({"suppress_tokens": [7]}, "SuppressTokens"),
        ({"do_sample": True}, "do_sample=True"),
        ({"encoder_no_repeat_ngram_size": 2}, "EncoderNoRepeatNGram"),
        ({"max_time": 1.0}, "MaxTimeCriteria"),
        ({"decoder_input_ids": torch.tensor([[1, 5], [1, 2]])}, "has the special token 2"),
        ({"decoder_attention_mask": torch.ones(2, 1)}, "no argument decoder_attention_mask"),
        ({"length_penalti": 1.0}, "length_penalti"),
    ],
)
def test_generate_settings_that_would_be_ignored_are_refused(asked: dict[str, object], message: str) -> None:
    input_ids, mask = make_sources([6, 3])
    with pytest.raises(ValueError, match=message):
        make_model().generate(
            input_ids=input_ids, attention_mask=mask, custom_generate=generate_with_paper_beam_search, **asked
        )


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"num_beams": 2.5}, "num_beams=2.5"),
        ({"num_return_sequences": 5}, "wider beam"),
        ({"length_normalization": 0.6}, "exponent α as length_penalty"),
        ({"early_stopping": "always"}, "early_stopping='always' is unknown; choose True, False or 'never'"),
        ({"length_penalty": math.nan}, "length_penalty=nan"),
        ({"coverage_penalty": -0.1}, "coverage_penalty=-0.1"),
        ({"max_target_tokens": 0}, "max_target_tokens=0"),
        ({"max_extra_tokens": -1}, "max_extra_tokens=-1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paper_beam_search(make_model(), *make_sources([2]), BeamSearchConfig(**settings))


def test_bad_sources_and_models_are_refused() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="no tokens"):
        paper_beam_search(model, torch.tensor([[4, 5], [PAD, PAD]]))
    with pytest.raises(ValueError, match="no tokens"):
        paper_beam_search(model, torch.zeros((1, 0), dtype=torch.long))
    with pytest.raises(ValueError, match="the same shape"):
        paper_beam_search(model, torch.tensor([[4, 5]]), torch.ones(1, 3))
    with pytest.raises(ValueError, match="needs a VanillaTransformerForConditionalGeneration"):
        paper_beam_search(model.model, torch.tensor([[4, 5]]))
    with torch.no_grad():
        model.lm_head.weight[5] = math.nan
    with pytest.raises(ValueError, match="logits are NaN"):
        paper_beam_search(model, torch.tensor([[4, 5]]))


def test_the_model_s_mode_is_left_as_it_was() -> None:
    model = make_model(end_bias=2.0)
    expected = paper_beam_search(model, *make_sources([6, 3]))
    model.train()
    model.model.encoder.eval()
    assert_same(paper_beam_search(model, *make_sources([6, 3])), expected)
    assert model.training and model.lm_head.training and not model.model.encoder.layers[0].training


@pytest.mark.parametrize("vocabulary", [64 * 40, 64 * 40 + 7, 50])
@pytest.mark.parametrize(("width", "number"), [(4, 8), (1, 2), (5, 10)])
def test_the_best_of_all_beams_are_those_of_a_sort(vocabulary: int, width: int, number: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, width, vocabulary, dtype=torch.float64)
    logits[1, 0, : vocabulary - 3] = -math.inf
    totals = torch.randn(3, width, dtype=torch.float64)
    totals[2, 1:] = -math.inf  # as at the first step
    best = _best_of_all_beams(logits, _chunk_maxima(logits), logits.logsumexp(dim=-1), totals, number)

    log_probs = logits.log_softmax(dim=-1)
    expected = (totals.unsqueeze(-1) + log_probs).flatten(1).topk(number)
    torch.testing.assert_close(best.totals, expected.values)
    places = best.beams * vocabulary + best.tokens
    possible = expected.values > -math.inf
    assert torch.equal(places[possible], expected.indices[possible])
    torch.testing.assert_close(best.log_probs[possible], log_probs.flatten(1).gather(1, places)[possible])
    assert places.sort(dim=-1).values.diff(dim=-1).min() > 0 or number == 1  # none twice


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [50, 64, 64 * 40 + 7, 37000])
def test_normalizer_and_highest_logits_of_chunks(vocabulary: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (10 * torch.randn(5, 4, vocabulary)).to(dtype)
    logits[0, 0, : vocabulary // 2] = -math.inf
    logits[1, 1] += 90.0  # e^90 is more than fp32 holds
    before = logits.clone()
    normalizer, maxima = _normalizer_and_maxima(logits)
    assert torch.equal(logits, before)
    precise = logits.double()
    torch.testing.assert_close(normalizer.double(), precise.logsumexp(dim=-1), rtol=0, atol=2e-5)
    chunks = precise[..., : vocabulary // 64 * 64].unflatten(-1, (vocabulary // 64, 64))
    assert torch.equal(maxima.double(), chunks.amax(dim=-1))
    some = torch.arange(0, vocabulary // 64, 3)
    assert torch.equal(_chunk_maxima(logits, some), maxima[..., some])


@pytest.mark.parametrize(
    ("options", "constraints", "first"),
    [
        ({}, None, 1),
        ({"num_beams": 1}, None, 1),
        ({"coverage_penalty": 0.2}, None, 1),
        ({"num_beams": 6}, None, 6),  # 12 continuations are needed, and the vocabulary has 11 tokens
        ({}, [[[5]], []], 4),  # constraints keep the progress of every beam
    ],
)
def test_the_first_step_computes_one_hypothesis_of_each_sentence(options, constraints, first) -> None:
    """All beams are equal there."""
    model = make_model(vocab_size=11)
    shapes = count_steps(model)
    config = BeamSearchConfig(**{"num_beams": 4, **options})
    paper_beam_search(model, *make_sources([6, 3], vocab_size=11), config=config, constraints=constraints)
    assert shapes[0][:2] == (2, first)
    assert {shape[1] for shape in shapes[1:]} == {config.num_beams}
