"""Constraints: phrases that must appear, against an exhaustive search, and where a plain beam would lose them."""

import itertools

import pytest
import torch
from small_search_models import (
    END,
    half_trained_model,
    log_probs_by_full_forward,
    make_model,
    make_sources,
)

from hf_vanilla_transformer import (
    BeamSearchConfig,
    generate_with_paper_beam_search,
    paper_beam_search,
    score_targets,
)
from hf_vanilla_transformer.model.constraints_vanilla_transformer import Constraints, _best_of_banks, _fallbacks

LIMIT = 5  # most tokens of a target, so that there are 1 + 3 + 9 + 27 + 81 = 121 targets


def contains(target: list[int], phrase: list[int]) -> bool:
    return any(target[start : start + len(phrase)] == list(phrase) for start in range(len(target)))


def exhaustive(model, input_ids, mask, allowed) -> list[list[int]]:
    """List the targets with EOS of up to 5 tokens that are allowed, best first by the paper's score."""
    scored = []
    for length in range(1, LIMIT + 1):
        for words in itertools.product([3, 4, 5], repeat=length - 1):
            target = [*words, END]
            if allowed(target):
                total = float(log_probs_by_full_forward(model, input_ids, mask, target).sum())
                scored.append((total / ((5 + length) / 6) ** 0.6, target))
    return [target for _, target in sorted(scored, reverse=True)]


@pytest.mark.parametrize(
    "constraints",
    [
        [[[4]], []],
        [[[3, 5]], [[5], [4]]],
        [[[3, 3]], None],
        [[[4, 4, 5]], [[3], [4], [5]]],
        [[[5, 5, 5, 5]], [[3, 4], [5]]],
        [[[5], [5], [4, 5]], [[3, 5, 3]]],  # 5 is given twice and is part of another phrase
    ],
)
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(constraints) -> None:
    model = make_model(vocab_size=6, end_bias=1.0)
    input_ids, mask = make_sources([3, 5], vocab_size=6)
    config = BeamSearchConfig(num_beams=121, num_return_sequences=121, max_target_tokens=LIMIT)
    output = paper_beam_search(model, input_ids, mask, config, constraints=constraints)
    for row, phrases in enumerate(constraints):
        expected = exhaustive(
            model,
            input_ids[[row]],
            mask[[row]],
            lambda target, phrases=phrases: all(contains(target, phrase) for phrase in phrases or []),
        )
        assert [hypothesis for hypothesis in output.hypotheses()[row] if hypothesis] == expected
        if phrases:
            assert 0 < len(expected) < 121


def test_a_wide_beam_with_every_kind_of_restriction_finds_what_an_exhaustive_search_finds() -> None:
    model = make_model(vocab_size=6, end_bias=1.0)
    input_ids, mask = make_sources([3, 5], vocab_size=6)
    config = BeamSearchConfig(
        num_beams=121, num_return_sequences=121, max_target_tokens=LIMIT, bad_words_ids=[[3, 3]], min_length=5
    )
    output = paper_beam_search(
        model, input_ids, mask, config, prefixes=[[4], [3]], constraints=[[[5, 4]], [[3, 4], [5]]]
    )
    for row, (prefix, phrases) in enumerate(((4, [[5, 4]]), (3, [[3, 4], [5]]))):
        expected = exhaustive(
            model,
            input_ids[[row]],
            mask[[row]],
            lambda target, prefix=prefix, phrases=phrases: (
                target[0] == prefix
                and all(contains(target, phrase) for phrase in phrases)
                and not contains(target, [3, 3])
                and len(target) == 5
            ),
        )
        assert [hypothesis for hypothesis in output.hypotheses()[row] if hypothesis] == expected and expected


@pytest.mark.parametrize("num_beams", [1, 2, 4, 10])
def test_every_target_has_its_phrases_whatever_the_width_of_the_beam(num_beams: int) -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8, 5])
    constraints = [[[20, 21]], [[7], [19, 19, 20]], [], [[9, 4, 9, 4, 8]]]
    config = BeamSearchConfig(num_beams=num_beams, num_return_sequences=num_beams, max_extra_tokens=4)
    output = paper_beam_search(model, input_ids, mask, config, constraints=constraints)
    for source, phrases, hypotheses in zip((6, 3, 8, 5), constraints, output.hypotheses(), strict=True):
        tokens = sum(map(len, phrases))
        assert len({tuple(hypothesis) for hypothesis in hypotheses}) == num_beams
        for hypothesis in hypotheses:
            assert all(contains(hypothesis, phrase) for phrase in phrases)
            assert hypothesis[-1] == END and len(hypothesis) <= max(source, tokens + 1) + 4
    labels = output.sequences[::num_beams, 1:].masked_fill(output.token_log_probs[::num_beams] == 0, -100)
    scored = score_targets(model, input_ids, mask, labels)  # the log-probabilities are the model's
    torch.testing.assert_close(scored.scores, output.sequences_scores[::num_beams], rtol=0, atol=1e-10)


