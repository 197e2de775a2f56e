"""Pictures that vary a latent stay in the support of its prior, at quantiles derived by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import probgen as pg

N = 4
NORMAL = np.array([-1.1503494, -0.3186394, 0.3186394, 1.1503494])  # Φ⁻¹ of 1/8, 3/8, 5/8, 7/8


class LogNormal(pg.Variable):
    def distribution(self, outputs: Tensor) -> Any:
        return dist.LogNormal(outputs, 1.0)


class Shifted(pg.Variable):
    def distribution(self, outputs: Tensor) -> Any:
        return dist.Normal(outputs + 100.0, 0.01)


class Laplace(pg.Variable):
    def distribution(self, outputs: Tensor) -> Any:
        return dist.Laplace(outputs, 1.0)


class Gamma(pg.Variable):
    def distribution(self, outputs: Tensor) -> Any:
        return dist.Gamma(outputs.exp(), 1.0)


class Identity(torch.nn.Module):
    """Pixels that are the latent's elements, so that a picture shows its grid."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([z[..., :1], z[..., 1:], z[..., :1], z[..., 1:]], -1).flatten(-2)


def pair(prior: pg.Variable) -> pg.LatentVariableModel:
    torch.manual_seed(0)
    x = pg.Normal(4, scale="shared")
    return pg.declare(
        "p(z) p(x | z)", "q(z | x)", hidden=(4,), z=prior, x=x,
        p_x=pg.Conditional(x, {"z": prior}, network=Identity()),
    )  # fmt: skip


def laplace(u: float) -> float:
    share = torch.special.ndtr(torch.tensor(u, dtype=torch.float64)).item()
    return float(np.log(2 * share) if share < 0.5 else -np.log(2 - 2 * share))


PRIORS = [
    (pg.Normal(2), lambda u: u),
    (LogNormal(2), np.exp),
    (Shifted(2), lambda u: 100 + 0.01 * u),
    (Laplace(2), np.vectorize(laplace)),
]


@pytest.mark.parametrize(("prior", "value"), PRIORS)
def test_the_manifold_lies_in_the_prior(prior: pg.Variable, value: Any) -> None:
    ax = pg.plots.manifold(pair(prior), n=N)
    canvas = np.asarray(ax.get_images()[0].get_array())  # cells of 2 x 2 pixels, one between them
    expected = value(NORMAL)
    assert np.allclose(canvas[0, ::3], expected, rtol=1e-5)  # the first element, from left to right
    assert np.allclose(canvas[::3, 1], expected[::-1], rtol=1e-5)  # the second, from below
    ticks = [float(text.get_text()) for text in ax.get_xticklabels()]
    assert len(set(ticks)) == N and np.allclose(sorted(set(ticks)), expected, rtol=0.06, atol=0.06)


@pytest.mark.parametrize(("prior", "value"), PRIORS)
def test_traversals_lie_in_the_prior(prior: pg.Variable, value: Any) -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    ax = pg.plots.traversals(pair(prior), x, steps=5, span=2.0, are_images=False)
    expected = value(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    assert np.allclose(ax.lines[0].get_xdata(), expected, rtol=1e-4, atol=1e-6)
    assert any(np.allclose(line.get_ydata(), expected, rtol=1e-4, atol=1e-6) for line in ax.lines)


def test_a_prior_without_quantiles_is_refused() -> None:
    gamma, x = pair(Gamma(2)), torch.randn(5, 4)
    with pytest.raises(
        ValueError, match=r"manifold: needs a prior whose elements are independent .*latent_scatter"
    ):
        pg.plots.manifold(gamma, n=2)
    with pytest.raises(ValueError, match=r"traversals: needs a prior whose elements"):
        pg.plots.traversals(gamma, x)


def test_a_report_says_which_pictures_have_no_quantiles(tmp_path: Path) -> None:
    gamma, x = pair(Gamma(2)), torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    pg.fit(gamma, x, num_epochs=1, run_dir=tmp_path / "run", progress=False)
    data = pg.Splits(pg.Dataset({"x": x}))
    found = pg.plots.report(pg.load_run(tmp_path / "run", pair=gamma), data=data)
    assert "no quantiles" in found.skipped["traversals"] and "latent_scatter" in found.written
