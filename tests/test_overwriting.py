"""An output replaces only an output of this package and of the same kind, and never an input."""

import gzip
import os
from pathlib import Path

import pytest

from hf_vanilla_transformer.overwriting import (
    FOLDERS,
    RECORD_NAME,
    check_file,
    check_folder,
    output_folder,
    write_folder_record,
)


def written(folder: Path, kind: str) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "tokenizer.json").write_text("{}")
    write_folder_record(folder, kind, also=["later.png"])
    return folder


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_replaced_by_its_own_kind_and_no_other(tmp_path: Path, kind: str) -> None:
    folder = written(tmp_path / "out", kind)
    for other in FOLDERS:
        if other == kind:
            check_folder(folder, other, overwrite=True)
            continue
        with pytest.raises(FileExistsError, match=f"out holds {FOLDERS[kind]}, not {FOLDERS[other]} "):
            check_folder(folder, other, overwrite=True)
    with pytest.raises(FileExistsError, match="out already exists; choose another directory or set overwrite"):
        check_folder(folder, kind)


@pytest.mark.parametrize("name", ["thesis.tex", ".git/HEAD", "sub/notes", "empty/"])
def test_a_folder_with_a_foreign_file_is_not_replaced(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "out", "demo")
    (folder / "later.png").touch()
    check_folder(folder, "demo", overwrite=True)  # listed in the record
    path = folder / name
    (path if name.endswith("/") else path.parent).mkdir(exist_ok=True)
    if not name.endswith("/"):
        path.touch()
    with pytest.raises(FileExistsError, match=f"holds other files beside a checkpoint of the demo .*{name.strip('/')}"):
        check_folder(folder, "demo", overwrite=True)


def test_a_folder_without_a_record_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "average"
    folder.mkdir()
    for name in ("averaging.json", "config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    with pytest.raises(FileExistsError, match=r"holds something other than an average .* \(averaging.json, config"):
        check_folder(folder, "average", overwrite=True)
    (folder / RECORD_NAME).write_text('{"kind": ["average"], "files": 7}')  # not written by this package
    with pytest.raises(FileExistsError, match="holds something other than an average"):
        check_folder(folder, "average", overwrite=True)


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", "average")
    source = tmp_path / "text"
    source.write_text("one")
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "soft").symlink_to(source)
    for target in (folder, folder / ".." / "out", tmp_path):
        with pytest.raises(ValueError, match="would replace the source"):
            check_folder(target, "average", inputs=[folder / "sub"] if target != folder else [folder], overwrite=True)
    for name in ("text", "hard", "soft"):
        with pytest.raises(ValueError, match="would replace the source"):
            check_file(tmp_path / name, "translations", inputs=[None, source], overwrite=True)


def test_a_path_that_cannot_be_written_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for check in (lambda path: check_folder(path, "average"), lambda path: check_file(path, "record")):
        with pytest.raises(NotADirectoryError):
            check(tmp_path / "file" / "deeper" / "out")
    with pytest.raises(FileExistsError, match="is a file; choose a directory"):
        check_folder(tmp_path / "file", "average", overwrite=True)
    with pytest.raises(IsADirectoryError, match="is a directory; name a file"):
        check_file(tmp_path, "record", overwrite=True)
    if os.name == "posix" and os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(PermissionError, match="Permission denied"):
            check_file(tmp_path / "closed" / "out", "record")


def test_a_file_is_replaced_by_its_own_kind_when_asked(tmp_path: Path) -> None:
    contents = {
        "record": '{"versions": {"hf_vanilla_transformer": "1"}, "scores": {}}',
        "page": '<meta name="generator" content="hf_vanilla_transformer">',
        "figure": "<!-- Created with matplotlib -->",
        "card": "This card was written by hf_vanilla_transformer",
    }
    for kind, content in contents.items():
        path = tmp_path / kind
        path.write_text(content)
        check_file(path, kind, overwrite=True)
        with pytest.raises(FileExistsError, match="already exists; choose another file or set .*--overwrite"):
            check_file(path, kind)
        path.write_text('{"years": "of work"}')
        with pytest.raises(FileExistsError, match="is not replaced"):
            check_file(path, kind, overwrite=True)
    (tmp_path / "empty").touch()
    check_file(tmp_path / "empty", "record")
    check_file(os.devnull, "record")


def test_compressed_translations_are_replaced_and_other_compressed_files_are_not(tmp_path: Path) -> None:
    path = tmp_path / "out.gz"
    path.write_bytes(gzip.compress(b"a translation\n"))
    check_file(path, "translations", overwrite=True)
    for content in (gzip.compress(b"\0binary"), b"not compressed", gzip.compress(b"truncated")[:-9]):
        path.write_bytes(content)
        with pytest.raises(FileExistsError, match="is not replaced"):
            check_file(path, "translations", overwrite=True)


def test_the_record_lists_the_files_by_relative_path(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", "export")
    text = (folder / RECORD_NAME).read_text()
    assert '"sub/tokenizer.json"' in text and '"later.png"' in text and str(tmp_path) not in text


def test_an_output_folder_appears_with_its_record_or_not_at_all(tmp_path: Path) -> None:
    def write(content: str, fail: bool = False) -> None:
        with output_folder(tmp_path / "out", "export", overwrite=True, also=["later.png"]) as staging:
            (staging / "export.json").write_text(content)
            if fail:
                raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write("half", fail=True)
    assert not list(tmp_path.iterdir())
    write("old")
    with pytest.raises(OSError, match="the disk is full"):
        write("half", fail=True)
    assert (tmp_path / "out" / "export.json").read_text() == "old"
    write("new")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", RECORD_NAME]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
