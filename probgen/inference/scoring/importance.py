r"""Importance sampling from the guide: weights $p(x, z) / q(z \mid x)$, with z drawn from q."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from probgen.basics.progress import Progress
from probgen.basics.randomness import fixed_seed, shift_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.inference.compute.capture import Captured, Tensors
from probgen.inference.compute.devices import as_dtype, mixed
from probgen.inference.objectives.elbo import log_importance_weights
from probgen.inference.scoring.accumulate import accumulate
from probgen.inference.scoring.base import Estimate, ScoreSettings, ScoringMethod
from probgen.inference.scoring.chunks import Chunk, rows_in_a_pass
from probgen.inference.sobol import RANDOMIZATIONS, GivenNoise, gaussian_noise, rounded
from probgen.inference.traces import PairTrace, trace_pair
from probgen.pair import LatentVariableModel


class Importance(ScoringMethod):
    r"""$\log \frac{1}{K} \sum_k p(x, z_k) / q(z_k \mid x)$; discrete scalars are summed out exactly.

    A pair whose latents are all summed out needs a single weight, which is exact.

    References:
        Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", eq. 8.
    """

    def estimate(
        self, pair: LatentVariableModel, data: Dataset, device: torch.device,
        settings: ScoreSettings, *, rank: int = 0, first_row: int = 0,
    ) -> Estimate:  # fmt: skip
        """See `ScoringMethod`."""
        with evaluation(pair), fixed_seed(settings.seed, device):
            first = first_trace(pair, data)
            weights = ImportanceWeights(pair, device, settings.precision, settings.compile)
            draws = settings.num_samples if first.sampled else 1
            if settings.draws == "rqmc" and first.sampled:
                draws = rounded(draws)
                dtype = as_dtype(settings.precision)
                weights.noise = gaussian_noise(first, draws, settings.seed, device, dtype)
            shift_seed(rank, device)
            rows = rows_in_a_pass(pair, data, bool(first.sampled), device)
            shape = Chunk.of(rows, draws, len(data))
            latents = [name for name in first.sampled if name in first.model]
            discrete = any(first.guide[name]["fn"].support.is_discrete for name in latents)
            with Progress(f"log p(x) of {pair.name}", len(data), settings.progress) as bar:
                columns = accumulate(
                    weights, data, draws, shape, bar, first_row=first_row,
                    compile=settings.compile, discrete=discrete,
                    randomizations=RANDOMIZATIONS if weights.noise else 0,
                )  # fmt: skip
        method = "importance" if first.sampled else "summed"
        passes = float(draws * _number_of_terms(first))
        return Estimate(columns, method, draws, passes, (shape.data, shape.draws))


class ImportanceWeights:
    """Log-weights `(draws, data)`, by one captured pass for each number of draws."""

    def __init__(
        self, pair: LatentVariableModel, device: torch.device, precision: str, compile: bool | str
    ) -> None:
        self.pair, self.device, self.precision = pair, device, precision
        self.compile = compile
        self.noise: dict[str, Tensor] = {}
        self._passes: dict[int, Captured] = {}

    def __call__(
        self, values: Tensors, masks: Tensors, first: int, draws: int, repeated: bool
    ) -> Tensor:
        """See `LogWeights`; a pass that is not repeated runs eagerly, without a graph."""
        if draws not in self._passes:
            self._passes[draws] = Captured(
                self.pair, partial(self._log_weights, draws), gradients=False,
                capture=repeated and self.compile is not False,
                precision=self.precision, owner="log_marginal_likelihood",
            )  # fmt: skip
        run = self._passes[draws]
        noise = {name: points[first : first + draws] for name, points in self.noise.items()}
        return (run if repeated else run.run_eagerly)(values, masks, noise)

    def _log_weights(self, draws: int, values: Tensors, masks: Tensors, noise: Tensors) -> Tensor:
        given = GivenNoise(noise) if noise else None
        with mixed(self.precision, self.device):
            trace = trace_pair(self.pair, values, num_particles=draws, observed=masks, noise=given)
            return log_importance_weights(trace)


def first_trace(pair: LatentVariableModel, data: Dataset) -> PairTrace:
    """A pass over the first datum: shows what is scored, drawn and summed."""
    values, masks = data.batch(slice(0, 1))
    return trace_pair(pair, values, observed=masks)


def _number_of_terms(trace: PairTrace) -> int:
    """Terms of the exact sum inside each weight: the product of the numbers of classes."""
    sites = {**trace.guide, **trace.model}
    return math.prod(sites[name]["value"].numel() for name in trace.sums)
