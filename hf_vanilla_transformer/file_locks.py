# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbered locks of one file, which the operating system releases when their process ends, however it ends.

Lock n is a lock on byte n of the file. These are POSIX record locks: forked child processes do not inherit them, so a
killed process loses its locks at once even if its children still run, and they work on NFS.
"""

import errno
import os
import sys
import time
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL_SECONDS = 0.05  # on Windows, where a wait for a lock would end after ten seconds
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class FileLocks:
    """The locks of a file, which is created if it is missing.

    A process may have only one object for a file: closing it releases all its locks of this file.

    Attributes:
        supported: False if the file system has no locks; then every `take` succeeds. Known after the first one.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.supported = True

    def take(self, number: int, *, wait: bool = False) -> bool:
        """Take a lock; return False if another process holds it.

        Args:
            number: which lock, from 0.
            wait: wait until the other process releases it.
        """
        if sys.platform == "win32":
            return self._take_on_windows(number, wait)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                self.supported = False
                return True
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def release(self, number: int) -> None:
        """Release a lock."""
        if not self.supported:
            return
        if sys.platform == "win32":
            os.lseek(self._descriptor, number, os.SEEK_SET)
            msvcrt.locking(self._descriptor, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)

    def is_taken(self, number: int) -> bool:
        """Return whether another process holds a lock; this process must not hold it."""
        if sys.platform != "win32":
            return self._others_hold(number, 1)
        if not self.take(number):
            return True
        self.release(number)
        return False

    def any_taken_from(self, number: int) -> bool:
        """Return whether another process holds this lock or one with a higher number; False on Windows.

        This process must hold none of them.
        """
        return sys.platform != "win32" and self._others_hold(number, 0)

    if sys.platform != "win32":

        def _others_hold(self, number: int, count: int) -> bool:
            """Try shared locks: two processes that look at the same time do not take each other for the holder."""
            if not self.supported:
                return False
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, count, number)
            except OSError:
                return True
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, count, number)
            return False

    def is_file(self, path: Path) -> bool:
        """Return whether a path still is this file, not a new one of the same name."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Release all locks and close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    if sys.platform == "win32":

        def _take_on_windows(self, number: int, wait: bool) -> bool:
            while True:
                try:
                    os.lseek(self._descriptor, number, os.SEEK_SET)
                    msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
                    return True
                except OSError:
                    if not wait:
                        return False
                time.sleep(_POLL_SECONDS)


__all__ = ["FileLocks"]
