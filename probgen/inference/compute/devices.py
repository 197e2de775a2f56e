"""The device and the precision of a computation."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from probgen.basics.user_warnings import warn
from probgen.pair import LatentVariableModel

FORCED = "bf16-forced"
"""The precision that uses bfloat16 even if it is slower than float32 on the device."""

PRECISIONS = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bf16": torch.float32,
    FORCED: torch.float32,
}
"""The dtype of weights and log-probabilities; with bf16 only matrix products use bfloat16."""


class PrecisionWarning(UserWarning):
    """The precision in use differs from the one requested; the message says why.

    Example:
        Use bfloat16 if the device has instructions for it, and otherwise float32 without a warning:

        >>> import torch, warnings, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", pg.PrecisionWarning)
        ...     result = pg.fit(ppca, torch.randn(20, 3), num_epochs=1, precision="bf16",
        ...                     device="cpu", progress=False)
        >>> result.precision in ("bf16", "float32")
        True
    """


def as_device(device: str | torch.device) -> torch.device:
    """The device that a user named; `"auto"` is the GPU if there is one, otherwise the CPU.

    Raises:
        ValueError: the device is unknown or not available.
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
    """Whether the device has instructions for bfloat16 products; without them they are emulated."""
    if device.type == "cpu":
        names = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # two of x86, two of ARM
        if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
            return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        capabilities = torch.cpu.get_capabilities()
        supported = any(capabilities.get(name) for name in names)
        return torch.backends.mkldnn.is_available() and supported
    if device.type == "cuda" and torch.version.hip is None:
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return True


def used_precision(precision: str, device: torch.device, owner: str) -> str:
    """The precision to compute in: `"bf16"` only if the device supports it, or if it is forced.

    Emulated bfloat16 products take seven to ten times as long as float32 products.

    Raises:
        ValueError: an unknown precision.

    Warns:
        PrecisionWarning: float32 is used instead of bfloat16.
    """
    as_dtype(precision)
    if precision == FORCED:
        return "bf16"
    if precision != "bf16" or has_bf16(device):
        return precision
    warn(
        f'{owner}: precision="bf16" would be slower than "float32" here, because {device} has no '
        'instructions for it, so float32 is used. Use precision="float32" to avoid this warning, '
        f'or "{FORCED}" to use bfloat16 anyway.',
        PrecisionWarning,
    )
    return "float32"


def runs_ahead(device: torch.device) -> bool:
    """Whether Python continues while the device computes, so that reading a number has to wait."""
    return device.type != "cpu"


def mixed(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A context in which `"bf16"` computes matrix products and convolutions in bfloat16."""
    if precision != "bf16":
        return nullcontext()
    # A cache of converted weights would be out of date after a step of the optimizer.
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def placed(
    pair: LatentVariableModel, device: torch.device, dtype: torch.dtype
) -> LatentVariableModel:
    """The pair itself if it already has that device and dtype, otherwise a copy that has."""
    tensors = [*pair.parameters(), *pair.buffers()]
    floating = (t for t in tensors if t.is_floating_point())
    if all(same_device(t.device, device) and t.dtype == dtype for t in floating):
        return pair
    return copy.deepcopy(pair).to(device=device, dtype=dtype)


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are the same; `cuda` is the current GPU, such as `cuda:0`."""
    if a.type != b.type or a.type != "cuda":
        return a.type == b.type
    current = torch.cuda.current_device()
    return (current if a.index is None else a.index) == (current if b.index is None else b.index)
