"""transformers' own common tests, fetched from its source distribution on the package index.

The wheel has no tests; the source distribution has `tests/test_modeling_common.py`. It is asked for by pip, so from
wherever pip is set up to look, in exactly the version that is installed here, and kept in the user's cache folder.
Two modules that the file imports are missing from the source distribution; empty stand-ins take their place, so that
the modelling tests run and those of generation and export are simply not there.
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

PACKAGE = "transformers_sdist_tests"  # the name the fetched files are imported under; they import each other by dots
PIP_LIMIT = 180  # seconds; ten megabytes and the metadata of one package
# Mixins of modules that the source distribution leaves out: module → class.
STAND_INS = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}


class Unavailable(Exception):
    """The source distribution can't be had here; the message says why."""


def cache_folder() -> Path:
    """Return the folder that keeps what was fetched."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hf_vanilla_transformer"


def fetch_tests(version: str = transformers.__version__, cache: Path | None = None) -> Path:
    """Return the folder with the test files of a transformers release, fetched if the cache doesn't have it.

    Parallel test workers may call it at once: one fetches, the others wait and get the same answer.

    Args:
        version: of transformers.
        cache: where to keep it; None is the user's cache folder.

    Returns:
        A folder that holds `test_modeling_common.py`.

    Raises:
        Unavailable: If pip can't get it, e.g. because no index can be reached.
    """
    cache = cache_folder() if cache is None else cache
    tests = cache / f"transformers-{version}-tests"
    if tests.is_dir():
        return tests
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / f"transformers-{version}.lock"):
            if not tests.is_dir():
                _fetch_once_a_run(version, tests)
    except OSError as error:
        raise Unavailable(f"the cache folder {cache} can't be written: {error}") from error
    return tests


def _fetch_once_a_run(version: str, tests: Path) -> None:
    # All workers of a parallel run must collect the same tests, so a failure holds for the rest of that run.
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
    """Let pip download the source distribution; it also makes the metadata, with the setuptools here if it can."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--timeout", "15", "--no-deps", "--no-binary", "transformers", "--dest", str(folder)]
    reason = ""
    for isolation in (["--no-build-isolation"], []):  # without isolation nothing else has to be downloaded
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
        Unavailable: As `fetch_tests`.
    """
    if PACKAGE not in sys.modules:
        folder = fetch_tests()
        package = ModuleType(PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[PACKAGE] = package
        for path, mixin in STAND_INS.items():
            _add_stand_in(f"{PACKAGE}.{path}", mixin)
    return importlib.import_module(f"{PACKAGE}.{name}")


def _add_stand_in(name: str, mixin: str) -> None:
    package = ModuleType(name.rpartition(".")[0])
    package.__path__ = []
    module = ModuleType(name)
    setattr(module, mixin, type(mixin, (), {}))
    sys.modules[package.__name__] = package
    sys.modules[name] = module
