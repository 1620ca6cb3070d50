"""Searches with restrictions find what an exhaustive search with the same restriction finds, and so does generate()."""

import itertools
import math
from collections.abc import Callable

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

from hf_vanilla_transformer import (
    BeamSearchConfig,
    generate_with_paper_beam_search,
    paper_beam_search,
    score_targets,
)
from hf_vanilla_transformer.model.token_rules_vanilla_transformer import TokenRules

WORDS = [3, 4, 5]  # ordinary tokens of a vocabulary of 6
LIMIT = 4  # most tokens of a target, so that there are 1 + 3 + 9 + 27 = 40 targets


def exhaustive(model, input_ids, mask, allowed: Callable[[list[int]], bool]) -> list[list[int]]:
    """List the targets with EOS of up to 4 tokens that are allowed, best first by the paper's score."""
    scored = []
    for length in range(1, LIMIT + 1):
        for words in itertools.product(WORDS, repeat=length - 1):
            target = [*words, END]
            if allowed(target):
                total = float(log_probs_by_full_forward(model, input_ids, mask, target).sum())
                scored.append((total / ((5 + length) / 6) ** 0.6, target))
    return [target for _, target in sorted(scored, reverse=True)]


def contains(target: list[int], phrase: list[int]) -> bool:
    return any(target[start : start + len(phrase)] == phrase for start in range(len(target)))


def repeats(target: list[int], size: int) -> bool:
    ngrams = [tuple(target[start : start + size]) for start in range(len(target) - size + 1)]
    return len(ngrams) > len(set(ngrams))


RESTRICTIONS = {
    "bad_words_ids=[[4]]": lambda target: 4 not in target,
    "bad_words_ids=[[4],[3,5],[5,5,3]]": lambda target: (
        4 not in target and not contains(target, [3, 5]) and not contains(target, [5, 5, 3])
    ),
    "bad_words_ids=[[3,2]]": lambda target: not contains(target, [3, 2]),
    "min_length=3": lambda target: len(target) >= 3,
    "min_new_tokens=3": lambda target: len(target) >= 4,
    "no_repeat_ngram_size=1": lambda target: not repeats(target, 1),
    "no_repeat_ngram_size=2": lambda target: not repeats(target, 2),
    "no_repeat_ngram_size=2,min_length=3,bad_words_ids=[[5]]": lambda target: (
        not repeats(target, 2) and len(target) >= 3 and 5 not in target
    ),
}


@pytest.mark.parametrize("setting", RESTRICTIONS)
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(setting: str) -> None:
    model = make_model(vocab_size=6, end_bias=1.0)
    input_ids, mask = make_sources([3, 5], vocab_size=6)
    config = BeamSearchConfig(
        num_beams=40, num_return_sequences=40, max_target_tokens=LIMIT, **eval(f"dict({setting})")
    )
    output = paper_beam_search(model, input_ids, mask, config)
    for row in range(2):
        # At the limit EOS is forced even where a rule bans it; such a hypothesis comes last.
        expected = exhaustive(model, input_ids[[row]], mask[[row]], RESTRICTIONS[setting])
        found = [hypothesis for hypothesis in output.hypotheses()[row] if hypothesis]
        assert found[: len(expected)] == expected and len(expected) > 3
        scores = output.sequences_scores.view(2, 40)[row]
        assert (scores[len(expected) : len(found)] < -1000).all() and (scores[len(found) :] == -math.inf).all()


@pytest.mark.parametrize("num_beams", [40, 1])
def test_prefixes_are_kept_and_continued_as_an_exhaustive_search_does(num_beams: int) -> None:
    model = make_model(vocab_size=6, end_bias=1.0)
    input_ids, mask = make_sources([3, 5, 4, 4], vocab_size=6)
    prefixes = [[4], [], [5, 3, 3], None]
    config = BeamSearchConfig(num_beams=num_beams, num_return_sequences=num_beams, max_target_tokens=LIMIT)
    output = paper_beam_search(model, input_ids, mask, config, prefixes=prefixes)
    for row, prefix in enumerate(prefixes):
        kept = prefix or []
        found = [hypothesis for hypothesis in output.hypotheses()[row] if hypothesis]
        if num_beams > 1:
            assert found == exhaustive(
                model, input_ids[[row]], mask[[row]], lambda target, kept=kept: target[: len(kept)] == kept
            )
        assert all(hypothesis[: len(kept)] == kept for hypothesis in found)
    # The tokens of a prefix have their log-probabilities, so that scores are those of `score_targets`.
    best = [hypotheses[0] for hypotheses in output.hypotheses()]
    labels = torch.tensor([target + [-100] * (LIMIT - len(target)) for target in best])
    scored = score_targets(model, input_ids, mask, labels)
    torch.testing.assert_close(scored.scores, output.sequences_scores[::num_beams], rtol=0, atol=1e-10)


