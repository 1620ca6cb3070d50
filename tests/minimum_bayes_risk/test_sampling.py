"""Samples: their distribution is that of transformers' `generate`, and they depend on the seed and the source only."""

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from hf_vanilla_transformer import BeamSearchConfig, MBRConfig, VanillaTransformerConfig
from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration as Model
from hf_vanilla_transformer.minimum_bayes_risk.sampling import draw_samples, draw_tokens

PAD, START, END = 0, 1, 2


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = VanillaTransformerConfig(
        vocab_size=11, d_model=16, d_ff=24, num_heads=2, encoder_layers=1, decoder_layers=2, output_bias=True,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = Model(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
        model.lm_head.bias[END] = 1.0
    return model


def sources(*rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
    return ids, (ids != PAD).long()


@pytest.mark.parametrize(
    "settings",
    [
        {"epsilon_cutoff": 0.0},
        {"epsilon_cutoff": 0.05},
        {"epsilon_cutoff": 0.6},
        {"epsilon_cutoff": 0.0, "top_k": 3},
        {"epsilon_cutoff": 0.0, "top_p": 0.8},
        {"epsilon_cutoff": 0.1, "top_p": 0.9, "top_k": 5, "temperature": 1.7},
    ],
)
def test_tokens_are_drawn_with_the_probabilities_of_generate(model: Any, settings: dict[str, Any]) -> None:
    torch.manual_seed(1)
    logits = 2 * torch.randn(3, 11)
    config = GenerationConfig(do_sample=True, **{"temperature": 1.0, "top_k": 0, "top_p": 1.0, **settings})
    warpers = model._get_logits_processor(config, input_ids_seq_length=1, encoder_input_ids=None)
    expected = warpers(torch.zeros(3, 1, dtype=torch.long), logits.clone()).softmax(dim=-1)
    grid = (torch.arange(20_000) + 0.5) / 20_000  # in place of random numbers
    for row in range(3):
        drawn = draw_tokens(logits[row].expand(len(grid), -1), grid, MBRConfig(num_samples=2, **settings))
        shares = torch.bincount(drawn, minlength=11) / len(grid)
        torch.testing.assert_close(shares, expected[row], atol=2e-4, rtol=0)


def test_samples_have_the_probabilities_of_the_model(model: Any) -> None:
    ids, mask = sources([5, 6, END])
    config = MBRConfig(num_samples=4000, epsilon_cutoff=0.0)
    (samples,) = draw_samples(model, ids, mask, BeamSearchConfig(max_extra_tokens=3), config)
    counts = Counter(map(tuple, samples))
    assert sum(counts.values()) == 4000
    for sample, count in counts.most_common(3):
        labels = torch.tensor([sample])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, labels=labels).logits
        log_probs = logits.log_softmax(-1)[0, torch.arange(len(sample)), labels[0]].sum()
        probability = float(log_probs.exp())
        assert count / 4000 == pytest.approx(probability, abs=4 * (probability / 4000) ** 0.5)


def test_samples_depend_on_seed_and_source_only(model: Any) -> None:
    rows = [[5, 6, 7, END], [8, END], [9, 4, 5, 6, 7, END]]
    config, search = MBRConfig(num_samples=8), BeamSearchConfig(max_extra_tokens=5)
    together = draw_samples(model, *sources(*rows), search, config)
    assert [draw_samples(model, *sources(row), search, config)[0] for row in rows] == together
    state = torch.random.get_rng_state()
    assert draw_samples(model, *sources(*rows), search, config) == together
    assert torch.equal(state, torch.random.get_rng_state())
    assert draw_samples(model, *sources(*rows), search, MBRConfig(num_samples=8, seed=1)) != together


def test_samples_end_at_eos_or_at_the_maximum_length(model: Any) -> None:
    (samples,) = draw_samples(
        model, *sources([5, 6, END]), BeamSearchConfig(max_extra_tokens=2), MBRConfig(num_samples=200)
    )
    assert {len(sample) for sample in samples} <= set(range(1, 6))
    for sample in samples:
        assert END not in sample[:-1] and (sample[-1] == END or len(sample) == 5)
    assert any(sample[-1] != END for sample in samples)


def test_a_sample_of_a_very_small_epsilon_equals_ancestral_sampling(model: Any) -> None:
    ids, mask = sources([5, 6, 7, END], [8, END])
    search = BeamSearchConfig(max_extra_tokens=5)
    exact = draw_samples(model, ids, mask, search, MBRConfig(num_samples=16, epsilon_cutoff=0.0))
    assert {len(of_source) for of_source in exact} == {16}
    greedy = draw_samples(model, ids, mask, search, MBRConfig(num_samples=16, top_k=1, epsilon_cutoff=0.0))
    assert all(sample == of_source[0] for of_source in greedy for sample in of_source)


def test_logits_that_are_nan_are_an_error(model: Any) -> None:
    with pytest.raises(ValueError, match="the model's logits are NaN"):
        draw_tokens(torch.full((2, 5), torch.nan), torch.rand(2), MBRConfig(num_samples=2))
