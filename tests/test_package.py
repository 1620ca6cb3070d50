"""The project from outside: version, public names, the cost of imports, wheel and sdist."""

import ast
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from hf_vanilla_transformer.version import TESTED_TRANSFORMERS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "hf_vanilla_transformer"

# The public names: adding one to `__all__` means adding it here, to CHANGELOG.md and to tests/typing.
PUBLIC = {
    "BeamSearchConfig",
    "DataCollatorForTranslation",
    "Ensemble",
    "Int8Config",
    "MBRConfig",
    "Terminology",
    "TokenBudgetSampler",
    "TokenBudgetStream",
    "TranslationMetric",
    "TranslationPipeline",
    "TranslationTokenizers",
    "VanillaTransformerConfig",
    "VanillaTransformerEncoderModel",
    "VanillaTransformerForConditionalGeneration",
    "VanillaTransformerModel",
    "VanillaTransformerPreTrainedModel",
    "VanillaTransformerTrainer",
    "VanillaTransformerTrainingArguments",
    "WordAligner",
    "__version__",
    "align_words",
    "alignment_error_rate",
    "attention_maps",
    "average_checkpoints",
    "check_installation",
    "choose_alignment_head",
    "convert_checkpoint",
    "embedded_corpus",
    "export_checkpoint",
    "freed_memory_kept",
    "generate_with_paper_beam_search",
    "load_engine",
    "paper_beam_search",
    "preset",
    "push_to_hub",
    "quantize",
    "read_recipe",
    "score",
    "score_targets",
    "train",
    "train_tokenizer",
    "translate",
}

# What the top of the repository may contain beside dot files.
TOP_LEVEL = {
    PACKAGE, "benchmarks", "docs", "examples", "tests", "README.md", "pyproject.toml", "model_card.md", "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff", "Makefile", "constraints.txt",
}  # fmt: skip
# Files that runs and builds leave there and git ignores; for where git is not available.
GENERATED = {"runs", "build", "dist", f"{PACKAGE}.egg-info"}


def run_python(code: str, folder: Path, **environment: str) -> str:
    """Run code in a fresh interpreter started in a folder, offline, and return what it printed."""
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


# Version.


def test_version_is_the_same_in_package_citation_and_changelog() -> None:
    version = importlib.import_module(f"{PACKAGE}.version").__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == version
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None and newest[1] == version
    assert importlib.import_module(PACKAGE).__version__ == version


def test_installed_version_is_that_of_the_source() -> None:
    try:
        installed = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here, it runs from its source folder")
    assert installed == importlib.import_module(f"{PACKAGE}.version").__version__


# Public names.


def test_all_lists_the_public_names_and_no_others() -> None:
    names = importlib.import_module(PACKAGE).__all__
    assert len(names) == len(set(names))
    assert set(names) == PUBLIC, "a public name is a decision: list it in PUBLIC here and in CHANGELOG.md"


