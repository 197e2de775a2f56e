"""Contexts that leave nothing behind: validation, random states, train and eval modes.

What they switch is the process's, so each holds its lock (`probgen.basics.locking`) while it is open.
"""

from __future__ import annotations

import operator
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import pyro
import torch
from pyro.poutine import runtime
from torch import Tensor, nn

from probgen.basics.locking import LOCK

_QUIET = {
    "validate_distributions_pyro": False,
    "validate_distributions_torch": False,
    "validate_infer": False,
    "validate_poutine": False,
}
_BEFORE: list[dict[str, Any]] = []
"""The settings outside each `quiet_pyro` that is open."""


@contextmanager
def quiet_pyro() -> Iterator[None]:
    """Switch Pyro's and torch's validation off, and back to what it was, also after an exception."""
    with LOCK:
        _BEFORE.append({name: pyro.settings.get(name) for name in _QUIET})
        try:
            with pyro.settings.context(**_QUIET):
                yield
        finally:
            _BEFORE.pop()


def _as_outside() -> None:
    """In a forked process: Pyro as it was before the call that another thread was in."""
    if _BEFORE:
        pyro.settings.set(**_BEFORE[0])
    _BEFORE.clear()
    runtime._PYRO_STACK.clear()
    runtime._DIM_ALLOCATOR._stack.clear()


LOCK.in_child(_as_outside)


_CAPTURING = ContextVar("capturing", default=False)


@contextmanager
def capturing() -> Iterator[None]:
    """While a step is being captured: no tensor can be read, and elementwise operations are fused."""
    token = _CAPTURING.set(True)
    try:
        yield
    finally:
        _CAPTURING.reset(token)


def is_capturing() -> bool:
    """Whether a step is being captured."""
    return _CAPTURING.get()


@contextmanager
def fixed_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Run under a seed of its own; the random states are put back afterwards.

    Only the CPU's generator and that of the device are touched: `torch.manual_seed` would reseed
    every GPU, also those whose state nobody puts back.
    """
    on_gpu = device.type == "cuda"
    with LOCK, torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def shift_seed(by: int, device: torch.device) -> None:
    """Other noise, within `fixed_seed`, for each of several processes; 0 changes nothing."""
    if by:
        seed = (torch.default_generator.initial_seed() + by * 2**42) % 2**63
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)


@contextmanager
def fixed_seeds_of_python(seed: int) -> Iterator[None]:
    """Likewise for the generators of `random` and of NumPy, which a user's loader may draw from."""
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
    """The random states of the CPU and, where the device is one, of the GPU."""
    on_gpu = device.type == "cuda"
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None


def set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


@contextmanager
def kept_modes(module: nn.Module) -> Iterator[None]:
    """Put every submodule's train or eval mode back afterwards."""
    with LOCK:
        modes = [(part, part.training) for part in module.modules()]
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """No gradients, no validation, modules in eval mode; everything as it was afterwards."""
    with LOCK, kept_modes(module), torch.no_grad(), quiet_pyro():
        module.eval()
        yield


@contextmanager
def same_environment() -> Iterator[None]:
    """Put the environment variables back afterwards."""
    kept = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept)


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "Storage size calculation overflowed",
)
"""How torch says it where it has no exception of its own."""


@contextmanager
def enough_memory(owner: str, settings: str) -> Iterator[None]:
    """Running out of memory says which settings lower the need.

    Raises:
        MemoryError: in place of torch's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).strip().split("\n")[0]
        out = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not out and not any(words in text for words in _OUT_OF_MEMORY):
            raise
        raise MemoryError(
            f"{owner}: out of memory. Lower {settings}, or use a machine with more. ({text[:200]})"
        ) from error


def as_seed(seed: Any, owner: str) -> int:
    """A seed as an int that leaves room for one a pass.

    Raises:
        TypeError: not an integer.
        ValueError: negative, or from 2**40.
    """
    try:
        value = operator.index(seed)
    except TypeError:
        raise TypeError(f"{owner}: seed must be an int, got {seed!r}.") from None
    if not 0 <= value < 2**40:
        raise ValueError(f"{owner}: seed must be from 0 to 2**40 - 1, got {value}.")
    return value


def as_count(value: Any, name: str, owner: str, least: int = 1, most: int | None = None) -> int:
    """A count as an int; NumPy's integers count.

    Raises:
        ValueError: not an integer, below `least`, or above `most`.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise ValueError(f"{owner}: {name} must be an int of at least {least}, got {value!r}.")
    if most is not None and count > most:
        raise ValueError(f"{owner}: {name} must be at most {most:,}, got {count:,}.")
    return count
