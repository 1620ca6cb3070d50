"""Files and directories that are written completely or not at all."""

import gzip
import json
import os
from pathlib import Path

import pytest

from hf_vanilla_transformer.atomic_files import (
    FILES_STAGING,
    rename_into_place,
    replace_files,
    staged_directory,
    staged_file,
    write_json,
    write_text,
)


def fail(*_: object, **__: object) -> None:
    raise OSError("the disk is full")


def test_a_text_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scores.tmp").write_text("mine")
    write_text(tmp_path / "new" / "scores.json", "old\n")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="the disk is full"):
                write_text(tmp_path / "new" / "scores.json", "new\n")
    assert (tmp_path / "new" / "scores.json").read_text() == "old\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.json"]
    assert (tmp_path / "scores.tmp").read_text() == "mine"


def test_a_text_is_written_to_a_device_without_replacing_it(tmp_path: Path) -> None:
    write_text("/dev/null", "gone")
    assert not Path("/dev/null").is_file()


def test_json_is_indented_and_keeps_korean_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "scores.json", {"한국어": 1.0})
    assert (tmp_path / "scores.json").read_bytes() == '{\n  "한국어": 1.0\n}\n'.encode()
    with pytest.raises(TypeError):
        write_json(tmp_path / "scores.json", {"path": tmp_path})
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == {"한국어": 1.0}


def test_files_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / FILES_STAGING).mkdir()  # left by a process that was killed
    (tmp_path / FILES_STAGING / "half").touch()

    def write(folder: str, failing: bool = False) -> None:
        (Path(folder) / "config.json").write_text("new")
        (Path(folder) / "target_tokenizer").mkdir()
        (Path(folder) / "target_tokenizer" / "tokenizer.json").write_text("new")
        if failing:
            fail()

    with pytest.raises(OSError, match="the disk is full"):
        replace_files(tmp_path, lambda folder: write(folder, failing=True))
    assert (tmp_path / "config.json").read_text() == "old"
    replace_files(tmp_path, write)
    found = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"config.json": "new", "target_tokenizer/tokenizer.json": "new", "notes.txt": "mine"}


def test_a_directory_appears_completely_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    for content in ("old", "new"):
        with staged_directory(target) as staging:
            (staging / "file").write_text(content)
            assert not target.exists() or (target / "file").read_text() == "old"
        assert (target / "file").read_text() == content
    with pytest.raises(OSError, match="the disk is full"), staged_directory(target) as staging:
        (staging / "file").write_text("half")
        fail()
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_the_old_directory_comes_back_where_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: fail() if Path(old).name == "new" else rename(old, new))
    with pytest.raises(OSError, match="the disk is full"):
        rename_into_place(tmp_path / "new", tmp_path / "out", tmp_path / ".replaced")
    assert (tmp_path / "out" / "file").read_text() == "out" and not (tmp_path / ".replaced").exists()


@pytest.mark.parametrize("name", ["out.txt", "out.txt.gz"])
def test_a_staged_file_appears_when_it_is_complete_or_not_at_all(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name

    def write(content: bytes, interrupted: bool = False) -> None:
        with staged_file(path) as stream:
            stream.write(content)
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(b"half", interrupted=True)
    assert not list(path.parent.iterdir())
    write(b"old")
    with pytest.raises(KeyboardInterrupt):
        write(b"half", interrupted=True)
    assert (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()) == b"old"
    assert [file.name for file in path.parent.iterdir()] == [name]
    with staged_file(os.devnull) as stream:  # no file that can be replaced
        stream.write(b"nothing")
