"""The types that a user sees: a program that calls every public name passes mypy and pyright in strict mode."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hf_vanilla_transformer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("every_public_name.py")


def check(words: list[str], folder: Path) -> None:
    """Run a type checker from an empty folder, so that no settings of this project apply."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_uses_every_public_name() -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vt"
    }
    assert used == set(hf_vanilla_transformer.__all__)


@pytest.mark.slow
def test_the_program_passes_mypy_in_strict_mode(tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed; it is part of the extra `dev`")
    check([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(PROGRAM)], tmp_path)


@pytest.mark.slow
def test_the_program_passes_pyright(tmp_path: Path) -> None:
    pyright = shutil.which("pyright") or shutil.which("basedpyright")
    if pyright is None:
        pytest.skip("neither pyright nor basedpyright is installed; `pip install basedpyright` needs no Node.js")
    shutil.copy(PROGRAM, tmp_path / "program.py")
    settings = {"include": ["program.py"], "typeCheckingMode": "standard", "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    check([pyright, "--pythonpath", sys.executable, "--level", "error"], tmp_path)
