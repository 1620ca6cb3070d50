"""The floor plan, checked by walking every import: a floor imports only lower floors, examples use public names only.

`check_package` and `check_examples` return one line per violation, `file:line: what is wrong`; the second half of this
file gives them bad samples, to prove that they can fail.
"""

import ast
import importlib
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "hf_vanilla_transformer"

# Each file or folder directly under the package and its floor. A new one needs a floor here.
FLOORS = {
    "model": 0,
    "version": 0,
    "json_object": 0,
    "languages": 0,
    "atomic_files": 0,
    "overwriting": 0,
    "file_locks": 0,
    "launch": 0,
    "plausibility": 0,
    "device": 0,
    "freed_memory": 0,
    "worker_processes": 0,
    "hub_access": 0,
    "messages": 1,
    "presets": 1,
    "auto_registration": 1,
    "metrics": 1,
    "inference": 1,
    "data": 1,
    "checkpoints": 1,
    "alignment": 2,
    "minimum_bayes_risk": 2,
    "conversion": 2,
    "export": 2,
    "translation": 3,
    "visualization": 4,
    "model_card": 4,
    "hub": 5,
    "training": 6,
    "self_check": 7,
    "commands": 8,
    "cli": 9,
    "__main__": 9,
    "__init__": 10,  # the public names: it may import everything, and no module of the package imports it
}
# The command line: what its modules import at import time is what `--help` waits for.
COMMAND_LINE = {"cli": {"version", "commands"}, "commands": {"version", "commands"}}
# The files among them: together they count as one folder, the top of the package.
TOP_FILES = {
    "version", "json_object", "atomic_files", "overwriting", "plausibility", "device", "freed_memory",
    "worker_processes",
    "inference", "presets", "auto_registration", "metrics", "model_card", "cli",
    "__main__", "__init__", "languages", "hub_access", "messages",
    "file_locks", "launch",
}  # fmt: skip
FLOOR_0_LIBRARIES = {"torch", "transformers"}
FURTHER_LIBRARIES = {"hub_access": {"huggingface_hub"}}
SIBLING = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*_vanilla_transformer")


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        line: The line of the import, from 1.
        module: The module in full, relative dots resolved; "" where the dots lead out of the package.
        name: What is taken from it; None for `import module`.
        relative_level: The number of leading dots.
        written_module: The module as written after those dots.
        at_import_time: False inside a function, which runs later or never, and under `if TYPE_CHECKING:`.
    """

    line: int
    module: str
    name: str | None
    relative_level: int
    written_module: str
    at_import_time: bool


def imports_of(path: Path, package_parts: list[str]) -> Iterator[Import]:
    """Yield every import of a file, at any depth, `importlib.import_module("...")` included.

    Args:
        path: The file.
        package_parts: The package that holds the file, e.g. ["hf_vanilla_transformer", "data"].
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    later = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    later += [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    deferred = {id(inner) for node in later for inner in ast.walk(node)}

    def resolve(level: int, module: str) -> str:
        if level == 0:
            return module
        parents = package_parts[: len(package_parts) - (level - 1)] if level <= len(package_parts) else []
        return ".".join([*parents, *module.split(".")]).rstrip(".") if parents else ""

    for node in ast.walk(tree):
        now = id(node) not in deferred
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None, 0, alias.name, now)
        elif isinstance(node, ast.ImportFrom):
            written = node.module or ""
            for alias in node.names:
                yield Import(node.lineno, resolve(node.level, written), alias.name, node.level, written, now)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                written = node.args[0].value.lstrip(".")
                level = len(node.args[0].value) - len(written)
                yield Import(node.lineno, resolve(level, written), None, level, written, now)


def part_of(item: Import, parts: Collection[str]) -> str:
    """Name the file or folder under the package that an import of the package reaches; "__init__" for itself."""
    path = item.module.split(".")[1:]
    if path:
        return path[0]
    return item.name if item.name in parts else "__init__"