def test_a_prefix_changes_no_other_sentence_of_the_batch() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    config = BeamSearchConfig(num_return_sequences=4)
    plain = paper_beam_search(model, input_ids, mask, config).hypotheses()
    found = paper_beam_search(model, input_ids, mask, config, prefixes=[[], [9, 9, 9, 9, 9], []]).hypotheses()
    assert found[0] == plain[0] and found[2] == plain[2] and found[1] != plain[1]
    # The best hypothesis' own beginning as a prefix leads to that hypothesis.
    prefixes = [hypotheses[0][:2] for hypotheses in plain]
    again = paper_beam_search(model, input_ids, mask, config, prefixes=prefixes).hypotheses()
    assert [hypotheses[0] for hypotheses in again] == [hypotheses[0] for hypotheses in plain]


def test_a_prefix_may_have_what_rules_ban_and_counts_for_them() -> None:
    model = make_model(end_bias=3.0)
    input_ids, mask = make_sources([6, 3])
    config = BeamSearchConfig(no_repeat_ngram_size=1, bad_words_ids=[[7]], min_new_tokens=3, num_return_sequences=4)
    output = paper_beam_search(model, input_ids, mask, config, prefixes=[[7, 8, 8], [9]])
    for prefix, hypotheses in zip(([7, 8, 8], [9]), output.hypotheses(), strict=True):
        for hypothesis in hypotheses:
            rest = hypothesis[len(prefix) :]
            assert hypothesis[: len(prefix)] == prefix and len(rest) >= 4
            assert 7 not in rest and not set(prefix) & set(rest) and not repeats(rest, 1)


def test_a_target_may_be_longer_than_its_prefix_by_the_extra_tokens() -> None:
    model = make_model(end_bias=-40.0)
    config = BeamSearchConfig(max_extra_tokens=2)
    output = paper_beam_search(model, *make_sources([4, 4]), config, prefixes=[[5] * 9, [5]])
    assert output.lengths.tolist() == [12, 6]


def test_the_minimum_gives_way_to_the_limit_of_a_sentence() -> None:
    model = make_model(end_bias=3.0)
    config = BeamSearchConfig(min_length=7, max_extra_tokens=2)
    output = paper_beam_search(model, *make_sources([3, 8]), config)
    assert output.lengths[0] == 5 and output.lengths[1] >= 7
    labels = output.sequences[:, 1:].masked_fill(output.token_log_probs == 0, -100)
    scored = score_targets(model, *make_sources([3, 8]), labels)  # the EOS token has the model's log-probability
    torch.testing.assert_close(scored.scores, output.sequences_scores, rtol=0, atol=1e-10)


def test_sentences_without_an_allowed_target_have_none() -> None:
    model = make_model(vocab_size=6)
    config = BeamSearchConfig(no_repeat_ngram_size=1, min_length=9)
    output = paper_beam_search(model, *make_sources([3, 4], vocab_size=6), config)
    assert output.hypotheses() == [[[]], [[]]] and (output.sequences_scores == -math.inf).all()


def test_plain_search_runs_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a rule ran")

    monkeypatch.setattr(TokenRules, "ban", fail)
    monkeypatch.setattr(TokenRules, "prefix_logits", fail)
    sources = make_sources([3, 4])
    model = make_model()
    # Padding and the decoder start token are never generated, so banning them is no rule either.
    plain = paper_beam_search(model, *sources, BeamSearchConfig(max_extra_tokens=2, bad_words_ids=[[PAD], [START]]))
    paper_beam_search(model, *sources, BeamSearchConfig(max_extra_tokens=2), prefixes=[[], None])
    assert plain.lengths.min() > 0
    with pytest.raises(AssertionError, match="a rule ran"):
        paper_beam_search(model, *sources, prefixes=[[3], []])


# --------------------------------------------------------------------------- transformers' meaning of the same names


