"""Counts: probabilities against closed forms and SciPy, and a model of counts from start to end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import probgen as pg
from probgen.families.poisson import LINEAR_FROM
from probgen.variables import family_for, read_variable, variable_text

COUNTS = [0.0, 1.0, 2.0, 15.0, 16.0, 17.0, 300.0, 12_345.0]


@pytest.mark.parametrize("rate", [1e-6, 0.3, 1.0, 15.5, 16.5, 250.0, 12_000.0])
def test_log_prob_is_that_of_scipy(rate: float) -> None:
    k = torch.tensor(COUNTS, dtype=torch.float64)
    found = pg.Poisson(()).distribution(torch.tensor(rate, dtype=torch.float64).log()).log_prob(k)
    assert np.allclose(found, scipy.stats.poisson.logpmf(COUNTS, rate), rtol=1e-9, atol=1e-9)


def test_large_counts_are_accurate_in_float32() -> None:
    """Where k log λ, λ and log k! are 10⁵ and more, and float32 spaces them by 0.01."""
    k = torch.tensor([11_900.0, 12_000.0, 12_300.0])
    log_rate = torch.tensor(12_000.0).log()
    found = pg.Poisson(3).distribution(log_rate.expand(3)).log_prob(k)
    exact = scipy.stats.poisson.logpmf(k.numpy(), math.exp(float(log_rate)))
    assert np.abs(found.numpy() - exact).max() < 1e-3
    assert np.abs(dist.Poisson(log_rate.exp()).log_prob(k).numpy() - exact).max() > 1e-3


def test_probabilities_sum_to_one_and_the_gradient_is_that_of_the_density() -> None:
    k = torch.arange(200, dtype=torch.float64)
    log_rate = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    log_prob = pg.Poisson(()).distribution(log_rate).log_prob(k)
    assert math.isclose(log_prob.exp().sum().item(), 1, rel_tol=1e-11)
    for count in (0, 1, 20, 50):
        (slope,) = torch.autograd.grad(log_prob[count], log_rate, retain_graph=True)
        assert math.isclose(float(slope), count - math.exp(3.0), rel_tol=1e-9)


def test_no_output_overflows_and_none_is_without_a_gradient() -> None:
    raw = torch.tensor([-1e30, -200.0, 9.999, 10.001, 200.0, 1e30], requires_grad=True)
    made = pg.Poisson(6).distribution(raw)
    assert made.rate.isfinite().all() and (made.rate.diff() >= 0).all()
    log_prob = made.log_prob(torch.tensor([3.0, 3.0, 2e4, 2e4, 5.0, 0.0]))
    assert log_prob.isfinite().all()
    (slope,) = torch.autograd.grad(log_prob.sum(), raw)
    assert slope.isfinite().all() and (slope[[0, 1, 4, 5]] != 0).all()
    edge = torch.tensor([LINEAR_FROM - 1e-6, LINEAR_FROM + 1e-6], dtype=torch.float64)
    edge.requires_grad_()
    rate = pg.Poisson(2).distribution(edge).rate
    (slope,) = torch.autograd.grad(rate.sum(), edge)
    assert torch.allclose(rate[0], rate[1], rtol=1e-5) and torch.allclose(
        slope[0], slope[1], rtol=1e-5
    )


def test_draws_have_the_mean_and_the_variance_of_their_rate() -> None:
    torch.manual_seed(0)
    drawn = pg.Poisson(()).distribution(torch.tensor(4.0).log()).sample((20_000,))
    assert abs(float(drawn.mean()) - 4) < 4.5 * math.sqrt(4 / 20_000)
    assert abs(float(drawn.var()) - 4) < 4.5 * math.sqrt((4 + 2 * 16) / 20_000)


def test_as_text_and_only_by_name() -> None:
    for shape in ((), 3, (2, 3)):
        variable = pg.Poisson(shape)
        assert read_variable(variable_text(variable) or "") == variable
    assert read_variable("poisson", torch.zeros(5, 4)) == pg.Poisson(4)
    assert family_for(torch.tensor([[0.0, 7.0]])) is pg.Normal
    assert "x = pg.Poisson(4)" in counts_pair().source


def counts_pair() -> pg.LatentVariableModel:
    return pg.declare("p(z) p(x | z)", "q(z | x)", x=pg.Poisson(4), z=pg.Normal(1), hidden=(8,))


def counts(n: int = 200) -> torch.Tensor:
    rates = torch.tensor([[8.0, 1.0, 1.0, 8.0], [1.0, 8.0, 8.0, 1.0]])
    return torch.poisson(rates[torch.arange(n) % 2], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("change", "row"), [(0.5, 0), (-9.0, 0)])
def test_other_data_are_refused(change: float, row: int) -> None:
    with pytest.raises(
        ValueError, match=r"outside its support .* takes only counts 0, 1, 2, \.\.\."
    ):
        pg.fit(counts_pair(), counts() + change, num_epochs=1, progress=False)


@pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
def test_trained_scored_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair, x = counts_pair(), counts()
    settings: Any = {"num_epochs": 40, "batch_size": 50, "learning_rate": 1e-2, "compile": False}
    pg.fit(pair, x, run_dir=tmp_path / "run", progress=False, **settings)
    score = pg.log_marginal_likelihood(pair, x, num_samples=500, compile=False)
    independent = dist.Poisson(x.mean(0)).log_prob(x).sum(-1).mean().item()
    assert score.mean > independent + 1 and score.measure == "probability mass of x"
    loaded = pg.load_run(tmp_path / "run").pair
    again = pg.log_marginal_likelihood(loaded, x, num_samples=500, compile=False)
    assert np.array_equal(again.log_prob, score.log_prob)


@pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
def test_the_score_is_the_sum_over_the_latent_by_quadrature() -> None:
    """p(x) = ∫ N(z; 0, 1) Π Poisson(x | z) dz on a fine grid, against importance sampling."""
    torch.manual_seed(1)
    pair, x = counts_pair().double(), counts(6).double()
    pg.fit(pair, x, num_epochs=300, batch_size=6, learning_rate=1e-2, precision="float64",
           progress=False, validation=None)  # fmt: skip
    z = torch.linspace(-10, 10, 40_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        joint = pair.p_z().log_prob(z) + pair.p_x(z=z[:, None]).log_prob(x[None]).T
    exact = torch.logsumexp(joint, 1) + math.log(20 / 40_000)
    score = pg.log_marginal_likelihood(pair, x, num_samples=20_000, precision="float64")
    assert score.standard_error.max() < 0.02
    assert (np.abs(score.log_prob - exact.numpy()) <= 5 * score.standard_error + 1e-6).all()
