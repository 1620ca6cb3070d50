"""The paper's beam search on the device: the CPU's tokens, scores to rounding, one look at the device per step."""

import pytest
import torch
from small_models import PADDINGS, batch, build, sharp, waits

from hf_vanilla_transformer import BeamSearchConfig, paper_beam_search, score_targets
from hf_vanilla_transformer.model.incremental_decoder_vanilla_transformer import IncrementalDecoder

SETTINGS = {
    "greedy": {"num_beams": 1},
    "beam 4": {},
    "four best": {"num_return_sequences": 4, "length_normalization": "power", "length_penalty": 1.0},
    "coverage": {"coverage_penalty": 0.2},
}


def sources(device: torch.device, padding: str = "right") -> dict[str, torch.Tensor]:
    inputs = batch(device, padding)
    del inputs["labels"]
    return inputs


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_tokens_are_those_of_the_cpu_in_fp64(device, settings, padding):
    config = BeamSearchConfig(**{"max_extra_tokens": 6, **settings})
    expected = paper_beam_search(sharp().double(), **sources(torch.device("cpu"), padding), config=config)
    found = paper_beam_search(sharp().to(device), **sources(device, padding), config=config)
    assert found.hypotheses() == expected.hypotheses()
    torch.testing.assert_close(found.sequences_scores.double().cpu(), expected.sequences_scores, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.token_log_probs.double().cpu(), expected.token_log_probs, rtol=1e-5, atol=1e-5)


def test_a_large_vocabulary_gives_the_cpus_tokens(device):
    """The best tokens are then looked for chunk by chunk."""
    model = sharp(vocab_size=4099)
    expected = paper_beam_search(
        model.double(), **sources(torch.device("cpu")), config=BeamSearchConfig(max_extra_tokens=4)
    )
    found = paper_beam_search(model.float().to(device), **sources(device), config=BeamSearchConfig(max_extra_tokens=4))
    assert found.hypotheses() == expected.hypotheses()


def test_scores_in_bf16_are_those_of_fp32_to_rounding(device):
    """Which translation wins may change by rounding; what the search says of it may not be off by more."""
    exact, inputs = sharp().to(device), sources(device)
    found = paper_beam_search(sharp().to(device, torch.bfloat16), **inputs, config=BeamSearchConfig(max_extra_tokens=6))
    assert found.sequences_scores.dtype == torch.float32
    labels = found.sequences[:, 1:].masked_fill(found.token_log_probs == 0, -100)
    lengths = (labels != -100).sum(dim=-1)
    assert torch.equal(lengths, found.lengths)
    rescored = score_targets(exact, **inputs, labels=labels)
    # A logit of bf16 is off by its rounding and that of ten roundings before it: a few ε of its size, here some 8 nats.
    per_token = (found.token_log_probs - rescored.token_log_probs).abs().max()
    assert per_token < 4 * torch.finfo(torch.bfloat16).eps * 8


def test_sentences_of_a_batch_do_not_depend_on_each_other(device):
    model, inputs = sharp().to(device), sources(device)
    together = paper_beam_search(model, **inputs).hypotheses()
    alone = [
        paper_beam_search(model, **{name: tensor[row : row + 1] for name, tensor in inputs.items()}).hypotheses()[0]
        for row in range(len(together))
    ]
    assert together == alone


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_step_of_the_search_looks_at_the_device_once(device, settings, monkeypatch):
    model = build(output_bias=True).to(device)
    with torch.no_grad():
        model.lm_head.bias[2] = -1e4  # no sentence ends before its limit
    inputs, looks, open_steps, number = sources(device), [], [], 0
    step = IncrementalDecoder.step

    def counted(decoder, *arguments, **keywords):
        nonlocal number
        number += 1
        if open_steps:
            open_steps.pop().__exit__(None, None, None)
        if number == 3:  # ends where the fourth begins
            open_steps.append(waits(device, looks))
            open_steps[0].__enter__()
        return step(decoder, *arguments, **keywords)

    monkeypatch.setattr(IncrementalDecoder, "step", counted)
    paper_beam_search(model, **inputs, config=BeamSearchConfig(**settings, max_extra_tokens=6))
    assert number > 4
    assert len(looks) == 1, looks
