"""Render the table of files in docs/architecture.md from the first line of each module's docstring.

python docs/render_code_map.py            # after adding, moving or renaming a module
python docs/render_code_map.py --check    # exit status 1 if the page does not match the package
"""

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hf_vanilla_transformer"
START, END = "<!-- files:start -->", "<!-- files:end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "architecture.md")
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if the page would change")
    options = parser.parse_args(arguments)
    text = options.page.read_text(encoding="utf-8")
    rendered = render(text)
    if rendered != text and options.check:
        print(f"{options.page.name} does not match the package; run {Path(__file__).name}")
    elif rendered != text:
        options.page.write_text(rendered, encoding="utf-8")
    return int(options.check and rendered != text)


def render(text: str) -> str:
    """Return the page with its table of files rendered again."""
    before, rest = text.split(START)
    return f"{before}{START}\n{code_map()}\n{END}{rest.split(END)[1]}"


def code_map() -> str:
    """Return the table: each module of the package with the first line of its docstring."""
    rows = ["| file | content |", "| --- | --- |"]
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (len(path.relative_to(PACKAGE).parts), path)):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if docstring:
            content = docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            rows.append(f"| `{path.relative_to(PACKAGE).as_posix()}` | {content} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
