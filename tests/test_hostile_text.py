"""Lines as nobody should write them: one line out for each, and the same one whoever else is in the batch."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from hf_vanilla_transformer import BeamSearchConfig, VanillaTransformerForConditionalGeneration, preset, train_tokenizer
from hf_vanilla_transformer.translation.translate import translate

LINES = 10_000  # of the slow test; README's table of promises quotes it
MAX_SOURCE_TOKENS = 60
CLOSE = 1e-4  # of a log-probability: in fp32 a neighbour may tip a choice that is closer than this
# Separators, joiners, marks of direction, fillers, a byte order mark, a non-character.
CONTROLS = (
    "\x00\x01\x07\x08\x0b\x0c\x0d\x1b\x1c\x1d\x1e\x7f\x85\u00a0"
    "\u200b\u200d\u2028\u2029\u202e\u3000\u3164\ufeff\ufffd\uffff"
)
PIECES = [
    *("</s> <pad> <s> <unk> one two 하나 둘 ﷺ %s {} \\n".split()),
    *("e\u0301" * 9, "👩\u200d👩\u200d👧", "\u1112\u1161\u11ab"),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["one two three four five", "하나 둘 셋 넷 다섯"], 320)


def tiny(tokenizer: PreTrainedTokenizerBase, **fields) -> VanillaTransformerForConditionalGeneration:
    torch.manual_seed(3)
    sizes = {"d_model": 8, "d_ff": 8, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    return VanillaTransformerForConditionalGeneration(
        preset("tiny", vocab_size=len(tokenizer), **sizes, **fields)
    ).eval()


def hostile_line(draw: random.Random) -> bytes:
    """Draw a line without its end: bytes, of which not all are UTF-8."""
    kind = draw.randrange(7)
    if kind == 0:
        return bytes(draw.choice([b for b in range(256) if b != 10]) for _ in range(draw.randrange(40)))
    if kind == 1:
        return "".join(draw.choice(CONTROLS) for _ in range(draw.randrange(12))).encode()
    if kind == 2:
        points = (draw.randrange(0x110000) for _ in range(draw.randrange(20)))
        return "".join(chr(p) for p in points if p != 10).encode("utf-8", errors="surrogatepass")
    if kind == 3:
        return (draw.choice(PIECES) * draw.randrange(1, 4) + draw.choice(CONTROLS)).encode()
    if kind == 4:
        return (
            draw.choice(PIECES).encode() * draw.choice([100, 1_000])
            if draw.random() < 0.05
            else b" " * draw.randrange(9)
        )
    if kind == 5:
        return draw.choice(PIECES).encode()[: draw.randrange(6)] + b"\xed\xa0\x80"  # cut in a character, half a pair
    return " ".join(draw.choice(["one", "two", "셋", "넷"]) for _ in range(draw.randrange(9))).encode()


def hostile_lines(count: int, seed: int) -> list[bytes]:
    draw = random.Random(seed)
    return [hostile_line(draw) for _ in range(count)]


@pytest.mark.parametrize("count", [pytest.param(100, id="few"), pytest.param(LINES, id="many", marks=pytest.mark.slow)])
def test_the_command_writes_one_line_for_each(tokenizer, tmp_path: Path, count: int) -> None:
    tiny(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lines = hostile_lines(count, seed=1)
    words = ["translate", tmp_path, "--num-beams", 1, "--max-source-tokens", MAX_SOURCE_TOKENS]
    command = [sys.executable, "-m", "hf_vanilla_transformer", *map(str, words)]
    done = subprocess.run(
        command, input=b"".join(line + b"\n" for line in lines), capture_output=True, timeout=1800,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    assert b"Traceback" not in done.stderr
    answers = done.stdout.split(b"\n")
    assert len(answers) == len(lines) + 1 and answers[-1] == b""
    for answer in answers:
        answer.decode("utf-8")  # nothing broken comes out
        assert b"\r" not in answer
    for line, answer in zip(lines, answers, strict=False):
        if not line.strip(b" "):
            assert answer == b"", line


def texts(count: int, seed: int) -> list[str]:
    return [line.decode("utf-8", errors="replace") for line in hostile_lines(count, seed)]


def run(model, tokenizer, sources: list[str], batch_size: int, num_beams: int) -> list[str]:
    return list(
        translate(
            model,
            tokenizer,
            sources,
            BeamSearchConfig(num_beams=num_beams),
            batch_size=batch_size,
            max_source_tokens=MAX_SOURCE_TOKENS,
        )
    )


@pytest.mark.parametrize(
    ("count", "num_beams"),
    [(20, 1), (12, 3), pytest.param(1000, 1, marks=pytest.mark.slow), pytest.param(400, 4, marks=pytest.mark.slow)],
)
def test_in_fp64_neighbours_change_nothing(tokenizer, count: int, num_beams: int) -> None:
    model = tiny(tokenizer).double()
    sources = texts(count, seed=2)
    alone = run(model, tokenizer, sources, 1, num_beams)
    order = list(range(count))
    random.Random(4).shuffle(order)
    for batch_size in (7, 64):
        assert run(model, tokenizer, sources, batch_size, num_beams) == alone
        shuffled = run(model, tokenizer, [sources[index] for index in order], batch_size, num_beams)
        assert shuffled == [alone[index] for index in order]


def narrowest_choice(model, tokenizer, source: str) -> float:
    """Return how close the second best token came to the best on the way of a greedy translation, in nats."""
    batch = tokenizer(source, return_tensors="pt", return_token_type_ids=False)
    config = model.config
    never = [config.pad_token_id, config.bos_token_id, config.decoder_start_token_id]
    ids, narrowest = [config.decoder_start_token_id], float("inf")
    while ids[-1] != config.eos_token_id and len(ids) <= batch["input_ids"].shape[1] + 50:
        with torch.no_grad():
            scores = model(**batch, decoder_input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        scores[never] = -torch.inf
        best = scores.topk(2)
        narrowest = min(narrowest, (best.values[0] - best.values[1]).item())
        ids.append(int(best.indices[0]))
    return narrowest


@pytest.mark.parametrize("count", [pytest.param(30, id="few"), pytest.param(2000, id="many", marks=pytest.mark.slow)])
def test_in_fp32_a_neighbour_tips_only_what_hangs_in_the_balance(tokenizer, count: int) -> None:
    model, exact = tiny(tokenizer), tiny(tokenizer).double()
    sources = texts(count, seed=5)
    alone, together = (run(model, tokenizer, sources, size, 1) for size in (1, 64))
    different = [row for row, (one, two) in enumerate(zip(alone, together, strict=True)) if one != two]
    print(f"{len(different)} of {count} translations differ with their neighbours in fp32")
    for row in different:
        assert narrowest_choice(exact, tokenizer, sources[row]) < CLOSE, (sources[row], alone[row], together[row])
