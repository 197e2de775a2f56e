"""How much of an evaluation goes into one pass: counted on a few draws of the first datum.

A pass is fastest where what it writes stays near the processor's caches, and must fit the memory. Both
follow from the bytes that a row (one draw of one datum) writes, which are counted, not timed: the same
pair then has the same chunks on every run, so that a seed gives the same numbers again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from probgen.basics.randomness import fixed_seed
from probgen.data.dataset import Dataset
from probgen.inference.objectives.elbo import log_importance_weights
from probgen.inference.traces import trace_pair
from probgen.pair import LatentVariableModel

BYTES = 50_000_000
"""What a pass may write, all its operations together; on a GPU an eighth of its memory."""

MOST_ROWS = {"cpu": 10_000, "cuda": 200_000}
"""Rows in a pass, however small they are."""

PROBED = 8
"""Draws in a probe; twice as many are the other, and what a single row takes is the difference."""


@dataclass(frozen=True)
class Chunk:
    """The shape of a pass: so many draws of so many data."""

    data: int
    draws: int

    @classmethod
    def of(cls, rows: int, num_draws: int, num_data: int) -> Chunk:
        """Few data a pass: what the guide computes once a datum is then repeated for few of them."""
        data = min(num_data, max(1, rows // num_draws))
        passes = math.ceil(num_draws / max(1, rows // data))
        return cls(data, math.ceil(num_draws / passes))


def rows_in_a_pass(
    pair: LatentVariableModel, data: Dataset, sampled: bool, device: torch.device
) -> int:
    """Rows whose pass writes what the caches, or a part of the GPU's memory, take.

    Args:
        pair: on the device.
        data: likewise, prepared.
        sampled: whether anything is drawn, so that draws add rows; otherwise data do.
        device: where.
    """
    few, more = (
        _bytes(pair, data, 1 if sampled else rows, rows if sampled else 1, device)
        for rows in (PROBED, 2 * PROBED)
    )
    budget = BYTES
    if device.type == "cuda":
        budget = torch.cuda.get_device_properties(device).total_memory // 8
    most = MOST_ROWS["cuda" if device.type == "cuda" else "cpu"]
    return max(1, min(most, budget * PROBED // max(1, more - few)))


def _bytes(
    pair: LatentVariableModel, data: Dataset, copies: int, draws: int, device: torch.device
) -> int:
    """What a pass over copies of the first datum writes; random states stay as they were."""
    first = torch.zeros(copies, dtype=torch.int64, device=device)
    values, masks = data.batch(first)
    with fixed_seed(0, device), _Written() as found:
        log_importance_weights(trace_pair(pair, values, num_particles=draws, observed=masks))
    return found.bytes


class _Written(TorchDispatchMode):
    """Counts the bytes of every tensor that an operation makes; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not any(r.alias_info for r in func._schema.returns):
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor):
                    self.bytes += tensor.numel() * tensor.element_size()
        return made
