"""The command line: its commands and options, its one-sentence errors, and lines in = lines out."""

import argparse
import inspect
import io
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import (
    BeamSearchConfig,
    VanillaTransformerForConditionalGeneration,
    preset,
    train_tokenizer,
)
from hf_vanilla_transformer import translate as translate_texts
from hf_vanilla_transformer.cli import build_parser, main, worker_error
from hf_vanilla_transformer.commands import convert, options, train, visualize
from hf_vanilla_transformer.commands import translate as translate_command
from hf_vanilla_transformer.commands.messages import in_option_words
from hf_vanilla_transformer.conversion.convert import RESTORED_FORMATS, SOURCE_FORMATS
from hf_vanilla_transformer.data.embedded_corpus import draw_expressions
from hf_vanilla_transformer.export.formats import ENGINES
from hf_vanilla_transformer.inference import INFERENCE_PRECISIONS
from hf_vanilla_transformer.model.beam_search_config_vanilla_transformer import LENGTH_NORMALIZATIONS
from hf_vanilla_transformer.training.demo import RECIPE
from hf_vanilla_transformer.training.recipe import package_recipes
from hf_vanilla_transformer.translation.output_formats import FORMATS
from hf_vanilla_transformer.translation.texts import ScoredTranslation
from hf_vanilla_transformer.visualization.alignment import digit_alignment
from hf_vanilla_transformer.visualization.maps import KINDS

SEARCH = "--num-beams --length-penalty --length-normalization --coverage-penalty --max-extra-tokens --min-length"
SEARCH += " --min-new-tokens --no-repeat-ngram-size"
TRANSLATION = f"{SEARCH} --batch-size --workers --max-source-tokens --source-tag --device --precision"
MBR = "--mbr-samples --mbr-nbest --epsilon-cutoff --temperature --top-p --top-k --seed"
COMMANDS = {  # every command with its options; a new option is a decision
    "align": "--source --target --gold --choose-head --alignment-head --output --batch-size --source-tag --device "
    "--overwrite",
    "average": "--output --last --best --metric --overwrite --allow-different-runs",
    "check": "--device --json --measure",
    "convert": "--from --to --set --quantization --overwrite",
    "demo": "--output --recipe --card --verbose",
    "evaluate": f"{TRANSLATION} --engine --source --reference --recipe --split --target-lang --tokenize --lowercase "
    f"--groups --translations --output --overwrite --system-output --paired-bs-n --ensemble {MBR}",
    "presets": "",
    "push": "--public --license --data-license --revision --dry-run --no-check --allow-useless --overwrite",
    "score": "--output --normalize --per-token --format --batch-size --workers --max-source-tokens --max-target-tokens "
    "--device --precision --overwrite",
    "tokenizer": "--source --target --output --vocab-size --model --normalization --lowercase --character-coverage "
    "--extra-token --overwrite",
    "train": "--verbose --recipe --print-recipe",
    "translate": f"{TRANSLATION} --engine --output --n-best --scores --format --interactive --overwrite --prefix-file "
    f"--constraint-file --terminology-file --banned-file --ensemble --alignments --alignment-head {MBR}",
    "visualize": "--source --target --output --figure --attention --layer --head --overwrite --device",
}
PARSERS = next(action for action in build_parser()._actions if action.dest == "command").choices


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


def test_commands_and_options_are_these():
    found = {
        command: {name for action in parser._actions for name in action.option_strings} - {"-h", "--help"}
        for command, parser in PARSERS.items()
    }
    assert found == {command: set(names.split()) for command, names in COMMANDS.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_every_option(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"vanilla-transformer {command}" in capsys.readouterr().out
    for action in PARSERS[command]._actions:
        assert action.help, action.dest
        if action.default not in (None, False, argparse.SUPPRESS) and action.option_strings:
            assert "default" in action.help, action.option_strings


def words_for(action):
    """Return the least number of values that an option or positional argument accepts."""
    if isinstance(action, argparse._StoreTrueAction):
        return []
    if action.choices:
        return [action.choices[0]]
    for word in ("1", "2", "name=value"):
        try:
            if action.type is None or action.type(word) is not None:
                return [word]
        except argparse.ArgumentTypeError:
            pass
    raise AssertionError(action)


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, names in COMMANDS.items() for option in names.split()]
)
def test_options_are_accepted_with_dashes_and_with_underscores(command, option):
    parser = PARSERS[command]
    chosen = next(action for action in parser._actions if option in action.option_strings)
    required = [
        word for action in parser._actions if not action.option_strings and action.nargs != "*" for word in ["x"]
    ]
    for action in parser._actions:
        if action.required and action.option_strings and action is not chosen:
            required += [action.option_strings[0], *words_for(action)]
    if command == "convert" and option not in ("--from", "--to"):
        required += ["--from", "marian"]
    underscored = "--" + option[2:].replace("-", "_")
    parsed = []
    for name in (option, underscored):
        values = words_for(chosen)
        parsed.append(parser.parse_args([*required, name, *values]))
        if values:
            parsed.append(parser.parse_args([*required, f"{name}={values[0]}"]))
    assert all(namespace == parsed[0] for namespace in parsed)
    assert getattr(parsed[0], chosen.dest) != chosen.default or chosen.choices


