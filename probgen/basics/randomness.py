"""Random states: seeds that hold inside a context, and states that are restored.

The generators belong to the process, so each context holds its lock (`probgen.basics.locking`) while
it is open.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from probgen.basics.locking import LOCK


@contextmanager
def fixed_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Use a seed inside the context; the random states are restored afterwards.

    Only the CPU's generator and that of the device are touched: `torch.manual_seed` would reseed
    every GPU, whose states are not restored here.
    """
    on_gpu = device.type == "cuda"
    with LOCK, torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def shift_seed(by: int, device: torch.device) -> None:
    """Within `fixed_seed`: give each of several processes different noise; 0 changes nothing."""
    if by:
        seed = (torch.default_generator.initial_seed() + by * 2**42) % 2**63
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)


@contextmanager
def fixed_seeds_of_python(seed: int) -> Iterator[None]:
    """Use a seed for the generators of `random` and NumPy, from which a user's loader may draw."""
    with LOCK:
        before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numpy_before)  # noqa: NPY002


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The random states of the CPU and, if the device is a GPU, of that GPU."""
    on_gpu = device.type == "cuda"
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None


def set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
