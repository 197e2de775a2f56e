"""The size of one pass of a score, from the bytes that a few draws of the first datum write.

A pass is fastest if what it writes fits the processor's caches, and it must fit the memory. Both depend
on the bytes that a row (one draw of one datum) writes. They are counted, not timed, so that the same pair
has the same chunks in every run, and a seed gives the same numbers again.
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
"""Bytes that all operations of a pass may write on a CPU; on a GPU it is an eighth of its memory."""

MOST_ROWS = {"cpu": 10_000, "cuda": 200_000}
"""Most rows in a pass, even if they are small."""

PROBED = 8
"""Rows in one probe; another has twice as many, and the difference is due to the additional rows."""


@dataclass(frozen=True)
class Chunk:
    """The shape of a pass: the number of data, and of draws of each."""

    data: int
    draws: int

    @classmethod
    def of(cls, rows: int, num_draws: int, num_data: int) -> Chunk:
        """The shape with as many draws and as few data as possible.

        The guide computes once per datum and pass, so passes with all draws of few data repeat less.
        """
        data = min(num_data, max(1, rows // num_draws))
        passes = math.ceil(num_draws / max(1, rows // data))
        return cls(data, math.ceil(num_draws / passes))


def rows_in_a_pass(
    pair: LatentVariableModel, data: Dataset, sampled: bool, device: torch.device
) -> int:
    """The number of rows in a pass, so that what it writes fits the caches or the GPU's memory.

    Args:
        pair: on the device.
        data: on the device, prepared.
        sampled: whether anything is drawn; then further draws are further rows, otherwise further
            data are.
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
    """Bytes that a pass over copies of the first datum writes; random states stay as they were."""
    first = torch.zeros(copies, dtype=torch.int64, device=device)
    values, masks = data.batch(first)
    with fixed_seed(0, device), _WrittenBytes() as written:
        log_importance_weights(trace_pair(pair, values, num_particles=draws, observed=masks))
    return written.bytes


class _WrittenBytes(TorchDispatchMode):
    """Counts the bytes of every tensor that an operation creates; views create none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(r.alias_info for r in func._schema.returns):
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self.bytes += tensor.numel() * tensor.element_size()
        return result
