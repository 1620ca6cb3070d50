"""The command line: its surface, its one-sentence errors, and lines in = lines out."""

import io
import re
import subprocess
import sys

import pytest
import torch
import yaml
from platforms import posix_only
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, preset, train_tokenizer
from hf_vanilla_transformer.cli import _build_parser, main
from hf_vanilla_transformer.data.embedded_corpus import draw_expressions
from hf_vanilla_transformer.training.demo import RECIPE
from hf_vanilla_transformer.visualization.alignment import digit_alignment

COMMANDS = (
    "average",
    "check",
    "convert",
    "demo",
    "evaluate",
    "presets",
    "push",
    "tokenizer",
    "train",
    "translate",
    "visualize",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 300)
    sizes = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    model = VanillaTransformerForConditionalGeneration(preset("tiny", vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(*words, stdin=b""):
    return subprocess.run(
        [sys.executable, "-m", "hf_vanilla_transformer", *map(str, words)], input=stdin, capture_output=True
    )


def test_commands_are_these():
    actions = next(action for action in _build_parser()._actions if action.dest == "command")
    assert set(actions.choices) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"vanilla-transformer {command}" in capsys.readouterr().out


def test_presets_are_printed_beside_the_papers_figures(capsys):
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    base = next(line.split() for line in lines if line.startswith("base "))
    assert "63.05" in base and "65" in base
    assert any(line.startswith("big ") and "+151.13" in line and "+148" in line for line in lines)


HOSTILE = [
    "one two", "", "   ", "\u2028 \x85 \r x", "three " * 3000, "</s> <pad>", "\x00\x1b[2J", "e\u0301" * 40,
    "삼백이십만 오", "🇰🇷",
]  # fmt: skip


def test_translate_writes_one_line_for_each_line(checkpoint):
    stdin = "\n".join(HOSTILE).encode() + b"\n\xff\xfe broken \xc3\n"
    done = run("translate", checkpoint, "--num-beams", 1, "--max-source-tokens", 100, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    lines = done.stdout.split(b"\n")
    assert len(lines) == len(HOSTILE) + 2 and lines[-1] == b""
    assert lines[1] == lines[2] == lines[4] == b""
    assert b"line 5" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["translate", "no/such/checkpoint"], "no/such/checkpoint"),
        (["train", "no-such.yaml"], "there is no recipe no-such.yaml"),
        (["average", "no-such-run", "--output", "x"], "no-such-run"),
        (["demo", "--recipe", "no-such.yaml", "--output", "{tmp}/demo"], "there is no recipe no-such.yaml"),
        (["translate", "{tmp}", "--num-beams", "100000"], "num_beams=100000 is not between 1 and 1,000; choose"),
        (["translate", "{tmp}", "--batch-size", "0"], "batch_size=0 is not between 1 and 100,000; choose"),
        (["translate", "{tmp}", "--length-penalty", "nan"], "length_penalty=nan is not between"),
        (["translate", "{tmp}", "--max-source-tokens", "1" + "0" * 30], "max_source_tokens=1"),
        (["evaluate", "{tmp}", "--num-beams", "-1"], "num_beams=-1 is not between"),
        (["average", "{tmp}", "--output", "x", "--last", "0"], "last=0 is not between 1 and"),
        (["visualize", "{tmp}", "--source", "a", "--output", "x", "--layer", "-1"], "layer=-1 is not between 0 and"),
        (["tokenizer", "x", "--output", "y", "--vocab-size", "1" + "0" * 30], "vocab_size=1"),
        (
            ["tokenizer", "x", "--output", "y", "--character-coverage", "7"],
            "character_coverage=7.0 is not between 0 and",
        ),
        pytest.param(
            ["demo", "--output", "/dev/null/demo"],
            "/dev/null/demo can't be used: Not a directory; give another path",
            marks=posix_only,
        ),
    ],
)
def test_bad_input_ends_in_one_sentence_and_status_2(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main([word.format(tmp=tmp_path) for word in words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"vanilla-transformer {words[0]}: error: ") and message in error


@pytest.fixture
def translate(monkeypatch, capsysbinary):
    """Run the command in this process; give its status, standard output and standard error."""

    def run_here(model, stdin, *words):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main(["translate", str(model), *map(str, words)])
        said = capsysbinary.readouterr()
        return status, said.out, said.err.decode()

    return run_here


def test_too_little_memory_is_one_sentence(checkpoint, translate, monkeypatch):
    def allocate(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2280000000000 bytes.")

    monkeypatch.setattr("hf_vanilla_transformer.translation.paper_beam_search", allocate)
    status, _, error = translate(checkpoint, b"one\n")
    assert status == 2
    last = error.strip().splitlines()[-1]
    assert last == (
        "vanilla-transformer translate: error: out of memory; lower --batch-size (now 64) or --num-beams (now 4)"
    )


def test_a_beam_wider_than_the_vocabulary_is_refused(checkpoint, translate):
    status, _, error = translate(checkpoint, b"one\n", "--num-beams", 1000)
    assert status == 2 and "num_beams=1000 is more than the 286 tokens of the vocabulary" in error


def test_translate_reads_marks_and_utf_16_as_files_are_read(checkpoint, translate):
    text = "one two\nthree\u00a0one\n"
    status, plain, _ = translate(checkpoint, text.replace("\u00a0", " ").encode(), "--num-beams", 1)
    assert status == 0 and plain.count(b"\n") == 2
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert translate(checkpoint, text.encode(encoding), "--num-beams", 1)[1] == plain
    status, out, error = translate(checkpoint, text.encode("utf-16-le"), "--num-beams", 1)
    assert status == 2 and "looks like UTF-16" in error and out == b""


def test_translate_says_how_many_lines_were_not_utf_8_and_how_many_came_out_empty(checkpoint, translate, monkeypatch):
    def empty(model, tokenizer, lines, **_):
        return ("" for _ in lines)

    monkeypatch.setattr("hf_vanilla_transformer.translation.translate", empty)
    status, out, error = translate(checkpoint, b"one\ngr\xfcn\nzw\xf6lf\n\n")
    assert status == 0 and out == b"\n" * 4
    assert "2 line(s) are not UTF-8, the first is line 2" in error
    assert "warning: 3 of 3 translations are empty" in error


def test_unknown_words_are_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["presets", "--colour"])
    assert caught.value.code == 2 and "--colour" in capsys.readouterr().err


def test_demo_leaves_other_peoples_directories_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert "holds something other than a checkpoint of the demo (thesis.txt)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_demo_shows_what_it_measured(tmp_path, capsys):
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    settings |= {"embedded_train": 400, "embedded_validation": 40, "embedded_test": 80, "vocab_size": 400}
    settings |= {"max_steps": 8, "warmup_steps": 4, "cooldown_steps": 0, "save_steps": 2}
    settings |= {"config_overrides": {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1}}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    output = tmp_path / "demo"
    assert main(["demo", "--recipe", str(tmp_path / "short.yaml"), "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    last = r"demo: exact=[01]\.\d{4} bleu=\d+\.\d\d train_seconds=\d+\.\d output="
    assert re.fullmatch(last + re.escape(str(output)), lines[-1])
    assert [line.split()[:2] for line in lines if line.startswith("exact ")] == [
        ["exact", f"{kind}:"] for kind in ("number", "date", "time", "money")
    ]

    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    layer, head = digit_alignment(model, tokenizer, draw_expressions("validation", 40, seed=settings["seed"])).best()
    found = digit_alignment(model, tokenizer, draw_expressions("test", 80, seed=settings["seed"]))
    text = " ".join(" ".join(lines).split())
    assert f"decoder layer {layer}, head {head} (the best on the validation split)" in text
    assert f"for {found.accuracy[layer, head]:.1%} of {found.digits} Korean digits" in text
    assert f"chance: {found.chance:.1%}" in text
    assert "<!doctype html>" in (output / "attention.html").read_text(encoding="utf-8").lower()
    assert (output / "alignment.png").read_bytes().startswith(b"\x89PNG")
