"""The guided tour in both languages: every block runs, prints what the page says, and both pages run the same code."""

import contextlib
import io
import re
from pathlib import Path

import pytest

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
    for name in re.findall(r"`(?:python )?(examples/[\w/.]+\.py|hf_vanilla_transformer/[\w/.]+\.py)`", text):
        assert (EXAMPLES.parent / name).is_file(), name
