"""One process at a time trains in a directory; the lock of a process that has ended is taken over."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hf_vanilla_transformer.training import run_lock as module
from hf_vanilla_transformer.training.checkpointing import clear_leftovers
from hf_vanilla_transformer.training.run_lock import LOCK_NAME, RunLockedError, check_not_locked, run_lock


@pytest.fixture
def other():
    """Another running process on this host."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def lock(folder: Path, **changes: object) -> Path:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-02T03:04:05+00:00", "token": "other"}
    (folder / LOCK_NAME).write_text(json.dumps(owner | changes))
    return folder / LOCK_NAME


def test_a_lock_is_held_inside_the_with_block_and_deleted_after_it(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run"):
        owner = json.loads((tmp_path / "run" / LOCK_NAME).read_text())
        assert owner["pid"] == os.getpid() and owner["host"] == socket.gethostname()
        with run_lock(tmp_path / "run"):  # a nested run of the same process
            check_not_locked(tmp_path / "run")
        assert (tmp_path / "run" / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []  # the directory made for it is deleted as well


def test_a_running_process_is_reported_and_its_files_are_kept(tmp_path: Path, other: subprocess.Popen) -> None:
    lock(tmp_path, pid=other.pid, started=psutil.Process(other.pid).create_time())
    (tmp_path / ".checkpoint-7.saving").mkdir()
    message = rf"is in use: process {other.pid} on .* \(since 2026-01-02T03:04:05\+00:00\) is training in it; wait"
    with pytest.raises(RunLockedError, match=message), run_lock(tmp_path):
        pass
    with pytest.raises(RunLockedError, match=message):
        clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".checkpoint-7.saving", LOCK_NAME]


def test_the_lock_of_a_process_that_was_killed_is_taken_over(tmp_path: Path, other: subprocess.Popen) -> None:
    lock(tmp_path, pid=other.pid, started=psutil.Process(other.pid).create_time())
    other.kill()  # without wait() it stays a zombie, as in a container without an init process
    while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    check_not_locked(tmp_path)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_process_id_that_is_reused_is_not_the_owner(tmp_path: Path, other: subprocess.Popen) -> None:
    lock(tmp_path, pid=other.pid, started=psutil.Process(other.pid).create_time() - 3600)
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize(("host", "content"), [("another-host", None), (None, ""), (None, "[]")])
def test_an_owner_on_another_host_counts_as_running_until_its_lock_is_stale(
    tmp_path: Path, host: str | None, content: str | None
) -> None:
    path = lock(tmp_path, host=host)
    if content is not None:  # a lock being written, or half written
        path.write_text(content)
    with (
        pytest.raises(RunLockedError, match="on another-host" if host else "another process is training"),
        run_lock(tmp_path),
    ):
        pass
    silent = time.time() - module._STALE_SECONDS - 60
    os.utime(path, (silent, silent))
    with run_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_running_owner_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOUCH_SECONDS", 0.02)
    with run_lock(tmp_path):
        os.utime(tmp_path / LOCK_NAME, (0, 0))
        deadline = time.monotonic() + 5
        while (tmp_path / LOCK_NAME).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / LOCK_NAME).stat().st_mtime > 0


def test_other_ranks_hold_nothing(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run", holding=False):
        assert not (tmp_path / "run").exists()
