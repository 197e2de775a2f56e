"""Factor analysis at the maximum of its likelihood: against scikit-learn, and by its own equations."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import FactorAnalysis
from torch import Tensor

import probgen as pg
from probgen.models.linear_gaussian import factor_analysis


def covariance(x: Tensor) -> Tensor:
    return (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)


def standardized(x: Any) -> Tensor:
    return torch.from_numpy((x - x.mean(0)) / x.std(0))


def drawn(n: int = 400, size: int = 8, num_latents: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(3)
    loadings = torch.randn(size, num_latents, generator=draws, dtype=torch.float64)
    scale = torch.linspace(0.3, 1.5, size, dtype=torch.float64)
    z = torch.randn(n, num_latents, generator=draws, dtype=torch.float64)
    noise = torch.randn(n, size, generator=draws, dtype=torch.float64)
    return 5 + z @ loadings.T + scale * noise, loadings, scale**2


def dequantized_digits() -> Tensor:
    grey = load_digits().data
    return torch.from_numpy((grey + np.random.default_rng(0).random(grey.shape)) / 17)


@pytest.mark.parametrize(
    ("x", "num_latents"),
    [(drawn()[0], 2), (standardized(load_wine().data), 3), (dequantized_digits(), 16)],
    ids=["drawn", "wine", "digits"],
)
def test_no_lower_than_scikit_learn(x: Tensor, num_latents: int) -> None:
    pair = pg.models.FactorAnalysis(x=pg.Normal(x.shape[1]), z=pg.Normal(num_latents)).double()
    ours = float(pair.set_maximum_likelihood(x).log_prob(x).mean().detach())
    theirs = FactorAnalysis(num_latents, tol=1e-8, max_iter=20_000, svd_method="lapack")
    assert ours > theirs.fit(x.numpy()).score(x.numpy()) - 1e-4
    # The guide is the posterior, so every importance weight is log p(x).
    score = pg.log_marginal_likelihood(pair, x[:50], num_samples=30, precision="float64")
    assert np.allclose(score.log_prob, pair.log_prob(x[:50]).detach(), atol=1e-8)
    assert score.is_exact


def test_every_step_gains_and_the_last_value_is_the_likelihood() -> None:
    x = dequantized_digits()
    loadings, noise, found = factor_analysis(covariance(x), 16, tolerance=1e-9, max_iterations=3000)
    assert len(found) > 20 and (np.diff(found) > -1e-10).all()
    full = loadings @ loadings.T + noise.diag()
    exact = torch.distributions.MultivariateNormal(x.mean(0), full).log_prob(x).mean()
    assert math.isclose(found[-1], float(exact), abs_tol=1e-8)


def test_the_gradient_is_zero_there() -> None:
    """By autograd of the density itself, in W and log σ²."""
    x, _, _ = drawn()
    loadings, noise, _ = factor_analysis(covariance(x), 2, tolerance=1e-14, max_iterations=20_000)
    w, log_noise = loadings.requires_grad_(), noise.log().requires_grad_()
    full = w @ w.T + log_noise.exp().diag()
    torch.distributions.MultivariateNormal(x.mean(0), full).log_prob(x).mean().backward()
    for parameter in (w, log_noise):
        assert parameter.grad is not None and float(parameter.grad.abs().max()) < 1e-6


def test_parameters_are_found_again() -> None:
    x, loadings, noise = drawn(n=20_000)
    pair = (
        pg.models.FactorAnalysis(x=pg.Normal(8), z=pg.Normal(2)).double().set_maximum_likelihood(x)
    )
    assert torch.allclose(pair.noise_variance, noise, rtol=0.08)
    assert torch.allclose(pair.loadings @ pair.loadings.T, loadings @ loadings.T, atol=0.15)
    assert torch.allclose(pair.mean, torch.full((8,), 5.0, dtype=torch.float64), atol=0.1)


def test_images_constant_columns_and_what_needs_a_warning() -> None:
    x = drawn(60)[0].reshape(60, 2, 4).float()
    x[:, 0, 0] = 3.0
    pair = pg.models.FactorAnalysis(x=pg.Normal((2, 4)), z=pg.Normal((1, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair.set_maximum_likelihood(x)
    assert pair.log_prob(x).isfinite().all() and pair.p_x.variable.event_shape == (2, 4)
    copied = drawn(60)[0]
    copied[:, 1:3] = copied[:, :1]  # three columns are one
    wide = pg.models.FactorAnalysis(x=pg.Normal(8), z=pg.Normal(2)).double()
    with pytest.warns(UserWarning, match="left without noise.*Use fewer latents"):
        wide.set_maximum_likelihood(copied)
    with pytest.warns(UserWarning, match="not converged after 2 iterations.*Raise max_iterations"):
        wide.set_maximum_likelihood(drawn()[0], max_iterations=2)


@pytest.mark.parametrize(
    ("x", "settings", "message"),
    [
        (torch.zeros(4, 3), {}, r"FactorAnalysis.set_maximum_likelihood: x has shape \(4, 3\)"),
        (torch.zeros(1, 8), {}, "needs at least two data, got 1"),
        (torch.full((4, 8), torch.nan), {}, "x has NaN or infinite values"),
        (torch.zeros(4, 8), {"tolerance": 0}, "tolerance must be a number above 0, got 0"),
        (torch.zeros(4, 8), {"max_iterations": 0}, "max_iterations must be an int of at least 1"),
    ],
)
def test_refused(x: Tensor, settings: dict[str, Any], message: str) -> None:
    pair = pg.models.FactorAnalysis(x=pg.Normal(8), z=pg.Normal(2))
    before = pair.loadings.clone()
    with pytest.raises(ValueError, match=message):
        pair.set_maximum_likelihood(x, **settings)
    assert torch.equal(before, pair.loadings)
    many = pg.models.FactorAnalysis(x=pg.Normal(2), z=pg.Normal(2))
    with pytest.raises(ValueError, match="needs fewer latents than elements of x, got 2 and 2"):
        many.set_maximum_likelihood(torch.randn(5, 2))
