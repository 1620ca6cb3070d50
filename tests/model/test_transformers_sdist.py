"""Downloading transformers' own tests: with and without a package index, and in parallel workers."""

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import transformers_sdist


def make_archive(folder: Path, files: dict[str, str]) -> Path:
    """Write a source distribution with the given files only: path in the distribution → text."""
    archive = folder / "transformers-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as members:
        for name, text in files.items():
            member = tarfile.TarInfo(f"transformers-1.0/{name}")
            member.size = len(text.encode())
            members.addfile(member, io.BytesIO(text.encode()))
    return archive


def test_without_an_index_the_error_contains_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(transformers_sdist.Unavailable, match="No matching distribution found for transformers"):
        transformers_sdist.fetch_tests("5.17.0", tmp_path)


def test_a_failure_holds_for_the_workers_of_one_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def fail(version: str, folder: Path) -> Path:
        attempts.append(version)
        raise transformers_sdist.Unavailable("no index")

    monkeypatch.setattr(transformers_sdist, "_download", fail)
    for run, attempts_so_far in (("first", 1), ("first", 1), ("second", 2)):
        monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", run)
        with pytest.raises(transformers_sdist.Unavailable, match="^no index$"):
            transformers_sdist.fetch_tests("1.0", tmp_path)
        assert len(attempts) == attempts_so_far


def test_only_one_worker_downloads_and_only_test_files_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def download(version: str, folder: Path) -> Path:
        attempts.append(version)
        return make_archive(folder, {"tests/test_modeling_common.py": "x = 1", "tests/a/b.py": "", "src/c.py": ""})

    monkeypatch.setattr(transformers_sdist, "_download", download)
    with ThreadPoolExecutor(4) as workers:
        folders = set(workers.map(lambda _: transformers_sdist.fetch_tests("1.0", tmp_path), range(4)))
    assert attempts == ["1.0"]
    (folder,) = folders
    assert [path.name for path in folder.iterdir()] == ["test_modeling_common.py"]
    assert (folder / "test_modeling_common.py").read_text() == "x = 1"


def test_an_archive_without_the_modeling_tests_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_sdist, "_download", lambda version, folder: make_archive(folder, {"src/a.py": ""}))
    with pytest.raises(transformers_sdist.Unavailable, match="has no tests/test_modeling_common.py"):
        transformers_sdist.fetch_tests("1.0", tmp_path)
    assert not (tmp_path / "transformers-1.0-tests").exists()