def check_package(package: Path) -> list[str]:
    """List the violations of the floor plan in a package folder."""
    files = sorted(package.rglob("*.py"))
    parts = {path.relative_to(package).parts[0].removesuffix(".py") for path in files} | set(FLOORS)
    violations: list[str] = []
    for path in files:
        inside = path.relative_to(package)
        own = inside.parts[0].removesuffix(".py")
        folder = own if len(inside.parts) > 1 else ""
        where = f"{package.name}/{inside.as_posix()}"
        if own not in FLOORS:
            violations.append(f"{where}:1: {own} has no floor; give it one in FLOORS of tests/test_floors.py")
            continue
        if folder == "model" and (
            len(inside.parts) > 2 or not (inside.stem == "__init__" or SIBLING.fullmatch(inside.stem))
        ):
            violations.append(f"{where}:1: model/ is flat and its files are named x_vanilla_transformer.py")
        for item in imports_of(path, [PACKAGE, *inside.parts[:-1]]):
            for message in violations_of(item, own, folder, parts):
                violations.append(f"{where}:{item.line}: {message}")
    return violations


def violations_of(item: Import, own: str, folder: str, parts: Collection[str]) -> Iterator[str]:
    """Yield the violations of one import in the file or folder `own`; `folder` is "" for a file at the top."""
    library = item.module.partition(".")[0]
    if not library:
        yield "the dots of this import lead out of the package"
        return
    if library in {"examples", "tests"}:
        yield f"the package never imports {library}"
        return
    if folder == "model" and library == PACKAGE:
        # transformers collects remote code by these very words, and puts all of it into one folder.
        if item.relative_level != 1 or not SIBLING.fullmatch(item.written_module) or item.name in {None, "*"}:
            yield "floor 0 reaches its siblings by `from .x_vanilla_transformer import Y` only"
        return
    libraries = sys.stdlib_module_names | FLOOR_0_LIBRARIES | FURTHER_LIBRARIES.get(own, set())
    if FLOORS[own] == 0 and library != PACKAGE and library not in libraries:
        yield f"floor 0 imports the standard library, torch, transformers and its siblings only, not {library}"
    if own in COMMAND_LINE and item.at_import_time:
        cheap = library == PACKAGE and part_of(item, parts) in COMMAND_LINE[own]
        if not cheap and library not in sys.stdlib_module_names:
            yield f"{own} imports {item.module} inside the function that needs it, so that --help stays fast"
    if library != PACKAGE:
        return
    target = part_of(item, parts)
    if target not in FLOORS:
        yield f"{PACKAGE}.{target} does not exist or has no floor"
        return
    # A file at the top of the package is no folder of its own: top files of one floor are neighbours.
    target_folder = "" if target in TOP_FILES else target
    same_folder = folder == target_folder and (folder == "" or own == target)
    if FLOORS[target] > FLOORS[own]:
        reason = (
            "import from the module that defines the name" if target == "__init__" else "only lower floors are open"
        )
        yield f"{own} (floor {FLOORS[own]}) imports {target} (floor {FLOORS[target]}); {reason}"
    elif FLOORS[target] == FLOORS[own] and not same_folder:
        yield f"{own} and {target} share floor {FLOORS[own]} in different folders and may not import each other"


def check_examples(examples: Path, public_names: Collection[str] | None) -> list[str]:
    """List the imports of examples that reach behind the public names.

    Args:
        examples: The folder.
        public_names: The package's `__all__`; None leaves the names themselves unchecked.
    """
    violations: list[str] = []
    for path in sorted(examples.rglob("*.py")):
        where = f"{examples.name}/{path.relative_to(examples).as_posix()}"
        for item in imports_of(path, [examples.name, *path.relative_to(examples).parts[:-1]]):
            library = item.module.partition(".")[0]
            if library == "tests":
                violations.append(f"{where}:{item.line}: examples never import tests")
            elif library == PACKAGE and item.module != PACKAGE:
                violations.append(
                    f"{where}:{item.line}: {item.module} is not public; write `from {PACKAGE} import ...`"
                )
            elif library == PACKAGE and item.name is not None:
                public = item.name not in {*FLOORS, "*"} and (
                    item.name == "__version__" or not item.name.startswith("_")
                )
                if not public or (public_names is not None and item.name not in public_names):
                    violations.append(f"{where}:{item.line}: {item.name} is not a public name of {PACKAGE}")
    return violations


