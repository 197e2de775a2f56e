"""Settings of the process that a context changes and restores: validation, modes, environment.

They change the whole process, so each context holds its lock (`probgen.basics.locking`) while it is open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pyro
import torch
from pyro.poutine import runtime
from torch import nn

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
    """Switch validation off in Pyro and torch, and restore it afterwards, also after an exception."""
    with LOCK:
        _BEFORE.append({name: pyro.settings.get(name) for name in _QUIET})
        try:
            with pyro.settings.context(**_QUIET):
                yield
        finally:
            _BEFORE.pop()


def _restore_in_child() -> None:
    """In a forked process: restore Pyro's state from before the call that another thread was in."""
    if _BEFORE:
        pyro.settings.set(**_BEFORE[0])
    _BEFORE.clear()
    runtime._PYRO_STACK.clear()
    runtime._DIM_ALLOCATOR._stack.clear()


LOCK.in_child(_restore_in_child)


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
def kept_modes(module: nn.Module) -> Iterator[None]:
    """Restore every submodule's train or eval mode afterwards."""
    with LOCK:
        modes = [(part, part.training) for part in module.modules()]
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """No gradients, no validation, modules in eval mode; everything is restored afterwards."""
    with LOCK, kept_modes(module), torch.no_grad(), quiet_pyro():
        module.eval()
        yield


@contextmanager
def same_environment() -> Iterator[None]:
    """Restore the environment variables afterwards."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
