r"""Importance weights of any pair over data: passes of many draws, and what follows from their weights."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probgen.basics.progress import Progress
from probgen.basics.randomness import fixed_seed, shift_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.inference.compute.capture import Captured, Tensors
from probgen.inference.compute.devices import as_dtype, mixed, placed
from probgen.inference.compute.processes import Group
from probgen.inference.compute.spawn import Outcome
from probgen.inference.objectives.elbo import log_importance_weights
from probgen.inference.scoring.arviz import pareto_khat
from probgen.inference.scoring.chunks import Chunk, rows_in_a_pass
from probgen.inference.sobol import RANDOMIZATIONS, GivenNoise, gaussian_noise, rounded
from probgen.inference.traces import PairTrace, trace_pair
from probgen.pair import LatentVariableModel

WEIGHTS = 500_000
"""Weights kept at a time: a block of data with all its draws, at least one datum."""

PASSES_WORTH = 3000
"""Passes from which on compiling pays: up to twenty seconds, and it saves 5 to 20 ms a pass."""

Columns = dict[str, Any]


class Weights:
    """Log-weights `(draws, data)` of some data, one captured pass for each number of draws."""

    def __init__(
        self, pair: LatentVariableModel, device: torch.device, precision: str, compile: bool | str
    ) -> None:
        self.pair, self.device, self.precision = pair, device, precision
        self.compile = compile
        self.noise: dict[str, Tensor] = {}
        self._passes: dict[int, Captured] = {}

    def __call__(
        self, values: Tensors, masks: Tensors, first: int, draws: int, often: bool
    ) -> Tensor:
        """Those of some draws from number `first` on; a pass that is rare is not worth a graph."""
        if draws not in self._passes:
            self._passes[draws] = Captured(
                self.pair, partial(self._log_weights, draws), gradients=False,
                capture=often and self.compile is not False,
                precision=self.precision, owner="log_marginal_likelihood",
            )  # fmt: skip
        run = self._passes[draws]
        noise = {name: points[first : first + draws] for name, points in self.noise.items()}
        return (run if often else run.as_written)(values, masks, noise)

    def _log_weights(self, draws: int, values: Tensors, masks: Tensors, noise: Tensors) -> Tensor:
        given = GivenNoise(noise) if noise else None
        with mixed(self.precision, self.device):
            trace = trace_pair(self.pair, values, num_particles=draws, observed=masks, noise=given)
            return log_importance_weights(trace)


def estimate(
    pair: LatentVariableModel, data: Dataset, device: torch.device, *, num_samples: int, draws: str,
    seed: int, precision: str, compile: bool | str, progress: bool, part: int = 0, first_row: int = 0,
) -> tuple[Columns, dict[str, Any]]:  # fmt: skip
    """log p, standard error, bias, ESS and k̂ of each datum; and how many draws, in what chunks.

    Args:
        pair: on the device.
        data: likewise, prepared.
        device: where.
        num_samples: draws a datum.
        draws: `"iid"` or `"rqmc"`.
        seed: of the draws.
        precision: of matrix products.
        compile: as `log_marginal_likelihood` takes it.
        progress: show a bar.
        part: which of several processes this is; independent draws differ between them.
        first_row: the row of the first datum, for messages.
    """
    with evaluation(pair), fixed_seed(seed, device):
        first = first_trace(pair, data)
        weigh = Weights(pair, device, precision, compile)
        if draws == "rqmc" and first.sampled:
            num_samples = rounded(num_samples)
            weigh.noise = gaussian_noise(first, num_samples, seed, device, as_dtype(precision))
        shift_seed(part, device)
        with Progress(f"log p(x) of {pair.name}", len(data), progress) as bar:
            return _importance(weigh, data, num_samples, first, bar, first_row)


def estimate_share(
    group: Group, device: torch.device, pair: LatentVariableModel, data: Dataset, precision: str,
    progress: bool, **settings: Any,
) -> Outcome:  # fmt: skip
    """What one of several processes does: its share of the data; the first puts all together."""
    rows = torch.arange(len(data)).tensor_split(group.size)[group.rank]
    share = data.subset(slice(int(rows[0]), int(rows[-1]) + 1)).to(device)
    columns, record = estimate(
        placed(pair, device, as_dtype(precision)), share, device, precision=precision,
        progress=progress and group.rank == 0, part=group.rank, first_row=int(rows[0]), **settings,
    )  # fmt: skip
    parts = group.gather(columns)
    joined = {n: np.concatenate([part[n] for part in parts], -1) for n in columns} if parts else {}
    return {n: torch.from_numpy(column) for n, column in joined.items()}, record


def first_trace(pair: LatentVariableModel, data: Dataset) -> PairTrace:
    """A pass over the first datum: what is scored, drawn and summed."""
    values, masks = data.batch(slice(0, 1))
    return trace_pair(pair, values, observed=masks)


def _importance(
    weigh: Weights, data: Dataset, num_samples: int, first: PairTrace, bar: Progress, offset: int
) -> tuple[Columns, dict[str, Any]]:
    draws = num_samples if first.sampled else 1
    rows = rows_in_a_pass(weigh.pair, data, bool(first.sampled), weigh.device)
    shape = Chunk.of(rows, draws, len(data))
    step, chunk = shape.data, shape.draws
    chunks = [chunk] * (draws // chunk) + [draws % chunk] * (draws % chunk > 0)
    often = len(data) // step * (draws // chunk) >= PASSES_WORTH or weigh.compile is True
    block = step * max(1, WEIGHTS // (step * draws))
    latents = [name for name in first.sampled if name in first.model]
    discrete = any(first.guide[name]["fn"].support.is_discrete for name in latents)
    columns: Columns = {}
    for first_row in range(0, len(data), block):
        weights = []
        for start in range(first_row, min(first_row + block, len(data)), step):
            values, masks = data.batch(slice(start, start + step))
            whole = start + step <= len(data)
            passed = [
                weigh(values, masks, index * chunk, n, often and whole and n == chunk)
                for index, n in enumerate(chunks)
            ]
            weights.append(torch.cat(passed))
            bar.update(min(start + step, len(data)))
        groups = RANDOMIZATIONS if weigh.noise else 0
        found = _summarize(torch.cat(weights, 1), offset + first_row, groups, discrete)
        # Into place: parts and whole together would be twice as much.
        for name, part in found.items():
            if name not in columns:
                columns[name] = np.empty((*part.shape[:-1], len(data)))
            columns[name][..., first_row : first_row + part.shape[-1]] = part
    return columns, {"num_samples": draws, "chunk": [step, chunk]}


def _summarize(
    log_weights: Tensor, start: int, randomizations: int, discrete: bool = False
) -> Columns:
    """From log-weights `(draws, data)`; `start` is the index of the first datum.

    With randomizations the spread of their averages takes the place of the spread of weights.
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
