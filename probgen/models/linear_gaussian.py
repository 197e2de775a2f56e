"""Maximum likelihood of linear-Gaussian models, and the parameters of a pair from its solution."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probgen.basics.tensors import as_tensor
from probgen.basics.user_warnings import warn
from probgen.data.support import check_shape, check_support
from probgen.pair import LatentVariableModel
from probgen.variables import SCALE_FLOOR, raw_from_scale

LEAST_VARIANCE = (2 * SCALE_FLOOR) ** 2
"""Smaller noise variances are treated as zero: a learned scale never falls below `SCALE_FLOOR`."""


def rows_for(pair: Any, x: Any, owner: str) -> Tensor:
    """Data as rows in float64, `(data, elements)`, for a pair with fewer latents than elements.

    Raises:
        ValueError: x of the wrong shape, with NaN or infinite values, of fewer than two data, or as
            many latents as elements of x, or more: no noise would be left.
    """
    variable, num_latents = pair.p_x.variable, pair.loadings.shape[1]
    x = as_tensor(x, "x", owner).to(pair.mean.device)
    check_shape(x, variable, "x", owner, pair.name)
    check_support(
        x, variable.support, "x", owner, f"{pair.name} is {variable!r}", variable=variable
    )
    flat = x.reshape(len(x), -1).to(torch.float64)
    if num_latents >= flat.shape[1]:
        raise ValueError(
            f"{owner}: needs fewer latents than elements of x, got {num_latents} and {flat.shape[1]}."
        )
    if len(flat) < 2:
        raise ValueError(f"{owner}: needs at least two data, got {len(flat)}.")
    return flat


def set_parameters(
    pair: LatentVariableModel, loadings: Tensor, mean: Tensor, noise: Tensor
) -> None:
    r"""Set a linear-Gaussian pair's parameters, and its guide to the posterior, which must be diagonal.

    Args:
        pair: a `FactorAnalysis` or `PPCA`.
        loadings: W, `(x elements, z elements)`, with $W^\top \mathrm{diag}(\sigma^{-2}) W$ diagonal.
        mean: b, `(x elements,)`.
        noise: σ², `(x elements,)`, or one number.
    """
    weighted = loadings / noise.expand(len(mean))[:, None]
    precision = 1 + (loadings * weighted).sum(0)
    encoder = weighted.T / precision[:, None]
    model: Any = pair.p_x
    model.network.layers[0].weight.copy_(loadings)
    model.network.layers[0].bias.copy_(mean)
    model.raw_scale.copy_(raw_from_scale(noise.sqrt()).reshape(model.raw_scale.shape))
    guide: Any = pair.q_z
    guide.network.layers[0].weight.copy_(encoder)
    guide.network.layers[0].bias.copy_(-encoder @ mean)
    scale = precision.rsqrt().clamp(min=2 * SCALE_FLOOR)
    guide.raw_scale.copy_(raw_from_scale(scale).reshape(guide.raw_scale.shape))


def factor_analysis(
    covariance: Tensor, num_latents: int, *, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, list[float]]:
    r"""Loadings and noise variances that maximize the likelihood, by EM, which never lowers it.

    Given σ² the best W is in closed form, from the leading eigenvectors of
    $\mathrm{diag}(\sigma^{-1})\, S\, \mathrm{diag}(\sigma^{-1})$; at that W the M-step of EM is
    $\sigma^2 = \mathrm{diag}(S - W W^\top)$. W has the rotation for which the posterior is
    diagonal.

    Args:
        covariance: S of the data, in float64.
        num_latents: fewer than its rows.
        tolerance: EM ends if an iteration raises the log-likelihood by less than this, in nats per
            datum.
        max_iterations: the largest number of iterations.

    Returns:
        W `(elements, latents)`, σ² `(elements,)`, and the log-likelihood before each
        iteration in nats per datum; the last one belongs to what is returned.

    References:
        Rubin and Thayer, 1982, "EM algorithms for ML factor analysis".
        Barber, 2012, "Bayesian reasoning and machine learning", section 21.2.
    """
    size, total = len(covariance), covariance.diagonal()
    noise = total.clamp(min=LEAST_VARIANCE)
    log_likelihoods: list[float] = []
    while True:
        deviation = noise.sqrt()
        values, vectors = torch.linalg.eigh(covariance / deviation / deviation[:, None])
        leading = values[-num_latents:].clamp(min=1)
        loadings = deviation[:, None] * vectors[:, -num_latents:] * (leading - 1).sqrt()
        # The trace of S over the model's covariance: leading directions are fitted exactly.
        trace = values.sum() - (leading - 1).sum()
        log_det = noise.log().sum() + leading.log().sum()
        log_likelihoods.append(-0.5 * float(size * math.log(2 * math.pi) + log_det + trace))
        gain = log_likelihoods[-1] - log_likelihoods[-2] if len(log_likelihoods) > 1 else math.inf
        if gain < tolerance or len(log_likelihoods) > max_iterations:
            return loadings, noise, log_likelihoods
        noise = (total - (loadings**2).sum(1)).clamp(min=LEAST_VARIANCE)


def warn_of_ends(
    owner: str, noise: Tensor, total: Tensor, log_likelihoods: list[float], most: int
) -> None:
    """Warn if EM has not converged, or if elements of x are left without noise."""
    if len(log_likelihoods) > most:
        warn(
            f"{owner}: EM has not converged after {most} iterations (the last one gained {log_likelihoods[-1] - log_likelihoods[-2]:.2g} "
            "nats per datum). Raise max_iterations, or tolerance."
        )
    lost = ((noise <= LEAST_VARIANCE) & (total > LEAST_VARIANCE)).sum()
    if lost:
        warn(
            f"{owner}: {int(lost)} elements of x are left without noise (a Heywood case): the latents "
            "reproduce them exactly, and the likelihood of these data grows without bound. Use fewer "
            "latents, or more data."
        )
