"""What a score says of itself: k̂ of tied weights, and one voice on what is a lower bound."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.inference.scoring.arviz import pareto_khat
from probgen.inference.scoring.table import table

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")


def binary_latents(seed: int, sharpness: float = 1.0) -> pg.LatentVariableModel:
    """Two binary latents that the guide draws: four states, each with a weight of its own."""
    torch.manual_seed(seed)
    pair = pg.declare(
        "p(z) p(x | z)", "q(z | x)", hidden=(), z=pg.Bernoulli(2), x=pg.Bernoulli(3),
        p_z=pg.Conditional(pg.Bernoulli(2), learned=True),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.normal_(0, 0.7)
        for parameter in pair.q_z.parameters():
            parameter.mul_(sharpness)
    return pair


def enumerated(pair: pg.LatentVariableModel, x: Tensor) -> Any:
    """log Σ_z p(z) p(x | z)."""
    states = [torch.tensor([bits]).float() for bits in itertools.product((0, 1), repeat=2)]
    with torch.no_grad():
        parts = [pair.p_z().log_prob(z) + pair.p_x(z=z).log_prob(x) for z in states]
    return torch.stack(parts).logsumexp(0).double().numpy()


def test_tied_weights_are_bounded_and_their_errors_hold() -> None:
    """Intervals of ±1.96 standard errors cover the sum over all states; k̂ does not deny it."""
    covered, above, signs = [], [], []
    for seed in range(12):
        pair = binary_latents(seed)
        x = pair.sample(60, seed=seed)["x"]
        score = pg.log_marginal_likelihood(pair, x, num_samples=400, seed=seed, device="cpu")
        error = np.abs(score.log_prob - enumerated(pair, x))
        covered.append((error < 1.96 * score.standard_error).mean())
        above.append(score.share_above_threshold)
        signs.append(repr(score).split()[2])
    assert 0.92 < np.mean(covered) < 0.98
    assert np.mean(above) < 0.05
    assert signs.count("=") >= 8


@pytest.mark.parametrize(
    ("weights", "counts", "expected"),
    [
        ([1.0, 2.0], [500, 500], 0.0),
        ([1.0, 2.0], [995, 5], 0.0),  # drawn often enough to know how often it is drawn
        ([1.0, 2.0], [996, 4], np.inf),
        ([1.0, 2.0, 2.01], [500, 498, 2], 0.0),  # rare, but next to nothing of the variance
        ([1.0, 2.0, 200.0], [500, 498, 2], np.inf),
        ([1.0], [1000], -np.inf),
    ],
)
def test_khat_of_tied_weights(weights: Any, counts: Any, expected: float) -> None:
    drawn = np.repeat(np.log(weights), counts)
    rounding = 1e-12 * np.random.default_rng(0).standard_normal(len(drawn))
    for row in (drawn, drawn + rounding, drawn - 700.0):
        assert pareto_khat(row[None])[0] == expected
    if len(weights) == 1:
        assert np.isnan(pareto_khat(drawn[None], discrete=True)[0])


def test_a_nearly_exact_guide_has_ties_at_its_largest_weight() -> None:
    """Gaussian over a slightly wider one: bounded, and in float32 many weights equal the bound."""
    z = 0.1 * np.random.default_rng(0).normal(size=(5, 2000)).astype(np.float32)
    log_weights = -3 - 0.5 * z**2
    assert (pareto_khat(log_weights.astype(np.float64), 100 * 2.0**-23) <= 0).all()


def test_khat_without_ties_is_that_of_arviz() -> None:
    from probgen.inference.scoring.arviz import _fit_tails

    log_weights = np.random.default_rng(0).normal(size=(20, 300)) * np.linspace(0.1, 3, 20)[:, None]
    assert np.array_equal(pareto_khat(log_weights), _fit_tails(log_weights))


def test_one_state_drawn_over_and_over_is_not_exactness() -> None:
    """All weights are equal because the guide draws one state; the others hold most of p(x)."""
    pair = binary_latents(0)
    with torch.no_grad():
        for parameter in pair.q_z.parameters():
            parameter.zero_()
        pair.q_z.network.layers[0].bias.fill_(-20.0)
    x = pair.sample(30, seed=0)["x"]
    score = pg.log_marginal_likelihood(pair, x, num_samples=200, device="cpu")
    assert (score.log_prob < enumerated(pair, x) - 0.1).all() and score.monte_carlo_error == 0
    assert not score.is_exact and score.is_lower_bound
    assert repr(score).startswith("log p(x) >= ") and "not estimated from equal weights" in repr(
        score
    )
    assert "discrete latents that were not drawn" in str(score.warning())


def scored(**changed: Any) -> pg.Score:
    """A score of which nothing bad can be said, but for what is changed."""
    n = 20
    settings: dict[str, Any] = {
        "log_prob": np.linspace(-3, -2, n), "standard_error": np.full(n, 0.02),
        "bias": np.full(n, -0.0002), "ess": np.full(n, 700.0), "khat": np.full(n, 0.2),
        "num_samples": 1000, "measure": "density of x", "transformation": "none", "data_hash": "0",
    }  # fmt: skip
    return pg.Score(**settings | changed)


DOUBTS: dict[str, tuple[dict[str, Any], str]] = {
    "k̂ high": ({"khat": np.repeat([0.2, 0.9], [17, 3])}, "k̂ is above 0.67 for 15% of the data"),
    "bias over the error": ({"bias": np.full(20, -0.05)}, "low by about 0.05 nats per datum"),
    "bias under the error": (
        {"bias": np.full(20, -0.2), "standard_error": np.full(20, 2.0)},
        "low by about 0.2 nats per datum",
    ),
    "few effective samples": ({"ess": np.full(20, 4.0)}, "fewer than 4.0 effective samples"),
    "few samples": (
        {"khat": np.full(20, np.nan), "num_samples": 20},
        "k̂ cannot be estimated from fewer than 25 samples",
    ),
    "one state": ({"khat": np.full(20, np.nan)}, "all draws have the same weight for 100%"),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_a_lower_bound_is_called_one_everywhere(name: str) -> None:
    changed, words = DOUBTS[name]
    score = scored(**changed)
    assert score.is_lower_bound
    assert repr(score).startswith("log p(x) >= -2.50 nats per datum")
    assert f"  note  {score.warning()}" in repr(score).splitlines()
    assert words in str(score.warning()) and "only a lower bound" in str(score.warning())
    lines = table({"doubted": score, "sure": scored()}).splitlines()
    assert ">= -2.50" in next(line for line in lines if line.startswith("doubted"))
    assert ">=" not in next(line for line in lines if line.startswith("sure"))
    assert any(line.startswith(">= doubted: ") and words in line for line in lines)


def test_what_is_no_lower_bound_is_called_so_nowhere() -> None:
    data = pg.Dataset({"x": torch.zeros(20, 1)})
    exact = pg.Score.closed_form(np.linspace(-3, -2, 20), data)
    mostly = scored(khat=np.repeat([0.2, 0.9, np.nan], [17, 2, 1]))
    for score in (scored(), exact, mostly, scored(khat=np.full(20, -np.inf))):
        assert not score.is_lower_bound and score.warning() is None
        assert repr(score).startswith("log p(x) = ") and "note" not in repr(score)
        assert ">=" not in table({"model": score})


def test_low_khat_certifies_nothing_and_the_documentation_says_so() -> None:
    """Half of the posterior is never drawn: k̂ low, intervals far off, the number below the truth."""
    rng = np.random.default_rng(0)
    z = rng.normal(-6, 1.0, size=(50, 1000))  # of a posterior of two modes, −6 and 6, one is drawn
    log_weights = np.logaddexp(-0.5 * (z + 6) ** 2, -0.5 * (z - 6) ** 2) + 0.5 * (z + 6) ** 2
    log_weights += np.log(0.5) + 0.05 * rng.normal(size=z.shape)
    found = np.log(np.exp(log_weights).mean(1))
    assert (pareto_khat(log_weights) < 0.5).all()
    assert (found < np.log(0.6)).all()  # the truth is 0
    for documented in (pg.Score, pg.log_marginal_likelihood):
        assert "misses a part of the posterior" in " ".join(str(documented.__doc__).split())
