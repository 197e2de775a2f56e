"""Randomized quasi-Monte Carlo: errors against exact answers, and what has no quasi-random points."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.inference.sobol import RANDOMIZATIONS, gaussian_noise, rounded
from probgen.inference.traces import trace_pair
from tests.fitting import QUICK, structured, vae
from tests.pairs import CASES, labels

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")


@cache
def fitted() -> tuple[pg.models.FactorAnalysis, Tensor]:
    """A linear-Gaussian pair of two latents whose diagonal guide is as good as such a guide can be."""
    torch.manual_seed(0)
    pair = pg.models.FactorAnalysis(x=pg.Normal(6), z=pg.Normal(2))
    for parameter in pair.parameters():
        parameter.data.normal_(0, 0.3)
    x = pair.sample(500, seed=1)["x"]
    guide = [p for name, p in pair.named_parameters() if name.startswith("q_")]
    pg.fit(pair, x, num_epochs=200, objective="analytic-kl", device="cpu", progress=False,
           optimizer=lambda _: torch.optim.Adam(guide, lr=1e-2))  # fmt: skip
    return pair, x[:20]


def scores(draws: Any, num_samples: int, seeds: int, **settings: Any) -> list[pg.Score]:
    pair, x = fitted()
    return [
        pg.log_marginal_likelihood(
            pair,
            x,
            num_samples=num_samples,
            draws=draws,
            seed=seed,
            precision="float64",
            **settings,
        )
        for seed in range(seeds)
    ]


def exact() -> pg.Score:
    return pg.log_marginal_likelihood(*fitted(), method="exact", precision="float64")


def test_errors_are_as_stated_and_smaller_than_of_independent_draws() -> None:
    truth = exact()
    found = {draws: scores(draws, 4096, 20) for draws in ("iid", "rqmc")}
    errors = {d: np.array([s.log_prob - truth.log_prob for s in found[d]]) for d in found}
    rms = {d: np.sqrt((errors[d] ** 2).mean()) for d in found}
    assert rms["rqmc"] < 0.4 * rms["iid"]  # a datum's
    stated = np.sqrt(np.mean([s.standard_error**2 for s in found["rqmc"]]))
    assert 0.6 < stated / rms["rqmc"] < 1.7
    # The points are shared, so averaging over data averages nothing away, and the score says so.
    average = np.sqrt(np.mean([(s.mean - truth.mean) ** 2 for s in found["rqmc"]]))
    stated = np.mean([s.monte_carlo_error for s in found["rqmc"]])
    assert 0.6 < stated / average < 1.7
    naive = np.mean([np.sqrt((s.standard_error**2).sum()) / 20 for s in found["rqmc"]])
    assert naive < 0.5 * average


def test_the_error_falls_faster_than_that_of_independent_draws() -> None:
    """A factor of 16 in K: a quarter for independent draws, less than a seventh here."""
    truth = exact()

    def rms(num_samples: int) -> float:
        found = scores("rqmc", num_samples, 10)
        return float(np.sqrt(np.mean([(s.log_prob - truth.log_prob) ** 2 for s in found])))

    assert rms(8192) < rms(512) / 7


def test_what_a_score_says() -> None:
    score = scores("rqmc", 1000, 1)[0]
    assert score.num_samples == 1024 and "K=1024, 16 scrambles of Sobol points" in repr(score)
    assert score.replicates is not None and score.replicates.shape == (16, 20)
    assert np.allclose(score.replicates.mean(0), 1)
    assert scores("iid", 1000, 1)[0].replicates is None
    assert [rounded(n) for n in (2, 40, 100, 4096, 5000)] == [32, 32, 96 + 32, 4096, 4096]


def test_draws_are_rounded_to_the_nearest() -> None:
    allowed = [RANDOMIZATIONS * 2**m for m in range(1, 12)]
    for n in range(2, 20_000):
        assert rounded(n) == min(allowed, key=lambda k: (abs(k - n), k))
    assert rounded(1500) == 1024 and rounded(1537) == 2048 and rounded(1536) == 1024


def test_seeds_and_the_global_state() -> None:
    before = torch.get_rng_state()
    a, b = scores("rqmc", 64, 2)
    again = scores("rqmc", 64, 1)[0]
    assert np.array_equal(a.log_prob, again.log_prob) and not np.allclose(a.log_prob, b.log_prob)
    assert torch.equal(torch.get_rng_state(), before)
    assert scores("rqmc", 64, 1, compile=False)[0].mean == pytest.approx(a.mean, rel=1e-12)


@pytest.mark.parametrize("name", ["M2", "hierarchical", "Gaussian mixture VAE", "auxiliary"])
def test_other_pairs_agree_with_independent_draws(name: str) -> None:
    """Several latents, classes summed inside the weight, auxiliary ones."""
    case = CASES[name]
    torch.manual_seed(0)
    pair, data = case.build(), pg.Dataset(case.data(5))
    if case.label:
        data = pg.Dataset(data.values, observed={case.label: torch.tensor([1, 0, 1, 0, 0]).bool()})
    one, other = (
        pg.log_marginal_likelihood(
            pair, data, num_samples=2**15, draws=draws, precision="float64", seed=3
        )
        for draws in ("iid", "rqmc")
    )
    error = np.hypot(one.standard_error, other.standard_error)
    assert (np.abs(one.log_prob - other.log_prob) < 4 * error + 1e-9).all()


def test_points_are_gaussian_and_fill_every_scramble_evenly() -> None:
    pair, x = fitted()
    trace = trace_pair(pair, {"x": x[:1]})
    noise = gaussian_noise(trace, 4096, 0, torch.device("cpu"), torch.float64)["z"]
    assert noise.shape == (4096, 1, 2) and bool(noise.isfinite().all())
    uniform = torch.special.ndtr(noise).reshape(RANDOMIZATIONS, 256, 2)
    counts = torch.stack([torch.histc(u[:, i], 256, 0, 1) for u in uniform for i in (0, 1)])
    assert bool((counts == 1).all())  # one point in each of 256 intervals of every coordinate
    assert not torch.equal(uniform[0], uniform[1])


def test_a_pair_without_drawn_latents_is_summed_as_ever() -> None:
    pair, data = CASES["mixture"].build(), {"x": torch.randn(4, 6)}
    a, b = (
        pg.log_marginal_likelihood(pair, data, num_samples=64, draws=draws)
        for draws in ("iid", "rqmc")
    )
    assert np.array_equal(a.log_prob, b.log_prob) and b.is_exact and b.replicates is None


def test_runs_keep_the_replicates(tmp_path: Path) -> None:
    pg.fit(vae(), structured(16), num_epochs=1, run_dir=tmp_path, **QUICK)
    run = pg.load_run(tmp_path)
    score = pg.log_marginal_likelihood(run.pair, structured(8), num_samples=64, draws="rqmc")
    run.save_score(score, "few")
    kept = pg.load_run(tmp_path).scores["few"]
    assert kept.replicates is not None and np.array_equal(kept.replicates, score.replicates)  # type: ignore[arg-type]
    assert kept.monte_carlo_error == score.monte_carlo_error


def test_refused() -> None:
    pair, x = fitted()
    with pytest.raises(ValueError, match='draws must be "iid" or "rqmc", got \'sobol\''):
        pg.log_marginal_likelihood(pair, x, draws="sobol")  # type: ignore[arg-type]
    binary = CASES["binary latents"]
    with pytest.raises(
        ValueError, match=r'"rqmc" is for Gaussian latents and .*, but the guide draws z from'
    ):
        pg.log_marginal_likelihood(binary.build(), binary.data(3), draws="rqmc")
    large = pg.declare("p(y) p(z) p(x | y, z)", "q(z | x, y)", hidden=(), y=pg.Categorical(2),
                       z=pg.Normal(21202), x=pg.Normal(2, scale=1.0))  # fmt: skip
    with pytest.raises(ValueError, match="at most 21,201 elements of all latents, got 21,202"):
        pg.log_marginal_likelihood(
            large, {"x": torch.zeros(2, 2), "y": labels(2) % 2}, draws="rqmc"
        )