@pytest.mark.parametrize(
    "settings",
    [
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3, "min_length": 9},
        {"min_new_tokens": 7},
        {"bad_words_ids": [[7], [9, 4], [12, 12, 3]]},
        {"min_length": 12, "bad_words_ids": [[4], [5], [6], [8, 9]]},
    ],
)
@pytest.mark.parametrize("prefix", [[], [9, 4, 9]])
def test_names_of_transformers_have_its_meaning(settings: dict, prefix: list[int]) -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    config = BeamSearchConfig(
        num_return_sequences=4, length_normalization="power", max_target_tokens=40, length_penalty=1.0, **settings
    )
    ours = paper_beam_search(model, input_ids, mask, config, prefixes=[prefix] * 3)
    decoder_input_ids = torch.tensor([[START, *prefix]] * 3)
    banned = [[PAD], [START], *settings.get("bad_words_ids", [])]
    theirs = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        decoder_input_ids=decoder_input_ids,
        num_beams=4,
        num_return_sequences=4,
        early_stopping="never",
        length_penalty=0.0,
        max_length=41,
        **(settings | {"bad_words_ids": banned}),
    )
    # Without length normalization transformers' scores rank as ours do; those of prefixes it leaves out.
    ours = paper_beam_search(model, input_ids, mask, config.replace(length_penalty=0.0), prefixes=[prefix] * 3)
    found = [row[: row.index(END, 1) + 1] for row in theirs.tolist()]
    assert [[START, *hypothesis] for hypothesis in itertools.chain(*ours.hypotheses())] == found
    # The adapter gives the same result from the same arguments of `generate`, as keywords or in its configuration.
    inputs = {"input_ids": input_ids, "attention_mask": mask, "custom_generate": generate_with_paper_beam_search}
    inputs |= {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0, "decoder_input_ids": decoder_input_ids}
    through = model.generate(**inputs, **settings, max_target_tokens=40)
    assert through.tolist() == ours.sequences.tolist()
    model.generation_config.update(**settings)
    assert model.generate(**inputs, max_target_tokens=40).tolist() == ours.sequences.tolist()


def test_generate_takes_prefixes_of_different_lengths() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3, 8])
    prefixes = [[5], [], [7, 8]]
    inputs = {"input_ids": input_ids, "attention_mask": mask, "custom_generate": generate_with_paper_beam_search}
    expected = paper_beam_search(model, input_ids, mask, prefixes=prefixes)
    assert model.generate(**inputs, prefixes=prefixes).tolist() == expected.sequences.tolist()
    with pytest.raises(ValueError, match="either decoder_input_ids or prefixes"):
        model.generate(**inputs, prefixes=prefixes, decoder_input_ids=torch.tensor([[START, 5]] * 3))


def test_renormalized_probabilities_are_those_of_the_tokens_that_are_left() -> None:
    model = half_trained_model()
    input_ids, mask = make_sources([6, 3])
    output = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        custom_generate=generate_with_paper_beam_search,
        bad_words_ids=[[7]],
        renormalize_logits=True,
        return_dict_in_generate=True,
    )
    sequence, length = output.sequences[0], int(output.lengths[0])
    logits = model(input_ids=input_ids[:1], attention_mask=mask[:1], decoder_input_ids=sequence[None, :-1]).logits[0]
    logits[:, [PAD, START, 7]] = -math.inf
    reference = logits.log_softmax(dim=-1).gather(1, sequence[1:, None]).squeeze(1)[:length]
    torch.testing.assert_close(output.token_log_probs[0, :length], reference, rtol=0, atol=1e-10)


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_length": -1}, "min_length=-1 is not an integer ≥ 0"),
        ({"min_length": 8, "max_target_tokens": 7}, "min_length=8 needs 8 tokens with EOS, more than"),
        ({"min_new_tokens": 7, "max_target_tokens": 7}, "min_new_tokens=7 needs 8 tokens with EOS, more than"),
        ({"no_repeat_ngram_size": 1.5}, "no_repeat_ngram_size=1.5"),
        ({"bad_words_ids": [5]}, "is not a list of lists of token ids"),
        ({"bad_words_ids": [[]]}, "is not a list of lists of token ids"),
        ({"bad_words_ids": [["a"]]}, "is not a list of lists of token ids"),
        ({"bad_words_ids": [[4, 23]]}, "bad_words_ids has the id 23; the vocabulary has ids below 23"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paper_beam_search(make_model(), *make_sources([2]), BeamSearchConfig(**settings))


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        ([[4]], "there are 1 prefixes for 2 sentences"),
        ([[4], [23]], r"the prefix \[23\] has the id 23"),
        ([[4], [5, END]], r"the prefix \[5, 2\] has the special token 2; leave out EOS"),
        ([[START, 4], []], "has the special token 1"),
        ([[4] * 9, []], "prefix and constraints of a target have 9 tokens, but it may have only 9 with EOS"),
    ],
)
def test_bad_prefixes_are_refused(prefixes: list[list[int]], message: str) -> None:
    config = BeamSearchConfig(max_target_tokens=9)
    with pytest.raises(ValueError, match=message):
        paper_beam_search(make_model(), *make_sources([2, 3]), config, prefixes=prefixes)


def test_settings_stay_hashable_and_equal() -> None:
    assert BeamSearchConfig(bad_words_ids=[[5, 6]]) == BeamSearchConfig(bad_words_ids=((5, 6),))
    assert hash(BeamSearchConfig(bad_words_ids=[[5, 6]])) == hash(BeamSearchConfig(bad_words_ids=((5, 6),)))
