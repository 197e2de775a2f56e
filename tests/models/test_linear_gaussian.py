"""Factor analysis and PPCA: the yardstick itself, against dense linear algebra and quadrature."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import MultivariateNormal

import probgen as pg


@pytest.mark.parametrize("kind", [pg.models.PPCA, pg.models.FactorAnalysis])
def test_log_prob_is_the_dense_gaussian(kind: type[pg.models.FactorAnalysis]) -> None:
    torch.manual_seed(0)
    pair = kind(x=pg.Normal(6), z=pg.Normal(2)).double()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.copy_(torch.randn_like(parameter))
    covariance = pair.loadings @ pair.loadings.T + torch.diag(pair.noise_variance)
    x = 3 * torch.randn(9, 6, dtype=torch.float64)
    dense = MultivariateNormal(pair.mean, covariance).log_prob(x)
    assert torch.allclose(pair.log_prob(x), dense, rtol=1e-10)


def test_posterior_is_the_conditional_of_the_joint() -> None:
    torch.manual_seed(0)
    pair = pg.models.FactorAnalysis(x=pg.Normal(4), z=pg.Normal(2)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    w, noise = pair.loadings, torch.diag(pair.noise_variance)
    gain = w.T @ torch.linalg.inv(w @ w.T + noise)
    posterior = pair.posterior(x)
    assert torch.allclose(posterior.mean, (x - pair.mean) @ gain.T, rtol=1e-8)
    covariance = torch.eye(2).double() - gain @ w
    assert torch.allclose(posterior.covariance_matrix, covariance.expand(5, 2, 2), rtol=1e-8)
    # Bayes: log p(x) = log p(x, z) - log p(z | x) whatever z.
    z = torch.randn(5, 2, dtype=torch.float64)
    joint = pair.p_z().log_prob(z) + pair.p_x(z=z).log_prob(x)
    assert torch.allclose(joint - posterior.log_prob(z), pair.log_prob(x), rtol=1e-9)


def test_images_and_latents_of_any_shape() -> None:
    pair = pg.models.PPCA(x=pg.Normal((1, 3, 2)), z=pg.Normal((2, 1)))
    x = torch.randn(20, 1, 3, 2)
    assert pair.log_prob(x).shape == (20,)
    pair.set_maximum_likelihood(x)
    assert pg.log_marginal_likelihood(pair, x, num_samples=30).mean == pytest.approx(
        pair.log_prob(x).mean().item(), abs=1e-3
    )


def test_maximum_likelihood_is_scikit_learns() -> None:
    x = pg.load("digits").train["x"].double()
    pair = pg.models.PPCA(x=pg.Normal(64), z=pg.Normal(8)).double().set_maximum_likelihood(x)
    reference = PCA(8, svd_solver="full").fit(x.numpy())
    # scikit-learn divides by n - 1, maximum likelihood by n.
    ours, theirs = pair.log_prob(x).mean().item(), reference.score(x.numpy())
    assert theirs < ours < theirs + 1e-3


def test_no_neighbour_of_the_maximum_is_better() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    pair = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).double().set_maximum_likelihood(x)
    pair.log_prob(x).mean().backward()
    for name, parameter in pair.named_parameters():
        if name.startswith("p_x"):
            assert parameter.grad is not None and parameter.grad.abs().max() < 1e-8, name


def test_as_many_latents_as_elements_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer latents"):
        pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(3)).set_maximum_likelihood(torch.randn(9, 3))


def test_data_without_noise_stay_finite() -> None:
    """Low-rank data drive the noise and the posterior scale to the floor, not to NaN."""
    x = 10 * torch.randn(200, 1) @ torch.ones(1, 3)
    pair = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(x)
    assert all(parameter.isfinite().all() for parameter in pair.parameters())
    assert pair.log_prob(x).isfinite().all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(9, 4), r"x has shape \(9, 4\)"),
        (torch.full((9, 3), torch.nan), "NaN or infinite"),
    ],
)
def test_bad_data(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(x)


def test_numpy_data() -> None:
    x = torch.randn(50, 3, dtype=torch.float64)
    a, b = (pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)) for _ in range(2))
    a.set_maximum_likelihood(x)
    b.set_maximum_likelihood(x.numpy())
    assert torch.equal(a.loadings, b.loadings)
