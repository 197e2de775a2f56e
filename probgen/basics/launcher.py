"""The processes that a launcher started: torchrun, or Slurm's srun.

Both tell each process by its environment which one it is. Only the environment is read here; the processes
are joined into a group in `probgen.inference.compute.processes`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """What a launcher states about this process.

    Attributes:
        name: the launcher.
        rank: the number of this process among all, from 0.
        size: how many processes there are.
        local_rank: the number of this process among those of its machine, from 0.
    """

    name: str
    rank: int
    size: int
    local_rank: int


def launched(environment: Mapping[str, str] | None = None) -> Launch | None:
    """What a launcher states about this process; `None` without a launcher, or with one process.

    torchrun sets RANK and WORLD_SIZE, srun SLURM_PROCID and SLURM_STEP_NUM_TASKS. A batch script of Slurm
    that does not call srun is one process, even if it asked for several tasks.

    Example:
        >>> launched({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})
        Launch(name='torchrun', rank=1, size=2, local_rank=1)
        >>> launched({}) is None
        True
    """
    given = os.environ if environment is None else environment
    for name, rank, size, local in (
        ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        numbers = [given.get(key, "") for key in (rank, size)]
        if all(number.isdecimal() for number in numbers) and int(numbers[1]) > 1:
            place = given.get(local, "0")
            local_rank = int(place) if place.isdecimal() else 0
            return Launch(name, int(numbers[0]), int(numbers[1]), local_rank)
    return None


def is_first() -> bool:
    """Whether this process is the one that writes and prints: the only process, or the one of rank 0."""
    here = launched()
    return here is None or here.rank == 0
