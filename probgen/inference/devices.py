"""Where and how precisely to compute: the device, the dtype and the random state."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from probgen.pair import LatentVariableModel, quiet_pyro

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def as_device(device: str | torch.device) -> torch.device:
    """`"auto"` is the GPU where there is one, otherwise the CPU.

    Raises:
        ValueError: an unknown device, or one that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f'device={device!r} is not available on this machine; use "auto" or "cpu".'
        ) from error
    return chosen


def as_dtype(precision: str) -> torch.dtype:
    """The dtype that a precision names.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown; use {' or '.join(PRECISIONS)}.")
    return PRECISIONS[precision]


def placed(pair: LatentVariableModel, device: torch.device, dtype: torch.dtype) -> LatentVariableModel:
    """The pair itself where it already is on that device and of that dtype, otherwise a copy."""
    tensors = [*pair.parameters(), *pair.buffers()]
    floating = (t for t in tensors if t.is_floating_point())
    if all(same_device(t.device, device) and t.dtype == dtype for t in floating):
        return pair
    return copy.deepcopy(pair).to(device=device, dtype=dtype)


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are one; `cuda` and `cuda:0` are where 0 is the current one."""
    if a.type != b.type or a.type != "cuda":
        return a.type == b.type
    current = torch.cuda.current_device()
    return (current if a.index is None else a.index) == (current if b.index is None else b.index)


@contextmanager
def fixed_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Run under a seed of its own; the global random states are put back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def evaluation(pair: nn.Module) -> Iterator[None]:
    """No gradients, no validation, modules in eval mode; everything as it was afterwards."""
    modes = [(module, module.training) for module in pair.modules()]
    pair.eval()
    try:
        with torch.no_grad(), quiet_pyro():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
