"""Latents that are transformations of Gaussians: log p(x) in closed form, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.distributions import transforms as T

import probgen as pg

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")

SLOPE, NOISE = 2.0, 0.5


def log_normal(loc: Tensor, scale: Tensor) -> Any:
    return dist.LogNormal(loc, scale).to_event(1)


def transformed(*transforms: Any) -> Callable[[Tensor, Tensor], Any]:
    def family(loc: Tensor, scale: Tensor) -> Any:
        base = dist.Normal(loc, scale)
        made = dist.TransformedDistribution(base, list(transforms))
        return made if made.event_shape else made.to_event(1)

    return family


def nested(loc: Tensor, scale: Tensor) -> Any:
    """A transformation of an event of transformed elements, masked, under further wrappers."""
    inner = dist.LogNormal(loc, scale).to_event(1).mask(torch.tensor(True))
    return dist.TransformedDistribution(inner, [T.AffineTransform(1.0, 2.0)]).mask(True)


def expanded(loc: Tensor, scale: Tensor) -> Any:
    made = dist.LogNormal(loc, scale).to_event(1)
    return dist.ExpandedDistribution(made, made.batch_shape)


FAMILIES: dict[str, tuple[Callable[[Tensor, Tensor], Any], list[Any]]] = {
    "Gaussian": (lambda loc, scale: dist.Normal(loc, scale).to_event(1), []),
    "log-normal": (log_normal, [T.ExpTransform()]),
    "affine": (transformed(T.AffineTransform(1.0, -2.0)), [T.AffineTransform(1.0, -2.0)]),
    "several": (
        transformed(T.AffineTransform(1.0, -2.0), T.TanhTransform()),
        [T.AffineTransform(1.0, -2.0), T.TanhTransform()],
    ),
    "stick-breaking": (transformed(T.StickBreakingTransform()), [T.StickBreakingTransform()]),
    "nested": (nested, [T.ExpTransform(), T.AffineTransform(1.0, 2.0)]),
    "expanded": (expanded, [T.ExpTransform()]),
}


class Transformed(pg.LatentVariableModel):
    """x | z ~ N(2 u, 0.5²) with u the Gaussian behind z, so that x ~ N(0, 2² + 0.5²).

    The guide has the mean of the posterior of u and a larger scale.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.family, transforms = FAMILIES[name]
        self.back = T.ComposeTransform(transforms).inv
        self.register_buffer("zero", torch.zeros(3))

    def model(self, x: Any = None, z: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            z = pyro.sample("z", self.family(self.zero, self.zero + 1), obs=z)
            pyro.sample("x", dist.Normal(SLOPE * self.back(z), NOISE).to_event(1), obs=x)

    def guide(self, x: Any = None, z: Any = None) -> None:
        variance = SLOPE**2 + NOISE**2
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            scale = 0 * x + 1.3 * NOISE / variance**0.5
            pyro.sample("z", self.family(x * SLOPE / variance, scale))


def exact(x: Tensor) -> Any:
    return dist.Normal(0.0, (SLOPE**2 + NOISE**2) ** 0.5).log_prob(x).sum(-1).numpy()


@pytest.mark.parametrize("draws", ["iid", "rqmc"])
@pytest.mark.parametrize("name", FAMILIES)
def test_log_prob_is_that_of_the_closed_form(name: str, draws: Any) -> None:
    x = torch.randn(6, 3, dtype=torch.float64)
    score = pg.log_marginal_likelihood(
        Transformed(name), x, num_samples=2048, draws=draws, precision="float64", device="cpu"
    )
    error = score.log_prob - exact(x)
    assert (np.abs(error) < 5 * score.standard_error).all()
    assert score.standard_error.max() < (0.005 if draws == "rqmc" else 0.05)


class Classifying(pg.LatentVariableModel):
    """q(z | x) log-normal, q(y | z) with logits (0, log z): averaged over z by quadrature."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def model(self, x: Any = None, y: Any = None, z: Any = None) -> None:
        zero = torch.zeros(1)
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=torch.zeros(2)), obs=y)
            z = pyro.sample("z", log_normal(zero, zero + 1), obs=z)
            pyro.sample("x", dist.Normal(z.log(), 1.0).to_event(1), obs=x)

    def guide(self, x: Any = None, y: Any = None, z: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            z = pyro.sample("z", log_normal(x, 0 * x + 1.5))
            logits = torch.cat([0 * z, z.log()], -1)
            pyro.sample("y", dist.Categorical(logits=logits))


def test_class_probabilities_average_over_the_transformed_latent() -> None:
    x = torch.tensor([[-1.0], [0.0], [2.0]])
    found = pg.class_probabilities(Classifying(), {"x": x}, num_samples=4096, draws="rqmc")
    grid = torch.linspace(-9, 9, 4001)
    density = torch.exp(-0.5 * grid**2)
    share = ((x + 1.5 * grid).sigmoid() * density).sum(1) / density.sum()
    assert torch.allclose(found[:, 1], share, atol=2e-4)


class OwnDraws(dist.Normal):
    """A Gaussian by name whose draws are of another family."""

    def rsample(self, sample_shape: Any = ()) -> Any:
        return super().rsample(sample_shape).exp()


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (lambda loc, scale: OwnDraws(loc, scale).to_event(1), "OwnDraws"),
        (lambda loc, scale: dist.Laplace(loc, scale).to_event(1), "Laplace"),
        (
            lambda loc, scale: dist.TransformedDistribution(
                dist.Laplace(loc, scale), [T.ExpTransform()]
            ).to_event(1),
            "Laplace",
        ),
        (lambda loc, scale: dist.MultivariateNormal(loc, torch.eye(3)), "MultivariateNormal"),
    ],
)
def test_other_families_are_refused(family: Any, words: str) -> None:
    pair = Transformed("Gaussian")
    pair.family = family
    with pytest.raises(ValueError, match=f'draws z from {words}. Use draws="iid"'):
        pg.log_marginal_likelihood(pair, torch.zeros(2, 3), num_samples=64, draws="rqmc")


def test_features_add_gaussian_noise_to_gaussians_only() -> None:
    data = pg.Dataset({"x": torch.randn(4, 3)})
    pair = Transformed("log-normal")
    with pytest.raises(ValueError, match="adds Gaussian noise, but the guide draws z from LogN"):
        pg.features(pair, data, redraw=True)
    mean = pg.features(pair, data)["x"]  # of a log-normal: exp(loc + scale² / 2)
    variance = SLOPE**2 + NOISE**2
    log_mean = data["x"] * SLOPE / variance + (1.3 * NOISE) ** 2 / variance / 2
    assert torch.allclose(mean, log_mean.exp())
    assert pg.features(Transformed("Gaussian"), data, redraw=True).spread["x"].shape == (4, 3)


@pytest.mark.parametrize("name", ["several", "stick-breaking"])
def test_a_family_without_a_mean_says_so(name: str) -> None:
    pair, data = Transformed(name), pg.Dataset({"x": torch.randn(4, 3)})
    for call in (pg.encode, pg.features, pg.reconstruct):
        with pytest.raises(
            ValueError, match=r"z is drawn from Transformed.*no mean in closed form"
        ):
            call(pair, data)
    pair = Transformed("Gaussian")
    pair.family = lambda loc, scale: dist.Cauchy(loc, scale).to_event(1)
    with pytest.raises(ValueError, match="z is drawn from Cauchy, which has no mean"):
        pg.encode(pair, data)


def test_closed_form_kl_is_the_expectation() -> None:
    """Of log-normals it is that of the Gaussians; of what folds, torch's is none."""
    x = torch.randn(5, 3)
    pair = Transformed("log-normal")
    torch.manual_seed(1)
    sampled = torch.stack([pg.ELBO(2000)(pair, {"x": x}) for _ in range(20)])
    closed = torch.stack([pg.ELBO(2000, analytic_kl=True)(pair, {"x": x}) for _ in range(20)])
    error = (sampled.var(0) / 20 + closed.var(0) / 20).sqrt()
    assert ((sampled.mean(0) - closed.mean(0)).abs() < 4.5 * error).all()


class Folded(Transformed):
    """z = |u|, and x | z ~ N(2 z, 0.5²)."""

    def __init__(self) -> None:
        super().__init__("Gaussian")
        self.family = lambda loc, scale: dist.FoldedDistribution(dist.Normal(loc, scale)).to_event(
            1
        )


def test_closed_form_kl_of_folded_gaussians_is_left_to_draws() -> None:
    pair, x = Folded(), torch.randn(5, 3)
    q, p = (pair.family(torch.full((3,), loc), torch.ones(3)) for loc in (0.3, 0.0))
    z = q.sample((20_000,))
    true = float((q.log_prob(z) - p.log_prob(z)).mean())
    assert (
        float(kl_divergence(q.base_dist, p.base_dist).sum()) > 1.5 * true
    )  # what must not be taken
    torch.manual_seed(1)
    one = pg.ELBO(500)(pair, {"x": x})
    torch.manual_seed(1)
    assert torch.allclose(one, pg.ELBO(500, analytic_kl=True)(pair, {"x": x}))
