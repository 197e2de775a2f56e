"""The average of log-weights over many draws, for any method that draws them, with its errors."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from probgen.basics.progress import Progress
from probgen.data.dataset import Dataset
from probgen.inference.compute.capture import Tensors
from probgen.inference.scoring.arviz import pareto_khat
from probgen.inference.scoring.base import Columns
from probgen.inference.scoring.chunks import Chunk

MOST_WEIGHTS = 500_000
"""Log-weights in memory at a time: those of a block of data with all their draws."""

PASSES_WORTH_COMPILING = 3000
"""From this number of passes on compiling pays off: it takes up to 20 s and saves 5 to 20 ms per pass."""


class LogWeights(Protocol):
    r"""Draws log-weights $\log w$ whose weights have the mean p(x)."""

    def __call__(
        self, values: Tensors, masks: Tensors, first: int, draws: int, repeated: bool
    ) -> Tensor:
        """Log-weights number `first` to `first + draws` of some data.

        Args:
            values: of the data, by name.
            masks: of partly observed variables, by name.
            first: the number of the first draw.
            draws: how many.
            repeated: whether passes of this shape are repeated often enough to compile them.

        Returns:
            Shape `(draws, data)`.
        """


def accumulate(
    log_weights: LogWeights, data: Dataset, draws: int, shape: Chunk, bar: Progress, *,
    first_row: int = 0, compile: bool | str = "auto", discrete: bool = False,
    randomizations: int = 0,
) -> Columns:  # fmt: skip
    """Average the weights of each datum, pass by pass, and diagnose them.

    Args:
        log_weights: draws them.
        data: on the device.
        draws: log-weights per datum.
        shape: data and draws of a pass.
        bar: shows progress.
        first_row: the row of the first datum in the whole data set, for messages.
        compile: `True` to treat all passes as repeated, `"auto"` to decide by their number.
        discrete: whether something discrete is drawn, so that equal weights may be one state.
        randomizations: groups of draws that are independent of each other; 0 if all draws are.

    Returns:
        `log_prob`, `standard_error`, `bias`, `ess`, `khat` and, with randomizations, `replicates`.

    Raises:
        FloatingPointError: log-weights that are NaN or +inf, or all −inf.
    """
    chunks = [shape.draws] * (draws // shape.draws)
    chunks += [draws % shape.draws] * (draws % shape.draws > 0)
    num_passes = len(data) // shape.data * (draws // shape.draws)
    repeated = num_passes >= PASSES_WORTH_COMPILING or compile is True
    block = shape.data * max(1, MOST_WEIGHTS // (shape.data * draws))
    columns: Columns = {}
    for start_of_block in range(0, len(data), block):
        weights = []
        for start in range(start_of_block, min(start_of_block + block, len(data)), shape.data):
            values, masks = data.batch(slice(start, start + shape.data))
            full = start + shape.data <= len(data)
            parts = [
                log_weights(
                    values, masks, index * shape.draws, n, repeated and full and n == shape.draws
                )
                for index, n in enumerate(chunks)
            ]
            weights.append(torch.cat(parts))
            bar.update(min(start + shape.data, len(data)))
        summary = summarize(
            torch.cat(weights, 1), first_row + start_of_block, randomizations, discrete
        )
        # Written into place, since all parts and the whole together would need twice the memory.
        for name, part in summary.items():
            if name not in columns:
                columns[name] = np.empty((*part.shape[:-1], len(data)))
            columns[name][..., start_of_block : start_of_block + part.shape[-1]] = part
    return columns


def summarize(
    log_weights: Tensor, start: int, randomizations: int, discrete: bool = False
) -> Columns:
    r"""The estimate of each datum from its weights: $\log \hat p(x) = \log \frac{1}{K} \sum_k w_k$.

    Args:
        log_weights: shape `(draws, data)`.
        start: the row of the first datum in the whole data set, for messages.
        randomizations: groups of draws; the standard error is then that of the groups' averages
            instead of that of the weights.
        discrete: whether something discrete is drawn.

    Raises:
        FloatingPointError: log-weights that are NaN or +inf, or all −inf.
    """
    # A log-weight is a sum of some hundred terms, each with a rounding error of its own.
    float_error = 100 * torch.finfo(log_weights.dtype).eps
    log_weights = log_weights.double()
    broken = (log_weights.isnan() | (log_weights == torch.inf)).any(0)
    broken |= (log_weights == -torch.inf).all(0)
    if bool(broken.any()):
        datum = start + int(broken.nonzero()[0])
        raise FloatingPointError(
            f"log_marginal_likelihood: the log-weights of datum {datum} are NaN, +inf or all −inf. "
            'Look at the datum and the pair\'s outputs there; precision="float64" helps where they '
            "overflow."
        )
    draws = log_weights.shape[0]
    log_prob = log_weights.logsumexp(0) - math.log(draws)
    relative = (log_weights - log_prob).exp()  # weights over their mean
    replicates = relative.unflatten(0, (randomizations or draws, -1)).mean(1)
    size = len(replicates)
    error = torch.zeros_like(log_prob) if size == 1 else (replicates.var(0) / size).sqrt()
    ess = relative.sum(0) ** 2 / (relative**2).sum(0)
    array = log_weights.T.cpu().numpy()
    khat = pareto_khat(array, float_error, discrete=discrete)
    columns = {
        "log_prob": log_prob,
        "standard_error": error,
        "bias": -0.5 * error**2,
        "ess": ess,
    }
    if randomizations:
        columns["replicates"] = replicates
    return {name: column.cpu().numpy() for name, column in columns.items()} | {"khat": khat}
