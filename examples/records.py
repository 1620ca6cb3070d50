"""What the examples that keep records share: their options, the record's file, the machine, and the table of a page."""

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from hf_vanilla_transformer import __version__


def add_record_options(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Declare the name and description of a record, its folder, and the page that shows all records."""
    parser.add_argument("--name", default="mine", help="of the record")
    parser.add_argument("--text", help="description of what was measured, for the table (default: the name)")
    parser.add_argument("--records", type=Path, default=folder)
    parser.add_argument("--render", type=Path, metavar="PAGE", help="write the table into this page")


def write_record(options: argparse.Namespace, record: dict[str, Any]) -> Path:
    """Write a record to the folder of the options; return the file."""
    options.records.mkdir(parents=True, exist_ok=True)
    path: Path = options.records / f"{options.name}.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read all records of a folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def between(text: str, start: str, end: str, table: str) -> str:
    """Return a page with the table between its markers."""
    return f"{text.split(start)[0]}{start}\n{table}\n{end}{text.split(end)[1]}"


def render_page(options: argparse.Namespace, render: Callable[[str, Path], str]) -> bool:
    """Render the page that the options name; return whether they name one.

    Args:
        options: with those of `add_record_options`.
        render: returns the page with the table of a folder's records.
    """
    if options.render is None:
        return False
    page = options.render.read_text(encoding="utf-8")
    options.render.write_text(render(page, options.records), encoding="utf-8")
    return True


def this_machine() -> dict[str, Any]:
    """Describe processor and versions."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        names = [line for line in cpu_info.read_text(errors="replace").splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"hf_vanilla_transformer": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"processor": name, "cores": cores, "versions": {**versions, "transformers": transformers.__version__}}
