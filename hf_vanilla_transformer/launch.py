# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Which of several processes this is: read what accelerate, torchrun and MPI set in the environment."""

import os
from dataclasses import dataclass

# The same variables as accelerate.state reads.
_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_WORLD_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANK = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")


@dataclass(frozen=True)
class Launch:
    """One process of those that were started together.

    Attributes:
        rank: its number among all processes, from 0.
        processes: number of all processes.
        local_rank: its number among those of this machine, from 0.
    """

    rank: int = 0
    processes: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which shows the progress."""
        return self.rank == 0


def current_launch() -> Launch:
    """Return the place of this process; a process that was started alone is 0 of 1."""
    rank, processes = _number(_RANK, 0), _number(_WORLD_SIZE, 1)
    if not 0 <= rank < processes:  # left over from something else
        return Launch()
    return Launch(rank, processes, max(0, _number(_LOCAL_RANK, 0)))


def check_one_process(command: str) -> None:
    """Check that a command was started once.

    Args:
        command: its name, for the message.

    Raises:
        ValueError: If accelerate or torchrun started several processes.
    """
    if (processes := current_launch().processes) > 1:
        raise ValueError(
            f"{command} runs in one process, but {processes} were started; leave out accelerate launch or torchrun"
        )


def _number(names: tuple[str, ...], default: int) -> int:
    for name in names:
        value = os.environ.get(name, "")
        if value.lstrip("-").isdecimal() and int(value) >= 0:
            return int(value)
    return default


__all__ = ["Launch", "check_one_process", "current_launch"]
