"""ArviZ: the one module that knows its interface, across its two majors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_DRAWS = 25
"""Below so many draws the tail holds too few weights for a fit."""


def pareto_khat(
    log_weights: NDArray[np.float64], float_error: float = 1e-10
) -> NDArray[np.float64]:
    """The Pareto shape k̂ of each row's importance weights.

    Args:
        log_weights: shape `(data, draws)`.
        float_error: relative error of a log-weight; weights that differ by less are equal.

    Returns:
        Shape `(data,)`: −inf where all weights of a row are equal up to float error, NaN where
        there are fewer than 25 draws.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry, 2024, "Pareto smoothed importance sampling".
    """
    num_data, num_draws = log_weights.shape
    if num_draws < FEWEST_DRAWS:
        khat = np.full(num_data, np.nan)
    else:
        khat = _fit_tails(log_weights)
    finite = np.asarray(np.isfinite(log_weights).all(axis=1))
    size = np.abs(np.where(finite[:, None], log_weights, 0.0)).max(axis=1)
    spread = log_weights.max(axis=1) - log_weights.min(axis=1)
    khat[finite & (spread <= float_error * np.maximum(1.0, size))] = -np.inf
    return khat


def _fit_tails(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz

        if hasattr(arviz, "psislw"):
            _, khat = arviz.psislw(log_weights.copy())
        else:
            # ArviZ 1 takes the negative: it was written for log-likelihoods of left-out data.
            from arviz_stats.base import array_stats

            _, khat = array_stats.psislw(-log_weights, r_eff=1.0, axis=-1)
    result: Any = np.array(khat, dtype=np.float64)
    return result