def test_a_sentence_without_constraints_is_searched_as_in_a_plain_search() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8, 5])
    for config in (
        BeamSearchConfig(num_return_sequences=4),
        BeamSearchConfig(num_beams=1),
        BeamSearchConfig(num_beams=6, early_stopping=True, coverage_penalty=0.2),
    ):
        plain = paper_beam_search(model, input_ids, mask, config)
        mixed = paper_beam_search(model, input_ids, mask, config, constraints=[None, [[20, 21]], [], []])
        for row in (0, 2, 3):
            assert mixed.hypotheses()[row] == plain.hypotheses()[row]
        number = config.num_return_sequences
        scores = [output.sequences_scores.view(4, number)[[0, 2, 3]] for output in (mixed, plain)]
        torch.testing.assert_close(*scores, rtol=0, atol=1e-10)


def test_phrases_that_a_plain_search_writes_change_nothing() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    plain = paper_beam_search(model, input_ids, mask).hypotheses()
    constraints = [[best[0][:2]] for best in plain]
    config = BeamSearchConfig(num_beams=12)
    found = paper_beam_search(model, input_ids, mask, config, constraints=constraints).hypotheses()
    assert found == paper_beam_search(model, input_ids, mask, config).hypotheses()


def test_phrases_may_overlap_and_repeat_themselves() -> None:
    assert _fallbacks([7, 8, 7, 8, 9], 6) == [0, 0, 0, 1, 2, 0]
    assert _fallbacks([7, 7, 7], 3) == [0, 0, 1]
    special = type("Special", (), {"eos_token_id": (END,)})
    phrases = [[(7, 8, 7, 8, 9), (8, 9, 10)], [(7, 7, 7)]]
    state = Constraints.of(phrases, [20, 20], 1, special, torch.device("cpu"))
    written = torch.tensor([[7, 8, 7, 8, 7, 8, 9, 10], [7, 7, 8, 7, 7, 7, 7, 2]])
    progress = state.progress
    missing = []
    for tokens in written.T:
        progress = state._advance(progress, tokens.unsqueeze(-1))
        missing.append(state._missing(progress)[:, 0].tolist())
    # 7 8 7 8 7: the fifth token continues "7 8" of the second half; "8 9 10" begins inside the first phrase.
    assert [row[0] for row in missing] == [7, 6, 5, 4, 5, 4, 1, 0]
    assert [row[1] for row in missing] == [2, 1, 3, 2, 1, 0, 0, 0]


def test_the_best_of_each_bank_are_taken_in_turn() -> None:
    totals = torch.tensor([[-1.0, -2.0, -3.0, -4.0, -5.0, -torch.inf]])
    banks = torch.tensor([[0, 0, 0, 1, 3, 3]])
    # The turns: −5 (bank 3), −4 (bank 1), −1 (bank 0), then −2 and −3; the highest first in the result.
    for number, expected in ((1, [-5.0]), (2, [-4.0, -5.0]), (4, [-1.0, -2.0, -4.0, -5.0])):
        values, places = _best_of_banks(totals, banks, number)
        assert values[0].tolist() == expected and totals[0, places[0]].tolist() == expected
    values, places = _best_of_banks(totals, banks, 6)
    assert values[0, -1] == -torch.inf and sorted(places[0].tolist()) == list(range(6))


def test_generate_takes_constraints() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    constraints = [[[20, 21]], [], [[5]]]
    expected = paper_beam_search(model, input_ids, mask, constraints=constraints)
    found = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        custom_generate=generate_with_paper_beam_search,
        constraints=constraints,
    )
    assert found.tolist() == expected.sequences.tolist()


def test_ensembles_take_constraints() -> None:
    models = [half_trained_model(0), half_trained_model(1)]
    input_ids, mask = make_sources([6, 3])
    output = paper_beam_search(models, input_ids, mask, constraints=[[[20, 21]], [[7], [8]]])
    assert contains(output.hypotheses()[0][0], [20, 21])
    assert {7, 8} <= set(output.hypotheses()[1][0])


def test_a_plain_search_has_no_constraints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Constraints, "of", lambda *_: pytest.fail("constraints were built"))
    paper_beam_search(make_model(end_bias=3.0), *make_sources([3, 4]), constraints=[[], None])


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([[[4]]], "there are constraints for 1 of 2 sentences"),
        ([[[]], []], "a constraint is empty"),
        ([[[4, 23]], []], r"the constraint \[4, 23\] has the id 23"),
        ([[[4, END]], []], "has the special token 2"),
        ([[[9, 7, 8, 9]], []], r"the constraint \[9, 7, 8, 9\] contains the banned \[7, 8\]"),
        ([[], [[4] * 5, [5] * 4]], "prefix and constraints of a target have 9 tokens, but it may have only 9 with EOS"),
    ],
)
def test_bad_constraints_are_refused(constraints, message: str) -> None:
    config = BeamSearchConfig(max_target_tokens=9, bad_words_ids=[[7, 8]])
    with pytest.raises(ValueError, match=message):
        paper_beam_search(make_model(), *make_sources([2, 3]), config, constraints=constraints)
