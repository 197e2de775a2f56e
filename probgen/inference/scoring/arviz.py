"""ArviZ: the one module that knows its interface, across its two majors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_DRAWS = 25
"""Below so many draws the tail holds too few weights for a fit."""

OFTEN, RARE_SHARE = 5, 0.1
"""A weight drawn so often is no accident; what rarer ones may have of the variance of all weights."""


def pareto_khat(
    log_weights: NDArray[np.float64], float_error: float = 1e-10, *, discrete: bool = False
) -> NDArray[np.float64]:
    r"""The Pareto shape k̂ of each row's importance weights.

    A generalized Pareto distribution is fitted to the largest weights, min(K / 5, 3√K) of them. It
    has no ties. Draws of a discrete latent with few states have: where the largest weights take fewer
    than five values, the weights are those of a distribution on few numbers, which is bounded, so
    that all its moments exist and its shape is at most 0, whatever the numbers. What remains to
    be asked is whether the numbers were drawn often enough for their frequencies to be known: k̂ is 0
    where those of them drawn fewer than five times make up no more than a tenth of the variance of all
    weights, and otherwise +inf.

    Args:
        log_weights: shape `(data, draws)`.
        float_error: relative error of a log-weight; weights that differ by less are equal.
        discrete: something discrete was drawn, so that equal weights may be one state drawn
            over and over.

    Returns:
        Shape `(data,)`: −inf where all weights of a row are equal up to float error, or, if they are
        of something discrete, NaN; NaN where there are fewer than 25 draws; 0 or +inf where
        the largest weights are tied.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry, 2024, "Pareto smoothed importance sampling".
    """
    num_data, num_draws = log_weights.shape
    finite = np.asarray(np.isfinite(log_weights).all(axis=1))
    size = np.abs(np.where(np.isfinite(log_weights), log_weights, 0.0)).max(axis=1)
    tolerance = float_error * np.maximum(1.0, size)
    if num_draws < FEWEST_DRAWS:
        khat = np.full(num_data, np.nan)
    else:
        khat = _fit_tails(log_weights)
        for row in np.flatnonzero(~np.isfinite(khat) | _tied(log_weights, tolerance)):
            khat[row] = _khat_of_ties(log_weights[row], tolerance[row])
    spread = log_weights.max(axis=1) - log_weights.min(axis=1)
    khat[finite & (spread <= tolerance)] = np.nan if discrete else -np.inf
    return khat


def _tied(log_weights: NDArray[np.float64], tolerance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows whose largest weights take fewer than five values."""
    num_draws, tail = log_weights.shape[1], _tail_size(log_weights.shape[1])
    largest = np.sort(np.partition(log_weights, num_draws - tail, axis=1)[:, -tail:], axis=1)
    with np.errstate(invalid="ignore"):  # −inf less −inf
        values: NDArray[np.int64] = 1 + (np.diff(largest, axis=1) > tolerance[:, None]).sum(1)
    return values < 5


def _tail_size(num_draws: int) -> int:
    """The largest weights, to which the fit is made, and the one below them."""
    return int(np.ceil(min(num_draws / 5, 3 * num_draws**0.5))) + 1


def _khat_of_ties(log_weights: NDArray[np.float64], tolerance: float) -> float:
    ordered = np.sort(log_weights)
    with np.errstate(invalid="ignore"):
        group = np.concatenate([[0], (np.diff(ordered) > tolerance).cumsum()])
    rare = np.bincount(group)[group] < OFTEN
    rare[: -_tail_size(len(rare))] = False
    weights = np.exp(ordered - ordered[-1])
    squares = (weights - weights.mean()) ** 2
    return 0.0 if squares[rare].sum() <= RARE_SHARE * squares.sum() else np.inf


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