def test_type_checkers_see_each_public_name_in_the_module_that_defines_it_at_run_time() -> None:
    package = importlib.import_module(PACKAGE)
    tree = ast.parse((ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    declared = {alias.name: node.module for node in imports for alias in node.names}
    assert declared == package._MODULES
    assert {*declared, "__version__"} == set(package.__all__)


def test_every_public_name_can_be_imported_and_is_listed_by_dir() -> None:
    package = importlib.import_module(PACKAGE)
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module(PACKAGE).no_such_name


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / PACKAGE / "py.typed").is_file()


def test_import_alone_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = run_python(f"import sys, {PACKAGE}; print(*sys.modules)", tmp_path, PYTHONPATH=str(ROOT)).split()
    assert PACKAGE in loaded
    assert not {"torch", "transformers", "numpy", "datasets", "evaluate", "matplotlib"} & set(loaded)


def test_a_model_class_loads_neither_data_nor_training_libraries(tmp_path: Path) -> None:
    # A program that only loads a checkpoint does not wait for the libraries of data and training.
    code = f"import sys, {PACKAGE}; {PACKAGE}.VanillaTransformerForConditionalGeneration; print(*sys.modules)"
    loaded = run_python(code, tmp_path, PYTHONPATH=str(ROOT)).split()
    assert "torch" in loaded
    assert not {"datasets", "evaluate", "matplotlib", "transformers.trainer"} & set(loaded)


@pytest.mark.parametrize("imports", [f"torch, transformers, {PACKAGE}", f"{PACKAGE}, torch, transformers"])
def test_the_package_adds_nothing_to_the_import_of_torch_and_transformers(imports: str, tmp_path: Path) -> None:
    plain = run_python("import sys, torch, transformers; print(*sys.modules)", tmp_path).split()
    loaded = run_python(f"import sys, {imports}; print(*sys.modules)", tmp_path, PYTHONPATH=str(ROOT)).split()
    added = {name for name in set(loaded) - set(plain) if not name.startswith(PACKAGE)}
    assert not {name for name in added if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in loaded if name.startswith(f"{PACKAGE}.")} == {
        f"{PACKAGE}.auto_registration",
        f"{PACKAGE}.version",
    }


@pytest.mark.parametrize(
    "imports",
    [
        f"import {PACKAGE}; from transformers import AutoConfig",
        f"import transformers, {PACKAGE}; from transformers import AutoConfig",
        f"import {PACKAGE}; from transformers.models.auto.configuration_auto import AutoConfig",
        f"from {PACKAGE} import preset; from transformers import AutoConfig",
        f"import {PACKAGE}.model.layers_vanilla_transformer; from transformers import AutoConfig",
        f"import {PACKAGE}.model.configuration_vanilla_transformer; from transformers import AutoConfig",
        f"import {PACKAGE}.model.modeling_vanilla_transformer; from transformers import AutoConfig",
        f"import {PACKAGE}; from transformers import AutoModel, AutoConfig",
        f"from transformers import AutoTokenizer, AutoConfig; import {PACKAGE}",
        f"from transformers import AutoModelForSeq2SeqLM, AutoConfig; import {PACKAGE}",
        f"import {PACKAGE}; from transformers import Seq2SeqTrainer, pipeline, AutoConfig",
        f"import {PACKAGE}, importlib.util as i; i.find_spec('transformers'); from transformers import AutoConfig",
        f"import {PACKAGE}, importlib.util as i; i.find_spec('transformers.models.auto.modeling_auto'); "
        "from transformers import AutoConfig",
    ],
)
def test_auto_classes_know_the_model_in_whatever_order_modules_are_imported(imports: str, tmp_path: Path) -> None:
    code = (
        f"{imports}\nimport sys, transformers\n"
        "assert AutoConfig.for_model('vanilla_transformer').model_type == 'vanilla_transformer'\n"
        "from transformers import AutoModel, AutoModelForSeq2SeqLM\n"
        f"from {PACKAGE} import VanillaTransformerConfig as Config\n"
        "print(AutoModel._model_mapping[Config].__name__, AutoModelForSeq2SeqLM._model_mapping[Config].__name__)\n"
        "assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith('hf_vanilla')]\n"
        "for name in ('configuration_auto', 'modeling_auto'):\n"
        "    spec = sys.modules[f'transformers.models.auto.{name}'].__spec__\n"
        "    assert type(spec.loader).__name__ == 'SourceFileLoader'\n"
    )
    printed = run_python(code, tmp_path, PYTHONPATH=str(ROOT))
    assert printed.split() == ["VanillaTransformerModel", "VanillaTransformerForConditionalGeneration"]


# Files.


def test_top_of_the_repository_holds_nothing_unplanned() -> None:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        names = {line.split("/")[0] for line in listed}
    except (OSError, subprocess.CalledProcessError):
        names = {path.name for path in ROOT.iterdir()} - GENERATED
    unplanned = sorted(name for name in names if not name.startswith(".") and name not in TOP_LEVEL)
    assert not unplanned, f"{unplanned} at the top of the repository; move them into a folder of the plan"


def test_constraints_pin_exactly_and_leave_the_build_of_torch_open() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; python_version >= \"3\.\d+\")?", pin), pin
    names = [pin.partition("==")[0].lower() for pin in pins]
    assert len(names) == len(set(names))
    assert "torch" in names and PACKAGE not in names


def copy_sources(folder: Path) -> Path:
    """Copy what a build reads, so that it leaves nothing behind in the repository and finds nothing stale there."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
def test_wheel_and_sdist_are_complete_and_the_wheel_works_from_an_empty_folder(tmp_path: Path) -> None:
    for tool in ("build", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed; it comes with the extra `dev`")
    source = copy_sources(tmp_path / "source")
    output = tmp_path / "dist"
    # Without --wheel or --sdist, build makes the wheel from the sdist: what the sdist lacks, the wheel lacks too.
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (sdist,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    files = {path.relative_to(source).as_posix() for path in (source / PACKAGE).rglob("*") if path.is_file()}
    assert {f"{PACKAGE}/py.typed", f"{PACKAGE}/visualization/page.html", f"{PACKAGE}/visualization/OFL.txt"} <= files

    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert in_sdist >= files | {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        metadata = archive.read(next(name for name in in_wheel if name.endswith(".dist-info/METADATA"))).decode()
    assert in_wheel >= files
    assert {name.split("/")[0] for name in in_wheel if ".dist-info/" not in name} == {PACKAGE}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in in_wheel)
    assert "License-Expression: Apache-2.0 AND OFL-1.1" in metadata

    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True, cwd=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    imported = run_python(
        f"import {PACKAGE} as package\n"
        "for name in package.__all__: getattr(package, name)\n"
        "from transformers import AutoConfig\n"
        "AutoConfig.for_model('vanilla_transformer')\n"
        "print(package.__file__)",
        empty,
        PYTHONPATH=str(site),
    )
    assert Path(imported.strip()).is_relative_to(site)
    command = subprocess.run(
        [sys.executable, str(site / "bin" / "vanilla-transformer"), "--help"],
        cwd=empty,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert command.returncode == 0, command.stderr
    assert "demo" in command.stdout
    assert list(empty.iterdir()) == []


def test_the_releases_that_are_called_tested_are_those_that_the_make_targets_install():
    oldest = re.search(r"^OLDEST_PINS := transformers==(\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    locked = re.search(r"^transformers==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert (oldest[1], locked[1]) == TESTED_TRANSFORMERS
    short = [".".join(release.split(".")[:2]) for release in TESTED_TRANSFORMERS]
    assert f"transformers {short[0]} to {short[1]}" in (ROOT / "README.md").read_text()
    assert f'"transformers>={short[0]},<6"' in (ROOT / "pyproject.toml").read_text()
