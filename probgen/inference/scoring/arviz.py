"""Pareto k̂ by ArviZ: the only module that uses ArviZ's interface, of its versions 0 and 1."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_DRAWS = 25
"""With fewer draws the tail has too few weights for a fit."""

OFTEN, RARE_SHARE = 5, 0.1
"""How often a weight must be drawn for its frequency to be known, and the largest share of the variance of
all weights that rarer ones may have."""


def pareto_khat(
    log_weights: NDArray[np.float64], float_error: float = 1e-10, *, discrete: bool = False
) -> NDArray[np.float64]:
    r"""The Pareto shape k̂ of each row's importance weights.

    A generalized Pareto distribution is fitted to the largest weights, min(K / 5, 3√K) of them. Its
    draws have no ties, but the weights of a discrete latent with few states have. If the largest
    weights take fewer than five values, they come from a distribution on few numbers. That is
    bounded, so all its moments exist and its shape is at most 0. It remains to check that each
    number was drawn often enough for its frequency to be known: k̂ is 0 if the numbers drawn fewer
    than five times contribute at most a tenth of the variance of all weights, and +inf otherwise.

    Args:
        log_weights: shape `(data, draws)`.
        float_error: relative error of a log-weight; weights that differ by less count as equal.
        discrete: whether something discrete was drawn, so that equal weights may be one state drawn
            many times.

    Returns:
        Shape `(data,)`: −inf if all weights of a row are equal up to float error (NaN if something
        discrete was drawn); NaN if there are fewer than 25 draws; 0 or +inf if the largest weights
        are tied.

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
    span = log_weights.max(axis=1) - log_weights.min(axis=1)
    khat[finite & (span <= tolerance)] = np.nan if discrete else -np.inf
    return khat


def _tied(log_weights: NDArray[np.float64], tolerance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows whose largest weights take fewer than five values."""
    num_draws, tail = log_weights.shape[1], _tail_size(log_weights.shape[1])
    largest = np.sort(np.partition(log_weights, num_draws - tail, axis=1)[:, -tail:], axis=1)
    with np.errstate(invalid="ignore"):  # −inf − (−inf)
        values: NDArray[np.int64] = 1 + (np.diff(largest, axis=1) > tolerance[:, None]).sum(1)
    return values < 5


def _tail_size(num_draws: int) -> int:
    """Number of the largest weights, to which the distribution is fitted, plus the next smaller one."""
    return int(np.ceil(min(num_draws / 5, 3 * num_draws**0.5))) + 1


def _khat_of_ties(log_weights: NDArray[np.float64], tolerance: float) -> float:
    """0 if the frequencies of all important values are known, +inf otherwise: see `pareto_khat`."""
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
            # ArviZ 1 takes the negative, since it was written for leave-one-out log-likelihoods.
            from arviz_stats.base import array_stats

            _, khat = array_stats.psislw(-log_weights, r_eff=1.0, axis=-1)
    result: Any = np.array(khat, dtype=np.float64)
    return result
