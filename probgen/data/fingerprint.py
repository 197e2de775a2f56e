"""The hash by which scores and run directories identify data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

HASHED_ROWS = 4096
"""Rows that are copied at a time."""


def fingerprint(values: Mapping[str, Tensor], observed: Mapping[str, Tensor] | None = None) -> str:
    """The first 12 hex digits of the SHA-256 of all values, as float32, by name.

    Values that are not observed do not change it, but the mask of observed data does.
    """
    digest = hashlib.sha256()
    for name in sorted(values):
        value, shape = values[name], tuple(values[name].shape)
        mask = observed[name].cpu() if observed and name in observed else None
        if mask is not None:
            digest.update(mask.numpy().tobytes())
            shape = (int(mask.sum()), *shape[1:])
        digest.update(f"{name}{shape}".encode())
        rows = torch.atleast_1d(value)
        # In blocks, since converting all rows at once would need one or two further copies.
        for start in range(0, len(rows), HASHED_ROWS):
            part = rows[start : start + HASHED_ROWS].cpu().float()
            if mask is not None:
                part = part[mask[start : start + HASHED_ROWS]]
            digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