def test_keys_of_a_recipe_keep_their_spelling():
    options, rest = PARSERS["evaluate"].parse_known_args(
        ["m", "--recipe", "r", "--num_beams", "2", "--source_lang", "ko", "--test-split=x", "--max_steps", "3"]
    )
    assert options.num_beams == 2
    assert rest == ["--source_lang", "ko", "--test-split=x", "--max_steps", "3"]


def test_train_takes_its_recipe_as_the_first_word_or_an_option():
    for words in (
        ["tiny", "--max_steps", "3"],
        ["--recipe", "tiny", "--max_steps", "3"],
        ["--recipe=tiny", "--max_steps", "3"],
    ):
        parsed, rest = PARSERS["train"].parse_known_args(words)
        assert train._recipe_and_settings(parsed.recipe, rest) == ("tiny", ["--max_steps", "3"])
    parsed, rest = PARSERS["train"].parse_known_args(["--max_steps", "3", "--rec", "x", "--print_recipe"])
    assert train._recipe_and_settings(parsed.recipe, rest) == (None, ["--max_steps", "3", "--rec", "x"])
    assert parsed.print_recipe is True


def test_train_help_lists_every_key_with_its_default():
    text = PARSERS["train"].format_help()
    for line in (
        "--max-tokens-per-batch (25000)",
        "--held-out-pairs (0)",
        "--average-last (0)",
        "--eval-steps (unset)",
    ):
        assert f"  {line}" in text
    assert "Text:" in text and "Batches:" in text and "transformers' Trainer" in text


