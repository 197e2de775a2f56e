"""The comparison of a captured graph with the step as written, on the same noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = {"float64": 1e-8, "float32": 1e-3, "bf16": 2e-2}
"""How far gradients of a graph may lie off, of their norm; values a tenth of it."""


def difference(written: Sequence[Tensor], captured: Sequence[Tensor], tolerance: float) -> str:
    """Nothing, or how a value and what follows it (gradients, buffers) differ beyond rounding."""
    norms = [_norm(t) for t in written[1:]]
    total = math.hypot(*(norm for norm in norms if math.isfinite(norm)))
    for index, (a, b) in enumerate(zip(written, captured, strict=True)):
        off, size = _norm(a - b), _norm(a)
        if not math.isfinite(off + size):  # equal where neither is a number, or nothing to compare
            same = (a == b) | (a.isnan() & b.isnan())
            off = _norm(torch.where(same, torch.zeros_like(a), a - b))
            size = _norm(a[a.isfinite()])
        allowed = tolerance * (size + 0.01 * total)
        if index == 0:
            allowed = 0.1 * tolerance * (size + a.numel() ** 0.5)
        if not off <= allowed:
            what = "the value" if index == 0 else "a gradient or a buffer"
            return (
                f"on the same noise {what} is off by {off:.3g} of {size:.3g}, so something "
                "in the step is no tensor and changes, or does not survive compilation."
            )
    return ""


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