# The project itself.


def test_every_floor_of_the_package_imports_only_lower_floors() -> None:
    files = list((ROOT / PACKAGE).rglob("*.py"))
    assert files, "the package has no files to check"
    violations = check_package(ROOT / PACKAGE)
    assert not violations, "\n" + "\n".join(violations)


@pytest.mark.parametrize("folder", ["examples", "benchmarks"])
def test_examples_and_benchmarks_use_public_names_only(folder: str) -> None:
    public_names = getattr(importlib.import_module(PACKAGE), "__all__", None)
    violations = check_examples(ROOT / folder, public_names)
    assert not violations, "\n" + "\n".join(violations)


# The checker itself.

SOUND_PACKAGE = {
    "__init__.py": "from .model.configuration_vanilla_transformer import Config\nfrom . import presets\n",
    "version.py": "__version__ = '1'\n",
    "model/__init__.py": "",
    "model/configuration_vanilla_transformer.py": "import math\nfrom transformers import PretrainedConfig as Config\n",
    "model/modeling_vanilla_transformer.py": (
        "import torch.nn as nn\nfrom .configuration_vanilla_transformer import Config, OTHER\n"
    ),
    "presets.py": "from .model.configuration_vanilla_transformer import Config\n",
    "model_card.py": "from .presets import preset\nfrom .version import __version__\n",
    "data/__init__.py": "from .corpora import Corpus\n",
    "data/corpora.py": "import datasets\nfrom ..model.configuration_vanilla_transformer import Config\n",
    "training/trainer.py": (
        "from hf_vanilla_transformer.data import Corpus\nfrom .guards import guard\nfrom .. import presets\n"
    ),
    "training/guards.py": "",
    "visualization/maps.py": "from ..data.corpora import Corpus\n",
    "commands/train.py": (
        "import argparse\nfrom typing import TYPE_CHECKING\nfrom ..version import __version__\n"
        "from .options import option\nif TYPE_CHECKING:\n    from ..presets import preset\n"
        "def run():\n    import torch\n    from ..training.trainer import Trainer\n"
    ),
    "commands/options.py": "import argparse\n",
    "cli.py": "import argparse\nfrom .commands import train\nfrom .version import __version__\n",
    "__main__.py": "from .cli import main\n",
}


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    """Write files, given by their path inside the folder, and return the folder."""
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return folder


def test_a_sound_package_has_no_violations(tmp_path: Path) -> None:
    assert check_package(write_tree(tmp_path / PACKAGE, SOUND_PACKAGE)) == []


MODEL_FILE = "model/layers_vanilla_transformer.py"


