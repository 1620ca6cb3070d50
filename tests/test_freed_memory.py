# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Freed memory stays in the process while it computes on the CPU, and is returned afterwards."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from hf_vanilla_transformer import freed_memory
from hf_vanilla_transformer.freed_memory import freed_memory_kept
from hf_vanilla_transformer.worker_processes import WorkerProcesses

CPU = torch.device("cpu")
glibc = pytest.mark.skipif(freed_memory._glibc() is None, reason="the C library is not glibc")
# Prints how many pages the operating system had to clear for 20 tensors of 64 MiB, with and without the context.
FAULTS = """
import resource, torch
from hf_vanilla_transformer.freed_memory import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

before = faults()
with freed_memory_kept(torch.device("cpu")) as kept:
    faults()
    inside, size = faults(), resident()
print(kept, before, inside, size - resident(), faults())
"""


def measured(**environment: str) -> list[str]:
    plain = {name: value for name, value in os.environ.items() if name not in freed_memory._VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env={**plain, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@glibc
def test_memory_is_kept_inside_and_returned_afterwards() -> None:
    kept, before, inside, returned, after = measured()
    assert kept == "True"
    # A tensor has 16,384 pages of 4 KiB, or 32 of 2 MiB.
    assert int(inside) < 32 <= int(before)
    assert int(returned) >= 2**26 and int(after) >= 32


def faults_of_large_tensors(_: int) -> int:
    import resource  # Linux and macOS have it

    counts = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.zeros(2**24)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return counts[1]


@glibc
def test_worker_processes_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in freed_memory._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with WorkerProcesses(faults_of_large_tensors, 1) as workers:
        assert list(workers.map([0]))[0] < 32
    monkeypatch.setenv("MALLOC_TOP_PAD_", "131072")  # the user's own setting
    with WorkerProcesses(faults_of_large_tensors, 1) as workers:
        assert list(workers.map([0]))[0] >= 32


@glibc
def test_gaps_between_blocks_are_returned() -> None:
    program = """
import resource, torch
from types import SimpleNamespace
from hf_vanilla_transformer.freed_memory import freed_memory_kept
from hf_vanilla_transformer.training.memory_gaps import GapsReturned

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def gaps_returned(device):
    kept, freed = [], []
    for _ in range(50):
        freed.append(torch.zeros(2**20))
        kept.append(torch.zeros(100))
    freed.clear()
    size = resident()
    GapsReturned().on_save(SimpleNamespace(device=torch.device(device)), None, None)
    return size - resident()

with freed_memory_kept(torch.device("cpu")):
    print(gaps_returned("meta"), gaps_returned("cpu"))
"""
    plain = {name: value for name, value in os.environ.items() if name not in freed_memory._VARIABLES}

    def returned(**environment: str) -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", program], env={**plain, **environment}, capture_output=True, text=True, check=True
        )
        return [int(size) for size in done.stdout.split()]

    elsewhere, here = returned()
    assert elsewhere < 2**24 and here > 100 * 2**20
    assert returned(MALLOC_MMAP_THRESHOLD_="1000000000", MALLOC_TRIM_THRESHOLD_="2000000000")[1] < 2**24


@glibc
def test_what_the_user_has_set_is_left_alone() -> None:
    assert measured(MALLOC_TRIM_THRESHOLD_="100000000")[0] == "False"
    assert measured(GLIBC_TUNABLES="glibc.malloc.tcache_count=7")[0] == "False"


def test_nothing_is_changed_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in freed_memory._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with freed_memory_kept("meta") as kept:
        assert not kept
    with pytest.raises(RuntimeError, match="device type"), freed_memory_kept("processor"):
        pass
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept(CPU) as kept:
        assert not kept
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # a C library other than glibc
    with freed_memory_kept(CPU) as kept:
        assert not kept


def test_the_defaults_come_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    class Malloc:
        def mallopt(self, *arguments: int) -> int:
            calls.append(arguments)
            return 1

        def malloc_trim(self, *arguments: int) -> None:
            calls.append(arguments)

    for name in freed_memory._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(freed_memory, "_glibc", Malloc)
    with pytest.raises(RuntimeError, match="stop"), freed_memory_kept(CPU):
        raise RuntimeError("stop")
    assert calls == [(-3, 2**30), (-1, 2**31 - 1), (-3, 2**25), (-1, 2**26), (0,)]
