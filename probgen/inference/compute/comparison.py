"""The comparison of a captured graph with the eager step, on the same noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = {"float64": 1e-8, "float32": 1e-3, "bf16": 2e-2}
"""Largest relative error of the norm of a gradient of a graph; for values a tenth of it."""


def difference(eager: Sequence[Tensor], captured: Sequence[Tensor], tolerance: float) -> str:
    """How the results of two steps differ by more than rounding, in words; empty if they agree.

    Args:
        eager: value, gradients and buffers of the eager step.
        captured: the same of the graph.
        tolerance: the relative error allowed for gradients and buffers.
    """
    norms = [_norm(t) for t in eager[1:]]
    total = math.hypot(*(norm for norm in norms if math.isfinite(norm)))
    for index, (a, b) in enumerate(zip(eager, captured, strict=True)):
        error, size = _norm(a - b), _norm(a)
        if not math.isfinite(error + size):  # equal infinities and two NaN count as no error
            same = (a == b) | (a.isnan() & b.isnan())
            error = _norm(torch.where(same, torch.zeros_like(a), a - b))
            size = _norm(a[a.isfinite()])
        allowed = tolerance * (size + 0.01 * total)
        if index == 0:
            allowed = 0.1 * tolerance * (size + a.numel() ** 0.5)
        if not error <= allowed:
            what = "the value" if index == 0 else "a gradient or a buffer"
            return (
                f"on the same noise {what} is off by {error:.3g} of {size:.3g}, so the step uses "
                "a changing value that is not a tensor, or the compiler changed its result."
            )
    return ""


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
