"""The guided tour in both languages: every block runs, prints what the page says, and both pages run the same code."""

import argparse
import ast
import contextlib
import io
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from hf_vanilla_transformer.cli import build_parser

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PAGES = ("README.md", "README.ko.md")
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """List a page's code with the output that is shown below it."""
    return [(code, shown or "") for code, shown in BLOCK.findall((EXAMPLES / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_prints_what_the_page_shows(page: str) -> None:
    found = blocks(page)
    assert len(found) >= 13
    names: dict[str, object] = {}
    for number, (code, shown) in enumerate(found, start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page}, block {number}", "exec"), names)
        assert printed.getvalue() == shown, f"{page}, block {number}"


def test_both_languages_run_the_same_code() -> None:
    def without_comments(code: str) -> str:
        return re.sub(r"\s*#.*", "", code)

    english, korean = ([(without_comments(code), shown) for code, shown in blocks(page)] for page in PAGES)
    assert english == korean


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_the_page_names_is_there(page: str) -> None:
    text = (EXAMPLES / page).read_text(encoding="utf-8")
    named = re.findall(r"(?:examples|hf_vanilla_transformer)/[\w/]+\.py", text)
    assert all((EXAMPLES.parent / name).is_file() for name in named), named
    linked = re.findall(r"\]\(([^)]+)\)", text)
    assert all((EXAMPLES / name).is_file() for name in linked), linked
    # The path leads past every example that a newcomer is meant to run; the rest are tools.
    tools = {"render_results.py", "to_notebook.py", "scaling_formulas.py", "records.py"}
    scripts = {f"examples/{path.name}" for path in EXAMPLES.glob("*.py") if path.name not in tools}
    assert scripts | {"examples/compare_with_rnn/run.py"} <= set(named)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_the_page_is_understood(page: str) -> None:
    commands = re.findall(r"`vanilla-transformer ([^`]+)`", (EXAMPLES / page).read_text(encoding="utf-8"))
    assert any(command.startswith("visualize ") for command in commands)
    for command in commands:
        build_parser().parse_args(shlex.split(command))  # raises UsageError if it is wrong


def test_the_examples_head_says_how_to_run_what_the_page_says() -> None:
    # "`python examples/scan.py SCAN/simple`" on the page stands in the script's docstring as well.
    commands = re.findall(
        r"`python (examples/[\w/]+\.py)([^`]*)`", (EXAMPLES / "README.md").read_text(encoding="utf-8")
    )
    assert len(commands) >= 11
    for script, arguments in commands:
        docstring = ast.get_docstring(ast.parse((EXAMPLES.parent / script).read_text(encoding="utf-8"))) or ""
        assert f"python {script}{arguments}" in docstring, script


class Parsed(Exception):
    """The arguments of a script were accepted."""


@pytest.mark.parametrize("page", PAGES)
def test_every_script_accepts_the_arguments_on_the_page(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_known_args

    def stop_after_parsing(self, *words, **names):
        parse(self, *words, **names)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop_after_parsing)
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script that Python runs
    commands = re.findall(r"`python (examples/[\w/]+\.py)([^`]*)`", (EXAMPLES / page).read_text(encoding="utf-8"))
    assert len(commands) >= 11
    for script, arguments in commands:
        source = (EXAMPLES.parent / script).read_text(encoding="utf-8")
        if "argparse" not in source:  # the two that run in seconds, which test_teaching_examples runs
            assert len(arguments.split()) == source.count("sys.argv[1]"), script
            continue
        monkeypatch.setattr(sys, "argv", [script, *arguments.split()])
        with pytest.raises(Parsed):  # SystemExit if an argument is missing or unknown
            runpy.run_path(str(EXAMPLES.parent / script), run_name="__main__")


@pytest.mark.parametrize("page", PAGES)
def test_the_claims_have_the_numbers_that_were_measured(page: str) -> None:
    text = (EXAMPLES / page).read_text(encoding="utf-8")
    claims = json.loads((EXAMPLES / "results" / "claims" / "results.json").read_text(encoding="utf-8"))["claims"]
    speed, length, depth = (claims[f"claim_{number}"] for number in (1, 2, 4))
    fall, quality = length["change_within_training_lengths"], depth["quality"]
    measured = [
        [speed["by_length"]["rnn+attention"]["8"], speed["number"], speed["by_length"]["rnn"]["256"]],
        [length["number"], -fall["rnn"], round(length["beyond"]["transformer"], 2)],
        [
            quality[f"{kind} + {kind.split()[-1]} layers"]
            for kind in ("post-norm, 2", "post-norm, 12", "large start, 12", "pre-norm, 12")
        ],
        [claims["claim_7"]["number"], quality["post-norm, 2 + 2 layers"]],
    ]
    table = text[text.index("(results/claims/results.json)") :]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:6]
    for row, numbers in zip(rows, measured, strict=True):
        assert not [number for number in numbers if f"{number:g}" not in row], row