@pytest.mark.parametrize(
    ("file", "source", "line", "message"),  # {presets} in a message is the floor of presets
    [
        (
            "presets.py",
            "\nfrom .training.trainer import T\n",
            2,
            "presets (floor {presets}) imports training (floor {training})",
        ),
        ("presets.py", "from . import training\n", 1, "imports training (floor {training}); only lower floors"),
        ("presets.py", "import hf_vanilla_transformer.cli\n", 1, "imports cli (floor {cli})"),
        ("presets.py", "def f():\n    from .hub.push import p\n", 2, "imports hub (floor {hub})"),
        ("presets.py", "if TYPE_CHECKING:\n    from .hub import p\n", 2, "imports hub (floor {hub})"),
        (
            "presets.py",
            "import importlib\nimportlib.import_module('.hub', __package__)\n",
            2,
            "imports hub (floor {hub})",
        ),
        (
            "presets.py",
            "from hf_vanilla_transformer import Config\n",
            1,
            "import from the module that defines the name",
        ),
        ("presets.py", "from . import Config\n", 1, "imports __init__ (floor {__init__})"),
        ("presets.py", "from .data.corpora import Corpus\n", 1, "presets and data share floor {data}"),
        ("data/corpora.py", "from ..metrics import t\n", 1, "data and metrics share floor {data}"),
        ("data/corpora.py", "from ..checkpoints.loading import k\n", 1, "data and checkpoints share floor {data}"),
        ("conversion/convert.py", "from ..export import v\n", 1, "conversion and export share floor {export}"),
        ("training/trainer.py", "from ..cli import main\n", 1, "training (floor {training}) imports cli (floor {cli})"),
        ("training/trainer.py", "from ...outside import x\n", 1, "lead out of the package"),
        ("training/trainer.py", "import tests.reference\n", 1, "the package never imports tests"),
        ("data/corpora.py", "from examples.demo import x\n", 1, "the package never imports examples"),
        ("data/corpora.py", "from ..nowhere import x\n", 1, "nowhere does not exist or has no floor"),
        ("helpers.py", "x = 1\n", 1, "helpers has no floor"),
        ("extras/thing.py", "x = 1\n", 1, "extras has no floor"),
        ("cli.py", "import sys\nimport torch\n", 2, "cli imports torch inside the function"),
        ("cli.py", "from .presets import preset\n", 1, "inside the function"),
        ("commands/train.py", "import argparse\nimport torch\n", 2, "commands imports torch inside the function"),
        ("commands/train.py", "from ..training.run import train\n", 1, "inside the function"),
        ("version.py", "import yaml\n", 1, "not yaml"),
        (MODEL_FILE, "import math\nimport numpy as np\n", 2, "not numpy"),
        (MODEL_FILE, "def f():\n    from datasets import Dataset\n", 2, "not datasets"),
        (MODEL_FILE, "from ..presets import preset\n", 1, "by `from .x_vanilla_transformer import Y` only"),
        (MODEL_FILE, "from . import configuration_vanilla_transformer\n", 1, "import Y` only"),
        (MODEL_FILE, "from .configuration_vanilla_transformer import *\n", 1, "import Y` only"),
        (MODEL_FILE, "from .configuration import Config\n", 1, "import Y` only"),
        (MODEL_FILE, "import hf_vanilla_transformer.model.configuration_vanilla_transformer\n", 1, "import Y` only"),
        ("model/layers.py", "x = 1\n", 1, "model/ is flat"),
        ("model/sub/layers_vanilla_transformer.py", "x = 1\n", 1, "model/ is flat"),
    ],
)
def test_a_broken_file_is_reported_with_its_line(
    tmp_path: Path, file: str, source: str, line: int, message: str
) -> None:
    violations = check_package(write_tree(tmp_path / PACKAGE, SOUND_PACKAGE | {file: source}))
    assert len(violations) == 1, violations
    assert violations[0].startswith(f"{PACKAGE}/{file}:{line}: ")
    assert message.format(**FLOORS) in violations[0]


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("import hf_vanilla_transformer\n", True),
        ("from hf_vanilla_transformer import preset\n", True),
        ("from transformers import AutoTokenizer\n", True),
        ("import hf_vanilla_transformer.presets\n", False),
        ("from hf_vanilla_transformer.presets import preset\n", False),
        ("from hf_vanilla_transformer import presets\n", False),
        ("from hf_vanilla_transformer import *\n", False),
        ("from hf_vanilla_transformer import _private\n", False),
        ("from hf_vanilla_transformer import unknown\n", False),
        ("from tests.reference_transformer import x\n", False),
    ],
)
def test_an_example_may_use_public_names_and_nothing_else(tmp_path: Path, source: str, allowed: bool) -> None:
    examples = write_tree(tmp_path / "examples", {"claims/run.py": f"import json\n{source}"})
    violations = check_examples(examples, ["preset"])
    assert [line.startswith("examples/claims/run.py:2: ") for line in violations] == ([] if allowed else [True])
