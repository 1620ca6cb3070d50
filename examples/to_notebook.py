"""Make a notebook of an example whose cells are marked by lines "# %%"; its docstring becomes the first cell.

    python examples/to_notebook.py examples/attention_by_hand.py

Seconds. Writes examples/attention_by_hand.ipynb and says so in its last line.
"""

import ast
import json
import sys
from pathlib import Path

MARK = "# %%\n"


def notebook_of(script: str) -> str:
    """Turn a script into the JSON text of a notebook (format 4.5), the same for the same script."""
    tree = ast.parse(script)
    docstring = ast.get_docstring(tree) or ""
    code = "".join(script.splitlines(keepends=True)[tree.body[0].end_lineno if docstring else 0 :])
    title, _, rest = docstring.partition("\n")
    cells = [{"cell_type": "markdown", "id": "about", "metadata": {}, "source": f"# {title}\n{rest}"}]
    for number, source in enumerate(code.split(MARK)):
        if source.strip():
            cell = {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": source.strip()}
            cells.append({**cell, "execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give one script, e.g. examples/attention_by_hand.py")
    path = Path(sys.argv[1])
    target = path.with_suffix(".ipynb")
    target.write_text(notebook_of(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"to_notebook: {target}")