def test_print_recipe_prints_yaml_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for side in ("en", "ko"):
        (tmp_path / f"my.{side}").write_text("".join(f"{side} {number}\n" for number in range(60)))
    assert main(["train", "--train-source", "my.en", "--train-target", "my.ko", "--print-recipe"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["preset"] == "tiny" and printed["held_out_pairs"] == 12 and printed["output_dir"] == "runs/my"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.en", "my.ko"]


def test_defaults_and_choices_in_help_texts_are_those_of_the_functions():
    parameters = inspect.signature(translate_texts).parameters
    assert options.INFERENCE_PRECISIONS == INFERENCE_PRECISIONS
    for name, default in options.DEFAULTS.items():
        assert default == (parameters[name].default if name in parameters else getattr(BeamSearchConfig(), name))
    assert options.LENGTH_NORMALIZATIONS == LENGTH_NORMALIZATIONS
    assert options.ENGINES == ENGINES
    assert tuple(FORMATS) == translate_command.FORMATS
    assert (convert.SOURCE_FORMATS, convert.RESTORED_FORMATS) == (SOURCE_FORMATS, RESTORED_FORMATS)
    assert ("torch", *convert.EXPORT_FORMATS) == ENGINES
    assert visualize.KINDS == KINDS
    assert train.recipe_names() == package_recipes()


def test_search_options_build_a_search_config():
    parser = PARSERS["translate"]
    assert options.search_settings(parser.parse_args(["m"])) == {}
    words = ["--num-beams", "2", "--length-penalty", "1", "--length-normalization", "power"]
    words += ["--coverage-penalty", "0.2", "--max-extra-tokens", "9"]
    words += ["--min-length", "3", "--min_new_tokens", "2", "--no-repeat-ngram-size", "4"]
    assert BeamSearchConfig(**options.search_settings(parser.parse_args(["m", *words]))) == BeamSearchConfig(
        num_beams=2,
        length_penalty=1.0,
        length_normalization="power",
        coverage_penalty=0.2,
        max_extra_tokens=9,
        min_length=3,
        min_new_tokens=2,
        no_repeat_ngram_size=4,
    )


def test_help_and_version_import_neither_torch_nor_transformers():
    code = (
        "import contextlib, io, sys\nfrom hf_vanilla_transformer.cli import main\n"
        f"for words in [['--version'], ['--help'], *([name, '--help'] for name in {list(COMMANDS)}), ['no-command']]:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main(words)\n"
        "print({'torch', 'transformers', 'numpy', 'datasets', 'yaml', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert run("--version").stdout.startswith(b"vanilla-transformer 0.")


def test_wrong_arguments_and_missing_checkpoints_are_reported_before_torch_is_imported(tmp_path):
    (tmp_path / "file").write_text("not a checkpoint")
    file = str(tmp_path / "file")
    commands = {
        "translate no-such": "there is no directory no-such",
        f"translate {file}": "; it is a file",
        "translate no-such --num-beams x": "--num-beams: x is not a whole number",
        "evaluate no/such/checkpoint": "there is no directory no/such/checkpoint",
        "visualize no-such --source a --output b.html": "there is no directory no-such",
        "push no-such someone/toy": "there is no directory no-such",
        "average no-such --output x": "there is no directory no-such",
        "convert no-such x --to onnx": "there is no file or directory no-such",
        "convert no-such x --to onnx --set a=b": "",
    }
    code = (
        "import sys\nfrom hf_vanilla_transformer.cli import main\n"
        f"assert [main(words.split()) for words in {list(commands)}] == [2] * {len(commands)}\n"
        "print({'torch', 'transformers', 'numpy', 'datasets', 'yaml', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "set()"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == len(commands)
    assert all(message in line for message, line in zip(commands.values(), lines, strict=True)), lines


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_during_the_imports_is_no_traceback(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_vanilla_transformer", "check"],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the background jobs of a shell ignore it
    )
    assert process.stdout.readline() == b"importing\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == b"vanilla-transformer check: interrupted\n" or error.strip().splitlines() == [
        b"vanilla-transformer check: interrupted"
    ]


def test_presets_are_printed_beside_the_numbers_of_the_paper(capsys):
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
        (["train"], "there is nothing to train on; set train_source and train_target"),
        (["train", "--max_steps", "3"], "there is nothing to train on"),  # 3 is not a recipe
        (["train", "tiny", "--recipe", "small"], "two recipes are given, tiny and small; give one of them"),
        (["train", "--recipe", "no-such.yaml"], "there is no recipe no-such.yaml"),
        (["average", "no-such-run", "--output", "x"], "no-such-run"),
        (["demo", "--recipe", "no-such.yaml", "--output", "{tmp}/demo"], "there is no recipe no-such.yaml"),
        (["translate", "{tmp}", "--num-beams", "100000"], "--num-beams: 100000 is not a whole number from 1 to 1,000"),
        (["translate", "{tmp}", "--batch-size", "0"], "--batch-size: 0 is not a whole number from 1 to 100,000"),
        (["translate", "{tmp}", "--length-penalty", "nan"], "--length-penalty: nan is not a number from -100 to 100"),
        (["translate", "{tmp}", "--max-source-tokens", "1" + "0" * 30], "--max-source-tokens: 1000"),
        (["evaluate", "{tmp}", "--num-beams", "-1"], "--num-beams: -1 is not"),
        (["average", "{tmp}", "--output", "x", "--last", "0"], "--last: 0 is not a whole number from 1 to"),
        (
            ["visualize", "{tmp}", "--source", "a", "--output", "x", "--layer", "-1"],
            "--layer: -1 is not a whole number from 0 to",
        ),
        (["tokenizer", "x", "--output", "y", "--vocab-size", "1" + "0" * 30], "--vocab-size: 1000"),
        (
            ["tokenizer", "x", "--output", "y", "--character-coverage", "7"],
            "--character-coverage: 7 is not a number from 0 to 1",
        ),
        (["demo", "--output", "/dev/null/demo"], "/dev/null/demo cannot be used: Not a directory; give another path"),
        (["translate", "{tmp}", "--num-beams", "four"], "--num-beams: four is not a whole number from 1 to 1,000"),
        (["translate", "{tmp}", "--coverage-penalty", "-1"], "--coverage-penalty: -1 is not a number from 0 to 100"),
        (["presets", "--colour"], "unrecognized arguments: --colour; see vanilla-transformer presets --help"),
        (["average", "x"], "the following arguments are required: --output"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_status_2(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main([word.format(tmp=tmp_path) for word in words]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith(f"vanilla-transformer {words[0]}: error: ") and message in error


def test_an_unknown_command_is_one_sentence(capsys):
    assert main(["transalte"]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("vanilla-transformer: error: ") and "transalte" in error and "translate" in error


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("num_beams=4 is too wide", "--num-beams 4 is too wide"),
        ("device='cuda:9' is not available; take 'cpu'", "--device cuda:9 is not available; take 'cpu'"),
        ("more than num_return_sequences=5 (of 4)", "more than --n-best 5 (of 4)"),
        ("length_penalty=0.6, or num_beams=1", "--length-penalty 0.6, or --num-beams 1"),
        ("or raise max_source_tokens", "or raise --max-source-tokens"),
        ("choose an output for the device", "choose an output for the device"),
        ("runs/num_beams=4/model and 'num_beams'", "runs/num_beams=4/model and 'num_beams'"),
        ("model=7 and run=3 and d_model=2", "model=7 and run=3 and d_model=2"),
    ],
)
def test_messages_name_options_and_not_arguments_of_functions(message, expected):
    parsed = build_parser().parse_args(["translate", "m"])
    assert in_option_words(message, parsed) == expected
    assert in_option_words(message, build_parser().parse_args(["average", "m", "--output", "x"])) == message


def test_the_error_of_a_worker_process_is_its_last_line(capsys, monkeypatch):
    class Broken(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield 0
            raise ValueError("my.ko:7 has no text;\n  remove the line")

    loader = torch.utils.data.DataLoader(Broken(), num_workers=1)
    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker process 0") as caught:
        list(loader)
    assert worker_error(str(caught.value)) is not None
    assert worker_error("no traceback") is None

    def fail(_):
        raise caught.value

    monkeypatch.setattr("hf_vanilla_transformer.commands.presets.run", fail)
    assert main(["presets"]) == 2
    assert capsys.readouterr().err == "vanilla-transformer presets: error: my.ko:7 has no text; remove the line\n"


def test_a_bug_in_a_worker_process_keeps_its_traceback(capsys, monkeypatch):
    message = (
        'Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "'
    )
    message += 'x.py", line 3, in f\n    raise RuntimeError("a bug")\nRuntimeError: a bug\n'

    def fail(_):
        raise RuntimeError(message)

    monkeypatch.setattr("hf_vanilla_transformer.commands.presets.run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["presets"])
    message = message.replace("RuntimeError", "UnicodeDecodeError")  # torch cannot raise this one again
    assert main(["presets"]) == 2
    assert capsys.readouterr().err.strip().splitlines() == ["vanilla-transformer presets: error: a bug"]


@pytest.fixture
def translate(monkeypatch, capsysbinary):
    """Run the command in this process; return its status, standard output and standard error."""

    def run_here(model, stdin, *words):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main(["translate", str(model), *map(str, words)])
        said = capsysbinary.readouterr()
        return status, said.out, said.err.decode()

    return run_here


def test_running_out_of_memory_is_one_sentence(checkpoint, translate, monkeypatch):
    def allocate(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2280000000000 bytes.")

    monkeypatch.setattr("hf_vanilla_transformer.translation.translator.paper_beam_search", allocate)
    status, _, error = translate(checkpoint, b"one\n")
    assert status == 2
    last = error.strip().splitlines()[-1]
    assert last == (
        "vanilla-transformer translate: error: out of memory; lower --batch-size (now 64) or --num-beams (now 4)"
    )


def test_a_beam_wider_than_the_vocabulary_is_rejected(checkpoint, translate):
    status, _, error = translate(checkpoint, b"one\n", "--num-beams", 1000)
    assert status == 2 and "--num-beams 1000 is more than the 286 tokens of the vocabulary" in error


def test_translate_reads_byte_order_marks_and_utf_16_as_files_are_read(checkpoint, translate):
    text = "one two\nthree\u00a0one\n"
    status, plain, _ = translate(checkpoint, text.replace("\u00a0", " ").encode(), "--num-beams", 1)
    assert status == 0 and plain.count(b"\n") == 2
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert translate(checkpoint, text.encode(encoding), "--num-beams", 1)[1] == plain
    status, out, error = translate(checkpoint, text.encode("utf-16-le"), "--num-beams", 1)
    assert status == 2 and "looks like UTF-16" in error and out == b""


def test_translate_warns_of_lines_that_are_not_utf_8_and_of_empty_translations(checkpoint, translate, monkeypatch):
    def empty(model, tokenizer, lines, config, **_):
        return (ScoredTranslation("", 0.0) for _ in lines)

    monkeypatch.setattr("hf_vanilla_transformer.translation.stream.translate", empty)
    status, out, error = translate(checkpoint, b"one\ngr\xfcn\nzw\xf6lf\n\n")
    assert status == 0 and out == b"\n" * 4
    assert "2 line(s) are not UTF-8, the first is standard input:2" in error
    assert "warning: 3 of 3 translations are empty" in error


def test_demo_does_not_replace_a_directory_of_other_files(tmp_path, capsys):
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
    validation, test = (
        draw_expressions(split, size, seed=settings["embedded_seed"])
        for split, size in (("validation", 40), ("test", 80))
    )
    layer, head = digit_alignment(model, tokenizer, validation).best()
    found = digit_alignment(model, tokenizer, test)
    text = " ".join(" ".join(lines).split())
    assert f"decoder layer {layer}, head {head} (the best on the validation split)" in text
    assert f"for {found.accuracy[layer, head]:.1%} of {found.digits} Korean digits" in text
    assert f"chance: {found.chance:.1%}" in text
    assert "<!doctype html>" in (output / "attention.html").read_text(encoding="utf-8").lower()
    assert (output / "alignment.png").read_bytes().startswith(b"\x89PNG")
