"""Where and how precisely to compute: the device and the dtype."""

from __future__ import annotations

import copy
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from probgen.pair import LatentVariableModel

FORCED = "bf16-forced"
"""bfloat16 also where it is slower than float32."""

PRECISIONS = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bf16": torch.float32,
    FORCED: torch.float32,
}
"""The dtype of weights and log-probabilities; bf16 is that of the matrix products alone."""


class PrecisionWarning(UserWarning):
    """Something is computed in another precision than the one asked for, and why."""


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
        raise ValueError(f"precision={precision!r} is unknown; use {', '.join(PRECISIONS)}.")
    return PRECISIONS[precision]


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16; elsewhere they are emulated."""
    if device.type == "cpu":
        names = (
            "avx512_bf16",
            "amx_bf16",
            "bf16",
            "sve_bf16",
        )  # of x86 the first two, ARM the others
        if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
            return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        known = torch.cpu.get_capabilities()
        return torch.backends.mkldnn.is_available() and any(known.get(name) for name in names)
    if device.type == "cuda" and torch.version.hip is None:
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return True


def used_precision(precision: str, device: torch.device, owner: str) -> str:
    """The precision that is computed in: `"bf16"` only where it pays, or where it is forced.

    Emulated, its products take seven to ten times as long as those of float32.

    Raises:
        ValueError: an unknown precision.

    Warns:
        PrecisionWarning: float32 takes the place of bfloat16.
    """
    as_dtype(precision)
    if precision == FORCED:
        return "bf16"
    if precision != "bf16" or has_bf16(device):
        return precision
    warnings.warn(
        f'{owner}: precision="bf16" would be slower than "float32" here, since {device} has no '
        f'instructions for it, so float32 is used. precision="float32" says so beforehand; '
        f'"{FORCED}" takes bfloat16 all the same.',
        PrecisionWarning,
        stacklevel=3,
    )
    return "float32"


def runs_ahead(device: torch.device) -> bool:
    """Whether Python goes on while the device computes, so that reading a number would wait."""
    return device.type != "cpu"


def mixed(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """For `"bf16"` a context in which matrix products and convolutions are taken in bfloat16."""
    if precision != "bf16":
        return nullcontext()
    # The cache of cast weights would outlive a step of the optimizer.
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def placed(
    pair: LatentVariableModel, device: torch.device, dtype: torch.dtype
) -> LatentVariableModel:
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
