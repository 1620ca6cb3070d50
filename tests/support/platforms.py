"""What differs between operating systems: tests that need POSIX, and the peak memory of this process."""

import os
import sys

import pytest

posix_only = pytest.mark.skipif(
    os.name != "posix", reason="needs POSIX: process groups, fork, resource limits or /dev/null"
)


def peak_memory() -> int:
    """Return the largest resident memory that this process has had, in bytes."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports KiB
