"""Download transformers' own common tests, which are in its source distribution.

The wheel has no tests; the source distribution has `tests/test_modeling_common.py`. pip downloads the version that is
installed, from the configured index, and it is kept in the user's cache folder. Two modules that the file imports are
missing from the source distribution. Empty modules replace them, so that the modeling tests run without those of
generation and export.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import filelock
import transformers

PACKAGE = "transformers_sdist_tests"  # name under which the files are imported; they use relative imports
PIP_LIMIT = 180  # seconds; ten megabytes and the metadata of one package
# Mixins of modules that are missing from the source distribution: module → class.
EMPTY_MODULES = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}


class Unavailable(Exception):
    """The source distribution is not available; the message contains the reason."""


def cache_folder() -> Path:
    """Return the folder in which downloaded tests are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hf_vanilla_transformer"


def fetch_tests(version: str = transformers.__version__, cache: Path | None = None) -> Path:
    """Return the folder with the test files of a transformers release; download them if they are not cached.

    Parallel test workers can call it at the same time: one downloads, the others wait and get the same result.

    Args:
        version: version of transformers.
        cache: where to keep it; None is the user's cache folder.

    Returns:
        A folder with `test_modeling_common.py`.

    Raises:
        Unavailable: If pip cannot download it, e.g. because no index is reachable.
    """
    cache = cache_folder() if cache is None else cache
    tests = cache / f"transformers-{version}-tests"
    if tests.is_dir():
        return tests
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / f"transformers-{version}.lock"):
            if not tests.is_dir():
                _fetch_once_per_run(version, tests)
    except OSError as error:
        raise Unavailable(f"cannot write to the cache folder {cache}: {error}") from error
    return tests


def _fetch_once_per_run(version: str, tests: Path) -> None:
    # All workers of a parallel run must collect the same tests, so a failure is final for that run.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    failure = tests.with_suffix(".failure")
    if run and failure.is_file():
        failed_run, _, reason = failure.read_text(encoding="utf-8").partition("\n")
        if failed_run == run:
            raise Unavailable(reason)
    try:
        _fetch(version, tests)
    except Unavailable as error:
        failure.write_text(f"{run}\n{error}", encoding="utf-8")
        raise
    failure.unlink(missing_ok=True)


def _fetch(version: str, tests: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tests.parent) as scratch:
        archive = _download(version, Path(scratch))
        unpacked = Path(scratch) / "tests"
        unpacked.mkdir()
        with tarfile.open(archive) as members:
            for member in members:
                path = Path(member.name)
                if member.isfile() and path.parts[1:-1] == ("tests",) and path.suffix == ".py":
                    (unpacked / path.name).write_bytes(members.extractfile(member).read())
        if not (unpacked / "test_modeling_common.py").is_file():
            raise Unavailable(f"{archive.name} has no tests/test_modeling_common.py")
        unpacked.rename(tests)


def _download(version: str, folder: Path) -> Path:
    """Download the source distribution with pip, which also builds its metadata."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--timeout", "15", "--no-deps", "--no-binary", "transformers", "--dest", str(folder)]
    reason = ""
    for isolation in (["--no-build-isolation"], []):  # without isolation pip uses the installed setuptools
        try:
            process = subprocess.run(
                [*command, *isolation, f"transformers=={version}"],
                capture_output=True,
                text=True,
                timeout=PIP_LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"pip could not download transformers=={version}: {error}") from error
        if process.returncode == 0:
            break
        lines = [line for line in process.stderr.splitlines() if line.startswith("ERROR")] or [process.stderr.strip()]
        reason = lines[-1]
        if "No matching distribution" in reason:
            break
    archives = list(folder.glob("transformers-*.tar.gz"))
    if not archives:
        raise Unavailable(f"pip could not download the source distribution of transformers=={version}: {reason}")
    return archives[0]


def import_tests(name: str) -> ModuleType:
    """Import one of transformers' test files, e.g. "test_modeling_common".

    Raises:
        Unavailable: See `fetch_tests`.
    """
    if PACKAGE not in sys.modules:
        folder = fetch_tests()
        package = ModuleType(PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[PACKAGE] = package
        for path, mixin in EMPTY_MODULES.items():
            _add_empty_module(f"{PACKAGE}.{path}", mixin)
    return importlib.import_module(f"{PACKAGE}.{name}")


def _add_empty_module(name: str, mixin: str) -> None:
    package = ModuleType(name.rpartition(".")[0])
    package.__path__ = []
    module = ModuleType(name)
    setattr(module, mixin, type(mixin, (), {}))
    sys.modules[package.__name__] = package
    sys.modules[name] = module
